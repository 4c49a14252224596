"""Derive neighbour databases: the same schema with other rows, on which SQL that was right by accident comes out wrong.

The idea is that of Zhong et al. 2020 ("Semantic Evaluation for Text-to-SQL with Distilled Test Suites"); the rules are
our own. A neighbour keeps what the schema promises, so that SQL equal by these promises stays equal: primary keys,
UNIQUE, NOT NULL, CHECK, every declared foreign key that the source obeys, and two that are merely true in the source:
columns that foreign keys point at and the first column of a table without a key stay distinct, and NULL appears only in
columns that already hold it. Nothing else that the source happens to show is kept, such as distinct names, rows that
all have partners, or one row at a maximum. Where the source breaks a declared foreign key, most dangling rows get a
partner; a few rows dangle in columns that only the golds join on.

Every third neighbour has ties at the extremes that golds look for, the others have as few as can be: MAX differs from
ORDER BY with LIMIT 1 on the former, and golds with a LIMIT are decided on the latter. `usable` tells which are.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
import os
import random
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import sqlglot
from sqlglot import expressions as exp

from text2sql.sql import compare, database

MAX_ROWS = 2_000
"""How many rows of a table are taken from a larger source, not counting those that golds name and their partners."""
MAX_NAMED = 50
"""How many rows of a larger source are taken for each condition in a gold."""
MAX_STEPS = 20_000_000
"""How many SQLite instructions a gold may take on a neighbour: about a second."""
TRIES = 4
SHARE_WITH_ROWS = 0.95
"""A neighbour is tried again, closer to the source, while fewer of the golds that give rows on the source do on it."""
CLOSER = 0.4
"""With each further try, this share of the changes to the tables of golds without rows."""
TIED = 3
"""One neighbour in so many has ties."""
MAX_GROUP = 60
"""Groups that HAVING compares with more rows than this are left as they are."""
MAX_SPREAD = 100
"""How many steps a value that golds sort by may move to differ from others."""

Rows = dict[str, list[list[Any]]]


class _Link(NamedTuple):
    """`columns` of `child` name a row of `parent` by its `keys`; `kept` if declared and obeyed by every source row."""

    child: str
    columns: tuple[int, ...]
    parent: str
    keys: tuple[int, ...]
    declared: bool
    kept: bool = False


@dataclass
class _Table:
    """A table of the source; columns go by their position, `unique` has the sets of them that tell all rows apart."""

    name: str
    columns: list[str]
    types: list[str]
    nullable: set[int]
    rowid: int | None
    unique: list[tuple[int, ...]]
    large: bool = False
    rows: list[list[Any]] = field(default_factory=list)

    def position(self, column: str) -> int | None:
        return next((number for number, name in enumerate(self.columns) if name.lower() == column.lower()), None)

    @property
    def keys(self) -> set[int]:
        return {columns[0] for columns in self.unique if len(columns) == 1}


@dataclass
class _Source:
    """The schema of the source, with `creating` and `views` as SQL, and what of it is left out and why."""

    encoding: str
    creating: list[str]
    views: list[str]
    tables: dict[str, _Table]
    links: list[_Link]
    left_out: dict[str, str]

    def linked(self, table: str) -> set[int]:
        """The columns that point at other rows."""
        return {column for link in self.links if link.child == table for column in link.columns}

    def fixed(self, table: str) -> set[int]:
        """The columns that name rows, here or elsewhere."""
        return self.linked(table) | self.tables[table].keys


class _Place(NamedTuple):
    """A column of one of a gold's row sources."""

    source: int
    column: int


class _Condition(NamedTuple):
    place: _Place
    sign: str
    value: Any

    def holds(self, cell: Any) -> bool:
        return _holds(cell, self.sign, self.value)


class _TieQuery(NamedTuple):
    """A SELECT of a gold without its LIMIT (of rows `first` to `last`) and with its `width` sort keys as last columns."""

    sql: str
    width: int
    first: int
    last: float
    outermost: bool


@dataclass
class _Gold:
    """What a gold says about rows. `sources` are the tables in FROM and JOIN of all of its SELECTs, one entry each time.

    `groups` are the columns it groups by, with the sizes its HAVING names; `ranked` those of which it takes the first by
    size, with whether that is the largest.
    """

    sql: str
    gives_rows: bool = True
    sources: list[str] = field(default_factory=list)
    conditions: list[_Condition] = field(default_factory=list)
    joins: list[tuple[_Place, _Place]] = field(default_factory=list)
    groups: list[tuple[_Place, int]] = field(default_factory=list)
    ranked: list[tuple[_Place, bool]] = field(default_factory=list)
    extremes: list[_Place] = field(default_factory=list)
    sorted_by: list[_Place] = field(default_factory=list)
    ties: list[_TieQuery] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)


# Files


def derive(database_file: str | Path, folder: Path, count: int, seed: int, golds: Sequence[str]) -> list[Path]:
    """Write `count` neighbours of a SQLite file into `folder` (n00.sqlite, ...) and a manifest.json; returns their paths.

    The same source content, seed and golds (in any order) give the same rows, and neighbour i does not depend on
    `count`. Files that the manifest says came from the same inputs are used again. Every gold that runs on the source
    runs on every neighbour, within MAX_STEPS; one that fails on the source is set aside. Triggers and virtual tables are
    left out, as the manifest says.

    Raises FileNotFoundError or ValueError where the source is no database, and ValueError for a count below 1, a schema
    that cannot be built again, and a gold that fails on every try of some neighbour.
    """
    if count < 1:
        raise ValueError(f"{count} neighbours asked for: ask for at least 1")
    file = Path(database_file)
    texts = sorted({_stripped(sql) for sql in golds})
    with closing(database.open_readonly(str(file))) as connection:
        connection.text_factory = lambda text: text.decode("utf-8", errors="replace")
        identity = {
            "source": _file_digest(file),
            "rules": _file_digest(Path(__file__)),
            "golds": _digest(json.dumps(texts).encode()),
            "seed": seed,
            "count": count,
        }
        paths = [folder / f"n{number:02}.sqlite" for number in range(count)]
        if _derived_before(folder, identity, paths):
            return paths
        source = _read(connection, file)
        running = [gold for sql in texts if (gold := _on_source(connection, sql, source))]
        try:
            _take_rows(connection, source, running)
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{file} is damaged ({error}): unpack or download it again") from error
    folder.mkdir(parents=True, exist_ok=True)
    files = {path.name: _write(path, source, running, seed, number) for number, path in enumerate(paths)}
    judged = {_name(gold.sql) for gold in running}
    aside = sorted({_name(sql) for sql in texts} - judged)
    _write_manifest(folder, {**identity, "left_out": source.left_out, "set_aside": aside, "files": files})
    return paths


