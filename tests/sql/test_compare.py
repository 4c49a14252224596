"""Results are equal as multisets of rows, under some permutation of the columns."""

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text2sql.sql import compare, permutation
from text2sql.sql.compare import UNDECIDED, is_ordered, same_result, same_result_official

FAST = settings(max_examples=40)
BOTH_RULES = pytest.mark.parametrize("same", [same_result, same_result_official])
CELLS = st.none() | st.integers(0, 2) | st.sampled_from([0.5, 1.0, 10, 10.0, "1", "x", "", b"x", 10**12, float("inf")])


@st.composite
def tables(draw, min_rows=0, cells=CELLS):
    width = draw(st.integers(1, 4))
    return draw(st.lists(st.tuples(*[cells] * width), min_size=min_rows, max_size=6))


@st.composite
def like_tables(draw, cells=CELLS):
    """Two tables of one shape, the second often made from the first: rearranged, with a cell or two changed."""
    width, height = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    table = st.lists(st.tuples(*[cells] * width), min_size=height, max_size=height)
    gold = draw(table)
    if draw(st.booleans()):
        return gold, draw(table)
    other = rearranged(gold, draw(st.permutations(range(width))), draw(st.permutations(range(height))))
    for _ in range(draw(st.integers(0, 2))):
        other = with_cell(other, draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1)), draw(cells))
    return gold, other


def rearranged(rows, columns, order):
    return [tuple(rows[row][column] for column in columns) for row in order]


def shuffled(rows, chance, keep_order=False):
    columns, order = list(range(len(rows[0]) if rows else 0)), list(range(len(rows)))
    chance.shuffle(columns)
    if not keep_order:
        chance.shuffle(order)
    return rearranged(rows, columns, order)


def with_cell(rows, row, column, value):
    changed = [list(other) for other in rows]
    changed[row][column] = value
    return [tuple(other) for other in changed]


def by_trying_all(gold, predicted, ordered):
    """The rule in its plainest form: some permutation of the columns makes the rows equal."""
    if len(gold) != len(predicted) or (gold and len(gold[0]) != len(predicted[0])):
        return False
    laid_out = (
        [tuple(row[place] for place in places) for row in predicted]
        for places in itertools.permutations(range(len(gold[0]) if gold else 0))
    )
    return any(rows == list(gold) if ordered else Counter(rows) == Counter(gold) for rows in laid_out)


def by_the_official_rule(gold, predicted, ordered):
    """Trying all, and each row sorted by the text of its values with their type gives equal rows as well."""

    def in_rows(rows):
        return [tuple(sorted(row, key=lambda value: str(value) + str(type(value)))) for row in rows]

    left, right = in_rows(gold), in_rows(predicted)
    return by_trying_all(gold, predicted, ordered) and (left == right if ordered else set(left) == set(right))


@BOTH_RULES
@FAST
@given(rows=tables(), chance=st.randoms(use_true_random=False))
def test_rows_and_columns_may_be_permuted_when_order_does_not_matter(same, rows, chance):
    assert same(rows, shuffled(rows, chance), ordered=False) == (True, "")


@BOTH_RULES
@FAST
@given(rows=tables(), chance=st.randoms(use_true_random=False))
def test_columns_may_be_permuted_when_order_matters(same, rows, chance):
    assert same(rows, shuffled(rows, chance, keep_order=True), ordered=True) == (True, "")


@BOTH_RULES
@FAST
@given(pair=like_tables(), chance=st.randoms(use_true_random=False), ordered=st.booleans())
def test_permuting_the_columns_of_either_side_changes_no_verdict(same, pair, chance, ordered):
    gold, predicted = pair
    expected = same(gold, predicted, ordered=ordered)
    assert same(shuffled(gold, chance, keep_order=True), predicted, ordered=ordered) == expected
    assert same(gold, shuffled(predicted, chance, keep_order=True), ordered=ordered) == expected


@BOTH_RULES
@FAST
@given(pair=like_tables(), chance=st.randoms(use_true_random=False))
def test_shuffling_rows_changes_no_verdict_when_order_does_not_matter(same, pair, chance):
    gold, predicted = pair
    assert same(gold, shuffled(predicted, chance), ordered=False) == same(gold, predicted, ordered=False)


@BOTH_RULES
@FAST
@given(rows=tables(min_rows=1), data=st.data(), ordered=st.booleans())
def test_one_changed_cell_breaks_equality(same, rows, data, ordered):
    row, column = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, len(rows[0]) - 1))
    changed = with_cell(rows, row, column, "elsewhere unseen")
    assert same(rows, changed, ordered=ordered) == (False, "same size, other values")


