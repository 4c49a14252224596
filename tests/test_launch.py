"""Several processes, one run: the same losses, one folder, one log; and when a process fails, its error and no orphans."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from text2sql import commandline, launch, ranks

ROOT = Path(__file__).resolve().parent.parent
TRAIN = [sys.executable, str(ROOT / "train.py")]
TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--nproc-per-node=2",
    "--standalone",
    str(ROOT / "train.py"),
]
# Of the passes' arithmetic only the order of sums differs between one process and two.
EXACT = ["lora.lora_dropout=0", "trainer.max_steps=3"]

# train.py with a training that loads nothing: it stamps its folder as the real one does, and each rank then does ACTION.
# A rank imports this file too, and so has the same training.
DRIVER = """
import os, signal, sys, time, types
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, ROOT)
os.environ["HYDRA_MAIN_MODULE"] = "__main__"  # Hydra looks for conf/ beside train.py then
import text2sql
from text2sql import commandline, prompts, ranks, runs

def train(config, folder):
    if ranks.is_main():
        runs.start(Path(folder))
    try:
        _train(config)
    except BaseException as error:
        if ranks.is_main():
            runs.finish(Path(folder), "failed", error=repr(error))
        raise

def _train(config):
    from torch import distributed
    Path(f"rank-{ranks.rank()}.pid").write_text(str(os.getpid()))
    distributed.barrier()
    ACTION
    distributed.barrier()  # which a rank that is gone does not reach
    time.sleep(60)

text2sql.training = types.SimpleNamespace(train=train)
text2sql.model = types.SimpleNamespace(check_device=lambda hardware: None)
if __name__ == "__main__":
    import train
    with commandline.readable_errors():
        train.main()
