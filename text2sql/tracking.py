"""Experiment tracking with Weights & Biases: online, offline or not at all, and never in the way of a run."""

from __future__ import annotations

import logging
import netrc
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

log = logging.getLogger(__name__)

DEFAULT_URL = "https://api.wandb.ai"


class Tracker:
    """A W&B run, or nothing at all for mode `none`; rows and numbers go to both alike."""

    def __init__(self, mode: Any, folder: Path, settings: Mapping[str, Any], **run: Any) -> None:
        """Start a run in `folder`. Mode `online` becomes `offline`, with one warning, if there is no key or no network."""
        self._run: Any = None
        self._tables: dict[str, tuple[list[str], list[list[Any]]]] = {}
        if mode == "none":
            return
        if mode == "online" and (reason := why_offline()):
            log.warning("W&B goes offline: %s. Upload later with `wandb sync %s/wandb/offline-run-*`.", reason, folder)
            mode = "offline"
        import wandb

        self._wandb = wandb
        self._run = wandb.init(mode=mode, dir=str(folder), config=dict(settings), reinit="finish_previous", **run)

    def log(self, numbers: Mapping[str, Any], step: int) -> None:
        if self._run is not None:
            self._run.log({**numbers, "step": step})

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        """Append `rows` to the table `name` and log it whole, as W&B's immutable tables want."""
        if self._run is None or not rows:
            return
        columns, kept = self._tables.setdefault(name, (list(rows[0]), []))
        kept.extend([row[column] for column in columns] for row in rows)
        self._run.log({name: self._wandb.Table(columns=columns, data=kept), "step": step})

    def finish(self, exit_code: int = 0) -> None:
        if self._run is not None:
            self._run.finish(exit_code=exit_code)


def why_offline(timeout_s: float = 3.0) -> str | None:
    """Why an online run could not work from here, or None: there is no key, or the server cannot be reached.

    Asked before wandb.init, which blocks for 90 s when the server does not answer.
    """
    url = urlparse(os.environ.get("WANDB_BASE_URL", DEFAULT_URL))
    assert url.hostname is not None
    if not os.environ.get("WANDB_API_KEY") and not _netrc_has(url.hostname):
        return "there is no API key (set WANDB_API_KEY or run `wandb login`)"
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
        socket.create_connection((url.hostname, port), timeout=timeout_s).close()
    except OSError as error:
        return f"{url.hostname} cannot be reached ({error})"
    return None


def _netrc_has(host: str) -> bool:
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
