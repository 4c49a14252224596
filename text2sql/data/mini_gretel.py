"""Writes the generated data in gretel's eleven columns: a small schema with rows each time, in a looser SQL style."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import re
import sqlite3
from pathlib import Path

from text2sql.data.mini_domains import GRETEL_ONLY, TEST, TRAIN
from text2sql.data.mini_questions import Question, ask
from text2sql.data.mini_rows import Filling, create_table, fill, insert_rows
from text2sql.data.mini_schema import ColumnSpec, Domain, TableSpec

TRAIN_ROWS = 400
TEST_ROWS = 60
QUESTIONS_PER_SCHEMA = 4
TWO_TABLES = 0.2
CONTEXT_ROWS = 5

COMPLEXITY = {
    "basic SQL": "one table, without joins or aggregates",
    "aggregation": "counts, sums, averages and extremes, with or without groups",
    "single join": "two tables joined once",
    "multiple_joins": "three or more tables joined",
    "subqueries": "a query inside a condition of another",
    "set operations": "two queries put together by UNION, INTERSECT or EXCEPT",
}
ANALYTICS = ("analytics and reporting", "numbers and summaries for a report")
RETRIEVAL = ("data retrieval", "rows that satisfy a condition")
TYPES = {"TEXT": "VARCHAR(255)", "INTEGER": "INT", "REAL": "DECIMAL(10,2)", "DATE": "DATE"}


def write(folder: Path, seed: int) -> None:
    """Writes train.jsonl and test.jsonl; the databases of Spider's dev set are met in test only."""
    folder.mkdir(parents=True)
    rng = random.Random(f"gretel/{seed}")
    seen: set[str] = set()
    train = _rows((*TRAIN, *GRETEL_ONLY), TRAIN_ROWS, 1, seen, rng)
    test = _rows(TEST, TEST_ROWS, 1 + TRAIN_ROWS, seen, rng)
    for name, rows in (("train", train), ("test", test)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8", newline="\n")


def _rows(domains: tuple[Domain, ...], count: int, first_id: int, seen: set[str], rng: random.Random) -> list[dict]:
    rows: list[dict] = []
    turns = itertools.cycle(domains)
    while len(rows) < count:
        domain = next(turns)
        filling = fill(_excerpt(domain, rng), rng, CONTEXT_ROWS, CONTEXT_ROWS + 2)
        context = _context(filling)
        connection = sqlite3.connect(":memory:")
        connection.executescript(context)
        for question in ask(filling, connection, QUESTIONS_PER_SCHEMA, rng):
            if len(rows) < count and question.text not in seen:
                seen.add(question.text)
                rows.append(_row(first_id + len(rows), domain, question, context, rng))
        connection.close()
    return rows


def _excerpt(domain: Domain, rng: random.Random) -> Domain:
    """One table of the domain, or a child and its parent, with some columns left out."""
    alone = [
        table
        for table in domain.tables
        if (table.kind("id", "label") and len(table.columns) > 3) or len(domain.tables) == 1
    ]
    links = [(parent, table) for table in domain.tables for parent in domain.tables if _references(table, parent)]
    if links and rng.random() < TWO_TABLES:
        parent, child = rng.choice(links)
        return dataclasses.replace(domain, tables=(_thinned(parent, (), rng), _thinned(child, (parent.name,), rng)))
    return dataclasses.replace(domain, tables=(_thinned(rng.choice(alone), (), rng),))


def _references(table: TableSpec, parent: TableSpec) -> bool:
    return any(column.source == parent.name for column in table.kind("ref"))


def _thinned(table: TableSpec, parents: tuple[str, ...], rng: random.Random) -> TableSpec:
    columns = [column for column in table.columns if column.kind != "ref" or column.source in parents]
    optional = [column for column in columns if column.kind in ("category", "number", "date")]
    if len(optional) > 2 and rng.random() < 0.5:
        columns.remove(rng.choice(optional))
    if not any(column.kind == "id" for column in columns):
        columns.insert(0, ColumnSpec("id", "id"))
    return dataclasses.replace(table, columns=tuple(columns))


def _context(filling: Filling) -> str:
    statements = []
    for table in filling.tables:
        create = re.sub(r"\b(TEXT|INTEGER|REAL)\b", lambda match: TYPES[match[0]], create_table(table, filling))
        statements += [create, insert_rows(table)]
    return " ".join(statements)


def _row(number: int, domain: Domain, question: Question, context: str, rng: random.Random) -> dict:
    complexity = _complexity(question.sql)
    task, task_description = RETRIEVAL if complexity == "basic SQL" else ANALYTICS
    return {
        "id": number,
        "domain": domain.name.replace("_", " "),
        "domain_description": domain.about,
        "sql_complexity": complexity,
        "sql_complexity_description": COMPLEXITY[complexity],
        "sql_task_type": task,
        "sql_task_type_description": task_description,
        "sql_prompt": question.text,
        "sql_context": context,
        "sql": _loosened(question.sql, rng),
        "sql_explanation": _explanation(question.sql),
    }


def _complexity(sql: str) -> str:
    if re.search("UNION|INTERSECT|EXCEPT", sql):
        return "set operations"
    if sql.count("SELECT") > 1:
        return "subqueries"
    if " JOIN " in sql:
        return "single join" if sql.count(" JOIN ") == 1 else "multiple_joins"
    return "aggregation" if re.search(r"\b(COUNT|SUM|AVG|MIN|MAX)\(", sql) else "basic SQL"


def _loosened(sql: str, rng: random.Random) -> str:
    """The same query as people write it: a semicolon, now and then aliases for tables and aggregates."""
    match = re.search(r"FROM (\w+) JOIN (\w+)", sql)
    if match and rng.random() < 0.5:
        for table, alias in zip(match.groups(), ("a", "b")):
            sql = re.sub(rf"\b{table}\b(?=\.)", alias, sql)
            sql = re.sub(rf"\b(FROM|JOIN) {table}\b", rf"\1 {table} {alias}", sql)
    selected, rest = sql.split(" FROM ", 1)
    if rng.random() < 0.4 and "SELECT" not in rest:
        selected = re.sub(
            r"\b(AVG|SUM|MIN|MAX)\((?:\w+\.)?(\w+)\)", lambda m: f"{m[0]} AS {m[1].lower()}_{m[2]}", selected
        )
        selected = selected.replace("COUNT(*)", "COUNT(*) AS total")
    return f"{selected} FROM {rest};"


CLAUSES = (
    (" JOIN ", "joins the tables on their key"),
    (" WHERE ", "keeps the rows that satisfy the condition"),
    (" GROUP BY ", "groups them"),
    (" HAVING ", "keeps the groups that satisfy the condition"),
    (" ORDER BY ", "sorts the result"),
    (" LIMIT ", "keeps the first rows"),
)


def _explanation(sql: str) -> str:
    tables = dict.fromkeys(re.findall(r"(?:FROM|JOIN) (\w+)", sql))
    steps = [f"reads {' and '.join(tables)}"]
    steps += [words for clause, words in CLAUSES if clause in sql]
    return f"The query {', '.join(steps)}."
