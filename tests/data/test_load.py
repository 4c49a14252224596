from __future__ import annotations

import json
import logging
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text2sql import data
from text2sql.config import BadRow, Data
from text2sql.data.report import Report
from text2sql.data.source import sample_of_groups

SPLITS = ("train", "validation", "test")


def config(**changes: Any) -> Data:
    settings = {"name": "spider", "path": "mini", "hub_id": "xlangai/spider", **changes}
    return Data(**settings)


def adds_up(report: Report) -> bool:
    return report.rows_read == report.used + report.num_dropped + report.left_out


def file_of(folder: Path, rows: list[dict]) -> str:
    file = folder / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def rows(count: int, groups: int) -> list[dict]:
    return [
        {
            "id": number,
            "sql_prompt": f"Question {number}?",
            "sql_context": f"CREATE TABLE t{number % groups} (a INT);",
            "sql": f"SELECT a FROM t{number % groups} WHERE a = {number}",
        }
        for number in range(count)
    ]


def gretel(path: str, **changes: Any) -> Data:
    return config(name="gretel", path=path, **changes)


@pytest.mark.parametrize("name", ["gretel", "spider"])
def test_no_two_splits_share_a_database(name: str) -> None:
    groups = [{example.db_id for example in data.load(config(name=name), s, seed=3).examples} for s in SPLITS]
    assert all(groups)
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])


@pytest.mark.parametrize("name", ["gretel", "spider"])
@pytest.mark.parametrize("split", SPLITS)
def test_counts_add_up_and_the_same_seed_gives_the_same_examples(name: str, split: str) -> None:
    first, second = (data.load(config(name=name), split, seed=5) for _ in range(2))
    assert first == second
    assert adds_up(first.report)


def test_another_seed_holds_out_other_databases() -> None:
    held = {data.load(config(validation_fraction=0.2), "validation", seed=seed).examples[0].db_id for seed in range(6)}
    assert len(held) > 1


def test_validation_does_not_depend_on_how_much_is_trained_on() -> None:
    def held(max_samples: int | None) -> set[str]:
        settings = config(max_samples=max_samples, max_validation_samples=30)
        return {example.id for example in data.load(settings, "validation", seed=1).examples}

    assert held(10) == held(200) == held(None)


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5])
def test_validation_takes_about_its_fraction_of_the_rows(fraction: float) -> None:
    report = data.load(config(validation_fraction=fraction), "validation", seed=0).report
    assert abs(report.used / report.rows_read - fraction) <= 0.07


def test_at_least_one_whole_group_is_held_out() -> None:
    assert sample_of_groups({"a": 30, "b": 20, "c": 25}, 0.75, seed=0) == {"b"}


@settings(deadline=None, max_examples=50)
@given(
    groups=st.dictionaries(st.text(min_size=1), st.integers(1, 50), min_size=2, max_size=12),
    fraction=st.floats(0.001, 0.999),
    seed=st.integers(0, 5),
)
def test_something_is_always_left_to_train_on(groups: dict[str, int], fraction: float, seed: int) -> None:
    held = sample_of_groups(groups, fraction * sum(groups.values()), seed)
    assert held and held < set(groups)


def test_one_database_alone_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data.validation_fraction=0.05: .*whole databases.*only 1"):
        data.load(gretel(file_of(tmp_path, rows(10, groups=1))), "train", seed=0)


def test_a_sample_has_the_size_asked_for_even_if_rows_are_bad(tmp_path: Path) -> None:
    bad = [{**row, "sql": "oops"} if number % 3 == 0 else row for number, row in enumerate(rows(300, groups=20))]
    report = data.load(gretel(file_of(tmp_path, bad), max_samples=100), "train", seed=0).report
    assert report.used == 100
    assert 0 < report.num_dropped < 100 and report.not_sampled and adds_up(report)


def test_rows_over_the_sample_are_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    monkeypatch.setattr(data, "parses", lambda sql: parsed.append(sql) is None)
    data.load(gretel(file_of(tmp_path, rows(500, groups=20)), max_samples=10), "train", seed=0)
    assert len(parsed) == 10


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_sample_does_not_depend_on_the_order_of_the_rows(tmp_path: Path, split: str) -> None:
    ordered = rows(200, groups=20)
    shuffled = random.Random(0).sample(ordered, len(ordered))
    settings = {"max_samples": 40, "max_validation_samples": 5}
    first = data.load(gretel(file_of(tmp_path, ordered), **settings), split, seed=0).examples
    second = data.load(gretel(file_of(tmp_path, shuffled), **settings), split, seed=0).examples
    assert {example.question for example in first} == {example.question for example in second}


def test_a_larger_sample_contains_the_smaller_one() -> None:
    small, large = (data.load(config(max_samples=size), "train", seed=0).examples for size in (20, 60))
    assert small == large[:20]


