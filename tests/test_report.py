"""The picture of a run's losses and the page of a run, from the files in its folder."""

import base64
import hashlib
import json
import re
import time
from html.parser import HTMLParser

import fake_run
import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2sql import report
from text2sql.example import Verdict
from text2sql.report import page, words

TRAINING = [{"step": 1, "epoch": 0.5, "loss": 2.0}, {"step": 2, "epoch": 1.0, "loss": 1.0}]
VALIDATION = [{"step": 2, "epoch": 1.0, "eval_loss": 1.5}]
OTHER = [{"step": 2, "epoch": 1.0, "train_runtime": 3.0}]


@pytest.fixture
def run(tmp_path):
    stamp = {"fingerprint": {"model": "someone/tiny"}, "phase": 1, "data": {"name": "gretel"}}
    (tmp_path / "run.json").write_text(json.dumps(stamp))
    return tmp_path


def logged(run, rows):
    (run / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    "rows",
    [TRAINING + VALIDATION + OTHER, TRAINING, VALIDATION, TRAINING[:1]],
    ids=["all", "training only", "validation only", "one step"],
)
def test_losses_are_drawn_as_a_png(run, rows):
    logged(run, rows)
    path = report.plot_losses(run)
    assert path == run / "plots" / "loss.png"
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("rows", [[], OTHER], ids=["nothing", "no losses"])
def test_without_losses_nothing_is_drawn(run, rows):
    logged(run, rows)
    assert report.plot_losses(run) is None
    assert not (run / "plots").exists()


def test_without_a_history_nothing_is_drawn(run):
    assert report.plot_losses(run) is None


def test_a_picture_is_drawn_anew(run):
    logged(run, TRAINING)
    first = report.plot_losses(run).read_bytes()
    logged(run, TRAINING + VALIDATION)
    assert report.plot_losses(run).read_bytes() != first


def test_curves_hold_the_logged_points_and_the_title_names_the_run(run, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: drawn.append(figure))
    logged(run, TRAINING + VALIDATION)
    report.plot_losses(run)
    (axes,) = drawn[0].axes
    assert {line.get_label(): line.get_xydata().tolist() for line in axes.lines} == {
        "training": [[1, 2.0], [2, 1.0]],
        "validation": [[2, 1.5]],
    }
    assert axes.get_title() == "tiny, phase 1, gretel"


