"""Tracking with W&B: online where it can be, else offline with one warning, and never a token on disk."""

import json
import logging
import os
import struct
import sys
import types
from pathlib import Path

import pytest
from fake_wandb import FakeWandb

from text2sql import runs, syncing, tracking, uploads
from text2sql.tracking import Tracker

KEY = "0123456789abcdef" * 2 + "deadbeef"
NOWHERE = "http://127.0.0.1:1"
ROWS = [{"question": "How many?", "prediction": "SELECT 1"}]


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """No key, no server and no settings but the test's own."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", NOWHERE)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-own"))


@pytest.fixture
def server(monkeypatch):
    """A W&B server on loopback, and a key for it."""
    with FakeWandb() as running:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        yield running


@pytest.fixture
def wandb(monkeypatch, tmp_path):
    """A stand-in for wandb that keeps what it was given."""
    fake = types.SimpleNamespace(started=[], logged=[], ended=[])
    run = types.SimpleNamespace(log=fake.logged.append, finish=lambda exit_code: fake.ended.append(exit_code))
    run.dir = tmp_path / "wandb/offline-run-1/files"
    fake.init = lambda **settings: fake.started.append(settings) or run
    fake.Error, fake.Settings = RuntimeError, lambda **settings: settings
    fake.Table = lambda columns, data: {"columns": columns, "data": [list(row) for row in data]}
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_mode_none_does_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would fail
    run = tmp_path / "run"
    run.mkdir()
    tracker = Tracker("none", run, {}, project="p")
    tracker.log({"loss": 1.0}, 1)
    tracker.table("samples", ROWS, 1)
    tracker.finish(max_wait_s=60)
    assert list(run.iterdir()) == []


def test_mode_offline_asks_for_no_key_and_warns_of_nothing(tmp_path, wandb, caplog):
    Tracker("offline", tmp_path, {"seed": 1}, project="p", name="n")
    assert [(run["mode"], run["dir"], run["config"], run["project"], run["name"]) for run in wandb.started] == [
        ("offline", str(tmp_path), {"seed": 1}, "p", "n")
    ]
    assert caplog.records == []


def test_online_without_a_key_goes_offline_and_says_so_once(tmp_path, wandb, caplog):
    Tracker("online", tmp_path, {}, project="p").log({"loss": 1.0}, 1)
    assert [run["mode"] for run in wandb.started] == ["offline"]
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "there is no API key" in warning.getMessage()
    assert f"text2sql sync {tmp_path}" in warning.getMessage()
    (queued,) = uploads.pending(tmp_path)
    assert (queued.to, queued.folder) == ("wandb", "wandb/offline-run-1") and "no API key" in queued.why


def test_online_without_its_server_goes_offline_at_once_and_says_why(tmp_path, wandb, caplog, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    Tracker("online", tmp_path, {}, project="p")
    assert [run["mode"] for run in wandb.started] == ["offline"]
    (warning,) = caplog.records
    assert "127.0.0.1 cannot be reached" in warning.getMessage()
    assert KEY not in warning.getMessage()


def test_online_with_a_key_and_a_server_stays_online_and_has_an_id(tmp_path, wandb, caplog, server):
    tracker = Tracker("online", tmp_path, {}, project="p")
    assert [(run["mode"], run["id"], run["resume"]) for run in wandb.started] == [("online", tracker.id, "allow")]
    assert caplog.records == []


def test_a_run_that_goes_on_goes_on_under_its_id(tmp_path, wandb, server):
    assert Tracker("online", tmp_path, {}, id="kept").id == "kept"
    assert wandb.started[0]["id"] == "kept"


FAULTS = {
    401: "it does not accept the API key (401); set WANDB_API_KEY to one that is valid",
    403: "it does not accept the API key (403)",
    429: "it had too many requests (429)",
    500: "it failed (500)",
    "slow": "cannot be reached (no answer in 0.3 s)",
    "cut": "cannot be reached (",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_server_makes_a_run_offline_and_is_queued(tmp_path, wandb, caplog, server, monkeypatch, fault):
    monkeypatch.setattr(tracking.why_offline, "__defaults__", (0.3,))
    server.fault = fault
    Tracker("online", tmp_path, {})
    assert [run["mode"] for run in wandb.started] == ["offline"]
    assert FAULTS[fault] in uploads.pending(tmp_path)[0].why
    assert caplog.text.count("W&B goes offline") == 1


def test_a_start_that_fails_makes_a_run_offline(tmp_path, wandb, server, monkeypatch):
    start = wandb.init

    def init(**settings):
        if settings["mode"] == "online":
            raise RuntimeError(f"timed out, and the key is {KEY}")
        return start(**settings)

    monkeypatch.setattr(wandb, "init", init)
    assert Tracker("online", tmp_path, {}).id is None
    assert uploads.pending(tmp_path)[0].why == "wandb.init failed (timed out, and the key is ***)"


def test_a_start_that_fails_without_a_word_does_so_too(tmp_path, wandb, server, monkeypatch):
    start = wandb.init

    def init(**settings):
        if settings["mode"] == "online":
            raise TimeoutError
        return start(**settings)

    monkeypatch.setattr(wandb, "init", init)
    Tracker("online", tmp_path, {})
    assert uploads.pending(tmp_path)[0].why == "wandb.init failed (TimeoutError)"


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        ("127.0.0.1", None),
        ("api.wandb.ai", "there is no API key (set WANDB_API_KEY to one that is valid, or run `wandb login`)"),
    ],
)
def test_the_key_of_a_login_counts_for_its_own_server(tmp_path, monkeypatch, server, machine, reason):
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / "netrc").write_text(f"machine {machine}\n  login user\n  password {KEY}\n")
    (tmp_path / "netrc").chmod(0o600)
    assert tracking.why_offline() == reason


@pytest.mark.parametrize("netrc", ["", "machine", "nonsense here"])
def test_a_netrc_without_a_key_is_no_key(tmp_path, netrc):
    (tmp_path / "netrc").write_text(netrc)
    assert "there is no API key" in tracking.why_offline()


def test_numbers_are_logged_with_their_step(tmp_path, wandb):
    Tracker("offline", tmp_path, {}).log({"loss": 1.0}, 3)
    assert wandb.logged == [{"loss": 1.0, "step": 3}]


def test_a_table_is_logged_whole_each_time(tmp_path, wandb):
    tracker = Tracker("offline", tmp_path, {})
    tracker.table("samples", [{"a": 1, "b": 2}], 1)
    tracker.table("samples", [{"a": 3, "b": 4}], 2)
    tracker.table("others", [{"c": 5}], 2)
    assert [row["samples"]["data"] for row in wandb.logged[:2]] == [[[1, 2]], [[1, 2], [3, 4]]]
    assert wandb.logged[2]["others"] == {"columns": ["c"], "data": [[5]]}


def test_a_table_keeps_its_columns_in_the_order_of_its_first_row(tmp_path, wandb):
    tracker = Tracker("offline", tmp_path, {})
    tracker.table("samples", [{"a": 1, "b": 2}], 1)
    tracker.table("samples", [{"b": 4, "a": 3}], 2)
    assert wandb.logged[1]["samples"] == {"columns": ["a", "b"], "data": [[1, 2], [3, 4]]}


def test_a_table_without_rows_is_not_logged(tmp_path, wandb):
    Tracker("offline", tmp_path, {}).table("samples", [], 1)
    assert wandb.logged == []


def test_a_run_that_failed_is_finished_as_one(tmp_path, wandb):
    Tracker("offline", tmp_path, {}).finish(exit_code=1, max_wait_s=60)
    assert wandb.ended == [1]


# With the real wandb.


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """The folder of a run that wanted to be online, had a key and no server."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    run = tmp_path / "run"
    run.mkdir()
    tracker = Tracker("online", run, {"lora": {"r": 8}}, project="p", name="n", group="g", entity=None)
    tracker.log({"loss": 1.25}, 1)
    tracker.table("samples", ROWS, 1)
    tracker.table("samples", ROWS, 2)
    tracker.finish(max_wait_s=60)
    import wandb

    wandb.teardown()  # as at the end of the process: waits until wandb's own has written everything
    return run


