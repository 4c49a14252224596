"""The loss in chunks is torch's, with its gradient, and never has more logits than a chunk of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Shapes

from text2sql.cross_entropy import CHUNK, cross_entropy

pytestmark = pytest.mark.usefixtures("one_thread")

VOCABULARY, WIDTH = 37, 8


def drawn(seed, rows, *, bias=False, dtype=torch.float32, ignored=0.0):
    """Hidden states that want a gradient, a head, and targets of which some are negative."""
    torch.manual_seed(seed)
    head = torch.nn.Linear(WIDTH, VOCABULARY, bias=bias).to(dtype)
    targets = torch.randint(0, VOCABULARY, (rows,))
    targets[torch.rand(rows) < ignored] = -1
    return torch.randn(rows, WIDTH).to(dtype).requires_grad_(), head, targets


def torchs(hidden, head, targets):
    logits = torch.nn.functional.linear(
        hidden.float(), head.weight.float(), None if head.bias is None else head.bias.float()
    )
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum", ignore_index=-1)


def with_gradient(loss, hidden, factor=1.0):
    return loss.item(), torch.autograd.grad(loss * factor, hidden)[0]


@settings(max_examples=30)
@given(
    seed=st.integers(0, 99),
    rows=st.sampled_from([1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 5]),
    bias=st.booleans(),
    ignored=st.sampled_from([0.0, 0.4, 1.0]),
)
def test_loss_and_gradient_are_torchs(seed, rows, bias, ignored):
    hidden, head, targets = drawn(seed, rows, bias=bias, ignored=ignored)
    found, slope = with_gradient(cross_entropy(hidden, head, targets), hidden, 0.3)
    expected, wanted = with_gradient(torchs(hidden, head, targets), hidden, 0.3)
    assert found == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(slope, wanted, atol=1e-6)
    assert (slope[targets < 0] == 0).all()


def test_a_pass_without_targets_loses_nothing():
    hidden, head, targets = drawn(0, 0)
    loss, slope = with_gradient(cross_entropy(hidden, head, targets), hidden)
    assert loss == 0
    assert slope.shape == (0, WIDTH)


def test_large_logits_are_no_trouble():
    hidden, head, targets = drawn(0, 5)
    found, slope = with_gradient(cross_entropy(1e4 * hidden, head, targets), hidden)
    expected, wanted = with_gradient(torchs(1e4 * hidden, head, targets), hidden)
    assert found == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(slope, wanted, rtol=1e-4)


def test_the_head_gets_no_gradient():
    hidden, head, targets = drawn(0, 5, bias=True)
    cross_entropy(hidden, head, targets).backward()
    assert hidden.grad is not None
    assert (head.weight.grad, head.bias.grad) == (None, None)


@pytest.mark.parametrize("learning", [True, False])
def test_there_are_never_more_logits_than_a_chunk_of_them(learning):
    hidden, head, targets = drawn(0, 3 * CHUNK + 2)
    with torch.set_grad_enabled(learning), Shapes() as made:
        loss = cross_entropy(hidden, head, targets)
        if learning:
            loss.backward()
    assert max(shape[0] for shape in made.seen if shape[1:] == (VOCABULARY,)) == CHUNK


def test_what_is_saved_for_the_gradient_is_one_more_hidden_state_and_no_logits():
    saved = []
    hidden, head, targets = drawn(0, 2 * CHUNK)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.shape), lambda shape: shape):
        loss = cross_entropy(hidden, head, targets)
    assert saved == []
    assert loss.grad_fn.gradient.shape == hidden.shape


def test_without_gradients_none_is_worked_out():
    hidden, head, targets = drawn(0, CHUNK + 5)
    hidden = hidden.detach()
    with torch.no_grad(), Shapes() as made:
        loss = cross_entropy(hidden, head, targets)
    assert not loss.requires_grad
    assert hidden.shape not in made.seen
    assert loss.item() == pytest.approx(torchs(hidden, head, targets).item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("factor", [2.0**-12, 1.0, 2.0**17])
def test_a_half_takes_a_factor_that_is_no_half_itself(dtype, factor):
    hidden, head, targets = drawn(0, 9, dtype=dtype)
    _, exact = with_gradient(torchs(hidden, head, targets), hidden)
    weak = 1e-3  # so that the gradient times the largest factor, which is over 65,504, fits a half again
    _, slope = with_gradient(cross_entropy(hidden, head, targets) * weak, hidden, factor)
    assert slope.isfinite().all()
    assert torch.allclose(slope.float(), exact.float() * weak * factor, rtol=2e-2, atol=2e-2 * weak * factor + 2.0**-24)


def test_the_loss_of_halves_is_a_float32():
    loss = cross_entropy(*drawn(0, CHUNK + 1, dtype=torch.bfloat16))
    assert loss.dtype == torch.float32