def usable(folder: Path, gold: str) -> list[Path]:
    """The neighbours in `folder` on which the data alone decide what this gold returns and, where it orders, in what order.

    Not among them are those where rows tie at its LIMIT or in its ORDER BY, where a NULL is among the first that it
    takes by sorting, where a column outside of aggregates has several values in a group, or where its result changes
    with the order in which SQLite reads a table: there, SQL as good as the gold may return something else. None are for
    a gold that fails on the source. Raises ValueError where there are no neighbours, and
    for a gold that they were not derived with.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"no neighbours in {folder}: derive them first") from None
    name = _name(_stripped(gold))
    if name in manifest["set_aside"]:
        return []
    first = next(iter(manifest["files"].values()))
    if name not in first["decided"] and name not in first["undecided"]:
        raise ValueError(f"the neighbours in {folder} were not derived with this gold: {gold!r}; name it in golds")
    return [folder / file for file, about in manifest["files"].items() if name in about["decided"]]


def _stripped(sql: str) -> str:
    return sql.strip().removesuffix(";").rstrip()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _name(sql: str) -> str:
    return _digest(json.dumps(sql).encode())[:16]


def _derived_before(folder: Path, identity: dict[str, Any], paths: list[Path]) -> bool:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        same = all(manifest[key] == value for key, value in identity.items())
        return same and all(_file_digest(path) == manifest["files"][path.name]["sha256"] for path in paths)
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return False


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    aside = folder / f".manifest.{os.getpid()}"
    aside.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    aside.replace(folder / "manifest.json")


def _write(path: Path, source: _Source, golds: list[_Gold], seed: int, number: int) -> dict[str, Any]:
    """Derive one neighbour and write it aside, then into place; returns what the manifest says about it."""
    rows, check = _best_rows(source, golds, seed, number)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    with closing(_build(source, rows)) as connection:
        connection.execute("VACUUM INTO ?", (str(aside),))
    aside.replace(path)
    undecided = sorted(_name(gold.sql) for gold in check.undecided)
    return {
        "sha256": _file_digest(path),
        "share_with_rows": round(check.share, 4),
        "decided": sorted({_name(gold.sql) for gold in golds} - set(undecided)),
        "undecided": undecided,
    }


def _best_rows(source: _Source, golds: list[_Gold], seed: int, number: int) -> tuple[Rows, _Check]:
    """The first rows on which enough golds give rows, or those of TRIES on which most do; on all of them all golds run."""
    closeness = Counter[str]()
    tried: list[tuple[Rows, _Check]] = []
    for attempt in range(TRIES):
        rows = _Draft(source, golds, random.Random(f"{seed}/{number}/{attempt}"), number, closeness).derive()
        with closing(_build(source, rows)) as connection:
            check = _check(connection, golds)
        tried.append((rows, check))
        if not check.failing and check.share >= SHARE_WITH_ROWS:
            break
        for name in {name for gold in check.failing or check.empty for name in gold.sources}:
            closeness[name] += 2 if check.failing else 1
    running = [(rows, check) for rows, check in tried if not check.failing]
    if not running:
        check = tried[-1][1]
        raise ValueError(
            f"on each of {TRIES} tries for neighbour {number} some gold fails, on the last this one ({check.reason}): "
            f"{check.failing[0].sql!r}; leave it out of golds"
        )
    return max(running, key=lambda pair: pair[1].share)


# The schema of the source


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _read(connection: sqlite3.Connection, file: Path) -> _Source:
    """The source without its rows. ValueError where its schema cannot be built again."""
    try:
        objects = connection.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql NOT NULL"
        ).fetchall()
        left_out = _left_out(objects)
        kept = [row for row in objects if not row[1].startswith("sqlite_") and left_out.keys().isdisjoint(row[1:3])]
        schema = database.read_schema(connection)
        tables = {table.name: _table(connection, table.name) for table in schema.tables if table.name not in left_out}
        links = [
            _Link(table.name, *pairs, declared=True)
            for table in schema.tables
            for key in table.foreign_keys
            if (pairs := _positions(tables, table.name, key.columns, key.foreign_table, key.foreign_columns))
        ]
        source = _Source(
            encoding=connection.execute("PRAGMA encoding").fetchone()[0],
            creating=[row[3] for kind in ("table", "index") for row in kept if row[0] == kind],
            views=[row[3] for row in kept if row[0] == "view"],
            tables=tables,
            links=list(dict.fromkeys(links)),
            left_out=left_out,
        )
        _build(source, {name: [] for name in tables}).close()
    except sqlite3.Error as error:
        raise ValueError(f"the schema of {file} cannot be built again, as neighbours need it to be: {error}") from error
    return source


def _left_out(objects: list[tuple[str, str, str, str]]) -> dict[str, str]:
    """Names of what a neighbour goes without, and why. A virtual table's own tables would be written past it."""
    virtual = [
        name for kind, name, _, sql in objects if kind == "table" and re.match(r"\s*create\s+virtual", sql, re.I)
    ]
    reasons = dict.fromkeys(virtual, "a virtual table")
    endings = r"_(content|data|idx|docsize|config|segments|segdir|stat|node|parent|rowid)"
    for kind, name, _, _ in objects:
        owner = next((owner for owner in virtual if re.fullmatch(re.escape(owner) + endings, name)), "")
        if kind == "trigger" or owner:
            reasons[name] = f"belongs to the virtual table {owner}" if owner else "a trigger"
    return reasons


def _table(connection: sqlite3.Connection, name: str) -> _Table:
    query = 'SELECT name, type, "notnull", pk FROM pragma_table_info(?) ORDER BY cid'
    columns = connection.execute(query, (name,)).fetchall()
    position = {column: number for number, (column, *_) in enumerate(columns)}
    primary = [number for _, number in sorted((pk, number) for number, (*_, pk) in enumerate(columns) if pk)]
    unique = {tuple(primary)} - {()}
    indexes = 'SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial'
    for (index,) in connection.execute(indexes, (name,)).fetchall():
        members = [member for (member,) in connection.execute("SELECT name FROM pragma_index_info(?)", (index,))]
        if all(member in position for member in members):
            unique.add(tuple(position[member] for member in members))
    return _Table(
        name=name,
        columns=list(position),
        types=[kind.upper() for _, kind, _, _ in columns],
        nullable={number for number, (_, _, not_null, pk) in enumerate(columns) if not not_null and not pk},
        rowid=primary[0] if len(primary) == 1 and columns[primary[0]][1].upper() == "INTEGER" else None,
        unique=sorted(unique),
    )


