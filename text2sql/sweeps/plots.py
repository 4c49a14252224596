"""The pictures of a sweep, drawn with matplotlib: loss curves of all jobs, and the metric against each key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from text2sql.sweeps import coordinates, overrides
from text2sql.sweeps import jobs as reading
from text2sql.sweeps.axes import Axis, axis_of, new_figure, plain
from text2sql.sweeps.formats import title
from text2sql.sweeps.table import Line, Table, interval, is_share, ranks

MAX_LEGEND = 12
INK = "#3b6fb6"


def draw(table: Table, folder: Path) -> list[tuple[str, Path]]:
    """Write the PNGs of the table into `folder`: (what it shows, file) of each; those with nothing to show are left out.

    loss.png, by_NUMBER_KEY.png for each swept key but that of the groups, and parallel.png where it says something.
    """
    drawn = [("Loss curves of all jobs", "loss", _loss_curves(table))]
    for number, key in enumerate(key for key in table.keys if key != table.over):
        drawn.append((f"{title(table.by)} by {key}", f"by_{number}_{_file_name(key)}", _metric_by_key(table, key)))
    if coordinates.wanted(table):
        drawn.append(("All keys together, a line a job", "parallel", coordinates.parallel(table)))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for what, name, figure in drawn:
        if figure is not None:
            figure.savefig(folder / f"{name}.png")
            written.append((what, folder / f"{name}.png"))
    return written


def _file_name(key: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in key)[:60]


def label(table: Table, line: Line) -> str:
    """The job's swept values; its name where that says nothing."""
    said = [f"phase {line.phase}"] if table.has_phases and line.phase else []
    said += [
        f"{key.rpartition('.')[2]} {plain(overrides.brief(line.values[key]), 24)}"
        for key in table.keys
        if key in line.values
    ]
    return ", ".join(said) or f"job {plain(line.job.name)}"


# Loss curves


def _loss_curves(table: Table) -> Any:
    """Training loss by step as lines and validation loss as dots, a colour a job; None if no job has logged any."""
    curves = [(line, reading.losses(line.job.folder)) for line in table.lines]
    curves = [(line, points) for line, points in curves if points["training"] or points["validation"]]
    if not curves:
        return None
    from matplotlib.ticker import MaxNLocator

    figure = new_figure()
    axes = figure.add_subplot()
    shade = _shades(table, [line for line, _ in curves])
    handles = []
    for index, (_, points) in enumerate(curves):
        color = shade.colors[index]
        drawn: list[Any] = []
        if points["training"]:
            drawn += axes.plot(*zip(*points["training"]), color=color, lw=1.2, alpha=0.9)
        if points["validation"]:
            drawn += axes.plot(
                *zip(*points["validation"]), color=color, marker="o", ms=5, mec="white", ls="none", zorder=3
            )
        handles.append(drawn[0])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("cross-entropy of the SQL tokens (nats)")
    axes.set_title("lines: training loss; dots: validation loss", fontsize=10)
    axes.grid(alpha=0.25)
    if shade.axis is not None:
        _color_bar(figure, axes, shade)
    else:
        shown = [label(table, line) for line, _ in curves[:MAX_LEGEND]]
        more = len(curves) - len(shown)
        if more:
            handles = [*handles[: len(shown)], axes.plot([], [], " ")[0]]
            shown.append(f"and {more} more")
        figure.legend(handles, shown, frameon=False, fontsize=8, loc="outside lower center", ncols=min(3, len(shown)))
    return figure


class _Shades:
    """A colour for each curve, and the axis and name of the colour bar that explains them, if one does."""

    def __init__(self, colors: Sequence[Any], axis: Axis | None = None, key: str = "") -> None:
        self.colors, self.axis, self.key = colors, axis, key


def _shades(table: Table, lines: Sequence[Line]) -> _Shades:
    """A colour of its own for few curves; for many, a shade by the first numeric key, if there is one."""
    from matplotlib import colormaps

    if len(lines) > MAX_LEGEND:
        for key in table.keys:
            axis = axis_of([line.values.get(key) for line in lines])
            if key != table.over and axis.numeric:
                shades = [colormaps["viridis"](0.92 * axis.place(line.values.get(key, ""))) for line in lines]
                return _Shades(shades, axis, key)
    palette, size = ("tab10", 10) if len(lines) <= 10 else ("tab20", 20)
    return _Shades([colormaps[palette](index % size) for index in range(len(lines))])


