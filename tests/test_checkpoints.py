"""Checkpoints: whole or not there, whatever happens while they are written and to their files afterwards."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from pathlib import Path

import pytest

from text2sql import checkpoints, fitting, geometry, runs, training

FILES = {"adapter.safetensors": b"a" * 4000, "deeper/state.json": b'{"step": 1}', "empty": b""}


def fill(folder):
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.fixture
def folder(tmp_path):
    """A folder with the whole checkpoints of steps 1, 2 and 10."""
    for step in (1, 2, 10):
        checkpoints.write(tmp_path / f"checkpoint-{step}", fill)
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_is_there_and_whole(folder):
    latest = folder / "checkpoint-10"
    assert {name: (latest / name).read_bytes() for name in FILES} == FILES
    assert checkpoints.damage(latest) is None
    assert checkpoints.newest_whole(folder) == latest
    assert names(folder) == ["checkpoint-1", "checkpoint-10", "checkpoint-2"]


def torn(path):
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path):
    path.write_bytes(b"")


def bit_flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def grown(path):
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize("break_it", [torn, emptied, bit_flipped, grown, Path.unlink], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["adapter.safetensors", "deeper/state.json", checkpoints.MANIFEST])
def test_damage_to_any_file_is_seen_and_the_one_before_is_taken_and_named(folder, caplog, break_it, name):
    break_it(folder / "checkpoint-10" / name)
    assert checkpoints.damage(folder / "checkpoint-10")
    assert checkpoints.newest_whole(folder) == folder / "checkpoint-2"
    assert "checkpoint-10 is damaged and passed over" in caplog.text


def test_every_bit_of_the_manifest_counts(folder):
    path = folder / "checkpoint-1" / checkpoints.MANIFEST
    whole = path.read_bytes()
    seen = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        seen += checkpoints.damage(folder / "checkpoint-1") is not None
    # what JSON does not tell apart: a blank and another control character are no difference, or no JSON
    assert seen >= len(whole) - whole.count(b"\n") - whole.count(b" ")


class Killed(BaseException):
    pass


def test_one_that_is_broken_off_is_not_there(folder):
    def break_off(aside):
        fill(aside)
        raise Killed

    with pytest.raises(Killed):
        checkpoints.write(folder / "checkpoint-20", break_off)
    assert checkpoints.newest_whole(folder) == folder / "checkpoint-10"
    assert names(folder) == ["checkpoint-1", "checkpoint-10", "checkpoint-2"]


@pytest.mark.parametrize("call", range(9))
def test_killed_between_any_two_calls_it_is_whole_or_not_there(folder, monkeypatch, call):
    """A process that is killed cleans nothing up: every later call is one that never happens."""
    calls = []

    def counted(does):
        def instead(*some, **more):
            calls.append(does)
            if len(calls) > call:
                raise Killed
            return does(*some, **more)

        return instead

    monkeypatch.setattr(checkpoints, "sync", counted(checkpoints.sync))
    monkeypatch.setattr(Path, "rename", counted(Path.rename))
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with contextlib.suppress(Killed):
        checkpoints.write(folder / "checkpoint-20", fill)
    monkeypatch.undo()
    newest = checkpoints.newest_whole(folder)
    assert newest == folder / ("checkpoint-20" if (folder / "checkpoint-20").exists() else "checkpoint-10")
    checkpoints.clear_away(folder, checkpoints.step_of(newest))
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_keeps_what_there_was_and_names_the_cure(folder, number):
    def full(aside):
        (aside / "half").write_bytes(b"half")
        raise OSError(number, "No room")

    with pytest.raises(RuntimeError, match=r"no space is left.*are kept.*save_total_limit.*resume=true"):
        checkpoints.write(folder / "checkpoint-20", full)
    assert checkpoints.newest_whole(folder) == folder / "checkpoint-10"
    assert not list(folder.glob(".*"))


def test_a_damaged_one_of_the_same_step_is_replaced(folder):
    torn(folder / "checkpoint-10" / "adapter.safetensors")
    checkpoints.write(folder / "checkpoint-10", fill)
    assert checkpoints.damage(folder / "checkpoint-10") is None
    assert not list(folder.glob(".*"))


def test_older_ones_go_when_the_latest_is_whole(folder):
    checkpoints.forget_older(folder, 2)
    assert names(folder) == ["checkpoint-10", "checkpoint-2"]


def test_none_goes_while_the_latest_is_damaged(folder, caplog):
    emptied(folder / "checkpoint-10" / "adapter.safetensors")
    checkpoints.forget_older(folder, 1)
    assert len(names(folder)) == 3
    assert "no older checkpoint is deleted" in caplog.text


def test_one_that_is_being_uploaded_stays(folder):
    checkpoints.forget_older(folder, 1, in_use=[folder / "checkpoint-1"])
    assert names(folder) == ["checkpoint-1", "checkpoint-10"]


def test_a_file_is_cut_to_where_it_was(tmp_path, caplog):
    path = tmp_path / "rows"
    checkpoints.cut(path, 3)
    path.write_text("abcdef")
    checkpoints.cut(path, 3)
    assert path.read_text() == "abc"
    checkpoints.cut(path, 5)
    assert path.read_text() == "abc"
    assert "shorter" in caplog.text
    checkpoints.cut(path, 0)
    assert not path.exists()


def test_the_manifest_is_of_what_is_on_the_disk(folder):
    files = json.loads((folder / "checkpoint-1" / checkpoints.MANIFEST).read_text())["files"]
    assert {name: about["size"] for name, about in files.items()} == {k: len(v) for k, v in FILES.items()}


# Room for them


def test_a_disk_without_room_is_an_error_before_training_with_its_cure(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 10**9))
    checkpoints.check_space(tmp_path / "not/yet", 2 * 10**8, 2, num_saves=9)
    with pytest.raises(
        ValueError, match=r"1\.00 GB free.*up to 1\.20 GB.*save_total_limit=2 of 0\.30 GB.*hydra\.run\.dir"
    ):
        checkpoints.check_space(tmp_path / "not/yet", 3 * 10**8, 2, num_saves=9)


def test_a_limit_of_none_counts_every_save(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 10**9))
    checkpoints.check_space(tmp_path, 10**8, 0, num_saves=8)
    with pytest.raises(
        ValueError, match=r"up to 1\.10 GB more \(trainer\.save_total_limit=0, which keeps 9 of 0\.10 GB"
    ):
        checkpoints.check_space(tmp_path, 10**8, 0, num_saves=9)


def test_a_run_that_goes_on_needs_no_room_for_the_checkpoints_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 3000))
    for step in (2, 4):
        checkpoints.write(
            tmp_path / f"run/checkpoints/checkpoint-{step}", lambda aside: (aside / "a").write_bytes(b"x" * 1000)
        )
    checkpoints.check_space(tmp_path / "run", 1000, 2, num_saves=9)
    with pytest.raises(ValueError, match="free some"):
        checkpoints.check_space(tmp_path / "elsewhere", 1000, 2, num_saves=9)


@pytest.mark.parametrize(
    "settings, saves",
    [
        ("trainer.save_steps=0.25", 3),
        ("trainer.save_steps=2", 3),
        ("trainer.save_steps=2 trainer.num_train_epochs=2", 5),
        ("trainer.save_steps=2 trainer.max_steps=3", 2),
        ("trainer.save_steps=2 trainer.num_tokens=1750", 4),
    ],
)
def test_saves_are_counted_as_they_are_made(small, settings, saves):
    assert fitting.num_saves(small("phase=1", "trainer.batch_size=5", *settings.split()), [50] * 24) == saves


def test_what_a_checkpoint_takes_is_predicted(small, curriculum):
    config = curriculum.one.config
    predicted = fitting.checkpoint_bytes(config, geometry.of(config.model)) - fitting.BESIDE_THE_ADAPTER
    folder = curriculum.one.run / "checkpoints/checkpoint-3"
    weights = sum((folder / name).stat().st_size for name in ("adapter_model.safetensors", "optimizer.safetensors"))
    assert predicted == pytest.approx(weights, rel=0.05)


def test_a_run_that_meets_a_full_disk_keeps_the_checkpoint_before_and_ends_as_failed(small, tmp_path, monkeypatch):
    sync = checkpoints.sync

    def refuse(path):
        if path.name == "optimizer.safetensors" and "checkpoint-2" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(path)

    monkeypatch.setattr(checkpoints, "sync", refuse)
    with pytest.raises(RuntimeError, match="no space is left for .*checkpoint-2"):
        training.train(small("phase=1", "trainer.save_steps=1", "eval.num_live_samples=0"), str(tmp_path))
    assert checkpoints.newest_whole(tmp_path / "checkpoints").name == "checkpoint-1"
    assert runs.read(tmp_path)["status"] == "failed"
