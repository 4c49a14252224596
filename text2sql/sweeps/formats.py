"""A table of jobs as text: for a terminal, as CSV with every digit, and as Markdown."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence

from text2sql.columns import aligned
from text2sql.sweeps import overrides, repeat
from text2sql.sweeps.overrides import one_line
from text2sql.sweeps.table import Group, Line, Table, interval, is_of_its_phase, is_share, lower_is_better

MAX_CELL = 32
"""Characters of a value in a terminal; of a longer one, a path mostly, the end is kept."""
MAX_REASON = 100
TITLES = {
    "eval/execution_accuracy": "accuracy",
    "eval/exact_match": "exact match",
    "eval/hallucinated_column_rate": "invented columns",
    "validation/loss": "validation loss",
    "train/tokens": "tokens",
}
Rows = list[list[str]]


def shown(metric: str, value: float | None) -> str:
    """A number as people read it: shares in per cent, counts with commas, losses with four digits after the point."""
    if value is None:
        return "-"
    if is_share(metric):
        return f"{100 * value:.1f} %"
    if "loss" in metric:
        return f"{value:.4f}"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.4g}"


def shown_with_interval(line: Line, metric: str) -> str:
    limits = interval(line, metric)
    text = shown(metric, line.metric(metric))
    if limits is None or line.metric(metric) is None:
        return text
    low, high = (f"{100 * limit:.1f}" if is_share(metric) else shown(metric, limit) for limit in limits)
    return f"{text} ({low} to {high})"


def title(metric: str) -> str:
    return TITLES.get(metric, metric)


def job_rows(table: Table) -> Rows:
    """Header and a row a job, numbers as people read them."""
    rows = [["job", *_about_titles(table), *table.keys, *map(title, table.metrics), "status", "reason"]]
    for line in table.lines:
        about = _about(table, line.job.label, line.phase)
        values = [overrides.brief(line.values.get(key, "-")) for key in table.keys]
        numbers = [shown_with_interval(line, metric) for metric in table.metrics]
        rows.append([line.job.name, *about, *values, *numbers, line.job.status, line.job.reason])
    return rows


def group_rows(table: Table) -> Rows:
    """Header and a row a group: mean and standard deviation of each metric over the jobs that differ in `over` alone."""
    others = [key for key in table.keys if key != table.over]
    rows = [[*_about_titles(table), *others, "jobs", *map(title, table.metrics)]]
    for group in table.groups:
        values = [group.values.get(key, "-") for key in others]
        numbers = [_mean(group, metric) for metric in table.metrics]
        rows.append([*_about(table, group.label, group.phase), *values, str(group.size), *numbers])
    return rows


def _mean(group: Group, metric: str) -> str:
    deviation = group.deviation.get(metric)
    text = shown(metric, group.mean.get(metric))
    if deviation is None:
        return text
    counts = not is_share(metric) and "loss" not in metric
    short = f"{float(f'{deviation:.2g}'):,g}" if counts else shown(metric, deviation)
    return f"{text.removesuffix(' %')} ± {short}"


def _about_titles(table: Table) -> list[str]:
    return (["what"] if table.has_labels else []) + (["phase"] if table.has_phases else [])


def _about(table: Table, label: str, phase: str) -> list[str]:
    return ([label or "-"] if table.has_labels else []) + ([phase or "-"] if table.has_phases else [])


def order_said(table: Table) -> str:
    """The order of the lines, in words."""
    if table.best is None:
        return "no job has finished with a metric to order by"
    said = f"{'lowest' if lower_is_better(table.by) else 'highest'} {table.by} first"
    phases = table.has_phases and is_of_its_phase(table.by)
    return said + (", phase by phase: each has data of its own" if phases else "")


def groups_said(table: Table) -> str:
    return f"mean ± standard deviation over {table.over}, of finished jobs:"


def repeat_lines(table: Table) -> list[tuple[str, str]]:
    """What repeats the best job: (how, the command)."""
    if table.best is None:
        return []
    job = table.best.job
    both = [(f"repeat {job.name}", repeat.from_config(job)), ("as typed", repeat.as_typed(job))]
    return [(how, command) for how, command in both if command]


def as_text(table: Table) -> str:
    """The table for a terminal, with its groups and the commands that repeat its best job."""
    left = 1 + len(_about_titles(table))
    if any(line.job.reason for line in table.lines):
        jobs = [[*map(_cut, row[:-1]), _cut_end(row[-1])] for row in job_rows(table)]
        blocks = [aligned(jobs, left, 2)]
    else:
        blocks = [aligned([list(map(_cut, row[:-1])) for row in job_rows(table)], left, 1)]
    blocks.append(order_said(table))
    if table.groups:
        groups = [[_cut(cell) for cell in row] for row in group_rows(table)]
        blocks.append(f"{groups_said(table)}\n{aligned(groups, left - 1, 0)}")
    commands = repeat_lines(table)
    if commands:
        blocks.append("\n".join(f"{how}:\n  {command}" for how, command in commands))
    return "\n\n".join(blocks)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CELL else f"...{text[3 - MAX_CELL :]}"


def _cut_end(text: str) -> str:
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 3]}..."


def csv_rows(table: Table) -> Rows:
    """Header, a row a job and two a group, with every digit of every number; `line` says what a row is."""
    numbers = [name for metric in table.metrics for name in (metric, f"{metric}_low", f"{metric}_high")]
    has = [n for n in numbers if n in table.metrics or any(line.metric(n) is not None for line in table.lines)]
    rows = [["line", "job", "folder", "kind", "what", "phase", *table.keys, "jobs", *has, "status", "reason"]]
    for line in table.lines:
        job = line.job
        about = ["job", job.name, one_line(str(job.folder)), one_line(job.kind), job.label, line.phase]
        values = [line.values.get(key, "") for key in table.keys]
        rows.append([*about, *values, "1", *_digits(job.metrics, has), job.status, job.reason])
    for group in table.groups:
        values = [group.values.get(key, "") for key in table.keys]
        for name, found in (("mean", group.mean), ("standard deviation", group.deviation)):
            about = [name, "", "", "", group.label, group.phase]
            rows.append([*about, *values, str(group.size), *_digits(found, has), "", ""])
    return rows


def _digits(values: Mapping[str, float | None], names: Sequence[str]) -> list[str]:
    return ["" if (value := values.get(name)) is None else repr(value) for name in names]


def as_csv(table: Table) -> str:
    """The table as CSV, RFC 4180 but for its line ends, which are newlines."""
    return write_csv(csv_rows(table))


def write_csv(rows: Rows) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def as_markdown(table: Table) -> str:
    """The table in GitHub's Markdown; nothing in a file can make markup of its own."""
    blocks = [_markdown(job_rows(table)), order_said(table)]
    if table.groups:
        blocks += [_escaped(groups_said(table)), _markdown(group_rows(table))]
    return "\n\n".join([*blocks, *(f"{_escaped(how)}:\n\n    {command}" for how, command in repeat_lines(table))])


def _markdown(rows: Rows) -> str:
    header, *body = [[_escaped(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *body])


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]|~<>&#!])", r"\\\1", text)


FORMATS: Mapping[str, Callable[[Table], str]] = {"terminal": as_text, "csv": as_csv, "markdown": as_markdown}
