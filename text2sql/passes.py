"""Token-budget passes: the examples of one optimizer step, end to end and without padding, in as few passes as fit."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Row:
    """One example as token ids; `ids[prompt_length:]` is what is learned."""

    ids: list[int]
    prompt_length: int


def plan(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices into `lengths` by pass: each within max_tokens (a longer example stands alone), as few as fit.

    Best-fit decreasing, the classic bin-packing rule, which needs at most 11/9 of the best number of passes (Johnson 1973);
    the fuller pass comes first, so that memory runs out at once or never. The order within a pass is that of `lengths`.
    """
    passes: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [j for j, left in enumerate(room) if left >= lengths[i]]
        if fitting:
            best = min(fitting, key=lambda j: room[j])
            passes[best].append(i)
            room[best] -= lengths[i]
        else:
            passes.append([i])
            room.append(max_tokens - lengths[i])
    fullest_first = sorted(range(len(passes)), key=lambda j: room[j])
    return [sorted(passes[j]) for j in fullest_first]


def share(lengths: Sequence[int], num_ranks: int) -> list[list[int]]:
    """Indices into `lengths` by rank, so that the ranks' tokens are as even as longest-first dealing makes them."""
    shares: list[list[int]] = [[] for _ in range(num_ranks)]
    loads = [(0, rank) for rank in range(num_ranks)]
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        load, rank = heapq.heappop(loads)
        shares[rank].append(i)
        heapq.heappush(loads, (load + lengths[i], rank))
    return [sorted(indices) for indices in shares]


@dataclass(frozen=True)
class Pass:
    """Examples end to end: `ids` and `positions` (1, tokens), which restart with each example.

    `sources` (targets,) are the places whose hidden state predicts a token that is learned, `targets` (targets,) those
    tokens; the first token of an example is never one of them. `num_targets` counts the real ones, ahead of any filling.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    sources: torch.Tensor
    targets: torch.Tensor
    lengths: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        return self.ids.shape[1]

    @property
    def num_targets(self) -> int:
        return len(self.targets)


def concatenate(rows: Sequence[Row], device: torch.device | str = "cpu") -> Pass:
    """The pass of these rows, on `device`."""
    ids = [token for row in rows for token in row.ids]
    positions = [position for row in rows for position in range(len(row.ids))]
    sources: list[int] = []
    targets: list[int] = []
    start = 0
    for row in rows:
        first = max(row.prompt_length, 1)  # nothing comes before an example's first token to predict it from
        sources += range(start + first - 1, start + len(row.ids) - 1)
        targets += row.ids[first:]
        start += len(row.ids)
    packed = torch.tensor([ids, positions])
    learned = torch.tensor([sources, targets], dtype=torch.long)
    if torch.device(device).type == "cuda":
        packed, learned = (tensor.pin_memory().to(device, non_blocking=True) for tensor in (packed, learned))
    return Pass(packed[:1], packed[1:], learned[0], learned[1], tuple(len(row.ids) for row in rows))


def count_targets(rows: Sequence[Row]) -> int:
    """How many tokens of these rows are learned."""
    return sum(len(row.ids) - max(row.prompt_length, 1) for row in rows)