"""


def environment(**more):
    kept = {key: value for key, value in os.environ.items() if key not in ("HYDRA_FULL_ERROR", "RANK", "WORLD_SIZE")}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def type_in(folder, command, *, timeout=300, **more):
    return subprocess.run(
        command, cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=timeout, check=False
    )


def driver(folder, action):
    """A command that is train.py, but that each rank does `action` where it would train."""
    script = folder / "driver.py"
    script.write_text(DRIVER.replace("ROOT", repr(str(ROOT))).replace("ACTION", action))
    return [sys.executable, str(script)]


def the_run(folder):
    (run,) = (folder / "outputs").iterdir()
    return run


def read(path):
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def losses(run):
    rows = read(run / "history.jsonl")
    return [(row["step"], key, row[key]) for row in rows for key in ("loss", "eval_loss", "grad_norm") if key in row]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def all_gone(folder):
    """Whether both ranks have ended, within seconds."""
    pids = [int((folder / f"rank-{rank}.pid").read_text()) for rank in (0, 1)]
    deadline = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(map(is_alive, pids))


# Which process this is


def test_a_process_that_nobody_launched_is_the_main_one_of_one(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (ranks.launched(), ranks.is_main()) == (False, True)
    assert (ranks.rank(), ranks.world_size(), ranks.local_rank(), ranks.local_world_size()) == (0, 1, 0, 1)


def test_a_rank_knows_its_number_and_its_gpu_from_the_environment(monkeypatch):
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert (ranks.launched(), ranks.is_main()) == (True, False)
    assert (ranks.rank(), ranks.world_size(), ranks.local_rank(), ranks.local_world_size()) == (5, 8, 1, 4)


# What a rank tells of its end


@pytest.fixture
def tell(tmp_path, monkeypatch):
    """A function by which a rank tells of its error, and the folder it tells it in."""

    def tell(rank, fail, at):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setattr("time.time", lambda: at)
        try:
            fail()
        except Exception as raised:
            (tmp_path / f"rank-{rank}.json").write_text(json.dumps(launch._describe(raised)))

    return SimpleNamespace(error=tell, folder=tmp_path)


def test_a_mistake_in_a_rank_stays_the_same_error(tell):
    tell.error(1, our_mistake, at=1)
    rank, error = launch._first_error(1, SimpleNamespace(exitcode=1), tell.folder)
    assert (rank, type(error)) == (1, ValueError)
    assert str(error).startswith("a sweep (-m) does not run under torchrun")


def raising(error):
    def fail():
        raise error

    return fail


def our_mistake():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", "-m"])
        patch.setenv("WORLD_SIZE", "2")
        with commandline._one_rank_writes():
            pass


def test_a_bug_in_a_rank_is_logged_with_its_stack_and_named_in_one_line(tell, caplog):
    tell.error(1, raising(KeyError("rows")), at=1)
    rank, error = launch._first_error(1, SimpleNamespace(exitcode=1), tell.folder)
    assert (rank, type(error), str(error)) == (1, RuntimeError, "rank 1 failed with KeyError: 'rows'")
    assert "Traceback" in caplog.text


def test_the_error_that_came_first_is_the_one_to_raise(tell):
    tell.error(0, raising(RuntimeError("connection closed by peer")), at=2)
    tell.error(1, raising(KeyError("rows")), at=1)
    assert launch._first_error(0, SimpleNamespace(exitcode=1), tell.folder)[0] == 1


def test_a_killed_rank_comes_before_the_errors_it_causes_in_others(tell):
    tell.error(0, raising(RuntimeError("connection closed by peer")), at=2)
    rank, error = launch._first_error(1, SimpleNamespace(exitcode=-signal.SIGKILL), tell.folder)
    assert rank == 1
    assert "rank 1 was ended by SIGKILL (by the system, when memory is short)" in str(error)


def test_a_rank_that_ends_without_a_word_is_named_with_its_exit_code(tmp_path):
    _, error = launch._first_error(1, SimpleNamespace(exitcode=3), tmp_path)
    assert "rank 1 ended with exit code 3" in str(error)


# What a rank says


@pytest.fixture
def bare_root():
    """The root logger with no handler for the length of a test."""
    root = logging.getLogger()
    before, level, factory = root.handlers[:], root.level, logging.getLogRecordFactory()
    root.handlers[:] = []
    yield root
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = before
    root.setLevel(level)
    logging.setLogRecordFactory(factory)


def test_rank_0_logs_to_the_file_of_the_parent_in_its_format(tmp_path, bare_root, monkeypatch):
    parents = logging.FileHandler(tmp_path / "train.log")
    parents.setFormatter(logging.Formatter("<%(message)s>"))
    bare_root.addHandler(parents)
    bare_root.setLevel(logging.INFO)
    outputs = launch._outputs()
    bare_root.removeHandler(parents)
    parents.close()
    monkeypatch.setenv("RANK", "0")
    launch._log_as_rank(outputs)
    logging.getLogger("text2sql.any").info("step %d", 1)
    logging.getLogger("text2sql.any").debug("not this")
    assert (tmp_path / "train.log").read_text() == "<step 1>\n"


def test_other_ranks_log_only_warnings_with_their_number(tmp_path, bare_root, monkeypatch):
    monkeypatch.setattr(launch, "_hide_progress_bars", lambda: None)
    monkeypatch.setenv("RANK", "3")
    launch._log_as_rank([launch.Output(str(tmp_path / "train.log"), logging.INFO, logging.Formatter("%(message)s"))])
    logging.getLogger("text2sql.any").info("not this")
    logging.getLogger("text2sql.any").warning("%d rows", 2)
    assert (tmp_path / "train.log").read_text() == "[rank 3] 2 rows\n"


# Under torchrun


def test_a_sweep_under_torchrun_is_refused_with_the_way_to_do_it(tmp_path):
    done = type_in(tmp_path, [*TRAIN, "-m", "phase=1,2"], RANK="0", WORLD_SIZE="2")
    assert done.returncode == 2
    assert "error: a sweep (-m) does not run under torchrun" in done.stderr
    assert "hardware.devices=N" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_hydra_writes_nothing_in_ranks_other_than_0(tmp_path):
    wrong = ["model=tiny", "trainer.batch_size=0", "hydra.run.dir=here", "hydra/job_logging=default"]
    done = type_in(tmp_path, [*TRAIN, *wrong], RANK="1", WORLD_SIZE="2")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "[rank 1] error: trainer.batch_size=0 must be positive"
    assert list(tmp_path.iterdir()) == []


# Whole runs


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory, small_overrides):
    """The folders of the same run in one process, in two, and in two under torchrun."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("one", "two", "torchrun")}
    commands = {"one": TRAIN, "two": [*TRAIN, "hardware.devices=2"], "torchrun": TORCHRUN}
    said = {}
    for name, folder in folders.items():
        done = type_in(folder, [*commands[name], *small_overrides, *EXACT])
        assert done.returncode == 0, done.stderr
        said[name] = done.stdout
    return SimpleNamespace(said=said, **{name: the_run(folder) for name, folder in folders.items()})


@pytest.mark.slow
@pytest.mark.parametrize("which", ["two", "torchrun"])
def test_two_processes_learn_what_one_learns(one_and_two, which):
    expected, got = losses(one_and_two.one), losses(getattr(one_and_two, which))
    assert [row[:2] for row in got] == [row[:2] for row in expected]
    assert [row[2] for row in got] == pytest.approx([row[2] for row in expected], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["two", "torchrun"])
def test_two_processes_leave_one_folder_with_what_one_leaves(one_and_two, which):
    run, single = getattr(one_and_two, which), one_and_two.one
    assert {path.name for path in run.iterdir()} == {path.name for path in single.iterdir()}
    assert (read(run / "run.json")["status"], read(run / "run.json")["processes"]) == ("finished", 2)
    counted = ("train/steps", "train/examples", "train/tokens", "validation/examples")
    assert [read(run / "metrics.json")[key] for key in counted] == [
        read(single / "metrics.json")[key] for key in counted
    ]
    log = (run / "train.log").read_text(encoding="utf-8")
    assert log.count("phase 1 done in") == one_and_two.said[which].count("phase 1 done in") == 1
    assert one_and_two.said[which].count("trainable parameters, adapter from") == 1
    informed = [line for line in log.splitlines() if "[INFO]" in line]
    assert not [line for line in informed if "[rank 1]" in line]


ONLY_RANK_1 = "if ranks.rank() == 1: "


