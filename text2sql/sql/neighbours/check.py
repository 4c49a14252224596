"""How golds fare on a neighbour: whether they run, give rows, and have one answer."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from text2sql.sql import compare
from text2sql.sql.neighbours.build import MAX_STEPS, fetch, over_limit
from text2sql.sql.neighbours.golds import Gold, TieQuery


@dataclass
class Check:
    """How the golds fare on one neighbour: `failing` are some, `share` is of those that give rows on the source."""

    failing: list[Gold] = field(default_factory=list)
    reason: str = ""
    share: float = 0.0
    empty: list[Gold] = field(default_factory=list)
    undecided: list[Gold] = field(default_factory=list)


def check_golds(connection: sqlite3.Connection, golds: list[Gold]) -> Check:
    """Run every gold on a neighbour: which of them return rows, which the data alone decide, and which fails."""
    results: list[list[tuple[Any, ...]]] = []
    for gold in golds:
        try:
            results.append(fetch(connection, gold.sql))
        except sqlite3.Error as error:
            return Check(
                failing=[gold], reason=f"{error}, after {MAX_STEPS} steps" if over_limit(error) else str(error)
            )
    empty = [gold for gold, rows in zip(golds, results) if gold.gives_rows and not rows]
    share = 1 - len(empty) / max(1, sum(gold.gives_rows for gold in golds))
    undecided = [gold for gold, rows in zip(golds, results) if _left_to_chance(connection, gold, rows)]
    return Check(share=share, empty=empty, undecided=undecided)


def _left_to_chance(connection: sqlite3.Connection, gold: Gold, rows: list[tuple[Any, ...]]) -> bool:
    """Whether the data leave open which rows this gold returns or, where it orders, in what order."""
    if any(_tie(connection, query) for query in gold.ties):
        return True
    for query in gold.loose:
        try:
            if any(map(any, fetch(connection, query))):
                return True
        except sqlite3.Error:  # a subquery that names rows of the query around it
            continue
    connection.execute("PRAGMA reverse_unordered_selects = ON")
    try:
        others = fetch(connection, gold.sql)
    except sqlite3.Error:
        return True
    finally:
        connection.execute("PRAGMA reverse_unordered_selects = OFF")
    return not compare.same_result(rows, others, ordered=compare.is_ordered(gold.sql))[0]


def _tie(connection: sqlite3.Connection, query: TieQuery) -> bool:
    """Whether rows with equal sort keys, or a NULL among these at the LIMIT, make the result a matter of chance."""
    try:
        rows = fetch(connection, query.sql)
    except sqlite3.Error:
        return query.outermost  # else it may be a subquery that names rows of the query around it
    start = 0
    for keys, group in groupby(rows, key=lambda row: row[-query.width :]):
        shown = [row[: -query.width] for row in group]
        end = start + len(shown)
        cut = start < query.first < end or start < query.last < end
        seen = start < query.last and query.first < end
        unknown = seen and query.last < math.inf and None in keys
        if cut or unknown or (seen and query.outermost and len(set(shown)) > 1):
            return True
        start = end
    return False
