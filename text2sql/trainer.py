"""TRL's SFTTrainer with steps of our own: token-budget passes in place of padded batches, on one GPU or several."""

from __future__ import annotations

import difflib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames
from trl import SFTConfig

from text2sql import fast_path, model, ranks, runs, seeds, sharding, speed, upstream
from text2sql.anomalies import MAX_IN_A_ROW, Seen, Spikes, Watch
from text2sql.checkpointing import CheckpointingTrainer
from text2sql.config import Config, Device, OnNan, Trainer
from text2sql.graphs import GraphedPasses
from text2sql.passes import Row
from text2sql.step import StepGradient

log = logging.getLogger(__name__)


ELEMENTWISE = ("adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "sgd")
"""Optimizers that treat every element of a parameter alike, or every block of 256."""

CURE = "lower trainer.learning_rate, or use hardware.bf16=true in place of fp16 where the GPU has it"
OF_PASSES = ("num_tokens", "num_filling", "num_passes")


@dataclass
class OddSteps:
    """Counts of steps that were left out: `skipped` are those that no number came of, `overflows` the gradient scaler's.

    `unlogged` are the skipped ones since the last log, `in_a_row` those since the last good step.
    """

    skipped: int = 0
    unlogged: int = 0
    in_a_row: int = 0
    overflows: int = 0


class StepSampler(torch.utils.data.Sampler[list[int]]):
    """The examples of each optimizer step: a seeded shuffle for each epoch, cut into steps of batch_size.

    The order follows from seed and epoch alone, so every rank and every machine has the same steps.
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int) -> None:
        self.num_examples, self.batch_size, self.seed, self.epoch = num_examples, batch_size, seed, 0
        self.is_over = False

    def __len__(self) -> int:
        return -(-self.num_examples // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        if self.is_over:
            return
        generator = torch.Generator().manual_seed(seeds.derive(self.seed, seeds.DATA_ORDER, self.epoch))
        order = torch.randperm(self.num_examples, generator=generator).tolist()
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class StepLoader(torch.utils.data.DataLoader[Any]):
    """Yields {"rows": the Rows of one optimizer step}, whole on every rank."""

    def __init__(self, rows: Sequence[Row], batch_size: int, seed: int) -> None:
        self.steps = StepSampler(len(rows), batch_size, seed)
        own = torch.Generator()  # torch draws a number from it in each epoch, and would from dropout's
        super().__init__(rows, batch_sampler=self.steps, collate_fn=collate, generator=own)  # type: ignore[arg-type]

    def set_epoch(self, epoch: int) -> None:
        self.steps.set_epoch(epoch)


def collate(rows: list[Row]) -> dict[str, list[Row]]:
    return {"rows": rows}


class TokenBudgetTrainer(CheckpointingTrainer):
    """A trainer whose optimizer steps are those of `StepGradient`; its schedule and callbacks are upstream's."""

    def __init__(
        self,
        config: Config,
        train_rows: list[Row],
        validation_rows: list[Row],
        shards: torch.nn.Module | None = None,
        *,
        names: Sequence[str],
        bad_steps: Path,
        **settings: Any,
    ) -> None:
        # upstream counts its rows and reads nothing else of it
        placeholder = Dataset.from_dict({"input_ids": [[0]] * len(train_rows)})
        super().__init__(config, train_dataset=placeholder, eval_dataset=placeholder, data_collator=collate, **settings)
        self.train_rows, self.validation_rows, self.shards = train_rows, validation_rows, shards
        # Gradients of the adapter are summed by the step itself, and it computes in its own types: no shell is wanted.
        self.accelerator.prepare_model = lambda network, **_: network
        self._step: StepGradient | None = None
        self.names = {id(row): name for row, name in zip(train_rows, names)}
        self.bad_steps, self.odd, self.spikes = bad_steps, OddSteps(), Spikes()
        self.watch = Watch(waits=self.accelerator.scaler is not None)  # which waits for the GPU in each step

    def get_train_dataloader(self) -> StepLoader:
        self.loader = StepLoader(self.train_rows, self.config.trainer.batch_size, self.args.seed)
        return self.loader

    def begin(self) -> None:
        """As in any run that goes on; one whose last step was made has no more examples, which upstream does not see."""
        super().begin()
        self.loader.steps.is_over = self.state.global_step >= self.state.max_steps

    def counters(self) -> dict[str, Any]:
        of_passes = {name: getattr(self.step, name) for name in OF_PASSES}
        return {**of_passes, **asdict(self.odd), "losses": list(self.spikes.losses)}

    def restore_counters(self, saved: dict[str, Any]) -> None:
        for name in OF_PASSES:
            setattr(self.step, name, saved[name])
        self.odd = OddSteps(**{item.name: saved[item.name] for item in fields(OddSteps)})
        self.spikes.losses.extend(saved["losses"])

    def get_total_train_batch_size(self, args: Any) -> int:
        return self.config.trainer.batch_size

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def create_optimizer(self) -> Any:
        """Upstream's optimizer; on the fast path over the whole adapter as one parameter, where the optimizer's rule allows it.

        A 12B model's adapter has 560 matrices, and a launch for each takes longer than all of their arithmetic.
        """
        if self.optimizer is not None:
            return self.optimizer
        if self.args.optim not in ELEMENTWISE or not fast_path.is_on(self.step.model):
            super().create_optimizer()
        else:
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args)
            parameters = self.step.adapter.as_one(eight_bit="8bit" in self.args.optim)
            self.optimizer = kind([{"params": parameters, "weight_decay": self.args.weight_decay}], **settings)
        if self.accelerator.scaler is None:  # which leaves out such steps itself
            self.watch.guard(self.optimizer)
        return self.optimizer

    @property
    def step(self) -> StepGradient:
        """What computes this run's steps; made at the first, when the adapter is float32 and where it will stay."""
        if self._step is None:
            self._step = step_gradient(self.config, self.model, self.shards)
        return self._step

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Leave the gradient of one whole optimizer step in the parameters; returns its mean loss over the learned tokens."""
        scaler = self.accelerator.scaler
        rows = inputs["rows"]
        loss = self.step(rows, **({} if scaler is None else {"scale": scaler.scale}))
        gradient = self.step.adapter.buffer if scaler is None else None
        return self.with_carried(self.watch.see(self.state.global_step + 1, rows, loss, gradient))

    def end_step(self) -> bool:
        """Deal with the steps that are known by now to be odd; whether the run is to stop here."""
        stopping = super().end_step()  # then this step is the last, and its checkpoint is to know what became of it
        overflowed = self.accelerator.scaler is not None and self.accelerator.optimizer_step_was_skipped
        control = self.control
        is_told = stopping or control.should_log or control.should_evaluate or control.should_save
        for seen in self.watch.settled(is_told):
            loss, is_bad = seen.read()
            if is_bad:
                self._deal_with(seen, loss)
                continue
            self.odd.in_a_row, self.odd.overflows = 0, self.odd.overflows + overflowed
            if (height := self.spikes.see(loss)) is not None:
                log.warning(
                    "the loss of step %d is a spike: %.4g, %.1f standard deviations up", seen.step, loss, height
                )
                self.log({"spike_step": seen.step, "spike_loss": loss, "spike_height": round(height, 1)})
        return stopping

    def _deal_with(self, seen: Seen, loss: float) -> None:
        """A step whose loss or gradient is no number has changed nothing: write it down, and do what trainer.on_nan says."""
        policy, names = self.config.trainer.on_nan, [self.names[id(row)] for row in seen.rows]
        odd = self.odd
        odd.skipped, odd.unlogged, odd.in_a_row = odd.skipped + 1, odd.unlogged + 1, odd.in_a_row + 1
        what = f"loss is {loss}" if not math.isfinite(loss) else "gradient is no number"
        if ranks.is_main():
            row = {"step": seen.step, "what": what, "action": policy.value, "ids": names}
            runs.append_jsonl(self.bad_steps, [row])
        if policy is OnNan.stop or odd.in_a_row > MAX_IN_A_ROW:
            raise RuntimeError(
                f"the {what} by step {seen.step}; {CURE}, or leave such steps out by trainer.on_nan=skip or roll_back; "
                f"their examples are in {self.bad_steps}"
            )
        log.warning("the %s in step %d, which is left out; %s has its examples", what, seen.step, self.bad_steps)
        if policy is OnNan.roll_back:
            self.go_back()

    def log(self, logs: dict[str, float], *some: Any, **more: Any) -> None:
        """Upstream's log, with means over the steps that count, and what the gradient scaler has left out."""
        if "train_loss" in logs:
            logs["train_loss"] *= self.of_counted_steps()
        if "loss" in logs and (scaler := self.accelerator.scaler) is not None:
            logs |= {"fp16_overflows": self.odd.overflows, "fp16_scale": scaler.get_scale()}
        super().log(logs, *some, **more)

    def of_counted_steps(self) -> float:
        """By what a mean over all steps is to be multiplied to be one over those that were not left out."""
        steps: int = self.state.global_step
        return steps / max(1, steps - self.odd.skipped)

    def _maybe_log_save_evaluate(self, tr_loss: torch.Tensor, *some: Any, **more: Any) -> None:
        if self.control.should_log and self.odd.unlogged:
            self._globalstep_last_logged += self.odd.unlogged  # the mean is over the other steps
            if self._globalstep_last_logged == self.state.global_step:
                self.log({"skipped_steps": self.odd.unlogged})
            self.odd.unlogged = 0
        super()._maybe_log_save_evaluate(tr_loss, *some, **more)

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """The mean validation loss over learned tokens, logged and handed to the callbacks.

        RuntimeError, in every rank alike, if it is no number.
        """
        started = time.monotonic()
        loss = self.step.mean_loss(self.validation_rows)
        metrics = {f"{metric_key_prefix}_loss": loss, f"{metric_key_prefix}_runtime": time.monotonic() - started}
        self.log(metrics)
        if not math.isfinite(loss):
            raise RuntimeError(f"the {metric_key_prefix}_loss is {loss} by step {self.state.global_step}; {CURE}")
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def step_gradient(config: Config, network: Any, shards: torch.nn.Module | None = None) -> StepGradient:
    """The computation of steps for a network with its adapter, by the fast path and by graphs where config has them.

    `shards` is what `sharding.shard` made of the network, if it is sharded.
    """
    hardware, dtype = config.hardware, model.torch_dtype(config.hardware)
    if shards is not None:
        return sharding.ShardedStepGradient(network, hardware.max_tokens, dtype, shards)
    fast = hardware.fast_path and fast_path.switch_on(network, dtype)
    graphs = None
    num_weights = sum(p.numel() * (2 if p.dtype is torch.uint8 else 1) for p in network.parameters())  # two in a byte
    if fast and speed.uses_graphs(config, num_weights):
        graphs = GraphedPasses(config.trainer.batch_size, config.trainer.max_length)
    return StepGradient(network, hardware.max_tokens, dtype, graphs)


