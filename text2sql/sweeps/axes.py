"""The values of one swept key along an axis, and what all figures have in common.

Numbers stand by their size, on a log scale where they span decades; texts stand in a row.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from text2sql.sweeps import overrides

DECADE = 10
MAX_LABEL = 40
MAX_TICKS = 8


@dataclass(frozen=True)
class Axis:
    """The distinct values in order. `log` is only ever true of positive numbers."""

    values: list[str]
    numeric: bool
    log: bool

    def place(self, value: str) -> float:
        """Where the value stands between the first, 0, and the last, 1."""
        if len(self.values) < 2:
            return 0.5
        if not self.numeric:
            return self.values.index(value) / (len(self.values) - 1)
        first, last, here = (self._scaled(text) for text in (self.values[0], self.values[-1], value))
        return (here - first) / (last - first)

    def ticks(self) -> list[tuple[float, str]]:
        """(place, text) of the values, or of some where they are many."""
        step = max(1, math.ceil((len(self.values) - 1) / (MAX_TICKS - 1)))
        shown = dict.fromkeys([*self.values[::step], self.values[-1]])
        return [(self.place(value), overrides.brief(value)) for value in shown]

    def _scaled(self, text: str) -> float:
        value = overrides.number(text)
        assert value is not None
        return math.log(value) if self.log else value


def axis_of(values: Iterable[str | None]) -> Axis:
    """The axis of the values that are there; equal numbers are one value, however they are written.

    An axis is of numbers only if all are: None among them, of a job without the key, makes it none.
    """
    given = list(values)
    distinct = {overrides.sort_key(text): text for text in given if text is not None}
    ordered = [distinct[key] for key in sorted(distinct)]
    numbers = [value for text in ordered if (value := overrides.number(text)) is not None]
    numeric = None not in given and len(numbers) == len(ordered) > 1
    return Axis(ordered, numeric, numeric and numbers[0] > 0 and _wants_log(numbers))


def _wants_log(numbers: list[float]) -> bool:
    """Whether positive numbers span a decade, or each is the same multiple of the one before: 4, 8, 16."""
    ratios = [after / before for before, after in itertools.pairwise(numbers)]
    return numbers[-1] / numbers[0] >= DECADE or (len(ratios) > 1 and math.isclose(min(ratios), max(ratios)))


def new_figure(width: float = 7.5, height: float = 4.4) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(text: str, limit: int = MAX_LABEL) -> str:
    """The text for matplotlib, which would read mathematics between dollar signs; its end is kept if it is long."""
    short = text if len(text) <= limit else f"...{text[3 - limit :]}"
    return short.replace("$", r"\$")
