"""Score predictions against the databases of their examples, in processes that can be killed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from text2sql.example import Example, Score, Verdict
from text2sql.sql.database import check_file, sha256
from text2sql.sql.judge import Judge, Limits, Place, Rules, Run, Task
from text2sql.sql.pool import Pool


@dataclass(frozen=True)
class Executed:
    """What came of running a text on its example's database: a digest that equal results share, or the error.

    `result` is {"columns", "rows" (the first few), "num_rows"} where the rules ask for rows.
    """

    digest: str = ""
    num_rows: int = 0
    error: Verdict | None = None
    reason: str = ""
    result: dict[str, Any] | None = field(default=None, compare=False)


NOT_DATABASES = ("-journal", "-wal", "-shm")


class Scorer:
    """Scores predictions; keeps its processes, open databases and gold results from call to call. close() it at the end.

    `workers` processes judge side by side, each confined as `text2sql.sql.worker` says; 0 judges in this process, which
    then has no protection from SQL that hangs inside one SQLite instruction. `neighbours` gives, for an example, further
    databases (paths) on which a prediction must match too. Golds are cached by the content of their database and their text.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        rules: Rules | None = None,
        *,
        workers: int = 1,
        neighbours: Callable[[Example], Iterable[Path]] | None = None,
    ) -> None:
        self.limits, self.rules = limits or Limits(), rules or Rules()
        self._judge = Pool(self.limits, self.rules, workers) if workers else _InProcess(self.limits, self.rules)
        self._neighbours = neighbours
        self._hashes: dict[str, tuple[tuple[int, ...], str]] = {}

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._judge.close()

    def start(self, num_pairs: int) -> None:
        """Start the processes that so many pairs will need, to have them ready when the pairs are."""
        self._judge.start(num_pairs)

    def check(self, examples: Sequence[Example]) -> None:
        """ValueError or FileNotFoundError, as score_all would raise it, for a database that is missing or damaged."""
        self.start(len(examples))
        places = _Places(self._hashes, self._neighbours)
        for example in examples:
            places.of(example)

    def score(self, example: Example, prediction: str) -> Score:
        """The verdict on one prediction; see score_all."""
        (score,) = self.score_all([(example, prediction)])
        return score

    def score_all(self, pairs: Iterable[tuple[Example, str]]) -> Iterator[Score]:
        """The verdict on each prediction, in their order.

        Nothing is cleaned from a prediction but surrounding whitespace and one semicolon at its end. A gold that does
        not run, or a context that does not build, is a GOLD_ERROR. Raises ValueError for an example without a database
        and for a file that is none, before anything is scored.
        """
        pairs = list(pairs)
        self.start(len(pairs))
        places = _Places(self._hashes, self._neighbours)
        tasks = [Task(example.sql, prediction, *places.of(example)) for example, prediction in pairs]
        return (_score(outcome) for outcome in self._judge.judge(tasks))

    def run_all(self, pairs: Iterable[tuple[Example, str]]) -> Iterator[Executed]:
        """What running each text on its example's own database comes to, in their order; no gold is looked at.

        Raises ValueError as score_all does.
        """
        pairs = list(pairs)
        self.start(len(pairs))
        places = _Places(self._hashes, None)
        tasks = [Run(text, places.of(example)[0]) for example, text in pairs]
        return (_executed(outcome) for outcome in self._judge.judge(tasks))


class _InProcess:
    """Judges in this process: what the benchmark compares the processes with."""

    def __init__(self, limits: Limits, rules: Rules) -> None:
        self._judge = Judge(limits, rules)

    def start(self, num_tasks: int) -> None:
        pass

    def judge(self, tasks: Iterable[Task | Run]) -> Iterator[dict[str, Any]]:
        return (self._judge.run(one) if isinstance(one, Run) else self._judge.judge(one) for one in tasks)

    def close(self) -> None:
        self._judge.close()


def _score(outcome: dict[str, Any]) -> Score:
    return Score(
        Verdict(outcome["verdict"]),
        outcome["reason"],
        outcome["official"],
        tuple(outcome["differences"]),
        outcome["gold_result"],
        outcome["predicted_result"],
    )


def _executed(outcome: dict[str, Any]) -> Executed:
    if "digest" in outcome:
        return Executed(outcome["digest"], outcome["num_rows"], result=outcome.get("result"))
    return Executed(error=Verdict(outcome["verdict"]), reason=outcome["reason"])


class _Places:
    """Where each example of one call is judged; every file is looked at once a call, and hashed again if it changed."""

    def __init__(
        self,
        hashes: dict[str, tuple[tuple[int, ...], str]],
        neighbours: Callable[[Example], Iterable[Path]] | None,
    ) -> None:
        self._hashes, self._neighbours = hashes, neighbours
        self._suites: dict[str, list[Place]] = {}
        self._files: dict[str, Place] = {}

    def of(self, example: Example) -> tuple[list[Place], list[Place]]:
        """The example's database and those beside it, and its neighbours."""
        if example.context and not example.database:
            key = hashlib.sha256(example.context.encode("utf-8", "surrogatepass")).hexdigest()
            return [Place(key, context=example.context)], []
        if not example.database:
            raise ValueError(
                f"no database to run {example.id} on: set data.path to a folder that holds the databases too"
            )
        if example.database not in self._suites:
            self._suites[example.database] = [self._file(path) for path in suite(example.database)]
        neighbours = self._neighbours(example) if self._neighbours else ()
        return self._suites[example.database], [self._file(path, "neighbour ") for path in neighbours]

    def _file(self, path: str | Path, what: str = "") -> Place:
        path = str(path)
        if path not in self._files:
            self._files[path] = Place(self._hash(path), path, name=f"{what}{os.path.basename(path)}")
        return self._files[path]

    def _hash(self, path: str) -> str:
        status = os.stat(path) if os.path.isfile(path) else None
        state = (status.st_size, status.st_mtime_ns, status.st_ino) if status else ()
        known = self._hashes.get(path)
        if known is None or known[0] != state:
            check_file(path)
            known = self._hashes[path] = state, sha256(path)
        return known[1]


def suite(database: str) -> list[str]:
    """The database and, as in a test suite, all others in its folder: files with .sqlite in their name."""
    folder = os.path.dirname(database) or "."
    if not os.path.isdir(folder):
        return [database]  # opening it says what is missing
    others = sorted(name for name in os.listdir(folder) if ".sqlite" in name and not name.endswith(NOT_DATABASES))
    paths = [os.path.join(folder, name) for name in others]
    return [database, *(path for path in paths if path != database)]
