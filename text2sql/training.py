"""Train one phase in one run folder: examples to tokens, QLoRA with TRL's SFTTrainer, adapter, metrics and loss curves."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from text2sql import (
    checkpoints,
    data,
    fitting,
    geometry,
    hub,
    lineage,
    lock,
    machines,
    merging,
    model,
    ranks,
    report,
    resuming,
    runs,
    seeds,
    sharding,
    uploads,
)
from text2sql import config as configuration
from text2sql.callbacks import HistoryCallback, PruningCallback, SQLSampleCallback
from text2sql.config import Config, Device
from text2sql.encoding import Tokens
from text2sql.machines import GIB
from text2sql.memory import Memory
from text2sql.passes import Row
from text2sql.preemption import TIME_IS_UP, Interrupted, Stop
from text2sql.pushing import Pusher
from text2sql.studies import pruning
from text2sql.tracking import ANSWER_S, Tracker
from text2sql.trainer import TokenBudgetTrainer, check_names, sft_config

log = logging.getLogger(__name__)


def train(config: Config, folder: str) -> float:
    """Train the phase that `config` describes and write everything about it to `folder`; returns the validation loss.

    As one rank of several (text2sql.launch starts them) it trains on its share of the examples, and only rank 0 writes.
    ValueError for anything a user can mend, before weights are loaded wherever that is possible.
    """
    run = Path(folder)
    model.check_device(replace(config.hardware, devices=ranks.local_world_size()))
    check_names(config.trainer)
    model.be_deterministic(config.hardware.deterministic)
    if config.hardware.fsdp and ranks.world_size() == 1:
        raise ValueError(
            f"hardware.fsdp=true shards a model over several processes and this run has one (hardware.devices="
            f"{config.hardware.devices}); raise hardware.devices, or set hardware.fsdp=false (hardware=gpu)"
        )
    stop = Stop(config.trainer.max_hours)
    if not ranks.is_main():
        return _train(config, run, stop)[0]["validation/loss"]
    if (loss := resuming.finished_loss(run, config)) is not None:
        return loss
    try:
        return _train_and_stamp(config, run, stop)
    finally:
        lock.release(run)


def _train_and_stamp(config: Config, run: Path, stop: Stop) -> float:
    resumed = resuming.claim(
        run,
        config,
        kind="train",
        phase=config.phase.number,
        seed=config.seed,
        fingerprint=lineage.fingerprint(config),
        processes=ranks.world_size(),
        gpu=torch.cuda.get_device_name() if config.hardware.device is Device.cuda else None,
    )
    pusher = Pusher(run, config)
    try:
        with stop.listening():
            metrics, about = _train(config, run, stop, resumed, pusher)
    except BaseException as error:
        runs.finish(run, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed", error=repr(error))
        pusher.end(wait=isinstance(error, Interrupted) and error.exit_code == TIME_IS_UP)
        raise
    runs.write_json(run / "metrics.json", metrics)
    status = "pruned" if about["reason"] else "finished"
    runs.finish(run, status, **about, adapter_sha256=runs.adapter_sha256(run / "adapter"))
    report.plot_losses(run)
    page, seconds = report.write_page(run), metrics["train/seconds"]
    pusher.end()
    ended, made = ("pruned", "no adapter") if about["reason"] else ("done", f"adapter {run / 'adapter'}")
    log.info("phase %d %s in %.0f s: %s; %s", config.phase.number, ended, seconds, page, made)
    return metrics["validation/loss"]


def _train(
    config: Config, run: Path, stop: Stop, resumed: bool = False, pusher: Pusher | None = None
) -> tuple[dict[str, float], dict[str, Any]]:
    started = time.monotonic()
    checkpoint = resuming.prepare(run) if resumed else None
    if config.resume == "true":
        checkpoint = ranks.agreed(checkpoint)
    parent, merged = _parent(config, run), lineage.to_merge(config, run)
    loaded = data.load(config.data, "train", seed=config.seed)
    held_out = data.load(config.data, "validation", seed=config.seed)
    tokenizer = model.load_tokenizer(config.model)
    facts = _facts(loaded.report.sha256, tokenizer, parent, merged)
    if checkpoint:
        resuming.check_facts(checkpoint, facts)
    train_set = Tokens.of(loaded.examples, tokenizer, config)
    validation_set = Tokens.of(held_out.examples, tokenizer, config)
    remembered = _of_parent(parent or merged, config, tokenizer)
    config, needed = _before_weights(config, [len(row) for row in train_set.rows], run)
    base = model.load_base(config)
    base, rounded_away = lineage.merge(base, merged)
    torch.manual_seed(seeds.derive(config.seed, seeds.ADAPTER))
    adapted = model.load_adapter(base, parent, trainable=True) if parent else model.new_adapter(base, config.lora)
    tracker = _tracker(config, run)
    try:
        timed = fitting.with_max_steps(config, [len(row) for row in train_set.rows])
        trainer = build_trainer(timed, adapted, tokenizer, train_set, validation_set, run, tracker)
        trainer.facts, trainer.started, trainer.stop, trainer.pusher = facts, started, stop, pusher
        torch.manual_seed(seeds.derive(config.seed, seeds.DROPOUT, ranks.rank()))  # nothing else draws from here on
        b_norm = model.lora_b_norm(adapted)
        _say(timed, train_set, adapted, parent, merged, b_norm)
        before = trainer.step.mean_loss(remembered) if remembered else None
        result = _run_loop(trainer, checkpoint)
        pruned = _pruned(trainer)
        after = trainer.step.mean_loss(remembered) if remembered and not pruned else None
        if not pruned:
            _save(config, run, trainer, adapted, tokenizer, merged or lineage.below(parent))
    except BaseException as error:
        tracker.finish(exit_code=1, max_wait_s=_time_for_wandb(config, error))
        raise
    tracker.finish(max_wait_s=config.hub.max_wait_s)
    if pusher is not None and tracker.id is not None:
        pusher.kinds = (uploads.HUB, uploads.WANDB)  # W&B answers again: what it missed before this start
    about = {
        "reason": pruned,
        "parent": str(parent) if parent else None,
        "parent_lora_b_norm": b_norm,
        "merged_parent": str(merged) if merged else None,
        "merged_rounded_away": rounded_away,
        "data_summary": loaded.report.summary(),
        **_identity(config, facts),
    }
    metrics = {**_metrics(trainer, train_set, validation_set, result), **_peak(config, needed)}
    if before is not None and after is not None:
        metrics |= {"forgetting/loss_before": before, "forgetting/loss_after": after}
    return metrics, about


def _facts(data_sha256: str, tokenizer: Any, parent: Path | None, merged: Path | None) -> dict[str, str | None]:
    """The hashes of what a training is given, which must be the same where it goes on."""
    return {
        "data_sha256": data_sha256,
        "tokenizer_sha256": runs.digest(tokenizer.backend_tokenizer.to_str()),
        "parent_sha256": runs.adapter_sha256(parent) if parent else None,
        "merged_sha256": lineage.merged_sha256(parent, merged),
    }


def _identity(config: Config, facts: dict[str, str | None]) -> dict[str, Any]:
    """What makes a training the one that it is, for its stamp; `facts` are the hashes of what it was given."""
    return {
        "fingerprint": {**lineage.fingerprint(config), "merged": facts["merged_sha256"]},
        "parent_sha256": facts["parent_sha256"],
        "data": {"name": config.data.name, "path": config.data.path, "sha256": facts["data_sha256"]},
        "tokenizer_sha256": facts["tokenizer_sha256"],
        "prompt_sha256": runs.digest(asdict(config.prompt)),
        "precision": model.precision(config.hardware),
        "gradient_checkpointing": config.hardware.gradient_checkpointing,
    }


def _time_for_wandb(config: Config, error: BaseException) -> float:
    """How many seconds W&B has for the last rows of a run that `error` ends: few after a signal, which SIGKILL may follow."""
    is_signal = isinstance(error, KeyboardInterrupt) and getattr(error, "exit_code", None) != TIME_IS_UP
    return min(config.hub.max_wait_s, ANSWER_S) if is_signal else config.hub.max_wait_s


def _pruned(trainer: TokenBudgetTrainer) -> str:
    """Why the study of which this run is a job has ended it; "" where it has not."""
    reasons = [one.reason for one in trainer.callback_handler.callbacks if isinstance(one, PruningCallback)]
    return "".join(reasons)


def _say(
    config: Config, train_set: Tokens, adapted: Any, parent: Path | None, merged: Path | None, b_norm: float
) -> None:
    log.info("phase %d %s: %d examples", config.phase.number, config.phase.name, len(train_set.rows))
    if (num_tokens := config.trainer.num_tokens) is not None:
        steps = config.trainer.max_steps
        epochs = steps * config.trainer.batch_size / len(train_set.rows)
        log.info("%d tokens are %d steps, %.1f epochs", num_tokens, steps, epochs)
    scratch = f"scratch, on weights with {merged} merged into them" if merged else "scratch"
    trainable = model.count_trainable(adapted)
    log.info("%d trainable parameters, adapter from %s (|LoRA-B| = %.4g)", trainable, parent or scratch, b_norm)


def _run_loop(trainer: TokenBudgetTrainer, checkpoint: Path | None) -> Any:
    """Train, from a checkpoint where there is one, and evaluate what came of it if the last step did not; the loop's result."""
    with trainer.stop.finishing_steps():
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.exit_code is not None:
        raise Interrupted(trainer.exit_code)
    step, history = trainer.state.global_step, trainer.state.log_history
    if not any(entry["step"] == step and "eval_loss" in entry for entry in history):
        trainer.evaluate()
    return result


