"""The two trainings that faults.py disturbs, ours and transformers' own, and the places at which it does: see there."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import hydra
import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, Trainer, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from text2sql import checkpointing, checkpoints, commandline, config, data, model, runs, snapshot, tiny, training
from text2sql.encoding import Tokens
from text2sql.trainer import TokenBudgetTrainer

TINY = (
    "phase=1 model=tiny hardware=cpu hardware.bf16=false data.path=mini tracking=none prompt.max_sql_tokens=64 "
    "data.max_samples=24 data.max_validation_samples=4 trainer.logging_steps=1 eval.num_live_samples=1"
).split()
TEN_STEPS = "trainer.batch_size=5 trainer.num_train_epochs=2 trainer.save_steps=2 trainer.eval_steps=5".split()
INTERVAL = 2
TIMES = ("runtime", "per_second")


def composed(*overrides: str) -> config.Config:
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(commandline.CONF)):
        return config.load(hydra.compose("train", overrides=commandline.quote_phase([*TINY, *overrides])))


class Ours:
    name = "text2sql, resume=true"

    def train(self, folder: Path, resume: bool) -> None:
        training.train(composed(*TEN_STEPS, *(["resume=true"] if resume else [])), str(folder))

    def result(self, folder: Path) -> Any:
        history = [
            {key: value for key, value in row.items() if not key.endswith(TIMES)}
            for row in runs.read_jsonl(folder / "history.jsonl")
        ]
        return runs.adapter_sha256(folder / "adapter"), history, runs.read_jsonl(folder / "samples.jsonl")

    def places(self, point: Callable[..., None]) -> list[Any]:
        """Patches that call `point` where a kill is to be tried, with the file that it may tear."""
        return [
            before(TokenBudgetTrainer, "training_step", point, in_step=True),
            before(torch.optim.AdamW, "step", point, in_step=True),
            before(checkpointing.CheckpointingTrainer, "_save", point),
            torn(snapshot, "save_file", point, 1),
            torn(snapshot, "write_json", point, 0),
            torn(peft.peft_model, "safe_save_file", point, 1),
            torn(TrainerState, "save_to_json", point, 1),
            before(checkpoints, "sync", point),
            before(Path, "rename", point),
            before(shutil, "rmtree", point),
            before(runs, "append_jsonl", point),
            before(runs, "_replace", point),  # of stamps and of other JSON
        ]


class Plain:
    name = f"transformers {transformers.__version__} Trainer, get_last_checkpoint"

    def __init__(self) -> None:
        settings = composed()
        self.tokenizer = model.load_tokenizer(settings.model)
        examples = data.load(settings.data, "train", seed=settings.seed).examples
        self.rows = [
            {"input_ids": row.ids, "labels": [-100] * row.prompt_length + row.ids[row.prompt_length :]}
            for row in Tokens.of(examples, self.tokenizer, settings).as_rows()
        ]

    def train(self, folder: Path, resume: bool) -> None:
        transformers.set_seed(42)
        lora = LoraConfig(
            r=16, lora_alpha=32, lora_dropout=0.05, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
        )
        network = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny.fetch()), lora)
        settings = TrainingArguments(
            str(folder / "checkpoints"),
            per_device_train_batch_size=5,
            num_train_epochs=2,
            learning_rate=1e-4,
            save_steps=INTERVAL,
            save_total_limit=2,
            logging_steps=1,
            use_cpu=True,
            report_to="none",
            seed=42,
        )
        collator = DataCollatorForSeq2Seq(self.tokenizer)
        trainer = Trainer(network, settings, collator, self.rows)
        last = get_last_checkpoint(settings.output_dir) if resume and Path(settings.output_dir).exists() else None
        trainer.train(resume_from_checkpoint=last)
        network.save_pretrained(folder / "adapter")
        logged = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        (folder / "losses.json").write_text(json.dumps(logged))

    def result(self, folder: Path) -> Any:
        return runs.adapter_sha256(folder / "adapter"), json.loads((folder / "losses.json").read_text())

    def places(self, point: Callable[..., None]) -> list[Any]:
        return [
            before(Trainer, "training_step", point, in_step=True),
            before(torch.optim.AdamW, "step", point, in_step=True),
            before(PeftModel, "save_pretrained", point),
            torn(torch, "save", point, 1),
            torn(peft.peft_model, "safe_save_file", point, 1),
            torn(TrainerState, "save_to_json", point, 1),
            before(shutil, "rmtree", point),
        ]


def before(owner: Any, name: str, point: Callable[..., None], in_step: bool = False) -> Any:
    does = getattr(owner, name)

    @functools.wraps(does)
    def instead(*some: Any, **more: Any) -> Any:
        point(in_step=in_step)
        return does(*some, **more)

    return mock.patch.object(owner, name, instead)


def torn(owner: Any, name: str, point: Callable[..., None], path_at: int) -> Any:
    """As `before`, and once more with the file half written."""
    does = getattr(owner, name)

    def instead(*some: Any, **more: Any) -> Any:
        point()
        result = does(*some, **more)
        point(Path(some[path_at] if len(some) > path_at else more["filename"]))
        return result

    return mock.patch.object(owner, name, instead)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)
