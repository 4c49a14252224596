"""What a run survives, as the table of docs/reliability.md: python benchmarks/faults.py (some ten minutes on one core).

Every run is a process of its own that trains the tiny model for ten steps in two epochs, with a checkpoint every two. It kills
itself with SIGKILL at a place that a seed draws: half of them in a step, before its gradient or its optimizer, and half in a
save, before or in the middle of a file, sync, rename or deletion. Then the same training goes on in the same folder, and its
adapter and history are compared with those of a run that nobody disturbed, byte for byte. Beside it stands transformers'
Trainer on the same rows, resumed as its documentation says. A kill is of the process, not of the machine: what the kernel has
not yet written to the disk is not lost.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
from subjects import INTERVAL, TEN_STEPS, TINY, Ours, Plain, before, composed, halve
from transformers import Trainer
from trl import SFTTrainer

from text2sql import checkpointing, checkpoints, runs, training
from text2sql.anomalies import Watch
from text2sql.trainer import TokenBudgetTrainer

ROOT = Path(__file__).resolve().parent.parent


# Processes


def in_child(does: Callable[[], Any], log: Path) -> int:
    """The exit code of a forked process that does it; negative for a signal."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        does()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def killed_at(subject: Any, folder: Path, place: int | None) -> int:
    """Train and kill at the place of that number, or count the places into a file."""
    passed: list[bool] = []

    def point(half: Path | None = None, in_step: bool = False) -> None:
        passed.append(in_step)
        if len(passed) == place:
            if half is not None:
                halve(half)
            os.kill(os.getpid(), signal.SIGKILL)

    def does() -> None:
        patches = subject.places(point)
        for patch in patches:
            patch.start()
        subject.train(folder, resume=False)
        (folder.parent / f"{folder.name}.places").write_text(json.dumps(passed))

    return in_child(does, folder.parent / "log")


def go_on(subject: Any, folder: Path, expected: Any) -> str:
    """How the run in `folder` ends when it is resumed: identical, different, or broken."""
    if in_child(lambda: subject.train(folder, resume=True), folder.parent / "log"):
        return "broken"
    return "identical" if subject.result(folder) == expected else "different"


# The faults


