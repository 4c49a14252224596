"""Search for a permutation of columns that makes two tables equal as multisets of rows.

This is as hard as graph isomorphism and done as there (McKay and Piperno 2014, "Practical graph isomorphism, II"): rows and
columns are coloured by what they hold; where that is not enough one column after the other is singled out, going back
where this fails; and what is found is checked cell by cell. Colours come from checksums and seeded bits alone, so that
every process colours alike.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from operator import mul, rshift
from struct import Struct
from zlib import crc32

Columns = list[tuple]
Colours = tuple[list[int], list[int]]
"""A number for every row and for every column; those that some permutation could bring together have the same one."""


class BudgetSpent(Exception):
    """The search has looked at as many cells as it may."""


class Table:
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


def tables(gold: Columns, predicted: Columns) -> tuple[Table, Table]:
    """Both results, in which equal values become the same random bits."""
    chance, bits = random.Random(0), 34 - max(len(gold), len(gold[0])).bit_length()
    cells: defaultdict[Hashable, bytes] = defaultdict(lambda: chance.getrandbits(bits).to_bytes(8, "little"))
    return Table(gold, cells), Table(predicted, cells)


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
class Search:
    """The search for a permutation of the columns that makes the rows of two tables equal as multisets.

    Colours are hashes, the same in both tables for what could be brought together. Others may get the same by chance:
    that costs time and no more, as every permutation found is checked.
    """

    gold: Table
    predicted: Table
    budget: int
    levels: list[_Level] = field(default_factory=list)

    def run(self) -> bool:
        """Whether there is such a permutation; raises BudgetSpent.

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

    def _refined(self, table: Table, colours: Colours) -> Iterator[Colours]:
        """Colour anew, in turns, until no colour of columns splits any more, or each has its own and all rows show it."""
        before, classes = 0, len(set(colours[1]))
        while before < classes:
            self.budget -= table.area
            if self.budget < 0:
                raise BudgetSpent
            colours = table.by_rows(colours)
            yield colours
            if classes == len(colours[1]):
                return
            colours = table.by_columns(colours)
            yield colours
            before, classes = classes, len(set(colours[1]))

    def _ahead(self, table: Table, colours: Colours) -> Iterator[int]:
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
