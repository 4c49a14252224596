"""Passes recorded as CUDA graphs: a small model is waiting for kernel launches nearly all of its time, a replay has one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from text2sql.attention import Packed, best_backend
from text2sql.passes import Pass, Row, concatenate

log = logging.getLogger(__name__)

WARMED_UP = 2
"""Sizes that are run once before they are recorded: what is made on first use, and what torch.compile makes anew, for any
number of tokens, when it meets a second."""
FILLING_ID = 0
NO_TARGET = -1


def spacing(num_tokens: int) -> int:
    """Between sizes of recorded passes near so many tokens: 1/16 of the power of two below, 16 for short passes."""
    return max(16, (1 << (num_tokens.bit_length() - 1)) // 16)


def bucket(num_tokens: int) -> int:
    """The size of the recorded pass for so many tokens: some 2 % more on average, some thirty sizes in a training.

    Recording a size takes 0.35 s, so that a finer spacing costs a training of minutes more than the filling that it saves.
    """
    space = spacing(num_tokens)
    return -(-num_tokens // space) * space


def longest_in(num_tokens: int, longest: int) -> int:
    """What a recorded pass of so many tokens says of its longest example: no less than `longest` and than its filling may be.

    Attention leaves out what lies beyond, and what it leaves out is no number; more than there are tokens it refuses.
    """
    return min(max(longest, spacing(num_tokens)), num_tokens)


def target_bucket(num_targets: int) -> int:
    """Places for targets in a recorded pass: a power of two, and so many at least that sizes rarely differ in nothing else."""
    return max(1024, 1 << (num_targets - 1).bit_length())


class Step(Protocol):
    """What a recording needs of `step.StepGradient`."""

    device: torch.device
    dtype: torch.dtype
    adapter: Any

    def loss(self, examples: Pass, layout: Packed | None = None) -> torch.Tensor: ...


@dataclass(frozen=True)
class Recorded:
    """A captured pass and the tensors that it reads and writes."""

    graph: Any
    examples: Pass
    bounds: torch.Tensor
    factor: torch.Tensor
    loss: torch.Tensor


class GraphedPasses:
    """Forward and backward of passes by replay, one recording for each size that occurs.

    Gradients are added to the flat buffer, as in a pass that is launched kernel by kernel.
    """

    def __init__(self, max_examples: int, longest: int) -> None:
        self.max_examples, self.longest = max_examples, longest
        self.recordings: dict[tuple[int, int], Recorded] = {}
        self.pool: Any = None

    def __call__(self, step: Step, rows: Sequence[Row], factor: torch.Tensor) -> tuple[torch.Tensor, int]:
        """The summed loss of `rows`, whose gradient times `factor` is added; and how many tokens only fill the recording."""
        examples = concatenate(rows)
        size = (bucket(examples.num_tokens), target_bucket(examples.num_targets))
        if size not in self.recordings:
            self.recordings[size] = self._record(step, size, examples, factor)
        recorded = self.recordings[size]
        self._fill(recorded, examples, factor)
        recorded.graph.replay()
        return recorded.loss.clone(), size[0] - examples.num_tokens

    def _fill(self, recorded: Recorded, examples: Pass, factor: torch.Tensor) -> None:
        """Copy a pass into the recording's tensors, filled up by one more example from which nothing is learned."""
        static = recorded.examples
        num_tokens, num_targets = static.num_tokens, static.num_targets
        extra = num_tokens - examples.num_tokens
        packed = torch.full((2, num_tokens), FILLING_ID)
        packed[0, : examples.num_tokens], packed[1, : examples.num_tokens] = examples.ids[0], examples.positions[0]
        packed[1, examples.num_tokens :] = torch.arange(extra)
        learned = torch.full((2, num_targets), NO_TARGET)
        learned[0] = 0
        learned[0, : examples.num_targets], learned[1, : examples.num_targets] = examples.sources, examples.targets
        bounds = torch.full((self.max_examples + 2,), num_tokens, dtype=torch.int32)
        bounds[: len(examples.lengths) + 1] = torch.tensor([0, *examples.lengths]).cumsum(0)
        for target, source in (
            (static.ids, packed[:1]),
            (static.positions, packed[1:]),
            (static.sources, learned[0]),
            (static.targets, learned[1]),
            (recorded.bounds, bounds),
        ):
            target.copy_(source.pin_memory(), non_blocking=True)
        recorded.factor.copy_(factor)

    def _record(self, step: Step, size: tuple[int, int], examples: Pass, factor: torch.Tensor) -> Recorded:
        device, (num_tokens, num_targets) = step.device, size
        whole = torch.zeros((4, max(size)), dtype=torch.long, device=device)
        static = Pass(
            whole[:1, :num_tokens],
            whole[1:2, :num_tokens],
            whole[2, :num_targets],
            whole[3, :num_targets],
            examples.lengths,
        )
        bounds = torch.zeros(self.max_examples + 2, dtype=torch.int32, device=device)
        layout = Packed(bounds, (), longest_in(num_tokens, self.longest), best_backend(device, step.dtype))
        recorded = Recorded(torch.cuda.CUDAGraph(), static, bounds, torch.zeros_like(factor), torch.zeros_like(factor))
        self._fill(recorded, examples, factor)
        before = step.adapter.buffer.clone()
        if len(self.recordings) < WARMED_UP:
            numbers = torch.cuda.get_rng_state(device)
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                self._run(step, recorded, layout)
            torch.cuda.current_stream().wait_stream(aside)
            # a run that goes on from a checkpoint records again, and its dropout must not be another for it
            torch.cuda.set_rng_state(numbers, device)
        torch.cuda.synchronize()
        # relaxed: a size may want a kernel that no other had, and loading it is no part of the recording
        with torch.cuda.graph(recorded.graph, pool=self.pool, capture_error_mode="relaxed"):
            self._run(step, recorded, layout)
        self.pool = self.pool or recorded.graph.pool()
        step.adapter.buffer.copy_(before)
        log.debug("recorded a pass of %d tokens and %d targets", *size)
        return recorded

    @staticmethod
    def _run(step: Step, recorded: Recorded, layout: Packed) -> None:
        recorded.loss.copy_(step.adapter.backward(lambda: step.loss(recorded.examples, layout), recorded.factor))
