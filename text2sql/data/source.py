"""What a loader hands over: the rows of one file as read, and how to make an Example of one that is fit for use."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
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
    """All rows of the training or test file; `build` checks one row's database and raises Unusable with the reason.

    `validation` are the groups of training rows that validation takes, where the loader says; None leaves it to the seed.
    """

    rows: list[Row]
    build: Callable[[Row], Example]
    validation: frozenset[str] | None = None


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


def sample_of_groups(groups: Mapping[str, int], room: float, seed: int, leave: int = 1) -> frozenset[str]:
    """Names of groups, in an order set by `seed` while their rows fit into `room`; at least the smallest, and never all.

    `leave` is how many groups there are at least that are not among them.
    """
    held: set[str] = set()
    for name in sorted(groups, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest()):
        if groups[name] <= room and len(groups) - len(held) > leave:
            held.add(name)
            room -= groups[name]
    return frozenset(held or {min(groups, key=lambda name: (groups[name], name))})
