"""The run folder: claimed by one run, stamped at both ends, found again by the phase that continues it."""

import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2sql import runs

FINGERPRINT = {"model": "tiny", "lora.r": 16}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def stamp(folder):
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


# Start and finish.


def test_a_started_run_says_that_it_is_running_and_by_what(tmp_path):
    runs.start(tmp_path / "a" / "run", phase=1, seed=7)
    record = stamp(tmp_path / "a" / "run")
    assert (record["status"], record["phase"], record["seed"]) == ("running", 1, 7)
    assert record["command"]
    assert record["versions"]["hydra-core"].startswith("1.3")


def test_start_returns_what_it_wrote(tmp_path):
    assert runs.start(tmp_path, seed=7) == stamp(tmp_path)


def test_a_folder_is_claimed_by_one_run_only(tmp_path):
    runs.start(tmp_path, seed=1)
    with pytest.raises(ValueError, match=r"already holds a run; choose another with hydra\.run\.dir=DIR"):
        runs.start(tmp_path, seed=2)
    assert stamp(tmp_path)["seed"] == 1


def test_a_folder_with_other_files_can_be_claimed(tmp_path):
    (tmp_path / ".hydra").mkdir()
    runs.start(tmp_path)
    assert stamp(tmp_path)["status"] == "running"


@pytest.mark.parametrize("below", [".", "deeper/still"])
def test_a_folder_that_cannot_be_written_is_an_error_naming_the_setting(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"hydra\.run\.dir=DIR.*hydra\.sweep\.dir=DIR"):
        runs.start(tmp_path / "file" / below)


def test_a_finished_run_keeps_its_stamp_and_adds_how_it_ended(tmp_path):
    started = runs.start(tmp_path, seed=7)
    runs.finish(tmp_path, "failed", error="lost GPU")
    record = stamp(tmp_path)
    assert (record["status"], record["error"]) == ("failed", "lost GPU")
    assert record["finished"] >= started["started"]
    assert {key: record[key] for key in started if key != "status"} == {
        key: value for key, value in started.items() if key != "status"
    }


# Files.


@given(JSON_VALUES)
def test_json_reads_back_as_it_was_written(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "value.json"
    runs.write_json(path, value)
    assert json.loads(path.read_text(encoding="utf-8")) == value


def test_json_that_cannot_be_finished_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "value.json"
    runs.write_json(path, {"old": 1})

    def half_written(self, text, **_):
        with self.open("w") as file:
            file.write(text[:3])
        raise OSError("disk full")

    monkeypatch.setattr(type(path), "write_text", half_written)
    with pytest.raises(OSError, match="disk full"):
        runs.write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}


