"""Which GPUs each job sees where several run side by side. Torch is not asked: the driver of a sweep never loads it."""

from __future__ import annotations

import os
import subprocess


def visible() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; none on a machine without."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [one.strip() for one in named.split(",") if one.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, _ in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]


def environments(processes: int, gpus_per_job: int) -> list[dict[str, str]]:
    """The variables of each slot: its own GPUs and its share of the cores.

    One job at a time sees all that there is. ValueError if there are too few GPUs, unless there are none at all: then
    each job says itself what it misses.
    """
    if processes == 1:
        return [{}]
    found: list[dict[str, str]] = [_threads(processes) for _ in range(processes)]
    if gpus_per_job == 0 or not (gpus := visible()):
        return found
    if processes * gpus_per_job > len(gpus):
        raise ValueError(
            f"hydra.launcher.processes={processes} jobs side by side with {gpus_per_job} GPU(s) each need "
            f"{processes * gpus_per_job} and there are {len(gpus)}; lower hydra.launcher.processes to "
            f"{max(1, len(gpus) // gpus_per_job)}, or let all jobs see all GPUs with hydra.launcher.gpus_per_job=0"
        )
    for slot, environment in enumerate(found):
        own = gpus[slot * gpus_per_job : (slot + 1) * gpus_per_job]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    return found


def _threads(processes: int) -> dict[str, str]:
    """Threads for one of several jobs, unless somebody has said how many: each would else take every core."""
    if "OMP_NUM_THREADS" in os.environ:
        return {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"OMP_NUM_THREADS": str(max(1, cores // processes))}
