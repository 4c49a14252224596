"""What a token budget leaves of the schemas of Spider: the tables, columns and values its gold SQL needs; and how fast.

python benchmarks/schema_budget.py --data data/spider
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from sqlglot import expressions as exp

from text2sql import commandline, config, model, prompts, relevance, serialise, values
from text2sql.config import Config, Data, Order, Prompt, Trainer
from text2sql.data import spider
from text2sql.example import Column, Example, ForeignKey, Schema, Table
from text2sql.shortening import Shown
from text2sql.sql.database import open_readonly, read_schema
from text2sql.sql.names import read

BUDGETS = (256, 512, 1024)
UNBOUNDED = 1_000_000


class Needs(NamedTuple):
    """What a gold query names, in lower case: tables, "table.column"s, and its string literals."""

    tables: frozenset[str]
    columns: frozenset[str]
    texts: frozenset[str]


class Outcome(NamedTuple):
    """Of one question at one budget: how many of the needed tables and columns are shown, and of how many."""

    tables: int
    all_tables: int
    columns: int
    all_columns: int
    shortened: bool


def needs(example: Example) -> Needs | None:
    """None for a gold that cannot be read."""
    try:
        reading = read(example.sql, example.schema)
    except ValueError:
        return None
    real = {table.name.lower() for table in example.schema.tables}
    tables = {s.label.split("#")[0].lower() for scope in reading.scopes.values() for s in scope.sources} & real
    columns = set()
    for name in reading.names.values():
        if isinstance(name, str):
            table, _, column = name.lower().rpartition(".")
            columns.add(f"{table.split('#')[0]}.{column}")
    known = {f"{t.name}.{c.name}".lower() for t in example.schema.tables for c in t.columns}
    texts = {node.this for node in reading.tree.find_all(exp.Literal) if node.is_string}
    texts |= {str(name.this) for name in reading.names.values() if isinstance(name, exp.Literal) and name.is_string}
    return Needs(frozenset(tables), frozenset(columns & known), frozenset(texts))


def settings(style: str, budget: int | None, **more: Any) -> Config:
    return Config(
        model=composed().model,
        prompt=Prompt(style=style, instruction="", max_schema_tokens=budget, max_sql_tokens=1, **more),
        trainer=Trainer(max_length=UNBOUNDED),
    )


@lru_cache
def composed() -> Config:
    with initialize_config_dir(version_base="1.3", config_dir=str(commandline.CONF)):
        return config.load(compose("train", overrides=["model=smollm2_135m", "tracking=none"]))


@lru_cache
def tokenizer() -> Any:
    return model.load_tokenizer(composed().model)


def examples(folder: str, split: str) -> list[Example]:
    source = spider.load(Data(name="spider", path=folder, hub_id=""), split)
    return [source.build(row) for row in source.rows]


def outcome(example: Example, style: str, budget: int) -> Outcome | None:
    """None where the gold is not read."""
    needed = needs(example)
    if needed is None:
        return None
    setting = settings(style, budget)
    shown = Shown(example, setting.prompt, setting.seed)
    steps = prompts.steps_to_fit(tokenizer(), shown, setting)
    schema, _ = shown.left(steps)
    tables = {table.name.lower() for table in schema.tables}
    columns = {f"{table.name}.{column.name}".lower() for table in schema.tables for column in table.columns}
    return Outcome(
        len(needed.tables & tables),
        len(needed.tables),
        len(needed.columns & columns),
        len(needed.columns),
        steps > 0,
    )


def recall(folder: str, split: str, style: str, budget: int) -> str:
    found = [one for example in examples(folder, split) if (one := outcome(example, style, budget))]
    tables = sum(one.tables for one in found) / sum(one.all_tables for one in found)
    columns = sum(one.columns for one in found) / sum(one.all_columns for one in found)
    whole = sum(one.tables == one.all_tables and one.columns == one.all_columns for one in found) / len(found)
    cut = sum(one.shortened for one in found) / len(found)
    return f"{split:6}{style:12}{budget:7,}{len(found):8,}{tables:9.2%}{columns:9.2%}{whole:9.2%}{cut:11.1%}"


def recalls(folder: str, splits: list[str], styles: list[str], workers: int) -> Iterator[str]:
    jobs = [(folder, split, style, budget) for style in styles for split in splits for budget in BUDGETS]
    yield f"{'split':6}{'style':12}{'tokens':>7}{'n':>8}{'tables':>9}{'columns':>9}{'all':>9}{'shortened':>11}"
    if workers == 1:
        yield from (recall(*job) for job in jobs)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(recall, *zip(*jobs))


def large_schema(num_tables: int = 500, num_columns: int = 10) -> Schema:
    words = "customer order invoice product supplier region account payment city student course movie rating".split()
    tables = []
    for i in range(num_tables):
        name = f"{words[i % len(words)]}_{words[i * 7 % len(words)]}_{i}"
        columns = [Column("id", "INTEGER", True), Column("parent_id", "INTEGER")]
        columns += [Column(f"{words[(i + j) % len(words)]}_field_{j}", "VARCHAR(40)") for j in range(num_columns - 2)]
        keys = (ForeignKey(("parent_id",), tables[i // 2].name, ("id",)),) if i else ()
        tables.append(Table(name, tuple(columns), keys))
    return Schema(tuple(tables))


def large_times(rounds: int = 5) -> Iterator[str]:
    """Medians; what was loaded before is taken out of Python's garbage collection, whose pauses are not of this work."""
    tokenizer()("warm", add_special_tokens=False)
    schema = large_schema()
    gc.collect()
    gc.freeze()
    for style in ("ddl_fk", "qualified"):
        for order in Order:
            setting = settings(style, 1024, order=order)
            first, later, steps = [], [], 0
            for number in range(rounds):
                for cached in (relevance.vocabulary, relevance.name_words, relevance.stem, serialise.quote):
                    cached.cache_clear()
                for times in (first, later, later):
                    question = f"Which customer of region {number + len(later)} paid an invoice?"
                    started = time.perf_counter()
                    steps = prompts.encode_prompt(
                        tokenizer(), Example("x", question, "", "x", schema), setting
                    ).shortened
                    times.append(time.perf_counter() - started)
            yield (
                f"{len(schema.tables)} tables, {style}, order={order.value}: {statistics.median(first) * 1e3:.0f} ms first, "
                f"{statistics.median(later) * 1e3:.0f} ms later, {steps:,} steps"
            )


