"""Ending a run early and in order: after SIGTERM or SIGINT, or when its hours are over, it stops behind the step it is in."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from text2sql import ranks

log = logging.getLogger(__name__)

TIME_IS_UP = 75
"""The exit code of a run whose trainer.max_hours are over: EX_TEMPFAIL of sysexits.h, for "try again"."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)
FINISHING = "the run finishes its step and saves; a second signal ends it at once"
STOP_FILE = "TEXT2SQL_STOP_FILE"
"""Where a rank's parent writes the number of the signal that it got; ranks themselves end at once on any."""


class Interrupted(KeyboardInterrupt):
    """A run that was asked to end; `exit_code` is that of its process: 143 for SIGTERM, 130 for SIGINT, 75 for max_hours."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"{_reason(exit_code)}; resume=true goes on with it")
        self.exit_code = exit_code


def _reason(exit_code: int) -> str:
    if exit_code == TIME_IS_UP:
        return "trainer.max_hours are over"
    return f"ended by {signal.Signals(exit_code - 128).name}"


class Stop:
    """Whether a run is to stop behind its step, as the exit code that says why."""

    def __init__(self, max_hours: float | None) -> None:
        self.deadline = None if max_hours is None else time.monotonic() + 3600 * max_hours
        self.exit_code: int | None = None
        self.is_signalled = False
        self.has_step = self.can_break_off = False
        named = os.environ.get(STOP_FILE)
        self.file = None if named is None else Path(named)

    def asked(self) -> int | None:
        """The exit code with which to stop here, or None to go on."""
        if self.exit_code is None and self.file is not None and self.file.exists():
            self.exit_code = int(self.file.read_text())
        if self.exit_code is None and self.deadline is not None and time.monotonic() > self.deadline:
            self.exit_code = TIME_IS_UP
        return self.exit_code

    @contextmanager
    def finishing_steps(self) -> Iterator[None]:
        """For the length of the training loop: there is a step to finish, after which `asked` counts."""
        self.has_step = True
        if self.file is not None:
            _ready(self.file).touch()
        try:
            yield
        finally:
            self.has_step = False
            if self.file is not None:
                _ready(self.file).unlink(missing_ok=True)

    @contextmanager
    def breaking_off(self) -> Iterator[None]:
        """For what can be made again later: the first signal, too, ends it with Interrupted."""
        self.can_break_off = True
        try:
            yield
        finally:
            self.can_break_off = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear signals: outside `finishing_steps` the first ends the run with Interrupted, inside it the second does."""
        if threading.current_thread() is not threading.main_thread() or ranks.launched():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            signal.signal(number, self._hear)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        is_first, self.is_signalled = not self.is_signalled, True
        self.exit_code = self.exit_code or 128 + number
        if not is_first or not self.has_step or self.can_break_off:
            raise Interrupted(self.exit_code)
        log.warning("%s: %s", signal.Signals(number).name, FINISHING)


def _ready(file: Path) -> Path:
    return file.with_suffix(".ready")


def hear_for_ranks(file: Path, end_at_once: Callable[[], None]) -> None:
    """In the parent of ranks: hand the first signal to rank 0 by `file`; a second, or one before any step, ends at once."""

    def hear(number: int, frame: FrameType | None) -> None:
        is_first = not file.exists()
        if is_first:
            aside = file.with_suffix(".new")  # rank 0 may look at any moment, and is not to find it empty
            aside.write_text(str(128 + number))
            aside.rename(file)
        if not is_first or not _ready(file).exists():
            end_at_once()
        log.warning("%s: %s", signal.Signals(number).name, FINISHING)

    for number in SIGNALS:
        signal.signal(number, hear)
