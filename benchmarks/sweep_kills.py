"""Kill the jobs and the driver of a sweep at random, type the sweep again until it is done, and count what ran twice.

    python benchmarks/sweep_kills.py --launchers processes basic joblib

The sweep is 24 trainings of the tiny model on the CPU (train.py, nothing is faked), or with --stand-in SECONDS 24 jobs that
wait so long between the same files, for a look at the launchers in minutes. Under `processes` it is typed again with
resume=true, under Hydra's own launchers as their users have to: from the start, in a new folder. Then the table is compared
with that of a sweep that nobody disturbed, digit by digit but for the seconds. One thread a job, so that sums are alike.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GRID = ["lora.r=2,4,8", "trainer.learning_rate=1e-3,3e-3,1e-2,3e-2", "seed=1,2"]
TINY = (
    "model=tiny hardware=cpu hardware.bf16=false data.path=mini tracking=none prompt.max_sql_tokens=64 data.max_samples=64 "
    "data.max_validation_samples=8 trainer.batch_size=8 trainer.logging_steps=1 eval.num_live_samples=1"
).split()
JOBS = 24
STAND_IN = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
import hydra
from hydra.core.hydra_config import HydraConfig
from text2sql import commandline, runs

@hydra.main(version_base="1.3", config_path={conf!r}, config_name="train")
def main(cfg):
    folder = Path(HydraConfig.get().runtime.output_dir)
    runs.start(folder, kind="train", phase=1, seed=cfg.seed)
    time.sleep({seconds})
    loss = cfg.lora.r + cfg.trainer.learning_rate + cfg.seed / 10
    runs.write_json(folder / "metrics.json", {{"validation/loss": loss}})
    runs.finish(folder, "finished")
    return loss

if __name__ == "__main__":
    with commandline.readable_errors():
        main()
"""
SHARE_OF_DRIVERS = 0.4
GIVES_UP_AFTER = 60
NOT_COMPARED = ("seconds", "folder")


@dataclass
class Outcome:
    """What a sweep under fire came to."""

    launcher: str
    kills: int
    killed_drivers: int
    typed: int
    starts: int
    ended_once: int
    ran_again: int
    table_is_equal: bool
    seconds: float

    def row(self) -> str:
        verdict = "yes" if self.table_is_equal else "no"
        cells = [self.launcher, f"{self.kills} ({self.killed_drivers} of the driver)", self.typed, self.starts]
        cells += [f"{self.ended_once} of {JOBS}", self.ran_again, verdict, f"{self.seconds:.0f}"]
        return "| " + " | ".join(map(str, cells)) + " |"


HEADER = (
    "| launcher | kills | typed | jobs started | ended exactly once | finished jobs that ran again | table equal | seconds |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launchers", nargs="+", default=["processes", "basic", "joblib"])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--between", type=float, nargs=2, default=(3.0, 12.0), metavar=("FROM", "TO"), help="seconds")
    parser.add_argument("--stand-in", type=float, metavar="SECONDS", help="jobs that only wait so long")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sweep-kills-") as place:
        folder = Path(place)
        if options.stand_in is not None:
            text = STAND_IN.format(root=str(ROOT), conf=str(ROOT / "conf"), seconds=options.stand_in)
            (folder / "train.py").write_text(text)
        began = time.monotonic()
        calm = start("processes", folder, folder / "calm", options.parallel, resumes=False)
        if calm.wait():
            sys.exit(f"the undisturbed sweep failed; see {folder}")
        expected = table(folder / "calm")
        print(f"undisturbed: {len(expected)} jobs in {time.monotonic() - began:.0f} s\n\n{HEADER}", flush=True)
        for launcher in options.launchers:
            if launcher == "joblib" and importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is None:
                print("| joblib | skipped: pip install hydra-joblib-launcher |", flush=True)
                continue
            print(disturbed(launcher, folder, expected, options).row(), flush=True)


