"""From bytes to lexemes: where a text stands inside a word, a number, a string or between them, one byte at a time."""

from __future__ import annotations

import re
from typing import NamedTuple

from text2sql.constraint.clauses import Grammar
from text2sql.constraint.grammar import (
    NAMED,
    NEW_AFTER_AS,
    NEW_PLAIN,
    NUMBER,
    OPERATOR,
    QUOTED,
    STRING,
    WORD,
    Expect,
    Mode,
)
from text2sql.constraint.scope import Select

GAP, IN_WORD, IN_NUMBER, IN_SIGN, IN_STRING, STRING_ENDS = b"", b"w", b"0", b"=", b"'", b"''"
"""Where a text stands in a lexeme. Inside a name in quotes it is the quote, at its end (unless another follows) that twice."""
UNKNOWN = b"\0"
"""Instead of the text of a string in double quotes that is no name for certain."""

_SPACE = frozenset(b" \t\n\r")
_DIGIT = frozenset(b"0123456789")
_LETTER = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_") | frozenset(range(128, 256))
_IN_WORD = _LETTER | _DIGIT | frozenset(b"$")
_LOWER = [bytes([byte]).lower() for byte in range(256)]
_ONE = frozenset(b"(),;.*+%~&")
"""Signs that begin no longer one."""
_BEGUN_NUMBER = re.compile(rb"\d+(\.\d*)?([eE][+-]?\d*)?|\.(\d+([eE][+-]?\d*)?)?")
_NUMBER = re.compile(rb"(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


class Position(NamedTuple):
    """Where a text stands: in which lexeme, what was read of it, and in the grammar the place before it."""

    lex: bytes
    read: bytes
    mode: Mode
    select: Select


LONGEST_NUMBER = 24
"""Characters: more than any number in SQLite's own types has, and fewer than a model writes that has lost its way."""


class Lexer:
    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.loose = grammar.scopes.loose

    def after(self, position: Position, byte: int) -> Position | None:
        """The position one byte further, None where no query of this schema goes on so."""
        lex, read, mode, select = position
        if lex == GAP:
            return self._begin(position, byte)
        if lex == IN_WORD:
            if byte in _IN_WORD:
                read += _LOWER[byte]
                return (
                    Position(lex, read, mode, select) if self.grammar.expect(mode, select).begins_word(read) else None
                )
            if read == b"x" and byte == 39:  # that would be a blob
                return None
        elif lex == IN_STRING:
            if byte == 39:
                return Position(STRING_ENDS, read, mode, select)
            return self._kept(position, byte) if byte else None
        elif lex == IN_NUMBER:
            if self._in_number(read, byte):
                if len(read) >= LONGEST_NUMBER - (0 if byte in _DIGIT else 4) and not self.loose:
                    return None  # early enough for an exponent to be complete
                read += bytes([byte])
                return Position(lex, read, mode, select) if _BEGUN_NUMBER.fullmatch(read) else None
        elif lex == IN_SIGN:
            longer = read + bytes([byte])
            if longer == b"--":
                return None
            if any(sign.startswith(longer) for sign in self.grammar.expect(mode, select).operators):
                return Position(lex, longer, mode, select)
        elif lex == STRING_ENDS:
            if byte == 39:
                return self._kept(Position(IN_STRING, read, mode, select), byte)
        elif len(lex) == 1:
            return self._in_quotes(position, byte)
        elif byte == lex[0]:
            return self._quoted(Position(lex[:1], read, mode, select), lex)
        done = self.complete(position)
        return self._begin(done, byte) if done else None

    def _begin(self, position: Position, byte: int) -> Position | None:
        """The first byte after a lexeme."""
        if byte in _SPACE:
            return position
        _, _, mode, select = position
        expect = self.grammar.expect(mode, select)
        if byte in _LETTER:
            return Position(IN_WORD, _LOWER[byte], mode, select) if expect.begins_word(_LOWER[byte]) else None
        if byte in _DIGIT or (byte == 46 and expect.number):
            return Position(IN_NUMBER, bytes([byte]), mode, select) if expect.number else None
        if byte == 39:
            return Position(IN_STRING, b"", mode, select) if expect.string else None
        sign = bytes([byte])
        if sign in b'"`[':
            return Position(sign, b"", mode, select) if expect.begins_quoted(sign, b"") else None
        if byte in _ONE:
            if sign not in expect.operators:
                return None
            place = self.grammar.step(mode, select, OPERATOR, sign)
            return Position(GAP, b"", *place) if place else None
        begun = any(operator.startswith(sign) for operator in expect.operators)
        return Position(IN_SIGN, sign, mode, select) if begun else None

    def _kept(self, position: Position, byte: int) -> Position:
        """One more byte in a string, remembered where it is to name something."""
        if self.grammar.expect(position.mode, position.select).new not in (NEW_PLAIN, NEW_AFTER_AS):
            return position if position.lex == IN_STRING else Position(IN_STRING, b"", *position[2:])
        return Position(IN_STRING, position.read + _LOWER[byte], *position[2:])

    def _in_quotes(self, position: Position, byte: int) -> Position | None:
        lex, read, mode, select = position
        if not byte:
            return None
        if lex == b"[":
            return (
                self.complete(Position(b"[]", read, mode, select))
                if byte == 93
                else self._quoted(position, _LOWER[byte])
            )
        if byte != lex[0]:
            return self._quoted(position, _LOWER[byte])
        expect = self.grammar.expect(mode, select)
        name = read.replace(lex + lex, lex)
        if self._is_complete(expect, lex, name) or expect.begins_quoted(lex, read + lex + lex):
            return Position(lex + lex, read, mode, select)
        return None

    def _quoted(self, position: Position, more: bytes) -> Position | None:
        """`more` within a name in quotes; two quotes stand for one."""
        lex, read, mode, select = position
        if read == UNKNOWN:
            return position
        expect, longer = self.grammar.expect(mode, select), read + more
        if lex == b'"' and expect.text and not self.loose:
            known = any(longer in names.begun[lex] for names in expect.quoted)
            return Position(lex, longer if known else UNKNOWN, mode, select)
        return Position(lex, longer, mode, select) if expect.begins_quoted(lex, longer) else None

    def _is_complete(self, expect: Expect, quote: bytes, name: bytes) -> bool:
        if quote == b'"' and expect.text:
            return True
        return bool(name) and expect.takes_quoted(name)

    def completes(self, position: Position, byte: int) -> bool:
        """Whether this byte cannot belong to the lexeme that `position` is in, but may stand after it."""
        lex, read, mode, select = position
        if lex == IN_WORD:
            return byte not in _IN_WORD and not (read == b"x" and byte == 39)
        if lex == IN_NUMBER:
            return not self._in_number(read, byte)
        if lex == IN_SIGN:
            longer = read + bytes([byte])
            begun = any(sign.startswith(longer) for sign in self.grammar.expect(mode, select).operators)
            return longer != b"--" and not begun
        return len(lex) == 2 and byte != lex[0]

    @staticmethod
    def _in_number(read: bytes, byte: int) -> bool:
        return byte in _IN_WORD or byte == 46 or (byte in b"+-" and read[-1:] in (b"e", b"E"))

    def complete(self, position: Position) -> Position | None:
        """The position after the lexeme that `position` is in, None where it is not complete or not allowed."""
        lex, read, mode, select = position
        grammar, kind = self.grammar, WORD
        if lex == GAP:
            return position
        expect = grammar.expect(mode, select)
        if lex == IN_WORD:
            if not expect.takes_word(read):
                return None
        elif lex == IN_NUMBER:
            kind = NUMBER
            if not _NUMBER.fullmatch(read):
                return None
        elif lex == IN_SIGN:
            kind = OPERATOR
            if read not in expect.operators:
                return None
        elif lex == STRING_ENDS:
            kind = STRING
            if expect.new in (NEW_PLAIN, NEW_AFTER_AS) and (not read or read in expect.taken):
                return None
        elif len(lex) == 2:
            kind, quote = QUOTED if lex == b'""' else NAMED, lex[:1]
            read = read if quote == b"[" else read.replace(lex, quote)
            if not self._is_complete(expect, quote, read):
                return None
        else:
            return None
        place = grammar.step(mode, select, kind, read)
        return Position(GAP, b"", *place) if place else None

    def may_end(self, position: Position) -> bool:
        done = self.complete(position)
        return done is not None and self.grammar.expect(done.mode, done.select).may_end
