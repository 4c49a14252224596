"""Prompt styles: a schema, and what is to be shown of its content, as text; each style is one function."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from text2sql.example import Column, ForeignKey, Schema, Table
from text2sql.sql import identifiers

MAX_VALUE_CHARACTERS, MAX_CELL_CHARACTERS = 60, 30
"""What is shown of a matching value and of a cell in an example row; of blobs, half as many bytes."""

_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_LENGTH = re.compile(r"\s*\([^)]*\)")
_UNSAFE_TYPE = re.compile(r"--|/\*|\*/|[;\x00-\x1f\"]")


@dataclass(frozen=True)
class Content:
    """What is shown of a database beside its schema, as SQL literals: values by (table, column), best first, and rows by table.

    A row is a mapping from the column's name.
    """

    values: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    rows: Mapping[str, tuple[Mapping[str, str], ...]] = field(default_factory=dict)


@lru_cache(maxsize=65536)
def quote(name: str) -> str:
    """`name` as it must be written in SQLite."""
    return identifiers.quote(name)


def literal(value: Any, max_characters: int) -> str:
    """A value of SQLite as SQL text on one line that cannot end a comment around it; long ones are cut and end in "..."."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        cut = max_characters // 2
        return f"x'{value[:cut].hex()}{'...' if len(value) > cut else ''}'"
    if isinstance(value, float) and math.isinf(value):
        return "9e999" if value > 0 else "-9e999"
    if not isinstance(value, str):
        return str(value)
    # Twice the length first: a cell may hold megabytes. What is cut there is longer than what is shown, spaces or not.
    line = _BREAKS.sub(" ", value[: 2 * max_characters]).replace("*/", "* /")
    cut_off = len(line) > max_characters or len(value) > 2 * max_characters
    return "'" + line[:max_characters].replace("'", "''") + ("..." if cut_off else "") + "'"


def create_table(table: Table, keys: bool = False, values: Mapping[str, tuple[str, ...]] | None = None) -> str:
    """One CREATE TABLE statement on one line, with types and the primary key.

    With foreign `keys`, and the `values` of its columns (literals, by column) in comments after their types.
    """
    primary = [column.name for column in table.columns if column.primary_key]
    parts = []
    for column in table.columns:
        shown = (values or {}).get(column.name)
        words = [quote(column.name), _type(column.type), "PRIMARY KEY" if primary == [column.name] else ""]
        parts.append(" ".join(filter(None, [*words, f"/* {', '.join(shown)} */" if shown else ""])))
    if len(primary) > 1:
        parts.append(f"PRIMARY KEY ({_listed(primary)})")
    if keys:
        parts.extend(map(_foreign_key, table.foreign_keys))
    return f"CREATE TABLE {quote(table.name)} ({', '.join(parts)});"


def names(schema: Schema, content: Content) -> str:
    """One table a line: its name and its columns' names."""
    return "\n".join(f"{quote(table.name)}({_listed([c.name for c in table.columns])})" for table in schema.tables)


def ddl(schema: Schema, content: Content) -> str:
    """The CREATE TABLE statements, without foreign keys."""
    return "\n".join(create_table(table) for table in schema.tables)


def ddl_fk(schema: Schema, content: Content) -> str:
    """The CREATE TABLE statements with foreign keys."""
    return "\n".join(create_table(table, keys=True) for table in schema.tables)


def ddl_values(schema: Schema, content: Content) -> str:
    """`ddl_fk` with the values that match the question in a comment after their column."""
    return "\n".join(
        create_table(table, True, {c.name: content.values.get((table.name, c.name), ()) for c in table.columns})
        for table in schema.tables
    )


def ddl_rows(schema: Schema, content: Content) -> str:
    """`ddl_fk` with the first rows of each table in a comment after it."""
    lines = []
    for table in schema.tables:
        lines.append(create_table(table, keys=True))
        if rows := content.rows.get(table.name):
            cells = (", ".join(row.get(column.name, "NULL") for column in table.columns) for row in rows)
            lines.append("/* rows:\n" + "\n".join(cells) + "\n*/")
    return "\n".join(lines)


def qualified(schema: Schema, content: Content) -> str:
    """One table a line, every column as table.column with its type (but for lengths) and matching values; foreign keys last.

    All in lower case, as prompt.sql_form=qualified has the answer: the form a small model copies from, token by token.
    """

    def described(table: Table, column: Column) -> str:
        shown = content.values.get((table.name, column.name))
        kind = _LENGTH.sub("", _type(column.type)).lower()
        words = [_lower_dotted(table.name, column.name), kind, f"( {', '.join(shown)} )" if shown else ""]
        return " ".join(filter(None, words))

    lines = [
        f"{quote(identifiers.lower(t.name))} : {', '.join(described(t, column) for column in t.columns)}"
        for t in schema.tables
    ]
    keys = [
        f"{_lower_dotted(table.name, own)} = {_lower_dotted(key.foreign_table, foreign)}"
        for table in schema.tables
        for key in table.foreign_keys
        for own, foreign in zip(key.columns, key.foreign_columns)
    ]
    return "\n".join([*lines, f"keys : {', '.join(keys)}"] if keys else lines)


Style = Callable[[Schema, Content], str]

STYLES: dict[str, Style] = {
    "names": names,
    "ddl": ddl,
    "ddl_fk": ddl_fk,
    "ddl_values": ddl_values,
    "ddl_rows": ddl_rows,
    "qualified": qualified,
}
SHOWS_VALUES, SHOWS_ROWS = frozenset({"ddl_values", "qualified"}), frozenset({"ddl_rows"})
SHOWS_TYPES = frozenset(STYLES) - {"names"}


def _listed(columns: list[str] | tuple[str, ...]) -> str:
    return ", ".join(map(quote, columns))


def _lower_dotted(table: str, column: str) -> str:
    return f"{quote(identifiers.lower(table))}.{quote(identifiers.lower(column))}"


def _foreign_key(key: ForeignKey) -> str:
    return f"FOREIGN KEY ({_listed(key.columns)}) REFERENCES {quote(key.foreign_table)}({_listed(key.foreign_columns)})"


@lru_cache(maxsize=4096)
def _type(declared: str) -> str:
    """The declared type; one that holds what could end the statement is quoted, which SQLite reads as the same type."""
    return '"' + declared.replace('"', '""') + '"' if _UNSAFE_TYPE.search(declared) else declared
