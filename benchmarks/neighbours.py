"""Count how many accidental matches on Spider dev neighbour databases remove, and how many true ones they spoil.

    python benchmarks/neighbours.py --spider DIR [--predictions FILE.jsonl ...] --neighbours 10 --seed 0

Three groups of SQL are compared with the golds, first on the original database and then on its neighbours: predictions
of a model (rows with id, db_id, question, gold, prediction), golds with one seeded mutation each, and golds rewritten so
that they must mean the same. Only neighbours on which the gold's result is decided count (neighbours.usable); the last
table also says what would be removed without that care.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import sqlglot
from changes import MUTATIONS, REWRITINGS, WITH_COLUMNS, Columns

from text2sql.sql import compare, database, neighbours

MAX_STEPS = 50_000_000
MAX_ROWS = 20_000
SHOWN_ROWS = 4


class Case(NamedTuple):
    """SQL to hold against a gold; `kind` is where it comes from."""

    db_id: str
    question: str
    gold: str
    sql: str
    kind: str


class Removal(NamedTuple):
    """The first usable neighbour, counted from 1, on which the two results differ."""

    case: Case
    number: int
    path: Path
    reason: str


class Databases:
    """Runs SQL on database files under a step limit and remembers the results."""

    def __init__(self) -> None:
        self._open: dict[Path, sqlite3.Connection] = {}
        self._results: dict[tuple[Path, str], list[tuple] | str] = {}

    def run(self, path: Path, sql: str) -> list[tuple] | str:
        """The rows, or in words why there are none."""
        if (path, sql) not in self._results:
            self._results[path, sql] = self._run(path, sql)
        return self._results[path, sql]

    def _run(self, path: Path, sql: str) -> list[tuple] | str:
        if path not in self._open:
            self._open[path] = database.open_readonly(str(path))
            self._open[path].set_authorizer(_reading_only)
        connection = self._open[path]
        connection.set_progress_handler(lambda: 1, MAX_STEPS)
        try:
            return connection.execute(sql.strip().removesuffix(";")).fetchmany(MAX_ROWS)
        except (sqlite3.Error, sqlite3.Warning) as error:
            return str(error)

    def difference(self, path: Path, gold: str, sql: str) -> str:
        """Why SQL does not match its gold on a database; empty where it does."""
        wanted, found = self.run(path, gold), self.run(path, sql)
        if isinstance(wanted, str):
            return f"gold: {wanted}"
        if isinstance(found, str):
            return found
        equal, reason = compare.same_result(wanted, found, ordered=compare.is_ordered(gold))
        return "" if equal else reason


def _reading_only(action: int, *_: str | None) -> int:
    reading = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE, sqlite3.SQLITE_FUNCTION)
    return sqlite3.SQLITE_OK if action in reading else sqlite3.SQLITE_DENY


def mutated(rows: list[dict[str, Any]], folder: Path, seed: int) -> Iterator[Case]:
    columns = {row["db_id"]: Columns(_file(folder, row["db_id"])) for row in rows}
    for number, row in enumerate(rows):
        tree = sqlglot.parse_one(row["query"], read="sqlite")
        for change in MUTATIONS + WITH_COLUMNS:
            rng = random.Random(f"{seed}/{number}/{change.__name__}")
            more = [columns[row["db_id"]]] if change in WITH_COLUMNS else []
            other = change(tree.copy(), rng, *more)
            if other is not None and other != tree:
                yield Case(row["db_id"], row["question"], row["query"], other.sql("sqlite"), change.__name__)


def rewritten(rows: list[dict[str, Any]]) -> Iterator[Case]:
    for row in rows:
        tree = sqlglot.parse_one(row["query"], read="sqlite")
        for change in REWRITINGS:
            other = change(tree.copy())
            if other is not None:
                yield Case(row["db_id"], row["question"], row["query"], other.sql("sqlite"), change.__name__)


def predicted(file: Path) -> Iterator[Case]:
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield Case(row["db_id"], row["question"], row["gold"], row["prediction"], "prediction")


def _file(folder: Path, db_id: str) -> Path:
    return folder / "database" / db_id / f"{db_id}.sqlite"


def equal_at_first(cases: Iterator[Case], spider: Path, databases: Databases) -> list[Case]:
    """The cases that match their gold on the original database."""
    return [case for case in cases if not databases.difference(_file(spider, case.db_id), case.gold, case.sql)]


def removals(cases: list[Case], folder: Path, databases: Databases, count: int, careful: bool = True) -> list[Removal]:
    """The cases that some neighbour tells apart from their gold; if not `careful`, also by neighbours with ties."""
    removed = []
    for case in cases:
        everywhere = [folder / case.db_id / f"n{number:02}.sqlite" for number in range(count)]
        usable = set(neighbours.usable(folder / case.db_id, case.gold)) if careful else set(everywhere)
        for number, path in enumerate(everywhere, 1):
            if path in usable and (reason := databases.difference(path, case.gold, case.sql)):
                removed.append(Removal(case, number, path, reason))
                break
    return removed


def table(title: str, cases: list[Case], removed: list[Removal], count: int) -> str:
    """Of each kind of case how many match at first, and how many of these 1, 2, 5, ... neighbours remove."""
    steps = [step for step in (1, 2, 5, 10, 20, 50) if step < count] + [count]
    lines = [f"{title:22}{'equal':>7}" + "".join(f"{f'by {step}':>8}" for step in steps) + f"{'share':>8}"]
    kinds = list(dict.fromkeys(case.kind for case in cases))
    for kind in [*kinds, "all"] if len(kinds) > 1 else kinds:
        total = sum(kind in (case.kind, "all") for case in cases)
        at = [removal.number for removal in removed if kind in (removal.case.kind, "all")]
        counts = "".join(f"{sum(number <= step for number in at):>8}" for step in steps)
        lines.append(f"{kind:22}{total:>7}{counts}{100 * len(at) / max(1, total):>7.1f}%")
    return "\n".join(lines)


def shown(rows: list[tuple] | str) -> str:
    if isinstance(rows, str):
        return f"fails: {rows}"
    text = "; ".join(", ".join(str(value)[:30] for value in row[:6]) for row in rows[:SHOWN_ROWS])
    return f"{len(rows)} rows: {text}{' …' if len(rows) > SHOWN_ROWS else ''}"


def as_markdown(removal: Removal, databases: Databases) -> str:
    case = removal.case
    return "\n".join(
        [
            f"### {case.db_id}: {case.question}",
            "",
            f"{case.kind}; told apart by {removal.path.name}: {removal.reason}",
            "",
            "```sql",
            f"-- gold: {shown(databases.run(removal.path, case.gold))}",
            " ".join(case.gold.split()),
            f"-- other: {shown(databases.run(removal.path, case.sql))}",
            " ".join(case.sql.split()),
            "```",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--spider", type=Path, required=True, help="folder with dev.json and database/")
    parser.add_argument(
        "--predictions", type=Path, nargs="*", default=[], help="predictions.jsonl of evaluations on dev"
    )
    parser.add_argument("--neighbours", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, help="where the neighbours are kept; without it they are made and thrown away"
    )
    parser.add_argument("--examples", type=Path, help="markdown file for the SQL that neighbours removed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        report(arguments, arguments.folder or Path(scratch))


def report(arguments: argparse.Namespace, folder: Path) -> None:
    rows = json.loads((arguments.spider / "dev.json").read_text(encoding="utf-8"))
    golds = defaultdict(list)
    for row in rows:
        golds[row["db_id"]].append(row["query"])
    start = time.process_time()
    for db_id, texts in golds.items():
        neighbours.derive(_file(arguments.spider, db_id), folder / db_id, arguments.neighbours, arguments.seed, texts)
    print(f"{arguments.neighbours} neighbours of {len(golds)} databases: {time.process_time() - start:.1f} s\n")
    print(how_golds_fare(folder, golds), "\n")
    databases = Databases()
    examples: list[Removal] = []

    def count(title: str, cases: Iterator[Case]) -> tuple[list[Case], list[Removal]]:
        equal = equal_at_first(cases, arguments.spider, databases)
        removed = removals(equal, folder, databases, arguments.neighbours)
        print(table(title, equal, removed, arguments.neighbours), "\n")
        return equal, removed

    for file in arguments.predictions:
        examples += count(file.parent.name or file.name, predicted(file))[1]
    examples += count("mutated golds", mutated(rows, arguments.spider, arguments.seed))[1]
    equal, spoilt = count("same by construction", rewritten(rows))
    for removal in spoilt:
        print("a false alarm:", as_markdown(removal, databases))
    careless = removals(equal, folder, databases, arguments.neighbours, careful=False)
    print(f"of the {len(equal)} same by construction, {len(careless)} would go if neighbours with ties counted too")
    if arguments.examples:
        arguments.examples.write_text(
            "\n".join(as_markdown(removal, databases) for removal in examples), encoding="utf-8"
        )


def how_golds_fare(folder: Path, golds: dict[str, list[str]]) -> str:
    """How many golds give rows on the neighbours, and on how many neighbours their result is decided."""
    shares, decided = [], Counter[int]()
    for db_id, texts in golds.items():
        manifest = json.loads((folder / db_id / "manifest.json").read_text(encoding="utf-8"))
        shares += [about["share_with_rows"] for about in manifest["files"].values()]
        decided.update(len(neighbours.usable(folder / db_id, gold)) for gold in dict.fromkeys(texts))
    total, half = sum(decided.values()), len(manifest["files"]) / 2
    most = sum(times for number, times in decided.items() if number >= half)
    return (
        f"of the golds that give rows on the original, {100 * sum(shares) / len(shares):.1f} % do on a neighbour "
        f"(the lowest neighbour: {100 * min(shares):.1f} %)\n"
        f"of {total} golds, {most} are decided on at least half of the neighbours and {decided[0]} on none"
    )


if __name__ == "__main__":
    main()
