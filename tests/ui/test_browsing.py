"""Runs, sweeps, reports, and two runs side by side; what they hold is never markup."""

from __future__ import annotations

import re
from pathlib import Path

import fake_answers
import fake_run
import pytest
from fake_answers import Sessions, ask, words

from text2sql import sweeps
from text2sql.ui import samples

HOSTILE = fake_run.HOSTILE["script"]


def test_runs_are_listed_with_status_metrics_and_links(client):
    page = client().get("/runs")
    for said in ("outputs/base", "evaluation: ", "33.3 %", "training phase 2, tiny", "failed", "boom", "0.5000"):
        assert said in words(page)
    assert 'href="/reports/0/base/report.html"' in page.text
    assert 'href="/?run=0/one"' in page.text
    assert 'href="/?run=0/failed"' not in page.text
    assert "/reports/0/tuned" not in page.text


def test_sweeps_are_listed_and_shown_with_their_swept_keys(client):
    browser = client()
    listed = browser.get("/runs")
    assert "multirun/rank 3: 2 finished, 1 failed" in words(listed)
    page = browser.get("/sweeps/1/rank")
    assert "lora.r" in words(page)
    assert "8.0 % (4.1 to 15.0)" in words(page)
    assert "text2sql plot" in words(page)
    sweeps.write(sweeps.read([Path("multirun/rank")]), Path("multirun/rank"))
    assert 'href="/reports/1/rank/report.html"' in browser.get("/sweeps/1/rank").text


def test_a_report_is_served_as_it_is_written_into_a_sandbox(client):
    page = client().get("/reports/0/base/report.html")
    assert page.content == Path("outputs/base/report.html").read_bytes()
    policy = page.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'")
    assert "allow-same-origin" not in policy


@pytest.mark.parametrize(
    "address",
    [
        "/reports/0/../secret/report.html",
        "/reports/0/%2e%2e/secret/report.html",
        "/reports/0/..%2fsecret/report.html",
        "/reports/0//{here}/secret/report.html",
        "/reports/0/%2f{here}/secret/report.html",
        "/reports/0/link/report.html",
        "/reports/0/linked/report.html",
        "/reports/7/base/report.html",
        "/reports/-1/rank/report.html",
        "/reports/0/base%00/report.html",
        "/sweeps/0/../secret",
        "/sweeps/0/%2e%2e%2fsecret",
        "/compare?a=0/../secret&b=0/base",
        "/assets/..%2fapp.py",
        "/assets/../app.py",
        "/docs",
        "/openapi.json",
    ],
)
def test_what_lies_outside_is_not_there(client, tmp_path, address):
    Path("outputs/link").symlink_to(tmp_path / "secret")
    Path("outputs/linked").mkdir()
    Path("outputs/linked/report.html").symlink_to(tmp_path / "secret" / "report.html")
    said = client().get(address.format(here=tmp_path))
    assert said.status_code == 404
    assert "secret" not in said.text


def test_a_folder_without_runs_is_an_empty_list(client, found, monkeypatch):
    for name in ("outputs", "multirun"):
        Path(name).rename(f"{name}-away")
        Path(name).mkdir()
    browser = client()
    assert "There are none." in words(browser.get("/runs"))
    assert "No run with an adapter" in words(browser.get("/"))
    assert browser.get("/sweeps/1").status_code == 400


def compare(client, **more):
    return client.get("/compare", params={"a": "0/base", "b": "0/tuned", **more})


def test_two_runs_answers_to_the_same_question_stand_side_by_side(client):
    page = compare(client())
    assert "45 questions" in words(page)
    assert page.text.count("<li>") == samples.PER_PAGE
    assert "Who sings song number 0?" in words(page)
    assert "only B is right (15)" in words(page)
    assert "2 rows instead of 3" in words(page)
    assert "Who sings song number 44?" in words(compare(client(), number=3))


@pytest.mark.parametrize(
    ("more", "count"),
    [
        ({"show": "second"}, 15),
        ({"show": "first"}, 0),
        ({"show": "neither"}, 15),
        ({"show": "no such"}, 45),
        ({"words": "NUMBER 7?"}, 1),
        ({"show": "second", "words": "nothing"}, 0),
        ({"number": 99}, 45),
    ],
)
def test_questions_are_chosen_by_who_is_right_and_by_words(client, more, count):
    assert f"{count} question" in words(compare(client(), **more))


def test_a_training_is_compared_by_its_last_samples(client):
    page = compare(client(), a="0/one", b="0/two")
    assert "1 question" in words(page)
    assert "SELECT 2" in words(page)
    assert "SELECT 1" not in words(page)


def test_runs_without_a_question_in_common_are_a_message(client):
    page = compare(client(), b="0/one")
    assert page.status_code == 400
    assert "these runs share no question" in words(page)


@pytest.mark.parametrize("address", ["/", "/runs", "/sweeps/1/rank", "/compare?a=0/base&b=0/base&words=hostile"])
def test_text_of_runs_is_never_markup(client, address):
    browser = client()
    for page in (browser.get(address), browser.get("/compare?a=0/base&b=0/base&number=3")):
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert "<img" not in page.text
        assert set(re.findall(r"<script[^>]*>", page.text)) <= {
            f'<script src="/assets/{name}.js" defer>' for name in ("elements", "sql", "detail", "ask", "compare")
        }


def test_what_a_model_writes_and_a_database_holds_is_json_in_ascii(client):
    result = {"columns": [HOSTILE], "rows": [["\ud800", 1.0], [2**60, None]], "num_rows": 2}
    said = ask(client(Sessions(lambda question: fake_answers.answer(question, HOSTILE, result))))
    assert said.headers["content-type"] == "application/json"
    assert said.content.isascii()
    assert said.json()["sql"] == HOSTILE
    assert said.json()["result"]["rows"] == [["\ud800", {"number": "1.0"}], [{"number": str(2**60)}, None]]
