"""Read SQL as Spider's official evaluator reads it: the same texts are understood, the same refused, with equal content.

The rules are those of process_sql.py in github.com/taoyds/test-suite-sql-eval, oddities included. It knows queries of
Spider's kind only and is lenient within them: what follows a whole query is not looked at, conditions need no AND
between them, every LIMIT is LIMIT 1, one direction stands for all of ORDER BY. A table alias needs AS, "=" and "+" need
space around them, and a string cannot hold a quote of either kind.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Union

from text2sql.sql.spider_words import Unparsable, tokenize

MAX_DEPTH = 100
"""Queries inside one another before a text is refused; the original, which has no such limit, fails by 250."""

MAX_CHAIN = 400
"""Queries in one chain of set operations before a text is refused; SQLite runs up to 500."""

_FIELDS = {"intersect": "intersect", "union": "union", "except": "except_"}

Tables = Mapping[str, Sequence[str]]


class Operand(NamedTuple):
    """A column, "__table.column__" or "__all__" for *, under an aggregate: "none", "max", "min", "count", "sum", "avg"."""

    aggregate: str
    column: str
    distinct: bool | None


class Term(NamedTuple):
    """One operand (with operator "none"), or two with "-", "+", "*" or "/" between them."""

    operator: str
    left: Operand
    right: Operand | None


class Condition(NamedTuple):
    """`term` `operator` `value`; `second` is the upper end of BETWEEN. A string value keeps its (double) quotes."""

    negated: bool
    operator: str
    term: Term
    value: Value
    second: Value


class Order(NamedTuple):
    direction: str
    terms: tuple[Term, ...]


class Query(NamedTuple):
    """One SELECT and what a set operation joins to it.

    `selected` pairs aggregates with terms. `tables` are "__table__" or queries. Conditions stand with "and" and "or"
    between them where the text has those; in `joined_on`, "and" stands between the conditions of two joins.
    """

    distinct: bool | None
    selected: tuple[tuple[str, Term], ...]
    tables: tuple[str | Query, ...]
    joined_on: Conditions
    where: Conditions
    group: tuple[Operand, ...]
    having: Conditions
    order: Order | None
    limit: int | None
    intersect: Query | None
    union: Query | None
    except_: Query | None


Value = Union[float, str, Operand, Query, None]
Conditions = tuple[Union[Condition, str], ...]


def read_tables(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """Column names by table name, all in lower case, in the order of creation, SQLite's own tables included.

    Names that need quotes are read as well; the official evaluator ends with an error at a table of such a name.
    """
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid").fetchall()
    columns = "SELECT name FROM pragma_table_info(?) ORDER BY cid"
    return {name.lower(): [column.lower() for (column,) in connection.execute(columns, (name,))] for (name,) in names}


def parse(sql: str, tables: Tables) -> Query:
    """Parse the query at the start of a text; `tables` is what read_tables() returns. Raises Unparsable."""
    words = tokenize(sql)
    try:
        aliases = {words[at + 1]: words[at - 1] for at, word in enumerate(words) if word == "as"}
        if not aliases.keys().isdisjoint(tables):
            raise Unparsable("an alias has the name of a table")
        return _Reader(words, tables, aliases).query()
    except LookupError as error:
        raise Unparsable(f"an unknown name, or an end too early: {error}") from error


_END = "\0"  # no column or keyword has this name
_CLAUSES = frozenset(("select", "from", "where", "group", "order", "limit", "intersect", "union", "except"))
_JOINS = frozenset(("join", "on", "as"))
_AFTER_CLAUSE = _CLAUSES | {")", ";"}
_AFTER_CONDITION = _AFTER_CLAUSE | _JOINS
_AFTER_VALUE = _CLAUSES | _JOINS | {",", ")", "and"}
_COMPARISONS = frozenset(("not", "between", "=", ">", "<", ">=", "<=", "!=", "in", "like", "is", "exists"))
_OPERATORS = frozenset(("none", "-", "+", "*", "/"))
_AGGREGATES = frozenset(("none", "max", "min", "count", "sum", "avg"))


class _Reader:
    """Reads a query from words, each method its own part. IndexError and KeyError mean Unparsable as well."""

    def __init__(self, words: list[str], tables: Tables, aliases: Mapping[str, str]) -> None:
        self.words, self.end, self.at = [*words, _END], len(words), 0
        self.tables, self.aliases = tables, aliases
        self.depth = 0

    def query(self) -> Query:
        """A query with all that set operations join to it, read without going deeper for each of them."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unparsable(f"more than {MAX_DEPTH} queries inside one another")
        chain = [self._single()]
        operations: list[str] = []
        while (operation := self.words[self.at]) in _FIELDS:
            if len(chain) == MAX_CHAIN:
                raise Unparsable(f"more than {MAX_CHAIN} queries in one chain of set operations")
            self.at += 1
            operations.append(operation)
            chain.append(self._single())
        self.depth -= 1
        query = chain.pop()
        while chain:
            joined: dict[str, Any] = {_FIELDS[operations.pop()]: query}
            query = chain.pop()._replace(**joined)
        return query

    def _single(self) -> Query:
        """A query as far as a set operation, if there is one."""
        opened = self._take("(")
        # FROM comes first: it says which tables the names are looked for in.
        start = self.at
        tables, joined_on, scope = self._from()
        after = self.at
        self.at = start
        distinct, selected = self._select(scope)
        self.at = after
        where = self._conditions(scope) if self._take("where") else ()
        group = self._group(scope) if self._take("group") else ()
        having = self._conditions(scope) if self._take("having") else ()
        order = self._order(scope) if self._take("order") else None
        limit = self._limit() if self._take("limit") else None
        self._close(opened)
        return Query(distinct, selected, tables, joined_on, where, group, having, order, limit, None, None, None)

    def _take(self, word: str) -> bool:
        if self.words[self.at] != word:
            return False
        self.at += 1
        return True

    def _expect(self, word: str) -> None:
        if not self._take(word):
            raise Unparsable(f"{self.words[self.at]!r} where {word!r} should be")

    def _close(self, opened: bool) -> None:
        while self._take(";"):
            pass
        if opened:
            self._expect(")")
        while self._take(";"):
            pass

    def _from(self) -> tuple[tuple[str | Query, ...], Conditions, list[str]]:
        """The tables, what they are joined on, and the tables again as keys of `self.tables`, without subqueries."""
        try:
            self.at = self.words.index("from", self.at) + 1
        except ValueError:
            raise Unparsable("no FROM") from None
        tables: list[str | Query] = []
        joined_on: list[Condition | str] = []
        scope: list[str] = []
        while self.at < self.end:
            opened = self._take("(")
            if self.words[self.at] == "select":
                tables.append(self.query())
            else:
                self._take("join")
                scope.append(self._table(self.words[self.at]))
                tables.append(self._identifier(scope[-1]))
                self.at += 3 if self.words[self.at + 1] == "as" else 1
            if self._take("on"):
                if joined_on:
                    joined_on.append("and")
                joined_on += self._conditions(scope)
            if opened:
                self._expect(")")
            if self.words[self.at] in _AFTER_CLAUSE:
                break
        return tuple(tables), tuple(joined_on), scope

    def _select(self, scope: list[str]) -> tuple[bool, tuple[tuple[str, Term], ...]]:
        self._expect("select")
        distinct = self._take("distinct")
        selected = []
        while self.at < self.end and self.words[self.at] not in _CLAUSES:
            aggregate = "none"
            if self.words[self.at] in _AGGREGATES:
                aggregate = self.words[self.at]
                self.at += 1
            selected.append((aggregate, self._term(scope)))
            self._take(",")
        return distinct, tuple(selected)

    def _conditions(self, scope: list[str]) -> Conditions:
        """Conditions up to what cannot follow one; a missing AND or OR does not end them."""
        found: list[Condition | str] = []
        while self.at < self.end:
            term = self._term(scope)
            negated = self._take("not")
            operator = self.words[self.at]
            if operator not in _COMPARISONS:
                raise Unparsable(f"{operator!r} where a comparison should be")
            self.at += 1
            value, second = self._value(scope), None
            if operator == "between":
                self._expect("and")
                second = self._value(scope)
            found.append(Condition(negated, operator, term, value, second))
            word = self.words[self.at]
            if word in _AFTER_CONDITION:
                break
            if word in ("and", "or"):
                found.append(word)
                self.at += 1
        return tuple(found)

    def _value(self, scope: list[str]) -> Value:
        start = self.at
        opened = self._take("(")
        word = self.words[self.at]
        value: Value
        if word == "select":
            value = self.query()
        elif '"' in word:
            value = word
            self.at += 1
        else:
            try:
                value = float(word)
                self.at += 1
            except ValueError:
                value = self._column_as_value(start, scope)
        if opened:
            self._expect(")")
        return value

    def _column_as_value(self, start: int, scope: list[str]) -> Operand:
        """A column, and nothing of what follows up to the next word that ends a value: "a = b + 1" is "a = b"."""
        while self.at < self.end and self.words[self.at] not in _AFTER_VALUE:
            self.at += 1
        inner = _Reader(self.words[start : self.at], self.tables, self.aliases)
        return inner._operand(scope)

    def _group(self, scope: list[str]) -> tuple[Operand, ...]:
        self._expect("by")
        found = []
        while self.at < self.end and self.words[self.at] not in _AFTER_CLAUSE:
            found.append(self._operand(scope))
            if not self._take(","):
                break
        return tuple(found)

    def _order(self, scope: list[str]) -> Order:
        self._expect("by")
        direction, found = "asc", []
        while self.at < self.end and self.words[self.at] not in _AFTER_CLAUSE:
            found.append(self._term(scope))
            if self.words[self.at] in ("desc", "asc"):
                direction = self.words[self.at]
                self.at += 1
            if not self._take(","):
                break
        return Order(direction, tuple(found))

    def _limit(self) -> int:
        """1, whatever the word after LIMIT is."""
        if self.at == self.end:
            raise Unparsable("nothing after LIMIT")
        self.at += 1
        return 1

    def _term(self, scope: list[str]) -> Term:
        opened = self._take("(")
        left, operator, right = self._operand(scope), "none", None
        if self.words[self.at] in _OPERATORS:
            operator = self.words[self.at]
            self.at += 1
            right = self._operand(scope)
        if opened:
            self._expect(")")
        return Term(operator, left, right)

    def _operand(self, scope: list[str]) -> Operand:
        opened = self._take("(")
        aggregate = self.words[self.at]
        if aggregate in _AGGREGATES:
            self.at += 1
            self._expect("(")
            distinct = self._take("distinct")
            column = self._column(scope)
            self._expect(")")
            return Operand(aggregate, column, distinct)  # a bracket before the aggregate is left open
        distinct = self._take("distinct")
        column = self._column(scope)
        if opened:
            self._expect(")")
        return Operand("none", column, distinct)

    def _column(self, scope: list[str]) -> str:
        word = self.words[self.at]
        self.at += 1
        if word == "*":
            return self._identifier(word)
        if "." in word:
            alias, _, column = word.partition(".")
            if "." in column:
                raise Unparsable(f"two full stops in {word}")
            return self._identifier(f"{self._table(alias)}.{column}")
        for name in scope:
            table = self._table(name)
            if word in self.tables[table]:
                return f"__{table}.{word}__"
        raise Unparsable(f"no column {word!r} in {', '.join(scope) or 'no table'}")

    def _table(self, name: str) -> str:
        """What a name stands for: mostly a table, but an alias stands for whatever is before its AS."""
        return name if name in self.tables else self.aliases[name]

    def _identifier(self, name: str) -> str:
        if name in self.tables:
            return f"__{name}__"
        if name == "*":
            return "__all__"
        for stop in re.finditer(r"\.", name):
            if name[stop.end() :] in self.tables.get(name[: stop.start()], ()):
                return f"__{name}__"
        raise Unparsable(f"no column {name}")
