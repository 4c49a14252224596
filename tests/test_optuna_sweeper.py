"""A sweep by an optuna study: its space, its jobs, what a killed driver leaves, and jobs that end early; objectives are tiny."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from text2sql import sweeps
from text2sql.driver import journal

optuna = pytest.importorskip("optuna", reason="needs optuna: pip install -e '.[optuna]'")

from text2sql.studies import pruning, storage  # noqa: E402
from text2sql.studies.settings import Pruner, Sampler, Settings, check  # noqa: E402
from text2sql.studies.space import parse  # noqa: E402
from text2sql.studies.trials import Trials  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent

# train.py with an objective in place of a training: the distance of the rate from 1e-3. Its folder is a run's.
DRIVER = """
import json, os, sys, time, types
from pathlib import Path
sys.path.insert(0, ROOT)
os.environ["HYDRA_MAIN_MODULE"] = "__main__"
import text2sql
from text2sql import commandline, launch

def run(settings, folder):
    run = Path(folder)
    (run / "run.json").write_text(json.dumps({"status": "running", "kind": "train"}))
    with open("started", "a") as file:
        print(run.name, settings.resume, file=file)
    value = abs(settings.trainer.learning_rate - 1e-3)
    ACTION
    (run / "metrics.json").write_text(json.dumps({"validation/loss": value}))
    (run / "run.json").write_text(json.dumps({"status": "finished", "kind": "train"}))
    return value

launch.run = run
if __name__ == "__main__":
    import train
    with commandline.readable_errors():
        train.main()
