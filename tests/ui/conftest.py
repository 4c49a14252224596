"""A page with runs, a sweep and the shop, and clients of it that ask sessions without a model."""

from __future__ import annotations

from pathlib import Path

import fake_run
import fake_sweep
import pytest
import shop
from fake_answers import Sessions
from starlette.testclient import TestClient

from text2sql import report
from text2sql.ui import access, places
from text2sql.ui.access import Access
from text2sql.ui.answerer import Answerer
from text2sql.ui.app import build

OWN = "http://127.0.0.1:8321"
HOSTILE = fake_run.HOSTILE["script"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXT2SQL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(access.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def found(tmp_path):
    """Places with trainings with and without an adapter, two evaluations, a sweep, and the shop."""
    outputs = tmp_path / "outputs"
    for name in ("one", "two"):
        fake_run.training(outputs / name)
        (outputs / name / "adapter").mkdir()
        (outputs / name / "adapter" / "adapter_config.json").write_text("{}")
    fake_run.write(outputs / "failed", run__json={"kind": "train", "status": "failed", "error": HOSTILE})
    rows = [fake_run.example(number) for number in range(45)]
    fake_run.evaluation(outputs / "base", [*rows, *fake_run.hostile_examples()])
    better = [fake_run.example(number, correct=number % 3 != 2, verdict="match") for number in range(45)]
    fake_run.evaluation(outputs / "tuned", better)
    report.write_page(outputs / "base")
    fake_sweep.grid(tmp_path / "multirun" / "rank", {"lora.r": [4, 8]}, lambda values, seed: (values[0], 1.0))
    fake_sweep.job(tmp_path / "multirun/rank/2", [f"prompt='{HOSTILE}'"], status="failed", error=HOSTILE)
    shop.make(tmp_path / "shop.sqlite")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "report.html").write_text("secret")
    (tmp_path / "secret" / "run.json").write_text("{}")
    return places.find([Path("outputs"), Path("multirun")], [Path("shop.sqlite")], [])


@pytest.fixture
def client(found):
    """A function from sessions and access to a client of the page."""
    opened = []

    def client(sessions=None, allowed=None, address=OWN):
        page = build(found, Answerer(sessions or Sessions()), allowed or Access())
        opened.append(TestClient(page, base_url=address, raise_server_exceptions=False).__enter__())
        return opened[-1]

    yield client
    for one in opened:
        one.__exit__(None, None, None)
