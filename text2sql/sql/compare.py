"""Decide whether two query results say the same thing, and say in words what differs.

The rule is the execution match of Zhong et al. 2020 ("Semantic Evaluation for Text-to-SQL with Distilled Test
Suites"): equal rows as multisets, or as sequences where order matters, for some permutation of the columns. Column
names do not count. Where trying a few permutations is not enough, `text2sql.sql.permutation` searches.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import chain, islice, permutations, product

RELATIVE_TOLERANCE = 1e-9
SEARCH_BUDGET = 80_000_000
"""How many cells the search for a permutation may look at: one or two seconds. Most results need no search."""

FEW_PERMUTATIONS = 24
"""So many are tried one after the other, which takes less time than to prepare a search."""

UNDECIDED = "columns too much alike to decide: no match found within the search budget"
OTHER_VALUES = "same size, other values"

# Names in quotes, strings and comments hide what is in them; brackets open a nesting level.
_LEXEMES = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\] | --[^\n]* | /\*.*?(?:\*/|$)
    | (?P<open>\() | (?P<close>\)) | (?P<word>\w+)""",
    re.VERBOSE | re.DOTALL,
)

Columns = list[tuple]


def is_ordered(sql: str) -> bool:
    """Whether the outermost query has an ORDER BY, so that the order of its rows is part of the answer.

    SQLite allows no brackets around a whole query, so the outermost ORDER BY is the one outside of all brackets: those
    of subqueries, common table expressions, windows and aggregates are inside. Reading words and brackets decides this
    for any text, also for SQL that a parser of several dialects would refuse.
    """
    if "order" not in sql.lower():
        return False
    depth, previous = 0, ""
    for lexeme in _LEXEMES.finditer(sql):
        if lexeme["open"] or lexeme["close"]:
            depth += 1 if lexeme["open"] else -1
        elif lexeme["word"] and depth == 0:
            word = lexeme["word"].upper()
            if (previous, word) == ("ORDER", "BY"):
                return True
            previous = word
    return False


def same_result(gold: Sequence[tuple], predicted: Sequence[tuple], *, ordered: bool) -> tuple[bool, str]:
    """Compare two lists of rows; returns (whether they are equal, why not in words or "").

    Integers are equal when they are identical; a number with a fraction equals another when both round to the same ten
    significant digits, and an integer below 2**53 when it is within 1e-9 of it (relatively, and within 0.001). NULL
    equals only NULL, and text, bytes and numbers never equal each other. What is equal without any rounding is equal.
    Two results without rows are equal: rows alone do not tell how many columns an empty result has, so a caller to whom
    that matters compares the columns first. Where SEARCH_BUDGET ends before there is an answer the results count as
    different, and the reason is UNDECIDED.
    """
    if reason := _other_shape(gold, predicted):
        return False, reason
    gold_columns, predicted_columns = list(zip(*gold)), list(zip(*predicted))
    equal, reason = _same_columns(gold_columns, predicted_columns, ordered=ordered)
    if equal or float not in map(type, chain(*gold_columns, *predicted_columns)):
        return equal, reason
    gold_columns, predicted_columns = (list(map(_rounded, columns)) for columns in (gold_columns, predicted_columns))
    return _same_columns(gold_columns, predicted_columns, ordered=ordered)


def same_result_official(gold: Sequence[tuple], predicted: Sequence[tuple], *, ordered: bool) -> tuple[bool, str]:
    """Compare as the official evaluator does (result_eq in exec_eval.py of github.com/taoyds/test-suite-sql-eval).

    Returns (its verdict, why not in words or ""). Numbers are equal as in Python: 1 and 1.0 are, and two that differ in
    the last digit are not. Beyond that, rows must be equal when each is sorted by the text of its values, which puts 10
    before 1 but 1.0 before 10: where one result has integers and the other fractions, some that are equal in all values
    count as different. Where SEARCH_BUDGET ends before there is an answer, for which the official evaluator would take hours or
    years, the verdict is False and the reason UNDECIDED.
    """
    if reason := _other_shape(gold, predicted):
        return False, reason
    equal, reason = _same_columns(list(zip(*gold)), list(zip(*predicted)), ordered=ordered)
    if equal and not _same_as_sorted_rows(gold, predicted, ordered=ordered):
        return False, "equal values, but sorted by their text they differ (1.0 sorts elsewhere than 1)"
    return equal, reason


