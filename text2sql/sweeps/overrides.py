"""What was typed for a job, and which keys differ between jobs, from the .hydra folders and the sweep's multirun.yaml.

The columns of a table are the keys that people typed, so they come from overrides.yaml, read by Hydra's own parser. Where one
job names a key and another does not, the other's value is that of its composed config. Only where nothing that was typed
differs are whole configs compared: a sweep over phase changes a dozen settings and is still a sweep over one key.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from text2sql.overriding import is_resume, read_yaml, saved

MAX_PLANNED = 10_000
MAX_DIGITS = 10
DELETED = "(deleted)"


def one_line(text: str) -> str:
    """The text on one line without what a terminal would obey or UTF-8 cannot write: it may be anybody's."""
    printable = (character if character.isprintable() else " " for character in text)
    return " ".join("".join(printable).split())


def number(text: str | None) -> float | None:
    """The finite number that a value is, or None: numbers sort and are drawn as such."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def brief(text: str) -> str:
    """A value as people read it: a number that a sampler has drawn has more digits than it has a meaning for."""
    value = number(text)
    return text if value is None or len(text) <= MAX_DIGITS else f"{value:.4g}"


def sort_key(text: str | None) -> tuple[int, float, str]:
    """Numbers by their size, then texts, then what is not there."""
    value = number(text)
    return (0, value, "") if value is not None else (1, 0.0, text) if text is not None else (2, 0.0, "")


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def typed(folder: Path) -> tuple[str, ...]:
    """The job's overrides, one text each, as its .hydra/overrides.yaml has them.

    Without resume=true, which says how the job was started last and nothing about what it is.
    """
    return tuple(one for one in saved(folder) or () if not is_resume(one))


def script(folder: Path) -> str:
    """`evaluate` or `train`: which script made the job or the sweep."""
    for path in (folder / ".hydra" / "hydra.yaml", folder / "multirun.yaml"):
        name = _mapping(_mapping(_mapping(read_yaml(path)).get("hydra")).get("job")).get("name")
        if name == "evaluate":
            return "evaluate"
    return "train"


@lru_cache(maxsize=8192)
def parse(text: str) -> tuple[str, str]:
    """The key and the value of one override: `phase='1'` is ("phase", "1"). What Hydra cannot read is split at its =."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(text)
    except (HydraException, RecursionError):
        key, _, value = text.partition("=")
        return one_line(key.lstrip("+~")), one_line(value)
    key = one_line(override.key_or_group + (f"@{override.package}" if override.package else ""))
    if override.is_delete():
        return key, DELETED
    if override.is_sweep_override():
        return key, one_line(text.partition("=")[2])
    found = override.value()
    if found is None or isinstance(found, bool):
        return key, str(_text(found))
    return key, one_line(found if isinstance(found, str) else str(override.get_value_element_as_str()))


def planned(sweep: Path) -> list[tuple[str, ...]]:
    """The overrides of each job that the sweep was asked for, in order; none where another sweeper than Hydra's chose."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    hydra = _mapping(_mapping(read_yaml(sweep / "multirun.yaml")).get("hydra"))
    sweeper = _mapping(hydra.get("sweeper"))
    if not str(sweeper.get("_target_")).endswith(".BasicSweeper"):
        return []
    asked = [f"{key}={value}" for key, value in _mapping(sweeper.get("params")).items()]
    task = _mapping(hydra.get("overrides")).get("task")
    asked += [one for one in task if isinstance(one, str) and not is_resume(one)] if isinstance(task, list) else []
    choices = []
    try:
        for override in OverridesParser.create().parse_overrides(asked):
            key = override.get_key_element()
            if override.is_discrete_sweep():
                values = itertools.islice(override.sweep_string_iterator(), MAX_PLANNED)
                choices.append([f"{key}={value}" for value in values])
            else:
                typed = f"{key}={override.get_value_element_as_str()}"
                choices.append([key if override.is_delete() else typed])
    except (HydraException, RecursionError):
        return []
    return list(itertools.islice(itertools.product(*choices), MAX_PLANNED))


def used_optuna(sweep: Path) -> bool:
    """Whether an optuna study chose the jobs' settings."""
    hydra = _mapping(_mapping(read_yaml(sweep / "multirun.yaml")).get("hydra"))
    return "optuna" in str(_mapping(hydra.get("sweeper")).get("_target_")).lower()


def swept(jobs: Sequence[tuple[Path, Sequence[str]]]) -> tuple[list[str], list[dict[str, str]]]:
    """The keys that differ between jobs (folder, overrides), as first typed, and each job's values; numbers by their size."""
    said = [dict(map(parse, overrides)) for _, overrides in jobs]
    keys = [
        key for key in dict.fromkeys(key for one in said for key in one) if not key.startswith(("hydra.", "hydra/"))
    ]
    values = [_with_composed(folder, one, keys) for (folder, _), one in zip(jobs, said)]
    differing = _differing(keys, values, {group for folder, _ in jobs for group in _choices(folder)})
    if differing or len(jobs) < 2:
        return differing, values
    flat = [_flat(read_yaml(folder / ".hydra" / "config.yaml")) for folder, _ in jobs]
    return _differing(list(dict.fromkeys(key for one in flat for key in one)), flat), flat


def _differing(keys: Sequence[str], values: Sequence[Mapping[str, str]], groups: Collection[str] = ()) -> list[str]:
    """The keys in which jobs differ. A run made of a saved config has no choices of groups, which is no other choice."""
    known = [
        one for one in values if one
    ]  # a job without a config differs in everything from the others, and says nothing
    found = {key: {sort_key(one.get(key)) for one in known if key in one or key not in groups} for key in keys}
    return [key for key in keys if len(found[key]) > 1]


def _with_composed(folder: Path, said: Mapping[str, str], keys: Sequence[str]) -> dict[str, str]:
    """The job's values of `keys`: as typed, else as its config has them."""
    values = {key: said[key] for key in keys if key in said}
    for key in set(keys) - set(said):
        found = _composed(folder, key)
        if found is not None:
            values[key] = found
    return values


def _composed(folder: Path, key: str) -> str | None:
    """The choice of a group, or else the setting's value; None where the job has none."""
    choices = _choices(folder)
    if key in choices:
        return _text(choices[key])
    value = read_yaml(folder / ".hydra" / "config.yaml")
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return _text(value)


def _choices(folder: Path) -> dict[str, Any]:
    hydra = _mapping(_mapping(read_yaml(folder / ".hydra" / "hydra.yaml")).get("hydra"))
    return _mapping(_mapping(hydra.get("runtime")).get("choices"))


def _text(value: Any) -> str | None:
    """A setting as it would be typed; None for a whole group."""
    if isinstance(value, dict):
        return None
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return one_line("[" + ",".join(map(str, value)) + "]")
    return one_line(str(value))


def _flat(value: Any, path: str = "") -> dict[str, str]:
    if not isinstance(value, dict):
        found = _text(value)
        return {path: found} if path and found is not None else {}
    flat: dict[str, str] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{path}.{key}" if path else one_line(str(key)))
    return flat
