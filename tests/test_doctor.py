"""text2sql doctor: what it says about a run for a GPU elsewhere, about data it has and has not, and how it ends."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from text2sql import cli, config, doctor, machines, model
from text2sql.config import TrackingMode
from text2sql.doctor import text, tokens, traps
from text2sql.doctor.text import as_text


@pytest.fixture
def no_hub(monkeypatch):
    """A laptop without hub and GPU, that says so at once."""

    def refuse(_):
        raise ValueError("the hub cannot be reached\nsecond line")

    monkeypatch.setattr(model, "load_tokenizer", refuse)
    monkeypatch.setattr(doctor, "go_offline_without_hub", lambda _: None)
    monkeypatch.setattr(machines, "num_gpus_here", lambda: 0)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def report(small):
    return doctor.diagnose(small())


def run(*arguments):
    return cli.main(["doctor", *arguments])


def test_a_laptop_is_told_about_two_t4s(tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", "import sys; from text2sql import cli; sys.exit(cli.main())", "doctor", "hardware=t4x2"],
        capture_output=True, text=True, env=environment, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "2 x T4, fp16" in ended.stdout
    assert re.search(r"mistral_nemo_12b fits: 1\d\.\d\d GiB on each T4", ended.stdout)
    assert "no tokenizer" in ended.stdout and "no data" in ended.stdout
    assert "Traceback" not in ended.stderr


def test_sections_come_in_order(report):
    printed = as_text(report)
    places = [
        printed.index(word) for word in ("phase 1", "memory of each", "tokens of the", "example 0", "time,", "traps")
    ]
    assert places == sorted(places)
    assert "\x1b" not in printed


def test_the_table_adds_up_to_the_total_it_prints(no_hub, capsys):
    run("hardware=t4x2", "data.path=mini")
    rows = re.findall(r"^  (\S.*?)  +(\d+\.\d\d) GiB", capsys.readouterr().out, re.MULTILINE)
    *parts, (name, total) = rows
    assert name == "total"
    assert sum(float(size) for _, size in parts) == pytest.approx(float(total), abs=0.05)


def test_what_cannot_fit_ends_with_code_1_and_says_what_would(no_hub, capsys):
    assert run("hardware=t4x2", "data.path=mini", "hardware.dtype=float32", "hardware.fast_path=false") == 1
    printed = capsys.readouterr().out
    assert "cannot fit" in printed
    assert "hardware.dtype=float16" in printed
    assert "quant.bnb_4bit_compute_dtype=float32 unpacks" in printed


def test_an_unknown_gpu_is_no_failure_and_says_what_to_set(no_hub, capsys):
    assert run("hardware=gpu", "data.path=mini") == 0
    assert "set hardware.gpu=T4 (or another) or hardware.memory_gib=N" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hardware=t5", "hardware=t5 does not exist"),
        ("hardware.gpus=2", "hardware.gpus is not a setting"),
        ("lora.r=-1", "lora.r=-1 must be positive"),
        ("prompt.style=nope", "prompt.style=nope does not exist"),
        ("hardware.gpu=B9", "hardware.gpu=B9 is not known"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_wrong_override_is_one_line_and_code_2(no_hub, capsys, override, message):
    assert run(override) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ") and message in printed.err and printed.err.count("\n") == 1


def test_phases_are_typed_as_for_training(no_hub, capsys):
    assert run("phase=2", "data.path=mini") == 0
    assert capsys.readouterr().out.startswith("phase 2 ")


def test_each_missing_thing_is_one_line_and_the_rest_is_shown(no_hub, capsys):
    run("hardware=t4", "phase=2", "data.path=no/such/folder")
    printed = capsys.readouterr().out
    assert "no tokenizer, so nothing about tokens: the hub cannot be reached\n" in printed
    assert "second line" not in printed
    assert "data.path=no/such/folder does not exist" in printed
    assert "assuming 383 tokens" in printed
    assert "the run: not known" in printed


def test_json_holds_what_is_printed(small_overrides, tmp_path, capsys):
    file = tmp_path / "doctor.json"
    assert run(*small_overrides, "--json", str(file)) == 0
    written = json.loads(file.read_text())
    assert written["fits"] is True
    assert written["total"] == sum(part["bytes"] for part in written["memory"]["parts"])
    assert len(written["tokens"]["lengths"]) == 24
    assert written["steps"] == 3
    assert written["run_s"] == pytest.approx(3 * written["speed"]["step_s"])
    assert "24 examples" in capsys.readouterr().out


def test_json_that_cannot_be_written_is_an_error_with_a_cure(small_overrides, tmp_path, capsys):
    assert run(*small_overrides, "--json", str(tmp_path / "no" / "doctor.json")) == 2
    assert "name a file in a folder that is there" in capsys.readouterr().err


def test_cures_are_in_the_json(no_hub, tmp_path):
    file = tmp_path / "doctor.json"
    run("hardware=t4", "hardware.max_tokens=8192", "data.path=mini", "--json", str(file))
    cure = json.loads(file.read_text())["cures"][0]
    assert (cure["overrides"], cure["changes_what_is_learned"]) == ("hardware.max_tokens=4096", False)


def test_tokens_are_those_that_training_encodes(small, report):
    from text2sql import data, prompts

    settings = small()
    tokenizer = model.load_tokenizer(settings.model)
    examples = data.load(settings.data, "train", seed=settings.seed).examples
    assert report.tokens.lengths == [len(prompts.encode(tokenizer, example, settings).ids) for example in examples]


def test_shortened_prompts_and_examples_that_do_not_fit_are_counted(small):
    found = doctor.diagnose(small("trainer.max_length=190", "hardware.max_tokens=2048")).tokens
    whole = doctor.diagnose(small()).tokens
    assert found.num_shortened + found.num_too_long > 0
    assert len(found.lengths) + found.num_too_long == len(whole.lengths)
    assert whole.num_shortened == whole.num_too_long == 0


def test_an_example_too_long_is_refused_where_the_config_says_so(small_overrides, capsys):
    tight = ["trainer.max_length=80", "prompt.max_sql_tokens=20", "data.on_bad_row=refuse"]
    assert run(*small_overrides, *tight) == 2
    assert "tokens" in capsys.readouterr().err


def test_the_example_shows_what_is_learned_with_its_eos(report):
    view = report.tokens.view
    assert view.masked.endswith("[/INST]")
    assert view.trained.startswith("SELECT") and view.eos == "</s>"
    assert f"[/INST]⟦{view.trained}</s>⟧" in as_text(report)


def test_in_colour_the_prompt_is_grey_and_what_is_learned_green(report):
    view, printed = report.tokens.view, as_text(report, color=True)
    assert f"{text.GREY}{view.masked}{text.PLAIN}{text.GREEN}{view.trained}{text.INVERSE}</s>{text.PLAIN}" in printed
    assert text.LEFT not in printed


@pytest.mark.parametrize(
    ("is_terminal", "environment", "flags", "colored"),
    [
        (True, "", [], True),
        (True, "1", [], False),
        (True, "", ["--no-color"], False),
        (False, "", [], False),
    ],
)
def test_colour_is_for_terminals_that_want_it(
    small_overrides, report, monkeypatch, capsys, is_terminal, environment, flags, colored
):
    monkeypatch.setattr(doctor, "diagnose", lambda *_: report)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    monkeypatch.setenv("NO_COLOR", environment)
    run(*small_overrides, *flags)
    assert ("\x1b[" in capsys.readouterr().out) is colored


def test_another_example_can_be_asked_for(small, small_overrides, capsys):
    assert doctor.diagnose(small(), 3).tokens.view.number == 3
    assert run(*small_overrides, "--example", "24") == 2
    assert "--example 24 does not exist; there are 0 to 23" in capsys.readouterr().err


def test_data_cannot_steer_the_terminal():
    assert text.visible("a\x1b[2Jb\nc\td\x9b") == "a\\x1b[2Jb\nc\td\\x9b"


@pytest.mark.parametrize("lengths", [[5], [1, 1, 1], list(range(1, 1000)), [10, 900]])
def test_every_length_is_in_one_bar(lengths):
    lines = text.histogram(lengths)
    assert len(lines) <= text.BINS
    assert sum(int(line.split()[-1]) for line in lines) == len(lengths)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0062, "6 ms"), (1.7, "1.7 s"), (26, "26 s"), (90, "1.5 min"), (6600, "1.8 h"), (90000, "25 h")],
)
def test_durations_have_the_unit_that_fits(seconds, shown):
    assert text.duration(seconds) == shown


def messages(composed, gpu=None):
    machine = machines.GPUS[gpu] if gpu else machines.of(composed.hardware)
    return " ".join(trap.message for trap in traps.find(composed, doctor.geometry.of(composed.model), machine))


@pytest.mark.parametrize(
    ("overrides", "gpu", "message"),
    [
        (["hardware=t4", "hardware.fp16=false", "hardware.bf16=true"], "T4", "emulates bf16"),
        (["hardware=t4", "model=smollm2_135m"], "T4", "SmolLM2's hidden states"),
        (["hardware=t4x2"], "T4", "asks for 2 GPU(s) and this machine shows 0"),
        (["hardware=cpu", "model=tiny"], None, "adamw_torch takes its place"),
        (["hardware=t4", "hardware.fast_path=false"], "T4", "compute_dtype=float32 unpacks"),
        (["hardware=gpu", "model=smollm2_135m"], "H100", "cannot be recorded in a CUDA graph"),
        (["hardware=gpu", "tracking=wandb"], "H100", "no API key"),
    ],
)
def test_traps_are_found_and_not_where_they_are_mended(compose, monkeypatch, tmp_path, overrides, gpu, message):
    monkeypatch.setattr(machines, "num_gpus_here", lambda: 0)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert message in messages(compose(overrides), gpu)
    monkeypatch.setattr(machines, "num_gpus_here", lambda: 2)
    mended = ["hardware=gpu", "trainer.optim=adamw_torch", "tracking=none"]
    assert message not in messages(compose(mended), "H100")


def test_a_key_for_wandb_is_enough_and_no_network_is_asked(compose, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x")
    composed = compose(["hardware=cpu", "model=tiny"])
    online = replace(composed, tracking=replace(composed.tracking, mode=TrackingMode.online))
    assert "API key" not in messages(online)


def test_versions_outside_the_tested_ones_are_named(monkeypatch):
    installed = traps.metadata.version
    monkeypatch.setattr(traps.metadata, "version", lambda name: "9.9" if name == "trl" else installed(name))
    (trap,) = traps._version_traps()
    assert trap.message == "trl 9.9 is not among the tested versions"
    assert trap.cure.startswith("pip install 'trl")


def test_the_hub_is_asked_once_and_only_where_it_is_needed(compose, monkeypatch):
    asked = []

    def refuse(address, timeout):
        asked.append(address)
        raise OSError

    monkeypatch.setattr(doctor.socket, "create_connection", refuse)
    monkeypatch.setattr(doctor, "getproxies", dict)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    doctor.go_offline_without_hub(compose(["model=tiny", "data.path=mini"]))
    assert asked == []
    doctor.go_offline_without_hub(compose([]))
    assert asked == [("huggingface.co", 443)]
    assert doctor.os.environ.pop("HF_HUB_OFFLINE") == "1"


def test_steps_follow_from_examples_batch_and_epochs(small):
    assert doctor.diagnose(small("trainer.num_train_epochs=2")).steps == 6
    assert doctor.diagnose(small("trainer.max_steps=5")).steps == 5


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit, match="0"):
        run("--help")
    printed = capsys.readouterr().out
    assert all(option in printed for option in ("--json", "--example", "--no-color", "Exit code 1"))


def test_a_config_that_was_composed_is_the_one_that_trains(compose):
    assert doctor.compose(["hardware=t4", "phase=2"]) == compose(["hardware=t4", "phase=2"])
    assert isinstance(doctor.compose([]), config.Config)


def test_percentiles_are_lengths_that_occur():
    found = tokens.Tokens([4, 1, 3, 2], 0, 0, 0, view=None)
    assert (found.percentile(0.5), found.percentile(1.0), found.percentile(0.0)) == (2, 4, 1)