def _other_shape(gold: Sequence[tuple], predicted: Sequence[tuple]) -> str:
    if gold and predicted and len(gold[0]) != len(predicted[0]):
        return f"{_amount(len(predicted[0]), 'column')} instead of {len(gold[0])}"
    if len(gold) != len(predicted):
        return f"{_amount(len(predicted), 'row')} instead of {len(gold)}"
    return ""


def _amount(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _rounded(column: tuple) -> tuple:
    """The column with equal values, in Python's sense, wherever values count as the same."""
    return tuple(map(rounded_value, column)) if float in map(type, column) else column


def rounded_value(value: object) -> Hashable:
    """What a cell is compared by: the integer that a float is next to, or its first ten digits; all else as it is."""
    if not isinstance(value, float) or not math.isfinite(value):
        return value
    distance = abs(value - round(value))
    if distance <= 1e-3 and distance <= RELATIVE_TOLERANCE * abs(value) and abs(value) < 2**53:
        return round(value)
    return float(f"{value:.10g}")


def _same_as_sorted_rows(gold: Sequence[tuple], predicted: Sequence[tuple], *, ordered: bool) -> bool:
    """Whether results that are equal for some order of columns are so too when each row is sorted by text and type."""
    cells = [*chain(*gold, *predicted)]
    if float not in map(type, cells):
        return True
    floats = [cell for cell in cells if isinstance(cell, float)]
    zeros = {str(cell) for cell in floats if not cell}
    if len(zeros) < 2 and set(floats).isdisjoint(cell for cell in cells if isinstance(cell, int)):
        return True  # equal values have one text and type, unlike 1 and 1.0, or 0.0 and -0.0
    left, right = ([tuple(sorted(row, key=_text_and_type)) for row in rows] for rows in (gold, predicted))
    return left == right if ordered else set(left) == set(right)


def _text_and_type(value: object) -> str:
    return f"{value}{type(value)}"


def _same_columns(gold: Columns, predicted: Columns, *, ordered: bool) -> tuple[bool, str]:
    """Compare results of one shape, given as columns; values count as the same that are equal in Python's sense."""
    if gold == predicted or (ordered and Counter(gold) == Counter(predicted)):
        return True, ""
    equal = _same_rows(gold, predicted)
    if not ordered:
        return equal is True, {True: "", False: OTHER_VALUES, None: UNDECIDED}[equal]
    return False, {True: "right rows in another order", False: OTHER_VALUES, None: f"{OTHER_VALUES} or order"}[equal]


def _same_rows(gold: Columns, predicted: Columns) -> bool | None:
    """Whether some permutation of the columns makes the rows equal as multisets; None when the budget ends before."""
    contents = [[sum(map(hash, column)) for column in side] for side in (gold, predicted)]
    if sorted(contents[0]) != sorted(contents[1]):
        return False
    rows = Counter(zip(*gold))
    if _holds(rows, predicted):
        return True
    alike: defaultdict[int, Columns] = defaultdict(list)
    for content, column in zip(contents[1], predicted):
        alike[content].append(column)
    if math.prod(math.factorial(len(columns)) for columns in alike.values()) <= FEW_PERMUTATIONS:
        return any(_holds(rows, columns) for columns in _permuted(alike, contents[0]))
    from text2sql.sql.permutation import BudgetSpent, Search, tables  # rarely needed, and not needed to start a process

    try:
        return Search(*tables(gold, predicted), SEARCH_BUDGET).run()
    except BudgetSpent:
        return None


def _holds(rows: Counter[tuple], columns: Columns) -> bool:
    """Whether columns make up these rows; most wrong permutations show in the first few."""
    return all(map(rows.__contains__, islice(zip(*columns), 64))) and dict.__eq__(rows, Counter(zip(*columns)))


def _permuted(alike: Mapping[int, Columns], contents: list[int]) -> Iterator[Columns]:
    """All ways of laying out the columns, given by what they contain, so that these contents follow each other."""
    for groups in product(*map(permutations, alike.values())):
        free = dict(zip(alike, map(iter, groups)))
        yield [next(free[content]) for content in contents]
