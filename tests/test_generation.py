"""Answers: the SQL in a text, batches against single prompts, and a model that is afterwards as it was."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from text2sql import constraint, data, decoding, fast_path, generation, model, prompts, seeds, upstream

pytestmark = pytest.mark.usefixtures("one_thread")

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

FENCES = [
    ("SELECT 1", "SELECT 1"),
    ("  SELECT 1;\n", "SELECT 1;"),
    ("```\nSELECT 1\n```", "SELECT 1"),
    ("```sql\nSELECT 1\n```", "SELECT 1"),
    ("```SQL\nSELECT 1\n```", "SELECT 1"),
    ("```sqlite\nSELECT 1\n```", "SELECT 1"),
    ("```sql SELECT 1```", "SELECT 1"),
    ("Here it is:\n```sql\nSELECT 1\nFROM t\n```\nIt counts.", "SELECT 1\nFROM t"),
    ("```sql\nSELECT 1\n```\nor\n```sql\nSELECT 2\n```", "SELECT 1"),
    ("```sql\nSELECT 1\nFROM t", "SELECT 1\nFROM t"),
    ("Here it is:\n```\nSELECT 1", "SELECT 1"),
    ("", ""),
]


@pytest.mark.parametrize("text, sql", FENCES)
def test_the_sql_is_the_first_fenced_block_or_else_the_whole_answer(text, sql):
    assert generation.extract_sql(text) == sql


@unhurried
@given(st.text().filter(lambda text: "```" not in text))
def test_an_answer_without_a_fence_is_only_stripped(text):
    assert generation.extract_sql(text) == text.strip()


@unhurried
@given(st.text(alphabet="SELECT'`\n ;*", max_size=30).filter(lambda sql: "```" not in f"{sql}\n"))
def test_what_stands_in_a_fence_comes_back(sql):
    assert generation.extract_sql(f"Sure.\n```sql\n{sql}\n```\nDone.") == sql.strip()


def adapted(config):
    """An adapted model, in training mode as a trainer leaves it, whose adapter changes what it says."""
    torch.manual_seed(0)
    network = model.new_adapter(model.load_base(config), config.lora)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return network.train()


@pytest.fixture(scope="module")
def config(small):
    return small("phase=2", "data.max_test_samples=9")


@pytest.fixture(scope="module")
def tokenizer(config):
    return model.load_tokenizer(config.model)


@pytest.fixture(scope="module")
def rows(config, tokenizer):
    """Prompts of many lengths: some with their schema, some with the question alone."""
    examples = data.load(config.data, "test", seed=1).examples
    whole = [prompts.encode_prompt(tokenizer, example, config).ids for example in examples]
    return [ids if i % 3 else ids[:1] + ids[-20 - 5 * i :] for i, ids in enumerate(whole)]


def generate(network, tokenizer, rows, max_new_tokens=16, per_batch=None):
    """At most `per_batch` rows at a time."""
    budget = None if per_batch is None else per_batch * (max(map(len, rows)) + max_new_tokens)
    return generation.generate(
        network, tokenizer, rows, max_new_tokens=max_new_tokens, precision="fp32", max_cache_tokens=budget
    )


def answers(network, tokenizer, rows, max_new_tokens=16, per_batch=None):
    return [text for _, text in sorted(generate(network, tokenizer, rows, max_new_tokens, per_batch))]


@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_a_batch_answers_as_each_prompt_alone_does_by_either_path(small, tokenizer, rows, quant):
    network = adapted(small("phase=2", f"quant={quant}"))
    alone = [answers(network, tokenizer, [row])[0] for row in rows]
    assert len(set(map(len, rows))) > 4
    assert len(set(alone)) > len(rows) // 2, "answers must depend on their prompts"
    assert answers(network, tokenizer, rows, per_batch=4) == alone
    assert answers(network, tokenizer, rows) == alone
    fast_path.switch_on(network, torch.float32)
    assert answers(network, tokenizer, rows, per_batch=4) == alone
    assert answers(network, tokenizer, rows) == alone


@pytest.mark.parametrize("fast", [False, True])
def test_the_longest_prompts_come_first_with_their_own_indices(small, tokenizer, rows, fast):
    network = adapted(small("phase=2", "quant=none"))
    if fast:
        fast_path.switch_on(network, torch.float32)
    order = [i for i, _ in generate(network, tokenizer, rows, max_new_tokens=2, per_batch=1)]
    assert sorted(order) == list(range(len(rows)))
    assert len(rows[order[0]]) == max(map(len, rows))
    if not fast:  # the other path keeps prompts of one schema together
        assert [len(rows[i]) for i in order] == sorted(map(len, rows), reverse=True)


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(1, 200))
def test_batches_stay_within_their_tokens_unless_a_row_is_longer(lengths, max_tokens):
    batches = generation.token_budget_batches(lengths, max_tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) * max(lengths[i] for i in batch) <= max_tokens or len(batch) == 1 for batch in batches)
    assert [lengths[i] for batch in batches for i in batch] == sorted(lengths, reverse=True)


def test_each_answer_ends_at_its_own_eos(small, tokenizer, rows):
    network, letter, stops = adapted(small("phase=2", "quant=none")), tokenizer.encode("a")[0], [2, 0, 4]
    calls = []

    def script(_module, _inputs, logits):
        step = len(calls)
        calls.append(step)
        said = torch.full_like(logits, -1.0)
        for row, stop in enumerate(stops):
            said[row, :, tokenizer.eos_token_id if step == stop else letter] = 1.0
        return said

    hook = network.get_output_embeddings().register_forward_hook(script)
    same_length = sorted(rows, key=len)[-3:]
    indices = sorted(range(3), key=lambda i: -len(same_length[i]))  # the order in which they are answered
    found = answers(network, tokenizer, same_length, max_new_tokens=20)
    hook.remove()
    assert [found[i] for i in indices] == ["aa", "", "aaaa"]
    assert len(calls) == max(stops) + 1, "it goes on no longer than the last answer"


def test_without_an_eos_an_answer_has_max_new_tokens(small, tokenizer, rows):
    network, letter = adapted(small("phase=2", "quant=none")), tokenizer.encode("a")[0]
    only_letter = torch.nn.functional.one_hot(torch.tensor(letter), len(tokenizer)).float()
    hook = network.get_output_embeddings().register_forward_hook(lambda *call: only_letter.expand_as(call[2]))
    assert answers(network, tokenizer, rows[:2], max_new_tokens=7) == ["a" * 7] * 2
    hook.remove()


# Samples and constraints


@pytest.fixture(params=[False, True], ids=["padded", "fast"])
def either(small, request):
    """A model on either path."""
    network = adapted(small("phase=2", "quant=none"))
    if request.param:
        fast_path.switch_on(network, torch.float32)
    return network


def said(network, tokenizer, rows, **settings):
    found = generation.generate(network, tokenizer, rows, max_new_tokens=12, precision="fp32", **settings)
    return [text for _, text in sorted(found)]


def test_each_row_has_its_own_temperature(either, tokenizer, rows):
    some, greedy = rows[:4], said(either, tokenizer, rows[:4])
    mixed = said(either, tokenizer, [*some, *some], temperature=[0.0] * 4 + [2.0] * 4, seed=1)
    assert mixed[:4] == greedy
    assert sum(one != other for one, other in zip(mixed[4:], greedy)) >= 3
    assert said(either, tokenizer, some, temperature=1e-4) == greedy


def test_samples_are_the_same_for_the_same_seed_whatever_else_draws_numbers(either, tokenizer, rows):
    first = said(either, tokenizer, rows[:4], temperature=1.5, seed=1)
    torch.manual_seed(9)
    state = torch.get_rng_state()
    assert said(either, tokenizer, rows[:4], temperature=1.5, seed=1) == first
    assert torch.equal(torch.get_rng_state(), state), "a training run's own numbers are not touched"
    assert said(either, tokenizer, rows[:4], temperature=1.5, seed=2) != first


def test_no_batch_of_one_seed_is_a_batch_of_the_next(either, tokenizer, rows):
    """Four times the same prompt, each in a batch of its own: eight answers, none of which is another's."""
    alone = {"temperature": 3.0, "max_cache_tokens": 1}
    found = [text for seed in (1, 2) for text in said(either, tokenizer, rows[:1] * 4, seed=seed, **alone)]
    assert len(set(found)) == len(found)


