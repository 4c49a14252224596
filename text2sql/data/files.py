"""Finds the rows that data.path names, on disk, generated or on the Hugging Face Hub, and reads them as dicts."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

from text2sql.config import Data
from text2sql.data import mini

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")


def local(config: Data) -> Path | None:
    """The file or folder that data.path names, None for a hub id; raises ValueError when it is neither."""
    if config.path == "mini":
        return mini.path() / config.name
    path = Path(config.path).expanduser()
    if path.exists():
        return path
    if config.path == config.hub_id or _looks_like_hub_id(config.path):
        return None
    raise ValueError(f"data.path={config.path} does not exist: {cures(config)}")


def _looks_like_hub_id(path: str) -> bool:
    owner, _, name = path.partition("/")
    # data/ is where this repository's users keep their files: never a name to look up on the Hub.
    return bool(owner and name) and "/" not in name and owner not in (".", "..", "~", "data") and "\\" not in path


def cures(config: Data) -> str:
    """What a user can do when data.path leads nowhere."""
    return f"set data.path=<local file or folder>, data.path={config.hub_id} (needs a network), or data.path=mini"


def from_hub(config: Data, split: str, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> list[dict]:
    """The rows of one split of the hub data set `data.path`; raises ValueError when it cannot be had."""
    import datasets

    try:
        dataset = datasets.load_dataset(config.path, split=split)
    except (OSError, ValueError) as error:
        tried = (
            f"{config.path} is no local path, and loading split {split!r} of that name from the Hugging Face Hub failed"
        )
        raise ValueError(
            f"data.path: {tried} ({error}). Without a network set data.path=<local file or folder> or data.path=mini"
        ) from error
    check_columns(f"{config.path} ({split})", dataset.column_names, columns)
    kept = [name for name in (*columns, *optional) if name in dataset.column_names]
    return dataset.select_columns(kept).to_list()


def check_columns(place: str, found: list[str], needed: tuple[str, ...], setting: str = "data.path") -> None:
    """Raises ValueError naming the place, the first missing column and the columns found."""
    for name in needed:
        if name not in found:
            raise ValueError(
                f"{setting}: {place} has no column {name!r}; it has {', '.join(sorted(found)) or 'no columns'}"
            )


def read(
    file: Path, columns: tuple[str, ...], optional: tuple[str, ...] = (), setting: str = "data.path"
) -> list[dict]:
    """The rows of a parquet, jsonl, json or csv file that has all `columns`; raises ValueError naming the file."""
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{setting}: {file} is none of {', '.join(SUFFIXES)}")
    if file.suffix == ".parquet":
        return _read_parquet(file, columns, optional)
    rows = _read_csv(file, setting) if file.suffix == ".csv" else _read_json(file, setting)
    if not rows:
        raise ValueError(f"{setting}: {file} holds no rows")
    found = list(dict.fromkeys(name for row in rows for name in row))
    check_columns(str(file), found, columns, setting)
    return rows


def _read_parquet(file: Path, columns: tuple[str, ...], optional: tuple[str, ...]) -> list[dict]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
        check_columns(str(file), table.schema_arrow.names, columns)
        kept = [name for name in (*columns, *optional) if name in table.schema_arrow.names]
        return table.read(columns=kept).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"data.path: {file} is not a parquet file: {error}") from error


def _text(file: Path, setting: str) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{setting}: {file} is not in UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from error


def _read_csv(file: Path, setting: str) -> list[dict]:
    csv.field_size_limit(sys.maxsize)
    lines = io.StringIO(_text(file, setting), newline="")
    return [{name: value or None for name, value in row.items() if name} for row in csv.DictReader(lines)]


def _read_json(file: Path, setting: str) -> list[dict]:
    content = _text(file, setting)
    if file.suffix == ".json":
        rows = _parsed(content, f"{setting}: {file} is not valid JSON")
    else:
        lines = enumerate(content.split("\n"), 1)
        rows = [_parsed(line, f"{setting}: {file} is not valid JSON in line {n}") for n, line in lines if line.strip()]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{setting}: {file} must hold one object per row")
    return rows


def _parsed(content: str, complaint: str) -> Any:
    try:
        return json.loads(content)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{complaint}: {error}") from error
