"""The tokens of one tokenizer as bytes, and tries over them, so that many are allowed or refused at once."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

_PLAIN_WORD = re.compile(rb"[A-Za-z0-9_]+")
_SPACED_WORD = re.compile(rb"[ \t\n\r]*[A-Za-z_][A-Za-z0-9_]*")
_TWO_WORDS = re.compile(rb"[\w$\x80-\xff][^\w$\x80-\xff]+[\w$\x80-\xff]")
_TOO_LONG = 10_000
_BYTES = [bytes([byte]) for byte in range(256)]
QUOTES = (b"'", b'"', b"`", b"]")


class Trie:
    """Token ids by the bytes of their texts; what is never walked is never built."""

    __slots__ = ("_children", "_depth", "_texts", "ids")

    def __init__(self, texts: list[tuple[bytes, int]], depth: int = 0) -> None:
        """`texts` are sorted, and alike in their first `depth` bytes."""
        ended = next((i for i, (text, _) in enumerate(texts) if len(text) > depth), len(texts))
        self.ids = [token_id for _, token_id in texts[:ended]]
        self._texts, self._depth = texts[ended:], depth
        self._children: dict[int, Trie] | None = None

    @classmethod
    def of(cls, texts: Iterable[tuple[int, bytes]]) -> Trie:
        return cls(sorted((text, token_id) for token_id, text in texts))

    @property
    def children(self) -> dict[int, Trie]:
        """What follows, by the next byte."""
        if self._children is None:
            groups = groupby(self._texts, key=lambda one: one[0][self._depth])
            self._children = {byte: Trie(list(group), self._depth + 1) for byte, group in groups}
            self._texts = []
        return self._children


class Vocabulary:
    """What each token of a tokenizer writes.

    `texts` are bytes, None for what is never written: special tokens, and ids that are no token. Byte-level BPE and
    sentencepiece are known, with tokens that are parts of a character; `size` may be more than the tokenizer has, where
    the model's head is padded. `two_words` are tokens such as `_._`: they are written in strings only, so that what decides
    on the next token is what decides on the next word. Raises ValueError for a tokenizer without an EOS.
    """

    def __init__(self, tokenizer: Any, size: int | None = None) -> None:
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no EOS token: without one no constrained text can end")
        self.eos_token_id: int = tokenizer.eos_token_id
        self.texts = _texts(tokenizer, size)
        self.size = len(self.texts)
        written = [(i, text) for i, text in enumerate(self.texts) if text]
        self.two_words = frozenset(i for i, text in written if _TWO_WORDS.search(text))
        one = [(i, text) for i, text in written if i not in self.two_words]
        self.trie = Trie.of(one)
        self.first_bytes = np.array([text[0] if text else 0 for text in self.texts], dtype=np.uint8)
        plain = {i: text for i, text in written if _PLAIN_WORD.fullmatch(text)}
        spaced = {i: text for i, text in written if _SPACED_WORD.fullmatch(text)}
        self.plain = Words(self.size, plain)
        self.spaced = Words(self.size, {i: text.lstrip() for i, text in spaced.items()})
        self.not_plain = Trie.of((i, text) for i, text in one if i not in plain)
        self.not_spaced = Trie.of((i, text) for i, text in one if i not in spaced)
        self.without: dict[bytes, Mask] = {}
        self.holding: dict[bytes, Trie] = {}
        for quote in QUOTES:
            free = np.zeros(self.size, dtype=bool)
            free[[i for i, text in written if quote not in text and b"\0" not in text]] = True
            self.without[quote] = free
            self.holding[quote] = Trie.of((i, text) for i, text in one if quote in text)


class Words:
    """The tokens that are one word (a part of one, or with spaces before it): how long, and which in lower case."""

    def __init__(self, size: int, texts: dict[int, bytes]) -> None:
        self.lengths = np.full(size, _TOO_LONG, dtype=np.int32)
        for token_id, text in texts.items():
            self.lengths[token_id] = len(text)
        self.texts = texts
        self.trie = Trie.of((token_id, text.lower()) for token_id, text in texts.items())
        self._sorted = sorted((text.lower(), token_id) for token_id, text in texts.items())

    def going_on(self, begun: bytes, beginnings: frozenset[bytes]) -> list[int]:
        """The tokens after which `begun` is still one of these beginnings."""
        found: list[int] = []
        stack = [(self.trie, begun)]
        while stack:
            node, before = stack.pop()
            for byte, child in node.children.items():
                text = before + _BYTES[byte]
                if text in beginnings:
                    found += child.ids
                    stack.append((child, text))
        return found

    def beginning(self, text: bytes) -> Iterator[int]:
        """The tokens whose text in lower case begins so."""
        for at in range(bisect_left(self._sorted, (text, -1)), len(self._sorted)):
            if not self._sorted[at][0].startswith(text):
                return
            yield self._sorted[at][1]


def _texts(tokenizer: Any, size: int | None) -> list[bytes | None]:
    count = max(size or 0, len(tokenizer), max(tokenizer.get_vocab().values()) + 1)
    texts: list[bytes | None] = [None] * count
    added = tokenizer.added_tokens_decoder
    special = set(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}
    write = _byte_level if _is_byte_level(tokenizer) else _sentencepiece
    for token, token_id in tokenizer.get_vocab().items():
        if token_id not in special:
            texts[token_id] = added[token_id].content.encode() if token_id in added else write(token)
    return texts


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    return '"ByteLevel"' in json.dumps(json.loads(backend.to_str()).get("decoder"))


@lru_cache(maxsize=1)
def _bytes_of_characters() -> dict[int, int]:
    """The alphabet of byte-level BPE: printable bytes stand for themselves, the others for characters from U+0100 on.

    As str.translate takes it; characters that stand for no byte become one that latin-1 cannot encode.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    barred = dict.fromkeys(others, 0xFFFF)
    return barred | {byte: byte for byte in printable} | {256 + n: byte for n, byte in enumerate(others)}


def _byte_level(token: str) -> bytes | None:
    try:
        return token.translate(_bytes_of_characters()).encode("latin-1")
    except UnicodeEncodeError:
        return None


def _sentencepiece(token: str) -> bytes | None:
    byte = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()
