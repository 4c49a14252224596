"""Greedy decoding on the fast path: shared prefixes once, then one token a step over a static cache; ids in, ids out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import linear

from text2sql import fast_path, prefill, prefixes, speed
from text2sql.attention import Cache, Layout
from text2sql.prefixes import Batch

log = logging.getLogger(__name__)

MAX_ROWS = 1024
CPU_CACHE_TOKENS = 32_768
SHARE_OF_FREE_MEMORY = 0.6
GPU_LOOKS_EVERY = 8
"""Steps between two looks at which rows have ended: each look waits for the GPU."""
ENDED_TO_DROP = 0.25
"""The share of a batch that has ended for which moving the others together pays."""

# cuDNN's attention makes a plan for every new shape, which takes longer than the steps that would use it.
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True)
class Decoder:
    """A model on the fast path, its head in the type it computes in, and the shape of its cache."""

    model: Any
    head: torch.Tensor
    bias: torch.Tensor | None
    layers: int
    heads_per_key: int
    kv_heads: int
    head_dim: int
    eos_token_id: int
    pad_token_id: int

    @property
    def device(self) -> torch.device:
        return self.head.device

    @property
    def bytes_per_token(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * self.head.dtype.itemsize

    def run(self, ids: torch.Tensor, positions: torch.Tensor, layout: Layout) -> torch.Tensor:
        """The last hidden states (rows, tokens, hidden) of `ids` at `positions`."""
        with torch.no_grad(), sdpa_kernel(KERNELS):
            return fast_path.hidden_states(self.model, ids, positions, layout)

    def cache(self, rows: int, room: int) -> Cache:
        return Cache.empty(self.layers, rows, self.kv_heads, room, self.head_dim, self.head.dtype, self.device)

    def next_tokens(self, hidden: torch.Tensor) -> torch.Tensor:
        """The likeliest token (rows,) after each of `hidden` (rows, hidden)."""
        return linear(hidden, self.head, self.bias).argmax(-1)


@torch.no_grad()
def decoder(model: Any, eos_token_id: int, pad_token_id: int) -> Decoder:
    """What decoding needs to know of `model`, which is on the fast path."""
    config, head = model.config.get_text_config(), fast_path.head(model)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    probe = torch.zeros((1, 1), dtype=torch.long, device=head.weight.device)
    dtype = model.get_input_embeddings()(probe).dtype
    return Decoder(
        model,
        head.weight.detach().to(dtype),
        None if head.bias is None else head.bias.detach().to(dtype),
        config.num_hidden_layers,
        heads // kv_heads,
        kv_heads,
        getattr(config, "head_dim", None) or config.hidden_size // heads,
        eos_token_id,
        pad_token_id,
    )


def decode(
    model: Any,
    rows: Sequence[list[int]],
    *,
    max_new_tokens: int,
    eos_token_id: int,
    pad_token_id: int,
    max_cache_tokens: int | None = None,
    graphs: bool | None = None,
) -> Iterator[tuple[int, list[int]]]:
    """Yield (index into `rows`, answer as token ids without its EOS) as answers end; each row has at least one token.

    `model` is on the fast path and in evaluation mode. `max_cache_tokens` bounds what a batch holds, its answers included;
    None takes it from the free memory. `graphs` records the step as a CUDA graph; None does so where launching kernels is
    what a step waits for.
    """
    if not rows:
        return
    one = decoder(model, eos_token_id, pad_token_id)
    recorded = launch_bound(one) if graphs is None else graphs
    plan = _plan(rows, max_new_tokens, max_cache_tokens or default_cache_tokens(one), even=recorded)
    read, shared = prefixes.computed(rows, plan), sum(len(group.rows) > 1 for batch in plan for group in batch.groups)
    log.info("%d prompts share %d prefixes: %d of %d tokens are read", len(rows), shared, read, sum(map(len, rows)))
    if not recorded:
        for batch in plan:
            yield from _answers(one, rows, batch, Steps(one, len(batch.rows), batch.room, max_new_tokens))
        return
    steps = Recorded(one, max(len(batch.rows) for batch in plan), max(batch.room for batch in plan), max_new_tokens)
    for batch in plan:
        yield from _answers(one, rows, batch, steps)


def launch_bound(one: Decoder) -> bool:
    """Whether a step of this model is on a GPU and so small that launching its kernels takes longer than running them."""
    return one.device.type == "cuda" and sum(p.numel() for p in one.model.parameters()) < speed.GRAPHS_BELOW


def default_cache_tokens(one: Decoder) -> int:
    """How many tokens the cache of a batch may hold: most of what a GPU has free, a fixed number on a CPU."""
    if one.device.type != "cuda":
        return CPU_CACHE_TOKENS
    unused = torch.cuda.memory_reserved(one.device) - torch.cuda.memory_allocated(one.device)
    free = torch.cuda.mem_get_info(one.device)[0] + unused
    return int(SHARE_OF_FREE_MEMORY * free) // one.bytes_per_token


def _plan(rows: Sequence[list[int]], max_new_tokens: int, max_cache_tokens: int, even: bool) -> list[Batch]:
    """The batches; `even` ones have the same number of rows, as a recording wants them."""
    max_rows = MAX_ROWS
    if even:
        room = prefixes.rounded(max(map(len, rows)) + max_new_tokens)
        fitting = min(MAX_ROWS, max(1, max_cache_tokens // room))
        max_rows = -(-len(rows) // -(-len(rows) // fitting))
        max_cache_tokens = max_rows * room
    groups = prefixes.group(rows)
    return prefixes.batches(
        rows, groups, max_new_tokens=max_new_tokens, max_cache_tokens=max_cache_tokens, max_rows=max_rows
    )


class Steps:
    """Where the rows of a batch stand: cache, last tokens and what was written so far; all in place, for recording."""

    recorded = False

    def __init__(self, one: Decoder, rows: int, room: int, max_new_tokens: int) -> None:
        self.one, self.max_new_tokens = one, max_new_tokens
        self.cache = one.cache(rows, room)
        self.tokens = torch.full((rows, 1), one.pad_token_id, device=one.device)
        self.positions = torch.zeros_like(self.tokens)
        self.finished = torch.ones(rows, dtype=torch.bool, device=one.device)
        self.written = torch.full((rows, max_new_tokens), one.pad_token_id, device=one.device)
        self.made = torch.zeros(1, dtype=torch.long, device=one.device)

    def begin(self, lengths: Sequence[int]) -> None:
        """Prompts of these lengths in the first slots; the slots behind them, if any, have ended."""
        self.longest, self.num_made = max(lengths), 0
        self.tokens.fill_(self.one.pad_token_id)
        self.positions.zero_()
        self.positions[: len(lengths), 0] = torch.tensor(lengths, device=self.one.device) - 1
        self.finished.fill_(True)
        self.finished[: len(lengths)] = False
        self.made.zero_()

    def accept(self, tokens: torch.Tensor) -> None:
        """Write the next token (rows,) of each row, padding after its end."""
        tokens = tokens.masked_fill(self.finished, self.one.pad_token_id)
        self.written.index_copy_(1, self.made, tokens.unsqueeze(1))
        self.finished.logical_or_(tokens == self.one.eos_token_id)
        self.tokens.copy_(tokens.unsqueeze(1))
        self.positions.add_(1)
        self.made.add_(1)

    def first(self, hidden: torch.Tensor) -> None:
        """The first token of each answer, after the last hidden states (rows, hidden) of the prompts."""
        tokens = torch.full_like(self.written[:, 0], self.one.pad_token_id)
        tokens[: len(hidden)] = self.one.next_tokens(hidden)
        self.accept(tokens)
        self.num_made = 1

    def step(self, cache: Cache) -> None:
        """One more token for every row."""
        hidden = self.one.run(self.tokens, self.positions, cache.at(self.positions))
        self.accept(self.one.next_tokens(hidden[:, 0]))

    def advance(self) -> None:
        """As many steps as are taken before the next look at what has ended, none beyond max_new_tokens."""
        every = GPU_LOOKS_EVERY if self.one.device.type == "cuda" else 1
        for _ in range(min(every, self.max_new_tokens - self.num_made)):
            seen = prefixes.rounded(self.longest + self.num_made)
            self.step(self.cache.part(0, len(self.tokens), seen))
            self.num_made += 1

    def drop(self, slots: list[int]) -> None:
        """Go on with these slots alone, in this order."""
        kept = torch.tensor(slots, device=self.one.device)
        self.cache = self.cache.keep(kept, prefixes.rounded(self.longest + self.num_made))
        for name in ("tokens", "positions", "finished", "written"):
            setattr(self, name, getattr(self, name)[kept])


class Recorded(Steps):
    """Steps of one shape, recorded as a CUDA graph once and replayed for every batch."""

    recorded = True

    def __init__(self, one: Decoder, rows: int, room: int, max_new_tokens: int) -> None:
        super().__init__(one, rows, room, max_new_tokens)
        aside = torch.cuda.Stream(one.device)
        aside.wait_stream(torch.cuda.current_stream(one.device))
        with torch.cuda.stream(aside):  # what is made on first use must be made before the recording
            for _ in range(2):
                self.begin([1])
                self.step(self.cache)
        torch.cuda.current_stream(one.device).wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.step(self.cache)

    def begin(self, lengths: Sequence[int]) -> None:
        super().begin(lengths)
        self.cache.keys.zero_()
        self.cache.values.zero_()

    def advance(self) -> None:
        for _ in range(min(GPU_LOOKS_EVERY, self.max_new_tokens - self.num_made)):
            self.graph.replay()
            self.num_made += 1


@torch.no_grad()
def _answers(one: Decoder, rows: Sequence[list[int]], batch: Batch, steps: Steps) -> Iterator[tuple[int, list[int]]]:
    waiting = batch.rows
    steps.begin([len(rows[i]) for i in waiting])
    steps.first(prefill.read(one.run, rows, batch, steps.cache, one.heads_per_key))
    while True:
        ended = steps.finished.tolist()[: len(waiting)]
        last = steps.num_made == steps.max_new_tokens or all(ended)
        if last or (not steps.recorded and sum(ended) >= ENDED_TO_DROP * len(ended)):
            written = steps.written.tolist()
            yield from ((i, _until(written[k], one.eos_token_id)) for k, i in enumerate(waiting) if last or ended[k])
            if last:
                return
            slots = [k for k, is_over in enumerate(ended) if not is_over]
            waiting = [waiting[k] for k in slots]
            steps.drop(slots)
        steps.advance()


def _until(tokens: list[int], eos_token_id: int) -> list[int]:
    return tokens[: tokens.index(eos_token_id)] if eos_token_id in tokens else tokens
