"""Going on with a run that was broken off: what its folder holds, whether it is the same run, and where it goes on from."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

from text2sql import checkpoints, lock, runs, seeds
from text2sql.config import Config

log = logging.getLogger(__name__)

OF_NO_EFFECT = (
    "resume tracking. hub. trainer.save_total_limit trainer.max_hours trainer.on_nan "
    "hardware.max_cache_tokens hardware.gpu hardware.memory_gib hardware.name"
).split()
MAY_DIFFER = {
    "train": (*OF_NO_EFFECT, "eval.", "predictions"),
    "evaluate": (*OF_NO_EFFECT, "eval.workers"),
}
"""By the kind of a run its settings, and groups with their dot, that leave what it learns or finds as it is to the last bit."""
HELD = {"train": "training that could go on", "evaluate": "evaluation whose settings are known"}
BAD_STEPS = "bad_steps.jsonl"
GROWING = ("history.jsonl", "samples.jsonl", BAD_STEPS)


def settings(config: Config) -> dict[str, Any]:
    """The config as run.json holds it, by full keys."""
    return dict(_flat(asdict(config)))


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value.name if isinstance(value, Enum) else value))
    return found


def finished_loss(run: Path, config: Config) -> float | None:
    """The validation loss of the run in the folder `run` that has finished or was pruned, if resume=true is to leave it alone.

    ValueError if that is a run of another config.
    """
    record = runs.read(run)
    if config.resume != "true" or not record or record.get("status") not in ("finished", "pruned"):
        return None
    check_same(run, record, config, "train")
    loss: float = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["validation/loss"]
    log.info("%s holds a %s run, which is left as it is: its validation loss is %.4f", run, record["status"], loss)
    return loss


def claim(run: Path, config: Config, **stamp: Any) -> bool:
    """Start a run in the folder `run`, or with resume=true go on with the one that it holds; returns whether it held one.

    No other process can claim it until `lock.release`. ValueError if the folder holds a run that is another one, that is at
    work, or that resume=true does not allow to touch.
    """
    lock.hold(run)
    before = runs.read(run) if config.resume == "true" else None
    if before is None:
        runs.start(run, settings=settings(config), **stamp)
        return False
    if before:
        check_same(run, before, config, "train")
        if runs.is_at_work(before):
            raise ValueError(f"a process is training in {run} at this moment; wait for its end or end it")
    _check_seeds(run)
    runs.restart(run, before, settings=settings(config), **stamp)
    return True


def check_same(run: Path, record: Mapping[str, Any], config: Config, kind: str) -> None:
    """ValueError unless the run of this stamp is the `train` or `evaluate` that `config` describes, but for what MAY_DIFFER."""
    saved = record.get("settings")
    if record.get("kind") != kind or saved is None:
        raise ValueError(f"resume=true: {run} holds no {HELD[kind]}; choose another hydra.run.dir=DIR")
    ours = {key: value for key, value in settings(config).items() if not key.startswith(MAY_DIFFER[kind])}
    if differing := runs.differing(json.loads(json.dumps(ours)), saved):
        raise ValueError(
            f"resume=true: the run in {run} has other settings, so this would not go on with it: {'; '.join(differing)}. Leave "
            "them as they were, or start another run with hydra.run.dir=DIR"
        )


def _check_seeds(run: Path) -> None:
    """ValueError if a whole checkpoint here is of a training whose later random numbers would not be drawn as they were."""
    for checkpoint in checkpoints.all_in(run / "checkpoints"):
        state = runs.read_object(checkpoint / "state.json")
        scheme = state.get("seeds", seeds.FIRST_SCHEME)
        if state and scheme != seeds.SCHEME and checkpoints.damage(checkpoint) is None:
            raise ValueError(
                f"resume=true: {checkpoint} was written by a version of text2sql that draws the order of examples and dropout "
                f"from the seed in another way ({scheme}, here {seeds.SCHEME}: docs/reliability.md), so this would not go on "
                "with it. Begin anew in another folder with hydra.run.dir=DIR, or go on with the version of the commit in "
                f"{run / 'run.json'}"
            )


def prepare(run: Path) -> Path | None:
    """The checkpoint that the run in this folder goes on from, or None for its start.

    What the run has written since then is cut off, so that no row is there twice.
    """
    folder = run / "checkpoints"
    checkpoint = checkpoints.newest_whole(folder)
    checkpoints.clear_away(folder, checkpoints.step_of(checkpoint) if checkpoint else None)
    sizes = _state(checkpoint)["files"] if checkpoint else {}
    for name in GROWING:
        checkpoints.cut(run / name, sizes.get(name, 0))
    shutil.rmtree(run / "adapter", ignore_errors=True)
    (run / "metrics.json").unlink(missing_ok=True)
    if checkpoint is None:
        log.info("%s has no checkpoint to go on from: it begins at its start", run)
    else:
        log.info("%s goes on from %s", run, checkpoint.name)
    return checkpoint


def check_facts(checkpoint: Path, facts: Mapping[str, Any]) -> None:
    """ValueError if the checkpoint was made of other data, another tokenizer or another parent than are here now."""
    if differing := runs.differing(facts, _state(checkpoint)["facts"]):
        raise ValueError(
            f"resume=true: {checkpoint} cannot go on, for what it was made of has changed: {'; '.join(differing)}"
        )


def _state(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    return state
