"""Train one phase in one run folder: examples to tokens, QLoRA with TRL's SFTTrainer, adapter, metrics and loss curves."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from huggingface_hub import upload_folder
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from text2sql import config as configuration
from text2sql import data, hub, model, prompts, report, runs
from text2sql.callbacks import HistoryCallback, SQLSampleCallback
from text2sql.config import BadRow, Config, Device
from text2sql.example import Example
from text2sql.tracking import Tracker

log = logging.getLogger(__name__)


def train(config: Config, folder: str) -> float:
    """Train the phase that `config` describes and write everything about it to `folder`; returns the validation loss.

    ValueError for anything a user can mend, before weights are loaded wherever that is possible.
    """
    run = Path(folder)
    model.check_device(config.hardware)
    runs.start(
        run,
        kind="train",
        phase=config.phase.number,
        seed=config.seed,
        fingerprint=fingerprint(config),
        gpu=torch.cuda.get_device_name() if config.hardware.device is Device.cuda else None,
    )
    started = time.monotonic()
    try:
        metrics, about = _train(config, run)
    except BaseException as error:
        runs.finish(run, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed", error=repr(error))
        raise
    metrics["train/seconds"] = round(time.monotonic() - started, 1)
    runs.write_json(run / "metrics.json", metrics)
    runs.finish(run, "finished", **about)
    report.plot_losses(run)
    page, seconds = report.write_page(run), metrics["train/seconds"]
    log.info("phase %d done in %.0f s: %s; adapter %s", config.phase.number, seconds, page, run / "adapter")
    return metrics["validation/loss"]


def fingerprint(config: Config) -> dict[str, Any]:
    """What two runs must share for the second to continue the first one's adapter."""
    groups = {"quant": asdict(config.quant), "lora": asdict(config.lora), "prompt": asdict(config.prompt)}
    flat = {f"{group}.{key}": value for group, settings in groups.items() for key, value in settings.items()}
    return {"model": config.model.hub_id, "model.system_role": config.model.system_role, **flat}


def _train(config: Config, run: Path) -> tuple[dict[str, float], dict[str, Any]]:
    parent = _parent(config, run)
    loaded = data.load(config.data, "train", seed=config.seed)
    held_out = data.load(config.data, "validation", seed=config.seed)
    tokenizer = model.load_tokenizer(config.model)
    train_set = Tokens.of(loaded.examples, tokenizer, config)
    validation_set = Tokens.of(held_out.examples, tokenizer, config)
    set_seed(config.seed)  # the adapter's initial weights follow from it
    base = model.load_base(config)
    adapted = model.load_adapter(base, parent, trainable=True) if parent else model.new_adapter(base, config.lora)
    tracker = _tracker(config, run)
    try:
        trainer = build_trainer(config, adapted, tokenizer, train_set, validation_set, run, tracker)
        b_norm = model.lora_b_norm(adapted)
        log.info("phase %d %s: %d examples", config.phase.number, config.phase.name, len(train_set.rows))
        log.info(
            "%d trainable parameters, adapter from %s (|LoRA-B| = %.4g)",
            model.count_trainable(adapted),
            parent or "scratch",
            b_norm,
        )
        result = trainer.train()
        if not any(
            entry["step"] == trainer.state.global_step and "eval_loss" in entry for entry in trainer.state.log_history
        ):
            trainer.evaluate()
        model.save_adapter(adapted, tokenizer, configuration.to_yaml(config), config.model.hub_id, run / "adapter")
        if config.hub.push_to_hub and trainer.is_world_process_zero():
            upload_folder(
                repo_id=str(trainer.hub_model_id), folder_path=run / "adapter", commit_message="End of training"
            )
    except BaseException:
        tracker.finish(exit_code=1)
        raise
    tracker.finish()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    metrics = {
        "train/loss": result.training_loss,
        "train/steps": float(trainer.state.global_step),
        "train/examples": float(len(train_set.rows)),
        "train/tokens": float(sum(map(len, train_set.rows))),
        "train/prompts_shortened": float(train_set.num_shortened),
        "train/too_long": float(train_set.num_too_long),
        "train/examples_per_second": result.metrics["train_samples_per_second"],
        "validation/examples": float(len(validation_set.rows)),
        "validation/loss": losses[-1],
    }
    about = {
        "parent": str(parent) if parent else None,
        "parent_lora_b_norm": b_norm,
        "data": {"name": config.data.name, "path": config.data.path, "sha256": loaded.report.sha256},
        "data_summary": loaded.report.summary(),
        "tokenizer_sha256": runs.digest(tokenizer.backend_tokenizer.to_str()),
        "prompt_sha256": runs.digest(asdict(config.prompt)),
        "precision": model.precision(config.hardware),
    }
    return metrics, about


