"""What a run's folder says of it: run.json, the saved config and the overrides that were typed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from yaml import YAMLError

from text2sql import config as configuration
from text2sql.errors import first_line

SCRIPTS = {"train": "train.py", "evaluate": "evaluate.py"}


@dataclass(frozen=True)
class Recorded:
    """A run as its folder has it. `typed` are the keys and groups that its command line named."""

    folder: Path
    stamp: dict[str, Any]
    saved: DictConfig
    typed: frozenset[str]

    @property
    def script(self) -> str:
        return SCRIPTS[self.stamp["kind"]]

    @property
    def is_finished(self) -> bool:
        return self.stamp.get("status") == "finished"


def read(folder: Path) -> Recorded:
    """The run in `folder`, by its absolute path. ValueError if that is no run's folder or cannot be read."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; name a run's, such as outputs/RUN or multirun/SWEEP/0")
    if not (folder / ".hydra/config.yaml").is_file():
        raise ValueError(f"{folder} has no .hydra/config.yaml, from which a run is repeated; {_cure(folder)}")
    return Recorded(folder.resolve(), _stamp(folder), _saved(folder), _typed(folder))


def _cure(folder: Path) -> str:
    if (folder / "multirun.yaml").exists():
        return f"it is a sweep: name one of its jobs, such as {folder}/0"
    if (folder.parent / ".hydra/config.yaml").is_file():
        return f"it is part of the run in {folder.parent}: name that"
    return "name a run's folder, and copy it with the hidden folder .hydra"


def _stamp(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        cause = "the run ended before it began, or its folder was not copied whole"
        raise ValueError(f"{folder} has no run.json: {cause}; name another run, or copy it again") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({first_line(error)}); copy the run's folder again") from error
    if not isinstance(stamp, dict) or stamp.get("kind") not in SCRIPTS:
        kind = stamp.get("kind") if isinstance(stamp, dict) else None
        raise ValueError(f"{path} is not of a run: its kind is {kind!r} and not one of {', '.join(SCRIPTS)}")
    return stamp


def _saved(folder: Path) -> DictConfig:
    path = folder / ".hydra/config.yaml"
    try:
        saved = configuration.read_yaml(str(path))
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({first_line(error)}); copy the run's folder again") from error
    if foreign := sorted({"hydra", "defaults"} & {str(key) for key in saved}):
        raise ValueError(
            f"{path} sets {' and '.join(foreign)}, which Hydra writes into no saved config and could call code from "
            "elsewhere by; remove it from the file"
        )
    return saved


def _typed(folder: Path) -> frozenset[str]:
    path = folder / ".hydra/overrides.yaml"
    if not path.is_file():
        return frozenset()
    try:
        lines = OmegaConf.load(path)
        assert isinstance(lines, ListConfig)
        overrides = OverridesParser.create().parse_overrides([str(line) for line in lines])
    except (OSError, YAMLError, UnicodeDecodeError, AssertionError, HydraException) as error:
        raise ValueError(f"{path} cannot be read ({first_line(error)}); copy the run's folder again") from error
    return frozenset(override.key_or_group for override in overrides)


def unknown_keys(cfg: DictConfig) -> list[str]:
    """The settings of `cfg`, by dotted key, that this version does not know."""
    known = OmegaConf.to_container(OmegaConf.structured(configuration.Config))
    return sorted(_unknown(known, OmegaConf.to_container(cfg), ""))


def _unknown(known: Any, given: Any, path: str) -> list[str]:
    found = []
    for key, value in given.items():
        name = f"{path}.{key}" if path else str(key)
        if key not in known:
            found.append(name)
        elif isinstance(known[key], dict) and isinstance(value, dict):
            found += _unknown(known[key], value, name)
    return found
