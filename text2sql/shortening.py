"""What of an example's database a prompt shows, in which order, and what goes first where it does not fit.

What goes, one thing a step: example rows, the last first; values, the worst match first; types; then columns and tables, the
least related to the question first. Columns go that are neither keys nor related, of the tables that are not related either;
then these tables; then such columns of the other tables; then these; of the last table its columns. A table that is shown has
one column at least.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import accumulate, count
from typing import NamedTuple

from text2sql import relevance, serialise, values
from text2sql.config import Order, Prompt
from text2sql.example import Column, Example, Schema, Table
from text2sql.serialise import Content, literal

CHARACTERS_A_TOKEN = 2.6
"""About; only how fast the search is depends on it."""

Place = tuple[int, int]
"""A column, by the positions of its table and of itself."""


class Shown:
    """The schema text of one example, whole or after any number of steps of shortening."""

    def __init__(self, example: Example, prompt: Prompt, seed: int) -> None:
        if not example.schema.tables:
            raise ValueError(
                f"prompt={prompt.style} needs a schema and {example.id} has none; point data.path at data with databases "
                "(Spider's official folder, or mini), or use prompt=question_only"
            )
        self.example, self.prompt, self.seed, self.schema = example, prompt, seed, example.schema
        self.render = serialise.STYLES[prompt.style]

    def text(self, steps: int = 0) -> str:
        """The schema as the style writes it, less what the first `steps` steps take away."""
        schema, content = self.left(steps)
        return self.render(schema, content)

    def left(self, steps: int = 0) -> tuple[Schema, Content]:
        """What is left of schema and content after so many steps, in the order in which it is shown."""
        if not steps and self.prompt.order is Order.schema:
            return self.schema, self.content
        tables = self.schema.tables
        kept = self.plan.kept(steps) if steps else [(i, list(range(len(t.columns)))) for i, t in enumerate(tables)]
        untyped = self.plan.untyped(steps) if steps else frozenset()
        schema = _without_dangling_keys([self._table(i, of, untyped) for i, of in self._ordered(kept)])
        return schema, self.plan.content(steps) if steps else self.content

    @property
    def most_steps(self) -> int:
        return len(self.plan.steps)

    @cached_property
    def content(self) -> Content:
        """The values and rows that the style shows of the whole schema."""
        style, prompt = self.prompt.style, self.prompt
        shown: dict[tuple[str, str], tuple[str, ...]] = {}
        for match in self.matches if style in serialise.SHOWS_VALUES else ():
            one = literal(match.text, serialise.MAX_VALUE_CHARACTERS)
            before = shown.get((match.table, match.column), ())
            if len(before) < prompt.num_values and one not in before:
                shown[match.table, match.column] = (*before, one)
        rows, cut = {}, serialise.MAX_CELL_CHARACTERS
        if style in serialise.SHOWS_ROWS:
            for table, found in values.rows(self.example, self.schema, prompt.num_rows, cut).items():
                rows[table] = tuple({column: literal(cell, cut) for column, cell in row.items()} for row in found)
        return Content(shown, rows)

    @cached_property
    def matches(self) -> list[values.Match]:
        """The values that the question mentions; a style that shows none does without where SQLite cannot search."""
        needed = self.prompt.style in serialise.SHOWS_VALUES
        return values.find(self.example) if needed or values.can_search() else []

    @cached_property
    def relevance(self) -> relevance.Relevance:
        mentioned: dict[tuple[str, str], float] = {}
        for match in self.matches:
            mentioned.setdefault((match.table, match.column), min(match.score, 1))
        return relevance.rank(self.example.question, self.schema, mentioned)

    @cached_property
    def plan(self) -> Plan:
        return Plan(self)

    def _table(self, i: int, columns: Iterable[int], untyped: frozenset[Place]) -> Table:
        table = self.schema.tables[i]
        shown = (
            Column(column.name, "", column.primary_key) if (i, j) in untyped else column
            for j, column in ((j, table.columns[j]) for j in columns)
        )
        return Table(table.name, tuple(shown), table.foreign_keys)

    def _ordered(self, kept: list[tuple[int, list[int]]]) -> list[tuple[int, list[int]]]:
        if self.prompt.order is Order.schema:
            return kept
        if self.prompt.order is Order.relevance:
            scores = self.relevance
            by_score = [(i, sorted(of, key=lambda j, i=i: -scores.columns[i][j])) for i, of in kept]  # type: ignore[misc]
            return sorted(by_score, key=lambda item: -scores.tables[item[0]])
        by_chance = [(i, sorted(of, key=lambda j, i=i: self._chance(i, j))) for i, of in kept]  # type: ignore[misc]
        return sorted(by_chance, key=lambda item: self._chance(item[0]))

    def _chance(self, *place: int) -> bytes:
        """The same for one example and seed in every process, whatever else is shown."""
        return hashlib.sha256(ascii((self.seed, self.example.id, *place)).encode()).digest()


def _without_dangling_keys(tables: list[Table]) -> Schema:
    """The tables less the foreign keys whose columns, or whose other ends, are not among them."""
    there = {table.name.lower(): {column.name.lower() for column in table.columns} for table in tables}
    result = []
    for table in tables:
        keys = tuple(
            key
            for key in table.foreign_keys
            if there[table.name.lower()].issuperset(c.lower() for c in key.columns)
            and there.get(key.foreign_table.lower(), set()).issuperset(c.lower() for c in key.foreign_columns)
        )
        result.append(table if len(keys) == len(table.foreign_keys) else Table(table.name, table.columns, keys))
    return Schema(tuple(result))


class Step(NamedTuple):
    """What one step takes away: `kind` row, value, type, column or table, and which."""

    kind: str
    table: int = -1
    column: int = -1
    number: int = 0  # of a value among those of its column, of a row among those of its table


class Plan:
    """The steps of shortening in order, and what is left after any number of them."""

    def __init__(self, shown: Shown) -> None:
        self.schema, self.shown, self.render = shown.schema, shown.content, shown.render
        self.num_rows = max(map(len, self.shown.rows.values()), default=0)
        order = Ranked(shown.schema, shown.relevance)
        self.steps = [
            *(Step("row", number=n) for n in reversed(range(self.num_rows))),
            *self._value_steps(shown),
            *(Step("type", *p) for p in order.columns if shown.prompt.style in serialise.SHOWS_TYPES and self._type(p)),
            *order.steps(),
        ]

    def _value_steps(self, shown: Shown) -> list[Step]:
        """The third values before the second, and of equals the worse match first."""
        best = {(match.table, match.column): match.score for match in reversed(shown.matches)}
        numbers = {
            (table.name, column.name): (i, j)
            for i, table in enumerate(self.schema.tables)
            for j, column in enumerate(table.columns)
        }
        found = [
            (n, place) for place, texts in self.shown.values.items() if place in numbers for n in range(len(texts))
        ]
        found.sort(key=lambda item: (-item[0], best[item[1]], item[1]))
        return [Step("value", *numbers[place], n) for n, place in found]

    def _type(self, place: Place) -> str:
        return self.schema.tables[place[0]].columns[place[1]].type

    def kept(self, steps: int) -> list[tuple[int, list[int]]]:
        """The positions of the tables that are left, and of their columns."""
        gone = self.steps[:steps]
        tables = {step.table for step in gone if step.kind == "table"}
        columns = {step[1:3] for step in gone if step.kind == "column"}
        return [
            (i, [j for j in range(len(table.columns)) if (i, j) not in columns])
            for i, table in enumerate(self.schema.tables)
            if i not in tables
        ]

    def untyped(self, steps: int) -> frozenset[Place]:
        return frozenset(step[1:3] for step in self.steps[:steps] if step.kind == "type")

    def content(self, steps: int) -> Content:
        """The values and rows that are left, whether their tables are or not."""
        gone = self.steps[:steps]
        num_rows = self.num_rows - sum(step.kind == "row" for step in gone)
        tables = self.schema.tables
        values_gone = {
            (tables[s.table].name, tables[s.table].columns[s.column].name, s.number) for s in gone if s.kind == "value"
        }
        return Content(
            {
                place: tuple(text for n, text in enumerate(texts) if (*place, n) not in values_gone)
                for place, texts in self.shown.values.items()
            },
            {name: rows[:num_rows] for name, rows in self.shown.rows.items()},
        )

    def lengths(self) -> list[int]:
        """About how many characters each step takes away."""
        tables = self.schema.tables
        typed = any(step.kind == "type" for step in self.steps)
        left = [
            len(self.render(Schema((table,)), Content())) - typed * sum(len(c.type) + 1 for c in table.columns)
            for table in tables
        ]
        share = [n / (len(t.name) + sum(len(c.name) + 2 for c in t.columns)) for n, t in zip(left, tables)]
        row = sum(sum(map(len, rows[0].values())) + 2 * len(rows[0]) for rows in self.shown.rows.values() if rows)
        result = []
        for kind, i, j, n in self.steps:
            if kind == "row":
                size = row
            elif kind == "table":
                size = left[i]
            else:
                column = tables[i].columns[j]
                if kind == "value":
                    size = len(self.shown.values[tables[i].name, column.name][n]) + 2
                elif kind == "type":
                    size = len(column.type) + 1
                else:
                    size = round(share[i] * (len(column.name) + 2))
                    left[i] -= size
            result.append(size)
        return result


class Ranked:
    """The columns and tables of a schema, the least relevant first; of equals the last."""

    def __init__(self, schema: Schema, scores: relevance.Relevance) -> None:
        self.schema, self.scores = schema, scores
        self.keys = relevance.vocabulary(schema).keys
        self.tables = sorted(range(len(schema.tables)), key=lambda i: (i in scores.related, scores.tables[i], -i))
        self.columns: list[Place] = sorted(
            ((i, j) for i, table in enumerate(schema.tables) for j in range(len(table.columns))),
            key=lambda place: (scores.columns[place[0]][place[1]], scores.tables[place[0]], -place[0], -place[1]),
        )

    def steps(self) -> list[Step]:
        """The columns and tables in the order in which they go."""
        last = dict(self.columns)  # of each table the best column, which goes with the table
        stays, related = self.tables[-1], self.scores.related
        plain = [p for p in self.columns if self._is_plain(p) and p[1] != last[p[0]]]
        rest = [p for p in self.columns if p[0] == stays and not self._is_plain(p) and p[1] != last[p[0]]]
        return [
            *(Step("column", *place) for place in plain if place[0] not in related),
            *(Step("table", i) for i in self.tables[:-1] if i not in related),
            *(Step("column", *place) for place in plain if place[0] in related),
            *(Step("table", i) for i in self.tables[:-1] if i in related),
            *(Step("column", *place) for place in rest),
        ]

    def _is_plain(self, place: Place) -> bool:
        """Whether a column is neither a key nor related to the question."""
        return place[1] not in self.keys[place[0]] and not self.scores.columns[place[0]][place[1]]


def fewest_steps(shown: Shown, excess: Callable[[str], int]) -> int | None:
    """After how few steps the schema text fits; None if it never does.

    `excess(text)` is by about how many tokens a text is too long; where it is 0 or less, the text fits for certain.
    """
    if (over := excess(shown.text(0))) <= 0:
        return 0
    removed = [0, *accumulate(shown.plan.lengths())]
    low, high, fits = 0, shown.most_steps, False  # low does not fit; high does, or was not tried
    nearest = (over, low)
    for probe in count():
        if high - low <= 1 and (fits or low == high):
            return high if fits else None
        if probe > 5:  # by halves, so that it ends soon whatever the text
            guess = (low + high + 1) // 2
        else:  # by what is too much or too little at the nearest try
            over, at = nearest
            guess = bisect_left(removed, removed[at] + over * CHARACTERS_A_TOKEN)
        guess = min(max(guess, low + 1), high - 1 if fits else high)
        over = excess(shown.text(guess))
        nearest = min(nearest, (over, guess), key=lambda pair: abs(pair[0]))
        if over <= 0:
            high, fits = guess, True
        else:
            low = guess
    raise AssertionError
