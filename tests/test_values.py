"""Values that a question mentions: found, ranked, never stale, and never at the cost of the database."""

import hashlib
import multiprocessing
import os
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2sql import values
from text2sql.example import Example
from text2sql.sql.database import open_readonly, read_schema

SCRIPT = """
CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, country TEXT, age INT);
CREATE TABLE stadium (id INTEGER PRIMARY KEY, name TEXT, place TEXT);
INSERT INTO singer VALUES (1, 'Joe Sharp', 'Netherlands', 52), (2, 'Rose White', 'France', 41), (3, 'The Who', 'USA', 9);
INSERT INTO stadium VALUES (1, 'Stark''s Park', 'South France Coast'), (2, 'Forthbank', 'New York'), (3, 'Gayfield', 'York');
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache; the databases lie beside it."""
    monkeypatch.setenv("TEXT2SQL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def made(path, script=SCRIPT):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return str(path)


def asked(question, database="", context=""):
    return Example("x", question, "", "d", database=database, context=context)


def found(question, database="", context=""):
    """The values by text, best first."""
    return [match.text for match in values.find(asked(question, database, context))]


@pytest.mark.parametrize(
    ("question", "texts"),
    [
        ("How many singers are from France?", ["France"]),
        ("Which singers come from the netherlands?", ["Netherlands"]),
        ("How old is Joe?", []),
        ("How old is JOE SHARP?", ["Joe Sharp"]),
        ("How old is Sharp?", ["Joe Sharp"]),
        ("What happened in New York?", ["New York", "York"]),
        ("Who are they and the who?", []),
        ("How many seats has Starks Park, or Stark's Park?", ["Stark's Park"]),
        ("How many?", []),
        ("", []),
        ("'\"*() NEAR OR AND -- France", ["France"]),
    ],
)
def test_values_are_found_by_the_words_of_the_question(question, texts):
    assert found(question, context=SCRIPT) == texts


def test_the_whole_value_in_the_question_beats_a_longer_one_that_holds_it():
    context = "CREATE TABLE t (a); INSERT INTO t VALUES ('South France'), ('France'), ('France France')"
    assert found("Who lives in France?", context=context)[0] == "France"
    assert found("Who lives in South France?", context=context)[0] == "South France"


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Zürich", "Who lives in zurich?"),
        ("MÜNCHEN", "Wer wohnt in München?"),
        ("Dog", "Which dogs are there?"),
        ("dogs", "Which dog is it?"),
        ("Countries", "Which country?"),
        ("東京", "Who lives in 東京 ?"),
        ("Москва", "Кто живёт в МОСКВА?"),
        ("O'Brien", "Who is O'Brien?"),
        ("2007", "What was in 2007?"),
        ("a\nb-line", "What is a b line?"),
        ("under_score", "What is under_score?"),
    ],
)
def test_case_accents_plurals_and_signs_do_not_matter(text, question):
    with closing(sqlite3.connect(":memory:")) as connection:
        (quoted,) = connection.execute("SELECT quote(?)", (text,)).fetchone()
    context = f"CREATE TABLE t (a); INSERT INTO t VALUES ({quoted})"
    assert found(question, context=context) == [text]


def test_a_match_says_where_it_stands():
    match, *_ = values.find(asked("Who is from France?", context=SCRIPT))
    assert (match.table, match.column, match.text) == ("singer", "country", "France")


def test_only_texts_of_bearable_length_are_found():
    context = f"""CREATE TABLE t (a); INSERT INTO t VALUES
        (x'{b"alpha".hex()}'), (5), (NULL), ('alpha {"x" * 100}'), ('{"y" * 1_000_000} alpha'), ('alpha'), ('')"""
    assert found("alpha 5", context=context) == ["alpha"]


def test_names_of_any_kind_views_and_empty_tables_do_no_harm():
    context = """
        CREATE TABLE [a "b"] ("select" TEXT, "größe x" TEXT, plain);
        CREATE TABLE empty (a TEXT);
        CREATE VIEW seen AS SELECT * FROM [a "b"];
        CREATE VIEW broken AS SELECT * FROM absent;
        INSERT INTO [a "b"] VALUES ('alpha', 'alpha', 'alpha');
    """
    assert [match[1:3] for match in values.find(asked("alpha", context=context))] == [
        ('a "b"', "größe x"),
        ('a "b"', "plain"),
        ('a "b"', "select"),
    ]


@pytest.mark.parametrize("context", ["CREATE TABLE t (a", "nonsense", "CREATE TABLE t (a ENUM('x'), \0)", ""])
def test_a_script_that_does_not_run_gives_no_values(context):
    assert found("alpha", context=context) == []
    assert values.rows(asked("alpha", context=context), read_schema(sqlite3.connect(":memory:")), 3, 30) == {}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_question_can_be_asked(question):
    assert isinstance(found(question, context=SCRIPT), list)


# Files.


def test_a_file_gives_what_its_script_gives(folder):
    database = made(folder / "a.sqlite")
    for question in ("Who is from France?", "How old is Joe Sharp?", "York or New York?"):
        assert values.find(asked(question, database)) == values.find(asked(question, context=SCRIPT)) != []


def test_an_index_is_made_once_and_kept_under_the_hash_of_the_content(folder):
    database = made(folder / "a.sqlite")
    found("France", database)
    (index,) = (folder / "cache" / "values").iterdir()
    assert hashlib.sha256((folder / "a.sqlite").read_bytes()).hexdigest() in index.name
    before = index.stat()
    found("York", database)
    found("York", str((folder / "a.sqlite").rename(folder / "b.sqlite")))
    assert [file.name for file in (folder / "cache" / "values").iterdir()] == [index.name]
    assert index.stat() == before or index.stat().st_mtime_ns == before.st_mtime_ns


