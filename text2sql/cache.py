"""Where this package keeps what it downloads, converts or generates once."""

from __future__ import annotations

import os
from pathlib import Path


def folder() -> Path:
    """$TEXT2SQL_CACHE, else $XDG_CACHE_HOME/text2sql, else ~/.cache/text2sql; it need not exist yet."""
    if named := os.environ.get("TEXT2SQL_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "text2sql"
