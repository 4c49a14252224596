"""data=mixed: gretel's rows among Spider's training questions, and Spider's own validation and test."""

import pytest

from text2sql import data
from text2sql.config import Data


def settings(**more):
    values = {"name": "mixed", "path": "mini", "hub_id": "x/y", "gretel_path": "mini", "max_gretel_samples": 30}
    return Data(**{**values, **more})


def kinds(config, split):
    examples = data.load(config, split, seed=1).examples
    return {kind: sum(example.id.startswith(kind) for example in examples) for kind in ("gretel", "spider")}


def test_training_has_so_many_rows_of_gretel_and_all_of_spider():
    alone = len(data.load(Data("spider", "mini", "x/y"), "train", seed=1).examples)
    assert kinds(settings(), "train") == {"gretel": 30, "spider": alone}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_what_is_measured_on_is_spider_alone(split):
    found = kinds(settings(), split)
    assert found["gretel"] == 0
    assert found["spider"] > 0


def test_the_same_rows_are_taken_every_time():
    first, second = (data.load(settings(), "train", seed=1).report.sha256 for _ in range(2))
    assert first == second


def test_every_row_keeps_its_own_kind_of_database():
    for example in data.load(settings(), "train", seed=1).examples:
        assert bool(example.database) == example.id.startswith("spider")
        assert example.schema.tables


def test_a_missing_path_is_named_with_its_cure():
    with pytest.raises(ValueError, match=r"data=mixed needs data\.gretel_path"):
        data.load(settings(gretel_path=None), "train", seed=1)