@BOTH_RULES
@FAST
@given(left=tables(), right=tables(), pair=like_tables(), ordered=st.booleans())
def test_equality_is_symmetric(same, left, right, pair, ordered):
    assert same(left, right, ordered=ordered)[0] == same(right, left, ordered=ordered)[0]
    assert same(*pair, ordered=ordered)[0] == same(*reversed(pair), ordered=ordered)[0]


@BOTH_RULES
@FAST
@given(
    rows=tables(
        cells=st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3) | st.binary(max_size=3)
    ),
    other=tables(cells=CELLS),
    ordered=st.booleans(),
)
def test_any_values_compare_and_a_result_equals_itself(same, rows, other, ordered):
    assert same(rows, list(rows), ordered=ordered) == (True, "")
    equal, reason = same(rows, other, ordered=ordered)
    assert equal is (reason == "")


@settings(max_examples=150)
@given(pair=like_tables(cells=st.integers(0, 1)), ordered=st.booleans(), few=st.sampled_from([0, 24]))
def test_strict_comparison_agrees_with_trying_every_permutation(pair, ordered, few):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "FEW_PERMUTATIONS", few)
        assert same_result(*pair, ordered=ordered)[0] == by_trying_all(*pair, ordered)


OFFICIAL_CELLS = st.sampled_from(
    [0, 1, 1.0, 2, 10, 1.5, "1", "1.0", "a", "", None, b"a", 10.0, 100, "1!", -1, 0.0, -0.0]
)


@settings(max_examples=300)
@given(pair=like_tables(cells=OFFICIAL_CELLS), ordered=st.booleans(), few=st.sampled_from([0, 24]))
def test_official_comparison_agrees_with_its_rule_in_plain_form(pair, ordered, few):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "FEW_PERMUTATIONS", few)
        assert same_result_official(*pair, ordered=ordered)[0] == by_the_official_rule(*pair, ordered)


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
        ([(1, 1, 2)], [(1, 2, 2)], "same size, other values"),
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
        (123456789, 123456789.06, False),
        (2**53, float(2**53), True),
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


@FAST
@given(pair=like_tables(), ordered=st.booleans())
def test_what_the_official_rule_finds_equal_is_equal(pair, ordered):
    assert same_result(*pair, ordered=ordered)[0] or not same_result_official(*pair, ordered=ordered)[0]


@BOTH_RULES
def test_empty_results_are_equal(same):
    assert same([], [], ordered=True) == (True, "")


@BOTH_RULES
def test_results_without_columns_differ_in_the_number_of_rows_only(same):
    assert same([(), ()], [(), ()], ordered=False) == (True, "")
    assert same([(), ()], [()], ordered=False) == (False, "1 row instead of 2")


# What result_eq of the official evaluator answers: (gold, predicted, when order matters, when it does not).
OFFICIAL = [
    ([(1,)], [(1.0,)], True, True),
    ([(0.1 + 0.2,)], [(0.3,)], False, False),
    ([(10**30,)], [(1e30,)], False, False),
    ([(2**53 + 1,)], [(float(2**53),)], False, False),
    ([(2**53,)], [(float(2**53),)], True, True),
    ([(10**400, 1)], [(1, 10**400)], True, True),
    ([(10**400,)], [(float("inf"),)], False, False),
    ([(float("inf"), None)], [(None, float("inf"))], True, True),
    ([("1",)], [(1,)], False, False),
    ([(None,)], [("None",)], False, False),
    ([("a",)], [(b"a",)], False, False),
    ([()], [()], True, True),
    ([], [(1,)], False, False),
    ([(1, 2), (1, 2)], [(2, 1), (1, 2)], False, False),
    ([(1, 2), (3, 4)], [(4, 3), (2, 1)], False, True),
    # 1 as text is after 10 and 2 is, but so is 2.0, where 1.0 is before: '1.0<' < '10<' < '1<' < '2.' < '2<'.
    ([(1, 10)], [(1.0, 10)], False, False),
    ([(1, 10)], [(10, 1.0)], False, False),
    ([(2, 10)], [(2.0, 10)], True, True),
    ([(1, "1!")], [(1.0, "1!")], True, True),
    ([(1.0, 1)], [(1, 1.0)], True, True),
    ([(0.0, -5)], [(-0.0, -5)], False, False),
    # As a set of sorted rows these are equal, as a list they are not.
    ([(1, 10), (1.0, 10)], [(1.0, 10), (1, 10)], False, True),
    ([(1, 10), (1, 10), (1.0, 10)], [(1, 10), (1.0, 10), (1.0, 10)], False, True),
]


@pytest.mark.parametrize(("gold", "predicted", "when_ordered", "when_not"), OFFICIAL)
def test_official_comparison_has_the_official_verdict(gold, predicted, when_ordered, when_not):
    assert same_result_official(gold, predicted, ordered=True)[0] is when_ordered
    assert same_result_official(gold, predicted, ordered=False)[0] is when_not