def _positions(
    tables: dict[str, _Table], child: str, columns: Sequence[str], parent: str, keys: Sequence[str]
) -> tuple[tuple[int, ...], str, tuple[int, ...]] | None:
    """The columns of a foreign key and of its target by position; None where one is left out or generated."""
    if child not in tables or parent not in tables:
        return None
    own = [number for name in columns if (number := tables[child].position(name)) is not None]
    foreign = [number for name in keys if (number := tables[parent].position(name)) is not None]
    whole = len(own) == len(columns) and len(foreign) == len(keys)
    return (tuple(own), parent, tuple(foreign)) if whole else None


# What golds say


def _on_source(connection: sqlite3.Connection, sql: str, source: _Source) -> _Gold | None:
    """The gold and whether it gives rows on the source; None for one that fails there, other than by MAX_STEPS."""
    gives_rows = False
    try:
        gives_rows = bool(_run(connection, sql))
    except (sqlite3.Error, sqlite3.Warning, UnicodeEncodeError) as error:
        if not _over(error):
            return None
    gold = _Gold(sql, gives_rows)
    try:
        tree = sqlglot.parse_one(sql, read="sqlite")
    except sqlglot.errors.SqlglotError:
        return gold
    _understand(tree, gold, source)
    return gold


def _understand(tree: Any, gold: _Gold, source: _Source) -> None:
    names = _Names(tree, source)
    gold.sources = names.sources
    for node in tree.find_all(*_SIGNS, exp.Between, exp.In):
        _read_comparison(node, names, gold)
    for extreme in tree.find_all(exp.Max, exp.Min):
        gold.extremes += names.places([extreme.this])
    for ordered in tree.find_all(exp.Ordered):
        gold.sorted_by += names.places([ordered.this])
        select = ordered.parent_select
        if select and select.args.get("limit") and ordered.find(exp.Count):
            gold.ranked += [(place, bool(ordered.args.get("desc"))) for place in names.grouped_by(select)]
    gold.extremes += gold.sorted_by
    gold.ties = list(_tie_queries(tree))
    gold.loose = list(_loose_queries(tree))


class _Names:
    """Which column of which row source a name in a query means."""

    def __init__(self, tree: Any, source: _Source) -> None:
        self.tables = {name.lower(): table for name, table in source.tables.items()}
        self.sources: list[str] = []
        self._aliases: dict[int, dict[str, int]] = {}
        for node in tree.find_all(exp.Table):
            if node.name.lower() in self.tables and node.parent_select:
                aliases = self._aliases.setdefault(id(node.parent_select), {})
                aliases[node.alias_or_name.lower()] = len(self.sources)
                self.sources.append(self.tables[node.name.lower()].name)

    def place(self, node: Any) -> _Place | None:
        """Looked for in the SELECT around the name, then in those around that."""
        select = node.parent_select if isinstance(node, exp.Column) else None
        while select:
            for alias, number in self._aliases.get(id(select), {}).items():
                position = self.tables[self.sources[number].lower()].position(node.name)
                if position is not None and node.table.lower() in ("", alias):
                    return _Place(number, position)
            select = select.parent_select
        return None

    def places(self, nodes: Iterable[Any]) -> list[_Place]:
        return [place for node in nodes if (place := self.place(node))]

    def grouped_by(self, select: Any) -> list[_Place]:
        group = select.args.get("group")
        return self.places(group.expressions) if group else []

    def value(self, node: Any) -> Any:
        """The literal that a node is; a double-quoted name that is no column is a string, as in SQLite."""
        if isinstance(node, exp.Paren):
            return self.value(node.this)
        if isinstance(node, exp.Neg):
            value = self.value(node.this)
            return -value if _is_number(value) else None
        if isinstance(node, exp.Literal):
            whole = re.fullmatch(r"\d{1,18}", node.this)
            return node.this if node.is_string else int(node.this) if whole else float(node.this)
        if isinstance(node, exp.Column) and node.this.quoted and not node.table and not self.place(node):
            return node.name
        return None


_SIGNS = {exp.EQ: "=", exp.NEQ: "!=", exp.GT: ">", exp.GTE: ">=", exp.LT: "<", exp.LTE: "<=", exp.Like: "LIKE"}
_FLIPPED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}
_NEGATED = {"=": "!=", "!=": "=", ">": "<=", ">=": "<", "<": ">=", "<=": ">", "LIKE": "NOT LIKE"}


def _read_comparison(node: Any, names: _Names, gold: _Gold) -> None:
    """Note a condition on a column, on the size of a group, or between two columns."""
    above = node.parent.parent if isinstance(node.parent, exp.Paren) else node.parent
    for left, sign, right in _comparisons(node):
        if names.value(left) is not None:
            left, sign, right = right, _FLIPPED.get(sign, sign), left
        if isinstance(above, exp.Not):
            sign = _NEGATED[sign]
        value = names.value(right)
        place = names.place(left.this if isinstance(left, (exp.Max, exp.Min, exp.Avg, exp.Sum)) else left)
        if isinstance(left, exp.Count) and isinstance(value, int) and left.parent_select:
            gold.groups += [(grouped, value) for grouped in names.grouped_by(left.parent_select)]
        elif place and value is not None:
            gold.conditions.append(_Condition(place, sign, value))
        elif place and sign == "=" and (other := names.place(_selected(right))):
            gold.joins.append((place, other))


def _comparisons(node: Any) -> Iterator[tuple[Any, str, Any]]:
    """A node as (left, sign, right); BETWEEN is two, IN as many as it lists, and IN with a subquery one."""
    if isinstance(node, exp.Between):
        yield node.this, ">=", node.args["low"]
        yield node.this, "<=", node.args["high"]
    elif isinstance(node, exp.In):
        for value in node.expressions or [node.args.get("query")]:
            yield node.this, "=", value
    else:
        yield node.this, _SIGNS[type(node)], node.expression


def _selected(node: Any) -> Any:
    """The first column that a subquery selects, or the node itself."""
    select = node.this if isinstance(node, exp.Subquery) else node
    return select.selects[0] if isinstance(select, exp.Select) and select.selects else node


