"""How much GPU memory a training run takes, part by part: arithmetic on the config and the model's shape, no torch.

The total is meant to be what torch.cuda.max_memory_allocated says after a run. The constants were fitted to runs of a 12B
model on an H100, and tests hold the predictions within 10 % of what those measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from text2sql import machines, speed
from text2sql.config import Config, Device
from text2sql.geometry import Geometry
from text2sql.machines import GIB, Machine

BYTES = {"fp16": 2, "bf16": 2, "fp32": 4, "float16": 2, "bfloat16": 2, "float32": 4}

UNPACKED_LIMIT_BYTES = GIB
"""4-bit weights are also held unpacked where that takes no more than this: a small model spends its time on unpacking."""
CHUNK = 128
"""Hidden states whose logits exist at the same time; 128 of a 131,072-word vocabulary are 64 MiB in float32."""
LOGIT_BYTES = 8
"""Of each logit in a chunk: float32, and a second of it inside logsumexp."""
NF4_BYTES = 0.5 + 4 / 64
"""A weight's 4 bits and its share of a float32 scale for every 64."""
NF4_DOUBLE_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""The same with the scales themselves in 8 bits, a float32 for every 256 of them."""
ADAM_8BIT_BYTES = 2 + 2 * 4 / 256
"""Both moments of one weight in 8 bits, each with its share of a float32 scale for every 256."""
OUTSIDE_LAYERS = 3
"""Copies of the hidden states outside the layers: into and out of the last norm, and their gradient."""
GATHERED_LAYERS = 2
"""Layers that hardware.fsdp holds whole at a time: the one that computes and the next."""


@dataclass(frozen=True)
class Kept:
    """What one layer keeps of each token for its gradient, in numbers of the compute type.

    `hidden`, `intermediate`, `query` and `key` count vectors of these widths; `inputs` copies of the inputs of the adapted
    linears. `hidden` includes the layer's own input, which checkpointing keeps in any case. `passing` counts vectors of
    `intermediate` that only exist while one layer's gradient is worked out, on top of what is kept, with one of `hidden`.
    """

    hidden: float
    intermediate: float
    query: float
    key: float
    inputs: float
    passing: float
    passing_with_dropout: float


# Fast path: both norms' inputs and outputs; gate, up and their product; queries and the attention's output; keys and values.
FUSED = Kept(hidden=4, intermediate=3, query=2, key=2, inputs=0, passing=2, passing_with_dropout=3)
# Where passes are recorded each linear keeps its own dropped-out input in place of what several share, and of the product.
RECORDED = Kept(hidden=2, intermediate=2, query=2, key=2, inputs=1, passing=2, passing_with_dropout=3)
# The plain modules under autocast: norms keep float32 copies, silu its own output, rotary embedding and PEFT theirs.
PLAIN = Kept(hidden=8, intermediate=4, query=4, key=0, inputs=1, passing=1, passing_with_dropout=2)


@dataclass(frozen=True)
class Part:
    """One part of the peak, in bytes of one device, and why it is that large."""

    name: str
    bytes: int
    reason: str


@dataclass(frozen=True)
class Memory:
    """The peak of one device by part, for passes of `tokens` tokens in `precision` (fp16, bf16 or fp32)."""

    parts: tuple[Part, ...]
    tokens: int
    precision: str

    @property
    def total(self) -> int:
        """Bytes: the sum of the parts."""
        return sum(part.bytes for part in self.parts)


def estimate(
    config: Config, geometry: Geometry, machine: Machine | None, lengths: Sequence[int] | None = None
) -> Memory:
    """The peak memory of training `config` on one `machine`; `lengths` are the training examples' in tokens, if known."""
    if config.hardware.fsdp:  # a sharded model computes by its plain modules
        config = replace(config, hardware=replace(config.hardware, fast_path=False))
    precision, tokens = machines.precision(config.hardware, machine), tokens_per_pass(config, lengths)
    parts = (
        *_weights(config, geometry, precision),
        *learned(config, geometry),
        _kept(config, geometry, machine, precision, tokens),
        *_moments(_passing(config, geometry, machine, precision, tokens), _logits(config, geometry, precision, tokens)),
    )
    return Memory(parts, tokens, precision)


