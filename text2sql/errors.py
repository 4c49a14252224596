"""What an error says, in one line: many libraries write a page, and some errors, such as TimeoutError(), say nothing."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of what `error` says; the name of its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
