"""The plots of a sweep and its page: what is drawn, and that no text of a file becomes markup."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import fake_sweep
import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2sql import sweeps
from text2sql.sweeps import coordinates, page, plots
from text2sql.sweeps.axes import axis_of, plain

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \" ' $x^{"


def scored(values, seed):
    return int(values[0]) % 90 + seed % 3, 1 + seed / 10


@pytest.fixture
def sweep(tmp_path):
    keys = {"lora.r": [4, 8, 16], "prompt": ["ddl", "names"]}
    return fake_sweep.grid(tmp_path / "sweep", keys, scored)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, by the names of their files."""
    from matplotlib.figure import Figure

    figures, save = {}, Figure.savefig

    def remember(figure, path, **more):
        figures[path.stem] = figure
        save(figure, path, **more)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


def written(sweep, **options):
    path, drawn = sweeps.write(sweeps.read([sweep], **options), sweep)
    return path.read_text(encoding="utf-8"), [file.name for file in drawn]


class Elements(HTMLParser):
    """The elements of a page as a browser finds them, and all of its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag, name):
        return [given[name] for found, given in self.tags if found == tag and name in given]


# Plots


def test_each_swept_key_has_a_plot_and_all_jobs_are_in_the_curves(sweep, drawn):
    _, files = written(sweep)
    assert files == ["loss.png", "by_0_lora_r.png", "by_1_prompt.png"]
    for name in files:
        assert (sweep / "plots" / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    curves = [line for line in drawn["loss"].axes[0].lines if len(line.get_xdata()) == 20]
    assert len(curves) == 6
    labels = [text.get_text() for text in drawn["loss"].legends[0].get_texts()]
    assert "r 16, prompt ddl" in labels


def test_a_seed_has_no_plot_of_its_own(tmp_path):
    sweep = fake_sweep.grid(tmp_path, {"prompt": ["ddl", "names"]}, lambda values, seed: (seed, 1.0), seeds=(1, 2))
    assert written(sweep)[1] == ["loss.png", "by_0_prompt.png"]
    assert "by_1_seed.png" in written(sweep, over="none")[1]


@pytest.mark.parametrize(
    ("values", "numeric", "log"),
    [
        (["3e-5", "1e-4", "1e-3"], True, True),
        (["4", "8", "16"], True, True),
        (["4", "8", "20"], True, False),
        (["0.0", "0.1", "10"], True, False),
        (["-1", "100"], True, False),
        (["4", "ddl"], False, False),
        (["4"], False, False),
    ],
)
def test_an_axis_is_logarithmic_where_positive_numbers_span_decades(values, numeric, log):
    axis = axis_of(values)
    assert (axis.numeric, axis.log) == (numeric, log)


@given(st.lists(st.one_of(st.floats(-1e6, 1e6).map(repr), st.sampled_from(["a", "b"])), min_size=1, max_size=30))
def test_every_value_has_its_place_between_the_ends(values):
    axis = axis_of(values)
    places = [axis.place(value) for value in axis.values]
    assert places == sorted(places)
    assert all(0 <= place <= 1 for place in places)
    assert 1 <= len(axis.ticks()) <= 9


def test_the_plot_of_a_rate_has_a_log_axis_and_names_its_values(tmp_path, drawn):
    written(fake_sweep.grid(tmp_path, {"trainer.learning_rate": ["3e-5", "1e-4", "1e-3"]}, lambda values, _: (50, 1.0)))
    (axes,) = drawn["by_0_trainer_learning_rate"].axes
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["3e-05", "0.0001", "0.001"]


def test_intervals_are_within_the_picture(sweep, drawn):
    written(sweep)
    low, high = drawn["by_0_lora_r"].axes[0].get_ylim()
    metrics = [line.job.metrics for line in sweeps.read([sweep]).lines]
    assert low <= 100 * min(one["eval/execution_accuracy_low"] for one in metrics)
    assert high >= 100 * max(one["eval/execution_accuracy_high"] for one in metrics)


def test_many_curves_are_explained_by_a_colour_bar(tmp_path, drawn):
    written(fake_sweep.grid(tmp_path, {"lora.r": list(range(1, 21))}, scored))
    _, bar = drawn["loss"].axes
    assert bar.get_ylabel() == "lora.r"
    assert drawn["loss"].legends == []


def test_many_curves_of_texts_are_explained_as_far_as_there_is_room(tmp_path, drawn):
    written(fake_sweep.grid(tmp_path, {"prompt": [f"style{n}" for n in range(20)]}, lambda *_: (5, 1.0)))
    labels = [text.get_text() for text in drawn["loss"].legends[0].get_texts()]
    assert len(labels) == plots.MAX_LEGEND + 1
    assert labels[-1] == "and 8 more"


def test_three_numeric_keys_have_parallel_coordinates(tmp_path):
    keys = {"lora.r": [4, 8], "trainer.learning_rate": [0.001, 0.01], "lora.lora_dropout": [0, 0.1]}
    assert "parallel.png" in written(fake_sweep.grid(tmp_path / "a", keys, scored))[1]
    two = {key: keys[key] for key in list(keys)[:2]}
    assert "parallel.png" not in written(fake_sweep.grid(tmp_path / "b", two, scored))[1]


def test_an_optuna_study_has_parallel_coordinates_with_two_keys(tmp_path):
    sweep = fake_sweep.grid(tmp_path, {"lora.r": [4, 8], "prompt": ["ddl", "names"]}, scored)
    fake_sweep.asked_for(sweep, target="hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper")
    assert coordinates.wanted(sweeps.read([sweep]))


def test_a_sweep_in_which_nothing_finished_is_drawn_as_far_as_it_is(tmp_path):
    fake_sweep.job(tmp_path / "0", ["lora.r=4"], status="running", history=list(fake_sweep.curve(3, 4)))
    fake_sweep.job(tmp_path / "1", ["lora.r=8"], status="failed", error="x")
    assert written(tmp_path)[1] == ["loss.png"]


def test_a_sweep_without_anything_to_draw_has_a_page(tmp_path):
    fake_sweep.job(tmp_path / "0", ["lora.r=4"], status="failed", error="x")
    text, files = written(tmp_path)
    assert files == []
    assert "1 job: 1 failed" in text


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("text", ["$x^{", "a $b$ c", "_hidden", "\\frac", "日本", "%"])
def test_any_text_is_drawn_as_it_is(tmp_path, text):
    for number in (0, 1):
        typed = [f"+key='{text}{number}'"]
        history = list(fake_sweep.curve(3))
        fake_sweep.job(tmp_path / str(number), typed, metrics=fake_sweep.accuracy(1, 2), history=history)
    assert written(tmp_path)[1] == ["loss.png", "by_0_key.png"]


def test_long_values_keep_their_ends():
    assert plain("x" * 50 + "end", 20) == "..." + "x" * 14 + "end"


# The page


def test_the_page_holds_the_table_the_plots_and_links_to_the_jobs(sweep):
    (sweep / "0" / "report.html").write_text("")
    text, files = written(sweep)
    elements = Elements(text)
    images = elements.all("img", "src")
    assert [base64.b64decode(source.partition(",")[2]) for source in images] == [
        (sweep / "plots" / name).read_bytes() for name in files
    ]
    assert elements.all("a", "href") == ["./0/report.html"]
    assert sum(tag == "tr" for tag, _ in elements.tags) == 7


def test_links_lead_to_the_jobs_from_another_folder_too(sweep, tmp_path):
    (sweep / "0" / "report.html").write_text("")
    table = sweeps.read([sweep])
    path, _ = sweeps.write(table, sweep, tmp_path / "x" / "y")
    (address,) = Elements(path.read_text()).all("a", "href")
    assert (path.parent / address).resolve() == sweep / "0" / "report.html"


def test_a_folder_of_any_name_is_linked_and_is_no_address(tmp_path):
    run = fake_sweep.job(tmp_path / "javascript:alert(1)//%2e#?\"'<b>", ["lora.r=4"])
    (run / "report.html").write_text("")
    (address,) = Elements(written(tmp_path)[0]).all("a", "href")
    assert address.startswith("./javascript%3Aalert%281%29")
    assert not set("<>\"'#?:") & set(address)


def test_hostile_text_makes_no_element(tmp_path):
    def tags(text):
        sweep = tmp_path / str(len(text))
        typed = [f"+key='{text}'"]
        fake_sweep.job(sweep / "0", typed, status="failed", error=text, label=text, phase=text, kind="evaluate")
        fake_sweep.job(sweep / "1", ["+key=b"], metrics={"eval/execution_accuracy": 0.5, text: 1.0}, label=text)
        elements = Elements(written(sweep)[0])
        return elements, [tag for tag, _ in elements.tags]

    hostile, found = tags(HOSTILE)
    assert found == tags("plain")[1]
    assert any(HOSTILE.split(" & ")[0] in text for text in hostile.text)
    assert not any(name.startswith("on") for _, given in hostile.tags for name in given)


def test_the_policy_allows_our_style_and_our_script_only(sweep):
    text, _ = written(sweep)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
    sources = dict(directive.split(" ", 1) for directive in policy.split("; "))
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert sources[f"{tag}-src"] == f"'sha256-{digest}'"
    assert sources["default-src"] == "'none'"


def test_the_page_asks_no_network_and_its_script_makes_no_markup_of_text(sweep):
    text, _ = written(sweep)
    assert not re.findall(r"https?://", text)
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", page.SCRIPT)


def test_the_same_files_give_the_same_page(sweep):
    assert written(sweep) == written(sweep)


def test_the_page_of_a_run_is_not_written_over(tmp_path):
    run = fake_sweep.job(tmp_path / "run", ["lora.r=4"])
    (run / "report.html").write_text("the run's own")
    with pytest.raises(ValueError, match=r"is the folder of one run.*--output DIR"):
        sweeps.write(sweeps.read([run]), run)
    assert (run / "report.html").read_text() == "the run's own"
    path, _ = sweeps.write(sweeps.read([run]), run, tmp_path / "elsewhere")
    assert path.is_file()


def test_a_folder_that_cannot_be_written_is_refused_with_the_cure(sweep, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write into .*--output DIR"):
        sweeps.write(sweeps.read([sweep]), sweep, tmp_path / "file")


def test_seeds_have_a_table_of_means(tmp_path):
    sweep = fake_sweep.grid(tmp_path, {"prompt": ["ddl", "names"]}, lambda values, seed: (50 + seed, 1.0), seeds=(1, 2))
    text, _ = written(sweep)
    assert text.count("<table") == 2
    assert "51.5 ± 0.7 %" in text


def test_a_page_without_the_stamp_of_a_job_is_written(sweep):
    (sweep / "0" / "run.json").write_text(json.dumps({"status": ["no", "text"], "phase": {}}))
    assert "unknown" in written(sweep)[0] or "no" in written(sweep)[0]