def records(log):
    """What a log in LevelDB's format holds, which wandb's own reader was for until 0.31: parts in blocks of 32 KiB."""
    at, begun = len(b":W&B") + 3, b""
    while at + 7 <= len(log):
        if (room := -at % 32768) and room < 7:
            at += room
        length, kind = struct.unpack_from("<HB", log, at + 4)
        begun += log[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole one, or the last part of one
            yield begun
            begun = b""


def history(run):
    """The rows of the run's own file, which `wandb sync` reads."""
    from wandb.proto import wandb_internal_pb2

    (path,) = run.glob("wandb/offline-run-*/run-*.wandb")
    rows = []
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            items = record.history.item
            rows.append({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


def test_an_offline_run_records_numbers_and_tables_and_no_token(recorded):
    rows = history(recorded)
    assert [(row["step"], row.get("loss")) for row in rows] == [(1, 1.25), (1, None), (2, None)]
    tables = [json.loads(path.read_text()) for path in recorded.rglob("*.table.json")]
    assert sorted(len(table["data"]) for table in tables) == [1, 2]
    assert tables[0]["columns"] == ["question", "prediction"]
    files = [path for path in recorded.rglob("*") if path.is_file()]
    assert len(files) > 2
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


@pytest.fixture
def real(server):
    """The server, for the real wandb, whose process keeps no login and no address of another test."""
    import wandb

    wandb.teardown()
    yield server
    server.fault = None
    wandb.teardown()


def test_a_server_that_falls_silent_at_the_start_makes_a_run_offline(tmp_path, real, monkeypatch):
    answer = real.answer
    monkeypatch.setattr(tracking, "START_S", 1.0)
    monkeypatch.setattr(real, "answer", lambda *some: setattr(real, "fault", "slow") or answer(*some))
    tracker = Tracker("online", tmp_path, {}, project="p")
    tracker.log({"loss": 2.0}, 1)
    tracker.finish(max_wait_s=60)
    (left,) = uploads.pending(tmp_path)
    assert left.folder.startswith("wandb/offline-run-") and "wandb.init failed" in left.why


def test_a_resumed_run_goes_on_in_the_same_run_of_the_server(tmp_path, real):
    first = Tracker("online", tmp_path, {}, project="p")
    first.log({"loss": 2.0}, 1)
    first.finish(max_wait_s=60)
    second = Tracker("online", tmp_path, {}, id=first.id, project="p")
    second.log({"loss": 1.0}, 2)
    second.finish(max_wait_s=60)
    assert {name: [row["loss"] for row in rows] for name, rows in real.history.items()} == {first.id: [2.0, 1.0]}
    assert uploads.pending(tmp_path) == []


def test_what_a_server_that_goes_away_has_not_taken_is_sent_later(tmp_path, real):
    tracker = Tracker("online", tmp_path, {}, project="p")
    real.fault = "cut"
    tracker.log({"loss": 2.0}, 1)
    tracker.table("samples", ROWS, 1)
    tracker.finish(max_wait_s=0.3)
    (left,) = uploads.pending(tmp_path)
    assert left.folder.startswith("wandb/offline-run-") and "did not take all in 0.3 s" in left.why
    import wandb

    wandb.teardown()
    runs.write_json(tmp_path / "run.json", {"status": "finished"})
    assert "cannot be reached" in str(syncing.sync(tmp_path).left)
    real.fault = None
    assert [one.folder for one in syncing.sync(tmp_path).sent] == [left.folder]
    sent = real.history[left.folder.rpartition("-")[2]]
    assert [row.get("loss") for row in sent] == [2.0, None] and "samples" in sent[1]


def test_a_mark_of_an_earlier_time_does_not_make_a_refused_run_a_sent_one(tmp_path, real, monkeypatch):
    tracker = Tracker("offline", tmp_path, {}, project="p")
    tracker.log({"loss": 2.0}, 1)
    tracker.finish(max_wait_s=60)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    Path(f"{file}.synced").touch()
    monkeypatch.setattr(tracking, "why_offline", lambda: None)  # it goes away between that question and the upload
    real.fault = 401
    assert "sent nothing" in tracking.upload(file.parent, timeout_s=60)
    real.fault = None
    assert tracking.upload(file.parent, timeout_s=60) == ""
    (sent,) = real.history.values()
    assert [row["loss"] for row in sent] == [2.0]


def test_what_a_run_is_writing_still_is_not_sent(tmp_path, server):
    uploads.add(tmp_path, [uploads.Upload("wandb", "wandb/offline-run-1")])
    (tmp_path / "wandb/offline-run-1").mkdir(parents=True)
    runs.write_json(tmp_path / "run.json", {"status": "running", "process": runs.process(os.getpid())})
    assert list(syncing.sync(tmp_path).left.values()) == ["the run is still writing it"]
