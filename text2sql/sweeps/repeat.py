"""The commands that make a job once more: from the config that it saved, and as it was typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from text2sql import overriding
from text2sql.sweeps import overrides
from text2sql.sweeps.jobs import Job


def from_config(job: Job) -> str:
    """The command for the saved config, for a shell; "" where the job has saved none.

    A phase that continued "the newest adapter" names the one that this was, for by now another one may be the newest.
    """
    saved = job.folder / ".hydra" / "config.yaml"
    if not saved.is_file():
        return ""
    words = ["python", job.script, "--config-dir", str(job.folder / ".hydra"), "--config-name", "config"]
    config = overriding.read_yaml(saved)
    for key, parent in (("adapter", job.parent), ("merge_adapter", job.merged_parent)):
        if parent and isinstance(config, dict) and config.get(key) == "auto":
            words.append(f"{key}={overriding.literal(str(Path(parent)))}")
    return overrides.one_line(shlex.join(words))


def as_typed(job: Job) -> str:
    """The command with the job's overrides, for a shell; "" where the job has saved none."""
    if not job.typed:
        return ""
    typed = [re.sub(r"^phase='(\d+)'$", r"phase=\1", one) for one in job.typed]
    return overrides.one_line(shlex.join(["python", job.script, *typed]))