def tokens_per_pass(config: Config, lengths: Sequence[int] | None = None) -> int:
    """Tokens in the largest pass of one device: hardware.max_tokens, unless no share of a step has so many."""
    longest, share = config.trainer.max_length, math.ceil(config.trainer.batch_size / config.hardware.devices)
    step = share * longest if not lengths else sum(sorted((min(n, longest) for n in lengths), reverse=True)[:share])
    return min(config.hardware.max_tokens, step)


def unpacks(config: Config, geometry: Geometry, precision: str) -> bool:
    """Whether the fast path holds the 4-bit weights unpacked as well: UNPACKED_LIMIT_BYTES is room enough for them."""
    unpacked = geometry.num_linear_weights * BYTES[precision]
    return config.hardware.fast_path and config.quant.load_in_4bit and unpacked <= UNPACKED_LIMIT_BYTES


def _weights(config: Config, geometry: Geometry, precision: str) -> list[Part]:
    hardware = config.hardware
    shards = hardware.devices if hardware.fsdp else 1
    each, kind = _linear_bytes(config)
    other = geometry.num_other_weights * BYTES[hardware.dtype]
    parts = [
        Part(f"{kind} weights", round(geometry.num_linear_weights * each / shards), f"{each:.3g} bytes a weight"),
        Part("other weights", round(other / shards), f"embeddings, head and norms in {hardware.dtype}"),
    ]
    if unpacks(config, geometry, precision):
        unpacked = geometry.num_linear_weights * BYTES[precision]
        parts.append(Part("unpacked weights", unpacked, f"small enough to be held in {precision} as well"))
    if shards > 1:
        layers = GATHERED_LAYERS * geometry.num_linear_weights / geometry.layers * each
        table = geometry.vocab * geometry.hidden * BYTES[hardware.dtype]
        reason = f"{GATHERED_LAYERS} layers and the embedding table or the head, whole at a time"
        parts.append(Part("gathered weights", round(layers + table), reason))
    return parts


def _linear_bytes(config: Config) -> tuple[float, str]:
    if config.quant.load_in_4bit:
        return (NF4_DOUBLE_BYTES if config.quant.bnb_4bit_use_double_quant else NF4_BYTES), "4-bit"
    return (1.0, "8-bit") if config.quant.load_in_8bit else (BYTES[config.hardware.dtype], config.hardware.dtype)


def learned(config: Config, geometry: Geometry) -> list[Part]:
    learned = geometry.num_adapter_weights(config.lora.r, config.lora.target_modules)
    optim = config.trainer.optim
    eight_bit = "8bit" in optim and config.hardware.device is Device.cuda
    moments = ADAM_8BIT_BYTES if eight_bit else 8.0
    paged = "; paged: can move to the host" if "paged" in optim and config.hardware.device is Device.cuda else ""
    return [
        Part("adapters", 4 * learned, f"{learned / 1e6:.1f} M weights, rank {config.lora.r}, float32"),
        Part("gradients", 4 * learned, "of the adapters, float32"),
        Part("optimizer", round(moments * learned), f"two moments of {'8' if eight_bit else '32'} bits{paged}"),
    ]


def _kept(config: Config, geometry: Geometry, machine: Machine | None, precision: str, tokens: int) -> Part:
    """What the forward pass leaves for the gradients, of all layers."""
    stream, each = _stream_bytes(config, precision), BYTES[precision]
    if config.hardware.gradient_checkpointing:
        size: float = geometry.layers * geometry.hidden * stream
        reason = f"{tokens:,} tokens in {precision}: the input of each layer (checkpointing)"
    else:
        size = geometry.layers * _layer_bytes(config, geometry, machine, precision)
        reason = f"{tokens:,} tokens in {precision}: all {geometry.layers} layers, no checkpointing"
    return Part("activations", round(tokens * (size + OUTSIDE_LAYERS * geometry.hidden * each)), reason)


