"""Score predicted SQL against gold SQL, say what is wrong with it, and sum it all up in metrics and tables."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

from text2sql.columns import aligned
from text2sql.example import Example, Score, Verdict
from text2sql.predictions import read_predictions, write_predictions  # noqa: F401  # offered here as well
from text2sql.scorer import Scorer
from text2sql.sql import exact_match, official, spider_parser
from text2sql.sql.database import open_readonly
from text2sql.sql.spider_parser import Query
from text2sql.sql.spider_words import Unparsable

GROUPS = ("easy", "medium", "hard", "extra", "unparsed")


def evaluate(
    examples: Sequence[Example],
    generate: Callable[[Sequence[Example]], Iterable[str]],
    scorer: Scorer,
    *,
    progress: bool = True,
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Score what `generate` answers, one prediction an example in their order; returns (metrics, one row an example).

    The rows are for `write_predictions`: id, db_id, question, gold, prediction, verdict, reason, correct, strict,
    official, differences, hardness, exact_match, wrong_parts, diagnosis, diagnosis_details, hallucinated_tables,
    hallucinated_columns, gold_result, predicted_result. Where there is no gold parse, exact_match is None.
    """
    from tqdm import tqdm

    from text2sql.sql.diagnose import diagnose

    pairs = list(zip(examples, generate(examples), strict=True))
    rows: list[dict[str, Any]] = []
    matches: list[tuple[str, exact_match.Match]] = []
    scores = scorer.score_all(pairs)
    for (example, prediction), score in tqdm(zip(pairs, scores), "scoring", len(pairs), disable=not progress):
        row = {"id": example.id, "db_id": example.db_id, "question": example.question, "gold": example.sql}
        row |= {"prediction": prediction, "verdict": score.verdict.value, "reason": score.reason}
        row |= {"correct": score.correct, "strict": None if scorer.rules.official else score.correct}
        row |= {"official": score.official, "differences": list(score.differences)}
        row["hardness"], match = grade(example, prediction)
        row["exact_match"] = match.exact if match else None
        row["wrong_parts"] = [name for name, part in match.parts.items() if part.f1 != 1] if match else []
        if score.judged and not score.correct:
            found = diagnose(example.sql, prediction, example.schema, score.verdict, score.reason)
            row |= {"diagnosis": list(found.kinds), "diagnosis_details": list(found.details)}
            row["hallucinated_tables"] = list(found.hallucinated_tables)
            row["hallucinated_columns"] = list(found.hallucinated_columns)
        row |= {"gold_result": score.gold_result, "predicted_result": score.predicted_result}
        rows.append(row)
        if match and score.judged:
            matches.append((row["hardness"], match))
    return metrics(rows) | exact_match.aggregate(matches), rows


def grade(example: Example, prediction: str) -> tuple[str, exact_match.Match | None]:
    """Hardness (one of GROUPS) and exact match by the official rules; no match for a gold their parser does not take.

    Hardness of such a gold is read from its text by sqlglot. The rules need the tables of the example's database.
    """
    gold, predicted = _parsed(example, example.sql), _parsed(example, official.without_value_words(prediction))
    if gold is None:
        return _hardness_from_text(example.sql), None
    return exact_match.hardness(gold), exact_match.compare(gold, predicted, _foreign_keys(example))


def _parsed(example: Example, sql: str) -> Query | None:
    """The query as the official evaluator reads it, None where it cannot."""
    if example.database:
        return _parsed_for_file(example.database, sql)
    names = {table.name.lower(): [column.name.lower() for column in table.columns] for table in example.schema.tables}
    return _parsed_for(names, sql)


@lru_cache(maxsize=4096)
def _parsed_for_file(database: str, sql: str) -> Query | None:
    return _parsed_for(_tables(database), sql)


def _parsed_for(tables: dict[str, list[str]], sql: str) -> Query | None:
    try:
        return spider_parser.parse(sql, tables)
    except Unparsable:
        return None


@lru_cache(maxsize=256)
def _tables(database: str) -> dict[str, list[str]]:
    with closing(open_readonly(database)) as connection:
        return spider_parser.read_tables(connection)


def _foreign_keys(example: Example) -> dict[str, str]:
    """Which columns count as one: by the tables.json of Spider's layout, as officially, else by the database's keys."""
    path = Path(example.database).parent.parent.parent / "tables.json"
    entry = _tables_json(path).get(example.db_id) if example.database else None
    return entry or exact_match.foreign_key_classes_of(example.schema)


@lru_cache(maxsize=4)
def _tables_json(path: Path) -> dict[str, dict[str, str]]:
    """The classes of columns of every database in the file; none if there is no file."""
    if not path.is_file():
        return {}
    entries = json.loads(path.read_text(encoding="utf-8"))
    return {entry["db_id"]: exact_match.foreign_key_classes(entry) for entry in entries}


def _hardness_from_text(sql: str) -> str:
    from text2sql.sql.hardness import hardness

    try:
        return hardness(sql)
    except ValueError:
        return "unparsed"


