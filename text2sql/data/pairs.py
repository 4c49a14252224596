"""Writes a first set of pairs about a database of one's own: the templates of the mini data, filled from its tables."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import random
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from text2sql.data import snapshot, sqlite
from text2sql.data.described import describe
from text2sql.data.mini_questions import answers, tries
from text2sql.data.mini_rows import Filling
from text2sql.sql.database import open_readonly
from text2sql.sql.execute import Limits, Reader
from text2sql.sql.skeleton import skeleton

log = logging.getLogger(__name__)

PAIRS_A_SKELETON = 3
MISSES_IN_A_ROW = 25
"""After so many rounds without a new pair there is little left to ask."""
LIMITS = Limits(timeout_s=2.0, max_steps=20_000_000, max_rows=20_000)
"""A pair whose SQL takes longer would also take long at every evaluation."""


@dataclass(frozen=True)
class Pair:
    """`tier` is how hard the template is, by Spider's words; it is for the summary alone."""

    question: str
    sql: str
    db: str
    tier: str


def make(path: Path, count: int, seed: int) -> list[Pair]:
    """Up to `count` pairs of each database at `path`, a SQLite file or a folder of them; each was run and has an answer.

    The same for the same seed and content. At most PAIRS_A_SKELETON differ in values alone. ValueError for what is no
    database, has no tables or no rows, and where nothing could be asked.
    """
    if count < 1:
        raise ValueError(f"--count {count} must be at least 1")
    made: list[Pair] = []
    for name, file in sqlite.database_files(path.expanduser()).items():
        database = snapshot.take(file, "the database")
        schema = sqlite.read_tables(database, str(file))
        rng = random.Random(f"pairs/{seed}/{name}")
        with closing(open_readonly(database)) as connection:
            filling = describe(str(file), schema, connection, rng)
        with closing(Reader(open_readonly(database), LIMITS)) as reader:
            found = _asked(filling, name, count, rng, reader)
        if len(found) < count:
            log.warning("%s: only %d different pairs of the %d asked for could be made", file, len(found), count)
        made += found
    if not made:
        raise ValueError(
            f"no question could be made about {path}: its tables have too few rows or no columns to ask about"
        )
    return made


def _asked(filling: Filling, name: str, count: int, rng: random.Random, reader: Reader) -> list[Pair]:
    pairs: list[Pair] = []
    skeletons: Counter[str] = Counter()
    questions: set[str] = set()
    golds: set[str] = set()
    misses = 0
    while len(pairs) < count and misses < MISSES_IN_A_ROW:
        misses += 1
        for one in tries(filling, rng):
            if one is None or one.sql in golds or one.text.casefold() in questions:
                continue
            form = skeleton(one.sql)
            if skeletons[form] < PAIRS_A_SKELETON and answers(one.sql, lambda sql: reader.run(sql).rows):
                pairs.append(Pair(one.text, one.sql, name, one.template.tier))
                skeletons[form] += 1
                questions.add(one.text.casefold())
                golds.add(one.sql)
                misses = 0
                break
    return pairs


def write(file: Path, pairs: list[Pair]) -> None:
    """Write the pairs as .jsonl or, by the file's name, .csv; `db` is named where there are several. ValueError otherwise."""
    several = len({pair.db for pair in pairs}) > 1
    rows = [{"question": p.question, "sql": p.sql, **({"db": p.db} if several else {})} for p in pairs]
    if file.suffix == ".csv":
        text = io.StringIO()
        table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        content = text.getvalue()
    elif file.suffix == ".jsonl":
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        raise ValueError(f"--out {file} must end in .jsonl or .csv")
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        aside.write_text(content, encoding="utf-8", newline="")
        aside.replace(file)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise ValueError(
            f"cannot write --out {file}: {error.strerror}; name a file in a folder that is there"
        ) from error


def summary(file: Path, pairs: list[Pair]) -> str:
    """What was written, and what to do with it."""
    tiers = Counter(pair.tier for pair in pairs)
    shares = ", ".join(f"{count} {tier}" for tier, count in tiers.items())
    forms = len({skeleton(pair.sql) for pair in pairs})
    return f"{file}: {len(pairs)} pairs ({shares}), {forms} SQL skeletons. Read them, mend the words, add your own."
