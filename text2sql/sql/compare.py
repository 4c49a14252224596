"""Decide whether two query results say the same thing, and say in words what differs.

The rule is the execution match of Zhong et al. 2020 ("Semantic Evaluation for Text-to-SQL with Distilled Test
Suites"): equal rows as multisets, or as sequences where order matters, for some permutation of the columns. Column
names do not count.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence

RELATIVE_TOLERANCE = 1e-9
SEARCH_BUDGET = 10_000_000
"""How many cells the search over column permutations may look at: some seconds; most results need no search."""

# Names in quotes, strings and comments hide what is in them; brackets open a nesting level.
_LEXEMES = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\] | --[^\n]* | /\*.*?(?:\*/|$)
    | (?P<open>\() | (?P<close>\)) | (?P<word>\w+)""",
    re.VERBOSE | re.DOTALL,
)

Columns = list[tuple[int, ...]]


def is_ordered(sql: str) -> bool:
    """Whether the outermost query has an ORDER BY, so that the order of its rows is part of the answer.

    SQLite allows no brackets around a whole query, so the outermost ORDER BY is the one outside of all brackets: those
    of subqueries, common table expressions, windows and aggregates are inside. Reading words and brackets decides this
    for any text, also for SQL that a parser of several dialects would refuse.
    """
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
    significant digits, and an integer when it is within 1e-9 of it (relatively). NULL equals only NULL, and text,
    bytes and numbers never equal each other. Two results without rows are equal: they carry no columns to compare.
    """
    if gold and predicted and len(gold[0]) != len(predicted[0]):
        return False, f"{_count(len(predicted[0]), 'column')} instead of {len(gold[0])}"
    if len(gold) != len(predicted):
        return False, f"{_count(len(predicted), 'row')} instead of {len(gold)}"
    numbers: dict[Hashable, int] = {}
    gold_columns, predicted_columns = _numbered(gold, numbers), _numbered(predicted, numbers)
    if ordered and Counter(gold_columns) == Counter(predicted_columns):
        return True, ""
    equal, reason = _same_rows(gold_columns, predicted_columns)
    if equal and ordered:
        return False, "right rows in another order"
    return equal, reason


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _key(value: object) -> Hashable:
    """A value that is equal, in Python's sense, for all values that count as the same."""
    if not isinstance(value, float) or not math.isfinite(value):
        return value
    nearest = round(value)
    if abs(value - nearest) <= min(RELATIVE_TOLERANCE * abs(value), 1e-3) and abs(value) < 2**53:
        return nearest
    return float(f"{value:.10g}")


def _numbered(rows: Sequence[tuple], numbers: dict[Hashable, int]) -> Columns:
    """The columns of the rows, each value replaced by its number in `numbers`, which grows."""
    return [tuple(numbers.setdefault(_key(value), len(numbers)) for value in column) for column in zip(*rows)]


def _same_rows(gold: Columns, predicted: Columns) -> tuple[bool, str]:
    """Whether some permutation of the predicted columns makes the rows equal as multisets."""
    if Counter(zip(*gold)) == Counter(zip(*predicted)):
        return True, ""
    coloured = _colour(gold, predicted)
    if coloured is None:
        return False, "same size, other values"
    return _search(gold, predicted, *coloured)


def _colour(gold: Columns, predicted: Columns) -> tuple[list[list[int]], list[list[int]]] | None:
    """Colour columns by the coloured values they hold and rows likewise, in turns, until no colour splits any more.

    Rows and columns that any permutation could bring together have one colour. Returns the colours of the columns and
    of the rows, each for (gold, predicted), or None when no permutation can make the two equal.
    """
    tables = (gold, predicted)
    width = 1 + max(max(column) for table in tables for column in table)
    rows = [[0] * len(gold[0]), [0] * len(gold[0])]
    num_colours = 0
    while True:
        names: dict[tuple[int, ...], int] = {}
        columns = [[_name(names, colours, column, width) for column in table] for table, colours in zip(tables, rows)]
        if Counter(columns[0]) != Counter(columns[1]):
            return None
        if len(names) == num_colours:
            return columns, rows
        num_colours, names = len(names), {}
        rows = [[_name(names, colours, row, width) for row in zip(*table)] for table, colours in zip(tables, columns)]
        if Counter(rows[0]) != Counter(rows[1]):
            return None


def _name(names: dict[tuple[int, ...], int], colours: list[int], values: Sequence[int], width: int) -> int:
    """The number of a multiset of coloured values."""
    key = tuple(sorted(colour * width + value for colour, value in zip(colours, values)))
    return names.setdefault(key, len(names))


def _search(gold: Columns, predicted: Columns, columns: list[list[int]], rows: list[list[int]]) -> tuple[bool, str]:
    """Pair up columns of one colour, going back where the rows so far differ (a stack: results can be wide)."""
    class_size = Counter(columns[0])
    order = sorted(range(len(gold)), key=lambda index: (class_size[columns[0][index]], columns[0][index]))
    used: list[int] = []
    stack = [_candidates(order[0], predicted, columns, used)]
    rows_so_far = [rows]
    for _ in range(SEARCH_BUDGET // len(gold[0])):
        candidate = next(stack[-1], None)
        if candidate is None:
            stack.pop()
            if not stack:
                return False, "same size, other values"
            rows_so_far.pop()
            used.pop()
            continue
        extended = _extend(rows_so_far[-1], gold[order[len(used)]], predicted[candidate])
        if extended is None:
            continue
        used.append(candidate)
        if len(used) == len(gold):
            return True, ""
        rows_so_far.append(extended)
        stack.append(_candidates(order[len(used)], predicted, columns, used))
    return False, "columns too much alike to decide: no match found within the search budget"


def _candidates(index: int, predicted: Columns, columns: list[list[int]], used: list[int]) -> Iterator[int]:
    """Free predicted columns of the colour of gold column `index`, the one at the same place first, equal ones once."""
    taken, tried = set(used), set()
    for candidate in sorted(range(len(predicted)), key=lambda other: other != index):
        if columns[1][candidate] == columns[0][index] and candidate not in taken and predicted[candidate] not in tried:
            tried.add(predicted[candidate])
            yield candidate


def _extend(rows: list[list[int]], gold: tuple[int, ...], predicted: tuple[int, ...]) -> list[list[int]] | None:
    """Rows numbered by what they hold once this pair of columns is added, or None when the two sides then differ."""
    names: dict[tuple[int, int], int] = {}
    left = [names.setdefault(pair, len(names)) for pair in zip(rows[0], gold)]
    right = [names.setdefault(pair, len(names)) for pair in zip(rows[1], predicted)]
    return [left, right] if Counter(left) == Counter(right) else None
