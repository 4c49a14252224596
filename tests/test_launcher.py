"""Each job of a multirun is its own process: it fails, exits and is killed alone, and the driver says which."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess

import pytest
import stand_in
from hydra.errors import HydraException

from text2sql import commandline, lock, sweeps
from text2sql.driver import gpus, journal


@pytest.fixture
def folder(tmp_path):
    stand_in.write(tmp_path)
    return tmp_path


def stamp(folder, job, sweep="multirun/s"):
    return json.loads((folder / sweep / str(job) / "run.json").read_text())


ENDS = {
    "raise": "KeyError: 'boom'",
    "exit": "sys.exit(3)",
    "exit0": "sys.exit(0)",
    "_exit": "exit code 4",
    "kill": "SIGKILL",
    "well": "",
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A sweep of which every job ends otherwise, two at a time, in batches of four: its folder and what the driver said."""
    folder = tmp_path_factory.mktemp("broken")
    stand_in.write(folder)
    typed = f"train.py end={','.join(ENDS)} hydra.sweep.dir=multirun/s hydra.launcher.processes=2"
    return folder, stand_in.type_in(folder, f"{typed} hydra.sweeper.max_batch_size=4")


def test_one_jobs_end_is_no_other_jobs_end(broken):
    folder, ended = broken
    assert [stamp(folder, job)["status"] for job in range(6)] == ["failed"] * 5 + ["finished"]
    assert [stamp(folder, job)["mine"] for job in range(6)] == [0] * 6, "the other keys of run.json stay"
    assert ended.returncode == 1


def test_the_driver_says_how_many_failed_and_why_and_where_to_look(broken):
    _, ended = broken
    assert "jobs: 1 finished, 5 failed\n" in ended.stderr
    for job, (how, reason) in enumerate(ENDS.items()):
        said = [line for line in ended.stderr.splitlines() if line.startswith(f"failed {job}: end={how}: ")]
        assert len(said) == (how != "well")
        assert all(reason in line and line.endswith(f"log: multirun/s/{job}/output.log") for line in said)


def test_the_reason_is_in_the_run_folder_and_in_the_table(broken):
    folder, _ = broken
    jobs = {line.job.name: line.job for line in sweeps.read([folder / "multirun/s"]).lines}
    assert [(name, jobs[str(number)].status) for number, name in enumerate(ENDS)] == [
        (name, "finished" if name == "well" else "failed") for name in ENDS
    ]
    assert all(reason in jobs[str(number)].reason for number, reason in enumerate(ENDS.values()))
    assert (stamp(folder, 4)["exit_code"], stamp(folder, 4)["last_lines"]) == (-signal.SIGKILL, ["said by kill"])


def test_an_error_of_any_length_ends_its_job_and_is_cut_for_the_driver_alone(folder):
    ended = stand_in.type_in(folder, "train.py end=long,well hydra.sweep.dir=multirun/s hydra.launcher.processes=2")
    assert "jobs: 1 finished, 1 failed\n" in ended.stderr
    assert 1_000 < len(ended.stderr) < 10_000
    assert "long" * 50_000 in (folder / "multirun/s/0/output.log").read_text()


def test_where_no_fork_is_safe_a_job_is_a_new_interpreter(tmp_path):
    """As on macOS."""
    stand_in.write(tmp_path, "from text2sql.driver import processes; processes.START_METHOD = 'spawn'")
    typed = "train.py end=well,raise,kill hydra.sweep.dir=multirun/s hydra.launcher.processes=3"
    ended = stand_in.type_in(tmp_path, typed)
    assert "jobs: 1 finished, 2 failed\n" in ended.stderr
    assert [stamp(tmp_path, job)["status"] for job in range(3)] == ["finished", "failed", "failed"]
    assert "boom" in ended.stderr and "SIGKILL" in ended.stderr
    assert "resume: false" in (tmp_path / "multirun/s/0/.hydra/config.yaml").read_text()


