"""Copies a sample of a PostgreSQL, MySQL or DuckDB database into a SQLite file, through SQLAlchemy; the database is only read.

What this does NOT keep: views, checks, defaults, indexes, and types that SQLite has not, which become text.
"""

from __future__ import annotations

import datetime
import decimal
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from text2sql.errors import first_line
from text2sql.sql.identifiers import quote

DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
"""What is meant by a URL that names no driver; duckdb_engine calls itself duckdb."""
EXTRAS = {"postgresql": "postgres", "mysql": "mysql", "duckdb": "duckdb"}
READ_ONLY: dict[str, dict[str, Any]] = {
    "duckdb": {"connect_args": {"read_only": True}},
    "postgresql": {"execution_options": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}},
    "mysql": {"execution_options": {"isolation_level": "REPEATABLE READ"}},
}
"""How each kind is opened so that nothing is written and all tables are of one moment."""

CHUNK = 500
"""Values in one IN (...)."""


def copy(url: str, out: Path, num_rows: int, tables: Sequence[str] | None = None, schema: str | None = None) -> str:
    """Write the SQLite file `out` and return a line a table with the number of its rows.

    The first `num_rows` rows of each table by primary key are taken, and with them the rows that they reference. The file is
    there whole or not at all. ValueError for what cannot be reached, read or written.
    """
    if num_rows < 1:
        raise ValueError(f"--rows {num_rows} must be at least 1")
    engine = _engine(url)
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with engine.connect() as source:
            found = _tables(source, tables, schema)
            with closing(sqlite3.connect(aside)) as target:
                lines = list(_copied(source, target, found, num_rows))
                target.commit()
        aside.replace(out)
    except _sqlalchemy_error() as error:
        reason = first_line(getattr(error, "orig", None) or error)
        raise ValueError(f"{_masked(url)} cannot be read: {reason}") from error
    except (OSError, sqlite3.Error) as error:
        raise ValueError(f"{out} cannot be written: {first_line(error)}; name a FILE elsewhere") from error
    finally:
        aside.unlink(missing_ok=True)
        engine.dispose()
    return "\n".join([*lines, f"{out}: {len(found)} tables from {_masked(url)}"])


def _engine(url: str) -> Any:
    try:
        import sqlalchemy
    except ImportError:
        raise ValueError("copy-database needs SQLAlchemy: pip install -e '.[postgres]' (or mysql, or duckdb)") from None
    try:
        parsed = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise ValueError(
            f"{url.split('@')[-1]} is no database URL: write postgresql://USER@HOST/NAME, mysql://USER@HOST/NAME or "
            "duckdb:///FILE"
        ) from None
    kind = "postgresql" if parsed.drivername == "postgres" else parsed.get_backend_name()
    try:
        driver = parsed.set(drivername=DRIVERS.get(parsed.drivername, parsed.drivername))
        return sqlalchemy.create_engine(driver, **READ_ONLY.get(kind, {}))
    except (ImportError, sqlalchemy.exc.NoSuchModuleError):
        extra = EXTRAS.get(kind)
        cure = f"pip install -e '.[{extra}]'" if extra else f"the kinds there are: {', '.join(EXTRAS)}"
        raise ValueError(f"there is no driver for {kind} databases here: {cure}") from None


def _sqlalchemy_error() -> type[Exception]:
    import sqlalchemy

    return sqlalchemy.exc.SQLAlchemyError


def _masked(url: str) -> str:
    """The URL without its password."""
    import sqlalchemy

    return sqlalchemy.make_url(url).render_as_string(hide_password=True)


