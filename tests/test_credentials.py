"""Tokens: refused in a command before anything is written, and hidden in what is logged, stamped and printed."""

from __future__ import annotations

import json
import logging
import runpy
import sys
from pathlib import Path

import pytest

from text2sql import cli, commandline, config, credentials, runs

TOKEN = "hf_" + "aB3" * 12
KEY = "0123456789abcdef" * 2 + "deadbeef"
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def planted(monkeypatch, tmp_path):
    """A login of this test's own."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "login"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


REFUSED = {
    "+hub.token=whatever": "hub.token holds a token",
    "++hub.hub_token=whatever": "hub.hub_token holds a token",
    "tracking.api_key=0123": "tracking.api_key holds a token",
    "+tracking.wandb_api_key=0123": "tracking.wandb_api_key holds a token",
    f"hydra.job.env_set.MINE={TOKEN}": "hydra.job.env_set.MINE holds a token",
    "hydra.job.env_set.HF_TOKEN=x": "hydra.job.env_set.HF_TOKEN holds a token",
    "+hydra.job.env_set={HF_TOKEN:x}": "hydra.job.env_set holds a token",
    "tracking.entity=${oc.env:HF_TOKEN}": "tracking.entity refers to a variable that holds a token",
    "tracking.entity=${oc.decode:${oc.env:WANDB_API_KEY,none}}": "tracking.entity refers to a variable",
    f"model.path={TOKEN}": "model.path holds a token",
    f"tracking.project={KEY}": "tracking.project holds a token",
    "data.path=https://user:pass@host/rows.jsonl": "data.path holds a token",
    f"{TOKEN}=1": "an argument holds a token",
}


@pytest.mark.parametrize("override", REFUSED)
@pytest.mark.parametrize("before", [[], ["-m"]], ids=["run", "multirun"])
def test_a_token_in_a_command_is_refused_before_anything_is_written(tmp_path, monkeypatch, capsys, override, before):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["train.py", *before, "model=tiny", "hardware=cpu", override])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith(f"error: {REFUSED[override]}") and "set HF_TOKEN or run `hf auth login`" in said
    assert TOKEN not in said and KEY not in said
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "override",
    [
        "prompt.max_sql_tokens=64",
        "trainer.num_tokens=1000",
        "phase.tokens=[1,2]",
        f"model.revision={'a1' * 20}",
        "prompt.instruction='Say the token: x'",
        "tracking.entity=${oc.env:USER}",
        "+hub.token=null",
        "hub.hub_model_id=someone/hf_adapter",
        "Show Basic statistics of singers, and the Bearer instruments",
    ],
)
def test_a_setting_that_only_looks_a_little_like_one_passes(override):
    credentials.refuse([override])


def test_a_saved_config_with_a_token_is_refused_before_it_is_copied(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.yaml").write_text(f"tracking:\n  entity: {TOKEN}\n")
    monkeypatch.setattr(sys, "argv", ["train.py", "--config-dir", str(tmp_path), "--config-name", "config"])
    with pytest.raises(SystemExit), commandline.readable_errors():
        pytest.fail("the command went on")
    assert f"{tmp_path}/config.yaml holds a token" in capsys.readouterr().err


def test_a_config_with_a_token_is_refused_at_the_door(compose_raw):
    cfg = compose_raw(["model=tiny", "tracking.entity=x"])
    cfg.tracking.entity = TOKEN
    with pytest.raises(ValueError, match="tracking.entity holds a token"):
        config.load(cfg)


def test_the_other_commands_refuse_one_too(capsys):
    assert cli.main(["doctor", "model=tiny", f"model.path={TOKEN}"]) == 2
    assert TOKEN not in capsys.readouterr().err


@pytest.mark.parametrize("kept_in", ["environment", "login", "netrc"])
def test_a_token_of_this_machine_is_hidden_whatever_its_shape(tmp_path, monkeypatch, kept_in):
    secret = "no-shape-that-anybody-knows"
    if kept_in == "environment":
        monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", secret)
    elif kept_in == "login":
        (tmp_path / "login").write_text(secret + "\n")
    else:
        (tmp_path / "netrc").write_text(f"machine m\n  login user\n  password {secret}\n")
    assert credentials.redact(f"https://u:{secret}@host and {secret}!") == "https://***@host and ***!"


@pytest.mark.parametrize(
    "text",
    [
        "{'Authorization': 'Bearer %s'}",
        r'"{\"authorization\": \"Basic %s\"}"',
        "Authorization: Bearer %s",
        "{b'Authorization': b'Basic %s'}",
    ],
)
def test_a_header_is_hidden(text):
    assert credentials.redact(text % "abc.def") == text % "***"


def test_data_are_written_as_they_are_whatever_they_look_like(tmp_path):
    schema = {"ddl": f"CREATE TABLE t (a TEXT DEFAULT 'https://user:pass@host {TOKEN}')"}
    runs.write_json(tmp_path / "schemas.json", schema)
    assert json.loads((tmp_path / "schemas.json").read_text()) == schema


def test_logged_traces_and_stamps_have_no_token(tmp_path, monkeypatch):
    root, handler = logging.getLogger(), logging.FileHandler(tmp_path / "log")
    monkeypatch.setattr(root, "handlers", [handler])
    credentials.redact_logs()
    runs.start(tmp_path / "run", settings={"path": f"x{TOKEN}"})
    try:
        raise RuntimeError(f"https://hub/?token={TOKEN}")
    except RuntimeError as error:
        logging.getLogger("some").exception("with the key %s", KEY)
        runs.finish(tmp_path / "run", "failed", error=repr(error))
    handler.close()
    written = (tmp_path / "log").read_text() + (tmp_path / "run/run.json").read_text()
    assert TOKEN not in written and KEY not in written
    assert "with the key ***" in written and "RuntimeError: https://hub/?token=***" in written


def test_a_traceback_is_printed_without_a_token(capsys):
    error = RuntimeError(f"Bearer {TOKEN}")
    credentials.redact_traceback(RuntimeError, error, None)
    assert capsys.readouterr().err == "RuntimeError: Bearer ***\n"
