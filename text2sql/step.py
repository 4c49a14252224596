"""The gradient of one optimizer step, from its examples' tokens: in passes that fit, on every rank its share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import distributed

from text2sql import attention, fast_path, ranks
from text2sql.cross_entropy import cross_entropy
from text2sql.fused import Working
from text2sql.graphs import GraphedPasses
from text2sql.passes import Pass, Row, concatenate, count_targets, plan, share

SMALL = 4096
"""Elements under which bitsandbytes' 8-bit optimizers keep a parameter's moments in 32 bits (its min_8bit_size)."""


class Adapter:
    """The trainable parameters of a network, with their gradients as views of one float32 buffer.

    So gradients are zeroed, summed over ranks and recorded at once. With `working`, for a network on the fast path that is
    bound by launches, the LoRA matrices also have copies in the type that passes compute in (`fused.Working`).
    """

    ALIGNMENT = 256
    """Elements: where a parameter begins in a buffer. bitsandbytes' 8-bit optimizers share a scale among so many."""

    def __init__(self, network: Any, dtype: torch.dtype, working: bool) -> None:
        learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.parameters = sorted(learned, key=lambda parameter: parameter.numel() < SMALL)
        self.buffer, views = self._flat(torch.float32)
        self.views = dict(zip(self.parameters, views))
        self.whole: torch.nn.Parameter | None = None
        self.values: torch.Tensor | None = None
        self.copies: torch.Tensor | None = None
        if working:
            self.copies, copied = self._flat(dtype)
            self.collected, slopes = self._flat(dtype)
            copy, slope = dict(zip(self.parameters, copied)), dict(zip(self.parameters, slopes))
            pairs = fast_path.lora_pairs(network)
            assert {p for pair in pairs for p in pair} == set(learned), "something learns that is no LoRA matrix"
            fast_path.use_workings(network, {a: Working(copy[a], copy[b], slope[a], slope[b]) for a, b in pairs})
            self.copied = copied

    def _size(self, parameter: torch.nn.Parameter) -> int:
        return -(-parameter.numel() // self.ALIGNMENT) * self.ALIGNMENT

    def _flat(self, dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
        sizes = [self._size(parameter) for parameter in self.parameters]
        buffer = torch.zeros(sum(sizes), dtype=dtype, device=self.parameters[0].device)
        parts = zip(buffer.split(sizes), self.parameters)
        return buffer, [part[: parameter.numel()].view_as(parameter) for part, parameter in parts]

    def as_one(self, eight_bit: bool) -> list[torch.nn.Parameter]:
        """The parameters for an optimizer that treats every element alike: one, whose parts they become, in place of hundreds.

        With `eight_bit` those under SMALL elements stay apart: bitsandbytes keeps their moments in 32 bits.
        """
        self.values, views = self._flat(torch.float32)
        for parameter, view in zip(self.parameters, views):
            view.copy_(parameter.data)
            parameter.data = view
        apart = [parameter for parameter in self.parameters if eight_bit and parameter.numel() < SMALL]
        size = len(self.values) - sum(map(self._size, apart))
        self.whole = torch.nn.Parameter(self.values[:size])
        return [self.whole, *apart]

    def begin(self) -> None:
        """Zero gradients, in place, where the optimizer and the passes look for them."""
        self.buffer.zero_()
        for parameter, view in self.views.items():
            parameter.grad = view
        if self.whole is not None:
            self.whole.grad = self.buffer[: len(self.whole)]

    def backward(self, loss: Callable[[], torch.Tensor], factor: torch.Tensor) -> torch.Tensor:
        """Add the gradient of `loss()` times `factor`; returns the loss."""
        if self.copies is not None:
            with torch.no_grad():
                if self.values is not None:
                    self.copies.copy_(self.values)
                else:
                    torch._foreach_copy_(self.copied, self.parameters)
        value = loss()
        (value * factor).backward()
        if self.copies is not None:
            self.buffer.add_(self.collected)
        return value.detach()


class StepGradient:
    """Forward and backward of whole optimizer steps.

    A step's examples are dealt to the ranks by their tokens, and on each packed into passes of at most max_tokens. The loss is
    the mean over the learned tokens of the whole step, so neither passes nor ranks change the gradient.
    """

    def __init__(self, model: Any, max_tokens: int, dtype: torch.dtype, graphs: GraphedPasses | None = None) -> None:
        self.model, self.max_tokens, self.dtype, self.graphs = model, max_tokens, dtype, graphs
        self.device = model.device
        self.adapter = Adapter(model, dtype, working=graphs is not None)
        self.num_tokens = self.num_filling = self.num_passes = 0

    def __call__(
        self, rows: Sequence[Row], scale: Callable[[torch.Tensor], torch.Tensor] = lambda one: one
    ) -> torch.Tensor:
        """Leave the gradient of the mean loss of `rows` in the parameters; returns that loss, the same on every rank.

        `scale` is a gradient scaler's, applied to the loss before it goes backward.
        """
        if not self.model.training:
            self.model.train()
        self.adapter.begin()
        mean = torch.ones((), device=self.device) / count_targets(rows)
        factor, total = scale(mean), torch.zeros((), device=self.device)
        for some in self._passes(rows):
            total += self._pass(some, factor)
        if ranks.world_size() > 1:
            distributed.all_reduce(self.adapter.buffer)
            distributed.all_reduce(total)
        return total * mean

    def mean_loss(self, rows: Sequence[Row]) -> float:
        """The mean loss over the learned tokens of `rows`, without gradients and without dropout."""
        total = torch.zeros((), device=self.device)
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad():
            for some in self._passes(rows):
                total += self.loss(concatenate(some, self.device))
        self.model.train(was_training)
        if ranks.world_size() > 1:
            distributed.all_reduce(total)
        return total.item() / count_targets(rows)

    def _passes(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        mine = [rows[i] for i in share([len(row.ids) for row in rows], ranks.world_size())[ranks.rank()]]
        for indices in plan([len(row.ids) for row in mine], self.max_tokens):
            yield [mine[i] for i in indices]

    def _pass(self, rows: list[Row], factor: torch.Tensor) -> torch.Tensor:
        self.num_passes += 1
        self.num_tokens += sum(len(row.ids) for row in rows)
        if self.graphs is not None:
            loss, filling = self.graphs(self, rows, factor)
            self.num_filling += filling
            return loss
        return self.adapter.backward(lambda: self.loss(concatenate(rows, self.device)), factor)

    def loss(self, examples: Pass, layout: attention.Packed | None = None) -> torch.Tensor:
        """The summed cross-entropy of a pass; attention as in `layout`, by default that of the pass's examples."""
        if fast_path.is_on(self.model):
            layout = layout or attention.packed(examples.lengths, self.device, self.dtype)
            hidden = fast_path.hidden_states(self.model, examples.ids, examples.positions, layout)
        elif fast_path.changes_logits(self.model):
            with autocast(self.device, self.dtype):
                inputs = {"input_ids": examples.ids, "position_ids": examples.positions, "use_cache": False}
                logits = self.model(**inputs, logits_to_keep=examples.sources).logits[0]
            return torch.nn.functional.cross_entropy(logits.float(), examples.targets, reduction="sum")
        else:
            decoder = fast_path.causal(self.model).get_decoder()
            hidden = plain_hidden_states(decoder, examples.ids, examples.positions, self.dtype)
        learned = hidden[0].index_select(0, examples.sources).to(self.dtype)
        return cross_entropy(learned, fast_path.head(self.model), examples.targets)


def plain_hidden_states(decoder: Any, ids: torch.Tensor, positions: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The last hidden states (1, tokens, hidden) of a pass by stock modules, in `dtype` as autocast has it.

    transformers reads from positions that restart where examples begin; a cache would make it forget that.
    """
    with autocast(ids.device, dtype):
        return decoder(input_ids=ids, position_ids=positions, use_cache=False)[0]


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """Stock modules in `dtype`; nothing to cast in float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