def test_samples_are_the_stream_of_that_name(small, tokenizer, rows, monkeypatch):
    network = adapted(small("phase=2", "quant=none"))
    fast_path.switch_on(network, torch.float32)
    decode, given_seeds = decoding.decode, []

    def noted(*some, seed, **more):
        given_seeds.append(seed)
        return decode(*some, seed=seed, **more)

    monkeypatch.setattr(decoding, "decode", noted)
    said(network, tokenizer, rows[:1], temperature=1.5, seed=5)
    assert given_seeds == [seeds.derive(5, seeds.SAMPLING)]


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_constrained_answer_names_only_what_its_schema_has(either, tokenizer, config, temperature):
    examples = data.load(config.data, "test", seed=1).examples[:4]
    rows = [prompts.encode_prompt(tokenizer, example, config).ids for example in examples]
    vocabulary = constraint.Vocabulary(tokenizer)
    constraints = [constraint.of(example.schema, vocabulary) for example in examples]
    for text, one in zip(said(either, tokenizer, rows, constraints=constraints, temperature=temperature), constraints):
        state = one.start()
        for token in tokenizer.encode(text, add_special_tokens=False):
            state = one.advance(state, token)
            assert state is not None, f"{text!r} begins no SQL over its schema"


def test_both_paths_say_the_same_under_a_constraint(small, tokenizer, rows, config):
    network = adapted(small("phase=2", "quant=none"))
    examples = data.load(config.data, "test", seed=1).examples[:6]
    vocabulary = constraint.Vocabulary(tokenizer)
    constraints = [constraint.of(example.schema, vocabulary) for example in examples]
    padded = said(network, tokenizer, rows[:6], constraints=constraints)
    fast_path.switch_on(network, torch.float32)
    assert said(network, tokenizer, rows[:6], constraints=constraints) == padded
    fast_path.switch_off(network)
    assert said(network, tokenizer, rows[:6]) != padded