def _tables(source: Any, names: Sequence[str] | None, schema: str | None) -> list[Any]:
    """The tables to copy, as SQLAlchemy reflects them, referenced ones before those that reference them."""
    import sqlalchemy

    is_duckdb = source.dialect.name == "duckdb"
    if is_duckdb:
        from text2sql import duckdb_tables

        there = duckdb_tables.names(source, schema)
    else:
        there = sqlalchemy.inspect(source).get_table_names(schema=schema)
    if missing := [name for name in names or [] if name not in there]:
        raise ValueError(f"--tables {missing[0]} is no table; there are {', '.join(sorted(there)) or 'none'}")
    wanted = set(names or there)
    if not wanted:
        raise ValueError("the database has no tables: name its schema with --schema")
    metadata = sqlalchemy.MetaData(schema=schema)
    if is_duckdb:
        duckdb_tables.reflect(source, metadata, wanted)
    else:
        metadata.reflect(source, only=sorted(wanted), resolve_fks=False)
    found = _referenced_first([table for table in metadata.tables.values() if table.name in wanted])
    by_lower = {table.name.lower(): table.name for table in found}
    if len(by_lower) < len(found):
        twice = next(table.name for table in found if by_lower[table.name.lower()] != table.name)
        raise ValueError(f"the tables {twice} and {by_lower[twice.lower()]} are one to SQLite: choose with --tables")
    return found


def _referenced_first(tables: list[Any]) -> list[Any]:
    """The tables by name, each behind those that it references as far as there is such an order."""
    waiting, found = sorted(tables, key=lambda table: table.name), []
    while waiting:
        left = {table.name for table in waiting}
        ready = [one for one in waiting if not any(key.table.name in left for _, key in _references(one, tables))]
        found += ready or waiting[:1]
        waiting = [table for table in waiting if table not in found]
    return found


def _copied(source: Any, target: sqlite3.Connection, tables: Sequence[Any], num_rows: int) -> Iterator[str]:
    """Create and fill each table; referencing tables are read first, so that it is known what they need."""
    needed: dict[tuple[str, str], set[Any]] = {}
    rows: dict[str, list[tuple]] = {}
    for table in reversed(tables):
        rows[table.name] = _sample(source, table, num_rows, needed)
        for own, foreign in _references(table, tables):
            position = list(table.columns.keys()).index(own)
            wanted = needed.setdefault((foreign.table.name, foreign.name), set())
            wanted.update(row[position] for row in rows[table.name] if row[position] is not None)
    for table in tables:
        filled = [[_value(cell) for cell in row] for row in rows[table.name]]
        target.execute(_create(table, tables, filled))
        places = ", ".join("?" * len(table.columns))
        target.executemany(f"INSERT INTO {quote(table.name)} VALUES ({places})", filled)
        yield f"{table.name}: {len(rows[table.name]):,} rows"


def _sample(source: Any, table: Any, num_rows: int, needed: dict[tuple[str, str], set[Any]]) -> list[tuple]:
    """Rows of a table: the first ones, and those that others reference."""
    import sqlalchemy

    key = list(table.primary_key.columns)
    every = sqlalchemy.select(*(_as_read(source, column) for column in table.columns))
    first = every.order_by(*key).limit(num_rows)
    rows = [tuple(row) for row in source.execute(first)]
    names = list(table.columns.keys())
    for (owner, column), values in needed.items():
        if owner != table.name:
            continue
        position = names.index(column)
        missing = sorted(values - {row[position] for row in rows}, key=str)
        for start in range(0, len(missing), CHUNK):
            chosen = table.columns[column].in_(missing[start : start + CHUNK])
            rows += [tuple(row) for row in source.execute(every.where(chosen))]
    return rows


def _as_read(source: Any, column: Any) -> Any:
    """A column with its cells as the driver gives them where SQLAlchemy would lose some: a SET's order, a TIME's days."""
    import sqlalchemy

    loses = source.dialect.name in ("mysql", "mariadb") and column.type.__visit_name__ in ("SET", "TIME")
    return sqlalchemy.type_coerce(column, sqlalchemy.types.NullType()) if loses else column


