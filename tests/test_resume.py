"""A run that was broken off and goes on: the losses, rows and adapter of one that was never stopped, to the last byte."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback

import pytest
import torch
from accelerate.state import AcceleratorState

from text2sql import checkpoints, launch, lock, resuming, runs, seeds, snapshot, training
from text2sql.preemption import Interrupted
from text2sql.trainer import TokenBudgetTrainer

# Nine steps in two epochs, whose checkpoints, logs and evaluations fall on different steps.
SETTINGS = [
    "phase=1",
    "trainer.num_train_epochs=2",
    "trainer.batch_size=5",
    "trainer.save_steps=2",
    "trainer.logging_steps=3",
    "trainer.eval_steps=4",
    "trainer.save_total_limit=2",
]
TIMES = ("runtime", "per_second")

pytestmark = pytest.mark.usefixtures("one_thread")


class Killed(BaseException):
    pass


def rows(run):
    """What a run logged, but for how long it took, and its live samples."""
    history = [
        {key: value for key, value in row.items() if not key.endswith(TIMES)}
        for row in runs.read_jsonl(run / "history.jsonl")
    ]
    return history, runs.read_jsonl(run / "samples.jsonl")


def metrics(run):
    found = json.loads((run / "metrics.json").read_text())
    return {key: value for key, value in found.items() if key not in ("train/seconds", "train/examples_per_second")}


def break_off(monkeypatch, config, run, step):
    """Train until the gradient of `step` is wanted; what it had done by then is there, as after a kill."""
    compute = TokenBudgetTrainer.training_step

    def until(self, *some, **more):
        if self.state.global_step == step:
            raise Killed
        return compute(self, *some, **more)

    with monkeypatch.context() as patch:
        patch.setattr(TokenBudgetTrainer, "training_step", until)
        with pytest.raises(Killed):
            training.train(config, str(run))


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """The folder of the run that was never stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    training.train(small(*SETTINGS), str(run))
    torch.set_num_threads(before)
    return run


@pytest.mark.parametrize("step", [1, 8], ids=["before any checkpoint", "in the middle of epoch 2"])
def test_it_ends_as_the_run_that_was_never_stopped(small, tmp_path, monkeypatch, whole, step):
    run = tmp_path / "run"
    break_off(monkeypatch, small(*SETTINGS), run, step)
    loss = training.train(small(*SETTINGS, "resume=true", "trainer.save_total_limit=3", "eval.timeout_s=9"), str(run))
    assert loss == metrics(whole)["validation/loss"]
    assert runs.adapter_sha256(run / "adapter") == runs.adapter_sha256(whole / "adapter")
    assert rows(run) == rows(whole)
    assert metrics(run) == metrics(whole)
    stamp = runs.read(run)
    assert (stamp["status"], len(stamp["resumed"]), "error" in stamp) == ("finished", 1, False)


def test_a_damaged_checkpoint_costs_one_interval_and_no_bit(small, tmp_path, monkeypatch, whole, caplog):
    run = tmp_path / "run"
    break_off(monkeypatch, small(*SETTINGS), run, 5)
    optimizer = run / "checkpoints/checkpoint-4" / snapshot.OPTIMIZER
    optimizer.write_bytes(optimizer.read_bytes()[:-1])
    training.train(small(*SETTINGS, "resume=true"), str(run))
    assert "checkpoint-4 is damaged and passed over: optimizer.safetensors has" in caplog.text
    assert runs.adapter_sha256(run / "adapter") == runs.adapter_sha256(whole / "adapter")
    assert rows(run) == rows(whole)


