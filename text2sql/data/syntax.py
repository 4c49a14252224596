"""Decides whether text is SQL at all: SQLite's own parser first, then sqlglot for other dialects. Nothing is run."""

from __future__ import annotations

import sqlite3

import sqlglot
from sqlglot import exp

# What SQLite says of text that it cannot parse; everything else it says is about names or permissions, after parsing.
SYNTAX_ERRORS = ("syntax error", "incomplete input", "unrecognized token")


def parses(sql: str) -> bool:
    """Whether `sql` is one or more statements in SQLite's dialect or in sqlglot's own superset of dialects."""
    single = ";" not in sql.strip("; \n\t")
    return (single and _sqlite_parses(sql)) or any(_sqlglot_parses(sql, dialect) for dialect in ("sqlite", None))


def _sqlite_parses(sql: str) -> bool:
    connection = sqlite3.connect(":memory:")
    # Some statements act while they are prepared; with all of them denied, preparing is parsing.
    connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
    try:
        connection.execute(f"EXPLAIN {sql}")
    except sqlite3.Error as error:
        return not any(words in str(error) for words in SYNTAX_ERRORS)
    finally:
        connection.close()
    return True


def _sqlglot_parses(sql: str, dialect: str | None) -> bool:
    try:
        statements = [tree for tree in sqlglot.parse(sql, read=dialect) if tree is not None]
    except sqlglot.errors.SqlglotError:
        return False
    # sqlglot reads "hello world" as a column and its alias.
    return bool(statements) and not any(isinstance(tree, (exp.Condition, exp.Alias)) for tree in statements)
