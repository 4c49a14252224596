"""Results are equal as multisets of rows, under some permutation of the columns."""

import itertools
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text2sql.sql import compare
from text2sql.sql.compare import is_ordered, same_result

FAST = settings(max_examples=60, deadline=None)
CELLS = st.none() | st.integers(0, 2) | st.sampled_from([0.5, 1.0, "1", "x", b"x", 10**12])


@st.composite
def tables(draw, min_rows=0):
    width = draw(st.integers(1, 4))
    return draw(st.lists(st.tuples(*[CELLS] * width), min_size=min_rows, max_size=7))


def rearranged(rows, columns, order):
    return [tuple(rows[row][column] for column in columns) for row in order]


@FAST
@given(tables(), st.randoms(use_true_random=False))
def test_rows_and_columns_may_be_permuted_when_order_does_not_matter(rows, chance):
    columns, order = list(range(len(rows[0]) if rows else 0)), list(range(len(rows)))
    chance.shuffle(columns)
    chance.shuffle(order)
    assert same_result(rows, rearranged(rows, columns, order), ordered=False) == (True, "")


@FAST
@given(tables(), st.randoms(use_true_random=False))
def test_columns_may_be_permuted_when_order_matters(rows, chance):
    columns = list(range(len(rows[0]) if rows else 0))
    chance.shuffle(columns)
    assert same_result(rows, rearranged(rows, columns, range(len(rows))), ordered=True) == (True, "")


@FAST
@given(tables(min_rows=1), st.data())
def test_one_changed_cell_breaks_equality(rows, data):
    row, column = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, len(rows[0]) - 1))
    changed = [list(other) for other in rows]
    changed[row][column] = "elsewhere unseen"
    equal, reason = same_result(rows, [tuple(other) for other in changed], ordered=False)
    assert (equal, reason) == (False, "same size, other values")


@FAST
@given(tables(), tables(), st.booleans())
def test_equality_is_symmetric(left, right, ordered):
    assert same_result(left, right, ordered=ordered)[0] == same_result(right, left, ordered=ordered)[0]


@FAST
@given(
    st.integers(1, 4).flatmap(
        lambda width: st.tuples(*[st.lists(st.tuples(*[st.integers(0, 1)] * width), min_size=3, max_size=3)] * 2)
    )
)
def test_the_search_agrees_with_trying_every_permutation(pair):
    gold, predicted = pair
    columns = itertools.permutations(range(len(gold[0])))
    found = any(sorted(gold) == sorted(rearranged(predicted, order, range(3))) for order in columns)
    assert same_result(gold, predicted, ordered=False)[0] == found


@pytest.mark.parametrize(
    ("gold", "predicted", "reason"),
    [
        ([(1, 2, 3)], [(1, 2)], "2 columns instead of 3"),
        ([(1, 2)], [(1,)], "1 column instead of 2"),
        ([(1,)] * 4, [(1,)] * 5, "5 rows instead of 4"),
        ([(1,)] * 4, [], "0 rows instead of 4"),
        ([(1,), (2,)], [(1,), (1,)], "same size, other values"),
        ([(1, 2), (2, 1)], [(1, 1), (2, 2)], "same size, other values"),
        ([(1,), (2,)], [(2,), (1,)], "right rows in another order"),
    ],
)
def test_the_reason_says_what_differs(gold, predicted, reason):
    assert same_result(gold, predicted, ordered=True) == (False, reason)


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (3, 3.0, True),
        (0, -0.0, True),
        (0.1 + 0.2, 0.3, True),
        (3, 2.9999999999999996, True),
        (1 / 3, 0.3333333333, True),
        (12345678901, 12345678901.000002, True),
        (float("inf"), float("inf"), True),
        (float("inf"), float("-inf"), False),
        (0.3, 0.3000001, False),
        (10**15, 10**15 + 1, False),
        (2**53, 2**53 + 1, False),
        (0, None, False),
        ("", None, False),
        ("1", 1, False),
        ("a", b"a", False),
        ("a", "A", False),
    ],
)
def test_values_compare_by_type_and_numeric_value(left, right, equal):
    assert same_result([(left,)], [(right,)], ordered=False)[0] is equal


def test_empty_results_are_equal():
    assert same_result([], [], ordered=True) == (True, "")


def binary_table(num_rows, num_columns):
    chance = random.Random(0)
    return [tuple(chance.randint(0, 1) for _ in range(num_columns)) for _ in range(num_rows)]


@pytest.mark.parametrize("order", [range(10), random.Random(1).sample(range(10), 10)])
def test_ten_binary_columns_compare_at_once(order):
    rows = binary_table(1000, 10)
    started = time.process_time()
    assert same_result(rows, rearranged(rows, order, range(1000)), ordered=False)[0]
    assert time.process_time() - started < 1.0  # 0.01 to 0.06 s; trying every permutation takes minutes


def test_tables_whose_projections_all_agree_are_told_apart_at_once():
    cube = list(itertools.product((0, 1), repeat=10))
    odd, even = [row for row in cube if sum(row) % 2], [row for row in cube if not sum(row) % 2]
    started = time.process_time()
    assert same_result(odd, even, ordered=False) == (False, "same size, other values")
    assert time.process_time() - started < 1.0


def rings(*sizes):
    """The incidence matrix of rings: each row is an edge and holds a 1 in the columns of its two ends."""
    rows, start = [], 0
    for size in sizes:
        ends = [{start + place, start + (place + 1) % size} for place in range(size)]
        rows += [tuple(int(column in pair) for column in range(sum(sizes))) for pair in ends]
        start += size
    return rows


def test_tables_that_look_alike_from_every_row_and_column_are_told_apart():
    assert same_result(rings(3, 3), rings(6), ordered=False) == (False, "same size, other values")
    assert same_result(rings(6), [row[::-1] for row in rings(6)], ordered=False) == (True, "")


def test_running_out_of_budget_is_a_mismatch_that_says_so(monkeypatch):
    monkeypatch.setattr(compare, "SEARCH_BUDGET", 24)
    equal, reason = same_result(rings(4, 4, 4), rings(3, 3, 6), ordered=False)
    assert not equal
    assert "search budget" in reason


def test_a_thousand_columns_compare():
    rows = binary_table(20, 1000)
    assert same_result(rows, [row[::-1] for row in rows], ordered=False)[0]


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("select a from t order\n  by a limit 1", True),
        ("SELECT a FROM t ORDER /* so */ BY a", True),
        ("SELECT a FROM t UNION SELECT b FROM t ORDER BY 1", True),
        ("WITH x AS (SELECT 1) SELECT * FROM x ORDER BY 1", True),
        ("SELECT a FROM t", False),
        ("SELECT a FROM t WHERE a IN (SELECT a FROM t ORDER BY a LIMIT 3)", False),
        ("WITH x AS (SELECT a FROM t ORDER BY a) SELECT * FROM x", False),
        ("SELECT row_number() OVER (ORDER BY a) FROM t", False),
        ("SELECT 'ORDER BY a' FROM t", False),
        ("SELECT 'it''s ) ORDER BY a' FROM t", False),
        ('SELECT "order by", [order by], `order by` FROM t', False),
        ("SELECT a FROM t -- ORDER BY a", False),
        ("SELECT ')' FROM t WHERE a IN (SELECT ')' FROM t ORDER BY ')')", False),
        ("SELECT a AS order_by FROM t", False),
        ("", False),
    ],
)
def test_order_matters_where_the_outermost_query_orders(sql, ordered):
    assert is_ordered(sql) is ordered
