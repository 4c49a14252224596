"""A run is repeated from its folder: to the last bit on the same machine, and with every difference named elsewhere."""

import json
import logging
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from text2sql import cli, config, reproduction, runs, scoring, seeds
from text2sql.reproduction import outcome, plan, process
from text2sql.reproduction.plan import literal

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).resolve().parent.parent
COMMIT = {"commit": "a" * 40, "dirty": False}
NEITHER = {"changed": None, "changes_sha256": None}  # what the tree of this checkout may have at the moment
PROCESSOR = {"cpu": "A CPU", "cores": 2, "threads": "1"}
COMMAND = "import sys; from text2sql import cli; sys.exit(cli.main())"
WEIGHTS = "adapter/adapter_model.safetensors"


@pytest.fixture(autouse=True)
def same_machine(monkeypatch, tmp_path):
    """The same commit and processor at all times, and a working folder of the test's own."""
    monkeypatch.setattr(runs, "commit", lambda: COMMIT)
    monkeypatch.setattr(runs, "processor", lambda: PROCESSOR)
    monkeypatch.chdir(tmp_path)


def saved(folder, settings, typed=()):
    """Write the config of a run as Hydra does."""
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    (folder / ".hydra/config.yaml").write_text(settings if isinstance(settings, str) else config.to_yaml(settings))
    (folder / ".hydra/overrides.yaml").write_text(OmegaConf.to_yaml(list(typed)))
    return folder


def stamped(folder, **changes):
    """Change what run.json says; a None takes the key away."""
    path = folder / "run.json"
    record = {**(json.loads(path.read_text()) if path.exists() else {}), **changes}
    runs.write_json(path, {key: value for key, value in record.items() if value is not None or key == "gpu"})
    return folder


@pytest.fixture
def trained(curriculum, tmp_path):
    """Both phases as their folders are after train.py: `.one` and `.two`, copies that a test may change."""
    found = {}
    for name, phase in (("one", curriculum.one), ("two", curriculum.two)):
        shutil.copytree(phase.run, tmp_path / "outputs" / name)
        found[name] = stamped(saved(tmp_path / "outputs" / name, phase.config), **NEITHER, **COMMIT, **PROCESSOR)
    return SimpleNamespace(**found)


@pytest.fixture
def bare(small, tmp_path):
    """A function from overrides to the folder of a phase-1 run that never was trained, as a machine like this one stamps it."""

    def bare(*overrides, **stamp):
        folder = saved(tmp_path / "bare", small("phase=1", *overrides))
        about = {"kind": "train", "status": "finished", "phase": 1, "processes": 1, "gpu": None, "seeds": seeds.SCHEME}
        return stamped(folder, **{**about, **COMMIT, **PROCESSOR, "versions": runs.versions(), **stamp})

    return bare


