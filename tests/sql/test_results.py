"""A digest is the same for results that compare as equal, and another for those that do not."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2sql.sql.compare import same_result
from text2sql.sql.results import digest

VALUES = st.one_of(
    st.none(), st.integers(-3, 3), st.sampled_from([0.5, 1.0, 1 / 3, 2.0]), st.sampled_from(["a", "1", ""])
)
TABLES = st.integers(1, 3).flatmap(lambda width: st.lists(st.tuples(*[VALUES] * width), max_size=5))


def of(rows, ordered=False):
    return digest(rows, len(rows[0]) if rows else 1, ordered=ordered)


SAME = [
    ([(1, "a"), (2, "b")], [(2, "b"), (1, "a")]),
    ([(1, "a"), (2, "b")], [("a", 1), ("b", 2)]),
    ([(1,)], [(1.0,)]),
    ([(1 / 3,)], [(1 / 3 + 1e-14,)]),
    ([(0.1 + 0.2,)], [(0.3,)]),
    ([("\udcff",)], [("\udcff",)]),
    ([(b"a", None)], [(None, b"a")]),
]
OTHER = [
    ([(1,)], [("1",)]),
    ([("a",)], [(b"a",)]),
    ([(1,)], [(1,), (1,)]),
    ([(None,)], [("",)]),
    ([(None,)], [("None",)]),
    ([(1, 2), (3, 4)], [(1, 4), (3, 2)]),
    ([("a", "bc")], [("ab", "c")]),
    ([(2**60,)], [(2**60 + 1,)]),
    ([], [(None,)]),
]


@pytest.mark.parametrize(("left", "right"), SAME)
def test_equal_results_have_one_digest(left, right):
    assert same_result(left, right, ordered=False)[0]
    assert of(left) == of(right)


@pytest.mark.parametrize(("left", "right"), OTHER)
def test_other_results_have_other_digests(left, right):
    assert not same_result(left, right, ordered=False)[0]
    assert of(left) != of(right)


def test_order_counts_where_it_is_asked_for_and_there_is_any():
    up, down = [(1,), (2,)], [(2,), (1,)]
    assert of(up, ordered=True) != of(down, ordered=True)
    assert of(up, ordered=True) != of(up)
    assert of([(1,)], ordered=True) == of([(1,)])


def test_empty_results_are_told_apart_by_their_width():
    assert digest([], 1, ordered=False) != digest([], 2, ordered=False)


@given(TABLES, st.randoms(use_true_random=False))
def test_rows_and_columns_may_stand_in_any_order_where_columns_differ_in_what_they_hold(rows, rng):
    columns = list(zip(*rows))
    if len({tuple(sorted(map(repr, column))) for column in columns}) < len(columns):
        return
    rng.shuffle(columns)
    shuffled = list(zip(*columns))
    rng.shuffle(shuffled)
    assert of(shuffled) == of(rows)


@given(TABLES, TABLES)
def test_one_digest_means_equal_results(left, right):
    if of(left) == of(right):
        assert same_result(left, right, ordered=False)[0]


def test_another_process_finds_the_same_digest():
    code = "from text2sql.sql.results import digest; print(digest([(1, 'a')], 2, ordered=False))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == digest([(1, "a")], 2, ordered=False)
