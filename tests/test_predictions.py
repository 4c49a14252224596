"""Files of predictions are read without guessing, and written so that they read back."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text2sql.example import Example
from text2sql.predictions import read_predictions, write_predictions


def examples(count):
    return [Example(str(number), "How many?", "SELECT 1", f"db{number}") for number in range(count)]


def write(folder, content, name="predictions.txt"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def jsonl(folder, *rows):
    return write(folder, "".join(json.dumps(row) + "\n" for row in rows), "predictions.jsonl")


@pytest.mark.parametrize(
    "content",
    ["SELECT 1\n\nSELECT 2\n", "SELECT 1\n\nSELECT 2", "SELECT 1\r\n\r\nSELECT 2\r\n", "\ufeffSELECT 1\n\nSELECT 2\n"],
)
def test_a_blank_line_is_an_empty_prediction_and_a_final_newline_is_not(tmp_path, content):
    assert read_predictions(write(tmp_path, content), examples(3)) == ["SELECT 1", "", "SELECT 2"]


def test_the_last_prediction_may_be_empty(tmp_path):
    assert read_predictions(write(tmp_path, "SELECT 1\n\n"), examples(2)) == ["SELECT 1", ""]


def test_a_db_id_after_a_tab_is_checked_and_left_out(tmp_path):
    assert read_predictions(write(tmp_path, "SELECT 1\tdb0\nSELECT 2\n"), examples(2)) == ["SELECT 1", "SELECT 2"]
    with pytest.raises(ValueError, match=r"predictions\.txt:2: db_id 'db0', expected 'db1'"):
        read_predictions(write(tmp_path, "SELECT 1\tdb0\nSELECT 2\tdb0\n"), examples(2))


def test_lines_are_split_at_line_feeds_only(tmp_path):
    assert read_predictions(write(tmp_path, "SELECT '\u2028\x0b\x85'\n"), examples(1)) == ["SELECT '\u2028\x0b\x85'"]


@pytest.mark.parametrize("content", ["SELECT 1\n", "SELECT 1\nSELECT 2\nSELECT 3\n", "SELECT 1\nSELECT 2\n\n"])
def test_another_number_of_lines_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"predictions\.txt: \d predictions, expected 2"):
        read_predictions(write(tmp_path, content), examples(2))


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is empty: expected 2 predictions"):
        read_predictions(write(tmp_path, b""), examples(2))


def test_text_that_is_not_utf8_is_refused_with_its_line(tmp_path):
    with pytest.raises(ValueError, match=r"predictions\.txt:2: not UTF-8"):
        read_predictions(write(tmp_path, b"SELECT 1\nSELECT '\xe9'\n"), examples(2))


def test_lines_with_ids_may_come_in_any_order(tmp_path):
    path = jsonl(tmp_path, {"id": "1", "prediction": "b"}, {"id": "0", "prediction": "a", "db_id": "db0"})
    assert read_predictions(path, examples(2)) == ["a", "b"]


def test_lines_without_ids_come_in_the_order_of_the_examples(tmp_path):
    path = jsonl(tmp_path, {"prediction": "a"}, {"prediction": "b", "db_id": "db1"})
    assert read_predictions(path, examples(2)) == ["a", "b"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"id": "0", "prediction": "a"}, {"id": "7", "prediction": "b"}],
            r":2: unknown id '7': expected 2 ids such as '0'",
        ),
        ([{"id": "0", "prediction": "a"}, {"id": 1, "prediction": "b"}], r":2: unknown id 1"),
        ([{"id": "0", "prediction": "a"}, {"id": "0", "prediction": "b"}], r":2: id '0' was on line 1 already"),
        ([{"id": "0", "prediction": "a"}, {"prediction": "b"}], r":2: no id, unlike other lines"),
        ([{"id": "0", "prediction": "a"}], r": 1 predictions, expected 2"),
        ([{"prediction": "a"}] * 3, r": 3 predictions, expected 2"),
        ([{"prediction": "a"}, {"prediction": "b", "db_id": "db0"}], r":2: db_id 'db0', expected 'db1'"),
        (
            [{"id": "1", "prediction": "a", "db_id": "db0"}, {"id": "0", "prediction": "b"}],
            r":1: db_id 'db0', expected 'db1'",
        ),
        ([{"prediction": "a"}, {"sql": "b"}], r':2: no "prediction"'),
        ([{"prediction": "a"}, {"prediction": None}], r':2: no "prediction"'),
        ([{"prediction": "a"}, "b"], r':2: no "prediction"'),
    ],
)
def test_a_file_that_does_not_fit_the_examples_is_refused_with_its_line(tmp_path, rows, message):
    with pytest.raises(ValueError, match=r"predictions\.jsonl" + message):
        read_predictions(jsonl(tmp_path, *rows), examples(2))


@pytest.mark.parametrize("line", ["", "SELECT 1", '{"prediction": "a"'])
def test_a_line_that_is_not_json_is_refused(tmp_path, line):
    with pytest.raises(ValueError, match=r"predictions\.jsonl:2: not JSON"):
        read_predictions(write(tmp_path, f'{{"prediction": "a"}}\n{line}\n', "predictions.jsonl"), examples(2))


TEXT = st.text() | st.sampled_from(["a\nb", "\r\n", "\u2028", "\ud800", "\t", "\0"])


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=5), st.booleans())
def test_predictions_read_back_as_written(tmp_path_factory, predictions, with_ids):
    path = tmp_path_factory.mktemp("round") / "predictions.jsonl"
    rows = [
        {"id": str(number), "prediction": text} if with_ids else {"prediction": text}
        for number, text in enumerate(predictions)
    ]
    write_predictions(path, rows)
    assert read_predictions(path, examples(len(predictions))) == predictions


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = jsonl(tmp_path, {"prediction": "old"})

    def rows():
        yield {"prediction": "new"}
        raise RuntimeError("generation broke")

    with pytest.raises(RuntimeError):
        write_predictions(path, rows())
    assert json.loads(path.read_text()) == {"prediction": "old"}
    assert list(tmp_path.iterdir()) == [path]


def test_text_stays_legible_in_the_file(tmp_path):
    write_predictions(tmp_path / "p.jsonl", [{"prediction": "SELECT 'ü'"}])
    assert (tmp_path / "p.jsonl").read_text(encoding="utf-8") == '{"prediction": "SELECT \'ü\'"}\n'
