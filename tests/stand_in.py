"""A train.py that trains nothing: Hydra, the command line and the launcher are real, a job takes milliseconds.

`end` says how a job ends, all end well once there is a file `good`, and each says in starts.txt that it has begun.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = """
import json, os, signal, sys, time
from pathlib import Path

sys.path.insert(0, {root!r})
import hydra
from hydra.core.hydra_config import HydraConfig
from text2sql import commandline, runs
{first}

@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg):
    folder = Path(HydraConfig.get().runtime.output_dir)
    runs.write_json(folder / "run.json", {{"status": "running", "kind": "train", "phase": cfg.phase.number, "mine": cfg.x}})
    if cfg.end == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open("starts.txt", "a") as file:
        file.write(f"{{HydraConfig.get().job.num}} {{os.environ.get('CUDA_VISIBLE_DEVICES')}} {{os.getpid()}}\\n")
    print("said by", cfg.end, flush=True)
    end = cfg.end
    if Path("good").exists():
        end = "well"
    if end == "raise":
        raise KeyError("boom")
    if end == "long":
        raise KeyError("long" * 50_000)
    if end == "exit":
        sys.exit(3)
    if end == "exit0":
        sys.exit(0)
    if end == "_exit":
        os._exit(4)
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if end in ("sleep", "deaf"):
        time.sleep(60)
    if end == "child":
        os.fork() or time.sleep(60)
        os.kill(os.getpid(), signal.SIGKILL)
    runs.write_json(folder / "metrics.json", {{"validation/loss": float(HydraConfig.get().job.num)}})
    runs.finish(folder, "finished")
    return float(HydraConfig.get().job.num)


if __name__ == "__main__":
    with commandline.readable_errors():
        main()
"""


CONF = {
    "train.yaml": "{defaults: [phase: '1', _self_, override hydra/launcher: processes], "
    "end: well, x: 0, seed: 0, adapter: auto, resume: false, "
    "hydra: {sweep: {dir: 'multirun/${now:%H-%M-%S_%f}', subdir: '${hydra.job.num}'}}}",
    "phase/1.yaml": "number: 1",
    "phase/2.yaml": "number: 2",
}


def write(folder, first=""):
    """Write it into `folder`; `first` is code that it begins with, once it can import text2sql."""
    (folder / "train.py").write_text(SOURCE.format(root=str(ROOT), first=first))
    for name, text in CONF.items():
        (folder / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "conf" / name).write_text(text)


def command(typed):
    script, *arguments = shlex.split(typed)
    return [sys.executable, script, "-m", *arguments]


def environment(**more):
    found = {key: value for key, value in os.environ.items() if key not in ("HYDRA_FULL_ERROR", "CUDA_VISIBLE_DEVICES")}
    return {**found, **more}


def type_in(folder, typed, **variables):
    """Run the stand-in's multirun in `folder`: exit code, stdout and stderr."""
    return subprocess.run(
        command(typed),
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def begin(folder, typed):
    """Start it and return at once. It hears Ctrl-C, also where a shell runs the tests in its background and ignores it."""
    return subprocess.Popen(
        command(typed),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def starts(folder):
    """(job, its GPUs, its pid) for each job that began, in order."""
    path = folder / "starts.txt"
    rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [(int(job), gpus, int(pid)) for job, gpus, pid in rows]


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def _status(pid):
    """State and process group of a process; None for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (fields[0], int(fields[2]))


def is_alive(pid):
    return _status(pid) is not None


def group(leader):
    """The pids of all processes that run in the group of `leader`."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [pid for pid in pids if (found := _status(pid)) is not None and found[1] == leader]


def end(process):
    """Kill what a test began, and wait for it."""
    process.send_signal(signal.SIGKILL)
    process.wait()
