"""Judge many pairs in processes that can be killed: a pair that hangs or crashes SQLite costs its own verdict, no more."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from text2sql.example import Verdict
from text2sql.sql.execute import late
from text2sql.sql.judge import GOLD, OURS, Limits, Place, Rules, Ruling, Run, Task, outcome
from text2sql.sql.worker import POSITION, packed, receive

BATCH = 32
ROOT = str(Path(__file__).resolve().parent.parent.parent)
BATCHES_PER_WORKER = 4
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from text2sql.sql.worker import main; main()"


class Pool:
    """`workers` processes that judge; they start with the first batch and end with close()."""

    def __init__(self, limits: Limits, rules: Rules, workers: int) -> None:
        assert workers > 0
        self.limits, self.rules, self.num_workers = limits, rules, workers
        self._workers: list[_Worker] = []
        self._homes: dict[str, int] = {}

    def start(self, num_tasks: int) -> None:
        """Start as many processes as so many tasks keep busy: they are ready sooner while the tasks are put together."""
        while len(self._workers) < min(self.num_workers, num_tasks):
            self._workers.append(_Worker(self.limits, self.rules))

    def close(self) -> None:
        while self._workers:
            self._workers.pop().close()

    def judge(self, tasks: Sequence[Task | Run]) -> Iterator[dict[str, Any]]:
        """The outcomes of the tasks, in their order, each as soon as those before it are there: see Judge.judge and Judge.run.

        Raises RuntimeError when a worker fails by a fault of ours, ValueError when a database is broken.
        """
        if not tasks:
            return
        self.start(len(tasks))
        run = _Run(tasks, self._shares(tasks))
        threads = [
            threading.Thread(target=run.serve, args=(number, worker), daemon=True)
            for number, worker in enumerate(self._workers)
        ]
        for thread in threads:
            thread.start()
        try:
            yield from run.outcomes()
        except BaseException:  # the caller has had enough, or a worker failed: do not wait for what still runs
            run.stop()
            for worker in self._workers:
                worker.end()
            raise
        finally:
            for thread in threads:
                thread.join()
            for worker in self._workers:
                worker.forget()

    def _shares(self, tasks: Sequence[Task | Run]) -> list[deque[range]]:
        """Batches for each worker. A database stays with the one that has it open and knows its golds."""
        shares: list[deque[range]] = [deque() for _ in self._workers]
        sizes = [0] * len(shares)
        for batch in _batches(tasks, len(shares)):
            path = tasks[batch.start].places[0].path
            share = self._homes.get(path, sizes.index(min(sizes)))
            if path:  # a script of its own has no second question
                self._homes[path] = share
            shares[share].append(batch)
            sizes[share] += len(batch)
        return shares


def _batches(tasks: Sequence[Task | Run], num_workers: int) -> Iterator[range]:
    """Runs of tasks on one file, or on scripts, that follow each other."""
    longest = max(1, min(BATCH, -(-len(tasks) // (num_workers * BATCHES_PER_WORKER))))
    start = 0
    for number in range(1, len(tasks) + 1):
        ends = number == len(tasks) or tasks[number].places[0].path != tasks[start].places[0].path
        if ends or number - start == longest:
            yield range(start, number)
            start = number


class _Run:
    """One call of Pool.judge: what waits, what is done, and the first failure, shared by the workers' threads."""

    def __init__(self, tasks: Sequence[Task | Run], shares: list[deque[range]]) -> None:
        self.tasks, self.shares = tasks, shares
        self.done: dict[int, dict[str, Any]] = {}
        self.failure: Exception | None = None
        self.changed = threading.Condition()

    def outcomes(self) -> Iterator[dict[str, Any]]:
        for number in range(len(self.tasks)):
            with self.changed:
                self.changed.wait_for(lambda: number in self.done or self.failure is not None)  # noqa: B023
                if self.failure is not None:
                    raise self.failure
                outcome = self.done.pop(number)
            yield outcome

    def stop(self) -> None:
        with self.changed:
            for share in self.shares:
                share.clear()

    def serve(self, number: int, worker: _Worker) -> None:
        """One worker's thread: batch after batch of its share, then of what others have not begun."""
        try:
            for first, outcomes in worker.serve(self.tasks, iter(lambda: self._next(number), None)):
                self._put(first, outcomes)
        except Exception as error:  # handed to the caller's thread, which raises it
            with self.changed:
                self.failure = self.failure or error
                self.changed.notify_all()

    def _next(self, number: int) -> range | None:
        with self.changed:
            if self.failure is not None:
                return None
            if self.shares[number]:
                return self.shares[number].popleft()
            longest = max(self.shares, key=len)
            return longest.pop() if longest else None

    def _put(self, first: int, outcomes: list[dict[str, Any]]) -> None:
        for one in outcomes:
            if "broken" in one:
                raise ValueError(f"broken database {one['broken']}; unpack or download it again")
        with self.changed:
            self.done.update(enumerate(outcomes, first))
            self.changed.notify_all()


