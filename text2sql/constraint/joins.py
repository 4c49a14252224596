"""FROM: its tables and their aliases, joins, brackets around them, USING."""

from __future__ import annotations

from text2sql.constraint import words
from text2sql.constraint.expressions import Expressions
from text2sql.constraint.grammar import (
    NAMED,
    NEW_AFTER_AS,
    NEW_PLAIN,
    OPERATOR,
    QUOTED,
    Expect,
    Place,
    operators,
)
from text2sql.constraint.scope import FROM, ON, Select, Source
from text2sql.constraint.words import Names

BEGIN = words.words("select with")
AS = words.words("as")
OPEN = operators("(")
_JOIN_WORDS = {
    b"natural": "join inner cross left right full",
    b"left": "join outer",
    b"right": "join outer",
    b"full": "join outer",
    b"outer": "join",
    b"inner": "join",
    b"cross": "join",
}


class Joins(Expressions):
    """The part of the grammar that says what a query reads from."""

    # --- FROM

    def expect_source(self, select: Select) -> Expect:
        tables = self.scopes.joinable(select)
        return Expect((tables,), (tables,), operators=frozenset() if select.waits_for_rowid else OPEN)

    def step_source(self, select: Select, kind: str, value: bytes) -> Place | None:
        if kind == OPERATOR:
            return ("nested_source",), select
        columns, is_table = self.scopes.readable(select)[value]
        source = Source(value, columns, is_table and not select.top)  # brackets hide the rowid
        return ("table", 0), self.scopes.changed(select, sources=(*select.sources, source))

    def expect_nested_source(self, select: Select) -> Expect:
        if select.top:  # SQLite loses names in brackets within brackets
            return Expect((BEGIN,))
        return self.expect_source(select)._replace(operators=frozenset()).joined(Expect((BEGIN,)))

    def step_nested_source(self, select: Select, kind: str, value: bytes) -> Place | None:
        if kind == "word" and value in BEGIN.bare:
            return self.nested(select, "derived", value)
        opened = f"j{int(select.joined)}:{select.right_from}:{len(select.sources)}"
        return self.step_source(self.scopes.changed(self.push(select, opened), joined=False), kind, value)

    def joins_closed(self, select: Select) -> Place:
        joined, right_from, _ = select.top[1:].split(":")
        outside = self.scopes.changed(
            self.popped(select), clause=FROM, joined=joined == "1", right_from=int(right_from)
        )
        return ("table", 1), outside

    def expect_table(self, select: Select, stage: int) -> Expect:
        """Stages: an alias may follow, or not."""
        if stage == 0 and self._is_twice(select):
            return self._alias(select, NEW_PLAIN).joined(Expect((AS,)))
        after = self.expect_after(self.scopes.changed(select, clause=ON), b"")
        more: list[Names] = []
        if select.joined:
            more.append(words.words("on"))
            if self.shared(select).quoted:
                more.append(words.words("using"))
        found = after.joined(Expect(tuple(more)))
        return found if stage else found.joined(self._alias(select, NEW_PLAIN)).joined(Expect((AS,)))

    def _is_twice(self, select: Select) -> bool:
        """Whether the last table has the name of another: without an alias, all of its columns would be ambiguous."""
        return not self.scopes.loose and select.sources[-1].name in {source.name for source in select.sources[:-1]}

    def _alias(self, select: Select, new: int) -> Expect:
        if not self.scopes.loose and (new == NEW_PLAIN or self.scopes.forced(select)):
            known = self.scopes.known_aliases(select)
            return Expect((known,), (known,))
        forbidden = {name for name, _ in select.pending if name and not self.scopes.may_be_called(select, name)}
        return Expect(new=new, taken=frozenset(forbidden))

    def step_table(self, select: Select, stage: int, kind: str, value: bytes) -> Place | None:
        if kind == "word" and value == b"as":
            return ("table_alias",), select
        if kind in (QUOTED, NAMED) or (kind == "word" and value not in words.KEYWORDS):
            return self.step_table_alias(select, kind, value)
        return self.leaving(select, kind, value)

    def expect_table_alias(self, select: Select) -> Expect:
        return self._alias(select, NEW_AFTER_AS)

    def step_table_alias(self, select: Select, kind: str, value: bytes) -> Place:
        named = select.sources[-1]._replace(name=value)
        return ("table", 1), self.scopes.changed(select, sources=(*select.sources[:-1], named))

    def expect_join(self, select: Select, allowed: Names, before: bytes) -> Expect:
        return Expect((allowed,))

    def step_join(self, select: Select, allowed: Names, before: bytes, kind: str, value: bytes) -> Place | None:
        if value == b"join":
            joined = before != b"natural"
            return ("source",), self.scopes.changed(select, joined=joined, right_from=len(select.sources))
        return ("join", words.words(_JOIN_WORDS[value]), b"natural" if b"natural" in (before, value) else value), select

    # --- USING

    def shared(self, select: Select) -> Names:
        """The columns that the tables on both sides of the last JOIN have."""
        left, right = select.sources[: select.right_from], select.sources[select.right_from :]
        sides = [frozenset().union(*(source.columns.quoted for source in side)) for side in (left, right)]
        return self.scopes.names(sides[0] & sides[1]).after_dot

    def expect_using(self, select: Select, stage: int) -> Expect:
        if stage == 1:
            return Expect((self.shared(select),), (self.shared(select),))
        return Expect(operators=OPEN if stage == 0 else operators(", )"))

    def step_using(self, select: Select, stage: int, kind: str, value: bytes) -> Place:
        if value == b")" and stage == 2:
            return ("table", 1), self.scopes.changed(select, joined=False)
        return ("using", 2 if stage == 1 else 1), select
