"""Writes the generated data in Spider's official layout: questions, tables.json and one SQLite file per database."""

from __future__ import annotations

import json
import random
import re
import sqlite3
from pathlib import Path

from text2sql.data.mini_domains import GRETEL_ONLY, TEST, TRAIN
from text2sql.data.mini_questions import ask
from text2sql.data.mini_rows import Filling, create_table, declared_type, fill, insert_rows
from text2sql.data.mini_schema import Domain

TRAIN_QUESTIONS = 56
OTHER_QUESTIONS = 20
DEV_QUESTIONS = 20
# Two single-table databases stand in for the older data sets of train_others.json.
OTHERS = GRETEL_ONLY[-2:]
COLUMN_TYPES = {"TEXT": "text", "INTEGER": "number", "REAL": "number", "DATE": "time"}


def write(folder: Path, seed: int) -> None:
    """Writes train_spider.json, train_others.json, dev.json, tables.json and database/ into `folder`."""
    tables: list[dict] = []
    plan = (
        ("train_spider.json", TRAIN, TRAIN_QUESTIONS, 2),
        ("train_others.json", OTHERS, OTHER_QUESTIONS, 1),
        ("dev.json", TEST, DEV_QUESTIONS, 1),
    )
    for name, domains, count, repeats in plan:
        rows = []
        for domain in domains:
            rng = random.Random(f"spider/{seed}/{domain.name}")
            filling = fill(domain, rng)
            connection = _write_database(folder / "database" / domain.name / f"{domain.name}.sqlite", filling)
            rows += [_question_row(domain, q.text, q.sql) for q in ask(filling, connection, count, rng, repeats)]
            connection.close()
            tables.append(_tables_entry(filling))
        _write_json(folder / name, rows)
    _write_json(folder / "tables.json", tables)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def _write_database(path: Path, filling: Filling) -> sqlite3.Connection:
    path.parent.mkdir(parents=True)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA page_size = 1024")
    connection.execute("PRAGMA journal_mode = OFF")
    create = [create_table(table, filling) for table in filling.tables]
    connection.executescript("\n".join(["BEGIN;", *create, *map(insert_rows, filling.tables), "COMMIT;"]))
    return connection


def _question_row(domain: Domain, question: str, sql: str) -> dict:
    tokens = re.findall(r"'(?:[^']|'')*'|[\w.]+|[<>!]=|\S", sql)
    no_value = [_without_value(token) for token in tokens]
    return {
        "db_id": domain.name,
        "query": sql,
        "query_toks": tokens,
        "query_toks_no_value": [part for token in no_value for part in re.findall(r"\w+|[<>!]=|\S", token)],
        "question": question,
        "question_toks": re.findall(r"\w+(?:'\w+)?|\S", question),
    }


def _without_value(token: str) -> str:
    return "value" if token[0] == "'" or token.replace(".", "").isdigit() else token.lower()


def _tables_entry(filling: Filling) -> dict:
    columns = [(number, table, column) for number, table in enumerate(filling.tables) for column in table.spec.columns]
    position = {(table.spec.name, column.name): 1 + index for index, (_, table, column) in enumerate(columns)}
    primary, foreign = [], []
    for _, table, column in columns:
        here = position[table.spec.name, column.name]
        if column.kind == "id" or (column.kind == "ref" and not table.key):
            primary.append(here)
        if column.kind == "ref":
            foreign.append([here, position[column.source, filling.table(column.source).key]])
    return {
        "column_names": [[-1, "*"], *([number, column.name.replace("_", " ")] for number, _, column in columns)],
        "column_names_original": [[-1, "*"], *([number, column.name] for number, _, column in columns)],
        "column_types": ["text", *(COLUMN_TYPES[declared_type(column)] for _, _, column in columns)],
        "db_id": filling.domain.name,
        "foreign_keys": foreign,
        "primary_keys": primary,
        "table_names": [table.spec.name.replace("_", " ") for table in filling.tables],
        "table_names_original": [table.spec.name for table in filling.tables],
    }
