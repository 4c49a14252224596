"""Which settings differ between runs: the config in effect, what the adapters were trained with, and versions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from text2sql.comparison.results import Run

TAKEN_FROM_ADAPTER = ("model", "quant", "lora", "prompt", "hardware", "trainer")
"""Where an evaluation follows its adapter's config instead of its own: config.SAVED_WITH_ADAPTER."""
NOT_JUDGING = ("eval.num_live_samples", "eval.workers")
CONFIG, OVERRIDES = ".hydra/config.yaml", ".hydra/overrides.yaml"

Settings = dict[str, str]


def differing_settings(loaded: Sequence[Run]) -> tuple[dict[str, list[str | None]], list[str]]:
    """The settings that differ, by key, with their text in every run, and notes on what could not be compared.

    They are the config in effect, what the adapter was trained with (`adapter: KEY`), and commit, data hash and versions.
    A run without one of the three is passed over in it; what adapters set is compared if all their folders are here.
    """
    notes = [
        f"{run.name}: its folder has no {CONFIG}, so its config is not compared"
        for run in loaded
        if not (run.folder / CONFIG).is_file()
    ]
    found: dict[str, list[str | None]] = {}
    for each in zip(*map(_sources, loaded)):
        present = [settings for settings in each if settings]
        for key in set().union(*present):
            if len({settings.get(key) for settings in present}) > 1:
                found[key] = [settings.get(key) for settings in each]
    adapters = {run.name: run.stamp["adapter"] for run in loaded if run.stamp.get("adapter")}
    gone = {name: adapter for name, adapter in adapters.items() if not Path(adapter).is_dir()}
    if gone:
        named = ", ".join(f"{name} {adapter}" for name, adapter in gone.items())
        groups = ", ".join(TAKEN_FROM_ADAPTER)
        notes.append(f"no such adapter folder any more, so what it sets ({groups}) is not compared: {named}")
        found = {key: values for key, values in found.items() if _group(key) not in TAKEN_FROM_ADAPTER}
    judging = sorted(key for key in found if _group(key) == "eval" and key not in NOT_JUDGING)
    if judging:
        notes.append(f"the runs were not judged alike: {', '.join(judging)} differ")
    return dict(sorted(found.items())), notes


def _sources(run: Run) -> tuple[Settings, Settings, Settings]:
    """The config in effect, the rest of the adapter's config, and run.json; each empty if it is not there.

    As in config.with_saved, some groups are the adapter's, but for what the command line named.
    """
    config = _flat(run.folder / CONFIG)
    adapter = _flat(Path(run.stamp["adapter"]) / "config.yaml") if run.stamp.get("adapter") else {}
    typed = _typed(run.folder / OVERRIDES)
    for key in config.keys() & adapter.keys():
        if _group(key) in TAKEN_FROM_ADAPTER and not {key, _group(key)} & typed:
            config[key] = adapter[key]
    rest = {f"adapter: {key}": value for key, value in adapter.items() if _group(key) not in TAKEN_FROM_ADAPTER}
    stamped = {key: run.stamp[key] for key in ("commit", "dirty", "versions") if key in run.stamp}
    return config, rest, dict(_leaves("", {**stamped, "data.sha256": run.stamp.get("data", {}).get("sha256")}))


def _group(key: str) -> str:
    return key.partition(".")[0]


def _flat(path: Path) -> Settings:
    """The leaves of a YAML file by dotted key, as text; a value that only refers to another key is that key's."""
    from omegaconf import OmegaConf

    if not path.is_file():
        return {}
    # OmegaConf itself would also call resolvers, which may exist only while Hydra runs.
    flat = dict(_leaves("", OmegaConf.to_container(OmegaConf.load(path))))
    return {key: flat.get(value[2:-1], value) if value.startswith("${") else value for key, value in flat.items()}


def _typed(path: Path) -> set[str]:
    """The keys and groups that were named on the command line."""
    from omegaconf import OmegaConf

    overrides: Any = OmegaConf.load(path) if path.is_file() else []
    return {str(override).lstrip("+~").partition("=")[0] for override in overrides}


def _leaves(path: str, node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), value)
    else:
        yield path, node if isinstance(node, str) else json.dumps(node)
