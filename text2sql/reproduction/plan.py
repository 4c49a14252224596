"""How a run will be repeated: by which script, into which folder, and with which overrides beside the saved config."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from text2sql import commandline, overriding
from text2sql import config as configuration
from text2sql.config import SAVED_WITH_ADAPTER, Config
from text2sql.reproduction.recorded import Recorded, read, unknown_keys

ROOT = commandline.CONF.parent
KEPT_HERE = {"hub.push_to_hub": False, "tracking.mode": "none"}
"""A repeated run neither overwrites what the first one published nor logs itself as another, unless that is asked for."""


@dataclass(frozen=True)
class Plan:
    """A run to repeat. `overrides` are all that the script gets, `asked` the keys of those that the user gave."""

    recorded: Recorded
    overrides: list[str]
    asked: frozenset[str]
    cfg: DictConfig
    config: Config
    output: Path

    @property
    def script(self) -> Path:
        return ROOT / self.recorded.script

    def says(self, key: str) -> Any:
        """What the saved config has for `key`, as text or plain value, its references not resolved."""
        return flat(self.recorded.saved).get(key)


def prepare(folder: Path, asked: Iterable[str] = (), output: Path | None = None) -> Plan:
    """How the run in `folder` is repeated with the overrides `asked` for. ValueError, with the cure, if it cannot be."""
    recorded = read(folder)
    if not (ROOT / recorded.script).is_file():
        raise ValueError(
            f"{recorded.script} is not beside the package (looked in {ROOT}): reproduce works in a checkout of the "
            "repository; install it there with `pip install -e .`"
        )
    given = _by_key(expanded(asked))
    known = flat(recorded.saved)
    changed = {
        key: value for key, value in {**_mended(recorded), **KEPT_HERE}.items() if known.get(key, value) != value
    }
    automatic = {**_as_typed(recorded), **changed}
    first = [f"{key}={literal(value)}" for key, value in automatic.items() if key not in given]
    overrides = [*first, *given.values()]
    cfg = _compose(recorded, overrides)
    if output is None:
        output = (
            Path("outputs") / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{time.time_ns() // 1000 % 10**6:06}-reproduced"
        )
    if (output / "run.json").exists():
        raise ValueError(f"--output {output} already holds a run; name another folder")
    return Plan(recorded, overrides, frozenset(given), cfg, _checked(recorded, cfg), output.resolve())


def _as_typed(recorded: Recorded) -> dict[str, Any]:
    """What the command line of an evaluation laid over its adapter's config, which the saved config alone does not tell."""
    if recorded.stamp["kind"] != "evaluate" or recorded.saved.get("adapter") is None:
        return {}
    return {
        key: value
        for key, value in flat(recorded.saved).items()
        if key.partition(".")[0] in SAVED_WITH_ADAPTER and {key, key.partition(".")[0]} & recorded.typed
    }


def _mended(recorded: Recorded) -> dict[str, Any]:
    """Settings that the run found out by itself, and would find out anew: named, so that it cannot find others."""
    saved, stamp = recorded.saved, recorded.stamp
    found: dict[str, Any] = {}
    if saved.get("adapter") == "auto" and stamp.get("parent"):
        found["adapter"] = stamp["parent"]
    if saved.get("merge_adapter") == "auto" and stamp.get("merged_parent"):
        found["merge_adapter"] = stamp["merged_parent"]
    if stamp.get("processes"):
        found["hardware.devices"] = stamp["processes"]
    if stamp.get("model_revision") and OmegaConf.select(saved, "model.revision") is None:
        found["model.revision"] = stamp["model_revision"]
    return found


def expanded(asked: Iterable[str]) -> list[str]:
    """The overrides with each `group=choice` as the settings of that choice: a saved config has no groups to choose from."""
    overrides = []
    for one in asked:
        group, _, choice = one.lstrip("+").partition("=")
        if group not in commandline.groups():
            overrides.append(one)
            continue
        path = commandline.CONF / group / f"{choice.strip(chr(39))}.yaml"
        if not path.is_file():
            raise ValueError(f"{one} does not exist; {group} can be {', '.join(_choices(group))}")
        schema = OmegaConf.structured(Config)
        chosen = OmegaConf.load(path)
        if group not in schema or "defaults" in chosen or "@package" in path.read_text(encoding="utf-8").split("\n")[0]:
            raise ValueError(
                f"{one} chooses for several groups at once, and a saved config has none; set their keys one by one"
            )
        schema = OmegaConf.create({group: OmegaConf.merge(schema[group], chosen)})
        overrides += [f"{key}={literal(value)}" for key, value in flat(schema).items() if value != "???"]
    return overrides


def _choices(group: str) -> list[str]:
    return sorted(path.stem for path in (commandline.CONF / group).glob("*.yaml"))


def _by_key(overrides: list[str]) -> dict[str, str]:
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ValueError(commandline.explain(error)) from error
    for override in parsed:
        if override.is_sweep_override():
            raise ValueError(f"{override.input_line} is a sweep, and one run is repeated; give one value")
        if re.match(r"hydra\b", override.key_or_group):
            raise ValueError(f"{override.input_line} is not passed on; the folder of the new run is --output DIR")
    return {override.key_or_group: line for override, line in zip(parsed, overrides)}


def _compose(recorded: Recorded, overrides: list[str]) -> DictConfig:
    """The config that the script will see. ValueError where it has settings that are gone, or overrides are wrong."""
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(recorded.folder / ".hydra")):
            cfg = hydra.compose("config", overrides=overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(commandline.explain(error)) from error
    if unknown := unknown_keys(cfg):
        cure = " ".join(f"'~{key}'" for key in unknown)
        raise ValueError(
            f"{recorded.folder}/.hydra/config.yaml has settings that this version does not know: {', '.join(unknown)}; "
            f"check out the run's commit {recorded.stamp.get('commit', '(not recorded)')}, or go on without them: "
            f"text2sql reproduce {recorded.folder} {cure}"
        )
    return cfg


def _checked(recorded: Recorded, cfg: DictConfig) -> Config:
    """The config of the run. That of an evaluation is checked once its adapter's is laid under it, by evaluate.py."""
    try:
        if recorded.stamp["kind"] == "train":
            return configuration.load(cfg)
        merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.to_container(cfg, resolve=False))
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ValueError(f"{recorded.folder}/.hydra/config.yaml: {commandline.explain(error)}") from error
    assert isinstance(config, Config)
    return config


def flat(cfg: Any, path: str = "") -> dict[str, Any]:
    """The leaves of a config by dotted key, its references as written; a list is a leaf."""
    content: Any = OmegaConf.to_container(cfg, enum_to_str=True) if OmegaConf.is_config(cfg) else cfg
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{path}.{key}" if path else str(key)
        found |= flat(value, name) if isinstance(value, Mapping) and value else {name: value}
    return found


def literal(value: Any) -> str:
    """`value` as Hydra's command line reads it back."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(literal, value))}]"
    if isinstance(value, str):
        return overriding.quoted(value)
    return repr(value)
