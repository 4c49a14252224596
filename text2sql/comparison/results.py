"""What a comparison of evaluations is made of: the runs, their figures, and the questions that flipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Interval = tuple[float, float]


@dataclass(frozen=True)
class Run:
    """One evaluation: its letter, its folder, its run.json and the rows of its predictions.jsonl by id."""

    name: str
    folder: Path
    stamp: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Result:
    """One run's accuracy, a share of 0 to 1, and its 95 % interval, None where all questions are about one database."""

    run: str
    folder: str
    label: str
    questions: int
    correct: int
    accuracy: float
    interval: Interval | None


@dataclass(frozen=True)
class Flip:
    """A question that one of two runs got right; `reason` is why the other was wrong."""

    id: str
    db_id: str
    question: str
    baseline_verdict: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class Difference:
    """One run minus the baseline, in shares; `gained` are the flips that only the run got right, `lost` the others.

    `p_value` is McNemar's, `p_holm` the same corrected for the number of runs that are compared with the baseline.
    """

    run: str
    difference: float
    interval: Interval | None
    p_value: float
    p_holm: float
    gained: list[Flip]
    lost: list[Flip]


@dataclass(frozen=True)
class Comparison:
    """What compare() found; the first result is the baseline's. `settings` has one text a run, None for no such key."""

    metric: str
    questions: int
    databases: int
    left_out: dict[str, int]
    warnings: list[str]
    resamples: int
    seed: int
    results: list[Result]
    differences: list[Difference]
    settings: dict[str, list[str | None]]