def test_a_job_that_dies_takes_what_it_has_started_with_it(folder):
    ended = stand_in.type_in(folder, "train.py end=child hydra.sweep.dir=multirun/s")
    assert "jobs: 0 finished, 1 failed" in ended.stderr
    ((_, _, pid),) = stand_in.starts(folder)
    assert stand_in.group(pid) == []


def test_the_only_job_is_shown_as_it_runs_and_several_are_not(folder):
    typed = "train.py end=well,raise hydra.sweep.dir=multirun/"
    assert "said by well" in stand_in.type_in(folder, f"{typed}a").stdout
    assert "said by well" not in stand_in.type_in(folder, f"{typed}b hydra.launcher.processes=2").stdout
    assert "said by well" in (folder / "multirun/b/0/output.log").read_text()


def test_a_higher_phase_waits_for_all_of_the_lower_one_and_not_for_a_failed_parent(folder):
    typed = "train.py phase=2,1 seed=1,2,3 hydra.launcher.processes=3"
    ended = stand_in.type_in(folder, f"{typed} hydra.sweep.dir=multirun/s")
    assert ended.returncode == 0, ended.stderr
    order = [job for job, _, _ in stand_in.starts(folder)]
    assert (sorted(order[:3]), sorted(order[3:])) == ([3, 4, 5], [0, 1, 2])
    rows = journal.read(folder / "multirun/s")
    ends = [number for number, row in enumerate(rows) if row["event"] == "finished" and row["job"] > 2]
    begins = [number for number, row in enumerate(rows) if row["event"] == "started" and row["job"] < 3]
    assert max(ends) < min(begins)


def test_a_phase_2_is_not_started_when_its_own_phase_1_failed_and_the_others_are(folder):
    ended = stand_in.type_in(folder, "train.py phase=1,2 end=well,raise x=3 hydra.sweep.dir=multirun/s")
    assert sorted(job for job, _, _ in stand_in.starts(folder)) == [0, 1, 2]
    assert "jobs: 2 finished, 2 failed\n" in ended.stderr
    jobs = {line.job.name: line.job for line in sweeps.read([folder / "multirun/s"]).lines}
    assert "it continues job 1, which failed: KeyError: 'boom'" in jobs["3"].reason


def signalled(folder, typed, *signals):
    """Send the signals to the driver once all its jobs have begun; returns it when it has ended."""
    process = stand_in.begin(folder, f"train.py {typed} hydra.sweep.dir=multirun/s hydra.launcher.processes=2")
    try:
        stand_in.wait_for(lambda: len(stand_in.starts(folder)) == 2)
        process.send_signal(signals[0])
        for number in signals[1:]:
            stand_in.wait_for(lambda: "telling" in process.stdout.readline())
            process.send_signal(number)
        said = process.communicate(timeout=30)[0]
    finally:
        stand_in.end(process)
    return process.returncode, said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_reaches_the_jobs_and_the_driver_waits_for_them(folder, number, code):
    returned, said = signalled(folder, "x=1,2,3 end=sleep", number)
    assert returned == code
    assert [stamp(folder, job)["status"] for job in (0, 1)] == ["interrupted"] * 2
    assert "2 interrupted, 1 not started" in said
    assert not any(stand_in.is_alive(pid) for _, _, pid in stand_in.starts(folder))


def test_a_second_signal_kills(folder):
    returned, said = signalled(folder, "x=1,2 end=deaf", signal.SIGTERM, signal.SIGTERM)
    assert returned == 143
    assert [stamp(folder, job)["status"] for job in (0, 1)] == ["interrupted"] * 2
    assert "SIGKILL" in said


def test_jobs_end_when_their_driver_is_killed(folder):
    process = stand_in.begin(folder, "train.py end=sleep hydra.sweep.dir=multirun/s")
    stand_in.wait_for(lambda: len(stand_in.starts(folder)) == 1)
    stand_in.end(process)
    ((_, _, pid),) = stand_in.starts(folder)
    stand_in.wait_for(lambda: not stand_in.is_alive(pid), 10)


# GPUs


