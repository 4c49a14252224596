"""Open the database of an example, on disk or in memory, and read its schema; nothing opened here writes to a file.

What this does NOT protect from: a `context` script may use as much memory as it likes inside its step budget, and a
file opened here is believed not to change while it is open (SQLite's `immutable`: a write-ahead log beside it is not
read). Queries need the guards of `text2sql.sql.execute` as well.
"""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import Any

from text2sql.example import Column, Example, ForeignKey, Schema, Table

BUILD_STEPS = 200_000_000
"""How many SQLite instructions one statement of a `context` may take: some seconds, where real ones take less."""

FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer"})
"""Functions that run code of the caller's choice."""

# No statement is kept prepared: SQLite counts the steps of one that is run again from where it stopped before.
_CONNECTION: dict[str, Any] = {"uri": True, "isolation_level": None, "cached_statements": 0}


def open_readonly(path: str) -> sqlite3.Connection:
    """Open a SQLite file for reading only; text that is not UTF-8 reads with replacement characters.

    Raises FileNotFoundError when there is no such file and ValueError when it is not a database.
    """
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"no database at {path}: point data.path at the folder that holds the databases")
    if not file.is_file() or file.stat().st_size == 0:
        raise ValueError(f"{path} is not a database but {_kind(file)}: unpack or download it again")
    connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", **_CONNECTION)
    connection.text_factory = _decode
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        connection.close()
        raise ValueError(f"{path} is not a SQLite database ({error}): unpack or download it again") from error
    return connection


def check_file(path: str) -> None:
    """Read a database from end to end; raises FileNotFoundError or ValueError where it is missing or damaged."""
    connection = open_readonly(path)
    try:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        found = str(error)
    finally:
        connection.close()
    if found != "ok":
        raise ValueError(f"{path} is damaged ({' '.join(found.split())}): unpack or download it again")


def sha256(path: str) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def open_memory(context: str) -> sqlite3.Connection:
    """Build a database in memory from a script of CREATE TABLE and INSERT, then refuse further writes.

    The script can touch no file: ATTACH, VACUUM INTO and extensions are refused. Raises sqlite3.Error where it does
    not run, MemoryError where it needs more than this process may have.
    """
    connection = sqlite3.connect(":memory:", **_CONNECTION)
    connection.text_factory = _decode
    connection.set_authorizer(_no_files)
    connection.set_progress_handler(lambda: 1, BUILD_STEPS)
    try:
        connection.executescript(_script(context))
        connection.execute("PRAGMA query_only = ON")
    except (sqlite3.Error, MemoryError):
        connection.close()
        raise
    connection.set_progress_handler(None, 0)
    return connection


def connect(example: Example) -> sqlite3.Connection:
    """Open the example's database: the file if it names one, otherwise its `context` in memory."""
    assert example.executable, f"example {example.id} has no database"
    return open_readonly(example.database) if example.database else open_memory(example.context)


def read_schema(connection: sqlite3.Connection) -> Schema:
    """Read the tables (no views, no tables of SQLite's own) in the order they were created.

    A foreign key that names no columns points at the primary key of its table, as in SQLite; one that cannot be
    resolved that way (no such table, or a primary key of another length) is left out. Names in foreign keys are spelt
    as the referenced table spells them.
    """
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")
    described = {name: _columns(connection, name) for (name,) in names if not name.lower().startswith("sqlite_")}
    by_name = {name.lower(): name for name in described}
    return Schema(
        tuple(
            Table(
                name,
                tuple(Column(column, declared, bool(position)) for column, declared, position in columns),
                tuple(_foreign_keys(connection, name, described, by_name)),
            )
            for name, columns in described.items()
        )
    )


def _columns(connection: sqlite3.Connection, table: str) -> list[tuple[str, str, int]]:
    """Name, declared type and position in the primary key (from 1; 0 is outside it) of each column."""
    return connection.execute("SELECT name, type, pk FROM pragma_table_info(?) ORDER BY cid", (table,)).fetchall()


def _foreign_keys(
    connection: sqlite3.Connection,
    table: str,
    described: dict[str, list[tuple[str, str, int]]],
    by_name: dict[str, str],
) -> list[ForeignKey]:
    # SQLite numbers foreign keys from the last declared to the first.
    query = 'SELECT id, "table", "from", "to" FROM pragma_foreign_key_list(?) ORDER BY id DESC, seq'
    grouped: dict[int, tuple[str, list[str], list[str | None]]] = {}
    for number, target, own, foreign in connection.execute(query, (table,)):
        _, own_columns, foreign_columns = grouped.setdefault(number, (target, [], []))
        own_columns.append(own)
        foreign_columns.append(foreign)
    keys = []
    for target, own_columns, foreign_columns in grouped.values():
        target = by_name.get(target.lower(), target)
        columns = described.get(target, [])
        spelling = {name.lower(): name for name, _, _ in columns}
        explicit = [spelling.get(name.lower(), name) for name in foreign_columns if name is not None]
        primary = [name for name, _, position in sorted(columns, key=lambda column: column[2]) if position]
        resolved = explicit or primary
        if len(resolved) == len(own_columns):
            keys.append(ForeignKey(tuple(own_columns), target, tuple(resolved)))
    return keys


def _kind(file: Path) -> str:
    return "a folder" if file.is_dir() else "an empty file" if file.is_file() else "a special file"


def _decode(text: bytes) -> str:
    return text.decode("utf-8", errors="replace")


def _script(context: str) -> str:
    """The script itself, or sqlite3's kind of error for text that SQLite cannot take."""
    try:
        context.encode("utf-8")
    except UnicodeEncodeError as error:
        raise sqlite3.DataError(f"the script is not valid Unicode: {error}") from error
    if "\0" in context:
        raise sqlite3.DataError("the script holds a NUL character")
    return context


def _no_files(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """SQLite's authorizer while a context is built; for a function call `second` is the function's name."""
    if action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH):
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and second in FORBIDDEN_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK
