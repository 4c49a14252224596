"""Commands as people type them: both phases from another folder, a replay, an evaluation, and mistakes with a readable end."""

from __future__ import annotations

import json
import logging
import os
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
QUICK = "prompt.max_sql_tokens=64 data.max_samples=24 data.max_validation_samples=4 trainer.batch_size=8 trainer.logging_steps=1 eval.num_live_samples=1"
SWEEP = f"train.py -m phase=1,2 model=tiny hardware=cpu data.path=mini tracking=none {QUICK}"
PHASE_2 = f"train.py phase=2 data=spider model=tiny hardware=cpu data.path=mini tracking=none {QUICK}"
TINY = "model=tiny hardware=cpu tracking=none"


def type_in(folder, command):
    """Run `python COMMAND` in a process of its own, in `folder`."""
    script, *arguments = shlex.split(command)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("HYDRA_FULL_ERROR", None)
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def run_here(monkeypatch, capsys, one_thread):
    """A function that runs a command in this process, which has torch already: (exit code, what it wrote to stderr)."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level

    def run_here(folder, command):
        script, *arguments = shlex.split(command)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "")
        capsys.readouterr()
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr().err

    yield run_here
    for handler in set(root.handlers) - set(before):  # Hydra's own, which hold the run's log file
        handler.close()
    root.handlers[:] = before
    root.setLevel(level)


def read(path):
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def losses(run):
    return [
        {key: row[key] for key in ("step", "loss", "eval_loss") if key in row} for row in read(run / "history.jsonl")
    ]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The folder of a sweep over both phases, typed in a folder that is not the repository's."""
    folder = tmp_path_factory.mktemp("elsewhere")
    done = type_in(folder, SWEEP)
    assert done.returncode == 0, done.stderr
    (found,) = (folder / "multirun").iterdir()
    return found


# What works


@pytest.mark.slow
def test_a_sweep_over_both_phases_works_from_any_folder(sweep):
    one, two = read(sweep / "0/run.json"), read(sweep / "1/run.json")
    assert [(stamp["phase"], stamp["status"], stamp["data"]["name"]) for stamp in (one, two)] == [
        (1, "finished", "gretel"),
        (2, "finished", "spider"),
    ]
    assert Path(two["parent"]) == sweep / "0/adapter"
    assert two["parent_lora_b_norm"] > 0


@pytest.mark.slow
def test_phase_2_typed_later_continues_the_newest_phase_1(sweep):
    folder = sweep.parent.parent
    done = type_in(folder, PHASE_2)
    assert done.returncode == 0, done.stderr
    (run,) = [path.parent for path in (folder / "outputs").glob("*/run.json") if read(path)["phase"] == 2]
    stamp = read(run / "run.json")
    assert (stamp["status"], Path(stamp["parent"])) == ("finished", sweep / "0/adapter")
    assert losses(run) == losses(sweep / "1"), "the same parent, data and seed as the sweep's phase 2"


@pytest.mark.slow
def test_a_run_replays_from_its_folder_with_the_same_losses(sweep, run_here, tmp_path):
    code, err = run_here(tmp_path, f"train.py --config-dir {sweep}/0/.hydra --config-name config")
    assert code == 0, err
    (again,) = (path.parent for path in (tmp_path / "outputs").rglob("run.json"))
    assert losses(again) == losses(sweep / "0")
    assert len(losses(again)) >= 6


@pytest.mark.slow
def test_an_adapter_is_evaluated_by_its_folder_alone(sweep, run_here, tmp_path):
    code, err = run_here(
        tmp_path, f"evaluate.py adapter={sweep}/1/adapter data=spider data.path=mini data.max_test_samples=4"
    )
    assert code == 0, err
    (run,) = (tmp_path / "outputs").iterdir()
    assert run.name.endswith("-evaluate")
    assert (read(run / "run.json")["status"], read(run / "run.json")["label"]) == ("finished", "tiny phase 2")
    assert len(read(run / "predictions.jsonl")) == read(run / "metrics.json")["eval/examples"] == 4


# What is mistyped


def complaint(err):
    """The one message on stderr, which must be no stack."""
    assert "Traceback" not in err
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    return line


@pytest.fixture
def folder(tmp_path):
    """A working folder with a plain file, half a Spider, and gretel rows without their tables."""
    (tmp_path / "file").write_text("")
    (tmp_path / "spider").mkdir()
    for name in ("train_spider", "dev"):
        (tmp_path / f"spider/{name}.json").write_text("[]")
    (tmp_path / "gretel.jsonl").write_text('{"sql_prompt": "How many?", "sql": "SELECT 1"}\n')
    return tmp_path


MISTAKES = {
    "no hub and no local path": (
        f"train.py {TINY} data.path=/nonexistent",
        ["data.path=/nonexistent does not exist", "data.path=mini"],
    ),
    "Spider without its databases": (
        f"train.py {TINY} phase=1 data=spider data.path=spider",
        ["data.path=spider has no database/ folder", "official archive"],
    ),
    "rows without a column": (
        f"train.py {TINY} data.path=gretel.jsonl",
        ["gretel.jsonl has no column 'sql_context'", "it has sql, sql_prompt"],
    ),
    "phase 2 before phase 1": (
        f"train.py {TINY} phase=2 data.path=mini",
        ["adapter=auto found no finished phase-1 run", "train.py phase=1"],
    ),
    "an adapter that is nowhere": (
        f"train.py {TINY} phase=2 data.path=mini adapter=/nonexistent/adapter",
        ["adapter=/nonexistent/adapter is no folder", "outputs/RUN/adapter"],
    ),
    "a model that is nowhere": (
        f"train.py {TINY} data.path=mini model.path=/nonexistent/model",
        ["model.path=/nonexistent/model could not be loaded", "local folder or a hub id"],
    ),
    "an output folder below a file": (
        f"train.py {TINY} data.path=mini hydra.run.dir=file/run",
        ["file/run", "hydra.run.dir=DIR"],
    ),
    "two GPUs on a machine without": (
        "train.py model=tiny data.path=mini tracking=none hardware=t4x2",
        ["hardware=t4x2 asks for 2 CUDA GPU(s)", "hardware=cpu"],
    ),
    "predictions that are nowhere": (
        f"evaluate.py {TINY} data.path=mini predictions=nowhere.txt",
        ["predictions=nowhere.txt is no file"],
    ),
}


@pytest.mark.parametrize("command, said", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_ends_with_one_message_and_exit_code_2(folder, run_here, monkeypatch, command, said):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    code, err = run_here(folder, command)
    assert code == 2
    assert [words for words in said if words not in complaint(err)] == []


@pytest.mark.parametrize("resume", ["", "resume=true"])
def test_a_run_that_is_refused_leaves_the_config_of_the_run_in_its_folder(folder, run_here, resume):
    saved = folder / "outputs/x/.hydra"
    saved.mkdir(parents=True)
    (saved / "overrides.yaml").write_text("- lora.r=16\n")
    (folder / "outputs/x/run.json").write_text('{"kind": "train", "status": "finished", "settings": {"lora.r": 16}}')
    code, err = run_here(folder, f"train.py {TINY} data.path=mini lora.r=32 hydra.run.dir=outputs/x {resume}")
    assert (code, "outputs/x" in complaint(err)) == (2, True)
    assert {path.name: path.read_text() for path in saved.iterdir()} == {"overrides.yaml": "- lora.r=16\n"}


def test_an_adapter_of_another_model_ends_with_one_message_and_exit_code_2(folder, run_here, curriculum):
    other = shutil.copytree(curriculum.one.adapter, folder / "other")
    saved = read(other / "adapter_config.json")
    (other / "adapter_config.json").write_text(json.dumps({**saved, "base_model_name_or_path": "some/other-model"}))
    for command in (
        f"train.py {TINY} phase=2 data.path=mini adapter={other}",
        f"evaluate.py adapter={other} data.path=mini",
    ):
        code, err = run_here(folder, command)
        assert code == 2
        assert "was trained on some/other-model, and model=tiny is tiny" in complaint(err)


@pytest.mark.slow
def test_a_mistake_in_a_process_of_its_own_ends_the_same_way(folder):
    done = type_in(folder, MISTAKES["phase 2 before phase 1"][0])
    assert done.returncode == 2
    assert "adapter=auto found no finished phase-1 run" in complaint(done.stderr)
    assert "Traceback" not in done.stdout
