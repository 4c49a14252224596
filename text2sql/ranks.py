"""Which of a run's processes this is, by the environment that torchrun, accelerate and text2sql.launch set alike."""

from __future__ import annotations

import os
from typing import Any


def launched() -> bool:
    """Whether something has started this process as one of several (or of one)."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def rank() -> int:
    """This process's number in the run, from 0; 0 in a run of one process."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes the run has, on all machines together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """This process's number on its machine, and so the index of its GPU there."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """How many of the run's processes are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the process that logs, saves and writes the run folder."""
    return rank() == 0


def gathered(value: Any) -> list[Any]:
    """What every process gives here, in their order; a collective."""
    if world_size() == 1:
        return [value]
    from torch import distributed

    found: list[Any] = [None] * world_size()
    distributed.all_gather_object(found, value)
    return found


def agreed(value: Any) -> Any:
    """What the main process gives here, in every one; a collective."""
    if world_size() == 1:
        return value
    from torch import distributed

    told = [value]
    distributed.broadcast_object_list(told, src=0)
    return told[0]


def largest(value: int) -> int:
    """The largest number that a process gives here; a collective on the CPU, for which no GPU waits."""
    if world_size() == 1:
        return value
    import torch
    from torch import distributed

    number = torch.tensor(value)
    distributed.all_reduce(number, op=distributed.ReduceOp.MAX)
    return int(number)