def _tie_queries(tree: Any) -> Iterator[_TieQuery]:
    """The queries whose order shows: the outermost one, and those with a LIMIT."""
    for query in tree.find_all(exp.Select, exp.SetOperation):
        order, limit, offset = (query.args.get(name) for name in ("order", "limit", "offset"))
        if order and (limit or query is tree):
            first = _count(offset) or 0
            number = _count(limit)
            keys = [_sort_key(query, ordered.this).copy() for ordered in order.expressions]
            last = math.inf if number is None else first + number
            yield _TieQuery(_with_keys(query, keys), len(keys), first, last, query is tree)


def _loose_queries(tree: Any) -> Iterator[str]:
    """For each SELECT with groups: of each group, whether a column outside of aggregates has several values in it.

    SQLite then takes one of them by chance, but for a SELECT whose only aggregate is a MAX or a MIN.
    """
    for select in tree.find_all(exp.Select):
        group = select.args.get("group")
        aggregates = [node for node in select.find_all(exp.AggFunc) if node.parent_select is select]
        if not (group or aggregates) or (len(aggregates) == 1 and isinstance(aggregates[0], (exp.Max, exp.Min))):
            continue
        keys = [_sort_key(select, key).copy() for key in group.expressions] if group else []
        sorted_by = [
            _sort_key(select, ordered.this) for ordered in (select.args.get("order") or exp.Order()).expressions
        ]
        columns = [node for part in select.selects + sorted_by for node in part.find_all(exp.Column, exp.Star)]
        bare = [node for node in columns if node.find_ancestor(exp.AggFunc, exp.Select) is select and node not in keys]
        query = select.copy()
        for name in ("order", "limit", "offset", "distinct"):
            query.set(name, None)
        query.set("expressions", [_several(node) for node in bare])
        if group:
            query.args["group"].set("expressions", keys)
        if bare:
            yield query.sql("sqlite")


def _several(node: Any) -> Any:
    """Whether a column has several values in a group, NULL being one; for a star, whether the group has several rows."""
    rows = exp.Count(this=exp.Star())
    if isinstance(node, exp.Star):
        return rows > 1
    values, distinct = exp.Count(this=node.copy()), exp.Count(this=exp.Distinct(expressions=[node.copy()]))
    return exp.or_(distinct > 1, exp.and_(values > 0, rows > values))


def _count(clause: Any) -> int | None:
    text = clause.expression.name if clause else ""
    return int(text) if text.isdigit() else None


def _sort_key(query: Any, key: Any) -> Any:
    """The expression behind an ORDER BY term, which may also be a number or an alias of a selected column."""
    if isinstance(query, exp.Select):
        if isinstance(key, exp.Literal) and key.this.isdigit() and 0 < int(key.this) <= len(query.selects):
            return query.selects[int(key.this) - 1].unalias()
        for item in query.selects:
            if isinstance(item, exp.Alias) and item.alias.lower() == key.name.lower() and not key.args.get("table"):
                return item.this
    return key


def _with_keys(query: Any, keys: list[Any]) -> str:
    """A query without its LIMIT that also returns its sort keys; those of a set operation are among its columns."""
    query = query.copy()
    for name in ("limit", "offset"):
        query.set(name, None)
    if isinstance(query, exp.Select):
        return query.select(*keys, copy=False).sql("sqlite")
    order = query.args["order"].pop()
    around = exp.select("*", *keys).from_(query.subquery("together"))
    around.set("order", order)
    return around.sql("sqlite")


# The rows of the source


def _take_rows(connection: sqlite3.Connection, source: _Source, golds: list[_Gold]) -> None:
    """Read the rows, of large tables only some; then note what they obey without its being declared."""
    named: dict[str, list[_Condition]] = {name: [] for name in source.tables}
    for gold in golds:
        for condition in gold.conditions:
            named[gold.sources[condition.place.source]].append(condition)
    for table in source.tables.values():
        table.rows = _some_rows(connection, table, named[table.name])
    joins = list(dict.fromkeys(link for gold in golds for link in _joined(gold)))
    for _ in range(2):
        for link in source.links + joins:
            _add_partners(connection, source, link)
    for link in source.links:
        _note_key(source.tables[link.parent], link.keys)
    for table in source.tables.values():
        if not table.unique and 0 not in source.linked(table.name):
            _note_key(table, (0,))
    declared = {link[:2] for link in source.links}
    source.links = [link._replace(kept=_obeyed(source, link)) for link in source.links]
    source.links += [
        link for link in joins if link[:2] not in declared and set(link.keys) <= source.tables[link.parent].keys
    ]


