"""The adapter that a run has trained."""

from __future__ import annotations

from pathlib import Path

from text2sql import runs


def adapter_of(run: Path) -> str:
    """The adapter in a run's folder; ValueError where the run has none yet or is no run."""
    adapter = run / "adapter"
    if (adapter / "adapter_config.json").is_file():
        return str(adapter)
    if (run / "adapter_config.json").is_file():
        raise ValueError(f"--run {run} is an adapter's folder, not a run's: type --adapter {run}")
    if not (run / "run.json").is_file():
        raise ValueError(f"--run {run} is no run's folder: name one that train.py made, such as outputs/RUN")
    stamp = runs.read(run) or {}
    raise ValueError(
        f"--run {run} has no adapter ({stamp.get('kind')}, {stamp.get('status')}): name a training that has finished"
    )