def test_the_database_is_not_written_to_nor_anything_beside_it(folder):
    database = made(folder / "a.sqlite")
    os.chmod(database, 0o444)
    before = (folder / "a.sqlite").read_bytes(), os.stat(database).st_mtime_ns
    found("France", database)
    assert ((folder / "a.sqlite").read_bytes(), os.stat(database).st_mtime_ns) == before
    assert sorted(file.name for file in folder.iterdir()) == ["a.sqlite", "cache"]


def test_a_database_that_changes_is_indexed_anew(folder):
    database = made(folder / "a.sqlite")
    assert found("France or Spain", database) == ["France"]
    size = os.stat(database).st_size
    made(folder / "a.sqlite", "UPDATE singer SET country = 'Spain ' WHERE country = 'France'")
    assert os.stat(database).st_size == size
    assert found("France or Spain", database) == ["Spain "]


def test_a_change_within_the_resolution_of_the_clock_is_seen(folder):
    database = made(folder / "a.sqlite")
    found("France", database)
    stat = os.stat(database)
    made(folder / "a.sqlite", "UPDATE singer SET country = 'Spain ' WHERE country = 'France'")
    os.utime(database, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert found("France or Spain", database) == ["Spain "]


def test_a_file_that_has_not_changed_for_long_is_hashed_once(folder, monkeypatch):
    database = made(folder / "a.sqlite")
    os.utime(database, ns=(1, 1))
    found("France", database)
    monkeypatch.setattr(hashlib, "sha256", None)
    assert found("France", database) == ["France"]


def test_a_database_that_changes_while_it_is_indexed_is_not_indexed_as_what_it_was(folder, monkeypatch):
    database = made(folder / "a.sqlite")
    fill = values._fill

    def disturbed(index, source):
        fill(index, source)
        monkeypatch.setattr(values, "_fill", fill)
        made(folder / "a.sqlite", "UPDATE singer SET country = 'Spain'")

    monkeypatch.setattr(values, "_fill", disturbed)
    assert found("France or Spain", database) == ["Spain"]
    assert len(list((folder / "cache" / "values").iterdir())) == 1


def test_a_database_that_never_rests_is_an_error(folder, monkeypatch):
    database = made(folder / "a.sqlite")
    fill = values._fill

    def disturbed(index, source):
        fill(index, source)
        made(folder / "a.sqlite", "UPDATE singer SET age = age + 1")

    monkeypatch.setattr(values, "_fill", disturbed)
    with pytest.raises(ValueError, match=r"a\.sqlite keeps changing while its values are read"):
        found("France", database)


def test_an_index_that_fails_leaves_nothing_behind(folder, monkeypatch):
    database = made(folder / "a.sqlite")
    monkeypatch.setattr(values, "_fill", lambda index, source: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        found("France", database)
    assert list((folder / "cache" / "values").iterdir()) == []


def test_several_processes_may_index_at_once(folder):
    database = made(folder / "a.sqlite")
    with multiprocessing.get_context("fork").Pool(4) as pool:
        results = pool.starmap(found, [("Who is from France?", database)] * 16)
    assert results == [["France"]] * 16
    assert len(list((folder / "cache" / "values").iterdir())) == 1


def test_a_missing_or_damaged_database_is_an_error(folder):
    with pytest.raises(FileNotFoundError, match=r"no database at .*b\.sqlite"):
        found("France", str(folder / "b.sqlite"))
    (folder / "c.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(ValueError, match="is not a SQLite database"):
        found("France", str(folder / "c.sqlite"))


def test_a_python_without_full_text_search_is_told_what_to_do(monkeypatch):
    monkeypatch.setattr(values, "can_search", lambda: False)
    with pytest.raises(RuntimeError, match=r"no FTS5 full-text search.*prompt=ddl_fk.*Python"):
        found("France", context=SCRIPT)


def test_a_cache_that_cannot_be_written_is_told_by_its_setting(folder, monkeypatch):
    database = made(folder / "a.sqlite")
    (folder / "file").write_text("")
    monkeypatch.setenv("TEXT2SQL_CACHE", str(folder / "file"))
    with pytest.raises(OSError, match="TEXT2SQL_CACHE"):
        found("France", database)


# Rows.


def test_the_first_rows_of_each_table_are_read_and_long_cells_cut(folder):
    database = made(folder / "a.sqlite", SCRIPT + f"UPDATE singer SET name = '{'x' * 1_000_000}'; DELETE FROM stadium")
    with closing(open_readonly(database)) as connection:
        schema = read_schema(connection)
    rows = values.rows(asked("", database), schema, 2, 30)
    assert list(rows) == ["singer"]
    assert [(row["id"], row["country"], row["age"]) for row in rows["singer"]] == [
        (1, "Netherlands", 52),
        (2, "France", 41),
    ]
    assert all(30 < len(row["name"]) < 100 for row in rows["singer"])


def test_tables_that_are_gone_from_the_database_have_no_rows(folder):
    database = made(folder / "a.sqlite")
    with closing(open_readonly(database)) as connection:
        schema = read_schema(connection)
    made(folder / "a.sqlite", "DROP TABLE singer")
    assert list(values.rows(asked("", database), schema, 1, 30)) == ["stadium"]
