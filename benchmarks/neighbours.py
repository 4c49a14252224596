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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import sqlglot
from sqlglot import expressions as exp

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


# Mutations: each takes a parsed gold and changes one place in it, or returns None where there is none


def _one(tree: exp.Expression, rng: random.Random, *kinds: type[exp.Expression]) -> Any:
    found = list(tree.find_all(*kinds))
    return rng.choice(found) if found else None


def drop_condition(tree: Any, rng: random.Random) -> Any:
    where = _one(tree, rng, exp.Where, exp.Having)
    if where is None:
        return None
    if isinstance(where.this, (exp.And, exp.Or)):
        where.this.replace(rng.choice([where.this.this, where.this.expression]))
    else:
        where.pop()
    return tree


def swap_aggregate(tree: Any, rng: random.Random) -> Any:
    swaps = {exp.Max: exp.Min, exp.Min: exp.Max, exp.Avg: exp.Sum, exp.Sum: exp.Avg}
    node = _one(tree, rng, *swaps)
    if node is None:
        return None
    other = swaps[type(node)](this=node.this.copy())
    if node is tree:
        return other
    node.replace(other)
    return tree


def drop_distinct(tree: Any, rng: random.Random) -> Any:
    node = _one(tree, rng, exp.Distinct)
    if node is None:
        return None
    if isinstance(node.parent, exp.Select):
        node.pop()
    else:
        node.replace(node.expressions[0])
    return tree


def add_distinct(tree: Any, rng: random.Random) -> Any:
    """Of no use to results that have one row, or one for each group."""
    if not isinstance(tree, exp.Select) or any(tree.args.get(name) for name in ("distinct", "group", "limit")):
        return None
    if any(isinstance(item.unalias(), exp.AggFunc) for item in tree.selects):
        return None
    tree.set("distinct", exp.Distinct())
    return tree


def move_boundary(tree: Any, rng: random.Random) -> Any:
    swaps = {exp.GT: exp.GTE, exp.GTE: exp.GT, exp.LT: exp.LTE, exp.LTE: exp.LT}
    node = _one(tree, rng, *swaps)
    if node is None:
        return None
    node.replace(swaps[type(node)](this=node.this.copy(), expression=node.expression.copy()))
    return tree


def flip_order(tree: Any, rng: random.Random) -> Any:
    node = _one(tree, rng, exp.Ordered)
    if node is None:
        return None
    node.set("desc", not node.args.get("desc"))
    node.set("nulls_first", None)
    return tree


def change_join(tree: Any, rng: random.Random) -> Any:
    node = _one(tree, rng, exp.Join)
    if node is None or not node.args.get("on"):
        return None
    node.set("side", None if node.args.get("side") else "LEFT")
    return tree


def change_limit(tree: Any, rng: random.Random) -> Any:
    node = _one(tree, rng, exp.Limit)
    if node is None:
        return None
    node.set("expression", exp.Literal.number(int(node.expression.name) + 1))
    return tree


def drop_join_key(tree: Any, rng: random.Random) -> Any:
    node = _one(tree, rng, exp.Join)
    if node is None or not node.args.get("on"):
        return None
    node.set("on", None)
    return tree


def drop_join(tree: Any, rng: random.Random) -> Any:
    """Of no use where the other table is named elsewhere: that does not run and so is no match."""
    node = _one(tree, rng, exp.Join)
    if node is None:
        return None
    node.pop()
    return tree


def change_count(tree: Any, rng: random.Random, columns: Columns) -> Any:
    node = _one(tree, rng, exp.Count)
    if node is None:
        return None
    if isinstance(node.this, exp.Distinct):
        node.set("this", node.this.expressions[0])
    elif isinstance(node.this, exp.Star):
        other = columns.any_of(node, rng)
        if other is None:
            return None
        node.set("this", exp.Distinct(expressions=[other]))
    else:
        node.set("this", exp.Distinct(expressions=[node.this.copy()]))
    return tree


def swap_column(tree: Any, rng: random.Random, columns: Columns) -> Any:
    node = _one(tree, rng, exp.Column)
    other = columns.beside(node, rng) if node is not None else None
    if other is None:
        return None
    node.set("this", exp.to_identifier(other, quoted=not other.isidentifier()))
    return tree


class Columns:
    """The columns of a database, to put one in another's place."""

    def __init__(self, path: Path) -> None:
        connection = database.open_readonly(str(path))
        self._tables = [[column.name for column in table.columns] for table in database.read_schema(connection).tables]
        self._names = {
            table.name.lower(): [c.name for c in table.columns] for table in database.read_schema(connection).tables
        }
        connection.close()

    def beside(self, node: exp.Column, rng: random.Random) -> str | None:
        """Another column of a table that has this one."""
        found = [names for names in self._tables if node.name.lower() in map(str.lower, names)]
        others = [name for names in found[:1] for name in names if name.lower() != node.name.lower()]
        return rng.choice(others) if others else None

    def any_of(self, node: exp.Expression, rng: random.Random) -> exp.Column | None:
        """Some column of some table in the SELECT around a node."""
        tables = [table for table in node.parent_select.find_all(exp.Table) if table.name.lower() in self._names]
        if not tables:
            return None
        table = rng.choice(tables)
        name = rng.choice(self._names[table.name.lower()])
        return exp.column(exp.to_identifier(name, quoted=not name.isidentifier()), table=table.alias_or_name)


MUTATIONS: list[Callable[..., Any]] = [
    drop_condition, swap_aggregate, drop_distinct, add_distinct, move_boundary, flip_order, change_join, change_limit,
    drop_join_key, drop_join,
]  # fmt: skip
WITH_COLUMNS: list[Callable[..., Any]] = [change_count, swap_column]


# Rewritings that keep the meaning


