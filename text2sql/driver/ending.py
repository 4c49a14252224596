"""The end of a job that could not write it itself: the reason in words, in its run.json and in its log."""

from __future__ import annotations

import logging
import signal
import time
from pathlib import Path

from text2sql import runs
from text2sql.driver.child import OUTPUT

log = logging.getLogger(__name__)

LAST_LINES, MAX_CHARACTERS = 10, 4_000


def in_words(exit_code: int) -> str:
    """How a process ended that said nothing itself, after its name."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code} and no result"
    cause = " (by the system, when memory is short)" if exit_code == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-exit_code).name}{cause}"


def stamp(folder: Path, status: str, why: str, exit_code: int) -> None:
    """Write the end into every run.json of the job that still says `running`, and leave all else in them as it is."""
    for run in (folder, folder / "evaluation"):
        if runs.read_object(run / "run.json").get("status") != "running":
            continue
        try:
            runs.finish(run, status, error=why, exit_code=exit_code, last_lines=last_lines(folder))
        except OSError as error:
            log.warning("%s still says that it is running: %s", run / "run.json", error)


def write_complaint(folder: Path, why: str) -> None:
    """Add the reason to the job's log, where a reader and `text2sql table` find it, whatever else the job has left."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / OUTPUT).open("a", encoding="utf-8") as file:
            file.write(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}][{__name__}][ERROR] - {why}\n")
    except OSError as error:
        log.warning("%s is not written: %s", folder / OUTPUT, error)


def last_lines(folder: Path) -> list[str]:
    """The last lines that the job wrote; a progress bar counts as the last state that it had."""
    path = folder / OUTPUT
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MAX_CHARACTERS))
        text = file.read().decode(errors="replace")
    lines = [line.rstrip().rpartition("\r")[2] for line in text.split("\n")]
    return [line for line in lines if line][-LAST_LINES:]
