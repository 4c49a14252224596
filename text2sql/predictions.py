"""Read and write files of predictions, so that one is never scored against the wrong question."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from text2sql.example import Example


def read_predictions(path: str | Path, examples: Sequence[Example]) -> list[str]:
    """Read one prediction for each example, in the examples' order, from text or, by its name, from .jsonl.

    Text has one SQL a line, optionally followed by a tab and the db_id; a blank line is an empty prediction. A line of
    .jsonl is an object with "prediction", optionally "db_id", and "id" in all lines or none; lines with ids may come
    in any order. Raises ValueError, naming file and line, for anything that does not fit the examples.
    """
    lines = _lines(Path(path), len(examples))
    if Path(path).suffix == ".jsonl":
        return _from_jsonl(path, lines, examples)
    _check_count(path, len(lines), len(examples))
    predictions = []
    for number, (line, example) in enumerate(zip(lines, examples), 1):
        prediction, tab, db_id = line.rpartition("\t")
        if tab:
            _check_db_id(f"{path}:{number}", db_id.strip(), example)
        predictions.append(prediction if tab else line)
    return predictions


def _lines(path: Path, expected: int) -> list[str]:
    # Split at line feeds only: str.splitlines would also split at characters that SQL strings may hold.
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if raw[-1] == b"":
        raw.pop()
    if not raw:
        raise ValueError(f"{path} is empty: expected {expected} predictions")
    lines = []
    for number, line in enumerate(raw, 1):
        try:
            lines.append(line.decode("utf-8").removesuffix("\r"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}:{number}: not UTF-8 ({error.reason}): save the file as UTF-8") from error
    return lines


def _check_count(path: str | Path, found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(
            f"{path}: {found} predictions, expected {expected}: one a line, a blank line being an empty one"
        )


def _check_db_id(where: str, db_id: object, example: Example) -> None:
    if db_id != example.db_id:
        cure = "put the predictions in the examples' order, and no tabs into SQL"
        raise ValueError(f"{where}: db_id {db_id!r}, expected {example.db_id!r} for example {example.id}: {cure}")


def _from_jsonl(path: str | Path, lines: Sequence[str], examples: Sequence[Example]) -> list[str]:
    rows = [_parsed(f"{path}:{number}", line) for number, line in enumerate(lines, 1)]
    positions = _positions(path, rows, examples) if any("id" in row for row in rows) else range(len(rows))
    _check_count(path, len(rows), len(examples))
    predictions = [""] * len(examples)
    for number, (row, position) in enumerate(zip(rows, positions), 1):
        if "db_id" in row:
            _check_db_id(f"{path}:{number}", row["db_id"], examples[position])
        predictions[position] = row["prediction"]
    return predictions


def _parsed(where: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f'{where}: not JSON ({error}): each line is an object with a "prediction"') from error
    if isinstance(row, dict) and isinstance(row.get("prediction"), str):
        return row
    raise ValueError(f'{where}: no "prediction" with SQL text in it: each line is an object with a "prediction"')


def _positions(path: str | Path, rows: Sequence[dict[str, Any]], examples: Sequence[Example]) -> list[int]:
    """Which example each row answers, by id."""
    known = {example.id: position for position, example in enumerate(examples)}
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        if "id" not in row:
            raise ValueError(f"{path}:{number}: no id, unlike other lines: give every line an id, or none")
        if not isinstance(row["id"], str) or row["id"] not in known:
            raise ValueError(
                f"{path}:{number}: unknown id {row['id']!r}: expected {len(known)} ids such as {next(iter(known))!r}"
            )
        if row["id"] in seen:
            raise ValueError(
                f"{path}:{number}: id {row['id']!r} was on line {seen[row['id']]} already: keep one of them"
            )
        seen[row["id"]] = number
    return [known[row["id"]] for row in rows]


def write_predictions(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as .jsonl in UTF-8; the file appears complete or not at all."""
    aside = Path(f"{path}.{os.getpid()}.tmp")
    try:
        # A lone surrogate becomes the JSON escape it would have been, so that every text can be written and read again.
        with aside.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
