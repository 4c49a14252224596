"""The answers of two runs to the same questions, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from text2sql import runs

FILES = ("predictions.jsonl", "evaluation/predictions.jsonl", "samples.jsonl")
"""Where a run's answers are: those of an evaluation, of one that a training ended with, or of a training's samples."""
PER_PAGE = 20
MAX_TEXT = 20_000
"""Characters of one text on the page."""


@dataclass(frozen=True)
class Said:
    """One run's answer; `correct` is None where it was not judged."""

    sql: str
    correct: bool | None
    verdict: str
    reason: str


@dataclass(frozen=True)
class Pair:
    """One question with the answers of the first run and of the second."""

    question: str
    db_id: str
    gold: str
    first: Said
    second: Said


SHOWN = {
    "all": ("all questions", lambda pair: True),
    "differ": ("one is right", lambda pair: pair.first.correct != pair.second.correct),
    "first": ("only A is right", lambda pair: bool(pair.first.correct) and not pair.second.correct),
    "second": ("only B is right", lambda pair: bool(pair.second.correct) and not pair.first.correct),
    "both": ("both are right", lambda pair: bool(pair.first.correct and pair.second.correct)),
    "neither": ("neither is right", lambda pair: not (pair.first.correct or pair.second.correct)),
}
"""What can be shown, by its name in the address: its name on the page, and which pairs it is."""


def file_of(folder: Path) -> Path | None:
    """The file with a run's answers; None where it has none yet."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def pairs(first: Path, second: Path) -> list[Pair]:
    """The questions that both runs have answered, in the order of the first. ValueError where there is none."""
    one, other = _answers(first), _answers(second)
    found = [
        Pair(text(row, "question"), text(row, "db_id"), text(row, "gold"), _said(row), _said(other[key]))
        for key, row in one.items()
        if key in other
    ]
    if not found:
        counts = f"{len(one):,} and {len(other):,} questions"
        raise ValueError(f"these runs share no question ({counts}): choose two evaluations of the same data")
    return found


def chosen(found: Sequence[Pair], show: str, words: str) -> list[Pair]:
    """The pairs that are asked for: of one kind of SHOWN, with these words in question, SQL or database."""
    _, wanted = SHOWN.get(show, SHOWN["all"])
    needle = words.casefold().strip()
    return [pair for pair in found if wanted(pair) and needle in _haystack(pair)]


def counts(found: Sequence[Pair]) -> dict[str, int]:
    """How many pairs each of SHOWN has."""
    return {name: sum(map(wanted, found)) for name, (_, wanted) in SHOWN.items()}


def _haystack(pair: Pair) -> str:
    return "\n".join([pair.question, pair.db_id, pair.gold, pair.first.sql, pair.second.sql]).casefold()


def _answers(folder: Path) -> dict[tuple[str, str], Mapping[str, Any]]:
    """The rows by id and question; of samples, which come again at every evaluation, the last ones."""
    file = file_of(folder)
    rows = runs.rows(file) if file is not None else ()
    return {(text(row, "id"), text(row, "question")): row for row in rows}


def _said(row: Mapping[str, Any]) -> Said:
    correct = row.get("correct", row.get("matches"))
    judged = correct if isinstance(correct, bool) else None
    return Said(text(row, "prediction"), judged, text(row, "verdict").replace("_", " "), text(row, "reason"))


def text(row: Mapping[str, Any], name: str) -> str:
    """A field as text, whatever it holds, and no longer than MAX_TEXT."""
    value = row.get(name)
    return "" if value is None else str(value)[:MAX_TEXT]
