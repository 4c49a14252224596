"""What training runs on: memory, compute capability and speed of the device that a config means, here or elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from text2sql.config import Device, Hardware

GIB = 1 << 30
BF16_FROM = (8, 0)
"""The first compute capability with bf16 arithmetic; a T4 says that it supports bf16, and emulates it."""


@dataclass(frozen=True)
class Machine:
    """One device. `memory_gib` is what torch can allocate of it, `tflops` its peak in half precision, without sparsity, and
    `share` the part of the peak that training a large model on the fast path gets. None: not known."""

    name: str
    memory_gib: float
    capability: tuple[int, int] | None = None
    tflops: float | None = None
    share: float = 0.45


# Data sheets' peaks; memory as torch reports it. share: 0.55 was measured on an H100, the others are cautious guesses.
GPUS = {
    "T4": Machine("T4", 14.56, (7, 5), 65, 0.30),
    "P100": Machine("P100", 15.89, (6, 0), 19, 0.30),
    "V100-16": Machine("V100-16", 15.77, (7, 0), 112, 0.35),
    "V100-32": Machine("V100-32", 31.73, (7, 0), 112, 0.35),
    "RTX3090": Machine("RTX3090", 23.67, (8, 6), 71, 0.45),
    "RTX4090": Machine("RTX4090", 23.52, (8, 9), 165, 0.45),
    "A10": Machine("A10", 22.06, (8, 6), 125, 0.35),
    "L4": Machine("L4", 22.03, (8, 9), 121, 0.35),
    "A100-40": Machine("A100-40", 39.38, (8, 0), 312, 0.45),
    "A100-80": Machine("A100-80", 79.14, (8, 0), 312, 0.45),
    "H100": Machine("H100", 79.11, (9, 0), 989, 0.45),
    "H200": Machine("H200", 139.8, (9, 0), 989, 0.45),
}

# 500 tokens/s with SmolLM2-135M in bf16 on two cores with avx512_bf16, 180 in fp32: 4 operations a weight and token.
CPU_TFLOPS = {"bf16": 0.21, "fp32": 0.076}


def of(hardware: Hardware) -> Machine | None:
    """The device that `hardware` means: hardware.gpu by name, else this machine's; hardware.memory_gib corrects its memory.

    None where no GPU is named and this machine shows none. ValueError for a hardware.gpu that is not in the table.
    """
    machine = _cpu(hardware) if hardware.device is Device.cpu else _gpu(hardware)
    if hardware.memory_gib is None:
        return machine
    return replace(machine or Machine("GPU", 0.0), memory_gib=hardware.memory_gib)


def named(name: str) -> Machine:
    """The GPU called `name`, written as in the table or nearly so; ValueError naming those that are known."""
    wanted = _plain(name)
    found = [machine for key, machine in GPUS.items() if wanted in (_plain(key), _plain(key) + "gb")]
    if not found:
        raise ValueError(
            f"hardware.gpu={name} is not known; it can be {', '.join(GPUS)}, or set hardware.gpu=null "
            "hardware.memory_gib=N for another"
        )
    return found[0]


def precision(hardware: Hardware, machine: Machine | None) -> str:
    """`fp16`, `bf16` or `fp32`: what the passes run in on `machine`, which decides where hardware.bf16 is null."""
    if hardware.fp16:
        return "fp16"
    if hardware.bf16 is not None:
        return "bf16" if hardware.bf16 else "fp32"
    if hardware.device is Device.cpu:
        return "bf16" if cpu_multiplies_bf16() else "fp32"
    capability = machine.capability if machine else None
    return "fp16" if capability is not None and capability < BF16_FROM else "bf16"


def cpu_multiplies_bf16() -> bool:
    """Whether this machine's processor has bf16 arithmetic; False where that cannot be read."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except FileNotFoundError:  # not Linux
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def num_gpus_here() -> int:
    """How many GPUs torch sees on this machine."""
    import torch

    return torch.cuda.device_count()


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower()).removeprefix("nvidia").removeprefix("tesla").removeprefix("geforce")


def _cpu(hardware: Hardware) -> Machine:
    import psutil

    tflops = CPU_TFLOPS[precision(hardware, None)]
    return Machine("CPU", round(psutil.virtual_memory().total / GIB, 2), None, tflops, share=1.0)


def _gpu(hardware: Hardware) -> Machine | None:
    if hardware.gpu is not None:
        return named(hardware.gpu)
    if hardware.memory_gib is not None or num_gpus_here() == 0:
        return None
    import torch

    about = torch.cuda.get_device_properties(0)
    here = Machine(about.name, round(about.total_memory / GIB, 2), (about.major, about.minor))
    model = min((key for key in GPUS if _plain(key.split("-")[0]) in _plain(about.name)), key=len, default=None)
    return here if model is None else replace(here, tflops=GPUS[model].tflops, share=GPUS[model].share)
