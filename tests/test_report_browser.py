"""The page of a run as a browser shows it: opened from a file, driven by keyboard and mouse, at phone and desktop width."""

from __future__ import annotations

import shutil
from itertools import pairwise
from urllib.parse import urlencode

import fake_run
import pytest
from browsing import DESKTOP, PHONE, Tabs

from text2sql import report
from text2sql.evaluation import wilson_interval

pytestmark = pytest.mark.browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync".split()
)
NUM_EXAMPLES = 120


@pytest.fixture(scope="module")
def chromium():
    """A running Chromium."""
    driver = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install -e '.[browser]'"
    )
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, "--disable-component-update"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def rows():
    return [fake_run.example(number) for number in range(NUM_EXAMPLES)] + list(fake_run.hostile_examples())


@pytest.fixture(scope="module")
def pages(tmp_path_factory, rows):
    """Addresses of an evaluation's and of a training run's page."""
    folder = tmp_path_factory.mktemp("runs")
    written = {"evaluation": fake_run.evaluation(folder / "a", rows), "training": fake_run.training(folder / "b")}
    return {name: report.write_page(run).as_uri() for name, run in written.items()}


@pytest.fixture
def view(chromium, pages):
    """A function that opens a page; at the end of the test nothing may have gone wrong or have asked for more files."""
    tabs = Tabs(chromium)
    yield lambda name="evaluation", size=DESKTOP, scheme="light", **state: tabs.open(
        f"{pages[name]}#{urlencode(state)}", size, scheme
    )
    tabs.close()
    assert tabs.complaints == []
    assert set(tabs.requests) <= set(pages.values())


def counted(tab):
    """How many examples pass the filters."""
    return int(tab.get_by_role("status").inner_text().split(" ")[0].replace(",", ""))


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("name", ["evaluation", "training"])
def test_no_page_is_wider_than_its_window(view, name, size):
    tab = view(name, size)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_an_open_example_of_any_text_is_no_wider_than_a_phone(view):
    tab = view(size=PHONE)
    for name in fake_run.HOSTILE:
        tab.evaluate("hash => { location.hash = hash }", urlencode({"example": f"hostile/{name}"}))
        tab.wait_for_function(f"document.querySelector('.open')?.textContent.includes('hostile/{name}')")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), name


@pytest.mark.parametrize("name", ["script", "comment", "cdata"])
def test_markup_in_a_text_is_shown_as_text(view, name):
    tab = view(example=f"hostile/{name}")
    text = fake_run.HOSTILE[name]
    places = (".open .question", ".detail .pane:nth-child(1) .sql", ".detail .result th", ".detail .result td")
    assert [tab.locator(place).first.text_content() for place in places] == [text] * len(places)
    assert (
        tab.evaluate("document.querySelectorAll('img, iframe, object, script').length") == 3
    )  # our own data and script


def test_the_heading_and_the_title_take_a_label_as_text(view):
    tab = view()
    assert tab.locator("h1").text_content() == fake_run.HOSTILE["script"]
    assert tab.title() == f"{fake_run.HOSTILE['script']} · text2sql"


@pytest.mark.parametrize("attempt", ["body.innerHTML = 'x'", "write('x')", "body.firstElementChild.outerHTML = 'x'"])
def test_the_browser_itself_refuses_markup_from_text(chromium, pages, attempt):
    tab = chromium.new_page()
    tab.goto(pages["evaluation"])
    assert (
        tab.evaluate(f"(() => {{ try {{ document.{attempt} }} catch (error) {{ return error.name }} }})()")
        == "TypeError"
    )
    assert tab.locator("h1").is_visible()
    tab.close()


def test_the_browser_itself_loads_nothing_from_elsewhere(chromium, pages):
    tab = chromium.new_page()
    tab.goto(pages["evaluation"])
    directive = """new Promise((done) => {
        document.addEventListener('securitypolicyviolation', (event) => done(event.effectiveDirective));
        document.body.append(Object.assign(new Image(), { src: 'https://example.org/x.png' }));
    })"""
    assert tab.evaluate(directive) == "img-src"
    tab.close()


def test_an_example_of_a_million_characters_opens(chromium, tmp_path):
    rows = [fake_run.example(0, prediction="'<" * 500_000, question="\0" * 1_000_000)]
    tab = chromium.new_page()
    tab.goto(report.write_page(fake_run.evaluation(tmp_path, rows)).as_uri())
    tab.locator(".opener").click()
    assert tab.locator(".detail .sql").last.inner_text().endswith("[cut here: 1,000,000 characters in all]")
    tab.close()


