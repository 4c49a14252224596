"""Run SQL that a model wrote: one reading statement under limits, and a verdict when it fails.

What stops it: the connection is read-only, SQLite's authorizer allows nothing but reading, a progress handler ends it
after a number of SQLite's own instructions or at the deadline, and rows, cells and the length of values and of the
SQL are limited. What this does NOT protect from: time spent inside one instruction, as in
printf('%.*c', 900000000, 'x'), or in planning a query, for the limits are looked at between instructions; memory that
SQLite takes on the way; and on Python 3.10 values of up to a gigabyte. `text2sql.sql.worker` puts a process around it
that ends for these.
"""

from __future__ import annotations

import re
import sqlite3
import sys
import time
from dataclasses import dataclass, field

from text2sql.example import Verdict
from text2sql.sql import database

STEPS_BETWEEN_CHECKS = 1_000
FIRST_FETCH = 16
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
        (r"You can only execute one statement at a time", Verdict.MULTIPLE_STATEMENTS),
        (r"no such function|wrong number of arguments|too many arguments|misuse of|unsafe use of", Verdict.FUNCTION),
        (r"aggregate functions are not allowed|DISTINCT (is not supported|aggregates must)", Verdict.FUNCTION),
        (r".* may not be used (as|with)|'.*' is not a function", Verdict.FUNCTION),
        (r"unable to use function|no such collation|vtable constructor failed", Verdict.FUNCTION),
        (r"integer overflow|string or blob too big|datatype mismatch", Verdict.TYPE),
        (r"malformed JSON|bad JSON path|JSON path error|JSON cannot hold", Verdict.TYPE),
        (r"LIKE or GLOB pattern too complex|(ESCAPE expression|argument of|frame).* must be", Verdict.TYPE),
    ]
]
BROKEN_DATABASE = re.compile(
    r"(database disk image is malformed|file is not a database|disk I/O error|unable to open database file"
    r"|database (table |schema )?is locked.*|database or disk is full)$"
)
OVER_A_LIMIT = frozenset({Verdict.STEP_BUDGET, Verdict.TIMEOUT, Verdict.TOO_MANY_ROWS})


@dataclass(frozen=True)
class Limits:
    """What one query may take; `max_steps` counts SQLite's instructions, the same on a busy machine as on an idle one."""

    timeout_s: float = 10.0
    max_steps: int = 300_000_000
    max_rows: int = 100_000
    max_cells: int = 1_000_000
    max_value_bytes: int = 1_000_000
    max_sql_bytes: int = 1_000_000
    max_memory_mb: int = 192


@dataclass(frozen=True)
class Result:
    """The rows of a query that ran to its end, or (with `rows` empty) the verdict on one that did not and why.

    Bytes in a text that are not UTF-8 are lone surrogates here (`ill_coded`), as Python's `surrogateescape` has it.
    `out_of_memory` says that less memory taken by others might have been enough.
    """

    rows: list[tuple] = field(default_factory=list)
    columns: tuple[str, ...] = ()
    error: Verdict | None = None
    reason: str = ""
    ill_coded: bool = False
    out_of_memory: bool = False


