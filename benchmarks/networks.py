"""Networks for benchmarks: Mistral NeMo 12B's geometry with random NF4 weights made on the device, and SmolLM2."""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, MistralConfig
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

NEMO = {
    "vocab_size": 131_072,
    "hidden_size": 5120,
    "intermediate_size": 14_336,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rope_theta": 1e6,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "max_position_embeddings": 131_072,
}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def nemo(device: str, compute: torch.dtype, others: torch.dtype, layers: int = 40, **geometry: Any) -> Any:
    """A base model of NeMo's shape: NF4 with double quantisation for the linears, `others` for embeddings and head."""
    config = MistralConfig(**{**NEMO, **geometry, "num_hidden_layers": layers}, pad_token_id=0)
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
        network = replace_with_bnb_linear(network, ["lm_head"], quantization_config=quantisation)
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, Linear4bit):
            shape, factor = (module.out_features, module.in_features), module.in_features**-0.5
            values = torch.randn(shape, device=device, dtype=torch.float16) * factor
            module.weight = Params4bit(values, requires_grad=False, quant_type="nf4", compress_statistics=True)
            module.weight._quantize(torch.device(device))
            module.compute_dtype = compute
        elif isinstance(module, (torch.nn.Embedding, torch.nn.Linear)):
            drawn = torch.randn(module.weight.shape, device=device, dtype=others) * 0.02
            module.weight = torch.nn.Parameter(drawn, requires_grad=False)
        elif type(module).__name__.endswith("RMSNorm"):
            module.weight = torch.nn.Parameter(torch.ones(module.weight.shape, device=device), requires_grad=False)
    rotary = network.model.rotary_emb
    network.model.rotary_emb = type(rotary)(config=config, device=torch.device(device))
    network.is_loaded_in_4bit = True
    network.config.use_cache = False
    network.config.quantization_config = quantisation
    return network


def convert_others(network: Any, dtype: torch.dtype) -> None:
    """Hold embeddings and head, which are not quantised, in `dtype`."""
    base = network.get_base_model() if hasattr(network, "get_base_model") else network
    for module in (base.get_input_embeddings(), base.get_output_embeddings()):
        module.weight = torch.nn.Parameter(module.weight.data.to(dtype), requires_grad=False)


def set_compute(network: Any, dtype: torch.dtype) -> None:
    """Have bitsandbytes' own layers compute in `dtype`."""
    for module in network.modules():
        if isinstance(module, Linear4bit):
            module.compute_dtype, module.compute_type_is_set = dtype, True


def adapted(base: Any, dropout: float, rank: int = 16) -> Any:
    """A LoRA adapter of the original's shape whose B is not zero, so that every gradient has work to do."""
    network = get_peft_model(
        base,
        LoraConfig(
            r=rank, lora_alpha=32, lora_dropout=dropout, target_modules=PROJECTIONS, bias="none", task_type="CAUSAL_LM"
        ),
    )
    torch.manual_seed(1)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.01)
    return network


def set_dropout(network: Any, rate: float) -> None:
    """Set the dropout of every LoRA layer."""
    for module in network.modules():
        if hasattr(module, "lora_dropout"):
            for name in list(module.lora_dropout):
                module.lora_dropout[name] = torch.nn.Dropout(rate) if rate else torch.nn.Identity()


def smollm2(folder: str, device: str, quantised: bool, dtype: torch.dtype) -> Any:
    """SmolLM2-135M from a converted folder, with NF4 linears or as it is."""
    quantisation = (
        BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
        if quantised
        else None
    )
    network = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, quantization_config=quantisation, device_map={"": device}, attn_implementation="sdpa"
    )
    network.config.use_cache = False
    return network
