from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from text2sql import data
from text2sql.config import Data


def config(path: object) -> Data:
    return Data(name="gretel", path=str(path), hub_id="gretelai/synthetic_text_to_sql")


def row(number: int, **changes: Any) -> dict:
    values = {
        "id": number,
        "sql_prompt": f"How many pets are there, {number}?",
        "sql_context": f"CREATE TABLE pets{number % 4} (id INT, name TEXT);",
        "sql": f"SELECT COUNT(*) FROM pets{number % 4}",
    }
    return values | changes


def write(folder: Path, suffix: str, rows: list[dict]) -> Path:
    file = folder / f"train{suffix}"
    if suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif suffix == ".json":
        file.write_text(json.dumps(rows), encoding="utf-8")
    elif suffix == ".csv":
        with file.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.DictWriter(lines, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json", ".csv"])
def test_every_file_format_gives_the_same_examples(tmp_path: Path, suffix: str) -> None:
    rows = [row(number, sql_prompt=f"Which pet, number {number}, is\n'Rex', \"the\" dog?") for number in range(12)]
    reference = tmp_path / "reference"
    reference.mkdir()
    expected = data.load(config(write(reference, ".jsonl", rows)), "train", seed=0)
    loaded = data.load(config(write(tmp_path, suffix, rows)), "train", seed=0)
    assert loaded == expected


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    write(tmp_path, ".jsonl", [row(0)])
    write(tmp_path, ".csv", [row(0)])
    with pytest.raises(ValueError, match=r"exactly one of.*holds train\.jsonl, train\.csv"):
        data.load(config(tmp_path), "train", seed=0)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_a_missing_column_is_named_with_the_file_and_what_it_has(tmp_path: Path, suffix: str) -> None:
    file = write(tmp_path, suffix, [{"id": 1, "sql_prompt": "How many?", "query": "SELECT 1"}])
    with pytest.raises(ValueError, match=rf"train\{suffix} has no column 'sql_context'; it has id, query, sql_prompt"):
        data.load(config(file), "train", seed=0)


@pytest.mark.parametrize(("name", "content"), [("a.json", "[1, 2]"), ("a.jsonl", "{oops"), ("a.parquet", "no")])
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"data.path: .*{name}"):
        data.load(config(tmp_path / name), "train", seed=0)


def test_an_unknown_file_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_text("")
    with pytest.raises(ValueError, match=r"none of \.parquet, \.jsonl, \.json, \.csv"):
        data.load(config(tmp_path / "a.xlsx"), "train", seed=0)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no rows"):
        data.load(config(write(tmp_path, ".jsonl", [])), "train", seed=0)


def test_not_a_number_in_a_parquet_column_is_a_missing_value(tmp_path: Path) -> None:
    rows = [row(number, sql=float("nan")) for number in range(8)]
    with pytest.raises(ValueError, match=r"no usable train rows: .*missing sql"):
        data.load(config(write(tmp_path, ".parquet", rows)), "train", seed=0)


def test_a_hub_id_is_loaded_through_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(path: str, split: str) -> Any:
        asked.append((path, split))
        return datasets.Dataset.from_list([row(number, domain="pets") for number in range(8)])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    loaded = data.load(config("gretelai/synthetic_text_to_sql"), "test", seed=0)
    assert asked == [("gretelai/synthetic_text_to_sql", "test")]
    assert loaded.report.used == 8


def test_a_hub_data_set_without_the_columns_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", lambda path, split: datasets.Dataset.from_list([{"a": 1}]))
    with pytest.raises(ValueError, match=r"some/set \(test\) has no column 'sql_prompt'; it has a"):
        data.load(config("some/set"), "test", seed=0)


def test_a_hub_that_cannot_be_reached_is_explained_with_the_cures(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def load_dataset(path: str, split: str) -> Any:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ValueError, match=r"(?s)no local path.*no network.*data.path=<local.*data.path=mini"):
        data.load(config("gretelai/synthetic_text_to_sql"), "train", seed=0)


@pytest.mark.parametrize("path", ["nowhere.jsonl", "./nowhere", "/no/such/folder", "data/gretel", "a/b/c"])
def test_a_local_path_that_does_not_exist_is_not_looked_up_on_the_hub(path: str) -> None:
    with pytest.raises(ValueError, match=r"does not exist: set data.path=<local file or folder>.*data.path=mini"):
        data.load(config(path), "train", seed=0)
