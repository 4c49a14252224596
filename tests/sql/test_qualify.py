"""The qualified form of a query: the same result, every column with its table's name, no aliases where none are needed."""

import json
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2sql.sql import identifiers
from text2sql.sql.database import open_memory, open_readonly, read_schema
from text2sql.sql.qualify import qualified

SPIDER = Path(__file__).parents[2].parent / "shared" / "data" / "spider"
SCRIPT = """
CREATE TABLE Singer (Singer_ID INTEGER PRIMARY KEY, Name TEXT, Age INT);
CREATE TABLE concert (id INTEGER PRIMARY KEY, title TEXT, year INT);
CREATE TABLE performs (concert_id INT, singer_id INT);
CREATE TABLE "order" ("Line No" INTEGER, name TEXT);
"""
SCHEMA = read_schema(open_memory(SCRIPT))


@pytest.mark.parametrize(
    ("sql", "form"),
    [
        ("SELECT name FROM singer", "SELECT singer.name FROM singer"),
        (
            "SELECT T1.name ,  count(*) FROM singer AS T1 JOIN performs AS T2 ON T1.singer_id  =  T2.singer_id GROUP BY T1.name",
            "SELECT singer.name, count(*) FROM singer JOIN performs ON singer.singer_id = performs.singer_id "
            "GROUP BY singer.name",
        ),
        (
            "SELECT title FROM concert WHERE id NOT IN (SELECT concert_id FROM performs)",
            "SELECT concert.title FROM concert WHERE concert.id NOT IN (SELECT performs.concert_id FROM performs)",
        ),
        (
            'SELECT COUNT(DISTINCT Name) FROM Singer WHERE Name != "Joe" AND name NOT LIKE "%x%" AND age IS NOT NULL',
            "SELECT count(DISTINCT singer.name) FROM singer WHERE singer.name != 'Joe' AND singer.name NOT LIKE '%x%' "
            "AND singer.age IS NOT NULL",
        ),
        ('SELECT "Line No" FROM "order"', 'SELECT "order"."line no" FROM "order"'),
        (
            "SELECT count(*) AS n FROM singer GROUP BY age ORDER BY n DESC",
            "SELECT count(*) AS n FROM singer GROUP BY singer.age ORDER BY n DESC",
        ),
        (
            "SELECT * FROM singer JOIN performs JOIN concert ON concert.id = performs.concert_id",
            "SELECT * FROM singer JOIN performs JOIN concert ON concert.id = performs.concert_id",
        ),
    ],
)
def test_columns_have_their_tables_name_and_tables_no_alias(sql, form):
    assert qualified(sql, SCHEMA) == form
    assert qualified(form, SCHEMA) == form


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT T1.name FROM singer AS T1 JOIN singer AS T2 ON T1.age > T2.age",
        "SELECT name FROM singer AS T1 WHERE age > (SELECT avg(age) FROM singer AS T2 WHERE T2.name != T1.name)",
    ],
)
def test_aliases_stay_where_a_table_is_read_twice(sql):
    form = qualified(sql, SCHEMA)
    assert "AS T1" in form and "AS T2" in form
    database = open_memory(SCRIPT)
    assert database.execute(form).fetchall() == database.execute(sql).fetchall()


@pytest.mark.parametrize(
    "sql", ["", "no query", "SELECT", "SELECT nam FROM singer", "SELECT name FROM singers", "DROP TABLE x"]
)
def test_what_cannot_be_read_or_names_what_is_not_there_stays_as_it_is(sql):
    assert qualified(sql, SCHEMA) == sql


@given(st.text(max_size=80))
def test_any_text_comes_back_as_some_text(text):
    assert isinstance(qualified(f"SELECT name FROM singer WHERE name = {text}", SCHEMA), str)


@given(st.text(alphabet="aZé\" _1'", min_size=1, max_size=8))
def test_a_quoted_name_is_read_back_by_sqlite(name):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE {identifiers.quote(name)} (x)")
        assert connection.execute("SELECT name FROM sqlite_master").fetchone() == (name,)
        connection.execute(f"SELECT * FROM {identifiers.quote(identifiers.lower(name))}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "archives"), [("dev", ["dev"]), ("train_others", ["train"]), ("train_spider", ["train"])]
)
def test_golds_of_spider_keep_their_results(tmp_path, split, archives):
    if not (SPIDER / "database_train.zip").exists():
        pytest.skip("Spider is not in ../shared/data/spider")
    for name in (*archives, "standin"):
        with zipfile.ZipFile(SPIDER / f"database_{name}.zip") as archive:
            archive.extractall(tmp_path)
    opened, changed, same = {}, [], 0
    for gold in json.loads((SPIDER / f"{split}.json").read_text(encoding="utf-8")):
        db, sql = gold["db_id"], gold["query"]
        if db not in opened:
            connection = open_readonly(str(tmp_path / "database" / db / f"{db}.sqlite"))
            opened[db] = connection, read_schema(connection)
        connection, schema = opened[db]
        form = qualified(sql, schema)
        try:
            expected = connection.execute(sql).fetchall()
        except sqlite3.Error:
            continue
        found = connection.execute(form).fetchall()
        same += 1
        if sorted(map(repr, found)) != sorted(map(repr, expected)):
            changed.append((sql, form))
    assert changed == []
    assert same > 1000
