"""Reading prompts into a cache: each shared prefix once for all rows that begin with it, then the rest of every prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from text2sql import attention
from text2sql.attention import Cache, Layout, Packed
from text2sql.prefixes import Batch, rounded


class Run(Protocol):
    """The model: last hidden states (1, tokens, hidden) of ids and positions (1, tokens) in a layout."""

    def __call__(self, ids: torch.Tensor, positions: torch.Tensor, layout: Layout) -> torch.Tensor: ...


@dataclass(frozen=True)
class Part:
    """Tokens that stand from `start` on in the slots `first` to `last` (not included)."""

    ids: list[int]
    start: int
    first: int
    last: int

    @property
    def slots(self) -> range:
        return range(self.first, self.last)


@dataclass(frozen=True)
class Prefixes:
    """Prefixes end to end in one row, as in `Packed`; their keys and values go into every slot that begins with them.

    Token `sources[k]` of the row goes to place `places[k]` of slot `slots[k]`; all are (filled places,).
    """

    packed: Packed
    cache: Cache
    sources: torch.Tensor
    slots: torch.Tensor
    places: torch.Tensor

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        filled = (tensor[0].transpose(0, 1)[self.sources] for tensor in (key, value))
        self.cache.write(layer, self.slots, self.places, *filled)
        return self.packed.attend(layer, query, key, value, scale)


@dataclass(frozen=True)
class Tails:
    """The rest of each prompt end to end in one row: a token sees its own slot of the cache up to itself.

    Token k stands at place `places[k]` of slot `slots[k]` and is number `columns[k]` of its tail; all are (tokens,). Queries
    are padded to `longest` for attention alone.
    """

    cache: Cache
    slots: torch.Tensor
    places: torch.Tensor
    columns: torch.Tensor
    longest: int
    mask: torch.Tensor

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        self.cache.write(layer, self.slots, self.places, key, value)
        padded = query.new_zeros((len(self.cache.rows), self.longest, *query.shape[1:]))
        padded[self.slots, self.columns] = query
        output = self.cache.look(layer, padded.transpose(1, 2), self.mask, scale)
        return output[self.slots, self.columns].unsqueeze(0)


def read(
    run: Run, rows: Sequence[list[int]], batch: Batch, cache: Cache, heads_per_key: int, max_tokens: int
) -> torch.Tensor:
    """Fill the first slots of `cache` with the prompts of `batch`; their last hidden states (rows, hidden).

    A pass has `max_tokens` tokens at most, its parts padded to the longest.
    """
    prefixes: list[Part] = []
    tails: list[Part] = []
    for group in batch.groups:
        first = len(tails)
        prefixes.append(Part(rows[group.rows[0]][: group.shared], 0, first, first + len(group.rows)))
        tails += [
            Part(rows[i][group.shared :], group.shared, first + k, first + k + 1) for k, i in enumerate(group.rows)
        ]
    for parts in chunks([part for part in prefixes if part.ids], max_tokens):
        _read_prefixes(run, parts, cache)
    return torch.cat([_read_tails(run, parts, cache, heads_per_key) for parts in chunks(tails, max_tokens)])


def chunks(parts: Sequence[Part], max_tokens: int) -> Iterator[list[Part]]:
    """Neighbours of at most `max_tokens` when each is padded to the longest among them; a longer part stands alone."""
    chunk: list[Part] = []
    longest = 0
    for part in parts:
        if chunk and (len(chunk) + 1) * max(longest, len(part.ids)) > max_tokens:
            yield chunk
            chunk, longest = [], 0
        chunk.append(part)
        longest = max(longest, len(part.ids))
    if chunk:
        yield chunk


def _places(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """0, 1, 2, ... up to each of these lengths, end to end."""
    lengths = np.asarray(lengths)
    return np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)


def _read_prefixes(run: Run, parts: Sequence[Part], cache: Cache) -> None:
    device, lengths = cache.keys.device, np.array([len(part.ids) for part in parts])
    ids = [token for part in parts for token in part.ids]
    both = torch.from_numpy(np.stack((ids, _places(lengths)))).to(device)
    copies = [len(part.slots) for part in parts]
    sizes, begins = (np.repeat(some, copies) for some in (lengths, lengths.cumsum() - lengths))
    places, slots = _places(sizes), np.repeat([slot for part in parts for slot in part.slots], sizes)
    table = torch.from_numpy(np.stack((np.repeat(begins, sizes) + places, slots, places))).to(device)
    packed = attention.packed(lengths.tolist(), device, cache.keys.dtype)
    run(both[:1], both[1:], Prefixes(packed, cache, *table))


def _read_tails(run: Run, parts: Sequence[Part], cache: Cache, heads_per_key: int) -> torch.Tensor:
    device, lengths = cache.keys.device, np.array([len(part.ids) for part in parts])
    longest, starts = int(lengths.max()), np.array([part.start for part in parts])
    ids = [token for part in parts for token in part.ids]
    slots, columns = np.repeat(np.arange(len(parts)), lengths), _places(lengths)
    table = torch.from_numpy(np.stack((ids, slots, columns, starts[slots] + columns))).to(device)
    view = cache.part(parts[0].first, parts[-1].last, rounded(int(starts.max()) + longest))
    positions = torch.from_numpy(starts[:, None] + np.arange(longest)).to(device)
    mask = view.seen_from(positions).repeat(1, 1, heads_per_key, 1)
    hidden = run(table[:1], table[3:], Tails(view, table[1], table[3], table[2], longest, mask))
    return hidden[0, torch.from_numpy(lengths.cumsum() - 1).to(device)]
