"""The fast path computes what the plain modules compute, and leaves no trace once it is off."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from bitsandbytes.nn import Linear8bitLt
from networks import (
    GEOMETRIES,
    MODULES,
    adapted,
    by_steps,
    configured,
    difference,
    fresh,
    gradients,
    one_by_one,
    quantised,
    some_rows,
)
from transformers import AutoModelForCausalLM, Gemma2Config

from text2sql import attention, fast_path, memory, runs, upstream
from text2sql.step import StepGradient

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTHS = [17, 5, 30, 9, 2]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A function from geometry and quantisation to a base network of its own."""

    def make(kind, quant="none"):
        network = fresh(kind)
        return network if quant == "none" else quantised(network, quant, tmp_path_factory.mktemp(kind))

    return make


def logits(network, rows):
    """The logits of rows end to end, on the fast path."""
    lengths = [len(row.ids) for row in rows]
    ids = torch.tensor([[token for row in rows for token in row.ids]])
    positions = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0)
    layout = attention.packed(lengths, torch.device("cpu"), torch.float32)
    return fast_path.head(network)(fast_path.hidden_states(network, ids, positions, layout))[0].split(lengths)


@pytest.mark.parametrize("quant", ["none", "nf4", "nf4 twice"])
@pytest.mark.parametrize("kind", GEOMETRIES)
def test_logits_and_gradients_are_those_of_the_plain_modules(base, kind, quant):
    network, rows = adapted(base(kind, quant)).train(), some_rows(0, LENGTHS)
    with torch.no_grad():
        plain = [network(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0] for row in rows]
    loss, expected = one_by_one(network, rows)
    assert fast_path.switch_on(network, torch.float32)
    with torch.no_grad():
        for found, wanted in zip(logits(network, rows), plain):
            assert torch.allclose(found, wanted, atol=2e-5 * wanted.abs().max().item())
    found_loss, found = by_steps(network, rows)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    assert difference(found, expected) < 1e-5


@pytest.mark.parametrize("modules", [["q_proj", "v_proj"], ["down_proj"], ["o_proj", "gate_proj"]], ids=", ".join)
@pytest.mark.parametrize("kind", ["mistral", "qwen2"])
def test_an_adapter_may_be_on_some_of_the_linear_layers(base, kind, modules):
    network, rows = adapted(base(kind), modules), some_rows(0, LENGTHS)
    _, expected = one_by_one(network, rows)
    assert difference(by_steps(network, rows)[1], expected) < 1e-5


def test_a_4bit_weight_may_stay_packed(base, monkeypatch):
    network, rows = adapted(base("mistral", "nf4")), some_rows(0, LENGTHS)
    unpacked = by_steps(network, rows)
    fast_path.switch_off(network)
    monkeypatch.setattr(memory, "UNPACKED_LIMIT_BYTES", 0)
    packed = by_steps(network, rows)
    assert packed[0] == pytest.approx(unpacked[0], rel=1e-6)
    assert difference(packed[1], unpacked[1]) < 1e-6


def test_answers_of_the_plain_modules_before_it_change_nothing(base):
    """bitsandbytes packs 4-bit weights anew, in place, where a CPU with AVX512-BF16 evaluates without gradients."""
    rows = some_rows(0, LENGTHS)
    network, asked = adapted(base("mistral", "nf4")), adapted(base("mistral", "nf4")).eval()
    with torch.no_grad():
        asked(input_ids=torch.tensor([rows[0].ids]), use_cache=False)
    loss, expected = by_steps(network, rows)
    found_loss, found = by_steps(asked, rows)
    assert found_loss == pytest.approx(loss, rel=1e-6)
    assert difference(found, expected) < 1e-6


def test_a_base_without_an_adapter_takes_it_too(base):
    network, rows = base("mistral"), some_rows(0, LENGTHS)
    with torch.no_grad():
        plain = [network(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0] for row in rows]
        assert fast_path.switch_on(network, torch.float32)
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(logits(network, rows), plain))


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_every_part_of_a_layer_is_computed_by_it(base, kind):
    network = adapted(base(kind), ["q_proj"])
    assert fast_path.switch_on(network, torch.float32)
    layer = fast_path.causal(network).model.layers[0]
    names = ["self_attn", "mlp", "input_layernorm", "post_attention_layernorm"]
    names += [f"self_attn.{name}" for name in MODULES[:4]] + [f"mlp.{name}" for name in MODULES[4:]]
    assert [name for name in names if "forward" not in vars(layer.get_submodule(name))] == []


# Dropout


def test_dropout_is_drawn_in_training_only(base):
    rows = some_rows(0, LENGTHS)
    network = adapted(base("mistral"), dropout=0.5)
    assert fast_path.switch_on(network, torch.float32)
    step = StepGradient(network, 1000, torch.float32)
    quiet = [step.mean_loss(rows) for _ in range(2)]
    noisy = [step(rows).item() for _ in range(2)]
    assert quiet[0] == quiet[1] == pytest.approx(one_by_one(adapted(fresh()), rows)[0], rel=1e-5)
    assert len({*noisy, quiet[0]}) == 3


