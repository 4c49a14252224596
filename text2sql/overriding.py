"""Overrides in Hydra's grammar, those that a run was started with, and the other YAML that Hydra writes."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

PLAIN = re.compile(r"[A-Za-z0-9_./:@+-]+")
MAX_BYTES = 2_000_000
"""A config that is larger is none of ours."""


def literal(text: str) -> str:
    """The text as a value on Hydra's command line, in quotes only where its grammar would read more into it or nothing."""
    return text if PLAIN.fullmatch(text) else quoted(text)


def quoted(text: str) -> str:
    """The text in quotes for Hydra's command line, where a backslash counts only before a quote."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()


def saved(folder: Path) -> list[str] | None:
    """The overrides that the run in `folder` was started with; None where it has saved none."""
    found = read_yaml(folder / ".hydra" / "overrides.yaml")
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else None


def is_resume(override: str) -> bool:
    """Whether it says how a job was started last, and nothing about what it is."""
    return override.lstrip("+").startswith("resume=")


def read_yaml(path: Path) -> Any:
    """What a YAML file of Hydra's holds; None where it is missing or cannot be read."""
    try:
        found = path.stat()
    except OSError:
        return None
    return None if found.st_size > MAX_BYTES else _parsed(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=4096)
def _parsed(path: Path, changed: int, size: int) -> Any:
    import yaml

    try:
        return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError):
        return None
