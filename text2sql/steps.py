"""One token a step for a batch of rows: what a step reads and writes, all in place, launched or recorded as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import linear

from text2sql import fast_path, prefixes
from text2sql.attention import Cache, Layout
from text2sql.guessing import guess

# cuDNN's attention makes a plan for every new shape, which takes longer than the steps that would use it.
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]

BY_ROW = ("tokens", "begun", "made", "finished", "written", "runners_up", "temperatures", "restricted")
"""What `Steps` knows of each row beside its cache."""
RUNNERS_UP = 3
"""Tokens that are noted beside the one taken, for a late check to take where it refuses that one: no step is run again."""
ENDED_TO_DROP = 0.25
"""The share of a batch that has ended for which moving the others together pays."""
PREFILL_BYTES = 1 << 30
"""What the activations of one pass over prompts may take on a GPU: a small model waits for launches in any but a long one."""
CPU_PREFILL_TOKENS = 8192
"""Tokens of one such pass on a CPU, which gains nothing by longer ones."""
GUESSES = 3
"""Tokens that a recorded step reads beside the last of each row: its time goes into the cache and into launches."""
FEW_GUESSES = 7
"""The same where few rows are left."""
NOTHING = -1
"""Noted where a row was restricted: what it would have said otherwise is not known."""
FEW = 8
"""A recording has a second one, for an eighth of its rows: most answers are short, and few are in the last of many steps."""

Correction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From the scores (rows, vocabulary) and the tokens (rows,) that were chosen by them to the tokens that are taken."""


