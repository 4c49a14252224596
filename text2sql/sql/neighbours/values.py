"""Values beside others: moved numbers and dates, altered texts, and how SQLite compares and stores them."""

from __future__ import annotations

import math
import operator
import random
import re
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from typing import Any

_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?!\d)(.*)", re.DOTALL)


_NUMBER = re.compile(r"[+-]?\d{1,15}(?:\.(\d{1,6}))?")


_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def joined_as(values: Iterable[Any]) -> tuple[str, ...]:
    """Values as joins see them: a number in one column equals a text that reads the same in another."""
    return tuple(str(int(value)) if isinstance(value, float) and value.is_integer() else str(value) for value in values)


def put(row: list[Any], columns: Iterable[int], values: Iterable[Any]) -> None:
    for column, value in zip(columns, values):
        row[column] = value


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def as_number(value: Any) -> float | None:
    """The number that a value is or reads as; None for any other."""
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else None
    return value if is_number(value) and math.isfinite(value) else None


def shifted(value: Any, steps: int) -> Any:
    """A number or numeral moved by steps of its last digit, or an ISO date by days; None for any other value."""
    if isinstance(value, int):
        return value + steps if abs(value) < 2**62 else None
    if isinstance(value, float) and abs(value) < 1e15:
        digits = 0 if value.is_integer() else min(6, len(repr(value).partition(".")[2]))
        return round(value + steps * 10.0**-digits, digits)
    if isinstance(value, str) and (numeral := _NUMBER.fullmatch(value)):
        digits = len(numeral[1] or "")
        width = len(value) if value[0] == "0" else 0
        return f"{float(value) + steps * 10.0**-digits:0{width}.{digits}f}"
    if isinstance(value, str) and (day := _DATE.fullmatch(value)):
        try:
            return f"{date(int(day[1]), int(day[2]), int(day[3])) + timedelta(days=steps)}{day[4]}"
        except (ValueError, OverflowError):
            return None
    return None


def altered(text: str) -> list[str]:
    """Texts that differ in case, at the beginning or at the end."""
    return [text.swapcase(), text + "x", "x" + text, text[:-1], text[1:]]


def elsewhere(value: Any, rng: random.Random) -> Any:
    """A value of the same kind, not far from this one."""
    moved = shifted(value, rng.choice((-1, 1)) * rng.choice((1, 2, 3, 10, 30)))
    if moved is not None:
        return moved
    if isinstance(value, bytes):
        return value[::-1] + b"x"
    return rng.choice(altered(value)) if isinstance(value, str) else value


def beyond(value: Any, step: int) -> Any:
    """A value that sorts right after this one, or before it for a step of -1."""
    moved = shifted(value, step)
    if moved is None and isinstance(value, str):
        return value + "z" if step > 0 else value[:-1]
    return value if moved is None else moved


def nth_after(value: Any, number: int) -> Any:
    """The number-th of the values that sort after this one."""
    moved = shifted(value, number)
    return f"{value}{number}" if moved is None and isinstance(value, str) else value if moved is None else moved


def stored(value: Any, kind: str) -> Any:
    """A value as SQLite stores it in a column of a declared type: numerals as numbers, or numbers as text."""
    as_text = "INT" not in kind and re.search("CHAR|CLOB|TEXT", kind)
    if as_text and is_number(value):
        return str(value)
    numeral = isinstance(value, str) and not as_text and kind not in ("", "BLOB") and _NUMBER.fullmatch(value)
    return (float(value) if numeral[1] else int(value)) if numeral else value


def holds(cell: Any, sign: str, value: Any) -> bool:
    """Whether a condition holds for a cell, numerals counting as numbers."""
    if cell is None:
        return False
    if sign.endswith("LIKE"):
        pattern = "".join({"%": ".*", "_": "."}.get(letter, re.escape(letter)) for letter in str(value))
        return (re.fullmatch(pattern, str(cell), re.IGNORECASE | re.DOTALL) is not None) is (sign == "LIKE")
    numbers = (as_number(cell), as_number(value))
    return _TESTS[sign](*((str(cell), str(value)) if None in numbers else numbers))


def rank(value: Any) -> tuple[int, Any]:
    """SQLite's order over all values but NULL."""
    return (0 if is_number(value) else 1 if isinstance(value, str) else 2, value)


def invented(kind: str, number: int, rng: random.Random) -> Any:
    """A value for the number-th row, by the declared type of its column."""
    if "DATE" in kind or "TIME" in kind:
        return f"20{rng.randrange(10, 24)}-{rng.randrange(1, 13):02}-{number:02}"
    if re.search("CHAR|CLOB|TEXT", kind) or not kind:
        return f"{rng.choice(('red', 'green', 'blue'))} {number}"
    return number if "INT" in kind else number + rng.randrange(10) / 2
