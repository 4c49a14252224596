"""Losses and gradients that are no numbers: seen in their own step, kept from the adapter, written down; and spikes."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

from text2sql import anomalies, runs, training
from text2sql.anomalies import Spikes, Watch, undone_where
from text2sql.callbacks import HistoryCallback
from text2sql.preemption import Interrupted
from text2sql.step import StepGradient

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = ["phase=1", "eval.num_live_samples=0", "trainer.save_steps=1", "trainer.num_train_epochs=2"]


def broken_at(monkeypatch, steps, what):
    """Make the `what` of these steps (from 1) no number; returns the ids of what each step is made of."""
    compute, calls = StepGradient.__call__, []

    def instead(self, rows, *some, **more):
        loss = compute(self, rows, *some, **more)
        calls.append([row.ids for row in rows])
        if len(calls) not in steps:
            return loss
        if what == "gradient":
            self.adapter.buffer[3] = math.inf
            return loss
        return loss * float(what)

    monkeypatch.setattr(StepGradient, "__call__", instead)
    return calls


def history(run, key):
    return [(row["step"], row[key]) for row in runs.read_jsonl(run / "history.jsonl") if key in row]


@pytest.mark.parametrize("what, said", [("inf", "loss is inf"), ("gradient", "gradient is no number")])
def test_by_default_the_run_stops_in_that_step_and_says_where_its_examples_are(
    small, tmp_path, monkeypatch, what, said
):
    broken_at(monkeypatch, [2], what)
    with pytest.raises(
        RuntimeError, match=rf"the {said} by step 2; lower trainer\.learning_rate.*trainer\.on_nan=skip"
    ):
        training.train(small(*SETTINGS), str(tmp_path))
    (row,) = runs.read_jsonl(tmp_path / "bad_steps.jsonl")
    assert (row["step"], row["what"], row["action"], len(row["ids"])) == (2, said, "stop", 8)
    assert runs.read(tmp_path)["status"] == "failed"
    assert [path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")] == ["checkpoint-1"]


def test_a_step_that_is_left_out_changes_nothing_and_is_named(small, tmp_path, monkeypatch):
    """As if the optimizer had not been called: the checkpoints before and after it hold the same adapter and moments."""
    broken_at(monkeypatch, [3], "gradient")
    config = small(*SETTINGS, "trainer.on_nan=skip", "trainer.save_total_limit=9")
    training.train(config, str(tmp_path))
    before, after = (tmp_path / f"checkpoints/checkpoint-{step}" for step in (2, 3))
    for name in ("adapter_model.safetensors", "optimizer.safetensors"):
        assert (before / name).read_bytes() == (after / name).read_bytes()
    assert [step for step, _ in history(tmp_path, "loss")] == [1, 2, 4, 5, 6]
    assert history(tmp_path, "skipped_steps") == [(3, 1)]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["train/skipped_steps"] == 1
    losses = [loss for _, loss in history(tmp_path, "loss")]
    assert metrics["train/loss"] == pytest.approx(sum(losses) / 5, abs=1e-3)
    (row,) = runs.read_jsonl(tmp_path / "bad_steps.jsonl")
    assert all(name.startswith("gretel/train/") for name in row["ids"])


def test_a_log_of_several_steps_is_the_mean_of_those_that_count(small, tmp_path, monkeypatch):
    broken_at(monkeypatch, [2], "nan")
    training.train(small(*SETTINGS, "trainer.on_nan=skip", "trainer.max_steps=3"), str(tmp_path / "each"))
    broken_at(monkeypatch, [2], "nan")
    settings = [*SETTINGS, "trainer.on_nan=skip", "trainer.max_steps=3", "trainer.logging_steps=3"]
    training.train(small(*settings), str(tmp_path / "mean"))
    each = [loss for _, loss in history(tmp_path / "each", "loss")]
    assert history(tmp_path / "mean", "loss") == [(3, pytest.approx(sum(each) / 2, abs=2e-4))]


def test_rolling_back_takes_adapter_and_moments_of_the_last_checkpoint(small, tmp_path, monkeypatch):
    broken_at(monkeypatch, [4], "nan")
    config = small(*SETTINGS, "trainer.on_nan=roll_back", "trainer.save_steps=2", "trainer.save_total_limit=9")
    training.train(config, str(tmp_path))
    before, after = (tmp_path / f"checkpoints/checkpoint-{step}" for step in (2, 4))
    for name in ("adapter_model.safetensors", "optimizer.safetensors"):
        assert (before / name).read_bytes() == (after / name).read_bytes()
    last = json.loads((after / "state.json").read_text())
    assert last["scheduler"]["last_epoch"] == 4, "the schedule goes on"


def test_no_policy_goes_on_for_ever(small, tmp_path, monkeypatch):
    monkeypatch.setattr("text2sql.trainer.MAX_IN_A_ROW", 2)
    broken_at(monkeypatch, range(99), "nan")
    with pytest.raises(RuntimeError, match="loss is nan by step 3"):
        training.train(small(*SETTINGS, "trainer.on_nan=skip"), str(tmp_path))


def test_a_validation_loss_that_is_no_number_ends_every_rank_alike(small, tmp_path, monkeypatch):
    """All ranks have the same loss; what logs it is rank 0 alone."""
    monkeypatch.setattr(StepGradient, "mean_loss", lambda *_: math.nan)
    monkeypatch.setattr(HistoryCallback, "on_log", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match=r"the eval_loss is nan by step 1; lower trainer\.learning_rate"):
        training.train(small(*SETTINGS, "trainer.eval_steps=1"), str(tmp_path))


# On a device that nobody waits for


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_what_a_bad_step_changed_is_undone_where_it_was_made(kind):
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(5))
    optimizer = kind([parameter], lr=0.1)
    parameter.grad = torch.randn(5)
    optimizer.step()
    before = parameter.detach().clone()
    moments = {key: value.clone() for key, value in optimizer.state[parameter].items() if torch.is_tensor(value)}
    parameter.grad = torch.full((5,), math.nan)
    undone_where(torch.tensor(True), optimizer, optimizer.step)
    assert torch.equal(parameter, before)
    assert all(torch.equal(optimizer.state[parameter][key], value) for key, value in moments.items())
    parameter.grad = torch.ones(5)
    undone_where(torch.tensor(False), optimizer, optimizer.step)
    assert not torch.equal(parameter, before)
    assert parameter.isfinite().all()


def test_a_guarded_optimizer_still_has_its_schedule():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer, watch = torch.optim.SGD([parameter], lr=1.0), Watch(waits=False)
    watch.guard(optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    for loss, expected in ((1.0, 0.0), (math.nan, 0.0), (1.0, -1 / 3)):
        parameter.grad = torch.ones(2)
        returned = watch.see(1, [], torch.tensor(loss), parameter.grad)
        optimizer.step()
        schedule.step()
        assert returned.item() == (0.0 if math.isnan(loss) else loss)
        assert parameter.tolist() == pytest.approx([expected] * 2)


@pytest.mark.parametrize("kind, waits", [(AdamW8bit, True), (PagedAdamW8bit, True), (torch.optim.AdamW, False)])
def test_an_optimizer_that_waits_for_the_device_itself_is_known_by_its_class(kind, waits):
    watch = Watch(waits=False)
    watch.guard(kind([torch.nn.Parameter(torch.ones(2))], lr=1.0))
    assert watch.waits == waits


def test_an_optimizer_without_moments_is_waited_for_in_the_first_step_only(monkeypatch):
    optimizer, watch, undone = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=1.0), Watch(waits=False), []
    monkeypatch.setattr(anomalies, "undone_where", lambda *_: undone.append(len(read)))
    read = []
    watch.bad = SimpleNamespace(is_cuda=True, item=lambda: read.append(True))
    for _ in range(3):
        watch.apply(optimizer, lambda: None)
    assert (len(read), undone) == (1, [1, 1])


def test_a_gradient_that_a_scaler_looks_at_is_no_fault_of_the_step():
    watch = Watch(waits=True)
    watch.see(1, [], torch.tensor(1.0), None)
    assert watch.settled(False)[0].read() == (1.0, False)


def test_of_steps_on_a_device_only_the_last_is_waited_for_later():
    watch = Watch(waits=False)
    for step in (1, 2):
        watch.see(step, [], torch.tensor(1.0), torch.ones(1))
        watch.queue[-1].event = type("Event", (), {"synchronize": lambda self: None})()
    assert [seen.step for seen in watch.settled(False)] == [1]
    assert [seen.step for seen in watch.settled(True)] == [2]


def test_a_run_that_is_stopped_has_dealt_with_its_last_step(small, tmp_path, monkeypatch):
    """The step is one that is read once the next is queued, as on a GPU, and no log, evaluation or save is due."""
    see = Watch.see

    def see_later(self, *some):
        loss = see(self, *some)
        self.queue[-1].event = SimpleNamespace(synchronize=lambda: None)
        return loss

    monkeypatch.setattr(Watch, "see", see_later)
    broken_at(monkeypatch, [1], "nan")
    rarely = ["trainer.save_steps=9", "trainer.logging_steps=9", "trainer.eval_steps=9"]
    with pytest.raises(Interrupted):
        training.train(small(*SETTINGS, *rarely, "trainer.on_nan=skip", "trainer.max_hours=1e-9"), str(tmp_path))
    assert [row["step"] for row in runs.read_jsonl(tmp_path / "bad_steps.jsonl")] == [1]
    state = json.loads((tmp_path / "checkpoints/checkpoint-1/state.json").read_text())
    assert state["counters"]["skipped"] == 1


def test_a_spike_is_a_loss_far_above_those_before_it():
    spikes = Spikes()
    wave = [1 + 0.1 * math.sin(step) for step in range(anomalies.FEWEST)]
    assert [spikes.see(loss) for loss in [9.0, *wave[1:]]] == [None] * anomalies.FEWEST
    spikes = Spikes()
    assert [spikes.see(loss) for loss in wave] == [None] * anomalies.FEWEST
    assert spikes.see(1.2) is None
    assert spikes.see(0.0) is None
    assert spikes.see(5.0) > anomalies.THRESHOLD


def test_a_spike_is_a_row_of_the_history(small, tmp_path, monkeypatch):
    monkeypatch.setattr(anomalies, "FEWEST", 2)
    broken_at(monkeypatch, [4], "50")
    training.train(small(*SETTINGS), str(tmp_path))
    assert history(tmp_path, "spike_step") == [(4, 4)]