def test_dropout_has_the_gradient_that_the_plain_modules_have_on_average(base):
    rows, repeats = some_rows(0, LENGTHS), 200
    network = adapted(base("mistral"), ["down_proj"], dropout=0.2)

    def average(compute):
        torch.manual_seed(0)
        sums = None
        for _ in range(repeats):
            found = compute()
            sums = found if sums is None else {name: sums[name] + gradient for name, gradient in found.items()}
        return sums

    plain = average(lambda: by_steps(network, rows, fast=False)[1])
    fast = average(lambda: by_steps(network, rows)[1])
    assert difference(fast, plain) < 0.05
    without = {name: repeats * g for name, g in one_by_one(adapted(fresh(), ["down_proj"]), rows)[1].items()}
    assert difference(plain, without) < 0.2


def test_recomputing_a_layer_draws_the_same_dropout_again(base):
    rows = some_rows(0, LENGTHS)
    network = adapted(base("mistral"), dropout=0.3)

    def seeded():
        torch.manual_seed(7)
        return by_steps(network, rows)

    loss, kept = seeded()
    upstream.set_checkpointing(network, True)
    again, recomputed = seeded()
    assert again == loss
    assert difference(recomputed, kept) < 1e-6


# On and off


def looks(network):
    """What must be the same before and after."""
    causal = fast_path.causal(network)
    return {
        "forwards": {name: module.forward for name, module in network.named_modules() if "forward" in vars(module)},
        "attributes": {name: sorted(vars(module)) for name, module in network.named_modules()},
        "attention": causal.config._attn_implementation,
        "keys": list(network.state_dict()),
        "weights": runs.digest([tensor.double().sum().item() for tensor in network.state_dict().values()]),
        "learning": [name for name, parameter in network.named_parameters() if parameter.requires_grad],
    }


@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_off_again_the_network_is_what_it_was(base, quant):
    network, rows = adapted(base("mistral", quant)), some_rows(0, LENGTHS)
    _, expected = one_by_one(network, rows)
    before = looks(network)
    assert fast_path.switch_on(network, torch.float32)
    assert fast_path.is_on(network)
    on = looks(network)
    assert (on["keys"], on["weights"], on["learning"]) == (before["keys"], before["weights"], before["learning"])
    fast_path.switch_off(network)
    assert not fast_path.is_on(network)
    assert looks(network) == before
    _, again = one_by_one(network, rows)
    assert difference(again, expected) == 0


def test_switching_twice_is_switching_once(base):
    network = adapted(base("mistral"))
    before = looks(network)
    fast_path.switch_off(network)
    assert looks(network) == before
    assert fast_path.switch_on(network, torch.float32)
    on = looks(network)
    assert fast_path.switch_on(network, torch.float32)
    assert looks(network) == on
    fast_path.switch_off(network)
    assert looks(network) == before


# What it leaves alone


def capped():
    """A network in Gemma 2's shape, which caps its attention scores and its logits; no window matters for so few tokens."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0}
    config = Gemma2Config(**sizes, **heads, use_sliding_window=False, final_logit_softcapping=2.0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: fresh("mistral", sliding_window=8), "it has sliding-window attention (8 tokens)"),
        (capped, "it caps or scales its logits"),
    ],
    ids=["sliding window", "capped logits"],
)
def test_what_would_come_out_different_is_refused_with_one_warning_and_trains_as_it_is(make, reason, caplog):
    caplog.set_level(logging.WARNING, "text2sql")
    network, rows = adapted(make(), ["q_proj", "v_proj"]), some_rows(0, LENGTHS)
    before = looks(network)
    assert not fast_path.switch_on(network, torch.float32)
    assert [r.getMessage() for r in caplog.records] == [f"the fast path is off: {reason}"]
    assert looks(network) == before
    loss, expected = one_by_one(network, rows)
    found_loss, found = by_steps(network, rows, fast=False)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    assert difference(found, expected) < 1e-5


def test_a_window_that_is_not_used_is_no_reason():
    network = SimpleNamespace(config=configured("qwen2", sliding_window=8), _supports_attention_backend=True)
    assert fast_path.unsupported(network) is None
    network.config = configured("qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=0)
    assert fast_path.unsupported(network) == "it has sliding-window attention (8 tokens)"


def test_an_int8_layer_keeps_its_own_forward(base):
    network = base("mistral")
    layer = network.model.layers[0]
    layer.mlp.down_proj = Linear8bitLt(128, 64, bias=False, has_fp16_weights=False)
    layer.self_attn.q_proj = Linear8bitLt(64, 128, bias=False, has_fp16_weights=False)
    network = adapted(network, ["q_proj"])
    assert fast_path.switch_on(network, torch.float32)
    layer = fast_path.causal(network).model.layers[0]
    assert "forward" not in vars(layer.mlp.down_proj)
    assert "forward" not in vars(layer.self_attn.q_proj)
    assert "forward" in vars(layer.self_attn.k_proj)


def test_adapter_layers_that_it_does_not_know_keep_their_own_forward(base):
    network = adapted(base("mistral"), ["q_proj", "v_proj"])
    first, second = (layer.self_attn for layer in fast_path.causal(network).model.layers)
    first.q_proj.merge()
    second.v_proj.lora_bias["default"] = True
    assert fast_path.switch_on(network, torch.float32)
    assert ["forward" in vars(layer) for layer in (first.q_proj, first.v_proj, second.q_proj, second.v_proj)] == [
        False,
        True,
        True,
        False,
    ]


def test_gradients_stay_where_the_optimizer_looks_for_them(base):
    network = adapted(base("mistral"))
    _, first = by_steps(network, some_rows(0, LENGTHS))
    assert all(gradient.norm() > 0 for gradient in first.values())
    assert gradients(network).keys() == first.keys()