@pytest.mark.parametrize(
    ("name", "codes"),
    [("turned", ["U+202E", "U+2069", "U+200F"]), ("nul", ["U+0000", "U+001B"]), ("surrogates", ["U+D800", "U+DFFF"])],
)
def test_characters_that_are_not_seen_are_shown_as_their_codes(view, name, codes):
    tab = view(example=f"hostile/{name}")
    assert tab.locator(".open .question .unseen").all_text_contents() == codes


def test_the_search_finds_examples_that_have_all_the_words(view, rows):
    tab = view()
    assert counted(tab) == len(rows)
    tab.keyboard.press("/")
    tab.keyboard.type("NUMBER world 11")
    expected = [row for row in rows if "number" in row["question"] and row["db_id"] == "world" and "11" in row["id"]]
    assert counted(tab) == len(expected) == tab.locator(".example").count() > 0


@pytest.mark.parametrize(
    ("field", "choice", "passes"),
    [
        ("Outcome", "wrong", lambda row: not row["correct"]),
        ("Verdict", "mismatch", lambda row: row["verdict"] == "mismatch"),
        ("Diagnosis", "wrong_filter", lambda row: "wrong_filter" in row["diagnosis"]),
        ("Hardness", "hard", lambda row: row["hardness"] == "hard"),
        ("Database", "world", lambda row: row["db_id"] == "world"),
        ("Strict and official", "differ", lambda row: bool(row["differences"])),
    ],
)
def test_a_filter_leaves_the_examples_it_names(view, rows, field, choice, passes):
    tab = view()
    tab.locator("#examples").get_by_label(field, exact=True).select_option(choice)
    assert counted(tab) == sum(map(passes, rows))
    tab.get_by_role("button", name="Clear").click()
    assert counted(tab) == len(rows)


def test_a_click_in_a_table_shows_the_examples_it_counts(view):
    tab = view(q="song")
    row = tab.locator("#by-verdict tbody tr", has_text="mismatch")
    row.get_by_role("button").click()
    assert counted(tab) == int(row.locator("td").first.inner_text())


def test_filters_and_the_open_example_are_in_the_address(view):
    tab = view()
    tab.get_by_label("Outcome").select_option("wrong")
    tab.locator(".opener").nth(3).click()
    opened = tab.locator(".open .question").inner_text()
    again = view()
    again.goto(tab.url)
    again.reload()
    assert again.locator(".open .question").inner_text() == opened
    assert counted(again) == counted(tab)
    assert again.get_by_label("Outcome").input_value() == "wrong"


def test_an_address_opens_an_example_of_a_later_page(view):
    tab = view(example="spider/dev/77")
    assert tab.locator(".open .question").inner_text() == "Who sings song number 77?"
    assert "51 to 100 of" in tab.locator(".pages").inner_text()
    assert tab.evaluate("document.activeElement.closest('.open') !== null")


def test_an_address_of_an_unknown_example_says_so(view, rows):
    tab = view(example="nowhere/1")
    assert "This run has no example nowhere/1." in tab.get_by_role("status").inner_text()
    assert counted(tab) == len(rows)


def test_the_list_holds_one_page_of_examples_at_a_time(view):
    tab = view()
    assert tab.locator(".example").count() == 50
    tab.get_by_role("button", name="Next page").click()
    assert tab.locator(".example .question").first.inner_text() == "Who sings song number 50?"


def test_the_keyboard_walks_through_the_list_and_opens_examples(view):
    tab = view()
    for key in ("j", "j", "j", "k", "Enter"):
        tab.keyboard.press(key)
    assert tab.locator(".open .question").inner_text() == "Who sings song number 1?"
    tab.keyboard.press("j")
    assert tab.locator(".open .question").inner_text() == "Who sings song number 2?"
    tab.keyboard.press("Enter")
    assert tab.locator(".open").count() == 0


def test_keys_typed_into_the_search_are_text(view):
    tab = view()
    tab.keyboard.press("/")
    tab.keyboard.type("j/k")
    assert tab.get_by_label("Search").input_value() == "j/k"
    tab.keyboard.press("Escape")
    assert tab.evaluate("document.activeElement === document.body")


