"""The gradient of a step is that of its examples taken one by one, whatever computes it and however much fits a pass."""

from __future__ import annotations

import logging

import pytest
import torch
from networks import (
    QUANTS,
    VOCABULARY,
    WIDTH,
    Shapes,
    adapted,
    by_steps,
    difference,
    fresh,
    gradients,
    loss_alone,
    one_by_one,
    quantised,
    some_rows,
    trainable,
)

from text2sql import cross_entropy, fast_path, runs, step, upstream
from text2sql.passes import Row
from text2sql.step import Adapter, StepGradient

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTHS = [17, 5, 30, 9, 2, 41, 22, 13]
PATHS = pytest.mark.parametrize("fast", [True, False], ids=["fast path", "plain path"])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of each quantisation's copy on disk."""
    return {quant: tmp_path_factory.mktemp("base") for quant in QUANTS}


@pytest.fixture
def network(saved):
    """A function from quantisation and the adapter's settings to a network of its own."""

    def make(quant="none", **settings):
        base = fresh()
        return adapted(base if quant == "none" else quantised(base, quant, saved[quant]), **settings)

    return make


# The gradient of one step


@PATHS
@pytest.mark.parametrize("quant", ["none", "nf4"])
@pytest.mark.parametrize("max_tokens", [1, 45, 1000])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
def test_a_step_has_the_gradient_of_its_examples_taken_one_by_one(network, fast, quant, max_tokens, checkpointing):
    learner, rows = network(quant), some_rows(0, LENGTHS)
    loss, expected = one_by_one(learner, rows)
    assert all(gradient.norm() > 0 for gradient in expected.values())
    if checkpointing:
        upstream.set_checkpointing(learner, True)
    found_loss, found = by_steps(learner, rows, max_tokens, fast)
    assert found_loss == pytest.approx(loss, rel=1e-6)
    assert difference(found, expected) < 1e-5


@PATHS
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_any_attention_of_transformers_gives_the_gradient(network, fast, attention):
    learner, rows = network(), some_rows(0, LENGTHS)
    _, expected = one_by_one(learner, rows)
    learner.set_attn_implementation(attention)
    assert difference(by_steps(learner, rows, fast=fast)[1], expected) < 1e-5


@PATHS
def test_a_gradient_is_begun_anew_with_every_step(network, fast):
    learner, rows = network(), some_rows(0, LENGTHS)
    _, expected = one_by_one(learner, rows)
    if fast:
        fast_path.switch_on(learner, torch.float32)
    steps = StepGradient(learner, 45, torch.float32)
    steps(some_rows(1, LENGTHS))
    steps.mean_loss(rows)
    steps(rows)
    assert difference(gradients(learner), expected) < 1e-5


@PATHS
def test_a_gradient_scaler_scales_the_gradient_and_not_the_loss(network, fast):
    learner, rows = network(), some_rows(0, LENGTHS)
    loss, expected = one_by_one(learner, rows)
    if fast:
        fast_path.switch_on(learner, torch.float32)
    found = StepGradient(learner, 45, torch.float32)(rows, scale=lambda one: 1024 * one)
    assert found.item() == pytest.approx(loss, rel=1e-6)
    assert difference({name: slope / 1024 for name, slope in gradients(learner).items()}, expected) < 1e-5


@PATHS
def test_half_precision_is_near_it(network, fast):
    learner, rows = network(), some_rows(0, LENGTHS)
    loss, expected = one_by_one(learner, rows)
    found_loss, found = by_steps(learner, rows, fast=fast, dtype=torch.bfloat16)
    assert found_loss == pytest.approx(loss, rel=2e-2)
    assert difference(found, expected) < 0.1
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}


@pytest.mark.parametrize("ranks", [1, 2, 3, 11])
def test_ranks_add_up_to_the_whole_step(network, monkeypatch, ranks):
    learner, rows = network(), some_rows(0, LENGTHS)
    loss, expected = one_by_one(learner, rows)
    fast_path.switch_on(learner, torch.float32)
    steps, summed = StepGradient(learner, 45, torch.float32), []
    monkeypatch.setattr(step.ranks, "world_size", lambda: ranks)
    monkeypatch.setattr(step.distributed, "all_reduce", summed.append)
    shares = []
    for rank in range(ranks):
        monkeypatch.setattr(step.ranks, "rank", lambda rank=rank: rank)
        shares.append((steps(rows).item(), gradients(learner)))
    assert len(summed) == 2 * (ranks if ranks > 1 else 0)
    assert sum(share for share, _ in shares) == pytest.approx(loss, rel=1e-6)
    total = {name: sum(slopes[name] for _, slopes in shares) for name in expected}
    assert difference(total, expected) < 1e-5


