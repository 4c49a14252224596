"""A comparison as plain text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from text2sql.columns import aligned
from text2sql.comparison.results import Comparison, Flip, Result

COLUMNS = 100
FLIPS_SHOWN = 10


def as_text(comparison: Comparison, *, all_flips: bool = False) -> str:
    """The comparison as plain text of 100 columns, with the first ten flips of each kind or all of them."""
    metric = "" if comparison.metric == "correct" else f", right by {comparison.metric}"
    blocks = [
        "\n".join(f"{one.run}  {one.label}: {one.folder}" for one in comparison.results),
        "\n".join(
            [
                f"questions: {comparison.questions:,}, databases: {comparison.databases:,}{metric}",
                *(f"left out, {reason}: {count:,}" for reason, count in comparison.left_out.items()),
                *(_wrapped(f"warning: {warning}") for warning in comparison.warnings),
            ]
        ),
        _results(comparison.results),
        _differences(comparison),
        _wrapped(
            f"95 % intervals: percentiles of {comparison.resamples:,} bootstrap resamples of whole databases, seed "
            f"{comparison.seed}. p: McNemar's exact test, which takes questions as independent; where those about one "
            "database flip together, p is too small and the interval is to be trusted."
        ),
        _settings(comparison),
    ]
    baseline = comparison.results[0].run
    for one in comparison.differences:
        for name, other, flips in ((one.run, baseline, one.gained), (baseline, one.run, one.lost)):
            blocks.append(_flips(f"right in {name}, wrong in {other}: {len(flips):,}", flips, all_flips))
    return "\n\n".join(blocks)


def _results(results: Sequence[Result]) -> str:
    rows = [["run", "questions", "correct", "accuracy", "95 % interval"]]
    for one in results:
        interval = f"{100 * one.interval[0]:.1f} to {100 * one.interval[1]:.1f}" if one.interval else "-"
        rows.append([one.run, f"{one.questions}", f"{one.correct}", f"{100 * one.accuracy:.1f} %", interval])
    return aligned(rows)


def _differences(comparison: Comparison) -> str:
    several = len(comparison.differences) > 1
    baseline = comparison.results[0].run
    only = f"only {baseline} right"
    rows = [["run", f"points over {baseline}", "95 % interval", only, "only it right", "p", "p (Holm)"]]
    for one in comparison.differences:
        interval = f"{100 * one.interval[0]:+.1f} to {100 * one.interval[1]:+.1f}" if one.interval else "-"
        counts = [f"{len(one.lost)}", f"{len(one.gained)}"]
        p_values = [f"{one.p_value:.2g}", f"{one.p_holm:.2g}"]
        rows.append([one.run, f"{100 * one.difference:+.1f}", interval, *counts, *p_values])
    return aligned(rows if several else [row[:-1] for row in rows])


def _settings(comparison: Comparison) -> str:
    if not comparison.settings:
        return "settings that differ: none found"
    names = [one.run for one in comparison.results]
    title = "settings that differ"
    key_width = min(max(map(len, [title, *comparison.settings])), 40)
    width = max(10, (COLUMNS - key_width) // len(names) - 2)
    rows = [[title, *names]]
    rows += [[_line(key, key_width), *_fitted(values, width)] for key, values in comparison.settings.items()]
    return aligned(rows, left=len(names) + 1)


def _fitted(values: Sequence[str | None], width: int) -> list[str]:
    """The values cut to the width, those that are too long first at their start, as far as they are alike."""
    long = {value for value in values if value and len(value) > width}
    alike = 0
    while len(long) > 1 and len({value[: alike + 1] for value in long}) == 1:
        alike += 1
    start = alike - 4
    cut = {value: f"...{value[start:]}" for value in long if start > 3}
    return ["-" if value is None else _line(cut.get(value, value), width) for value in values]


def _flips(title: str, flips: Sequence[Flip], all_flips: bool) -> str:
    shown = flips if all_flips else flips[:FLIPS_SHOWN]
    lines = [title + (f"; the first {len(shown)}, all with --all" if len(shown) < len(flips) else "")]
    for one in shown:
        lines.append(_line(f"  {one.id}  {one.db_id}  {one.question}", COLUMNS))
        lines.append(_line(f"    {one.baseline_verdict} -> {one.verdict}  {one.reason}", COLUMNS))
    return "\n".join(lines)


def _line(text: str, width: int) -> str:
    """The text on one line, cut to the width, without what a terminal would obey: it may be a model's."""
    plain = "".join(character if character.isprintable() else " " for character in text).rstrip()
    return plain if len(plain) <= width else f"{plain[: width - 3]}..."


def _wrapped(text: str) -> str:
    return textwrap.fill(text, COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
