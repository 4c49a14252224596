"""The nouns every module shares: an Example to learn from or answer, a Prediction for it, and the Score of that prediction."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


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
    """What became of one prediction; only MATCH counts as correct, and GOLD_ERROR rows say nothing about the model."""

    MATCH = "match"
    MISMATCH = "mismatch"
    EMPTY_PREDICTION = "empty_prediction"
    SYNTAX = "syntax"
    UNKNOWN_TABLE = "unknown_table"
    UNKNOWN_COLUMN = "unknown_column"
    AMBIGUOUS = "ambiguous"
    FUNCTION = "function"
    TYPE = "type"
    DENIED_WRITE = "denied_write"
    MULTIPLE_STATEMENTS = "multiple_statements"
    TIMEOUT = "timeout"
    TOO_MANY_ROWS = "too_many_rows"
    GOLD_ERROR = "gold_error"


@dataclass(frozen=True)
class Score:
    """The verdict on one prediction and, in words, why."""

    verdict: Verdict
    reason: str = ""

    @property
    def correct(self) -> bool:
        return self.verdict is Verdict.MATCH

    @property
    def runs(self) -> bool:
        """Whether the predicted SQL ran to its end, rightly or wrongly."""
        return self.verdict in (Verdict.MATCH, Verdict.MISMATCH)
