"""Cross-entropy of hidden states against tokens, in chunks: the logits of a whole pass never exist at once."""

from __future__ import annotations

from typing import Any

import torch

from text2sql import memory

CHUNK = memory.CHUNK
"""Hidden states whose logits exist at the same time."""


class ChunkedCrossEntropy(torch.autograd.Function):
    """The summed cross-entropy; the gradient of the hidden states is worked out on the way, the head's own is not."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
    ) -> torch.Tensor:
        """The loss (), float32, of `hidden` (targets, width) by `head` (vocabulary, width) and `bias` (vocabulary,)."""
        needs_gradient = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if needs_gradient else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        weight = head.to(hidden.dtype)
        for start in range(0, len(hidden), CHUNK):
            some, wanted = hidden[start : start + CHUNK], targets[start : start + CHUNK]
            logits = torch.nn.functional.linear(some, weight, bias).float()
            kept = wanted >= 0
            wanted = wanted.clamp(min=0).unsqueeze(1)
            log_z = logits.logsumexp(1)
            total += ((log_z - logits.gather(1, wanted).squeeze(1)) * kept).sum()
            if gradient is not None:
                slope = logits.sub_(log_z.unsqueeze(1)).exp_()
                slope.scatter_add_(1, wanted, torch.full_like(slope[:, :1], -1.0))
                slope.mul_(kept.unsqueeze(1))
                torch.matmul(slope.to(weight.dtype), weight, out=gradient[start : start + CHUNK])
        ctx.gradient = gradient
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None]:
        # The factor is applied in float32: a loss scale times a normalised sum may not fit a half on its own.
        gradient, ctx.gradient = ctx.gradient, None
        return None if gradient is None else (gradient.float() * outputs[0]).to(gradient.dtype), None, None, None


def cross_entropy(hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor) -> torch.Tensor:
    """The summed cross-entropy (float32) of `hidden` (targets, hidden size) by `head` against `targets` (targets,).

    Negative targets count nothing. The head learns nothing: it gets no gradient.
    """
    loss: torch.Tensor = ChunkedCrossEntropy.apply(hidden, head.weight, head.bias, targets)
    return loss
