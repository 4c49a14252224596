"""Read SQL as Spider's official evaluator reads it: the same texts are understood, the same refused, with equal content.

The rules are those of process_sql.py in github.com/taoyds/test-suite-sql-eval, oddities included. It knows queries of
Spider's kind only and is lenient within them: what follows a whole query is not looked at, conditions need no AND
between them, every LIMIT is LIMIT 1, one direction stands for all of ORDER BY. A table alias needs AS, "=" and "+" need
space around them, and a string cannot hold a quote of either kind.

That script splits text with nltk.word_tokenize (nltk 3.10.4 was measured), which first cuts it into sentences by what
it learnt from newspapers. Its abbreviations are here, its 20,000 word histories are not. They matter only where a full
stop follows an abbreviation or a single letter, and then a word with a capital ("ORDER BY st. Hence ..."): words of SQL
are known here, and any other word of letters only is taken for one that newspapers begin sentences with. Pairs of words
that go together in newspapers ("3. Credit") are not known either.
"""

from __future__ import annotations

import re
import sqlite3
import string
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, Union

MAX_DEPTH = 100
"""Queries inside one another, or in one chain of set operations, before a text is refused; the original fails at about 250."""

Tables = Mapping[str, Sequence[str]]


class Unparsable(ValueError):
    """The text is no query to the official evaluator."""


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


# The words of a text

_STRING = re.compile(r'"[^"]*"')
_MARKS = r";@#$%&?!*()\[\]{}<>"
_PLAIN_WORD = re.compile(rf"(?:[^\s,:{_MARKS}]+|[,:](?=\d))+|[,:{_MARKS}]")
_NOT_PLAIN = re.compile(r"[.,:`-](?:(?<=\.)(?!\w)|(?<=[,:])[,:]|(?<=`)|(?<=-)-)|cannot|gimme|gonna|gotta|lemme|wanna")

_SEPARATOR = re.compile(r"[,:](?:\D|$)")
_SPACED = r" \g<0> "
_APART = re.compile(rf"\.\.+|``|--|[`{_MARKS}«“‘„»”’\u2012-\u2015]")
_SLURRED = re.compile(r"(?i)\b(can(?=not\b)|gim(?=me\b)|gon(?=na\b)|got(?=ta\b)|lem(?=me\b)|wan(?=na\s))(not|me|na|ta)")
_CLOSING = "])}>\"' »”’"


def tokenize(sql: str) -> list[str]:
    """The words of a text in lower case; strings keep their case and get double quotes. Raises Unparsable for odd quotes.

    "<=", ">=" and "!=" are one word, also where a space is inside; "a=1" is one word too, as nothing splits at "=".
    """
    text = sql.replace("'", '"')
    strings: dict[str, str] = {}

    def named(match: re.Match[str]) -> str:
        name = f"__val_{match.start()}_{match.end() - 1}__"
        strings[name] = match[0]
        return name

    if '"' in text:
        if text.count('"') % 2:
            raise Unparsable("a quote that is not closed")
        text = _STRING.sub(named, text)
    words = [strings.get(word, word) for word in _words(text)] if strings else _words(text)
    return _with_comparisons(words) if "=" in words else words


def _words(text: str) -> list[str]:
    """What nltk.word_tokenize makes of a text without quotes, in lower case."""
    if text.isascii():
        lower = text.lower()
        if not _NOT_PLAIN.search(lower):
            return _PLAIN_WORD.findall(lower)
    text = "\n".join(map(_with_last_stop_apart, _sentences(text)))
    # Two characters at a time: of two separators in a row, the second stays with what follows it.
    text = _SEPARATOR.sub(lambda match: f" {match[0][0]} {match[0][1:]}", text)
    text = _SLURRED.sub(r" \1 \2 ", f" {_APART.sub(_SPACED, text)} ")
    return [word.lower() for word in text.split()]


def _with_last_stop_apart(sentence: str) -> str:
    body = sentence.rstrip().rstrip(_CLOSING)
    if len(body) > 1 and body[-1] == "." and body[-2] != ".":
        return f"{body[:-1]} . {sentence[len(body) :]}"
    return sentence


def _with_comparisons(words: list[str]) -> list[str]:
    second = {at for at, word in enumerate(words) if word == "=" and at and words[at - 1] in ("!", ">", "<")}
    if not second:
        return words
    return [word + "=" if at + 1 in second else word for at, word in enumerate(words) if at not in second]


# Sentences: a full stop is split from the word before it at the end of a sentence only.

