"""Parallel coordinates: an axis a swept key and one for the metric, and a line a job through its values."""

from __future__ import annotations

from typing import Any

from text2sql.sweeps.axes import Axis, axis_of, new_figure, plain
from text2sql.sweeps.formats import shown, title
from text2sql.sweeps.table import Line, Table, lower_is_better, ranks

MIN_NUMERIC_KEYS = 3


def wanted(table: Table) -> bool:
    """Whether there are keys enough, three numeric ones or an optuna study's, for a picture of their interplay."""
    keys, lines = _keys(table), _lines(table)
    numeric = sum(axis.numeric for axis in _axes(keys, lines))
    return len(lines) > 1 and (numeric >= MIN_NUMERIC_KEYS or (table.optuna and len(keys) > 1))


def _keys(table: Table) -> list[str]:
    return [key for key in table.keys if key not in {"seed", table.over}]


def _lines(table: Table) -> list[Line]:
    """The jobs with a value of every key and of the metric, worst first, so that the best is drawn over the others."""
    return [line for line in table.lines[::-1] if ranks(line, table.by) and set(_keys(table)) <= set(line.values)]


def _axes(keys: list[str], lines: list[Line]) -> list[Axis]:
    return [axis_of([line.values[key] for line in lines]) for key in keys]


def parallel(table: Table) -> Any:
    """The figure; lines are coloured by the metric, and the axis at the right is the metric."""
    from matplotlib import colormaps

    keys, lines = _keys(table), _lines(table)
    axes_of_keys = _axes(keys, lines)
    scores = [line.metric(table.by) or 0.0 for line in lines]
    low, high = min(scores), max(scores)
    figure = new_figure(max(7.5, 1.9 * (len(keys) + 1)))
    axes = figure.add_subplot()
    for line, score in zip(lines, scores):
        share = (score - low) / (high - low) if high > low else 0.5
        places = [axis.place(line.values[key]) for axis, key in zip(axes_of_keys, keys)]
        goodness = 1 - share if lower_is_better(table.by) else share
        color = colormaps["viridis"](0.92 * (1 - goodness))
        axes.plot(range(len(keys) + 1), [*places, share], color=color, lw=1 + 1.2 * goodness, alpha=0.85)
    metric_ticks = (
        [(0.0, shown(table.by, low)), (1.0, shown(table.by, high))] if high > low else [(0.5, shown(table.by, low))]
    )
    for number, ticks in enumerate([*(axis.ticks() for axis in axes_of_keys), metric_ticks]):
        axes.axvline(number, color="#85888c", lw=0.9, zorder=0)
        for place, text in ticks:
            box = {"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.75}
            axes.text(number + 0.02, place, plain(text, 16), fontsize=7.5, va="center", bbox=box)
    names = [*(plain(key, 28) for key in keys), plain(title(table.by))]
    axes.set_xticks(range(len(names)), [name.replace(".", ".\n", 1) for name in names], fontsize=8.5)
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(keys) + 0.35)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_title(
        f"dark and wide: {'lower' if lower_is_better(table.by) else 'higher'} {title(table.by)}, better", fontsize=10
    )
    return figure