# Leaving the model as it was


def checkpointing(network):
    """Whether layers are computed a second time; the model's own answer has two names."""
    return any(getattr(module, "gradient_checkpointing", False) for module in network.modules())


def state(network):
    """What inference() touches."""
    return {
        "modes": {name: module.training for name, module in network.named_modules()},
        "checkpointing": checkpointing(network),
        "use_cache": network.config.use_cache,
        "forwards": {n: vars(m).get("forward") for n, m in network.named_modules() if isinstance(m, Linear4bit)},
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
    }


@pytest.fixture
def network(small):
    network = adapted(small("phase=2", "quant=nf4"))
    upstream.set_checkpointing(network, True)
    return network


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_inference_evaluates_with_a_cache_and_leaves_everything_as_it_was(network, precision):
    before = state(network)
    assert before["checkpointing"]
    assert before["forwards"]
    with generation.inference(network, precision):
        assert not any(module.training for module in network.modules())
        assert not checkpointing(network)
        assert network.config.use_cache is True
        assert all("forward" in vars(module) for module in network.modules() if isinstance(module, Linear4bit))
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu") is (precision == "bf16")
    assert state(network) == before


def test_inference_leaves_everything_as_it_was_after_an_exception(network):
    before = state(network)
    with pytest.raises(ZeroDivisionError), generation.inference(network, "bf16"):
        raise ZeroDivisionError
    assert state(network) == before


@pytest.mark.parametrize("fast", [False, True])
def test_answers_that_nobody_waits_for_leave_everything_as_it_was(network, tokenizer, rows, fast):
    if fast:
        fast_path.switch_on(network, torch.float32)
    before = state(network)
    found = generate(network, tokenizer, rows, max_new_tokens=2, per_batch=2)
    next(found)
    found.close()
    assert state(network) == before


def test_a_model_in_evaluation_mode_stays_in_it(network):
    network.eval()
    upstream.set_checkpointing(network, False)
    before = state(network)
    with generation.inference(network, "fp32"):
        pass
    assert state(network) == before


def test_a_model_that_learns_on_the_fast_path_is_asked_without_its_dropout(small, tokenizer, rows):
    network = adapted(small("phase=2", "quant=nf4", "lora.lora_dropout=0.5"))
    fast_path.switch_on(network, torch.float32)
    before = state(network)
    said = answers(network, tokenizer, rows[:4])
    assert answers(network, tokenizer, rows[:4]) == said
    assert state(network) == before
    fast_path.switch_off(network)
    assert answers(network, tokenizer, rows[:4]) == said


def test_a_model_that_only_answers_holds_its_linears_in_the_type_it_computes_in(small):
    network = adapted(small("phase=2", "quant=none"))
    base = network.get_base_model()
    generation.hold_linears_in(network, torch.bfloat16)
    assert base.lm_head.weight.dtype == base.model.norm.weight.dtype == torch.float32
    assert base.model.embed_tokens.weight.dtype == torch.float32
    projection = base.model.layers[0].self_attn.q_proj
    assert {p.dtype for p in projection.parameters()} == {torch.bfloat16}


def test_a_model_learns_on_after_it_was_asked(network, tokenizer, rows):
    answers(network, tokenizer, rows[:2], max_new_tokens=2)
    ids = torch.tensor([rows[0]])
    network(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.norm() > 0 for parameter in learning)


def test_unpacked_weights_give_the_logits_of_the_packed_ones(small):
    base = model.load_base(small("phase=2", "quant=nf4"))
    base.train()  # in evaluation mode bitsandbytes packs anew, with rounding, where the processor multiplies bf16
    ids = torch.arange(5, 60).unsqueeze(0)
    with torch.no_grad():
        packed = base(input_ids=ids).logits
        with generation.dequantized(base):
            unpacked = base(input_ids=ids).logits
        assert torch.equal(base(input_ids=ids).logits, packed)
        other = model.load_base(small("phase=2", "quant=none")).eval()(input_ids=ids).logits
    assert torch.allclose(unpacked, packed, atol=1e-5, rtol=0)
    assert not torch.allclose(other, packed, atol=1e-3), "NF4 must round, or the comparison says nothing"
