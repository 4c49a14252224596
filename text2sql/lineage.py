"""Which earlier run's adapter a run continues or merges, and what must be the same in both for that."""

from __future__ import annotations

import logging
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

from text2sql import hub, merging, model, ranks, runs
from text2sql.config import Config

log = logging.getLogger(__name__)

MUCH = 0.25
"""Of a merged adapter's change, the share rounded away of which a run warns."""


def fingerprint(config: Config) -> dict[str, Any]:
    """What two runs must share for the second to continue the first one's adapter."""
    groups = {"quant": asdict(config.quant), "lora": asdict(config.lora), "prompt": asdict(config.prompt)}
    flat = {f"{group}.{key}": _plain(value) for group, settings in groups.items() for key, value in settings.items()}
    return {"model": config.model.hub_id, "model.system_role": config.model.system_role, **flat}


def _plain(value: Any) -> Any:
    """A setting as run.json holds it."""
    return value.name if isinstance(value, Enum) else value


def to_merge(config: Config, run: Path) -> Path | None:
    """The folder of the adapter to merge into the base model, of any shape; None where there is none to merge."""
    if config.merge_adapter is None:
        return None
    if config.resume == "true" and (known := (runs.read(run) or {}).get("merged_parent")):
        folder = Path(known)
    else:
        folder = newest(config, run) if config.merge_adapter == "auto" else hub.fetch_adapter(config.merge_adapter)
    log.info("merge_adapter=%s merges %s into the base model", config.merge_adapter, folder)
    model.check_adapter(folder, config, any_shape=True)
    if ranks.is_main():
        runs.note(run, merged_parent=str(folder))
    return folder


def merge(base: Any, folder: Path | None) -> tuple[Any, float | None]:
    """`base` with the adapter in `folder`, if any, merged into it, and the share of its change that rounding took away."""
    if folder is None:
        return base, None
    merged, rounded_away = merging.merge(base, folder)
    said = "rounding took %.1f %% of the merged adapter's change away again"
    if rounded_away > MUCH:
        log.warning(
            f"{said}: what learns on these weights hardly starts from it; quant=none keeps it", 100 * rounded_away
        )
    else:
        log.info(said, 100 * rounded_away)
    return merged, rounded_away


def newest(config: Config, run: Path) -> Path:
    """What `auto` means: the adapter of the phase before, which learned on the base model itself."""
    ours = {**fingerprint(config), "merged": None}
    return runs.find_parent(run, ours, config.phase.number - 1, config.seed, Path.cwd())


def below(parent: Path | None) -> Path | None:
    """What the adapter that goes on learning was trained on, if that was not the base model itself."""
    return parent / merging.FOLDER if parent and (parent / merging.FOLDER).is_dir() else None


def merged_sha256(parent: Path | None, merged: Path | None) -> str | None:
    found = merged or below(parent)
    return runs.adapter_sha256(found) if found else None
