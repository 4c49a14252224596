"""Find what each name in a query stands for in a schema, by SQLite's rules, and which names stand for nothing.

The rules followed: a column is looked for in the tables of its own SELECT, then among that SELECT's aliases (all clauses
but the select list see them, ORDER BY before the tables), then in the SELECTs around it. A subquery in FROM sees none of
its neighbours. USING and NATURAL merge the columns they name. Names ignore case. A name in double quotes that is found
nowhere is a string; it is reported all the same where only a column makes sense, see `_stands_as_column`.
What a table-valued function or a table of SQLite's own holds is not known here: any column is believed of it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import sqlglot
from sqlglot import expressions as exp

from text2sql.example import Schema, Table

MAX_CHARACTERS = 20_000
MAX_SHOWN, MAX_LISTED = 80, 3
MAX_UNKNOWN = 50
MAX_TABLES = 64
"""SQLite joins no more."""
MAX_BARE_JOINS = 8
"""How many JOINs may go without ON or USING: sqlglot's time doubles with each (30.30: 15 take 0.7 s, 20 half a minute)."""

NO_TABLE, NO_COLUMN, OTHER_TABLE, OTHER_ALIAS, AMBIGUOUS = (
    "hallucinated_table",
    "hallucinated_column",
    "column_of_other_table",
    "column_of_other_alias",
    "ambiguous_column",
)
INVENTED = "?"
"""Stands before the name of a table or column that does not exist, where other names have their table."""

# What is open at the end of the text runs to its end, and nothing here can match in two ways: both keep the time linear.
_COMMENT = r"--[^\n]*|/\*(?:[^*]|\*(?!/))*(?:\*/|$)"
_QUOTED = r"""'(?:[^']|'')*(?:'|$)|"(?:[^"]|"")*(?:"|$)|`(?:[^`]|``)*(?:`|$)|\[[^\]]*(?:\]|$)"""
_LEXEMES = re.compile(rf"{_QUOTED}|{_COMMENT}|(?P<end>;)|(?P<word>\w+)")
_QUERY = re.compile(rf"(?:\s|\(|{_COMMENT})*(?:SELECT|WITH|VALUES)\b", re.IGNORECASE)
_OWN_TABLES = ("sqlite_", "pragma_", "json_each", "json_tree", "generate_series")
_ROWID = ("rowid", "oid", "_rowid_")

Columns = Mapping[str, str]
"""The columns of a table or subquery: as spelt, by name in lower case."""


class Unknown(NamedTuple):
    """A name that stands for nothing, or for too much: its kind of error, the name as written, and a sentence on it."""

    kind: str
    name: str
    detail: str
    is_text: bool = False  # in double quotes: SQLite runs it as a string


class Source(NamedTuple):
    """One item of a FROM clause; `columns` is None when they are not known."""

    name: str  # what qualifies its columns, in lower case; empty for a subquery without alias
    label: str  # what it is, the same for all aliases: "singer", for the second time in one SELECT "singer#2"
    shown: str
    columns: Columns | None


class Cte(NamedTuple):
    columns: Columns | None = None
    query: exp.Expr | None = None


@dataclass
class Scope:
    """What the names in one SELECT may refer to."""

    outer: Scope | None = None
    sources: list[Source] = field(default_factory=list)
    aliases: dict[str, exp.Expr] = field(default_factory=dict)
    merged: set[str] = field(default_factory=set)  # columns named by USING or NATURAL
    using: list[tuple[str, str]] = field(default_factory=list)  # the pairs that these make equal
    joins: list[exp.Join] = field(default_factory=list)
    derived: list[exp.Expr] = field(default_factory=list)  # the queries in FROM


@dataclass(frozen=True)
class Catalog:
    """A schema by names in lower case."""

    tables: Mapping[str, Table]
    columns: Mapping[str, Columns]
    owners: Mapping[str, tuple[str, ...]]


@dataclass
class Reading:
    """A parsed query with what its names stand for.

    `names` gives for each column node, by id(), "label.column", "?column" for one that does not exist, or the expression
    behind an alias or string; `scopes` gives for each SELECT, by id(), what its names refer to.
    """

    tree: exp.Expr
    names: dict[int, str | exp.Expr] = field(default_factory=dict)
    scopes: dict[int, Scope] = field(default_factory=dict)
    unknown: list[Unknown] = field(default_factory=list)


def is_query(text: str) -> bool:
    """Whether the text begins as a query does; prose, and statements that write, do not."""
    return bool(_QUERY.match(text))


