"""A pass that is replayed gives the loss and the gradient of the same pass launched kernel by kernel."""

from __future__ import annotations

import pytest
import torch
from networks import adapted, difference, fresh, gradients, one_by_one, some_rows, trainable

from text2sql import fast_path
from text2sql.graphs import GraphedPasses
from text2sql.step import StepGradient

pytestmark = pytest.mark.gpu

STEPS = [[17, 5, 30, 9], [40, 41], [300, 200, 150, 120], [17, 5, 31, 9], [3], [640, 600], [17, 5, 30, 9]]
TOLERANCES = [(torch.float32, 1e-4, 1e-4), (torch.bfloat16, 2e-3, 2e-2), (torch.float16, 1e-3, 5e-3)]
DTYPES = pytest.mark.parametrize(("dtype", "loss_tolerance", "tolerance"), TOLERANCES, ids=["fp32", "bf16", "fp16"])


@pytest.fixture(autouse=True)
def exact():
    """Matrix products of float32 in float32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def step_of(dtype, *, graphs, dropout=0.0, max_tokens=700, max_examples=9):
    network = adapted(fresh(max_position_embeddings=2048), dropout=dropout).cuda()
    assert fast_path.switch_on(network, dtype)
    return StepGradient(network, max_tokens, dtype, GraphedPasses(max_examples, 640) if graphs else None)


@DTYPES
def test_a_replayed_pass_is_the_pass_itself(dtype, loss_tolerance, tolerance):
    replayed, launched = step_of(dtype, graphs=True), step_of(dtype, graphs=False)
    for number, lengths in enumerate(STEPS):
        rows = some_rows(number, lengths)
        found, expected = replayed(rows).item(), launched(rows).item()
        assert found == pytest.approx(expected, rel=loss_tolerance)
        assert difference(gradients(replayed.model), gradients(launched.model)) < tolerance
    assert replayed.num_passes == launched.num_passes > len(STEPS)
    assert len(replayed.graphs.recordings) < replayed.num_passes
    assert replayed.num_filling > 0


def test_it_has_the_gradient_of_its_examples_taken_one_by_one():
    rows = some_rows(0, [17, 5, 30, 9])
    replayed = step_of(torch.float32, graphs=True)
    for _ in range(2):
        loss = replayed(rows).item()
        found = gradients(replayed.model)
        replayed(some_rows(1, [20, 20, 12, 8]))  # the same size with other examples in it
    fast_path.switch_off(replayed.model)
    expected_loss, expected = one_by_one(replayed.model, rows)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert difference(found, expected) < 1e-4


def test_as_many_examples_as_there_are_places_fit():
    lengths = [7] * 9
    replayed, launched = step_of(torch.bfloat16, graphs=True), step_of(torch.bfloat16, graphs=False)
    rows = some_rows(0, lengths)
    assert replayed(rows).item() == pytest.approx(launched(rows).item(), rel=2e-3)
    assert difference(gradients(replayed.model), gradients(launched.model)) < 2e-2


def test_a_gradient_scaler_scales_the_replayed_gradient_too():
    rows = some_rows(0, [17, 5, 30, 9])
    replayed, launched = step_of(torch.float32, graphs=True), step_of(torch.float32, graphs=False)
    launched(rows)
    for scale in (1024.0, 64.0):
        replayed(rows, scale=lambda one, scale=scale: scale * one)
        found = {name: slope / scale for name, slope in gradients(replayed.model).items()}
        assert difference(found, gradients(launched.model)) < 1e-4


def test_every_replay_draws_its_own_dropout():
    rows = some_rows(0, [17, 5, 30, 9])
    replayed = step_of(torch.float32, graphs=True, dropout=0.3)
    losses = [replayed(rows).item() for _ in range(5)]
    assert len(set(losses)) == 5


def test_a_replay_reads_the_weights_of_the_last_step_and_validation_too():
    rows = some_rows(0, [17, 5, 30, 9])
    steps = {graphs: step_of(torch.float32, graphs=graphs) for graphs in (True, False)}
    losses = {}
    for graphs, step in steps.items():
        optimizer = torch.optim.SGD(trainable(step.model).values(), lr=0.3)
        losses[graphs] = []
        for _ in range(4):
            losses[graphs].append(step(rows).item())
            optimizer.step()
        losses[graphs].append(step.mean_loss(rows))
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
    assert losses[True][-1] < losses[True][0]
