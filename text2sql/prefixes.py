"""Which prompts shall share the tokens that they begin with, and which are answered together; plain lists, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ROOM_STEP = 64
"""Cache lengths are multiples of this: attention kernels want masks aligned, and fewer lengths are fewer recordings."""
TAIL_COST = 1.5
"""A token that looks back over a shared prefix costs so much more than one in plain causal attention."""


@dataclass(frozen=True)
class Group:
    """Rows (indices) that begin with the same `shared` tokens; each has at least one more."""

    shared: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """Groups that are answered together, in the order of their cache slots; `room` is the length of a slot."""

    groups: tuple[Group, ...]
    room: int

    @property
    def rows(self) -> list[int]:
        return [i for group in self.groups for i in group.rows]


@dataclass(frozen=True)
class _Segment:
    """Neighbours `first` to `last` in lexicographic order, the cheapest way to group them, and what that costs."""

    first: int
    last: int
    tokens: int
    cost: float
    groups: tuple[Group, ...]


def rounded(tokens: int) -> int:
    """The cache length for so many tokens."""
    return -(-tokens // ROOM_STEP) * ROOM_STEP


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two rows begin with alike, short of the whole of either."""
    limit = min(len(a), len(b)) - 1
    return next((i for i in range(limit) if a[i] != b[i]), limit)


def group(rows: Sequence[list[int]]) -> list[Group]:
    """All rows, in groups for which reading the shared prefix once and the rest of each row after it costs least.

    In lexicographic order a prefix is shared by neighbours. They are joined from the longest common prefix to the shortest,
    and stay apart where joining does not pay.
    """
    order = sorted(range(len(rows)), key=rows.__getitem__)
    alone = [_alone(rows, place, i) for place, i in enumerate(order)]
    by_first, by_last = dict(enumerate(alone)), dict(enumerate(alone))
    shared = {place: common(rows[order[place - 1]], rows[order[place]]) for place in range(1, len(order))}
    for place in sorted(shared, key=lambda place: -shared[place]):
        joined = _join(by_last[place - 1], by_first[place], shared[place], order)
        by_first[joined.first] = by_last[joined.last] = joined
    return list(by_first[0].groups) if order else []


def _alone(rows: Sequence[list[int]], place: int, i: int) -> _Segment:
    length = len(rows[i])
    return _Segment(place, place, length, length, (Group(length - 1, (i,)),))


def _join(a: _Segment, b: _Segment, shared: int, order: Sequence[int]) -> _Segment:
    count, tokens = b.last - a.first + 1, a.tokens + b.tokens
    cost = shared + TAIL_COST * (tokens - count * shared)
    if cost < a.cost + b.cost:
        return _Segment(a.first, b.last, tokens, cost, (Group(shared, tuple(order[a.first : b.last + 1])),))
    return _Segment(a.first, b.last, tokens, a.cost + b.cost, a.groups + b.groups)


def batches(
    rows: Sequence[list[int]], groups: Sequence[Group], *, max_new_tokens: int, max_cache_tokens: int, max_rows: int
) -> list[Batch]:
    """Batches of at most `max_rows` whose slots hold at most `max_cache_tokens` (a longer row stands alone).

    Groups with the longest rows come first, so that memory runs out early or never; a group is split where a batch is full.
    """
    members = [(one.shared, sorted(one.rows, key=lambda i: -len(rows[i]))) for one in groups]
    members.sort(key=lambda member: -len(rows[member[1][0]]))
    found: list[Batch] = []
    filled: list[Group] = []
    count = longest = 0
    for shared, indices in members:
        begun = 0
        for k, i in enumerate(indices):
            longer = max(longest, rounded(len(rows[i]) + max_new_tokens))
            if count and ((count + 1) * longer > max_cache_tokens or count == max_rows):
                if begun < k:
                    filled.append(Group(shared, tuple(indices[begun:k])))
                found.append(Batch(tuple(filled), longest))
                filled, count, longest, begun = [], 0, 0, k
                longer = rounded(len(rows[i]) + max_new_tokens)
            count, longest = count + 1, longer
        filled.append(Group(shared, tuple(indices[begun:])))
    return [*found, Batch(tuple(filled), longest)] if filled else found


def computed(rows: Sequence[list[int]], found: Sequence[Batch]) -> int:
    """How many prompt tokens go through the model for these batches."""
    groups = [one for batch in found for one in batch.groups]
    return sum(one.shared + sum(len(rows[i]) - one.shared for i in one.rows) for one in groups)