def read(sql: str, schema: Schema) -> Reading:
    """Parse the first statement of `sql` and look its names up in `schema`, or in nothing where the schema is empty.

    Raises ValueError, saying why, for a text that is no query or that sqlglot does not parse or would take too long for.
    """
    if len(sql) > MAX_CHARACTERS:
        raise ValueError(f"longer than {MAX_CHARACTERS} characters")
    if not is_query(sql):
        raise ValueError("no query")
    statement = _first_statement(sql)
    try:
        tree = sqlglot.parse_one(statement, read="sqlite")
        if not isinstance(tree, (exp.Query, exp.Values)):
            raise ValueError("no query but another statement")
        walk = _Walk(statement, catalog(schema), Reading(tree))
        walk.query(tree, None, {})
    except sqlglot.errors.SqlglotError as error:
        raise ValueError(str(error).split("\n")[0].removesuffix(".")) from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return walk.reading


@lru_cache(maxsize=256)
def catalog(schema: Schema) -> Catalog:
    columns = {
        table.name.lower(): {column.name.lower(): column.name for column in table.columns} for table in schema.tables
    }
    owners: dict[str, tuple[str, ...]] = {}
    for table in schema.tables:
        for name in columns[table.name.lower()]:
            owners[name] = (*owners.get(name, ()), table.name)
    return Catalog({table.name.lower(): table for table in schema.tables}, columns, owners)


@lru_cache(maxsize=256)
def primary_keys(schema: Schema) -> frozenset[str]:
    """The columns in primary keys, as "table.column" in lower case."""
    return frozenset(
        f"{table.name}.{column.name}".lower()
        for table in schema.tables
        for column in table.columns
        if column.primary_key
    )


@lru_cache(maxsize=256)
def foreign_partners(schema: Schema) -> dict[str, set[str]]:
    """For each column in a foreign key, as "table.column" in lower case, those at the other ends."""
    partners: dict[str, set[str]] = {}
    for table in schema.tables:
        for key in table.foreign_keys:
            for own, foreign in zip(key.columns, key.foreign_columns):
                ends = f"{table.name}.{own}".lower(), f"{key.foreign_table}.{foreign}".lower()
                for end, other in (ends, ends[::-1]):
                    partners.setdefault(end, set()).add(other)
    return partners


def unwrapped(node: exp.Expr) -> exp.Expr:
    """A query without the brackets around it."""
    while isinstance(node, exp.Subquery):
        node = node.this
    return node


def unknown_name(kind: str, name: str, schema: Schema) -> Unknown:
    """The Unknown for a name that SQLite's message calls unknown (`kind` NO_TABLE or NO_COLUMN), without its place."""
    known = catalog(schema)
    if kind == NO_TABLE:
        return Unknown(NO_TABLE, name, _no_table(name, known))
    qualifier, _, column = name.rpartition(".")
    owners = known.owners.get(column.lower(), ())
    if owners:
        return Unknown(
            OTHER_TABLE, column, f"column '{short(name)}' is not where it is read from, but in {listed(owners)}"
        )
    return Unknown(NO_COLUMN, column, _no_column(column, [qualifier] if qualifier else [], {}, known))


def _first_statement(sql: str) -> str:
    """The text up to the first semicolon, which is what SQLite compiles first; ValueError for too many bare JOINs."""
    end, bare_joins = len(sql), 0
    for lexeme in _LEXEMES.finditer(sql):
        if lexeme["end"]:
            end = lexeme.start()
            break
        word = (lexeme["word"] or "").upper()
        bare_joins += (word == "JOIN") - (word in ("ON", "USING"))
    if bare_joins > MAX_BARE_JOINS:
        raise ValueError(f"more than {MAX_BARE_JOINS} joins without ON")
    return sql[:end]