def start(launcher: str, folder: Path, sweep: Path, parallel: int, *, resumes: bool) -> subprocess.Popen[bytes]:
    side_by_side = {
        "processes": [f"hydra.launcher.processes={parallel}"],
        "joblib": [f"hydra.launcher.n_jobs={parallel}"],
    }
    words = ["-m", *GRID, *TINY, f"hydra/launcher={launcher}", *side_by_side.get(launcher, [])]
    words += [f"hydra.sweep.dir={sweep}", *(["resume=true"] if resumes else [])]
    script = folder / "train.py" if (folder / "train.py").exists() else ROOT / "train.py"
    return subprocess.Popen(
        [sys.executable, str(script), *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=(folder / f"{launcher}.txt").open("ab"),
        start_new_session=True,
    )


def disturbed(launcher: str, folder: Path, expected: list[dict[str, str]], options: argparse.Namespace) -> Outcome:
    """Kill until there were enough kills, typing the sweep again each time it has ended, and once more until it is done."""
    dice = random.Random(options.seed)
    ours = launcher == "processes"
    sweeps = [folder / launcher if ours else folder / f"{launcher}-0"]
    kills = killed_drivers = 0
    typed, began = 1, time.monotonic()
    driver = start(launcher, folder, sweeps[-1], options.parallel, resumes=False)
    due = time.monotonic() + dice.uniform(*options.between)
    while True:
        time.sleep(0.05)
        if driver.poll() is not None:
            end_session(driver.pid)
            if driver.returncode == 0 or typed >= GIVES_UP_AFTER:
                break
            resumes = ours and (sweeps[-1] / "multirun.yaml").exists()
            if not ours:
                sweeps.append(folder / f"{launcher}-{typed}")
            driver = start(launcher, folder, sweeps[-1], options.parallel, resumes=resumes)
            typed += 1
        elif kills < options.kills and time.monotonic() > due:
            jobs = job_processes(driver.pid)
            if not jobs and (launcher != "basic" or not any(sweeps[-1].glob("*/run.json"))):
                continue  # it composes still: a kill here is none of a job's
            victim = driver.pid if not jobs or dice.random() < SHARE_OF_DRIVERS else dice.choice(sorted(jobs))
            os.kill(victim, signal.SIGKILL)
            kills, killed_drivers = kills + 1, killed_drivers + (victim == driver.pid)
            due = time.monotonic() + dice.uniform(*options.between)
    starts, finished, again = history(sweeps[0]) if ours else history_of_several(sweeps)
    once = sum(finished[job] == 1 for job in range(JOBS))
    equal = table(sweeps[-1]) == expected
    return Outcome(launcher, kills, killed_drivers, typed, starts, once, again, equal, time.monotonic() - began)


def history(sweep: Path) -> tuple[int, Counter[int], int]:
    """From the sweep's journal: starts, how often each job finished, and how many started after they had finished."""
    finished: Counter[int] = Counter()
    starts = again = 0
    for line in (sweep / "jobs.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["event"] == "started":
            starts += 1
            again += finished[row["job"]] > 0
        elif row["event"] == "finished":
            finished[row["job"]] += 1
    return starts, finished, again


def history_of_several(sweeps: list[Path]) -> tuple[int, Counter[int], int]:
    """The same from the run folders of sweeps that were each typed from the start."""
    finished: Counter[int] = Counter()
    starts = again = 0
    for sweep in sweeps:
        for path in sorted(sweep.glob("*/run.json")):
            job = int(path.parent.name)
            starts += 1
            again += finished[job] > 0
        for path in sweep.glob("*/run.json"):
            finished[int(path.parent.name)] += '"status": "finished"' in path.read_text()
    return starts, finished, again


def table(sweep: Path) -> list[dict[str, str]]:
    """The rows of `text2sql table --format csv`, by job, without its seconds and its place."""
    command = [sys.executable, "-m", "text2sql.cli", "table", str(sweep), "--format", "csv"]
    run = "import sys; from text2sql.cli import main; sys.exit(main(sys.argv[1:]))"
    printed = subprocess.run(
        [sys.executable, "-c", run, *command[3:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    rows = [row for row in csv.DictReader(io.StringIO(printed.stdout)) if row.get("line") == "job"]
    bare = [{key: value for key, value in row.items() if key not in NOT_COMPARED} for row in rows]
    return sorted(bare, key=lambda row: int(row["job"]))


def job_processes(driver: int) -> list[int]:
    """The driver's children that are jobs: joblib has a resource tracker beside them."""
    return [pid for pid, parent, words in processes() if parent == driver and "resource_tracker" not in words]


def processes() -> Iterator[tuple[int, int, str]]:
    """(pid, parent's pid, command line) of every process."""
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                words = (path / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if fields[0] not in "ZX":
                yield int(path.name), int(fields[1]), words


def end_session(leader: int) -> None:
    """End what a killed driver of Hydra's own launchers has left behind; jobs of ours are in groups of their own."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


if __name__ == "__main__":
    main()
