"""Upload beside a training: a process of its own sends what the run's queue holds, and the training never waits for it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from text2sql import credentials, syncing, uploads
from text2sql.config import Config, HubStrategy
from text2sql.uploads import Upload

log = logging.getLogger(__name__)

KINDS = (uploads.HUB,)


class Pusher:
    """Queues a run's uploads and sends them meanwhile; says once what keeps them from being sent."""

    def __init__(self, run: Path, config: Config) -> None:
        self.run, self.settings = run, config.hub
        self.kinds: tuple[str, ...] = KINDS
        self._tried: tuple[str, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._complained = False
        if self.settings.push_to_hub:
            self._add([self._upload("")])

    @property
    def in_use(self) -> list[Path]:
        """The folders that a process may be uploading at this moment."""
        return [] if self._process is None else [self.run / one.folder for one in uploads.in_hand(self.run)]

    def checkpoint(self, folder: Path, step: int, leave_out: tuple[str, ...]) -> None:
        """Queue the adapter of a checkpoint and, where hub_strategy says so, all of it."""
        strategy = self.settings.hub_strategy
        if not self.settings.push_to_hub or strategy is HubStrategy.end:
            return
        name, say = str(folder.relative_to(self.run)), f"Training in progress, step {step}"
        found = [self._upload(name, "", say, leave_out)]
        if strategy is not HubStrategy.every_save:
            path = "last-checkpoint" if strategy is HubStrategy.checkpoint else folder.name
            found.append(self._upload(name, path, f"{say}, checkpoint"))
        self._add(found)

    def adapter(self, folder: Path) -> None:
        """Queue the adapter that training ended with."""
        if self.settings.push_to_hub:
            self._add([self._upload(str(folder.relative_to(self.run)), "", "End of training")])

    def _upload(self, folder: str, path: str = "", say: str = "", leave_out: tuple[str, ...] = ()) -> Upload:
        repo_id, private = str(self.settings.hub_model_id), self.settings.hub_private_repo
        return Upload(uploads.HUB, folder, repo_id, path, say, leave_out, private)

    def _add(self, found: list[Upload]) -> None:
        uploads.add(self.run, found)
        self.look()
        if self._process is None:
            self._start()

    def _start(self) -> None:
        self._tried = self.kinds
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        command = [sys.executable, "-m", "text2sql.syncing", str(self.run), *self.kinds]
        quiet = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        streams = {"stdin": subprocess.DEVNULL, "stdout": self._said, "stderr": self._said}
        self._process = subprocess.Popen(command, env=quiet, start_new_session=True, **streams)  # type: ignore[call-overload]

    def look(self) -> int | None:
        """Take notice of a process that has ended; returns its exit code."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        self._process = None
        assert self._said is not None
        if code not in (0, syncing.LEFT, syncing.BUSY):
            self._said.seek(0)
            log.warning("uploading broke: %s", credentials.redact(self._said.read().decode(errors="replace")[-2000:]))
        self._said.close()
        missed = [one for one in uploads.pending(self.run) if one.why]
        if code == syncing.LEFT and missed and not self._complained:
            self._complained = True
            log.warning(
                "not uploaded to %s: %s. The run goes on; what is missed is tried again with each upload and by `text2sql "
                "sync %s`",
                "W&B" if missed[0].to == uploads.WANDB else "the Hub",
                missed[0].why,
                self.run,
            )
        return code

    def end(self, wait: bool = True) -> None:
        """Give what is queued until hub.max_wait_s, and leave the rest in the queue; without `wait` at once."""
        deadline = time.monotonic() + (self.settings.max_wait_s if wait else 0.0)
        if wait and self._pending():
            log.info("uploading what is left, for %g s at most (hub.max_wait_s)", self.settings.max_wait_s)
        if wait and self._process is None and self._untried():
            self._start()
        while self._process is not None:
            try:
                self._process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
                self._process = None
                break
            # added when that one had just seen that there is no more; one that broke would break again
            if self.look() in (0, syncing.LEFT) and wait and self._untried():
                self._start()
        if left := len(self._pending()):
            log.warning("%d uploads are left in %s: text2sql sync %s", left, self.run / uploads.FILE, self.run)

    def _pending(self) -> list[Upload]:
        return [one for one in uploads.pending(self.run) if one.to in self.kinds]

    def _untried(self) -> bool:
        """Whether something is left that no process of this run has tried."""
        return any(not one.why or one.to not in self._tried for one in self._pending())
