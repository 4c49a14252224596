"""Examples to tokens for training, by several processes, one a core."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from text2sql import prompts
from text2sql.config import Config
from text2sql.example import Example
from text2sql.passes import Row

log = logging.getLogger(__name__)

EXAMPLES_A_PROCESS, MAX_PROCESSES = 500, 16
"""How many examples are worth a process of their own for encoding, and how many processes there are at most."""

Kept = tuple[Example, prompts.Encoded]


@dataclass(frozen=True)
class Tokens:
    """Encoded examples for training: token ids with, for each, where its SQL begins."""

    examples: list[Example]
    rows: list[list[int]]
    prompt_lengths: list[int]
    num_shortened: int
    num_too_long: int

    @classmethod
    def of(cls, examples: Sequence[Example], tokenizer: Any, config: Config) -> Tokens:
        """Encode `examples`; those that cannot fit are dropped and counted, or refused, as data.on_bad_row says."""
        encoded, too_long = encode_side_by_side(examples, tokenizer, config)
        if too_long:
            log.warning("%d examples do not fit and were dropped, the first: %s", len(too_long), too_long[0])
        if not encoded:
            raise ValueError(f"no example fits: {too_long[0]}")
        kept, found = zip(*encoded)
        num_shortened = sum(one.shortened > 0 for one in found)
        if num_shortened:
            log.info("%d of %d prompts were shortened in their schema to fit", num_shortened, len(kept))
        return cls(
            list(kept), [one.ids for one in found], [one.prompt_length for one in found], num_shortened, len(too_long)
        )

    def as_rows(self) -> list[Row]:
        return [Row(ids, start) for ids, start in zip(self.rows, self.prompt_lengths)]


def encode_side_by_side(
    examples: Sequence[Example], tokenizer: Any, config: Config, num_processes: int | None = None
) -> tuple[list[Kept], list[str]]:
    """`prompts.encode_all` by several processes, one a core where nobody says; by this one where there are few examples.

    The processes are forks, as PyTorch's data loaders have them, and touch no GPU: looking values up and tokenising is all.
    """
    cores = os.cpu_count() or 1
    num_processes = num_processes or min(cores, len(examples) // EXAMPLES_A_PROCESS, MAX_PROCESSES)
    if num_processes < 2 or sys.platform != "linux":
        return prompts.encode_all(tokenizer, examples, config)
    size = -(-len(examples) // num_processes)
    parts = [examples[start : start + size] for start in range(0, len(examples), size)]
    variable = "TOKENIZERS_PARALLELISM"  # unset, the library warns of every fork
    before = os.environ.get(variable)
    os.environ[variable] = "false"
    try:
        with multiprocessing.get_context("fork").Pool(num_processes, _remember, (parts, tokenizer, config)) as pool:
            done = pool.map(_encode_part, range(len(parts)), chunksize=1)
    finally:
        os.environ.pop(variable)
        if before is not None:
            os.environ[variable] = before
    kept = [(parts[i][k], one) for i, (ours, _) in enumerate(done) for k, one in ours]
    return kept, [message for _, messages in done for message in messages]


_work: Any = None


def _remember(*work: Any) -> None:
    """What a process of the pool works on: memory that it has in common with its parent."""
    global _work
    _work = work


def _encode_part(number: int) -> tuple[list[tuple[int, prompts.Encoded]], list[str]]:
    parts, tokenizer, config = _work
    encoded, too_long = prompts.encode_all(tokenizer, parts[number], config)
    place = {id(example): k for k, example in enumerate(parts[number])}
    return [(place[id(example)], one) for example, one in encoded], too_long
