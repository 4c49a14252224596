"""Skeletons: what is the same query but for its values."""

import pytest

from text2sql.sql.skeleton import skeleton


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT name FROM pet WHERE age > 3", "select  NAME from PET where Age > 40 -- older"),
        ("SELECT a FROM t WHERE b = 'x'", "SELECT a FROM t WHERE b = 'it''s'"),
        ("SELECT a FROM t WHERE b = -1 LIMIT 5", "SELECT a FROM t WHERE b = 2.5 LIMIT 1"),
        ("SELECT a FROM t WHERE b IN (1, 2, -3)", "SELECT a FROM t WHERE b IN (9)"),
        ("SELECT x.a FROM t AS x JOIN u AS y ON x.i = y.i", "SELECT T1.a FROM t T1 JOIN u T2 ON T1.i = T2.i"),
        ('SELECT "a" FROM [t]', "SELECT a FROM `t`"),
    ],
)
def test_queries_that_differ_in_values_alone_have_one_skeleton(one, other):
    assert skeleton(one) == skeleton(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT a FROM t", "SELECT b FROM t"),
        ("SELECT a FROM t", "SELECT DISTINCT a FROM t"),
        ("SELECT a FROM t WHERE b > 1", "SELECT a FROM t WHERE b < 1"),
        ("SELECT a FROM t ORDER BY b", "SELECT a FROM t ORDER BY b DESC"),
        ("SELECT a FROM t WHERE b IN (1)", "SELECT a FROM t WHERE b = 1"),
    ],
)
def test_queries_that_ask_for_something_else_have_two(one, other):
    assert skeleton(one) != skeleton(other)


def test_text_that_does_not_parse_loses_its_values_all_the_same():
    assert skeleton("SELEC a WHERE ( 'x' 7") == skeleton("selec  a where ( 'yy' 8")