_BESIDE_WORDS = r"[)\";}\]*:@'({\[‘’“”«»?!]"
_STOP = re.compile(rf"[.?!](?=(?P<after>{_BESIDE_WORDS}|\s+(?P<next>\S+)))")
_RUN = r"--+|\.\.+|(?:\.\s){2,}\."
_CHUNK = re.compile(
    rf"{_RUN}|(?![(\"`{{\[:;&#*@)}}\]\-,])\S+?(?=\s|$|{_BESIDE_WORDS}|{_RUN}|,(?:$|\s|{_BESIDE_WORDS}|{_RUN}))|\S"
)
_CLOSED = re.compile(r"[\"')\]}‘’“”«»]+?(?:\s+|(?=--)|$)", re.MULTILINE)
_INITIAL = re.compile(r"[^\W\d]\.")
_NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*")

_ABBREVIATIONS = frozenset(
    """a.a a.c a.d a.g a.h a.m a.m.e a.s a.t adm ala ariz aug ave b.f b.v bros c c.i.t c.o.m.b c.v calif chg cie co col
    colo conn corp cos ct d d.c d.h d.w dec dr e e.f e.h e.l e.m f f.g f.j feb fla fri ft g g.d g.f g.k ga gen h h.c h.f
    h.m i.m.s ill inc j.b j.c j.j j.k j.p j.r jan jr k kan ky l l.a l.f l.p lt ltd m m.b.a m.d.c m.j maj messrs mg mich
    minn mr mrs ms n n.c n.d n.h n.j n.m n.v n.y nev nov oct ok okla ore p p.a.m p.m pa ph.d prof r r.a r.h r.i r.j r.k
    r.t rep reps s s.a s.a.y s.c s.g s.p.a s.s sen sep sept sr st sw t t.j tenn tues u.k u.n u.s u.s.a u.s.s.r v va vs
    vt w w.c w.r w.va w.w wash wed wis yr""".split()
)
# Words of SQL that the newspapers never wrote small, and that they wrote with a capital inside a sentence.
_NEVER_SMALL = frozenset("asc avg desc intersect max min null".split())
_CAPITAL_INSIDE = frozenset(
    """all and as by case count cross end from group having is join left like limit natural not on or order then union
    where with""".split()
)


def _sentences(text: str) -> Iterator[str]:
    spans, begin = [], 0
    for stop in _ends(text):
        spans.append((begin, stop.end()))
        begin = stop.start("next") if stop["next"] else stop.end()
    spans.append((begin, len(text.rstrip())))
    taken = 0
    for (start, end), following in zip(spans, [*spans[1:], (0, 0)]):
        start += taken
        taken = 0
        # Brackets and quotes that close after the stop belong to the sentence before.
        if closed := _CLOSED.match(text, *following):
            end = following[0] + len(closed[0].rstrip())
            taken = closed.end() - following[0]
        yield text[start:end]


def _ends(text: str) -> Iterator[re.Match[str]]:
    """The stops that end a sentence; of several in one word (between whitespace) only the last is looked at."""
    last, word_start, word_end = None, 0, 0
    for stop in _STOP.finditer(text):
        before = text[word_end : stop.start()]
        space = max(map(before.rfind, string.whitespace))
        start = word_end + space + 1 if space > 0 else word_start
        if last and word_end <= start and _has_break(text[word_start:word_end] + last[0] + last["after"]):
            yield last
        last, word_start, word_end = stop, start, stop.start()
    if last and _has_break(text[word_start:word_end] + last[0] + last["after"]):
        yield last


def _has_break(context: str) -> bool:
    chunks = [chunk for line in context.split("\n") for chunk in _CHUNK.findall(line)]
    return any(_is_break(chunk, following) for chunk, following in pairwise(chunks))


def _is_break(chunk: str, following: str) -> bool:
    """Whether `chunk` ends a sentence when `following` comes after it: the two passes of the Punkt model in one."""
    if not chunk.endswith("."):
        return chunk in ("?", "!")
    word, name = chunk[:-1].lower(), following.removesuffix(".").lower()
    inside = following[0].islower() or following in (";", ":", ",", ".", "!", "?")
    capital = following[0].isupper()
    begins = capital and name.isalpha() and name not in _NEVER_SMALL
    if _INITIAL.fullmatch(chunk):
        return word not in _ABBREVIATIONS and not inside and (begins or not capital)
    if _NUMBER.fullmatch(chunk):
        return not inside
    if word.rpartition("-")[2] in _ABBREVIATIONS or (word and not word.strip(".")):
        return begins and name not in _CAPITAL_INSIDE
    return True


# The grammar

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
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unparsable(f"more than {MAX_DEPTH} queries inside one another")
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
        joined: dict[str, Query] = {}
        if (operation := self.words[self.at]) in ("intersect", "union", "except"):
            self.at += 1
            joined[operation] = self.query()
        self.depth -= 1
        set_operations = joined.get("intersect"), joined.get("union"), joined.get("except")
        return Query(distinct, selected, tables, joined_on, where, group, having, order, limit, *set_operations)

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
