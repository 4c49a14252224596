"""Run SQL that a model wrote: one reading statement, with a deadline and a row cap, and a verdict when it fails.

What stops it: the connection is read-only, SQLite's authorizer allows nothing but reading, a progress handler ends it
at the deadline, and from Python 3.11 on a single value is limited to MAX_VALUE_BYTES. What this does NOT protect from:
time spent inside one SQLite instruction, as in printf('%.*c', 900000000, 'x'), or in planning a query, for the
deadline is looked at between instructions; memory, for up to max_rows rows are held; and on Python 3.10 values of up
to a gigabyte. Against a hostile author, run it in a process that can be killed.
"""

from __future__ import annotations

import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from text2sql.example import Verdict

MAX_VALUE_BYTES = 1_000_000
STEPS_BETWEEN_CHECKS = 1_000
ROWS_PER_FETCH = 1_000

READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}

# SQLite has one error code for nearly all of these, so its messages are matched from their start; first hit wins.
VERDICTS = [
    (re.compile(pattern), verdict)
    for pattern, verdict in [
        (r"no such table|unknown database", Verdict.UNKNOWN_TABLE),
        (r"no such column|cannot join using column", Verdict.UNKNOWN_COLUMN),
        (r"ambiguous (column name|reference)", Verdict.AMBIGUOUS),
        (r"not authorized|authorization denied|access to .* is prohibited|attempt to write", Verdict.DENIED_WRITE),
        (r"interrupted$", Verdict.TIMEOUT),
        (r"You can only execute one statement at a time", Verdict.MULTIPLE_STATEMENTS),
        (r"no such function|wrong number of arguments|too many arguments|misuse of|unsafe use of", Verdict.FUNCTION),
        (r"aggregate functions are not allowed|DISTINCT (is not supported|aggregates must)", Verdict.FUNCTION),
        (r".* may not be used (as|with)|'.*' is not a function", Verdict.FUNCTION),
        (r"unable to use function|no such collation|vtable constructor failed", Verdict.FUNCTION),
        (r"integer overflow|string or blob too big|datatype mismatch|out of memory", Verdict.TYPE),
        (r"malformed JSON|bad JSON path|JSON path error|JSON cannot hold", Verdict.TYPE),
        (r"LIKE or GLOB pattern too complex|(ESCAPE expression|argument of|frame).* must be", Verdict.TYPE),
    ]
]
BROKEN_DATABASE = re.compile(
    r"(database disk image is malformed|file is not a database|disk I/O error|unable to open database file"
    r"|database (table |schema )?is locked.*|database or disk is full)$"
)


@dataclass(frozen=True)
class Result:
    """The rows of a query that ran to its end, or (with `rows` empty) the verdict on one that did not and why."""

    rows: list[tuple] = field(default_factory=list)
    error: Verdict | None = None
    reason: str = ""


def run(connection: sqlite3.Connection, sql: str, *, timeout_s: float, max_rows: int) -> Result:
    """Run one SQL statement under guard; whatever the SQL does wrong comes back as a verdict.

    Verdicts for SQLite's errors: unknown tables and columns, ambiguous names and functions by their messages; TYPE for
    values that cannot be computed (overflow, too big, malformed JSON); SYNTAX for all else that SQLite refuses, which
    besides the syntax is what it checks while compiling (set operations of unequal width, ORDER BY 9 of two columns,
    row values, unbound parameters). A double-quoted name that does not exist is a string, as SQLite has it, and no
    error. Raises sqlite3.Error when the database file itself is broken, for that is not the SQL's fault.
    """
    if not sql.strip():
        return Result(error=Verdict.EMPTY_PREDICTION, reason="no SQL")
    if unusable := _unusable_text(sql):
        return Result(error=Verdict.SYNTAX, reason=unusable)
    deadline = time.monotonic() + timeout_s
    with _guards(connection, deadline), closing(connection.cursor()) as cursor:
        try:
            cursor.execute(sql)
            if cursor.description is None:
                return Result(error=Verdict.EMPTY_PREDICTION, reason="no statement that returns anything")
            rows = _fetch(cursor, deadline, max_rows)
        except (sqlite3.Error, sqlite3.Warning, MemoryError, OverflowError) as error:
            return _failure(error, timeout_s)
    if rows is None:
        return Result(error=Verdict.TIMEOUT, reason=_late(timeout_s))
    if len(rows) > max_rows:
        return Result(error=Verdict.TOO_MANY_ROWS, reason=f"more than {max_rows} rows")
    return Result(rows)


def _fetch(cursor: sqlite3.Cursor, deadline: float, max_rows: int) -> list[tuple] | None:
    """All rows, at most one more than max_rows; None when the deadline passes on the way."""
    rows: list[tuple] = []
    while len(rows) <= max_rows:
        chunk = cursor.fetchmany(min(ROWS_PER_FETCH, max_rows + 1 - len(rows)))
        if not chunk:
            break
        rows += chunk
        if time.monotonic() > deadline:
            return None
    return rows


@contextmanager
def _guards(connection: sqlite3.Connection, deadline: float) -> Iterator[None]:
    connection.set_authorizer(_reading_only)
    connection.set_progress_handler(lambda: time.monotonic() > deadline, STEPS_BETWEEN_CHECKS)
    if sys.version_info >= (3, 11):
        length = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
    try:
        yield
    finally:
        if sys.version_info >= (3, 11):
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, length)
        connection.set_progress_handler(None, 0)
        # Python 3.10 cannot take an authorizer away; this one allows everything again.
        connection.set_authorizer(lambda *_: sqlite3.SQLITE_OK)


def _reading_only(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """SQLite's authorizer; for a function call `second` is the function's name."""
    allowed = action in READING or (action == sqlite3.SQLITE_FUNCTION and second != "load_extension")
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _unusable_text(sql: str) -> str:
    if "\0" in sql:
        return "a NUL character in the SQL"
    try:
        sql.encode("utf-8")
    except UnicodeEncodeError:
        return "text that is not valid Unicode in the SQL"
    return ""


def _failure(error: Exception, timeout_s: float) -> Result:
    message = str(error) or type(error).__name__
    if BROKEN_DATABASE.match(message):
        raise error
    for pattern, verdict in VERDICTS:
        if pattern.match(message):
            return Result(error=verdict, reason=_late(timeout_s) if verdict is Verdict.TIMEOUT else message)
    about_values = isinstance(error, (sqlite3.DataError, sqlite3.IntegrityError, MemoryError, OverflowError))
    return Result(error=Verdict.TYPE if about_values else Verdict.SYNTAX, reason=message)


def _late(timeout_s: float) -> str:
    return f"still running after {timeout_s:g} s"
