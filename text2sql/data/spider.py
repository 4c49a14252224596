"""Loads Spider (Yu et al. 2018): questions from its JSON files, schemas from its SQLite files."""

from __future__ import annotations

import logging
from collections.abc import Container
from contextlib import closing
from pathlib import Path

from text2sql.config import Data
from text2sql.data import files
from text2sql.data.source import Row, Source, Unusable, text
from text2sql.example import Example, Schema
from text2sql.sql.database import open_readonly, read_schema

log = logging.getLogger(__name__)

# The files' recursive `sql` column is never read.
COLUMNS = ("question", "query", "db_id")

UNKNOWN, MISSING, UNREADABLE, NO_TABLES = DATABASE_FAULTS = (
    "unknown db_id",
    "missing database file",
    "unreadable database file",
    "database without tables",
)


def load(config: Data, split: str) -> Source:
    """The rows of `split` (train, or test: Spider's dev) from data.path: the official folder, a hub id, or mini.

    The hub has questions only: its examples have no schema and no database. Raises ValueError for what is not there.
    """
    path = files.local(config)
    if path is None:
        return _from_hub(config, split)
    names = ["dev"] if split == "test" else ["train_spider"] + ["train_others"] * config.include_others
    for wanted in [*(f"{name}.json" for name in names), "database"]:
        if not (path / wanted).exists():
            raise ValueError(
                f"data.path={path} has no {'database/ folder' if wanted == 'database' else wanted}: unpack Spider's "
                "official archive there (train_spider.json, dev.json, database/<db_id>/<db_id>.sqlite), "
                "or set data.path=mini"
            )
    databases = _Databases(path / "database")
    rows = [row for name in names for row in _rows(name, files.read(path / f"{name}.json", COLUMNS), databases.present)]
    return Source(rows, databases.build)


def _rows(name: str, rows: list[dict], present: Container[str] | None = None) -> list[Row]:
    """`present` are the databases there are, None for any."""
    result = []
    for number, row in enumerate(rows):
        db_id = row.get("db_id")
        group = db_id if isinstance(db_id, str) and (present is None or db_id in present) else None
        result.append(Row(f"spider/{name}/{number}", row.get("question"), row.get("query"), db_id, group))
    return result


def _from_hub(config: Data, split: str) -> Source:
    if config.include_others:
        raise ValueError(
            "data.include_others=true needs the official archive: set data.path to the folder it is unpacked in"
        )
    log.warning(
        "%s on the hub has questions only: prompts will show no schema and nothing can be executed. "
        "For both, unpack the official Spider archive and set data.path to its folder",
        config.path,
    )
    name, hub_split = ("dev", "validation") if split == "test" else ("train_spider", "train")
    return Source(_rows(name, files.from_hub(config, hub_split, COLUMNS)), _without_database)


def _without_database(row: Row) -> Example:
    return Example(row.id, text(row.question, "question"), text(row.sql, "query"), text(row.db_id, "db_id"))


class _Databases:
    """The database folder; every schema is read once, and a database that cannot be read is remembered as such."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.known = {path.name for path in self.folder.iterdir()}
        self.present = {db_id for db_id in self.known if self._file(db_id).is_file()}
        self.read: dict[str, Schema | Unusable] = {}

    def build(self, row: Row) -> Example:
        db_id = text(row.db_id, "db_id")
        if db_id not in self.read:
            self.read[db_id] = self._schema(db_id)
        schema = self.read[db_id]
        if isinstance(schema, Unusable):
            raise schema
        question, sql = text(row.question, "question"), text(row.sql, "query")
        return Example(row.id, question, sql, db_id, schema, database=str(self._file(db_id)))

    def _file(self, db_id: str) -> Path:
        return self.folder / db_id / f"{db_id}.sqlite"

    def _schema(self, db_id: str) -> Schema | Unusable:
        if db_id not in self.known:
            return Unusable(UNKNOWN)
        try:
            with closing(open_readonly(str(self._file(db_id)))) as connection:
                schema = read_schema(connection)
        except FileNotFoundError:
            return Unusable(MISSING)
        except ValueError:
            return Unusable(UNREADABLE)
        return schema if schema.tables else Unusable(NO_TABLES)
