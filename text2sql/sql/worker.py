"""The process that judges: reads tasks from its standard input, writes outcomes to its standard output, and can be killed.

What it adds to the limits of `text2sql.sql.execute`: the kernel ends it when one query outlasts its deadline inside a
single instruction (an alarm), it cannot take more than MEMORY_MB of address space, and it cannot write to any file. What
this does NOT protect from: code execution by a flaw in SQLite itself; reading of files that SQLite does not open.

A message is its length in four bytes and then JSON, so that nothing here or in the parent is ever unpickled.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import signal
import sqlite3
import struct
import sys
import threading
import time
from typing import IO, Any

from text2sql.sql.judge import OURS, Judge, Limits, Place, Rules, Run, Task

MEMORY_MB = 500
GRACE_S = 0.25
"""How long after its deadline a query may still be inside one instruction before the alarm ends the process."""

OWN_WORK_S = 60.0
"""How long opening a database or comparing two results may take; longer is a fault of ours."""

FLUSH_S = 0.02
LENGTH = struct.Struct("<I")
POSITION = struct.Struct("<II")
"""What the parent finds when the process died: the number of the task in its batch, and what it was about to do."""


def packed(value: Any) -> bytes:
    """One message."""
    data = json.dumps(value).encode("ascii")
    return LENGTH.pack(len(data)) + data


def receive(stream: IO[bytes]) -> Any:
    """Read one message; None where the stream ends before its end."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    data = stream.read(length)
    return json.loads(data) if len(data) == length else None


def main() -> None:
    """Serve until standard input ends. The first message holds limits and rules, each further one a batch of tasks; of a
    task to be run only, the gold is null."""
    source, sink = os.fdopen(0, "rb"), os.fdopen(1, "wb")
    sys.stdout = sys.stderr
    start = receive(source)
    position = mmap.mmap(start["position"], POSITION.size)
    limits, rules = Limits(**start["limits"]), Rules(**start["rules"])
    _confine(limits)
    threading.Thread(target=_end_with, args=(start["parent"],), daemon=True).start()
    current = 0

    def watch(phase: int) -> None:
        POSITION.pack_into(position, 0, current, phase)
        signal.setitimer(signal.ITIMER_REAL, OWN_WORK_S if phase == OURS else limits.timeout_s + GRACE_S)

    judge = Judge(limits, rules, watch)
    while (batch := receive(source)) is not None:
        outcomes: list[dict[str, Any]] = []
        flushed = time.monotonic()
        places = [Place(*fields) for fields in batch["places"]]
        for current, (gold, prediction, own, neighbours) in enumerate(batch["tasks"]):
            watch(OURS)
            where = [places[i] for i in own]
            if gold is None:
                outcomes.append(_outcome(judge, Run(prediction, where)))
            else:
                outcomes.append(_outcome(judge, Task(gold, prediction, where, [places[i] for i in neighbours])))
            if time.monotonic() - flushed > FLUSH_S and current + 1 < len(batch["tasks"]):
                signal.setitimer(signal.ITIMER_REAL, 0)
                sink.write(packed(outcomes))
                sink.flush()
                outcomes, flushed = [], time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0)
        sink.write(packed(outcomes))
        sink.flush()


def _outcome(judge: Judge, task: Task | Run) -> dict[str, Any]:
    try:
        return judge.run(task) if isinstance(task, Run) else judge.judge(task)
    except (sqlite3.Error, OSError, ValueError) as error:
        return {"broken": f"{task.places[0].path or 'the database of a context'}: {error}"}


def _end_with(pipe: int) -> None:
    """End this process, whatever it is at, when the parent does: only the parent has the other end of `pipe`."""
    os.read(pipe, 1)
    os._exit(1)


def _confine(limits: Limits) -> None:
    """Limits that hold for this process whatever SQLite does: the kernel's, and SQLite's own on its heap."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MB << 20, MEMORY_MB << 20))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = sqlite3.connect(":memory:")
    connection.execute(f"PRAGMA hard_heap_limit = {limits.max_memory_mb << 20}")
    connection.close()