class Reader:
    """Runs SQL on one connection, which is under guard from here on and belongs to the reader; close() it at the end.

    `steps` are the instructions that the last query took, to the next lower multiple of STEPS_BETWEEN_CHECKS.
    """

    def __init__(self, connection: sqlite3.Connection, limits: Limits) -> None:
        self.connection, self.limits = connection, limits
        self.steps = 0
        self._number = 0
        self._deadline = 0.0
        connection.text_factory = str
        # Sorting in a file would write outside of the database, and into no more memory than SQLite may have.
        connection.execute("PRAGMA temp_store = MEMORY")
        # Connecting a virtual table takes rights that the authorizer gives to nobody; these two only read their argument.
        connection.execute("SELECT 1 FROM json_each('[]'), json_tree('[]')").close()
        connection.set_authorizer(_reading_only)
        connection.set_progress_handler(self._over, STEPS_BETWEEN_CHECKS)
        if sys.version_info >= (3, 11):
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limits.max_value_bytes)

    def close(self) -> None:
        self.connection.close()

    def run(self, sql: str) -> Result:
        """Run one SQL statement; whatever the SQL does wrong comes back as a verdict.

        Verdicts for SQLite's errors: unknown tables and columns, ambiguous names and functions by their messages; TYPE
        for values that cannot be computed (overflow, too big, malformed JSON); SYNTAX for all else that SQLite refuses,
        which besides the syntax is what it checks while compiling (set operations of unequal width, ORDER BY 9 of two
        columns, row values, unbound parameters). A double-quoted name that does not exist is a string, as SQLite has
        it, and no error. Raises sqlite3.Error when the database file itself is broken, for that is not the SQL's fault.
        """
        if not sql or sql.isspace():
            return Result(error=Verdict.EMPTY_PREDICTION, reason="no SQL")
        if unusable := _unusable_text(sql, self.limits.max_sql_bytes):
            return Result(error=Verdict.SYNTAX, reason=unusable)
        self.steps, self._deadline = 0, time.monotonic() + self.limits.timeout_s
        if sys.version_info < (3, 11):  # which keeps statements prepared, whose steps would be counted on
            self._number += 1
            sql = f"/*{self._number}*/{sql}"
        try:
            return self._read(sql)
        except sqlite3.OperationalError as error:
            if not str(error).startswith("Could not decode to UTF-8"):
                return self._failure(error)
        except (sqlite3.Error, sqlite3.Warning, MemoryError, OverflowError, UnicodeDecodeError) as error:
            return self._failure(error)
        return self._run_ill_coded(sql)

    def _over(self) -> bool:
        self.steps += STEPS_BETWEEN_CHECKS
        return self.steps > self.limits.max_steps or time.monotonic() > self._deadline

    def _read(self, sql: str, ill_coded: bool = False) -> Result:
        cursor = self.connection.execute(sql)
        try:
            if cursor.description is None:
                return Result(error=Verdict.EMPTY_PREDICTION, reason="no statement that returns anything")
            columns = tuple([column[0] for column in cursor.description])
            max_rows = min(self.limits.max_rows, self.limits.max_cells // len(columns))
            rows = cursor.fetchmany(min(FIRST_FETCH, max_rows + 1))
            if len(rows) == FIRST_FETCH:
                self._fetch(cursor, rows, max_rows)
        finally:
            cursor.close()
        if len(rows) > max_rows:
            return Result(error=Verdict.TOO_MANY_ROWS, reason=f"more than {max_rows} rows of {_columns(columns)}")
        return Result(rows, columns, ill_coded=ill_coded)

    def _fetch(self, cursor: sqlite3.Cursor, rows: list[tuple], max_rows: int) -> None:
        """Add all further rows, at most one more than `max_rows`; the longer the values, the fewer at a time."""
        while len(rows) <= max_rows:
            longest = max((len(value) for value in rows[-1] if isinstance(value, (str, bytes))), default=0)
            at_once = max(1, min(ROWS_PER_FETCH, max_rows + 1 - len(rows), 1_000_000 // (longest + 1)))
            chunk = cursor.fetchmany(at_once)
            if not chunk:
                return
            rows += chunk
            if time.monotonic() > self._deadline:
                raise sqlite3.OperationalError("interrupted")

    def _run_ill_coded(self, sql: str) -> Result:
        """The same again for a result with text that is not UTF-8: a slower way to read all of its text."""
        self.connection.text_factory = _escaped
        self.steps = 0
        try:
            return self._read(sql, ill_coded=True)
        except (sqlite3.Error, MemoryError, OverflowError, UnicodeDecodeError) as error:
            return self._failure(error)
        finally:
            self.connection.text_factory = str

    def _failure(self, error: Exception) -> Result:
        message = str(error) or type(error).__name__
        # Raised in place of an error whose message quotes such text; Python 3.10 raises one without a message.
        if isinstance(error, UnicodeDecodeError) or (isinstance(error, sqlite3.OperationalError) and not str(error)):
            return Result(error=Verdict.TYPE, reason="an error of SQLite whose message is not UTF-8")
        if BROKEN_DATABASE.match(message):
            raise error
        if message == "interrupted":
            return self._interrupted()
        if isinstance(error, MemoryError) or message == "out of memory":
            reason = f"needs more than {self.limits.max_memory_mb} MB of memory"
            return Result(error=Verdict.TOO_MANY_ROWS, reason=reason, out_of_memory=True)
        for pattern, verdict in VERDICTS:
            if pattern.match(message):
                return Result(error=verdict, reason=message)
        about_values = isinstance(error, (sqlite3.DataError, sqlite3.IntegrityError, OverflowError))
        return Result(error=Verdict.TYPE if about_values else Verdict.SYNTAX, reason=message)

    def _interrupted(self) -> Result:
        if self.steps > self.limits.max_steps:
            reason = f"more than {self.limits.max_steps} SQLite steps"
            return Result(error=Verdict.STEP_BUDGET, reason=reason)
        return Result(error=Verdict.TIMEOUT, reason=late(self.limits.timeout_s))


def late(timeout_s: float) -> str:
    """The reason of a timeout."""
    return f"still running after {timeout_s:g} s"


def _columns(columns: tuple[str, ...]) -> str:
    return "1 column" if len(columns) == 1 else f"{len(columns)} columns"


def _reading_only(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """SQLite's authorizer; for a function call `second` is the function's name."""
    allowed = action in READING or (action == sqlite3.SQLITE_FUNCTION and second not in database.FORBIDDEN_FUNCTIONS)
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _unusable_text(sql: str, max_bytes: int) -> str:
    if len(sql) > max_bytes:
        return f"longer than {max_bytes} bytes"
    if "\0" in sql:
        return "a NUL character in the SQL"
    try:
        sql.encode("utf-8")
    except UnicodeEncodeError:
        return "text that is not valid Unicode in the SQL"
    return ""


def _escaped(text: bytes) -> str:
    return text.decode("utf-8", errors="surrogateescape")
