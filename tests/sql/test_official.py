"""Facts measured on evaluation.py, exec_eval.py and parse.py of taoyds/test-suite-sql-eval with sqlparse 0.6.1."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2sql.sql import official
from text2sql.sql.official import MAX_LENGTH, gold_text, is_ordered, plugged, prediction_text


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("SELECT a FROM t", "SELECT a FROM t"),
        ("SELECT a FROM t;", "SELECT a FROM t;"),
        ("SELECT DISTINCT a FROM t", "SELECT  a FROM t"),
        ("SELECT count(distinct a), Distinct(b) FROM t", "SELECT count( a), (b) FROM t"),
        (
            "SELECT DISTINCT a FROM t WHERE b = 'distinct;' OR c = \"DISTINCT\"",
            "SELECT  a FROM t WHERE b = 'distinct;' OR c = \"DISTINCT\"",
        ),
        ("SELECT t.distinct, `distinct`, [distinct] FROM t", "SELECT t., `distinct`, [distinct] FROM t"),
        ("SELECT a -- distinct\nFROM t", "SELECT a -- distinct\nFROM t"),
        ("SELECT DISTINCT a /* distinct */ FROM t", "SELECT  a /* distinct */ FROM t"),
        ("SELECT distinctly FROM t", "SELECT distinctly FROM t"),
        ("SELECT 1e5distinct FROM t", "SELECT 1e5 FROM t"),
        ("SELECT a FROM t; DROP TABLE t", "SELECT a FROM t; "),
        ("SELECT ';' FROM t; SELECT 1", "SELECT ';' FROM t; "),
        ("SELECT a GO SELECT b", "SELECT a GO "),
        ("SELECT a FROM t;\n", "SELECT a FROM t;"),
        ("SELECT a FROM t WHERE b > = 1 AND c < = 2 AND d ! = 3", "SELECT a FROM t WHERE b >= 1 AND c <= 2 AND d != 3"),
        ("SELECT Year ( CURDATE() )  - b FROM t", "SELECT 2020- b FROM t"),
        ("SELECT value FROM t", "SELECT value FROM t"),
    ],
)
def test_a_gold_is_rewritten(sql: str, text: str) -> None:
    assert gold_text(sql, keep_distinct=False) == text


def test_keep_distinct_keeps_distinct_and_all_statements() -> None:
    assert gold_text("SELECT DISTINCT a; SELECT b > = 1", keep_distinct=True) == "SELECT DISTINCT a; SELECT b >= 1"


@pytest.mark.parametrize("sql", ["", "  ", "\n"])
def test_an_empty_text_stays_empty(sql: str) -> None:
    assert gold_text(sql, keep_distinct=False) == prediction_text(sql, keep_distinct=False) == ""
    assert list(plugged("SELECT a FROM t WHERE b = 1", sql, keep_distinct=False)) == [""]
    assert list(plugged(sql, "SELECT a FROM t WHERE b = 1", keep_distinct=False)) == []


def test_the_word_value_in_a_prediction_becomes_1() -> None:
    sql = "SELECT DISTINCT a FROM t WHERE b = value AND values = 'a value' AND c = VALUE"
    assert prediction_text(sql, keep_distinct=False) == "SELECT  a FROM t WHERE b = 1 AND 1s = 'a 1' AND c = VALUE"


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("SELECT a FROM (SELECT a FROM t order by a)", True),
        ("SELECT 'Order by'", True),
        ("SELECT a FROM t ORDER  BY a", False),
        ("SELECT a FROM t", False),
    ],
)
def test_order_counts_where_the_text_says_order_by(sql: str, ordered: bool) -> None:
    assert is_ordered(sql) is ordered


PIECES = st.lists(
    st.sampled_from(
        "select distinct DISTINCT distinct( (distinct) t.distinct distinctx xdistinct 1e5distinct 0xdistinct GO CATEGO ; , ' \" ` \\ [ ] "
        "'a' 'distinct' 'it''s' \"b\" \"distinct;\" `distinct` [distinct] -- - /* */ / # #distinct @distinct :distinct $distinct$ % %s "
        "%(distinct)s with' time zone é = > . 1 2.5 begin end case \n \t".split(" ")
    ),
    max_size=8,
)


@given(PIECES, st.sampled_from(["", " "]))
def test_the_short_way_gives_what_sqlparse_gives(pieces: list[str], glue: str) -> None:
    sql = glue.join(pieces)
    assert official._without_distinct(sql) == official._lexed_without_distinct(sql)


def test_a_typical_query_needs_no_sqlparse() -> None:
    code = (
        "import sys; from text2sql.sql.official import gold_text, prediction_text\n"
        "gold_text('SELECT a FROM t WHERE b > = 3;', keep_distinct=False)\n"
        "prediction_text('SELECT count(DISTINCT a) FROM t WHERE b = \"value; -- [c]\"', keep_distinct=False)\n"
        "print('sqlparse' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("unit", "stays"),
    [("(", False), ("1", False), ("'", True), ('"', True), ("[", True), ("--", True), ("$a$", True), ("/*", True)],
)
def test_a_long_text_keeps_distinct_where_only_sqlparse_could_tell(unit: str, stays: bool) -> None:
    text = unit * (100_001 // len(unit))
    assert prediction_text(f"{text} distinct", keep_distinct=False) == f"{text} {'distinct' if stays else ''}"


# Plugging in values


def plug(gold: str, prediction: str) -> list[str]:
    return list(islice(plugged(gold, prediction, keep_distinct=False), 100))


def test_values_of_the_gold_are_put_in_all_places_of_the_prediction() -> None:
    gold = "SELECT a FROM t WHERE b = 'X' AND c > 2.5 AND d = 7"
    assert plug(gold, "SELECT A FROM t WHERE c < 1") == [
        "select a from t where c < 'X'",
        "select a from t where c < 2.5",
        "select a from t where c < 7",
    ]


def test_two_places_are_filled_in_sorted_order_the_first_slowest() -> None:
    gold = "SELECT a FROM t WHERE b = 2 AND b = 1 AND b = 2"
    filled = ["1 and d = 1", "1 and d = 2", "2 and d = 1", "2 and d = 2"]
    assert plug(gold, "SELECT a FROM t WHERE c = 'x' AND d = 'y'") == [
        f"select a from t where c = {end}" for end in filled
    ]


def test_a_value_stands_in_every_place_where_its_text_stood() -> None:
    assert plug("SELECT a FROM t WHERE b = 'y'", "SELECT DISTINCT a FROM t AS T1 WHERE T1.b = value LIMIT 1;") == [
        "select a from t as t1 where t1 . b = 'y' limit 'y'"
    ]


def test_a_gold_without_values_leaves_nothing_to_plug_in() -> None:
    assert plug("SELECT a FROM t", "SELECT a FROM t WHERE b = 1") == []


def test_a_prediction_without_places_comes_once() -> None:
    assert plug("SELECT a FROM t WHERE b = 1 AND c = 2", "SELECT T1.* FROM t AS T1") == ["select t1 . * from t as t1"]


def test_this_year_is_no_value_but_is_filled_in() -> None:
    gold = "SELECT a FROM t WHERE b = 1 AND c = YEAR(CURDATE())"
    assert plug(gold, "SELECT a FROM t WHERE c = YEAR(CURDATE()) AND b = 3") == [
        "select a from t where c = 2020and b = 1"
    ]


def test_there_may_be_more_ways_than_could_be_listed() -> None:
    gold = "SELECT a FROM t WHERE " + " AND ".join(f"b = {number}" for number in range(10, 60))
    ways = plugged(gold, gold, keep_distinct=False)
    assert next(ways) == "select a from t where " + " and ".join(["b = 10"] * 50)


def test_nothing_is_plugged_into_an_endless_text() -> None:
    prediction = "SELECT a FROM t WHERE b = 1" + " OR b = 1" * MAX_LENGTH
    assert plug("SELECT a FROM t WHERE b = 1", prediction) == []


@pytest.mark.parametrize("space", ["\u00a0", "\u3000", "\x0b", "\x1c", " \t"])
def test_space_of_any_kind_around_a_query_is_taken_off(space: str) -> None:
    assert prediction_text(f"{space}SELECT a FROM t{space}", keep_distinct=True) == "SELECT a FROM t"
    assert gold_text(f"{space}SELECT DISTINCT a FROM t{space}", keep_distinct=False) == "SELECT  a FROM t"