@dataclass
class _Sent:
    """A batch that a worker has: its first task, the first that is not answered yet, and the first after it."""

    first: int
    next: int
    stop: int


class _Died(Exception):
    """The process ended while it should have answered."""


class _Worker:
    """One process and the pipes to it, started when it is needed and anew when it died."""

    def __init__(self, limits: Limits, rules: Rules) -> None:
        self.limits, self.rules = limits, rules
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        self._file.truncate(POSITION.size)
        self._position = mmap.mmap(self._file.fileno(), POSITION.size)
        self._lifeline, self._alive = os.pipe()  # the second end closes with this process, which ends the other
        self._process: subprocess.Popen[bytes] | None = None
        self._room = 0
        self._ended = False
        self._start()

    def serve(
        self, tasks: Sequence[Task | Run], batches: Iterator[range]
    ) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """(number of the first task, outcomes) in parts, batch after batch; the next one is sent while one is judged."""
        sent: deque[_Sent] = deque()
        held: tuple[range, bytes] | None = None
        self._ended = False
        if self._process is not None and self._process.poll() is not None:
            self._bury()  # killed while it had nothing to do
        while True:
            try:
                while len(sent) < 2 and (held := held or self._encoded(tasks, batches)):
                    batch, message = held
                    if sent and len(message) > self._room:
                        break  # both sides might wait for the other to read
                    sent.append(_Sent(batch.start, batch.start, batch.stop))
                    held = None
                    self._write(message, waiting=len(sent) == 1)
                if not sent:
                    return
                outcomes = self._read()
            except _Died:
                if self._ended:
                    return
                yield from self._one_by_one(tasks, sent)
                sent.clear()
                continue
            yield sent[0].next, outcomes
            sent[0].next += len(outcomes)
            if sent[0].next == sent[0].stop:
                sent.popleft()

    def _encoded(self, tasks: Sequence[Task | Run], batches: Iterator[range]) -> tuple[range, bytes] | None:
        batch = next(batches, None)
        return None if batch is None else (batch, self._packed([tasks[number] for number in batch]))

    def _packed(self, tasks: list[Task | Run]) -> bytes:
        """Tasks as a worker takes them: the same few databases are spelt out once, and no text is longer than it may be."""
        places: dict[Place, int] = {}
        longest, rows = self.limits.max_sql_bytes + 1, []
        for task in tasks:
            gold, neighbours = (None, []) if isinstance(task, Run) else (task.gold, task.neighbours)
            where = ([places.setdefault(place, len(places)) for place in some] for some in (task.places, neighbours))
            rows.append((gold, task.prediction[:longest], *where))
        return packed({"places": list(places), "tasks": rows})

    def _one_by_one(
        self, tasks: Sequence[Task | Run], sent: Sequence[_Sent]
    ) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """What is left of the batches after a death: only the task that kills gets a verdict from it."""
        killer, outcome = self._examine(sent[0].first, tasks)
        for number in (number for part in sent for number in range(part.next, part.stop)):
            if number == killer and outcome is not None:
                yield number, [outcome]
                continue
            try:
                yield number, [self._alone(number, tasks, tries=1 if number == killer else 2)]
            except _Died:
                return

    def _alone(self, number: int, tasks: Sequence[Task | Run], tries: int) -> dict[str, Any]:
        """One task by itself. A death by anything but the alarm may have come from outside: the last try decides."""
        while True:
            try:
                self._write(self._packed([tasks[number]]))
                return self._read()[0]
            except _Died:
                if self._ended:
                    raise
                tries -= 1
                _, outcome = self._examine(number, tasks, final=tries == 0)
                if outcome is not None:
                    return outcome

    def _examine(
        self, first: int, tasks: Sequence[Task | Run], final: bool = False
    ) -> tuple[int, dict[str, Any] | None]:
        """Which task the dead process was at, and its verdict if it is clear that the task ended it.

        `first` is the number of the first task in its batch. RuntimeError if the process failed by a fault of ours.
        """
        status, errors = self._bury()
        index, phase = POSITION.unpack_from(self._position)
        if status >= 0 or (phase == OURS and (final or status == -signal.SIGALRM)):
            task = tasks[min(first + index, len(tasks) - 1)]
            raise RuntimeError(f"scoring failed ({_ending(status)}) on {task}\n{errors}")
        if status == -signal.SIGALRM or final:
            return first + index, self._verdict(status, phase)
        return first + index, None

    def end(self) -> None:
        """Kill the process, if there is one; whoever waits for its answer finds it dead."""
        self._ended = True
        if self._process is not None:
            self._process.kill()

    def forget(self) -> None:
        """Wait for the process if it was killed: what it still had to say is no answer to what is asked next."""
        if self._ended and self._process is not None:
            self._bury()

    def close(self) -> None:
        self.end()
        self.forget()
        self._position.close()
        self._file.close()
        os.close(self._alive)
        os.close(self._lifeline)

    def _write(self, message: bytes, waiting: bool = True) -> None:
        """Send one message; `waiting` says that the process has no other, so that its position is an old one."""
        if waiting:
            POSITION.pack_into(self._position, 0, 0, OURS)
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(message)
            process.stdin.flush()
        except BrokenPipeError:
            raise _Died from None

    def _read(self) -> list[dict[str, Any]]:
        assert self._process is not None and self._process.stdout is not None
        outcomes = receive(self._process.stdout)
        if outcomes is None:
            raise _Died
        return outcomes

    def _start(self) -> subprocess.Popen[bytes]:
        if self._ended:
            raise _Died
        self._process = subprocess.Popen(
            # -I and -S: no settings from the environment, and a start in a few milliseconds.
            [sys.executable, "-I", "-S", "-c", _START, json.dumps([ROOT, *sys.path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[self._file.fileno(), self._lifeline],
        )
        if self._ended:  # meanwhile, by another thread
            self._process.kill()
        about = {"limits": asdict(self.limits), "rules": asdict(self.rules)}
        self._write(packed({**about, "position": self._file.fileno(), "parent": self._lifeline}))
        assert self._process.stdin is not None
        self._room = _room(self._process.stdin.fileno())
        return self._process

    def _bury(self) -> tuple[int, str]:
        """Wait for the dead process; returns its status, negative for a signal, and what it wrote to standard error."""
        process, self._process = self._process, None
        assert process is not None and process.stdin and process.stdout and process.stderr
        process.stdout.close()
        with suppress(BrokenPipeError):
            process.stdin.close()
        errors = process.stderr.read().decode("utf-8", "replace")
        process.stderr.close()
        return process.wait(), errors

    def _verdict(self, status: int, phase: int) -> dict[str, Any]:
        """The outcome of a query that ended the process."""
        if status == -signal.SIGALRM:
            verdict, reason = Verdict.TIMEOUT, f"{late(self.limits.timeout_s)}, inside one SQLite instruction"
        else:
            verdict, reason = Verdict.TYPE, f"SQLite itself ended twice ({_ending(status)})"
        if phase == GOLD:
            over = verdict is Verdict.TIMEOUT
            verdict, reason = (Verdict.GOLD_BUDGET if over else Verdict.GOLD_ERROR), f"gold: {reason}"
        return outcome(Ruling(verdict, reason), official=None if phase == GOLD else False)


def _room(pipe: int) -> int:
    """How many bytes may be sent ahead with no fear that the pipe is full: half of it, where that can be known."""
    return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) // 2 if hasattr(fcntl, "F_GETPIPE_SZ") else 0


def _ending(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit code {status}"