def test_a_test_sample_keeps_the_order_of_the_file() -> None:
    examples = data.load(config(max_test_samples=30), "test", seed=0).examples
    numbers = [int(example.id.rsplit("/", 1)[1]) for example in examples]
    assert len(numbers) == 30 and numbers == sorted(numbers) != list(range(30))


def test_a_sampled_training_set_gets_a_validation_set_in_proportion(tmp_path: Path) -> None:
    path = file_of(tmp_path, rows(1000, groups=100))
    assert data.load(gretel(path, max_samples=100), "validation", seed=0).report.used == 5
    assert data.load(gretel(path, max_samples=100, max_validation_samples=40), "validation", seed=0).report.used == 40


@pytest.mark.parametrize("setting", ["max_samples", "max_validation_samples", "max_test_samples"])
@pytest.mark.parametrize("value", [0, -3])
def test_a_sample_of_nothing_is_refused(setting: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"data.{setting}={value} must be at least 1"):
        data.load(config(**{setting: value}), "test", seed=0)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_a_fraction_outside_its_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="data.validation_fraction=.* must lie between 0 and 1"):
        data.load(config(validation_fraction=value), "train", seed=0)


def test_an_unknown_data_set_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match="data.name=bird is unknown: choose one of gretel, spider"):
        data.load(config(name="bird"), "train", seed=0)


def test_an_unknown_split_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match="eval.split=dev is unknown: choose one of train, validation, test"):
        data.load(config(), "dev", seed=0)


def test_the_log_shows_five_ids_and_the_report_keeps_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = [{**row, "sql": None} if number < 20 else row for number, row in enumerate(rows(60, groups=20))]
    with caplog.at_level(logging.INFO):
        report = data.load(gretel(file_of(tmp_path, content)), "train", seed=0).report
    ids = report.dropped["missing sql"]
    assert len(ids) == report.num_dropped > 5
    warning = next(record.message for record in caplog.records if record.levelno == logging.WARNING)
    assert f"missing sql: {', '.join(ids[:5])}, ... ({len(ids)})" in warning and ids[5] + "," not in warning
    assert report.summary() in [record.message for record in caplog.records]


def test_refusing_says_how_many_rows_are_bad(tmp_path: Path) -> None:
    content = [{**row, "sql": None} for row in rows(40, groups=20)]
    settings = gretel(file_of(tmp_path, content), on_bad_row=BadRow.refuse)
    with pytest.raises(ValueError, match=r"3\d bad rows \(missing sql: gretel/train/.*, \.\.\. \(3\d\)\)"):
        data.load(settings, "train", seed=0)


def test_the_summary_names_every_count() -> None:
    report = Report("gretel", "train", 1200, 1000, 50, 147, 3, "", {"empty sql": ["a", "b"], "missing sql": ["c"]})
    assert adds_up(report)
    assert report.summary() == (
        "gretel train: 1,200 rows read, 1,000 used, 3 of them not executable, "
        "3 dropped (empty sql: 2, missing sql: 1), 50 kept for validation, 147 not sampled"
    )


def test_the_hash_follows_the_content_and_not_the_place(mini_folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(mini_folder / "spider", tmp_path / "spider")
    here = data.load(config(), "test", seed=0).report.sha256
    there = data.load(config(path=str(tmp_path / "spider")), "test", seed=0).report.sha256
    assert here == there != data.load(config(max_test_samples=5), "test", seed=0).report.sha256


VALUES = st.sampled_from(
    [None, "", 3, "SELECT a FROM t", "SELECT (", "What?", "CREATE TABLE t (a INT);", [1], "\ud800"]
)
ROW = st.fixed_dictionaries({"sql_prompt": VALUES, "sql_context": VALUES, "sql": VALUES})


@settings(deadline=None, max_examples=30)
@given(
    mixed=st.lists(ROW, max_size=30),
    limit=st.none() | st.integers(1, 20),
    split=st.sampled_from(["train", "validation"]),
    seed=st.integers(0, 3),
)
def test_counts_add_up_for_any_rows(mixed: list[dict], limit: int | None, split: str, seed: int) -> None:
    content = [{**row, "id": number} for number, row in enumerate([*rows(24, groups=8), *mixed])]
    with tempfile.TemporaryDirectory() as folder:
        settings = gretel(file_of(Path(folder), content), max_samples=limit, validation_fraction=0.3)
        try:
            loaded = data.load(settings, split, seed=seed)
        except ValueError as error:
            assert "no usable" in str(error)
            return
    report = loaded.report
    assert adds_up(report) and report.rows_read == len(content) and report.used == len(loaded.examples)
    ids = Counter(example.id for example in loaded.examples) + Counter(
        i for ids in report.dropped.values() for i in ids
    )
    assert max(ids.values()) == 1
