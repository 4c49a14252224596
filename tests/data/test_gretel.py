from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from text2sql import data
from text2sql.config import BadRow, Data
from text2sql.data import gretel
from text2sql.example import Column, ForeignKey
from text2sql.sql.database import connect

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
CONTEXT = "CREATE TABLE pets (id INT, name TEXT); INSERT INTO pets VALUES (1, 'Rex');"


def config(path: object, **changes: Any) -> Data:
    settings = {"name": "gretel", "path": str(path), "hub_id": "gretelai/synthetic_text_to_sql", **changes}
    return Data(**settings)


def row(number: int, **changes: Any) -> dict:
    values = {
        "id": number,
        "sql_prompt": f"How many pets are there, {number}?",
        "sql_context": CONTEXT.replace("pets", f"pets{number % 4}"),
        "sql": f"SELECT COUNT(*) FROM pets{number % 4}",
    }
    return values | changes


def write_jsonl(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def dropped(path: Path, **changes: Any) -> dict[str, list[str]]:
    return data.load(config(path, **changes), "train", seed=0).report.dropped


def test_mini_rows_can_be_executed_and_show_their_tables() -> None:
    loaded = data.load(config("mini"), "test", seed=0)
    assert loaded.report.used == loaded.report.rows_read == 60
    for example in loaded.examples:
        assert example.executable and example.schema.tables and example.id.startswith("gretel/test/")
        with closing(connect(example)) as connection:
            assert connection.execute(example.sql).fetchall()


def test_a_folder_serves_both_splits(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [row(number) for number in range(8)])
    write_jsonl(tmp_path / "test.jsonl", [row(number) for number in range(3)])
    assert [example.id for example in data.load(config(tmp_path), "test", seed=0).examples] == [
        "gretel/test/0",
        "gretel/test/1",
        "gretel/test/2",
    ]


def test_one_file_has_no_test_split(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "mine.jsonl", [row(number) for number in range(8)])
    with pytest.raises(ValueError, match=r"one file.*test\.jsonl beside it"):
        data.load(config(file), "test", seed=0)


def test_a_folder_without_the_split_says_what_it_holds(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "training.jsonl", [row(0)])
    with pytest.raises(ValueError, match=r"train\.parquet.*it holds training\.jsonl"):
        data.load(config(tmp_path), "train", seed=0)


BAD = {
    "missing sql": {"sql": None},
    "missing sql_prompt": {"sql_prompt": None},
    "missing sql_context": {"sql_context": None},
    "sql is not text": {"sql": 7},
    "sql_prompt is not text": {"sql_prompt": ["How many?"]},
    "sql_context is not text": {"sql_context": {"a": 1}},
    "empty sql": {"sql": "  \n"},
    "empty sql_prompt": {"sql_prompt": ""},
    "empty sql_context": {"sql_context": " "},
    "sql is not valid Unicode": {"sql": "SELECT '\ud800'"},
    "sql holds a NUL character": {"sql": "SELECT '\0'"},
    "SQL does not parse": {"sql": "SELECT FROM WHERE"},
    "sql_context does not parse": {"sql_context": "CREATE TABLE ((("},
    "no table in sql_context": {"sql_context": "SELECT 1"},
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_is_counted_with_its_id(tmp_path: Path, reason: str) -> None:
    rows = [row(number) for number in range(40)] + [row(99, **BAD[reason])]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    assert dropped(file) == {reason: ["gretel/train/99"]}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_is_refused_where_that_is_asked_for(tmp_path: Path, reason: str) -> None:
    rows = [row(number) for number in range(40)] + [row(99, **BAD[reason])]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(ValueError, match=rf"1 bad rows \({reason}: gretel/train/99 .*data.on_bad_row=drop"):
        data.load(config(file, on_bad_row=BadRow.refuse), "train", seed=0)


def test_where_sqlite_cannot_run_the_context_the_schema_is_parsed_and_the_row_still_used(tmp_path: Path) -> None:
    context = (
        "CREATE TABLE owners (id SERIAL PRIMARY KEY, kind ENUM('a', 'b')); "
        "CREATE TABLE pets (id INT, owner_id INT, born DATE DEFAULT NOW(), PRIMARY KEY (id), "
        "FOREIGN KEY (owner_id) REFERENCES owners(id)); INSERT INTO pets VALUES (1, 1, NOW());"
    )
    file = write_jsonl(tmp_path / "a.jsonl", [row(number, sql_context=context + f"-- {number}") for number in range(4)])
    rows = [row(number) for number in range(4)] + [row(9, sql_context=context)]
    write_jsonl(file, rows)
    loaded = [data.load(config(file), split, seed=0) for split in ("train", "validation")]
    assert sum(one.report.not_executable for one in loaded) == 1
    (example,) = [example for one in loaded for example in one.examples if not example.executable]
    owners, pets = example.schema.tables
    assert example.context == "" and owners.columns[0] == Column("id", "SERIAL", True)
    assert [column.name for column in pets.columns] == ["id", "owner_id", "born"] and pets.columns[0].primary_key
    assert pets.foreign_keys == (ForeignKey(("owner_id",), "owners", ("id",)),)


def test_rows_of_one_schema_share_a_db_id_whatever_their_rows_and_spelling() -> None:
    first = gretel.schema_hash("CREATE TABLE pets (id INT, name TEXT); INSERT INTO pets VALUES (1, 'Rex');")
    second = gretel.schema_hash('create table if not exists "Pets" (\n  ID int,\n  name text\n);')
    assert first == second != gretel.schema_hash("CREATE TABLE pets (id INT, name TEXT, age INT);")


def test_the_order_of_tables_does_not_change_the_db_id() -> None:
    assert gretel.schema_hash("CREATE TABLE a (x INT); CREATE TABLE b (y INT);") == gretel.schema_hash(
        "CREATE TABLE b (y INT); INSERT INTO b VALUES (1); CREATE TABLE a (x INT);"
    )


def test_a_row_without_an_id_is_named_by_its_number(tmp_path: Path) -> None:
    rows = [{name: value for name, value in row(number).items() if name != "id"} for number in range(8)]
    loaded = data.load(config(write_jsonl(tmp_path / "a.jsonl", rows)), "train", seed=0)
    assert {example.id for example in loaded.examples} < {f"gretel/train/{number}" for number in range(8)}


def test_the_three_real_rows_load() -> None:
    file = SHARED / "gretel" / "sample_3_real_rows.jsonl"
    if not file.exists():
        pytest.skip("the real rows are not in ../shared/data/gretel")
    loaded = [data.load(config(file), split, seed=0) for split in ("train", "validation")]
    ids = sorted(example.id for one in loaded for example in one.examples)
    assert ids == ["gretel/train/39325", "gretel/train/5097", "gretel/train/5098"]
    assert all(example.executable for one in loaded for example in one.examples)


def test_ten_thousand_rows_of_human_questions_load_without_a_loss() -> None:
    folder = SHARED / "phase1_standin_wikisql"
    if not folder.exists():
        pytest.skip("the stand-in rows are not in ../shared/data/phase1_standin_wikisql")
    loaded = [data.load(config(folder), split, seed=0).report for split in ("train", "validation")]
    assert sum(report.used for report in loaded) == loaded[0].rows_read == 10_000
    assert loaded[0].dropped == loaded[1].dropped == {}