def _tracker(config: Config, run: Path) -> Tracker:
    tracking = config.tracking
    return Tracker(
        tracking.mode.value,
        run,
        asdict(config),
        project=tracking.project,
        entity=tracking.entity,
        group=tracking.group or run.parent.name,
        name=f"{run.name} phase {config.phase.number}",
    )


def _parent(config: Config, run: Path) -> Path | None:
    """The folder of the adapter to continue, checked against the config, or None for a fresh one."""
    if config.adapter is None:
        return None
    if config.adapter == "auto":
        folder = runs.find_parent(run, fingerprint(config), config.phase.number - 1, config.seed, Path.cwd())
        log.info("adapter=auto continues %s", folder)
    else:
        folder = hub.fetch_adapter(config.adapter)
    model.check_adapter(folder, config)
    return folder


@dataclass(frozen=True)
class Tokens:
    """Encoded examples for training: token ids with, for each, where its SQL begins."""

    examples: list[Example]
    rows: list[list[int]]
    prompt_lengths: list[int]
    num_shortened: int
    num_too_long: int

    @classmethod
    def of(cls, examples: Sequence[Example], tokenizer: Any, config: Config) -> Tokens:
        """Encode `examples`; those that cannot fit are dropped and counted, or refused, as data.on_bad_row says."""
        kept, encoded, too_long = [], [], []
        for example in examples:
            try:
                encoded.append(prompts.encode(tokenizer, example, config))
                kept.append(example)
            except prompts.TooLong as error:
                if config.data.on_bad_row is BadRow.refuse:
                    raise
                too_long.append(str(error))
        if too_long:
            log.warning("%d examples do not fit and were dropped, the first: %s", len(too_long), too_long[0])
        if not kept:
            raise ValueError(f"no example fits: {too_long[0]}")
        num_shortened = sum(one.shortened > 0 for one in encoded)
        if num_shortened:
            log.info("%d of %d prompts were shortened in their schema to fit", num_shortened, len(kept))
        return cls(
            kept, [one.ids for one in encoded], [one.prompt_length for one in encoded], num_shortened, len(too_long)
        )

    def dataset(self) -> Dataset:
        return Dataset.from_dict({"input_ids": self.rows, "prompt_length": self.prompt_lengths})


@dataclass(frozen=True)
class CompletionCollator:
    """Pads rows on the right and labels their SQL and EOS only.

    Returns input_ids, attention_mask and labels, each (rows, tokens) of int64; labels are -100 where nothing is learned.
    """

    pad_token_id: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        shape = (len(rows), max(len(row["input_ids"]) for row in rows))
        ids, labels, mask = torch.full(shape, self.pad_token_id), torch.full(shape, -100), torch.zeros(shape).long()
        for i, row in enumerate(rows):
            tokens, start = torch.tensor(row["input_ids"]), row["prompt_length"]
            ids[i, : len(tokens)] = tokens
            mask[i, : len(tokens)] = 1
            labels[i, start : len(tokens)] = tokens[start:]
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class StepSampler(torch.utils.data.Sampler[int]):
    """A seeded shuffle for each epoch, in which the examples of one optimizer step stand sorted by length.

    The step's examples are the same as without sorting; its passes have less padding.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = list(lengths), batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        for start in range(0, len(order), self.batch_size):
            yield from sorted(order[start : start + self.batch_size], key=lambda i: self.lengths[i])


class CompletionTrainer(SFTTrainer):
    """TRL's SFTTrainer on rows that are already tokens; only the positions that predict SQL reach the LM head.

    TRL 0.27 computes logits for every prompt token and then entropy and accuracy over all of them; the loss here is the same
    sum of cross-entropies over the SQL tokens of a whole optimizer step, divided by their number.
    """

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The summed cross-entropy of the SQL tokens over num_items_in_batch, the number of them in the whole step."""
        targets = inputs["labels"][:, 1:]
        learned = targets != -100
        network = self.accelerator.unwrap_model(model)
        with only_positions(network.get_output_embeddings(), torch.nn.functional.pad(learned, (0, 1))):
            outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        logits = outputs.logits[0].float()
        loss = torch.nn.functional.cross_entropy(logits, targets[learned].to(logits.device), reduction="sum")
        count = learned.sum() if num_items_in_batch is None else num_items_in_batch
        loss = loss / torch.as_tensor(count, device=loss.device)  # a model over two GPUs ends on the second
        return (loss, outputs) if return_outputs else loss

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns: Any = ["input_ids", "prompt_length"]

    def _get_train_sampler(self, train_dataset: Any = None) -> StepSampler:
        rows: Any = self.train_dataset
        batch_size = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return StepSampler([len(ids) for ids in rows["input_ids"]], batch_size, self.args.seed)


