"""Combinations that run and disappoint: each rule says what will happen and which setting mends it."""

from __future__ import annotations

import netrc
import os
from dataclasses import dataclass
from importlib import metadata
from urllib.parse import urlparse

from text2sql import machines, speed
from text2sql.config import Config, Device, TrackingMode
from text2sql.geometry import Geometry
from text2sql.machines import Machine

PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate")


@dataclass(frozen=True)
class Trap:
    message: str
    cure: str


def find(config: Config, geometry: Geometry, machine: Machine | None) -> list[Trap]:
    """The traps that `config` walks into on `machine`, most harmful first."""
    rules = [
        *_precision_rules(config, machine),
        *_machine_rules(config),
        *_speed_rules(config, geometry, machine),
        _tracking_rule(config),
    ]
    return [trap for wrong, trap in rules if wrong] + _version_traps()


def _precision_rules(config: Config, machine: Machine | None) -> list[tuple[bool, Trap]]:
    hardware, capability = config.hardware, machine.capability if machine else None
    old = capability is not None and capability < machines.BF16_FROM
    shown = ".".join(map(str, capability)) if capability else ""
    precision = machines.precision(hardware, machine)
    return [
        (
            old and precision == "bf16",
            Trap(
                f"{machine.name if machine else ''} has compute capability {shown}, below 8.0: it emulates bf16, slowly",
                "hardware.fp16=true hardware.bf16=false hardware.dtype=float16",
            ),
        ),
        (
            precision == "fp16" and "smollm2" in config.model.hub_id.lower(),
            Trap(
                "SmolLM2's hidden states reach 25,000 and fp16 ends at 65,504: the loss may turn into NaN",
                "hardware.fp16=false with hardware.bf16=true where the GPU has it, or with hardware.bf16=false (fp32)",
            ),
        ),
    ]


def _machine_rules(config: Config) -> list[tuple[bool, Trap]]:
    hardware = config.hardware
    on_cpu = hardware.device is Device.cpu
    here = 0 if on_cpu else machines.num_gpus_here()
    optim = config.trainer.optim
    return [
        (
            not on_cpu and here < hardware.devices,
            Trap(
                f"hardware={hardware.name} asks for {hardware.devices} GPU(s) and this machine shows {here}: all this is "
                "about the other machine, and train.py refuses here",
                "run train.py there, or hardware=cpu here",
            ),
        ),
        (
            on_cpu and ("paged" in optim or "8bit" in optim),
            Trap(f"trainer.optim={optim} needs a GPU; adamw_torch takes its place", "trainer.optim=adamw_torch"),
        ),
    ]


def _speed_rules(config: Config, geometry: Geometry, machine: Machine | None) -> list[tuple[bool, Trap]]:
    hardware, quant, optim = config.hardware, config.quant, config.trainer.optim
    half = {"fp16": "float16", "bf16": "bfloat16"}.get(machines.precision(hardware, machine))
    return [
        (
            not hardware.fast_path
            and quant.load_in_4bit
            and quant.bnb_4bit_compute_dtype == "float32"
            and half is not None,
            Trap(
                "quant.bnb_4bit_compute_dtype=float32 unpacks every 4-bit weight to float32 first: more memory, less speed",
                f"quant.bnb_4bit_compute_dtype={half}, or hardware.fast_path=true, which unpacks to {half} itself",
            ),
        ),
        (
            speed.uses_graphs(config, geometry.num_linear_weights) and "8bit" in optim,
            Trap(
                f"trainer.optim={optim} cannot be recorded in a CUDA graph: it runs after the graph, a launch for each tensor",
                "trainer.optim=adamw_torch_fused, whose moments are small for a model of this size",
            ),
        ),
    ]


def _tracking_rule(config: Config) -> tuple[bool, Trap]:
    """Whether W&B has no key; the network is not asked."""
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    without_key = config.tracking.mode is TrackingMode.online and not os.environ.get("WANDB_API_KEY")
    return without_key and not _netrc_has(host), Trap(
        "tracking=wandb finds no API key and will go offline", "set WANDB_API_KEY, run `wandb login`, or tracking=none"
    )


def _netrc_has(host: str) -> bool:
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False


def _version_traps() -> list[Trap]:
    """Installed versions outside those that the package asks for."""
    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in metadata.requires("text2sql") or []]
    found = []
    for requirement in wanted:
        if requirement.name not in PACKAGES or requirement.marker is not None:
            continue
        installed = metadata.version(requirement.name)
        if not requirement.specifier.contains(installed, prereleases=True):
            message = f"{requirement.name} {installed} is not among the tested versions"
            found.append(Trap(message, f"pip install '{requirement.name}{requirement.specifier}'"))
    return found
