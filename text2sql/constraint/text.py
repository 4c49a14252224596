"""Whole texts against the constraint of a schema: whether one is accepted, and where and why one is not."""

from __future__ import annotations

from functools import lru_cache

from text2sql.constraint.clauses import Grammar
from text2sql.constraint.grammar import Expect
from text2sql.constraint.lexer import GAP, Lexer, Position
from text2sql.constraint.resolve import Scopes
from text2sql.example import Schema

MAX_LISTED = 12


@lru_cache(maxsize=256)
def _lexer(schema: Schema, loose: bool) -> Lexer:
    return Lexer(Grammar(Scopes(schema, loose)))


def accepts(sql: str, schema: Schema, *, loose: bool = False) -> bool:
    """Whether a constrained model could write this text; `loose` as in `Constraint`."""
    return not explain(sql, schema, loose=loose)


def explain(sql: str, schema: Schema, *, loose: bool = False) -> str:
    """Where a text leaves the constraint and what could stand there; empty for one that is accepted."""
    lexer, text = _lexer(schema, loose), sql.encode("utf-8", "replace")
    position = Position(GAP, b"", *lexer.grammar.first())
    for end, byte in enumerate(text):
        after = lexer.after(position, byte)
        if after is None:
            written, rest = (part.decode("utf-8", "replace") for part in (text[:end], text[end:]))
            return f"stops at {rest[:20]!r} after {written[-60:]!r}: {_expected(lexer, position)}"
        position = after
    return "" if lexer.may_end(position) else f"may not end here: {_expected(lexer, position)}"


def _expected(lexer: Lexer, position: Position) -> str:
    """In words, what may stand where the lexeme at `position` began."""
    expect: Expect = lexer.grammar.expect(position.mode, position.select)
    known = sorted({word for names in expect.words for word in names.bare if word.startswith(position.read)})
    listed = [word.decode("utf-8", "replace") for word in known[:MAX_LISTED]] + ["..."] * (len(known) > MAX_LISTED)
    listed += ["a new name"] * bool(expect.new) + ["a string"] * expect.string + ["a number"] * expect.number
    listed += sorted(sign.decode() for sign in expect.operators)[:MAX_LISTED]
    waiting = lexer.grammar.scopes.leftover(position.select) is None
    lacking = [b".".join(part for part in pair if part).decode("utf-8", "replace") for pair in position.select.pending]
    return f"expected {' '.join(listed) or 'the end'}" + (
        f"; without a table so far: {', '.join(sorted(lacking))}" if waiting else ""
    )
