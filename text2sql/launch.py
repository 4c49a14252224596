"""Run a training in this process, in one process a device started here, or as one of those that torchrun started."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partialmethod
from pathlib import Path
from typing import Any

from text2sql import commandline, credentials, preemption, ranks, resuming, runs
from text2sql.config import Config, Device
from text2sql.driver import ending

log = logging.getLogger(__name__)

LONGEST_WAIT = timedelta(minutes=30)  # of one rank for another: rank 0 generates and writes while the others wait
ECHO_S = 1.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
NOISY = ("torch.distributed.elastic", "torch.multiprocessing.spawn")  # they report at length what we say in one line


def run(config: Config, folder: str) -> float:
    """Train `config` in `folder` as `train` says and, where eval.after_phase asks for it, score what came of it."""
    credentials.redact_logs()
    loss = train(config, folder)
    run = Path(folder)
    if config.eval.after_phase == config.phase.number and ranks.is_main() and not _pruned(run):
        from text2sql import scoring

        evaluation = run / "evaluation"
        evaluated = runs.read(evaluation) if config.resume == "true" else None
        if evaluated is None or evaluated.get("status") != "finished":
            if evaluated is not None:
                shutil.rmtree(evaluation)
            scoring.score(replace(config, adapter=str(run / "adapter"), merge_adapter=None), str(evaluation))
        parts = [json.loads((part / "metrics.json").read_text()) for part in (run, evaluation)]
        runs.write_json(run / "metrics.json", parts[0] | parts[1])
    return loss


def _pruned(run: Path) -> bool:
    return json.loads((run / "run.json").read_text(encoding="utf-8"))["status"] == "pruned"


def train(config: Config, folder: str) -> float:
    """Train `config` in `folder` on config.hardware.devices devices; returns the validation loss, which is rank 0's.

    Under torchrun or accelerate launch this process is one rank of theirs, and their number of processes counts.
    Raises what training.train raises, whichever rank it happened in, and RuntimeError for a rank that broke or was killed.
    """
    if ranks.launched():
        if ranks.is_main():
            _stamp_when_ended(Path(folder))
        return _train_as_rank(config, folder)
    if (loss := resuming.finished_loss(Path(folder), config)) is not None:
        return loss
    if config.hardware.devices == 1:
        from text2sql import training

        return training.train(config, folder)
    return _start_ranks(config, Path(folder))


def _train_as_rank(config: Config, folder: str) -> float:
    """Join the other ranks and train in the folder of rank 0, for Hydra has named another one in each process."""
    import torch
    from torch import distributed

    from text2sql import model, training

    if not ranks.is_main() and not logging.getLogger().handlers:
        _log_as_rank([Output(None, logging.WARNING, logging.Formatter(logging.BASIC_FORMAT))])
    if config.hardware.devices != ranks.world_size():
        started, asked = ranks.world_size(), config.hardware.devices
        log.info("%d processes were started, and so hardware.devices=%d does not count", started, asked)
    model.check_device(replace(config.hardware, devices=ranks.local_world_size()))
    device = torch.device("cuda", ranks.local_rank()) if config.hardware.device is Device.cuda else None
    if device is not None:
        torch.cuda.set_device(device)
    backend = "gloo" if device is None else "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=LONGEST_WAIT, device_id=device)
    folder, done = ranks.agreed((folder, resuming.finished_loss(Path(folder), config) if ranks.is_main() else None))
    loss = training.train(config, folder) if done is None else done
    distributed.destroy_process_group()  # not after an error: it would wait for ranks that may be gone
    return loss


def _stamp_when_ended(run: Path) -> None:
    """End with a stamp on SIGTERM, which torchrun sends when another rank has failed.

    A thread does it: the main one may be waiting in a collective for that very rank, where Python handles no signals.
    """
    before = runs.read(run)
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.set_wakeup_fd(writes)
    signal.signal(signal.SIGTERM, lambda *_: None)

    def watch() -> None:
        while os.read(reads, 1)[0] != signal.SIGTERM:
            pass
        if runs.read(run) != before:
            runs.finish(run, "interrupted", error="SIGTERM: another rank has failed, or somebody has ended the run")
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _start_ranks(config: Config, run: Path) -> float:
    import torch
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if config.hardware.device is Device.cuda and torch.cuda.device_count() < config.hardware.devices:
        from text2sql import model  # takes seconds to import, which only the ranks have a use for

        model.check_device(config.hardware)
    for name in NOISY:
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
    before = runs.read(run)  # if rank 0 refuses the folder, its stamp stays as it is
    with tempfile.TemporaryDirectory(prefix="text2sql-ranks-") as aside, _nothing_left_behind():
        stop_file = Path(aside) / "stop"
        preemption.hear_for_ranks(stop_file, _end_ranks)
        # torch 2.8 has no such setting: there a first signal, too, ends ranks at once
        left_alone: dict[str, Any] = {"signals_to_handle": "SIGHUP,SIGQUIT"}
        if "signals_to_handle" not in LaunchConfig.__dataclass_fields__:
            left_alone = {}
        launch = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=config.hardware.devices,
            max_restarts=0,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            run_id=run.name,
            start_method="spawn",
            logs_specs=DefaultLogsSpecs(log_dir=aside),
            **left_alone,
        )
        try:
            return _loss(elastic_launch(launch, _rank)(config, str(run), aside, _outputs())[0])
        except preemption.Interrupted:
            raise  # rank 0 has stamped it
        except ChildFailedError as failed:
            rank, error = _first_error(*failed.get_first_failure(), Path(aside))
            end: dict[str, Any] = {"status": "failed", "error": f"rank {rank}: {error!r}"}
        except (SignalException, KeyboardInterrupt) as stopped:
            error = preemption.Interrupted(int(stop_file.read_text())) if stop_file.exists() else KeyboardInterrupt()
            end = {"status": "interrupted", "error": repr(stopped)}
    if runs.read(run) != before:
        runs.finish(run, **end)
    raise error


def _end_ranks() -> None:
    from torch.distributed.elastic.multiprocessing import SignalException

    raise SignalException("the run is ended at once", sigval=signal.SIGTERM)


def _loss(ended: tuple[float, int | None]) -> float:
    """What rank 0 gave back: its loss, unless it was asked to stop."""
    loss, exit_code = ended
    if exit_code is not None:
        raise preemption.Interrupted(exit_code)
    return loss


def _rank(config: Config, folder: str, aside: str, outputs: list[Output]) -> tuple[float, int | None]:
    """One process of the run; what goes wrong in it is written to `aside`, for the parent to tell and to stamp.

    Returns its loss, and the exit code of the run if it was asked to stop.
    """
    os.setpgrp()  # a terminal's Ctrl-C is for the parent, which lets the step be finished
    os.environ[preemption.STOP_FILE] = str(Path(aside) / "stop")
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # end at once, even inside a collective; the parent writes the run's end
    _log_as_rank(outputs)
    _share_cores()
    try:
        return _train_as_rank(config, folder), None
    except preemption.Interrupted as stopped:
        return float("nan"), stopped.exit_code
    except Exception as error:
        runs.write_json(Path(aside) / f"rank-{ranks.rank()}.json", _describe(error))
        time.sleep(ECHO_S)  # if this only echoes the death of another rank, the parent is to see that one first
        sys.exit(1)


def _share_cores() -> None:
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, (os.cpu_count() or 1) // ranks.local_world_size())
        os.environ["OMP_NUM_THREADS"] = str(threads)  # for accelerate, which else sets its own number and warns
        torch.set_num_threads(threads)


# What went wrong


def _describe(error: Exception) -> dict[str, Any]:
    ours = commandline.is_users_mistake(error)
    return {
        "time": time.time(),
        "rank": ranks.rank(),
        "ours": ours,
        "type": "ValueError" if isinstance(error, ValueError) else "RuntimeError",
        "message": commandline.explain(error) if ours else f"{type(error).__name__}: {error}",
        "traceback": traceback.format_exc(),
    }


def _first_error(rank: int, failure: Any, aside: Path) -> tuple[int, BaseException]:
    """The rank that failed first and its error: `rank` as torch found it, unless others told of theirs earlier."""
    told = [json.loads(path.read_text(encoding="utf-8")) for path in aside.glob("rank-*.json")]
    if rank not in [one["rank"] for one in told]:
        return rank, RuntimeError(f"rank {rank} {ending.in_words(failure.exitcode)}; the run ends with it")
    first = min(told, key=lambda one: one["time"])
    if first["ours"]:
        return first["rank"], {"ValueError": ValueError, "RuntimeError": RuntimeError}[first["type"]](first["message"])
    log.error("rank %d failed:\n%s", first["rank"], first["traceback"])
    return first["rank"], RuntimeError(f"rank {first['rank']} failed with {first['message']}")


@contextmanager
def _nothing_left_behind() -> Iterator[None]:
    """Torch's agent leaves its signal handlers in place, and processes too if a signal comes while it starts them."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    before = set(multiprocessing.active_children())
    try:
        yield
    finally:
        for child in set(multiprocessing.active_children()) - before:
            child.kill()
            child.join()
        for number, handler in handlers.items():
            signal.signal(number, handler)


