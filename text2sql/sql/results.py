"""Results of queries made small: a preview of one to be shown, and a digest of one to tell it from others."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

from text2sql.sql.compare import rounded_value
from text2sql.sql.execute import Result

PREVIEW_CHARACTERS = 200
CELL_BYTES = 8


def preview(result: Result | None, max_rows: int) -> dict[str, Any] | None:
    """The first rows as JSON can hold them; None where there is no result."""
    if result is None or result.error:
        return None
    rows = [[_shown(value) for value in row] for row in result.rows[:max_rows]]
    return {"columns": [_shown(name) for name in result.columns], "rows": rows, "num_rows": len(result.rows)}


def _shown(value: Any) -> Any:
    """A cell as JSON can hold it and a page can show it; long ones are cut."""
    if isinstance(value, bytes):
        value = f"x'{value[:PREVIEW_CHARACTERS].hex()}'"
    elif isinstance(value, str):
        value = value[: PREVIEW_CHARACTERS + 1].encode("utf-8", "replace").decode("utf-8")
    elif isinstance(value, float) and not math.isfinite(value):
        return str(value)
    elif isinstance(value, int) and abs(value) >= 2**53:
        return str(value)  # a page's numbers are floats
    if isinstance(value, str) and len(value) > PREVIEW_CHARACTERS:
        return value[:PREVIEW_CHARACTERS] + "…"
    return value


def digest(rows: Sequence[tuple], num_columns: int, *, ordered: bool) -> str:
    """The same for results that `compare.same_result` calls equal, and for hardly any others, in every process.

    Rows count as a multiset unless they are `ordered`, numbers by their rounding, and columns in any order: they are laid out
    by what each contains, so that only columns with the very same values, in other rows, can make two digests out of equal
    results. Unlike there, an ordered result of several rows never equals one that is not.
    """
    columns = [list(map(_cell, column)) for column in zip(*rows)]
    columns.sort(key=lambda column: sum(int.from_bytes(cell, "big") for cell in column))
    lines = [b"".join(line) for line in zip(*columns)]
    if not (ordered and len(rows) > 1):
        ordered = False
        lines.sort()
    whole = hashlib.sha256(f"{num_columns} {len(rows)} {ordered}\n".encode("ascii"))
    for line in lines:
        whole.update(line)
    return whole.hexdigest()


def _cell(value: Any) -> bytes:
    text = repr(rounded_value(value)).encode("utf-8", "backslashreplace")
    return hashlib.blake2b(text, digest_size=CELL_BYTES).digest()
