"""The arms of training benchmarks: TRL's own trainer, and our passes with clipping and an optimizer, timed alike."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from text2sql import attention, fast_path
from text2sql.graphs import GraphedPasses
from text2sql.passes import Row
from text2sql.step import StepGradient

GIB = 2**30
BATCH = 16


class Clock(TrainerCallback):
    """The time of a trainer's first step, which warms up, and of all the others together: the device is idle at both ends."""

    def __init__(self, warm_up: int = 1) -> None:
        self.warm_up, self.steps, self.marks = warm_up, 0, [self._now()]

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.marks = [self._now()]

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.steps += 1
        if self.steps == self.warm_up:
            self.marks.append(self._now())

    def stop(self) -> tuple[float, float]:
        """Seconds of the warm-up, and seconds a step of the rest."""
        self.marks.append(self._now())
        rest = self.steps - self.warm_up
        return self.marks[1] - self.marks[0], (self.marks[2] - self.marks[1]) / rest if rest else self.marks[
            1
        ] - self.marks[0]


def plain_trl(
    network: Any, tokenizer: Any, steps: list[list[Row]], *, per_pass: int, precision: str, ck: bool
) -> tuple[float, float]:
    """Seconds of the first and of each other step of TRL's own trainer with the original's settings.

    `per_pass` padded rows make a pass, accumulated to BATCH.
    """
    from datasets import Dataset

    rows = [row for step in steps for row in step]
    masks = [[0] * row.prompt_length + [1] * (len(row.ids) - row.prompt_length) for row in rows]
    clock = Clock()
    trainable = {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=network,
            args=SFTConfig(
                output_dir=folder,
                per_device_train_batch_size=per_pass,
                gradient_accumulation_steps=BATCH // per_pass,
                max_steps=len(steps),
                fp16=precision == "fp16",
                bf16=precision == "bf16",
                use_cpu=not torch.cuda.is_available(),
                optim="paged_adamw_8bit" if torch.cuda.is_available() else "adamw_torch",
                learning_rate=1e-4,
                max_length=1024,
                gradient_checkpointing=ck,
                gradient_checkpointing_kwargs={"use_reentrant": False},
                completion_only_loss=True,
                dataset_kwargs={"skip_prepare_dataset": True},
                save_strategy="no",
                report_to="none",
                logging_steps=1000,
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict({"input_ids": [row.ids for row in rows], "completion_mask": masks}),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        for name, parameter in network.named_parameters():  # TRL rounds them to bf16, which fp16's scaler refuses
            if parameter.requires_grad:
                parameter.data = trainable[name].clone()
        trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(range(len(rows)))
        try:
            trainer.train()
            return clock.stop()
        finally:
            network.gradient_checkpointing_disable()
            network.zero_grad()
            del trainer


def our_steps(
    network: Any,
    steps: list[list[Row]],
    *,
    max_tokens: int,
    dtype: torch.dtype,
    ck: bool,
    parts: tuple[str, ...] | None = fast_path.PARTS,
    graphs: bool = False,
    optim: str = "paged_adamw_8bit",
    warm_up: int = 1,
    losses: list[float] | None = None,
) -> tuple[float, float]:
    """Seconds of the warm-up and of each other step: our passes with clipping and the optimizer.

    `parts` are those of the fast path, None for plain modules.
    """
    import bitsandbytes as bnb

    network.train()
    if ck:
        network.gradient_checkpointing_enable({"use_reentrant": False})
        network.enable_input_require_grads()
    in_part = parts is not None and set(parts) != set(fast_path.PARTS)
    if parts is not None:
        fast_path.switch_on(network, dtype, parts)
    step = StepGradient(network, max_tokens, dtype, GraphedPasses(BATCH, 1024) if graphs else None)
    parameters, eight_bit = step.adapter.parameters, optim == "paged_adamw_8bit" and torch.cuda.is_available()
    learned = parameters if parts is None or in_part else step.adapter.as_one(eight_bit)
    optimizer: Any = (
        bnb.optim.PagedAdamW8bit(learned, lr=1e-4) if eight_bit else torch.optim.AdamW(learned, lr=1e-4, fused=True)
    )
    half = dtype is torch.float16
    scaler = torch.amp.GradScaler(enabled=half)
    clock = Clock(warm_up)
    try:
        for rows in steps:
            with torch.autocast(step.device.type, dtype=dtype) if in_part else contextlib.nullcontext():
                loss = step(rows, scaler.scale)
            if losses is not None:
                losses.append(loss.item())
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            scaler.step(optimizer)
            scaler.update()
            clock.on_step_end()
        return clock.stop()
    finally:
        fast_path.switch_off(network)
        network.gradient_checkpointing_disable()
        network.zero_grad()


def measure(run: Callable[[], tuple[float, float]], tokens: int, steps: int) -> dict[str, Any]:
    """The outcome of one arm: examples and tokens a second (its first step warms up and is left out), and the peak."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        first, a_step = run()
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {"fits": False}
    peak = torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else 0.0
    return {
        "fits": True,
        "examples_per_second": BATCH / a_step,
        "tokens_per_second": tokens / steps / a_step,
        "seconds_a_step": a_step,
        "first_step": first,
        "peak_gib": peak,
    }


@contextlib.contextmanager
def turing() -> Iterator[None]:
    """Compute capability 7.5's rules on a newer GPU: no flash attention, for either side."""
    before = attention.best_backend
    attention.best_backend = lambda device, dtype: "efficient"  # type: ignore[assignment]
    try:
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            yield
    finally:
        attention.best_backend = before
