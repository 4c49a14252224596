"""The parts of a transformer layer as one autograd function each: what they save is what their gradient needs, no more.

The base model is frozen, so nothing here has a gradient for its weights. On a GPU the element-wise parts are compiled
(`compile_elementwise`); the mathematics is that of the plain modules, and tests hold the two together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.functional import dequantize_blockwise

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Packed4bit:
    """A bitsandbytes 4-bit weight: its bytes and how to read them."""

    data: torch.Tensor
    state: Any

    def unpack(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight (out, in), straight in `dtype`."""
        state = self.state
        absmax = state.absmax
        if state.nested:
            absmax = (dequantize_blockwise(absmax, state.state2) + state.offset).float()
        unpack = torch.ops.bitsandbytes.dequantize_4bit.default
        return unpack(self.data, absmax, state.blocksize, state.quant_type, state.shape, dtype)


def weight_in(weight: Packed4bit | torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The weight (out, in) in `dtype`, unpacked where it is packed."""
    return weight.unpack(dtype) if isinstance(weight, Packed4bit) else weight.to(dtype)


@dataclass(frozen=True)
class Working:
    """A and B of a LoRA layer in the type that passes compute in, and where their gradients go in that type.

    Copied and collected for all layers at once (`step.Adapter`): a small model has hundreds of matrices, and a kernel for each
    takes longer than its arithmetic.
    """

    a: torch.Tensor
    b: torch.Tensor
    grad_a: torch.Tensor
    grad_b: torch.Tensor


class LoraLinear(torch.autograd.Function):
    """x W' + bias + scaling * dropout(x) A' B', with W unpacked for the moment and only x, x A' and the mask saved.

    Shapes: x (tokens, in), W (out, in), A (rank, in), B (out, rank). A and B may be float32 beside a half-precision x; they are
    rounded to x's type, as autocast does, and get float32 gradients. With `working` copies the gradients are left there.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: Packed4bit | torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
        dropout: float,
        working: Working | None,
    ) -> torch.Tensor:
        """The output (tokens, out), in x's type; `bias` is (out,) or None."""
        output = torch.nn.functional.linear(x, weight_in(weight, x.dtype), bias)
        used_a, used_b = (working.a, working.b) if working else (a.to(x.dtype), b.to(x.dtype))
        mask, dropped = None, x
        if dropout > 0:
            dropped, mask = torch.ops.aten.native_dropout(x, dropout, True)
        low = dropped @ used_a.T
        output.addmm_(low, used_b.T, alpha=scaling)
        keep_dropped = working is not None  # a small model has the memory, and no time for one more kernel
        ctx.save_for_backward(dropped if keep_dropped else x, low, a, b, *(() if mask is None else (mask,)))
        ctx.weight, ctx.scaling, ctx.keep, ctx.working = weight, scaling, 1 / (1 - dropout), working
        return output

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[Any, ...]:
        """From a slope (tokens, out) the gradients of x (tokens, in), A (rank, in) and B (out, rank), else None."""
        slope = outputs[0]
        x, low, a, b, *masks = ctx.saved_tensors
        working, scaling, keep = ctx.working, ctx.scaling, ctx.keep
        used_a, used_b = (working.a, working.b) if working else (a.to(x.dtype), b.to(x.dtype))
        through = slope @ used_b
        dropped = x
        if masks and not working:
            dropped = torch.ops.aten.native_dropout_backward(x, masks[0], keep)
        grad_a = _scaled_product(through.T, dropped, scaling, working and working.grad_a)
        del dropped
        grad_b = _scaled_product(slope.T, low, scaling, working and working.grad_b)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = slope @ weight_in(ctx.weight, x.dtype)
            if masks:
                low_x = through @ used_a
                _any_number(grad_x, low_x, masks[0])
                grad_x = elementwise["add_masked"](grad_x, low_x, masks[0], keep * scaling)
            else:
                grad_x.addmm_(through, used_a, alpha=scaling)
        if working:
            return grad_x, None, None, None, None, None, None, None
        return grad_x, None, None, grad_a.to(a.dtype), grad_b.to(b.dtype), None, None, None


def _scaled_product(left: torch.Tensor, right: torch.Tensor, scaling: float, out: torch.Tensor | None) -> torch.Tensor:
    if out is None:
        return (left @ right).mul_(scaling)
    return torch.addmm(out, left, right, beta=0, alpha=scaling, out=out)


