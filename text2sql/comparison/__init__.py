"""Compare finished evaluations of the same questions: by how much they differ, where, and what was set differently.

Questions about one database stand or fall together, so intervals come from resampling whole databases. What they do NOT
cover: the spread between training seeds.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

from text2sql import runs
from text2sql.comparison.results import Comparison, Difference, Flip, Result, Run
from text2sql.comparison.settings import differing_settings
from text2sql.comparison.statistics import FEW_DATABASES, clustered_interval, holm, mcnemar
from text2sql.comparison.text import as_text
from text2sql.example import Score, Verdict

__all__ = ["METRICS", "as_text", "compare"]

METRICS = ("correct", "strict", "official", "exact_match")
RESAMPLES = 10_000
SEED = 0


def compare(folders: Sequence[Path], *, metric: str = "correct", common: bool = False) -> Comparison:
    """Compare evaluations with the first of them, question by question, paired by id.

    Left out of all runs, and counted, is a question whose gold fails or hits a limit in any run, or that any run has no
    value of `metric` for. `common` is for runs that share only some of their questions. Raises ValueError for folders
    that are no finished evaluations, for runs of other questions, and for a metric that a run lacks.
    """
    if not 2 <= len(folders) <= len(string.ascii_uppercase):
        raise ValueError(f"{len(folders)} run folders to compare; name 2 to {len(string.ascii_uppercase)}")
    loaded = [read_run(folder, name) for folder, name in zip(folders, string.ascii_uppercase)]
    shared = shared_ids(loaded, common=common)
    ids, left_out = _judged(loaded, shared, metric)
    databases = [loaded[0].rows[key]["db_id"] for key in ids]
    correct = [[bool(_value(run.rows[key], metric)) for key in ids] for run in loaded]
    results = [_result(run, own, databases) for run, own in zip(loaded, correct)]
    differences = [_difference((loaded[0], run), (correct[0], own), ids) for run, own in zip(loaded[1:], correct[1:])]
    corrected = holm([one.p_value for one in differences])
    settings, notes = differing_settings(loaded)
    return Comparison(
        metric=metric,
        questions=len(ids),
        databases=len(set(databases)),
        left_out=left_out,
        warnings=[*_data_warnings(loaded, len(shared)), *_interval_warnings(results, len(set(databases))), *notes],
        resamples=RESAMPLES,
        seed=SEED,
        results=results,
        differences=[replace(one, p_holm=p_holm) for one, p_holm in zip(differences, corrected)],
        settings=settings,
    )


def read_run(folder: Path, name: str) -> Run:
    """The evaluation in `folder`; ValueError if there is none, if it did not finish or if it has an id twice."""
    path = folder / "run.json"
    stamp = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if (stamp.get("kind"), stamp.get("status")) != ("evaluate", "finished"):
        found = f"its run.json says {stamp.get('kind')}, {stamp.get('status')}" if stamp else "it has no run.json"
        raise ValueError(f"{folder} is no finished evaluation: {found}; name a run folder of evaluate.py")
    lines = runs.read_jsonl(folder / "predictions.jsonl")
    rows = {row["id"]: row for row in lines}
    if not rows or len(rows) < len(lines):
        raise ValueError(
            f"{folder}/predictions.jsonl has {len(lines):,} rows with {len(rows):,} different ids; evaluate again"
        )
    return Run(name, folder, stamp, rows)


def shared_ids(loaded: Sequence[Run], *, common: bool) -> list[str]:
    """The ids that all runs have, in the baseline's order.

    ValueError if there is none, if a run lacks some of another's (unless `common`), or if one id has another question,
    gold or database in another run.
    """
    baseline = loaded[0]
    shared = [key for key in baseline.rows if all(key in run.rows for run in loaded)]
    for one, other in permutations(loaded, 2):
        lacking = [key for key in one.rows if key not in other.rows]
        if lacking and not (common and shared):
            raise ValueError(
                f"{other.folder} lacks {len(lacking):,} of the {len(one.rows):,} questions of {one.folder}, such as "
                f"{lacking[0]}; " + ("--common compares those that all runs have" if shared else "all runs share none")
            )
    for run in loaded[1:]:
        for field in ("question", "gold", "db_id"):
            changed = [key for key in shared if run.rows[key][field] != baseline.rows[key][field]]
            if changed:
                raise ValueError(
                    f"{len(changed):,} of the {len(shared):,} shared ids have another {field} in {run.folder} than in "
                    f"{baseline.folder}, such as {changed[0]}; evaluate both on the same data"
                )
    return shared


def _judged(loaded: Sequence[Run], ids: Sequence[str], metric: str) -> tuple[list[str], dict[str, int]]:
    """The ids that count in all runs, and how many do not, by the reason."""
    judged = [key for key in ids if all(_score(run.rows[key]).judged for run in loaded)]
    for run in loaded:
        if judged and all(_value(run.rows[key], metric) is None for key in judged):
            raise ValueError(f"{run.folder} has no values of {metric}; choose another --metric or evaluate again")
    valued = [key for key in judged if all(_value(run.rows[key], metric) is not None for run in loaded)]
    left_out = {
        "as their gold fails or hits a limit in a run": len(ids) - len(judged),
        f"as a run has no value of {metric} for them": len(judged) - len(valued),
    }
    left_out = {reason: count for reason, count in left_out.items() if count}
    if not valued:
        raise ValueError(f"all {len(ids):,} questions are left out: {left_out}; there is nothing to compare")
    return valued, left_out


def _value(row: Mapping[str, Any], metric: str) -> bool | None:
    """The row's value of the metric; a row from before `correct` was written has only its verdict."""
    return _score(row).correct if metric == "correct" and "correct" not in row else row.get(metric)


