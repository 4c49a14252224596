"""Loads examples: which rows belong to a split, which are sampled, which are unfit, and a report that adds up."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter

from text2sql.config import BadRow, Data
from text2sql.data import gretel, mixed, spider, sqlite
from text2sql.data.report import Loaded, Report, content_hash
from text2sql.data.source import Row, Source, Unusable, sample_of_groups
from text2sql.data.spider import DATABASE_FAULTS as DATABASE_FAULTS
from text2sql.data.syntax import parses
from text2sql.example import Example

log = logging.getLogger(__name__)

LOADERS = {"gretel": gretel.load, "spider": spider.load, "mixed": mixed.load, "sqlite": sqlite.load}
SPLITS = ("train", "validation", "test")
IDS_SHOWN = 5


def load(config: Data, split: str, *, seed: int) -> Loaded:
    """The examples of `split`, sampled by `seed`, and the report on all rows that were read.

    Validation is made of training rows: whole databases, so that none is in both. `test` is Spider's dev set or gretel's test
    split; pairs of one's own are split by the skeletons of their SQL. A sample depends on the seed and the rows' content, not
    on their order; training rows come shuffled by it, the others in file order. Rows over the sample's size are not parsed.
    Without data.max_validation_samples, a sampled training set takes data.validation_fraction of its size for validation.
    Raises ValueError naming the setting to change.
    """
    check(config)
    if split not in SPLITS:
        raise ValueError(f"eval.split={split} is unknown: choose one of {', '.join(SPLITS)}")
    source = LOADERS[config.name](config, "test" if split == "test" else "train")
    rows = source.rows if split == "test" else _carve(source, config.validation_fraction, split, seed)
    examples, dropped = _take(f"{config.name} {split}", shuffled(rows, seed), source, _limit(config, split))
    if dropped and config.on_bad_row is BadRow.refuse:
        raise ValueError(f"{_complaint(dropped)}. Mend them, or set data.on_bad_row=drop to go on without them")
    if dropped:
        log.warning("%s %s: %s", config.name, split, _complaint(dropped))
    if not examples:
        raise ValueError(f"data.path={config.path} has no usable {split} rows: {_complaint(dropped) or 'it is empty'}")
    if split != "train":
        place = {row.id: number for number, row in enumerate(source.rows)}
        examples.sort(key=lambda example: place[example.id])
    num_dropped = sum(map(len, dropped.values()))
    report = Report(
        name=config.name,
        split=split,
        rows_read=len(source.rows),
        used=len(examples),
        held_out=len(source.rows) - len(rows),
        not_sampled=len(rows) - len(examples) - num_dropped,
        not_executable=sum(not example.executable for example in examples),
        sha256=content_hash(examples),
        dropped=dropped,
    )
    log.info(report.summary())
    return Loaded(examples, report)


def check(config: Data) -> None:
    """ValueError, before any file is read, for settings that no data could satisfy."""
    if config.name not in LOADERS:
        raise ValueError(f"data.name={config.name} is unknown: choose one of {', '.join(LOADERS)}")
    if config.name == "sqlite":
        sqlite.check(config)
    for name in ("max_samples", "max_validation_samples", "max_test_samples"):
        value = getattr(config, name)
        if value is not None and value <= 0:
            raise ValueError(f"data.{name}={value} must be at least 1, or null for all rows")
    if not 0 < config.validation_fraction < 1:
        raise ValueError(
            f"data.validation_fraction={config.validation_fraction} must lie between 0 and 1, such as 0.05"
        )


def _limit(config: Data, split: str) -> int | None:
    if split == "train":
        return config.max_samples
    if split == "test":
        return config.max_test_samples
    if config.max_validation_samples is None and config.max_samples is not None:
        return max(1, round(config.max_samples * config.validation_fraction))
    return config.max_validation_samples


def shuffled(rows: list[Row], seed: int) -> list[Row]:
    """The rows in an order set by `seed` and their content: the same whatever order they come in."""

    def key(row: Row) -> bytes:
        return hashlib.sha256(ascii((seed, row.db_id, row.question, row.sql, row.context)).encode()).digest()

    return sorted(rows, key=key)


def _carve(source: Source, fraction: float, split: str, seed: int) -> list[Row]:
    """The rows of train or of validation; rows without a database's name stay in train."""
    rows, held = source.rows, source.validation
    if held is None:
        held = _held_out(rows, fraction, seed)
    return [row for row in rows if (row.group in held) == (split == "validation")]


def _held_out(rows: list[Row], fraction: float, seed: int) -> frozenset[str]:
    groups = Counter(row.group for row in rows if row.group is not None)
    if len(groups) < 2:
        raise ValueError(
            f"data.validation_fraction={fraction}: validation takes whole databases, and the training rows have only "
            f"{len(groups)}; set data.path to data with at least two"
        )
    return sample_of_groups(groups, fraction * groups.total(), seed)


def _take(title: str, rows: list[Row], source: Source, limit: int | None) -> tuple[list[Example], dict[str, list[str]]]:
    """The first `limit` usable examples, and by reason the ids of the rows found unusable on the way."""
    from tqdm import tqdm

    examples: list[Example] = []
    dropped: dict[str, list[str]] = {}
    numbers = Counter(row.id for row in source.rows)
    for row in tqdm(rows, desc=title, total=min(len(rows), limit or len(rows)), unit="row", delay=2, mininterval=1):
        if len(examples) == limit:
            break
        try:
            if numbers[row.id] > 1:
                raise Unusable("id of several rows")
            example = source.build(row)
            if not parses(example.sql):
                raise Unusable("SQL does not parse")
            examples.append(example)
        except Unusable as reason:
            dropped.setdefault(str(reason), []).append(row.id)
    return examples, dropped


def _complaint(dropped: dict[str, list[str]]) -> str:
    count = sum(map(len, dropped.values()))
    reasons = [
        f"{reason}: {', '.join(ids[:IDS_SHOWN])}{', ...' if len(ids) > IDS_SHOWN else ''} ({len(ids):,})"
        for reason, ids in dropped.items()
    ]
    return f"{count:,} bad rows ({'; '.join(reasons)})" if dropped else ""
