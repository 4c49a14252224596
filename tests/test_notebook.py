"""The Kaggle notebook: its cells as they stand, executed in order with the tiny model and mini data, against the loopback hub."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from fake_hub import FakeHub

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks/kaggle_t4x2.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
MORE = "tracking=none hardware.bf16=false prompt.max_sql_tokens=64 data.max_samples=8 data.max_validation_samples=2 "
MORE += "trainer.batch_size=4 trainer.save_steps=1 eval.num_live_samples=0"
PARAMETERS = {
    "SOURCE": str(ROOT),
    "HUB": "tester/nemo",
    "MODEL": "model=tiny",
    "DATA": {1: "data=gretel data.path=mini", 2: "data=spider data.path=mini"},
    "HARDWARE": "hardware=cpu",
    "MORE": MORE,
    "EVALUATED": "phase_2/adapter",
    "EVALUATION": "data.max_test_samples=4 hydra/launcher=basic",
    "INSTALL": False,
}


def source(cell):
    return "".join(cell["source"])


def test_outputs_are_stripped_and_every_cell_of_code_follows_a_text():
    for before, cell in pairwise(CELLS):
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            assert before["cell_type"] == "markdown"
            assert len(cell["source"]) <= 25


def test_the_parameters_are_in_the_first_cell_of_code_and_are_all_that_a_reader_changes():
    names = {}
    exec(source(CODE[0]), names)
    assert names.keys() >= PARAMETERS.keys() | {"HOURS", "WORK"}
    assert names["HOURS"] < 12


def test_the_composed_defaults_are_the_original_experiment_on_two_t4s(compose):
    names = {}
    exec(source(CODE[0]), names)
    for phase in (1, 2):
        words = f"phase={phase} {names['MODEL']} {names['DATA'][phase]} {names['HARDWARE']} {names['MORE']}".split()
        config = compose(words)
        assert (config.model.hub_id, config.hardware.name) == ("mistralai/Mistral-Nemo-Instruct-2407", "t4x2")
        assert config.data.name == {1: "gretel", 2: "spider"}[phase]


# A command is a fork of a process that has loaded torch already, which a dozen fresh ones would each do for many seconds.
FORKED = """
import multiprocessing, os, runpy, subprocess, sys, types
import text2sql.cli, text2sql.doctor, text2sql.answering, text2sql.launch, text2sql.publish, text2sql.scoring, text2sql.training

def command(words, cwd):
    os.chdir(cwd)
    sys.argv = words if words[0] == "text2sql" else words[1:]
    if words[0] == "text2sql":
        sys.exit(text2sql.cli.main(words[1:]))
    runpy.run_path(words[1], run_name="__main__")

def run(words, cwd=None, **more):
    if words[0] not in ("text2sql", sys.executable):
        return real(words, cwd=cwd, **more)
    sys.stdout.flush()
    started = multiprocessing.get_context("fork").Process(target=command, args=(words, cwd))
    started.start()
    started.join()
    return types.SimpleNamespace(returncode=started.exitcode)

real, subprocess.run = subprocess.run, run
"""


def session(hub, work, **parameters):
    """All cells in order, in one process and a fresh folder, as in one session of Kaggle's; what they printed."""
    changed = "\n".join(
        f"{name} = {value!r}" for name, value in {**PARAMETERS, "WORK": str(work), **parameters}.items()
    )
    script = "\n".join([FORKED, source(CODE[0]), changed, *map(source, CODE[1:])])
    done = hub.run("-c", script, env={"OMP_NUM_THREADS": "1"}, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert hub.token not in done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_sessions_train_both_phases_and_end_with_the_scored_table(tmp_path):
    with FakeHub(tmp_path / "hub") as hub:
        first = session(hub, tmp_path / "one", HOURS=0.0)
        assert "tester/nemo-phase-1 holds nothing to go on from yet" in first
        assert "time is up: run all cells in a new session" in first
        work = tmp_path / "two"  # another machine: nothing of the first session's folder is there
        second = session(hub, work)
        assert "checkpoint 1 of tester/nemo-phase-1, whole; resume=true goes on from it" in second
        assert "tiny phase 2" in second.rpartition("text2sql table")[2]
        for phase in (1, 2):
            stamp = json.loads((work / f"phase_{phase}/run.json").read_text())
            assert (stamp["status"], stamp["phase"]) == ("finished", phase)
        card = (hub.folder("models", "tester/nemo-phase-2") / "README.md").read_text()
        assert "- phase 1: data=gretel" in card and "| execution accuracy | " in card
