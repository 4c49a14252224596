"""Answers one question at a time, with one model in memory: that of the run which was asked last."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from text2sql.data import snapshot

Open = Callable[[Path, Path, Any], Any]
"""From a run, a database and the run's speaker, if it is loaded already, to a text2sql.asking.session.Session, loaded."""


class Busy(Exception):
    """Another question is being answered."""


@dataclass(frozen=True)
class Work:
    """What is being done, since when (time.monotonic())."""

    doing: str
    since: float

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self.since, 1)


class Answerer:
    """Answers in a thread of its own, which alone touches the model; close() it at the end.

    A session is kept from question to question while run and database stay, and its speaker while the run does. A database that
    was written to is read again.
    """

    def __init__(self, open_session: Open) -> None:
        self._open = open_session
        self._thread = ThreadPoolExecutor(1, "answerer")
        self._free = threading.Lock()
        self._key: tuple[Any, ...] = ()
        self._session: Any = None
        self._speaker: Any = None
        self.work: Work | None = None

    def ask(self, run: Path, database: Path, question: str) -> Future[Any]:
        """The Answer to come, or the ValueError that it comes to. Busy while another is being made."""
        if not self._free.acquire(blocking=False):
            raise Busy("another question is being answered: ask again when it is done")
        self._begin("opening the database")
        return self._thread.submit(self._answer, run, database, question)

    def close(self) -> None:
        """Wait for the question that is being answered, and end."""
        self._thread.shutdown()
        self._close_session()

    def _begin(self, doing: str) -> None:
        self.work = Work(doing, time.monotonic())

    def _answer(self, run: Path, database: Path, question: str) -> Any:
        try:
            session = self._opened(run, database)
            self._begin("writing SQL and running it")
            return session.ask(question)
        finally:
            self.work = None
            self._free.release()

    def _opened(self, run: Path, database: Path) -> Any:
        snapshot.check(database, "the database")
        key = (run, database, snapshot.state(database))
        if key == self._key:
            return self._session
        self._close_session()
        if self._speaker is None or self._speaker[0] != run:
            self._begin("loading the model")
            self._speaker = None
            gc.collect()  # the network before is a cycle of objects, and two may not fit
        self._session = self._open(run, database, self._speaker and self._speaker[1])
        self._speaker, self._key = (run, self._session.speaker), key
        return self._session

    def _close_session(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session, self._key = None, ()
