"""Decide whether two query results say the same thing, and say in words what differs.

The rule is the execution match of Zhong et al. 2020 ("Semantic Evaluation for Text-to-SQL with Distilled Test
Suites"): equal rows as multisets, or as sequences where order matters, for some permutation of the columns. Column
names do not count. Finding the permutation is as hard as graph isomorphism and is done as there (McKay and Piperno
2014, "Practical graph isomorphism, II"): rows and columns are coloured by what they hold; where that is not enough one
column after the other is singled out, going back where this fails; and what is found is checked cell by cell.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, permutations, product, repeat
from operator import mul, rshift
from struct import Struct
from zlib import crc32

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
Colours = tuple[list[int], list[int]]
"""A number for every row and for every column; those that some permutation could bring together have the same one."""


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
    return tuple(map(_key, column)) if float in map(type, column) else column


def _key(value: object) -> Hashable:
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
    try:
        return _Search(*_tables(gold, predicted), SEARCH_BUDGET).run()
    except _BudgetSpent:
        return None


def _holds(rows: Counter[tuple], columns: Columns) -> bool:
    """Whether columns make up these rows; most wrong permutations show in the first few."""
    return all(map(rows.__contains__, islice(zip(*columns), 64))) and dict.__eq__(rows, Counter(zip(*columns)))


def _permuted(alike: Mapping[int, Columns], contents: list[int]) -> Iterator[Columns]:
    """All ways of laying out the columns, given by what they contain, so that these contents follow each other."""
    for groups in product(*map(permutations, alike.values())):
        free = dict(zip(alike, map(iter, groups)))
        yield [next(free[content]) for content in contents]


class _BudgetSpent(Exception):
    """The search has looked at SEARCH_BUDGET cells."""


class _Table:
    """A result without its repeated rows and columns, made for adding up weighted rows or columns.

    All of a column is one long integer in which each row has a field of 64 bits, and likewise with rows: to multiply
    and add such integers does so in all fields at once, some five times faster than a loop over cells. No sum overflows
    its field: weights (colours) are below 2**30, and cells below 2**34 divided by how many there are.
    """

    def __init__(self, columns: Columns, cells: Mapping[Hashable, bytes]) -> None:
        self.repeats = Counter(columns)
        self.rows = Counter(zip(*self.repeats))
        self.columns = list(zip(*self.rows))
        self.area = (len(self.rows) + 16) * (len(self.columns) + 16)
        self._packed_rows, self._packed_columns = (
            [int.from_bytes(b"".join(map(cells.__getitem__, line)), "little") for line in lines]
            for lines in (self.rows, self.columns)
        )
        self._row, self._column = Struct("8s" * len(self.columns)), Struct("8s" * len(self.rows))

    def uncoloured(self) -> Colours:
        """Colours that tell only how often rows and columns are repeated."""
        rows, columns = self.rows.values(), self.repeats.values()
        names = {number: _colour(number) for number in {*rows, *columns}}
        return [names[number] for number in rows], [names[number] for number in columns]

    def by_rows(self, colours: Colours) -> Colours:
        """Rows coloured anew by the coloured cells they hold."""
        sums = _weighted_sums(self._column, colours[1], self._packed_columns)
        return _recoloured(colours[0], sums), colours[1]

    def by_columns(self, colours: Colours) -> Colours:
        """Columns coloured anew by the coloured cells they hold."""
        sums = _weighted_sums(self._row, colours[0], self._packed_rows)
        return colours[0], _recoloured(colours[1], sums)


def _recoloured(colours: list[int], sums: tuple[bytes, ...]) -> list[int]:
    return list(map(rshift, map(crc32, sums, colours), repeat(2)))


def _weighted_sums(fields: Struct, weights: list[int], packed: list[int]) -> tuple[bytes, ...]:
    return fields.unpack(sum(map(mul, weights, packed)).to_bytes(fields.size, "little"))


def _colour(*found: object) -> int:
    return crc32(repr(found).encode()) >> 2


def _singled_out(colours: Colours, index: int) -> Colours:
    """The colours with one of its own for the column at `index`."""
    columns = colours[1].copy()
    columns[index] = _colour("singled out", columns[index])
    return colours[0], columns


def _tables(gold: Columns, predicted: Columns) -> tuple[_Table, _Table]:
    """Both results, in which equal values become the same random bits."""
    chance, bits = random.Random(0), 34 - max(len(gold), len(gold[0])).bit_length()
    cells: defaultdict[Hashable, bytes] = defaultdict(lambda: chance.getrandbits(bits).to_bytes(8, "little"))
    return _Table(gold, cells), _Table(predicted, cells)


@dataclass
class _Level:
    """How the colours of the gold table split at one depth of the search, which is the same in all branches."""

    steps: list[Colours]
    ahead: list[int] = field(default_factory=list)
    """Colours of the columns by what would follow from singling them out; empty when the search does not look ahead."""
    steps_ahead: list[Colours] = field(default_factory=list)

    @property
    def colours(self) -> Colours:
        return (self.steps_ahead or self.steps)[-1]


@dataclass
class _Search:
    """The search for a permutation of the columns that makes the rows of two tables equal as multisets.

    Colours are hashes, the same in both tables for what could be brought together. Others may get the same by chance:
    that costs time and no more, as every permutation found is checked.
    """

    gold: _Table
    predicted: _Table
    budget: int
    levels: list[_Level] = field(default_factory=list)

    def run(self) -> bool:
        """Whether there is such a permutation; raises _BudgetSpent.

        Most tables, regular ones too, are decided without going back. Only for the others does looking ahead pay.
        """
        gold, predicted = self.gold.uncoloured(), self.predicted.uncoloured()
        if any(sorted(left) != sorted(right) for left, right in zip(gold, predicted)):
            return False
        found = self._descended(gold, predicted, depth=0, thorough=False)
        if found is None:
            self.levels.clear()
            found = self._descended(gold, predicted, depth=0, thorough=True)
        return bool(found)

    def _descended(self, gold: Colours, predicted: Colours, depth: int, thorough: bool) -> bool | None:
        """Refine both tables, single out a column of the gold one, and try those of its colour in the other.

        None, only if not `thorough`: one of those tried went well at first and led to nothing later. The budget ends
        long before the depth comes near Python's limit, as n columns are singled out in tables of n by n or more.
        """
        if len(self.levels) == depth:
            self.levels.append(self._level(gold, thorough))
        colours = self._followed(self.levels[depth], predicted)
        if colours is None:
            return False
        gold = self.levels[depth].colours
        if len(set(gold[1])) == len(gold[1]):
            return self._matched(gold, colours)
        index = _rarest_ambiguous(gold[1])
        singled_out = _singled_out(gold, index)
        for candidate in (place for place, colour in enumerate(colours[1]) if colour == gold[1][index]):
            found = self._descended(singled_out, _singled_out(colours, candidate), depth + 1, thorough)
            if found is not False:
                return found
        return False if thorough or depth == 0 else None

    def _level(self, colours: Colours, thorough: bool) -> _Level:
        steps = list(self._refined(self.gold, colours))
        if not thorough or len(set(steps[-1][1])) == len(steps[-1][1]):
            return _Level(steps)
        ahead = list(self._ahead(self.gold, steps[-1]))
        return _Level(steps, ahead, list(self._refined(self.gold, (steps[-1][0], ahead))))

    def _followed(self, level: _Level, colours: Colours) -> Colours | None:
        """The colours of the predicted table after the steps of the gold one, or None when they differ on the way."""
        followed = self._in_step(level.steps, colours)
        if followed is None or not level.ahead:
            return followed
        ahead, expected = [], set(level.ahead)
        for colour in self._ahead(self.predicted, followed):
            if colour not in expected:
                return None
            ahead.append(colour)
        return self._in_step(level.steps_ahead, (followed[0], ahead))

    def _in_step(self, steps: list[Colours], colours: Colours) -> Colours | None:
        for expected, found in zip(steps, self._refined(self.predicted, colours)):
            if sum(expected[0]) != sum(found[0]) or sorted(expected[1]) != sorted(found[1]):
                return None
        return found

    def _refined(self, table: _Table, colours: Colours) -> Iterator[Colours]:
        """Colour anew, in turns, until no colour of columns splits any more, or each has its own and all rows show it."""
        before, classes = 0, len(set(colours[1]))
        while before < classes:
            self.budget -= table.area
            if self.budget < 0:
                raise _BudgetSpent
            colours = table.by_rows(colours)
            yield colours
            if classes == len(colours[1]):
                return
            colours = table.by_columns(colours)
            yield colours
            before, classes = classes, len(set(colours[1]))

    def _ahead(self, table: _Table, colours: Colours) -> Iterator[int]:
        """A colour for each column that shares its own, by all that would follow from singling it out."""
        sizes = Counter(colours[1])
        for index, colour in enumerate(colours[1]):
            if sizes[colour] > 1:
                steps = self._refined(table, _singled_out(colours, index))
                colour = _colour([(sum(rows), sum(columns)) for rows, columns in steps])
            yield colour

    def _matched(self, gold: Colours, predicted: Colours) -> bool:
        """Whether the tables are equal when columns of one colour, each in one table the only one, come together."""
        place = {colour: index for index, colour in enumerate(predicted[1])}
        order = [place[colour] for colour in gold[1]]
        repeats = list(self.predicted.repeats.values())
        if [repeats[index] for index in order] != list(self.gold.repeats.values()):
            return False
        rows = zip(*(self.predicted.columns[index] for index in order))
        return list(map(self.gold.rows.get, rows)) == list(self.predicted.rows.values())


def _rarest_ambiguous(colours: list[int]) -> int:
    """The index of a column whose colour few others have, but some."""
    sizes = Counter(colours)
    return min((size, colours.index(colour)) for colour, size in sizes.items() if size > 1)[1]
