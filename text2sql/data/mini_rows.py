"""Fills the tables of a generated database with rows and writes its CREATE TABLE statements."""

from __future__ import annotations

import datetime
import itertools
import random
from dataclasses import dataclass

from text2sql.data.mini_domains import POOLS
from text2sql.data.mini_schema import ColumnSpec, Domain, TableSpec

PARENT_ROWS = 15
CHILD_ROWS = 32
# Rows of a child point to this share of the parents, so that "... that have no ..." has an answer.
PARENTS_USED = 0.75
FIRST_DAY = datetime.date(2021, 1, 1)
DAYS = 1000
NULLS = 0.3


@dataclass(frozen=True)
class Filled:
    """A table with its rows; values are int, float, str or None, in column order."""

    spec: TableSpec
    rows: tuple[tuple[object, ...], ...]

    def values(self, column: str) -> list:
        """The non-NULL values of a column, in row order."""
        position = [spec.name for spec in self.spec.columns].index(column)
        return [row[position] for row in self.rows if row[position] is not None]

    @property
    def key(self) -> str:
        """The primary key's name, empty for a table whose foreign keys are its key."""
        return next((column.name for column in self.spec.columns if column.kind == "id"), "")


@dataclass(frozen=True)
class Filling:
    """A database: its domain and its filled tables, parents before children."""

    domain: Domain
    tables: tuple[Filled, ...]

    def table(self, name: str) -> Filled:
        return next(table for table in self.tables if table.spec.name == name)


def fill(domain: Domain, rng: random.Random, parent_rows: int = PARENT_ROWS, child_rows: int = CHILD_ROWS) -> Filling:
    """Random rows for every table of `domain`; the same `rng` state gives the same rows."""
    tables: list[Filled] = []
    for spec in domain.tables:
        parents = {table.spec.name: table for table in tables}
        count = child_rows if spec.kind("ref") else parent_rows
        columns = [_values(column, count, parents, rng) for column in spec.columns]
        rows = list(zip(*columns))
        if not spec.kind("id"):
            rows = _unique(rows, len(spec.kind("ref")))
        tables.append(Filled(spec, tuple(rows)))
    return Filling(domain, tuple(tables))


def _values(column: ColumnSpec, count: int, parents: dict[str, Filled], rng: random.Random) -> list:
    if column.kind == "id":
        return list(range(1, count + 1))
    if column.kind == "ref":
        return _references(len(parents[column.source].rows), count, rng)
    if column.kind == "label":
        values = rng.sample(_pool(column.source), count)
    elif column.kind == "category":
        choices = column.source.split("|") if "|" in column.source else _pool(column.source)
        values = [rng.choice(choices[: 1 + index % len(choices)]) for index in range(count)]
    elif column.kind == "date":
        values = [str(FIRST_DAY + datetime.timedelta(days=day)) for day in rng.sample(range(DAYS), count)]
    else:
        values = _numbers(column.source, count, rng)
    if column.nullable:
        return [None if rng.random() < NULLS else value for value in values]
    return values


def _references(parents: int, count: int, rng: random.Random) -> list[int]:
    used = rng.sample(range(1, parents + 1), max(2, round(parents * PARENTS_USED)))
    weights = [1 + len(used) - position for position in range(len(used))]
    return rng.choices(used, weights, k=count)


def _pool(name: str) -> list[str]:
    first, last = POOLS[name]
    joint = "" if name == "mail" else " "
    return [joint.join(filter(None, pair)) for pair in itertools.product(first.split("|"), last.split("|"))]


def _numbers(bounds: str, count: int, rng: random.Random) -> list:
    low, high = bounds.split("-")
    if "." in low:
        return [round(rng.uniform(float(low), float(high)), 2) for _ in range(count)]
    choices = range(int(low), int(high) + 1)
    if int(high) >= 1000 and int(low) < int(high) - 1000:
        choices = range(int(low), int(high) + 1, 10)
    return rng.sample(choices, count) if len(choices) >= count else rng.choices(choices, k=count)


def _unique(rows: list[tuple], key_length: int) -> list[tuple]:
    first = {row[:key_length]: row for row in reversed(rows)}
    return sorted(first.values())


def declared_type(column: ColumnSpec) -> str:
    """The SQLite type a column is declared with."""
    if column.kind in ("id", "ref"):
        return "INTEGER"
    if column.kind == "number":
        return "REAL" if "." in column.source else "INTEGER"
    return "DATE" if column.kind == "date" else "TEXT"


def create_table(table: Filled, filling: Filling) -> str:
    """The CREATE TABLE statement of one table, with its keys."""
    lines = []
    for column in table.spec.columns:
        primary = " PRIMARY KEY" if column.kind == "id" else ""
        lines.append(f"{column.name} {declared_type(column)}{primary}")
    references = [column for column in table.spec.columns if column.kind == "ref"]
    if not table.key and references:
        lines.append(f"PRIMARY KEY ({', '.join(column.name for column in references)})")
    for column in references:
        lines.append(f"FOREIGN KEY ({column.name}) REFERENCES {column.source}({filling.table(column.source).key})")
    return f"CREATE TABLE {table.spec.name} ({', '.join(lines)});"


def literal(value: object) -> str:
    """A value as SQL text."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value)


def insert_rows(table: Filled) -> str:
    """One INSERT statement with all rows of a table."""
    names = ", ".join(column.name for column in table.spec.columns)
    rows = ", ".join("(" + ", ".join(literal(value) for value in row) + ")" for row in table.rows)
    return f"INSERT INTO {table.spec.name} ({names}) VALUES {rows};"
