"""The nouns every module shares: an Example to learn from or answer, a Prediction for it, and the Score of that prediction."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


@dataclass(frozen=True)
class Column:
    """One column of a table; `type` is the declared SQL type, possibly empty (SQLite allows that)."""

    name: str
    type: str = ""
    primary_key: bool = False


@dataclass(frozen=True)
class ForeignKey:
    """`columns` of the owning table reference `foreign_columns` of `foreign_table`, pairwise."""

    columns: tuple[str, ...]
    foreign_table: str
    foreign_columns: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    name: str
    columns: tuple[Column, ...]
    foreign_keys: tuple[ForeignKey, ...] = ()


@dataclass(frozen=True)
class Schema:
    """The tables of one database, in the database's own order."""

    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Example:
    """A question about one database and the gold SQL that answers it.

    The database is either a SQLite file (`database`, a path) or a script that builds one in memory (`context`, SQL text);
    both are empty when only the question is known. `db_id` groups examples for splitting: no two splits share one.
    """

    id: str
    question: str
    sql: str
    db_id: str
    schema: Schema = field(default_factory=Schema)
    database: str = ""
    context: str = ""

    @property
    def executable(self) -> bool:
        """Whether there is a database to run SQL on."""
        return bool(self.database or self.context)


class Verdict(str, Enum):
    """What became of one prediction.

    MATCH and EMPTY_BOTH (both ran, and neither returned a row) count as correct; GOLD_ERROR and GOLD_BUDGET, where the
    gold fails or hits a limit, say nothing about the model. All others are the prediction's own failures.
    """

    MATCH = "match"
    MISMATCH = "mismatch"
    EMPTY_BOTH = "empty_both"
    EMPTY_PREDICTION = "empty_prediction"
    SYNTAX = "syntax"
    UNKNOWN_TABLE = "unknown_table"
    UNKNOWN_COLUMN = "unknown_column"
    AMBIGUOUS = "ambiguous"
    FUNCTION = "function"
    TYPE = "type"
    DENIED_WRITE = "denied_write"
    MULTIPLE_STATEMENTS = "multiple_statements"
    STEP_BUDGET = "step_budget"
    TIMEOUT = "timeout"
    TOO_MANY_ROWS = "too_many_rows"
    GOLD_ERROR = "gold_error"
    GOLD_BUDGET = "gold_budget"


@dataclass(frozen=True)
class Score:
    """The verdict on one prediction and, in words, why.

    `official` is what Spider's official evaluator says of the same pair (None where its gold fails), `differences` why
    that differs; the results are {"columns", "rows" (the first few), "num_rows"}, or None for a query that did not run.
    """

    verdict: Verdict
    reason: str = ""
    official: bool | None = field(default=None, compare=False)
    differences: tuple[str, ...] = field(default=(), compare=False)
    gold_result: dict[str, Any] | None = field(default=None, compare=False)
    predicted_result: dict[str, Any] | None = field(default=None, compare=False)

    @property
    def correct(self) -> bool:
        return self.verdict in (Verdict.MATCH, Verdict.EMPTY_BOTH)

    @property
    def judged(self) -> bool:
        """Whether the gold worked, so that the verdict says something about the prediction."""
        return self.verdict not in (Verdict.GOLD_ERROR, Verdict.GOLD_BUDGET)

    @property
    def runs(self) -> bool:
        """Whether the predicted SQL ran to its end, rightly or wrongly."""
        return self.correct or self.verdict is Verdict.MISMATCH
