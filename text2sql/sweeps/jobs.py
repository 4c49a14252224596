"""The jobs of a sweep, or of any folder with runs in it: what each one's files say, however broken they are.

Runs fail, are ended, are copied about and are read while they are written. So every file here may be missing, empty or
half a file: what cannot be read is said in the job's status and reason, and is no error.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from text2sql import evaluation
from text2sql.sweeps import overrides

FINISHED, RUNNING, UNREADABLE, NOT_STARTED = "finished", "running", "unreadable", "not started"
NO_JOBS_INSIDE = {".hydra", ".before", ".git", "adapter", "checkpoints", "plots", "wandb"}
NO_STAMP = "no run.json: it has only just begun, or ended before it could write one, as when a setting is refused"
MAX_REASON = 300
"""Characters of a reason; an error may be pages long."""


@dataclass(frozen=True)
class Job:
    """One run: where it is, what was typed for it, and what became of it. `folder` of a job not started may not exist."""

    name: str
    folder: Path
    status: str
    reason: str = ""
    kind: str = "train"
    label: str = ""
    phase: str = ""
    parent: str = ""
    merged_parent: str = ""
    typed: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        return self.status == FINISHED

    @property
    def script(self) -> str:
        return "evaluate.py" if self.kind == "evaluate" else "train.py"


def read(folders: Collection[Path], leave_out: Collection[str] = ()) -> list[Job]:
    """The jobs in and below `folders`, in their order, 2 before 10; those that a sweep has not come to follow its others.

    `leave_out` names databases whose questions do not count. ValueError if a folder is none or there is no job.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder; name that of a sweep (multirun/DIR) or of a run (outputs/DIR)")
    jobs: dict[Path, Job] = {}
    for folder in folders:
        found = {path: _job(path, _name(path, folder, len(folders) > 1), leave_out) for path in _job_folders(folder)}
        for path, job in {
            **found,
            **{job.folder: job for job in _not_started(folder, found, len(folders) > 1)},
        }.items():
            jobs.setdefault(path.resolve(), job)
    if not jobs:
        raise ValueError(f"no run below {', '.join(map(str, folders))}; train.py -m and evaluate.py -m make sweeps")
    return list(jobs.values())


def in_job_order(path: Path) -> list[tuple[bool, int, str]]:
    """A key that sorts names as text, but job numbers as numbers: 2 before 10."""
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in path.parts]


def job_in(folder: Path) -> Job:
    """The job of one run folder."""
    return _job(folder, overrides.one_line(folder.name), ())


def _name(path: Path, root: Path, several: bool) -> str:
    if several:
        return overrides.one_line(str(path))
    return overrides.one_line(str(path.relative_to(root)) if path != root else path.resolve().name)


def _job_folders(root: Path) -> list[Path]:
    """Folders of runs. A run's own evaluation (eval.after_phase) is part of it: that one has a stamp and no config."""
    found: list[Path] = []
    for place, folders, files in os.walk(root):
        path = Path(place)
        inside = not set(path.parents).isdisjoint(found)
        if ".hydra" in folders or ("run.json" in files and not inside):
            found.append(path)
        folders[:] = sorted(set(folders) - NO_JOBS_INSIDE)
    return sorted(found, key=in_job_order)


def _job(folder: Path, name: str, leave_out: Collection[str]) -> Job:
    stamp, problem = _read_object(folder / "run.json")
    typed = overrides.typed(folder)
    metrics, metrics_problem = _metrics(folder, leave_out)
    kind = str(stamp.get("kind") or overrides.script(folder))
    about: dict[str, Any] = {
        "name": name,
        "folder": folder,
        "kind": kind,
        "typed": typed,
        "metrics": metrics,
        "label": overrides.one_line(str(stamp.get("label") or "")),
        "parent": str(stamp.get("parent") or ""),
        "merged_parent": str(stamp.get("merged_parent") or ""),
        "phase": overrides.one_line(str(stamp.get("phase") or "")) if kind == "train" else "",
    }
    if not (folder / "run.json").exists():
        return Job(**about, status=NOT_STARTED, reason=_last_complaint(folder) or NO_STAMP)
    if problem:
        return Job(**about, status=UNREADABLE, reason=problem)
    status = overrides.one_line(str(stamp.get("status") or "unknown"))
    if status == RUNNING:
        return Job(**about, status=status, reason=_progress(folder))
    said = [
        str(stamp.get("error") or stamp.get("reason") or ""),
        metrics_problem if status == FINISHED else "",
        _evaluation_error(folder),
    ]
    return Job(**about, status=status, reason=_short("; ".join(filter(None, said))))


