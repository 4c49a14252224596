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

from text2sql.evaluation import evaluate, grade
from text2sql.example import Example
from text2sql.scorer import Scorer
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
            compare(f"execution verdicts, {title}", moved(pairs, root), root, reference, options.workers, rounds)
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


def compare(title: str, pairs: list[Pair], root: Path, reference: Reference, workers: int, rounds: int) -> None:
    verdicts: dict[str, list[bool]] = {}

    def theirs() -> None:
        verdicts["theirs"] = [bool(verdict) for verdict in reference.run_execution(pairs)]

    def ours() -> None:
        with Scorer(Limits(), Rules(official=True), workers=workers) as scorer:
            verdicts["ours"] = [bool(score.official) for score in scorer.score_all(pairs)]

    times = best({"theirs": theirs, "ours": ours}, rounds)
    differing = sum(one != other for one, other in zip(verdicts["theirs"], verdicts["ours"]))
    report(
        title, times, len(pairs), f"{differing} verdicts differ; ours with {workers} processes, their start included"
    )


def compare_all(pairs: list[Pair], root: Path, reference: Reference, workers: int, rounds: int) -> None:
    def ours() -> None:
        with Scorer(Limits(), Rules(official=True), workers=workers) as scorer:
            for (example, sql), _ in zip(pairs, scorer.score_all(pairs)):
                grade(example, sql)

    def with_diagnosis() -> None:
        with Scorer(Limits(), Rules(preview_rows=10), workers=workers) as scorer:
            evaluate([example for example, _ in pairs], lambda _: [sql for _, sql in pairs], scorer, progress=False)

    sides = {"theirs": lambda: reference.run(pairs, root, "all"), "ours": ours, "ours, with all": with_diagnosis}
    times = best(sides, rounds)
    report("all metrics", times, len(pairs), "execution, exact match, parts, hardness")
    extra = {"theirs": times["theirs"], "ours": times["ours, with all"]}
    report("all metrics and more", extra, len(pairs), "ours also strict, diagnosis and both results of each pair")


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
            started = time.perf_counter()
            run()
            times[name] = min(times.get(name, float("inf")), time.perf_counter() - started)
    return times


def report(title: str, times: dict[str, float], num_pairs: int, remark: str) -> None:
    theirs, ours = times["theirs"], times["ours"]
    print(
        f"{title}: {num_pairs} pairs, theirs {theirs:.2f} s ({num_pairs / theirs:,.0f}/s), ours {ours:.3f} s "
        f"({num_pairs / ours:,.0f}/s): {theirs / ours:.1f} times ({remark})",
        flush=True,
    )


if __name__ == "__main__":
    main()
