"""Says what became of the rows of a data set: used, dropped and why, or left out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from text2sql.example import Example


@dataclass(frozen=True)
class Report:
    """rows_read == used + num_dropped + left_out, always.

    `dropped` maps a reason to the ids of all rows dropped for it. `held_out` rows belong to the other of train and
    validation, `not_sampled` ones were over the sample's size. `not_executable` counts used rows without a database.
    `sha256` is of the used examples' content, in their order, and the same wherever the databases lie.
    """

    name: str
    split: str
    rows_read: int
    used: int
    held_out: int
    not_sampled: int
    not_executable: int
    sha256: str
    dropped: dict[str, list[str]] = field(default_factory=dict)

    @property
    def num_dropped(self) -> int:
        return sum(len(ids) for ids in self.dropped.values())

    @property
    def left_out(self) -> int:
        return self.held_out + self.not_sampled

    def summary(self) -> str:
        """One line for the log."""
        parts = [f"{self.name} {self.split}: {self.rows_read:,} rows read, {self.used:,} used"]
        if self.not_executable:
            parts.append(f"{self.not_executable:,} of them not executable")
        if self.dropped:
            reasons = ", ".join(f"{reason}: {len(ids):,}" for reason, ids in self.dropped.items())
            parts.append(f"{self.num_dropped:,} dropped ({reasons})")
        other = "training" if self.split == "validation" else "validation"
        parts += [f"{self.held_out:,} kept for {other}"] * bool(self.held_out)
        parts += [f"{self.not_sampled:,} not sampled"] * bool(self.not_sampled)
        return ", ".join(parts)


@dataclass(frozen=True)
class Loaded:
    examples: list[Example]
    report: Report


def content_hash(examples: Iterable[Example]) -> str:
    """SHA-256 over everything in the examples but the place of their databases."""
    digest = hashlib.sha256()
    for example in examples:
        # ascii() writes every character the same on every Python; repr() depends on its Unicode tables.
        digest.update(ascii(replace(example, database=str(bool(example.database)))).encode() + b"\n")
    return digest.hexdigest()