class _Walk:
    """One pass over a query that fills a Reading."""

    def __init__(self, text: str, known: Catalog, reading: Reading) -> None:
        self.text = text
        self.known = known
        self.reading = reading

    def query(self, node: exp.Expr, outer: Scope | None, ctes: Mapping[str, Cte]) -> Columns | None:
        """Look up the names in a query and everything in it; returns its columns, None when they are not known."""
        node = unwrapped(node)
        ctes = self._with(node, outer, ctes)
        if isinstance(node, exp.SetOperation):
            return self._set_operation(node, outer, ctes)
        if isinstance(node, exp.Select):
            return self._select(node, outer, ctes)
        if isinstance(node, exp.Values):
            self._expressions(node.expressions, Scope(outer), ctes)
        return None

    def _with(self, node: exp.Expr, outer: Scope | None, ctes: Mapping[str, Cte]) -> Mapping[str, Cte]:
        definition = node.args.get("with_")
        if definition is None:
            return ctes
        # SQLite lets them name each other in any order, and themselves: until it is read, one may hold anything.
        visible = {**ctes, **{cte.alias.lower(): Cte() for cte in definition.expressions}}
        for cte in definition.expressions:
            columns = self.query(cte.this, outer, visible)
            declared = cte.args["alias"].columns
            if declared:
                columns = {column.name.lower(): column.name for column in declared}
            visible[cte.alias.lower()] = Cte(columns, cte.this)
        return visible

    def _set_operation(self, node: exp.Expr, outer: Scope | None, ctes: Mapping[str, Cte]) -> Columns | None:
        order, parts = node.args.get("order"), []
        while isinstance(node, exp.SetOperation):
            parts.append(node.expression)
            node = node.this
        parts = [unwrapped(part) for part in (node, *reversed(parts))]
        columns = [self.query(part, outer, ctes) for part in parts]
        scopes = [self.reading.scopes[id(part)] for part in parts if id(part) in self.reading.scopes]
        for column in order.find_all(exp.Column) if order else ():
            name = column.name.lower()
            if column.table or not any(known is None or name in known for known in columns):
                found = next((scope for scope in scopes if self._matches(column, scope)), Scope())
                self._column(column, found)
            else:
                self.reading.names[id(column)] = name
        return columns[0]

    def _select(self, node: exp.Select, outer: Scope | None, ctes: Mapping[str, Cte]) -> Columns | None:
        scope = self.reading.scopes[id(node)] = Scope(outer)
        start = node.args.get("from_")
        self._sources([start.this] if start else [], scope, ctes)
        self._sources(node.args.get("joins") or [], scope, ctes)
        self._expressions(node.expressions, scope, ctes)
        scope.aliases = {
            item.alias.lower(): item.this for item in reversed(node.expressions) if isinstance(item, exp.Alias)
        }
        self._expressions([join.args["on"] for join in scope.joins if join.args.get("on")], scope, ctes)
        clauses = ("where", "group", "having", "order", "limit", "offset")
        self._expressions([node.args[clause] for clause in clauses if node.args.get(clause)], scope, ctes)
        self._expressions(node.args.get("windows") or [], scope, ctes)
        return self._output(node, scope)

    def _sources(self, items: Iterable[exp.Expr], scope: Scope, ctes: Mapping[str, Cte]) -> None:
        """Add the items of a FROM clause to the scope, brackets around joins undone."""
        for item in items:
            join = item if isinstance(item, exp.Join) else None
            source = join.this if join else item
            before = len(scope.sources)
            nested = source.args.get("joins") or []
            if isinstance(source, exp.Subquery) and isinstance(source.this, (exp.Table, exp.Subquery)):
                self._sources([source.this], scope, ctes)
            elif isinstance(source, exp.Table):
                scope.sources.append(self._table(source, scope, ctes))
            else:
                columns = self.query(source, scope.outer, ctes)
                scope.derived.append(source)
                scope.sources.append(self._source(source.alias, "(subquery)", columns, scope))
            self._sources(nested, scope, ctes)
            if len(scope.sources) > MAX_TABLES:
                raise ValueError(f"more than {MAX_TABLES} tables in one FROM")
            if join:
                self._merge(join, scope, before)
                scope.joins.append(join)

    def _source(self, name: str, label: str, columns: Columns | None, scope: Scope) -> Source:
        times = sum(source.label.split("#")[0] == label for source in scope.sources)
        numbered = f"{label}#{times + 1}" if times else label
        return Source(name.lower(), numbered, name or "the subquery", columns)

    def _table(self, node: exp.Table, scope: Scope, ctes: Mapping[str, Cte]) -> Source:
        name = node.name or node.this.name
        lower, alias = name.lower(), node.alias or name
        is_function = not isinstance(node.this, exp.Identifier)
        if not is_function and not node.db and lower in ctes:
            if query := ctes[lower].query:
                scope.derived.append(query)
            return self._source(alias, "(subquery)", ctes[lower].columns, scope)
        if lower in self.known.tables and node.db.lower() in ("", "main"):
            source = self._source(alias, lower, self.known.columns[lower], scope)
            return source._replace(shown=self.known.tables[lower].name)
        if is_function:
            self._expressions(node.this.iter_expressions(), scope, ctes)
        if self.known.tables and not lower.startswith(_OWN_TABLES):
            written = f"{node.db}.{name}" if node.db else name
            self.reading.unknown.append(Unknown(NO_TABLE, written, _no_table(written, self.known)))
            return self._source(alias, INVENTED + lower, None, scope)
        return self._source(alias, lower, None, scope)

    def _merge(self, join: exp.Join, scope: Scope, before: int) -> None:
        """Note which columns of the sources from `before` on USING or NATURAL makes one with those to their left."""
        left, right = scope.sources[:before], scope.sources[before:]
        names = [column.name for column in join.args.get("using") or []]
        if join.args.get("method") == "NATURAL":
            shared = {name for source in left for name in source.columns or ()}
            names = [name for source in right for name in source.columns or () if name in shared]
        for name in names:
            pair = [
                next((s for s in side if s.columns is None or name.lower() in s.columns), None)
                for side in (left, right)
            ]
            scope.merged.add(name.lower())
            if pair[0] and pair[1]:
                scope.using.append((f"{pair[0].label}.{name.lower()}", f"{pair[1].label}.{name.lower()}"))
            else:
                self._miss(exp.column(name), left if not pair[0] else right, scope)

    def _output(self, node: exp.Select, scope: Scope) -> Columns | None:
        columns: dict[str, str] = {}
        for item in node.expressions:
            if item.is_star and not isinstance(item, exp.Alias):
                qualifier = item.table.lower() if isinstance(item, exp.Column) else ""
                starred = [source for source in scope.sources if qualifier in ("", source.name)]
                if any(source.columns is None for source in starred):
                    return None
                for source in starred:
                    columns |= source.columns or {}
            else:
                name = item.alias_or_name if isinstance(item, (exp.Alias, exp.Column)) else item.sql("sqlite")
                columns[name.lower()] = name
        return columns

    def _expressions(self, nodes: Iterable[exp.Expr], scope: Scope, ctes: Mapping[str, Cte]) -> None:
        for node in nodes:
            for inner in node.dfs(prune=lambda inner: isinstance(inner, (exp.Query, exp.Column))):
                if isinstance(inner, exp.Query):
                    self.query(inner, scope, ctes)
                elif isinstance(inner, exp.Column) and inner.arg_key == "field" and isinstance(inner.parent, exp.In):
                    self._table(exp.to_table(inner.name), Scope(), ctes)
                elif isinstance(inner, exp.Column):
                    self._column(inner, scope)

    def _column(self, column: exp.Column, scope: Scope) -> None:
        """Note what a column stands for, or that it stands for nothing."""
        name, qualifier = column.name.lower(), column.table.lower()
        if isinstance(column.this, exp.Star):
            if not any(source.name == qualifier for source in scope.sources):
                self._miss_table(column.table)
            return
        found = self._find(column, scope)
        if found and found != INVENTED + name:
            self.reading.names[id(column)] = found
            return
        is_text = not found and self._in_double_quotes(column)
        self.reading.names[id(column)] = exp.Literal.string(column.name) if is_text else INVENTED + name
        # Of a table that does not exist, a column is told only where no table has it.
        if (found and name in self.known.owners) or (is_text and not _stands_as_column(column)):
            return
        looked_in = [source for source in scope.sources if qualifier in ("", source.name)]
        self._miss(column, [] if found else looked_in, scope, is_text)

    def _in_double_quotes(self, column: exp.Column) -> bool:
        return not column.table and self.text[column.this.meta.get("start", 0)] == '"'

    def _find(self, column: exp.Column, scope: Scope) -> str | exp.Expr | None:
        name, prefix, around = column.name.lower(), "", scope
        if not column.table and isinstance(column.parent, exp.Ordered) and name in scope.aliases:
            return scope.aliases[name]
        while True:
            matches = self._matches(column, around)
            if len(matches) > 1 and name not in around.merged:
                places = listed([f"{source.shown} ({source.name})" for source in matches])
                self.reading.unknown.append(Unknown(AMBIGUOUS, column.name, f"'{short(column.sql())}' is in {places}"))
            if matches:
                # Each ^ is one SELECT further out.
                label = matches[0].label
                return INVENTED + name if label.startswith(INVENTED) else f"{prefix}{label}.{name}"
            if not column.table and name in around.aliases:
                return around.aliases[name]
            if around.outer is None:
                return None
            prefix, around = prefix + "^", around.outer

    def _matches(self, column: exp.Column, scope: Scope) -> list[Source]:
        name, qualifier = column.name.lower(), column.table.lower()
        candidates = [source for source in scope.sources if qualifier in ("", source.name)]
        known = [source for source in candidates if source.columns is not None]
        certain = [source for source in known if name in (source.columns or ())]
        if not certain and name in _ROWID and (qualifier or len(scope.sources) == 1):
            certain = known
        if certain or (self._in_double_quotes(column) and not _stands_as_column(column)):
            return certain
        return [source for source in candidates if source.columns is None][:1]

    def _miss_table(self, name: str) -> None:
        table = self.known.tables.get(name.lower())
        if table:
            unknown = Unknown(OTHER_TABLE, name, f"{table.name} is not among the tables of this query")
        else:
            unknown = Unknown(NO_TABLE, name, _no_table(name, self.known))
        self.reading.unknown.append(unknown)

    def _miss(self, column: exp.Column, looked_in: list[Source], scope: Scope, is_text: bool = False) -> None:
        if len(self.reading.unknown) >= MAX_UNKNOWN:
            return
        name, lower = column.name, column.name.lower()
        places = [source.shown for source in looked_in]
        owners = self.known.owners.get(lower)
        if owners:
            here = [f"{source.shown} ({source.name})" for source in scope.sources if lower in (source.columns or ())]
            where = f"{listed(places)} has none" if places else f"no table here is called '{short(column.table)}'"
            unknown = Unknown(
                OTHER_ALIAS if here else OTHER_TABLE,
                name,
                f"column '{short(name)}' is in {listed(here or owners)}; {where}",
                is_text,
            )
        else:
            near = {source.shown: source.columns for source in looked_in or scope.sources if source.columns}
            unknown = Unknown(NO_COLUMN, name, _no_column(name, places, near, self.known), is_text)
        self.reading.unknown.append(unknown)


