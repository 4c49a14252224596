"""Each fused part against plain autograd over the formula, or over upstream's own module."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.mistral.modeling_mistral import MistralRMSNorm, apply_rotary_pos_emb

from text2sql import fused

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENS, WIDTH, OUT, RANK, SCALING = 7, 64, 32, 4, 1.5
DROPOUTS = [0.0, 0.3]
SEEDS = st.integers(0, 99)


def normal(seed, *shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype)


def with_gradients(function, *inputs):
    """Output and gradients of a sum that weighs every number of the output differently."""
    inputs = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    output = function(*inputs)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), inputs)]


def same(found, expected, tolerance=1e-5):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert one.shape == other.shape
        assert torch.allclose(one.double(), other.double(), rtol=tolerance, atol=tolerance * other.abs().max().item())


def packed(seed, *, twice=False, dtype=torch.float32):
    """A 4-bit weight (OUT, WIDTH), and what bitsandbytes itself makes of it."""
    data, state = quantize_4bit(normal(seed, OUT, WIDTH, dtype=dtype), quant_type="nf4", compress_statistics=twice)
    return fused.Packed4bit(data, state), dequantize_4bit(data, state)


def lora_linear(x, weight, bias, a, b, dropout=0.0):
    return fused.LoraLinear.apply(x, weight, bias, a, b, SCALING, dropout, None)


def formula(x, weight, bias, a, b, mask=None, dropout=0.0):
    """The same by plain autograd; `mask` says which numbers of x dropout keeps."""
    dropped = x if mask is None else x * mask / (1 - dropout)
    return torch.nn.functional.linear(x, weight, bias) + SCALING * (dropped @ a.T @ b.T)


def parts(seed, dtype=torch.float32):
    """x, weight, bias, A and B, of sizes that keep every sum near one."""
    shapes = [(TOKENS, WIDTH), (OUT, WIDTH), (OUT,), (RANK, WIDTH), (OUT, RANK)]
    return [0.3 * normal(10 * seed + i, *shape, dtype=dtype) for i, shape in enumerate(shapes)]


# 4-bit weights


@pytest.mark.parametrize("twice", [False, True])
def test_a_packed_weight_is_what_bitsandbytes_reads_from_it(twice):
    weight, expected = packed(0, twice=twice)
    assert torch.equal(weight.unpack(torch.float32), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("twice", [False, True])
def test_a_packed_weight_comes_straight_in_a_half(twice, dtype):
    weight, expected = packed(0, twice=twice)
    assert weight.unpack(dtype).dtype == dtype
    assert torch.allclose(weight.unpack(dtype).float(), expected, rtol=2.0**-7)


# Linear layers


@pytest.mark.parametrize("biased", [False, True])
@settings(max_examples=10)
@given(seed=SEEDS)
def test_a_lora_linear_is_its_formula(biased, seed):
    x, weight, bias, a, b = parts(seed)
    bias = bias if biased else None
    same(
        with_gradients(lambda x, a, b: lora_linear(x, weight, bias, a, b), x, a, b),
        with_gradients(lambda x, a, b: formula(x, weight, bias, a, b), x, a, b),
    )


@pytest.mark.parametrize("dropout", [0.1, 0.5])
@settings(max_examples=10)
@given(seed=SEEDS)
def test_a_lora_linear_with_dropout_is_its_formula_under_the_same_mask(dropout, seed):
    x, weight, bias, a, b = parts(seed)
    torch.manual_seed(seed)
    _, mask = torch.ops.aten.native_dropout(x, dropout, True)

    def seeded(x, a, b):
        torch.manual_seed(seed)
        return lora_linear(x, weight, bias, a, b, dropout)

    same(
        with_gradients(seeded, x, a, b),
        with_gradients(lambda x, a, b: formula(x, weight, bias, a, b, mask, dropout), x, a, b),
    )


@pytest.mark.parametrize("dropout", DROPOUTS)
def test_gradients_of_a_lora_linear_are_those_of_finite_differences(dropout):
    x, weight, bias, a, b = parts(0, torch.float64)

    def seeded(*inputs):
        torch.manual_seed(0)
        return lora_linear(inputs[0], weight, bias, *inputs[1:], dropout)

    inputs = [tensor.requires_grad_() for tensor in (x, a, b)]
    # with dropout the masked part of x's gradient is summed in float32
    assert torch.autograd.gradcheck(seeded, inputs, eps=1e-4, atol=1e-6, rtol=1e-6)


def test_dropout_leaves_the_mean_and_draws_anew_every_time():
    x, weight, bias, a, b = parts(1)
    torch.manual_seed(0)
    draws = torch.stack([lora_linear(x, weight, bias, a, b, 0.3) for _ in range(2000)])
    assert not torch.equal(draws[0], draws[1])
    assert (draws.mean(0) - formula(x, weight, bias, a, b)).abs().max() < 5 * draws.std(0).max() / 2000**0.5


def test_a_lora_linear_needs_no_gradient_of_its_input():
    x, weight, bias, a, b = parts(0)
    found = with_gradients(lambda a, b: lora_linear(x, weight, bias, a, b), a, b)
    same(found, with_gradients(lambda a, b: formula(x, weight, bias, a, b), a, b))


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("dropout", DROPOUTS)
def test_a_4bit_weight_does_as_its_unpacked_self(twice, dropout):
    x, _, bias, a, b = parts(0)
    weight, unpacked = packed(3, twice=twice)

    def seeded(weight):
        def function(x, a, b):
            torch.manual_seed(0)
            return lora_linear(x, weight, bias, a, b, dropout)

        return function

    assert all(
        torch.equal(one, other)
        for one, other in zip(with_gradients(seeded(weight), x, a, b), with_gradients(seeded(unpacked), x, a, b))
    )
    same(
        with_gradients(lambda x: fused.FrozenLinear.apply(x, weight, bias), x),
        with_gradients(lambda x: torch.nn.functional.linear(x, unpacked, bias), x),
    )


@pytest.mark.parametrize("dropout", DROPOUTS)
def test_working_copies_get_the_gradient_in_place_of_the_matrices(dropout):
    x, weight, bias, a, b = (tensor.requires_grad_() for tensor in parts(0))
    working = fused.Working(a.detach(), b.detach(), torch.full_like(a, 9.0), torch.full_like(b, 9.0))  # written over
    torch.manual_seed(0)
    output = fused.LoraLinear.apply(x, weight.detach(), bias.detach(), a, b, SCALING, dropout, working)
    output.square().sum().backward()
    assert (a.grad, b.grad) == (None, None)
    found = [output.detach(), x.grad, working.grad_a, working.grad_b]
    torch.manual_seed(0)
    output = lora_linear(x, weight.detach(), bias.detach(), a, b, dropout)
    same(found, [output.detach(), *torch.autograd.grad(output.square().sum(), (x, a, b))])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_pass_leaves_float32_gradients_in_float32_matrices(dtype):
    x, weight, bias, a, b = parts(0)
    x = x.to(dtype)
    found = with_gradients(lambda x, a, b: lora_linear(x, weight.to(dtype), bias.to(dtype), a, b), x, a, b)
    assert [tensor.dtype for tensor in found] == [dtype, dtype, torch.float32, torch.float32]
    same(found, with_gradients(lambda x, a, b: formula(x, weight, bias, a, b), x.float(), a, b), 3e-2)


@pytest.mark.parametrize("dropout", DROPOUTS)
@pytest.mark.parametrize("four_bit", [False, True])
def test_a_lora_linear_saves_its_input_the_low_product_the_matrices_and_the_mask_and_nothing_else(dropout, four_bit):
    x, weight, bias, a, b = parts(0)
    x, a, b = (tensor.requires_grad_() for tensor in (x, a, b))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        output = lora_linear(x, packed(0)[0] if four_bit else weight, bias, a, b, dropout)
    shapes = [tuple(tensor.shape) for tensor in saved]
    assert shapes == [(TOKENS, WIDTH), (TOKENS, RANK), (RANK, WIDTH), (OUT, RANK), *[(TOKENS, WIDTH)] * (dropout > 0)]
    assert [tensor.data_ptr() for tensor in (saved[0], saved[2], saved[3])] == [t.data_ptr() for t in (x, a, b)]
    assert [tensor.dtype for tensor in saved[4:]] == [torch.bool] * (dropout > 0)
    assert not [v for v in vars(output.grad_fn).values() if isinstance(v, torch.Tensor) and v is not weight]


def test_a_frozen_linear_saves_nothing():
    x, weight, bias, *_ = parts(0)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda tensor: tensor):
        fused.FrozenLinear.apply(x.requires_grad_(), weight, bias)
    assert saved == []


# The element-wise parts


@settings(max_examples=20)
@given(seed=SEEDS, size=st.sampled_from([0.01, 1.0, 100.0]))
def test_the_norm_is_upstreams(seed, size):
    norm = MistralRMSNorm(WIDTH, eps=1e-5)
    norm.weight.data = 1 + 0.3 * normal(seed + 1, WIDTH)
    x = size * normal(seed, TOKENS, WIDTH)
    same(
        with_gradients(lambda x: fused.RmsNorm.apply(x, norm.weight.detach(), norm.variance_epsilon), x),
        with_gradients(norm, x),
    )


@settings(max_examples=20)
@given(seed=SEEDS, size=st.sampled_from([0.01, 1.0, 20.0]))
def test_the_gated_product_is_torchs(seed, size):
    gate, up = size * normal(seed, TOKENS, WIDTH), normal(seed + 1, TOKENS, WIDTH)
    same(
        with_gradients(fused.SwiGlu.apply, gate, up),
        with_gradients(lambda gate, up: torch.nn.functional.silu(gate) * up, gate, up),
    )


def angles(seed, head_dim):
    half = 3 * normal(seed, TOKENS, head_dim // 2)
    angle = torch.cat((half, half), dim=-1)
    return angle.cos(), angle.sin()


@settings(max_examples=20)
@given(seed=SEEDS, heads=st.integers(1, 3), head_dim=st.sampled_from([2, 8, 16]))
def test_the_rotary_embedding_is_upstreams(seed, heads, head_dim):
    x, (cos, sin) = normal(seed, TOKENS, heads, head_dim), angles(seed, head_dim)

    def upstream(x):
        turned, _ = apply_rotary_pos_emb(x.transpose(0, 1), x.transpose(0, 1), cos, sin, unsqueeze_dim=0)
        return turned.transpose(0, 1)

    same(
        with_gradients(lambda x: fused.Rotary.apply(x, cos.unsqueeze(1), sin.unsqueeze(1)), x),
        with_gradients(upstream, x),
    )


def test_turning_keeps_lengths():
    x, (cos, sin) = normal(0, TOKENS, 2, 8), angles(0, 8)
    turned = fused.Rotary.apply(x, cos.unsqueeze(1), sin.unsqueeze(1))
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_worked_out_in_float32(dtype):
    big = 300 * normal(0, TOKENS, WIDTH)  # squares of which a float16 does not hold
    ones, (cos, sin) = torch.ones(WIDTH), angles(0, 8)
    for function, inputs in (
        (lambda x: fused.RmsNorm.apply(x, ones, 1e-5), [big]),
        (fused.SwiGlu.apply, [normal(1, TOKENS, WIDTH), normal(2, TOKENS, WIDTH)]),
        (lambda x: fused.Rotary.apply(x, cos.unsqueeze(1), sin.unsqueeze(1)), [normal(3, TOKENS, 2, 8)]),
    ):
        halves = with_gradients(function, *(tensor.to(dtype) for tensor in inputs))
        assert {tensor.dtype for tensor in halves} == {dtype}
        same(halves, with_gradients(function, *(tensor.to(dtype).float() for tensor in inputs)), 2e-2)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: fused.RmsNorm.apply(x, torch.ones(WIDTH), 1e-5), [(TOKENS, WIDTH), (WIDTH,)]),
        (lambda x: fused.SwiGlu.apply(x, x + 1), [(TOKENS, WIDTH)] * 2),
        (
            lambda x: fused.Rotary.apply(x.view(TOKENS, 8, 8), *(angle.unsqueeze(1) for angle in angles(0, 8))),
            [(TOKENS, 1, 8)] * 2,
        ),
    ],
    ids=["norm", "gated product", "rotary"],
)
def test_the_element_wise_parts_save_what_their_gradient_needs(function, expected):
    shapes = []
    x = normal(0, TOKENS, WIDTH).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(tuple(t.shape)) or t, lambda t: t):
        function(x)
    assert shapes == expected


@pytest.mark.gpu
def test_compiled_parts_do_as_the_plain_ones():
    x, y = normal(0, TOKENS, WIDTH).cuda(), normal(1, TOKENS, WIDTH).cuda()
    weight, mask = 1 + normal(2, WIDTH).cuda(), y > 0
    cos, sin = (angle.unsqueeze(1).cuda() for angle in angles(0, 8))
    calls = {
        "norm": (x, weight, 1e-5),
        "norm_backward": (y, x, weight, 1e-5),
        "swiglu": (x, y),
        "swiglu_backward": (x, y, y + 1),
        "rotate": (x.view(TOKENS, 8, 8), cos, sin),
        "add_masked": (x, y, mask, 1.5),
    }
    assert calls.keys() == fused.elementwise.keys()
    fused.use_eager()
    plain = {name: fused.elementwise[name](*call) for name, call in calls.items()}
    assert fused.compile_elementwise(torch.device("cuda"))
    try:
        for name, call in calls.items():
            found, expected = fused.elementwise[name](*call), plain[name]
            pairs = zip(found, expected) if isinstance(found, tuple) else [(found, expected)]
            assert all(torch.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in pairs), name
    finally:
        fused.use_eager()
