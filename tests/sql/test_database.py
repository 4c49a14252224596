"""Databases open for reading only, and their schema reads as declared."""

import sqlite3
from contextlib import closing

import pytest

from text2sql.example import Column, Example, ForeignKey
from text2sql.sql import database


def schema_of(script):
    with closing(database.open_memory(script)) as connection:
        return database.read_schema(connection)


@pytest.fixture
def pets(tmp_path):
    path = tmp_path / "pets.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE pet (name TEXT); INSERT INTO pet VALUES ('Rex');")
    return path


def test_a_file_opens_for_reading(pets):
    with closing(database.open_readonly(str(pets))) as connection:
        assert connection.execute("SELECT name FROM pet").fetchall() == [("Rex",)]


def test_a_file_refuses_writes(pets):
    with closing(database.open_readonly(str(pets))) as connection, pytest.raises(sqlite3.OperationalError):
        connection.execute("INSERT INTO pet VALUES ('Tom')")


@pytest.mark.parametrize(
    "name", ["a b.sqlite", "50%20.sqlite", "what?.sqlite", "#1.sqlite", "mode=rw&.sqlite", "ü.sqlite"]
)
def test_a_path_may_hold_characters_special_to_uris(pets, name):
    path = pets.rename(pets.parent / name)
    with closing(database.open_readonly(str(path))) as connection:
        assert connection.execute("SELECT count(*) FROM pet").fetchone() == (1,)


def test_text_that_is_not_utf8_reads_with_replacement_characters(pets):
    with closing(sqlite3.connect(pets)) as connection:
        connection.execute("INSERT INTO pet VALUES (CAST(x'52e978' AS TEXT))")
        connection.commit()
    with closing(database.open_readonly(str(pets))) as connection:
        assert connection.execute("SELECT name FROM pet").fetchall() == [("Rex",), ("R\ufffdx",)]


def test_a_missing_file_is_named_and_not_created(tmp_path):
    path = tmp_path / "none.sqlite"
    with pytest.raises(FileNotFoundError, match=r"none\.sqlite.*data\.path"):
        database.open_readonly(str(path))
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n" * 40])
def test_a_file_that_is_no_database_is_refused(tmp_path, content):
    path = tmp_path / "fake.sqlite"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="download it again"):
        database.open_readonly(str(path))


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a folder"):
        database.open_readonly(str(tmp_path))


def test_a_context_refuses_writes_once_built():
    with closing(database.open_memory("CREATE TABLE t (a)")) as connection, pytest.raises(sqlite3.OperationalError):
        connection.execute("INSERT INTO t VALUES (1)")


@pytest.mark.parametrize("script", ["CREATE TABLE", "INSERT INTO t VALUES (1)", "SELECT '\0'", "SELECT '\ud800'"])
def test_a_context_that_does_not_run_raises_the_error_of_sqlite(script):
    with pytest.raises(sqlite3.Error):
        database.open_memory(script)


def test_a_context_cannot_touch_files(tmp_path):
    target = tmp_path / "out.sqlite"
    for statement in (f"ATTACH '{target}' AS out", f"VACUUM INTO '{target}'", "SELECT load_extension('x')"):
        with pytest.raises(sqlite3.Error):
            database.open_memory(f"CREATE TABLE t (a); {statement};")
    assert not target.exists()


def test_a_context_that_never_ends_is_stopped(monkeypatch):
    monkeypatch.setattr(database, "BUILD_STEPS", 10_000)
    bomb = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        database.open_memory(bomb)


def test_connect_prefers_the_file_to_the_context(pets):
    example = Example("1", "?", "SELECT 1", "pets", database=str(pets), context="CREATE TABLE t (a)")
    with closing(database.connect(example)) as connection:
        assert [table.name for table in database.read_schema(connection).tables] == ["pet"]


def test_connect_builds_the_context():
    example = Example("1", "?", "SELECT 1", "t", context="CREATE TABLE t (a)")
    with closing(database.connect(example)) as connection:
        assert [table.name for table in database.read_schema(connection).tables] == ["t"]


def test_tables_come_in_the_order_they_were_created_without_views_and_internal_ones():
    schema = schema_of(
        "CREATE TABLE z (a INTEGER PRIMARY KEY AUTOINCREMENT); CREATE TABLE a (b); CREATE VIEW v AS SELECT 1;"
    )
    assert [table.name for table in schema.tables] == ["z", "a"]


def test_columns_have_their_declared_types_and_keys():
    (table,) = schema_of(
        'CREATE TABLE "my ""t" (id INTEGER, "a b" varchar(10), untyped, PRIMARY KEY (id, untyped))'
    ).tables
    assert table.name == 'my "t'
    assert table.columns == (Column("id", "INTEGER", True), Column("a b", "varchar(10)"), Column("untyped", "", True))


def test_foreign_keys_come_in_the_order_they_were_declared():
    schema = schema_of("CREATE TABLE p (a, b); CREATE TABLE c (x REFERENCES p (a), y REFERENCES p (b));")
    assert schema.tables[1].foreign_keys == (ForeignKey(("x",), "p", ("a",)), ForeignKey(("y",), "p", ("b",)))


def test_foreign_keys_may_span_columns():
    schema = schema_of("CREATE TABLE p (a, b); CREATE TABLE c (x, y, FOREIGN KEY (y, x) REFERENCES p (b, a));")
    assert schema.tables[1].foreign_keys == (ForeignKey(("y", "x"), "p", ("b", "a")),)


def test_a_foreign_key_without_columns_points_at_the_primary_key_in_its_order():
    schema = schema_of(
        "CREATE TABLE p (a, b, PRIMARY KEY (b, a)); CREATE TABLE c (x, y, FOREIGN KEY (x, y) REFERENCES p);"
    )
    assert schema.tables[1].foreign_keys == (ForeignKey(("x", "y"), "p", ("b", "a")),)


def test_a_foreign_key_is_spelt_as_the_table_it_references():
    schema = schema_of("CREATE TABLE People (Id INTEGER); CREATE TABLE c (x REFERENCES people (id));")
    assert schema.tables[1].foreign_keys == (ForeignKey(("x",), "People", ("Id",)),)


@pytest.mark.parametrize("reference", ["nowhere", "keyless"])
def test_a_foreign_key_that_cannot_be_resolved_is_left_out(reference):
    schema = schema_of(f"CREATE TABLE keyless (a); CREATE TABLE c (x REFERENCES {reference});")
    assert schema.tables[1].foreign_keys == ()
