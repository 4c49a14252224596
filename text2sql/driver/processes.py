"""Runs the jobs of a sweep, each in a process of its own: starts them, watches them, and says what became of each."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any

from text2sql.driver import child, ending, journal

log = logging.getLogger(__name__)

LOOKS_EVERY_S = 0.05
"""A process that a job has left behind keeps the job's sentinel open, so the driver also looks by itself."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NOTHING_SENT: tuple[str, Any, str] = "", None, ""
START_METHOD = "fork" if sys.platform == "linux" else "spawn"


@dataclass(frozen=True)
class Job:
    """One job: `call` does it and returns its value. Jobs of a higher `phase` wait for all of a lower one.

    `needs` is the number of the job that this one continues: if that one fails, this one is not started.
    """

    number: int
    label: str
    folder: Path
    call: Callable[[], Any]
    phase: int = 0
    needs: int | None = None


@dataclass(frozen=True)
class Ended:
    """How a job ended (child.FINISHED, FAILED or INTERRUPTED), and its value or the reason; `kept`: by an earlier driver."""

    number: int
    label: str
    folder: Path
    how: str
    value: Any = None
    reason: str = ""
    error_type: str = ""
    kept: bool = False


@dataclass
class _Running:
    job: Job
    process: Any
    result: connection.Connection
    slot: int
    began: float
    shown: int
    told: bool = False


@dataclass
class _State:
    """What is left to start, what runs by its job's number, and what has ended."""

    sweep: Path
    environments: Sequence[Mapping[str, str]]
    explain: child.Explain
    waiting: list[Job]
    running: dict[int, _Running] = field(default_factory=dict)
    ended: dict[int, Ended] = field(default_factory=dict)


def run(
    jobs: Sequence[Job],
    sweep: Path,
    environments: Sequence[Mapping[str, str]],
    *,
    explain: child.Explain,
    kept: Sequence[Ended] = (),
) -> tuple[list[Ended], signal.Signals | None]:
    """Run the jobs, as many at a time as there are `environments`; returns how each ended, and the signal that cut it short.

    A job may raise, exit or be killed: that is its end and no other job's. On SIGINT, SIGTERM and SIGHUP the jobs get the
    same signal and are waited for; a second one kills them. Jobs that were not started are not among those returned.
    """
    in_order = sorted(jobs, key=lambda job: (job.phase, job.number))
    state = _State(sweep, environments, explain, in_order, ended={one.number: one for one in kept})
    with _signals() as caught:
        try:
            while state.running or (state.waiting and not caught):
                while not caught and _start_next(state):
                    pass
                connection.wait([one.process.sentinel for one in state.running.values()], LOOKS_EVERY_S)
                _collect(state, bool(caught))
                _forward(caught, state)
        finally:
            for one in state.running.values():  # an error of the driver itself
                journal.end_group(one.process.pid)
    return list(state.ended.values()), caught[0] if caught else None


def _start_next(state: _State) -> bool:
    """Start or give up the next job; False if it has to wait."""
    if not state.waiting:
        return False
    job = state.waiting[0]
    if any(one.job.phase < job.phase for one in state.running.values()):
        return False
    parent = state.ended.get(job.needs) if job.needs is not None else None
    if parent is not None and parent.how != child.FINISHED:
        state.waiting.pop(0)
        reason = f"it continues job {parent.number}, which {parent.how}: {parent.reason}"
        ending.write_complaint(job.folder, reason)
        _end(state, Ended(job.number, job.label, job.folder, child.FAILED, reason=reason, error_type="ParentFailed"))
        return True
    free = set(range(len(state.environments))) - {one.slot for one in state.running.values()}
    if not free:
        return False
    state.running[job.number] = _start(state, state.waiting.pop(0), min(free))
    return True


def _start(state: _State, job: Job, slot: int) -> _Running:
    context: Any = multiprocessing.get_context(START_METHOD)
    reads, writes = context.Pipe(duplex=False)
    output = job.folder / child.OUTPUT
    shown = output.stat().st_size if output.exists() else 0
    arguments = (job.call, writes, output, state.environments[slot], state.explain)
    process = context.Process(target=child.run, args=arguments, name=f"job {job.number}", daemon=False)
    process.start()
    writes.close()
    journal.note_start(state.sweep, job.number, process.pid)
    log.info("#%d starts: %s", job.number, job.label)
    return _Running(job, process, reads, slot, time.monotonic(), shown)


def _collect(state: _State, told_to_end: bool) -> None:
    """Show what the only job has written, and take the jobs that have ended out of those that run."""
    for number, one in list(state.running.items()):
        is_alive = one.process.is_alive()
        if len(state.environments) == 1:
            _show(one)
        if is_alive:
            continue
        journal.end_group(one.process.pid)
        one.process.join()
        del state.running[number]
        _end(state, _how_it_ended(one, told_to_end), time.monotonic() - one.began)
        one.result.close()
        one.process.close()


def _show(one: _Running) -> None:
    """Copy what the job has written since the last time to where the driver writes."""
    path = one.job.folder / child.OUTPUT
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(one.shown)
        written = file.read()
    one.shown += len(written)
    sys.stdout.flush()
    sys.stdout.buffer.write(written)
    sys.stdout.flush()


def _how_it_ended(one: _Running, told_to_end: bool) -> Ended:
    job, code = one.job, one.process.exitcode
    about = partial(Ended, job.number, job.label, job.folder)
    try:
        how, said, error_type = one.result.recv() if one.result.poll() else NOTHING_SENT
    except (EOFError, OSError, ValueError):
        how, said, error_type = NOTHING_SENT
    if how == child.FINISHED:
        return about(how, value=said)
    sent = bool(how)
    if not sent:
        how = child.INTERRUPTED if told_to_end else child.FAILED
        said, error_type = f"its process {ending.in_words(code)}", "ProcessEnded"
    ending.stamp(job.folder, how, said, code)
    if not sent:
        ending.write_complaint(job.folder, said)  # after the stamp, which has the last lines of the job itself
    return about(how, reason=said, error_type=error_type)


def _end(state: _State, ended: Ended, seconds: float = 0.0) -> None:
    state.ended[ended.number] = ended
    journal.note(state.sweep, ended.number, ended.how, reason=ended.reason, seconds=round(seconds, 3))
    if ended.how == child.FINISHED:
        log.info("#%d finished in %.1f s: %s", ended.number, seconds, ended.value)
    else:
        log.error("#%d %s: %s; log: %s", ended.number, ended.how, ended.reason, ended.folder / child.OUTPUT)


def _forward(caught: list[signal.Signals], state: _State) -> None:
    """Hand the first signal on to the jobs, once; the second kills them and what they have started."""
    if not caught:
        return
    for one in state.running.values():
        if len(caught) > 1:
            journal.end_group(one.process.pid)
        elif not one.told:
            one.told = True
            os.kill(one.process.pid, caught[0])


@contextmanager
def _signals() -> Iterator[list[signal.Signals]]:
    """Collect the signals that would end this process instead of obeying them, but for those that are ignored (nohup)."""
    caught: list[signal.Signals] = []

    def catch(number: int, _: Any) -> None:
        caught.append(signal.Signals(number))
        what = "telling the jobs to end; once more kills them" if len(caught) == 1 else "killing the jobs"
        log.warning("%s: %s", caught[-1].name, what)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, catch)
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
