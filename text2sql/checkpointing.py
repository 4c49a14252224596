"""TRL's SFTTrainer with checkpoints of our own: whole or not there, free of pickles, and exact when a run goes on from one."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from trl import SFTTrainer

from text2sql import checkpoints, model, ranks, seeds, snapshot, upstream
from text2sql.config import Config
from text2sql.preemption import Interrupted, Stop
from text2sql.pushing import Pusher

log = logging.getLogger(__name__)

STATE_OF_LOOP = "trainer_state.json"  # read by upstream's loop under this name
OF_RUN = "run"
"""In a checkpoint of a run that pushes: the run's stamp and rows, without which another machine could not go on with it."""
OF_TRAINING = ("state.json", STATE_OF_LOOP, snapshot.OPTIMIZER, checkpoints.MANIFEST, f"{OF_RUN}/*")


class CheckpointingTrainer(upstream.TrainerHooks, SFTTrainer):
    """SFTTrainer that saves and goes on with everything its next step depends on.

    A run that goes on has the losses, the order of examples and the adapter of one that was never stopped; on a CPU to the
    last bit. `files` are those that grow as training goes on: what was written to them after a checkpoint is cut off.
    """

    model: Any  # upstream's types allow for None until the loop has begun
    processing_class: Any
    lr_scheduler: Any
    optimizer: Any

    def __init__(self, config: Config, files: Sequence[Path] = (), **settings: Any) -> None:
        super().__init__(**settings)
        self.config, self.files = config, files
        self.facts: dict[str, Any] = {}
        self.stop = Stop(None)
        self.exit_code: int | None = None
        self.owes_evaluation = False
        self.first_step, self.seconds_before, self.started = 0, 0.0, time.monotonic()
        self._unlogged: torch.Tensor | None = None
        self._carried: float | None = None
        self._restored: dict[str, Any] | None = None
        self.pusher: Pusher | None = None
        self.add_callback(_Loop(self))

    # Saving

    def counters(self) -> dict[str, Any]:
        """What else the next steps or the metrics depend on, for JSON."""
        return {}

    def restore_counters(self, saved: dict[str, Any]) -> None:
        """Go on from what `counters` gave."""

    def seconds(self) -> float:
        """How long training has taken, with the time before it was broken off."""
        return self.seconds_before + time.monotonic() - self.started

    def share_made_here(self) -> float:
        """Which share of the steps this process made; those before were made by the one that was broken off."""
        steps: int = self.state.global_step
        return (steps - self.first_step) / steps if steps else 1.0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        randoms = ranks.gathered(snapshot.random_state())
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        if ranks.is_main():
            checkpoints.write(folder, lambda aside: self._fill(aside, randoms))
            if self.pusher is not None:
                self.pusher.look()
            in_use = [] if self.pusher is None else self.pusher.in_use
            checkpoints.forget_older(folder.parent, self.args.save_total_limit or 0, in_use)
            if self.pusher is not None:
                self.pusher.checkpoint(folder, self.state.global_step, OF_TRAINING)

    def _fill(self, folder: Path, randoms: list[Any]) -> None:
        self._save(str(folder))
        self.state.save_to_json(str(folder / STATE_OF_LOOP))
        scaler = self.accelerator.scaler
        state = {
            "optimizer": snapshot.save_optimizer(self.optimizer, folder),
            "scheduler": self.lr_scheduler.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "random": randoms,
            "unlogged_loss": 0.0 if self._unlogged is None else self._unlogged.item(),
            "logged_loss": self._total_loss_scalar,
            "logged_step": self._globalstep_last_logged,
            "owes_evaluation": self.owes_evaluation,
            "files": {path.name: _synced_size(path) for path in self.files},
            "seconds": self.seconds(),
            "counters": self.counters(),
            "facts": self.facts,
            "seeds": seeds.SCHEME,
        }
        snapshot.write_json(folder / snapshot.STATE, state)
        if self.config.hub.push_to_hub:
            self._fill_of_run(folder / OF_RUN)

    def _fill_of_run(self, folder: Path) -> None:
        folder.mkdir()
        for path in (Path(str(self.args.output_dir)).parent / "run.json", *self.files):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """The adapter and its tokenizer: no arguments, which upstream pickles, tokens and all."""
        assert output_dir is not None
        upstream.save_adapter(self.model, model.adapter_state(self.model), Path(output_dir))
        self.processing_class.save_pretrained(output_dir)

    # Going on

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        self._restored = snapshot.read_json(folder / snapshot.STATE)
        self.load_adapter(folder)

    def load_adapter(self, folder: Path) -> None:
        """Take the adapter's values from a checkpoint."""
        snapshot.load_adapter(model.adapter_state(self.model), folder)

    def go_back(self) -> None:
        """Take adapter and moments from the latest whole checkpoint; the schedule and the data go on from here."""
        folder = checkpoints.newest_whole(Path(str(self.args.output_dir)))
        if folder is None:
            log.warning("there is no checkpoint to go back to yet")
            return
        saved = snapshot.read_json(folder / snapshot.STATE)["optimizer"]
        self.load_adapter(folder)
        groups = self.optimizer.state_dict()["param_groups"]
        snapshot.load_optimizer(self.optimizer, folder, {"state": saved["state"], "param_groups": groups})
        log.warning("adapter and moments are those of %s again", folder.name)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            assert self._restored is not None
            snapshot.load_optimizer(self.optimizer, Path(checkpoint), self._restored["optimizer"])
            self.lr_scheduler.load_state_dict(self._restored["scheduler"])

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.accelerator.scaler is not None:
            assert self._restored is not None
            self.accelerator.scaler.load_state_dict(self._restored["scaler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            assert self._restored is not None
            snapshot.restore_random_state(self._restored["random"][ranks.rank()])

    def begin(self) -> None:
        """At the start of the loop: what upstream has set to zero is what it was, and an evaluation that was owed is made."""
        if self._restored is None:
            return
        saved, self.first_step = self._restored, self.state.global_step
        self._total_loss_scalar, self._globalstep_last_logged = saved["logged_loss"], saved["logged_step"]
        self._carried, self.seconds_before = saved["unlogged_loss"], saved["seconds"]
        self.count_whole_run()
        self.restore_counters(saved["counters"])
        if saved["owes_evaluation"]:
            self.evaluate()

    def with_carried(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss of a step, and with the first one the losses before the checkpoint that no log has had yet."""
        carried, self._carried = self._carried, None
        return loss if carried is None else loss + carried

    # Stopping

    def end_step(self) -> bool:
        """Whether the run is to stop here, which all of its processes agree on."""
        asked = (self.stop.asked() or 0) if ranks.is_main() else 0
        self.exit_code = ranks.largest(asked) or None
        return self.exit_code is not None

    def _maybe_log_save_evaluate(self, tr_loss: torch.Tensor, *some: Any, **more: Any) -> None:
        self._unlogged = tr_loss
        if (
            self.exit_code is not None and self.control.should_evaluate
        ):  # it may take minutes that the run does not have
            self.control.should_evaluate, self.owes_evaluation = False, True
        super()._maybe_log_save_evaluate(tr_loss, *some, **more)

    def _evaluate(self, *some: Any, **more: Any) -> Any:
        """An evaluation in the loop; a signal breaks it off, and the run that goes on owes it."""
        rows, sizes = len(self.state.log_history), {path: _synced_size(path) for path in self.files}
        try:
            with self.stop.breaking_off():
                return super()._evaluate(*some, **more)
        except Interrupted as stopped:
            if stopped.exit_code != self.stop.exit_code or ranks.world_size() > 1:
                raise
            self.exit_code, self.owes_evaluation = stopped.exit_code, True
            self.control.should_save = self.control.should_training_stop = True
            del self.state.log_history[rows:]
            for path, size in sizes.items():
                checkpoints.cut(path, size)
            return {}


class _Loop(TrainerCallback):
    """What the trainer does at places of upstream's loop that only a callback sees."""

    def __init__(self, trainer: CheckpointingTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        control.should_save = control.should_evaluate = control.should_log = False
        self.trainer.begin()
        return control

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if self.trainer.pusher is not None:
            self.trainer.pusher.look()
        if self.trainer.end_step():
            control.should_save = control.should_training_stop = True
        return control


def _synced_size(path: Path) -> int:
    """The size of a file whose rows are on the disk by now; 0 where there is none."""
    if not path.exists():
        return 0
    checkpoints.sync(path)
    return path.stat().st_size
