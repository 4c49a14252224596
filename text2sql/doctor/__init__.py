"""What a run would meet, told before it starts: memory, tokens, time and traps of a composed config, for a GPU here or not."""

from __future__ import annotations

import math
import os
import socket
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies

import hydra

from text2sql import commandline, config, data, fitting, geometry, machines, memory, prompts, speed
from text2sql.config import Config
from text2sql.doctor import traps
from text2sql.doctor.tokens import Tokens, measure
from text2sql.doctor.traps import Trap
from text2sql.fitting import Change
from text2sql.geometry import Geometry
from text2sql.machines import Machine
from text2sql.memory import Memory
from text2sql.speed import Speed

HUB = "https://huggingface.co"
TYPICAL_TOKENS = {"ddl": 383, "question_only": 90}
"""Tokens an example where the data cannot be read: the mean of Spider's training questions, schema included or not."""


@dataclass(frozen=True)
class Report:
    """A diagnosis. What could not be found out is None, and `notes` says why and how to mend it.

    `fits` is None where the machine is not known. `mean_tokens` are an example's, measured or (`typical`) assumed.
    """

    run: str
    config: Config
    geometry: Geometry
    machine: Machine | None
    memory: Memory
    fits: bool | None
    verdict: str
    cures: list[Change]
    room: list[Change]
    tokens: Tokens | None
    mean_tokens: float
    typical: bool
    speed: Speed | None
    steps: int | None
    traps: list[Trap]
    notes: list[str]

    @property
    def run_s(self) -> float | None:
        """Estimated seconds of all optimizer steps, without loading, evaluating and saving."""
        return self.steps * self.speed.step_s if self.speed and self.steps else None


def compose(overrides: list[str]) -> Config:
    """The checked config that `train.py` would run with these overrides.

    Hydra's and omegaconf's own errors for overrides that do not exist, ValueError for those that cannot work.
    """
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(commandline.CONF)):
        composed = config.load(hydra.compose("train", overrides=commandline.quote_phase(overrides)))
    prompts.check_style(composed.prompt)
    data.check(composed.data)
    return composed


def diagnose(config: Config, example: int = 0) -> Report:
    """Everything that can be told about training `config` before it starts; loads no weights.

    Data or a tokenizer that cannot be had leave their sections empty. ValueError if the model's shape cannot be read,
    hardware.gpu is not known, or there is no training example number `example`.
    """
    shape, machine = geometry.of(config.model), machines.of(config.hardware)
    tokens, notes = measure(config, example)
    lengths = tokens.lengths if tokens else None
    config = fitting.settle(config, shape, machine, lengths)
    needed = memory.estimate(config, shape, machine, lengths)
    fits, verdict = _verdict(config, needed, machine)
    mean = tokens.mean if tokens else min(TYPICAL_TOKENS[config.prompt.style], config.trainer.max_length)
    return Report(
        run=_run(config, needed, machine),
        config=config,
        geometry=shape,
        machine=machine,
        memory=needed,
        fits=fits,
        verdict=verdict,
        cures=[] if machine is None or fits else fitting.cures(config, shape, machine, lengths),
        room=fitting.room(config, shape, machine, lengths) if machine and fits else [],
        tokens=tokens,
        mean_tokens=mean,
        typical=tokens is None,
        speed=speed.estimate(config, shape, machine, mean),
        steps=_steps(config, len(tokens.lengths) if tokens else None),
        traps=traps.find(config, shape, machine),
        notes=notes,
    )


def to_json(report: Report) -> dict[str, Any]:
    """The report as plain data, with its totals: sizes in bytes, times in seconds."""
    found = asdict(replace(report, cures=[], room=[]))
    del found["config"]
    changes = {
        name: [{"overrides": c.overrides, "total": c.memory.total, "changes_what_is_learned": c.learns} for c in some]
        for name, some in (("cures", report.cures), ("room", report.room))
    }
    return {**found, **changes, "total": report.memory.total, "run_s": report.run_s}


def go_offline_without_hub(config: Config, timeout_s: float = 2.0) -> None:
    """Have the hub's libraries answer from their caches where the hub cannot be reached: they would try for a minute.

    For a process that has not imported them yet. Asks nothing where model and data lie on this machine or a proxy is set.
    """
    paths = [path for path in (config.model.path, config.data.path) if "/" in path and not Path(path).exists()]
    if not paths or "HF_HUB_OFFLINE" in os.environ or getproxies():
        return
    url = urlparse(os.environ.get("HF_ENDPOINT", HUB))
    try:
        socket.create_connection((str(url.hostname), url.port or 443), timeout=timeout_s).close()
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"


def _run(config: Config, needed: Memory, machine: Machine | None) -> str:
    hardware = config.hardware
    quant = "4-bit" if config.quant.load_in_4bit else "8-bit" if config.quant.load_in_8bit else "unquantised"
    where = f"{hardware.devices} x {machine.name if machine else 'an unknown ' + hardware.device.value + ' device'}"
    return (
        f"phase {config.phase.number} of {config.model.name}, {quant}, LoRA r {config.lora.r}, on {config.data.name} "
        f"(prompt={config.prompt.style}); {where}, {needed.precision}, {config.trainer.batch_size} examples a step"
    )


def _verdict(config: Config, needed: Memory, machine: Machine | None) -> tuple[bool | None, str]:
    if machine is None:
        cure = "set hardware.gpu=T4 (or another) or hardware.memory_gib=N to learn whether it fits"
        return None, f"no GPU here and hardware.gpu names none: {cure}"
    return fitting.fits(config, needed, machine), fitting.verdict(config, needed, machine)


def _steps(config: Config, num_examples: int | None) -> int | None:
    """Optimizer steps of the run; None where the number of examples is not known."""
    trainer = config.trainer
    if trainer.max_steps > 0:
        return trainer.max_steps
    count = config.data.max_samples if num_examples is None else num_examples
    return None if count is None else math.ceil(math.ceil(count / trainer.batch_size) * trainer.num_train_epochs)
