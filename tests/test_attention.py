"""Attention within each of many examples in one row, by every back-end, against the obvious mask."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from text2sql.attention import BACKENDS, best_backend, packed

pytestmark = pytest.mark.usefixtures("one_thread")

HEADS, KV_HEADS, HEAD_DIM = 4, 2, 16
SCALE = 0.3
EVERY_BACKEND = [
    pytest.param("examples", "cpu", torch.float32, id="examples"),
    pytest.param("examples", "cuda", torch.float32, id="examples on a GPU", marks=pytest.mark.gpu),
    pytest.param("efficient", "cuda", torch.float32, id="efficient float32", marks=pytest.mark.gpu),
    pytest.param("efficient", "cuda", torch.float16, id="efficient float16", marks=pytest.mark.gpu),
    pytest.param("flash", "cuda", torch.bfloat16, id="flash", marks=pytest.mark.gpu),
]
LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=6)


def drawn(seed, tokens, device="cpu", dtype=torch.float32, kv_heads=KV_HEADS):
    """Random query, key and value as transformers gives them, that want gradients."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(1, heads, tokens, HEAD_DIM) for heads in (HEADS, kv_heads, kv_heads)]
    return [torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for shape in shapes]


def dense(lengths, query, key, value):
    """Attention over the whole row in float32 with a mask of causal blocks."""
    query, key, value = query.float(), key.float(), value.float()
    times = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    mask = torch.block_diag(*(torch.ones(n, n).tril() for n in lengths)).bool().to(query.device)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=SCALE).transpose(1, 2)


def with_gradients(attend, inputs):
    """Output and gradients of a sum that weighs every number of the output differently."""
    output = attend(*inputs)
    weights = torch.linspace(-1, 1, output.numel(), device=output.device).view(output.shape)
    return [output.detach(), *torch.autograd.grad((output.float() * weights).sum(), inputs)]


@pytest.mark.parametrize(("backend", "device", "dtype"), EVERY_BACKEND)
@settings(max_examples=25)
@given(lengths=LENGTHS, kv_heads=st.sampled_from([1, 2, 4]), seed=st.integers(0, 99))
def test_attention_is_that_of_causal_blocks_with_its_gradients(backend, device, dtype, lengths, kv_heads, seed):
    inputs = drawn(seed, sum(lengths), device, dtype, kv_heads)
    layout = packed(lengths, torch.device(device), dtype, backend)
    found = with_gradients(lambda *some: layout.attend(0, *some, SCALE), inputs)
    expected = with_gradients(lambda *some: dense(lengths, *some), inputs)
    tolerance = {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}[dtype]
    for one, other in zip(found, expected):
        assert torch.allclose(one.float(), other.float(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("backend", "device", "dtype"), EVERY_BACKEND)
@settings(max_examples=25)
@given(lengths=LENGTHS.filter(lambda lengths: len(lengths) > 1), which=st.integers(0, 5), seed=st.integers(0, 99))
def test_no_example_changes_anything_of_another(backend, device, dtype, lengths, which, seed):
    which %= len(lengths)
    start = sum(lengths[:which])
    changed = range(start, start + lengths[which])
    layout = packed(lengths, torch.device(device), dtype, backend)

    def of_the_others(inputs):
        """Output and gradients of the loss of the other examples, at the others' places."""
        output = layout.attend(0, *inputs, SCALE)
        kept = torch.ones(output.shape[1], dtype=torch.bool, device=device)
        kept[list(changed)] = False
        weights = torch.linspace(-1, 1, output.numel(), device=device).view(output.shape) * kept[None, :, None, None]
        slopes = torch.autograd.grad((output.float() * weights).sum(), inputs)
        assert all((slope[:, :, ~kept] == 0).all() for slope in slopes)
        return [output.detach()[:, kept], *(slope[:, :, kept] for slope in slopes)]

    inputs = drawn(seed, sum(lengths), device, dtype)
    others = [tensor.detach().clone() for tensor in inputs]
    for tensor, new in zip(others, drawn(seed + 100, sum(lengths), device, dtype)):
        tensor[:, :, changed] = 3 * new.detach()[:, :, changed]
    before, after = of_the_others(inputs), of_the_others([tensor.requires_grad_() for tensor in others])
    assert all(torch.allclose(one.float(), other.float(), atol=1e-6) for one, other in zip(before, after))


@pytest.mark.gpu
@pytest.mark.parametrize(("backend", "dtype"), [("flash", torch.bfloat16), ("efficient", torch.float32)])
def test_empty_examples_at_the_end_change_nothing(backend, dtype):
    lengths = [7, 12, 3]
    inputs = drawn(0, sum(lengths), "cuda", dtype)
    few = packed(lengths, torch.device("cuda"), dtype, backend)
    many = packed([*lengths, 0, 0, 0], torch.device("cuda"), dtype, backend)
    found = with_gradients(lambda *some: many.attend(0, *some, SCALE), inputs)
    expected = with_gradients(lambda *some: few.attend(0, *some, SCALE), inputs)
    assert all(torch.equal(one, other) for one, other in zip(found, expected))


@pytest.mark.parametrize(
    ("device", "capability", "dtype", "backend"),
    [
        ("cpu", None, torch.float32, "examples"),
        ("cpu", None, torch.bfloat16, "examples"),
        ("cuda", (7, 5), torch.float16, "efficient"),
        ("cuda", (7, 5), torch.float32, "efficient"),
        ("cuda", (8, 0), torch.bfloat16, "flash"),
        ("cuda", (8, 9), torch.float16, "flash"),
        ("cuda", (9, 0), torch.float32, "efficient"),
    ],
)
def test_a_device_gets_a_backend_that_it_can_run(monkeypatch, device, capability, dtype, backend):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    assert best_backend(torch.device(device), dtype) == backend


def test_every_backend_is_tested():
    assert set(BACKENDS) == {parameters.values[0] for parameters in EVERY_BACKEND}