def other_aliases(tree: Any) -> Any:
    names: dict[str, str] = {}
    for table in tree.find_all(exp.Table):
        if table.alias:
            names.setdefault(table.alias.lower(), f"q{len(names)}")
            table.set("alias", exp.TableAlias(this=exp.to_identifier(names[table.alias.lower()])))
    for column in tree.find_all(exp.Column):
        if column.table.lower() in names:
            column.set("table", exp.to_identifier(names[column.table.lower()]))
    return tree if names else None


def commuted_conditions(tree: Any) -> Any:
    found = list(tree.find_all(exp.And, exp.Or))
    for node in found:
        left, right = node.this.copy(), node.expression.copy()
        node.set("this", right if not isinstance(right, exp.Or) else exp.paren(right))
        node.set("expression", left if not isinstance(left, exp.Connector) else exp.paren(left))
    return tree if found else None


def turned_comparisons(tree: Any) -> Any:
    turned = {exp.GT: exp.LT, exp.LT: exp.GT, exp.GTE: exp.LTE, exp.LTE: exp.GTE, exp.EQ: exp.EQ, exp.NEQ: exp.NEQ}
    found = [node for node in tree.find_all(*turned) if not node.find(exp.Select)]
    for node in found:
        node.replace(turned[type(node)](this=node.expression.copy(), expression=node.this.copy()))
    return tree if found else None


def added_brackets(tree: Any) -> Any:
    found = [node for node in tree.find_all(exp.EQ, exp.NEQ, exp.GT, exp.LT, exp.Like) if not node.find(exp.Select)]
    for node in found:
        node.replace(exp.paren(node.copy()))
    return tree if found else None


def joins_turned(tree: Any) -> Any:
    """FROM a JOIN b ON x becomes FROM b JOIN a WHERE x, for inner joins."""
    changed = False
    for select in tree.find_all(exp.Select):
        joins, start = select.args.get("joins") or [], select.find(exp.From)
        if (
            not joins
            or any(join.args.get("side") or join.args.get("using") for join in joins)
            or not isinstance(start.this, exp.Table)
        ):
            continue
        on = [join.args["on"].copy() for join in joins if join.args.get("on")]
        tables = [start.this.copy(), *(join.this.copy() for join in joins)][::-1]
        start.set("this", tables[0])
        select.set("joins", [exp.Join(this=table) for table in tables[1:]])
        select.where(*on, copy=False)
        changed = True
    return tree if changed else None


def in_or_equal(tree: Any) -> Any:
    changed = False
    for node in list(tree.find_all(exp.In)):
        if node.expressions:
            node.replace(
                exp.paren(
                    exp.or_(*(exp.EQ(this=node.this.copy(), expression=value.copy()) for value in node.expressions))
                )
            )
            changed = True
    for node in list(tree.find_all(exp.Or)):
        sides = (node.this, node.expression)
        if all(isinstance(side, exp.EQ) for side in sides) and sides[0].this == sides[1].this:
            node.replace(exp.In(this=sides[0].this.copy(), expressions=[side.expression.copy() for side in sides]))
            changed = True
    return tree if changed else None


def between_or_two(tree: Any) -> Any:
    found = list(tree.find_all(exp.Between))
    for node in found:
        low = exp.GTE(this=node.this.copy(), expression=node.args["low"].copy())
        high = exp.LTE(this=node.this.copy(), expression=node.args["high"].copy())
        node.replace(exp.paren(exp.and_(low, high)))
    return tree if found else None


def counted_ones(tree: Any) -> Any:
    found = [node for node in tree.find_all(exp.Count) if isinstance(node.this, exp.Star)]
    for node in found:
        node.set("this", exp.Literal.number(1))
    return tree if found else None


def denied_opposites(tree: Any) -> Any:
    opposite = {exp.GT: exp.LTE, exp.LT: exp.GTE, exp.GTE: exp.LT, exp.LTE: exp.GT}
    found = [node for node in tree.find_all(*opposite) if not node.find(exp.Select)]
    for node in found:
        other = opposite[type(node)](this=node.this.copy(), expression=node.expression.copy())
        node.replace(exp.paren(exp.not_(exp.paren(other))))
    return tree if found else None


def added_tie_breaks(tree: Any) -> Any:
    """ORDER BY a becomes ORDER BY a, b: what the gold leaves open is settled in one of the ways that it allows."""
    changed = False
    for order in tree.find_all(exp.Order):
        select = order.parent
        last = select.selects[-1].unalias() if isinstance(select, exp.Select) else None
        if isinstance(last, exp.Column) and not select.args.get("distinct"):
            order.append("expressions", exp.Ordered(this=last.copy(), desc=True))
            changed = True
    return tree if changed else None


def grouped_by_partner(tree: Any) -> Any:
    """GROUP BY a.x becomes GROUP BY b.y where an inner join makes the two equal."""
    changed = False
    for select in tree.find_all(exp.Select):
        joins = [join for join in select.args.get("joins") or [] if not join.args.get("side")]
        pairs = [pair for join in joins if join.args.get("on") for pair in join.args["on"].find_all(exp.EQ)]
        other = {pair.this: pair.expression for pair in pairs} | {pair.expression: pair.this for pair in pairs}
        group = select.args.get("group")
        if group and len(pairs) == len(joins) and any(key in other for key in group.expressions):
            group.set("expressions", [other.get(key, key).copy() for key in group.expressions])
            changed = True
    return tree if changed else None


REWRITINGS: list[Callable[[Any], Any]] = [
    other_aliases, commuted_conditions, turned_comparisons, added_brackets, joins_turned, in_or_equal, between_or_two,
    counted_ones, denied_opposites, added_tie_breaks, grouped_by_partner,
]  # fmt: skip


# Counting


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
