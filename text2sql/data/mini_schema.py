"""The short form in which the tables of the generated `mini` data are written down.

One line is one table, `plural/singular: column column ...`; a column is

    id                  the primary key (any name without a mark)
    x_id>table          a foreign key; a table without a primary key of its own joins its foreign keys into one
    name@pool           a unique text from a pool, the row's label
    city=pool  k=a|b|c  a text from a small set
    age:18-75           a number, whole or with two decimals like its bounds
    day:date            a date
    email@mail?         a trailing ? lets it be NULL
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class ColumnSpec:
    """`kind` is id, ref, label, category, number or date; `source` is what follows the kind's mark."""

    name: str
    kind: str
    source: str = ""
    nullable: bool = False


@dataclass(frozen=True)
class TableSpec:
    """`plural` are the words for several rows; empty where the name says them."""

    name: str
    singular: str
    columns: tuple[ColumnSpec, ...]
    plural: str = ""

    def kind(self, *kinds: str) -> list[ColumnSpec]:
        """The columns of these kinds that are never NULL, in table order."""
        return [column for column in self.columns if column.kind in kinds and not column.nullable]


@dataclass(frozen=True)
class Domain:
    """A database and what it is about; `name` is its db_id."""

    name: str
    about: str
    tables: tuple[TableSpec, ...]


MARKS = {">": "ref", "@": "label", "=": "category", ":": "number"}


def _column(text: str) -> ColumnSpec:
    match = re.fullmatch(r"(\w+)(?:([>@=:])([^?]+))?(\?)?", text)
    assert match, text
    name, mark, source, nullable = match.groups()
    if mark is None:
        return ColumnSpec(name, "id")
    kind = "date" if source == "date" else MARKS[mark]
    return ColumnSpec(name, kind, source, bool(nullable))


def _table(line: str) -> TableSpec:
    head, columns = line.split(": ")
    plural, singular = head.split("/")
    return TableSpec(plural, singular.replace("_", " "), tuple(_column(text) for text in columns.split()))


def domain(name: str, about: str, *lines: str) -> Domain:
    """A Domain from its tables in the short form above, parents before children."""
    return Domain(name, about, tuple(_table(line) for line in lines))
