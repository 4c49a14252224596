"""What the driver of a sweep costs a job, what composing a config costs, and how long `python train.py --help` takes.

    python benchmarks/driver.py

Prints each figure (median of several, with the fastest and the slowest), its goal, and whether it is met. On a machine that
does other things too, the CPU time says what it would be on an idle one.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from text2sql.driver import processes
from text2sql.driver.processes import Job

ROOT = Path(__file__).resolve().parent.parent
SMALL, LARGE = 10, 60
REPEATS = 7
NOTHING = """
import sys
sys.path.insert(0, {root!r})
import hydra
from text2sql import commandline

@hydra.main(version_base="1.3", config_path={conf!r}, config_name="train")
def main(cfg):
    return 0.0

if __name__ == "__main__":
    with commandline.readable_errors():
        main()
"""
COMPOSE = """
import time
import hydra
from text2sql import commandline, config
times = []
with hydra.initialize_config_dir(version_base="1.3", config_dir=str(commandline.CONF)):
    for number in range(12):
        began, worked = time.perf_counter(), time.process_time()
        hydra.compose("train", overrides=["experiment=quickstart", f"seed={number}"])
        times.append((time.perf_counter() - began, time.process_time() - worked))
print(*(wall for wall, _ in times))
print(*(cpu for _, cpu in times))
"""


def main() -> None:
    printed = subprocess.run(
        [sys.executable, "-c", COMPOSE], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    composing, worked = ([float(one) for one in line.split()] for line in printed.splitlines())
    before = cpu_of_children()
    helping = [timed([sys.executable, "train.py", "--help"], ROOT) for _ in range(REPEATS)]
    helped = (cpu_of_children() - before) / REPEATS
    with tempfile.TemporaryDirectory(prefix="driver-") as place:
        folder = Path(place)
        (folder / "train.py").write_text(NOTHING.format(root=str(ROOT), conf=str(ROOT / "conf")))
        driving = [(driven(folder / str(number)) - forked()) / LARGE for number in range(REPEATS)]
        whole = {launcher: [a_job(folder, launcher) for _ in range(3)] for launcher in ("processes", "basic")}
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print("| figure | median | fastest to slowest | goal | met |\n| --- | --- | --- | --- | --- |")
    report("the driver, a job, over the process start itself", driving, "ms", 50)
    report("composing a config, the first of a process", composing[:1], "ms", 100)
    report("composing a config, any later one", composing[1:], "ms", 100)
    report("the same, CPU time alone", worked[1:], "ms", 100)
    report("python train.py --help", helping, "s", 0.6)
    report("the same, CPU time alone", [helped], "s", 0.6)
    for launcher, seconds in whole.items():
        report(f"a job that does nothing, in all, hydra/launcher={launcher}", seconds, "ms", None)


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def driven(sweep: Path) -> float:
    """Seconds of a sweep of jobs that do nothing, without Hydra: starting, journal, watching, collecting."""
    jobs = [Job(number, "", sweep / str(number), float) for number in range(LARGE)]
    sweep.mkdir()
    began = time.perf_counter()
    ended, _ = processes.run(jobs, sweep, [{}, {}], explain=repr)
    assert [one.value for one in ended] == [0.0] * LARGE
    return time.perf_counter() - began


def forked() -> float:
    """Seconds to start and await as many processes one after the other."""
    context = multiprocessing.get_context("fork")
    began = time.perf_counter()
    for _ in range(LARGE):
        process = context.Process(target=float)
        process.start()
        process.join()
    return time.perf_counter() - began


def a_job(folder: Path, launcher: str) -> float:
    """Seconds a job of a sweep of jobs that do nothing: the difference of two sweeps, so that starting Python is not in it."""
    seconds: dict[int, float] = {}
    for jobs in (SMALL, LARGE):
        command = [sys.executable, "train.py", "-m", f"seed=range({jobs})", "experiment=quickstart"]
        command += [f"hydra/launcher={launcher}", f"hydra.sweep.dir={folder}/{time.monotonic_ns()}"]
        seconds[jobs] = timed(command, folder)
    return (seconds[LARGE] - seconds[SMALL]) / (LARGE - SMALL)


def timed(command: list[str], folder: Path) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return time.perf_counter() - began


def report(name: str, seconds: list[float], unit: str, goal: float | None) -> None:
    scale, digits = (1000, 0) if unit == "ms" else (1, 2)
    low, median, high = (scale * value for value in (min(seconds), statistics.median(seconds), max(seconds)))
    met = ("-", "-") if goal is None else (f"{goal:g} {unit}", "yes" if median <= goal else "NO")
    print(f"| {name} | {median:.{digits}f} {unit} | {low:.{digits}f} to {high:.{digits}f} | {met[0]} | {met[1]} |")


if __name__ == "__main__":
    main()