@pytest.fixture
def in_this_process(monkeypatch):
    """Repeated runs happen in this process, which has torch already."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level

    def repeat(planned):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", process.command(planned)[1:])
            try:
                runpy.run_path(str(planned.script), run_name="__main__")
            except SystemExit as end:
                return end.code
        return 0

    monkeypatch.setattr(reproduction, "repeat", repeat)
    yield
    for handler in set(root.handlers) - set(before):
        handler.close()
    root.handlers[:] = before
    root.setLevel(level)


def check(capsys, *arguments):
    """The exit code of `text2sql reproduce ARGUMENTS --check` and the lines that it printed, errors included."""
    code = cli.main(["reproduce", *map(str, arguments), "--check"])
    printed = capsys.readouterr()
    return code, (printed.out + printed.err).splitlines()


def said(capsys, *arguments):
    """The differences that it names, all of which end with code 1."""
    code, lines = check(capsys, *arguments)
    lines = [line for line in lines if not line.startswith("not recorded")]
    assert code == (lines != ["same: nothing that the run recorded is different here"]), lines
    return [] if code == 0 else lines


def losses(run):
    keys = ("step", "loss", "eval_loss", "grad_norm", "learning_rate")
    return [{key: row[key] for key in keys if key in row} for row in runs.read_jsonl(run / "history.jsonl")]


# The same again.


@pytest.mark.parametrize("phase", ["one", "two"])
def test_a_repeated_training_is_the_same_to_the_last_bit(trained, in_this_process, tmp_path, capfd, phase):
    first, again = getattr(trained, phase), tmp_path / "again"
    assert cli.main(["reproduce", str(first), "--output", str(again)]) == 0
    assert losses(again) == losses(first)
    assert (again / WEIGHTS).read_bytes() == (first / WEIGHTS).read_bytes()
    assert runs.read_jsonl(again / "samples.jsonl") == runs.read_jsonl(first / "samples.jsonl")
    old, new = (json.loads((run / "metrics.json").read_text()) for run in (first, again))
    timed = {"train/seconds", "train/examples_per_second"}
    assert {key: new[key] for key in new.keys() - timed} == {key: old[key] for key in old.keys() - timed}
    printed = capfd.readouterr().out
    assert printed.startswith("same: nothing that the run recorded is different here\n")
    rows = [line for line in printed.splitlines() if line.startswith(("train/", "validation/", "adapter ", "samples"))]
    assert len(rows) > 8
    assert [row for row in rows if not row.endswith("  0           yes")] == []
    assert "tolerance: 1e-06 of a loss" in printed


def test_a_repeated_second_phase_continues_the_recorded_adapter_whatever_is_newer(trained, in_this_process, tmp_path):
    newer = shutil.copytree(trained.one, tmp_path / "outputs/newer")
    stamped(newer, finished="2999-01-01T00:00:00+0000")
    assert cli.main(["reproduce", str(trained.two), "--output", "again"]) == 0
    record = json.loads((tmp_path / "again/run.json").read_text())
    assert record["parent"] == json.loads((trained.two / "run.json").read_text())["parent"]
    assert losses(tmp_path / "again") == losses(trained.two)


@pytest.mark.slow
def test_typed_runs_of_both_phases_and_an_evaluation_repeat_to_the_last_bit(tmp_path, small_overrides):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def typed(*command, code=0):
        ended = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout

    train, score = str(ROOT / "train.py"), str(ROOT / "evaluate.py")
    typed(train, "-m", "phase=1,2", *small_overrides, "hydra.sweep.dir=multirun/s")
    adapter = ["adapter=multirun/s/1/adapter", "data=spider", "data.path=mini", "data.max_test_samples=6"]
    typed(score, *adapter, "prompt.max_sql_tokens=40", "hydra.run.dir=outputs/scored")
    for first in ("multirun/s/1", "outputs/scored"):
        printed = typed("-c", COMMAND, "reproduce", first, "--output", f"again/{first}")
        assert "within tolerance" in printed
        assert "NO" not in printed.split() and "judged" not in printed.split()
    assert (tmp_path / "multirun/s/1" / WEIGHTS).read_bytes() == (
        tmp_path / "again/multirun/s/1" / WEIGHTS
    ).read_bytes()
    both = [runs.read_jsonl(tmp_path / run / "predictions.jsonl") for run in ("outputs/scored", "again/outputs/scored")]
    assert len(both[0]) == 6
    assert both[0] == both[1]


# What differs.


def test_a_run_of_this_machine_has_no_differences(trained, capsys):
    assert said(capsys, trained.two) == []


def test_checking_runs_nothing(trained, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(reproduction, "repeat", None)
    check(capsys, trained.one, "--output", "again")
    assert not (tmp_path / "again").exists()


DIFFERING = {
    "commit": ({"commit": "b" * 40}, "commit: bbbbbbbbbbbb in the run, aaaaaaaaaaaa here"),
    "changes": (
        {"dirty": True, "changed": ["a.py", "b.py"], "changes_sha256": "c"},
        "changes to the commit: a.py, b.py in the run, none here",
    ),
    "changes of an older stamp": (
        {"dirty": True},
        "changes to the commit: some, of files not recorded, in the run, none here",
    ),
    "cpu": ({"cpu": "Z80"}, "cpu: Z80 in the run, A CPU here"),
    "GPU": ({"gpu": "Tesla T4"}, "GPU: Tesla T4 in the run, none here"),
    "prompt": ({"prompt_sha256": "0" * 64}, "prompt: another hash than in the run; look at the settings of prompt"),
    "tokenizer": ({"tokenizer_sha256": "0" * 64}, "tokenizer: another one"),
    "seeds of an older version": (
        {"seeds": None},
        "seeds: order of examples, first weights and dropout are drawn from the seed in another way than in the run, so its "
        "numbers are others; git checkout aaaaaaaaaaaa repeats them",
    ),
    "precision": ({"precision": "bf16"}, "precision: bf16 in the run, fp32 here"),
    "data": ({"data": {"sha256": "0" * 64}}, "data: other examples"),
}


@pytest.mark.parametrize(("changes", "line"), DIFFERING.values(), ids=DIFFERING)
def test_a_difference_is_one_line(trained, capsys, changes, line):
    (found,) = said(capsys, stamped(trained.one, **changes))
    assert found.startswith(line)


@pytest.mark.parametrize(("votes", "lines"), [(1, 0), (4, 1)])
def test_seeds_of_an_older_version_are_no_difference_to_greedy_answers(
    trained, compose_raw, capsys, tmp_path, votes, lines
):
    typed = [f"adapter={trained.two}/adapter", "data=spider", "data.path=mini", "hardware=cpu", f"eval.votes={votes}"]
    folder = saved(tmp_path / "scored", OmegaConf.to_yaml(compose_raw(typed, "evaluate")), typed)
    stamped(folder, kind="evaluate", status="finished", **COMMIT, **PROCESSOR)
    found = [line for line in said(capsys, folder) if line.startswith("seeds: sampled answers are drawn")]
    assert len(found) == lines


def test_the_number_of_cores_counts_where_nobody_set_the_threads(bare, capsys):
    folder = bare(cores=8)
    assert said(capsys, folder) == []
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "threads": None}))
    assert said(capsys, folder) == ["cores: 8 in the run, 2 here: sums are split in another way"]


def test_a_run_repeats_with_the_threads_it_had(bare, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert process.environment(reproduction.prepare(bare()))["OMP_NUM_THREADS"] == "1"
    folder = bare()
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "threads": None}))
    assert "OMP_NUM_THREADS" not in process.environment(reproduction.prepare(folder))
    assert process.environment(reproduction.prepare(stamped(folder, threads=None)))["OMP_NUM_THREADS"] == "7"


def test_a_package_of_another_version_is_named_with_its_cure(bare, capsys):
    folder = bare(versions={**runs.versions(), "peft": "0.1.0", "gone": "1.0"})
    assert said(capsys, folder) == [
        "gone: 1.0 in the run, not installed here; pip install gone==1.0",
        f"peft: 0.1.0 in the run, {runs.versions()['peft']} here; pip install peft==0.1.0",
    ]


def test_what_the_run_did_not_record_is_said_and_is_no_difference(bare, capsys):
    code, lines = check(capsys, bare(cpu=None))
    assert code == 0
    assert lines[1] == "not recorded by the run, so not compared: cpu, data, tokenizer_sha256, prompt_sha256"


def test_an_adapter_whose_weights_changed_is_a_difference(trained, capsys):
    parent = Path(json.loads((trained.two / "run.json").read_text())["parent"])
    stamped(trained.two, parent=str(trained.one / "adapter"), parent_sha256=runs.adapter_sha256(parent))
    assert said(capsys, trained.two) == []
    (trained.one / WEIGHTS).write_bytes(b"other")
    (line,) = said(capsys, trained.two)
    assert line.startswith(f"adapter: {trained.one}/adapter holds other weights")


def test_a_phase_2_that_ended_before_it_had_a_parent_says_that_the_newest_is_taken(trained, capsys):
    (line,) = said(capsys, stamped(trained.two, parent=None, status="failed"))
    assert line.startswith(
        "adapter: the run ended before it recorded which one it continued; the newest that fits is taken"
    )


def test_a_model_of_the_hub_without_a_revision_is_a_difference_unless_the_run_recorded_one(bare, capsys, monkeypatch):
    def unreachable(_):
        raise ValueError("model.path=nowhere/such-model could not be loaded")

    monkeypatch.setattr("text2sql.model.load_tokenizer", unreachable)
    lines = said(capsys, bare("model.path=nowhere/such-model"))
    assert lines[0].startswith("model revision: of nowhere/such-model, none was pinned or recorded")
    assert lines[1].startswith("model: model.path=nowhere/such-model could not be loaded")
    planned = reproduction.prepare(bare("model.path=nowhere/such-model", model_revision="abc"))
    assert planned.config.model.revision == "abc"


def test_a_run_of_a_gpu_names_what_trains_without(bare, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    folder = bare("hardware=t4", gpu="Tesla T4")
    assert "GPUs: 1 wanted, 0 here; hardware=cpu trains without" in said(capsys, folder)
    lines = said(capsys, folder, "hardware=cpu")
    assert "GPU: Tesla T4 in the run, none here" in lines
    assert "hardware.device: 'cuda' in the run, 'cpu' here, as you asked" in lines


def test_the_processes_of_torchrun_are_started_again(bare, capsys):
    folder = bare(processes=4)
    assert reproduction.prepare(folder).config.hardware.devices == 4
    assert said(capsys, folder) == []
    assert said(capsys, folder, "hardware.devices=2")[0].startswith("processes: 4 in the run, 2 here")


# Overrides.


def test_an_override_is_passed_on_and_shown_as_a_difference(bare, capsys):
    folder = bare("data.max_samples=24")
    assert said(capsys, folder, "data.max_samples=12") == ["data.max_samples: 24 in the run, 12 here, as you asked"]
    assert said(capsys, folder, "data.max_samples=24") == []
    assert "data.max_samples=12" in process.command(reproduction.prepare(folder, ["data.max_samples=12"]))


def test_a_repeated_run_publishes_nothing_unless_asked(bare):
    folder = bare("tracking=wandb", "hub=push", "hub.hub_model_id=a/b")
    planned = reproduction.prepare(folder)
    assert (planned.config.hub.push_to_hub, planned.config.tracking.mode.name) == (False, "none")
    assert reproduction.prepare(folder, ["tracking.mode=online"]).config.tracking.mode.name == "online"


def test_the_new_folder_is_named_to_hydra_and_an_old_one_refused(trained, tmp_path, capsys):
    planned = reproduction.prepare(trained.one)
    assert planned.output.parent == tmp_path / "outputs"
    assert process.command(planned)[-1] == f"hydra.run.dir='{planned.output}'"
    assert cli.main(["reproduce", str(trained.one), "--output", str(trained.two)]) == 2
    assert "already holds a run; name another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("hardware=gpuu", "hardware=gpuu does not exist; hardware can be cpu"),
        ("phase=2", "phase=2 chooses for several groups at once"),
        ("seed=1,2", "seed=1,2 is a sweep, and one run is repeated"),
        ("hydra.run.dir=x", "the folder of the new run is --output DIR"),
        ("hydra/launcher=joblib", "the folder of the new run is --output DIR"),
        ("data.pth=x", "data.pth is not a setting"),
        ("trainer.batch_size=no", "trainer.batch_size"),
        ("trainer.batch_size=0", "trainer.batch_size=0 must be positive"),
    ],
)
def test_a_wrong_override_is_an_error_with_its_cure(bare, capsys, override, complaint):
    code, lines = check(capsys, bare(), override)
    assert code == 2
    assert len(lines) == 1 and complaint in lines[0]


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(PLAIN | st.lists(PLAIN, max_size=3))
def test_hydra_reads_a_setting_back_as_it_was(value):
    (override,) = OverridesParser.create().parse_overrides([f"key={literal(value)}"])
    assert override.value() == value


@pytest.mark.parametrize(
    "typed", [[], ["hardware=cpu", "prompt=question_only", "trainer.max_length=999"], ["prompt.style=ddl"]]
)
def test_a_repeated_evaluation_has_the_settings_that_were_typed_over_its_adapters(
    trained, compose_raw, tmp_path, typed
):
    typed = [f"adapter={trained.two}/adapter", "data=spider", "data.path=mini", *typed]
    cfg = compose_raw(typed, "evaluate")
    first = scoring.settings(cfg, typed)
    folder = stamped(saved(tmp_path / "scored", OmegaConf.to_yaml(cfg), typed), kind="evaluate", status="finished")
    planned = reproduction.prepare(folder)
    assert scoring.settings(planned.cfg, planned.overrides) == first


# Runs from elsewhere.


def test_an_adapter_that_is_not_here_is_named_with_what_mends_it(trained, capsys, tmp_path):
    sweep = tmp_path / "copied/sweep"
    shutil.copytree(trained.one, sweep / "0")
    shutil.copytree(trained.two, sweep / "1")
    stamped(sweep / "1", parent="/gone/multirun/sweep/0/adapter")
    (line,) = said(capsys, sweep / "1")
    cure = f"text2sql reproduce {sweep / '1'} adapter={sweep / '0/adapter'}"
    assert line == f"adapter: /gone/multirun/sweep/0/adapter is not here; name it: {cure}"
    (mended,) = said(capsys, *cure.split()[2:])
    assert mended == f"adapter: 'auto' in the run, '{sweep / '0/adapter'}' here, as you asked"


def test_data_that_are_not_here_are_named_with_what_mends_them(bare, capsys):
    folder = bare("data.path=data/gone")
    (line,) = said(capsys, folder)
    assert line.startswith("data: data.path=data/gone does not exist")
    assert line.endswith(f"text2sql reproduce {folder} data.path=PATH")
    assert cli.main(["reproduce", str(folder)]) == 2
    assert "error: the run cannot be repeated here" in capsys.readouterr().err


def test_predictions_that_are_not_here_are_named(bare, capsys, compose_raw, tmp_path):
    cfg = OmegaConf.to_yaml(compose_raw(["predictions=there/answers.sql", "data.path=mini"], "evaluate"))
    folder = stamped(saved(tmp_path / "a/b/scored", cfg), kind="evaluate", status="finished")
    assert said(capsys, folder)[0].endswith("predictions=PATH")
    (tmp_path / "a/there").mkdir()
    (tmp_path / "a/there/answers.sql").write_text("SELECT 1\n")
    assert said(capsys, folder)[0].endswith(f"predictions={tmp_path}/a/there/answers.sql")


# Folders that cannot be repeated.


def refused(capsys, folder):
    code, lines = check(capsys, folder)
    assert code == 2
    (line,) = lines
    return line


def test_a_folder_that_is_none_or_holds_no_config_is_an_error(bare, capsys, tmp_path):
    assert (
        refused(capsys, "nowhere")
        == "error: nowhere is no folder; name a run's, such as outputs/RUN or multirun/SWEEP/0"
    )
    folder = bare()
    (folder / "evaluation").mkdir()
    assert f"it is part of the run in {folder}: name that" in refused(capsys, folder / "evaluation")
    shutil.rmtree(folder / ".hydra")
    assert "has no .hydra/config.yaml, from which a run is repeated; name a run's folder" in refused(capsys, folder)
    (folder / "multirun.yaml").write_text("")
    assert f"it is a sweep: name one of its jobs, such as {folder}/0" in refused(capsys, folder)


def test_a_stamp_that_is_not_there_or_unreadable_is_an_error(bare, capsys):
    folder = bare(kind="else")
    assert "its kind is 'else' and not one of train, evaluate" in refused(capsys, folder)
    for content in ("{", "[]", '"text"'):
        (folder / "run.json").write_text(content)
        assert f"{folder}/run.json" in refused(capsys, folder)
    (folder / "run.json").unlink()
    assert "has no run.json: the run ended before it began" in refused(capsys, folder)


def test_settings_that_are_gone_are_named_with_what_takes_them_away(bare, capsys):
    folder = bare()
    path = folder / ".hydra/config.yaml"
    path.write_text(path.read_text().replace("trainer:\n", "trainer:\n  magic: 1\n") + "old:\n  a: 1\n  b: 2\n")
    line = refused(capsys, folder)
    assert "settings that this version does not know: old, trainer.magic; check out the run's commit aaaa" in line
    assert line.endswith(f"text2sql reproduce {folder} '~old' '~trainer.magic'")
    lines = said(capsys, folder, "~old", "~trainer.magic")
    assert lines[-1] == "trainer.magic: 1 in the run, none here, as you asked"


@pytest.mark.parametrize(
    "node", ["hydra: {launcher: {_target_: os.system}}", "defaults: [override hydra/launcher: joblib]"]
)
def test_a_config_that_could_have_hydra_call_code_is_refused(bare, capsys, node):
    folder = bare()
    path = folder / ".hydra/config.yaml"
    path.write_text(path.read_text() + node + "\n")
    assert f"sets {node.partition(':')[0]}, which Hydra writes into no saved config" in refused(capsys, folder)


@pytest.mark.parametrize("name", ["config.yaml", "overrides.yaml"])
def test_yaml_that_would_make_an_object_is_refused(bare, capsys, tmp_path, name):
    folder = bare()
    (folder / ".hydra" / name).write_text(f"!!python/object/apply:os.mkdir [{tmp_path}/made]\n")
    assert f"{name} cannot be read" in refused(capsys, folder)
    assert not (tmp_path / "made").exists()


def test_a_package_without_its_repository_says_so(bare, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "ROOT", tmp_path)
    assert "train.py is not beside the package" in refused(capsys, bare())


# Ends.


@pytest.fixture
def ended(monkeypatch, capsys):
    """A function that reproduces a run by a stand-in that makes the new folder or ends with a code: (exit code, output)."""

    def ended(folder, make, *arguments):
        monkeypatch.setattr(reproduction, "repeat", lambda planned: make(planned.output) or 0)
        code = cli.main(["reproduce", str(folder), *arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return ended


def test_a_loss_outside_its_tolerance_ends_with_code_1(trained, ended, tmp_path):
    def make(output):
        shutil.copytree(trained.one, output, dirs_exist_ok=True)
        metrics = json.loads((output / "metrics.json").read_text())
        runs.write_json(output / "metrics.json", {**metrics, "train/loss": metrics["train/loss"] * 1.001})

    code, printed = ended(trained.one, make)
    (row,) = (line for line in printed.splitlines() if line.startswith("train/loss  "))
    assert (code, row.split()[-2:]) == (1, ["1.0e-03", "NO"])
    assert ended(trained.one, make, "--tolerance", "0.01")[0] == 0
    stamped(trained.one, cpu="Z80")
    assert ended(trained.one, make)[0] == 0, "another CPU is held to the looser tolerance"


@pytest.mark.parametrize(("code", "ours"), [(2, 2), (1, 1), (-9, 1), (130, 1)])
def test_a_repeated_run_that_fails_is_no_success(bare, ended, code, ours):
    found, printed = ended(bare(), lambda _: code)
    assert found == ours
    assert f"the repeated run ended with exit code {code}" in printed


@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
def test_a_run_that_did_not_finish_is_repeated_with_nothing_to_compare(bare, ended, status):
    code, printed = ended(bare(status=status), lambda _: None)
    assert code == 0
    assert f"nothing to compare with: the run's status is {status}" in printed


def written(folder, history=(), predictions=(), weights=None, **metrics):
    (folder / "adapter").mkdir(parents=True)
    runs.write_json(folder / "run.json", {"kind": "train"})
    runs.write_json(folder / "metrics.json", metrics)
    runs.append_jsonl(folder / "history.jsonl", history)
    runs.append_jsonl(folder / "predictions.jsonl", predictions)
    if weights:
        (folder / WEIGHTS).write_bytes(weights)
    return folder


def compared(tmp_path, first, again, asked=None):
    pair = [written(tmp_path / name, **content) for name, content in (("first", first), ("again", again))]
    return {row.metric: row for row in reproduction.compare(*pair, 1e-6, asked)}


def test_losses_are_compared_step_by_step(tmp_path):
    old = [{"step": step, "loss": 2.0} for step in (1, 2, 3)]
    rows = compared(tmp_path, {"history": old}, {"history": [*old[:1], {"step": 2, "loss": 2.002}, *old[2:]]})
    assert rows["train/loss by step"].difference == "1.0e-03 at step 2"
    assert rows["train/loss by step"].within is False


def test_a_sequence_of_other_steps_or_a_lost_metric_is_not_within(tmp_path):
    rows = compared(
        tmp_path,
        {"history": [{"step": 1, "eval_loss": 1.0}], "train/loss": 1.0},
        {"history": [{"step": 2, "eval_loss": 1.0}]},
    )
    assert [row.within for row in rows.values()] == [False, False]


def test_a_loss_that_is_not_a_number_is_not_within(tmp_path):
    rows = compared(tmp_path, {"train/loss": 1.0}, {"train/loss": float("nan")})
    assert rows["train/loss"].within is False


@pytest.mark.parametrize(
    ("got", "asked", "within"), [(0.55, None, True), (0.65, None, False), (0.55, 0.01, False), (0.65, 0.2, True)]
)
def test_an_accuracy_is_held_to_the_interval_of_the_first_unless_asked(tmp_path, got, asked, within):
    first, again = ({"eval/execution_accuracy": value, "eval/examples": 100} for value in (0.5, got))
    row = compared(tmp_path, first, again, asked)["eval/execution_accuracy"]
    assert row.within is within
    assert row.expected == "50.0 % (40.4 to 59.6)"


def test_counts_are_held_to_equality_whatever_is_tolerated(tmp_path):
    assert compared(tmp_path, {"train/steps": 100.0}, {"train/steps": 101.0}, 0.5)["train/steps"].within is False


def test_other_bytes_and_other_answers_are_told_and_not_judged(tmp_path):
    first = {"weights": b"a", "predictions": [{"id": 1, "prediction": "x"}, {"id": 2, "prediction": "y"}]}
    rows = compared(tmp_path, first, {"weights": b"b", "predictions": [{"id": 1, "prediction": "x"}]})
    assert (rows["adapter"].difference, rows["adapter"].within) == ("other bytes", None)
    assert (rows["predictions.jsonl"].difference, rows["predictions.jsonl"].within) == ("1 differ", None)
    assert "not judged" in outcome.table(list(rows.values()))
