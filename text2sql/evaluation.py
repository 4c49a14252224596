"""Score predicted SQL against gold SQL by running both, and sum the scores up in metrics and tables."""

from __future__ import annotations

import math
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from text2sql.example import Example, Score, Verdict
from text2sql.predictions import read_predictions, write_predictions  # noqa: F401  # offered here as well
from text2sql.sql import compare, database, execute

OPEN_DATABASES = 16
CACHED_GOLD_RESULTS = 256
GROUPS = ("easy", "medium", "hard", "extra", "unparsed")


class Scorer:
    """Scores predictions, keeping the databases and gold results last used; close() it at the end."""

    def __init__(self, timeout_s: float, max_rows: int) -> None:
        self.timeout_s = timeout_s
        self.max_rows = max_rows
        self._connections: OrderedDict[tuple[str, str], sqlite3.Connection] = OrderedDict()
        self._gold_results: OrderedDict[tuple[str, str, str], execute.Result] = OrderedDict()

    def close(self) -> None:
        while self._connections:
            self._connections.popitem()[1].close()

    def score(self, example: Example, prediction: str) -> Score:
        """The verdict on one prediction; the order of rows matters where the gold's outermost query orders them.

        Nothing is cleaned from the prediction but surrounding whitespace and one semicolon at its end. A gold that
        does not run, or a context that does not build, is a GOLD_ERROR. Raises ValueError for an example without a
        database.
        """
        if not example.executable:
            raise ValueError(
                f"no database to run {example.id} on: set data.path to a folder that holds the databases too"
            )
        try:
            gold = self._gold(example)
        except sqlite3.Error as error:
            return Score(Verdict.GOLD_ERROR, f"gold: the database does not build: {error}")
        if gold.error:
            return Score(Verdict.GOLD_ERROR, f"gold: {gold.reason}")
        predicted = self._run(example, prediction)
        if predicted.error:
            return Score(predicted.error, predicted.reason)
        equal, reason = compare.same_result(gold.rows, predicted.rows, ordered=compare.is_ordered(example.sql))
        return Score(Verdict.MATCH if equal else Verdict.MISMATCH, reason)

    def _gold(self, example: Example) -> execute.Result:
        key = (example.database, example.context, example.sql)
        if key not in self._gold_results:
            self._gold_results[key] = self._run(example, example.sql)
            if len(self._gold_results) > CACHED_GOLD_RESULTS:
                self._gold_results.popitem(last=False)
        self._gold_results.move_to_end(key)
        return self._gold_results[key]

    def _run(self, example: Example, sql: str) -> execute.Result:
        statement = sql.strip().removesuffix(";")
        return execute.run(self._connection(example), statement, timeout_s=self.timeout_s, max_rows=self.max_rows)

    def _connection(self, example: Example) -> sqlite3.Connection:
        key = (example.database, example.context)
        if key not in self._connections:
            self._connections[key] = database.connect(example)
            if len(self._connections) > OPEN_DATABASES:
                self._connections.popitem(last=False)[1].close()
        self._connections.move_to_end(key)
        return self._connections[key]


