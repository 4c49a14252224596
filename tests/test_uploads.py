"""What a run could not upload: the queue in its folder, the faults of a Hub, and who sends what is left."""

from __future__ import annotations

import fcntl
import json
import socket
import sys
from dataclasses import replace

import huggingface_hub
import pytest
from fake_hub import FakeHub
from huggingface_hub import constants

from text2sql import checkpoints, cli, hub, pushing, runs, syncing, training, uploads, upstream
from text2sql.config import HubStrategy
from text2sql.uploads import Upload

ADAPTER = Upload(uploads.HUB, "adapter", "tester/x", message="End of training")
LAST = Upload(uploads.HUB, "checkpoints/checkpoint-2", "tester/x", "last-checkpoint", "step 2")


@pytest.fixture
def run(tmp_path):
    """A finished run with an adapter and a checkpoint."""
    folder = tmp_path / "run"
    for name in ("adapter", "checkpoints/checkpoint-2"):
        (folder / name).mkdir(parents=True)
        (folder / name / "adapter_model.safetensors").write_bytes(name.encode() * 100)
        (folder / name / "adapter_config.json").write_text("{}")
    runs.write_json(folder / "run.json", {"status": "finished"})
    return folder


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A Hub that this process, and the processes that it starts, take for the real one."""
    with FakeHub(tmp_path / "hub") as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "ANSWER_S", 0.5)
        yield running
        if upstream.major("huggingface-hub") < 1:
            huggingface_hub.configure_http_backend()
        else:
            huggingface_hub.set_client_factory(huggingface_hub.utils._http.default_client_factory)


def pushed(server):
    folder = server.folder("models", "tester/x")
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# The queue


def test_a_later_upload_to_a_place_takes_the_place_of_an_earlier_one(run):
    newer = replace(ADAPTER, folder="checkpoints/checkpoint-2")
    uploads.add(run, [ADAPTER, LAST])
    uploads.add(run, [newer])
    assert uploads.pending(run) == [LAST, newer]


def test_what_was_sent_is_not_pending_and_what_was_missed_is_with_its_reason(run):
    uploads.add(run, [ADAPTER, LAST])
    first, second = uploads.pending(run)
    uploads.mark_missed(run, first, "the Hub is away")
    uploads.mark_sent(run, second)
    assert [(one, one.why) for one in uploads.pending(run)] == [(ADAPTER, "the Hub is away")]


def test_a_row_that_a_killed_process_left_half_harms_no_other(run):
    uploads.add(run, [ADAPTER])
    with (run / uploads.FILE).open("a") as file:
        file.write('{"sent": 0')
    uploads.add(run, [LAST])
    assert uploads.pending(run) == [ADAPTER, LAST]
    uploads.mark_sent(run, uploads.pending(run)[1])
    assert uploads.pending(run) == [ADAPTER]


def test_what_is_being_sent_stays_in_hand_when_a_later_one_takes_its_place(run):
    uploads.add(run, [LAST, ADAPTER])
    uploads.mark_begun(run, uploads.pending(run)[0])
    newer = [replace(LAST, folder=f"checkpoints/checkpoint-{step}", path=f"checkpoint-{step}") for step in (4, 6, 8)]
    uploads.add(run, [replace(newer[0], path=LAST.path), *newer])
    assert LAST not in uploads.pending(run)
    assert uploads.in_hand(run) == [LAST, *uploads.pending(run)[:2]]


# Faults, and what is sent after them

CURES = {
    401: "does not accept the token, or there is none (401); set HF_TOKEN to one that is valid, or run `hf auth login`",
    403: "may not write there (403); give it write access",
    429: "too many requests (429)",
    500: "it failed (500)",
    "slow": "cannot be reached (no answer in time)",
    "cut": "cannot be reached (",
}


@pytest.mark.parametrize("fault", CURES)
def test_a_fault_leaves_all_in_the_queue_with_its_reason_and_is_met_once(run, server, fault):
    uploads.add(run, [ADAPTER, LAST])
    server.fault = fault
    done = syncing.sync(run)
    assert list(done.left) == [ADAPTER, LAST] and not done.sent
    assert [CURES[fault] in why for why in done.left.values()] == [True, True]
    # huggingface-hub 2 also asks, once a day and whatever it is used for, which environments it runs in
    assert [one.path for one in server.requests if one.path != "/api/agent-harnesses"] == ["/api/models/tester/x"]
    assert [one.why for one in uploads.pending(run)] == list(done.left.values())
    assert server.token not in (run / uploads.FILE).read_text()


def test_a_hub_that_nothing_listens_for_leaves_all_in_the_queue(run, server, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
    uploads.add(run, [ADAPTER])
    assert "cannot be reached" in syncing.sync(run).left[ADAPTER]


def test_an_upload_that_is_queued_again_while_it_is_missed_is_tried_once_more_only(run, monkeypatch):
    missed = []

    def miss(run, upload, why):
        uploads.add(run, [] if missed else [ADAPTER])
        missed.append(upload.number)
        assert len(missed) < 5, "it goes on for ever"

    monkeypatch.setattr(syncing, "_send", lambda *_: "the Hub is away")
    monkeypatch.setattr(uploads, "mark_missed", miss)
    uploads.add(run, [ADAPTER])
    syncing.sync(run)
    assert missed == [0, 1]


def test_sync_sends_what_is_left_and_typed_again_nothing(run, server, capsys):
    uploads.add(run, [Upload(uploads.HUB, "", "tester/x"), ADAPTER, LAST])
    server.fault = 500
    assert cli.main(["sync", str(run)]) == 1
    assert capsys.readouterr().out.count("left: ") == 3
    server.fault = None
    assert cli.main(["sync", str(run)]) == 0
    assert (
        "sent: adapter to tester/x\nsent: checkpoints/checkpoint-2 to tester/x/last-checkpoint"
        in capsys.readouterr().out
    )
    assert server.is_private("models", "tester/x")
    files = pushed(server)
    assert files["adapter_model.safetensors"] == (run / "adapter/adapter_model.safetensors").read_bytes()
    assert "last-checkpoint/adapter_model.safetensors" in files
    commits = len(server.commits)
    assert cli.main(["sync", str(run)]) == 0
    assert capsys.readouterr().out == "nothing is left to upload\n"
    assert len(server.commits) == commits


def test_a_hub_that_is_cut_in_the_middle_is_told_the_rest_later(run, server, monkeypatch):
    uploads.add(run, [ADAPTER, LAST])
    commit = server.commit
    monkeypatch.setattr(server, "commit", lambda *some: setattr(server, "fault", "cut") or commit(*some))
    assert list(syncing.sync(run).left) == [LAST]
    server.fault = None
    assert syncing.sync(run).sent == [LAST]


def test_a_checkpoint_that_is_gone_is_said_and_holds_nothing_up(run, server, capsys):
    uploads.add(run, [replace(LAST, folder="checkpoints/checkpoint-1"), ADAPTER])
    assert cli.main(["sync", str(run)]) == 0
    said = capsys.readouterr().out
    assert "deleted meanwhile, and so not sent: checkpoints/checkpoint-1" in said and "sent: adapter" in said
    assert uploads.pending(run) == []


def test_two_processes_do_not_send_the_same(run, server):
    uploads.add(run, [ADAPTER])
    with (run / uploads.FILE).open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is uploading"):
            syncing.sync(run)
    assert syncing.sync(run).sent == [ADAPTER]


def test_a_folder_that_is_no_run_is_a_users_mistake(tmp_path, capsys):
    assert cli.main(["sync", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


# Beside a training


@pytest.fixture
def pushing_config(small):
    return small("phase=1", "hub=push", "hub.hub_model_id=tester/x", "hub.max_wait_s=20")


@pytest.mark.parametrize(
    ("strategy", "places"),
    [
        (HubStrategy.end, []),
        (HubStrategy.every_save, [""]),
        (HubStrategy.checkpoint, ["", "last-checkpoint"]),
        (HubStrategy.all_checkpoints, ["", "checkpoint-2"]),
    ],
)
def test_what_a_save_queues_follows_the_strategy(run, pushing_config, monkeypatch, strategy, places):
    monkeypatch.setattr(pushing.Pusher, "_start", lambda self: None)
    pusher = pushing.Pusher(run, replace(pushing_config, hub=replace(pushing_config.hub, hub_strategy=strategy)))
    pusher.checkpoint(run / "checkpoints/checkpoint-2", 2, ("optimizer.safetensors",))
    found = [one for one in uploads.pending(run) if one.folder]
    assert [one.path for one in found] == places
    assert [one.leave_out for one in found] == [("optimizer.safetensors",), ()][: len(places)]


def test_a_checkpoint_that_is_sent_by_a_process_that_runs_already_is_not_deleted(run, server, pushing_config):
    """The process has been started for the repository alone, before there was a checkpoint."""
    server.fault = "slow"
    pusher = pushing.Pusher(run, pushing_config)
    pusher.checkpoint(run / "checkpoints/checkpoint-2", 2, ())
    checkpoints.write(run / "checkpoints/checkpoint-4", lambda aside: (aside / "weights").touch())
    checkpoints.forget_older(run / "checkpoints", 1, pusher.in_use)
    assert (run / "checkpoints/checkpoint-2").is_dir()
    pusher.end(wait=False)
    assert pusher.in_use == []
    checkpoints.forget_older(run / "checkpoints", 1, pusher.in_use)
    assert not (run / "checkpoints/checkpoint-2").is_dir()


def test_a_slow_hub_is_waited_for_no_longer_than_asked(run, server, pushing_config, caplog):
    server.fault = "slow"
    config = replace(pushing_config, hub=replace(pushing_config.hub, max_wait_s=0.5))
    pusher = pushing.Pusher(run, config)
    pusher.adapter(run / "adapter")
    pusher.end()
    assert "2 uploads are left" in caplog.text and f"text2sql sync {run}" in caplog.text
    server.fault = None
    assert len(syncing.sync(run).sent) == 2, "the process that waited for the Hub is gone, and its lock with it"


def test_an_uploader_that_breaks_is_said_and_not_started_again(run, pushing_config, monkeypatch, tmp_path, caplog):
    broken = tmp_path / "broken"
    broken.write_text(
        f"#!{sys.executable}\nopen({str(tmp_path / 'starts')!r}, 'a').write('x')\nraise OSError('no such')\n"
    )
    broken.chmod(0o755)
    monkeypatch.setattr(pushing.sys, "executable", str(broken))
    pusher = pushing.Pusher(run, pushing_config)
    pusher.end()
    assert (tmp_path / "starts").read_text() == "x"
    assert caplog.text.count("uploading broke: Traceback") == 1 and "OSError: no such" in caplog.text
    assert "1 uploads are left" in caplog.text


@pytest.mark.parametrize("push", ["hub=none", "hub=push"])
def test_what_wandb_missed_before_this_start_is_tried_at_the_end(run, server, small, monkeypatch, push):
    left = Upload(uploads.WANDB, "wandb/offline-run-1")
    uploads.add(run, [left])
    uploads.mark_missed(run, uploads.pending(run)[0], "W&B is away")
    monkeypatch.setenv("WANDB_API_KEY", "")
    monkeypatch.setenv("NETRC", str(run / "netrc"))
    (run / left.folder).mkdir(parents=True)
    pusher = pushing.Pusher(run, small("phase=1", push, "hub.hub_model_id=tester/x"))
    pusher.kinds = (uploads.HUB, uploads.WANDB)
    pusher.end()
    (row,) = uploads.pending(run)
    assert (row, "there is no API key" in row.why) == (left, True)


def test_training_goes_on_without_the_hub_and_says_so_once(small, tmp_path, monkeypatch, caplog, one_thread):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    settings = ["hub=push", "hub.hub_model_id=tester/x", "trainer.save_steps=1", "eval.num_live_samples=0"]
    run = tmp_path / "run"
    training.train(small("phase=1", *settings), str(run))
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert caplog.text.count("not uploaded to the Hub: http://127.0.0.1:1 cannot be reached") == 1
    assert [str(one) for one in uploads.pending(run)] == [
        "tester/x",
        "checkpoints/checkpoint-3 to tester/x/last-checkpoint",
        "adapter to tester/x",
    ]
