"""SQL runs under guard: it can read, within limits, and whatever else it does comes back as a verdict."""

import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace

import pytest

from text2sql.example import Example, Verdict
from text2sql.scorer import Scorer
from text2sql.sql import database, execute
from text2sql.sql.execute import Limits, Reader, Result

NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT "
COUNT_TO = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {}) SELECT count(*) FROM n"
PETS = "CREATE TABLE pet (name TEXT UNIQUE); INSERT INTO pet VALUES ('Rex'), ('Tom'), ('Kim');"


@pytest.fixture
def path(tmp_path):
    with closing(sqlite3.connect(tmp_path / "pets.sqlite")) as connection:
        connection.executescript(PETS)
    return tmp_path / "pets.sqlite"


def run(path, sql, **limits):
    with closing(Reader(database.open_readonly(str(path)), Limits(**limits))) as reader:
        return reader.run(sql)


def run_on(script, sql, **limits):
    """Run on a database in memory."""
    with closing(Reader(database.open_memory(script), Limits(**limits))) as reader:
        return reader.run(sql)


def test_a_query_gives_its_rows_and_the_names_of_its_columns(path):
    result = run(path, "SELECT name AS who, 1 + 1, name FROM pet WHERE name <> 'Tom'")
    assert result == Result([("Rex", 2, "Rex"), ("Kim", 2, "Kim")], ("who", "1 + 1", "name"))


def test_columns_have_names_also_where_there_are_no_rows(path):
    assert run(path, "SELECT name AS a, 1 AS a FROM pet WHERE 0") == Result([], ("a", "a"))


def test_one_reader_runs_one_query_after_the_other(path):
    with closing(Reader(database.open_readonly(str(path)), Limits())) as reader:
        results = [reader.run(sql) for sql in ("SELECT count(*) FROM pet", "SELEC", "SELECT min(name) FROM pet")]
    assert [result.rows for result in results] == [[(3,)], [], [("Kim",)]]
    assert results[1].error is Verdict.SYNTAX


# Rows and cells


def test_a_query_that_returns_as_many_rows_as_allowed_is_no_error(path):
    assert len(run(path, "SELECT name FROM pet", max_rows=3).rows) == 3


def test_one_row_more_than_allowed_is_too_many(path):
    result = run(path, "SELECT name FROM pet", max_rows=2)
    assert result == Result(error=Verdict.TOO_MANY_ROWS, reason="more than 2 rows of 1 column")


@pytest.mark.parametrize("rows", [15, 16, 17, 999, 1000, 1015, 1016, 1017, 2016, 2017])
def test_no_row_is_lost_or_read_twice_where_reading_goes_in_parts(rows):
    sql = COUNT_TO.format(rows).replace("count(*)", "i")
    assert run_on("", sql, max_rows=rows).rows == [(i,) for i in range(1, rows + 1)]
    assert run_on("", sql, max_rows=rows - 1).error is Verdict.TOO_MANY_ROWS


def test_cells_are_limited_so_that_wide_results_have_fewer_rows(path):
    assert len(run(path, "SELECT 1, 2 FROM pet", max_cells=6).rows) == 3
    result = run(path, "SELECT 1, 2 FROM pet", max_cells=5)
    assert (result.error, result.reason) == (Verdict.TOO_MANY_ROWS, "more than 2 rows of 2 columns")


def test_a_result_wider_than_all_allowed_cells_is_too_many(path):
    assert run(path, "SELECT 1, 2, 3 FROM pet", max_cells=2).error is Verdict.TOO_MANY_ROWS
    assert run(path, "SELECT 1, 2, 3 FROM pet WHERE 0", max_cells=2).error is None


def test_rows_of_long_values_end_at_the_row_limit_and_not_at_a_thousand_values():
    sql = NUMBERS + "hex(zeroblob(100000)) FROM n"
    started = time.monotonic()
    assert run_on("", sql, max_rows=20).error is Verdict.TOO_MANY_ROWS
    assert time.monotonic() - started < 2


# Steps


def test_a_query_over_its_steps_says_so(path):
    result = run(path, NUMBERS + "count(*) FROM n", max_steps=10_000)
    assert result == Result(error=Verdict.STEP_BUDGET, reason="more than 10000 SQLite steps")