def evaluate(
    examples: Sequence[Example],
    generate: Callable[[Sequence[Example]], Iterable[str]],
    *,
    timeout_s: float,
    max_rows: int,
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Score what `generate` answers, one prediction an example in their order; returns (metrics, one row an example).

    The rows are for `write_predictions`: id, db_id, question, gold, prediction, verdict, reason, hardness.
    """
    # These two take longer to import than all of this module.
    from tqdm import tqdm

    from text2sql.sql.hardness import hardness

    scores: list[Score] = []
    rows: list[dict[str, Any]] = []
    with closing(Scorer(timeout_s, max_rows)) as scorer:
        for example, prediction in tqdm(zip(examples, generate(examples), strict=True), "scoring", len(examples)):
            score = scorer.score(example, prediction)
            scores.append(score)
            row = {"id": example.id, "db_id": example.db_id, "question": example.question, "gold": example.sql}
            row |= {"prediction": prediction, "verdict": score.verdict.value, "reason": score.reason}
            rows.append({**row, "hardness": _group(hardness, example.sql)})
    return metrics(examples, scores, hardness), rows


def wilson_interval(correct: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The score interval of Wilson 1927 for a share, 95 % by default; (0, 1) when there is nothing to judge by."""
    if total == 0:
        return 0.0, 1.0
    share, shrink = correct / total, 1 + z * z / total
    centre = (share + z * z / (2 * total)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def metrics(
    examples: Sequence[Example], scores: Sequence[Score], hardness_of: Callable[[str], str] | None = None
) -> dict[str, float]:
    """Flat metrics named as paths; rates are shares, 0 to 1, of the examples whose gold works.

    `eval/examples` counts those, `eval/gold_errors` the others. With `hardness_of` (SQL to group, ValueError for a
    gold that does not parse) accuracy, its interval and the count are also given per group. Without any working gold,
    rates are 0 and the interval is 0 to 1.
    """
    assert len(examples) == len(scores)
    judged = [(example, score) for example, score in zip(examples, scores) if score.verdict is not Verdict.GOLD_ERROR]
    total = len(judged)
    result = _accuracy("eval", [score for _, score in judged])
    result["eval/gold_errors"] = len(scores) - total
    for verdict in (Verdict.UNKNOWN_COLUMN, Verdict.UNKNOWN_TABLE, Verdict.SYNTAX):
        result[f"eval/{verdict.value}_rate"] = sum(score.verdict is verdict for _, score in judged) / max(1, total)
    result["eval/runs_rate"] = sum(score.runs for _, score in judged) / max(1, total)
    if hardness_of:
        groups = [_group(hardness_of, example.sql) for example, _ in judged]
        for group in sorted(set(groups), key=GROUPS.index):
            result |= _accuracy(f"eval/{group}", [score for (_, score), other in zip(judged, groups) if other == group])
    return result


def _group(hardness_of: Callable[[str], str], sql: str) -> str:
    try:
        return hardness_of(sql)
    except ValueError:
        return "unparsed"


def _accuracy(path: str, scores: Sequence[Score]) -> dict[str, float]:
    correct = sum(score.correct for score in scores)
    low, high = wilson_interval(correct, len(scores))
    return {
        f"{path}/execution_accuracy": correct / max(1, len(scores)),
        f"{path}/execution_accuracy_low": low,
        f"{path}/execution_accuracy_high": high,
        f"{path}/examples": len(scores),
    }


def table(metrics: Mapping[str, float]) -> str:
    """The metrics of one model as plain text: a row per hardness, then all, then what kept predictions from running."""
    rows = [["hardness", "examples", "accuracy", "95 % interval"]]
    for group in (*GROUPS, "all"):
        path = "eval" if group == "all" else f"eval/{group}"
        if f"{path}/examples" in metrics:
            rows.append(
                [group, f"{metrics[f'{path}/examples']:.0f}", _percent(metrics, path), _interval(metrics, path)]
            )
    shares = {name: metrics[f"eval/{name}_rate"] for name in ("unknown_column", "unknown_table", "syntax")}
    shares["other"] = (
        max(0.0, 1 - metrics["eval/runs_rate"] - sum(shares.values())) if metrics["eval/examples"] else 0.0
    )
    failures = ", ".join(f"{name.replace('_', ' ')} {100 * share:.1f} %" for name, share in shares.items())
    gold_errors = f"left out, as their gold does not run: {metrics['eval/gold_errors']:.0f}"
    return "\n".join([_aligned(rows), "", f"did not run: {failures}", gold_errors])


def comparison_table(named: Mapping[str, Mapping[str, float]]) -> str:
    """Several models as plain text, one row each; "-" where a model has no examples of that kind."""
    levels = GROUPS[:4]
    rows = [["model", "accuracy", "95 % interval", *levels, "unknown column", "unknown table"]]
    for name, metrics in named.items():
        rates = [f"{100 * metrics[f'eval/{verdict}_rate']:.1f} %" for verdict in ("unknown_column", "unknown_table")]
        by_level = [_percent(metrics, f"eval/{level}") for level in levels]
        rows.append([name, _percent(metrics, "eval"), _interval(metrics, "eval"), *by_level, *rates])
    return _aligned(rows)


def _percent(metrics: Mapping[str, float], path: str) -> str:
    return f"{100 * metrics[f'{path}/execution_accuracy']:.1f} %" if metrics.get(f"{path}/examples") else "-"


def _interval(metrics: Mapping[str, float], path: str) -> str:
    low, high = (100 * metrics[f"{path}/execution_accuracy_{side}"] for side in ("low", "high"))
    return f"{low:.1f} to {high:.1f}" if metrics[f"{path}/examples"] else "-"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    cells = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in cells)
