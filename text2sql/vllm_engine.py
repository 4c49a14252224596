"""Greedy answers by vLLM, for those who have it: the interface of `generation.generate`, from a config instead of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from text2sql import model
from text2sql.config import Config, Device

ADAPTER_ID = 1
DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


def check(config: Config) -> None:
    """ValueError unless vLLM is installed and can run what `config` asks for."""
    if config.hardware.device is Device.cpu:
        raise ValueError("eval.engine=vllm needs a GPU and hardware=cpu has none; set eval.engine=native")
    if config.quant.load_in_8bit:
        raise ValueError(
            "eval.engine=vllm does not quantise to 8 bits; choose quant=nf4 or none, or eval.engine=native"
        )
    try:
        import vllm  # noqa: F401
    except ImportError as error:
        raise ValueError(f"eval.engine=vllm: {error}; pip install -e '.[vllm]', or set eval.engine=native") from error


def generate(
    config: Config, tokenizer: Any, rows: Sequence[list[int]], *, adapter: Path | None
) -> Iterator[tuple[int, str]]:
    """Yield (index into `rows`, answer) for prompts as token ids, by config's model with the `adapter` in this folder, if any.

    The 4-bit weights are vLLM's own rounding (NF4 without double quantisation), so answers may differ from the native ones.
    """
    import vllm
    from vllm.lora.request import LoRARequest

    engine = vllm.LLM(
        model=model.resolve(config.model),
        revision=config.model.revision,
        dtype=DTYPES[model.precision(config.hardware)],
        quantization="bitsandbytes" if config.quant.load_in_4bit else None,
        max_model_len=config.trainer.max_length,
        enable_lora=adapter is not None,
        max_lora_rank=config.lora.r,
        seed=config.seed,
    )
    wanted = vllm.SamplingParams(
        temperature=0.0, max_tokens=config.prompt.max_sql_tokens, stop_token_ids=[tokenizer.eos_token_id]
    )
    outputs = engine.generate(
        [{"prompt_token_ids": row} for row in rows],
        wanted,
        lora_request=None if adapter is None else LoRARequest("adapter", ADAPTER_ID, str(adapter)),
    )
    for i, output in enumerate(outputs):
        yield i, tokenizer.decode(output.outputs[0].token_ids, skip_special_tokens=True).strip()
