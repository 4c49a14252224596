"""data=sqlite: pairs about a database of one's own, tried, split by skeleton, and read from a copy."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import shop

from text2sql import data
from text2sql.config import BadRow, Data, Dialect
from text2sql.data import snapshot
from text2sql.sql.database import connect
from text2sql.sql.skeleton import skeleton


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXT2SQL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def database(tmp_path):
    return shop.make(tmp_path / "shop.sqlite")


def config(database, pairs, **changes):
    settings = {"name": "sqlite", "path": str(database), "hub_id": "", "pairs": str(pairs), "validation_fraction": 0.1}
    return Data(**{**settings, **changes})


def load(database, pairs, split="train", **changes):
    return data.load(config(database, pairs, **changes), split, seed=0)


def splits(database, pairs, **changes):
    return {split: load(database, pairs, split, **changes) for split in data.SPLITS}


# Splits


def test_no_skeleton_is_in_two_splits_and_no_pair_is_lost(database, tmp_path):
    found = splits(database, shop.write_pairs(tmp_path / "pairs.jsonl"))
    forms = [{skeleton(one.sql) for one in loaded.examples} for loaded in found.values()]
    assert all(forms)
    assert sum(map(len, forms)) == len(set().union(*forms)) == 6
    assert sum(len(loaded.examples) for loaded in found.values()) == len(shop.PAIRS)


def test_one_query_written_with_and_without_its_tables_is_one_skeleton(database, tmp_path):
    same = [
        {"question": "Who lives in Oslo?", "sql": "SELECT name FROM customers WHERE city = 'Oslo'"},
        {"question": "Who is of Porto?", "sql": "SELECT customers.name FROM customers WHERE customers.city = 'Porto'"},
        {"question": "Who, in Lyon?", "sql": "SELECT T1.name FROM customers AS T1 WHERE T1.city = 'Lyon'"},
    ]
    pairs = shop.write_pairs(tmp_path / "p.jsonl", [*shop.PAIRS, *same])
    for seed in range(5):
        found = splits(database, pairs, split_seed=seed, keep_empty=True)
        asked = {one["question"] for one in same}
        assert sum(bool(asked & {one.question for one in loaded.examples}) for loaded in found.values()) == 1


def test_two_databases_of_one_name_are_refused(database, tmp_path):
    folder = tmp_path / "both"
    folder.mkdir()
    for name in ("shop.sqlite", "shop.db"):
        shop.make(folder / name)
    with pytest.raises(ValueError, match=r"shop.db and .*shop.sqlite: pairs name a database by shop alone"):
        splits(folder, shop.write_pairs(tmp_path / "p.jsonl"))


def test_splits_follow_from_split_seed_and_not_from_the_seed(database, tmp_path):
    pairs = shop.write_pairs(tmp_path / "pairs.jsonl")
    first = {split: {one.id for one in loaded.examples} for split, loaded in splits(database, pairs).items()}
    again = {
        split: {one.id for one in data.load(config(database, pairs), split, seed=9).examples} for split in data.SPLITS
    }
    assert again == first
    others = [{one.id for one in load(database, pairs, "test", split_seed=seed).examples} for seed in range(1, 6)]
    assert any(ids != first["test"] for ids in others)


def test_the_shares_are_about_those_asked_for(database, tmp_path):
    pairs = [
        (f"Total above {n} and {k}?", f"SELECT {'id, ' * k}id FROM orders WHERE total > {n}")
        for n in range(3)
        for k in range(60)
    ]
    found = splits(
        database, shop.write_pairs(tmp_path / "many.jsonl", pairs), test_fraction=0.3, validation_fraction=0.2
    )
    assert [len(found[split].examples) for split in data.SPLITS] == pytest.approx([90, 36, 54], abs=3)


def test_too_few_skeletons_are_refused_with_the_number_needed(database, tmp_path):
    pairs = shop.write_pairs(tmp_path / "few.jsonl", shop.PAIRS[:4])
    with pytest.raises(ValueError, match=r"4 usable pairs of 4, with 2 SQL skeletons.*at least 3 differ"):
        load(database, pairs)


def test_one_frequent_skeleton_leaves_each_split_something(database, tmp_path):
    many = [(f"Who is number {n}?", f"SELECT name FROM customers WHERE id = {n}") for n in range(1, 40)]
    found = splits(database, shop.write_pairs(tmp_path / "p.jsonl", [*many, *shop.PAIRS[4:6]]))
    assert [len(loaded.examples) for loaded in found.values()] == [39, 1, 1]


# What is dropped


BAD = [
    ({"question": "how MANY  customers are there?", "sql": "SELECT COUNT(id) FROM customers"}, "duplicate question"),
    ({"question": "Broken?", "sql": "SELEC name FROM customers"}, "SQL does not parse"),
    ({"question": "Unknown?", "sql": "SELECT nmae FROM customers"}, "SQL does not run (unknown_column)"),
    ({"question": "Writing?", "sql": "DELETE FROM customers"}, "SQL does not run (denied_write)"),
    ({"question": "Nobody?", "sql": "SELECT name FROM customers WHERE city = 'Atlantis'"}, "returns no rows"),
    ({"question": "", "sql": "SELECT 1"}, "empty question"),
    ({"question": "No SQL?"}, "missing sql"),
    ({"question": "Elsewhere?", "sql": "SELECT 1", "db": "else"}, "unknown db"),
]


@pytest.mark.parametrize(("row", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_pair_that_cannot_be_used_is_dropped_with_its_reason(database, tmp_path, row, reason):
    loaded = load(database, shop.write_pairs(tmp_path / "pairs.jsonl", [*shop.PAIRS, row]))
    assert loaded.report.dropped == {reason: ["pairs.jsonl:9"]}
    assert "Atlantis" not in str(loaded.examples)


def test_the_log_says_what_is_wrong_with_the_sql_and_names_the_nearest_column(database, tmp_path, caplog):
    load(database, shop.write_pairs(tmp_path / "pairs.jsonl", [*shop.PAIRS, BAD[2][0]]))
    assert "pairs.jsonl:9: SQL does not run: no column 'nmae' in customers; nearest: customers.name" in caplog.text


def test_bad_pairs_can_be_refused_and_empty_results_kept(database, tmp_path):
    pairs = shop.write_pairs(tmp_path / "pairs.jsonl", [*shop.PAIRS, BAD[4][0]])
    with pytest.raises(ValueError, match="1 bad rows .*returns no rows: pairs.jsonl:9"):
        load(database, pairs, on_bad_row=BadRow.refuse)
    kept = splits(database, pairs, keep_empty=True)
    assert sum(len(loaded.examples) for loaded in kept.values()) == len(shop.PAIRS) + 1


def test_sql_of_another_dialect_is_transpiled_and_what_cannot_be_is_dropped(database, tmp_path):
    more = [
        ("Alike?", "SELECT name FROM customers WHERE name ILIKE 'PERSON A%'"),
        ("Made?", "SELECT * FROM generate_series(1, 3)"),
    ]
    found = splits(database, shop.write_pairs(tmp_path / "p.jsonl", [*shop.PAIRS, *more]), dialect=Dialect.postgres)
    sql = {one.question: one.sql for loaded in found.values() for one in loaded.examples}
    assert sql["Alike?"] == "SELECT name FROM customers WHERE LOWER(name) LIKE LOWER('PERSON A%')"
    assert list(found["train"].report.dropped.values()) == [["p.jsonl:10"]]


# Files


def test_csv_pairs_and_their_ids_are_read(database, tmp_path):
    lines = [
        "id,question,sql",
        *(f'{n},"{q}","{s.replace(chr(34), chr(34) * 2)}"' for n, (q, s) in enumerate(shop.PAIRS)),
    ]
    (tmp_path / "pairs.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    loaded = splits(database, tmp_path / "pairs.csv")
    assert {one.id for found in loaded.values() for one in found.examples} == {f"pairs.csv/{n}" for n in range(8)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"question": "a"', "pairs.jsonl is not valid JSON in line 1"),
        ('{"question": "a", "query": "b"}', "pairs.jsonl has no column 'sql'; it has query, question"),
        ("", "pairs.jsonl holds no rows"),
        ('{"question": "a", "sql": "b", "id": 1}\n' * 2, "the id pairs.jsonl/1 twice"),
    ],
)
def test_a_file_of_pairs_that_is_none_is_refused(database, tmp_path, content, message):
    (tmp_path / "pairs.jsonl").write_text(content)
    with pytest.raises(ValueError, match=f"data.pairs.*{message}"):
        load(database, tmp_path / "pairs.jsonl")


def test_no_pairs_say_how_to_make_some(database):
    with pytest.raises(
        ValueError, match=r"data\.pairs=nowhere\.jsonl is no file.*text2sql make-pairs .* --out nowhere\.jsonl"
    ):
        load(database, "nowhere.jsonl")


def test_a_folder_of_databases_is_told_apart_by_db(tmp_path):
    folder = tmp_path / "all"
    (folder / "second").mkdir(parents=True)
    shop.make(folder / "first.sqlite")
    shop.make(folder / "second" / "second.sqlite")
    pairs = [{"question": q, "sql": s, "db": db} for db in ("first", "second") for q, s in shop.PAIRS]
    found = splits(folder, shop.write_pairs(tmp_path / "p.jsonl", [*pairs, {"question": "None?", "sql": "SELECT 1"}]))
    examples = [one for loaded in found.values() for one in loaded.examples]
    assert len(examples) == 16
    assert {one.db_id: Path(one.database).stem for one in examples} == {"first": "first", "second": "second"}
    assert found["train"].report.dropped == {"missing db": ["p.jsonl:17"]}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: None, "does not exist: name a SQLite file"),
        (lambda file: file.write_bytes(b""), "is empty: name a SQLite 3 file"),
        (lambda file: file.write_text("id,name\n1,x\n"), "is not a SQLite database: .*copy-database"),
        (lambda file: sqlite3.connect(file).execute("VACUUM").connection.close(), "is empty|has no tables"),
        (lambda file: file.mkdir(), "holds no database"),
        (lambda file: file.write_bytes(b"SQLite format 3\0" + b"x" * 4096), "is damaged"),
    ],
    ids=["missing", "empty", "text", "no tables", "folder", "damaged"],
)
def test_what_is_no_database_is_refused(tmp_path, make, message):
    make(tmp_path / "x.sqlite")
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "x.sqlite", shop.write_pairs(tmp_path / "pairs.jsonl"))


def test_a_schema_without_tables_is_refused(tmp_path):
    with closing(sqlite3.connect(tmp_path / "x.sqlite")) as connection:
        connection.executescript("CREATE VIEW v AS SELECT 1")
    with pytest.raises(ValueError, match="has no tables: nothing can be asked of an empty schema"):
        load(tmp_path / "x.sqlite", shop.write_pairs(tmp_path / "pairs.jsonl"))


@pytest.mark.parametrize("share", [0.0, 0.95, 1.0])
def test_shares_that_leave_nothing_to_train_on_are_refused(share):
    with pytest.raises(ValueError, match=f"data.test_fraction={share}"):
        data.check(config("x", "y", test_fraction=share))


# The copy


def state(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir() if file.is_file()}


WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(f"PRAGMA journal_mode = {sys.argv[2]}").fetchall()
connection.execute("INSERT INTO orders VALUES (1000, 1, 1.0, 'new')")
connection.execute("BEGIN EXCLUSIVE")
connection.execute("INSERT INTO orders VALUES (1001, 1, 1.0, 'not committed')")
print("locked", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_database_that_another_process_has_locked_is_read_as_committed_and_left_as_it_is(database, mode):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(database), mode], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout.readline() == "locked\n"
        before = state(database.parent)
        with closing(sqlite3.connect(snapshot.take(database, "data.path"))) as copy:
            states = {row[0] for row in copy.execute("SELECT status FROM orders WHERE id >= 1000")}
        assert states == {"new"}
        assert state(database.parent) == before
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()


def test_a_changed_database_is_copied_anew_to_the_same_place(database):
    first = snapshot.take(database, "data.path")
    kept = os.stat(first)
    assert os.stat(snapshot.take(database, "data.path")).st_mtime_ns == kept.st_mtime_ns
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM orders")
        connection.commit()
    assert snapshot.take(database, "data.path") == first
    with closing(sqlite3.connect(first)) as copy:
        assert copy.execute("SELECT COUNT(*) FROM orders").fetchone() == (0,)


def test_a_database_beside_it_is_no_part_of_its_verdicts(database, tmp_path):
    from text2sql.scorer import suite

    (tmp_path / "other.sqlite").write_text("no database")
    loaded = load(database, shop.write_pairs(tmp_path / "pairs.jsonl"))
    assert suite(loaded.examples[0].database) == [loaded.examples[0].database]


def test_odd_names_are_read_as_they_are(database, tmp_path):
    loaded = load(database, shop.write_pairs(tmp_path / "pairs.jsonl"))
    (table,) = [one for one in loaded.examples[0].schema.tables if one.name == "order notes"]
    assert [column.name for column in table.columns] == ["group", 'naïve "quoted" tëxt', "Größe", "select"]
    with closing(connect(loaded.examples[0])) as connection:
        assert connection.execute('SELECT COUNT("naïve ""quoted"" tëxt") FROM "order notes"').fetchone() == (40,)
