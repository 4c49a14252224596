"""The words and operators of SQLite's SELECT, all in lower case and as bytes, with sets that know their own prefixes."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from functools import cache, lru_cache

WORD = re.compile(rb"[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*")
INVENTED = re.compile(rb"[a-z_][a-z0-9_]*")
"""An alias that may be made up without quotes: ASCII, since not all that SQLite takes for a letter is one to others."""
MAX_INVENTED = 30


class Names:
    """Some names in lower case, and every beginning of one: as bare words, and as written between quotes."""

    __slots__ = ("after_dot", "bare", "begun", "begun_bare", "quoted")

    def __init__(self, names: Iterable[bytes], bare: Iterable[bytes] | None = None) -> None:
        self.quoted = frozenset(names)
        self.bare = frozenset(name for name in (self.quoted if bare is None else bare) if WORD.fullmatch(name))
        self.begun_bare = _beginnings(self.bare)
        self.begun = {
            b'"': _beginnings(name.replace(b'"', b'""') for name in self.quoted),
            b"`": _beginnings(name.replace(b"`", b"``") for name in self.quoted),
            b"[": _beginnings(name for name in self.quoted if b"]" not in name),
        }
        self.after_dot = self


def _beginnings(names: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset(name[:end] for name in names for end in range(len(name) + 1))


def known(names: Iterable[bytes]) -> Names:
    """Names of a schema: those that SQLite would read as keywords are written in quotes only.

    More of them go bare where an expression cannot begin: `after_dot` and in FROM.
    """
    names = frozenset(names)
    found = Names(names, names - reserved())
    if names & KEYWORDS:
        found.after_dot = Names(names, names - reserved_after_dot())
    return found


@cache
def words(text: str) -> Names:
    """Keywords, which are never in quotes; the same object for the same text."""
    return _Keywords(frozenset(text.encode().split()))


class _Keywords(Names):
    __slots__ = ()

    def __init__(self, names: frozenset[bytes]) -> None:
        super().__init__((), names)
        self.begun_bare = _beginnings(names)


KEYWORDS = frozenset(
    b"abort action add after all alter always analyze and as asc attach autoincrement before begin between by cascade case "
    b"cast check collate column commit conflict constraint create cross current current_date current_time "
    b"current_timestamp database default deferrable deferred delete desc detach distinct do drop each else end escape "
    b"except exclude exclusive exists explain fail filter first following for foreign from full generated glob group "
    b"groups having if ignore immediate in index indexed initially inner insert instead intersect into is isnull join key "
    b"last left like limit match materialized natural no not nothing notnull null nulls of offset on or order others outer "
    b"over partition plan pragma preceding primary query raise range recursive references regexp reindex release rename "
    b"replace restrict returning right rollback row rows savepoint select set table temp temporary then ties to "
    b"transaction trigger unbounded union unique update using vacuum values view virtual when where window with "
    b"without".split()
)


@lru_cache(maxsize=1)
def reserved() -> frozenset[bytes]:
    """The keywords that SQLite does not take for a column's name without quotes."""
    found = _failing('SELECT {0}, x.{0}, {0}.{0} FROM (SELECT 1 AS "{0}") AS x, (SELECT 1 AS "{0}") AS {0} WHERE 1')
    return found | _failing('SELECT {0} FROM (SELECT 1 AS "{0}") AS x WHERE {0} = {0}') | VALUES.bare


@lru_cache(maxsize=1)
def reserved_after_dot() -> frozenset[bytes]:
    return _failing('WITH "{0}" AS (SELECT 1 AS "{0}") SELECT x.{0} FROM {0} AS x')


def _failing(query: str) -> frozenset[bytes]:
    """The keywords with which SQLite refuses a query."""
    connection, found = sqlite3.connect(":memory:"), set()
    for word in KEYWORDS:
        try:
            connection.execute(query.format(word.decode()))
        except sqlite3.Error as error:
            if "ambiguous" not in str(error):
                found.add(word)
    connection.close()
    return frozenset(found)


AGGREGATES = frozenset(b"count sum avg min max total group_concat".split())
_SCALARS = frozenset(
    b"abs acos acosh asin asinh atan atan2 atanh ceil ceiling changes char coalesce cos cosh cume_dist date datetime degrees "
    b"dense_rank exp first_value floor format glob hex ifnull iif instr json json_array json_array_length json_extract "
    b"json_object json_quote json_type json_valid julianday lag last_insert_rowid last_value lead length like likelihood "
    b"likely ln log log10 log2 lower ltrim mod nth_value ntile nullif percent_rank pi pow power printf quote radians random "
    b"rank replace round row_number rtrim sign sin sinh soundex sqlite_version sqrt strftime substr substring tan tanh time "
    b"trim trunc typeof unicode unixepoch unlikely upper".split()
)


@lru_cache(maxsize=1)
def functions() -> Names:
    """The functions that this SQLite has, of those that read nothing but their arguments."""
    connection = sqlite3.connect(":memory:")
    have = {name.lower().encode() for (name,) in connection.execute("SELECT name FROM pragma_function_list")}
    connection.close()
    return words(b" ".join((AGGREGATES | _SCALARS) & have).decode())


VALUES = words("null true false current_date current_time current_timestamp")
OPERAND = words("not case cast exists")
AFTER_OPERAND = words("and or not is in like glob match regexp between collate escape isnull notnull")
AFTER_TEXT = words("and or escape")
TYPES = words(
    "integer int tinyint smallint mediumint bigint unsigned big int2 int8 text character varchar char varying nchar native "
    "nvarchar clob blob real double precision float numeric decimal number boolean date datetime time timestamp signed"
)
COLLATIONS = words("nocase binary rtrim")
FRAME = words("between unbounded preceding following current row and exclude no others ties group rows range groups")
COMPOUND = words("union intersect except")
JOINS = words("join natural inner cross left right full")

OPERATORS = frozenset(b"= == != <> < <= > >= || | & << >> + - * / % -> ->>".split())
COMPARISONS = frozenset(b"= == != <> < <= > >=".split())
AFTER_TEXT_OPERATORS = frozenset(b"|| + - * / % & |".split())
SIGNS = frozenset(b"- + ~".split())
