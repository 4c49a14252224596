"""Puts the results of a repeated run beside those of the first, and says which are within tolerance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from text2sql import evaluation, runs
from text2sql.columns import aligned
from text2sql.reproduction.differences import Difference
from text2sql.reproduction.plan import Plan

SAME, OTHER = 1e-6, 1e-2
"""Relative tolerances of a loss: on the same CPU with the same versions, and on a GPU or where those differ. The first was
met to the digit in every run tried; the second is a choice."""
LOSSES = ("train/loss", "validation/loss", "forgetting/loss_before", "forgetting/loss_after")
COUNTS = (
    "train/steps train/examples train/tokens train/too_long train/prompts_shortened validation/examples eval/examples"
).split()
ACCURACIES = (
    "eval/execution_accuracy eval/strict_execution_accuracy eval/official_execution_accuracy eval/exact_match"
).split()


@dataclass(frozen=True)
class Row:
    """One result of both runs. `within` is None where it differs and no tolerance is defined for it."""

    metric: str
    expected: str
    got: str
    difference: str
    within: bool | None


def tolerance(plan: Plan, found: Sequence[Difference]) -> float:
    """The relative tolerance of losses, by what differs here."""
    return OTHER if plan.recorded.stamp.get("gpu") or any(one.loosens for one in found) else SAME


def compare(first: Path, again: Path, of_losses: float, asked: float | None = None) -> list[Row]:
    """The results of two run folders, row by row.

    Losses may differ by `of_losses`, relatively; accuracies within the 95 % interval of the first; counts not at all. With
    `asked`, a tolerance, losses may differ by so much relatively, and accuracies, which are shares, absolutely.
    """
    of_losses = of_losses if asked is None else asked
    expected, got = _metrics(first), _metrics(again)
    rows = list(_by_step(first, again, of_losses))
    for key in (*LOSSES, *COUNTS, *ACCURACIES):
        if key not in expected and key not in got:
            continue
        if key not in expected or key not in got:
            rows.append(Row(key, _number(expected.get(key)), _number(got.get(key)), "-", False))
        elif key in ACCURACIES:
            rows.append(_accuracy(key, expected, got, asked))
        else:
            off = relative(expected[key], got[key])
            within = off <= (0 if key in COUNTS else of_losses)
            rows.append(Row(key, _number(expected[key]), _number(got[key]), f"{off:.1e}" if off else "0", within))
    return [*rows, *_bytes(first, again), *_answers(first, again)]


def _metrics(run: Path) -> dict[str, float]:
    path = run / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def relative(expected: float, got: float) -> float:
    """How far `got` lies from `expected`, as a share of it, or absolutely where that is 0."""
    if expected == got:
        return 0.0
    return abs(got - expected) / (abs(expected) or 1.0)


def _by_step(first: Path, again: Path, tolerated: float) -> Iterator[Row]:
    """The sequence of losses, training's and validation's, as one row each."""
    for key, name in (("loss", "train/loss by step"), ("eval_loss", "validation/loss by step")):
        old, new = ({row["step"]: row[key] for row in _history(run) if key in row} for run in (first, again))
        if not old and not new:
            continue
        if old.keys() != new.keys():
            yield Row(name, f"{len(old)} values", f"{len(new)} values", "other steps", False)
            continue
        off, step = max((relative(old[step], new[step]), -step) for step in old)
        worst = f"{off:.1e} at step {-step}" if off else "0"
        yield Row(name, f"{len(old)} values", f"{len(new)} values", worst, off <= tolerated)


def _history(run: Path) -> list[dict[str, Any]]:
    return runs.read_jsonl(run / "history.jsonl")


def _accuracy(key: str, expected: dict[str, float], got: dict[str, float], asked: float | None) -> Row:
    examples = round(expected.get("eval/examples", 0))
    low, high = evaluation.wilson_interval(round(expected[key] * examples), examples)
    off = got[key] - expected[key]
    shown = f"{100 * expected[key]:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
    within = low <= got[key] <= high or off == 0 if asked is None else abs(off) <= asked
    return Row(key, shown, f"{100 * got[key]:.1f} %", f"{100 * off:+.1f}" if off else "0", within)


def _bytes(first: Path, again: Path) -> Iterator[Row]:
    """The adapters, by their weights' hash; a run in which they were deleted may have recorded it."""
    recorded = json.loads((first / "run.json").read_text(encoding="utf-8"))
    old = runs.adapter_sha256(first / "adapter")
    if old is None and recorded.get("kind") == "train":
        old = recorded.get("adapter_sha256")
    new = runs.adapter_sha256(again / "adapter")
    if old is not None:
        yield Row("adapter", old[:12], (new or "none")[:12], "0" if old == new else "other bytes", old == new or None)


def _answers(first: Path, again: Path) -> Iterator[Row]:
    """How many answers are the same to the letter: those scored, and a training's live samples."""
    for name in ("predictions.jsonl", "evaluation/predictions.jsonl", "samples.jsonl"):
        old, new = (
            {(row["id"], row.get("step")): row["prediction"] for row in runs.read_jsonl(run / name)}
            for run in (first, again)
        )
        if old:
            other = sum(new.get(key) != value for key, value in old.items())
            yield Row(
                name,
                f"{len(old)} answers",
                f"{len(new)} answers",
                f"{other} differ" if other else "0",
                not other or None,
            )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.7g}"


def table(rows: Sequence[Row]) -> str:
    """The rows as plain text, one column under the other."""
    words = {True: "yes", False: "NO", None: "not judged"}
    lines = [["metric", "expected", "got", "difference", "within tolerance"]]
    lines += [[row.metric, row.expected, row.got, row.difference, words[row.within]] for row in rows]
    return aligned(lines, left=len(lines[0]))


def footnote(of_losses: float, asked: float | None = None) -> str:
    """What the tolerances of the table are, in one line."""
    if asked is not None:
        return f"tolerance: {asked:g} of a loss, {asked:g} of an accuracy (100 % is 1), none of a count"
    return f"tolerance: {of_losses:g} of a loss, the 95 % interval of an accuracy, none of a count"
