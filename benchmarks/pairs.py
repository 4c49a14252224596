"""Generates pairs of a gold query and a prediction over Spider's databases, to compare two evaluators on.

Golds are Spider's own; predictions are made from them by changes a model might make (another column, no DISTINCT, a
join less) and by changes that only an evaluator notices (letter case, quotes, brackets, spaced operators). Equal seeds
give equal pairs. Every prediction is one line without tabs, reads only, and ends soon or fails.
"""

from __future__ import annotations

import json
import random
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle
from pathlib import Path

import sqlglot
from edits import SHAPES, SUBSTITUTIONS, TEMPLATES
from sqlglot import exp

MAX_STEPS = 4_000_000
"""How many SQLite instructions a query may take to be part of a pair: a few tenths of a second."""
MAX_ROWS = 30_000
SWAPPED_SHARE = 0.12
"""How many pairs have gold and prediction in each other's place, of those whose prediction would do as a gold."""


@dataclass(frozen=True)
class Pair:
    db_id: str
    gold: str
    prediction: str
    kind: str


@dataclass
class Database:
    """A database, opened read-only, with the golds written for it."""

    db_id: str
    connection: sqlite3.Connection
    golds: list[str] = field(default_factory=list)
    runs: dict[str, bool] = field(default_factory=dict)

    @cached_property
    def tables(self) -> dict[str, list[str]]:
        """The columns of each table that a query can name without quotes."""
        names = self.connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        columns = {name: self.connection.execute("SELECT name FROM pragma_table_info(?)", (name,)) for (name,) in names}
        plain = {name: [c for (c,) in rows if re.fullmatch(r"\w+", c)] for name, rows in columns.items()}
        return {name: found for name, found in plain.items() if found and re.fullmatch(r"[A-Za-z]\w*", name)}

    def rows(self, sql: str) -> list[tuple] | None:
        """The rows of a query, None where it takes too long or has too many; sqlite3.Error where it fails."""
        steps = iter(range(MAX_STEPS // 1000))
        self.connection.set_progress_handler(lambda: next(steps, None) is None, 1000)
        try:
            rows = self.connection.execute(sql).fetchmany(MAX_ROWS + 1)
        except sqlite3.OperationalError as error:
            if str(error) != "interrupted":
                raise
            return None
        return rows if len(rows) <= MAX_ROWS else None

    def runs_to_its_end(self, sql: str) -> bool:
        if sql not in self.runs:
            try:
                self.runs[sql] = self.rows(sql) is not None
            except (sqlite3.Error, sqlite3.Warning):
                self.runs[sql] = False
        return self.runs[sql]

    def ends(self, sql: str) -> bool:
        """Whether a prediction ends soon, well or badly."""
        try:
            return self.rows(sql) is not None
        except (sqlite3.Error, sqlite3.Warning, UnicodeEncodeError):
            return True


@dataclass
class Draft:
    """A gold about to be changed."""

    rng: random.Random
    database: Database
    gold: str

    @property
    def tree(self) -> exp.Query:
        """The gold parsed anew, to be changed in place; raises sqlglot.errors.SqlglotError where it cannot be."""
        tree = sqlglot.parse_one(self.gold, read="sqlite")
        if not isinstance(tree, exp.Query):
            raise sqlglot.errors.ParseError("not a query")
        return tree

    def fill(self, template: str) -> str:
        """Replace {gold}, {other} (another gold), {table}, {column}, {column2} (of that table), {text}, {number}."""
        table = self.rng.choice(sorted(self.database.tables))
        columns = self.database.tables[table]
        return template.format(
            gold=self.gold.rstrip("; "),
            other=self.rng.choice(self.database.golds).rstrip("; "),
            table=table,
            column=self.rng.choice(columns),
            column2=self.rng.choice(columns),
            text=self.rng.choice(["USA", "a", "terminal", "value", "2010", "", "O''Neil", "é", "日本", "Distinct"]),
            number=self.rng.choice(["0", "1", "2", "3", "10", "2.5", "1990", "-1"]),
        )


def _select(rng: random.Random, tree: exp.Query) -> exp.Select:
    """The outermost SELECT most of the time, otherwise any of the query."""
    selects = list(tree.find_all(exp.Select))
    return selects[0] if rng.random() < 0.7 else rng.choice(selects)


def _sources(select: exp.Select) -> list[tuple[str, str]]:
    """(name a column is prefixed with, table) of what a SELECT reads from."""
    clauses = [select.args.get("from_"), *select.args.get("joins", [])]
    tables = [clause.this for clause in clauses if clause is not None and isinstance(clause.this, exp.Table)]
    return [(table.alias_or_name, table.name) for table in tables]


def _some_column(draft: Draft, select: exp.Select) -> exp.Expr | None:
    """A column of what a SELECT reads from, with a prefix where it reads from several tables."""
    sources = _sources(select)
    known = {name.lower(): columns for name, columns in draft.database.tables.items()}
    places = [(prefix, column) for prefix, table in sources for column in known.get(table.lower(), [])]
    if not places:
        return None
    prefix, column = draft.rng.choice(places)
    return exp.column(column, table=prefix if len(sources) > 1 else None)


def _add_column(draft: Draft, tree: exp.Query) -> None:
    select = _select(draft.rng, tree)
    if column := _some_column(draft, select):
        select.expressions.insert(draft.rng.randint(0, len(select.expressions)), column)


def _drop_column(draft: Draft, tree: exp.Query) -> None:
    select = _select(draft.rng, tree)
    if len(select.expressions) > 1:
        select.expressions.pop(draft.rng.randrange(len(select.expressions)))


def _permute_columns(draft: Draft, tree: exp.Query) -> None:
    draft.rng.shuffle(_select(draft.rng, tree).expressions)


def _repeat_column(draft: Draft, tree: exp.Query) -> None:
    select = _select(draft.rng, tree)
    if len(select.expressions) < 6:
        select.expressions.append(draft.rng.choice(select.expressions).copy())


def _replace_column(draft: Draft, tree: exp.Query) -> None:
    """Another column anywhere: in the select list, a condition, a join, GROUP BY, or ORDER BY."""
    select = _select(draft.rng, tree)
    columns = [column for column in select.find_all(exp.Column) if not column.this.args.get("quoted")]
    if columns and (column := _some_column(draft, select)):
        draft.rng.choice(columns).replace(column)


def _select_star(draft: Draft, tree: exp.Query) -> None:
    select = _select(draft.rng, tree)
    prefix = draft.rng.choice([None, *(name for name, _ in _sources(select))])
    select.set("expressions", [exp.Column(this=exp.Star(), table=exp.to_identifier(prefix)) if prefix else exp.Star()])


def _add_aggregate(draft: Draft, tree: exp.Query) -> None:
    select = _select(draft.rng, tree)
    index = draft.rng.randrange(len(select.expressions))
    function = draft.rng.choice([exp.Count, exp.Max, exp.Min, exp.Sum, exp.Avg])
    select.expressions[index] = function(this=select.expressions[index].copy())


def _drop_aggregate(draft: Draft, tree: exp.Query) -> None:
    if functions := list(tree.find_all(exp.AggFunc)):
        function = draft.rng.choice(functions)
        function.replace(function.this.copy())


def _all_columns(draft: Draft, kind: str) -> tuple[str, str]:
    """All columns of a table by name in another order, one of them repeated now and then."""
    table = draft.rng.choice(sorted(draft.database.tables))
    columns = list(draft.database.tables[table])
    draft.rng.shuffle(columns)
    if draft.rng.random() < 0.3:
        columns[0] = columns[-1]
    return f"SELECT * FROM {table}", f"SELECT {' , '.join(columns)} FROM {table}" if len(columns) <= 8 else ""


def _qualify(draft: Draft, tree: exp.Query) -> None:
    """Write aliases out as table names, in all places or in the tables' own only."""
    everywhere = draft.rng.random() < 0.7
    names = {table.alias: table.name for table in tree.find_all(exp.Table) if table.alias}
    for table in tree.find_all(exp.Table):
        table.set("alias", None)
    for column in tree.find_all(exp.Column):
        if column.table in names and everywhere:
            column.set("table", exp.to_identifier(names[column.table]))


def _prefix(draft: Draft, tree: exp.Query) -> None:
    select = _select(draft.rng, tree)
    if sources := _sources(select):
        for column in select.find_all(exp.Column):
            if not column.this.args.get("quoted"):
                column.set("table", exp.to_identifier(draft.rng.choice(sources)[0]))


def _drop_join(draft: Draft, tree: exp.Query) -> None:
    select = _select(draft.rng, tree)
    if joins := select.args.get("joins"):
        joins.pop(draft.rng.randrange(len(joins)))


def _drop_join_and_its_columns(draft: Draft, tree: exp.Query) -> None:
    """Read from one table less, every column of it replaced by one of another table."""
    select = _select(draft.rng, tree)
    if joins := select.args.get("joins"):
        gone = joins.pop().this.alias_or_name
        for column in list(select.find_all(exp.Column)):
            if column.table == gone and (other := _some_column(draft, select)):
                column.replace(other)


def _add_join(draft: Draft, tree: exp.Query) -> None:
    select = _select(draft.rng, tree)
    mine = _some_column(draft, select)
    table = draft.rng.choice(sorted(draft.database.tables))
    theirs = exp.column(draft.rng.choice(draft.database.tables[table]), table="T9")
    if mine is not None:
        side = draft.rng.choice(["", "", "LEFT"])
        select.join(exp.alias_(exp.to_table(table), "T9", table=True), on=mine.eq(theirs), join_type=side, copy=False)


def _turn_joins(draft: Draft, tree: exp.Query) -> None:
    """The first two tables in each other's place."""
    select = _select(draft.rng, tree)
    if joins := select.args.get("joins"):
        first, second = select.args["from_"].this, joins[0].this
        select.args["from_"].set("this", second.copy())
        joins[0].set("this", first.copy())


def _conditions_of_joins_in_where(draft: Draft, tree: exp.Query) -> None:
    select = _select(draft.rng, tree)
    for join in select.args.get("joins", []):
        if condition := join.args.get("on"):
            join.set("on", None)
            select.where(condition.copy(), copy=False)


def _join_as_subquery(draft: Draft, tree: exp.Query) -> None:
    """FROM a JOIN b ON a.x = b.y becomes FROM a WHERE a.x IN (SELECT y FROM b), or EXISTS."""
    select = _select(draft.rng, tree)
    joins = select.args.get("joins") or []
    condition = joins[0].args.get("on") if len(joins) == 1 else None
    if not isinstance(condition, exp.EQ):
        return
    table = joins[0].this
    left, right = condition.left, condition.right
    if isinstance(left, exp.Column) and left.table == table.alias_or_name:
        left, right = right, left
    select.set("joins", [])
    if draft.rng.random() < 0.6:
        select.where(left.copy().isin(query=exp.select(right.copy()).from_(table.copy())), copy=False)
    else:
        select.where(exp.Exists(this=exp.select("*").from_(table.copy()).where(condition.copy())), copy=False)


def _subquery_as_join(draft: Draft, tree: exp.Query) -> None:
    """x IN (SELECT y FROM ...) becomes JOIN (SELECT y AS k FROM ...) AS s ON x = s.k, or = (...), or EXISTS."""
    found = [node for node in tree.find_all(exp.In) if node.args.get("query")]
    if not found:
        return
    node = draft.rng.choice(found)
    select, inner = node.find_ancestor(exp.Select), node.args["query"].unnest()
    if select is None or not isinstance(inner, exp.Select):
        return
    inner = inner.copy()
    column, choice = node.this.copy(), draft.rng.randrange(3)
    if choice == 0:
        inner.set("expressions", [exp.alias_(inner.expressions[0], "k")])
        node.replace(exp.true())
        select.join(inner.subquery("s"), on=column.eq(exp.column("k", table="s")), copy=False)
    elif choice == 1:
        node.replace(exp.Exists(this=inner.where(inner.expressions[0].copy().eq(column), copy=False)))
    else:
        node.replace(column.eq(inner.subquery()))


def _drop_condition(draft: Draft, tree: exp.Query) -> None:
    if pairs := list(tree.find_all(exp.And, exp.Or)):
        pair = draft.rng.choice(pairs)
        pair.replace(draft.rng.choice([pair.left, pair.right]).copy())
    elif where := _select(draft.rng, tree).args.get("where"):
        where.pop()


def _turn_conditions(draft: Draft, tree: exp.Query) -> None:
    """The two sides of AND, OR, or a comparison in each other's place."""
    if pairs := list(tree.find_all(exp.And, exp.Or, exp.EQ, exp.NEQ)):
        pair = draft.rng.choice(pairs)
        left, right = pair.left.copy(), pair.right.copy()
        pair.set("this", right)
        pair.set("expression", left)


def _add_condition(draft: Draft, tree: exp.Query) -> None:
    select = _select(draft.rng, tree)
    if column := _some_column(draft, select):
        test = draft.rng.choice(
            ["= 1", "> 0", "IS NOT NULL", "IS NULL", "!= 'x'", "LIKE '%a%'", "IN (1, 2)", "BETWEEN 1 AND 5", "= value"]
        )
        select.where(f"{column.sql(dialect='sqlite')} {test}", dialect="sqlite", copy=False)


def _add_order(draft: Draft, tree: exp.Query) -> None:
    select = _select(draft.rng, tree)
    if column := _some_column(draft, select):
        (tree if select.parent is None else select).order_by(
            exp.Ordered(this=column, desc=draft.rng.random() < 0.5, nulls_first=False), copy=False
        )


def _drop_order(draft: Draft, tree: exp.Query) -> None:
    for clause in list(tree.find_all(exp.Order)):
        clause.pop()


def _turn_order(draft: Draft, tree: exp.Query) -> None:
    for ordered in tree.find_all(exp.Ordered):
        ordered.set("desc", not ordered.args.get("desc"))
        ordered.set("nulls_first", not ordered.args.get("desc"))


def _add_limit(draft: Draft, tree: exp.Query) -> None:
    tree.limit(draft.rng.choice([0, 1, 2, 3, 5, 1000]), copy=False)


def _drop_limit(draft: Draft, tree: exp.Query) -> None:
    for clause in list(tree.find_all(exp.Limit)):
        clause.pop()


def _add_group(draft: Draft, tree: exp.Query) -> None:
    select = _select(draft.rng, tree)
    if column := _some_column(draft, select):
        select.group_by(column, copy=False)
        if draft.rng.random() < 0.4:
            test = draft.rng.choice(["count(*) > 1", "count(*) = 1", "max(1) = 1", "1", "sum(1) >= 1 AND count(*) < 9"])
            select.having(test, dialect="sqlite", copy=False)


def _drop_group(draft: Draft, tree: exp.Query) -> None:
    for clause in list(tree.find_all(exp.Group, exp.Having)):
        if isinstance(clause, exp.Having) or draft.rng.random() < 0.5:
            clause.pop()


def _drop_set_operation(draft: Draft, tree: exp.Query) -> exp.Expr:
    return draft.rng.choice([tree.left, tree.right]) if isinstance(tree, exp.SetOperation) else tree


def _turn_set_operation(draft: Draft, tree: exp.Query) -> None:
    if isinstance(tree, exp.SetOperation):
        left, right = tree.left.copy(), tree.right.copy()
        tree.set("this", right)
        tree.set("expression", left)


def _case(draft: Draft, tree: exp.Query) -> None:
    """A column inside CASE, a window function, or arithmetic."""
    select = _select(draft.rng, tree)
    index = draft.rng.randrange(len(select.expressions))
    around = draft.rng.choice(
        [
            "CASE WHEN {0} > 0 THEN {0} ELSE 0 END",
            "CASE WHEN 1 THEN {0} END",
            "row_number() OVER (ORDER BY {0})",
            "max({0}) OVER ()",
            "{0} + 1",
            "{0} / 1.0",
            "({0})",
            "CAST({0} AS TEXT)",
            "{0} = 1",
            "{0} - {0}",
        ]
    ).format(select.expressions[index].sql(dialect="sqlite"))
    select.expressions[index] = sqlglot.parse_one(around, read="sqlite")


def _same(draft: Draft, tree: exp.Query) -> None:
    """Only written anew: letter case of functions, spaces."""


TREES: dict[str, Callable[[Draft, exp.Query], exp.Expr | None]] = {
    "rewritten": _same,
    "column added": _add_column,
    "column dropped": _drop_column,
    "columns permuted": _permute_columns,
    "column repeated": _repeat_column,
    "column replaced": _replace_column,
    "star": _select_star,
    "aggregate added": _add_aggregate,
    "aggregate dropped": _drop_aggregate,
    "aliases written out": _qualify,
    "columns prefixed": _prefix,
    "join dropped": _drop_join,
    "join and columns dropped": _drop_join_and_its_columns,
    "join added": _add_join,
    "joins turned": _turn_joins,
    "joins as conditions": _conditions_of_joins_in_where,
    "join as subquery": _join_as_subquery,
    "subquery as join": _subquery_as_join,
    "condition dropped": _drop_condition,
    "conditions turned": _turn_conditions,
    "condition added": _add_condition,
    "order added": _add_order,
    "order dropped": _drop_order,
    "order turned": _turn_order,
    "limit added": _add_limit,
    "limit dropped": _drop_limit,
    "group added": _add_group,
    "group dropped": _drop_group,
    "set operation dropped": _drop_set_operation,
    "set operation turned": _turn_set_operation,
    "case": _case,
}


def _text_of(tree: exp.Expr) -> str:
    """SQL in Spider's own spelling where sqlglot has another: != and x NOT IN, and no ON TRUE."""
    sql = tree.sql(dialect="sqlite").replace("<>", "!=").replace(" ON TRUE", "")
    return re.sub(r"\bNOT ([\w.]+) (IN|LIKE|BETWEEN)\b", r"\1 NOT \2", sql)


def _changed_tree(draft: Draft, kind: str) -> tuple[str, str]:
    tree = draft.tree
    changed = TREES[kind](draft, tree)
    text = _text_of(tree if changed is None else changed)
    return draft.gold, text if kind == "rewritten" or text != _text_of(draft.tree) else ""


def _substituted(draft: Draft, kind: str) -> tuple[str, str]:
    fitting = [edit for edit in SUBSTITUTIONS[kind] if re.search(edit[0], draft.gold, re.IGNORECASE)]
    if not fitting:
        return draft.gold, ""
    pattern, replacement = draft.rng.choice(fitting)
    if draft.rng.random() < 0.2:
        return draft.gold, re.sub(pattern, replacement, draft.gold, flags=re.IGNORECASE)
    place = draft.rng.choice(list(re.finditer(pattern, draft.gold, re.IGNORECASE)))
    return draft.gold, draft.gold[: place.start()] + place.expand(replacement) + draft.gold[place.end() :]


def _filled(draft: Draft, kind: str) -> tuple[str, str]:
    return draft.gold, draft.fill(draft.rng.choice(TEMPLATES[kind]))


def _shaped(draft: Draft, kind: str) -> tuple[str, str]:
    gold, prediction = (draft.rng.choice(shapes) for shapes in SHAPES[kind])
    filled = draft.fill(f"{gold}\n{prediction}").split("\n")
    return filled[0], filled[1]


def _spelt(draft: Draft, kind: str) -> tuple[str, str]:
    """Letter case and spaces all over, a cut somewhere, or brackets that do not fit."""
    gold, rng = draft.gold, draft.rng
    at = rng.randrange(1, len(gold))
    spelling = {
        "gold": lambda: gold,
        "upper case": gold.upper,
        "lower case": gold.lower,
        "swapped case": gold.swapcase,
        "many spaces": lambda: gold.replace(" ", " " * rng.randint(2, 3)),
        "few spaces": lambda: re.sub(r"\s+", " ", re.sub(r"\s*([,()=<>!]+)\s*", r"\1", gold)),
        "cut": lambda: gold[:at],
        "cut at a word": lambda: " ".join(gold.split()[: rng.randint(1, len(gold.split()))]),
        "start lost": lambda: gold[at:],
        "word lost": lambda: " ".join(word for word in gold.split() if rng.random() > 0.08),
        "words turned": lambda: " ".join(rng.sample(gold.split(), len(gold.split()))),
        "bracket added": lambda: gold[:at] + rng.choice("()") + gold[at:],
        "quote added": lambda: gold[:at] + rng.choice("'\"`[;") + gold[at:],
        "nested brackets": lambda: f"SELECT * FROM {'(' * (n := rng.choice([2, 5, 30, 90]))}{gold}{')' * n}",
        "other gold's end": lambda: f"{gold[:at]} {(other := rng.choice(draft.database.golds))[len(other) // 2 :]}",
        "value": lambda: re.sub(
            r"(?<=[=<>] )\s*(\d+|'[^']*'|\"[^\"]*\")", rng.choice(["value", "'value'", '"value"']), gold
        ),
        "result as constants": lambda: _constants(draft),
    }
    return gold, spelling[kind]()


SPELLINGS = [
    "gold", "upper case", "lower case", "swapped case", "many spaces", "few spaces", "cut", "cut at a word", "start lost",
    "word lost", "words turned", "bracket added", "quote added", "nested brackets", "other gold's end", "value",
    "result as constants",
]  # fmt: skip


def _constants(draft: Draft) -> str:
    """The gold's result as VALUES, sometimes with numbers as text or with a fraction."""
    rows = draft.database.rows(draft.gold) or []
    if not 0 < len(rows) <= 8:
        return ""
    changes: list[Callable[[str], str]] = [str, str, lambda text: f"'{text}'", lambda text: f"{text}.0"]
    change = draft.rng.choice(changes)

    def literal(value: object) -> str:
        if isinstance(value, str):
            return "'" + value.replace("'", "''") + "'"
        return "NULL" if value is None else change(str(value)) if isinstance(value, int) else repr(value)

    body = ", ".join(f"({', '.join(map(literal, row))})" for row in rows)
    return f"VALUES {body}" if draft.rng.random() < 0.5 or len(rows) > 1 else f"SELECT {body[1:-1]}"


KINDS: dict[str, Callable[[Draft, str], tuple[str, str]]] = {
    **dict.fromkeys(SPELLINGS, _spelt),
    **dict.fromkeys(SUBSTITUTIONS, _substituted),
    **dict.fromkeys(TEMPLATES, _filled),
    **dict.fromkeys(SHAPES, _shaped),
    **dict.fromkeys(TREES, _changed_tree),
    "all columns": _all_columns,
}
FREQUENT = [
    "other gold",
    "expressions",
    "number literal",
    "string literal",
    "distinct",
    "comparison",
    "conditions",
    "order",
]
"""Kinds with so many forms that they get three times the pairs."""


EXTREME_DATABASE = "concert_singer"
_COUNT = "SELECT count(*) FROM singer"
_NONE = "SELECT Name FROM singer WHERE Age > 1000"
_WIDE = "SELECT " + ", ".join(["Age"] * 10) + " FROM singer"

EXTREME = {
    # (gold, prediction), or (gold, prediction, setting) where not all settings are of interest
    "nothing but a semicolon": (_COUNT, ";"),
    "nothing but DISTINCT": (_COUNT, "DISTINCT"),
    "nothing but a no-break space": (_COUNT, "\u00a0"),
    **{
        f"{text!r} on a gold without rows, {setting}": (_NONE, text, setting)
        for text in (";", ";;", "--", "-- nothing", "/* nothing */", "DISTINCT", "distinct;", "'", "()", ".")
        for setting in ("default", "keep_distinct", "plug_value")
    },
    "100 brackets deep": (_COUNT, f"SELECT count(*) FROM singer WHERE Age > {'(' * 150}1{')' * 150}"),
    "100 subqueries deep": (_COUNT, "SELECT count(*) FROM singer WHERE Age IN (" * 120 + "1" + ")" * 120),
    "a sum of 3000": (_COUNT, "SELECT " + "+".join(["1"] * 3000)),
    "1500 conditions": (_COUNT, "SELECT count(*) FROM singer WHERE " + " OR ".join(["Age = 1"] * 1500)),
    "300 unions": (_COUNT, " UNION ".join([_COUNT] * 300)),
    "condition without AND": (_COUNT, "SELECT count(*) FROM singer WHERE Age > 1 Age > 2 OR Age > 1"),
    "join condition without AND": (
        "SELECT T1.Name FROM singer AS T1 JOIN singer_in_concert AS T2 ON T1.Singer_ID = T2.Singer_ID",
        "SELECT T1.Name FROM singer AS T1 JOIN singer_in_concert AS T2 ON T1.Age = 1 T1.Age = 2 AND T1.Age = 3",
    ),
    "condition with a subquery without AND": (
        _COUNT,
        "SELECT count(*) FROM singer WHERE Age > 1 Age IN (SELECT Age FROM singer)",
    ),
    "two derived tables": (
        "SELECT count(*) FROM (SELECT Name FROM singer)",
        "SELECT count(*) FROM (SELECT Name FROM singer) (SELECT Age FROM singer)",
    ),
    "two derived tables joined": (
        "SELECT count(*) FROM (SELECT Name FROM singer)",
        "SELECT count(*) FROM (SELECT Name FROM singer) JOIN (SELECT Age FROM singer)",
    ),
    "endless recursion": (
        _COUNT,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    ),
    "cross join": (_COUNT, "SELECT count(*) FROM " + ", ".join(f"singer AS T{number}" for number in range(14))),
    "ten equal columns": (_WIDE, _WIDE),
    "values in twelve places": (
        "SELECT Name FROM singer WHERE " + " OR ".join(f"Age = {number}" for number in range(7)),
        "SELECT Name FROM singer WHERE " + " OR ".join(f"Singer_ID = {number}" for number in range(12)),
        "plug_value",
    ),
}
"""Pairs on which the evaluator crashes or hangs, or nearly; all on EXTREME_DATABASE."""

DESTRUCTIVE = [
    (_COUNT, "DROP TABLE singer"),
    (_NONE, "DROP TABLE singer_in_concert"),
    (_COUNT, "SELECT 1; DROP TABLE singer"),
    (_COUNT, "DROP TABLE singer; SELECT 1"),
    (_NONE, "DELETE FROM singer"),
    (_NONE, "UPDATE singer SET Age = 0"),
    (_NONE, "INSERT INTO singer (Singer_ID) VALUES (99)"),
    (_NONE, "INSERT INTO singer (Singer_ID) VALUES (99) RETURNING Singer_ID"),
    (_NONE, "WITH x AS (SELECT 1) DELETE FROM singer"),
    (_NONE, "ALTER TABLE singer RENAME TO other"),
    (_NONE, "ALTER TABLE singer DROP COLUMN Age"),
    (_NONE, "CREATE TABLE copy AS SELECT * FROM singer"),
    (_NONE, "CREATE INDEX by_age ON singer (Age)"),
    (_NONE, "PRAGMA user_version = 7"),
    (_NONE, "PRAGMA journal_mode = WAL"),
    (_NONE, "VACUUM"),
    (_NONE, "VACUUM INTO 'copy.sqlite'"),
    (_NONE, "ATTACH 'other.sqlite' AS other"),
    (_NONE, "BEGIN EXCLUSIVE"),
    (_NONE, "EXPLAIN DROP TABLE singer"),
]
"""(gold, prediction) that write, for EXTREME_DATABASE: each to be tried on a throw-away copy of its own."""


def databases(spider: Path) -> list[Database]:
    """All databases of the folder with the golds of dev, train_spider and train_others, of one line each."""
    found: dict[str, Database] = {}
    for name in ("dev", "train_spider", "train_others"):
        for row in json.loads((spider / f"{name}.json").read_text(encoding="utf-8")):
            db_id, gold = row["db_id"], row["query"].strip()
            file = spider / "database" / db_id / f"{db_id}.sqlite"
            if db_id not in found and file.is_file():
                found[db_id] = Database(db_id, _open(file))
            if db_id in found and gold not in found[db_id].golds and not re.search(r"[\t\r\n]", gold):
                found[db_id].golds.append(gold)
    return [found[db_id] for db_id in sorted(found)]


def generate(spider: Path, count: int, seed: int) -> Iterator[Pair]:
    """Yield `count` different pairs over all databases of a Spider folder (dev.json, ..., database/), equal for one seed.

    Golds that fail on their database are left out, and so are predictions that take long or have very many rows. A kind
    that ends in "(swapped)" has its prediction as the gold. Raises FileNotFoundError where Spider's files are not there.
    """
    rng = random.Random(seed)
    sources = databases(spider)
    kinds = cycle([*KINDS, *FREQUENT, *FREQUENT])
    seen: set[tuple[str, str, str]] = set()
    while len(seen) < count:
        kind = next(kinds)
        for _ in range(20):
            pair = _draw(rng, rng.choice(sources), kind)
            if pair is not None and (key := (pair.db_id, pair.gold, pair.prediction)) not in seen:
                seen.add(key)
                yield pair
                break


def _draw(rng: random.Random, database: Database, kind: str) -> Pair | None:
    draft = Draft(rng, database, rng.choice(database.golds))
    if not database.runs_to_its_end(draft.gold):
        return None
    try:
        gold, prediction = KINDS[kind](draft, kind)
    except (sqlglot.errors.SqlglotError, RecursionError):
        return None
    if not prediction.strip() or (prediction == gold and kind != "gold"):
        return None
    if rng.random() < SWAPPED_SHARE and prediction != gold and database.runs_to_its_end(prediction):
        gold, prediction, kind = prediction, gold, f"{kind} (swapped)"
    if re.search(r"[\t\r\n]", prediction + gold):
        return None
    if not database.runs_to_its_end(gold) or not database.ends(prediction):
        return None
    return Pair(database.db_id, gold, prediction, kind)


def _open(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
    connection.text_factory = lambda text: text.decode(errors="ignore")
    return connection
