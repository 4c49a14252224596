"""Rows of a database as a table for a terminal: fitted to its width, and with nothing in it that a terminal would act on."""

from __future__ import annotations

import unicodedata
from typing import Any

NARROWEST = 4
CUT = "…"
GAP = "  "
JOINERS = "\u200c\u200d"
"""Invisible, and part of how Persian, Hindi and others are spelt."""


def table(result: dict[str, Any], width: int) -> str:
    """The columns and rows of `result`, no line wider than `width`: columns are cut, the widest first, and at last left out."""
    head = [_cell(name) for name in result["columns"]]
    rows = [[_cell(value) for value in row] for row in result["rows"]]
    shown = max(1, min(len(head), (width + len(GAP)) // (NARROWEST + len(GAP))))
    numeric = [bool(rows) and all(_is_number(row[i]) or row[i] is None for row in result["rows"]) for i in range(shown)]
    sizes = [max(_width(line[i]) for line in [head, *rows]) for i in range(shown)]
    room = width - len(GAP) * (shown - 1)
    while sum(sizes) > room and max(sizes) > NARROWEST:
        sizes[sizes.index(max(sizes))] -= 1
    lines = [head[:shown], ["-" * size for size in sizes], *(row[:shown] for row in rows)]
    text = [GAP.join(_fitted(cell, size, right) for cell, size, right in zip(line, sizes, numeric)) for line in lines]
    return "\n".join([*(line.rstrip() for line in text), *_left_out(result, len(head) - shown)])


def _left_out(result: dict[str, Any], columns: int) -> list[str]:
    shown, total = len(result["rows"]), result["num_rows"]
    rows = f"{total:,} row{'' if total == 1 else 's'}" + (f", the first {shown:,} shown" if shown < total else "")
    return [f"({rows}{f'; {columns} columns do not fit' if columns else ''})"]


def legible(text: str) -> str:
    """`text` with every control and direction character written out, so that it can neither act nor mislead."""
    return "".join(one if _is_harmless(one) else f"\\u{ord(one):04x}" for one in text)


def _is_harmless(one: str) -> bool:
    return one.isprintable() or one in JOINERS


def _cell(value: Any) -> str:
    return "NULL" if value is None else legible(str(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _width(text: str) -> int:
    return sum(0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF") for one in text)


def _fitted(cell: str, size: int, right: bool) -> str:
    """`cell` cut or filled to `size` columns of the terminal."""
    if _width(cell) > size:
        while _width(cell) > size - len(CUT):
            cell = cell[:-1]
        cell += CUT
    filling = " " * (size - _width(cell))
    return filling + cell if right else cell + filling
