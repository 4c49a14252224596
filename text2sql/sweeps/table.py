"""A sweep as a table: a line a job with what was swept and what came of it, best first, and groups of seeds."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from text2sql.sweeps import jobs as reading
from text2sql.sweeps import overrides
from text2sql.sweeps.jobs import Job

METRICS = (
    "eval/execution_accuracy",
    "eval/exact_match",
    "eval/hallucinated_column_rate",
    "validation/loss",
    "train/tokens",
    "seconds",
)
"""What a table shows, as far as any job has it."""
SHARES = ("accuracy", "exact_match", "rate", "share", "accuracy_low", "accuracy_high", "agreement")
LOWER_IS_BETTER = (
    "loss",
    "seconds",
    "gib",
    "hallucinated",
    "unknown",
    "syntax",
    "diagnosis",
    "gold_",
    "too_long",
    "shortened",
)
NO_GROUPS = "none"


@dataclass(frozen=True)
class Line:
    """A job with its phase and the values of the swept keys."""

    job: Job
    phase: str
    values: Mapping[str, str]

    def metric(self, name: str) -> float | None:
        return self.job.metrics.get(name)


@dataclass(frozen=True)
class Group:
    """Finished jobs that differ in nothing but the key `over`: their number, and mean and standard deviation a metric.

    The deviation is that of a sample (n - 1 in its denominator), and None for one job.
    """

    label: str
    phase: str
    values: Mapping[str, str]
    size: int
    mean: Mapping[str, float]
    deviation: Mapping[str, float | None]


@dataclass(frozen=True)
class Table:
    """Jobs, best first by the metric `by`; then those that have none, by the swept values. `over` is "" without groups.

    Losses of different phases are of different data: by those, the jobs of the last phase come first.
    """

    keys: list[str]
    metrics: list[str]
    by: str
    lines: list[Line]
    over: str
    groups: list[Group]
    optuna: bool

    @property
    def best(self) -> Line | None:
        first = self.lines[0]
        return first if ranks(first, self.by) else None

    @property
    def has_phases(self) -> bool:
        return len({line.phase for line in self.lines} - {""}) > 1

    @property
    def has_labels(self) -> bool:
        return any(line.job.label for line in self.lines)


def read(
    folders: Sequence[Path], *, by: str | None = None, over: str | None = None, leave_out: Collection[str] = ()
) -> Table:
    """The table of all jobs below `folders`. ValueError for a metric or a key that no job has."""
    jobs = reading.read(folders, leave_out)
    keys, values = _swept(jobs)
    lines = [Line(job, _phase(job), one) for job, one in zip(jobs, values)]
    by = _criterion(jobs, by)
    metrics = [name for name in METRICS if any(name in job.metrics for job in jobs)]
    metrics += [by] if by and by not in metrics else []
    over = _over(keys, over)
    lines.sort(key=lambda line: _place(line, by, keys))
    groups = _groups(lines, keys, metrics, by, over) if over else []
    optuna = any(overrides.used_optuna(folder) for folder in {*folders, *(job.folder.parent for job in jobs)})
    return Table(keys, metrics, by, lines, over, groups, optuna)


def lower_is_better(metric: str) -> bool:
    return any(word in metric for word in LOWER_IS_BETTER)


def is_of_its_phase(metric: str) -> bool:
    """Whether the metric is of a phase's own data: 1.2 of phase 1 and 1.3 of phase 2 say nothing about which is better."""
    return metric.startswith(("validation/", "train/"))


def is_share(metric: str) -> bool:
    """Whether the metric is a share, 0 to 1, that people read in per cent."""
    return metric.rpartition("/")[2].endswith(SHARES) or metric.startswith("eval/diagnosis/")


def interval(line: Line, metric: str) -> tuple[float, float] | None:
    """The 95 % interval of a job's metric, where the run has one."""
    low, high = line.metric(f"{metric}_low"), line.metric(f"{metric}_high")
    return (low, high) if low is not None and high is not None else None