def _color_bar(figure: Any, axes: Any, shade: _Shades) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap

    assert shade.axis is not None
    colors = LinearSegmentedColormap.from_list("shades", _viridis(0.92))
    bar = figure.colorbar(ScalarMappable(cmap=colors), ax=axes)
    places = shade.axis.ticks()
    bar.set_ticks([place for place, _ in places], labels=[plain(text, 12) for _, text in places])
    bar.set_label(plain(shade.key))


def _viridis(end: float) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["viridis"](end * step / 32) for step in range(33)]


# The metric against one key


def _metric_by_key(table: Table, key: str) -> Any:
    """A point a finished job, with its 95 % interval where it has one, and the mean at each value; None without a point."""
    lines = [line for line in table.lines if ranks(line, table.by) and key in line.values]
    if not lines:
        return None
    figure = new_figure()
    axes = figure.add_subplot()
    axis = axis_of([line.values[key] for line in lines])
    scale = 100 if is_share(table.by) else 1
    phases = sorted({line.phase for line in lines})
    colors = (INK, "#c9502c", "#17693f", "#7a2f8f")
    for index, phase in enumerate(phases):
        members = [line for line in lines if line.phase == phase]
        color = colors[index % len(colors)]
        _points(axes, members, [_x(axis, line.values[key]) for line in members], table.by, scale, color)
        _means(axes, members, axis, key, table.by, scale, color, f"phase {phase}" if len(phases) > 1 and phase else "")
    axes.margins(x=0.08)
    axes.autoscale_view()
    _set_x(axes, axis)
    axes.set_xlabel(plain(key))
    axes.set_ylabel(f"{plain(title(table.by))}{' (%)' if scale == 100 else ''}")
    has_intervals = any(interval(line, table.by) for line in lines)
    axes.set_title(f"a point a job{', with its 95 % interval' if has_intervals else ''}; dashes: means", fontsize=10)
    axes.grid(alpha=0.25)
    if len(phases) > 1:
        axes.legend(frameon=False)
    return figure


def _x(axis: Axis, value: str) -> float:
    found = overrides.number(value) if axis.numeric else None
    return found if found is not None else float(axis.values.index(value))


def _points(axes: Any, lines: Sequence[Line], xs: Sequence[float], metric: str, scale: float, color: str) -> None:
    """The jobs' points, those with the same value a little apart: their intervals would hide each other."""
    from matplotlib.transforms import ScaledTranslation

    for index, (line, x) in enumerate(zip(lines, xs)):
        y = scale * (line.metric(metric) or 0.0)
        low, high = (scale * limit for limit in interval(line, metric) or (y / scale, y / scale))
        rank, size = xs[:index].count(x), xs.count(x)
        apart = (rank - (size - 1) / 2) * min(6.0, 48 / size) / 72
        place = axes.transData + ScaledTranslation(apart, 0, axes.figure.dpi_scale_trans)
        limits = [[max(0.0, y - low)], [max(0.0, high - y)]]
        style = {"fmt": "o", "ms": 4.5, "alpha": 0.65, "elinewidth": 1, "capsize": 0, "zorder": 3}
        axes.errorbar([x], [y], yerr=limits if high > low else None, color=color, transform=place, **style)
        axes.update_datalim([(x, low), (x, high)])  # which what is drawn off its place does not do


def _means(
    axes: Any, lines: Sequence[Line], axis: Axis, key: str, metric: str, scale: float, color: str, name: str
) -> None:
    """The mean at each value as a dash, joined by a thin line where the key is numeric."""
    at: dict[float, list[float]] = {}
    for line in lines:
        at.setdefault(_x(axis, line.values[key]), []).append(scale * (line.metric(metric) or 0.0))
    xs = sorted(at)
    means = [sum(at[x]) / len(at[x]) for x in xs]
    style = "-" if axis.numeric else "none"
    axes.plot(xs, means, color=color, lw=0.9, ls=style, marker="_", ms=22, mew=1.8, label=name or None)


def _set_x(axes: Any, axis: Axis) -> None:
    from matplotlib.ticker import NullLocator

    if axis.log:
        axes.set_xscale("log")
    if axis.numeric and len(axis.values) > MAX_LEGEND:
        return
    shown = [plain(overrides.brief(value), 24) for value in axis.values]
    steep = sum(map(len, shown)) > 80
    axes.set_xticks([_x(axis, value) for value in axis.values], shown, rotation=25 if steep else 0)
    axes.set_xlim(*((-0.5, len(axis.values) - 0.5) if not axis.numeric else axes.get_xlim()))
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right" if steep else "center")
    axes.xaxis.set_minor_locator(NullLocator())
