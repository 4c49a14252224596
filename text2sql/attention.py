"""Attention as passes need it: within each of many examples in one row, or over a key-value cache that questions share.

transformers looks attention up by name and hands unknown keyword arguments on to it, so one registered function serves every
model that takes an attention back-end: it hands over to the `layout` that the caller gave to the model's forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "text2sql"
CAUSAL_FROM_TOP_LEFT = 1
"""`custom_mask_type` of PyTorch's memory-efficient attention."""


class Layout(Protocol):
    """How the tokens of one forward pass see each other.

    `query` is (rows, heads, tokens, head_dim), `key` and `value` (rows, kv_heads, tokens, head_dim); the result is (rows,
    tokens, heads, head_dim), as transformers wants it.
    """

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor: ...


def attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _mask: Any, *, layout: Layout, **more: Any
) -> tuple[torch.Tensor, None]:
    """The back-end that transformers calls: attention by the `layout` that was given to the model's forward."""
    scale = more.get("scaling") or query.shape[-1] ** -0.5
    return layout.attend(module.layer_idx, query, key, value, scale), None


AttentionInterface.register(NAME, attend)


def repeat(heads: torch.Tensor, times: int) -> torch.Tensor:
    """(rows, kv_heads, ...) as (rows, kv_heads * times, ...): each head `times` times in a row."""
    return heads if times == 1 else heads.repeat_interleave(times, dim=1)


@dataclass(frozen=True)
class Packed:
    """Examples end to end in one row: causal attention inside each, none between them.

    `bounds` (examples + 1, int32) are where they begin, with the end of the last; repeated bounds are empty examples, which
    only the `flash` and `efficient` back-ends take. `longest` is at least the length of the longest.
    """

    bounds: torch.Tensor
    lengths: tuple[int, ...]
    longest: int
    backend: str

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        return BACKENDS[self.backend](self, query, key, value, scale)


def packed(lengths: Sequence[int], device: torch.device, dtype: torch.dtype, backend: str | None = None) -> Packed:
    """The layout of examples of these `lengths` for queries of `dtype` on `device`."""
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)
    return Packed(bounds, tuple(lengths), max(lengths), backend or best_backend(device, dtype))


def best_backend(device: torch.device, dtype: torch.dtype) -> str:
    """`flash` from compute capability 8.0 on in half precision, `efficient` on other GPUs (a T4), `examples` on a CPU."""
    if device.type != "cuda":
        return "examples"
    half = dtype in (torch.float16, torch.bfloat16)
    return "flash" if half and torch.cuda.get_device_capability(device) >= (8, 0) else "efficient"


def _by_example(
    layout: Packed, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """One causal call for each example; runs everywhere. On a CPU in float32, whose backward is twice as fast as bf16's."""
    kind = query.dtype
    if query.device.type == "cpu":
        query, key, value = query.float(), key.float(), value.float()
    times = query.shape[1] // key.shape[1]
    key, value = repeat(key, times), repeat(value, times)
    parts = zip(*(tensor.split(layout.lengths, dim=2) for tensor in (query, key, value)))
    outputs = [scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale) for q, k, v in parts]
    return torch.cat(outputs, dim=2).transpose(1, 2).to(kind)


def _flash(layout: Packed, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """PyTorch's own flash attention over all examples in one call; it knows grouped heads."""
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    output = torch.ops.aten._flash_attention_forward(
        query, key, value, layout.bounds, layout.bounds, layout.longest, layout.longest, 0.0, True, False, scale=scale
    )[0]
    return output.unsqueeze(0)


def _efficient(
    layout: Packed, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """PyTorch's memory-efficient attention over all examples in one call: any GPU, also fp32."""
    times = query.shape[1] // key.shape[1]
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, repeat(key, times), repeat(value, times)))
    return torch.ops.aten._efficient_attention_forward(
        query,
        key,
        value,
        None,
        layout.bounds,
        layout.bounds,
        layout.longest,
        layout.longest,
        0.0,
        CAUSAL_FROM_TOP_LEFT,
        True,
        scale=scale,
    )[0]


