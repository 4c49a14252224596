"""Which real names a model meant by one that it began and that does not exist: `air_date` is original_air_date."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHORTEST, SHORTEST_WITHIN, SHORTEST_ALIKE = 3, 4, 5
"""Letters of a name that may begin a word of a real one, stand within it, and be merely like it."""
ALIKE = 0.8
"""difflib's ratio from which two names are alike."""


def meant(begun: bytes, names: Iterable[bytes]) -> frozenset[bytes]:
    """Those of `names` (lower case) that `begun` is likest to, which may be the beginning of a name alone; often none.

    Equal but for underscores and plurals first; then those with a word that begins so; then those that hold it; then the one
    that is like it as a whole.
    """
    key = "".join(_words(begun))
    words = {name: _words(name) for name in names}
    joined = {name: "".join(found) for name, found in words.items()}
    if len(key) < SHORTEST:
        return frozenset()
    if same := spelled_like(begun, joined):
        return same
    begins = (
        name for name, found in words.items() if any(_from(found, at).startswith(key) for at in range(len(found)))
    )
    if found := frozenset(begins):
        return found
    if len(key) >= SHORTEST_WITHIN and (within := frozenset(name for name, text in joined.items() if key in text)):
        return within
    if len(key) < SHORTEST_ALIKE:
        return frozenset()
    ratios = {name: difflib.SequenceMatcher(None, key, text, autojunk=False).ratio() for name, text in joined.items()}
    best = max(sorted(ratios), key=ratios.__getitem__, default=b"")
    return frozenset({best}) if ratios.get(best, 0.0) >= ALIKE else frozenset()


def spelled_like(name: bytes, names: Iterable[bytes]) -> frozenset[bytes]:
    """Those of `names` (lower case) that are `name` but for underscores and plurals."""
    key = "".join(_words(name))
    return frozenset(one for one in names if "".join(_words(one)) == key)


def _words(name: bytes) -> list[str]:
    """The words of a name, without the s of a plural."""
    parts = [part for part in name.decode("utf-8", "replace").split("_") if part]
    return [part[:-1] if len(part) > SHORTEST and part.endswith("s") else part for part in parts]


def _from(words: list[str], at: int) -> str:
    return "".join(words[at:])
