"""What the kernel tells of the workers that this process has started."""

from __future__ import annotations

import time
from pathlib import Path


def children(of: int | str = "self") -> list[int]:
    """The process ids of the running workers of a process; other tests may have left children of another kind."""
    found = []
    for file in Path(f"/proc/{of}/task").glob("*/children"):
        try:
            found += [int(pid) for pid in file.read_text().split()]
        except OSError:  # the thread has ended
            continue
    return [pid for pid in found if is_running(pid) and is_worker(pid)]


def is_worker(pid: int) -> bool:
    """Whether the process was started to judge. Between fork and exec it still has its parent's command line."""
    try:
        return b"text2sql.sql.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def is_running(pid: int) -> bool:
    """Whether the process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until_gone(pids: list[int], timeout_s: float) -> list[int]:
    """Wait for processes to end; returns those that still run when the time is over."""
    deadline = time.monotonic() + timeout_s
    while (left := [pid for pid in pids if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


def peak_memory_mb(pid: int) -> float:
    """The most memory the process ever had in use; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return max((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), default=0.0)
