"""Read off a gold which rows it asks for, and which queries tell whether its answer is left to chance."""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlglot
from sqlglot import expressions as exp

from text2sql.sql.neighbours.build import fetch, over_limit
from text2sql.sql.neighbours.tables import Source
from text2sql.sql.neighbours.values import holds, is_number

_SIGNS = {exp.EQ: "=", exp.NEQ: "!=", exp.GT: ">", exp.GTE: ">=", exp.LT: "<", exp.LTE: "<=", exp.Like: "LIKE"}


_FLIPPED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}


_NEGATED = {"=": "!=", "!=": "=", ">": "<=", ">=": "<", "<": ">=", "<=": ">", "LIKE": "NOT LIKE"}


class Place(NamedTuple):
    """A column of one of a gold's row sources."""

    source: int
    column: int


class Condition(NamedTuple):
    place: Place
    sign: str
    value: Any

    def holds(self, cell: Any) -> bool:
        return holds(cell, self.sign, self.value)


class TieQuery(NamedTuple):
    """A SELECT of a gold without its LIMIT (of rows `first` to `last`) and with its `width` sort keys as last columns."""

    sql: str
    width: int
    first: int
    last: float
    outermost: bool


@dataclass
class Gold:
    """What a gold says about rows. `sources` are the tables in FROM and JOIN of all of its SELECTs, one entry each time.

    `groups` are the columns it groups by, with the sizes its HAVING names; `ranked` those of which it takes the first by
    size, with whether that is the largest.
    """

    sql: str
    gives_rows: bool = True
    sources: list[str] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    joins: list[tuple[Place, Place]] = field(default_factory=list)
    groups: list[tuple[Place, int]] = field(default_factory=list)
    ranked: list[tuple[Place, bool]] = field(default_factory=list)
    extremes: list[Place] = field(default_factory=list)
    sorted_by: list[Place] = field(default_factory=list)
    ties: list[TieQuery] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)


def on_source(connection: sqlite3.Connection, sql: str, source: Source) -> Gold | None:
    """The gold and whether it gives rows on the source; None for one that fails there, other than by MAX_STEPS."""
    gives_rows = False
    try:
        gives_rows = bool(fetch(connection, sql))
    except (sqlite3.Error, sqlite3.Warning, UnicodeEncodeError) as error:
        if not over_limit(error):
            return None
    gold = Gold(sql, gives_rows)
    try:
        tree = sqlglot.parse_one(sql, read="sqlite")
    except sqlglot.errors.SqlglotError:
        return gold
    _understand(tree, gold, source)
    return gold


def _understand(tree: Any, gold: Gold, source: Source) -> None:
    names = _Names(tree, source)
    gold.sources = names.sources
    for node in tree.find_all(*_SIGNS, exp.Between, exp.In):
        _read_comparison(node, names, gold)
    for extreme in tree.find_all(exp.Max, exp.Min):
        gold.extremes += names.places([extreme.this])
    for ordered in tree.find_all(exp.Ordered):
        gold.sorted_by += names.places([ordered.this])
        select = ordered.parent_select
        if select and select.args.get("limit") and ordered.find(exp.Count):
            gold.ranked += [(place, bool(ordered.args.get("desc"))) for place in names.grouped_by(select)]
    gold.extremes += gold.sorted_by
    gold.ties = list(_tie_queries(tree))
    gold.loose = list(_loose_queries(tree))


class _Names:
    """Which column of which row source a name in a query means."""

    def __init__(self, tree: Any, source: Source) -> None:
        self.tables = {name.lower(): table for name, table in source.tables.items()}
        self.sources: list[str] = []
        self._aliases: dict[int, dict[str, int]] = {}
        for node in tree.find_all(exp.Table):
            if node.name.lower() in self.tables and node.parent_select:
                aliases = self._aliases.setdefault(id(node.parent_select), {})
                aliases[node.alias_or_name.lower()] = len(self.sources)
                self.sources.append(self.tables[node.name.lower()].name)

    def place(self, node: Any) -> Place | None:
        """Looked for in the SELECT around the name, then in those around that."""
        select = node.parent_select if isinstance(node, exp.Column) else None
        while select:
            for alias, number in self._aliases.get(id(select), {}).items():
                position = self.tables[self.sources[number].lower()].position(node.name)
                if position is not None and node.table.lower() in ("", alias):
                    return Place(number, position)
            select = select.parent_select
        return None

    def places(self, nodes: Iterable[Any]) -> list[Place]:
        return [place for node in nodes if (place := self.place(node))]

    def grouped_by(self, select: Any) -> list[Place]:
        group = select.args.get("group")
        return self.places(group.expressions) if group else []

    def value(self, node: Any) -> Any:
        """The literal that a node is; a double-quoted name that is no column is a string, as in SQLite."""
        if isinstance(node, exp.Paren):
            return self.value(node.this)
        if isinstance(node, exp.Neg):
            value = self.value(node.this)
            return -value if is_number(value) else None
        if isinstance(node, exp.Literal):
            whole = re.fullmatch(r"\d{1,18}", node.this)
            return node.this if node.is_string else int(node.this) if whole else float(node.this)
        if isinstance(node, exp.Column) and node.this.quoted and not node.table and not self.place(node):
            return node.name
        return None