"""
RATE = "trainer.learning_rate=tag(log,interval(1e-5,1e-2))"
STUDY = ["-m", "hydra/sweeper=optuna", "model=tiny", "hydra.sweep.dir=study"]
BASIC = [*STUDY, "hydra/launcher=basic"]


def script(folder, action="pass"):
    path = folder / "train.py"
    path.write_text(DRIVER.replace("ROOT", repr(str(ROOT))).replace("ACTION", action))
    return path


def type_in(folder, *arguments, action="pass", study=BASIC):
    """Run the sweep in a process of its own, in `folder`."""
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    command = [sys.executable, str(script(folder, action)), *study, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def started(folder):
    return [line.split() for line in (folder / "started").read_text().splitlines()]


def results(folder):
    return yaml.safe_load((folder / "study/optimization_results.yaml").read_text())


def finished(folder, number, **metrics):
    run = folder / str(number)
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"status": "finished"}))
    (run / "metrics.json").write_text(json.dumps(metrics))


def trials(folder, space=("lora.r=1,2,3,4",), maximize=False, **settings):
    folder.mkdir(exist_ok=True)
    return Trials(
        folder, Settings(**{"n_trials": 4, "sampler": Sampler.random, **settings}), parse({}, space), maximize
    )


# The space, in Hydra's grammar


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a=range(1,6)", optuna.distributions.IntDistribution(1, 5)),
        ("a=range(0,10,3)", optuna.distributions.IntDistribution(0, 9, step=3)),
        ("a=range(6,1,-1)", optuna.distributions.IntDistribution(2, 6)),
        ("a=range(0.0,0.3,0.1)", optuna.distributions.FloatDistribution(0.0, 0.2, step=0.1)),
        ("a=interval(1e-5,1e-3)", optuna.distributions.FloatDistribution(1e-5, 1e-3)),
        ("a=tag(log,interval(1e-5,1e-3))", optuna.distributions.FloatDistribution(1e-5, 1e-3, log=True)),
        ("a=int(interval(1,5))", optuna.distributions.IntDistribution(1, 4)),
        ("a=tag(log,int(interval(4,65)))", optuna.distributions.IntDistribution(4, 64, log=True)),
        ("a=choice(x,y)", optuna.distributions.CategoricalDistribution(["x", "y"])),
        ("a=[q],[k,v]", optuna.distributions.CategoricalDistribution(["[q]", "[k,v]"])),
        ("a=shuffle(2,1)", optuna.distributions.CategoricalDistribution(["1", "2"])),
    ],
)
def test_a_space_is_what_hydra_documents(override, expected):
    assert parse({}, [override]).distributions == {"a": expected}


def test_the_command_line_wins_over_the_config_and_what_is_not_swept_is_fixed():
    space = parse({"a": "1,2", "b": "1,2"}, ["a=3,4", "c='x y'", "b=7", "~d"])
    assert list(space.distributions) == ["a"]
    assert space.overrides({"a": "3"}) == ["b=7", "c='x y'", "~d", "a=3"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["a=1"], "nothing to search"),
        (["phase='1','2'"], "phase cannot be searched"),
        (["a=interval(2,2)"], r"a: interval\(2.0,2.0\) is empty"),
        (["a=tag(log,interval(0,2))"], "no logarithm"),
        (["a=range(3,3)"], "its end is not part of it"),
        (["a=tag(log,range(1,9))"], "a range has steps"),
        (["a=tag(log,choice(1,2))"], "choices have no logarithm"),
        (["a=tag(normal,interval(1,2))"], "the tag normal is not known"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_its_key(overrides, message):
    with pytest.raises(ValueError, match=message):
        parse({}, overrides)


def test_the_ends_of_a_space_have_every_choice_and_both_ends():
    ends = parse({}, ["a=x,y,z", "b=range(1,6)"]).ends()
    assert ends == [{"a": "x", "b": 1}, {"a": "y", "b": 5}, {"a": "z", "b": 1}]


def test_a_grid_has_every_combination_once_and_no_interval(tmp_path):
    study = trials(tmp_path / "s", ["a=x,y", "b=range(0.0,0.3,0.1)"], sampler=Sampler.grid, n_trials=99)
    found = []
    while jobs := study.next():
        found += [tuple(job.params.values()) for job in jobs]
        finished(tmp_path / "s", jobs[0].number, **{"validation/loss": 1.0})
        study.record(jobs[0], None)
    assert found == [(a, pytest.approx(b)) for a in "xy" for b in (0.0, 0.1, 0.2)]
    with pytest.raises(ValueError, match="b: sampler=grid needs choices or a range"):
        trials(tmp_path / "t", ["a=x,y", "b=interval(0,1)"], sampler=Sampler.grid)


# The jobs of a study


def test_a_study_ends_with_as_many_jobs_as_asked_for_and_goes_on_when_more_are(tmp_path):
    for asked, expected in ((2, [0, 1]), (2, []), (3, [2])):
        study, numbers = trials(tmp_path, n_trials=asked), []
        while jobs := study.next():
            finished(tmp_path, jobs[0].number, **{"validation/loss": 1.0 / (1 + jobs[0].number)})
            study.record(jobs[0], None)
            numbers.append(jobs[0].number)
        assert numbers == expected
    assert study.best().user_attrs["job"] == 2


@pytest.mark.parametrize("sampler", [Sampler.random, Sampler.tpe])
def test_a_study_that_is_cut_short_chooses_what_an_undisturbed_one_does(tmp_path, sampler):
    def chosen(folder, cuts):
        found = {}
        while len(found) < 8:
            study = trials(folder, ["a=interval(0,1)"], sampler=sampler, n_trials=8, n_startup_trials=3)
            for _ in range(cuts):
                for job in study.next():
                    finished(folder, job.number, **{"validation/loss": job.params["a"]})
                    study.record(job, None)
                    found[job.number] = job.params["a"]
        return found

    assert chosen(tmp_path / "cut", 2) == chosen(tmp_path / "whole", 8)
    assert len(set(chosen(tmp_path / "again", 3).values())) == 8


def test_a_job_that_died_runs_again_with_its_settings_in_its_folder(tmp_path):
    first = trials(tmp_path, n_jobs=3, n_trials=4).next()
    finished(tmp_path, 1, **{"validation/loss": 0.5})  # done, but nobody has told the study
    (tmp_path / "2").mkdir()
    (tmp_path / "2/run.json").write_text('{"status": "running"}')
    study = trials(tmp_path, n_jobs=3, n_trials=4)
    second = study.next()
    assert [(job.number, job.again) for job in second] == [(0, True), (2, True), (3, False)]
    assert [second[0].params, second[1].params] == [first[0].params, first[2].params]
    assert study.best().value == 0.5


def test_a_failed_job_has_its_reason_and_starts_again_only_with_the_next_driver(tmp_path):
    study = trials(tmp_path, n_trials=1)
    study.record(study.next()[0], "RuntimeError: out of memory")
    assert study.next() == []
    assert study.failures() == {0: "RuntimeError: out of memory"}
    assert [job.number for job in trials(tmp_path, n_trials=1).next()] == [0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_no_number_is_a_failure(tmp_path, value):
    study = trials(tmp_path, n_trials=1)
    (job,) = study.next()
    finished(tmp_path, 0, **{"validation/loss": value})
    study.record(job, None)
    assert study.failures() == {0: f"its validation/loss is {value}"}


def test_a_metric_that_jobs_do_not_have_ends_the_study_with_its_cure(tmp_path):
    study = trials(tmp_path, metric="eval/execution_accuracy", maximize=True)
    (job,) = study.next()
    finished(tmp_path, 0, **{"validation/loss": 1.0})
    with pytest.raises(ValueError, match=r"which has validation/loss; .* eval\.after_phase"):
        study.record(job, None)


def test_the_highest_accuracy_is_the_best(tmp_path):
    study = trials(tmp_path, metric="eval/execution_accuracy", maximize=True, n_trials=2)
    for accuracy in (0.7, 0.4):
        (job,) = study.next()
        finished(tmp_path, job.number, **{"eval/execution_accuracy": accuracy})
        study.record(job, None)
    assert study.best().value == 0.7


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (["lora.r=1,2"], "lora.r is 1 or 2 here and 1 or 2 or 3 or 4 there"),
        (["lora.r=1,2,3,4", "seed=7"], "seed is 7 here and not set there"),
    ],
)
def test_a_study_of_another_space_is_refused_with_the_keys_that_differ(tmp_path, space, said):
    trials(tmp_path).next()
    with pytest.raises(ValueError, match=said):
        trials(tmp_path, space)
    trials(tmp_path, ["lora.r=1,2,3,4", "resume=true", "hydra.verbose=true"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(n_trials=0), "hydra.sweeper.n_trials=0 must be positive"),
        (Settings(n_jobs=-1), "hydra.sweeper.n_jobs=-1 must be positive"),
        (
            Settings(prune_on="loss"),
            "hydra.sweeper.prune_on=loss must be one of validation/loss, live/execution_accuracy",
        ),
    ],
)
def test_a_study_that_cannot_be_is_refused_by_its_setting(settings, message):
    with pytest.raises(ValueError, match=message):
        check(settings)


# Its file


def test_a_line_that_a_full_disk_has_cut_off_is_dropped(tmp_path):
    trials(tmp_path).next()
    with (tmp_path / storage.JOURNAL).open("ab") as file:
        file.write(b'{"op_code":4,"tru')
    study = trials(tmp_path)
    assert [job.number for job in study.next()] == [0]


def test_a_killed_process_leaves_no_lock_behind(tmp_path):
    code = f"""
