"""The tables of a source and how they point at each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

Rows = dict[str, list[list[Any]]]


class Link(NamedTuple):
    """`columns` of `child` name a row of `parent` by its `keys`; `kept` if declared and obeyed by every source row."""

    child: str
    columns: tuple[int, ...]
    parent: str
    keys: tuple[int, ...]
    declared: bool
    kept: bool = False


@dataclass
class Table:
    """A table of the source; columns go by their position, `unique` has the sets of them that tell all rows apart."""

    name: str
    columns: list[str]
    types: list[str]
    nullable: set[int]
    rowid: int | None
    unique: list[tuple[int, ...]]
    large: bool = False
    rows: list[list[Any]] = field(default_factory=list)

    def position(self, column: str) -> int | None:
        return next((number for number, name in enumerate(self.columns) if name.lower() == column.lower()), None)

    @property
    def keys(self) -> set[int]:
        return {columns[0] for columns in self.unique if len(columns) == 1}


@dataclass
class Source:
    """The schema of the source, with `creating` and `views` as SQL, and what of it is left out and why."""

    encoding: str
    creating: list[str]
    views: list[str]
    tables: dict[str, Table]
    links: list[Link]
    left_out: dict[str, str]

    def linked(self, table: str) -> set[int]:
        """The columns that point at other rows."""
        return {column for link in self.links if link.child == table for column in link.columns}

    def fixed(self, table: str) -> set[int]:
        """The columns that name rows, here or elsewhere."""
        return self.linked(table) | self.tables[table].keys


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
