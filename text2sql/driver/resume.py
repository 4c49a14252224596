"""Goes on with a sweep: which folder is meant by what was typed, and what of it is done and stays."""

from __future__ import annotations

import argparse
import itertools
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from text2sql import lock, overriding, runs

log = logging.getLogger(__name__)

SWEEPS = Path("multirun")
SCRIPTS = ("train", "evaluate")
ENDS_AT_ONCE = ("-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion", "--version")
MAX_LISTED = 10


def prepare(arguments: Sequence[str], script: str) -> list[str]:
    """The arguments of a multirun with the sweep's folder named, where they say resume=true; any others as they are.

    Holds the lock of a folder that is named. ValueError if no sweep is meant, if it was typed otherwise, if another
    process runs it, and, without resume=true, if the folder that was named holds a sweep already.
    """
    asked = list(arguments)
    if not {"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(asked) or set(ENDS_AT_ONCE) & set(asked):
        return asked
    named = value(asked, "hydra.sweep.dir")
    if (value(asked, "resume") or "").lower() not in ("true", "auto"):
        if named and "${" not in named and (Path(named) / "multirun.yaml").exists():
            raise ValueError(
                f"{named} holds a sweep already; go on with it by adding resume=true (or `text2sql resume {named}`), or "
                "choose another folder with hydra.sweep.dir=DIR"
            )
        return asked
    named_config, others = options(asked)
    flags = _flags(named_config.config_dir, named_config.config_name or script, script)
    typed = [*flags, *(one for one in others if not one.startswith(("-", "hydra.", "hydra/")))]
    sweep = _check(Path(named), typed, script) if named else _find(typed, script)
    lock.hold(sweep)
    return asked if named else [*asked, f"hydra.sweep.dir={overriding.literal(str(sweep))}"]


def options(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Which config a command line names (config_dir, config_name, config_path), and its other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option, short in (("--config-dir", "-cd"), ("--config-name", "-cn"), ("--config-path", "-cp")):
        parser.add_argument(option, short)
    return parser.parse_known_args(arguments)


def command(sweep: Path) -> tuple[str, Path, list[str]]:
    """What `python train.py ...` continues the sweep: the script's name, the folder to type it in, the arguments.

    That folder is the one it was typed in, wherever the sweep's is, for data.path and others may be relative to it.
    ValueError for what is no sweep of train.py or evaluate.py, or cannot be read.
    """
    hydra = _read(sweep)
    name = _script(hydra)
    if name not in SCRIPTS:
        raise ValueError(f"{sweep} is a sweep of {name or 'an unknown script'}.py, not of train.py or evaluate.py")
    recorded = Path(str(_mapping(hydra.get("runtime")).get("cwd") or "."))
    folder = recorded.resolve() if recorded.is_dir() else Path.cwd()
    typed = [one for one in _typed(hydra) if not overriding.is_resume(one)]
    hydras_own = _texts(_mapping(hydra.get("overrides")).get("hydra"))
    settings = [one for one in hydras_own if not one.startswith(("hydra.sweep.dir=", "hydra.mode="))]
    resolved = sweep.resolve()
    place = resolved.relative_to(folder) if resolved.is_relative_to(folder) else resolved
    arguments = [*typed, *settings, "resume=true", f"hydra.sweep.dir={overriding.literal(str(place))}"]
    return name, folder, ["-m", *arguments]


def finished_value(folder: Path, needs: str | None = None) -> float | None:
    """What the job in `folder` returned, if it has finished or was pruned; None if not, or if its files do not say so in full.

    `needs` names a metric that the job has only if it came to its very end (an evaluation after the phase).
    """
    stamp, metrics = runs.read_object(folder / "run.json"), runs.read_object(folder / "metrics.json")
    name = "eval/execution_accuracy" if stamp.get("kind") == "evaluate" else "validation/loss"
    value = metrics.get(name)
    status = stamp.get("status")
    if not isinstance(value, int | float) or not (
        status == "pruned" or (status == "finished" and (not needs or needs in metrics))
    ):
        return None
    return float(value)


def check_same(folder: Path, overrides: Sequence[str]) -> None:
    """ValueError if the run in `folder` was started with other overrides than these."""
    before = overriding.saved(folder)
    if not (folder / "run.json").exists() or before is None:
        return  # nothing is lost by starting there
    if (was := _comparable(before)) != (would_be := _comparable(overrides)):
        raise ValueError(
            f"{folder} was run with `{' '.join(was)}` and its number would now be `{' '.join(would_be)}`; type the sweep's "
            "own overrides, or start a new sweep without resume=true"
        )


def make_room(folder: Path) -> None:
    """Leave in `folder` what a job with resume=true goes on from, or nothing.

    That is a training with a checkpoint, or one that only its evaluation is missing of. Any other run is set aside in the
    sweep's .before folder, where nobody looks for runs and nothing is lost.
    """
    trained = finished_value(folder) is not None
    if not (folder / "run.json").exists() or trained or any(folder.glob("checkpoints/*")):
        return
    target = next(
        path
        for number in itertools.count(1)
        if not (path := folder.parent / runs.ASIDE / f"{folder.name}.{number}").exists()
    )
    target.parent.mkdir(exist_ok=True)
    folder.rename(target)
    log.info("%s has no checkpoint to go on from: what it holds is now in %s", folder, target)


# Which sweep


def _find(typed: Sequence[str], script: str) -> Path:
    """The newest sweep below multirun/ that was typed with the same overrides."""
    found = sorted(SWEEPS.glob("*/multirun.yaml"), key=lambda path: path.stat().st_mtime, reverse=True)
    listed = []
    for path in found:
        try:
            hydra = _read(path.parent)
        except ValueError as error:
            listed.append(str(error))
            continue
        was = _typed(hydra)
        if _script(hydra) == script and _comparable(was) == _comparable(typed):
            return path.parent
        listed.append(f"{path.parent}: python {_script(hydra)}.py -m {' '.join(_comparable(was))}")
    more = [f"... and {len(listed) - MAX_LISTED} older ones"] if len(listed) > MAX_LISTED else []
    there = "".join(f"\n  {line}" for line in [*listed[:MAX_LISTED], *more]) or " none"
    raise ValueError(
        f"resume=true found no sweep of {script}.py below {SWEEPS}/ with the overrides `{' '.join(_comparable(typed))}`; "
        f"leave resume=true out to start one, or name one with hydra.sweep.dir=DIR. There are:{there}"
    )


def _check(sweep: Path, typed: Sequence[str], script: str) -> Path:
    """The sweep that was named. ValueError if it is none of this script with these overrides."""
    if not sweep.is_dir():
        raise ValueError(f"hydra.sweep.dir={sweep} is no folder, so there is nothing to resume; leave resume=true out")
    if not (sweep / "multirun.yaml").exists():
        raise ValueError(
            f"hydra.sweep.dir={sweep} has no multirun.yaml: it is not the folder of a sweep (multirun/DIR)"
        )
    try:
        hydra = _read(sweep)
    except ValueError as error:  # its jobs still say how they were started, and the launcher compares that
        log.warning("%s", error)
        return sweep
    if _script(hydra) != script:
        raise ValueError(
            f"hydra.sweep.dir={sweep} is a sweep of {_script(hydra) or 'an unknown script'}.py, not {script}.py"
        )
    was, would_be = _comparable(_typed(hydra)), _comparable(typed)
    if was != would_be:
        raise ValueError(
            f"hydra.sweep.dir={sweep} was typed with `{' '.join(was)}` and not with `{' '.join(would_be)}`; "
            f"`text2sql resume {sweep}` types it again as it was"
        )
    return sweep


def _read(sweep: Path) -> dict[str, Any]:
    """The part `hydra` of the sweep's multirun.yaml; ValueError if there is none."""
    import yaml

    path = sweep / "multirun.yaml"
    try:
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        found = yaml.load(path.read_text(encoding="utf-8"), loader)
    except FileNotFoundError:
        raise ValueError(f"{sweep} has no multirun.yaml: it is not the folder of a sweep (multirun/DIR)") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}; {_cure(sweep)}") from None
    hydra = _mapping(_mapping(found).get("hydra"))
    if not _script(hydra) or "task" not in _mapping(hydra.get("overrides")):
        raise ValueError(f"{path} is incomplete or not Hydra's; {_cure(sweep)}")
    return hydra


def _cure(sweep: Path) -> str:
    return (
        f"its jobs are untouched: type the command that started the sweep with hydra.sweep.dir={sweep} and resume=true"
    )


def _typed(hydra: Mapping[str, Any]) -> list[str]:
    """What the sweep was typed with: its config, if that was a saved one, and the jobs' overrides."""
    name = str(_mapping(hydra.get("job")).get("config_name") or _script(hydra))
    sources = _mapping(hydra.get("runtime")).get("config_sources") or []
    folders = [one["path"] for one in sources if isinstance(one, dict) and one.get("provider") == "command-line"]
    task = _texts(_mapping(hydra.get("overrides")).get("task"))
    return [*_flags(next(iter(folders), None), name, _script(hydra)), *task]


def _flags(folder: str | None, name: str, script: str) -> list[str]:
    """The flags that name a saved config; none for our own."""
    named = [f"--config-name={name}"] if name != script else []
    return [f"--config-dir={os.path.abspath(folder)}", *named] if folder else named


def _script(hydra: Mapping[str, Any]) -> str:
    return str(_mapping(hydra.get("job")).get("name") or "")


def _comparable(overrides: Sequence[str]) -> list[str]:
    return sorted(
        one for one in overrides if not overriding.is_resume(one) and not one.startswith(("hydra.", "hydra/"))
    )


def value(arguments: Sequence[str], key: str) -> str | None:
    """The last value typed for `key`, without the quotes around it."""
    values = [one.partition("=")[2] for one in arguments if one.partition("=")[0].lstrip("+") == key]
    return values[-1].strip("'\"") if values else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