def check_names(settings: Trainer) -> None:
    """ValueError for an optimizer or a schedule that transformers does not know."""
    for key, kind in (("optim", OptimizerNames), ("lr_scheduler_type", SchedulerType)):
        known = [item.value for item in kind]
        if (name := getattr(settings, key)) not in known:
            guess = difflib.get_close_matches(name, known, n=1)
            meant = f" (did you mean {guess[0]}?)" if guess else ""
            raise ValueError(f"trainer.{key}={name} does not exist; it can be {', '.join(known)}{meant}")


def sft_config(config: Config, run: Path) -> SFTConfig:
    """TRL's settings for this config: upstream's names passed on unchanged; one batch of its loop is one optimizer step."""
    hardware, trainer = config.hardware, asdict(config.trainer)
    batch_size, warmup_ratio = trainer.pop("batch_size"), trainer.pop("warmup_ratio")
    for ours in ("num_tokens", "max_hours", "on_nan"):  # training has turned the first into max_steps
        del trainer[ours]
    precision = model.precision(hardware)
    on_cpu = hardware.device is Device.cpu
    if on_cpu:
        trainer["optim"] = cpu_optimizer(trainer["optim"])
        log.info("hardware=cpu trains in %s", precision)
    if trainer["logging_steps"] >= 1:
        trainer["logging_steps"] = int(trainer["logging_steps"])
    return SFTConfig(
        **trainer,
        **upstream.warmup(warmup_ratio),
        output_dir=str(run / "checkpoints"),
        seed=config.seed,
        data_seed=config.seed,
        fp16=precision == "fp16",
        bf16=precision == "bf16",
        use_cpu=on_cpu,
        ddp_backend="gloo" if on_cpu and ranks.world_size() > 1 else None,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=1,
        **upstream.checkpointing(bool(hardware.gradient_checkpointing)),
        eval_strategy="steps",
        save_strategy="steps",
        logging_nan_inf_filter=False,  # a NaN is to be seen in its own step, not behind an average
        disable_tqdm=None if ranks.is_main() else True,
        loss_type="nll",  # the loss is computed by the step; TRL 1's default exchanges the model's forward for its own
        report_to="none",  # our own callback logs to the tracker and to history.jsonl alike
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def cpu_optimizer(optim: str) -> str:
    """The optimizer in place of one that needs a GPU's paged or 8-bit memory; says so once."""
    if "8bit" in optim or "paged" in optim:
        log.warning("trainer.optim=%s needs a GPU; on the CPU adamw_torch takes its place", optim)
        return "adamw_torch"
    return optim
