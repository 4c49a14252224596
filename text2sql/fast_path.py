"""The fast path: a transformers model with its layers computed by `fused` and `attention`, switched on and off in place.

The modules, their weights and their names stay what they are; only how they compute is replaced, so saving, loading and
counting parameters know nothing of it. What is not recognised (an 8-bit linear, another activation) keeps its own forward.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft.tuners.lora import LoraLayer
from transformers.activations import SiLUActivation

from text2sql import attention, fused, memory
from text2sql.attention import Layout

log = logging.getLogger(__name__)

Workings = dict[torch.nn.Parameter, fused.Working]
"""Working copies of LoRA layers, by the layer's A."""

PARTS = ("attention", "linear", "norm", "mlp", "embedding")

# Attention modules whose forward is projections, rotary embedding, attention and output projection, and nothing else.
PLAIN_ATTENTION = ("LlamaAttention", "MistralAttention", "Qwen2Attention")


def changes_logits(model: Any) -> bool:
    """Whether `model` does something with its logits after the head: caps them (Gemma 2) or scales them (Cohere, Granite)."""
    config = causal(model).config.get_text_config()
    return any(getattr(config, name, None) for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"))


def unsupported(model: Any) -> str | None:
    """Why the fast path would compute something else than this model means, or None."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if window is not None:
        return f"it has sliding-window attention ({window} tokens)"
    if getattr(config, "attn_logit_softcapping", None) or changes_logits(model):
        return "it caps or scales its logits"
    if not getattr(model, "_supports_attention_backend", False):
        return "its attention cannot be exchanged"
    return None


def is_on(model: Any) -> bool:
    """Whether `model` computes by the fast path."""
    return getattr(causal(model), "_text2sql_off", None) is not None


def switch_on(model: Any, dtype: torch.dtype, parts: Collection[str] = PARTS) -> bool:
    """Have `model` (a causal language model, with or without a LoRA adapter) compute in `dtype` by the fast path.

    False, with one warning, for a model that it does not know how to compute. Weights stay where and as they are; small
    4-bit ones are held unpacked as well. With fewer than all `parts`, the others run as they are and want autocast.
    """
    network = causal(model)
    if is_on(network):
        return True
    if reason := unsupported(network):
        log.warning("the fast path is off: %s", reason)
        return False
    if network.device.type == "cuda":
        fused.compile_elementwise(network.device)
    unpack = _unpacked_bytes(network, dtype) <= memory.UNPACKED_LIMIT_BYTES
    workings: Workings = {}
    fast = {
        module: _fast_forward(module, dtype, unpack, workings) for module in _modules(network) if _part(module) in parts
    }
    replaced = [(module, forward) for module, forward in fast.items() if forward is not None]
    for module, forward in replaced:
        module.forward = forward
    config, before = network.config, network.config._attn_implementation
    if "attention" in parts:
        config._attn_implementation = attention.NAME

    def off() -> None:
        for module, _ in replaced:
            del module.forward
        config._attn_implementation = before

    network._text2sql_off, network._text2sql_workings = off, workings
    return True


def use_workings(model: Any, workings: Workings) -> None:
    """Have the LoRA layers of `model`, on the fast path, compute with these copies wherever gradients are wanted."""
    causal(model)._text2sql_workings.update(workings)


def switch_off(model: Any) -> None:
    """Undo `switch_on`."""
    network = causal(model)
    if is_on(network):
        network._text2sql_off()
        del network._text2sql_off, network._text2sql_workings


def hidden_states(model: Any, ids: torch.Tensor, positions: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The last hidden states (rows, tokens, hidden) of token `ids` at `positions` (rows, tokens each), on the fast path."""
    decoder = causal(model).get_decoder()
    output = decoder(input_ids=ids, position_ids=positions, use_cache=False, layout=layout)
    return output.last_hidden_state


def head(model: Any) -> torch.nn.Linear:
    """The layer that turns hidden states into logits."""
    return causal(model).get_output_embeddings()


def causal(model: Any) -> Any:
    """The causal language model itself, without the adapter's shell."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _modules(network: Any) -> list[torch.nn.Module]:
    """The modules to look at: all but the head, and but what lies within a LoRA layer, which computes for it."""
    layers: list[Any] = [module for module in network.modules() if isinstance(module, LoraLayer)]
    inside = {part for layer in layers for part in layer.modules()} - set(layers)
    output = network.get_output_embeddings()
    return [module for module in network.modules() if module is not output and module not in inside]


def _unpacked_bytes(network: Any, dtype: torch.dtype) -> int:
    output = network.get_output_embeddings()
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Linear) and m is not output]
    return sum(layer.in_features * layer.out_features for layer in layers) * dtype.itemsize


def _part(module: Any) -> str | None:
    kind = type(module).__name__
    if isinstance(module, (LoraLayer, torch.nn.Linear)):
        return "linear"
    if isinstance(module, torch.nn.Embedding):
        return "embedding"
    if kind.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
        return "norm"
    if hasattr(module, "gate_proj") and isinstance(getattr(module, "act_fn", None), (torch.nn.SiLU, SiLUActivation)):
        return "mlp"
    return "attention" if kind in PLAIN_ATTENTION else None


def _fast_forward(module: Any, dtype: torch.dtype, unpack: bool, workings: Workings) -> Callable[..., Any] | None:
    if isinstance(module, LoraLayer):
        return _lora_linear(module, dtype, unpack, workings)
    if isinstance(module, Linear8bitLt):
        return None
    if isinstance(module, torch.nn.Linear):
        return _frozen_linear(module, dtype, unpack)
    if isinstance(module, torch.nn.Embedding):
        return _embedding(module, dtype)
    return {"norm": _rms_norm, "mlp": _gated_mlp, "attention": _self_attention}[_part(module) or ""](module)


def _weight_of(linear: Any, dtype: torch.dtype, unpack: bool) -> fused.Packed4bit | torch.Tensor:
    weight = linear.weight
    if isinstance(linear, Linear4bit):
        weight = fused.Packed4bit(weight.data, weight.quant_state)
        return weight.unpack(dtype) if unpack else weight
    return weight.detach().to(dtype) if unpack else weight.detach()


def _bias_of(linear: Any, dtype: torch.dtype) -> torch.Tensor | None:
    return None if linear.bias is None else linear.bias.detach().to(dtype)


def lora_pairs(model: Any) -> list[tuple[torch.nn.Parameter, torch.nn.Parameter]]:
    """A and B of every LoRA layer that the fast path computes."""
    found = causal(model).modules()
    layers: list[Any] = [module for module in found if isinstance(module, LoraLayer) and "forward" in vars(module)]
    return [
        (layer.lora_A[name].weight, layer.lora_B[name].weight) for layer in layers for name in layer.active_adapters
    ]


def _lora_linear(layer: Any, dtype: torch.dtype, unpack: bool, workings: Workings) -> Callable[..., Any] | None:
    base = layer.get_base_layer()
    known = isinstance(base, torch.nn.Linear) and not isinstance(base, Linear8bitLt)
    if (
        not known
        or layer.merged
        or len(layer.active_adapters) != 1
        or layer.lora_variant
        or any(layer.lora_bias.values())
    ):
        return None
    (name,) = layer.active_adapters
    a, b, dropout, scaling = layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name], layer.scaling[name]
    weight, bias = _weight_of(base, dtype, unpack), _bias_of(base, dtype)

    def forward(x: torch.Tensor) -> torch.Tensor:
        rate = getattr(dropout, "p", 0.0) if layer.training else 0.0
        flat = x.reshape(-1, x.shape[-1])
        working = workings.get(a.weight) if torch.is_grad_enabled() else None  # a copy may be older than the last step
        output = fused.run(fused.LoraLinear, flat, weight, bias, a.weight, b.weight, scaling, rate, working)
        return output.view(*x.shape[:-1], -1)

    return forward


def _frozen_linear(linear: Any, dtype: torch.dtype, unpack: bool) -> Callable[..., Any]:
    weight, bias = _weight_of(linear, dtype, unpack), _bias_of(linear, dtype)
    return lambda x: fused.run(fused.FrozenLinear, x, weight, bias)


def _embedding(table: Any, dtype: torch.dtype) -> Callable[..., Any]:
    return lambda ids: torch.nn.functional.embedding(ids, table.weight).to(dtype)


def _rms_norm(norm: Any) -> Callable[..., Any]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        return fused.run(fused.RmsNorm, flat, norm.weight.detach(), norm.variance_epsilon).view(x.shape)

    return forward


def _gated_mlp(mlp: Any) -> Callable[..., Any]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        return mlp.down_proj(fused.run(fused.SwiGlu, mlp.gate_proj(flat), mlp.up_proj(flat))).view(x.shape)

    return forward


def _self_attention(module: Any) -> Callable[..., Any]:
    def forward(
        hidden_states: torch.Tensor, position_embeddings: Any, *_: Any, layout: Layout, **__: Any
    ) -> tuple[torch.Tensor, None]:
        """The output (rows, tokens, width) of hidden states of that shape, and no attention weights."""
        rows, tokens, _width = hidden_states.shape
        shape = (rows * tokens, -1, module.head_dim)
        cos, sin = (angle.reshape(rows * tokens, 1, -1) for angle in position_embeddings)
        query, key, value = (
            projection(hidden_states).view(shape) for projection in (module.q_proj, module.k_proj, module.v_proj)
        )
        query, key = fused.run(fused.Rotary, query, cos, sin), fused.run(fused.Rotary, key, cos, sin)
        query, key, value = (
            part.view(rows, tokens, -1, module.head_dim).transpose(1, 2) for part in (query, key, value)
        )
        output = layout.attend(module.layer_idx, query, key, value, module.scaling)
        return module.o_proj(output.reshape(rows, tokens, -1)), None

    return forward
