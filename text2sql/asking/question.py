"""What can be asked: a sentence or two in words."""

from __future__ import annotations

import unicodedata

MAX_CHARACTERS = 2_000


def normalised(question: str) -> str:
    """The question on one line; ValueError for one that is too long, empty or holds what is no text."""
    if len(question) > MAX_CHARACTERS:
        raise ValueError(
            f"the question has {len(question):,} characters, over the {MAX_CHARACTERS:,} that can be asked: "
            "ask for one thing in a sentence or two"
        )
    asked = " ".join(question.split())
    if not asked or any(unicodedata.category(one) in ("Cc", "Cs") for one in asked):
        raise ValueError("the question is empty or holds control characters: ask in words")
    return asked
