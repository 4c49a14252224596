from __future__ import annotations

import json
import multiprocessing
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from text2sql.data import mini
from text2sql.data.mini_domains import GRETEL_ONLY, TEST, TRAIN
from text2sql.sql.database import open_memory, open_readonly, read_schema
from text2sql.sql.hardness import hardness

GRETEL_COLUMNS = [
    "id",
    "domain",
    "domain_description",
    "sql_complexity",
    "sql_complexity_description",
    "sql_task_type",
    "sql_task_type_description",
    "sql_prompt",
    "sql_context",
    "sql",
    "sql_explanation",
]
SPIDER_FILES = ("train_spider", "train_others", "dev")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def spider(folder: Path, name: str) -> list[dict]:
    return json.loads((folder / "spider" / f"{name}.json").read_text(encoding="utf-8"))


def gretel(folder: Path, name: str) -> list[dict]:
    lines = (folder / "gretel" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def database(folder: Path, db_id: str) -> str:
    return str(folder / "spider" / "database" / db_id / f"{db_id}.sqlite")


def ddl_length(folder: Path, db_id: str) -> int:
    tables = read_schema(open_readonly(database(folder, db_id))).tables
    return sum(len(f"CREATE TABLE {t.name} ();") + sum(len(c.name + c.type) + 3 for c in t.columns) for t in tables)


def test_the_same_seed_writes_the_same_bytes(mini_folder: Path, tmp_path: Path) -> None:
    mini.write(tmp_path, 0)
    assert contents(tmp_path) == contents(mini_folder)


def test_another_seed_writes_other_questions(mini_folder: Path, tmp_path: Path) -> None:
    mini.write(tmp_path, 1)
    for name in SPIDER_FILES:
        assert spider(tmp_path, name) != spider(mini_folder, name)
    assert gretel(tmp_path, "train") != gretel(mini_folder, "train")


def test_there_are_as_many_rows_as_a_quick_experiment_needs(mini_folder: Path) -> None:
    counts = {name: len(spider(mini_folder, name)) for name in SPIDER_FILES}
    assert counts["train_spider"] > 850
    assert counts["dev"] >= 75
    assert counts["train_others"] > 30
    assert (len(gretel(mini_folder, "train")), len(gretel(mini_folder, "test"))) == (400, 60)


def test_gretel_rows_have_exactly_the_eleven_columns_and_their_own_id(mini_folder: Path) -> None:
    rows = gretel(mini_folder, "train") + gretel(mini_folder, "test")
    assert all(list(row) == GRETEL_COLUMNS for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)


def test_spider_rows_have_the_official_columns(mini_folder: Path) -> None:
    for name in SPIDER_FILES:
        for row in spider(mini_folder, name):
            assert set(row) == {"db_id", "query", "query_toks", "query_toks_no_value", "question", "question_toks"}


def test_tokens_follow_the_released_preprocessing(mini_folder: Path) -> None:
    row = next(row for row in spider(mini_folder, "train_spider") if " JOIN " in row["query"] and "= '" in row["query"])
    assert "." in row["query_toks_no_value"] and "." not in row["query_toks"]
    assert row["query_toks"][-2] == "=" and row["query_toks"][-1].startswith("'")
    assert row["query_toks_no_value"][-2:] == ["=", "value"] and row["query_toks_no_value"][0] == "select"


def test_tables_json_describes_the_databases_as_they_are(mini_folder: Path) -> None:
    entries = spider(mini_folder, "tables")
    assert {entry["db_id"] for entry in entries} == {path.name for path in (mini_folder / "spider/database").iterdir()}
    for entry in entries:
        tables = read_schema(open_readonly(database(mini_folder, entry["db_id"]))).tables
        assert entry["table_names_original"] == [table.name for table in tables]
        names = [[number, column.name] for number, table in enumerate(tables) for column in table.columns]
        assert entry["column_names_original"] == [[-1, "*"], *names]
        assert len(entry["column_types"]) == len(entry["column_names"]) == len(entry["column_names_original"])
        assert len(entry["foreign_keys"]) == sum(len(table.foreign_keys) for table in tables)
        for own, foreign in entry["foreign_keys"]:
            assert foreign in entry["primary_keys"] and own > foreign


def test_every_spider_gold_runs_and_nearly_all_have_an_answer(mini_folder: Path) -> None:
    rows = [row for name in SPIDER_FILES for row in spider(mini_folder, name)]
    connections = {row["db_id"]: open_readonly(database(mini_folder, row["db_id"])) for row in rows}
    empty = [row for row in rows if not connections[row["db_id"]].execute(row["query"]).fetchall()]
    assert len(empty) < len(rows) / 20


def test_every_gretel_gold_runs_on_its_own_context(mini_folder: Path) -> None:
    rows = gretel(mini_folder, "train") + gretel(mini_folder, "test")
    assert all(open_memory(row["sql_context"]).execute(row["sql"]).fetchall() for row in rows)


def test_dev_databases_are_new_to_both_training_sets(mini_folder: Path) -> None:
    trained = {row["db_id"] for name in ("train_spider", "train_others") for row in spider(mini_folder, name)}
    dev = {row["db_id"] for row in spider(mini_folder, "dev")}
    domains = {row["domain"].replace(" ", "_") for row in gretel(mini_folder, "train")}
    assert len(dev) == 4 and len(trained) >= 14
    assert not dev & (trained | domains)
    tables = {table.name for domain in TEST for table in domain.tables}
    assert not tables & {table.name for domain in (*TRAIN, *GRETEL_ONLY) for table in domain.tables}


def test_no_question_is_asked_twice_of_a_database(mini_folder: Path) -> None:
    for name in SPIDER_FILES:
        asked = Counter((row["db_id"], row["question"].lower()) for row in spider(mini_folder, name))
        assert max(asked.values()) == 1


def test_no_gretel_test_question_is_in_gretel_train(mini_folder: Path) -> None:
    train = {row["sql_prompt"] for row in gretel(mini_folder, "train")}
    assert not train & {row["sql_prompt"] for row in gretel(mini_folder, "test")}


def test_prompts_stay_short_enough_for_a_slow_machine(mini_folder: Path) -> None:
    db_ids = {row["db_id"] for name in SPIDER_FILES for row in spider(mini_folder, name)}
    assert sum(ddl_length(mini_folder, db_id) for db_id in db_ids) / len(db_ids) < 330
    rows = spider(mini_folder, "train_spider")
    assert sum(len(row["query"]) + len(row["question"]) for row in rows) / len(rows) < 140


@pytest.mark.parametrize("name", ["train_spider", "dev"])
def test_difficulty_leans_to_easy_and_reaches_extra(mini_folder: Path, name: str) -> None:
    rows = spider(mini_folder, name)
    counts = Counter(hardness(row["query"]) for row in rows)
    assert 0.35 < counts["easy"] / len(rows) < 0.55
    assert 0.2 < counts["medium"] / len(rows) < 0.4
    assert counts["hard"] and counts["extra"]


def test_training_meets_every_construct_the_readme_promises(mini_folder: Path) -> None:
    text = "\n".join(row["query"] for row in spider(mini_folder, "train_spider"))
    for construct in (
        "LIKE",
        "BETWEEN",
        "IS NULL",
        "AVG(",
        "GROUP BY",
        "HAVING",
        "ORDER BY",
        "LIMIT 1",
        "JOIN",
        " IN (SELECT",
        "NOT IN",
        "> (SELECT AVG",
        "INTERSECT",
        "EXCEPT",
        "UNION",
        "''",
    ):
        assert construct in text, construct


def test_sorted_golds_leave_no_ties(mini_folder: Path) -> None:
    for row in spider(mini_folder, "dev"):
        if row["query"].endswith("LIMIT 1"):
            connection = open_readonly(database(mini_folder, row["db_id"]))
            _, rest = row["query"].removesuffix(" LIMIT 1").split(" FROM ", 1)
            key = rest.split(" ORDER BY ")[1].removesuffix(" DESC")
            keys = connection.execute(f"SELECT {key} FROM {rest} LIMIT 2").fetchall()
            assert len(set(keys)) == len(keys), row["query"]


def test_the_cache_is_generated_once(mini_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path, seed: int) -> None:
        raise AssertionError("generated again")

    monkeypatch.setattr(mini, "write", refuse)
    assert mini.path() == mini_folder


def test_the_cache_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini, "write", lambda folder, seed: (folder / "made").touch())
    monkeypatch.setenv("TEXT2SQL_CACHE", str(tmp_path / "own"))
    assert mini.path().parent == tmp_path / "own"
    monkeypatch.delenv("TEXT2SQL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert mini.path().parent == tmp_path / "xdg" / "text2sql"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert mini.path().parent == tmp_path / ".cache" / "text2sql"


def test_a_failed_generation_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path, seed: int) -> None:
        (folder / "half").touch()
        raise OSError("disk full")

    monkeypatch.setattr(mini, "write", fail)
    monkeypatch.setenv("TEXT2SQL_CACHE", str(tmp_path))
    with pytest.raises(OSError, match="disk full"):
        mini.path()
    assert list(tmp_path.iterdir()) == []


def test_processes_that_start_together_agree_on_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXT2SQL_CACHE", str(tmp_path))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        folders = pool.map(mini.path, [0, 0])
    assert len(set(folders)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [folders[0].name]
    assert sqlite3.connect(database(folders[0], "shop")).execute("SELECT COUNT(*) FROM customers").fetchone()[0] > 0
