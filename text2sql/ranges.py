"""What a single number or name in a config may be; what goes together is the business of `config`."""

from __future__ import annotations

import math
import re

from text2sql.groups import Config

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
LAST_SEED = 2**32 - 1
DTYPES = ("float32", "bfloat16", "float16")
ATTENTION = ("sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention")


def problems(config: Config) -> list[str]:
    """What is out of range, with its value and what it may be."""
    return [*_not_positive(config), *_negative(config), *_outside(config), *_unknown(config)]


def _not_positive(config: Config) -> list[str]:
    trainer, hardware, scoring, prompt = config.trainer, config.hardware, config.eval, config.prompt
    values = {
        "trainer.batch_size": trainer.batch_size,
        "trainer.learning_rate": trainer.learning_rate,
        "trainer.num_train_epochs": trainer.num_train_epochs,
        "trainer.max_length": trainer.max_length,
        "trainer.max_hours": trainer.max_hours,
        "trainer.logging_steps": trainer.logging_steps,
        "trainer.eval_steps": trainer.eval_steps,
        "trainer.save_steps": trainer.save_steps,
        "hardware.max_tokens": hardware.max_tokens,
        "hardware.max_cache_tokens": hardware.max_cache_tokens,
        "hardware.devices": hardware.devices,
        "lora.r": config.lora.r,
        "lora.lora_alpha": config.lora.lora_alpha,
        "eval.timeout_s": scoring.timeout_s,
        "eval.max_rows": scoring.max_rows,
        "eval.max_steps": scoring.max_steps,
        "eval.workers": scoring.workers,
        "prompt.max_sql_tokens": prompt.max_sql_tokens,
        "prompt.max_schema_tokens": prompt.max_schema_tokens,
    }
    return [
        f"{key}={value} must be positive"
        for key, value in values.items()
        if value is not None and not (value > 0 and math.isfinite(value))
    ]


def _negative(config: Config) -> list[str]:
    values = {
        "trainer.weight_decay": config.trainer.weight_decay,
        "trainer.max_grad_norm": config.trainer.max_grad_norm,
        "trainer.save_total_limit": config.trainer.save_total_limit,
        "eval.num_live_samples": config.eval.num_live_samples,
        "hub.max_wait_s": config.hub.max_wait_s,
    }
    return [
        f"{key}={value} must not be negative"
        for key, value in values.items()
        if not (value >= 0 and math.isfinite(value))
    ]


def _outside(config: Config) -> list[str]:
    trainer = config.trainer
    steps = {f"trainer.{name}": getattr(trainer, name) for name in ("logging_steps", "eval_steps", "save_steps")}
    found = [
        f"{key}={value} must be a whole number of steps, or below 1 as a share of all"
        for key, value in steps.items()
        if value > 1 and value != int(value)
    ]
    if not 0 <= trainer.warmup_ratio <= 1:
        found.append(
            f"trainer.warmup_ratio={trainer.warmup_ratio} must lie between 0 and 1: it is a share of the steps"
        )
    if not 0 <= config.lora.lora_dropout < 1:
        found.append(f"lora.lora_dropout={config.lora.lora_dropout} must lie between 0 and 1: it is a probability")
    if trainer.max_steps < 1 and trainer.max_steps != -1:
        found.append(f"trainer.max_steps={trainer.max_steps} must be positive, or -1 to count epochs")
    if not 0 <= config.seed <= LAST_SEED:
        found.append(f"seed={config.seed} must lie between 0 and {LAST_SEED}")
    return found


def _unknown(config: Config) -> list[str]:
    lora, hub = config.lora, config.hub
    names = {
        "hardware.dtype": (config.hardware.dtype, ("auto", *DTYPES)),
        "quant.bnb_4bit_compute_dtype": (config.quant.bnb_4bit_compute_dtype, DTYPES),
        "quant.bnb_4bit_quant_type": (config.quant.bnb_4bit_quant_type, ("nf4", "fp4")),
        "model.attn_implementation": (config.model.attn_implementation, ATTENTION),
        "lora.bias": (lora.bias, ("none", "all", "lora_only")),
    }
    found = [
        f"{key}={name} must be one of {', '.join(known)}" for key, (name, known) in names.items() if name not in known
    ]
    if hub.push_to_hub and not REPOSITORY.fullmatch(hub.hub_model_id or ""):
        found.append(
            f"hub=push needs hub.hub_model_id=USER/NAME to push checkpoints to, and it is {hub.hub_model_id or 'null'}"
        )
    if not lora.target_modules:
        found.append("lora.target_modules=[] leaves nothing to learn; name modules, such as [q_proj,v_proj]")
    if lora.task_type != "CAUSAL_LM":
        found.append(f"lora.task_type={lora.task_type} must be CAUSAL_LM: SQL is written by a causal language model")
    return found
