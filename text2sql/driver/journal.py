"""jobs.jsonl in a sweep's folder: a line for each start and each end of a job, by which a later driver finds what it left."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from text2sql import runs

log = logging.getLogger(__name__)

NAME = "jobs.jsonl"
STARTED = "started"
LONGEST_WAIT_S = 10.0


def note(sweep: Path, job: int, event: str, **more: Any) -> None:
    """Add a line. A disk that is full costs the line and not the sweep."""
    row = {"job": job, "event": event, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **more}
    try:
        runs.append_jsonl(sweep / NAME, [row])
    except OSError as error:
        log.warning("%s is not written: %s", sweep / NAME, error)


def note_start(sweep: Path, job: int, pid: int) -> None:
    note(sweep, job, STARTED, pid=pid, host=socket.gethostname(), process_started=runs.began_at(pid))


def read(sweep: Path) -> list[dict[str, Any]]:
    """All lines but those that a dying driver wrote half."""
    return [row for row in runs.rows(sweep / NAME) if isinstance(row.get("job"), int)]


def end_leftovers(sweep: Path) -> None:
    """End what still runs of the jobs of a driver that was killed: two processes must not write one run folder.

    Jobs end by themselves when their driver is gone (text2sql.driver.child); this is for those that have not come to it.
    A pid is taken for a job's only if its process began when the job's did. RuntimeError for one that does not end.
    """
    last = {row["job"]: row for row in read(sweep)}
    left = [row for row in last.values() if row.get("event") == STARTED and row.get("host") == socket.gethostname()]
    for row in left:
        pid, began = row.get("pid"), row.get("process_started")
        if not isinstance(pid, int) or began is None or runs.began_at(pid) != began:
            continue
        log.warning("job %d of an earlier driver still runs as pid %d and is ended", row["job"], pid)
        end_group(pid)
        deadline = time.monotonic() + LONGEST_WAIT_S
        while runs.began_at(pid) == began:
            if time.monotonic() > deadline:
                raise RuntimeError(f"job {row['job']} of an earlier driver still runs as pid {pid} and does not end")
            time.sleep(0.02)


def end_group(pid: int) -> None:
    """Kill what runs in the process group that `pid` leads; nothing if that is empty."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS says the second of a group of zombies
        return