def _save(
    config: Config, run: Path, trainer: TokenBudgetTrainer, adapted: Any, tokenizer: Any, below: Path | None
) -> None:
    """The adapter, with what was merged below it, in the run's folder and on its way to the hub."""
    if not ranks.is_main():
        return
    model.save_adapter(adapted, tokenizer, configuration.to_yaml(config), config.model.hub_id, run / "adapter")
    if below:
        merging.keep(below, run / "adapter")
    if trainer.pusher is not None:
        trainer.pusher.adapter(run / "adapter")


def _metrics(trainer: TokenBudgetTrainer, train_set: Tokens, validation_set: Tokens, result: Any) -> dict[str, float]:
    """What became of a training, as numbers; passes and filling are those of this process."""
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    step = trainer.step
    odd = {"train/skipped_steps": trainer.odd.skipped, "train/fp16_overflows": trainer.odd.overflows}
    return {
        **{name: float(count) for name, count in odd.items() if count},
        "train/loss": result.training_loss * trainer.of_counted_steps(),
        "train/steps": float(trainer.state.global_step),
        "train/passes": float(step.num_passes),
        "train/filling_share": step.num_filling / max(1, step.num_tokens),
        "train/examples": float(len(train_set.rows)),
        "train/tokens": float(sum(map(len, train_set.rows))),
        "train/prompts_shortened": float(train_set.num_shortened),
        "train/too_long": float(train_set.num_too_long),
        "train/examples_per_second": result.metrics["train_samples_per_second"] * trainer.share_made_here(),
        "train/seconds": round(trainer.seconds(), 1),
        "validation/examples": float(len(validation_set.rows)),
        "validation/loss": losses[-1],
    }


