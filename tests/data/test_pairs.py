"""text2sql make-pairs: questions about any database, each with SQL that runs and has an answer."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
import shop

from text2sql import cli, data
from text2sql.config import Data
from text2sql.data.pairs import PAIRS_A_SKELETON
from text2sql.sql.skeleton import skeleton


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXT2SQL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def database(tmp_path):
    return shop.make(tmp_path / "shop.sqlite")


def make(*arguments):
    assert cli.main(["make-pairs", "shop.sqlite", *arguments]) == 0
    return [json.loads(line) for line in Path("pairs.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_pair_runs_and_has_an_answer_and_no_question_comes_twice(database, capsys):
    pairs = make("--count", "80")
    assert len(pairs) == 80
    assert capsys.readouterr().out.startswith("pairs.jsonl: 80 pairs (")
    with closing(sqlite3.connect(database)) as connection:
        for pair in pairs:
            assert connection.execute(pair["sql"]).fetchall(), pair
    assert len({pair["question"].casefold() for pair in pairs}) == 80
    assert len({pair["sql"] for pair in pairs}) == 80


def test_no_skeleton_has_more_than_its_share(database):
    pairs = make("--count", "120")
    assert max(Counter(skeleton(pair["sql"]) for pair in pairs).values()) <= PAIRS_A_SKELETON


def test_pairs_ask_for_joins_groups_orders_and_names_in_quotes(database):
    sql = "\n".join(pair["sql"] for pair in make("--count", "150"))
    for part in (
        "JOIN customers ON orders.customer_id = customers.id",
        "GROUP BY",
        "ORDER BY",
        "(SELECT AVG(",
        'FROM "order notes"',
        'MAX("Größe")',
    ):
        assert part in sql


def test_the_same_seed_gives_the_same_pairs_and_another_others(database):
    first = make("--count", "30")
    assert make("--count", "30", "--force") == first
    assert make("--count", "30", "--force", "--seed", "1") != first


def test_pairs_load_as_data(database, tmp_path):
    make("--count", "60")
    config = Data(name="sqlite", path="shop.sqlite", hub_id="", pairs="pairs.jsonl", validation_fraction=0.1)
    loaded = [data.load(config, split, seed=0) for split in data.SPLITS]
    assert sum(one.report.used for one in loaded) == 60
    assert all(not one.report.dropped for one in loaded)


def test_a_file_that_is_there_is_not_replaced(database, capsys):
    make("--count", "5")
    before = Path("pairs.jsonl").read_text()
    assert cli.main(["make-pairs", "shop.sqlite", "--seed", "3"]) == 2
    assert "pairs.jsonl is there already: name another file, or add --force" in capsys.readouterr().err
    assert Path("pairs.jsonl").read_text() == before


def test_csv_is_written_by_the_name_and_a_folder_names_its_databases(database, tmp_path, capsys):
    (tmp_path / "all").mkdir()
    for name in ("a", "b"):
        shop.make(tmp_path / "all" / f"{name}.sqlite")
    assert cli.main(["make-pairs", "all", "--count", "6", "--out", "pairs.csv"]) == 0
    with open("pairs.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["db"] for row in rows) == {"a": 6, "b": 6}
    assert cli.main(["make-pairs", "all", "--out", "pairs.txt"]) == 2
    assert "--out pairs.txt must end in .jsonl or .csv" in capsys.readouterr().err


def test_a_database_without_rows_or_tables_is_refused(tmp_path, capsys):
    with closing(sqlite3.connect(tmp_path / "shop.sqlite")) as connection:
        connection.execute("CREATE TABLE t (a)")
    assert cli.main(["make-pairs", "shop.sqlite"]) == 2
    assert "shop.sqlite has no rows: there is nothing to ask about" in capsys.readouterr().err


def test_a_schema_of_500_tables_gets_its_pairs(tmp_path, monkeypatch):
    with closing(sqlite3.connect(tmp_path / "shop.sqlite")) as connection:
        for n in range(500):
            connection.execute(f"CREATE TABLE things_{n} (id INTEGER PRIMARY KEY, name TEXT, weight INTEGER)")
            connection.executemany(
                f"INSERT INTO things_{n} VALUES (?, ?, ?)", [(k, f"thing {k}", k * n % 97) for k in range(12)]
            )
        connection.commit()
    assert len(make("--count", "40")) == 40


def test_a_table_that_references_itself_is_not_joined_with_itself(tmp_path):
    with closing(sqlite3.connect(tmp_path / "shop.sqlite")) as connection:
        connection.execute(
            "CREATE TABLE staff (id INTEGER PRIMARY KEY, name TEXT, boss_id INTEGER REFERENCES staff(id))"
        )
        connection.executemany("INSERT INTO staff VALUES (?, ?, ?)", [(n, f"name {n}", n // 2) for n in range(1, 20)])
        connection.commit()
    assert not [pair for pair in make("--count", "20") if "JOIN" in pair["sql"]]