def _stream_bytes(config: Config, precision: str) -> int:
    """Of a number in the residual stream, which the plain modules hold in the embeddings' type."""
    return BYTES[precision] if config.hardware.fast_path else max(BYTES[precision], BYTES[config.hardware.dtype])


def _layer_bytes(config: Config, geometry: Geometry, machine: Machine | None, precision: str) -> float:
    """What one layer keeps of one token, without checkpointing."""
    kept, each, targets = _counts(config, geometry), BYTES[precision], config.lora.target_modules
    flash = config.hardware.fast_path and not _repeats_keys(config, machine)
    numbers = (
        kept.intermediate * geometry.intermediate
        + kept.query * geometry.query_width
        + kept.key * (geometry.key_width if flash else geometry.query_width)
        + kept.inputs * geometry.input_width(targets)
        + config.lora.r * len(targets)
    )
    masks = geometry.input_width(targets) if config.lora.lora_dropout > 0 else 0
    return numbers * each + kept.hidden * geometry.hidden * _stream_bytes(config, precision) + masks


def _counts(config: Config, geometry: Geometry) -> Kept:
    if not config.hardware.fast_path:
        return PLAIN
    recorded = speed.uses_graphs(config, geometry.num_linear_weights) and config.lora.lora_dropout > 0
    return RECORDED if recorded else FUSED


def _repeats_keys(config: Config, machine: Machine | None) -> bool:
    """Whether attention needs a key for every query head: all back-ends but flash, which needs capability 8.0."""
    capability = machine.capability if machine else None
    old = capability is not None and capability < machines.BF16_FROM
    return config.hardware.device is Device.cpu or old or machines.precision(config.hardware, machine) == "fp32"


def _passing(config: Config, geometry: Geometry, machine: Machine | None, precision: str, tokens: int) -> Part:
    """What exists while one layer's gradient is worked out: with checkpointing, all that the layer keeps as well."""
    kept, each = _counts(config, geometry), BYTES[precision]
    vectors = kept.passing_with_dropout if config.lora.lora_dropout > 0 else kept.passing
    work = _workspace(config, geometry, precision)
    size = max(vectors * geometry.intermediate * tokens * each, geometry.intermediate * tokens * each + work)
    size += geometry.hidden * tokens * each
    reason = "one layer's gradients on the way back"
    if config.hardware.gradient_checkpointing:
        layer = _layer_bytes(config, geometry, machine, precision) - geometry.hidden * _stream_bytes(config, precision)
        size, reason = size + tokens * layer, "one layer computed again, and its gradients"
    return Part("one layer", round(size), reason)


def _workspace(config: Config, geometry: Geometry, precision: str) -> int:
    """Bytes of the largest linear unpacked or cast, for the moment that it is multiplied."""
    each, largest = BYTES[precision], geometry.largest_linear
    packed = config.quant.enabled
    if unpacks(config, geometry, precision) or (not packed and BYTES[config.hardware.dtype] == each):
        return 0
    compute = BYTES[config.quant.bnb_4bit_compute_dtype]
    if config.quant.load_in_4bit and not config.hardware.fast_path and compute > each:
        return largest * (compute + each)
    return largest * each


def _logits(config: Config, geometry: Geometry, precision: str, tokens: int) -> Part:
    rows, size = min(CHUNK, tokens), 0
    if BYTES[config.hardware.dtype] != BYTES[precision]:
        size = geometry.vocab * geometry.hidden * BYTES[precision]  # the head, cast
    size += rows * geometry.vocab * LOGIT_BYTES
    return Part("logits", size, f"{rows} learned tokens at a time, vocabulary {geometry.vocab:,}")


def _moments(passing: Part, logits: Part) -> tuple[Part, Part]:
    """The two parts that never exist at once: the larger stands whole, the other is what it takes beyond, or nothing."""
    if logits.bytes <= passing.bytes:
        note = f"{logits.bytes / GIB:.2f} GiB, gone before the layers' gradients need more"
        return passing, Part("logits", 0, note)
    note = f"{passing.bytes / GIB:.2f} GiB once the logits, which take more, are gone"
    return Part(passing.name, 0, note), logits