def kills(subject: Any, root: Path, number: int, seed: int) -> tuple[Any, Counter[str]]:
    whole = root / "whole"
    assert killed_at(subject, whole, None) == 0, (root / "log").read_text()[-2000:]
    expected, places = subject.result(whole), json.loads((root / "whole.places").read_text())
    draw = random.Random(seed)
    of_kind = {kind: [i + 1 for i, in_step in enumerate(places) if in_step is kind] for kind in (True, False)}
    drawn = [place for kind in (True, False) for place in draw.sample(of_kind[kind], number // 2)]
    ends: Counter[str] = Counter()
    for place in drawn:
        folder = root / f"kill-{place}"
        assert killed_at(subject, folder, place) == -signal.SIGKILL
        end = go_on(subject, folder, expected)
        ends[end] += 1
        print(f"  {subject.name}: killed at place {place} of {len(places)}: {end}", file=sys.stderr, flush=True)
        shutil.rmtree(folder)
    return expected, ends


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


KINDS = {"torn": halve, "empty": emptied, "bit-flipped": flipped, "missing": Path.unlink}


def damages(subject: Any, root: Path, expected: Any) -> tuple[Counter[str], Counter[str], int]:
    """How runs end whose last checkpoint has a damaged file, which of them said so, and how many lost more than an interval."""
    before_damage = root / "broken-off"
    steps = 0

    def until_nine(in_step: bool) -> None:
        nonlocal steps
        steps += 1
        if steps == 10:
            os.kill(os.getpid(), signal.SIGKILL)

    def does() -> None:
        owner = TokenBudgetTrainer if isinstance(subject, Ours) else Trainer
        with before(owner, "training_step", until_nine):
            subject.train(before_damage, resume=False)

    assert in_child(does, root / "log") == -signal.SIGKILL
    ends: Counter[str] = Counter()
    said: Counter[str] = Counter()
    lost_more = 0
    latest = checkpoints.all_in(before_damage / "checkpoints")[0]
    for path in sorted(path for path in latest.rglob("*") if path.is_file() and path.stat().st_size):
        for kind, break_it in KINDS.items():
            folder = root / "damaged"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(before_damage, folder)
            hurt = folder / "checkpoints" / latest.name
            break_it(hurt / path.relative_to(latest))
            if isinstance(subject, Ours):
                said[kind] += checkpoints.damage(hurt) is not None
                taken = checkpoints.newest_whole(folder / "checkpoints")
                lost_more += taken is None or checkpoints.step_of(hurt) - checkpoints.step_of(taken) > INTERVAL
            end = go_on(subject, folder, expected)
            ends[end] += 1
            print(f"  {subject.name}: {kind} {path.name}: {end}", file=sys.stderr, flush=True)
    return ends, said, lost_more


def full_disks(subject: Any, root: Path, expected: Any) -> tuple[Counter[str], int]:
    """How runs end that met a full disk at each file of the second checkpoint and were resumed; how many lost the first."""
    first = checkpoints.all_in(root / "whole/checkpoints")[0]
    names = sorted({path.name for path in first.iterdir()})
    ends: Counter[str] = Counter()
    lost = 0
    for name in names:
        folder = root / f"full-{name}"
        if in_child(lambda name=name, folder=folder: on_full_disk(subject, folder, name), root / "log") == 0:
            if isinstance(subject, Ours):  # it has gone on without a file that could not be written
                ends["broken"] += 1
            continue  # upstream's: a file that is written by no function of the list
        found = checkpoints.all_in(folder / "checkpoints")
        if isinstance(subject, Ours):
            lost += checkpoints.newest_whole(folder / "checkpoints") is None or runs.read(folder)["status"] != "failed"
        else:
            lost += not found
        end = go_on(subject, folder, expected)
        ends[end] += 1
        print(f"  {subject.name}: disk full at {name}: {end}", file=sys.stderr, flush=True)
    return ends, lost


def on_full_disk(subject: Any, folder: Path, name: str) -> None:
    """Train until the file of that name is written for the second time, half of which finds room."""
    met = 0

    def refuse(path: Any) -> None:
        nonlocal met
        path = Path(path)
        met += path.name == name and "checkpoint" in str(path)
        if met == 2:
            halve(path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sync = checkpoints.sync

    def synced(path: Path) -> None:
        refuse(path)
        sync(path)

    def point(half: Path | None = None, in_step: bool = False) -> None:
        if half is not None:
            refuse(half)

    patches = [mock.patch.object(checkpoints, "sync", synced)] if isinstance(subject, Ours) else subject.places(point)
    for patch in patches:
        patch.start()
    subject.train(folder, resume=False)


def terminations(root: Path, number: int) -> list[tuple[float, float]]:
    """Seconds from SIGTERM to the manifest of a whole checkpoint and to the end of the command, for typed commands."""
    found = []
    for turn in range(number):
        folder = root / f"term-{turn}"
        command = [sys.executable, str(ROOT / "train.py"), *TINY, *TEN_STEPS, "trainer.num_train_epochs=200"]
        command += ["trainer.save_steps=100000", "trainer.eval_steps=20", f"hydra.run.dir={folder}"]
        with (root / "log").open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=root)
        while len(runs.read_jsonl(folder / "history.jsonl")) < 3 + 7 * turn and process.poll() is None:
            time.sleep(0.02)
        sent, process_time = time.time(), time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143
        ended = time.monotonic() - process_time
        whole = checkpoints.newest_whole(folder / "checkpoints")
        assert whole is not None
        found.append(((whole / checkpoints.MANIFEST).stat().st_mtime - sent, ended))
    return found


CLOCKS = {"wall": time.monotonic, "processor": time.process_time}
"""What overheads are measured by: on a shared machine the wall's time is others' too; the processor's has no waits."""


def overheads(root: Path, pairs: int) -> dict[str, list[float]]:
    """By clock, a pair of runs of 96 steps and four checkpoints: time with all this by time with upstream's, less 1."""
    settings = composed(
        "trainer.batch_size=8", "trainer.num_train_epochs=32", "trainer.logging_steps=10", "eval.num_live_samples=0"
    )

    def one(folder: Path, bare: bool) -> None:
        if bare:
            mock.patch.object(
                checkpointing.CheckpointingTrainer, "_save_checkpoint", SFTTrainer._save_checkpoint
            ).start()
            mock.patch.object(checkpointing.CheckpointingTrainer, "_save", SFTTrainer._save).start()
            mock.patch.object(Watch, "see", lambda self, step, rows, loss, gradient: loss).start()
            mock.patch.object(TokenBudgetTrainer, "end_step", return_value=False).start()
        began = {name: clock() for name, clock in CLOCKS.items()}
        training.train(settings, str(folder))
        runs.write_json(root / "seconds", {name: clock() - began[name] for name, clock in CLOCKS.items()})

    def seconds(number: int, bare: bool) -> dict[str, float]:
        assert in_child(lambda: one(root / f"overhead-{number}-{bare}", bare), root / "log") == 0, (
            root / "log"
        ).read_text()[-2000:]
        return json.loads((root / "seconds").read_text())

    found: dict[str, list[float]] = {name: [] for name in CLOCKS}
    for number in range(pairs):
        order = [True, False] if number % 2 else [False, True]
        took = {bare: seconds(number, bare) for bare in order}
        for name, values in found.items():
            values.append(took[False][name] / took[True][name] - 1)
            print(f"  {name}: {100 * values[-1]:.1f} % of {took[True][name]:.2f} s", file=sys.stderr, flush=True)
    return found


def interval(values: list[float]) -> tuple[float, float]:
    """The 95 % interval of the median, by the bootstrap of a fixed seed."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(2000))
    return medians[50], medians[1949]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| fault | " + " | ".join(one.name for one in (Ours, Plain)) + " |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="text2sql-faults-") as aside:
        subjects = [Ours(), Plain()]
        roots = [Path(aside) / type(one).__name__ for one in subjects]
        for root in roots:
            root.mkdir()
        killed = [kills(one, root, options.kills, options.seed) for one, root in zip(subjects, roots)]
        print(
            f"| kill -9 at {options.kills} places, ended | {' | '.join(told(ends) for _, ends in killed)} |", flush=True
        )
        hurt = [damages(one, root, expected) for one, root, (expected, _) in zip(subjects, roots, killed)]
        print(f"| a damaged file of the last checkpoint, ended | {' | '.join(told(ends) for ends, _, _ in hurt)} |")
        files = sum(hurt[0][0].values()) // len(KINDS)
        noticed = ", ".join(f"{kind} {count} of {files}" for kind, count in hurt[0][1].items())
        print(f"| noticed before loading | {noticed} | |\n| lost more than an interval | {hurt[0][2]} | |", flush=True)
        full = [full_disks(one, root, expected) for one, root, (expected, _) in zip(subjects, roots, killed)]
        print(f"| disk full at each file, resumed and ended | {' | '.join(told(ends) for ends, _ in full)} |")
        print(
            f"| disk full, without the checkpoint before or a stamp | {' | '.join(str(lost) for _, lost in full)} |",
            flush=True,
        )
        ends = terminations(roots[0], 5)
        saved, ended = max(one for one, _ in ends), max(one for _, one in ends)
        print(
            f"| SIGTERM, slowest of {len(ends)} | whole checkpoint after {saved:.1f} s, end after {ended:.1f} s | |",
            flush=True,
        )
        for name, over in overheads(roots[0], options.pairs).items():
            low, high = interval(over)
            cost = f"{100 * statistics.median(over):.1f} % ({100 * low:.1f} to {100 * high:.1f})"
            print(f"| {name} time on top of upstream's checkpoints, median of {len(over)} pairs | {cost} | |")


def told(ends: Counter[str]) -> str:
    total = sum(ends.values())
    return ", ".join(f"{ends[end]} of {total} {end}" for end in ("identical", "different", "broken") if ends[end])


if __name__ == "__main__":
    main()
