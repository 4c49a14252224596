"""Generates the mini data once per test session, in a folder of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from text2sql.data import mini


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("TEXT2SQL_CACHE")
    os.environ["TEXT2SQL_CACHE"] = str(folder)
    yield folder
    del os.environ["TEXT2SQL_CACHE"]
    if before is not None:
        os.environ["TEXT2SQL_CACHE"] = before


@pytest.fixture(scope="session")
def mini_folder(cache: Path) -> Path:
    """gretel/ and spider/ as data.path=mini reads them."""
    return mini.path()
