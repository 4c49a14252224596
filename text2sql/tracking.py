"""Experiment tracking with Weights & Biases: online, offline or not at all, and never in the way of a run."""

from __future__ import annotations

import base64
import json
import logging
import netrc
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlparse

from text2sql import credentials, uploads, upstream
from text2sql.errors import first_line
from text2sql.uploads import Upload

log = logging.getLogger(__name__)

DEFAULT_URL = "https://api.wandb.ai"
ANSWER_S = 5.0
"""How long the server may take to say anything at all, and a run that a signal ends for its last rows."""
START_S = 15.0
"""How long wandb.init may take once the server has answered; its own limit is 90 s."""
LOGIN = "set WANDB_API_KEY to one that is valid, or run `wandb login`"
REASONS = {
    401: f"it does not accept the API key (401); {LOGIN}",
    403: f"it does not accept the API key (403); {LOGIN}",
    429: "it had too many requests (429)",
}


class Tracker:
    """A W&B run, or nothing at all for mode `none`; rows and numbers go to both alike."""

    def __init__(
        self, mode: Any, folder: Path, settings: Mapping[str, Any], *, id: str | None = None, **run: Any
    ) -> None:
        """Start a run in `folder`, or online go on with that of the W&B id `id`.

        Mode `online` becomes `offline`, with one warning and a row in the queue of uploads, if there is no key or the
        server does not answer.
        """
        self.folder = folder
        self.id: str | None = None
        self._run: Any = None
        self._rows: list[dict[str, Any]] = []
        self._exit_code, self._is_sent = 0, False
        self._tables: dict[str, tuple[list[str], list[list[Any]]]] = {}
        if mode == "none":
            return
        reason = why_offline() if mode == "online" else None
        import wandb

        self._wandb = wandb
        self._settings = {"dir": str(folder), "config": dict(settings), "reinit": "finish_previous", **run}
        if mode == "online" and reason is None:
            reason = self._start_online(id or os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:8])
        if self._run is None:
            self._start_offline(reason)

    def _start_online(self, id: str) -> str | None:
        limit = self._wandb.Settings(init_timeout=START_S)
        try:
            self._run = self._wandb.init(mode="online", id=id, resume="allow", settings=limit, **self._settings)
        except (OSError, self._wandb.Error) as error:
            self._end_service()
            return f"wandb.init failed ({credentials.redact(first_line(error))})"
        self.id = id
        self._waiting: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._sending = threading.Thread(target=self._send, args=(self._run,), daemon=True)
        self._sending.start()
        return None

    def _send(self, run: Any) -> None:
        """Log what is waiting, and end the run behind it; in a thread, for wandb asks the server while it logs a table."""
        try:
            while (row := self._waiting.get()) is not None:
                run.log(row)
            run.finish(exit_code=self._exit_code)
            self._is_sent = True
        except (
            Exception
        ) as error:  # whatever wandb raises when its server or its process is gone: the run is left to `finish`
            log.debug("W&B: %r", error)

    def _start_offline(self, reason: str | None) -> None:
        self._run = self._wandb.init(mode="offline", **self._settings)
        if reason is not None:
            log.warning("W&B goes offline: %s. Upload later with `text2sql sync %s`.", reason, self.folder)
            upload = Upload(uploads.WANDB, str(Path(self._run.dir).parent.relative_to(self.folder)))
            uploads.add(self.folder, [upload])
            uploads.mark_missed(self.folder, uploads.pending(self.folder)[-1], reason)

    def _leave_server(self, reason: str) -> None:
        """Go on offline, with all that this process has logged: wandb keeps the latest of it in memory alone."""
        self._end_service()
        self.id = None
        self._start_offline(reason)
        rows, self._rows = self._rows, []
        for row in rows:
            self._log(row)
        for name, (columns, kept) in self._tables.items():
            self._log({name: self._wandb.Table(columns=columns, data=kept)})

    def _end_service(self) -> None:
        """End wandb's own process, which would keep this one from ending, or from going on, while its server is silent."""
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
        for pid in children.read_text().split() if children.exists() else []:
            if Path(f"/proc/{pid}/comm").read_text().startswith("wandb-core"):
                os.kill(int(pid), signal.SIGKILL)
        with suppress(
            Exception, SystemExit
        ):  # it exits for a service that was killed; nothing talks to that one any more
            self._wandb.teardown()

    def log(self, numbers: Mapping[str, Any], step: int) -> None:
        if self._run is not None:
            self._rows += [{**numbers, "step": step}] if self.id is not None else []
            self._log({**numbers, "step": step})

    def _log(self, row: dict[str, Any]) -> None:
        if self.id is not None:
            self._waiting.put(row)
        else:
            self._run.log(row)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        """Append `rows` to the table `name` and log it whole, as W&B's immutable tables want."""
        if self._run is None or not rows:
            return
        columns, kept = self._tables.setdefault(name, (list(rows[0]), []))
        kept.extend([row[column] for column in columns] for row in rows)
        self._log({name: self._wandb.Table(columns=columns, data=kept), "step": step})

    def finish(self, exit_code: int = 0, *, max_wait_s: float) -> None:
        """End the run; after `max_wait_s` what its server did not take is written to the disk, where wandb would wait on."""
        if self._run is None:
            return
        if self.id is not None:
            self._exit_code = exit_code
            self._waiting.put(None)
            self._sending.join(max_wait_s)
            if self._is_sent:
                return
            self._leave_server(f"the server did not take all in {max_wait_s:g} s")
        self._run.finish(exit_code=exit_code)