import os, signal
from text2sql.studies.storage import KernelLock
KernelLock({str(tmp_path / "lock")!r}).acquire()
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    lock = storage.KernelLock(str(tmp_path / "lock"))
    assert lock.acquire()
    lock.release()


# Jobs that end early


def judge(folder, monkeypatch, job, prune_on="validation/loss"):
    where = str(folder / storage.JOURNAL)
    monkeypatch.setenv(pruning.VARIABLE, pruning.variable(where, "study", job.trial))
    return pruning.of_this_job()


@pytest.mark.parametrize(
    ("maximize", "prune_on", "good", "bad"),
    [
        (False, "validation/loss", 1.0, 2.0),
        (True, "validation/loss", 1.0, 2.0),
        (True, "live/execution_accuracy", 0.5, 0.1),
        (False, "live/execution_accuracy", 0.5, 0.1),
    ],
)
def test_a_job_worse_than_the_median_is_ended(tmp_path, monkeypatch, maximize, prune_on, good, bad):
    metric = "eval/execution_accuracy" if maximize else "validation/loss"
    settings = {
        "pruner": Pruner.median,
        "prune_on": prune_on,
        "pruner_startup_trials": 1,
        "metric": metric,
        "n_trials": 3,
    }
    study = trials(tmp_path, maximize=maximize, **settings)
    (first,) = study.next()
    assert not judge(tmp_path, monkeypatch, first).says_stop(10, good)
    finished(tmp_path, 0, **{metric: 0.5})
    study.record(first, None)
    (second,) = study.next()
    assert judge(tmp_path, monkeypatch, second).says_stop(10, bad)
    (tmp_path / "1").mkdir()
    (tmp_path / "1/run.json").write_text(json.dumps({"status": "pruned", "reason": "pruned at step 10"}))
    study.record(second, None)
    assert study.counts() == {"complete": 1, "pruned": 1}
    (third,) = study.next()
    assert not judge(tmp_path, monkeypatch, third).says_stop(10, good)