# Nothing of one example is in another


@PATHS
@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_changing_one_example_changes_nothing_of_another(network, fast, quant):
    """The gradient of A's loss alone, in a pass with B before it and C after it, that are not learned from."""
    learner, (before, learned, after) = network(quant).train(), some_rows(0, [12, 20, 15])
    learner.zero_grad(set_to_none=True)
    loss_alone(learner, learned).backward()
    alone = gradients(learner)
    if fast:
        fast_path.switch_on(learner, torch.float32)
    steps = StepGradient(learner, 1000, torch.float32)

    def beside(first, last):
        steps([Row(first.ids, len(first.ids)), learned, Row(last.ids, len(last.ids))])
        return {name: slope * (len(learned.ids) - learned.prompt_length) for name, slope in gradients(learner).items()}

    expected = beside(before, after)
    assert difference(expected, alone) < 1e-5
    for seed in range(1, 4):
        others = some_rows(seed, [12, 15])
        found = beside(*others)
        assert all(torch.allclose(found[name], expected[name], rtol=1e-5, atol=1e-6) for name in expected)
    longer = some_rows(9, [40, 3])
    assert difference(beside(*longer), alone) < 1e-5


# The loss without a gradient


@PATHS
@pytest.mark.parametrize("max_tokens", [1, 45, 1000])
def test_the_mean_loss_is_that_over_learned_tokens_one_by_one(network, fast, max_tokens):
    learner, rows = network(dropout=0.5), some_rows(0, LENGTHS)
    learner.eval()
    with torch.no_grad():
        alone = sum(loss_alone(learner, row).item() for row in rows)
    if fast:
        fast_path.switch_on(learner, torch.float32)
    steps = StepGradient(learner, max_tokens, torch.float32)
    for training in (True, False):
        learner.train(training)
        found = steps.mean_loss(rows)
        assert found == pytest.approx(alone / sum(len(row.ids) - row.prompt_length for row in rows), rel=1e-5)
        assert learner.training is training


@PATHS
@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_validation_changes_no_step_after_it(network, fast, quant):
    learner, rows = network(quant), some_rows(0, LENGTHS)
    if fast:
        fast_path.switch_on(learner, torch.float32)
    steps = StepGradient(learner, 1000, torch.float32)
    before = steps(rows).item(), gradients(learner)
    validation = steps.mean_loss(rows)
    assert validation == pytest.approx(before[0], rel=1e-5)
    after = steps(rows).item(), gradients(learner)
    assert after[0] == before[0]
    assert difference(after[1], before[1]) == 0


# Training


def trained(learner, max_tokens, fast, num_steps=50, working=False, as_one=None):
    """The losses of so many steps with AdamW; `as_one` has it see the adapter as one parameter (eight_bit: True or False)."""
    if fast:
        assert fast_path.switch_on(learner, torch.float32)
    steps = StepGradient(learner, max_tokens, torch.float32)
    if working:
        steps.adapter = Adapter(learner, torch.float32, working=True)
    learned = list(trainable(learner).values()) if as_one is None else steps.adapter.as_one(eight_bit=as_one)
    optimizer = torch.optim.AdamW(learned, lr=1e-3)
    losses = []
    for number in range(num_steps):
        losses.append(steps(some_rows(number % 10, [5 + (7 * number + 11 * i) % 20 for i in range(5)])).item())
        torch.nn.utils.clip_grad_norm_(trainable(learner).values(), 0.5)
        optimizer.step()
        learner.zero_grad()
    return losses


@pytest.mark.parametrize(
    ("quant", "variants"), [("none", [(1000, False), (30, True)]), ("nf4", [(1, True), (1000, True)])]
)
def test_fifty_steps_follow_the_same_losses(network, quant, variants):
    expected = trained(network(quant), max_tokens=1, fast=False)
    assert sum(expected[-10:]) < 0.95 * sum(expected[:10])
    for max_tokens, fast in variants:
        assert trained(network(quant), max_tokens, fast) == pytest.approx(expected, rel=1e-3)


def test_working_copies_follow_the_same_losses(network):
    expected = trained(network(), max_tokens=60, fast=True, num_steps=10)
    assert trained(network(), max_tokens=60, fast=True, num_steps=10, working=True) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("working", [False, True])