@dataclass(frozen=True)
class Decoder:
    """A model on the fast path, its head in the type it computes in, and the shape of its cache.

    `widths` is how many numbers a layer makes of one token, and so what a pass holds at once for each.
    """

    model: Any
    head: torch.Tensor
    bias: torch.Tensor | None
    layers: int
    heads_per_key: int
    kv_heads: int
    head_dim: int
    widths: int
    eos_token_id: int
    pad_token_id: int

    @property
    def device(self) -> torch.device:
        return self.head.device

    @property
    def bytes_per_token(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * self.head.dtype.itemsize

    @property
    def prefill_tokens(self) -> int:
        """How many tokens one pass over prompts may have."""
        if self.device.type != "cuda":
            return CPU_PREFILL_TOKENS
        return max(1024, PREFILL_BYTES // (self.widths * self.head.dtype.itemsize))

    @property
    def vocabulary(self) -> int:
        return self.head.shape[0]

    def run(self, ids: torch.Tensor, positions: torch.Tensor, layout: Layout) -> torch.Tensor:
        """The last hidden states (rows, tokens, hidden) of `ids` at `positions`."""
        with torch.no_grad(), sdpa_kernel(KERNELS):
            return fast_path.hidden_states(self.model, ids, positions, layout)

    def cache(self, rows: int, room: int) -> Cache:
        return Cache.empty(self.layers, rows, self.kv_heads, room, self.head_dim, self.head.dtype, self.device)

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """What the head says of each next token (..., vocabulary) after `hidden` (..., hidden)."""
        return linear(hidden, self.head, self.bias)


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
        6 * config.hidden_size + 3 * (getattr(config, "intermediate_size", None) or 4 * config.hidden_size),
        eos_token_id,
        pad_token_id,
    )


class Steps:
    """Where the rows of a batch stand: cache, last tokens and what was written so far; all in place, for recording.

    Every row counts the tokens that it `made`, so that one can be set back behind the others, or be ahead of them by what was
    guessed. Tokens after max_new_tokens go to a last column of `written` that nobody reads. With a `generator`, a row of
    temperature T takes the likeliest token after Gumbel noise times T was added to the scores: a sample of
    softmax(scores / T), and of T = 0 the likeliest token. With `late` checks, the tokens next likeliest to each that was
    taken are in `runners_up` (rows, tokens, RUNNERS_UP); `set_back` takes a row back to an earlier token, and `restrict`
    leaves it only some for the next.
    """

    @property
    def is_narrow(self) -> bool:
        """Whether so few rows are left that waiting for the device costs less than what a late check loses."""
        return False

    def __init__(
        self,
        one: Decoder,
        rows: int,
        room: int,
        max_new_tokens: int,
        generator: torch.Generator | None = None,
        late: bool = False,
    ) -> None:
        self.one, self.max_new_tokens, self.generator, self.late = one, max_new_tokens, generator, late
        self.cache = one.cache(rows, room)
        self.ahead = torch.arange(1 + max(GUESSES, FEW_GUESSES), device=one.device)
        self.tokens = torch.full((rows, 1), one.pad_token_id, device=one.device)
        self.begun = torch.zeros_like(self.tokens)
        self.made = torch.zeros_like(self.tokens)
        self.finished = torch.ones(rows, dtype=torch.bool, device=one.device)
        self.written = torch.full((rows, max_new_tokens + 1), one.pad_token_id, device=one.device)
        shape = (rows, max_new_tokens + 1, RUNNERS_UP if late else 0)
        self.runners_up = torch.full(shape, one.pad_token_id, dtype=torch.int32, device=one.device)
        self.temperatures = torch.zeros((rows, 1), device=one.device)
        self.restricted = torch.zeros((rows, 1), dtype=torch.bool, device=one.device)
        self.forbidden = torch.zeros((rows if late else 0, one.vocabulary), dtype=torch.bool, device=one.device)

    def begin(self, prompts: Sequence[list[int]], temperatures: Sequence[float]) -> None:
        """These prompts, as token ids, in the first slots; the slots behind them, if any, have ended."""
        lengths = [len(prompt) for prompt in prompts]
        self.longest, self.num_steps = max(lengths), 0
        self.tokens.fill_(self.one.pad_token_id)
        self.begun.zero_()
        self.begun[: len(lengths), 0] = torch.tensor(lengths, device=self.one.device) - 1
        self.made.zero_()
        self.finished.fill_(True)
        self.finished[: len(lengths)] = False
        self.temperatures.zero_()
        self.temperatures[: len(lengths), 0] = torch.tensor(temperatures, device=self.one.device)
        self.restricted.zero_()

    def guesses(self) -> torch.Tensor:
        """What each row may say after its last token (rows, guessed): here none is guessed."""
        return self.tokens[:, :0]

    def accept(self, chosen: torch.Tensor, guesses: torch.Tensor) -> None:
        """Write what each row says next: `chosen` (rows, 1 + guessed) up to where `guesses` (rows, guessed) are not what is
        said; padding after its end. What is written behind is written over."""
        chosen = chosen.masked_fill(self.finished.unsqueeze(1), self.one.pad_token_id)
        kept = 1 + (guesses == chosen[:, :-1]).long().cumprod(1).sum(1, keepdim=True)
        ahead = self.ahead[: chosen.shape[1]]
        self.written.scatter_(1, (self.made + ahead).clamp(max=self.max_new_tokens), chosen)
        self.tokens.copy_(chosen.gather(1, kept - 1))
        self.made.add_(kept).clamp_(max=self.max_new_tokens)
        self.finished.logical_or_(((chosen == self.one.eos_token_id) & (ahead < kept)).any(1))
        self.finished.logical_or_(self.made.squeeze(1) == self.max_new_tokens)

    def choose(self, scores: torch.Tensor, temperatures: torch.Tensor) -> torch.Tensor:
        """The token (rows, ...) by `scores` (rows, ..., vocabulary) and `temperatures` (rows, ..., 1)."""
        return self._noisy(scores, temperatures).argmax(-1)

    def _noisy(self, scores: torch.Tensor, temperatures: torch.Tensor) -> torch.Tensor:
        if self.generator is None:
            return scores
        noise = torch.empty_like(scores, dtype=torch.float32).exponential_(generator=self.generator)
        return scores - temperatures * noise.clamp_(min=torch.finfo(torch.float32).tiny).log_()

    def _choose_and_note(self, scores: torch.Tensor) -> torch.Tensor:
        """`choose` for each of some tokens, and note what it would choose without that one, without both and so on.

        Of samples too: the highest of the noisy scores among some tokens is a sample of those. Writes over `scores`.
        """
        scores = self._noisy(scores, self.temperatures.unsqueeze(2))
        found = [scores.argmax(-1, keepdim=True)]
        for _ in range(RUNNERS_UP):
            scores.scatter_(2, found[-1], -torch.inf)
            found.append(scores.argmax(-1, keepdim=True))
        noted = torch.cat(found[1:], 2)
        noted[:, 0].masked_fill_(self.restricted, NOTHING)
        places = (self.made + self.ahead[: noted.shape[1]]).clamp(max=self.max_new_tokens)
        self.runners_up.scatter_(1, places.unsqueeze(2).expand_as(noted), noted.int())
        return found[0].squeeze(2)

    def first(self, hidden: torch.Tensor, correct: Correction | None = None) -> None:
        """The first token of each answer, after the last hidden states (rows, hidden) of the prompts."""
        tokens = torch.full_like(self.written[:, 0], self.one.pad_token_id)
        scores = self.one.scores(hidden)
        chosen = self.choose(scores, self.temperatures[: len(hidden)])
        tokens[: len(hidden)] = chosen if correct is None else correct(scores, chosen)
        self.accept(tokens.unsqueeze(1), self.tokens[:, :0])
        self.num_steps = 1

    def step(self, cache: Cache, correct: Correction | None = None) -> None:
        """One more token for every row, and more for one whose guesses are what it says."""
        guesses = self.guesses()
        positions = (self.begun + self.made + self.ahead[: 1 + guesses.shape[1]]).clamp(max=cache.room - 1)
        layout = cache.at(positions, self.one.heads_per_key)
        scores = self.one.scores(self.one.run(torch.cat((self.tokens, guesses), 1), positions, layout))
        if self.late:
            scores[:, 0].masked_fill_(self.forbidden & self.restricted, -torch.inf)
            chosen = self._choose_and_note(scores)
        else:
            chosen = self.choose(scores, self.temperatures.unsqueeze(2))
        self.restricted.zero_()
        if correct is not None:
            chosen = correct(scores[:, 0], chosen[:, 0]).unsqueeze(1)
        self.accept(chosen, guesses)

    def advance(self, steps: int, correct: Correction | None = None) -> None:
        """So many steps; rows that were set back are restricted in the first of them."""
        for _ in range(steps):
            self.step(self.cache.part(0, len(self.tokens), self._seen()), correct)
            self.num_steps += 1

    def restrict(self, slots: Sequence[int], forbidden: torch.Tensor) -> None:
        """Let these slots say next what is not `forbidden` (slots, vocabulary), which is on the CPU, pinned for a GPU."""
        (where,) = self._on_device(slots)
        self.forbidden[where] = forbidden.to(self.one.device, non_blocking=True)
        self.restricted.index_fill_(0, where, True)

    def set_back(self, slots: Sequence[int], made: Sequence[int], last: Sequence[int]) -> None:
        """Let these slots stand where they had made so many tokens, the `last` of which is given.

        Whatever such a slot wrote later is written over before it is seen.
        """
        where, count, token = self._on_device(slots, made, last)
        self.made[where, 0] = count
        self.tokens[where, 0] = token
        self.finished.index_fill_(0, where, False)  # an assignment would copy its False, and wait for the device

    def _on_device(self, *numbers: Sequence[int]) -> Sequence[torch.Tensor]:
        table = torch.tensor(numbers)
        if self.one.device.type == "cuda":
            table = table.pin_memory()
        return table.to(self.one.device, non_blocking=True).unbind()

    def pays_to_drop(self, left: int) -> bool:
        """Whether it pays to go on with the `left` slots alone that have not ended."""
        return left <= (1 - ENDED_TO_DROP) * len(self.tokens)

    def drop(self, slots: list[int]) -> None:
        """Go on with these slots alone, in this order (ascending); none is restricted."""
        kept = torch.tensor(slots, device=self.one.device)
        self.cache = self.cache.keep(kept, self._seen())
        for name in BY_ROW:
            setattr(self, name, getattr(self, name)[kept])
        self.forbidden = self.forbidden[: len(slots)]

    def _seen(self) -> int:
        """How many places of the cache the next step may look at."""
        return prefixes.rounded(self.longest + min(self.num_steps, self.max_new_tokens))


class Recorded(Steps):
    """Steps of one shape, recorded as CUDA graphs once and replayed for every batch; a second graph is of its first few slots.

    The graphs read and write the tensors that they were recorded with, which are kept for as long. A step guesses what the rows
    say next, and reads that with their last tokens.
    """

    def __init__(self, one: Decoder, **settings: Any) -> None:
        super().__init__(one, **settings)
        self.history = torch.zeros((len(self.tokens), self.cache.room), dtype=torch.long, device=one.device)
        self.tensors = {name: getattr(self, name) for name in (*BY_ROW, "history", "forbidden")}
        self.all, self.few = len(self.tokens), len(self.tokens) // FEW
        self.caches = {rows: self.cache.part(0, rows, self.cache.room) for rows in (self.all, self.few)}
        self._warm_up()
        self.graphs: dict[int, Any] = {}
        for rows in (self.all, self.few) if self.few else (self.all,):
            self._take(rows)
            self.graphs[rows] = self._recording()

    def _warm_up(self) -> None:
        """A step before the recording: what is made on first use must be made by then."""
        aside = torch.cuda.Stream(self.one.device)
        aside.wait_stream(torch.cuda.current_stream(self.one.device))
        with torch.cuda.stream(aside):
            self.begin([[self.one.pad_token_id]], [0.0])
            self.step(self.cache)
        torch.cuda.current_stream(self.one.device).wait_stream(aside)

    def _recording(self) -> Any:
        graph = torch.cuda.CUDAGraph()
        if self.generator is not None:
            graph.register_generator_state(self.generator)
        pool = self.graphs[self.all].pool() if self.graphs else None
        with torch.cuda.graph(graph, pool=pool):
            self.step(self.cache)
        return graph

    def _take(self, rows: int) -> None:
        """Go on with the first `rows` slots, in the same memory."""
        for name, tensor in self.tensors.items():
            setattr(self, name, tensor[:rows])
        self.cache = self.caches[rows]

    @property
    def is_narrow(self) -> bool:
        return len(self.tokens) < self.all

    def begin(self, prompts: Sequence[list[int]], temperatures: Sequence[float]) -> None:
        self._take(self.all)
        super().begin(prompts, temperatures)
        padded = np.zeros((len(prompts), self.longest), dtype=np.int64)
        for row, prompt in zip(padded, prompts):
            row[: len(prompt)] = prompt
        self.history[: len(prompts), : self.longest] = torch.from_numpy(padded).to(self.one.device)
        self.cache.keys.zero_()
        self.cache.values.zero_()

    def guesses(self) -> torch.Tensor:
        ends = self.begun + self.made
        self.history.scatter_(1, ends, self.tokens)  # a row may have been set back to another
        return guess(self.history, ends, FEW_GUESSES if self.is_narrow else GUESSES)

    def accept(self, chosen: torch.Tensor, guesses: torch.Tensor) -> None:
        places = self.begun + 1 + self.made + self.ahead[: chosen.shape[1]]
        self.history.scatter_(1, places.clamp(max=self.cache.room - 1), chosen)
        super().accept(chosen, guesses)

    def advance(self, steps: int, correct: Correction | None = None) -> None:
        assert correct is None, "a recorded step stops for nothing"
        for _ in range(steps):
            self.graphs[len(self.tokens)].replay()
            self.num_steps += 1

    def pays_to_drop(self, left: int) -> bool:
        return not self.is_narrow and left <= self.few

    def drop(self, slots: list[int]) -> None:
        kept = torch.tensor(slots, device=self.one.device)
        self.cache.keep(kept, self.cache.room)
        for name in (*BY_ROW, "history"):
            tensor = self.tensors[name]
            tensor[: len(slots)] = tensor[kept]
        self._take(self.few)
        self.finished[len(slots) :] = True
