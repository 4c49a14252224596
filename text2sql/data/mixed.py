"""Both data sets of the curriculum at once: Spider as it is, with rows of gretel among its training questions."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from text2sql.config import Data
from text2sql.data import gretel, spider
from text2sql.data.source import Row, Source
from text2sql.example import Example


def load(config: Data, split: str) -> Source:
    """Spider's rows of `split`; those of train with data.max_gretel_samples rows from data.gretel_path among them.

    Which rows of gretel are taken follows from their ids. None of them is held out for validation: that and the test are
    Spider's. ValueError for what is not there.
    """
    questions = spider.load(replace(config, name="spider"), split)
    if split == "test":
        return questions
    if config.gretel_path is None:
        raise ValueError("data=mixed needs data.gretel_path: gretel's hub id, a file or folder of it, or mini")
    more = gretel.load(replace(config, name="gretel", path=config.gretel_path, hub_id=config.gretel_path), split)
    rows = sorted(more.rows, key=lambda row: hashlib.sha256(row.id.encode()).digest())[: config.max_gretel_samples]
    ours = {row.id for row in rows}

    def build(row: Row) -> Example:
        return more.build(row) if row.id in ours else questions.build(row)

    return Source([*questions.rows, *(replace(row, group=None) for row in rows)], build)
