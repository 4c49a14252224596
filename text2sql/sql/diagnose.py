"""Say what is wrong with a wrong prediction: which names it invents, and which clauses differ from those of the gold.

Names are looked up by `text2sql.sql.names`, clauses compared by `text2sql.sql.clauses`. Results play no part.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from text2sql.example import Schema, Verdict
from text2sql.sql import clauses, names
from text2sql.sql.clauses import Finding
from text2sql.sql.kinds import KINDS as KINDS
from text2sql.sql.names import Unknown

COMPILED = {Verdict.MISMATCH, Verdict.STEP_BUDGET, Verdict.TIMEOUT, Verdict.TOO_MANY_ROWS, Verdict.MULTIPLE_STATEMENTS}
"""Verdicts after which every name is known to exist, if only as that of a view, which no Schema holds."""

KIND_OF_VERDICT = {
    Verdict.DENIED_WRITE: "not_a_query",
    Verdict.MULTIPLE_STATEMENTS: "not_a_query",
    Verdict.SYNTAX: "unparsable",
    Verdict.STEP_BUDGET: "too_costly",
    Verdict.TIMEOUT: "too_costly",
    Verdict.TOO_MANY_ROWS: "too_costly",
    Verdict.FUNCTION: "wrong_function",
    Verdict.TYPE: "wrong_function",
}
MESSAGES = {
    Verdict.UNKNOWN_TABLE: (names.NO_TABLE, re.compile(r"(?:no such table: |unknown database )(.+)")),
    Verdict.UNKNOWN_COLUMN: (
        names.NO_COLUMN,
        re.compile(r"(?:no such column: |cannot join using column )(.+?)(?: - |$)"),
    ),
    Verdict.AMBIGUOUS: (names.AMBIGUOUS, re.compile(r"ambiguous column name: (.+)")),
}
"""What SQLite says of a name, by verdict."""


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with one prediction: at least one kind, the most telling first, and a sentence on each of them.

    The names are those that the whole database does not have, as the prediction spells them.
    """

    kinds: tuple[str, ...]
    details: tuple[str, ...]
    hallucinated_tables: tuple[str, ...] = ()
    hallucinated_columns: tuple[str, ...] = ()


def diagnose(gold: str, prediction: str, schema: Schema, verdict: Verdict, reason: str = "") -> Diagnosis:
    """Compare a wrong prediction with its gold; `verdict` and `reason` are those of its Score. Takes any text.

    Where `schema` is empty no name is called unknown but the one in `reason`. Where sqlglot and SQLite disagree the
    verdict decides: of a prediction that ran, all names exist; of one with an unknown name, the name in `reason` does
    not.
    """
    assert verdict not in (Verdict.MATCH, Verdict.EMPTY_BOTH, Verdict.GOLD_ERROR, Verdict.GOLD_BUDGET), verdict
    if verdict is Verdict.EMPTY_PREDICTION or not prediction.strip():
        return Diagnosis(("empty",), (reason or "no SQL",))
    findings = _by_verdict(prediction, verdict, reason)
    unknown: list[Unknown] = []
    try:
        reading = names.read(prediction, schema)
        unknown = [name for name in reading.unknown if name.is_text or verdict not in COMPILED]
        findings += clauses.compare(gold, reading, schema)
    except ValueError as error:
        if not findings and verdict not in MESSAGES:
            findings = [Finding("unparsable", str(error))]
    if verdict in MESSAGES and all(name.is_text for name in unknown):
        unknown.append(_named_in_message(verdict, reason, schema))
    findings += [Finding(name.kind, name.detail) for name in unknown]
    return _diagnosis(findings or [Finding("unclassified", "the same form, yet another result")], unknown)


def _diagnosis(findings: list[Finding], unknown: list[Unknown]) -> Diagnosis:
    by_kind: dict[str, list[str]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding.detail)
    kinds = sorted(by_kind, key=list(KINDS).index)
    details = ["; ".join(list(dict.fromkeys(by_kind[kind]))[: names.MAX_LISTED]) for kind in kinds]
    invented = [
        tuple(dict.fromkeys(name.name for name in unknown if name.kind == kind and name.name))
        for kind in (names.NO_TABLE, names.NO_COLUMN)
    ]
    return Diagnosis(tuple(kinds), tuple(details), *invented)


def _by_verdict(prediction: str, verdict: Verdict, reason: str) -> list[Finding]:
    """What is to be said without comparing anything."""
    if len(prediction) > names.MAX_CHARACTERS:
        return [Finding("unparsable", f"longer than {names.MAX_CHARACTERS} characters")]
    if not names.is_query(prediction):
        return [Finding("not_a_query", reason or "begins as no query does")]
    of_aggregate = verdict is Verdict.FUNCTION and ("aggregate" in reason or clauses.AGGREGATE.search(reason.lower()))
    kind = "wrong_aggregate" if of_aggregate else KIND_OF_VERDICT.get(verdict)
    return [Finding(kind, reason or verdict.value.replace("_", " "))] if kind else []


def _named_in_message(verdict: Verdict, reason: str, schema: Schema) -> Unknown:
    kind, pattern = MESSAGES[verdict]
    found = pattern.match(reason)
    name = found[1] if found else ""
    if name and kind != names.AMBIGUOUS:
        return names.unknown_name(kind, name, schema)
    return Unknown(kind, name, reason or verdict.value.replace("_", " "))
