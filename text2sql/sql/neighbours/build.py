"""Build a neighbour in memory, and run golds on it under a step limit, reading only."""

from __future__ import annotations

import sqlite3
from typing import Any

from text2sql.sql.neighbours.tables import Link, Rows, Source, quoted

MAX_STEPS = 20_000_000
"""How many SQLite instructions a gold may take on a neighbour: about a second."""


def build_rows(source: Source, rows: Rows) -> sqlite3.Connection:
    """The neighbour in memory, without rows that break a rule of the schema and without those that then point nowhere."""
    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=0)
    connection.execute(f"PRAGMA encoding = '{source.encoding}'")
    connection.execute("BEGIN")
    for statement in source.creating:
        connection.execute(statement)
    for name, table in source.tables.items():
        columns = ", ".join(map(quoted, table.columns))
        marks = ", ".join("?" * len(table.columns))
        # OR IGNORE passes over all that a row can break but this: a row number that is no integer.
        fitting = (row for row in rows[name] if table.rowid is None or isinstance(row[table.rowid], int))
        insert = f"INSERT OR IGNORE INTO {quoted(name)} ({columns}) VALUES ({marks})"
        if connection.executemany(insert, fitting).rowcount < len(rows[name]) / 2:
            connection.executemany(insert, table.rows)
    orphans = [_orphans(source, link) for link in source.links if link.kept]
    while any(connection.execute(f"DELETE {orphan}").rowcount for orphan in orphans):
        pass
    for statement in source.views:
        connection.execute(statement)
    connection.execute("COMMIT")
    return connection


def _orphans(source: Source, link: Link) -> str:
    child, parent = source.tables[link.child], source.tables[link.parent]
    own = [f"c.{quoted(child.columns[column])}" for column in link.columns]
    met = " AND ".join(f"p.{quoted(parent.columns[key])} = {mine}" for key, mine in zip(link.keys, own))
    given = " AND ".join(f"{mine} NOT NULL" for mine in own)
    partner = f"SELECT 1 FROM {quoted(parent.name)} AS p WHERE {met}"
    return f"FROM {quoted(child.name)} AS c WHERE {given} AND NOT EXISTS ({partner})"


def fetch(connection: sqlite3.Connection, sql: str) -> list[tuple[Any, ...]]:
    """All rows of a reading statement; sqlite3.OperationalError "interrupted" where it takes more than MAX_STEPS."""
    connection.set_progress_handler(lambda: 1, MAX_STEPS)
    connection.set_authorizer(_reading_only)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.set_progress_handler(None, 0)
        # Python 3.10 cannot take an authorizer away; this one allows everything again.
        connection.set_authorizer(lambda *_: sqlite3.SQLITE_OK)


def over_limit(error: Exception) -> bool:
    return str(error) == "interrupted"


def _reading_only(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """SQLite's authorizer; for a function call `second` is the function's name."""
    reading = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
    function = action == sqlite3.SQLITE_FUNCTION and second != "load_extension"
    return sqlite3.SQLITE_OK if reading or function else sqlite3.SQLITE_DENY
