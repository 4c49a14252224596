"""Tables of sweeps as text: for a terminal, as CSV and as Markdown, whatever the files of the jobs hold."""

import csv
import io
import json

import fake_sweep
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text2sql import sweeps
from text2sql.sweeps import formats, overrides


def read(sweep):
    return sweeps.read([sweep])


TEXT = st.text(st.characters(), max_size=60)
NUMBER = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**9), 10**9)


@given(st.dictionaries(st.sampled_from(["validation/loss", "train/tokens", "seconds"]), NUMBER), TEXT, TEXT)
def test_a_table_survives_as_csv(tmp_path_factory, metrics, error, label):
    folder = tmp_path_factory.mktemp("sweep")
    fake_sweep.job(folder / "0", status="failed", error=error, label=label, kind="evaluate", metrics=metrics)
    table = read(folder)
    text = formats.as_csv(table)
    text.encode()
    assert list(csv.reader(io.StringIO(text))) == formats.csv_rows(table)
    (row,) = csv.DictReader(io.StringIO(text))
    assert {name: float(row[name]) for name in metrics} == metrics
    assert (row["reason"], row["what"]) == (overrides.one_line(error), overrides.one_line(label))


@given(TEXT)
def test_any_error_is_one_line_of_a_terminal_and_of_markdown(tmp_path_factory, error):
    folder = tmp_path_factory.mktemp("sweep")
    fake_sweep.job(folder / "0", status="failed", error=error)
    table = read(folder)
    for text in (formats.as_text(table), formats.as_markdown(table)):
        assert all(line.isprintable() for line in text.split("\n"))
    header, rule, row, *_ = formats.as_markdown(table).split("\n")
    unescaped = row.replace("\\\\", "").replace("\\|", "")
    assert header.count("|") == rule.count("|") == unescaped.count("|")


@given(st.one_of(st.integers().map(str), st.floats(allow_nan=False, allow_infinity=False).map(repr)))
def test_numbers_are_numbers(text):
    assert overrides.number(text) == float(text)


@pytest.mark.parametrize("text", ["", "nan", "inf", "-inf", "ddl", "4,8", None])
def test_other_texts_are_none(text):
    assert overrides.number(text) is None


@given(st.lists(st.one_of(st.none(), st.integers(-5, 5).map(str), st.sampled_from(["a", "b", "0.5"])), max_size=8))
def test_numbers_come_by_size_then_texts_then_nothing(values):
    ordered = sorted(values, key=overrides.sort_key)
    numbers = [float(one) for one in ordered if overrides.number(one) is not None]
    assert numbers == sorted(numbers)
    kinds = [0 if overrides.number(one) is not None else 1 if one is not None else 2 for one in ordered]
    assert kinds == sorted(kinds)


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("eval/execution_accuracy", 0.625, "62.5 %"),
        ("eval/hallucinated_column_rate", 0.0, "0.0 %"),
        ("validation/loss", 1.23456, "1.2346"),
        ("train/tokens", 1_234_567.0, "1,234,567"),
        ("seconds", 12.34, "12.34"),
        ("seconds", None, "-"),
    ],
)
def test_numbers_are_shown_as_people_read_them(metric, value, text):
    assert formats.shown(metric, value) == text


def test_a_long_path_keeps_its_end_in_a_terminal(tmp_path):
    for name in "ab":
        fake_sweep.job(tmp_path / name, [f"adapter=/{'very/' * 20}{name}/adapter"], kind="evaluate")
    assert "y/a/adapter" in formats.as_text(read(tmp_path))
    assert max(map(len, formats.as_text(read(tmp_path)).splitlines()[:3])) < 100


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KNOWN = st.sampled_from(
    "kind status label phase parent error metrics hydra job name runtime choices sweeper params".split()
)
FILES = (
    "run.json metrics.json history.jsonl multirun.yaml evaluation/run.json "
    ".hydra/overrides.yaml .hydra/config.yaml .hydra/hydra.yaml"
).split()
ANYTHING = st.one_of(
    st.binary(max_size=40),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(KNOWN, JSON, max_size=4).map(lambda value: json.dumps(value).encode()),
    st.lists(st.text("abc=,.'\"[]{}()$+~@ 1\\", max_size=20), max_size=4).map(lambda value: json.dumps(value).encode()),
    st.just(b'{"hydra": {"sweeper": {"_target_": "x.BasicSweeper", "params": {"a": "1,b", "": null}}}}'),
)


@settings(max_examples=60)
@given(st.lists(st.dictionaries(st.sampled_from(FILES), ANYTHING), min_size=1, max_size=3))
def test_no_content_of_any_file_is_a_crash(tmp_path_factory, contents):
    folder = tmp_path_factory.mktemp("sweep")
    for number, files in enumerate(contents):
        run = fake_sweep.job(folder / str(number), [f"lora.r={number}"], metrics={"validation/loss": number})
        (run / "evaluation").mkdir()
        for name, content in files.items():
            (run / name).write_bytes(content)
    table = read(folder)
    assert len(table.lines) >= len(contents)
    for write in sweeps.FORMATS.values():
        write(table).encode()
    assert list(csv.reader(io.StringIO(formats.as_csv(table)))) == formats.csv_rows(table)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0013112246532299334", "0.001311"),
        ("2.990915231291463e-05", "2.991e-05"),
        ("0.0001", "0.0001"),
        ("1234567", "1234567"),
        ("a long text is no number", "a long text is no number"),
    ],
)
def test_a_number_that_was_drawn_is_shown_as_people_read_it(text, expected):
    assert overrides.brief(text) == expected


def test_csv_has_every_digit_of_a_number_that_was_drawn(tmp_path):
    for number, rate in enumerate(("0.0013112246532299334", "0.5")):
        fake_sweep.job(tmp_path / str(number), [f"trainer.learning_rate={rate}"], metrics={"validation/loss": 1.0})
    assert "0.0013112246532299334" in formats.as_csv(read(tmp_path))
    assert "0.0013112246532299334" not in formats.job_rows(read(tmp_path))[1]


def test_a_best_job_on_merged_weights_is_repeated_on_those(tmp_path):
    config = {"seed": 1, "adapter": None, "merge_adapter": "auto"}
    fake_sweep.job(
        tmp_path / "0", metrics={"validation/loss": 1.0}, config=config, merged_parent="multirun/m/1/adapter"
    )
    assert "merge_adapter=multirun/m/1/adapter" in formats.FORMATS["terminal"](read(tmp_path))
