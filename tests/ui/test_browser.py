"""text2sql ui as a browser shows it: asked by keyboard, by a real model and by hostile ones, at phone and desktop width."""

from __future__ import annotations

import argparse
import re
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import fake_answers
import fake_run
import fake_sweep
import pytest
import shop
import uvicorn
from browsing import DESKTOP, PHONE, Tabs
from test_report_browser import chromium  # noqa: F401  # a fixture

from text2sql import report, sweeps
from text2sql.ui import access, app, command, places
from text2sql.ui.answerer import Answerer

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("one_thread")]

HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)>"


@contextmanager
def serving(found, open_session, token=None):
    """The page on a port of this machine; yields its address."""
    with command.listen(access.LOOPBACK, 0) as listening:
        allowed = access.Access(access.LOOPBACK, listening.getsockname()[1], token)
        page = app.build(found, Answerer(open_session), allowed)
        server = uvicorn.Server(uvicorn.Config(page, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{allowed.port}"
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ui")
    fake_run.training(folder / "outputs" / "one")
    (folder / "outputs" / "one" / "adapter").mkdir()
    (folder / "outputs" / "one" / "adapter" / "adapter_config.json").write_text("{}")
    rows = [*fake_run.hostile_examples(), *(fake_run.example(number) for number in range(30))]
    for name in ("base", "tuned"):
        report.write_page(fake_run.evaluation(folder / "outputs" / name, rows))
    sweep = fake_sweep.grid(folder / "multirun", {"lora.r": [4, 8]}, lambda values, seed: (values[0], 1.0))
    fake_sweep.job(sweep / "2", [f"prompt='{HOSTILE}'"], status="failed", error=HOSTILE, phase=1)
    fake_run.evaluation(sweep / "3", rows[-5:])
    report.write_page(sweep / "3")
    sweeps.write(sweeps.read([sweep]), sweep)
    shop.make(folder / "shop.sqlite")
    return places.find([folder / "outputs", sweep], [folder / "shop.sqlite"], [])


@pytest.fixture(scope="module")
def fake(found, tmp_path_factory):
    """The page with sessions that answer what a test tells them to; `.address` and `.sessions`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEXT2SQL_CACHE", str(tmp_path_factory.mktemp("cache")))
        sessions = fake_answers.Sessions()
        with serving(found, sessions) as address:
            yield SimpleNamespace(address=address, sessions=sessions)


@pytest.fixture
def view(chromium):  # noqa: F811
    """A function that opens an address; at the end nothing may have gone wrong or have been asked of another host."""
    tabs, allowed = Tabs(chromium), []

    def view(address, size=DESKTOP, scheme="light", may_say=()):
        allowed.extend(may_say)
        return tabs.open(address, size, scheme)

    yield view
    tabs.close()
    assert [said for said in tabs.complaints if not any(known in said for known in allowed)] == []
    assert {urlsplit(url).hostname for url in tabs.requests if not url.startswith("data:")} == {"127.0.0.1"}


def ask(tab, question="How many orders are open?"):
    tab.get_by_label("Question").fill(question)
    tab.keyboard.press("Enter")
    tab.locator("#progress", has_text=re.compile("answer")).wait_for()


def test_a_question_is_answered_by_keyboard_with_sql_its_check_and_its_rows(view, fake):
    tab = view(fake.address)
    ask(tab)
    answer = tab.get_by_role("article")
    assert answer.locator("pre").inner_text() == fake_answers.SQL
    assert "All its names are in the schema: reads orders.status" in answer.inner_text()
    assert answer.get_by_role("columnheader").inner_text() == "COUNT(*)"
    assert answer.get_by_role("cell").inner_text() == "10"
    assert "orders" in tab.locator("#schema .card").first.inner_text()


def test_the_newest_answer_stands_first_and_the_form_stays_ready(view, fake):
    tab = view(fake.address)
    ask(tab, "First?")
    ask(tab, "Second?")
    assert tab.locator("article h2").all_inner_texts() == ["Second?", "First?"]
    assert tab.get_by_role("button", name="Ask").is_enabled()


@pytest.mark.parametrize("abstains", [False, True])
def test_what_a_model_writes_stays_text(view, fake, monkeypatch, abstains):
    result = None if abstains else {"columns": [HOSTILE], "rows": [[HOSTILE], ["\u202eabc"]], "num_rows": 2}
    fields = {"abstained": HOSTILE if abstains else None, "reads": (HOSTILE,)}
    monkeypatch.setattr(
        fake.sessions, "answers", lambda question: fake_answers.answer(question, HOSTILE, result, **fields)
    )
    tab = view(fake.address)
    ask(tab, HOSTILE)
    answer = tab.get_by_role("article")
    assert answer.locator("h2").inner_text() == HOSTILE
    assert HOSTILE in answer.locator("pre").inner_text()
    assert answer.locator("script, img, svg, iframe, a").count() == 0
    assert tab.evaluate("document.scripts.length") == 4


def test_a_question_that_is_too_long_and_a_busy_model_are_said(view, fake, monkeypatch):
    tab = view(fake.address, may_say=["status of 400", "status of 409"])
    tab.get_by_label("Question").fill("x" * 10_000)
    tab.keyboard.press("Enter")
    tab.get_by_text("the question has 10,000 characters").wait_for()
    go_on = threading.Event()
    monkeypatch.setattr(fake.sessions, "answers", lambda question: go_on.wait(20) and fake_answers.answer(question))
    tab.get_by_label("Question").fill("How many?")
    tab.get_by_role("button", name="Ask").click()
    tab.get_by_text("writing SQL and running it").wait_for()
    assert tab.get_by_role("button", name="Ask").is_disabled()
    other = view(fake.address)
    other.get_by_label("Question").fill("And how many more?")
    other.get_by_role("button", name="Ask").click()
    other.get_by_text("another question is being answered").wait_for()
    go_on.set()
    tab.get_by_role("article").wait_for()


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_its_window(view, fake, size, scheme):
    tab = view(fake.address, size, scheme)
    ask(tab)
    for address in ("/runs", "/sweeps/1", "/compare?a=0/base&b=0/tuned", None):
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), tab.url
        if address:
            tab.goto(fake.address + address)


def test_runs_lead_to_their_reports_which_run_without_this_page_or_its_cookie(view, fake):
    tab = view(f"{fake.address}/runs")
    tab.get_by_role("link", name=re.compile("report of .*tuned")).click()
    tab.get_by_role("heading", name="Examples", exact=True).wait_for()
    assert tab.evaluate("origin") == "null"
    tab.goto(f"{fake.address}/runs")
    tab.get_by_role("link", name="plots").click()
    tab.get_by_role("button", name="lora.r").click()
    tab.get_by_role("link", name="3", exact=True).click()
    tab.get_by_role("heading", name="Examples", exact=True).wait_for()


def test_two_runs_stand_side_by_side_and_hostile_text_stays_text(view, fake):
    tab = view(f"{fake.address}/runs")
    tab.get_by_role("link", name=re.compile("compare .*base")).click()
    tab.get_by_label("Run B").select_option("0/tuned")
    tab.get_by_role("button", name="Compare").click()
    assert tab.get_by_role("status").inner_text() == f"{30 + len(fake_run.HOSTILE)} questions"
    assert tab.locator(".pairs").get_by_text(fake_run.HOSTILE["script"]).count() > 0
    assert tab.locator(".pairs script, .pairs img").count() == 0
    tab.get_by_role("link", name="Next").click()
    tab.locator(".pairs mark").first.wait_for()


def test_with_a_token_the_printed_address_opens_the_page_and_its_reports(view, found):
    token = "a-token-of-enough-characters"
    with serving(found, fake_answers.Sessions(), token) as address:
        tab = view(f"{address}/runs", may_say=["status of 401"])
        assert "wants the token" in tab.inner_text("body")
        tab.goto(f"{address}/?token={token}")
        assert tab.url == f"{address}/"
        ask(tab)
        tab.goto(f"{address}/reports/1/report.html")
        tab.get_by_role("link", name="3", exact=True).click()
        tab.get_by_role("link", name="I have: go on").click()
        tab.get_by_role("heading", name="Examples", exact=True).wait_for()


def test_a_trained_model_answers_a_question_end_to_end(view, curriculum, tmp_path, monkeypatch):
    monkeypatch.setenv("TEXT2SQL_CACHE", str(tmp_path / "cache"))
    shop.make(tmp_path / "shop.sqlite")
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    options = parser.parse_args(["ui", "--set", "prompt.max_sql_tokens=8"])
    found = places.find([Path(curriculum.folder)], [tmp_path / "shop.sqlite"], [])
    with serving(found, command.opener(options)) as address:
        tab = view(address)
        tab.get_by_label("Run whose model answers").select_option("0/outputs/two")
        ask(tab)
        answer = tab.get_by_role("article").inner_text()
    assert "How many orders are open?" in answer
    assert re.search(r"\d rows?, \d+ column|No answer: \w+", answer)
    assert re.search(r"least sure token has a probability of 0\.\d\d; \d", answer)
