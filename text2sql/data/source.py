"""What a loader hands over: the rows of one file as read, and how to make an Example of one that is fit for use."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from text2sql.example import Example


class Unusable(Exception):
    """A row that cannot become an Example; the message is the reason, the same words for the same kind of fault."""


@dataclass(frozen=True)
class Row:
    """One row before any check: the values are whatever the file held, None where it held nothing.

    `group` names the database for splitting, None where it is plain that there is none. It is cheap to know: no row has
    to be parsed before it is sampled.
    """

    id: str
    question: object
    sql: object
    db_id: object
    group: str | None
    context: object = ""


@dataclass(frozen=True)
class Source:
    """All rows of the training or test file; `build` checks one row's database and raises Unusable with the reason."""

    rows: list[Row]
    build: Callable[[Row], Example]


def text(value: object, name: str) -> str:
    """`value` if it is text with something in it; raises Unusable otherwise. Not-a-number is a table's "missing"."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise Unusable(f"missing {name}")
    if not isinstance(value, str):
        raise Unusable(f"{name} is not text")
    if not value.strip():
        raise Unusable(f"empty {name}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Unusable(f"{name} is not valid Unicode") from None
    if "\0" in value:
        raise Unusable(f"{name} holds a NUL character")
    return value
