"""SQL runs under guard: it can read, and whatever else it does comes back as a verdict."""

import sqlite3
import time
from contextlib import closing

import pytest

from text2sql.example import Verdict
from text2sql.sql import database, execute

NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT "


@pytest.fixture
def path(tmp_path):
    with closing(sqlite3.connect(tmp_path / "pets.sqlite")) as connection:
        connection.executescript(
            "CREATE TABLE pet (name TEXT UNIQUE); INSERT INTO pet VALUES ('Rex'), ('Tom'), ('Kim');"
        )
    return tmp_path / "pets.sqlite"


@pytest.fixture
def connection(path):
    with closing(database.open_readonly(str(path))) as connection:
        yield connection


def run(connection, sql, timeout_s=5.0, max_rows=100):
    return execute.run(connection, sql, timeout_s=timeout_s, max_rows=max_rows)


def test_a_query_gives_its_rows(connection):
    result = run(connection, "SELECT name FROM pet WHERE name <> 'Tom'")
    assert result == execute.Result([("Rex",), ("Kim",)])


def test_a_query_that_returns_as_many_rows_as_allowed_is_no_error(connection):
    assert len(run(connection, "SELECT name FROM pet", max_rows=3).rows) == 3


def test_one_row_more_than_allowed_is_too_many(connection):
    result = run(connection, "SELECT name FROM pet", max_rows=2)
    assert (result.error, result.reason, result.rows) == (Verdict.TOO_MANY_ROWS, "more than 2 rows", [])


def test_a_query_that_never_gives_a_row_ends_at_the_deadline(connection):
    started = time.monotonic()
    result = run(connection, NUMBERS + "count(*) FROM n", timeout_s=0.1)
    assert (result.error, result.reason) == (Verdict.TIMEOUT, "still running after 0.1 s")
    assert time.monotonic() - started < 3


def test_the_deadline_also_ends_a_query_that_keeps_giving_rows(connection):
    assert run(connection, NUMBERS + "i FROM n", timeout_s=0.1, max_rows=10**9).error is Verdict.TIMEOUT


def test_the_next_query_has_a_deadline_of_its_own(connection):
    run(connection, NUMBERS + "count(*) FROM n", timeout_s=0.05)
    assert run(connection, "SELECT count(*) FROM pet").rows == [(3,)]


@pytest.mark.parametrize("sql", ["", " \n\t", ";", "-- nothing", "/* nothing */"])
def test_nothing_but_space_and_comments_is_an_empty_prediction(connection, sql):
    assert run(connection, sql).error is Verdict.EMPTY_PREDICTION


@pytest.mark.parametrize("sql", ["SELECT '\0'", "SELECT '\ud800'"])
def test_text_that_sqlite_cannot_take_is_a_syntax_error(connection, sql):
    assert run(connection, sql).error is Verdict.SYNTAX


@pytest.mark.parametrize("sql", ["SELECT " + "(" * 5000 + "1" + ")" * 5000, "SELECT " + "1+" * 5000 + "1"])
def test_nesting_too_deep_is_a_syntax_error(connection, sql):
    assert run(connection, sql).error is Verdict.SYNTAX


def test_an_unknown_name_in_double_quotes_is_a_string(connection):
    assert run(connection, 'SELECT "nobody" FROM pet LIMIT 1').rows == [("nobody",)]


def test_the_reason_is_the_message_of_sqlite(connection):
    assert run(connection, "SELECT age FROM pet").reason == "no such column: age"


@pytest.mark.parametrize(
    "attack",
    [
        "ATTACH '{folder}/new.sqlite' AS other",
        "DROP TABLE pet",
        "DELETE FROM pet",
        "UPDATE pet SET name = 'x'",
        "INSERT INTO pet VALUES ('x')",
        "REPLACE INTO pet VALUES ('x')",
        "WITH x AS (SELECT 1) DELETE FROM pet",
        "ALTER TABLE pet ADD COLUMN age",
        "CREATE TABLE other (a)",
        "CREATE TEMP TABLE other (a)",
        "CREATE TRIGGER t AFTER INSERT ON pet BEGIN SELECT 1; END",
        "PRAGMA writable_schema = 1",
        "PRAGMA journal_mode = WAL",
        "SELECT * FROM pragma_journal_mode('WAL')",
        "VACUUM",
        "VACUUM INTO '{folder}/new.sqlite'",
        "REINDEX",
        "ANALYZE",
        "BEGIN EXCLUSIVE",
        "SAVEPOINT s",
        "SELECT load_extension('{folder}/new')",
    ],
)
def test_an_attack_leaves_files_as_they_were(path, connection, attack):
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    result = run(connection, attack.format(folder=path.parent))
    assert result.error in (Verdict.DENIED_WRITE, Verdict.UNKNOWN_TABLE)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    assert run(connection, "SELECT count(*) FROM pet").rows == [(3,)]


def test_the_authorizer_alone_also_protects_a_writable_connection(tmp_path):
    with closing(sqlite3.connect(tmp_path / "open.sqlite")) as connection:
        connection.executescript("CREATE TABLE pet (name TEXT); INSERT INTO pet VALUES ('Rex');")
        assert run(connection, "DELETE FROM pet").error is Verdict.DENIED_WRITE
        assert run(connection, "SELECT name FROM pet").rows == [("Rex",)]


def test_the_schema_can_still_be_read_after_a_run(connection):
    run(connection, "SELECT 1")
    assert [table.name for table in database.read_schema(connection).tables] == ["pet"]


def test_a_broken_database_is_our_fault_and_not_a_verdict(path):
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * len(content[4096:])  # the second page holds the rows
    path.write_bytes(content)
    with (
        closing(database.open_readonly(str(path))) as connection,
        pytest.raises(sqlite3.DatabaseError, match="malformed"),
    ):
        run(connection, "SELECT name FROM pet")
