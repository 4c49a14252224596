"""Expressions: operands, operators, functions, CASE, CAST, windows and the subqueries in them."""

from __future__ import annotations

from text2sql.constraint import words
from text2sql.constraint.grammar import (
    NAMED,
    NEW_AFTER_DOT,
    NEW_NAME,
    NUMBER,
    OPERATOR,
    QUOTED,
    STRING,
    WORD,
    Expect,
    Place,
    Rules,
    operators,
)
from text2sql.constraint.scope import ON, ORDER, STAR, Select

VALUE, ITEM, ARGUMENTS, SUBQUERY, EMPTY, SIMPLE_CASE = 1, 2, 4, 8, 16, 32
"""Of an operand. VALUE: a string in double quotes may stand here. ITEM: it begins an item of the select list. ARGUMENTS: it
is the first of a function. SUBQUERY: it is the first thing in a bracket. EMPTY: the bracket may close. SIMPLE_CASE: WHEN
may stand here as well."""
TEXT, CALLED, FILTERED = 1, 2, 4
"""Of what stands before an operator: a string in double quotes, a function that a window may follow, one with a FILTER."""

_SUBQUERY = words.words("select with")
_DISTINCT, _WHEN = words.words("distinct all"), words.words("when")
_OPEN, _DOT, _COMMA_OR_CLOSE = operators("("), operators("."), operators(", )")


_NOTHING = words.words("")
_SHORT_ON = [
    (_NOTHING, operators("=")),
    (words.words("and"), operators("")),
    (_NOTHING, operators("=")),
    (_NOTHING, operators("")),
]
"""What goes on with an ON that is kept short, after so many operators: column = column, perhaps twice."""


