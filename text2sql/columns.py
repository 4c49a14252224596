"""Rows of texts as columns for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], left: int = 1, left_at_end: int = 0) -> str:
    """Rows of equally many cells: the first `left` and last `left_at_end` set to the left, the numbers between to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    middle = len(widths) - left - left_at_end
    justify = [str.ljust] * left + [str.rjust] * middle + [str.ljust] * left_at_end
    cells = ([side(cell, width) for side, cell, width in zip(justify, row, widths)] for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in cells)
