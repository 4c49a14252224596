from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from text2sql import data
from text2sql.config import BadRow, Data
from text2sql.data import spider
from text2sql.sql.database import connect

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "spider"


def config(path: object, **changes: Any) -> Data:
    settings = {"name": "spider", "path": str(path), "hub_id": "xlangai/spider", **changes}
    return Data(**settings)


def make(folder: Path, rows: list[dict], databases: tuple[str, ...] = ("a", "b", "c")) -> Path:
    for db_id in databases:
        (folder / "database" / db_id).mkdir(parents=True)
        with closing(sqlite3.connect(folder / "database" / db_id / f"{db_id}.sqlite")) as connection:
            connection.executescript("CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT);")
    for name in ("train_spider", "train_others", "dev"):
        (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def row(number: int, **changes: Any) -> dict:
    values = {"question": f"How many pets, {number}?", "query": "SELECT COUNT(*) FROM pets", "db_id": "abc"[number % 3]}
    return values | changes


ROWS = [row(number) for number in range(30)]


def test_mini_questions_come_with_schema_and_database() -> None:
    loaded = data.load(config("mini"), "test", seed=0)
    for example in loaded.examples:
        assert example.schema.tables and not example.context
        with closing(connect(example)) as connection:
            connection.execute(example.sql).fetchall()


def test_ids_name_the_file_and_the_row(tmp_path: Path) -> None:
    folder = make(tmp_path, ROWS)
    assert [e.id for e in data.load(config(folder), "test", seed=0).examples] == [f"spider/dev/{n}" for n in range(30)]
    train = data.load(config(folder, include_others=True), "train", seed=0)
    assert {example.id.rsplit("/", 1)[0] for example in train.examples} == {
        "spider/train_spider",
        "spider/train_others",
    }
    assert train.report.rows_read == 60


def test_the_other_questions_are_left_out_by_default(tmp_path: Path) -> None:
    assert data.load(config(make(tmp_path, ROWS)), "train", seed=0).report.rows_read == 30


def test_the_recursive_column_is_never_kept(tmp_path: Path) -> None:
    folder = make(tmp_path, [row(number, sql={"from": {"conds": [[]]}}) for number in range(6)])
    assert data.load(config(folder), "test", seed=0).report.used == 6


def test_the_schema_comes_from_the_database_file_and_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path, ROWS)
    (folder / "database" / "a" / "schema.sql").write_text("CREATE TABLE wrong (id INT);")
    opened = []
    real = spider.open_readonly
    monkeypatch.setattr(spider, "open_readonly", lambda path: opened.append(path) or real(path))
    examples = data.load(config(folder), "test", seed=0).examples
    assert {table.name for example in examples for table in example.schema.tables} == {"pets"}
    assert len(opened) == 3


def test_a_missing_database_makes_only_its_own_rows_bad(tmp_path: Path) -> None:
    folder = make(tmp_path, ROWS)
    (folder / "database" / "b" / "b.sqlite").unlink()
    report = data.load(config(folder), "test", seed=0).report
    assert report.used == 20
    assert sorted(report.dropped["missing database file"]) == sorted(f"spider/dev/{n}" for n in range(1, 30, 3))


BAD = {
    "unknown db_id": {"db_id": "nowhere"},
    "missing db_id": {"db_id": None},
    "db_id is not text": {"db_id": ["a"]},
    "missing query": {"query": None},
    "missing question": {"question": None},
    "empty question": {"question": " "},
    "query is not text": {"query": 3},
    "SQL does not parse": {"query": "SELECT (FROM"},
}


@pytest.mark.parametrize("reason", BAD)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_bad_row_is_counted_with_its_id(tmp_path: Path, reason: str, split: str) -> None:
    folder = make(tmp_path, [*ROWS, row(30, **BAD[reason])])
    # Seed 0 holds a database other than a out of training, so that the bad row is met.
    report = data.load(config(folder), split, seed=0).report
    assert report.dropped == {reason: [f"spider/{'dev' if split == 'test' else 'train_spider'}/30"]}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_is_refused_where_that_is_asked_for(tmp_path: Path, reason: str) -> None:
    folder = make(tmp_path, [*ROWS, row(30, **BAD[reason])])
    with pytest.raises(ValueError, match=rf"1 bad rows \({reason}: spider/dev/30.*data.on_bad_row=drop"):
        data.load(config(folder, on_bad_row=BadRow.refuse), "test", seed=0)