def test_an_open_example_shows_queries_results_schema_and_reasons(view):
    tab = view(example="spider/dev/2")
    panes = tab.locator(".detail .pane")
    assert panes.locator("h4").all_inner_texts() == ["Gold SQL", "Predicted SQL", "Gold result", "Predicted result"]
    assert [mark.replace("\n", "") for mark in tab.locator(".detail .sql mark").all_inner_texts()] == ["=", ">"]
    assert panes.nth(2).locator("td").all_inner_texts() == ["Ann", "NULL", "1.0"]
    assert panes.nth(2).locator(".lacking").all_inner_texts() == ["1.0"]
    assert tab.locator(".card h5").all_inner_texts() == ["singer"]
    assert "→ city.id" in tab.locator(".card").inner_text()
    reasons = tab.locator(".why li").all_inner_texts()
    assert reasons[0] == "mismatch: 2 rows instead of 3"
    assert "wrong filter: filters home > 1" in reasons


def test_other_tables_and_the_prompt_are_a_click_away(view):
    tab = view(example="spider/dev/2")
    tab.get_by_text("1 other table").click()
    tab.get_by_text("Prompt and answer").click()
    tab.locator(".conversation").first.wait_for()
    assert tab.locator(".card h5").all_inner_texts() == ["singer", "city"]
    assert tab.locator(".conversation").all_inner_texts() == ["Schema: ... Question 2", "SELECT 1"]


def test_intervals_by_database_are_those_of_the_evaluation(view, rows):
    tab = view()
    world = [row["correct"] for row in rows if row["db_id"] == "world"]
    low, high = wilson_interval(sum(world), len(world))
    cells = tab.locator("#by-database tbody tr", has_text="world").locator("td").all_inner_texts()
    assert cells[:3] == [
        str(len(world)),
        f"{100 * sum(world) / len(world):.1f}\u00a0%",
        f"{100 * low:.1f} to {100 * high:.1f}",
    ]


def test_databases_are_sorted_by_a_click_on_a_heading(view, rows):
    tab = view()
    names = tab.locator("#by-database tbody th")
    tab.locator("#by-database thead").get_by_role("button", name="examples").click()
    assert names.first.inner_text() in {"concert", "world"}
    assert tab.locator("#by-database [aria-sort=descending]").inner_text().startswith("examples")
    tab.locator("#by-database thead").get_by_role("button", name="examples").click()
    assert names.last.inner_text() in {"concert", "world"}


def test_losses_are_drawn_and_told(view):
    tab = view()
    assert tab.locator("#losses polyline").count() == 2
    label = tab.locator("#losses svg").get_attribute("aria-label")
    assert label == "Loss by optimizer step. Last: training 0.250 at step 8, validation 0.400 at step 8."


def test_a_training_run_shows_its_end_and_its_samples(view):
    tab = view("training")
    assert "Status: failed. boom" in tab.locator("#top").inner_text()
    assert "The training loss is not a number at step 2." in tab.locator("#losses").inner_text()
    assert tab.locator("#samples .step h4").all_inner_texts() == ["Gold", "Step 1", "Step 2"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_until_it_is_switched(view, scheme):
    tab = view(scheme=scheme)
    paper = "getComputedStyle(document.body).backgroundColor"
    colours = {"light": "rgb(252, 252, 251)", "dark": "rgb(21, 23, 26)"}
    other = {"light": "dark", "dark": "light"}[scheme]
    assert tab.evaluate(paper) == colours[scheme]
    tab.get_by_role("button", name=f"{other.title()} theme").click()
    assert tab.evaluate(paper) == colours[other]


def test_print_is_light_and_without_controls(view):
    tab = view(scheme="dark")
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(252, 252, 251)"
    assert not tab.locator(".filters").is_visible()


def test_every_field_has_a_label_and_every_table_headings(view):
    tab = view(example="spider/dev/2")
    assert tab.evaluate("[...document.querySelectorAll('input, select')].every((field) => field.labels.length === 1)")
    assert tab.evaluate(
        "[...document.querySelectorAll('table')].every((table) => table.caption && table.tHead.querySelector('th[scope=col]'))"
    )
    levels = tab.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4, h5')].map((heading) => Number(heading.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_ten_thousand_examples_open_and_are_searched_in_a_moment(chromium, tmp_path):
    run = fake_run.evaluation(tmp_path, [fake_run.example(number) for number in range(10_000)])
    tab = chromium.new_page()
    tab.goto(report.write_page(run).as_uri())
    assert counted(tab) == 10_000
    assert tab.evaluate("document.querySelectorAll('*').length") < 3_000
    assert (
        tab.evaluate(
            "(() => { const start = performance.now(); change({ q: '99' }); return performance.now() - start })()"
        )
        < 1_000
    )
    tab.close()