def test_one_whose_steps_were_all_made_makes_no_more(small, tmp_path, monkeypatch):
    """Three of four steps of an epoch: upstream's loop would make the fourth."""
    settings = [*SETTINGS, "trainer.max_steps=3"]
    training.train(small(*settings), str(tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    runs.note(tmp_path / "run", status="running", process=None)
    monkeypatch.setattr(TokenBudgetTrainer, "training_step", None)
    training.train(small(*settings, "resume=true"), str(tmp_path / "run"))
    assert runs.adapter_sha256(tmp_path / "run/adapter") == runs.adapter_sha256(tmp_path / "whole/adapter")
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


def test_phase_2_goes_on_with_the_parent_it_had(small, curriculum, tmp_path, monkeypatch):
    """With NF4, and though a newer phase 1 is there by now."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(curriculum.one.run, tmp_path / "outputs/one")
    settings = ["phase=2", "trainer.save_steps=1"]
    break_off(monkeypatch, small(*settings), tmp_path / "run", 2)
    shutil.copytree(curriculum.one.run, tmp_path / "outputs/newer")
    runs.note(tmp_path / "outputs/newer", finished="9")
    training.train(small(*settings, "resume=true"), str(tmp_path / "run"))
    assert runs.read(tmp_path / "run")["parent"] == str(tmp_path / "outputs/one/adapter")
    assert runs.adapter_sha256(tmp_path / "run/adapter") == runs.adapter_sha256(curriculum.two.adapter)
    measured = metrics(tmp_path / "run")
    expected = curriculum.two.read("metrics.json")
    keys = ("validation/loss", "train/loss", "forgetting/loss_before", "forgetting/loss_after")
    assert [measured[key] for key in keys] == [expected[key] for key in keys]


def test_no_pickle_is_in_a_run(whole):
    pickles = [path for path in whole.rglob("*") if path.suffix in (".pt", ".pth", ".bin", ".pkl")]
    assert pickles == []
    assert {path.name for path in (whole / "checkpoints/checkpoint-10").iterdir()} >= {
        "adapter_model.safetensors",
        "optimizer.safetensors",
        "state.json",
        "trainer_state.json",
        "manifest.json",
    }


# What a folder holds


def test_an_empty_folder_starts_and_a_finished_run_is_left_alone(small, tmp_path, monkeypatch, whole):
    shutil.copytree(whole, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    monkeypatch.setattr(training, "_train", None)
    loss = launch.train(small(*SETTINGS, "resume=true"), str(tmp_path / "run"))
    assert loss == metrics(whole)["validation/loss"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    assert resuming.claim(tmp_path / "new", small(*SETTINGS, "resume=true"), kind="train") is False
    assert runs.read(tmp_path / "new")["status"] == "running"


@pytest.mark.parametrize("status", ["finished", "running"])
def test_other_settings_are_refused_with_their_keys(small, tmp_path, whole, status):
    shutil.copytree(whole, tmp_path / "run")
    runs.note(tmp_path / "run", status=status, process=None)
    before = (tmp_path / "run/run.json").read_bytes()
    other = small(*SETTINGS, "resume=true", "seed=43", "lora.r=8", "trainer.max_hours=3", "tracking=offline")
    with pytest.raises(ValueError, match=r"lora\.r is 8 here and 16 there; seed is 43 here and 42 there\. Leave"):
        launch.train(other, str(tmp_path / "run"))
    assert (tmp_path / "run/run.json").read_bytes() == before


def test_a_run_that_is_at_work_is_not_touched(small, tmp_path):
    config = small(*SETTINGS, "resume=true")
    resuming.claim(tmp_path, config, kind="train")
    with pytest.raises(ValueError, match="a process is training in"):
        resuming.claim(tmp_path, config, kind="train")


CLAIM = """
import sys, time
from pathlib import Path
from text2sql import lock
lock.hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_run_is_claimed_by_one_process_though_the_stamp_knows_the_holder_by_another_pid(small, tmp_path):
    """As from another machine or container: the stamp's process is not seen here, and the lock is."""
    config = small(*SETTINGS, "resume=true")
    resuming.claim(tmp_path, config, kind="train")
    lock.release(tmp_path)
    runs.note(tmp_path, process={"pid": 1, "boot": "another", "ticks": 0})
    with subprocess.Popen([sys.executable, "-c", CLAIM, tmp_path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=f"is being run by the process with pid {holder.pid} on"):
            training.train(config, str(tmp_path))
        holder.kill()
    assert resuming.claim(tmp_path, config, kind="train")
    lock.release(tmp_path)


def test_a_fork_keeps_no_lock_of_a_run_that_was_killed(tmp_path):
    """Forks that encode examples may outlive it."""
    lock.hold(tmp_path)
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    lock.release(tmp_path)
    done = subprocess.run([sys.executable, "-c", CLAIM.replace("60", "0"), tmp_path], capture_output=True, check=False)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert (done.returncode, done.stdout) == (0, b"held\n")


@pytest.mark.parametrize("stamp", ['{"kind": "evaluate", "status": "failed"}', '{"kind": "train", "status": "failed"}'])
def test_what_is_no_training_that_could_go_on_is_refused(small, tmp_path, stamp):
    (tmp_path / "run.json").write_text(stamp)
    with pytest.raises(ValueError, match="holds no training that could go on"):
        resuming.claim(tmp_path, small(*SETTINGS, "resume=true"), kind="train")


def test_a_stamp_that_was_broken_off_begins_anew(small, tmp_path):
    (tmp_path / "run.json").write_text('{"status": "run')
    assert resuming.claim(tmp_path, small(*SETTINGS, "resume=true"), kind="train")
    assert runs.read(tmp_path)["status"] == "running"


def test_other_data_are_refused(tmp_path):
    checkpoints.write(
        tmp_path / "checkpoint-1",
        lambda aside: snapshot.write_json(aside / "state.json", {"facts": {"data_sha256": "a"}}),
    )
    resuming.check_facts(tmp_path / "checkpoint-1", {"data_sha256": "a"})
    with pytest.raises(ValueError, match="data_sha256 is 'b' here and 'a' there"):
        resuming.check_facts(tmp_path / "checkpoint-1", {"data_sha256": "b"})


def as_before_seeds_had_names(run):
    """Make the checkpoints of a run those of a version that derived its seeds by sums and did not say so."""
    for checkpoint in checkpoints.all_in(run / "checkpoints"):
        state = snapshot.read_json(checkpoint / snapshot.STATE)
        assert state.pop("seeds") == seeds.SCHEME
        snapshot.write_json(checkpoint / snapshot.STATE, state)
        (checkpoint / checkpoints.MANIFEST).unlink()
        checkpoints.write(checkpoint, lambda aside, old=checkpoint: shutil.copytree(old, aside, dirs_exist_ok=True))
        assert checkpoints.damage(checkpoint) is None
    stamp = runs.read(run)
    assert stamp.pop("seeds") == seeds.SCHEME
    runs.write_stamp(run, stamp)


def test_a_checkpoint_whose_numbers_were_drawn_in_another_way_is_refused_and_left_as_it_is(
    small, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    break_off(monkeypatch, small(*SETTINGS), run, 5)
    as_before_seeds_had_names(run)
    runs.note(run, process=None)
    runs.append_jsonl(run / "history.jsonl", [{"step": 5}])

    def content():
        return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}

    before = content()
    with pytest.raises(
        ValueError, match=r"in another way \(1, here 2.*Begin anew in another folder with hydra\.run\.dir=DIR"
    ):
        training.train(small(*SETTINGS, "resume=true"), str(run))
    assert content() == before


def test_one_of_such_a_version_that_has_no_whole_checkpoint_begins_at_its_start(small, tmp_path, monkeypatch, whole):
    run = tmp_path / "run"
    break_off(monkeypatch, small(*SETTINGS), run, 3)
    as_before_seeds_had_names(run)
    runs.note(run, process=None)
    (run / "checkpoints/checkpoint-2" / snapshot.OPTIMIZER).write_bytes(b"torn")
    training.train(small(*SETTINGS, "resume=true"), str(run))
    assert runs.adapter_sha256(run / "adapter") == runs.adapter_sha256(whole / "adapter")
    assert runs.read(run)["seeds"] == seeds.SCHEME


# Several processes


def in_two_ranks(config, run):
    """Train in two forks of this process, which has imported everything; the exit code of both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = [os.fork() or _rank(config, run, {**where, "RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")]
    first, second = (os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert first == second
    return first


def _rank(config, run, environment):
    code = 1
    try:
        os.environ |= environment
        AcceleratorState._reset_state(reset_partial_state=True)  # the parent's says that there is one process
        launch._train_as_rank(config, str(run))
        code = 0
    except Interrupted as stopped:
        code = stopped.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def test_two_processes_go_on_as_if_never_stopped(small, tmp_path):
    """Each rank has its own random numbers, for dropout; the first attempt ends behind its first step."""
    settings = ["phase=1", "hardware.devices=2", "trainer.save_steps=100", "eval.num_live_samples=0"]
    assert in_two_ranks(small(*settings), tmp_path / "whole") == 0
    assert in_two_ranks(small(*settings, "trainer.max_hours=1e-9"), tmp_path / "run") == 75
    assert runs.read(tmp_path / "run")["status"] == "interrupted"
    assert [path.name for path in checkpoints.all_in(tmp_path / "run/checkpoints")] == ["checkpoint-1"]
    assert in_two_ranks(small(*settings, "resume=true"), tmp_path / "run") == 0
    randoms = snapshot.read_json(checkpoints.newest_whole(tmp_path / "run/checkpoints") / snapshot.STATE)["random"]
    assert len({one["torch"] for one in randoms}) == 2
    assert runs.adapter_sha256(tmp_path / "run/adapter") == runs.adapter_sha256(tmp_path / "whole/adapter")
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


def test_each_process_has_the_dropout_of_its_number(small, tmp_path):
    """Without any to draw, each is at its last step where it began."""
    settings = (
        "phase=1",
        "hardware.devices=2",
        "trainer.max_steps=1",
        "lora.lora_dropout=0.0",
        "eval.num_live_samples=0",
    )
    assert in_two_ranks(small(*settings), tmp_path / "run") == 0
    randoms = snapshot.read_json(tmp_path / "run/checkpoints/checkpoint-1" / snapshot.STATE)["random"]
    begun = [torch.Generator().manual_seed(seeds.derive(42, seeds.DROPOUT, rank)).get_state() for rank in range(2)]
    assert [one["torch"] for one in randoms] == [state.numpy().tobytes().hex() for state in begun]