def why_offline(timeout_s: float = ANSWER_S) -> str | None:
    """Why an online run could not work from here, or None: there is no key, or the server does not answer as it should.

    Asked before wandb.init, which blocks for 90 s when the server does not answer.
    """
    url = os.environ.get("WANDB_BASE_URL", DEFAULT_URL).rstrip("/")
    host = urlparse(url).hostname
    assert host is not None
    key = os.environ.get("WANDB_API_KEY") or _netrc_key(host)
    if not key:
        return f"there is no API key ({LOGIN})"
    answers: list[str | None] = []
    asking = threading.Thread(target=lambda: answers.append(_answer(url, host, key, timeout_s)), daemon=True)
    asking.start()
    asking.join(timeout_s)  # a name that is looked up, or an answer that drips, knows no limit of its own
    return answers[0] if answers else f"{host} cannot be reached (no answer in {timeout_s:g} s)"


def _answer(url: str, host: str, key: str, timeout_s: float) -> str | None:
    """None if the server knows the key's owner, else what is wrong."""
    signed = base64.b64encode(f"api:{key}".encode()).decode()
    headers = {"Authorization": f"Basic {signed}", "Content-Type": "application/json"}
    query = json.dumps({"query": "query Viewer { viewer { id } }"}).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"{url}/graphql", query, headers), timeout=timeout_s
        ) as said:
            viewer = (json.load(said).get("data") or {}).get("viewer")
    except urllib.error.HTTPError as error:
        return f"{host}: " + REASONS.get(error.code, f"it failed ({error.code})")
    except TimeoutError:
        return f"{host} cannot be reached (no answer in {timeout_s:g} s)"
    except (OSError, ValueError, AttributeError, HTTPException) as error:
        return credentials.redact(f"{host} cannot be reached ({error})")
    return None if viewer else f"{host}: {REASONS[401]}"


def _netrc_key(host: str) -> str:
    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except (FileNotFoundError, netrc.NetrcParseError):
        return ""
    return found[2] or "" if found else ""


def upload(folder: Path, timeout_s: float = 600.0) -> str:
    """Send a run that W&B has written to the disk; "" when it is sent, or why it is not."""
    if (reason := why_offline()) is not None:
        return reason
    for mark in folder.glob(upstream.SYNCED):
        mark.unlink()
    command = [sys.executable, "-m", "wandb", "sync", "--include-synced", str(folder.resolve())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=folder, check=False)
    except subprocess.TimeoutExpired:
        return f"wandb sync did not end in {timeout_s:g} s"
    said = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
    if done.returncode == 0 and upstream.is_synced(folder, said):
        return ""
    return credentials.redact(f"wandb sync sent nothing ({said[-1]})")
