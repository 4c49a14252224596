"""Overrides in Hydra's grammar, and those that a run was started with."""

from __future__ import annotations

from pathlib import Path


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