class FrozenLinear(torch.autograd.Function):
    """x W' + bias for a weight that does not learn; nothing of the forward is saved."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any) -> torch.Tensor:
        ctx.weight = weight
        return torch.nn.functional.linear(x, weight_in(weight, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[Any, ...]:
        return outputs[0] @ weight_in(ctx.weight, outputs[0].dtype), None, None


class _Forgetful:
    """The context of a forward that no backward follows."""

    needs_input_grad = (False,)

    def save_for_backward(self, *_: Any) -> None:
        pass


def run(function: type[torch.autograd.Function], *arguments: Any) -> torch.Tensor:
    """`function.apply`, but for what autograd adds to it where no gradient is wanted: it takes longer than the launches."""
    if torch.is_grad_enabled():
        return function.apply(*arguments)
    return function.forward(_Forgetful(), *arguments)


def _norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight.float()).to(x.dtype)


def _norm_backward(slope: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    wide, scaled = x.float(), slope.float() * weight.float()
    rstd = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    normed = wide * rstd
    return ((scaled - normed * (scaled * normed).mean(-1, keepdim=True)) * rstd).to(x.dtype)


def _swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(gate) * up


def _swiglu_backward(slope: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ops.aten.silu_backward(slope * up, gate), slope * torch.nn.functional.silu(gate)


def _add_masked(x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor, factor: float) -> torch.Tensor:
    return (x.float() + y.float() * mask * factor).to(x.dtype)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of x (tokens, heads, head_dim) by cos and sin (tokens, 1, head_dim) of the same halves."""
    half = x.shape[-1] // 2
    wide = x.float()
    turned = torch.cat((-wide[..., half:], wide[..., :half]), dim=-1)
    return (wide * cos.float() + turned * sin.float()).to(x.dtype)


elementwise: dict[str, Callable[..., Any]] = {}
_EAGER: dict[str, Callable[..., Any]] = {
    "norm": _norm,
    "norm_backward": _norm_backward,
    "swiglu": _swiglu,
    "swiglu_backward": _swiglu_backward,
    "add_masked": _add_masked,
    "rotate": _rotate,
}
elementwise.update(_EAGER)


def use_eager() -> None:
    """Run the element-wise parts as they are written."""
    elementwise.update(_EAGER)


def compile_elementwise(device: torch.device) -> bool:
    """Have torch.compile fuse the element-wise parts from here on; False, with one warning, where that cannot work.

    It needs Triton and a C compiler, which CUDA builds of torch and most machines have. Compiled once for any number of tokens.
    """
    if elementwise["norm"] is not _norm:
        return True
    compiled = {name: torch.compile(function) for name, function in _EAGER.items()}
    try:
        x = torch.ones(3, 8, device=device)  # a probe: the real types compile on their first use
        compiled["norm"](x, x[0], 1e-5)
    except (RuntimeError, ImportError, OSError) as error:  # dynamo's own errors, Triton's or the C compiler's absence
        log.warning("torch.compile does not work here (%s): element-wise parts run unfused", str(error).split("\n")[0])
        torch._dynamo.reset()
        return False
    elementwise.update(compiled)
    return True


def _any_number(*tensors: torch.Tensor) -> None:
    """Say to the compiler that the first dimension (tokens) varies."""
    if elementwise["norm"] is not _norm:
        for tensor in tensors:
            torch._dynamo.maybe_mark_dynamic(tensor, 0)


class RmsNorm(torch.autograd.Function):
    """Root-mean-square norm of x (tokens, hidden), worked out in float32; saves x alone."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        _any_number(x)
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return elementwise["norm"](x, weight, eps)

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        slope = outputs[0].contiguous()
        _any_number(slope, x)
        return elementwise["norm_backward"](slope, x, weight, ctx.eps), None, None


class SwiGlu(torch.autograd.Function):
    """silu(gate) * up, (tokens, intermediate) each; saves the two."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        _any_number(gate, up)
        ctx.save_for_backward(gate, up)
        return elementwise["swiglu"](gate, up)

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[Any, ...]:
        gate, up = ctx.saved_tensors
        slope = outputs[0].contiguous()
        _any_number(slope, gate, up)
        return elementwise["swiglu_backward"](slope, gate, up)


class Rotary(torch.autograd.Function):
    """Rotary position embedding of x (tokens, heads, head_dim); its gradient turns the other way, so x is not saved."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        _any_number(x, cos, sin)
        ctx.save_for_backward(cos, sin)
        return elementwise["rotate"](x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[Any, ...]:
        cos, sin = ctx.saved_tensors
        slope, back = outputs[0].contiguous(), -sin
        _any_number(slope, cos, back)
        return elementwise["rotate"](slope, cos, back), None, None