# Who says what


@dataclass(frozen=True)
class Output:
    """A handler of the parent's root logger as it crosses to a rank: the log file, or None for the console."""

    file: str | None
    level: int
    formatter: logging.Formatter | None


def _outputs() -> list[Output]:
    """The log file and the console as Hydra has set them up in this process."""
    root = logging.getLogger()
    return [
        Output(getattr(handler, "baseFilename", None), max(handler.level, root.level), handler.formatter)
        for handler in root.handlers
        if type(handler) in (logging.FileHandler, logging.StreamHandler)
    ]


def _log_as_rank(outputs: list[Output]) -> None:
    """Rank 0 logs as a run of one process does; the others only warnings, with their number, and no progress bars."""
    root = logging.getLogger()
    for output in outputs:
        handler = logging.StreamHandler(sys.stdout) if output.file is None else logging.FileHandler(output.file)
        handler.setFormatter(output.formatter)
        handler.setLevel(output.level)
        root.addHandler(handler)
    root.setLevel(min((output.level for output in outputs), default=logging.WARNING))
    if ranks.is_main():
        return
    root.setLevel(max(root.level, logging.WARNING))
    plain = logging.getLogRecordFactory()

    def numbered(*arguments: Any, **more: Any) -> logging.LogRecord:
        record = plain(*arguments, **more)
        record.msg = f"[rank {ranks.rank()}] {record.msg}"
        return record

    logging.setLogRecordFactory(numbered)
    _hide_progress_bars()


def _hide_progress_bars() -> None:
    from tqdm import std

    # TQDM_DISABLE is read when tqdm is imported, which torch has done by now.
    std.tqdm.__init__ = partialmethod(std.tqdm.__init__, disable=True)