class Expressions(Rules):
    """The half of the grammar that begins with an operand."""

    # --- operands

    def expect_operand(self, select: Select, flags: int) -> Expect:
        """A column, a function, a literal, a bracket or a sign; in an ON that is kept short a column alone."""
        known = self.scopes.columns(select) + self.scopes.qualifiers(select)
        if select.flat and select.clause == ON and self.scopes.forced(select) and any(names.quoted for names in known):
            return Expect(known, known)
        free = self.scopes.free_names(select)
        more, also = [words.VALUES, words.OPERAND, words.functions()], set(words.SIGNS) | {b"("}
        if flags & SUBQUERY and self._may_nest(select):
            more.append(_SUBQUERY)
        if flags & ARGUMENTS:
            more.append(_DISTINCT)
        if flags & SIMPLE_CASE:
            more.append(_WHEN)
        if (flags & ARGUMENTS and select.top == "a") or flags & ITEM:
            also.add(b"*")
        if flags & EMPTY:
            also.add(b")")
        return Expect(
            (*known, *more), known, NEW_NAME if free else 0, text=bool(flags & VALUE), string=True, number=True,
            operators=frozenset(also),
        )  # fmt: skip

    def _may_nest(self, select: Select) -> bool:
        """The ORDER BY of a UNION takes no subquery."""
        return not (select.clause == ORDER and select.first is not None)

    def step_operand(self, select: Select, flags: int, kind: str, value: bytes) -> Place | None:
        """On behind the operand's first lexeme; a name is looked up once what follows says whether it qualifies another."""
        if kind in (STRING, NUMBER):
            return ("operator", 0, b""), select
        if kind in (QUOTED, NAMED):
            return ("name", value, kind, flags), select
        if kind == OPERATOR:
            return self._operand_sign(select, flags, value)
        if value in words.OPERAND.bare:
            return self._prefix(select, value, flags)
        if value in words.VALUES.bare:
            return ("operator", 0, b""), select
        if flags & SUBQUERY and value in _SUBQUERY.bare:
            return self.nested(self.scopes.changed(select, parens=select.parens[:-1]), "expr", value)
        if flags & ARGUMENTS and value in _DISTINCT.bare:
            return ("operand", 0), select
        if flags & SIMPLE_CASE and value == b"when":
            return ("operand", 0), self.top(select, "kw")
        return ("name", value, WORD, flags), select

    def _operand_sign(self, select: Select, flags: int, value: bytes) -> Place | None:
        if value == b"(":
            return ("operand", (flags & VALUE) | SUBQUERY), self.push(select, "(v" if flags & VALUE else "(")
        if value == b")":
            return self.closed(select)
        if value == b"*" and flags & ITEM:
            return ("starred",), self.scopes.changed(select, outs=(*select.outs, (b"", STAR)))
        if value == b"*":
            return ("starred_call",), select
        return ("operand", flags & VALUE), select

    def expect_starred_call(self, select: Select) -> Expect:
        return Expect(operators=operators(")"))

    def step_starred_call(self, select: Select, kind: str, value: bytes) -> Place | None:
        return self.closed(select)

    def _prefix(self, select: Select, word: bytes, flags: int) -> Place:
        if word == b"not":
            return ("operand", 0), select
        if word == b"case":
            return ("operand", SIMPLE_CASE), self.push(select, "k")
        return ("bracket", "c" if word == b"cast" else "e"), select

    def expect_bracket(self, select: Select, kind: str) -> Expect:
        return Expect(operators=_OPEN)

    def step_bracket(self, select: Select, opened: str, kind: str, value: bytes) -> Place:
        if opened == "e":
            return ("subquery",), select
        if opened == "o":
            return ("window", 0), self.push(select, "o")
        if opened == "F":
            return ("filter",), select
        return ("operand", 0), self.push(select, opened)

    def expect_subquery(self, select: Select) -> Expect:
        return Expect((_SUBQUERY,))

    def step_subquery(self, select: Select, kind: str, value: bytes) -> Place:
        return self.nested(select, "expr", value)

    # --- names

    def expect_name(self, select: Select, name: bytes, how: str, flags: int) -> Expect:
        found, scopes = Expect(), self.scopes
        if self._is_text(select, name, how, flags):
            found = self.expect_operator(select, TEXT, b"")
        elif scopes.allows(select, name):
            found = self.expect_operator(scopes.refer(select, (b"", name)), 0, name if flags & ITEM else b"")
        also = set()
        if how == WORD and name in words.functions().bare:
            also.add(b"(")
        if any(name in names.quoted for names in scopes.qualifiers(select)) or scopes.free_names(select):
            also.add(b".")
        return found.joined(Expect(operators=frozenset(also)))

    def step_name(self, select: Select, name: bytes, how: str, flags: int, kind: str, value: bytes) -> Place | None:
        if kind == OPERATOR and value == b"(":
            aggregate = name in words.AGGREGATES
            return ("operand", ARGUMENTS | EMPTY | (0 if aggregate else VALUE)), self.push(
                select, "a" if aggregate else "f"
            )
        if kind == OPERATOR and value == b".":
            return ("dot", name, flags), select
        if self._is_text(select, name, how, flags):
            return self.step_operator(select, TEXT, b"", kind, value)
        after = self.scopes.refer(select, (b"", name))
        return self.step_operator(after, 0, name if flags & ITEM else b"", kind, value)

    def _is_text(self, select: Select, name: bytes, how: str, flags: int) -> bool:
        known = any(name in names.quoted for names in self.scopes.columns(select))
        return how == QUOTED and bool(flags & VALUE) and not known

    def expect_dot(self, select: Select, qualifier: bytes, flags: int) -> Expect:
        columns = self.scopes.qualified(select, qualifier)
        new = NEW_AFTER_DOT if self.scopes.free_names(select) else 0
        starred = flags & ITEM and not select.waits_for_rowid
        return Expect(columns, columns, new, operators=frozenset({STAR}) if starred else frozenset())

    def step_dot(self, select: Select, qualifier: bytes, flags: int, kind: str, value: bytes) -> Place:
        if kind == OPERATOR:
            after = self.scopes.changed(select, pending=select.pending | {(qualifier, STAR)})
            return ("starred",), self.scopes.changed(after, outs=(*after.outs, (qualifier, STAR)))
        after = self.scopes.refer(select, (qualifier, value))
        return ("operator", 0, value if flags & ITEM else b""), after

    # --- operators

    def expect_operator(self, select: Select, flags: int, out: bytes) -> Expect:
        """An operator, what the innermost bracket or CASE goes on with, and outside of them the end of the expression."""
        if select.flat and select.clause == ON and self.scopes.forced(select):
            following, signs = _SHORT_ON[min(select.signs, len(_SHORT_ON) - 1)]
            return Expect((following,), operators=signs).joined(self.expect_after(select, out))
        more: list[words.Names] = [words.AFTER_TEXT if flags & TEXT else words.AFTER_OPERAND]
        symbols = set(words.AFTER_TEXT_OPERATORS if flags & TEXT else words.OPERATORS)
        top = select.top
        if top == "b":
            more = [words.words("and not is in like glob match regexp between collate escape isnull notnull")]
            if flags & TEXT:
                more = [words.words("and")]
        if top[:1] in ("(", "i", "f", "a", "o"):
            symbols |= _COMMA_OR_CLOSE
        elif top == "F":
            symbols.add(b")")
        elif top[:1] == "k":
            more.append(_CASE_NEXT[top])
        elif top == "c":
            more.append(words.words("as"))
        if top == "oo":
            more.append(words.words("asc desc nulls rows range groups"))
        elif top == "op":
            more.append(words.words("order rows range groups"))
        if flags & CALLED:
            more.append(words.words("over") if flags & FILTERED else words.words("over filter"))
        found = Expect(tuple(more), operators=frozenset(symbols))
        return found.joined(self.expect_after(select, out)) if select.flat else found

    def step_operator(self, select: Select, flags: int, out: bytes, kind: str, value: bytes) -> Place | None:
        """On to the next operand, out of a bracket, or to what follows the expression."""
        if select.clause == ON and select.flat and self.scopes.forced(select) and value in (b"=", b"and"):
            return ("operand", 0), self.scopes.changed(select, signs=select.signs + 1)
        if kind == OPERATOR and value in words.OPERATORS:
            return ("operand", VALUE), select
        if kind == "word":
            found = self._word_operator(select, value)
            if found is not None:
                return found
            if flags & CALLED and value in (b"over", b"filter"):
                return ("bracket", "o" if value == b"over" else "F"), select
        if select.flat:
            return self.step_after(select, out, kind, value)
        if value == b",":
            return ("operand", VALUE if select.top in ("f", "i", "(v") else 0), select
        if value == b")":
            after, outside = self.closed(select)
            return (("operator", TEXT, b""), outside) if flags & TEXT and select.top == "(v" else (after, outside)
        return self._word_in_brackets(select, value)

    def _word_operator(self, select: Select, word: bytes) -> Place | None:
        if word == b"and" and select.top == "b":
            return ("operand", VALUE), self.popped(select)
        if word in (b"and", b"or"):
            return ("operand", 0), select
        if word == b"not":
            return ("negated",), select
        if word == b"is":
            return ("is", 0), select
        if word == b"in":
            return ("in",), select
        if word in (b"isnull", b"notnull"):
            return ("operator", 0, b""), select
        if word == b"between":
            return ("operand", VALUE), self.push(select, "b")
        if word == b"collate":
            return ("collate",), select
        return (("operand", VALUE), select) if word in words.AFTER_OPERAND.bare else None

    def _word_in_brackets(self, select: Select, word: bytes) -> Place | None:
        top = select.top
        if top == "c" and word == b"as":
            return ("type", 0), select
        if top[:1] == "k":
            if word == b"end":
                return ("operator", 0, b""), self.popped(select)
            simple = "s" if top.endswith("s") or top == "k" else ""
            after = {b"when": "kw", b"then": "kt", b"else": "ke"}[word] + simple
            return ("operand", VALUE if word != b"when" or simple else 0), self.top(select, after)
        if word in (b"rows", b"range", b"groups"):
            return ("frame",), select
        if word == b"order":
            return ("by", "oo"), select
        return ("sorted", word), select

    def expect_negated(self, select: Select) -> Expect:
        return Expect((words.words("in like between glob regexp match null"),))

    def step_negated(self, select: Select, kind: str, value: bytes) -> Place | None:
        if value == b"null":
            return ("operator", 0, b""), select
        return self._word_operator(select, value)

    def expect_is(self, select: Select, stage: int) -> Expect:
        if stage == 2:
            return Expect((words.words("from"),))
        more = words.words("distinct not" if stage == 0 else "distinct")
        return self.expect_operand(select, VALUE).joined(Expect((more,)))

    def step_is(self, select: Select, stage: int, kind: str, value: bytes) -> Place | None:
        if stage == 2:
            return ("operand", VALUE), select
        if kind == "word" and value == b"distinct":
            return ("is", 2), select
        if kind == "word" and value == b"not" and stage == 0:
            return ("is", 1), select
        return self.step_operand(select, VALUE, kind, value)

    def expect_in(self, select: Select) -> Expect:
        tables = self.scopes.names(frozenset(self.scopes.readable(select))).after_dot
        return Expect((tables,), (tables,), operators=_OPEN)

    def step_in(self, select: Select, kind: str, value: bytes) -> Place | None:
        if kind == OPERATOR:
            return ("operand", VALUE | SUBQUERY | EMPTY), self.push(select, "i")
        return ("operator", 0, b""), select

    def expect_collate(self, select: Select) -> Expect:
        return Expect((words.COLLATIONS,))

    def step_collate(self, select: Select, kind: str, value: bytes) -> Place | None:
        return ("operator", 0, b""), select

    # --- CAST and windows

    def expect_type(self, select: Select, stage: int) -> Expect:
        """Stages: nothing yet, a word or more, inside the bracket, after it."""
        if stage == 2:
            return Expect(number=True)
        closing = operators("( )") if stage == 1 else operators(", )") if stage == 3 else operators(")")
        return Expect((words.TYPES,) if stage < 2 else (), operators=closing if stage else frozenset())

    def step_type(self, select: Select, stage: int, kind: str, value: bytes) -> Place | None:
        if kind != OPERATOR:
            return ("type", 3 if kind == NUMBER else 1), select
        if value == b")":
            return (("type", 4), select) if stage == 3 else self.closed(select)
        return ("type", 2), select

    def expect_filter(self, select: Select) -> Expect:
        return Expect((words.words("where"),))

    def step_filter(self, select: Select, kind: str, value: bytes) -> Place | None:
        return ("operand", 0), self.push(select, "F")

    def expect_window(self, select: Select, stage: int) -> Expect:
        return Expect((words.words("partition order rows range groups"),), operators=operators(")"))

    def step_window(self, select: Select, stage: int, kind: str, value: bytes) -> Place | None:
        if value == b")":
            return self.closed(select)
        if value in (b"partition", b"order"):
            return ("by", "op" if value == b"partition" else "oo"), select
        return ("frame",), select

    def expect_by(self, select: Select, opened: str) -> Expect:
        return Expect((words.words("by"),))

    def step_by(self, select: Select, opened: str, kind: str, value: bytes) -> Place | None:
        if opened[:1] == "o":
            return ("operand", 0), self.top(select, opened)
        return ("operand", 0), self.scopes.changed(select, clause=opened[1:])

    def expect_frame(self, select: Select) -> Expect:
        return Expect((words.FRAME,), number=True, operators=operators(")"))

    def step_frame(self, select: Select, kind: str, value: bytes) -> Place | None:
        return self.closed(select) if value == b")" else (("frame",), select)

    # --- brackets

    def push(self, select: Select, opened: str) -> Select:
        return self.scopes.changed(select, parens=(*select.parens, opened))

    def popped(self, select: Select) -> Select:
        return self.scopes.changed(select, parens=select.parens[:-1])

    def top(self, select: Select, opened: str) -> Select:
        return self.scopes.changed(select, parens=(*select.parens[:-1], opened))

    def closed(self, select: Select) -> Place:
        called = {"a": CALLED, "f": CALLED, "F": CALLED | FILTERED}.get(select.top, 0)
        return ("operator", called, b""), self.popped(select)


_CASE_NEXT = {
    "k": words.words("when"),
    "kw": words.words("then"),
    "kws": words.words("then"),
    "kt": words.words("when else end"),
    "kts": words.words("when else end"),
    "ke": words.words("end"),
    "kes": words.words("end"),
}
