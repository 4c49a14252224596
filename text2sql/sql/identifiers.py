"""Which names SQLite takes bare, and how it wants the others quoted."""

from __future__ import annotations

import re

PLAIN_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The reserved words that real schemas use as names; SQLite accepts its other keywords unquoted where a name is expected.
RESERVED = frozenset(
    "add all alter and as between by case check column commit constraint create cross default delete distinct drop else "
    "escape except exists foreign from full group having in index inner insert intersect into is isnull join left "
    "limit natural not notnull null on or order outer primary references right select set table then to transaction union "
    "unique update using values when where autoincrement cast collate current_date current_time current_timestamp "
    "deferrable if nothing raise returning".split()
)


def is_bare(name: str) -> bool:
    """Whether `name` may stand in SQL as it is."""
    return PLAIN_IDENTIFIER.fullmatch(name) is not None and name.lower() not in RESERVED


def quote(name: str) -> str:
    """`name` as it must be written in SQLite: bare where that is allowed, else in double quotes."""
    return name if is_bare(name) else '"' + name.replace('"', '""') + '"'


def lower(name: str) -> str:
    """`name` in lower case as SQLite compares names: ASCII letters alone."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)
