"""Make the rows of one neighbour from those of the source, by a seeded rule."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from text2sql.sql.neighbours.golds import Condition, Gold, Place
from text2sql.sql.neighbours.tables import Link, Rows, Source, Table
from text2sql.sql.neighbours.values import (
    altered,
    as_number,
    beyond,
    elsewhere,
    invented,
    joined_as,
    nth_after,
    put,
    rank,
    shifted,
    stored,
)

CLOSER = 0.4
"""With each further try, this share of the changes to the tables of golds without rows."""


TIED = 3
"""One neighbour in so many has ties."""


MAX_GROUP = 60
"""Groups that HAVING compares with more rows than this are left as they are."""


MAX_SPREAD = 100
"""How many steps a value that golds sort by may move to differ from others."""


@dataclass
class _Keys:
    """The keys of a table and the highest number given out since."""

    values: list[Any]
    last: int
    numeric: bool


class Draft:
    """The rows of one neighbour in the making; what breaks a rule of the schema is left out when they are written.

    `closeness` says of each table how often its rows were found to have changed too much.
    """

    def __init__(
        self, source: Source, golds: list[Gold], rng: random.Random, number: int, closeness: Counter[str]
    ) -> None:
        self.source, self.golds, self.rng = source, golds, rng
        self.tied = number % TIED == TIED - 1
        self.tables = list(source.tables.values())
        self.rows: Rows = {table.name: [list(row) for row in table.rows] for table in self.tables}
        self.strength = {table.name: CLOSER ** closeness[table.name] for table in self.tables}
        self._keys: dict[tuple[str, int], _Keys] = {}

    def derive(self) -> Rows:
        """The rows of the neighbour, table by table, changed by the seed in every way that the schema allows."""
        for table in self.tables:
            if table.rows:
                self.drop(table)
            else:
                self.invent(table)
        for link in self.source.links:
            self.point(link)
        for table in self.tables:
            self.change(table)
            self.repeat(table)
        for gold in self.golds:
            self.add_witnesses(gold)
        for gold in self.golds:
            self.resize_groups(gold)
        for table in self.tables:
            self.rows[table.name] = [list(map(stored, row, table.types)) for row in self.rows[table.name]]
        if self.tied:
            self.tie()
        else:
            self.untie()
        for table in self.tables:
            self.blank(table)
            self.rng.shuffle(self.rows[table.name])
        return self.rows

    # Rows there are

    def invent(self, table: Table) -> None:
        """Rows for a table without any; `point` gives them partners."""
        self.rows[table.name] = [[invented(kind, n, self.rng) for kind in table.types] for n in range(1, 9)]

    def drop(self, table: Table) -> None:
        """Leave out some rows, also such that others point at; `point` gives those other partners."""
        rate = self.rng.choice((0.0, 0.1, 0.3)) * self.strength[table.name]
        kept = [row for row in self.rows[table.name] if self.rng.random() >= rate]
        if len(kept) >= 2:
            self.rows[table.name] = kept

    def point(self, link: Link) -> None:
        """Give rows other partners, so that some have many and some have none; first the rows that lost theirs."""
        partners = [key for row in self.rows[link.parent] if None not in (key := [row[place] for place in link.keys])]
        if not partners:
            return
        known = {joined_as(key) for key in partners}
        favourites = self.rng.sample(partners, -(-len(partners) * 3 // 5))
        rate = self.rng.choice((0.0, 0.2, 0.5)) * self.strength[link.child]
        one_each = any(set(columns) <= set(link.columns) for columns in self.source.tables[link.child].unique)
        for row in self.rows[link.child]:
            value = [row[column] for column in link.columns]
            lost = joined_as(value) not in known and self.rng.random() < (0.8 if link.declared else 0.3)
            if None not in value and (lost or (not one_each and self.rng.random() < rate)):
                put(row, link.columns, self.rng.choice(favourites))

    def change(self, table: Table) -> None:
        """In some rows, shuffle or repeat the values of a column or move each a little."""
        linked = self.source.linked(table.name)
        for column in sorted(set(range(len(table.columns))) - table.keys):
            share = self.rng.choice((0.0, 0.2, 0.4, 0.7)) * self.strength[table.name]
            rows = [row for row in self.rows[table.name] if self.rng.random() < share]
            values = [row[column] for row in rows]
            how = self.rng.choice(("shuffle", "repeat", "move"))
            if how == "repeat":
                all_values = [row[column] for row in self.rows[table.name]]
                values = [self.rng.choice(all_values) for _ in rows]
            elif how == "shuffle" or column in linked:
                self.rng.shuffle(values)
            else:
                values = [elsewhere(value, self.rng) for value in values]
            for row, value in zip(rows, values):
                row[column] = value

    def repeat(self, table: Table) -> None:
        """Copy rows, all the same where there is no key, and sometimes those that point at them."""
        rows = self.rows[table.name]
        chosen = self.rng.choices(rows, k=self.rng.randrange(len(rows) // 8 + 2))
        copies = [(row, self.copy(table, row)) for row in chosen]
        rows += [copied for _, copied in copies]
        for link in self.source.links:
            if link.declared and link.parent == table.name:
                self.copy_partners(link, copies)

    def copy_partners(self, link: Link, copies: list[tuple[list[Any], list[Any]]]) -> None:
        pointing: dict[tuple[str, ...], list[list[Any]]] = {}
        for row in self.rows[link.child]:
            pointing.setdefault(joined_as(row[column] for column in link.columns), []).append(row)
        for row, copied in copies:
            partners = pointing.get(joined_as(row[key] for key in link.keys), [])
            for partner in partners[:5] if self.rng.random() < 0.5 else ():
                other = self.copy(self.source.tables[link.child], partner)
                put(other, link.columns, [copied[key] for key in link.keys])
                self.rows[link.child].append(other)

    def copy(self, table: Table, row: list[Any], same: int | None = None) -> list[Any]:
        """A copy with keys of its own, but for the column that stays the same and those that point at other rows."""
        copied = list(row)
        linked = self.source.linked(table.name)
        for columns in table.unique:
            own = [column for column in columns if column != same and column not in linked]
            if own:
                fresh = len(columns) == 1
                copied[own[-1]] = self.key(table, own[-1]) if fresh else elsewhere(copied[own[-1]], self.rng)
        return copied

    def key(self, table: Table, column: int) -> Any:
        """A key that no row has: the next number, as text in a column of text, or a longer text than one there is."""
        place = (table.name, column)
        if place not in self._keys:
            values = [row[column] for row in table.rows if row[column] is not None]
            numbers = [number for value in values if (number := as_number(value)) is not None and abs(number) < 2**60]
            self._keys[place] = _Keys(values, int(max(numbers, default=0)), len(numbers) == len(values))
        keys = self._keys[place]
        keys.last += 1
        if not keys.numeric:
            return f"{self.rng.choice(keys.values)}{keys.last}"
        return str(keys.last) if keys.values and isinstance(keys.values[0], str) else keys.last

    # Rows that golds ask for

    def add_witnesses(self, gold: Gold) -> None:
        """Add rows that all conditions of a gold hold for, and rows that all but one of them hold for."""
        wanted: dict[Place, list[Condition]] = {}
        for condition in gold.conditions:
            wanted.setdefault(condition.place, []).append(condition)
        if all(self.rows[name] for name in gold.sources):
            for _ in range(self.rng.choice((0, 1, 1, 2))):
                self.add_witness(gold, wanted, None)
            for spoilt in wanted:
                if self.rng.random() < 0.5:
                    self.add_witness(gold, wanted, spoilt)

    def add_witness(self, gold: Gold, wanted: dict[Place, list[Condition]], spoilt: Place | None) -> None:
        """Add one row to each table of a gold, joined as it joins them; `spoilt` is where a condition fails."""
        made: list[list[Any]] = []
        added: dict[int, list[Any]] = {}
        for number, name in enumerate(gold.sources):
            row = self.present(gold, number, made)
            if row is None:
                row = added[number] = self.copy(self.source.tables[name], self.rng.choice(self.rows[name]))
                self.vary(name, row)
            made.append(row)
        for place in gold.extremes:
            self.make_extreme(gold.sources[place.source], made[place.source], place.column)
        for place, conditions in wanted.items():
            row = made[place.source]
            if place.source in added or place.column not in self.source.tables[gold.sources[place.source]].keys:
                row[place.column] = self.fitting(row[place.column], conditions, place == spoilt)
        for join in gold.joins * 2:
            self.join(gold, made, *join)
        for number, row in added.items():
            self.rows[gold.sources[number]].append(row)

    def present(self, gold: Gold, number: int, made: list[list[Any]]) -> list[Any] | None:
        """The row that a gold names by its key, or at times one made for another SELECT of it on the same table."""
        table = self.source.tables[gold.sources[number]]
        mine = [condition for condition in gold.conditions if condition.place.source == number]
        for (_, column), sign, value in mine:
            if column in table.keys and sign == "=":
                return next(
                    (row for row in self.rows[table.name] if joined_as([row[column]]) == joined_as([value])), None
                )
        if not mine and table.keys and self.rng.random() < 0.7:
            return next((made[other] for other in range(number) if gold.sources[other] == table.name), None)
        return None

    def vary(self, name: str, row: list[Any]) -> None:
        """Give a row values of its own, so that it shows in what golds select."""
        for column in sorted(set(range(len(row))) - self.source.fixed(name)):
            if self.rng.random() < 0.3 * self.strength[name]:
                row[column] = elsewhere(row[column], self.rng)

    def make_extreme(self, name: str, row: list[Any], column: int) -> None:
        """Half of the time, let a row have the most or the least where a gold looks for that."""
        values = [other[column] for other in self.rows[name] if other[column] is not None]
        if values and column not in self.source.fixed(name) and self.rng.random() < 0.5:
            pick, step = self.rng.choice(((max, 1), (min, -1)))
            row[column] = beyond(pick(values, key=rank), step)

    def fitting(self, value: Any, conditions: list[Condition], miss: bool) -> Any:
        """A value that as many of the conditions hold for as can, or with `miss` one beside it that fewer hold for."""
        near = [value, *(other for condition in conditions for other in _near(condition, self.rng))]
        self.rng.shuffle(near)
        if self.rng.random() < 0.5:
            near = [*(condition.value for condition in conditions), *near]
        counts = [sum(condition.holds(other) for condition in conditions) for other in near]
        return next((other for other, count in zip(near, counts) if (count == max(counts)) is not miss), value)

    def join(self, gold: Gold, made: list[list[Any]], left: Place, right: Place) -> None:
        """Make two rows meet by writing the key of one into the other."""
        names = [gold.sources[place.source] for place in (left, right)]
        keyed = [place.column in self.source.tables[name].keys for place, name in zip((left, right), names)]
        points = any(link[:4] == (names[0], (left.column,), names[1], (right.column,)) for link in self.source.links)
        if keyed == [False, True] or (keyed == [True, True] and points):
            left, right = right, left
        made[right.source][right.column] = made[left.source][left.column]

    # Groups and extremes

    def resize_groups(self, gold: Gold) -> None:
        """Bring some group to a size that a gold's HAVING names, or to one beside it."""
        for place, size in gold.groups:
            name, column, groups = self.counted(gold, place)
            if groups and self.rng.random() < 0.7:
                self.resize(name, column, self.rng.choice(list(groups)), size + self.rng.choice((-1, 0, 1)))

    def counted(self, gold: Gold, place: Place) -> tuple[str, int, Counter[str]]:
        """Where equal values make up the groups of a gold (of a key, what points there), and the sizes of the groups."""
        name, column = gold.sources[place.source], place.column
        if column in self.source.tables[name].keys:
            for left, right in [pair for join in gold.joins for pair in (join, join[::-1])]:
                other = gold.sources[right.source]
                if left == place and right.column not in self.source.tables[other].keys:
                    name, column = other, right.column
        return name, column, Counter(joined_as([row[column]])[0] for row in self.rows[name] if row[column] is not None)

    def resize(self, name: str, column: int, group: str, size: int) -> None:
        table, rows = self.source.tables[name], self.rows[name]
        members = [row for row in rows if row[column] is not None and joined_as([row[column]])[0] == group]
        if column in table.keys or not 0 <= size <= MAX_GROUP:
            return
        rows += [self.copy(table, self.rng.choice(members), same=column) for _ in range(size - len(members))]
        others = [row[column] for row in rows if row[column] is not None and joined_as([row[column]])[0] != group]
        for row in members[size:] if others else []:
            row[column] = self.rng.choice(others)

    def looked_at(self, sorting: bool) -> Iterator[tuple[str, int]]:
        """The columns that golds sort by, or whose extremes they look for, that may change."""
        places = {
            (gold.sources[place.source], place.column)
            for gold in self.golds
            for place in (gold.sorted_by if sorting else gold.extremes)
        }
        return (pair for pair in sorted(places) if pair[1] not in self.source.fixed(pair[0]))

    def sorted_rows(self, name: str, column: int) -> list[list[Any]]:
        rows = [row for row in self.rows[name] if row[column] is not None]
        return sorted(rows, key=lambda row: rank(row[column]))

    def tie(self) -> None:
        """Let two rows share each extreme that golds look for."""
        for name, column in self.looked_at(sorting=False):
            rows = self.sorted_rows(name, column)
            between = rows[1:-1]
            others = self.rng.sample(between, min(2, len(between)))
            for row, extreme in zip(others, rows[-1:] + rows[:1]):
                row[column] = extreme[column]

    def untie(self) -> None:
        """Let one row alone have each extreme, one group alone lead, and values that golds sort by differ."""
        for gold in self.golds:
            self.lead(gold)
        for name, column in self.looked_at(sorting=False):
            rows = self.sorted_rows(name, column)
            for extreme, step in ((rows[0], -1), (rows[-1], 1)) if len(rows) > 2 else ():
                if sum(row[column] == extreme[column] for row in rows) > 1:
                    extreme[column] = beyond(extreme[column], step)
        for name, column in self.looked_at(sorting=True):
            self.spread(name, column)

    def spread(self, name: str, column: int) -> None:
        """Move values that repeat to the next free ones, as far as MAX_SPREAD steps do."""
        seen: set[Any] = set()
        moves = Counter[Any]()
        for row in self.rows[name]:
            first = row[column]
            for _ in range(MAX_SPREAD if row[column] in seen else 0):
                moves[first] += 1
                row[column] = nth_after(first, moves[first])
                if row[column] not in seen:
                    break
            seen.add(row[column])

    def lead(self, gold: Gold) -> None:
        for place, largest in gold.ranked:
            name, column, groups = self.counted(gold, place)
            least = min(groups.values(), default=0)
            if groups and largest:
                self.resize(name, column, self.rng.choice(list(groups)), max(groups.values()) + 1)
            for group in [group for group, size in groups.items() if size == least][1:] if not largest else ():
                self.resize(name, column, group, least + 1)

    def blank(self, table: Table) -> None:
        """More NULLs, in columns where the source has some."""
        for column in sorted(table.nullable - self.source.fixed(table.name)):
            if any(row[column] is None for row in table.rows) and self.rng.random() < 0.5:
                for row in self.rows[table.name]:
                    if self.rng.random() < 0.1:
                        row[column] = None


def _near(condition: Condition, rng: random.Random) -> list[Any]:
    """The value that a condition names and those beside it; for LIKE, texts around its pattern."""
    value = condition.value
    if condition.sign.endswith("LIKE"):
        core = str(value).strip("%").replace("%", rng.choice(("", "ab"))).replace("_", rng.choice("ab"))
        return [core, core + "x", "x" + core, f"x{core}x", core[:-1]]
    moved = [other for steps in (-1, 1, -50, 50) if (other := shifted(value, steps)) is not None]
    return [value, *(moved or (altered(value) if isinstance(value, str) else []))]