def most_that_runs(limits):
    """How far a query can count within its steps."""
    low, high = 1, limits["max_steps"]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if run_on("", COUNT_TO.format(middle), **limits).error else (middle, high)
    return low


def test_just_under_and_just_over_the_steps_a_query_has_the_same_verdict_in_every_run_also_on_a_busy_machine():
    limits = {"max_steps": 100_000, "timeout_s": 60.0}
    most = most_that_runs(limits)
    stop = threading.Event()
    busy = threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)])
    busy.start()
    try:
        with closing(Reader(database.open_memory(PETS), Limits(**limits))) as reader:
            for _ in range(15):
                assert reader.run(COUNT_TO.format(most)).rows == [(most,)]
                assert reader.run("SELECT count(*) FROM pet").rows == [(3,)]
                assert reader.run(COUNT_TO.format(most + 1)).error is Verdict.STEP_BUDGET
    finally:
        stop.set()
        busy.join()


def test_steps_are_counted_anew_for_each_query():
    with closing(Reader(database.open_memory(""), Limits(max_steps=100_000))) as reader:
        assert {reader.run(COUNT_TO.format(3_000)).error for _ in range(10)} == {None}


def test_the_clock_does_not_move_the_step_budget(monkeypatch):
    limits = {"max_steps": 100_000, "timeout_s": 60.0}
    most = most_that_runs(limits)
    ticks = iter(range(10**9))
    monkeypatch.setattr(execute.time, "monotonic", lambda: next(ticks) / 100)
    assert most_that_runs(limits) == most


# Time


def test_a_query_that_never_gives_a_row_ends_at_the_deadline(path):
    started = time.monotonic()
    result = run(path, NUMBERS + "count(*) FROM n", timeout_s=0.1, max_steps=10**12)
    assert result == Result(error=Verdict.TIMEOUT, reason="still running after 0.1 s")
    assert time.monotonic() - started < 3


def test_the_deadline_also_ends_a_query_that_keeps_giving_rows(path):
    sql = NUMBERS + "i FROM n"
    result = run(path, sql, timeout_s=0.1, max_rows=10**9, max_cells=10**9, max_steps=10**12)
    assert (result.error, result.rows) == (Verdict.TIMEOUT, [])


def test_the_deadline_is_looked_at_between_rows_too(path, monkeypatch):
    monkeypatch.setattr(execute, "STEPS_BETWEEN_CHECKS", 10**9)  # so that nothing else looks at it
    result = run(path, NUMBERS + "i FROM n", timeout_s=0.05, max_rows=10**9, max_cells=10**9)
    assert result.error is Verdict.TIMEOUT


def test_the_next_query_has_a_deadline_of_its_own(path):
    with closing(Reader(database.open_readonly(str(path)), Limits(timeout_s=0.05, max_steps=10**12))) as reader:
        assert reader.run(NUMBERS + "count(*) FROM n").error is Verdict.TIMEOUT
        assert reader.run("SELECT count(*) FROM pet").rows == [(3,)]


# Memory and length


def test_a_query_that_needs_more_memory_than_it_may_have_says_so(path):
    pair = Example("1", "", "SELECT 1", "pets", database=str(path)), NUMBERS + "i FROM n ORDER BY randomblob(10000)"
    with Scorer(Limits(max_memory_mb=16), workers=1) as scorer:
        (score,) = scorer.score_all([pair])
    assert (score.verdict, score.reason) == (Verdict.TOO_MANY_ROWS, "needs more than 16 MB of memory")


def test_a_large_sort_writes_no_file_and_does_not_look_like_a_broken_database(path, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path / "tmp"))
    before = (tmp_path / "tmp").stat().st_mtime_ns
    sql = (
        COUNT_TO.format(20_000).replace("count(*)", "count(*) FROM (SELECT DISTINCT hex(randomblob(500)) AS r")
        + " ORDER BY r)"
    )
    assert run(path, sql).rows == [(20_000,)]
    assert (tmp_path / "tmp").stat().st_mtime_ns == before


@pytest.mark.skipif("sys.version_info < (3, 11)", reason="before Python 3.11 SQLite's own limit of a gigabyte holds")
def test_a_value_longer_than_allowed_is_refused(path):
    assert run(path, "SELECT length(hex(zeroblob(50)))", max_value_bytes=1_000).rows == [(100,)]
    result = run(path, "SELECT hex(zeroblob(600))", max_value_bytes=1_000)
    assert (result.error, result.reason) == (Verdict.TYPE, "string or blob too big")


