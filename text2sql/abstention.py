"""When to give no answer: what a model shows, while it answers, of not knowing, and the rule that turns it into a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from text2sql.confidence import Confidence
from text2sql.constraint.nearest import spelled_like
from text2sql.example import Schema
from text2sql.sql import names

MIN_CONFIDENCE, MIN_AGREEMENT = 0.0, 0.5
"""No answer of a model is refused for its probabilities where nobody asks for it; of votes, half have to agree."""


@dataclass(frozen=True)
class Evidence:
    """What is known of one answer before it is shown.

    `missing` are sentences on the names in the free greedy answer (the one that no constraint held to the schema) that stand
    for nothing, `confidence` what the model makes of that answer, `agreement` the share of the votes that the winning result
    has (None without votes), and `error` why the final SQL does not run ("" where it does).
    """

    missing: tuple[str, ...]
    confidence: Confidence
    agreement: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Thresholds:
    """Below `confidence` (the lowest probability of a token of the answer) or `agreement` no answer is given.

    `names` says whether a name that is not in the schema is reason enough.
    """

    confidence: float = MIN_CONFIDENCE
    agreement: float = MIN_AGREEMENT
    names: bool = True


def missing_names(sql: str, schema: Schema) -> tuple[str, ...]:
    """A sentence, with the nearest real name, on each table or column of `sql` that the whole schema does not have.

    One that is a real name but for underscores or a plural is no missing one: the model means what is there.
    """
    try:
        unknown = names.read(sql, schema).unknown
    except ValueError:
        return ()
    real = {
        names.NO_TABLE: {table.name.lower().encode() for table in schema.tables},
        names.NO_COLUMN: {column.name.lower().encode() for table in schema.tables for column in table.columns},
    }
    invented = (
        one.detail
        for one in unknown
        if one.kind in real and not spelled_like(one.name.lower().encode(), real[one.kind])
    )
    return tuple(dict.fromkeys(invented))


def agreement(candidates: Sequence[Mapping[str, Any]]) -> float | None:
    """The share of the answers that have the winning result; `candidates` are those of a row of answering.answer."""
    asked = sum(one["count"] for one in candidates)
    return max(one["votes"] for one in candidates) / asked if asked else None


def reason(evidence: Evidence, least: Thresholds) -> str | None:
    """Why no answer is given, in words; None where one is."""
    if least.names and evidence.missing:
        return "; ".join(evidence.missing[: names.MAX_LISTED])
    if evidence.error:
        return f"no SQL that runs: {evidence.error}"
    if evidence.agreement is not None and evidence.agreement < least.agreement:
        return f"only {evidence.agreement:.0%} of the answers agree, less than {least.agreement:.0%}"
    if evidence.confidence.lowest < least.confidence:
        return f"the model is not sure: {evidence.confidence.lowest:.2f} of 1, less than {least.confidence:.2f}"
    return None
