"""A sweep that was cut short goes on where it was, by the command that was typed or by its folder, and loses nothing."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal

import pytest
import stand_in

from text2sql import cli, sweeps
from text2sql.driver import resume

ENDS = "train.py end=well,kill,raise x=1"


@pytest.fixture(scope="module")
def half_done(tmp_path_factory):
    """A folder with a sweep of which job 0 finished and 1 and 2 failed."""
    folder = tmp_path_factory.mktemp("half")
    stand_in.write(folder)
    assert stand_in.type_in(folder, f"{ENDS} hydra.sweep.dir=multirun/s").returncode == 1
    return folder


@pytest.fixture
def folder(half_done, tmp_path):
    return shutil.copytree(half_done, tmp_path / "copy")


def started(folder):
    return [job for job, _, _ in stand_in.starts(folder)]


def test_the_same_command_runs_only_what_is_missing_in_the_same_numbers(folder):
    (folder / "good").touch()
    before = (folder / "multirun/s/0/run.json").read_bytes()
    again = stand_in.type_in(folder, "train.py x=1 end=well,kill,raise resume=true")  # in another order
    assert again.returncode == 0, again.stderr
    assert "jobs: 3 finished (1 of them before), 0 failed" in again.stderr
    assert started(folder) == [0, 1, 2, 1, 2]
    assert (folder / "multirun/s/0/run.json").read_bytes() == before
    table = sweeps.read([folder / "multirun/s"])
    assert [(line.job.name, line.job.status) for line in table.lines] == [(str(n), "finished") for n in range(3)]
    assert table.keys == ["end"], "resume=true is no key of a sweep"


def test_what_a_failed_job_left_is_set_aside_and_kept(folder):
    stand_in.type_in(folder, f"{ENDS} resume=true")
    aside = folder / "multirun/s/.before/1.1"
    assert json.loads((aside / "run.json").read_text())["status"] == "failed"


def test_a_job_with_a_checkpoint_goes_on_in_its_folder(folder):
    checkpoint = folder / "multirun/s/1/checkpoints/checkpoint-5"
    checkpoint.mkdir(parents=True)
    (folder / "good").touch()
    stand_in.type_in(folder, f"{ENDS} resume=true")
    assert checkpoint.exists()
    assert "resume=True" in (folder / "multirun/s/1/.hydra/overrides.yaml").read_text()


def test_all_is_kept_where_nothing_is_missing(folder):
    (folder / "good").touch()
    stand_in.type_in(folder, f"{ENDS} resume=true")
    begun = started(folder)
    again = stand_in.type_in(folder, f"{ENDS} resume=true")
    assert "jobs: 3 finished (3 of them before), 0 failed" in again.stderr
    assert started(folder) == begun


def test_a_driver_that_was_killed_leaves_nothing_that_blocks_or_runs_twice(folder):
    process = stand_in.begin(folder, "train.py end=well,sleep hydra.sweep.dir=multirun/killed")
    stand_in.wait_for(lambda: len(stand_in.starts(folder)) == 5)
    stand_in.end(process)
    (folder / "good").touch()
    again = stand_in.type_in(folder, "train.py end=well,sleep resume=true")
    assert again.returncode == 0, again.stderr
    assert started(folder)[3:] == [0, 1, 1]
    assert not stand_in.is_alive(stand_in.starts(folder)[4][2])


REFUSED = {
    "no such sweep": (
        "train.py x=7 resume=true",
        ["no sweep of train.py", "`x=7`", "multirun/s: python train.py -m end="],
    ),
    "another sweep's folder": (
        "train.py x=7 resume=true hydra.sweep.dir=multirun/s",
        ["multirun/s was typed with `end=well,kill,raise x=1` and not with `x=7`"],
    ),
    "no folder": ("train.py resume=true hydra.sweep.dir=multirun/t", ["multirun/t is no folder"]),
    "no sweep": ("train.py resume=true hydra.sweep.dir=conf", ["conf has no multirun.yaml"]),
    "no resume": (f"{ENDS} hydra.sweep.dir=multirun/s", ["multirun/s holds a sweep already", "resume=true"]),
}


@pytest.mark.parametrize(("typed", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_resumed_is_refused_before_anything_starts(half_done, typed, words):
    before = {path: path.read_bytes() for path in (half_done / "multirun").rglob("*") if path.is_file()}
    ended = stand_in.type_in(half_done, typed)
    assert ended.returncode == 2
    assert [word for word in words if word not in ended.stderr] == []
    after = {path: path.read_bytes() for path in (half_done / "multirun").rglob("*") if path.is_file()}
    assert {path: text for path, text in after.items() if path.name != ".lock"} == {
        path: text for path, text in before.items() if path.name != ".lock"
    }


def test_a_job_that_was_another_one_is_refused_with_both(folder):
    overrides = folder / "multirun/s/0/.hydra/overrides.yaml"
    overrides.write_text("- end=well\n- x=2\n")
    ended = stand_in.type_in(folder, f"{ENDS} resume=true")
    assert ended.returncode == 2
    assert "multirun/s/0 was run with `end=well x=2` and its number would now be `end=well x=1`" in ended.stderr
    assert started(folder) == [0, 1, 2]


@pytest.mark.parametrize("text", ["", '{"status": "fini', "[]", "\0"])
def test_a_job_whose_stamp_is_broken_runs_again(folder, text):
    (folder / "multirun/s/0/run.json").write_text(text)
    assert resume.finished_value(folder / "multirun/s/0") is None
    resume.make_room(folder / "multirun/s/0")
    assert (folder / "multirun/s/.before/0.1/run.json").read_text() == text


@pytest.mark.parametrize("cut", [0, 300])
def test_a_sweep_whose_multirun_yaml_was_cut_goes_on_when_it_is_named(folder, cut):
    path = folder / "multirun/s/multirun.yaml"
    path.write_text(path.read_text()[:cut])
    with pytest.raises(ValueError, match=r"its jobs are untouched: type the command.*hydra.sweep.dir=.*resume=true"):
        resume.command(folder / "multirun/s")
    (folder / "good").touch()
    again = stand_in.type_in(folder, f"{ENDS} resume=true hydra.sweep.dir=multirun/s")
    assert "jobs: 3 finished (1 of them before), 0 failed" in again.stderr


# text2sql resume


def test_a_folder_is_resumed_by_the_command_that_made_it(folder, monkeypatch, capsys):
    called = []
    monkeypatch.setattr(os, "execv", lambda path, words: called.append(words[1:]))
    monkeypatch.setattr(os, "chdir", lambda path: None)
    assert cli.main(["resume", str(folder / "multirun/s"), "hydra.launcher.processes=2"]) == 0
    ((script, *arguments),) = called
    assert script == str(stand_in.ROOT / "train.py")
    place = f"hydra.sweep.dir={folder}/multirun/s"
    typed = ["end=well,kill,raise", "x=1"]
    assert arguments == ["-m", *typed, "resume=true", place, "hydra.launcher.processes=2"]
    assert capsys.readouterr().out.startswith("$ python train.py -m end=well,kill,raise x=1 resume=true")


SAVED = "--config-dir saved --config-name config"


def test_a_sweep_over_a_saved_config_is_resumed_and_is_no_sweep_over_our_own(folder):
    (folder / "saved").mkdir()
    (folder / "saved/config.yaml").write_text((folder / "conf/train.yaml").read_text())
    (folder / "good").touch()
    typed = f"train.py {SAVED} end=well,raise"
    assert stand_in.type_in(folder, f"{typed} hydra.sweep.dir=multirun/t").returncode == 0
    name, where, arguments = resume.command(folder / "multirun/t")
    assert (name, where) == ("train", folder)
    assert arguments[:4] == ["-m", f"--config-dir={folder}/saved", "--config-name=config", "end=well,raise"]
    for again in (f"train.py {shlex.join(arguments[1:])}", f"{typed} resume=true"):
        done = stand_in.type_in(folder, again)
        assert "jobs: 2 finished (2 of them before), 0 failed" in done.stderr
    other = stand_in.type_in(folder, "train.py end=well,raise resume=true")
    assert other.returncode == 2
    assert f"multirun/t: python train.py -m --config-dir={folder}/saved --config-name=config end=well,raise" in (
        other.stderr
    )


def test_a_folder_is_resumed_where_it_was_typed(half_done):
    name, where, arguments = resume.command(half_done / "multirun/s")
    assert (name, where, arguments[-1]) == ("train", half_done, "hydra.sweep.dir=multirun/s")


def test_a_sweep_elsewhere_is_resumed_where_it_was_typed_too(half_done, tmp_path):
    shutil.copytree(half_done / "multirun/s", tmp_path / "s")
    name, where, arguments = resume.command(tmp_path / "s")
    assert (name, where, arguments[-1]) == ("train", half_done, f"hydra.sweep.dir={tmp_path}/s")


def test_where_that_folder_is_gone_a_sweep_is_resumed_here(folder, tmp_path, monkeypatch):
    multirun = folder / "multirun/s/multirun.yaml"
    text = multirun.read_text()
    multirun.write_text(re.sub("cwd: .*", "cwd: /nonexistent", text))
    monkeypatch.chdir(tmp_path)
    _, where, arguments = resume.command(folder / "multirun/s")
    assert (where, arguments[-1]) == (tmp_path, "hydra.sweep.dir=copy/multirun/s")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "has no multirun.yaml"),
        ("hydra: {job: {name: my_app}, overrides: {task: []}}", "a sweep of my_app.py, not of train.py"),
        ("just text", "incomplete or not Hydra's"),
        ("{a: [", "cannot be read"),
    ],
)
def test_a_folder_that_is_no_sweep_of_ours_is_refused(tmp_path, capsys, text, words):
    if text is not None:
        (tmp_path / "multirun.yaml").write_text(text)
    assert cli.main(["resume", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err


def test_the_jobs_of_a_resumed_sweep_cannot_be_changed(tmp_path, capsys):
    assert cli.main(["resume", str(tmp_path), "seed=3"]) == 2
    assert "seed=3 would change the sweep's jobs" in capsys.readouterr().err


# What counts as finished


@pytest.mark.parametrize(
    ("stamp", "metrics", "needs", "value"),
    [
        ({"status": "finished", "kind": "train"}, {"validation/loss": 2}, None, 2.0),
        ({"status": "finished", "kind": "evaluate"}, {"eval/execution_accuracy": 0.5}, None, 0.5),
        ({"status": "finished", "kind": "train"}, {"validation/loss": 2}, "eval/execution_accuracy", None),
        ({"status": "finished", "kind": "train"}, {}, None, None),
        ({"status": "running", "kind": "train"}, {"validation/loss": 2}, None, None),
    ],
)
def test_a_job_has_finished_when_its_files_say_so_in_full(tmp_path, stamp, metrics, needs, value):
    (tmp_path / "run.json").write_text(json.dumps(stamp))
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    assert resume.finished_value(tmp_path, needs) == value


def test_a_training_that_misses_only_its_evaluation_keeps_what_it_has(tmp_path):
    (tmp_path / "run.json").write_text('{"status": "finished", "kind": "train"}')
    (tmp_path / "metrics.json").write_text('{"validation/loss": 2}')
    resume.make_room(tmp_path)
    assert (tmp_path / "run.json").exists()


# The kill test in short; benchmarks/sweep_kills.py is the long one.


def test_a_sweep_whose_jobs_and_driver_are_killed_ends_with_every_job_finished_once(tmp_path):
    stand_in.write(tmp_path)
    typed = "train.py end=sleep x=1,2,3,4 hydra.sweep.dir=multirun/s hydra.launcher.processes=2"
    process = stand_in.begin(tmp_path, typed)
    stand_in.wait_for(lambda: len(stand_in.starts(tmp_path)) == 2)
    os.kill(stand_in.starts(tmp_path)[0][2], signal.SIGKILL)
    stand_in.wait_for(lambda: len(stand_in.starts(tmp_path)) == 3)
    stand_in.end(process)
    (tmp_path / "good").touch()
    last = stand_in.type_in(tmp_path, f"{typed} resume=true")
    assert "jobs: 4 finished, 0 failed" in last.stderr
    counts = [started(tmp_path).count(job) for job in range(4)]
    assert counts == [2, 2, 2, 1]
    assert stand_in.type_in(tmp_path, f"{typed} resume=true").returncode == 0
    assert [started(tmp_path).count(job) for job in range(4)] == counts