def test_jobs_side_by_side_have_gpus_and_cores_of_their_own(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(gpus, "visible", lambda: ["0", "1", "2", "3"])
    assert gpus.environments(2, 2) == [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"}]
    monkeypatch.setattr(gpus, "visible", list)
    assert gpus.environments(2, 1) == [{}, {}]


def test_nobody_is_asked_for_gpus_that_are_not_shared_out(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(gpus, "visible", None)
    assert (gpus.environments(1, 1), gpus.environments(2, 0)) == ([{}], [{}, {}])
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert all(int(one["OMP_NUM_THREADS"]) >= 1 for one in gpus.environments(2, 0))


def test_too_few_gpus_are_said_with_the_cure(monkeypatch):
    monkeypatch.setattr(gpus, "visible", lambda: ["0", "1", "2", "3"])
    with pytest.raises(ValueError, match=r"need 6 and there are 4; lower hydra.launcher.processes to 2"):
        gpus.environments(3, 2)


def test_the_gpus_are_those_that_the_driver_may_use(folder):
    typed = "train.py x=1,2 hydra.sweep.dir=multirun/s hydra.launcher.processes=2 hydra.launcher.gpus_per_job=1"
    ended = stand_in.type_in(folder, typed, CUDA_VISIBLE_DEVICES="5,7")
    assert ended.returncode == 0, ended.stderr
    assert {job: gpu for job, gpu, _ in stand_in.starts(folder)} == {0: "5", 1: "7"}


# Launchers of others


@pytest.mark.parametrize(("preset", "extra"), [("slurm_gpu", "slurm"), ("slurm_2gpu", "slurm"), ("ray_gpu", "ray")])
def test_a_preset_without_its_extra_says_which(compose_raw, preset, extra):
    plugin = {"slurm": "hydra_submitit_launcher", "ray": "hydra_ray_launcher"}[extra]
    if importlib.util.find_spec(f"hydra_plugins.{plugin}"):
        assert compose_raw([f"hydra/launcher={preset}"])
        return
    with pytest.raises(HydraException) as missing:
        compose_raw([f"hydra/launcher={preset}"])
    assert f"pip install -e '.[{extra}]'" in commandline.explain(missing.value)


def test_submitits_local_executor_runs_the_same_jobs(folder):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra `slurm`")
    ended = stand_in.type_in(folder, "train.py x=1,2 end=well hydra/launcher=submitit_local hydra.sweep.dir=multirun/s")
    assert ended.returncode == 0, ended.stderr
    assert [stamp(folder, job)["status"] for job in (0, 1)] == ["finished"] * 2


# The lock


def test_two_drivers_do_not_run_one_sweep(folder):
    typed = "train.py end=sleep hydra.sweep.dir=multirun/s"
    process = stand_in.begin(folder, typed)
    try:
        stand_in.wait_for(lambda: len(stand_in.starts(folder)) == 1)
        second = stand_in.type_in(folder, f"{typed} resume=true")
        assert second.returncode == 2
        assert f"is being run by the process with pid {process.pid} " in second.stderr
    finally:
        stand_in.end(process)
    lock.hold(folder / "multirun/s")
    lock.release(folder / "multirun/s")


def test_a_job_of_a_dead_driver_is_ended_and_a_stranger_with_its_pid_is_not(tmp_path):
    jobs = [subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(2)]
    try:
        for number, job in enumerate(jobs):
            journal.note_start(tmp_path, number, job.pid)
        text = (tmp_path / journal.NAME).read_text().splitlines()
        stranger = {**json.loads(text[1]), "process_started": 1}
        (tmp_path / journal.NAME).write_text(f"{text[0]}\n{json.dumps(stranger)}\nhalf a li")
        journal.end_leftovers(tmp_path)
        assert [job.poll() for job in jobs] == [-signal.SIGKILL, None]
    finally:
        for job in jobs:
            job.kill()
            job.wait()


@pytest.mark.parametrize("setting", ["processes=0", "gpus_per_job=-1"])
def test_the_launchers_settings_are_checked(folder, setting):
    ended = stand_in.type_in(folder, f"train.py hydra.launcher.{setting}")
    assert ended.returncode == 2
    assert f"hydra.launcher.{setting} must be" in ended.stderr