def _short(text: str) -> str:
    line = overrides.one_line(text)
    return line if len(line) <= MAX_REASON else f"{line[: MAX_REASON - 3]}..."


def _read_object(path: Path) -> tuple[dict[str, Any], str]:
    """The JSON object in the file, and what is wrong with it; a file that is not there is empty and nothing is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}, ""
    except (OSError, UnicodeDecodeError) as error:
        return {}, _short(f"{path.name} cannot be read: {error}")
    if not text.strip():
        return {}, f"{path.name} is empty"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return {}, _short(f"{path.name} is no JSON: {error}")
    return (value, "") if isinstance(value, dict) else ({}, f"{path.name} is no JSON object")


def _metrics(folder: Path, leave_out: Collection[str]) -> tuple[dict[str, float], str]:
    """The finite numbers of metrics.json, with `seconds` for training and evaluating together."""
    found, problem = _read_object(folder / "metrics.json")
    if leave_out and (folder / "predictions.jsonl").is_file():
        rows = [row for row in read_rows(folder / "predictions.jsonl") if row.get("db_id") not in leave_out]
        found = evaluation.metrics(rows)
    metrics = {overrides.one_line(key): float(value) for key, value in found.items() if _is_number(value)}
    taken = [metrics[key] for key in ("train/seconds", "eval/seconds") if key in metrics]
    return {**metrics, **({"seconds": sum(taken)} if taken else {})}, problem


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300 if isinstance(value, int) else math.isfinite(value)


def _evaluation_error(folder: Path) -> str:
    """What went wrong in the evaluation that a training run ends with (eval.after_phase)."""
    stamp, problem = _read_object(folder / "evaluation" / "run.json")
    if problem or str(stamp.get("status")) in {"failed", "interrupted"}:
        return f"its evaluation {stamp.get('status', 'is unreadable')}: {problem or stamp.get('error', '')}"
    return ""


def _progress(folder: Path) -> str:
    """How far a run has come, and when it last wrote: a run that was killed says `running` for ever."""
    points = losses(folder)
    parts = [f"at step {points['training'][-1][0]:g}"] if points["training"] else []
    parts += [f"validation loss {points['validation'][-1][1]:.4g}"] if points["validation"] else []
    written = [path.stat().st_mtime for path in folder.iterdir() if path.is_file()]
    silent = max(0.0, time.time() - max(written, default=0.0))
    unit, size = next(
        (unit, size) for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)) if silent >= size or size == 1
    )
    return ", ".join([*parts, f"last wrote {silent / size:.0f} {unit} ago"])


def losses(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Points (step, loss) of history.jsonl, without what is no number; its last line may be half written."""
    rows = list(read_rows(folder / "history.jsonl"))
    return {
        name: [(row["step"], row[key]) for row in rows if _is_number(row.get("step")) and _is_number(row.get(key))]
        for name, key in (("training", "loss"), ("validation", "eval_loss"))
    }


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in a .jsonl file, without the lines that are none; none at all where there is no file."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            yield row


def _last_complaint(folder: Path) -> str:
    """The last error in the job's logs, if they hold one."""
    lines = [
        line
        for path in sorted(folder.glob("*.log"))
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if "[ERROR]" in line
    ]
    return _short(lines[-1]) if lines else ""


def _not_started(root: Path, found: Mapping[Path, Job], several: bool) -> list[Job]:
    """The jobs that the sweeps in and below `root` were asked for and that have no folder, or one without a run."""
    sweeps = {path.parent for path in [root / "multirun.yaml", *root.glob("*/multirun.yaml")] if path.is_file()}
    jobs = []
    for sweep in sorted(sweeps, key=in_job_order):
        there = {job.typed for path, job in found.items() if path.parent == sweep}
        for number, typed in enumerate(overrides.planned(sweep)):
            folder = sweep / str(number)
            if typed not in there and folder not in found:
                kind, name = overrides.script(sweep), _name(folder, root, several)
                reason = _last_complaint(folder) or "the sweep has not come to it"
                jobs.append(Job(name, folder, NOT_STARTED, reason, kind, typed=typed))
    return jobs
