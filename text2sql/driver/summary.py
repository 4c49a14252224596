"""What became of the jobs that this process has run, for the last lines of a sweep: Hydra keeps no place for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from text2sql.driver.child import FAILED, FINISHED, INTERRUPTED, OUTPUT
from text2sql.driver.processes import Ended


class JobsFailed(RuntimeError):
    """Some jobs of a sweep failed, and the others are done: the sweep ends with exit code 1."""


@dataclass
class Summary:
    """The jobs that ended, by their number in each sweep's folder, and how many were not started."""

    ended: dict[tuple[Path, int], Ended] = field(default_factory=dict)
    not_started: int = 0

    def add(self, sweep: Path, ended: Sequence[Ended], asked: int) -> None:
        self.ended |= {(sweep, one.number): one for one in ended}
        self.not_started += asked - len(ended)

    @property
    def all_finished(self) -> bool:
        return not self.not_started and all(one.how == FINISHED for one in self.ended.values())

    def text(self) -> str:
        """How many jobs ended how, each one that did not finish with its reason and log, and how to go on; "" without jobs."""
        if not self.ended and not self.not_started:
            return ""
        counts = Counter(one.how for one in self.ended.values())
        kept = sum(one.kept for one in self.ended.values())
        parts = [f"{counts[FINISHED]} finished" + (f" ({kept} of them before)" if kept else "")]
        parts += [f"{counts[how]} {how}" for how in (FAILED, INTERRUPTED) if counts[how] or how == FAILED]
        parts += [f"{self.not_started} not started"] if self.not_started else []
        lines = [
            f"{one.how} {number}: {one.label}: {one.reason}; log: {one.folder / OUTPUT}"
            for (_, number), one in self.ended.items()
            if one.how != FINISHED
        ]
        if not self.all_finished:
            sweeps = dict.fromkeys(sweep for sweep, _ in self.ended)
            lines += [f"go on: text2sql resume {sweep}" for sweep in sweeps]
        return "\n".join([f"jobs: {', '.join(parts)}", *lines])


SUMMARY = Summary()