@pytest.mark.parametrize("db_id", ["../database/a", "a/../a", "..", "."])
def test_a_db_id_cannot_lead_out_of_the_folder(tmp_path: Path, db_id: str) -> None:
    folder = make(tmp_path, [*ROWS, row(30, db_id=db_id)])
    assert data.load(config(folder), "test", seed=0).report.dropped == {"unknown db_id": ["spider/dev/30"]}


def test_a_file_that_is_no_database_is_a_reason_of_its_own(tmp_path: Path) -> None:
    folder = make(tmp_path, ROWS)
    (folder / "database" / "a" / "a.sqlite").write_bytes(b"not a database, but long enough to look at" * 100)
    (folder / "database" / "b" / "b.sqlite").write_bytes(b"")
    assert len(data.load(config(folder), "test", seed=0).report.dropped["unreadable database file"]) == 20


@pytest.mark.parametrize("missing", ["train_spider.json", "train_others.json"])
def test_a_missing_file_is_named_with_the_cure(tmp_path: Path, missing: str) -> None:
    folder = make(tmp_path, ROWS)
    (folder / missing).unlink()
    with pytest.raises(ValueError, match=f"has no {missing}: unpack .*data.path=mini"):
        data.load(config(folder, include_others=True), "train", seed=0)


def test_a_folder_without_databases_is_refused_with_the_cure(tmp_path: Path) -> None:
    folder = make(tmp_path, ROWS)
    shutil.rmtree(folder / "database")
    with pytest.raises(ValueError, match=r"has no database/ folder: unpack .*data.path=mini"):
        data.load(config(folder), "test", seed=0)


def test_the_default_folder_is_never_looked_up_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="data.path=data/spider does not exist: .*data.path=xlangai/spider"):
        data.load(config("data/spider"), "train", seed=0)


@pytest.mark.parametrize(("split", "hub_split"), [("train", "train"), ("test", "validation")])
def test_the_hub_copy_gives_questions_only_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, split: str, hub_split: str
) -> None:
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(path: str, split: str) -> Any:
        asked.append((path, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with caplog.at_level(logging.WARNING):
        loaded = data.load(config("xlangai/spider"), split, seed=0)
    assert asked == [("xlangai/spider", hub_split)]
    assert not any(example.executable or example.schema.tables for example in loaded.examples)
    assert loaded.report.not_executable == loaded.report.used
    assert "no schema and nothing can be executed" in caplog.text


def test_the_hub_has_no_other_questions() -> None:
    with pytest.raises(ValueError, match="data.include_others=true needs the official archive"):
        data.load(config("xlangai/spider", include_others=True), "train", seed=0)


def test_a_hub_that_cannot_be_reached_is_explained_with_the_cures(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def load_dataset(path: str, split: str) -> Any:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ValueError, match=r"(?s)no local path.*no network.*data.path=<local.*data.path=mini"):
        data.load(config("xlangai/spider"), "train", seed=0)


def test_the_real_dev_set_loads_whole(tmp_path: Path) -> None:
    if not (SHARED / "database_dev.zip").exists():
        pytest.skip("Spider is not in ../shared/data/spider")
    for name in ("database_dev.zip", "database_standin.zip"):
        with zipfile.ZipFile(SHARED / name) as archive:
            archive.extractall(tmp_path)
    shutil.copy(SHARED / "dev.json", tmp_path)
    loaded = data.load(config(tmp_path, on_bad_row=BadRow.refuse), "test", seed=0)
    assert loaded.report.used == 1_034
    assert len({example.db_id for example in loaded.examples}) == 20


def test_the_real_training_questions_load_whole(tmp_path: Path) -> None:
    if not (SHARED / "database_train.zip").exists():
        pytest.skip("Spider is not in ../shared/data/spider")
    for name in ("database_train.zip", "database_standin.zip"):
        with zipfile.ZipFile(SHARED / name) as archive:
            archive.extractall(tmp_path)
    for name in ("train_spider.json", "train_others.json"):
        shutil.copy(SHARED / name, tmp_path)
    report = data.load(config(tmp_path, include_others=True), "train", seed=0).report
    assert report.rows_read == report.used + report.held_out == 8_659
    assert 300 < report.held_out <= 0.05 * 8_659


def test_validation_is_never_made_of_rows_whose_database_is_missing(tmp_path: Path) -> None:
    folder = make(tmp_path, [*ROWS, row(30, db_id="nowhere")])
    assert data.load(config(folder), "validation", seed=0).report.used == 10
