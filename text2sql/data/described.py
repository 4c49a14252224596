"""A SQLite database of one's own as the question templates see one: what its tables are called, and what its columns hold.

All of it is guessed from names, declared keys and a sample of rows; a foreign key that nobody declared is taken for one where
its name is that of a table with `_id` after it.
"""

from __future__ import annotations

import random
import re
import sqlite3
from collections import Counter

from text2sql.data.mini_questions import plural, words_of
from text2sql.data.mini_rows import Filled, Filling
from text2sql.data.mini_schema import ColumnSpec, Domain, TableSpec
from text2sql.example import Column, Schema, Table
from text2sql.sql.identifiers import quote

MAX_READ, MAX_ROWS = 20_000, 500
"""Of a table the first rows are read, and some of them looked at."""
FEWEST_NUMBERS = 5
MAX_LABEL_CHARACTERS, MAX_CATEGORY_CHARACTERS = 40, 30
MAX_CATEGORIES = 30
LABEL_DISTINCT, NULLABLE = 0.9, 0.1
"""The share of distinct values from which a text names its row, and of NULLs from which "without" is worth asking."""

DATE = re.compile(r"\d{4}-\d\d-\d\d([ T].*)?")
CODE = re.compile(r"(id|uuid|guid|key|code|no|nr|number|zip|postcode|phone|fax|hash|password|token|url)", re.IGNORECASE)


def describe(name: str, schema: Schema, connection: sqlite3.Connection, rng: random.Random) -> Filling:
    """The tables that have rows, with a sample of them; ValueError where none has."""
    rows = {table.name: _sample(table, connection, rng) for table in schema.tables}
    there = [table for table in schema.tables if rows[table.name]]
    if not there:
        raise ValueError(f"{name} has no rows: there is nothing to ask about; fill its tables first")
    return Filling(Domain(name, name, ()), tuple(_filled(table, there, rows[table.name]) for table in there))


def _sample(table: Table, connection: sqlite3.Connection, rng: random.Random) -> list[tuple]:
    cells = (f"CASE WHEN typeof({c}) = 'blob' THEN NULL ELSE {c} END" for c in (quote(c.name) for c in table.columns))
    try:
        read = connection.execute(f"SELECT {', '.join(cells)} FROM {quote(table.name)} LIMIT {MAX_READ}").fetchall()
    except sqlite3.Error:  # a virtual table of a module that is not here
        return []
    return read if len(read) <= MAX_ROWS else rng.sample(read, MAX_ROWS)


def _filled(table: Table, there: list[Table], rows: list[tuple]) -> Filled:
    columns = list(zip(*rows))
    specs, kept = [], []
    for column, values in zip(table.columns, columns):
        usual = [value if isinstance(value, _usual_type(values)) else None for value in values]
        kind, source = _kind(table, column, there, usual)
        missing = usual.count(None) / len(usual)
        specs.append(ColumnSpec(column.name, kind, source, kind not in ("id", "ref", "other") and missing > NULLABLE))
        kept.append(usual)
    words = words_of(table.name)
    singular = singular_of(words)
    return Filled(TableSpec(table.name, singular, tuple(specs), plural(singular)), tuple(zip(*kept)))


def _usual_type(values: tuple) -> type | tuple[type, ...]:
    """Text or number, whichever most values are; SQLite lets a column hold both."""
    texts = sum(isinstance(value, str) for value in values)
    numbers = sum(isinstance(value, (int, float)) for value in values)
    return str if texts >= numbers else (int, float)


def _kind(table: Table, column: Column, there: list[Table], values: list) -> tuple[str, str]:
    """The kind of a column as in mini_schema, or `other` for one that nothing is asked about, and what it references."""
    own_key = [one.name for one in table.columns if one.primary_key] == [column.name]
    parent = _parent(table, column, there)
    if parent and not own_key:
        return "ref", parent
    if own_key:
        return "id", ""
    known = [value for value in values if value is not None]
    if not known:
        return "other", ""
    is_code = bool(CODE.fullmatch(words_of(column.name).split()[-1]))
    if isinstance(known[0], str):
        return _kind_of_text(known, is_code), ""
    counts = Counter(known)
    if len(counts) <= 2 and len(known) > FEWEST_NUMBERS:
        return "category", ""
    return ("other" if is_code or len(counts) < FEWEST_NUMBERS else "number"), ""


def _kind_of_text(values: list[str], is_code: bool) -> str:
    counts, longest = Counter(values), max(map(len, values))
    if all(DATE.fullmatch(value) for value in values):
        return "date" if len(counts) >= FEWEST_NUMBERS else "other"
    if any("\n" in value or not value.strip() for value in values):
        return "other"
    if longest <= MAX_CATEGORY_CHARACTERS and 2 <= len(counts) <= min(MAX_CATEGORIES, len(values) / 2):
        return "category"
    if longest <= MAX_LABEL_CHARACTERS and len(counts) >= LABEL_DISTINCT * len(values) and not is_code:
        return "label"
    return "other"


def _parent(table: Table, column: Column, there: list[Table]) -> str:
    """The table that the column references by its key of one column; "" where there is none, or itself."""
    keys = {one.name: [c.name for c in one.columns if c.primary_key] for one in there}
    targets = [
        key.foreign_table
        for key in table.foreign_keys
        if key.columns == (column.name,) and list(key.foreign_columns) == keys.get(key.foreign_table)
    ]
    if not targets and not any(column.name in key.columns for key in table.foreign_keys):
        stem = re.sub(r"(_id|Id|ID)$", "", column.name)
        wanted = words_of(stem)
        if stem != column.name:
            targets = [
                one.name
                for one in there
                if wanted in (words_of(one.name), singular_of(words_of(one.name)))
                and len(keys[one.name]) == 1
                and keys[one.name][0].lower() in ("id", column.name.lower())
            ]
    parents = [target for target in targets if target != table.name]
    return parents[0] if parents else ""


def singular_of(words: str) -> str:
    """`order items` is `order item`."""
    if words.endswith("ies") and len(words) > 4:
        return words[:-3] + "y"
    if words.endswith(("sses", "shes", "ches", "xes")):
        return words[:-2]
    return words[:-1] if words.endswith("s") and not words.endswith(("ss", "us", "is")) else words