def test_outside_a_study_nothing_is_judged(monkeypatch):
    monkeypatch.delenv(pruning.VARIABLE, raising=False)
    assert pruning.of_this_job() is None


def test_a_study_that_is_out_of_reach_stops_no_job(tmp_path, caplog):
    class Gone:
        def __getattr__(self, name):
            raise OSError("the disk is gone")

    assert not pruning.Judge(Gone(), None, 0, "validation/loss", 1.0).says_stop(1, 2.0)
    assert "the job goes on" in caplog.text


@pytest.mark.usefixtures("one_thread")
def test_a_training_that_its_study_gives_up_says_so_and_makes_no_adapter(tmp_path, monkeypatch, small):
    from text2sql import launch

    class Strict:
        metric = "validation/loss"

        def says_stop(self, step, value):
            return step >= 2

    monkeypatch.setattr(pruning, "of_this_job", Strict)
    asked = small("eval.after_phase=1", "eval.num_live_samples=0", "trainer.eval_steps=1", "trainer.max_steps=4")
    loss = launch.run(asked, str(tmp_path / "0"))
    stamp = json.loads((tmp_path / "0/run.json").read_text())
    metrics = json.loads((tmp_path / "0/metrics.json").read_text())
    assert (stamp["status"], metrics["train/steps"]) == ("pruned", 2)
    assert stamp["reason"].startswith("pruned at step 2 of 4: validation/loss ")
    assert loss == metrics["validation/loss"]
    assert not (tmp_path / "0/adapter").exists()
    assert not (tmp_path / "0/evaluation").exists()
    (line,) = sweeps.read([tmp_path]).lines
    assert (line.job.status, line.job.reason) == ("pruned", stamp["reason"])


# As typed


@pytest.mark.slow
def test_a_sweep_as_typed_ends_with_its_best_job_and_the_command_that_repeats_it(tmp_path):
    done = type_in(tmp_path, RATE, "lora.r=4,8", "hydra.sweeper.n_trials=4", "hydra.sweeper.sampler=random")
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    found = results(tmp_path)
    values = [json.loads((tmp_path / f"study/{n}/metrics.json").read_text())["validation/loss"] for n in range(4)]
    assert (found["best_job"], found["best_value"]) == (values.index(min(values)), min(values))
    rate = found["best_params"]["trainer.learning_rate"]
    assert any(f"trainer.learning_rate={rate}" in command for command in found["best_commands"])
    assert all(command in said for command in found["best_commands"])  # below the table
    table = sweeps.read([tmp_path / "study"])
    assert (table.keys, table.optuna, table.best.job.name) == (
        ["trainer.learning_rate", "lora.r"],
        True,
        str(found["best_job"]),
    )
    _, plots = sweeps.write(table, tmp_path / "study", None)
    assert "parallel.png" in {path.name for path in plots}