def _peak(config: Config, needed: Memory | None) -> dict[str, float]:
    """The memory that training took on this process's GPU, and what was predicted, in GiB."""
    if config.hardware.device is Device.cpu:
        return {}
    predicted = {} if needed is None else {"train/predicted_peak_gib": round(needed.total / GIB, 2)}
    return {"train/peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 2), **predicted}


def _before_weights(config: Config, lengths: list[int], run: Path) -> tuple[Config, Memory | None]:
    """The config with what memory decides, and the memory that training it takes; ValueError if it cannot fit here.

    So it is if the disk has no room for the checkpoints.
    """
    machine = machines.of(replace(config.hardware, gpu=None))  # the device of this process, whatever the preset names
    try:
        shape = geometry.of(config.model)
    except ValueError as error:
        log.warning("memory is not predicted: %s", error)
        checkpointing = config.hardware.gradient_checkpointing is not False
        return replace(config, hardware=replace(config.hardware, gradient_checkpointing=checkpointing)), None
    size, saves = fitting.checkpoint_bytes(config, shape), fitting.num_saves(config, lengths)
    checkpoints.check_space(run, size, config.trainer.save_total_limit, saves)
    config = fitting.settle(config, shape, machine, lengths)
    needed = fitting.check_fits(config, shape, machine, lengths)
    if needed is not None and machine is not None:
        log.info("%s", fitting.verdict(config, needed, machine))
    return config, needed


def _of_parent(parent: Path | None, config: Config, tokenizer: Any) -> list[Row]:
    """The validation examples of the run whose adapter goes on learning, by whose loss forgetting is measured.

    Empty where it learned on the same data, or its data are not here.
    """
    saved = parent / "config.yaml" if parent else None
    if saved is None or not saved.is_file():
        return []
    theirs = configuration.saved_data(str(saved))
    if theirs.name == config.data.name:
        return []
    try:
        examples = data.load(theirs, "validation", seed=config.seed).examples
    except ValueError as error:
        log.warning("what is forgotten of data=%s is not measured: %s", theirs.name, error)
        return []
    return Tokens.of(examples, tokenizer, config).as_rows()


def _tracker(config: Config, run: Path) -> Tracker:
    tracking, known = config.tracking, runs.read(run) or {}
    tracker = Tracker(
        tracking.mode.value if ranks.is_main() else "none",
        run,
        asdict(config),
        id=known.get("wandb_id"),
        project=tracking.project,
        entity=tracking.entity,
        group=tracking.group or run.parent.name,
        name=f"{run.name} phase {config.phase.number}",
    )
    if tracker.id is not None:
        runs.note(run, wandb_id=tracker.id)  # a run that goes on goes on there as well
    return tracker


def _parent(config: Config, run: Path) -> Path | None:
    """The folder of the adapter to continue, checked against the config, or None for a fresh one."""
    if config.adapter is None:
        return None
    if config.resume == "true" and (known := (runs.read(run) or {}).get("parent")):
        folder = Path(known)
    elif config.adapter == "auto":
        folder = lineage.newest(config, run)
        log.info("adapter=auto continues %s", folder)
    else:
        folder = hub.fetch_adapter(config.adapter)
    model.check_adapter(folder, config)
    if ranks.is_main():
        runs.note(run, parent=str(folder))  # a run that is broken off goes on with this one, whatever is newer by then
    return folder


def build_trainer(
    config: Config, adapted: Any, tokenizer: Any, train_set: Tokens, validation_set: Tokens, run: Path, tracker: Tracker
) -> TokenBudgetTrainer:
    """The trainer with its adapter in float32, writing checkpoints, history and live samples into `run`."""
    live = [example for example in validation_set.examples if example.executable][: config.eval.num_live_samples]
    precision, shards = model.precision(config.hardware), None
    if model.is_sharded(config.hardware):  # before upstream moves a whole model to the GPU and the optimizer is made
        on_gpu = config.hardware.device is Device.cuda
        shards = sharding.shard(adapted, model.torch_dtype(config.hardware), on_gpu)
        if live:
            log.info("no live samples: one process alone cannot generate with a sharded model")
        live = []
    samples = SQLSampleCallback(config, tokenizer, live, run / "samples.jsonl", tracker, precision)
    values = model.adapter_in_float32(adapted)
    trainer = TokenBudgetTrainer(
        config,
        train_set.as_rows(),
        validation_set.as_rows(),
        shards,
        model=adapted,
        args=sft_config(config, run),
        files=[run / name for name in resuming.GROWING],
        names=[example.id for example in train_set.examples],
        bad_steps=run / resuming.BAD_STEPS,
        processing_class=tokenizer,
        callbacks=[
            HistoryCallback(run / "history.jsonl", tracker),
            samples,
            PruningCallback(pruning.of_this_job() if ranks.is_main() else None, samples),
        ],
    )
    model.restore_adapter(trainer.model, values)
    assert model.count_trainable(trainer.model) > 0, "nothing is trainable"
    return trainer
