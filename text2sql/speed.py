"""How long a step will take: a rough estimate from the model's arithmetic and the machine's peak, not a measurement."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from text2sql.config import Config, Device
from text2sql.geometry import Geometry
from text2sql.machines import Machine

PLAIN_SHARE = 0.55
"""Of the fast path's speed, what stock PEFT reached on an H100 (31 % of the peak against 55 %)."""
WIDE = 2304
"""Narrower hidden states fill less of a GPU: SmolLM2 (576) reached a quarter of what a 12B model does of an H100."""
LAUNCH_S = 0.0003
"""Of one layer's forward, backward or second forward on the fast path, however small, without CUDA graphs."""
PLAIN_LAUNCH_S = 0.004
"""The same for stock PEFT and bitsandbytes modules: 0.25 s a pass of 30 layers was measured."""
GRAPHS_BELOW = 1_000_000_000
"""Weights of a model whose passes hardware.cuda_graphs=null records."""


@dataclass(frozen=True)
class Speed:
    """Estimated seconds of an optimizer step, tokens a second over all devices, passes a step and device, and the limit."""

    step_s: float
    tokens_per_s: float
    passes: int
    bound: str


def uses_graphs(config: Config, num_weights: int) -> bool:
    """Whether passes of a model of so many weights are recorded as CUDA graphs: as asked for, or where it is small.

    Checkpointing looks up the state of the random generator, which no graph can.
    """
    hardware = config.hardware
    if hardware.device is Device.cpu or not hardware.fast_path or hardware.gradient_checkpointing:
        return False
    return num_weights < GRAPHS_BELOW if hardware.cuda_graphs is None else hardware.cuda_graphs


def estimate(config: Config, geometry: Geometry, machine: Machine | None, mean_tokens: float) -> Speed | None:
    """The speed on `machine` for examples of `mean_tokens` tokens; None where its peak is not known."""
    if machine is None or machine.tflops is None:
        return None
    hardware = replace(config.hardware, fast_path=config.hardware.fast_path and not config.hardware.fsdp)
    step_tokens = config.trainer.batch_size * mean_tokens
    tokens = math.ceil(config.trainer.batch_size / hardware.devices) * mean_tokens
    passes = max(1, math.ceil(tokens / hardware.max_tokens))
    directions = (
        3 if hardware.gradient_checkpointing else 2
    )  # forward, backward without weight gradients, forward again
    share = machine.share * (1.0 if hardware.fast_path else PLAIN_SHARE)
    if hardware.device is Device.cuda:
        share *= min(1.0, geometry.hidden / WIDE)
    computing = directions * tokens * geometry.flops(mean_tokens / 2) / (machine.tflops * 1e12 * share)
    launching = 0.0
    if hardware.device is Device.cuda and not uses_graphs(config, geometry.num_linear_weights):
        each = LAUNCH_S if hardware.fast_path else PLAIN_LAUNCH_S
        launching = passes * directions * geometry.layers * each
    step_s = max(computing, launching)
    return Speed(step_s, step_tokens / step_s, passes, "launching kernels" if launching > computing else "arithmetic")