def _score(row: Mapping[str, Any]) -> Score:
    return Score(Verdict(row["verdict"]), row["reason"])


def _data_warnings(loaded: Sequence[Run], num_shared: int) -> list[str]:
    warnings = []
    if any(len(run.rows) > num_shared for run in loaded):
        counts = ", ".join(f"{run.name} has {len(run.rows):,}" for run in loaded)
        warnings.append(f"only the {num_shared:,} questions that all runs share are compared; {counts}")
    hashes = {run.name: run.stamp["data"]["sha256"] for run in loaded if "data" in run.stamp}
    if len(set(hashes.values())) > 1:
        named = ", ".join(f"{name} {sha256[:8]}" for name, sha256 in hashes.items())
        warnings.append(f"the data hashes differ ({named}), though the questions and golds compared do not")
    return warnings


def _interval_warnings(results: Sequence[Result], num_databases: int) -> list[str]:
    warnings = []
    if num_databases < FEW_DATABASES:
        warnings.append(f"intervals from so few databases ({num_databases}) are not dependable: they are too narrow")
    alike = [one.run for one in results if one.correct in (0, one.questions)]
    if alike:
        warnings.append(f"all right or all wrong, so resampling gives no bound on the accuracy: {', '.join(alike)}")
    return warnings


def _result(run: Run, correct: Sequence[bool], databases: Sequence[str]) -> Result:
    interval = clustered_interval(correct, databases, resamples=RESAMPLES, seed=SEED)
    total = sum(correct)
    label = run.stamp.get("label", "")
    return Result(run.name, str(run.folder), label, len(correct), total, total / len(correct), interval)


def _difference(
    pair: tuple[Run, Run], correct: tuple[Sequence[bool], Sequence[bool]], ids: Sequence[str]
) -> Difference:
    """The second run of the pair against the first; p_holm is still the raw p-value."""
    first, second = pair
    steps = [after - before for before, after in zip(*correct)]
    gained = [_flip(pair, key, first) for key, step in zip(ids, steps) if step > 0]
    lost = [_flip(pair, key, second) for key, step in zip(ids, steps) if step < 0]
    interval = clustered_interval(steps, [first.rows[key]["db_id"] for key in ids], resamples=RESAMPLES, seed=SEED)
    p_value = mcnemar(len(lost), len(gained))
    return Difference(second.name, sum(steps) / len(steps), interval, p_value, p_value, gained, lost)


def _flip(pair: tuple[Run, Run], key: str, wrong: Run) -> Flip:
    before, after = (run.rows[key] for run in pair)
    reason = wrong.rows[key]["reason"]
    return Flip(key, before["db_id"], before["question"], before["verdict"], after["verdict"], reason)
