"""What a neighbour takes over from its source: tables, keys, foreign keys, indexes and views."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from text2sql.sql import database
from text2sql.sql.neighbours.build import build_rows
from text2sql.sql.neighbours.tables import Link, Source, Table


def read_source(connection: sqlite3.Connection, file: Path) -> Source:
    """The source without its rows. ValueError where its schema cannot be built again."""
    try:
        objects = connection.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql NOT NULL"
        ).fetchall()
        left_out = _left_out(objects)
        kept = [row for row in objects if not row[1].startswith("sqlite_") and left_out.keys().isdisjoint(row[1:3])]
        schema = database.read_schema(connection)
        tables = {table.name: _table(connection, table.name) for table in schema.tables if table.name not in left_out}
        links = [
            Link(table.name, *pairs, declared=True)
            for table in schema.tables
            for key in table.foreign_keys
            if (pairs := _positions(tables, table.name, key.columns, key.foreign_table, key.foreign_columns))
        ]
        source = Source(
            encoding=connection.execute("PRAGMA encoding").fetchone()[0],
            creating=[row[3] for kind in ("table", "index") for row in kept if row[0] == kind],
            views=[row[3] for row in kept if row[0] == "view"],
            tables=tables,
            links=list(dict.fromkeys(links)),
            left_out=left_out,
        )
        build_rows(source, {name: [] for name in tables}).close()
    except sqlite3.Error as error:
        raise ValueError(f"the schema of {file} cannot be built again, as neighbours need it to be: {error}") from error
    return source


def _left_out(objects: list[tuple[str, str, str, str]]) -> dict[str, str]:
    """Names of what a neighbour goes without, and why. A virtual table's own tables would be written past it."""
    virtual = [
        name for kind, name, _, sql in objects if kind == "table" and re.match(r"\s*create\s+virtual", sql, re.I)
    ]
    reasons = dict.fromkeys(virtual, "a virtual table")
    endings = r"_(content|data|idx|docsize|config|segments|segdir|stat|node|parent|rowid)"
    for kind, name, _, _ in objects:
        owner = next((owner for owner in virtual if re.fullmatch(re.escape(owner) + endings, name)), "")
        if kind == "trigger" or owner:
            reasons[name] = f"belongs to the virtual table {owner}" if owner else "a trigger"
    return reasons


def _table(connection: sqlite3.Connection, name: str) -> Table:
    query = 'SELECT name, type, "notnull", pk FROM pragma_table_info(?) ORDER BY cid'
    columns = connection.execute(query, (name,)).fetchall()
    position = {column: number for number, (column, *_) in enumerate(columns)}
    primary = [number for _, number in sorted((pk, number) for number, (*_, pk) in enumerate(columns) if pk)]
    unique = {tuple(primary)} - {()}
    indexes = 'SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial'
    for (index,) in connection.execute(indexes, (name,)).fetchall():
        members = [member for (member,) in connection.execute("SELECT name FROM pragma_index_info(?)", (index,))]
        if all(member in position for member in members):
            unique.add(tuple(position[member] for member in members))
    return Table(
        name=name,
        columns=list(position),
        types=[kind.upper() for _, kind, _, _ in columns],
        nullable={number for number, (_, _, not_null, pk) in enumerate(columns) if not not_null and not pk},
        rowid=primary[0] if len(primary) == 1 and columns[primary[0]][1].upper() == "INTEGER" else None,
        unique=sorted(unique),
    )


def _positions(
    tables: dict[str, Table], child: str, columns: Sequence[str], parent: str, keys: Sequence[str]
) -> tuple[tuple[int, ...], str, tuple[int, ...]] | None:
    """The columns of a foreign key and of its target by position; None where one is left out or generated."""
    if child not in tables or parent not in tables:
        return None
    own = [number for name in columns if (number := tables[child].position(name)) is not None]
    foreign = [number for name in keys if (number := tables[parent].position(name)) is not None]
    whole = len(own) == len(columns) and len(foreign) == len(keys)
    return (tuple(own), parent, tuple(foreign)) if whole else None
