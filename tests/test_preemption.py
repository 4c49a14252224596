"""Signals and limits of time: the step is finished, a checkpoint is there, the stamp and the exit code say why."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from text2sql import checkpoints, commandline, preemption, runs, training
from text2sql.callbacks import SQLSampleCallback
from text2sql.preemption import Interrupted, Stop
from text2sql.trainer import TokenBudgetTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = ["phase=1", "eval.num_live_samples=0", "trainer.save_steps=100", "trainer.eval_steps=2"]


def signalled(monkeypatch, numbers, step):
    """Send these signals, one after the other, while the gradient of `step` is computed."""
    compute = TokenBudgetTrainer.training_step

    def instead(self, *some, **more):
        if self.state.global_step == step - 1:
            for number in numbers:
                os.kill(os.getpid(), number)
        return compute(self, *some, **more)

    monkeypatch.setattr(TokenBudgetTrainer, "training_step", instead)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_the_step_be_finished_and_saved(small, tmp_path, monkeypatch, number, code):
    handlers = [signal.getsignal(one) for one in preemption.SIGNALS]
    with monkeypatch.context() as patch:
        signalled(patch, [number], 2)
        with pytest.raises(Interrupted) as stopped:
            training.train(small(*SETTINGS), str(tmp_path / "run"))
    assert stopped.value.exit_code == code
    assert [signal.getsignal(one) for one in preemption.SIGNALS] == handlers
    stamp = runs.read(tmp_path / "run")
    assert stamp["status"] == "interrupted"
    assert f"ended by {signal.Signals(number).name}" in stamp["error"]
    assert checkpoints.newest_whole(tmp_path / "run/checkpoints").name == "checkpoint-2"


def test_an_evaluation_that_was_due_is_made_when_the_run_goes_on(small, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signalled(patch, [signal.SIGTERM], 2)
        with pytest.raises(Interrupted):
            training.train(small(*SETTINGS), str(tmp_path / "run"))
    assert not [row for row in runs.read_jsonl(tmp_path / "run/history.jsonl") if "eval_loss" in row]
    training.train(small(*SETTINGS, "resume=true"), str(tmp_path / "run"))
    training.train(small(*SETTINGS), str(tmp_path / "whole"))
    assert runs.adapter_sha256(tmp_path / "run/adapter") == runs.adapter_sha256(tmp_path / "whole/adapter")
    logged = [
        [{key: row[key] for key in ("step", "loss", "eval_loss") if key in row} for row in runs.read_jsonl(path)]
        for path in (tmp_path / "run/history.jsonl", tmp_path / "whole/history.jsonl")
    ]
    assert logged[0] == logged[1]


def test_a_second_signal_ends_it_at_once(small, tmp_path, monkeypatch):
    signalled(monkeypatch, [signal.SIGTERM, signal.SIGTERM], 2)
    with pytest.raises(Interrupted):
        training.train(small(*SETTINGS), str(tmp_path))
    assert runs.read(tmp_path)["status"] == "interrupted"
    assert checkpoints.newest_whole(tmp_path / "checkpoints") is None


def test_an_evaluation_is_broken_off_and_owed(small, tmp_path, monkeypatch):
    settings = [*SETTINGS, "eval.num_live_samples=1"]
    with monkeypatch.context() as patch:
        patch.setattr(SQLSampleCallback, "on_evaluate", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            training.train(small(*settings), str(tmp_path))
    assert checkpoints.newest_whole(tmp_path / "checkpoints").name == "checkpoint-2"
    assert not [row for row in runs.read_jsonl(tmp_path / "history.jsonl") if "eval_loss" in row]
    training.train(small(*settings, "resume=true"), str(tmp_path))
    evaluated = [row["step"] for row in runs.read_jsonl(tmp_path / "history.jsonl") if "eval_loss" in row]
    assert evaluated == [2, 3]
    assert [row["step"] for row in runs.read_jsonl(tmp_path / "samples.jsonl")] == [2, 3]


def test_before_the_first_step_a_signal_ends_the_run(small, tmp_path, monkeypatch):
    monkeypatch.setattr(training.model, "load_base", lambda _: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(5))
    with pytest.raises(Interrupted):
        training.train(small(*SETTINGS), str(tmp_path))
    assert runs.read(tmp_path)["status"] == "interrupted"


def test_hours_that_are_over_end_the_run_as_a_signal_does(small, tmp_path):
    with pytest.raises(Interrupted, match=r"trainer\.max_hours are over; resume=true goes on with it") as stopped:
        training.train(small(*SETTINGS, "trainer.max_hours=1e-9"), str(tmp_path))
    assert stopped.value.exit_code == 75
    assert checkpoints.newest_whole(tmp_path / "checkpoints").name == "checkpoint-1"


def test_the_first_signal_after_the_hours_are_over_does_not_break_the_save_off():
    stop = Stop(1e-9)
    with stop.listening(), stop.finishing_steps():
        assert stop.asked() == 75
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked() == 75
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("error, code", [(Interrupted(143), 143), (Interrupted(75), 75), (KeyboardInterrupt(), 130)])
@pytest.mark.parametrize("full", ["", "1"], ids=["readable errors", "full errors"])
def test_the_exit_code_says_why(monkeypatch, error, code, full):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", full)
    with pytest.raises(SystemExit) as ended, commandline.readable_errors():
        raise error
    assert ended.value.code == code


@pytest.mark.parametrize("error, seconds", [(Interrupted(143), 5), (Interrupted(75), 7), (RuntimeError("broken"), 7)])
def test_wandb_is_waited_for_as_long_as_there_is_time(small, tmp_path, monkeypatch, error, seconds):
    waits = []

    class Tracked:
        id = None

        def __init__(self, *_, **__):
            pass

        def finish(self, exit_code, max_wait_s):
            waits.append((exit_code, max_wait_s))

    def break_off(*_):
        raise error

    monkeypatch.setattr(training, "Tracker", Tracked)
    monkeypatch.setattr(training, "_run_loop", break_off)
    with pytest.raises(type(error)):
        training.train(small(*SETTINGS, "hub.max_wait_s=7"), str(tmp_path))
    assert waits == [(1, seconds)]


def test_hours_must_be_positive(small):
    with pytest.raises(ValueError, match=r"trainer\.max_hours=-1\.0 must be positive"):
        small("phase=1", "trainer.max_hours=-1")


# With ranks


@pytest.fixture
def parent(tmp_path):
    """The parent's file, with its handlers in place for the length of a test; `.ended` tells whether it ends its ranks."""
    handlers = {number: signal.getsignal(number) for number in preemption.SIGNALS}
    ended = []
    preemption.hear_for_ranks(tmp_path / "stop", lambda: ended.append(True))
    yield tmp_path / "stop", ended
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_rank_0_hears_of_a_signal_from_its_parent(parent, monkeypatch):
    file, ended = parent
    monkeypatch.setenv(preemption.STOP_FILE, str(file))
    stop = Stop(None)
    with stop.finishing_steps():
        assert stop.asked() is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.asked(), ended) == (143, [])
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended == [True]


def test_rank_0_never_sees_half_of_what_its_parent_writes(parent, monkeypatch):
    file, _ = parent
    monkeypatch.setenv(preemption.STOP_FILE, str(file))
    stop, write, seen = Stop(None), Path.write_text, []

    def slowly(path, text):
        path.touch()
        seen.append(stop.asked())
        return write(path, text)

    with stop.finishing_steps(), monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", slowly)
        os.kill(os.getpid(), signal.SIGTERM)
    assert (seen, stop.asked()) == ([None], 143)


def test_before_there_is_a_step_the_parent_ends_its_ranks(parent):
    file, ended = parent
    os.kill(os.getpid(), signal.SIGINT)
    assert (file.read_text(), ended) == ("130", [True])