def wilson_interval(correct: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The score interval of Wilson 1927 for a share, 95 % by default; (0, 1) when there is nothing to judge by."""
    if total == 0:
        return 0.0, 1.0
    share, shrink = correct / total, 1 + z * z / total
    centre = (share + z * z / (2 * total)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Flat metrics named as paths, from the rows of `evaluate`; rates are shares, 0 to 1, of the examples whose gold works.

    `eval/examples` counts those, `eval/gold_errors` and `eval/gold_budget` the others, `eval/empty_both` those right only
    in that neither query returned a row. Accuracy comes with its 95 % interval, and per hardness as well. Without any
    working gold, rates are 0 and the interval is 0 to 1.
    """
    scores = [(Score(Verdict(row["verdict"]), row["reason"]), row) for row in rows]
    judged = [(score, row) for score, row in scores if score.judged]
    total = max(1, len(judged))
    result = _accuracy("eval", [score for score, _ in judged])
    for verdict in (Verdict.GOLD_ERROR, Verdict.GOLD_BUDGET):
        name = "eval/gold_errors" if verdict is Verdict.GOLD_ERROR else "eval/gold_budget"
        result[name] = sum(score.verdict is verdict for score, _ in scores)
    result["eval/empty_both"] = sum(score.verdict is Verdict.EMPTY_BOTH for score, _ in judged)
    for verdict in (Verdict.UNKNOWN_COLUMN, Verdict.UNKNOWN_TABLE, Verdict.SYNTAX):
        result[f"eval/{verdict.value}_rate"] = sum(score.verdict is verdict for score, _ in judged) / total
    result["eval/runs_rate"] = sum(score.runs for score, _ in judged) / total
    for rules in ("strict", "official"):
        verdicts = [row[rules] for _, row in judged if row.get(rules) is not None]
        if verdicts:
            result[f"eval/{rules}_execution_accuracy"] = sum(verdicts) / len(verdicts)
    result |= _diagnosis([row for _, row in judged], total)
    for group in GROUPS:
        members = [score for score, row in judged if row["hardness"] == group]
        if members:
            result |= _accuracy(f"eval/{group}", members)
    return result


def _diagnosis(rows: Sequence[Mapping[str, Any]], total: int) -> dict[str, float]:
    """Shares of predictions that name a table or column which is not there, and of each kind of wrong (by its first)."""
    found = Counter(row["diagnosis"][0] for row in rows if row.get("diagnosis"))
    result = {
        f"eval/hallucinated_{what}_rate": sum(bool(row.get(f"hallucinated_{what}s")) for row in rows) / total
        for what in ("column", "table")
    }
    return result | {f"eval/diagnosis/{kind}": count / total for kind, count in sorted(found.items())}


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
    """The metrics of one model as plain text: a row per hardness, then all, then other measures and what went wrong."""
    rows = [["hardness", "examples", "accuracy", "95 % interval", "exact match"]]
    for group in (*GROUPS, "all"):
        path = "eval" if group == "all" else f"eval/{group}"
        if f"{path}/examples" in metrics:
            exact = metrics.get(f"{path}/exact_match")
            rows.append(
                [group, f"{metrics[f'{path}/examples']:.0f}", _percent(metrics, path), _interval(metrics, path)]
            )
            rows[-1].append("-" if exact is None else f"{100 * exact:.1f} %")
    return "\n".join([aligned(rows), "", *_remarks(metrics)])


def _remarks(metrics: Mapping[str, float]) -> list[str]:
    """What stands below the table of one model, a line each."""
    both = [(name, metrics.get(f"eval/{name}_execution_accuracy")) for name in ("strict", "official")]
    lines = ["accuracy: " + ", ".join(f"{name} {100 * value:.1f} %" for name, value in both if value is not None)]
    lines[0] += f"; right only in that both results are empty: {metrics['eval/empty_both']:.0f}"
    hallucinated = [f"{what} {100 * metrics[f'eval/hallucinated_{what}_rate']:.1f} %" for what in ("column", "table")]
    lines.append("hallucinated: " + ", ".join(hallucinated))
    kinds = {key.rpartition("/")[2]: value for key, value in metrics.items() if key.startswith("eval/diagnosis/")}
    frequent = sorted(kinds.items(), key=lambda item: -item[1])[:6]
    if frequent:
        shares = (f"{kind.replace('_', ' ')} {100 * share:.1f} %" for kind, share in frequent)
        lines.append("wrong by: " + ", ".join(shares))
    if "eval/votes_changed_rate" in metrics:
        changed, agreeing = (f"{100 * metrics[f'eval/votes_{name}']:.1f} %" for name in ("changed_rate", "agreement"))
        lines.append(f"by votes: {changed} not the greedy answer; of the answers {agreeing} have the winning result")
    if "eval/repaired_rate" in metrics:
        repaired, asked = (f"{100 * metrics[f'eval/{name}_rate']:.1f} %" for name in ("repaired", "repair_asked"))
        lines.append(f"repaired: {repaired}, of {asked} asked again")
    over = f"{metrics['eval/gold_errors']:.0f}, or hits a limit: {metrics['eval/gold_budget']:.0f}"
    return [*lines, f"left out, as their gold does not run: {over}"]


def comparison_table(named: Mapping[str, Mapping[str, float]]) -> str:
    """Several models as plain text, one row each; "-" where a model has no examples of that kind."""
    levels = GROUPS[:4]
    rows = [["model", "accuracy", "95 % interval", *levels, "unknown column", "unknown table"]]
    for name, metrics in named.items():
        rates = [f"{100 * metrics[f'eval/{verdict}_rate']:.1f} %" for verdict in ("unknown_column", "unknown_table")]
        by_level = [_percent(metrics, f"eval/{level}") for level in levels]
        rows.append([name, _percent(metrics, "eval"), _interval(metrics, "eval"), *by_level, *rates])
    return aligned(rows)


def _percent(metrics: Mapping[str, float], path: str) -> str:
    return f"{100 * metrics[f'{path}/execution_accuracy']:.1f} %" if metrics.get(f"{path}/examples") else "-"


def _interval(metrics: Mapping[str, float], path: str) -> str:
    low, high = (100 * metrics[f"{path}/execution_accuracy_{side}"] for side in ("low", "high"))
    return f"{low:.1f} to {high:.1f}" if metrics[f"{path}/examples"] else "-"
