"""Whether a run fits on its GPU, which single setting would make it fit, and what room it leaves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from text2sql import machines, memory
from text2sql.config import Config, Device, Quant
from text2sql.geometry import Geometry
from text2sql.machines import GIB, Machine
from text2sql.memory import Memory

RESERVE_GIB = {Device.cuda: 0.6, Device.cpu: 1.5}
"""What torch's allocator never sees: the CUDA context and kernels; on a CPU Python and its libraries."""
RESERVE_SHARE = 0.03
"""Of the memory, lost between allocations."""
CURES_SHOWN = 4
BESIDE_THE_ADAPTER = 24_000_000
"""Bytes of a checkpoint that are no weights: Mistral NeMo's tokenizer is most of them."""
HALF = {"fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Change:
    """Overrides to type, the config that they make, and its memory. `learns` says that they change what is learned."""

    overrides: str
    config: Config
    memory: Memory
    learns: bool = False


def limit(config: Config, machine: Machine) -> int:
    """Bytes that a run's own tensors may take on `machine`."""
    usable = machine.memory_gib * (1 - RESERVE_SHARE) - RESERVE_GIB[config.hardware.device]
    return max(0, int(usable * GIB))


def fits(config: Config, needed: Memory, machine: Machine) -> bool:
    """Whether `needed` leaves room on `machine` for what is not counted in it."""
    return needed.total <= limit(config, machine)


def settle(config: Config, geometry: Geometry, machine: Machine | None, lengths: Sequence[int] | None = None) -> Config:
    """The config with hardware.gradient_checkpointing decided where it is null: off if that fits on `machine`.

    Layers are computed a second time only where memory asks for it, or where the machine is not known.
    """
    if config.hardware.gradient_checkpointing is not None:
        return config
    faster = _changed(config, "hardware", gradient_checkpointing=False)[1]
    if machine is not None and fits(faster, memory.estimate(faster, geometry, machine, lengths), machine):
        return faster
    return _changed(config, "hardware", gradient_checkpointing=True)[1]


def checkpoint_bytes(config: Config, geometry: Geometry) -> int:
    """The predicted size of one checkpoint: adapter, the optimizer's moments, and beside them tokenizer and state."""
    parts = {part.name: part.bytes for part in memory.learned(config, geometry)}
    return parts["adapters"] + parts["optimizer"] + BESIDE_THE_ADAPTER


def with_max_steps(config: Config, lengths: Sequence[int]) -> Config:
    """The config with the optimizer steps that trainer.num_tokens buys, at the mean length of examples of these `lengths`."""
    trainer = config.trainer
    if trainer.num_tokens is None:
        return config
    per_step = trainer.batch_size * sum(lengths) / len(lengths)
    return replace(config, trainer=replace(trainer, max_steps=max(1, round(trainer.num_tokens / per_step))))


def num_saves(config: Config, lengths: Sequence[int]) -> int:
    """How often a training on examples of these `lengths` is saved, the last step included."""
    trainer = with_max_steps(config, lengths).trainer
    epochs = math.ceil(math.ceil(len(lengths) / trainer.batch_size) * trainer.num_train_epochs)
    steps = trainer.max_steps if trainer.max_steps > 0 else epochs
    between = trainer.save_steps if trainer.save_steps >= 1 else math.ceil(steps * trainer.save_steps)
    return math.ceil(steps / between)


def check_fits(
    config: Config, geometry: Geometry, machine: Machine | None, lengths: Sequence[int] | None = None
) -> Memory | None:
    """The predicted memory, before any weight is loaded; None where the machine is not known.

    ValueError with the parts and the settings that would make it fit, if it cannot. `lengths` are the training
    examples' in tokens; without them every example counts as long as trainer.max_length.
    """
    if machine is None:
        return None
    needed = memory.estimate(config, geometry, machine, lengths)
    if not fits(config, needed, machine):
        parts = ", ".join(f"{part.name} {part.bytes / GIB:.2f}" for part in needed.parts)
        raise ValueError(
            f"{verdict(config, needed, machine)} ({parts}). {advice(cures(config, geometry, machine, lengths))}"
        )
    return needed


def verdict(config: Config, needed: Memory, machine: Machine) -> str:
    """One line: what is needed of what there is, on which machine."""
    can = "fits" if fits(config, needed, machine) else "cannot fit"
    place = f"{machine.name} ({machine.memory_gib:.2f} GiB, {limit(config, machine) / GIB:.2f} for the run)"
    return f"{config.model.name} {can}: {needed.total / GIB:.2f} GiB on each {place}"


def advice(changes: list[Change]) -> str:
    """The cures in one sentence."""
    if not changes:
        return "No setting makes it fit: choose a smaller model= or a larger GPU"
    shown = [
        f"{c.overrides} ({c.memory.total / GIB:.2f} GiB{', changes what is learned' if c.learns else ''})"
        for c in changes
    ]
    return f"It would fit with {'; or '.join(shown)}"


def cures(config: Config, geometry: Geometry, machine: Machine, lengths: Sequence[int] | None = None) -> list[Change]:
    """The first few single settings that make it fit; where none does alone, the shortest list of them that does.

    What changes nothing that is learned comes first. Empty where nothing helps.
    """
    precision = machines.precision(config.hardware, machine)

    def changed(overrides: str, made: Config, learns: bool) -> Change:
        return Change(overrides, made, memory.estimate(made, geometry, machine, lengths), learns)

    single = [changed(*change) for change in _candidates(config, precision)]
    alone = [change for change in single if fits(change.config, change.memory, machine)]
    if alone:
        return _distinct(alone)[:CURES_SHOWN]
    names: list[str] = []
    made, learns = config, False
    for group in dict.fromkeys(_group(change.overrides) for change in single):
        again = [c for c in _candidates(made, precision) if _group(c[0]) == group]
        if not again:
            continue
        overrides, made, changes = again[-1]
        names, learns = [*names, overrides], learns or changes
        together = changed(" ".join(names), made, learns)
        if fits(made, together.memory, machine):
            return [together]
    return []


def room(config: Config, geometry: Geometry, machine: Machine, lengths: Sequence[int] | None = None) -> list[Change]:
    """Faster settings that fit as well: fewer, larger passes, or no checkpointing. None of them changes what is learned."""
    found = []
    if config.hardware.gradient_checkpointing:
        found.append(_changed(config, "hardware", gradient_checkpointing=False))
    larger = config.hardware.max_tokens
    whole = memory.tokens_per_pass(_changed(config, "hardware", max_tokens=1 << 40)[1], lengths)
    widest = None
    while larger < whole:
        larger = 1 << larger.bit_length()
        change = _changed(config, "hardware", max_tokens=larger)
        if not fits(change[1], memory.estimate(change[1], geometry, machine, lengths), machine):
            break
        widest = change
    changes = [Change(text, made, memory.estimate(made, geometry, machine, lengths)) for text, made in found]
    if widest:
        changes.append(Change(*widest, memory.estimate(widest[1], geometry, machine, lengths)))
    return [change for change in changes if fits(change.config, change.memory, machine)]


def _candidates(config: Config, precision: str) -> Iterator[tuple[str, Config, bool]]:
    """(overrides, config, whether it changes what is learned), in the order to try; later ones of a group save more."""
    hardware, quant, trainer = config.hardware, config.quant, config.trainer
    for tokens in _halved(hardware.max_tokens, trainer.max_length):
        yield *_changed(config, "hardware", max_tokens=tokens), False
    if not hardware.gradient_checkpointing:
        yield *_changed(config, "hardware", gradient_checkpointing=True), False
    if precision in HALF and hardware.dtype == "float32":
        yield *_changed(config, "hardware", dtype=HALF[precision]), False
    if (
        precision in HALF
        and quant.load_in_4bit
        and quant.bnb_4bit_compute_dtype == "float32"
        and not hardware.fast_path
    ):
        yield *_changed(config, "quant", bnb_4bit_compute_dtype=HALF[precision]), False
    if not hardware.fast_path:
        yield *_changed(config, "hardware", fast_path=True), False
    if hardware.devices > 1 and not hardware.fsdp and hardware.device is Device.cuda:
        yield *_changed(config, "hardware", fsdp=True), False
    if not quant.load_in_4bit:
        yield "quant=nf4", replace(config, quant=Quant(load_in_4bit=True, bnb_4bit_use_double_quant=True)), True
    if "8bit" not in trainer.optim and hardware.device is Device.cuda:
        yield *_changed(config, "trainer", optim="paged_adamw_8bit"), True
    for length in _halved(trainer.max_length, config.prompt.max_sql_tokens + 1):
        shorter = replace(trainer, max_length=length)
        tokens = min(length, hardware.max_tokens)
        text = f"trainer.max_length={length} hardware.max_tokens={tokens}"
        yield text, replace(config, trainer=shorter, hardware=replace(hardware, max_tokens=tokens)), True
    for r in _halved(config.lora.r, 1):
        yield *_changed(config, "lora", r=r), True


def _changed(config: Config, group: str, **setting: Any) -> tuple[str, Config]:
    """The override to type, and the config with it."""
    ((key, value),) = setting.items()
    made: Any = replace(config, **{group: replace(getattr(config, group), **setting)})
    return f"{group}.{key}={str(value).lower()}", made


def _halved(start: int, least: int) -> Iterator[int]:
    """Halves of `start`, down to `least` itself."""
    while start > least:
        start = max(start // 2, least)
        yield start


def _group(overrides: str) -> str:
    return overrides.split("=")[0]


def _distinct(changes: list[Change]) -> list[Change]:
    """The first, and so the mildest, of each setting."""
    return list({_group(change.overrides): change for change in reversed(changes)}.values())[::-1]
