"""Overrides in Hydra's grammar, and those that a run was started with."""

from __future__ import annotations

import re
from pathlib import Path

PLAIN = re.compile(r"[A-Za-z0-9_./:@+-]+")


def literal(text: str) -> str:
    """The text as a value on Hydra's command line, in quotes only where its grammar would read more into it or nothing."""
    return text if PLAIN.fullmatch(text) else quoted(text)


def quoted(text: str) -> str:
    """The text in quotes for Hydra's command line, where a backslash counts only before a quote."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()


def saved(folder: Path) -> list[str] | None:
    """The overrides that the run in `folder` was started with; None where it has saved none."""
    import yaml

    try:
        found = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else None


def is_resume(override: str) -> bool:
    """Whether it says how a job was started last, and nothing about what it is."""
    return override.lstrip("+").startswith("resume=")
