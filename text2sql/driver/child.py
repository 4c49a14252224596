"""What a job does in the process of its own: signals, output and the end, so that nothing of it reaches the other jobs."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from text2sql import credentials

log = logging.getLogger(__name__)

OUTPUT = "output.log"
GRACE_S = 10.0
LOOKS_EVERY_S = 0.5
MAX_REASON = 4_000
"""Characters of a reason that are sent. A pipe holds 64 KiB, and the driver reads it when the job has ended."""
FINISHED, FAILED, INTERRUPTED = "finished", "failed", "interrupted"
Explain = Callable[[BaseException], "str | None"]


def run(
    call: Callable[[], Any], connection: Connection, output: Path, environment: Mapping[str, str], explain: Explain
) -> None:
    """Run the job and send (how it ended, its value or reason, the error's type). `explain` gives a user's mistake in words.

    A long reason is cut, for the job's output has it whole. The process leads a group of its own, so that a Ctrl-C in the
    terminal reaches the driver alone, and so that what the job has started can be ended with it.
    """
    os.setsid()
    _end_with(os.getppid())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end the run with a stamp in its run.json
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ.update(environment)
    _redirect(output)
    atexit._clear()  # those of the driver are not this process's
    try:
        how, said, error_type = _outcome(call, explain)
        connection.send((how, said if how == FINISHED else said[:MAX_REASON], error_type))
    finally:
        connection.close()
        atexit._run_exitfuncs()  # multiprocessing calls none before Python 3.13, and W&B counts on them
    sys.exit(0 if how == FINISHED else 1)


def _outcome(call: Callable[[], Any], explain: Explain) -> tuple[str, Any, str]:
    try:
        return FINISHED, call(), ""
    except KeyboardInterrupt as stopped:
        return INTERRUPTED, str(stopped) or "it was told to end", type(stopped).__name__
    except SystemExit as end:
        log.error("the job ended itself with sys.exit(%r)", end.code)
        return FAILED, f"it ended itself with sys.exit({end.code!r})", "SystemExit"
    except Exception as error:
        credentials.redact_logs()
        said = explain(error)
        log.error("%s", said or f"{type(error).__name__}: {error}", exc_info=None if said else error)
        return FAILED, credentials.redact(said or f"{type(error).__name__}: {error}"), type(error).__name__


def _redirect(output: Path) -> None:
    """Send all that the process writes, C libraries included, to the file, and let it read nothing."""
    output.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, source in ((0, nothing), (1, file), (2, file)):
        os.dup2(source, descriptor)
    os.close(file)
    os.close(nothing)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _end_with(driver: int) -> None:
    """End this process when the driver is gone: a job without one would write into a folder that is resumed elsewhere."""

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(LOOKS_EVERY_S)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        os.killpg(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="ends-with-driver").start()
