"""Folders of sweeps as Hydra and our runs leave them, made without training anything."""

from __future__ import annotations

import itertools
import json

import yaml

from text2sql.evaluation import wilson_interval

BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def job(
    folder, typed=(), *, status="finished", kind="train", metrics=None, config=None, choices=None, history=(), **stamp
):
    """One run folder; `status` None writes no run.json, as in a job that was refused before it began."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(typed)))
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config or {"seed": 42, "adapter": None}))
    name = {"train": "train", "evaluate": "evaluate"}[kind]
    hydra = {"job": {"name": name}, "runtime": {"choices": choices or {}}}
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
    if status is not None:
        (folder / "run.json").write_text(json.dumps({"kind": kind, "status": status, **stamp}))
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    if history:
        (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
    return folder


def accuracy(correct, total):
    """The metrics of an evaluation with so many right answers."""
    low, high = wilson_interval(correct, total)
    names = ("", "_low", "_high")
    return {f"eval/execution_accuracy{name}": value for name, value in zip(names, (correct / total, low, high))}


def asked_for(sweep, *task, params=None, target=BASIC):
    """The multirun.yaml of a sweep that was typed with the overrides `task`."""
    sweep.mkdir(parents=True, exist_ok=True)
    hydra = {
        "sweeper": {"_target_": target, "params": params},
        "overrides": {"task": list(task)},
        "job": {"name": "train"},
    }
    (sweep / "multirun.yaml").write_text(yaml.safe_dump({"hydra": hydra}))


def curve(start, steps=20):
    """Logged losses that fall from `start`, with a validation loss every fifth step."""
    for step in range(1, steps + 1):
        yield {"step": step, "loss": start / (1 + step / 8)}
        if step % 5 == 0:
            yield {"step": step, "eval_loss": start / (1 + step / 10)}


def grid(sweep, keys, score, *, seeds=(42,)):
    """A sweep over every combination of `keys`, {key: values}; `score(values, seed)` is (right of 100, validation loss)."""
    combinations = itertools.product(*keys.values(), seeds)
    for number, (*values, seed) in enumerate(combinations):
        typed = [f"{key}={value}" for key, value in zip(keys, values)] + [f"seed={seed}"]
        correct, loss = score(values, seed)
        job(
            sweep / str(number),
            typed,
            phase=1,
            seed=seed,
            metrics={"validation/loss": loss, "train/seconds": 10.0 + number, **accuracy(correct, 100)},
            history=list(curve(loss * 3)),
        )
    asked_for(sweep, *(f"{key}={','.join(map(str, values))}" for key, values in keys.items()))
    return sweep