def test_json_leaves_nothing_beside_it(tmp_path):
    runs.write_json(tmp_path / "value.json", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


@given(st.lists(st.dictionaries(st.text(), JSON_VALUES, max_size=3), max_size=4), st.integers(0, 4))
def test_rows_read_back_in_the_order_they_were_appended(tmp_path_factory, rows, first):
    path = tmp_path_factory.mktemp("rows") / "history.jsonl"
    runs.append_jsonl(path, rows[:first])
    runs.append_jsonl(path, rows[first:])
    assert runs.read_jsonl(path) == rows


def test_a_file_of_rows_that_is_not_there_has_none(tmp_path):
    assert runs.read_jsonl(tmp_path / "history.jsonl") == []


# Stamps.


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The package as if it stood in a folder of its own, which no repository encloses."""
    (tmp_path / "code" / "text2sql").mkdir(parents=True)
    monkeypatch.setattr(runs, "__file__", str(tmp_path / "code" / "text2sql" / "runs.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "code"


def git(folder, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    ended = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
    )
    return ended.stdout.strip()


def test_outside_a_checkout_there_is_no_commit(checkout):
    assert runs.commit() == {}


def test_without_git_there_is_no_commit(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert runs.commit() == {}


def test_in_a_checkout_the_commit_and_changes_to_it_are_named(checkout):
    (checkout / "file").write_text("1")
    git(checkout, "init", "-q")
    git(checkout, "add", "file")
    git(checkout, "commit", "-q", "-m", "first")
    (checkout / "notes").write_text("not tracked")
    assert runs.commit() == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}
    (checkout / "file").write_text("2")
    changed = runs.commit()
    assert (changed["dirty"], changed["changed"]) == (True, ["file"])
    (checkout / "file").write_bytes(b"\xff\n")
    assert runs.commit()["changes_sha256"] != changed["changes_sha256"]
    (checkout / "file").write_text("2")
    assert runs.commit() == changed


def test_the_processor_is_named_with_what_decides_the_order_of_sums(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = runs.processor()
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["threads"] == "3"


def test_an_adapter_is_known_by_its_weights(tmp_path):
    assert runs.adapter_sha256(tmp_path) is None
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert runs.adapter_sha256(tmp_path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_package_that_is_not_installed_is_said_to_be_so(monkeypatch):
    monkeypatch.setattr(runs, "PACKAGES", ["no-such-package", "omegaconf"])
    found = runs.versions()
    assert found["no-such-package"] == "not installed"
    assert found["omegaconf"].startswith("2.3")


def test_equal_values_have_one_digest_whatever_the_order_of_their_keys():
    assert runs.digest({"a": 1, "b": [2]}) == runs.digest({"b": [2], "a": 1})
    assert runs.digest({"a": 1}) != runs.digest({"a": "1"})


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ({"r": 8}, {"r": 8}, []),
        ({"r": 8, "m": "a"}, {"r": 16, "m": "b"}, ["m is 'a' here and 'b' there", "r is 8 here and 16 there"]),
        ({"r": 8, "only": 1}, {"r": 8, "other": 2}, []),
        ({}, {"r": 8}, []),
    ],
)
def test_what_differs_is_said_with_both_values(ours, theirs, said):
    assert runs.differing(ours, theirs) == said


# The run that a later phase continues.


class Folders:
    """Runs of phase 1 below a working folder, each newer than the one before, and the lookup of a phase-2 run."""

    def __init__(self, root):
        self.root, self.clock = root, 0

    def add(self, name, status="finished", typed=None, **changes):
        self.clock += 1
        record = {"status": status, "phase": 1, "seed": 42, "fingerprint": FINGERPRINT, **changes}
        if status == "finished":
            record["finished"] = f"2026-01-01T00:00:{self.clock:02}+0000"
        folder = self.root / name
        folder.mkdir(parents=True)
        runs.write_json(folder / "run.json", record)
        if typed is not None:
            self.type(name, typed)

    def type(self, name, overrides):
        (self.root / name / ".hydra").mkdir(parents=True)
        (self.root / name / ".hydra/overrides.yaml").write_text(json.dumps(overrides))

    def parent_of(self, name, seed=42):
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        return runs.find_parent(folder, FINGERPRINT, 1, seed, self.root).relative_to(self.root).as_posix()

    def sweep(self, name):
        (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / name / "multirun.yaml").write_text("")


@pytest.fixture
def folders(tmp_path):
    return Folders(tmp_path)


def test_the_newest_finished_run_is_continued(folders):
    folders.add("outputs/z")
    folders.add("multirun/m/0")
    folders.add("outputs/a")
    assert folders.parent_of("outputs/new") == "outputs/a/adapter"


def test_a_run_of_the_same_sweep_comes_first(folders):
    folders.sweep("multirun/m")
    folders.add("multirun/m/0")
    folders.add("outputs/newer")
    assert folders.parent_of("multirun/m/1") == "multirun/m/0/adapter"


def test_a_sweep_may_stand_anywhere(folders):
    folders.sweep("elsewhere/m")
    folders.add("elsewhere/m/0")
    assert folders.parent_of("elsewhere/m/1") == "elsewhere/m/0/adapter"


def test_in_a_sweep_the_run_of_the_same_seed_comes_first(folders):
    folders.sweep("multirun/m")
    folders.add("multirun/m/0", seed=1)
    folders.add("multirun/m/1", seed=2)
    assert folders.parent_of("multirun/m/2", seed=1) == "multirun/m/0/adapter"


def test_in_a_swept_curriculum_the_run_of_the_same_shape_is_continued(folders):
    folders.sweep("multirun/m")
    folders.add("multirun/m/0")
    folders.add("multirun/m/1", fingerprint={**FINGERPRINT, "lora.r": 8})
    assert folders.parent_of("multirun/m/2") == "multirun/m/0/adapter"


def test_in_a_curriculum_swept_over_ranks_and_seeds_every_job_has_its_own_phase_1(folders):
    folders.sweep("multirun/m")
    jobs = [(rank, seed) for rank in (8, 16) for seed in (1, 2)]  # phase=1,2 lora.r=8,16 seed=1,2
    for number, (rank, seed) in enumerate(jobs):
        folders.add(f"multirun/m/{number}", seed=seed, fingerprint={**FINGERPRINT, "lora.r": rank})
    for number, (rank, seed) in enumerate(jobs):
        folder = folders.root / f"multirun/m/{4 + number}"
        folder.mkdir()
        found = runs.find_parent(folder, {**FINGERPRINT, "lora.r": rank}, 1, seed, folders.root)
        assert found == folders.root / f"multirun/m/{number}/adapter"


@pytest.mark.parametrize("last", [0, 1])
def test_in_a_curriculum_swept_over_rates_every_phase_2_has_the_phase_1_of_its_rate(folders, last):
    """Whichever phase 1 finished last."""
    folders.sweep("multirun/m")
    for number in (1 - last, last):
        folders.add(f"multirun/m/{number}", typed=["phase='1'", f"trainer.learning_rate={number}"])
    for number in (0, 1):
        typed = ["phase='2'", f"trainer.learning_rate={number}", "resume=true"]
        folders.type(f"multirun/m/{2 + number}", typed)
        assert folders.parent_of(f"multirun/m/{2 + number}") == f"multirun/m/{number}/adapter"


def test_the_phase_1_of_another_rate_does_not_take_the_place_of_a_failed_one(folders):
    folders.sweep("multirun/m")
    folders.add("multirun/m/0", typed=["phase='1'", "trainer.learning_rate=1"], status="failed")
    folders.add("multirun/m/1", typed=["phase='1'", "trainer.learning_rate=2"])
    folders.type("multirun/m/2", ["phase='2'", "trainer.learning_rate=1"])
    with pytest.raises(ValueError, match=r"multirun/m/0: its status is failed"):
        folders.parent_of("multirun/m/2")


def test_a_failed_run_of_the_sweep_is_not_replaced_by_an_outsider(folders):
    folders.sweep("multirun/m")
    folders.add("multirun/m/0", status="failed")
    folders.add("outputs/good")
    with pytest.raises(ValueError, match=r"multirun/m/0: its status is failed"):
        folders.parent_of("multirun/m/1")


def test_a_sweep_without_the_phase_before_continues_the_newest_run_elsewhere(folders):
    folders.sweep("multirun/m")
    folders.add("multirun/m/0", phase=2)
    folders.add("outputs/good")
    assert folders.parent_of("multirun/m/1") == "outputs/good/adapter"


@pytest.mark.parametrize("name", ["outputs/cut", "multirun/m/0"])
@pytest.mark.parametrize("text", ["", '{"status": "fini', "[]"])
def test_a_stamp_that_was_cut_off_is_passed_over(folders, name, text):
    folders.add("outputs/good")
    folders.sweep("multirun/m")
    (folders.root / name).mkdir(parents=True)
    (folders.root / name / "run.json").write_text(text)
    assert folders.parent_of("multirun/m/1") == "outputs/good/adapter"


def test_what_a_sweep_has_set_aside_is_not_continued(folders):
    folders.add("multirun/m/0")
    folders.add("multirun/m/.before/0.1")
    assert folders.parent_of("outputs/new") == "multirun/m/0/adapter"


def test_runs_that_merely_stand_beside_it_are_no_sweep(folders):
    folders.add("outputs/old", seed=42)
    folders.add("multirun/m/0", seed=42)
    assert folders.parent_of("outputs/new") == "multirun/m/0/adapter"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "failed"}, "its status is failed"),
        ({"status": "running"}, "its status is running"),
        ({"fingerprint": {**FINGERPRINT, "lora.r": 8}}, "lora.r is 16 here and 8 there"),
        (
            {"fingerprint": {"model": "other", "lora.r": 8}},
            "lora.r is 16 here and 8 there; model is 'tiny' here and 'other' there",
        ),
    ],
)
def test_a_run_that_is_passed_over_is_listed_with_its_reason(folders, changes, reason):
    folders.add("outputs/a", **changes)
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # the message is what the test is about
        folders.parent_of("outputs/new")
    assert f"{folders.root}/outputs/a: {reason}" in str(refused.value).splitlines()[1]


def test_an_unfit_run_is_passed_over_for_an_older_one(folders):
    folders.add("outputs/good")
    folders.add("outputs/failed", status="failed")
    assert folders.parent_of("outputs/new") == "outputs/good/adapter"


@pytest.mark.parametrize("changes", [{"phase": 2}, {"phase": None, "kind": "evaluate"}])
def test_runs_of_another_kind_are_not_candidates(folders, changes):
    folders.add("outputs/other", **changes)
    with pytest.raises(ValueError, match="no training run was found"):
        folders.parent_of("outputs/new")


def test_where_there_is_no_run_the_error_says_how_to_make_one(folders):
    with pytest.raises(
        ValueError, match=r"adapter=auto found no finished phase-1 run.*`python train.py phase=1`.*adapter=FOLDER"
    ):
        folders.parent_of("outputs/new")


def test_a_run_does_not_continue_itself(folders):
    folders.add("outputs/new")
    with pytest.raises(ValueError, match="no training run was found"):
        folders.parent_of("outputs/new")
