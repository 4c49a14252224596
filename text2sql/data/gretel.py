"""Loads gretelai/synthetic_text_to_sql and data in its columns: a question, a script with tables, and the gold SQL."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from contextlib import closing
from pathlib import Path

from text2sql.config import Data
from text2sql.data import files
from text2sql.data.ddl import parse_schema
from text2sql.data.source import Row, Source, Unusable, text
from text2sql.example import Example, Schema
from text2sql.sql.database import open_memory, read_schema

COLUMNS = ("sql_prompt", "sql_context", "sql")
OPTIONAL = ("id",)
CREATE_TABLE = re.compile(r"""CREATE\s[^;]*?\bTABLE\s+[\w"`\[][^;]*""", re.IGNORECASE)


def load(config: Data, split: str) -> Source:
    """The rows of `split` (train or test) from data.path: a hub id, a file, a folder with train.* and test.*, or mini.

    A file alone is training rows. Raises ValueError for a path, file or column that is not there.
    """
    path = files.local(config)
    if path is None:
        rows = files.from_hub(config, split, COLUMNS, OPTIONAL)
    else:
        rows = files.read(_file(path, split), COLUMNS, OPTIONAL)
    return Source([_row(split, number, row) for number, row in enumerate(rows)], build)


def _file(path: Path, split: str) -> Path:
    if path.is_file():
        if split == "train":
            return path
        raise ValueError(
            f"data.path={path} is one file, which is read as training rows: for the test split put it in a folder as "
            f"train{path.suffix}, with test{path.suffix} beside it, and name the folder"
        )
    found = [file for suffix in files.SUFFIXES if (file := path / f"{split}{suffix}").is_file()]
    if len(found) == 1:
        return found[0]
    names = ", ".join(file.name for file in (found or sorted(path.iterdir()))) or "nothing"
    wanted = f"exactly one of {', '.join(split + suffix for suffix in files.SUFFIXES)}"
    raise ValueError(f"data.path={path} must hold {wanted}; it holds {names}")


def _row(split: str, number: int, row: dict) -> Row:
    given = row.get("id")
    context = row.get("sql_context")
    group = schema_hash(context) if isinstance(context, str) else None
    return Row(
        id=f"gretel/{split}/{number if given is None else given}",
        question=row.get("sql_prompt"),
        sql=row.get("sql"),
        db_id=group,
        group=group,
        context=context,
    )


def schema_hash(context: str) -> str | None:
    """A short name for the CREATE TABLE statements of a script, whatever their order, case, quotes, spaces and rows.

    gretel names no databases (`domain` is a subject, not a schema); rows of one schema must not be spread over splits.
    None for a script without a CREATE TABLE.
    """
    creates = CREATE_TABLE.findall(context)
    if not creates:
        return None
    normal = sorted(re.sub(r"""[\s"`\[\]]+""", "", create).lower().replace("ifnotexists", "") for create in creates)
    return hashlib.sha256("\n".join(normal).encode(errors="backslashreplace")).hexdigest()[:12]


def build(row: Row) -> Example:
    """The Example of a row; where SQLite cannot run the context, its schema is parsed and it is not executable."""
    script = text(row.context, "sql_context")
    schema, context = _schema(script)
    if not schema.tables:
        raise Unusable("no table in sql_context")
    return Example(
        id=row.id,
        question=text(row.question, "sql_prompt"),
        sql=text(row.sql, "sql"),
        db_id=str(row.db_id),
        schema=schema,
        context=context,
    )


def _schema(script: str) -> tuple[Schema, str]:
    """The tables, and the script again if it can be executed."""
    try:
        with closing(open_memory(script)) as connection:
            return read_schema(connection), script
    except sqlite3.Error:
        pass
    try:
        return parse_schema(script), ""
    except (ValueError, RecursionError):
        raise Unusable("sql_context does not parse") from None