def test_official_comparison_says_when_only_the_sorting_differs():
    equal, reason = same_result_official([(1, 10)], [(1.0, 10)], ordered=False)
    assert not equal
    assert reason.startswith("equal values")


# Tables of 0 and 1 that look alike from every row and column


def random_table(height, width, seed=0):
    chance = random.Random(seed)
    return [tuple(chance.randint(0, 1) for _ in range(width)) for _ in range(height)]


def balanced(height, width):
    chance = random.Random(0)
    return list(zip(*(chance.sample([0, 1] * (height // 2), height) for _ in range(width))))


def incidence(width, blocks):
    """One row per block, with a 1 in the columns it names."""
    return [tuple(int(place in block) for place in range(width)) for block in blocks]


def cyclic(width, *blocks):
    """All rotations of the blocks."""
    return incidence(width, [{(place + turn) % width for place in block} for block in blocks for turn in range(width)])


def rings(*sizes):
    """The edges of rings: each row holds a 1 in the columns of its two ends."""
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    edges = [(start, place, size) for start, size in zip(starts, sizes) for place in range(size)]
    return incidence(sum(sizes), [{start + place, start + (place + 1) % size} for start, place, size in edges])


def grid_graph(*steps):
    """The edges between cells of a 4 by 4 torus that are one of these steps apart."""
    cells = list(itertools.product(range(4), repeat=2))
    ends = itertools.combinations(range(16), 2)
    apart = {pair: tuple((a - b) % 4 for a, b in zip(cells[pair[0]], cells[pair[1]])) for pair in ends}
    return incidence(16, [set(pair) for pair, step in apart.items() if step in steps])


ROOK = grid_graph(*[(0, step) for step in (1, 2, 3)], *[(step, 0) for step in (1, 2, 3)])
SHRIKHANDE = grid_graph((0, 1), (0, 3), (1, 0), (3, 0), (1, 1), (3, 3))


# Triples in which any two of 15 points meet once: the lines of a projective space, and the same with four exchanged.
LINES = {frozenset({one, other, (one + 1 ^ other + 1) - 1}) for one, other in itertools.combinations(range(15), 2)}
EXCHANGED = [{0, 1, 2}, {0, 3, 4}, {5, 1, 3}, {5, 2, 4}], [{5, 1, 2}, {5, 3, 4}, {0, 1, 3}, {0, 2, 4}]
LINES_SWITCHED = [line for line in LINES if line not in EXCHANGED[0]] + EXCHANGED[1]


def repeated(rows, height=1000):
    return (rows * (height // len(rows) + 1))[: height // len(rows) * len(rows)]


def with_two_swapped(rows, seed=0):
    """Two rows that are (1, 0) and (0, 1) in two columns become (0, 1) and (1, 0): no sum of a row or column changes."""
    chance, changed = random.Random(seed), [list(row) for row in rows]
    while True:
        (one, other), (left, right) = chance.sample(range(len(rows)), 2), chance.sample(range(len(rows[0])), 2)
        if rows[one][left] == rows[other][right] != rows[one][right] == rows[other][left]:
            for row in (changed[one], changed[other]):
                row[left], row[right] = row[right], row[left]
            return [tuple(row) for row in changed]


ALIKE = {
    "random": random_table(1000, 30),
    "ten columns": random_table(1000, 10),
    "as many ones as zeros": balanced(1000, 30),
    "circulant": repeated(cyclic(30, {0, 1, 4})),
    "cyclic design": cyclic(30, *[set(random.Random(seed).sample(range(30), 5)) for seed in range(33)]),
    "quadratic residues": repeated(cyclic(31, {place * place % 31 for place in range(1, 31)})),
    "all pairs": incidence(30, [set(pair) for pair in itertools.combinations(range(30), 2)]),
    "identity": repeated(incidence(30, [{place} for place in range(30)])),
    "rings": repeated(rings(6, 6, 6, 3, 3, 3, 3)),
    "Latin square": repeated([tuple((row + place) % 30 for place in range(30)) for row in range(30)]),
    "equal columns": [(row % 2,) * 30 for row in range(1000)],
}


@pytest.fixture
def short_search(monkeypatch):
    """A search of a few dozen rounds over 30 columns and 1000 rows, a fortieth of the usual budget."""
    monkeypatch.setattr(compare, "SEARCH_BUDGET", 2_000_000)


@pytest.mark.usefixtures("short_search")
@BOTH_RULES
@pytest.mark.parametrize("name", ALIKE)
def test_tables_that_look_alike_are_found_equal_after_few_steps(name, same):
    rows, chance = ALIKE[name], random.Random(1)
    assert same(rows, shuffled(rows, chance), ordered=False) == (True, "")
    assert same(rows, shuffled(rows, chance, keep_order=True), ordered=True) == (True, "")


@pytest.mark.usefixtures("short_search")
@pytest.mark.parametrize("name", [name for name in ALIKE if name != "equal columns"])
def test_a_changed_cell_is_noticed_in_tables_that_look_alike(name):
    rows = ALIKE[name]
    changed = shuffled(with_cell(rows, 7, 3, 1 - rows[7][3]), random.Random(1))
    assert same_result(rows, changed, ordered=False) == (False, "same size, other values")


@pytest.mark.parametrize("name", ["random", "ten columns", "as many ones as zeros", "circulant", "cyclic design"])
def test_two_swapped_cells_are_noticed_where_all_sums_agree(name):
    changed = shuffled(with_two_swapped(ALIKE[name]), random.Random(1))
    assert same_result(ALIKE[name], changed, ordered=False) == (False, "same size, other values")


@pytest.mark.usefixtures("short_search")
def test_tables_whose_projections_all_agree_are_told_apart():
    cube = list(itertools.product((0, 1), repeat=10))
    odd, even = [row for row in cube if sum(row) % 2], [row for row in cube if not sum(row) % 2]
    assert same_result(odd, even, ordered=False) == (False, "same size, other values")


@pytest.mark.parametrize(
    ("gold", "predicted"),
    [
        (rings(3, 3), rings(6)),
        (rings(4, 4, 4), rings(3, 3, 6)),
        (rings(6, 6, 6, 6, 3, 3), rings(6, 6, 6, 3, 3, 3, 3)),
        (ROOK, SHRIKHANDE),
        (incidence(15, LINES), incidence(15, LINES_SWITCHED)),
    ],
)
def test_tables_of_the_same_regularity_are_told_apart(gold, predicted):
    predicted = shuffled(predicted, random.Random(0))
    assert same_result(gold, predicted, ordered=False) == (False, "same size, other values")
    assert same_result(gold, shuffled(gold, random.Random(0)), ordered=False) == (True, "")
    assert same_result(predicted, shuffled(predicted, random.Random(0)), ordered=False) == (True, "")


def test_colours_that_coincide_by_chance_change_no_verdict(monkeypatch):
    full = permutation.crc32
    monkeypatch.setattr(permutation, "crc32", lambda *arguments: full(*arguments) & 0b111100)
    monkeypatch.setattr(compare, "FEW_PERMUTATIONS", 0)
    for seed in range(200):
        rows = random_table(5, 5, seed)
        other = (
            with_two_swapped(rows) if seed % 2 and len(set(rows)) == 5 and seed % 3 else random_table(5, 5, seed + 1)
        )
        for predicted in (shuffled(rows, random.Random(seed)), shuffled(other, random.Random(seed))):
            assert same_result(rows, predicted, ordered=False)[0] == by_trying_all(rows, predicted, ordered=False)


@pytest.mark.parametrize(
    ("gold", "predicted"),
    [
        (rings(3, 3), rings(6)),
        ([(0, 0, 1), (1, 1, 2), (2, 2, 0)], [(0, 1, 1), (1, 2, 2), (2, 0, 0)]),
        ([(0, 1), (0, 1), (1, 2), (2, 0)], [(0, 1), (1, 2), (1, 2), (2, 0)]),
    ],
)
def test_what_colours_suggest_is_checked_cell_by_cell(monkeypatch, gold, predicted):
    monkeypatch.setattr(compare, "FEW_PERMUTATIONS", 0)
    monkeypatch.setattr(permutation, "_recoloured", lambda colours, _: list(range(len(colours))))
    assert same_result(gold, predicted, ordered=False) == (False, "same size, other values")


def test_running_out_of_budget_is_a_mismatch_that_says_so(monkeypatch):
    monkeypatch.setattr(compare, "SEARCH_BUDGET", 24)
    assert same_result(rings(4, 4, 4), rings(3, 3, 6), ordered=False) == (False, UNDECIDED)
    assert "search budget" in UNDECIDED


def test_running_out_of_budget_leaves_an_ordered_comparison_decided(monkeypatch):
    monkeypatch.setattr(compare, "SEARCH_BUDGET", 24)
    rows = rings(4, 4, 4)
    assert same_result(rows, [rows[1], rows[0], *rows[2:]], ordered=True) == (False, "right rows in another order")
    assert same_result(rows, rings(3, 3, 6), ordered=True) == (False, "same size, other values or order")


def test_a_thousand_columns_compare():
    rows = random_table(20, 1000)
    assert same_result(rows, [row[::-1] for row in rows], ordered=False)[0]


def test_many_columns_with_few_rows_do_not_exhaust_the_stack():
    rows = rings(*[4] * 30)
    assert same_result(rows, shuffled(rows, random.Random(0)), ordered=False) == (True, "")


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
