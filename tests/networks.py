"""Small networks with adapters, rows for them, and the slow and obvious way to their losses and gradients."""

from __future__ import annotations

import random

import torch
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config

from text2sql import fast_path, model
from text2sql.config import Config, Device, Hardware, Lora, Model, Quant
from text2sql.passes import Row
from text2sql.step import StepGradient

VOCABULARY, WIDTH = 96, 64
GEOMETRIES = {"mistral": MistralConfig, "llama": LlamaConfig, "qwen2": Qwen2Config}
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
QUANTS = {
    "none": Quant(),
    "nf4": Quant(load_in_4bit=True),
    "nf4 twice": Quant(load_in_4bit=True, bnb_4bit_use_double_quant=True),
}


def configured(kind, **changes):
    """A configuration of two layers with grouped heads, whose heads together are wider than the hidden states."""
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
    }
    if kind == "mistral":
        sizes |= {"head_dim": 32, "sliding_window": None}
    return GEOMETRIES[kind](**{**sizes, **changes})


def fresh(kind="mistral", **changes):
    """A base network with weights large enough for attention to matter, biases included."""
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(configured(kind, **changes), attn_implementation="sdpa")
    for name, parameter in network.named_parameters():
        if name.endswith("bias") or "norm" in name:
            torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.3)
        elif "embed" not in name:
            torch.nn.init.normal_(parameter, std=0.15)
    return network


def quantised(network, quant, folder):
    """`network` as the package loads it from disk with its weights quantised."""
    network.save_pretrained(folder)
    hardware = Hardware(name="cpu", device=Device.cpu, max_tokens=1)
    settings = Model(name="saved", path=str(folder), hub_id="saved")
    return model.load_base(Config(model=settings, quant=QUANTS[quant], hardware=hardware))


def adapted(network, modules=MODULES, dropout=0.0, r=4):
    """`network` with an adapter whose B is not zero, so that every LoRA matrix has a gradient."""
    torch.manual_seed(1)
    lora = Lora(r=r, lora_alpha=2 * r, lora_dropout=dropout, target_modules=list(modules))
    network = model.new_adapter(network, lora)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return network


def some_rows(seed, lengths):
    """Rows of these lengths, half prompt and half SQL."""
    draw = random.Random(seed)
    return [Row([draw.randrange(1, VOCABULARY) for _ in range(length)], length // 2) for length in lengths]


def trainable(network):
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def gradients(network):
    return {name: parameter.grad.detach().clone() for name, parameter in trainable(network).items()}


def difference(found, expected):
    """The norm of the difference of two sets of gradients, relative to the norm of the second."""
    assert found.keys() == expected.keys()
    apart = sum((found[name] - gradient).square().sum() for name, gradient in expected.items())
    return (apart / sum(gradient.square().sum() for gradient in expected.values())).sqrt().item()


def loss_alone(network, row):
    """The summed loss of one example, over single unpadded rows and full logits."""
    ids, first = torch.tensor([row.ids], device=network.device), max(row.prompt_length, 1)
    logits = network(input_ids=ids, use_cache=False).logits[0, first - 1 : -1]
    return cross_entropy(logits.float(), ids[0, first:], reduction="sum")


def one_by_one(network, rows):
    """Mean loss over learned tokens, and its gradient, of the plain network over one row after the other."""
    network.train()
    network.zero_grad(set_to_none=True)
    learned = sum(len(row.ids) - max(row.prompt_length, 1) for row in rows)
    total = 0.0
    for row in rows:
        loss = loss_alone(network, row) / learned
        loss.backward()
        total += loss.item()
    found = gradients(network)
    network.zero_grad(set_to_none=True)
    return total, found


def by_steps(network, rows, max_tokens=1000, fast=True, dtype=torch.float32):
    """Loss and gradient of one step of `rows`."""
    if fast:
        assert fast_path.switch_on(network, dtype)
    step = StepGradient(network, max_tokens, dtype)
    loss = step(rows)
    return loss.item(), gradients(network)


class Shapes(TorchDispatchMode):
    """The shapes of all tensors that are made while it is entered, forward and backward."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, torch.Tensor):
                self.seen.add(tuple(value.shape))
        return result


def talkative(config):
    """A model in plain modules whose adapter says something else to every prompt."""
    torch.manual_seed(0)
    network = model.new_adapter(model.load_base(config), config.lora)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()
