"""Decoding on the fast path: shared prefixes once, then one token a step over a static cache; ids in, ids out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from text2sql import prefill, prefixes, speed
from text2sql.checking import Answer, AtOnce, Constraint, Look, forbidden
from text2sql.prefixes import Batch
from text2sql.steps import GUESSES, Decoder, Recorded, Steps, decoder

log = logging.getLogger(__name__)

MAX_ROWS = 2048
CPU_CACHE_TOKENS = 32_768
SHARE_OF_FREE_MEMORY = 0.6
SCORES_BYTES = 2 << 30
"""What the scores of a recorded step may take, beside the cache."""
GPU_LOOKS_EVERY = 4
"""Steps between two looks at which rows have ended: each look waits for the GPU."""
GPU_CHECKS_EVERY = 1
"""The same under constraints: a row that is refused a token loses the steps that run meanwhile."""


def decode(
    model: Any,
    rows: Sequence[list[int]],
    *,
    max_new_tokens: int,
    eos_token_id: int,
    pad_token_id: int,
    max_cache_tokens: int | None = None,
    graphs: bool | None = None,
    temperatures: Sequence[float] | None = None,
    seed: int = 0,
    constraints: Sequence[Constraint] | None = None,
    looks_every: int | None = None,
) -> Iterator[tuple[int, list[int]]]:
    """Yield (index into `rows`, answer as token ids without its EOS) as answers end; each row has at least one token.

    `model` is on the fast path and in evaluation mode. `max_cache_tokens` bounds what a batch holds, its answers included;
    None takes it from the free memory. `graphs` records the step as a CUDA graph; None does so where launching kernels is
    what a step waits for.

    Greedy without `temperatures`; with them, a row of temperature T > 0 is a sample of softmax(scores / T), the same for the
    same `seed`, rows and bounds. A row with a constraint says at each step the likeliest token, or a sample of those tokens,
    that it allows; greedy, it goes back to where it began a name that is like a real one. `looks_every` is how many steps run
    between two looks at what was written; None chooses. On a GPU, and where it is more than one, constraints are checked while
    the next steps run, and a row that said what it may not is set back to there.
    """
    if not rows:
        return
    one = decoder(model, eos_token_id, pad_token_id)
    recorded = launch_bound(one) if graphs is None else graphs
    on_gpu = one.device.type == "cuda"
    every = looks_every or ((GPU_LOOKS_EVERY if constraints is None else GPU_CHECKS_EVERY) if on_gpu else 1)
    sampled = temperatures is not None and any(temperatures)
    most = most_recorded_rows(one, sampled) if recorded else MAX_ROWS
    plan = _plan(rows, max_new_tokens, max_cache_tokens or default_cache_tokens(one), most, even=recorded)
    read, shared = prefixes.computed(rows, plan), sum(len(group.rows) > 1 for batch in plan for group in batch.groups)
    log.info("%d prompts share %d prefixes: %d of %d tokens are read", len(rows), shared, read, sum(map(len, rows)))
    late = constraints is not None and (on_gpu or recorded or every > 1)
    generator = torch.Generator(one.device).manual_seed(seed) if sampled else None
    kind = partial(Recorded if recorded else Steps, one, max_new_tokens=max_new_tokens, generator=generator, late=late)
    steps = None
    if recorded:
        steps = kind(rows=max(len(batch.rows) for batch in plan), room=max(batch.room for batch in plan))
    for batch in plan:
        ready = steps or kind(rows=len(batch.rows), room=batch.room)
        ready.begin([rows[i] for i in batch.rows], [temperatures[i] if temperatures else 0.0 for i in batch.rows])
        hidden = prefill.read(one.run, rows, batch, ready.cache, one.heads_per_key, one.prefill_tokens)
        if constraints is None:
            yield from _answers(batch, ready, hidden, every)
        else:
            answers = [Answer(i, constraints[i], bool(temperatures and temperatures[i])) for i in batch.rows]
            yield from (_checked_late if late else _checked_at_once)(answers, ready, hidden, every)
        del ready, hidden  # before there is a cache for the next


def launch_bound(one: Decoder) -> bool:
    """Whether a step of this model is on a GPU and so small that launching its kernels takes longer than running them."""
    return one.device.type == "cuda" and sum(p.numel() for p in one.model.parameters()) < speed.GRAPHS_BELOW


def most_recorded_rows(one: Decoder, sampled: bool) -> int:
    """For how many rows the scores of a recorded step fit; noise for a sample, and their sum, are in float32."""
    bytes_a_row = (1 + GUESSES) * one.vocabulary * (one.head.dtype.itemsize + (8 if sampled else 0))
    return min(MAX_ROWS, max(1, SCORES_BYTES // bytes_a_row))


def default_cache_tokens(one: Decoder) -> int:
    """How many tokens the cache of a batch may hold: most of what a GPU has free, a fixed number on a CPU."""
    if one.device.type != "cuda":
        return CPU_CACHE_TOKENS
    unused = torch.cuda.memory_reserved(one.device) - torch.cuda.memory_allocated(one.device)
    free = torch.cuda.mem_get_info(one.device)[0] + unused
    return int(SHARE_OF_FREE_MEMORY * free) // one.bytes_per_token


def _plan(
    rows: Sequence[list[int]], max_new_tokens: int, max_cache_tokens: int, max_rows: int, even: bool
) -> list[Batch]:
    """The batches; `even` ones have the same number of rows, as a recording wants them."""
    if even:
        room = prefixes.rounded(max(map(len, rows)) + max_new_tokens)
        fitting = min(max_rows, max(1, max_cache_tokens // room))
        max_rows = -(-len(rows) // -(-len(rows) // fitting))
        max_cache_tokens = max_rows * room
    groups = prefixes.group(rows)
    return prefixes.batches(
        rows, groups, max_new_tokens=max_new_tokens, max_cache_tokens=max_cache_tokens, max_rows=max_rows
    )


@torch.no_grad()
def _answers(batch: Batch, steps: Steps, hidden: torch.Tensor, every: int) -> Iterator[tuple[int, list[int]]]:
    """The answers of one batch that nothing constrains, from the last hidden states (rows, hidden) of its prompts."""
    waiting, eos = batch.rows, steps.one.eos_token_id
    steps.first(hidden)
    while True:
        ended = steps.finished.tolist()[: len(waiting)]
        last = steps.num_steps == steps.max_new_tokens or all(ended)
        if last or steps.pays_to_drop(len(ended) - sum(ended)):
            written = steps.written[:, : steps.max_new_tokens].tolist()
            yield from ((i, _until(written[k], eos)) for k, i in enumerate(waiting) if last or ended[k])
            if last:
                return
            slots = [k for k, is_over in enumerate(ended) if not is_over]
            waiting = [waiting[k] for k in slots]
            steps.drop(slots)
        steps.advance(min(every, steps.max_new_tokens - steps.num_steps))


def _until(tokens: list[int], eos_token_id: int) -> list[int]:
    return tokens[: tokens.index(eos_token_id)] if eos_token_id in tokens else tokens


@torch.no_grad()
def _checked_at_once(
    answers: list[Answer], steps: Steps, hidden: torch.Tensor, every: int
) -> Iterator[tuple[int, list[int]]]:
    """The answers of one batch, every token of which is checked before the next step: on a CPU."""
    check = AtOnce(answers, steps)
    steps.first(hidden, check)
    while True:
        last = all(answer.over for answer in answers)
        if last or _pays_to_drop(answers, steps):
            yield from ((answer.index, answer.tokens) for answer in answers if answer.over)
            if last:
                return
            answers = _dropped(answers, steps)
            check.answers = answers
        steps.advance(1, check)
        check.rewind()


@torch.no_grad()
def _checked_late(
    answers: list[Answer], steps: Steps, hidden: torch.Tensor, every: int
) -> Iterator[tuple[int, list[int]]]:
    """The answers of one batch, checked while the device runs on: only rows that are set back lose steps by it.

    The last few are waited for, step by step: there the row that is set back most is what all wait for.
    """
    steps.first(hidden, AtOnce(answers, steps))
    for answer in answers:
        answer.made = 1
    given: set[int] = set()
    pending: Look | None = None
    while True:
        launched = None
        runs_on = pending is None or (not steps.is_narrow and pending.goes_on())
        if runs_on and not all(answer.over for answer in answers):
            _advance(answers, steps, 1 if steps.is_narrow else every)
            launched = Look(answers, steps)
        refused = [] if pending is None else pending.check(runs_on=launched is not None)
        over = [answer for answer in answers if answer.over and answer.index not in given]
        yield from ((answer.index, answer.tokens) for answer in over)
        given |= {answer.index for answer in over}
        if all(answer.over for answer in answers):
            return
        if _pays_to_drop(answers, steps):
            answers = _dropped(answers, steps)
        if refused:
            _set_back(answers, refused, steps)
        pending = launched


def _set_back(answers: Sequence[Answer], refused: Sequence[Answer], steps: Steps) -> None:
    slots = {id(answer): slot for slot, answer in enumerate(answers)}
    steps.set_back(
        [slots[id(one)] for one in refused], [one.made for one in refused], [one.tokens[-1] for one in refused]
    )
    barred = [one for one in refused if one.barred]
    if barred:
        bars = forbidden(barred, steps.one.vocabulary, pinned=steps.one.device.type == "cuda")
        steps.restrict([slots[id(one)] for one in barred], bars)


def _advance(answers: Sequence[Answer], steps: Steps, every: int) -> None:
    left = max(steps.max_new_tokens - answer.made for answer in answers if not answer.over)
    count = min(every, left)
    steps.advance(count)
    for answer in answers:
        answer.made = min(steps.max_new_tokens, answer.made + count)


def _pays_to_drop(answers: Sequence[Answer], steps: Steps) -> bool:
    return steps.pays_to_drop(sum(not answer.over for answer in answers))


def _dropped(answers: Sequence[Answer], steps: Steps) -> list[Answer]:
    """The answers that are not over, moved together."""
    slots = [slot for slot, answer in enumerate(answers) if not answer.over]
    steps.drop(slots)
    return [answers[slot] for slot in slots]
