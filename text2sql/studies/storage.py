"""Where a study is kept: a file in the sweep's folder that is appended to, or any storage that optuna knows by its URL.

The file needs no server and no open connection. It is locked by the kernel, so that a process that is killed leaves no lock
behind, and what a full disk has cut off at its end is cut off before the next driver writes.
"""

from __future__ import annotations

import fcntl
import os
import warnings
from pathlib import Path
from typing import Any

JOURNAL = "study.journal"


def open_storage(where: str) -> Any:
    """The storage at a URL such as sqlite:///FILE, or in the file named. ValueError where optuna cannot open it."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it has a line of its own for every trial, and we have ours
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    try:
        if "://" in where:
            return optuna.storages.RDBStorage(where)
        lock: Any = KernelLock(f"{where}.lock")
        return optuna.storages.JournalStorage(JournalFileBackend(where, lock_obj=lock))
    except Exception as error:
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"hydra.sweeper.storage={where} cannot be opened: {text}") from error


def cut_torn_end(journal: Path) -> None:
    """Drop a last line without its end: with another one after it, optuna could read neither."""
    if not journal.is_file():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with journal.open("r+b") as file:
            file.truncate(whole)


class KernelLock:
    """The lock that optuna's journal asks for, by flock: it ends with the process that holds it."""

    def __init__(self, path: str) -> None:
        self.path, self._held = path, -1

    def acquire(self) -> bool:
        opened = os.open(self.path, os.O_CREAT | os.O_RDWR)
        fcntl.flock(opened, fcntl.LOCK_EX)
        self._held = opened
        return True

    def release(self) -> None:
        os.close(self._held)