class Elements(HTMLParser):
    """The elements of a page as a browser finds them: their tags, and for those with text (attributes, text)."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(path.read_bytes().decode("utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags:
            self.texts.append((*self.tags[-1], data))

    def text(self, tag, **wanted):
        """The one text that is the content of such an element."""
        (text,) = (
            text for name, given, text in self.texts if name == tag and wanted.items() <= given.items() and text.strip()
        )
        return text

    def data(self, name):
        return json.loads(self.text("script", id=f"{name}-data"))


@pytest.fixture
def rows():
    return [fake_run.example(number) for number in range(12)] + list(fake_run.hostile_examples())


@pytest.fixture
def evaluation(tmp_path, rows):
    return fake_run.evaluation(tmp_path / "evaluation", rows)


def test_the_page_is_written_into_the_run_folder_and_nothing_else_is(evaluation):
    before = {path.name for path in evaluation.iterdir()}
    path = report.write_page(evaluation)
    assert path == evaluation / "report.html"
    assert {path.name for path in evaluation.iterdir()} - before == {"report.html"}


def test_the_page_holds_every_example_with_its_texts_unchanged(evaluation, rows):
    embedded = Elements(report.write_page(evaluation)).data("examples")
    fields = ("id", "question", "gold", "prediction", "verdict", "reason", "differences", "diagnosis", "prompt")
    assert [[one[field] for field in fields] for one in embedded] == [[row[field] for field in fields] for row in rows]


def test_hostile_text_makes_no_element(evaluation):
    found = [tag for tag, _ in Elements(report.write_page(evaluation)).tags]
    expected = "html head meta meta meta meta meta title link style body a header main noscript p script script script"
    assert found == expected.split()


@given(st.text(st.characters(), max_size=40))
def test_any_text_survives_as_json_without_a_character_that_html_reads(text):
    escaped = page.escaped_json({text: [text]})
    assert json.loads(escaped) == {text: [text]}
    assert escaped.isascii()
    assert not set("<>&\0\n") & set(escaped)


def test_the_policy_allows_our_style_and_our_script_only(evaluation):
    elements = Elements(report.write_page(evaluation))
    (policy,) = (given["content"] for _, given in elements.tags if given.get("http-equiv") == "Content-Security-Policy")
    sources = dict(directive.split(" ", 1) for directive in policy.split("; "))
    (script,) = (text for tag, given, text in elements.texts if (tag, given) == ("script", {}) and text.strip())
    digests = [hashlib.sha256(text.encode()).digest() for text in (elements.text("style"), script)]
    assert [sources["style-src"], sources["script-src"]] == [
        f"'sha256-{base64.b64encode(d).decode()}'" for d in digests
    ]
    assert sources["default-src"] == sources["base-uri"] == sources["form-action"] == "'none'"
    assert sources["img-src"] == "data:"


def test_the_page_names_no_address_but_that_of_svg():
    sources = "".join(
        path.read_text(encoding="utf-8") for path in page.HERE.iterdir() if path.suffix in {".js", ".css", ".html"}
    )
    assert set(re.findall(r"\w+://[^\s\"'`]+", sources)) == {"http://www.w3.org/2000/svg"}


def test_the_script_never_makes_markup_of_text():
    sources = "".join(path.read_text(encoding="utf-8") for path in page.HERE.glob("*.js"))
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|eval\(|Function\(", sources
    )
    assert "</script" not in sources
    assert "<!--" not in sources


def test_every_script_is_in_the_page():
    assert {path.stem for path in page.HERE.glob("*.js")} == set(page.SCRIPTS)


def test_the_same_files_give_the_same_page(evaluation):
    first = report.write_page(evaluation).read_bytes()
    assert report.write_page(evaluation).read_bytes() == first


@pytest.mark.parametrize("missing", ["metrics", "predictions", "schemas", "history"])
def test_a_page_is_written_without(evaluation, missing):
    (path,) = evaluation.glob(f"{missing}.*")
    path.unlink()
    elements = Elements(report.write_page(evaluation))
    empty = {"predictions": elements.data("examples"), "history": elements.data("run")["losses"]["training"]}
    assert not {**elements.data("run"), **empty}[missing]


def test_rows_of_an_older_kind_are_shown_as_they_are(tmp_path):
    old = {
        key: fake_run.example(0)[key] for key in ("id", "db_id", "question", "gold", "prediction", "verdict", "reason")
    }
    run = fake_run.write(tmp_path / "old", run__json={"kind": "evaluate"}, predictions__jsonl=[old])
    assert Elements(report.write_page(run)).data("examples") == [old]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no run\.json; name the folder of a run"):
        report.write_page(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_training_run_shows_its_samples_and_losses(tmp_path):
    shown = Elements(report.write_page(fake_run.training(tmp_path / "training"))).data("run")
    assert shown["losses"] == {"source": "", "training": [[1, 1.0], [2, None]], "validation": [[2, 0.5]]}
    assert [sample["prediction"] for sample in shown["samples"]] == ["SELECT 1", "SELECT 2"]


def test_losses_of_an_evaluation_are_those_of_the_run_that_made_its_adapter(tmp_path):
    trained = fake_run.training(tmp_path / "trained")
    (trained / "adapter").mkdir()
    stamp = {"kind": "evaluate", "adapter": str(trained / "adapter")}
    run = fake_run.write(tmp_path / "evaluation", run__json=stamp)
    losses = Elements(report.write_page(run)).data("run")["losses"]
    assert losses == {"source": str(trained), "training": [[1, 1.0], [2, None]], "validation": [[2, 0.5]]}


@pytest.mark.parametrize("adapter", ["someone/model", "gone/adapter", None])
def test_without_the_run_that_made_the_adapter_there_are_no_losses(tmp_path, adapter):
    run = fake_run.write(tmp_path / "evaluation", run__json={"kind": "evaluate", "adapter": adapter})
    assert Elements(report.write_page(run)).data("run")["losses"]["training"] == []


@pytest.mark.parametrize(
    ("value", "embedded"),
    [
        (None, None),
        (7, 7),
        (0.25, 0.25),
        (1.0, {"number": "1.0"}),
        (1e-7, {"number": "1e-07"}),
        (2**53, {"number": "9007199254740992"}),
        (float("nan"), {"number": "nan"}),
        ("1.0", "1.0"),
        ("x" * 501, {"text": "x" * 500, "length": 501}),
    ],
)
def test_a_cell_keeps_what_javascript_would_lose(tmp_path, value, embedded):
    result = {"columns": ["a"], "rows": [[value]], "num_rows": 1}
    rows = [fake_run.example(0, gold_result=result)]
    run = fake_run.write(tmp_path / "run", run__json={}, predictions__jsonl=rows)
    assert Elements(report.write_page(run)).data("examples")[0]["gold_result"]["rows"] == [[embedded]]


def test_only_the_first_rows_of_a_result_are_in_the_page(tmp_path):
    result = {"columns": ["a"], "rows": [[number] for number in range(30)], "num_rows": 30}
    run = fake_run.write(tmp_path / "run", run__json={}, predictions__jsonl=[fake_run.example(0, gold_result=result)])
    (embedded,) = Elements(report.write_page(run)).data("examples")
    assert embedded["gold_result"] == {**result, "rows": result["rows"][:10]}


def test_a_text_of_a_million_characters_is_cut_and_says_so(tmp_path):
    rows = [fake_run.example(0, prediction="<" * 1_000_000)]
    path = report.write_page(fake_run.write(tmp_path / "run", run__json={}, predictions__jsonl=rows))
    (embedded,) = Elements(path).data("examples")
    assert embedded["prediction"] == "<" * 100_000 + " … [cut here: 1,000,000 characters in all]"


@pytest.mark.parametrize(("limit", "kept"), [(10_000, True), (100, False)])
def test_prompts_are_left_out_where_they_are_too_long_together(tmp_path, monkeypatch, limit, kept):
    monkeypatch.setattr(page, "MAX_PROMPTS", limit)
    rows = [fake_run.example(number) for number in range(10)]
    elements = Elements(report.write_page(fake_run.evaluation(tmp_path / "run", rows)))
    assert elements.data("run")["prompts_left_out"] is not kept
    assert all(("prompt" in row) is kept for row in elements.data("examples"))


def test_an_answer_that_is_the_sql_is_not_told_twice(tmp_path):
    rows = [fake_run.example(0, prediction="SELECT 1", answer="SELECT 1"), fake_run.example(1)]
    run = fake_run.write(tmp_path / "run", run__json={}, predictions__jsonl=rows)
    assert ["answer" in row for row in Elements(report.write_page(run)).data("examples")] == [False, True]


def test_a_page_is_little_larger_than_its_files_and_written_in_a_moment(tmp_path):
    run = fake_run.evaluation(tmp_path / "run", [fake_run.example(number) for number in range(3_000)])
    started = time.monotonic()
    size = report.write_page(run).stat().st_size
    assert time.monotonic() - started < 10
    assert size < (run / "predictions.jsonl").stat().st_size + 150_000


def test_every_verdict_is_explained():
    assert set(words.VERDICTS) == {verdict.value for verdict in Verdict}


def luminance(colour):
    """Relative luminance, as WCAG 2 defines it."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("paper", ["paper", "sheet", "tint", "mark"])
def test_text_stands_out_from_what_is_behind_it(theme, paper):
    style = (page.HERE / "page.css").read_text(encoding="utf-8")
    palette = {name: pair[theme] for name, *pair in re.findall(r"--(\w+): light-dark\((#\w+), (#\w+)\)", style)}
    inks = "ink quiet link right wrong keyword string number function training validation".split()
    for ink in inks:
        light, dark = sorted((luminance(palette[ink]), luminance(palette[paper])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, ink


def test_a_page_holds_what_voting_and_repairing_made_of_an_answer(run):
    more = {
        "candidates": [{"text": "SELECT 1", "count": 3, "votes": 3}],
        "before_votes": "SELEC 7",
        "before_repair": "SELEC 8",
    }
    (run / "predictions.jsonl").write_text(json.dumps({"id": "1", "verdict": "match", **more, "repair": {}}) + "\n")
    text = report.write_page(run).read_text(encoding="utf-8")
    assert all(part in text for part in ('"candidates"', "SELEC 7", "SELEC 8"))
