"""Decoding on the fast path: any batch answers as each prompt alone does, shared prefixes are read once, vLLM by a stand-in."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import talkative

from text2sql import answering, data, decoding, fast_path, generation, model, prefixes, steps, vllm_engine
from text2sql.attention import Cache
from text2sql.config import Device
from text2sql.prefixes import Group

pytestmark = pytest.mark.usefixtures("one_thread")

EOS, PAD = 2, 0
TOKENS = st.integers(5, 300)
ROWS = st.lists(st.lists(TOKENS, min_size=1, max_size=40), min_size=1, max_size=6)
SHARING = st.builds(
    lambda prefix, tails: [prefix + tail for tail in tails],
    st.lists(TOKENS, max_size=30),
    st.lists(st.lists(TOKENS, min_size=1, max_size=8), min_size=1, max_size=4),
)
MIXED = st.builds(lambda a, b, c: a + b + c, ROWS, SHARING, SHARING)


@pytest.fixture(scope="module", params=["none", "nf4"])
def pair(small, request):
    """The same adapted model plain and on the fast path, whose adapter changes what it says."""
    plain = talkative(small("phase=2", f"quant={request.param}"))
    fast = copy.deepcopy(plain)
    assert fast_path.switch_on(fast, torch.float32)
    return plain, fast


def decode(network, rows, max_new_tokens=6, eos=EOS, **settings):
    found = list(
        decoding.decode(
            network, rows, max_new_tokens=max_new_tokens, eos_token_id=eos, pad_token_id=PAD, graphs=False, **settings
        )
    )
    assert sorted(i for i, _ in found) == list(range(len(rows)))
    return [ids for _, ids in sorted(found)]


def plain_answer(network, row, max_new_tokens, eos):
    with generation.inference(network, "fp32"):
        output = network.generate(
            input_ids=torch.tensor([row]),
            attention_mask=torch.ones(1, len(row), dtype=torch.long),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=eos,
            pad_token_id=PAD,
        )
    answer = output[0, len(row) :].tolist()
    return answer[: answer.index(eos)] if eos in answer else answer


@pytest.fixture(scope="module")
def rows():
    """Two schemas with their questions, loners, one token alone, the same prompt twice, and one the beginning of another."""
    torch.manual_seed(1)
    draw = lambda count: torch.randint(5, 300, (count,)).tolist()  # noqa: E731
    first, second = draw(40), draw(90)
    return [
        *(first + draw(3 + k) for k in range(4)),
        *(second + draw(9 - k) for k in range(5)),
        *(draw(length) for length in (70, 7, 2)),
        [7],
        [7],
        [7, 8],
        first,
        second[:50],
    ]


@pytest.fixture(scope="module")
def frequent(pair, rows):
    """A token that ends some answers early, some late and some never, when it is taken for EOS."""
    said = [token for ids in decode(pair[1], rows, 12) for token in ids]
    return max(sorted(set(said)), key=said.count)


@pytest.mark.parametrize("max_cache_tokens", [None, 1, 200, 700])
def test_any_batch_says_what_generate_says_to_each_prompt_alone(pair, rows, frequent, max_cache_tokens):
    plain, fast = pair
    alone = [plain_answer(plain, row, 12, frequent) for row in rows]
    assert len({tuple(ids) for ids in alone}) > len(rows) // 2, "answers must depend on their prompts"
    assert min(map(len, alone)) < 3 and max(map(len, alone)) == 12, "some must end early and some never"
    assert decode(fast, rows, 12, frequent, max_cache_tokens=max_cache_tokens) == alone


@settings(max_examples=25)
@given(MIXED, st.randoms(use_true_random=False), st.sampled_from([None, 64, 192, 600]))
def test_a_batch_answers_as_its_rows_do_alone_in_any_order_and_grouping(pair, rows, rng, max_cache_tokens):
    fast = pair[1]
    rng.shuffle(rows)
    eos = decode(fast, rows[:1], 4)[0][-1:] or [EOS]
    alone = [decode(fast, [row], eos=eos[0])[0] for row in rows]
    assert decode(fast, rows, eos=eos[0], max_cache_tokens=max_cache_tokens) == alone


def test_an_answer_that_begins_with_eos_is_empty(pair):
    row = [9, 10, 11]
    (first,) = decode(pair[1], [row], 1)
    assert len(first) == 1
    assert decode(pair[1], [row, [200, 201]], 5, eos=first[0])[0] == []


def test_no_rows_no_answers(pair):
    assert decode(pair[1], []) == []


def counted(network, rows, max_new_tokens=1):
    """How many tokens go through the layers of the model."""
    seen = []
    layer = network.get_base_model().model.layers[0]
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[:2].numel()))
    decode(network, rows, max_new_tokens)
    hook.remove()
    return sum(seen)


def test_a_prefix_that_rows_share_goes_through_the_model_once(pair):
    prefix = list(range(10, 110))
    rows = [[*prefix, 200 + k, 210] for k in range(9)]
    assert counted(pair[1], rows) == 100 + 9 * 2
    assert counted(pair[1], [[k, *prefix] for k in range(200, 204)]) == 4 * 101, "they share none"


def test_rows_that_have_ended_are_dropped_on_a_cpu(pair, rows, frequent):
    tokens = counted(pair[1], rows, 12) - counted(pair[1], rows, 1)
    assert tokens == 11 * len(rows)
    seen = []
    hook = pair[1].get_base_model().model.layers[0].register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[0]))
    decode(pair[1], rows, 12, frequent)
    hook.remove()
    steps = [n for n in seen if n > 1]
    assert steps == sorted(steps, reverse=True) and steps[-1] < steps[0]


def test_long_prompts_are_read_in_several_passes(pair, rows, monkeypatch):
    whole = decode(pair[1], rows)
    monkeypatch.setattr(steps, "CPU_PREFILL_TOKENS", 64)
    assert decode(pair[1], rows) == whole


# Which rows share


@given(MIXED)
def test_groups_hold_every_row_once_and_share_what_they_say(rows):
    groups = prefixes.group(rows)
    assert sorted(i for one in groups for i in one.rows) == list(range(len(rows)))
    for one in groups:
        assert all(one.shared < len(rows[i]) for i in one.rows)
        assert len({tuple(rows[i][: one.shared]) for i in one.rows}) == 1


def test_schemas_are_shared_and_an_instruction_alone_is_not():
    instruction, one, two = [1] * 10, [2] * 80, [3] * 80
    rows = [instruction + schema + [50 + k] * 5 for k in range(3) for schema in (one, two)]
    assert sorted(map(sorted, (g.rows for g in prefixes.group(rows)))) == [[0, 2, 4], [1, 3, 5]]
    assert {g.shared for g in prefixes.group(rows)} == {90}
    loners = [instruction + [60 + k] * 80 for k in range(5)]
    assert all(len(g.rows) == 1 for g in prefixes.group(loners))


@given(MIXED, st.integers(1, 500), st.integers(1, 5), st.integers(1, 30))
def test_batches_hold_every_row_once_within_their_bounds(rows, max_cache_tokens, max_rows, max_new_tokens):
    found = prefixes.batches(
        rows,
        prefixes.group(rows),
        max_new_tokens=max_new_tokens,
        max_cache_tokens=max_cache_tokens,
        max_rows=max_rows,
    )
    assert sorted(i for batch in found for i in batch.rows) == list(range(len(rows)))
    for batch in found:
        assert len(batch.rows) <= max_rows
        assert len(batch.rows) * batch.room <= max_cache_tokens or len(batch.rows) == 1
        assert batch.room >= max(len(rows[i]) for i in batch.rows) + max_new_tokens


def test_the_longest_rows_come_first():
    rows = [[k] * (5 + 20 * k) for k in range(5)]
    found = prefixes.batches(rows, [Group(0, (k,)) for k in range(5)], max_new_tokens=1, max_cache_tokens=1, max_rows=9)
    assert [batch.rows for batch in found] == [[4], [3], [2], [1], [0]]


@pytest.mark.parametrize(("max_rows", "sizes"), [(99, {34, 32}), (30, {25})])
def test_recorded_batches_have_one_size(max_rows, sizes):
    plan = decoding._plan([[1] * (1 + k % 50) for k in range(100)], 10, 64 * 40, max_rows, even=True)
    assert {len(batch.rows) for batch in plan} == sizes
    assert max(batch.room for batch in plan) == 64


def test_moved_slots_keep_what_they_hold():
    cache = Cache(torch.randn(2, 5, 1, 8, 4), torch.randn(2, 5, 1, 8, 4))
    keys, values = cache.keys.clone(), cache.values.clone()
    kept = cache.keep(torch.tensor([1, 2, 4]), 6)
    assert torch.equal(kept.keys[..., :6, :], keys[:, [1, 2, 4], :, :6])
    assert torch.equal(kept.values[..., :6, :], values[:, [1, 2, 4], :, :6])
    assert kept.keys.data_ptr() == cache.keys.data_ptr(), "no second cache is made"


# Graphs


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_recorded_step_says_what_a_launched_one_does(pair, rows, frequent):
    fast = copy.deepcopy(pair[0]).cuda()
    fast_path.switch_on(fast, torch.float32)
    settings = {"max_new_tokens": 12, "eos_token_id": frequent, "pad_token_id": PAD, "max_cache_tokens": 1000}
    launched = dict(decoding.decode(fast, rows, graphs=False, **settings))
    assert dict(decoding.decode(fast, rows, graphs=True, **settings)) == launched


# vLLM


@pytest.fixture
def fake_vllm(monkeypatch):
    """A vllm that records what it is asked and says the prompt's first three tokens."""
    asked = SimpleNamespace()

    class LLM:
        def __init__(self, **settings):
            asked.engine = settings

        def generate(self, inputs, params, lora_request):
            asked.inputs, asked.params, asked.lora = inputs, params, lora_request
            return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=one["prompt_token_ids"][:3])]) for one in inputs]

    vllm, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    vllm.LLM, vllm.SamplingParams = LLM, lambda **settings: settings
    request.LoRARequest = lambda *settings: settings
    for module in (vllm, lora, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return asked


def on_gpu(config):
    return replace(config, hardware=replace(config.hardware, device=Device.cuda))


@pytest.mark.parametrize("quant, asked_for", [("nf4", "bitsandbytes"), ("none", None)])
@pytest.mark.parametrize("adapter", [None, Path("outputs/run/adapter")])
def test_vllm_is_asked_for_what_the_native_engine_does(small, fake_vllm, quant, asked_for, adapter):
    config = on_gpu(small("phase=2", f"quant={quant}", "trainer.max_length=512"))
    vllm_engine.check(config)
    tokenizer = model.load_tokenizer(config.model)
    rows = [tokenizer.encode("SELECT a FROM b"), tokenizer.encode(" x y z ")]
    found = list(vllm_engine.generate(config, tokenizer, rows, adapter=adapter))
    assert found == [(i, tokenizer.decode(row[:3]).strip()) for i, row in enumerate(rows)]
    assert fake_vllm.engine == {
        "model": model.resolve(config.model),
        "revision": None,
        "dtype": "float32",
        "quantization": asked_for,
        "max_model_len": 512,
        "enable_lora": adapter is not None,
        "max_lora_rank": 16,
        "seed": 42,
    }
    assert fake_vllm.inputs == [{"prompt_token_ids": row} for row in rows]
    stop = [tokenizer.eos_token_id]
    assert fake_vllm.params == {"temperature": 0.0, "max_tokens": 64, "stop_token_ids": stop}
    assert fake_vllm.lora == (adapter and ("adapter", 1, str(adapter)))


def test_an_evaluation_asks_the_engine_that_it_names(small, fake_vllm, monkeypatch):
    config = on_gpu(small("eval.engine=vllm", primary="evaluate"))
    monkeypatch.setattr(model, "check_device", lambda hardware: None)
    examples = data.load(config.data, "test", seed=1).examples
    answers = answering.answer(answering.Speaker(config), examples, runner=None)
    assert len(fake_vllm.inputs) == len(answers) == len(examples)
    assert all(one["answer"] and one["answer"] in one["prompt"] for one in answers)
    assert fake_vllm.lora is None


@pytest.mark.parametrize("fast", [True, False])
def test_an_evaluation_takes_the_fast_path_unless_hardware_says_otherwise(small, fast):
    config = small(f"hardware.fast_path={str(fast).lower()}", primary="evaluate")
    assert fast_path.is_on(answering.network(config, None)) is fast


def test_without_vllm_the_cure_is_named(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[vllm\]'"):
        vllm_engine.check(on_gpu(small()))


def test_vllm_refuses_what_it_cannot_run(small, fake_vllm):
    config = small()
    with pytest.raises(ValueError, match="hardware=cpu"):
        vllm_engine.check(config)
    with pytest.raises(ValueError, match="quant=nf4"):
        vllm_engine.check(on_gpu(replace(config, quant=replace(config.quant, load_in_4bit=False, load_in_8bit=True))))