def _read_comparison(node: Any, names: _Names, gold: Gold) -> None:
    """Note a condition on a column, on the size of a group, or between two columns."""
    above = node.parent.parent if isinstance(node.parent, exp.Paren) else node.parent
    for left, sign, right in _comparisons(node):
        if names.value(left) is not None:
            left, sign, right = right, _FLIPPED.get(sign, sign), left
        if isinstance(above, exp.Not):
            sign = _NEGATED[sign]
        value = names.value(right)
        place = names.place(left.this if isinstance(left, (exp.Max, exp.Min, exp.Avg, exp.Sum)) else left)
        if isinstance(left, exp.Count) and isinstance(value, int) and left.parent_select:
            gold.groups += [(grouped, value) for grouped in names.grouped_by(left.parent_select)]
        elif place and value is not None:
            gold.conditions.append(Condition(place, sign, value))
        elif place and sign == "=" and (other := names.place(_selected(right))):
            gold.joins.append((place, other))


def _comparisons(node: Any) -> Iterator[tuple[Any, str, Any]]:
    """A node as (left, sign, right); BETWEEN is two, IN as many as it lists, and IN with a subquery one."""
    if isinstance(node, exp.Between):
        yield node.this, ">=", node.args["low"]
        yield node.this, "<=", node.args["high"]
    elif isinstance(node, exp.In):
        for value in node.expressions or [node.args.get("query")]:
            yield node.this, "=", value
    else:
        yield node.this, _SIGNS[type(node)], node.expression


def _selected(node: Any) -> Any:
    """The first column that a subquery selects, or the node itself."""
    select = node.this if isinstance(node, exp.Subquery) else node
    return select.selects[0] if isinstance(select, exp.Select) and select.selects else node


def _tie_queries(tree: Any) -> Iterator[TieQuery]:
    """The queries whose order shows: the outermost one, and those with a LIMIT."""
    for query in tree.find_all(exp.Select, exp.SetOperation):
        order, limit, offset = (query.args.get(name) for name in ("order", "limit", "offset"))
        if order and (limit or query is tree):
            first = _count(offset) or 0
            number = _count(limit)
            keys = [_sort_key(query, ordered.this).copy() for ordered in order.expressions]
            last = math.inf if number is None else first + number
            yield TieQuery(_with_keys(query, keys), len(keys), first, last, query is tree)


def _loose_queries(tree: Any) -> Iterator[str]:
    """For each SELECT with groups: of each group, whether a column outside of aggregates has several values in it.

    SQLite then takes one of them by chance, but for a SELECT whose only aggregate is a MAX or a MIN.
    """
    for select in tree.find_all(exp.Select):
        group = select.args.get("group")
        aggregates = [node for node in select.find_all(exp.AggFunc) if node.parent_select is select]
        if not (group or aggregates) or (len(aggregates) == 1 and isinstance(aggregates[0], (exp.Max, exp.Min))):
            continue
        keys = [_sort_key(select, key).copy() for key in group.expressions] if group else []
        sorted_by = [
            _sort_key(select, ordered.this) for ordered in (select.args.get("order") or exp.Order()).expressions
        ]
        columns = [node for part in select.selects + sorted_by for node in part.find_all(exp.Column, exp.Star)]
        bare = [node for node in columns if node.find_ancestor(exp.AggFunc, exp.Select) is select and node not in keys]
        query = select.copy()
        for name in ("order", "limit", "offset", "distinct"):
            query.set(name, None)
        query.set("expressions", [_several(node) for node in bare])
        if group:
            query.args["group"].set("expressions", keys)
        if bare:
            yield query.sql("sqlite")


def _several(node: Any) -> Any:
    """Whether a column has several values in a group, NULL being one; for a star, whether the group has several rows."""
    rows = exp.Count(this=exp.Star())
    if isinstance(node, exp.Star):
        return rows > 1
    values, distinct = exp.Count(this=node.copy()), exp.Count(this=exp.Distinct(expressions=[node.copy()]))
    return exp.or_(distinct > 1, exp.and_(values > 0, rows > values))


def _count(clause: Any) -> int | None:
    text = clause.expression.name if clause else ""
    return int(text) if text.isdigit() else None


def _sort_key(query: Any, key: Any) -> Any:
    """The expression behind an ORDER BY term, which may also be a number or an alias of a selected column."""
    if isinstance(query, exp.Select):
        if isinstance(key, exp.Literal) and key.this.isdigit() and 0 < int(key.this) <= len(query.selects):
            return query.selects[int(key.this) - 1].unalias()
        for item in query.selects:
            if isinstance(item, exp.Alias) and item.alias.lower() == key.name.lower() and not key.args.get("table"):
                return item.this
    return key


def _with_keys(query: Any, keys: list[Any]) -> str:
    """A query without its LIMIT that also returns its sort keys; those of a set operation are among its columns."""
    query = query.copy()
    for name in ("limit", "offset"):
        query.set(name, None)
    if isinstance(query, exp.Select):
        return query.select(*keys, copy=False).sql("sqlite")
    order = query.args["order"].pop()
    around = exp.select("*", *keys).from_(query.subquery("together"))
    around.set("order", order)
    return around.sql("sqlite")
