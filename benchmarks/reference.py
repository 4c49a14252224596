"""Runs the real evaluator of taoyds/test-suite-sql-eval on pairs of queries and keeps what it answered in a cache.

The evaluator opens databases for writing and runs whatever a prediction says, so it only ever sees a throw-away copy of
them, and it cannot stop a query that takes for ever, so it runs in processes that can be killed. Nothing of its logic
is repeated here: its own `evaluate` runs on a file of one gold line and a file of one predicted line, and what it hands
to `print_scores` and what its `Evaluator` returns is written down.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

HANG_S = 20.0
"""A pair is called a hang when the evaluator has not answered by then; an ordinary one takes some 0.01 s."""


@dataclass(frozen=True)
class Setting:
    """One way to call the evaluator; `suite` runs it in a folder with several files per database."""

    plug_value: bool = False
    keep_distinct: bool = False
    suite: bool = False


SETTINGS = {
    "default": Setting(),
    "keep_distinct": Setting(keep_distinct=True),
    "plug_value": Setting(plug_value=True),
    "suite": Setting(suite=True),
}


@dataclass(frozen=True)
class Task:
    """One pair of queries to be scored under one setting; equal tasks have equal answers."""

    setting: str
    db_id: str
    gold: str
    prediction: str


@dataclass(frozen=True)
class Answer:
    """What the evaluator said of one task.

    `status` is "ok", "uncounted" (it returned without having judged the pair), "hang", "killed" (its process ended), or
    "crash:<exception>". The other fields hold a verdict only for "ok": `parts` are accuracy, recall, F1, and how many
    items the gold and the prediction have of that part. `where` names, for a crash, the step and the innermost function.
    """

    status: str
    execution: int = 0
    exact: int = 0
    hardness: str = ""
    parts: dict[str, list[float]] = field(default_factory=dict)
    where: str = ""
    seconds: float = 0.0

    @property
    def judged(self) -> bool:
        return self.status == "ok"


Answers = dict[Task, Answer]


def copy_databases(source: Path, target: Path, db_ids: Iterable[str]) -> None:
    """Copy source/<db_id>/<db_id>.sqlite to the same place below target, writable."""
    for db_id in sorted(set(db_ids)):
        file = target / db_id / f"{db_id}.sqlite"
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / db_id / file.name, file)


def build_suite(source: Path, target: Path, db_ids: Iterable[str], seed: int = 0) -> None:
    """Copy databases and put three changed versions beside each: two with rows gone, one with a column shuffled.

    Zhong et al. 2020 call such a folder a test suite: a prediction has to agree with the gold on every file in it.
    """
    db_ids = sorted(set(db_ids))
    copy_databases(source, target, db_ids)
    for db_id in db_ids:
        for number, share in enumerate((0.5, 0.8, 0.0)):
            file = target / db_id / f"{db_id}_{number}.sqlite"
            shutil.copyfile(target / db_id / f"{db_id}.sqlite", file)
            _change_rows(file, random.Random(f"{seed} {db_id} {number}"), share)


def _change_rows(file: Path, rng: random.Random, share: float) -> None:
    """Delete this share of the rows of every table; where it is 0, shuffle the last column of every table instead."""
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.text_factory = bytes
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        for table in (name.decode() for (name,) in names):
            if table.startswith("sqlite_"):
                continue
            column = connection.execute("SELECT name FROM pragma_table_info(?) ORDER BY cid DESC", (table,)).fetchone()
            column_name = column[0].decode()
            rows = connection.execute(f'SELECT rowid, "{column_name}" FROM "{table}" ORDER BY rowid').fetchall()
            if share:
                gone = [(rowid,) for rowid, _ in rows if rng.random() < share]
                connection.executemany(f'DELETE FROM "{table}" WHERE rowid = ?', gone)
            else:
                values = rng.sample([value for _, value in rows], len(rows))
                # A shuffled key may meet itself halfway through the update; such rows stay as they are.
                update = f'UPDATE OR IGNORE "{table}" SET "{column_name}" = ? WHERE rowid = ?'
                connection.executemany(update, zip(values, (rowid for rowid, _ in rows)))


def answers(
    tasks: Sequence[Task],
    *,
    reference: Path,
    tables: Path,
    databases: dict[bool, Path],
    cache: Path,
    processes: int = 1,
) -> Answers:
    """The evaluator's answers to the tasks: from the cache file where it has them, run and added to it where not.

    `reference` is a checkout of the evaluator, `tables` Spider's tables.json, and `databases` maps whether a setting is
    for a test suite to the folder of databases to run on, which must be throw-away copies. nltk's punkt data must be
    where nltk looks (NLTK_DATA). Raises ValueError where the evaluator does not start.
    """
    known = read_cache(cache)
    missing = [task for task in dict.fromkeys(tasks) if task not in known]
    if missing:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with cache.open("a", encoding="utf-8") as file:
            for task, answer in run(missing, reference, tables, databases, processes):
                known[task] = answer
                print(json.dumps([asdict(task), asdict(answer)]), file=file, flush=True)
    return {task: known[task] for task in tasks}


def read_cache(cache: Path) -> Answers:
    """All answers in a cache file; none where there is no such file."""
    if not cache.exists():
        return {}
    with cache.open(encoding="utf-8") as file:
        return {Task(**task): Answer(**answer) for task, answer in map(json.loads, file)}


def run(
    tasks: Sequence[Task],
    reference: Path,
    tables: Path,
    databases: dict[bool, Path],
    processes: int = 1,
    working_directory: Path | None = None,
) -> Iterator[tuple[Task, Answer]]:
    """Run tasks in this many processes, with a progress bar; answers come in the order they are ready."""
    from tqdm import tqdm

    waiting: SimpleQueue[Task] = SimpleQueue()
    done: SimpleQueue[tuple[Task, Answer] | BaseException] = SimpleQueue()
    for task in tasks:
        waiting.put(task)

    def work() -> None:
        try:
            with contextlib.closing(Evaluator(reference, tables, databases, working_directory)) as evaluator:
                while True:
                    task = waiting.get_nowait()
                    done.put((task, evaluator.score(task)))
        except Empty:
            return
        except BaseException as error:
            done.put(error)

    for _ in range(processes):
        threading.Thread(target=work, daemon=True).start()
    for _ in tqdm(tasks, desc="reference", unit="pair", mininterval=1.0, disable=len(tasks) < 2):
        item = done.get()
        if isinstance(item, BaseException):
            raise item
        yield item


class Evaluator:
    """The evaluator in a process of its own, which is started again whenever it hangs or dies."""

    def __init__(
        self, reference: Path, tables: Path, databases: dict[bool, Path], working_directory: Path | None = None
    ) -> None:
        places = {suite: path.resolve() for suite, path in databases.items()}
        self.arguments = (reference.resolve(), tables.resolve(), places, working_directory)
        self.context = multiprocessing.get_context("spawn")
        self._start()

    def score(self, task: Task) -> Answer:
        start = time.monotonic()
        self.connection.send(task)
        try:
            if self.connection.poll(HANG_S):
                return self.connection.recv()
            status = "hang"
        except EOFError:
            status = "killed"
        self.close()
        self._start()
        return Answer(status, seconds=round(time.monotonic() - start, 4))

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _start(self) -> None:
        self.connection, theirs = self.context.Pipe()
        self.process = self.context.Process(target=_serve, args=(theirs, *self.arguments), daemon=True)
        self.process.start()
        theirs.close()
        ready = self.connection.recv()
        if ready is not None:
            raise ValueError(f"the reference evaluator in {self.arguments[0]} does not start: {ready}")


def damage(task: Task, reference: Path, tables: Path, source: Path) -> tuple[Answer, list[str]]:
    """Run one task on a copy of its database; returns the answer and, in words, what it did to the copy's folder."""
    with tempfile.TemporaryDirectory() as folder:
        copy_databases(source, Path(folder), [task.db_id])
        place = Path(folder) / task.db_id
        before = _content(place / f"{task.db_id}.sqlite")
        # The evaluator runs in the copy's folder, so that files a prediction creates are found.
        ((_, answer),) = run([task], reference, tables, {False: Path(folder)}, working_directory=place)
        files = sorted(file.name for file in place.iterdir() if file.name != f"{task.db_id}.sqlite")
        after = _content(place / f"{task.db_id}.sqlite")
        changes = [f"gone: {line}" for line in before if line not in after]
        changes += [f"new: {line}" for line in after if line not in before]
    return answer, changes + [f"new file: {name}" for name in files]


