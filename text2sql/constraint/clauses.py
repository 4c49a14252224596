"""The clauses of a query: the select list, WITH, UNION, subqueries, and where each may end; FROM is in `joins`."""

from __future__ import annotations

from text2sql.constraint import words
from text2sql.constraint.expressions import ITEM
from text2sql.constraint.grammar import (
    NAMED,
    NEW_AFTER_AS,
    NEW_PLAIN,
    OPERATOR,
    QUOTED,
    STRING,
    Expect,
    Mode,
    Place,
    operators,
)
from text2sql.constraint.joins import AS, BEGIN, OPEN, Joins
from text2sql.constraint.scope import FROM, GROUP, HAVING, LIMIT, LIST, ON, ORDER, WHERE, WITH, Select, Source
from text2sql.constraint.words import Names

START: Mode = ("start",)
_SELECT = words.words("select")
_COMMA = operators(",")
_NEXT_CLAUSES = {
    LIST: "from where group having order limit union intersect except",
    FROM: "where group having order limit union intersect except",
    ON: "where group having order limit union intersect except",
    WHERE: "group having order limit union intersect except",
    GROUP: "having order limit union intersect except",
    HAVING: "order limit union intersect except",
    ORDER: "limit",
}


class Grammar(Joins):
    """The whole of the grammar."""

    def first(self) -> Place:
        return START, self.scopes.interned(Select(clause=WITH))

    # --- the beginning of a query

    def expect_start(self, select: Select) -> Expect:
        return Expect((BEGIN,))

    def step_start(self, select: Select, kind: str, value: bytes) -> Place | None:
        return self._begun(select, value)

    def _begun(self, select: Select, word: bytes) -> Place:
        if word == b"with":
            return ("cte", 0), select
        return ("items", 0), self.scopes.changed(select, clause=LIST)

    def nested(self, select: Select, kind: str, word: bytes) -> Place:
        outer = select if kind == "expr" else select.outer
        inner = Select(clause=WITH, kind=kind, ctes=select.ctes, outer=outer, back=select)
        return self._begun(self.scopes.interned(inner), word)

    def expect_end(self, select: Select) -> Expect:
        return Expect(may_end=True)

    # --- WITH

    def expect_cte(self, select: Select, stage: int) -> Expect:
        """Stages: at the name; after RECURSIVE; after the name; in its columns; after one; at AS; after AS; after NOT; at (."""
        if stage == 0:
            return Expect((words.words("recursive"),), new=NEW_PLAIN)
        if stage == 1:
            return Expect(new=NEW_PLAIN)
        if stage == 2:
            return Expect((AS,), operators=OPEN)
        if stage == 3:
            return Expect(new=NEW_AFTER_AS)
        if stage == 4:
            return Expect(operators=operators(", )"))
        if stage == 5:
            return Expect((AS,))
        if stage == 6:
            return Expect((words.words("materialized not"),), operators=OPEN)
        return Expect((words.words("materialized"),)) if stage == 7 else Expect(operators=OPEN)

    def step_cte(self, select: Select, stage: int, kind: str, value: bytes) -> Place | None:
        """On through the stages of `expect_cte`; the body in brackets is a query of its own."""
        if stage < 2:
            if stage == 0 and kind == "word" and value == b"recursive":
                return ("cte", 1), select
            return ("cte", 2), self.scopes.changed(select, making=(value, ()))
        assert select.making is not None
        if stage == 3:
            name, columns = select.making
            return ("cte", 4), self.scopes.changed(select, making=(name, (*columns, value)))
        if kind == OPERATOR and stage in (6, 8):
            return ("cte_body",), select
        if kind == OPERATOR:
            return ("cte", 5 if value == b")" else 3), select
        return ("cte", {b"as": 6, b"not": 7, b"materialized": 8}[value]), select

    def expect_cte_body(self, select: Select) -> Expect:
        return Expect((BEGIN,))

    def step_cte_body(self, select: Select, kind: str, value: bytes) -> Place:
        return self.nested(select, "cte", value)

    def expect_cte_after(self, select: Select) -> Expect:
        return Expect((_SELECT,), operators=_COMMA)

    def step_cte_after(self, select: Select, kind: str, value: bytes) -> Place:
        return (("cte", 1), select) if kind == OPERATOR else self._begun(select, value)

    # --- the select list

    def expect_items(self, select: Select, stage: int) -> Expect:
        """Stages: after SELECT, after DISTINCT or a comma."""
        found = self.expect_operand(select, ITEM)
        return found if stage else found.joined(Expect((words.words("distinct all"),)))

    def step_items(self, select: Select, stage: int, kind: str, value: bytes) -> Place | None:
        if not stage and kind == "word" and value in (b"distinct", b"all"):
            return ("items", 1), select
        return self.step_operand(select, ITEM, kind, value)

    def expect_starred(self, select: Select) -> Expect:
        found = self.expect_after(select, b"")
        return found._replace(words=tuple(n for n in found.words if n is not AS), new=0, string=False)

    def step_starred(self, select: Select, kind: str, value: bytes) -> Place | None:
        return self._leaving_item(select, kind, value)

    def expect_alias(self, select: Select) -> Expect:
        return Expect(new=NEW_AFTER_AS, string=True)

    def step_alias(self, select: Select, kind: str, value: bytes) -> Place | None:
        named = self.scopes.changed(select, aliases=select.aliases | {value}, outs=(*select.outs, (b"", value)))
        return ("starred",), named

    # --- the end of an expression

    def expect_after(self, select: Select, out: bytes) -> Expect:
        """The next term or clause, an alias, a closing bracket or the end, which wait for all tables that columns need."""
        clause, also = select.clause, set()
        more: list[Names] = []
        left = self.scopes.leftover(select)
        plain = (
            clause == LIST and self.scopes.loose
        )  # else an alias has its AS: what was barred would end up in one without
        if clause in (LIST, GROUP, ORDER):
            also.add(b",")
        if clause == LIMIT:
            also.add(b",")
            more.append(words.words("offset"))
        if clause == ORDER:
            more.append(words.words("asc desc nulls"))
        if clause == ON:
            if not select.waits_for_rowid:
                more.append(words.JOINS)
                also.add(b",")
            if select.top and len(select.sources) - int(select.top.split(":")[2]) > 1:  # of one, SQLite drops the alias
                also.add(b")")
        if clause == LIST:
            more.append(AS)
        ends = left is not None and not select.parens
        if ends or clause == LIST:
            allowed = _NEXT_CLAUSES.get(clause, "") if ends else "from"
            more.append(words.words(allowed))
        if ends and select.back is not None:
            also.add(b")")
        if ends and select.back is None:
            also.add(b";")
        return Expect(
            tuple(more),
            new=NEW_PLAIN if plain else 0,
            string=plain,
            operators=frozenset(also),
            may_end=ends and select.back is None,
        )

    def step_after(self, select: Select, out: bytes, kind: str, value: bytes) -> Place | None:
        if select.clause != LIST:
            return self.leaving(select, kind, value)
        if kind == "word" and value == b"as":
            return ("alias",), select
        if kind in (QUOTED, NAMED, STRING) or (kind == "word" and value not in words.KEYWORDS):
            return self.step_alias(select, kind, value)
        return self._leaving_item(self.scopes.changed(select, outs=(*select.outs, (b"", out))), kind, value)

    def _leaving_item(self, select: Select, kind: str, value: bytes) -> Place | None:
        if value == b",":
            return ("items", 1), select
        if value == b"from":
            return ("source",), self.scopes.changed(select, clause=FROM)
        return self.leaving(select, kind, value)

    def leaving(self, select: Select, kind: str, value: bytes) -> Place | None:
        """A step out of the clause, or to its next term."""
        if kind == OPERATOR:
            return self._leaving_by_sign(select, value)
        changed = self.scopes.changed
        if value in (b"asc", b"desc", b"nulls"):
            return ("sorted", value), select
        if value == b"offset":
            return ("operand", 0), select
        if value in words.COMPOUND.bare:
            return ("compound", value), self._part(select)
        if value in (b"where", b"group", b"having", b"order", b"limit"):
            left = self.scopes.leftover(select)
            select = changed(select, pending=frozenset(), outward=left or frozenset(), joined=False, right_from=0)
        if value in (b"group", b"order"):
            return ("by", "c" + value.decode()), select
        if value in (b"where", b"having", b"limit"):
            return ("operand", 0), changed(select, clause=value.decode())
        if value == b"on":
            return ("operand", 0), changed(select, clause=ON, joined=False, signs=0)
        if value == b"using":
            return ("using", 0), select
        return self.step_join(changed(select, clause=FROM), words.JOINS, b"", kind, value)

    def _leaving_by_sign(self, select: Select, value: bytes) -> Place | None:
        if value == b";":
            return ("end",), select
        if value == b"," and select.clause in (FROM, ON):
            return ("source",), self.scopes.changed(select, clause=FROM, joined=False, right_from=len(select.sources))
        if value == b",":
            return ("operand", 0), select
        return self.joins_closed(select) if select.top else self._subquery_closed(select)

    def expect_sorted(self, select: Select, word: bytes) -> Expect:
        if word == b"nulls":
            return Expect((words.words("first last"),))
        more = Expect((words.words("nulls"),)) if word in (b"asc", b"desc") else Expect()
        if select.top == "oo":
            return more.joined(Expect((words.words("rows range groups"),), operators=operators(", )")))
        after = self.expect_after(select, b"")
        return more.joined(after._replace(words=(words.words("limit"),) if after.words else ()))

    def step_sorted(self, select: Select, word: bytes, kind: str, value: bytes) -> Place | None:
        if kind == "word" and value in (b"nulls", b"first", b"last"):
            return ("sorted", value), select
        if select.top != "oo":
            return self.leaving(select, kind, value)
        if value == b",":
            return ("operand", 0), select
        return self.closed(select) if value == b")" else (("frame",), select)

    # --- UNION and subqueries

    def _part(self, select: Select) -> Select:
        names = select.output()
        return self.scopes.interned(
            Select(
                clause=WITH, kind=select.kind, ctes=self._with_itself(select, names), outer=select.outer, back=select.back,
                outward=self.scopes.leftover(select) or frozenset(),
                first=names if select.first is None else select.first,
                parts=select.parts | frozenset(names) | select.aliases,
            )
        )  # fmt: skip

    def _with_itself(self, select: Select, names: tuple[bytes, ...]) -> tuple[tuple[bytes, Names], ...]:
        """The CTEs that the next part of a UNION may read: the one being defined is among them, which makes it recursive."""
        if select.kind != "cte" or select.first is not None:
            return select.ctes
        assert select.back is not None and select.back.making is not None
        name, declared = select.back.making
        return self._defined(select.ctes, name, declared or names)

    def _defined(
        self, ctes: tuple[tuple[bytes, Names], ...], name: bytes, columns: tuple[bytes, ...]
    ) -> tuple[tuple[bytes, Names], ...]:
        kept = tuple((other, names) for other, names in ctes if other != name)
        return (*kept, (name, self.scopes.names(frozenset(columns) - {b""})))

    def expect_compound(self, select: Select, word: bytes) -> Expect:
        return Expect((words.words("select all") if word == b"union" else _SELECT,))

    def step_compound(self, select: Select, word: bytes, kind: str, value: bytes) -> Place:
        if value == b"all":
            return ("compound", b"all"), select
        return self._begun(select, value)

    def _subquery_closed(self, select: Select) -> Place:
        back, left, scopes = select.back, self.scopes.leftover(select), self.scopes
        assert back is not None and left is not None
        names = select.output() if select.first is None else select.first
        after = scopes.handed(back, left, skip_own=select.kind != "expr")
        if select.kind == "expr":
            return ("operator", 0, b""), after
        if select.kind == "derived":
            source = Source(b"", scopes.names(frozenset(names) - {b""}), False)
            return ("table", 0), scopes.changed(after, sources=(*after.sources, source))
        assert after.making is not None
        name, declared = after.making
        return ("cte_after",), scopes.changed(
            after, ctes=self._defined(after.ctes, name, declared or names), making=None
        )