BACKENDS = {"examples": _by_example, "flash": _flash, "efficient": _efficient}


class Cache:
    """Keys and values of the tokens so far, one slot a row, filled from the left; the Layout of decoding.

    `keys` and `values` are (layers, rows, kv_heads, room, head_dim). `at` says where each row's next tokens stand: one sees
    what stands at or before its own place in its row, so what lies behind is not seen and is written over later.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys, self.values = keys, values
        self.rows = torch.arange(keys.shape[1], device=keys.device)
        self.places = torch.arange(keys.shape[3], device=keys.device)
        self.slots = self.positions = self.rows
        self.mask = keys

    @classmethod
    def empty(
        cls, layers: int, rows: int, kv_heads: int, room: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> Cache:
        """A cache of zeros: what was never written must be finite, for a weight of zero to leave nothing of it."""
        shape = (layers, rows, kv_heads, room, head_dim)
        return cls(*(torch.zeros(shape, dtype=dtype, device=device) for _ in range(2)))

    @property
    def room(self) -> int:
        return self.keys.shape[3]

    def part(self, first: int, last: int, room: int) -> Cache:
        """The slots `first` to `last` (not included) and their first `room` places, in the same memory."""
        return Cache(self.keys[:, first:last, :, :room], self.values[:, first:last, :, :room])

    def keep(self, slots: torch.Tensor, room: int) -> Cache:
        """Move the first `room` places of `slots` (ascending) to the front and go on with those; copies one layer at a time."""
        for tensor in (self.keys, self.values):
            for layer in tensor:
                layer[: len(slots), :, :room] = layer[:, :, :room][slots]
        return self.part(0, len(slots), self.room)

    def seen_from(self, positions: torch.Tensor) -> torch.Tensor:
        """What is added to the scores of queries at `positions` (rows, tokens): (rows, 1, tokens, room) of 0 and -inf."""
        hidden = self.places > positions.unsqueeze(-1)
        zeros = torch.zeros(hidden.shape, dtype=self.keys.dtype, device=hidden.device)
        return zeros.masked_fill_(hidden, -torch.inf).unsqueeze(1)

    def at(self, positions: torch.Tensor, heads_per_key: int) -> Cache:
        """This cache for a forward whose tokens, neighbours in their rows, stand at `positions` (rows, tokens)."""
        mask, tokens = self.seen_from(positions), positions.shape[1]
        self.mask = mask if tokens == 1 else mask.repeat(1, 1, heads_per_key, 1)
        self.slots, self.positions = self.rows.unsqueeze(1).expand(-1, tokens).flatten(), positions.flatten()
        return self

    def write(
        self, layer: int, slots: torch.Tensor, places: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> None:
        """Put `key` and `value` (tokens, kv_heads, head_dim) at these slots and places (tokens,)."""
        self.keys[layer][slots, :, places] = key
        self.values[layer][slots, :, places] = value

    def look(self, layer: int, query: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        """Attention of `query` (rows, heads, tokens, head_dim) to the cache, as (rows, tokens, heads, head_dim).

        The heads that share a key are so many more queries to it, so no key is repeated; `mask` (rows, 1, heads / kv_heads *
        tokens or 1, room) has them one after the other.
        """
        keys, values = self.keys[layer], self.values[layer]
        rows, heads, tokens, head_dim = query.shape
        grouped = query.reshape(rows, keys.shape[1], -1, head_dim)
        output = scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scale)
        return output.reshape(rows, heads, tokens, head_dim).transpose(1, 2)

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        tokens = (tensor.transpose(1, 2).flatten(0, 1) for tensor in (key, value))
        self.write(layer, self.slots, self.positions, *tokens)
        return self.look(layer, query, self.mask, scale)