@contextmanager
def only_positions(lm_head: torch.nn.Module, keep: torch.Tensor) -> Iterator[None]:
    """Have `lm_head` see only the hidden states at `keep` (rows, tokens; bool); it then returns (1, kept, vocabulary)."""
    handle = lm_head.register_forward_pre_hook(lambda _, hidden: (hidden[0][keep.to(hidden[0].device)].unsqueeze(0),))
    try:
        yield
    finally:
        handle.remove()


def build_trainer(
    config: Config, adapted: Any, tokenizer: Any, train_set: Tokens, validation_set: Tokens, run: Path, tracker: Tracker
) -> CompletionTrainer:
    """The trainer with its adapter in float32, writing checkpoints, history and live samples into `run`."""
    live = [example for example in validation_set.examples if example.executable][: config.eval.num_live_samples]
    precision = model.precision(config.hardware)
    values = model.adapter_in_float32(adapted)
    trainer = CompletionTrainer(
        model=adapted,
        args=sft_config(config, run),
        train_dataset=train_set.dataset(),
        eval_dataset=validation_set.dataset(),
        processing_class=tokenizer,
        data_collator=CompletionCollator(tokenizer.pad_token_id),
        callbacks=[
            HistoryCallback(run / "history.jsonl", tracker),
            SQLSampleCallback(config, tokenizer, live, run / "samples.jsonl", tracker, precision),
        ],
    )
    model.restore_adapter(trainer.model, values)
    assert model.count_trainable(trainer.model) > 0, "nothing is trainable"
    return trainer


def sft_config(config: Config, run: Path) -> SFTConfig:
    """TRL's settings for this config: upstream's names passed on unchanged, accumulation derived from batch_size."""
    hardware, trainer, hub_settings = config.hardware, asdict(config.trainer), asdict(config.hub)
    accumulation = trainer.pop("batch_size") // hardware.per_device_train_batch_size
    precision = model.precision(hardware)
    on_cpu = hardware.device is Device.cpu
    if on_cpu:
        trainer["optim"] = cpu_optimizer(trainer["optim"])
        log.info("hardware=cpu trains in %s", precision)
    if not config.hub.push_to_hub:
        hub_settings = {}
    if trainer["logging_steps"] >= 1:
        trainer["logging_steps"] = int(trainer["logging_steps"])
    return SFTConfig(
        **trainer,
        **hub_settings,
        output_dir=str(run / "checkpoints"),
        seed=config.seed,
        data_seed=config.seed,
        fp16=precision == "fp16",
        bf16=precision == "bf16",
        use_cpu=on_cpu,
        per_device_train_batch_size=hardware.per_device_train_batch_size,
        per_device_eval_batch_size=hardware.per_device_eval_batch_size,
        gradient_accumulation_steps=accumulation,
        gradient_checkpointing=hardware.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        dataloader_num_workers=hardware.dataloader_num_workers,
        dataloader_pin_memory=not on_cpu,
        eval_strategy="steps",
        save_strategy="steps",
        logging_nan_inf_filter=False,  # a NaN is to be seen in its own step, not behind an average
        report_to="none",  # our own callback logs to the tracker and to history.jsonl alike
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def cpu_optimizer(optim: str) -> str:
    """The optimizer in place of one that needs a GPU's paged or 8-bit memory; says so once."""
    if "8bit" in optim or "paged" in optim:
        log.warning("trainer.optim=%s needs a GPU; on the CPU adamw_torch takes its place", optim)
        return "adamw_torch"
    return optim