def _stands_as_column(column: exp.Column) -> bool:
    """Whether a double-quoted name that does not exist stands where only a column makes sense.

    That is: as an item of the select list, in an aggregate function, as a term of GROUP BY or ORDER BY, or to the left
    in a comparison with values. Elsewhere, as to the right in a comparison, it is the string that SQLite takes it for.
    """
    node: exp.Expr = column
    while isinstance(node.parent, (exp.Paren, exp.Distinct, exp.Alias)):
        node = node.parent
    parent = node.parent
    if isinstance(parent, (exp.AggFunc, exp.Group, exp.Ordered)):
        return True
    if isinstance(parent, exp.Select):
        return node.arg_key == "expressions"
    if isinstance(parent, exp.In):
        return node.arg_key == "this" and bool(parent.expressions)
    if not isinstance(parent, exp.Predicate) or node.arg_key != "this":
        return False
    return not any(_may_vary(value) for key, value in parent.args.items() if key != "this")


def _may_vary(value: object) -> bool:
    """Whether a side of a comparison holds a column that is none in double quotes, or a subquery."""
    if not isinstance(value, exp.Expr):
        return False
    return any(
        isinstance(node, exp.Query) or (isinstance(node, exp.Column) and not (node.this.quoted and not node.table))
        for node in value.walk()
    )


