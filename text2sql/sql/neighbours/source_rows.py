"""Read the rows of the source, of large tables only some, and what they obey without its being declared."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import islice
from typing import Any

from text2sql.sql.neighbours.golds import Condition, Gold
from text2sql.sql.neighbours.tables import Link, Source, Table, quoted
from text2sql.sql.neighbours.values import joined_as

MAX_ROWS = 2_000
"""How many rows of a table are taken from a larger source, not counting those that golds name and their partners."""


MAX_NAMED = 50
"""How many rows of a larger source are taken for each condition in a gold."""


def take_rows(connection: sqlite3.Connection, source: Source, golds: list[Gold]) -> None:
    """Read the rows, of large tables only some; then note what they obey without its being declared."""
    named: dict[str, list[Condition]] = {name: [] for name in source.tables}
    for gold in golds:
        for condition in gold.conditions:
            named[gold.sources[condition.place.source]].append(condition)
    for table in source.tables.values():
        table.rows = _some_rows(connection, table, named[table.name])
    joins = list(dict.fromkeys(link for gold in golds for link in _joined(gold)))
    for _ in range(2):
        for link in source.links + joins:
            _add_partners(connection, source, link)
    for link in source.links:
        _note_key(source.tables[link.parent], link.keys)
    for table in source.tables.values():
        if not table.unique and 0 not in source.linked(table.name):
            _note_key(table, (0,))
    declared = {link[:2] for link in source.links}
    source.links = [link._replace(kept=_obeyed(source, link)) for link in source.links]
    source.links += [
        link for link in joins if link[:2] not in declared and set(link.keys) <= source.tables[link.parent].keys
    ]


def _some_rows(connection: sqlite3.Connection, table: Table, named: list[Condition]) -> list[list[Any]]:
    """All rows of a small table; of a large one every n-th, and the first MAX_NAMED for each condition of a gold."""
    select = f"SELECT {', '.join(map(quoted, table.columns))} FROM {quoted(table.name)}"
    (total,) = connection.execute(f"SELECT count(*) FROM {quoted(table.name)}").fetchone()
    table.large = total > MAX_ROWS
    if not table.large:
        return [list(row) for row in connection.execute(select)]
    rows = list(islice(connection.execute(select), 0, None, -(-total // MAX_ROWS)))
    conditions = sorted({(table.columns[place.column], sign, value) for place, sign, value in named}, key=repr)
    for column, sign, value in conditions:
        rows += connection.execute(f"{select} WHERE {quoted(column)} {sign} ? LIMIT {MAX_NAMED}", (value,))
    return [list(row) for row in dict.fromkeys(rows)]


def _joined(gold: Gold) -> Iterator[Link]:
    """The joins of a gold, as undeclared links both ways."""
    for join in gold.joins:
        for own, other in (join, join[::-1]):
            child, parent = gold.sources[own.source], gold.sources[other.source]
            if child != parent:
                yield Link(child, (own.column,), parent, (other.column,), declared=False)


def _add_partners(connection: sqlite3.Connection, source: Source, link: Link) -> None:
    """Add the rows of a large parent that chosen rows of the child point at."""
    child, parent = source.tables[link.child], source.tables[link.parent]
    if not parent.large or len(link.columns) > 1:
        return
    (column,), (key,) = link.columns, link.keys
    there = {joined_as([row[key]]) for row in parent.rows}
    wanted = dict.fromkeys(row[column] for row in child.rows if row[column] is not None)
    missing = [value for value in wanted if joined_as([value]) not in there]
    select = f"SELECT {', '.join(map(quoted, parent.columns))} FROM {quoted(parent.name)}"
    for start in range(0, len(missing), 500):
        some = missing[start : start + 500]
        marks = ", ".join("?" * len(some))
        where = f"WHERE {quoted(parent.columns[key])} IN ({marks}) LIMIT {MAX_ROWS}"
        parent.rows += [list(row) for row in connection.execute(f"{select} {where}", some)]


def _note_key(table: Table, columns: tuple[int, ...]) -> None:
    """Take columns that tell the rows of the source apart as a key: SQL is written as if they were one."""
    values = {tuple(row[column] for column in columns) for row in table.rows}
    if columns not in table.unique and len(values) == len(table.rows) and not any(None in value for value in values):
        table.unique.append(columns)


def _obeyed(source: Source, link: Link) -> bool:
    known = {joined_as(row[key] for key in link.keys) for row in source.tables[link.parent].rows}
    pointing = ([row[column] for column in link.columns] for row in source.tables[link.child].rows)
    return all(None in values or joined_as(values) in known for values in pointing)
