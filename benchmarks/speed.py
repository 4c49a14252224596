"""How fast verdicts are, as ratios to Spider's official evaluator and to judging without processes, side by side in one run.

    python benchmarks/speed.py --spider DIR --reference DIR

--spider is Spider's official folder, --reference a checkout of taoyds/test-suite-sql-eval (it needs sqlparse, and nltk
with its punkt data). The evaluator opens databases for writing, so it is given copies. All sides judge the same pairs:
every dev gold against, in turns, itself in other letters, and another gold of the same database. The sides take turns and
the best of --rounds counts, so that a busy machine slows all of them.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import platform
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import Any

from text2sql import evaluation
from text2sql.evaluation import evaluate, grade
from text2sql.example import Example
from text2sql.scorer import Scorer
from text2sql.sql import clauses
from text2sql.sql.database import open_readonly, read_schema
from text2sql.sql.judge import Limits, Rules
from text2sql.sql.neighbours import derive

NEIGHBOURS = 10
Pair = tuple[Example, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spider", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        pairs = dev_pairs(options.spider)
        single = copied(options.spider, pairs, work / "single")
        suite = copied(options.spider, pairs, work / "suite", NEIGHBOURS)
        reference = Reference(options.reference, options.spider / "tables.json", work)
        for title, root, rounds in (("one database", single, options.rounds), ("11 databases", suite, 1)):
            compare(title, moved(pairs, root), reference, options.workers, rounds)
        compare_all(moved(pairs, single), single, reference, options.workers, options.rounds)
        compare_isolation(moved(pairs, single), options.rounds)


def dev_pairs(spider: Path) -> list[Pair]:
    """Every dev question with, in turns, its gold written differently and another gold of its database."""
    rows = json.loads((spider / "dev.json").read_text(encoding="utf-8"))
    by_database: dict[str, list[str]] = {}
    for row in rows:
        by_database.setdefault(row["db_id"], []).append(row["query"])
    rng = random.Random(0)
    pairs = []
    for number, row in enumerate(rows):
        db_id, gold = row["db_id"], row["query"]
        path = spider / "database" / db_id / f"{db_id}.sqlite"
        with closing(open_readonly(str(path))) as connection:
            schema = read_schema(connection)
        example = Example(str(number), row["question"], gold, db_id, schema, str(path))
        other = rng.choice(by_database[db_id])
        pairs.append((example, gold.replace("SELECT", "select ", 1) if number % 2 else other))
    return pairs


def copied(spider: Path, pairs: Sequence[Pair], root: Path, neighbours: int = 0) -> Path:
    """The dev databases in a folder of their own, each with that many neighbours beside it."""
    golds: dict[str, list[str]] = {}
    for example, _ in pairs:
        golds.setdefault(example.db_id, []).append(example.sql)
    for db_id, queries in golds.items():
        (root / db_id).mkdir(parents=True)
        shutil.copy(spider / "database" / db_id / f"{db_id}.sqlite", root / db_id)
        if neighbours:
            made = derive(root / db_id / f"{db_id}.sqlite", root.parent / "made" / db_id, neighbours, 0, queries)
            for path in made:
                shutil.copy(path, root / db_id)
    return root


def moved(pairs: Sequence[Pair], root: Path) -> list[Pair]:
    """The same pairs on the databases below `root`."""
    return [
        (
            Example(
                one.id, one.question, one.sql, one.db_id, one.schema, str(root / one.db_id / f"{one.db_id}.sqlite")
            ),
            sql,
        )
        for one, sql in pairs
    ]


class Reference:
    """The official evaluator, on files of one pair a line as its command takes them; what it prints is thrown away."""

    def __init__(self, checkout: Path, tables: Path, work: Path) -> None:
        sys.path.insert(0, str(checkout))
        self.module: Any = importlib.import_module("evaluation")
        self.keys = self.module.build_foreign_key_map_from_json(str(tables))
        self.work = work

    def run(self, pairs: Sequence[Pair], root: Path, etype: str) -> None:
        gold, predicted = self.work / "gold.txt", self.work / "predicted.txt"
        gold.write_text("".join(f"{example.sql}\t{example.db_id}\n" for example, _ in pairs), encoding="utf-8")
        predicted.write_text("".join(f"{sql}\n" for _, sql in pairs), encoding="utf-8")
        with redirect_stdout(io.StringIO()):
            self.module.evaluate(str(gold), str(predicted), str(root), etype, self.keys, False, False, False)

    def run_execution(self, pairs: Sequence[Pair]) -> list[int]:
        """Only its function for one execution verdict: no files, no parsing, nothing of its other metrics."""
        return [
            self.module.eval_exec_match(
                db=example.database,
                p_str=sql.replace("value", "1"),
                g_str=example.sql,
                plug_value=False,
                keep_distinct=False,
                progress_bar_for_each_datapoint=False,
            )
            for example, sql in pairs
        ]


def compare(title: str, pairs: list[Pair], reference: Reference, workers: int, rounds: int) -> None:
    verdicts: dict[str, list[bool]] = {}

    def theirs() -> None:
        verdicts["theirs"] = [bool(verdict) for verdict in reference.run_execution(pairs)]

    def ours(scorer: Scorer) -> None:
        verdicts["ours"] = [bool(score.official) for score in scorer.score_all(pairs)]

    times = against(theirs, ours, workers, rounds)
    differing = sum(one != other for one, other in zip(verdicts["theirs"], verdicts["ours"]))
    report(f"execution verdicts, {title} ({differing} of {len(pairs)} differ)", times, len(pairs))


def compare_all(pairs: list[Pair], root: Path, reference: Reference, workers: int, rounds: int) -> None:
    def ours(scorer: Scorer) -> None:
        for (example, sql), _ in zip(pairs, scorer.score_all(pairs)):
            grade(example, sql)

    times = against(lambda: reference.run(pairs, root, "all"), ours, workers, rounds)
    report("execution, exact match, its parts and hardness", times, len(pairs))
    examples, predictions = [example for example, _ in pairs], [sql for _, sql in pairs]

    def everything(scorer: Scorer) -> None:
        evaluate(examples, lambda _: predictions, scorer, progress=False)

    times |= against(None, everything, workers, rounds, Rules(preview_rows=10))
    report("ours with strict verdicts, diagnosis and results as well", times, len(pairs))


def against(
    theirs: Callable[[], None] | None,
    ours: Callable[[Scorer], None],
    workers: int,
    rounds: int,
    rules: Rules | None = None,
) -> dict[str, float]:
    """Seconds of theirs, of our first call, which opens every database and runs every gold, and of a second one.

    Their imports and the start of our processes are not counted; the second is reported on its own.
    """
    times: dict[str, float] = {}
    for _ in range(rounds):
        if theirs:
            keep(times, "theirs", theirs)
        for known in (evaluation._parsed_for_file, evaluation._tables, evaluation._tables_json, clauses._read_gold):
            known.cache_clear()
        with Scorer(Limits(), rules or Rules(official=True), workers=workers) as scorer:
            keep(times, "start", lambda: started(scorer, workers))
            keep(times, "first", lambda: ours(scorer))
            keep(times, "again", lambda: ours(scorer))
    return times


def started(scorer: Scorer, workers: int) -> None:
    """Wait until all processes of a scorer answer."""
    list(
        scorer.score_all(
            [(Example(str(i), "", "SELECT 1", "", context="SELECT 1"), "SELECT 1") for i in range(workers)]
        )
    )


def compare_isolation(pairs: list[Pair], rounds: int) -> None:
    scorers = {"in process": Scorer(workers=0), "isolated": Scorer(workers=1)}

    def fresh(name: str) -> Callable[[], None]:
        return lambda: [*scorers[name].score_all(pairs)] and None

    for scorer in scorers.values():
        list(scorer.score_all(pairs[:1]))
    times = best({name: fresh(name) for name in scorers}, 3 * rounds)
    for scorer in scorers.values():
        scorer.close()
    overhead = times["isolated"] / times["in process"] - 1
    print(
        f"isolation: {len(pairs)} strict and official verdicts, {times['in process']:.3f} s in process, "
        f"{times['isolated']:.3f} s in one process apart: {100 * overhead:+.1f} %"
    )


def best(sides: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Seconds of the best round of each side; the sides take turns."""
    times: dict[str, float] = {}
    for _ in range(rounds):
        for name, run in sides.items():
            keep(times, name, run)
    return times


def keep(times: dict[str, float], name: str, run: Callable[[], None]) -> None:
    """Run once, and keep the time if it is the best so far."""
    begun = time.perf_counter()
    run()
    times[name] = min(times.get(name, float("inf")), time.perf_counter() - begun)


def report(title: str, times: dict[str, float], num_pairs: int) -> None:
    print(title)
    theirs = times["theirs"]
    print(f"  theirs              {theirs:7.3f} s  {num_pairs / theirs:7,.0f} a second")
    for name, label in (("first", "ours, first call"), ("again", "ours, golds known")):
        ours = times[name]
        print(f"  {label:18}  {ours:7.3f} s  {num_pairs / ours:7,.0f} a second  {theirs / ours:5.1f} times")
    print(f"  start of our processes {times['start']:.3f} s", flush=True)


if __name__ == "__main__":
    main()