def nearest(name: str, candidates: Iterable[str]) -> str:
    """The "table.column" (or table) whose last part is spelt most like `name`, or like its last word; "" if none is."""
    name = name[:MAX_SHOWN].lower()
    by_name = {candidate.rpartition(".")[2].lower(): candidate for candidate in reversed(list(candidates))}
    last_word = name.rpartition("_")[2]
    close = difflib.get_close_matches(name, by_name, n=1, cutoff=0.6)
    if last_word in by_name and not (close and difflib.SequenceMatcher(None, close[0], name).ratio() > 0.85):
        return by_name[last_word]
    holding = [other for other in by_name if min(len(other), len(name)) > 2 and (other in name or name in other)]
    best = close or sorted(holding, key=lambda other: abs(len(other) - len(name)))
    return by_name[best[0]] if best else ""


def _no_table(name: str, known: Catalog) -> str:
    close = nearest(name, [table.name for table in known.tables.values()])
    return f"no table '{short(name)}'" + (f"; nearest: {close}" if close else "")


def _no_column(name: str, places: list[str], near: Mapping[str, Columns], known: Catalog) -> str:
    here = [f"{table}.{column}" for table, columns in near.items() for column in columns.values()]
    everywhere = [f"{table.name}.{column.name}" for table in known.tables.values() for column in table.columns]
    close = nearest(name, here) or nearest(name, everywhere)
    return f"no column '{short(name)}' in {listed(places) or 'any table'}" + (f"; nearest: {close}" if close else "")


def short(name: str) -> str:
    return name if len(name) <= MAX_SHOWN else f"{name[:MAX_SHOWN]}..."


def listed(names: Iterable[str]) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(short(name) for name in unique[:MAX_LISTED]) + (" and others" if len(unique) > MAX_LISTED else "")