def test_sql_longer_than_allowed_is_not_run(path):
    assert run(path, "SELECT 1" + " " * 92, max_sql_bytes=100).rows == [(1,)]
    result = run(path, "SELECT 1" + " " * 93, max_sql_bytes=100)
    assert result == Result(error=Verdict.SYNTAX, reason="longer than 100 bytes")


# Text


@pytest.mark.parametrize("sql", ["", " \n\t", ";", "-- nothing", "/* nothing */"])
def test_nothing_but_space_and_comments_is_an_empty_prediction(path, sql):
    assert run(path, sql).error is Verdict.EMPTY_PREDICTION


@pytest.mark.parametrize("sql", ["SELECT '\0'", "SELECT '\ud800'"])
def test_text_that_sqlite_cannot_take_is_a_syntax_error(path, sql):
    assert run(path, sql).error is Verdict.SYNTAX


@pytest.mark.parametrize("sql", ["SELECT " + "(" * 5000 + "1" + ")" * 5000, "SELECT " + "1+" * 5000 + "1"])
def test_nesting_too_deep_is_a_syntax_error(path, sql):
    assert run(path, sql).error is Verdict.SYNTAX


def test_an_unknown_name_in_double_quotes_is_a_string(path):
    assert run(path, 'SELECT "nobody" FROM pet LIMIT 1').rows == [("nobody",)]


def test_the_reason_is_the_message_of_sqlite(path):
    assert run(path, "SELECT age FROM pet").reason == "no such column: age"


def test_bytes_that_are_not_utf8_come_back_as_surrogates_and_the_result_says_so():
    result = run_on("", "SELECT CAST(x'52FF78' AS TEXT), 'é', 1 AS \"ü\"")
    assert result == Result([("R\udcffx", "é", 1)], ("CAST(x'52FF78' AS TEXT)", "'é'", "ü"), ill_coded=True)


def test_equal_bytes_stay_equal_and_others_different():
    rows = run_on("", "SELECT CAST(x'C3' AS TEXT), CAST(x'C3' AS TEXT), CAST(x'C2' AS TEXT), '\ufffd'").rows
    assert rows[0][0] == rows[0][1]
    assert len(set(rows[0])) == 3


def test_ill_coded_text_in_a_late_row_loses_no_row():
    sql = COUNT_TO.format(3_000).replace("count(*)", "i, CASE i WHEN 2999 THEN CAST(x'FF' AS TEXT) ELSE 'x' END")
    rows = run_on("", sql).rows
    assert [row[0] for row in rows] == list(range(1, 3_001))
    assert rows[2_998] == (2_999, "\udcff")


def test_each_result_tells_for_itself_whether_its_text_is_ill_coded():
    with closing(Reader(database.open_memory(PETS), Limits())) as reader:
        assert reader.run("SELECT CAST(x'FF' AS TEXT)").ill_coded
        assert not reader.run("SELECT name FROM pet").ill_coded
        assert reader.run("SELECT CAST(x'FF' AS TEXT)").ill_coded


def test_ill_coded_text_is_under_the_same_limits(path):
    ill_coded = "CAST(x'FF' AS TEXT) FROM n"
    assert run(path, NUMBERS + ill_coded, max_rows=50).error is Verdict.TOO_MANY_ROWS
    assert run(path, NUMBERS + ill_coded + " WHERE i IN (1, 2)", max_steps=100_000).error is Verdict.STEP_BUDGET


def test_a_message_of_sqlite_that_is_not_utf8_is_a_verdict(path):
    assert run(path, "SELECT json_extract('{}', CAST(x'24FF' AS TEXT))").error is Verdict.TYPE


# Reading only