def _content(file: Path) -> list[str]:
    """What a database is set to and holds, a line each."""
    with contextlib.closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        settings = [
            f"{name} {connection.execute(f'PRAGMA {name}').fetchone()}" for name in ("user_version", "journal_mode")
        ]
        return [*settings, *connection.iterdump()]


def _serve(
    connection: Connection, reference: Path, tables: Path, databases: dict[bool, Path], working_directory: Path | None
) -> None:
    """The process: load the evaluator, say so (None, or what is wrong), then answer tasks until it is killed."""
    sys.path.insert(0, str(reference))
    if working_directory:
        os.chdir(working_directory)
    try:
        import evaluation

        evaluation.get_sql(evaluation.Schema({"t": []}), "SELECT * FROM t")
        foreign_keys = evaluation.build_foreign_key_map_from_json(str(tables))
    except (ImportError, OSError, LookupError) as error:
        return connection.send(f"{type(error).__name__}: {error}")
    connection.send(None)
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
        while True:
            try:
                task = connection.recv()
            except EOFError:
                return
            connection.send(_evaluate(evaluation, task, foreign_keys, databases, Path(folder)))


def _evaluate(evaluation: Any, task: Task, foreign_keys: dict, databases: dict[bool, Path], folder: Path) -> Answer:
    setting = SETTINGS[task.setting]
    gold, prediction = folder / "gold.txt", folder / "predict.txt"
    gold.write_text(f"{task.gold}\t{task.db_id}\n", encoding="utf-8")
    prediction.write_text(f"{task.prediction}\n", encoding="utf-8")
    printed: list[dict] = []
    judged: list[tuple[Any, dict]] = []
    theirs: Any = evaluation.Evaluator

    class Recorder(theirs):
        def eval_exact_match(self, pred: dict, label: dict) -> Any:
            # Subqueries are compared by the same method, but end before the whole query does: the last one counts.
            exact = super().eval_exact_match(pred, label)
            judged.append((exact, self.partial_scores))
            return exact

    evaluation.Evaluator = Recorder
    evaluation.print_scores = lambda scores, *_, **__: printed.append(scores)
    root = str(databases[setting.suite])
    start = time.monotonic()
    try:
        evaluation.evaluate(
            str(gold), str(prediction), root, "all", foreign_keys, setting.plug_value, setting.keep_distinct, False
        )
    except Exception as error:
        return Answer(f"crash:{type(error).__name__}", where=_where(error), seconds=_since(start))
    finally:
        evaluation.Evaluator = theirs
    return _answer(printed[0], judged, _since(start))


def _answer(scores: dict, judged: list[tuple[Any, dict]], seconds: float) -> Answer:
    if scores["all"]["count"] == 0:
        return Answer("uncounted", seconds=seconds)
    (hardness,) = [level for level in ("easy", "medium", "hard", "extra") if scores[level]["count"]]
    exact, partial = judged[-1]
    assert scores["all"]["exact"] == exact, (scores["all"]["exact"], exact)
    columns = ("acc", "rec", "f1", "label_total", "pred_total")
    parts = {name: [score[column] for column in columns] for name, score in partial.items()}
    return Answer("ok", int(scores["all"]["exec"]), int(exact), hardness, parts, seconds=seconds)


def _where(error: BaseException) -> str:
    """The function that `evaluate` had called, the innermost one of the traceback, and the message's beginning."""
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    inside = frames[frames.index("evaluate") + 1 :] or ["evaluate"]
    return f"{inside[0]} > {inside[-1]}: {str(error)[:120]}"


def _since(start: float) -> float:
    return round(time.monotonic() - start, 4)
