"""One process at a time in a folder: a file in it is locked with flock, so that the lock ends with its holder in any case.

It holds on every machine that shares the folder, where the file system passes flock on.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import IO

NAME = ".lock"
_held: dict[Path, IO[str]] = {}


def hold(folder: Path) -> None:
    """Lock a run's or a sweep's folder until `release` or this process's end; nothing more where this process holds it already.

    ValueError, which names the holder, if another process does. A holder that died holds nothing.
    """
    path = (folder / NAME).resolve()
    if path in _held:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"cannot write the folder {folder}: {error.strerror}; choose another with hydra.run.dir=DIR (hydra.sweep.dir=DIR "
            "in a multirun)"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(
            f"{folder} is being run by {_holder(path)}; wait until that has ended, or end it, and try again"
        ) from None
    file.truncate(0)
    file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "time": _now()}) + "\n")
    file.flush()
    _held[path] = file


def release(folder: Path) -> None:
    """Let other processes have the folder, if this one holds it."""
    if (file := _held.pop((folder / NAME).resolve(), None)) is not None:
        file.close()


def _forget() -> None:
    for file in _held.values():
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_forget)  # else a fork would keep them locked after their holder has ended


def _holder(path: Path) -> str:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return f"the process with pid {said['pid']} on {said['host']} since {said['time']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process, which has not yet written its pid"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
