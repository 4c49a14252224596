"""Cell values that a question mentions, found by SQLite's full-text search in an index that each database gets once.

The index lies in the cache folder under the hash of the database's content, so a database that changes gets a new one. The
database itself is only ever read.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from text2sql import cache
from text2sql.example import Example, Schema
from text2sql.relevance import STOP_WORDS, stem, words
from text2sql.sql.database import open_memory, open_readonly, read_schema, sha256

FORMAT = 1
"""Raise it when what is indexed changes: indexes of another format are made again."""

MAX_DISTINCT, MAX_CHARACTERS = 20_000, 100
"""Of a column that many distinct values are indexed, and only values of at most so many characters."""

MAX_CANDIDATES, MAX_QUESTION_WORDS = 300, 64
MIN_COVERAGE = 0.4
"""The share of a value's letters that stand in words of the question, below which it is no match."""

RACY_NS = 2_000_000_000
"""A file changed less than this before it was hashed may change again within its time stamp's resolution."""

TRIES = 3


class Match(NamedTuple):
    """A value of a column that the question mentions; of two, the better has the higher score (2 and more: all of it)."""

    score: float
    table: str
    column: str
    text: str


def find(example: Example) -> list[Match]:
    """The values that the example's question mentions, best first; none where it has no database, or a script that fails.

    Raises FileNotFoundError or ValueError for a database that is missing or cannot be read, RuntimeError where this
    Python's SQLite has no full-text search.
    """
    asked = words(example.question)
    content = [word for word in dict.fromkeys(asked) if word not in STOP_WORDS][:MAX_QUESTION_WORDS]
    if not content:
        return []
    if example.database:
        with closing(_open_index(example.database)) as index:
            return _matches(index, asked, content)
    if not example.context:
        return []
    try:
        with closing(open_memory(example.context)) as source, closing(sqlite3.connect(":memory:")) as index:
            _fill(index, source)
            return _matches(index, asked, content)
    except (sqlite3.Error, MemoryError):
        return []


def rows(example: Example, schema: Schema, count: int, max_characters: int) -> dict[str, tuple[dict[str, Any], ...]]:
    """The first `count` rows of each table that has any, by column; of texts and blobs one more than `max_characters`."""
    if not example.executable or count <= 0:
        return {}
    try:
        connection = open_readonly(example.database) if example.database else open_memory(example.context)
    except (sqlite3.Error, MemoryError):
        return {}
    with closing(connection):
        return {t.name: found for t in schema.tables if (found := _first(connection, t.name, count, max_characters))}


def _first(connection: sqlite3.Connection, table: str, count: int, max_characters: int) -> tuple[dict[str, Any], ...]:
    columns = [name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]
    if not columns:
        return ()
    cells = (
        f"CASE WHEN typeof({c}) IN ('text', 'blob') THEN substr({c}, 1, {2 * max_characters + 1}) ELSE {c} END"
        for c in map(_name, columns)
    )
    try:
        found = connection.execute(f"SELECT {', '.join(cells)} FROM {_name(table)} LIMIT ?", (count,)).fetchall()
    except sqlite3.Error:  # a damaged page, or a table of another program's module
        return ()
    return tuple(dict(zip(columns, row)) for row in found)


# The index.


def _open_index(database: str) -> sqlite3.Connection:
    folder = cache.folder() / "values"
    for _ in range(TRIES):
        content = _content_hash(database)
        file = folder / f"{content}-{FORMAT}.sqlite"
        if not file.exists():
            _build(database, file)
            if _content_hash(database) != content:
                file.unlink(missing_ok=True)
                continue
        return sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    raise ValueError(f"{database} keeps changing while its values are read: try again when nothing writes to it")


_hashes: dict[tuple[str, int, int, int], str] = {}


def _content_hash(database: str) -> str:
    """The SHA-256 of a file; remembered while the file's size, time and inode stay as they are."""
    if not os.path.isfile(database):
        open_readonly(database).close()  # says what is missing and what to do
    stat = os.stat(database)
    key = (database, stat.st_size, stat.st_mtime_ns, stat.st_ino)
    if key not in _hashes:
        found = sha256(database)
        if time.time_ns() - stat.st_mtime_ns < RACY_NS:
            return found
        _hashes[key] = found
    return _hashes[key]


