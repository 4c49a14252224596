"""How many golds of Spider the constraint accepts, and what advance and masks cost over them: --data DIR with database/.

With --random SECONDS, instead: texts written at random under it, over Spider's schemas, and what SQLite says of their names.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import time
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

from text2sql import constraint, smollm2
from text2sql.example import Schema
from text2sql.sql import names
from text2sql.sql.database import open_readonly, read_schema


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--loose", action="store_true")
    parser.add_argument("--random", type=float, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.random:
        write_at_random(options.data, options.random, options.seed, options.loose)
        return
    for split in ("train_spider", "train_others", "dev"):
        accepted, judged = accept(options.data, split, options.loose)
        print(f"{split}: {accepted} of {judged} golds accepted")
    speed(options.data, options.loose)


def golds(data: Path, split: str) -> list[tuple[str, str]]:
    return [(gold["db_id"], gold["query"].strip()) for gold in json.loads((data / f"{split}.json").read_text("utf-8"))]


def database(data: Path, db: str) -> sqlite3.Connection:
    return open_readonly(str(data / "database" / db / f"{db}.sqlite"))


def accept(data: Path, split: str, loose: bool) -> tuple[int, int]:
    """How many golds are accepted, of those that SQLite compiles and whose names resolve."""
    opened: dict[str, tuple[sqlite3.Connection, Schema]] = {}
    accepted = judged = 0
    for db, sql in golds(data, split):
        if db not in opened:
            connection = database(data, db)
            opened[db] = connection, read_schema(connection)
        connection, schema = opened[db]
        try:
            connection.execute(f"EXPLAIN {sql}")
            resolves = not names.read(sql, schema).unknown
        except (sqlite3.Error, ValueError):
            continue
        judged += resolves
        if resolves:
            why = constraint.explain(sql, schema, loose=loose)
            accepted += not why
            if why:
                print(f"  {db}: {sql}\n    {why}")
    return accepted, judged


def speed(data: Path, loose: bool) -> None:
    """Times over dev's golds, each read from its first token on."""
    tokenizer = AutoTokenizer.from_pretrained(smollm2.fetch())
    began = time.perf_counter()
    vocabulary = constraint.Vocabulary(tokenizer)
    print(f"vocabulary of {vocabulary.size} tokens: {time.perf_counter() - began:.1f} s")
    schemas: dict[str, Schema] = {}
    advances, new, known = [], [], []
    for db, sql in golds(data, "dev"):
        if db not in schemas:
            schemas[db] = read_schema(database(data, db))
        one = constraint.of(schemas[db], vocabulary, loose)
        state: constraint.State | None = one.start()
        for token_id in [*tokenizer(sql)["input_ids"], tokenizer.eos_token_id]:
            if state is None:
                break
            computed, start = one.computed, time.perf_counter()
            one.mask(state)
            middle = time.perf_counter()
            (new if one.computed > computed else known).append(middle - start)
            state = one.advance(state, token_id)
            advances.append(time.perf_counter() - middle)
    states = [constraint.of(schema, vocabulary, loose).states for schema in schemas.values()]
    print(f"advance: {1e6 * np.mean(advances):.1f} microseconds, mean of {len(advances)}")
    print(f"mask: {1e3 * np.mean(new):.2f} ms computed ({1e3 * np.percentile(new, 95):.1f} ms at the 95th percentile)")
    print(f"mask: {1e6 * np.mean(known):.2f} microseconds known; {len(known) / (len(new) + len(known)):.1%} are")
    print(f"states per schema: {np.mean(states):.0f}")


FREQUENT = (
    " SELECT",
    " FROM",
    " WHERE",
    " JOIN",
    " ON",
    " AS",
    " T1",
    " T2",
    " GROUP",
    " BY",
    " ORDER",
    " (",
    ")",
    " =",
    " AND",
    ",",
    ".",
    "*",
)
MAX_TOKENS, SHARE_FREQUENT, SHARE_ENDED = 120, 0.5, 0.4


def write_at_random(data: Path, seconds: float, seed: int, loose: bool) -> None:
    """Choose among the allowed tokens, half of the time a frequent one, and let SQLite compile what came to an end."""
    tokenizer = AutoTokenizer.from_pretrained(smollm2.fetch())
    vocabulary, rng = constraint.Vocabulary(tokenizer), random.Random(seed)
    frequent = [tokenizer(text, add_special_tokens=False)["input_ids"][-1] for text in FREQUENT]
    folders = sorted(path.name for path in (data / "database").iterdir())
    texts = ended = unknown = 0
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        connection = database(data, rng.choice(folders))
        ids = written(constraint.of(read_schema(connection), vocabulary, loose), tokenizer.eos_token_id, frequent, rng)
        texts += 1
        if ids is not None:
            ended += 1
            try:
                connection.execute(f"EXPLAIN {tokenizer.decode(ids)}")
            except sqlite3.Error as error:
                if "no such column" in str(error) or "no such table" in str(error):
                    unknown += 1
                    print(f"  {error}: {tokenizer.decode(ids)}")
        connection.close()
    print(f"{texts} texts, {ended} ended, {unknown} name what is not there")


def written(one: constraint.Constraint, eos: int, frequent: list[int], rng: random.Random) -> list[int] | None:
    """The ids of a text, None where it did not end."""
    state, ids = one.start(), []
    for _ in range(MAX_TOKENS):
        mask = one.mask(state)
        usual = [token for token in frequent if mask[token]]
        if mask[eos] and rng.random() < SHARE_ENDED:
            return ids
        token = rng.choice(usual) if usual and rng.random() < SHARE_FREQUENT else int(rng.choice(np.flatnonzero(mask)))
        after = one.advance(state, token)
        assert after is not None, "a mask allows what advance does not"
        if token == eos:
            return ids
        state = after
        ids.append(token)
    return None


if __name__ == "__main__":
    main()
