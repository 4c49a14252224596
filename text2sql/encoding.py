"""Examples to tokens by several processes, one a core."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from typing import Any

from text2sql import prompts
from text2sql.config import Config
from text2sql.example import Example

EXAMPLES_A_PROCESS, MAX_PROCESSES = 500, 16
"""How many examples are worth a process of their own for encoding, and how many processes there are at most."""

Kept = tuple[Example, prompts.Encoded]


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
