"""Runs train.py or evaluate.py again, in a process of its own whose output goes where ours goes."""

from __future__ import annotations

import os
import subprocess
import sys

from text2sql.reproduction.plan import Plan, literal


def command(plan: Plan) -> list[str]:
    """What is run. The folder is named, for a saved config does not say in which its run was."""
    replay = ["--config-dir", str(plan.recorded.folder / ".hydra"), "--config-name", "config"]
    return [sys.executable, str(plan.script), *replay, *plan.overrides, f"hydra.run.dir={literal(str(plan.output))}"]


def environment(plan: Plan) -> dict[str, str]:
    """This process's environment with as many threads as the run had, where it recorded them: sums depend on their number."""
    found = dict(os.environ)
    if "threads" not in plan.recorded.stamp:
        return found
    found.pop("OMP_NUM_THREADS", None)
    threads = plan.recorded.stamp["threads"]
    return found if threads is None else {**found, "OMP_NUM_THREADS": str(threads)}


def repeat(plan: Plan) -> int:
    """Run it to its end, in the current folder, as it was typed; returns its exit code.

    On Ctrl-C, which the terminal sends to the run as well, waits until that has written its end.
    """
    process = subprocess.Popen(command(plan), env=environment(plan))
    try:
        return process.wait()
    except KeyboardInterrupt:
        return process.wait()