def _build(database: str, file: Path) -> None:
    """Write the index of a database aside and rename it: another process may be doing the same."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(prefix=".values-", suffix=".sqlite", dir=file.parent)
    except OSError as error:
        raise OSError(
            f"no index of {database} can be written ({error}): set TEXT2SQL_CACHE to a writable folder"
        ) from error
    os.close(handle)
    try:
        with closing(open_readonly(database)) as source, closing(sqlite3.connect(aside)) as index:
            index.execute("PRAGMA journal_mode = OFF")
            index.execute("PRAGMA synchronous = OFF")
            _fill(index, source)
        os.replace(aside, file)
    finally:
        Path(aside).unlink(missing_ok=True)


@lru_cache(maxsize=1)
def can_search() -> bool:
    """Whether this Python's SQLite has full-text search."""
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute("CREATE VIRTUAL TABLE value USING fts5(text)")
        except sqlite3.OperationalError:
            return False
    return True


def _fill(index: sqlite3.Connection, source: sqlite3.Connection) -> None:
    if not can_search():
        raise RuntimeError(
            f"this Python's SQLite ({sqlite3.sqlite_version}) has no FTS5 full-text search, by which values are found: choose "
            "a style without values (prompt=ddl_fk), or a Python whose SQLite has it, such as python.org's"
        )
    index.execute(
        "CREATE VIRTUAL TABLE value USING fts5(text, owner UNINDEXED, tokenize = 'porter unicode61 remove_diacritics 2')"
    )
    index.execute("CREATE TABLE owner (number INTEGER PRIMARY KEY, name TEXT, of TEXT)")
    owners = [(table.name, column.name) for table in read_schema(source).tables for column in table.columns]
    index.executemany("INSERT INTO owner VALUES (?, ?, ?)", [(n, *owner) for n, owner in enumerate(owners)])
    index.executemany("INSERT INTO value (text, owner) VALUES (?, ?)", _values(source, owners))
    index.commit()


def _values(source: sqlite3.Connection, owners: Iterable[tuple[str, str]]) -> Iterator[tuple[str, int]]:
    for number, (table, column) in enumerate(owners):
        name = _name(column)
        query = (
            f"SELECT DISTINCT {name} FROM {_name(table)} WHERE typeof({name}) = 'text' "
            f"AND length({name}) BETWEEN 1 AND {MAX_CHARACTERS} LIMIT {MAX_DISTINCT}"
        )
        try:
            for (text,) in source.execute(query):
                if len(text) <= MAX_CHARACTERS:  # SQLite counts up to a NUL
                    yield text, number
        except sqlite3.DatabaseError:  # a damaged page: what was read so far is true all the same
            continue


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# The search.


def _matches(index: sqlite3.Connection, asked: list[str], content: list[str]) -> list[Match]:
    query = " OR ".join(f'"{word}"' for word in content)
    found = index.execute(
        "SELECT name, of, text FROM (SELECT text, owner FROM value WHERE value MATCH ? ORDER BY rank LIMIT ?) "
        "JOIN owner ON number = owner",
        (query, MAX_CANDIDATES),
    ).fetchall()
    line, known = f" {' '.join(map(stem, asked))} ", frozenset(map(stem, content))
    matches = [Match(score, *row) for row in found if (score := _score(row[2], line, known))]
    return sorted(matches, key=lambda match: (-match.score, match.table, match.column, match.text))


def _score(text: str, line: str, asked: frozenset[str]) -> float:
    """2 and more for a value that stands in the question whole, the longer the better; below, its share that does."""
    own = [stem(word) for word in words(text)]
    matched = sum(len(word) for word in own if word in asked)
    if not matched:
        return 0
    if f" {' '.join(own)} " in line:
        return 2 + matched / 100
    coverage = matched / sum(map(len, own))
    return coverage if coverage >= MIN_COVERAGE else 0