def _references(table: Any, tables: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """(own column, referenced column) of the foreign keys of one column to a table that is copied, itself left out."""
    by_name = {one.name: one for one in tables}
    for key in sorted(table.foreign_key_constraints, key=lambda key: [column.name for column in key.columns]):
        target = key.elements[0].target_fullname.split(".")[-2:]
        if len(key.elements) == 1 and target[0] in by_name and target[0] != table.name:
            yield key.elements[0].parent.name, by_name[target[0]].columns[target[1]]


def _create(table: Any, tables: Sequence[Any], rows: Sequence[list]) -> str:
    """The CREATE TABLE statement in SQLite: types, those of the cells in `rows` among them, primary key, and foreign keys
    between tables that are copied."""
    copied = {one.name for one in tables}
    cells = zip(*rows) if rows else ([] for _ in table.columns)
    parts = [f"{quote(column.name)} {_type(column.type, some)}" for column, some in zip(table.columns, cells)]
    if key := [quote(column.name) for column in table.primary_key.columns]:
        parts.append(f"PRIMARY KEY ({', '.join(key)})")
    for foreign in table.foreign_key_constraints:
        target = foreign.elements[0].target_fullname.split(".")[-2]
        if target in copied:
            own = ", ".join(quote(element.parent.name) for element in foreign.elements)
            theirs = ", ".join(quote(element.target_fullname.split(".")[-1]) for element in foreign.elements)
            parts.append(f"FOREIGN KEY ({own}) REFERENCES {quote(target)} ({theirs})")
    return f"CREATE TABLE {quote(table.name)} ({', '.join(parts)})"


def _type(kind: Any, cells: Iterable[Any]) -> str:
    """The type of a column in SQLite, by its kind; where that says nothing or holds what SQLite's would not, by its cells."""
    import sqlalchemy

    names = {
        sqlalchemy.Boolean: "BOOLEAN",
        sqlalchemy.Integer: "INTEGER",
        sqlalchemy.Numeric: "REAL",
        sqlalchemy.DateTime: "DATETIME",
        sqlalchemy.Date: "DATE",
        sqlalchemy.Time: "TIME",
        sqlalchemy.LargeBinary: "BLOB",
        sqlalchemy.String: "TEXT",
    }
    name = next((name for of, name in names.items() if isinstance(kind, of)), None)
    if name is not None and name != "INTEGER":
        return name
    held = {type(cell) for cell in cells if cell is not None} or {int if name else str}
    return {int: "INTEGER", float: "REAL", bytes: "BLOB"}.get(held.pop(), "TEXT") if len(held) == 1 else "TEXT"


def _value(cell: Any) -> Any:
    """A cell as SQLite holds it; an integer of more than 64 bits is text."""
    if cell is None or isinstance(cell, (str, bytes, float)):
        return cell
    if isinstance(cell, int):
        return int(cell) if -(2**63) <= cell < 2**63 else str(cell)
    if isinstance(cell, decimal.Decimal):
        return float(cell)
    if isinstance(cell, datetime.datetime):
        return cell.isoformat(sep=" ")
    if isinstance(cell, datetime.timedelta):
        return _clock(cell)
    if isinstance(cell, (bytearray, memoryview)):
        return bytes(cell)
    if isinstance(cell, (dict, list, tuple)):
        return json.dumps(cell, ensure_ascii=False, default=str)
    return str(cell)


def _clock(duration: datetime.timedelta) -> str:
    """A duration as databases write a TIME: [-]HH:MM:SS[.ffffff], of more than 24 hours too."""
    sign, length = ("-", -duration) if duration < datetime.timedelta() else ("", duration)
    hours, rest = divmod(length, datetime.timedelta(hours=1))
    minutes, rest = divmod(rest, datetime.timedelta(minutes=1))
    part = f".{rest.microseconds:06}" if rest.microseconds else ""
    return f"{sign}{hours:02}:{minutes:02}:{rest.seconds:02}{part}"
