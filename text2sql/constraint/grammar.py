"""The steps of a query, word by word: what may come next in a SELECT, and what has become of it after that.

A place in a query is a pair (mode, Select). A mode is a tuple of its name and what else matters: flags of an operand, the
word just read. The grammar has three parts: expressions (`expressions`), FROM (`joins`), the clauses around them (`clauses`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from text2sql.constraint.resolve import Scopes
from text2sql.constraint.scope import Select
from text2sql.constraint.words import INVENTED, KEYWORDS, MAX_INVENTED, Names, reserved, reserved_after_dot

Mode = tuple
Place = tuple[Mode, Select]

WORD, QUOTED, NAMED, STRING, NUMBER, OPERATOR = "word", "quoted", "named", "string", "number", "operator"
"""The kinds of lexemes. QUOTED: in double quotes, maybe a string. NAMED: in `x` or [x]. Brackets and commas are OPERATORs."""

NEW_PLAIN, NEW_AFTER_AS, NEW_NAME, NEW_AFTER_DOT = 1, 2, 3, 4
"""How a name may be made up: an alias without AS, one after it, or a column in loose mode."""


class Expect(NamedTuple):
    """What may come next.

    `words` and `quoted` are the known words, bare and between quotes; `new` says whether others may be made up, but for
    `taken`. `text`: double quotes may hold a string. `may_end`: the query may end here.
    """

    words: tuple[Names, ...] = ()
    quoted: tuple[Names, ...] = ()
    new: int = 0
    taken: frozenset[bytes] = frozenset()
    text: bool = False
    string: bool = False
    number: bool = False
    operators: frozenset[bytes] = frozenset()
    may_end: bool = False

    def joined(self, other: Expect) -> Expect:
        """What either of the two lets come next."""
        assert not (self.new and other.new)
        return Expect(
            self.words + other.words,
            self.quoted + other.quoted,
            self.new or other.new,
            self.taken | other.taken,
            self.text or other.text,
            self.string or other.string,
            self.number or other.number,
            self.operators | other.operators,
            self.may_end or other.may_end,
        )

    def takes_word(self, word: bytes) -> bool:
        return any(word in names.bare for names in self.words) or bool(self.new and self.may_be_new(word))

    def begins_word(self, begun: bytes) -> bool:
        """Whether a bare word may begin so."""
        for names in self.words:
            if begun in names.begun_bare:
                return True
        if not self.new or not INVENTED.fullmatch(begun) or len(begun) > MAX_INVENTED:
            return False
        return begun not in self.taken and (len(begun) < MAX_INVENTED or self.may_be_new(begun))

    def may_be_new(self, word: bytes) -> bool:
        if len(word) > MAX_INVENTED or word in self.taken or not INVENTED.fullmatch(word):
            return False
        barred = (
            KEYWORDS if self.new == NEW_PLAIN else reserved_after_dot() if self.new == NEW_AFTER_DOT else reserved()
        )
        return word not in barred

    def takes_quoted(self, name: bytes) -> bool:
        return (bool(self.new) and name not in self.taken) or any(name in n.quoted for n in self.quoted)

    def begins_quoted(self, quote: bytes, begun: bytes) -> bool:
        """Whether a name in quotes may begin so, inner quotes still doubled."""
        if self.new or (self.text and quote == b'"'):
            return quote != b"[" or b"]" not in begun
        return any(begun in names.begun[quote] for names in self.quoted)


def operators(text: str) -> frozenset[bytes]:
    return frozenset(text.encode().split())


class Rules(ABC):
    """What the parts of the grammar share."""

    def __init__(self, scopes: Scopes) -> None:
        self.scopes = scopes

    def expect(self, mode: Mode, select: Select) -> Expect:
        found = select.cache.get(mode)
        if found is None:
            found = select.cache[mode] = getattr(self, f"expect_{mode[0]}")(select, *mode[1:])
        return found

    def step(self, mode: Mode, select: Select, kind: str, value: bytes) -> Place | None:
        """The place after one lexeme that `expect` allows; a word or name comes in lower case."""
        return getattr(self, f"step_{mode[0]}")(select, *mode[1:], kind, value)

    # --- what `clauses` gives the others

    @abstractmethod
    def nested(self, select: Select, kind: str, word: bytes) -> Place:
        """The first place in a subquery of `select`, which begins with `word`."""

    @abstractmethod
    def expect_after(self, select: Select, out: bytes) -> Expect:
        """What may follow an expression that is complete: the next clause, an alias, the end."""

    @abstractmethod
    def step_after(self, select: Select, out: bytes, kind: str, value: bytes) -> Place | None:
        """The place after one lexeme that `expect_after` allows."""

    @abstractmethod
    def leaving(self, select: Select, kind: str, value: bytes) -> Place | None:
        """The place after a word or sign that ends the clause; None where it does not."""
