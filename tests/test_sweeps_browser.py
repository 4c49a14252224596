"""The page of a sweep as a browser shows it: opened from a file, sorted by keyboard and mouse, at phone and desktop width."""

from __future__ import annotations

import fake_sweep
import pytest
from browsing import DESKTOP, PHONE, Tabs
from test_report_browser import chromium  # noqa: F401  # a fixture

from text2sql import sweeps

pytestmark = pytest.mark.browser

HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    keys = {"lora.r": [4, 16, 8], "prompt": ["ddl", "names"]}
    fake_sweep.grid(folder, keys, lambda values, seed: (3 * values[0], 1.0))
    fake_sweep.job(folder / "6", [f"prompt='{HOSTILE}'", "lora.r=128"], status="failed", error=HOSTILE, phase=1)
    page, _ = sweeps.write(sweeps.read([folder]), folder)
    return page.as_uri()


@pytest.fixture
def view(chromium, address):  # noqa: F811
    """A function that opens the page; at the end of the test nothing may have gone wrong or have asked for more files."""
    tabs = Tabs(chromium)
    yield lambda size=DESKTOP: tabs.open(address, size)
    tabs.close()
    assert tabs.complaints == []
    assert {url for url in tabs.requests if not url.startswith("data:")} <= {address}


def column(tab, number):
    return tab.locator(f"#jobs tbody tr > :nth-child({number})").all_inner_texts()


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_the_page_is_no_wider_than_its_window(view, size):
    assert view(size).evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_press_on_a_title_sorts_numbers_by_size_and_another_turns_them_round(view):
    tab = view()
    tab.get_by_role("button", name="lora.r").click()
    assert column(tab, 2) == ["4", "4", "8", "8", "16", "16", "128"]
    tab.keyboard.press("Enter")
    assert column(tab, 2) == ["128", "16", "16", "8", "8", "4", "4"]
    assert tab.get_by_role("columnheader", name="lora.r").get_attribute("aria-sort") == "descending"


def test_what_is_not_there_comes_last_either_way(view):
    tab = view()
    for _ in range(2):
        tab.get_by_role("button", name="accuracy").click()
        assert column(tab, 1)[-1] == "6"


def test_hostile_text_is_shown_as_text(view):
    tab = view()
    assert HOSTILE in column(tab, 3)
    assert tab.locator("#jobs img, #jobs script").count() == 0


def test_all_plots_are_shown(view):
    widths = view().evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 3
    assert min(widths) > 0