def _some_rows(connection: sqlite3.Connection, table: _Table, named: list[_Condition]) -> list[list[Any]]:
    """All rows of a small table; of a large one every n-th, and the first MAX_NAMED for each condition of a gold."""
    select = f"SELECT {', '.join(map(_quoted, table.columns))} FROM {_quoted(table.name)}"
    (total,) = connection.execute(f"SELECT count(*) FROM {_quoted(table.name)}").fetchone()
    table.large = total > MAX_ROWS
    if not table.large:
        return [list(row) for row in connection.execute(select)]
    rows = list(islice(connection.execute(select), 0, None, -(-total // MAX_ROWS)))
    conditions = sorted({(table.columns[place.column], sign, value) for place, sign, value in named}, key=repr)
    for column, sign, value in conditions:
        rows += connection.execute(f"{select} WHERE {_quoted(column)} {sign} ? LIMIT {MAX_NAMED}", (value,))
    return [list(row) for row in dict.fromkeys(rows)]


def _joined(gold: _Gold) -> Iterator[_Link]:
    """The joins of a gold, as undeclared links both ways."""
    for join in gold.joins:
        for own, other in (join, join[::-1]):
            child, parent = gold.sources[own.source], gold.sources[other.source]
            if child != parent:
                yield _Link(child, (own.column,), parent, (other.column,), declared=False)


def _add_partners(connection: sqlite3.Connection, source: _Source, link: _Link) -> None:
    """Add the rows of a large parent that chosen rows of the child point at."""
    child, parent = source.tables[link.child], source.tables[link.parent]
    if not parent.large or len(link.columns) > 1:
        return
    (column,), (key,) = link.columns, link.keys
    there = {_plain([row[key]]) for row in parent.rows}
    wanted = dict.fromkeys(row[column] for row in child.rows if row[column] is not None)
    missing = [value for value in wanted if _plain([value]) not in there]
    select = f"SELECT {', '.join(map(_quoted, parent.columns))} FROM {_quoted(parent.name)}"
    for start in range(0, len(missing), 500):
        some = missing[start : start + 500]
        marks = ", ".join("?" * len(some))
        where = f"WHERE {_quoted(parent.columns[key])} IN ({marks}) LIMIT {MAX_ROWS}"
        parent.rows += [list(row) for row in connection.execute(f"{select} {where}", some)]


def _note_key(table: _Table, columns: tuple[int, ...]) -> None:
    """Take columns that tell the rows of the source apart as a key: SQL is written as if they were one."""
    values = {tuple(row[column] for column in columns) for row in table.rows}
    if columns not in table.unique and len(values) == len(table.rows) and not any(None in value for value in values):
        table.unique.append(columns)


def _plain(values: Iterable[Any]) -> tuple[str, ...]:
    """Values as joins see them: a number in one column equals a text that reads the same in another."""
    return tuple(str(int(value)) if isinstance(value, float) and value.is_integer() else str(value) for value in values)


def _obeyed(source: _Source, link: _Link) -> bool:
    known = {_plain(row[key] for key in link.keys) for row in source.tables[link.parent].rows}
    pointing = ([row[column] for column in link.columns] for row in source.tables[link.child].rows)
    return all(None in values or _plain(values) in known for values in pointing)


# The rows of a neighbour


@dataclass
class _Keys:
    """The keys of a table and the highest number given out since."""

    values: list[Any]
    last: int
    numeric: bool


class _Draft:
    """The rows of one neighbour in the making; what breaks a rule of the schema is left out when they are written.

    `closeness` says of each table how often its rows were found to have changed too much.
    """

    def __init__(
        self, source: _Source, golds: list[_Gold], rng: random.Random, number: int, closeness: Counter[str]
    ) -> None:
        self.source, self.golds, self.rng = source, golds, rng
        self.tied = number % TIED == TIED - 1
        self.tables = list(source.tables.values())
        self.rows: Rows = {table.name: [list(row) for row in table.rows] for table in self.tables}
        self.strength = {table.name: CLOSER ** closeness[table.name] for table in self.tables}
        self._keys: dict[tuple[str, int], _Keys] = {}

    def derive(self) -> Rows:
        for table in self.tables:
            if table.rows:
                self.drop(table)
            else:
                self.invent(table)
        for link in self.source.links:
            self.point(link)
        for table in self.tables:
            self.change(table)
            self.repeat(table)
        for gold in self.golds:
            self.add_witnesses(gold)
        for gold in self.golds:
            self.resize_groups(gold)
        for table in self.tables:
            self.rows[table.name] = [list(map(_stored, row, table.types)) for row in self.rows[table.name]]
        if self.tied:
            self.tie()
        else:
            self.untie()
        for table in self.tables:
            self.blank(table)
            self.rng.shuffle(self.rows[table.name])
        return self.rows

    # Rows there are

    def invent(self, table: _Table) -> None:
        """Rows for a table without any; `point` gives them partners."""
        self.rows[table.name] = [[_invented(kind, n, self.rng) for kind in table.types] for n in range(1, 9)]

    def drop(self, table: _Table) -> None:
        """Leave out some rows, also such that others point at; `point` gives those other partners."""
        rate = self.rng.choice((0.0, 0.1, 0.3)) * self.strength[table.name]
        kept = [row for row in self.rows[table.name] if self.rng.random() >= rate]
        if len(kept) >= 2:
            self.rows[table.name] = kept

    def point(self, link: _Link) -> None:
        """Give rows other partners, so that some have many and some have none; first the rows that lost theirs."""
        partners = [key for row in self.rows[link.parent] if None not in (key := [row[place] for place in link.keys])]
        if not partners:
            return
        known = {_plain(key) for key in partners}
        favourites = self.rng.sample(partners, -(-len(partners) * 3 // 5))
        rate = self.rng.choice((0.0, 0.2, 0.5)) * self.strength[link.child]
        one_each = any(set(columns) <= set(link.columns) for columns in self.source.tables[link.child].unique)
        for row in self.rows[link.child]:
            value = [row[column] for column in link.columns]
            lost = _plain(value) not in known and self.rng.random() < (0.8 if link.declared else 0.3)
            if None not in value and (lost or (not one_each and self.rng.random() < rate)):
                _put(row, link.columns, self.rng.choice(favourites))

    def change(self, table: _Table) -> None:
        """In some rows, shuffle or repeat the values of a column or move each a little."""
        linked = self.source.linked(table.name)
        for column in sorted(set(range(len(table.columns))) - table.keys):
            share = self.rng.choice((0.0, 0.2, 0.4, 0.7)) * self.strength[table.name]
            rows = [row for row in self.rows[table.name] if self.rng.random() < share]
            values = [row[column] for row in rows]
            how = self.rng.choice(("shuffle", "repeat", "move"))
            if how == "repeat":
                all_values = [row[column] for row in self.rows[table.name]]
                values = [self.rng.choice(all_values) for _ in rows]
            elif how == "shuffle" or column in linked:
                self.rng.shuffle(values)
            else:
                values = [_elsewhere(value, self.rng) for value in values]
            for row, value in zip(rows, values):
                row[column] = value

    def repeat(self, table: _Table) -> None:
        """Copy rows, all the same where there is no key, and sometimes those that point at them."""
        rows = self.rows[table.name]
        chosen = self.rng.choices(rows, k=self.rng.randrange(len(rows) // 8 + 2))
        copies = [(row, self.copy(table, row)) for row in chosen]
        rows += [copied for _, copied in copies]
        for link in self.source.links:
            if link.declared and link.parent == table.name:
                self.copy_partners(link, copies)

    def copy_partners(self, link: _Link, copies: list[tuple[list[Any], list[Any]]]) -> None:
        pointing: dict[tuple[str, ...], list[list[Any]]] = {}
        for row in self.rows[link.child]:
            pointing.setdefault(_plain(row[column] for column in link.columns), []).append(row)
        for row, copied in copies:
            partners = pointing.get(_plain(row[key] for key in link.keys), [])
            for partner in partners[:5] if self.rng.random() < 0.5 else ():
                other = self.copy(self.source.tables[link.child], partner)
                _put(other, link.columns, [copied[key] for key in link.keys])
                self.rows[link.child].append(other)

    def copy(self, table: _Table, row: list[Any], same: int | None = None) -> list[Any]:
        """A copy with keys of its own, but for the column that stays the same and those that point at other rows."""
        copied = list(row)
        linked = self.source.linked(table.name)
        for columns in table.unique:
            own = [column for column in columns if column != same and column not in linked]
            if own:
                fresh = len(columns) == 1
                copied[own[-1]] = self.key(table, own[-1]) if fresh else _elsewhere(copied[own[-1]], self.rng)
        return copied

    def key(self, table: _Table, column: int) -> Any:
        """A key that no row has: the next number, as text in a column of text, or a longer text than one there is."""
        place = (table.name, column)
        if place not in self._keys:
            values = [row[column] for row in table.rows if row[column] is not None]
            numbers = [number for value in values if (number := _number(value)) is not None and abs(number) < 2**60]
            self._keys[place] = _Keys(values, int(max(numbers, default=0)), len(numbers) == len(values))
        keys = self._keys[place]
        keys.last += 1
        if not keys.numeric:
            return f"{self.rng.choice(keys.values)}{keys.last}"
        return str(keys.last) if keys.values and isinstance(keys.values[0], str) else keys.last

    # Rows that golds ask for

    def add_witnesses(self, gold: _Gold) -> None:
        """Add rows that all conditions of a gold hold for, and rows that all but one of them hold for."""
        wanted: dict[_Place, list[_Condition]] = {}
        for condition in gold.conditions:
            wanted.setdefault(condition.place, []).append(condition)
        if all(self.rows[name] for name in gold.sources):
            for _ in range(self.rng.choice((0, 1, 1, 2))):
                self.add_witness(gold, wanted, None)
            for spoilt in wanted:
                if self.rng.random() < 0.5:
                    self.add_witness(gold, wanted, spoilt)

    def add_witness(self, gold: _Gold, wanted: dict[_Place, list[_Condition]], spoilt: _Place | None) -> None:
        """Add one row to each table of a gold, joined as it joins them; `spoilt` is where a condition fails."""
        made: list[list[Any]] = []
        added: dict[int, list[Any]] = {}
        for number, name in enumerate(gold.sources):
            row = self.present(gold, number, made)
            if row is None:
                row = added[number] = self.copy(self.source.tables[name], self.rng.choice(self.rows[name]))
                self.vary(name, row)
            made.append(row)
        for place in gold.extremes:
            self.make_extreme(gold.sources[place.source], made[place.source], place.column)
        for place, conditions in wanted.items():
            row = made[place.source]
            if place.source in added or place.column not in self.source.tables[gold.sources[place.source]].keys:
                row[place.column] = self.fitting(row[place.column], conditions, place == spoilt)
        for join in gold.joins * 2:
            self.join(gold, made, *join)
        for number, row in added.items():
            self.rows[gold.sources[number]].append(row)

    def present(self, gold: _Gold, number: int, made: list[list[Any]]) -> list[Any] | None:
        """The row that a gold names by its key, or at times one made for another SELECT of it on the same table."""
        table = self.source.tables[gold.sources[number]]
        mine = [condition for condition in gold.conditions if condition.place.source == number]
        for (_, column), sign, value in mine:
            if column in table.keys and sign == "=":
                return next((row for row in self.rows[table.name] if _plain([row[column]]) == _plain([value])), None)
        if not mine and table.keys and self.rng.random() < 0.7:
            return next((made[other] for other in range(number) if gold.sources[other] == table.name), None)
        return None

    def vary(self, name: str, row: list[Any]) -> None:
        """Give a row values of its own, so that it shows in what golds select."""
        for column in sorted(set(range(len(row))) - self.source.fixed(name)):
            if self.rng.random() < 0.3 * self.strength[name]:
                row[column] = _elsewhere(row[column], self.rng)

    def make_extreme(self, name: str, row: list[Any], column: int) -> None:
        """Half of the time, let a row have the most or the least where a gold looks for that."""
        values = [other[column] for other in self.rows[name] if other[column] is not None]
        if values and column not in self.source.fixed(name) and self.rng.random() < 0.5:
            pick, step = self.rng.choice(((max, 1), (min, -1)))
            row[column] = _beyond(pick(values, key=_rank), step)

    def fitting(self, value: Any, conditions: list[_Condition], miss: bool) -> Any:
        """A value that as many of the conditions hold for as can, or with `miss` one beside it that fewer hold for."""
        near = [value, *(other for condition in conditions for other in _near(condition, self.rng))]
        self.rng.shuffle(near)
        if self.rng.random() < 0.5:
            near = [*(condition.value for condition in conditions), *near]
        counts = [sum(condition.holds(other) for condition in conditions) for other in near]
        return next((other for other, count in zip(near, counts) if (count == max(counts)) is not miss), value)

    def join(self, gold: _Gold, made: list[list[Any]], left: _Place, right: _Place) -> None:
        """Make two rows meet by writing the key of one into the other."""
        names = [gold.sources[place.source] for place in (left, right)]
        keyed = [place.column in self.source.tables[name].keys for place, name in zip((left, right), names)]
        points = any(link[:4] == (names[0], (left.column,), names[1], (right.column,)) for link in self.source.links)
        if keyed == [False, True] or (keyed == [True, True] and points):
            left, right = right, left
        made[right.source][right.column] = made[left.source][left.column]

    # Groups and extremes

    def resize_groups(self, gold: _Gold) -> None:
        """Bring some group to a size that a gold's HAVING names, or to one beside it."""
        for place, size in gold.groups:
            name, column, groups = self.counted(gold, place)
            if groups and self.rng.random() < 0.7:
                self.resize(name, column, self.rng.choice(list(groups)), size + self.rng.choice((-1, 0, 1)))

    def counted(self, gold: _Gold, place: _Place) -> tuple[str, int, Counter[str]]:
        """Where equal values make up the groups of a gold (of a key, what points there), and the sizes of the groups."""
        name, column = gold.sources[place.source], place.column
        if column in self.source.tables[name].keys:
            for left, right in [pair for join in gold.joins for pair in (join, join[::-1])]:
                other = gold.sources[right.source]
                if left == place and right.column not in self.source.tables[other].keys:
                    name, column = other, right.column
        return name, column, Counter(_plain([row[column]])[0] for row in self.rows[name] if row[column] is not None)

    def resize(self, name: str, column: int, group: str, size: int) -> None:
        table, rows = self.source.tables[name], self.rows[name]
        members = [row for row in rows if row[column] is not None and _plain([row[column]])[0] == group]
        if column in table.keys or not 0 <= size <= MAX_GROUP:
            return
        rows += [self.copy(table, self.rng.choice(members), same=column) for _ in range(size - len(members))]
        others = [row[column] for row in rows if row[column] is not None and _plain([row[column]])[0] != group]
        for row in members[size:] if others else []:
            row[column] = self.rng.choice(others)

    def looked_at(self, sorting: bool) -> Iterator[tuple[str, int]]:
        """The columns that golds sort by, or whose extremes they look for, that may change."""
        places = {
            (gold.sources[place.source], place.column)
            for gold in self.golds
            for place in (gold.sorted_by if sorting else gold.extremes)
        }
        return (pair for pair in sorted(places) if pair[1] not in self.source.fixed(pair[0]))

    def sorted_rows(self, name: str, column: int) -> list[list[Any]]:
        rows = [row for row in self.rows[name] if row[column] is not None]
        return sorted(rows, key=lambda row: _rank(row[column]))

    def tie(self) -> None:
        """Let two rows share each extreme that golds look for."""
        for name, column in self.looked_at(sorting=False):
            rows = self.sorted_rows(name, column)
            between = rows[1:-1]
            others = self.rng.sample(between, min(2, len(between)))
            for row, extreme in zip(others, rows[-1:] + rows[:1]):
                row[column] = extreme[column]

    def untie(self) -> None:
        """Let one row alone have each extreme, one group alone lead, and values that golds sort by differ."""
        for gold in self.golds:
            self.lead(gold)
        for name, column in self.looked_at(sorting=False):
            rows = self.sorted_rows(name, column)
            for extreme, step in ((rows[0], -1), (rows[-1], 1)) if len(rows) > 2 else ():
                if sum(row[column] == extreme[column] for row in rows) > 1:
                    extreme[column] = _beyond(extreme[column], step)
        for name, column in self.looked_at(sorting=True):
            self.spread(name, column)

    def spread(self, name: str, column: int) -> None:
        """Move values that repeat to the next free ones, as far as MAX_SPREAD steps do."""
        seen: set[Any] = set()
        moves = Counter[Any]()
        for row in self.rows[name]:
            first = row[column]
            for _ in range(MAX_SPREAD if row[column] in seen else 0):
                moves[first] += 1
                row[column] = _nth_after(first, moves[first])
                if row[column] not in seen:
                    break
            seen.add(row[column])

    def lead(self, gold: _Gold) -> None:
        for place, largest in gold.ranked:
            name, column, groups = self.counted(gold, place)
            least = min(groups.values(), default=0)
            if groups and largest:
                self.resize(name, column, self.rng.choice(list(groups)), max(groups.values()) + 1)
            for group in [group for group, size in groups.items() if size == least][1:] if not largest else ():
                self.resize(name, column, group, least + 1)

    def blank(self, table: _Table) -> None:
        """More NULLs, in columns where the source has some."""
        for column in sorted(table.nullable - self.source.fixed(table.name)):
            if any(row[column] is None for row in table.rows) and self.rng.random() < 0.5:
                for row in self.rows[table.name]:
                    if self.rng.random() < 0.1:
                        row[column] = None


# Values

_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?!\d)(.*)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?\d{1,15}(?:\.(\d{1,6}))?")
_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def _put(row: list[Any], columns: Iterable[int], values: Iterable[Any]) -> None:
    for column, value in zip(columns, values):
        row[column] = value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _number(value: Any) -> float | None:
    """The number that a value is or reads as; None for any other."""
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else None
    return value if _is_number(value) and math.isfinite(value) else None


def _moved(value: Any, steps: int) -> Any:
    """A number or numeral moved by steps of its last digit, or an ISO date by days; None for any other value."""
    if isinstance(value, int):
        return value + steps if abs(value) < 2**62 else None
    if isinstance(value, float) and abs(value) < 1e15:
        digits = 0 if value.is_integer() else min(6, len(repr(value).partition(".")[2]))
        return round(value + steps * 10.0**-digits, digits)
    if isinstance(value, str) and (numeral := _NUMBER.fullmatch(value)):
        digits = len(numeral[1] or "")
        width = len(value) if value[0] == "0" else 0
        return f"{float(value) + steps * 10.0**-digits:0{width}.{digits}f}"
    if isinstance(value, str) and (day := _DATE.fullmatch(value)):
        try:
            return f"{date(int(day[1]), int(day[2]), int(day[3])) + timedelta(days=steps)}{day[4]}"
        except (ValueError, OverflowError):
            return None
    return None


def _altered(text: str) -> list[str]:
    """Texts that differ in case, at the beginning or at the end."""
    return [text.swapcase(), text + "x", "x" + text, text[:-1], text[1:]]


def _elsewhere(value: Any, rng: random.Random) -> Any:
    """A value of the same kind, not far from this one."""
    moved = _moved(value, rng.choice((-1, 1)) * rng.choice((1, 2, 3, 10, 30)))
    if moved is not None:
        return moved
    if isinstance(value, bytes):
        return value[::-1] + b"x"
    return rng.choice(_altered(value)) if isinstance(value, str) else value


def _beyond(value: Any, step: int) -> Any:
    """A value that sorts right after this one, or before it for a step of -1."""
    moved = _moved(value, step)
    if moved is None and isinstance(value, str):
        return value + "z" if step > 0 else value[:-1]
    return value if moved is None else moved


def _nth_after(value: Any, number: int) -> Any:
    """The number-th of the values that sort after this one."""
    moved = _moved(value, number)
    return f"{value}{number}" if moved is None and isinstance(value, str) else value if moved is None else moved


def _stored(value: Any, kind: str) -> Any:
    """A value as SQLite stores it in a column of a declared type: numerals as numbers, or numbers as text."""
    as_text = "INT" not in kind and re.search("CHAR|CLOB|TEXT", kind)
    if as_text and _is_number(value):
        return str(value)
    numeral = isinstance(value, str) and not as_text and kind not in ("", "BLOB") and _NUMBER.fullmatch(value)
    return (float(value) if numeral[1] else int(value)) if numeral else value


def _near(condition: _Condition, rng: random.Random) -> list[Any]:
    """The value that a condition names and those beside it; for LIKE, texts around its pattern."""
    value = condition.value
    if condition.sign.endswith("LIKE"):
        core = str(value).strip("%").replace("%", rng.choice(("", "ab"))).replace("_", rng.choice("ab"))
        return [core, core + "x", "x" + core, f"x{core}x", core[:-1]]
    moved = [other for steps in (-1, 1, -50, 50) if (other := _moved(value, steps)) is not None]
    return [value, *(moved or (_altered(value) if isinstance(value, str) else []))]


def _holds(cell: Any, sign: str, value: Any) -> bool:
    """Whether a condition holds for a cell, numerals counting as numbers."""
    if cell is None:
        return False
    if sign.endswith("LIKE"):
        pattern = "".join({"%": ".*", "_": "."}.get(letter, re.escape(letter)) for letter in str(value))
        return (re.fullmatch(pattern, str(cell), re.IGNORECASE | re.DOTALL) is not None) is (sign == "LIKE")
    numbers = (_number(cell), _number(value))
    return _TESTS[sign](*((str(cell), str(value)) if None in numbers else numbers))


def _rank(value: Any) -> tuple[int, Any]:
    """SQLite's order over all values but NULL."""
    return (0 if _is_number(value) else 1 if isinstance(value, str) else 2, value)


def _invented(kind: str, number: int, rng: random.Random) -> Any:
    """A value for the number-th row, by the declared type of its column."""
    if "DATE" in kind or "TIME" in kind:
        return f"20{rng.randrange(10, 24)}-{rng.randrange(1, 13):02}-{number:02}"
    if re.search("CHAR|CLOB|TEXT", kind) or not kind:
        return f"{rng.choice(('red', 'green', 'blue'))} {number}"
    return number if "INT" in kind else number + rng.randrange(10) / 2


# Building and checking


def _build(source: _Source, rows: Rows) -> sqlite3.Connection:
    """The neighbour in memory, without rows that break a rule of the schema and without those that then point nowhere."""
    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=0)
    connection.execute(f"PRAGMA encoding = '{source.encoding}'")
    connection.execute("BEGIN")
    for statement in source.creating:
        connection.execute(statement)
    for name, table in source.tables.items():
        columns = ", ".join(map(_quoted, table.columns))
        marks = ", ".join("?" * len(table.columns))
        # OR IGNORE passes over all that a row can break but this: a row number that is no integer.
        fitting = (row for row in rows[name] if table.rowid is None or isinstance(row[table.rowid], int))
        insert = f"INSERT OR IGNORE INTO {_quoted(name)} ({columns}) VALUES ({marks})"
        if connection.executemany(insert, fitting).rowcount < len(rows[name]) / 2:
            connection.executemany(insert, table.rows)
    orphans = [_orphans(source, link) for link in source.links if link.kept]
    while any(connection.execute(f"DELETE {orphan}").rowcount for orphan in orphans):
        pass
    for statement in source.views:
        connection.execute(statement)
    connection.execute("COMMIT")
    return connection


def _orphans(source: _Source, link: _Link) -> str:
    child, parent = source.tables[link.child], source.tables[link.parent]
    own = [f"c.{_quoted(child.columns[column])}" for column in link.columns]
    met = " AND ".join(f"p.{_quoted(parent.columns[key])} = {mine}" for key, mine in zip(link.keys, own))
    given = " AND ".join(f"{mine} NOT NULL" for mine in own)
    partner = f"SELECT 1 FROM {_quoted(parent.name)} AS p WHERE {met}"
    return f"FROM {_quoted(child.name)} AS c WHERE {given} AND NOT EXISTS ({partner})"


@dataclass
class _Check:
    """How the golds fare on one neighbour: `failing` are some, `share` is of those that give rows on the source."""

    failing: list[_Gold] = field(default_factory=list)
    reason: str = ""
    share: float = 0.0
    empty: list[_Gold] = field(default_factory=list)
    undecided: list[_Gold] = field(default_factory=list)


def _check(connection: sqlite3.Connection, golds: list[_Gold]) -> _Check:
    results: list[list[tuple[Any, ...]]] = []
    for gold in golds:
        try:
            results.append(_run(connection, gold.sql))
        except sqlite3.Error as error:
            return _Check(failing=[gold], reason=f"{error}, after {MAX_STEPS} steps" if _over(error) else str(error))
    empty = [gold for gold, rows in zip(golds, results) if gold.gives_rows and not rows]
    share = 1 - len(empty) / max(1, sum(gold.gives_rows for gold in golds))
    undecided = [gold for gold, rows in zip(golds, results) if _left_to_chance(connection, gold, rows)]
    return _Check(share=share, empty=empty, undecided=undecided)


def _left_to_chance(connection: sqlite3.Connection, gold: _Gold, rows: list[tuple[Any, ...]]) -> bool:
    """Whether the data leave open which rows this gold returns or, where it orders, in what order."""
    if any(_tie(connection, query) for query in gold.ties):
        return True
    for query in gold.loose:
        try:
            if any(map(any, _run(connection, query))):
                return True
        except sqlite3.Error:  # a subquery that names rows of the query around it
            continue
    connection.execute("PRAGMA reverse_unordered_selects = ON")
    try:
        others = _run(connection, gold.sql)
    except sqlite3.Error:
        return True
    finally:
        connection.execute("PRAGMA reverse_unordered_selects = OFF")
    return not compare.same_result(rows, others, ordered=compare.is_ordered(gold.sql))[0]


def _tie(connection: sqlite3.Connection, query: _TieQuery) -> bool:
    """Whether rows with equal sort keys, or a NULL among these at the LIMIT, make the result a matter of chance."""
    try:
        rows = _run(connection, query.sql)
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


def _run(connection: sqlite3.Connection, sql: str) -> list[tuple[Any, ...]]:
    """All rows of a reading statement; sqlite3.OperationalError "interrupted" where it takes more than MAX_STEPS."""
    connection.set_progress_handler(lambda: 1, MAX_STEPS)
    connection.set_authorizer(_reading_only)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.set_progress_handler(None, 0)
        # Python 3.10 cannot take an authorizer away; this one allows everything again.
        connection.set_authorizer(lambda *_: sqlite3.SQLITE_OK)


def _over(error: Exception) -> bool:
    return str(error) == "interrupted"


def _reading_only(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """SQLite's authorizer; for a function call `second` is the function's name."""
    reading = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
    function = action == sqlite3.SQLITE_FUNCTION and second != "load_extension"
    return sqlite3.SQLITE_OK if reading or function else sqlite3.SQLITE_DENY
