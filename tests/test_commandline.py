"""The command line as people type it: phases without quotes, and one readable error in place of a stack."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from text2sql import commandline, config

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("typed", "given_to_hydra"),
    [
        ("phase=2", "phase='2'"),
        ("phase=1,2", "phase='1','2'"),
        ("phase=10", "phase='10'"),
        ("phase='2'", "phase='2'"),
        ("phase='1','2'", "phase='1','2'"),
        ("phase=two", "phase=two"),
        ("phase=", "phase="),
        ("phase=1,", "phase=1,"),
        ("phase=1,two", "phase=1,two"),
        ("phase.number=2", "phase.number=2"),
        ("+phase=2", "+phase=2"),
        ("data=spider", "data=spider"),
        ("data.path=phase=2", "data.path=phase=2"),
        ("-m", "-m"),
        ("", ""),
    ],
)
def test_the_digits_of_a_phase_are_quoted_and_nothing_else(typed, given_to_hydra):
    assert commandline.quote_phase([typed]) == [given_to_hydra]


@settings(max_examples=50)
@given(st.lists(st.text(max_size=20) | st.from_regex(r"phase=[0-9',]{0,6}", fullmatch=True)))
def test_quoting_twice_is_quoting_once(arguments):
    quoted = commandline.quote_phase(arguments)
    assert commandline.quote_phase(quoted) == quoted


@given(st.lists(st.integers(0, 99), min_size=1))
def test_quoting_loses_no_phase(numbers):
    quoted = commandline.quote_phase(["phase=" + ",".join(map(str, numbers))])[0]
    assert [int(part.strip("'")) for part in quoted.removeprefix("phase=").split(",")] == numbers


# The real command line, with packages in place of the heavy ones that end the process when they are imported.

HEAVY = ("torch", "transformers", "datasets", "peft", "trl", "bitsandbytes")
IMPORTED = 99


@pytest.fixture(scope="module")
def decoys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoys")
    for name in HEAVY:
        (folder / f"{name}.py").write_text(f"import os\nos._exit({IMPORTED})\n")
    return folder


def run(script, folder, decoys, *arguments):
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    environment["PYTHONPATH"] = os.pathsep.join([str(decoys), str(ROOT)])
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


MISTAKES = {
    "a wrong group": ("train.py modle=tiny", ["modle", "did you mean model?"]),
    "a wrong choice": ("train.py model=tinny", ["model=tinny", "mistral_nemo_12b", "did you mean tiny?"]),
    "a wrong key": ("train.py lora.rank=4", ["lora.rank", "lora_alpha", "target_modules"]),
    "a wrong type": ("train.py lora.r=big", ["lora.r", "big", "Integer"]),
    "a wrong enum": ("train.py tracking.mode=sometimes", ["tracking.mode", "sometimes", "online, offline, none"]),
    "a new key": ("train.py +new.key=1", ["new", "trainer"]),
    "no batch": ("train.py trainer.batch_size=0", ["trainer.batch_size=0", "positive"]),
    "a pass that an example may not fit": (
        "train.py hardware.max_tokens=512",
        ["hardware.max_tokens=512", "trainer.max_length=1024"],
    ),
    "a second phase of nothing": ("train.py phase=2 adapter=null", ["phase=2", "adapter=auto", "phase=1 data=spider"]),
    "no replayed config": ("train.py --config-dir nowhere --config-name config", ["nowhere"]),
    "no adapter there": ("evaluate.py adapter=./nowhere", ["adapter=./nowhere", "outputs/RUN/adapter"]),
    "no predictions there": ("evaluate.py predictions=nowhere.sql", ["predictions=nowhere.sql"]),
}


@pytest.mark.parametrize(("command", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_ends_with_one_line_and_before_anything_heavy(tmp_path, decoys, command, words):
    script, *arguments = command.split()
    ended = run(script, tmp_path, decoys, *arguments)
    assert ended.returncode == 2, ended.stderr
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended.stderr
    assert [word for word in words if word not in errors[0]] == []
    assert "Traceback" not in ended.stdout + ended.stderr


def test_the_mistakes_of_a_multiruns_jobs_are_told_for_each_and_before_anything_heavy(tmp_path, decoys):
    ended = run("train.py", tmp_path, decoys, "-m", "lora.r=0,-1")
    assert ended.returncode == 1
    failed = [line for line in ended.stderr.splitlines() if line.startswith("failed ")]
    assert [rank in line and "positive" in line for rank, line in zip(("lora.r=0", "lora.r=-1"), failed)] == [
        True,
        True,
    ]
    assert "Traceback" not in ended.stdout + ended.stderr


def test_a_good_config_goes_on_to_the_heavy_imports(tmp_path, decoys):
    assert run("train.py", tmp_path, decoys, "model=tiny").returncode == IMPORTED


def test_help_imports_nothing_heavy(tmp_path, decoys):
    ended = run("train.py", tmp_path, decoys, "--help")
    assert ended.returncode == 0
    assert "phase: 1, 2" in ended.stdout


def test_a_config_is_printed_without_heavy_imports_or_folders_and_its_phase_needs_no_quotes(tmp_path, decoys):
    ended = run("train.py", tmp_path, decoys, "phase=2", "--cfg", "job")
    assert "learning_rate: 1.0e-05" in ended.stdout
    assert list(tmp_path.iterdir()) == []


# How mistakes are explained.


@pytest.mark.parametrize(
    ("primary", "overrides", "words"),
    [
        ("train", "+modle=tiny", ["modle", "did you mean model?"]),
        ("train", "phase=3", ["phase=3 does not exist; phase can be 1, 2"]),
        ("train", "sweep=lora", ["sweep=lora does not exist", "lora_rank"]),
        ("train", "sed=4", ["sed is not a setting", "did you mean seed?"]),
        ("train", "+lora.rank=1", ["lora.rank is not a setting; lora has bias", "lora_alpha"]),
        ("train", "trainer.batch_size", ["trainer.batch_size"]),
        ("train", "model.system_role=perhaps", ["model.system_role", "perhaps"]),
        ("train", "~lora", ["lora.r", "lora.target_modules", "choose a group file"]),
        ("train", "hub=push", ["hub.hub_model_id"]),
        ("evaluate", "phase=2", ["phase", "did you mean"]),
    ],
)
def test_a_mistake_is_explained_by_what_there_is(primary, overrides, words):
    with (
        pytest.raises((ValueError, HydraException, OmegaConfBaseException)) as mistake,
        initialize_config_dir(version_base="1.3", config_dir=str(commandline.CONF)),
    ):
        config.load(compose(primary, overrides=commandline.quote_phase(overrides.split())))
    explained = commandline.explain(mistake.value)
    assert [word for word in words if word not in explained] == []
    assert "\n" not in explained


# Which errors are a user's mistake.


BEGUN = "train.py: composing the config\n"


def test_a_command_says_at_once_that_it_has_begun(readable, capsys):
    with readable():
        assert capsys.readouterr().err == BEGUN


def test_a_request_for_help_is_answered_and_nothing_else(readable, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--help"])
    with pytest.raises(SystemExit) as ended, readable():
        raise AssertionError("Hydra is not asked")
    said = capsys.readouterr()
    assert (ended.value.code, said.err) == (0, "")
    assert "\ntrainer: sft\n" in said.out
    assert "\nlora:\n  r: 16\n" in said.out


@pytest.fixture
def readable(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "phase=2"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    return commandline.readable_errors


def broken(config_values):
    return config.load(commandline.OmegaConf.create(config_values))


def test_a_value_that_our_package_refuses_is_a_mistake(readable, capsys):
    with pytest.raises(SystemExit) as ended, readable():
        broken({})
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"{BEGUN}error: the config has no value for ")


@pytest.mark.parametrize(
    "error", [FileNotFoundError("no such file"), PermissionError("not yours"), ConfigKeyError("no key")]
)
def test_files_and_configs_are_a_mistake_wherever_they_fail(readable, capsys, error):
    with pytest.raises(SystemExit) as ended, readable():
        raise error
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"{BEGUN}error: {error}\n"


@pytest.mark.parametrize(
    "error", [ValueError("from a library"), RuntimeError("lost GPU"), OSError("full disk"), KeyError("bug")]
)
def test_what_is_not_a_mistake_keeps_its_stack(readable, error):
    with pytest.raises(type(error)) as raised, readable():
        raise error
    assert raised.value is error


def test_an_interrupted_run_ends_as_the_shell_expects(readable):
    with pytest.raises(SystemExit) as ended, readable():
        raise KeyboardInterrupt
    assert ended.value.code == 130


def test_the_full_error_can_be_asked_for(readable, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="the config has no value"), readable():
        broken({})


def test_the_arguments_are_made_ready_for_hydra(readable):
    with readable():
        assert sys.argv == ["train.py", "phase='2'"]


@pytest.mark.parametrize("group", ["model", "data", "phase", "sweep"])
def test_the_groups_named_in_errors_are_the_folders_of_conf(group):
    assert group in commandline.groups()