@pytest.mark.parametrize("eight_bit", [False, True])
def test_an_optimizer_that_sees_one_parameter_learns_what_one_that_sees_all_does(network, eight_bit, working):
    expected, found = network(r=40), network(r=40)
    losses = trained(expected, 60, fast=True, num_steps=10)
    assert trained(found, 60, fast=True, num_steps=10, working=working, as_one=eight_bit) == pytest.approx(
        losses, rel=1e-4
    )
    weights = dict(expected.named_parameters())
    for name, parameter in trainable(found).items():
        assert torch.allclose(parameter, weights[name], atol=1e-5), name


def test_matrices_that_8_bit_optimizers_leave_alone_stay_apart_and_all_begin_where_a_block_does(network):
    learner = network(r=40)
    fast_path.switch_on(learner, torch.float32)
    adapter = StepGradient(learner, 1000, torch.float32).adapter
    whole, *apart = adapter.as_one(eight_bit=True)
    assert {p.numel() < 4096 for p in apart} == {True}
    large = [p for p in trainable(learner).values() if p.numel() >= 4096]
    assert len(apart) + len(large) == len(trainable(learner)) and apart and large
    starts = {(p.data_ptr() - whole.data_ptr()) // 4 for p in large}
    assert {start % 256 for start in starts} == {0}
    assert adapter.as_one(eight_bit=False)[1:] == []


def test_the_mean_loss_is_that_of_the_newest_weights_beside_working_copies(network):
    learner, rows = network(), some_rows(0, LENGTHS)
    fast_path.switch_on(learner, torch.float32)
    steps = StepGradient(learner, 1000, torch.float32)
    steps.adapter = Adapter(learner, torch.float32, working=True)
    steps(rows)
    torch.optim.SGD(trainable(learner).values(), lr=1.0).step()
    found = steps.mean_loss(rows)
    fast_path.switch_off(learner)
    assert found == pytest.approx(one_by_one(learner, rows)[0], rel=1e-5)


def base_weights(learner):
    frozen = [name for name, parameter in learner.named_parameters() if not parameter.requires_grad]
    tensors = {name: value for name, value in learner.state_dict().items() if "lora_" not in name}
    assert len(frozen) <= len(tensors)
    return runs.digest({name: value.double().flatten().tolist() for name, value in tensors.items()})


@PATHS
@pytest.mark.parametrize("quant", list(QUANTS))
def test_training_and_validation_leave_the_base_to_the_last_bit(network, fast, quant):
    learner = network(quant)
    before, adapter = base_weights(learner), {name: p.detach().clone() for name, p in trainable(learner).items()}
    trained(learner, 60, fast, num_steps=2)
    StepGradient(learner, 60, torch.float32).mean_loss(some_rows(0, LENGTHS))
    assert base_weights(learner) == before
    assert all(not torch.equal(parameter, adapter[name]) for name, parameter in trainable(learner).items())


# What is never made


def made_by_a_step(learner, rows):
    fast_path.switch_on(learner, torch.float32)
    steps = StepGradient(learner, 1000, torch.float32)
    steps(rows)  # rotary tables and buffers of the first step aside
    with Shapes() as made:
        steps(rows)
        steps.mean_loss(rows)
    return made.seen


def test_there_are_never_more_logits_than_a_chunk_and_none_of_a_prompt(network, monkeypatch):
    monkeypatch.setattr(cross_entropy, "CHUNK", 16)
    rows = some_rows(0, LENGTHS)

    def most_logits(rows):
        """The rows of the largest matrix as wide as the vocabulary, but for the head's own weight seen from the side."""
        seen = made_by_a_step(network(), rows)
        return max(shape[-2] for shape in seen if len(shape) > 1 and shape[-1] == VOCABULARY and shape[-2] != WIDTH)

    assert most_logits(rows) == 16
    assert most_logits([Row(row.ids, len(row.ids) - 1) for row in rows]) == len(rows)


def test_no_matrix_of_all_tokens_by_all_tokens_is_made(network):
    rows = some_rows(0, [71, 72])
    seen = made_by_a_step(network(), rows)
    tokens = sum(len(row.ids) for row in rows)
    assert (1, tokens, WIDTH) in seen
    assert [shape for shape in seen if shape.count(tokens) > 1] == []


def test_no_token_is_padding(network):
    learner, rows = network(), some_rows(0, LENGTHS)
    fast_path.switch_on(learner, torch.float32)
    for max_tokens, passes in ((1, 8), (1000, 1)):
        steps = StepGradient(learner, max_tokens, torch.float32)
        steps(rows)
        assert (steps.num_tokens, steps.num_filling, steps.num_passes) == (sum(LENGTHS), 0, passes)


def test_a_step_says_nothing(network, caplog, capsys):
    caplog.set_level(logging.WARNING)
    by_steps(network(), some_rows(0, LENGTHS))
    assert caplog.text == capsys.readouterr().out == ""
