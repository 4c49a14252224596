"""Derive neighbour databases: the same schema with other rows, on which SQL that was right by accident comes out wrong.

The idea is that of Zhong et al. 2020 ("Semantic Evaluation for Text-to-SQL with Distilled Test Suites"); the rules are
our own. A neighbour keeps what the schema promises, so that SQL equal by these promises stays equal: primary keys,
UNIQUE, NOT NULL, CHECK, every declared foreign key that the source obeys, and two that are merely true in the source:
columns that foreign keys point at and the first column of a table without a key stay distinct, and NULL appears only in
columns that already hold it. Nothing else that the source happens to show is kept, such as distinct names, rows that
all have partners, or one row at a maximum. Where the source breaks a declared foreign key, most dangling rows get a
partner; a few rows dangle in columns that only the golds join on.

Every third neighbour has ties at the extremes that golds look for, the others have as few as can be: MAX differs from
ORDER BY with LIMIT 1 on the former, and golds with a LIMIT are decided on the latter. `usable` tells which are.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from text2sql.sql import database
from text2sql.sql.neighbours.build import build_rows
from text2sql.sql.neighbours.check import Check, check_golds
from text2sql.sql.neighbours.draft import Draft
from text2sql.sql.neighbours.golds import Gold, on_source
from text2sql.sql.neighbours.schema import read_source
from text2sql.sql.neighbours.source_rows import take_rows
from text2sql.sql.neighbours.tables import Rows, Source

TRIES = 4


SHARE_WITH_ROWS = 0.95
"""A neighbour is tried again, closer to the source, while fewer of the golds that give rows on the source do on it."""


def derive(database_file: str | Path, folder: Path, count: int, seed: int, golds: Sequence[str]) -> list[Path]:
    """Write `count` neighbours of a SQLite file into `folder` (n00.sqlite, ...) and a manifest.json; returns their paths.

    The same source content, seed and golds (in any order) give the same rows, and neighbour i does not depend on
    `count`. Files that the manifest says came from the same inputs are used again. Every gold that runs on the source
    runs on every neighbour, within MAX_STEPS; one that fails on the source is set aside. Triggers and virtual tables are
    left out, as the manifest says.

    Raises FileNotFoundError or ValueError where the source is no database, and ValueError for a count below 1, a schema
    that cannot be built again, and a gold that fails on every try of some neighbour.
    """
    if count < 1:
        raise ValueError(f"{count} neighbours asked for: ask for at least 1")
    file = Path(database_file)
    texts = sorted({_stripped(sql) for sql in golds})
    with closing(database.open_readonly(str(file))) as connection:
        connection.text_factory = lambda text: text.decode("utf-8", errors="replace")
        identity = {
            "source": _file_digest(file),
            "rules": _digest("".join(map(_file_digest, sorted(Path(__file__).parent.glob("*.py")))).encode()),
            "golds": _digest(json.dumps(texts).encode()),
            "seed": seed,
            "count": count,
        }
        paths = [folder / f"n{number:02}.sqlite" for number in range(count)]
        if _derived_before(folder, identity, paths):
            return paths
        source = read_source(connection, file)
        running = [gold for sql in texts if (gold := on_source(connection, sql, source))]
        try:
            take_rows(connection, source, running)
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{file} is damaged ({error}): unpack or download it again") from error
    folder.mkdir(parents=True, exist_ok=True)
    files = {path.name: _write(path, source, running, seed, number) for number, path in enumerate(paths)}
    judged = {_name(gold.sql) for gold in running}
    aside = sorted({_name(sql) for sql in texts} - judged)
    _write_manifest(folder, {**identity, "left_out": source.left_out, "set_aside": aside, "files": files})
    return paths


def usable(folder: Path, gold: str) -> list[Path]:
    """The neighbours in `folder` on which the data alone decide what this gold returns and, where it orders, in what order.

    Not among them are those where rows tie at its LIMIT or in its ORDER BY, where a NULL is among the first that it
    takes by sorting, where a column outside of aggregates has several values in a group, or where its result changes
    with the order in which SQLite reads a table: there, SQL as good as the gold may return something else. None are for
    a gold that fails on the source. Raises ValueError where there are no neighbours, and
    for a gold that they were not derived with.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"no neighbours in {folder}: derive them first") from None
    name = _name(_stripped(gold))
    if name in manifest["set_aside"]:
        return []
    first = next(iter(manifest["files"].values()))
    if name not in first["decided"] and name not in first["undecided"]:
        raise ValueError(f"the neighbours in {folder} were not derived with this gold: {gold!r}; name it in golds")
    return [folder / file for file, about in manifest["files"].items() if name in about["decided"]]


def _stripped(sql: str) -> str:
    return sql.strip().removesuffix(";").rstrip()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _name(sql: str) -> str:
    return _digest(json.dumps(sql).encode())[:16]


def _derived_before(folder: Path, identity: dict[str, Any], paths: list[Path]) -> bool:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        same = all(manifest[key] == value for key, value in identity.items())
        return same and all(_file_digest(path) == manifest["files"][path.name]["sha256"] for path in paths)
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return False


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    aside = folder / f".manifest.{os.getpid()}"
    aside.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    aside.replace(folder / "manifest.json")


def _write(path: Path, source: Source, golds: list[Gold], seed: int, number: int) -> dict[str, Any]:
    """Derive one neighbour and write it aside, then into place; returns what the manifest says about it."""
    rows, check = _best_rows(source, golds, seed, number)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    with closing(build_rows(source, rows)) as connection:
        connection.execute("VACUUM INTO ?", (str(aside),))
    aside.replace(path)
    undecided = sorted(_name(gold.sql) for gold in check.undecided)
    return {
        "sha256": _file_digest(path),
        "share_with_rows": round(check.share, 4),
        "decided": sorted({_name(gold.sql) for gold in golds} - set(undecided)),
        "undecided": undecided,
    }


def _best_rows(source: Source, golds: list[Gold], seed: int, number: int) -> tuple[Rows, Check]:
    """The first rows on which enough golds give rows, or those of TRIES on which most do; on all of them all golds run."""
    closeness = Counter[str]()
    tried: list[tuple[Rows, Check]] = []
    for attempt in range(TRIES):
        rows = Draft(source, golds, random.Random(f"{seed}/{number}/{attempt}"), number, closeness).derive()
        with closing(build_rows(source, rows)) as connection:
            check = check_golds(connection, golds)
        tried.append((rows, check))
        if not check.failing and check.share >= SHARE_WITH_ROWS:
            break
        for name in {name for gold in check.failing or check.empty for name in gold.sources}:
            closeness[name] += 2 if check.failing else 1
    running = [(rows, check) for rows, check in tried if not check.failing]
    if not running:
        check = tried[-1][1]
        raise ValueError(
            f"on each of {TRIES} tries for neighbour {number} some gold fails, on the last this one ({check.reason}): "
            f"{check.failing[0].sql!r}; leave it out of golds"
        )
    return max(running, key=lambda pair: pair[1].share)