def value_times(found: list[Example]) -> Iterator[str]:
    by_database = {example.database: example for example in found}
    started = time.perf_counter()
    for example in by_database.values():
        values.find(example)
    indexing = time.perf_counter() - started
    started = time.perf_counter()
    for example in found:
        values.find(example)
    finding = time.perf_counter() - started
    yield f"{len(by_database)} databases indexed in {indexing:.1f} s (or opened, where they were indexed before)"
    yield f"values found for {len(found):,} questions in {finding:.1f} s, {finding / len(found) * 1e3:.2f} ms each"


def literal_recall(found: list[Example], split: str) -> str:
    """How many string literals of the gold that stand in the database are among the shown values."""
    there = shown = at_all = values_shown = 0
    for example in found:
        needed = needs(example)
        if needed is None:
            continue
        literals = Shown(example, settings("ddl_values", None).prompt, 0).content.values
        flat = {text for texts in literals.values() for text in texts}
        values_shown += sum(map(len, literals.values()))
        for text in needed.texts:
            at_all += 1
            if text in all_values(example.database):
                there += 1
                shown += serialise.literal(text, serialise.MAX_VALUE_CHARACTERS) in flat
    return (
        f"{split}: of {at_all:,} string literals {there:,} stand in the database as written and {shown:,} of these "
        f"({shown / there:.1%}) are shown; {values_shown / len(found):.2f} values a prompt"
    )


@lru_cache
def all_values(database: str) -> frozenset[str]:
    """Every cell of a database, as text."""
    with closing(open_readonly(database)) as connection:
        found: set[str] = set()
        for table in read_schema(connection).tables:
            for column in table.columns:
                name, of = (part.replace('"', '""') for part in (column.name, table.name))
                found.update(str(value) for (value,) in connection.execute(f'SELECT DISTINCT "{name}" FROM "{of}"'))
        return frozenset(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="Spider's official folder")
    parser.add_argument("--splits", nargs="+", default=["train", "test"], help="train, and test: Spider's dev")
    parser.add_argument("--styles", nargs="+", default=["ddl_fk", "qualified"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", choices=["recall", "times", "literals"])
    options = parser.parse_args()
    options.data = str(Path(options.data).resolve())
    found = {split: examples(options.data, split) for split in options.splits}
    everything = [example for of in found.values() for example in of]
    if options.only in (None, "times"):
        for line in [*value_times(everything), *large_times()]:
            print(line, flush=True)
    if options.only in (None, "literals"):
        for split in options.splits:
            print(literal_recall(found[split], split), flush=True)
    if options.only in (None, "recall"):
        for line in recalls(options.data, options.splits, options.styles, options.workers):
            print(line, flush=True)


if __name__ == "__main__":
    main()
