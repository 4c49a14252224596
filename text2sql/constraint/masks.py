"""The constraint of one schema over one vocabulary: which tokens may come next, and where a text stands after one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from text2sql.constraint.clauses import Grammar
from text2sql.constraint.grammar import Expect, Mode
from text2sql.constraint.lexer import GAP, IN_STRING, IN_WORD, Lexer, Position
from text2sql.constraint.nearest import meant
from text2sql.constraint.resolve import Scopes
from text2sql.constraint.scope import FROM, LIST, ON, Select
from text2sql.constraint.vocabulary import Mask, Trie, Vocabulary, Words
from text2sql.constraint.words import MAX_INVENTED, WORD, Names
from text2sql.example import Schema

MAX_STATES = 200_000
MAX_MASKS = 20_000


class State:
    """Where a text stands; the same object for all texts of one constraint that may go on in the same ways."""

    __slots__ = ("mask", "position", "steps")

    def __init__(self, position: Position) -> None:
        self.position = position
        self.steps: dict[int, State | None] = {}
        self.mask: Mask | None = None


class Spelling(State):
    """Where one of some names has to be spelled out: `left` is what is left of each, in lower case."""

    __slots__ = ("left", "state")

    def __init__(self, state: State, left: frozenset[bytes]) -> None:
        super().__init__(state.position)
        self.state, self.left = state, left


class Constraint:
    """What may be written for `schema`, token by token.

    Every identifier names something, by SQLite's rules of scope, once the text ends; aliases may be made up. Unless
    `loose`, a column is not written before a table of the schema or a CTE has it: what only a later subquery in FROM names
    must be written after it; an alias before its FROM looks like T1, a or s2; that of a column
    has its AS; and ON names no table to its right.
    """

    def __init__(self, schema: Schema, vocabulary: Vocabulary, *, loose: bool = False) -> None:
        self.vocabulary = vocabulary
        self.grammar = Grammar(Scopes(schema, loose))
        self.lexer = Lexer(self.grammar)
        self.loose = loose
        self.asked = self.computed = 0
        tables = self.grammar.scopes.tables
        self._real = frozenset(tables).union(*(columns.quoted for columns in tables.values()))
        self._states: dict[Position, State] = {}
        self._masks: dict[object, Mask] = {}
        self._words: dict[tuple[Names, bytes, bool], NDArray[np.int64]] = {}
        self._start = self._state(Position(GAP, b"", *self.grammar.first()))
        self._ended = self._state(Position(GAP, b"", ("over",), self._start.position.select))

    @property
    def states(self) -> int:
        """How many states are kept."""
        return len(self._states)

    def start(self) -> State:
        return self._start

    def advance(self, state: State, token_id: int) -> State | None:
        """The state after one more token, None where it is not allowed; after EOS nothing is but EOS again."""
        try:
            return state.steps[token_id]
        except KeyError:
            after = state.steps[token_id] = self._advance(state, token_id)
            return after

    def instead(self, tokens: Sequence[int], refused: int) -> tuple[int, State] | None:
        """Where a text of `tokens` was refused a token that begins a name, or goes on with one, which is not there: how many
        of the tokens to keep, at least one, and the state in which only the nearest real names may follow them.

        None where the token is no part of a name, names something that is real elsewhere, or nothing is like it.
        """
        states = [self._start]
        for token_id in tokens:
            states.append(self.advance(states[-1], token_id) or self._ended)
        kept = max((i for i, state in enumerate(states) if state.position.lex != IN_WORD), default=0)
        texts = [self.vocabulary.texts[token_id] or b"" for token_id in (*tokens[kept:], refused)]
        begun = self._begun(states[kept].position, b"".join(texts))
        if not kept or begun is None:
            return None
        start, word, expect = begun
        names = meant(word, {name for some in expect.words for name in some.bare if name in self._real})
        before = b"".join(texts)[:start]
        state = self._spelling(states[kept], frozenset(before + name for name in names))
        return (kept, state) if isinstance(state, Spelling) else None

    def _begun(self, position: Position, text: bytes) -> tuple[int, bytes, Expect] | None:
        """The word in which `text` is refused: where it starts, all of it in lower case, and what could stand there."""
        start, here = 0, position
        for at, byte in enumerate(text):
            there = self.lexer.after(here, byte)
            if there is None:
                done = here if here.lex == IN_WORD else self.lexer.complete(here)
                start = start if here.lex == IN_WORD else at
                found = WORD.match(text, start)
                if done is None or not found or found[0].lower() in self._real:
                    return None
                return start, found[0].lower(), self.grammar.expect(done.mode, done.select)
            if there.lex == IN_WORD and here.lex != IN_WORD:
                start = at
            here = there
        return None

    def _spelling(self, state: State, left: frozenset[bytes]) -> State:
        """`state` where only what is left of some names may follow; itself where one is complete or none can be spelled."""
        if not left or b"" in left:
            return state
        found = Spelling(state, left)
        found.mask = mask = np.zeros(self.vocabulary.size, dtype=bool)
        for name in left:
            node = self.vocabulary.trie
            for byte in name:
                if byte not in node.children:
                    break
                node = node.children[byte]
                mask[node.ids] = True
        mask &= self.mask(state)
        mask.flags.writeable = False
        return found if mask.any() else state

    def _spell(self, state: Spelling, token_id: int) -> State | None:
        after = self.advance(state.state, token_id)
        text = self.vocabulary.texts[token_id] if 0 <= token_id < self.vocabulary.size else None
        left = frozenset(name[len(text) :] for name in state.left if text and name.startswith(text))
        return self._spelling(after, left) if after and left else None

    def _advance(self, state: State, token_id: int) -> State | None:
        if isinstance(state, Spelling):
            return self._spell(state, token_id)
        if token_id == self.vocabulary.eos_token_id:
            return self._ended if self.may_end(state) else None
        text = self.vocabulary.texts[token_id] if 0 <= token_id < self.vocabulary.size else None
        if (
            not text
            or state is self._ended
            or (token_id in self.vocabulary.two_words and not self.mask(state)[token_id])
        ):
            return None
        position: Position | None = state.position
        after = self.lexer.after
        for byte in text:
            position = after(position, byte)  # type: ignore[arg-type]
            if position is None:
                return None
        return self._state(position)  # type: ignore[arg-type]

    def may_end(self, state: State) -> bool:
        return state is self._ended or self.lexer.may_end(state.position)

    def mask(self, state: State) -> Mask:
        """Which tokens are allowed (vocabulary size,): those for which `advance` gives a state. Not to be written to."""
        self.asked += 1
        if state.mask is None:
            state.mask = self._only_eos() if state is self._ended else self._mask(state.position)
        return state.mask

    def _mask(self, position: Position) -> Mask:
        key = self._key(position)
        found = self._masks.get(key)
        if found is None:
            self.computed += 1
            found = self._inside(position) if position.lex != GAP else self._between(position)
            found[self.vocabulary.eos_token_id] = self.lexer.may_end(position)
            found.flags.writeable = False
            if len(self._masks) > MAX_MASKS:
                self._masks.clear()
            self._masks[key] = found
        return found

    def _state(self, position: Position) -> State:
        if len(self._states) > MAX_STATES:
            self._states.clear()
        found = self._states.get(position)
        if found is None:
            found = self._states[position] = State(position)
        return found

    def _only_eos(self) -> Mask:
        mask = np.zeros(self.vocabulary.size, dtype=bool)
        mask[self.vocabulary.eos_token_id] = True
        return mask

    def _between(self, position: Position) -> Mask:
        """The mask where a lexeme begins."""
        expect, tokens = self.grammar.expect(position.mode, position.select), self.vocabulary.spaced
        mask = self._new_words(expect, b"", tokens) if expect.new else np.zeros(self.vocabulary.size, dtype=bool)
        self._known_words(expect, b"", tokens, mask)
        return self._walk(self.vocabulary.not_spaced, position, mask)

    def _inside(self, position: Position) -> Mask:
        """The mask inside a lexeme: tokens that go on with it, and those that may stand after it."""
        vocabulary, (lex, read, mode, select) = self.vocabulary, position
        expect = self.grammar.expect(mode, select)
        if lex == IN_STRING or (lex == b'"' and expect.text) or (lex in (b'"', b"`", b"[") and expect.new):
            return self._with_quotes(position, b"]" if lex == b"[" else lex)
        after = np.frombuffer(bytes(self.lexer.completes(position, byte) for byte in range(256)), dtype=bool)
        done = self.lexer.complete(position) if after.any() else None
        mask = self._mask(done) & after[vocabulary.first_bytes] if done else np.zeros(vocabulary.size, dtype=bool)
        mask[vocabulary.eos_token_id] = False
        trie = vocabulary.trie
        if lex == IN_WORD:
            trie = vocabulary.not_plain
            self._known_words(expect, read, vocabulary.plain, mask)
            if expect.new:
                mask |= self._new_words(expect, read, vocabulary.plain)
        return self._walk(trie, position, mask, frozenset(np.flatnonzero(after).tolist()))

    def _known_words(self, expect: Expect, begun: bytes, tokens: Words, mask: Mask) -> None:
        """Allow the tokens of one word with which a known word may go on."""
        for names in expect.words:
            if begun and begun not in names.begun_bare:
                continue
            key = (names, begun, tokens is self.vocabulary.plain)
            ids = self._words.get(key)
            if ids is None:
                if len(self._words) > MAX_MASKS:
                    self._words.clear()
                ids = self._words[key] = np.array(tokens.going_on(begun, names.begun_bare), dtype=np.int64)
            mask[ids] = True

    def _with_quotes(self, position: Position, quote: bytes) -> Mask:
        """Inside quotes where any text may stand: all tokens without the quote, and some with it."""
        return self._walk(self.vocabulary.holding[quote], position, self.vocabulary.without[quote].copy())

    def _new_words(self, expect: Expect, begun: bytes, tokens: Words) -> Mask:
        """The tokens of one word that begin, or go on with, a word that may be made up."""
        lengths = tokens.lengths
        mask: Mask = lengths < MAX_INVENTED - len(begun)
        texts = tokens.texts
        long = np.flatnonzero((lengths >= MAX_INVENTED - len(begun)) & (lengths < 1000)).tolist()
        for token_id in long:
            mask[token_id] = expect.begins_word(begun + texts[token_id].lower())
        for taken in expect.taken:
            for token_id in tokens.beginning(taken[len(begun) :]) if taken.startswith(begun) else ():
                text = begun + texts[token_id].lower()
                mask[token_id] = all(expect.begins_word(text[:end]) for end in range(len(begun) + 1, len(text) + 1))
        return mask

    def _walk(self, trie: Trie, position: Position, mask: Mask, skipped: frozenset[int] = frozenset()) -> Mask:
        """`mask` with what is allowed among the tokens of `trie`, but for those that begin with a byte in `skipped`."""
        after, allowed = self.lexer.after, []
        stack = [(child, after(position, byte)) for byte, child in trie.children.items() if byte not in skipped]
        while stack:
            node, here = stack.pop()
            if here is None:
                continue
            allowed += node.ids
            for byte, child in node.children.items():
                there = after(here, byte)
                if there is not None:
                    stack.append((child, there))
        mask[allowed] = True
        return mask

    def _key(self, position: Position) -> tuple[object, ...]:
        """What decides which tokens of at most one word are allowed at a position."""
        lex, read, mode, select = position
        seen: Mode = mode[:2] if mode[0] == "operator" else mode
        return lex, read, seen, self._view(select)

    def _view(self, select: Select) -> tuple[object, ...]:
        """What of a SELECT decides on the next word: not the columns written so far, unless something waits for them."""
        if "view" not in select.cache:
            select.cache["view"] = self._viewed(select)
        return select.cache["view"]

    def _viewed(self, select: Select) -> tuple[object, ...]:
        waiting: object = select.pending
        if select.clause == LIST and not select.waits_for_rowid:
            waiting = frozenset(pair for pair in select.pending if pair[0])
        elif select.clause not in (LIST, FROM, ON):
            waiting = ()
        handed_on = (select.outs, select.first) if select.kind in ("derived", "cte") else select.first is not None
        return (
            select.clause, select.kind, select.parens, select.sources, select.right_from, select.joined, select.signs, waiting,
            self.grammar.scopes.columns(select), self.grammar.scopes.leftover(select), select.outward,
            () if select.clause == LIST else select.aliases, handed_on, select.ctes, select.making,
            select.outer and self._view(select.outer), select.back and self._view(select.back),
        )  # fmt: skip


@lru_cache(maxsize=256)
def of(schema: Schema, vocabulary: Vocabulary, loose: bool = False) -> Constraint:
    """The constraint of a schema, made once."""
    return Constraint(schema, vocabulary, loose=loose)
