"""One driver a sweep: a file in its folder that is locked with flock, so that the lock ends with its holder in any case."""

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


def hold(sweep: Path) -> None:
    """Lock the sweep's folder until this process ends; nothing more where this process holds it already.

    ValueError, which names the holder, if another process does. A holder that died holds nothing.
    """
    path = (sweep / NAME).resolve()
    if path in _held:
        return
    try:
        sweep.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"cannot write the sweep's folder {sweep}: {error.strerror}; choose another with hydra.sweep.dir=DIR"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(
            f"{sweep} is being run by {_holder(path)}; wait until that has ended, or end it, and try again"
        ) from None
    file.truncate(0)
    file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "time": _now()}) + "\n")
    file.flush()
    _held[path] = file


def forget() -> None:
    """Close the files of locks in a fork of their holder, which would else keep them locked after the holder has ended."""
    for file in _held.values():
        file.close()
    _held.clear()


def _holder(path: Path) -> str:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return f"the process with pid {said['pid']} on {said['host']} since {said['time']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process, which has not yet written its pid"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