@pytest.mark.slow
@pytest.mark.parametrize(
    "action, said, stamped",
    [
        (
            "prompts.check_style(replace(config.prompt, style='haiku'))",
            "error: prompt.style=haiku",
            "rank 1: ValueError('prompt.style=haiku",
        ),
        ("os.kill(os.getpid(), signal.SIGKILL)", "error: rank 1 was ended by SIGKILL", "rank 1 was ended by SIGKILL"),
    ],
    ids=["a mistake", "a kill"],
)
def test_the_end_of_one_rank_ends_the_run_with_its_error(tmp_path, small_overrides, action, said, stamped):
    done = type_in(tmp_path, [*driver(tmp_path, ONLY_RANK_1 + action), "hardware.devices=2", *small_overrides])
    assert done.returncode == 2
    assert said in done.stderr
    assert len([line for line in done.stderr.splitlines() if "error: " in line]) == 1, done.stderr
    assert "Traceback" not in done.stderr
    stamp = read(the_run(tmp_path) / "run.json")
    assert stamp["status"] == "failed"
    assert stamped in stamp["error"]
    assert all_gone(tmp_path)


@pytest.mark.slow
def test_a_run_whose_rank_0_is_killed_does_not_stay_running(tmp_path, small_overrides):
    action = "if ranks.is_main(): os.kill(os.getpid(), signal.SIGKILL)"
    done = type_in(tmp_path, [*driver(tmp_path, action), "hardware.devices=2", *small_overrides])
    assert done.returncode == 2
    stamp = read(the_run(tmp_path) / "run.json")
    assert (stamp["status"], "rank 0 was ended by SIGKILL" in stamp["error"]) == ("failed", True)


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_no_rank_outlives_the_command(tmp_path, small_overrides, number, code):
    command = [*driver(tmp_path, "Path(f'rank-{ranks.rank()}.there').touch(); time.sleep(60)"), "hardware.devices=2"]
    process = subprocess.Popen(
        [*command, *small_overrides],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("*.there"))) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(timeout=30) == code
    finally:
        process.kill()
    assert all_gone(tmp_path)
    expected = "running" if number == signal.SIGKILL else "interrupted"
    assert read(the_run(tmp_path) / "run.json")["status"] == expected


@pytest.mark.slow
def test_under_torchrun_too_a_rank_that_is_killed_ends_the_run(tmp_path, small_overrides):
    _, script = driver(tmp_path, "if ranks.rank() == 1: os.kill(os.getpid(), signal.SIGKILL)\n    time.sleep(60)")
    done = type_in(tmp_path, [*TORCHRUN[:-1], script, *small_overrides], timeout=90)
    assert done.returncode != 0
    assert all_gone(tmp_path)
    stamp = read(the_run(tmp_path) / "run.json")
    assert (stamp["status"], stamp["error"][:8]) == ("interrupted", "SIGTERM:")


@pytest.mark.slow
def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_is(tmp_path, small_overrides):
    (tmp_path / "run.json").write_text('{"status": "finished"}')
    command = [*driver(tmp_path, "pass"), "hardware.devices=2", f"hydra.run.dir={tmp_path}", *small_overrides]
    done = type_in(tmp_path, command)
    assert done.returncode == 2
    assert "already holds a run" in done.stderr
    assert read(tmp_path / "run.json") == {"status": "finished"}


def test_a_training_is_followed_by_its_evaluation_where_asked_for(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = small("phase=1", "data=spider", "trainer.max_steps=2", "eval.after_phase=1", "data.max_test_samples=2")
    loss = launch.run(asked, str(tmp_path / "run"))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["validation/loss"] == loss
    assert metrics["eval/examples"] == 2
    assert (tmp_path / "run" / "evaluation" / "predictions.jsonl").is_file()
    assert json.loads((tmp_path / "run" / "evaluation" / "run.json").read_text())["status"] == "finished"


def test_an_evaluation_that_a_kill_kept_from_the_runs_metrics_reaches_them_when_the_run_goes_on(
    small, tmp_path, monkeypatch
):
    written = {
        "run.json": {"kind": "train", "status": "finished"},
        "metrics.json": {"validation/loss": 2.0},
        "evaluation/run.json": {"kind": "evaluate", "status": "finished"},
        "evaluation/metrics.json": {"eval/execution_accuracy": 0.5},
    }
    (tmp_path / "evaluation").mkdir()
    for name, value in written.items():
        (tmp_path / name).write_text(json.dumps(value))
    monkeypatch.setattr(launch, "train", lambda config, folder: 2.0)
    assert launch.run(small("phase=1", "eval.after_phase=1", "resume=true"), str(tmp_path)) == 2.0
    assert read(tmp_path / "metrics.json") == {"validation/loss": 2.0, "eval/execution_accuracy": 0.5}
    assert read(tmp_path / "evaluation/run.json") == written["evaluation/run.json"]


def test_of_another_phase_it_is_not(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    launch.run(small("phase=1", "data=spider", "trainer.max_steps=2", "eval.after_phase=2"), str(tmp_path / "run"))
    assert not (tmp_path / "run" / "evaluation").exists()