def ranks(line: Line, by: str) -> bool:
    return line.job.finished and line.metric(by) is not None


def _swept(jobs: Sequence[Job]) -> tuple[list[str], list[dict[str, str]]]:
    """The swept keys and each job's values. Trainings are compared with trainings only, evaluations with evaluations."""
    keys: dict[str, None] = {}
    values: dict[int, dict[str, str]] = {}
    for kind in dict.fromkeys(job.kind for job in jobs):
        members = [index for index, job in enumerate(jobs) if job.kind == kind]
        differing, found = overrides.swept([(jobs[index].folder, jobs[index].typed) for index in members])
        differing = [key for key in differing if key != "phase" and not key.startswith("phase.")]
        keys |= dict.fromkeys(differing)
        for index, one in zip(members, found):
            values[index] = {key: one[key] for key in differing if key in one}
    return list(keys), [values[index] for index in range(len(jobs))]


def _phase(job: Job) -> str:
    """As its stamp says, and as typed for a job that has none."""
    typed = dict(map(overrides.parse, job.typed)).get("phase", "")
    return job.phase or (typed if job.kind == "train" else "")


def _criterion(jobs: Sequence[Job], by: str | None) -> str:
    there = sorted({name for job in jobs for name in job.metrics})
    if by is not None and by not in there:
        raise ValueError(f"no job has the metric --by {by}; there are {', '.join(there) or 'none yet'}")
    finished = {name for job in jobs if job.finished for name in job.metrics}
    defaults = ("eval/execution_accuracy", "validation/loss")
    return by or next((name for name in defaults if name in finished), "")


def _over(keys: Sequence[str], over: str | None) -> str:
    if over == NO_GROUPS or (over is None and "seed" not in keys):
        return ""
    if over is not None and over not in keys:
        raise ValueError(f"--over {over} is not among the swept keys; these are {', '.join(keys) or 'none'}")
    return over or "seed"


def _place(line: Line, by: str, keys: Sequence[str]) -> tuple[object, ...]:
    value = line.metric(by) if ranks(line, by) else None
    score = 0.0 if value is None else value if lower_is_better(by) else -value
    in_order = reading.in_job_order(Path(line.job.name))
    swept = [overrides.sort_key(line.values.get(key)) for key in keys] if value is not None or line.job.finished else []
    phase = -(overrides.number(line.phase) or 0.0) if value is not None and is_of_its_phase(by) else 0.0
    return value is None, phase, score, not line.job.finished, swept, in_order


def _groups(lines: Sequence[Line], keys: Sequence[str], metrics: Sequence[str], by: str, over: str) -> list[Group]:
    """Groups of the keys but `over`, best mean first; only jobs that have a value of `over` are in any."""
    others = [key for key in keys if key != over]
    members: dict[tuple[object, ...], list[Line]] = {}
    for line in lines:
        if line.job.finished and over in line.values:
            alike = [overrides.sort_key(line.values.get(key)) for key in others]
            members.setdefault((line.job.kind, line.job.label, line.phase, *alike), []).append(line)
    groups = [_group(one, others, metrics) for one in members.values()]
    sign = 1 if lower_is_better(by) else -1

    def place(group: Group) -> tuple[object, ...]:
        phase = -(overrides.number(group.phase) or 0.0) if is_of_its_phase(by) else 0.0
        return by not in group.mean, phase, sign * group.mean.get(by, 0.0)

    return sorted(groups, key=place)


def _group(lines: Sequence[Line], others: Sequence[str], metrics: Sequence[str]) -> Group:
    found = {name: [line.job.metrics[name] for line in lines if name in line.job.metrics] for name in metrics}
    mean = {name: statistics.fmean(values) for name, values in found.items() if values}
    spread = {name: statistics.stdev(values) if len(values) > 1 else None for name, values in found.items() if values}
    first = lines[0]
    values = {key: first.values[key] for key in others if key in first.values}
    return Group(first.job.label, first.phase, values, len(lines), mean, spread)