@pytest.mark.parametrize(
    "attack",
    [
        "ATTACH '{folder}/new.sqlite' AS other",
        "DROP TABLE pet",
        "DELETE FROM pet",
        "INSERT INTO pet VALUES ('x')",
        "CREATE TEMP TABLE other (a)",
        "PRAGMA writable_schema = 1",
        "SELECT * FROM pragma_journal_mode('WAL')",
        "VACUUM INTO '{folder}/new.sqlite'",
        "BEGIN EXCLUSIVE",
        "SELECT load_extension('{folder}/new')",
    ],
)
def test_an_attack_is_refused_and_leaves_files_as_they_were(path, attack):
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    with closing(Reader(database.open_readonly(str(path)), Limits())) as reader:
        assert reader.run(attack.format(folder=path.parent)).error in (Verdict.DENIED_WRITE, Verdict.FUNCTION)
        assert reader.run("SELECT count(*) FROM pet").rows == [(3,)]
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_the_authorizer_alone_also_protects_a_writable_connection(tmp_path):
    connection = sqlite3.connect(tmp_path / "open.sqlite", isolation_level=None)
    connection.executescript(PETS)
    with closing(Reader(connection, Limits())) as reader:
        assert reader.run("DELETE FROM pet").error is Verdict.DENIED_WRITE
        assert reader.run("CREATE TABLE other (a)").error is Verdict.DENIED_WRITE
        assert reader.run("SELECT count(*) FROM pet").rows == [(3,)]


@pytest.mark.parametrize("function", ["json_each", "json_tree"])
def test_functions_that_give_the_rows_of_a_json_text_can_be_used(path, function):
    assert run(path, f"SELECT max(value) FROM {function}('[1, 5, 3]') WHERE type = 'integer'").rows == [(5,)]


@pytest.mark.parametrize("sql", ["SELECT * FROM dbstat", "SELECT * FROM fts3tokenize WHERE input = 'a b'"])
def test_other_virtual_tables_cannot(path, sql):
    assert run(path, sql).error in (Verdict.FUNCTION, Verdict.DENIED_WRITE, Verdict.UNKNOWN_TABLE)


def test_a_broken_database_is_our_fault_and_not_a_verdict(path):
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * len(content[4096:])  # the second page holds the rows
    path.write_bytes(content)
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        run(path, "SELECT name FROM pet")


# Every verdict

REACHED = {
    Verdict.MATCH: ("SELECT name FROM pet", "SELECT name FROM pet ORDER BY 1"),
    Verdict.MISMATCH: ("SELECT name FROM pet", "SELECT 1"),
    Verdict.EMPTY_BOTH: ("SELECT name FROM pet WHERE name = ''", "SELECT name FROM pet WHERE 0"),
    Verdict.EMPTY_PREDICTION: ("SELECT 1", " -- I do not know"),
    Verdict.SYNTAX: ("SELECT 1", "SELEC 1"),
    Verdict.UNKNOWN_TABLE: ("SELECT 1", "SELECT 1 FROM pets"),
    Verdict.UNKNOWN_COLUMN: ("SELECT 1", "SELECT age FROM pet"),
    Verdict.AMBIGUOUS: ("SELECT 1", "SELECT name FROM pet AS a JOIN pet AS b"),
    Verdict.FUNCTION: ("SELECT 1", "SELECT concat_all(name) FROM pet"),
    Verdict.TYPE: ("SELECT 1", "SELECT abs(-9223372036854775808)"),
    Verdict.DENIED_WRITE: ("SELECT 1", "DELETE FROM pet"),
    Verdict.MULTIPLE_STATEMENTS: ("SELECT 1", "SELECT 1; SELECT 2"),
    Verdict.STEP_BUDGET: ("SELECT 1", NUMBERS + "count(*) FROM n"),
    Verdict.TIMEOUT: ("SELECT 1", NUMBERS + "count(*) FROM n"),
    Verdict.TOO_MANY_ROWS: ("SELECT 1", NUMBERS + "i FROM n LIMIT 51"),
    Verdict.GOLD_ERROR: ("SELECT age FROM pet", "SELECT 1"),
    Verdict.GOLD_BUDGET: (NUMBERS + "count(*) FROM n", "SELECT 1"),
}
LIMITS = Limits(timeout_s=20.0, max_steps=100_000, max_rows=50)


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_can_be_reached_with_one_statement(path, verdict):
    gold, prediction = REACHED[verdict]
    late = replace(LIMITS, timeout_s=0.1, max_steps=10**12)
    with Scorer(late if verdict is Verdict.TIMEOUT else LIMITS, workers=0) as scorer:
        (score,) = scorer.score_all([(Example("1", "", gold, "pets", database=str(path)), prediction)])
    assert score.verdict is verdict