@pytest.mark.slow
def test_failed_jobs_take_no_others_with_them_and_are_named_at_the_end(tmp_path):
    action = "assert run.name != '1', 'too large'"
    done = type_in(tmp_path, RATE, "hydra.sweeper.n_trials=3", action=action)
    assert done.returncode == 1
    assert "error: 1 of 3 jobs failed, the others are done: job 1: AssertionError: too large" in done.stderr
    assert [number for number, _ in started(tmp_path)] == ["0", "1", "2"]


@pytest.mark.slow
def test_a_killed_sweep_goes_on_to_exactly_as_many_jobs_as_asked_for(tmp_path):
    sweep = [RATE, "hydra.sweeper.n_trials=5", "hydra.sweeper.sampler=random"]
    action = "run.name == '2' and not Path('killed').exists() and time.sleep(60)"
    driver = subprocess.Popen([sys.executable, str(script(tmp_path, action)), *BASIC, *sweep], cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "study/2/run.json").exists():
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    (tmp_path / "killed").touch()
    done = type_in(tmp_path, *sweep, "resume=true", action=action)
    assert done.returncode == 0, done.stderr
    assert started(tmp_path) == [
        ["0", "false"],
        ["1", "false"],
        ["2", "false"],
        ["2", "true"],
        ["3", "true"],
        ["4", "true"],
    ]
    assert results(tmp_path)["jobs"] == {"complete": 5}


@pytest.mark.slow
def test_jobs_in_processes_of_their_own_keep_their_numbers_and_hear_of_their_study(tmp_path):
    """Below a folder whose name a shell or JSON would write otherwise; jobs 1 and 3 fail once."""
    folder = tmp_path / "it's \u00e9t\u00e9"
    folder.mkdir()
    action = (
        "Path('told').write_text(json.loads(os.environ['TEXT2SQL_TRIAL'])[0]); "
        "assert run.name in '02' or Path('good').exists(), 'too large'"
    )
    typed = [RATE, "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2", "hydra.sweeper.pruner=median"]
    done = type_in(folder, *typed, action=action, study=STUDY)
    assert done.returncode == 1
    assert "jobs: 2 finished, 2 failed\nfailed 1: " in done.stderr
    (folder / "good").touch()
    begun = len(journal.read(folder / "study"))
    done = type_in(folder, *typed, "resume=true", action=action, study=STUDY)
    assert done.returncode == 0, done.stderr
    assert "jobs: 2 finished, 0 failed" in done.stderr
    assert {row["job"] for row in journal.read(folder / "study")[begun:]} == {1, 3}
    assert [number for number, _ in started(folder)] == ["0", "1", "2", "3", "1", "3"]
    assert results(folder)["jobs"] == {"complete": 4}
    assert (folder / "told").read_text() == str(folder / "study/study.journal")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["lora.rank=4,8"], "lora.rank is not a setting"),
        (["lora.r=range(-2,4)"], "lora.r=-2 must be positive"),
        (
            [
                "lora.r=4,8",
                "hydra.sweeper.pruner=median",
                "hydra.sweeper.prune_on=live/execution_accuracy",
                "eval.num_live_samples=0",
            ],
            "needs eval.num_live_samples",
        ),
    ],
)
def test_a_mistake_ends_the_sweep_before_its_first_job(tmp_path, overrides, message):
    done = type_in(tmp_path, *overrides)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "started").exists()
    assert not (tmp_path / "study").exists()
