"""The run folder: its stamp (run.json), its files, and the lookup of the run that a later phase continues."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from text2sql import credentials, overriding, seeds

log = logging.getLogger(__name__)

PACKAGES = (
    "torch transformers peft trl bitsandbytes accelerate datasets huggingface-hub hydra-core omegaconf wandb sqlglot"
).split()
RUN_ROOTS = ("outputs", "multirun")
ASIDE = ".before"
"""The folder in a sweep's with what its jobs had left before they began anew: no runs to look for."""


def write_json(path: Path, value: Any) -> None:
    """Write `value` beside `path` and rename it into place, so a reader never sees half of it."""
    _replace(path, _as_json(value))


def write_stamp(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the run.json of a run, without tokens; data are written by `write_json`, as they are."""
    _replace(folder / "run.json", credentials.redact(_as_json(record)))


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, default=str) + "\n"


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file that others write and may have left half a line in: those that are whole."""
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else ():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            yield row


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none, or only half of one, or the file cannot be read."""
    try:
        return _object(path)
    except OSError:
        return {}


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def start(folder: Path, **stamp: Any) -> dict[str, Any]:
    """Claim `folder` for one run and write run.json with status `running`; returns the stamp.

    ValueError if another run has claimed it or if it cannot be written.
    """
    record = _stamp(stamp)
    text = credentials.redact(_as_json(record))  # before the file is there: others may read it at any moment
    cure = "choose another with hydra.run.dir=DIR (hydra.sweep.dir=DIR in a multirun)"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "run.json").open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(f"{folder} already holds a run; {cure}, or go on with a training by resume=true") from None
    except OSError as error:
        raise ValueError(f"cannot write the run folder {folder}: {error.strerror}; {cure}") from None
    return record


def restart(folder: Path, before: Mapping[str, Any], **stamp: Any) -> None:
    """Claim `folder` once more for the run that was broken off in it, whose stamp was `before`; its first start is kept."""
    kept = {key: before[key] for key in ("started", "parent", "merged_parent", "wandb_id") if key in before}
    again = [*before.get("resumed", []), _now()]
    write_stamp(folder, {**_stamp(stamp), **kept, "resumed": again})


def _stamp(more: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "status": "running",
        "started": _now(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": versions(),
        "platform": platform.platform(),
        "process": process(),
        "seeds": seeds.SCHEME,
        **processor(),
        **commit(),
        **more,
    }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def below(folder: Path) -> list[Path]:
    """The folders in and below `folder` that hold a run, by name."""
    return sorted(path.parent for path in folder.rglob("run.json") if ASIDE not in path.parts)


def read(folder: Path) -> dict[str, Any] | None:
    """The stamp in `folder`: None where there is none, an empty one if it was broken off while it was written."""
    try:
        return _object(folder / "run.json")
    except (FileNotFoundError, NotADirectoryError):
        return None


def process(pid: int | None = None) -> dict[str, Any] | None:
    """This process, or that of number `pid`, so that no later one is taken for it; None where it has ended or is not known."""
    pid = pid or os.getpid()
    began, boot = began_at(pid), Path("/proc/sys/kernel/random/boot_id")
    return None if began is None else {"pid": pid, "boot": boot.read_text(encoding="ascii").strip(), "ticks": began}


def began_at(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None if it has ended or the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def is_at_work(record: Mapping[str, Any]) -> bool:
    """Whether the process that wrote this stamp still runs, on this machine."""
    stamped = record.get("process")
    return record.get("status") == "running" and stamped is not None and process(stamped["pid"]) == stamped


def note(folder: Path, **more: Any) -> None:
    """Write into a run's stamp what has become known."""
    write_stamp(folder, {**json.loads((folder / "run.json").read_text(encoding="utf-8")), **more})


def finish(folder: Path, status: str, **more: Any) -> None:
    """Write the end of a run into its run.json: status `finished` or `failed`, and what became known meanwhile."""
    note(folder, status=status, finished=_now(), **more)


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a run's numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def processor() -> dict[str, Any]:
    """The CPU by name, how many cores this process may use, and OMP_NUM_THREADS: they decide in which order sums are made."""
    info = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*: (.+)$", info.read_text(encoding="utf-8"), re.M) if info.exists() else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = named[1] if named else platform.processor() or platform.machine()
    return {"cpu": name, "cores": cores, "threads": os.environ.get("OMP_NUM_THREADS")}


def commit() -> dict[str, Any]:
    """The git commit of the code and whether tracked files differ from it; empty outside a checkout.

    If they do, `changed` names them and `changes_sha256` is of their differences.
    """
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return (
            subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, check=True, timeout=30)
            .stdout.decode(errors="replace")
            .strip()
        )

    try:
        found = {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
        if not found["dirty"]:
            return found
        return {
            **found,
            "changed": git("diff", "HEAD", "--name-only").split("\n"),
            "changes_sha256": digest(git("diff", "HEAD", "--no-ext-diff", "--no-color")),
        }
    except (OSError, subprocess.SubprocessError):
        return {}


def adapter_sha256(folder: Path) -> str | None:
    """sha256 of an adapter's weights, or None where the folder holds none."""
    path = folder / "adapter_model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def digest(value: Any) -> str:
    """sha256 of any JSON value, the same for equal values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The fingerprint keys that differ, each with both values, in words."""
    keys = sorted(ours.keys() & theirs.keys())
    return [f"{key} is {ours[key]!r} here and {theirs[key]!r} there" for key in keys if ours[key] != theirs[key]]


def find_parent(folder: Path, fingerprint: Mapping[str, Any], phase: int, seed: int, root: Path) -> Path:
    """The adapter folder of the finished run of `phase` that this run continues.

    The runs beside `folder` (same sweep) come first, of them those that were typed most like this one, then those of the
    same seed; after them the newest under root/outputs and root/multirun. ValueError, with each candidate and why it was
    passed over, when there is none.
    """
    in_sweep = (folder.parent / "multirun.yaml").exists()
    siblings = sorted(path.parent for path in folder.parent.glob("*/run.json")) if in_sweep else []
    elsewhere = [run for name in RUN_ROOTS for run in below(root / name)]
    passed: list[str] = []
    for group in (siblings, elsewhere):
        records = {run: read(run) or {} for run in group if run != folder}
        candidates = {path: record for path, record in records.items() if record.get("phase") == phase}
        if group is siblings:
            candidates = _typed_most_like(folder, candidates)
        unfit = {path: _unfit(record, fingerprint) for path, record in candidates.items()}
        matches = [
            (group is siblings and candidates[path].get("seed") == seed, candidates[path]["finished"], path)
            for path, reason in unfit.items()
            if not reason
        ]
        if matches:
            return max(matches)[2] / "adapter"
        passed += [f"{path}: {reason}" for path, reason in unfit.items()]
        if candidates and group is siblings:
            break  # a sweep's phase 2 continues the sweep's phase 1 or nothing
    listed = "".join(f"\n  {line}" for line in passed[:10]) or " (no training run was found)"
    raise ValueError(
        f"adapter=auto found no finished phase-{phase} run to continue in {root}/{{{','.join(RUN_ROOTS)}}}; train one with "
        f"`python train.py phase={phase}` or name one with adapter=FOLDER. Passed over:{listed}"
    )


def _typed_most_like(folder: Path, candidates: Mapping[Path, dict[str, Any]]) -> dict[Path, dict[str, Any]]:
    """The candidates that share most overrides with the job in `folder`.

    In a sweep over phases and rates each phase 2 has a phase 1 of its own rate, and no other may take its place.
    """
    ours = set(overriding.saved(folder) or ())
    shared = {path: len(ours.intersection(overriding.saved(path) or ())) for path in candidates}
    return {path: record for path, record in candidates.items() if shared[path] == max(shared.values())}


def _unfit(record: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> str:
    if record.get("status") != "finished":
        return f"its status is {record.get('status')}"
    return "; ".join(differing(fingerprint, record.get("fingerprint", {})))
