"""The runs and sweeps below the page's folders, as the rows of its lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from text2sql import runs
from text2sql.sweeps import jobs as reading
from text2sql.sweeps import overrides
from text2sql.sweeps.formats import shown, shown_with_interval
from text2sql.sweeps.jobs import Job
from text2sql.sweeps.table import Line, Table
from text2sql.ui import samples
from text2sql.ui.places import Places

ACCURACY, LOSS = "eval/execution_accuracy", "validation/loss"
PAGE = "report.html"


@dataclass(frozen=True)
class Row:
    """One run in a list: `key` is "" for a job that was not started, `report` says whether there is a page of it."""

    key: str
    name: str
    what: str
    started: str
    status: str
    reason: str
    accuracy: str
    loss: str
    report: bool
    has_adapter: bool
    has_answers: bool


@dataclass(frozen=True)
class Sweep:
    """One sweep in a list; `jobs` counts them by status, in words."""

    key: str
    name: str
    jobs: str
    started: str
    report: bool


def all_rows(places: Places) -> list[Row]:
    """Every run, the newest first, those of sweeps as well."""
    return _newest_first(row(places, job) for job in _jobs(places))


def single_rows(places: Places) -> list[Row]:
    """The runs that are of no sweep, the newest first."""
    return _newest_first(row(places, job) for job in _jobs(places) if _sweep_of(places, job.folder) is None)


def sweeps(places: Places) -> list[Sweep]:
    """The sweeps, the newest first; one within another, such as its evaluations, is listed by itself."""
    members: dict[Path, list[Job]] = {}
    for job in _jobs(places):
        if (sweep := _sweep_of(places, job.folder)) is not None:
            members.setdefault(sweep, []).append(job)
    found = [_sweep(places, folder, some) for folder, some in members.items()]
    return sorted(found, key=lambda one: one.started, reverse=True)


def linked_jobs(places: Places, table: Table) -> list[Row]:
    """The jobs of a sweep's table as rows, in its order."""
    return [row(places, line.job) for line in table.lines]


def row(places: Places, job: Job) -> Row:
    """The row of one run."""
    there = job.folder.is_dir()
    stamp = (runs.read(job.folder) if there else None) or {}
    line = Line(job, job.phase, {})
    return Row(
        places.key(job.folder) if there else "",
        overrides.one_line(str(job.folder)),
        _what(job, stamp.get("fingerprint")),
        _moment(stamp),
        job.status,
        job.reason,
        shown_with_interval(line, ACCURACY),
        shown(LOSS, job.metrics.get(LOSS)),
        (job.folder / PAGE).is_file(),
        (job.folder / "adapter" / "adapter_config.json").is_file(),
        samples.file_of(job.folder) is not None,
    )


def _what(job: Job, fingerprint: object) -> str:
    """In a few words: an evaluation of what, or a training of which phase and model."""
    if job.kind == "evaluate":
        return f"evaluation: {job.label}" if job.label else "evaluation"
    model = str(fingerprint.get("model") or "") if isinstance(fingerprint, dict) else ""
    named = overrides.one_line(model.rpartition("/")[2])  # a hub id without its owner
    return f"training{f' phase {job.phase}' if job.phase else ''}" + (f", {named}" if named else "")


def _moment(stamp: dict[str, object]) -> str:
    """When the run started, to the minute."""
    return overrides.one_line(str(stamp.get("started") or ""))[:16].replace("T", " ")


def _jobs(places: Places) -> Iterator[Job]:
    for root in places.roots:
        try:
            yield from reading.read([root])
        except ValueError:  # a folder without runs, so far
            continue


def _sweep_of(places: Places, folder: Path) -> Path | None:
    """The nearest folder above that a multirun made; it may be the root itself, and no farther."""
    for above in folder.parents:
        if not any(above.is_relative_to(root) for root in places.roots):
            return None
        if (above / "multirun.yaml").is_file():
            return above
    return None


def _sweep(places: Places, folder: Path, jobs: list[Job]) -> Sweep:
    counts = Counter(job.status for job in jobs)
    said = f"{len(jobs)}: " + ", ".join(f"{count} {status}" for status, count in counts.most_common())
    started = [_moment(runs.read(job.folder) or {}) for job in jobs]
    name = overrides.one_line(str(folder))
    return Sweep(places.key(folder), name, said, max(started, default=""), (folder / PAGE).is_file())


def _newest_first(rows: Iterator[Row]) -> list[Row]:
    return sorted(rows, key=lambda one: one.started, reverse=True)
