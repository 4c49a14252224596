"""Questions over HTTP: answers, reasons for none, and one model and one question at a time."""

from __future__ import annotations

import re
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import fake_answers
import pytest
import shop
from fake_answers import QUESTION, Sessions, ask

from text2sql.abstention import Evidence
from text2sql.ui.answerer import Answerer, Busy


def test_a_question_is_answered_with_sql_what_it_reads_and_rows(client):
    said = ask(client()).json()
    assert (said["sql"], said["reads"], said["missing"]) == (fake_answers.SQL, ["orders.status"], [])
    assert said["result"] == {"columns": ["COUNT(*)"], "rows": [[10]], "num_rows": 1}
    assert said["abstained"] is None


def test_no_answer_comes_with_its_reason_and_without_rows(client):
    why = "no column 'state' in orders; nearest: orders.status"
    missing = Evidence((why,), fake_answers.SURE)
    sessions = Sessions(lambda question: fake_answers.answer(question, abstained=why, result=None, evidence=missing))
    said = ask(client(sessions)).json()
    assert (said["abstained"], said["missing"], said["result"]) == (why, [why], None)


def test_the_form_offers_runs_with_an_adapter_and_named_databases_only(client):
    page = client().get("/", params={"run": "0/two"}).text
    assert re.findall(r'<option value="([^"]*)"', page) == ["0/one", "0/two"]
    assert '<option value="0/two" selected>' in page
    assert "<option>shop</option>" in page


def test_the_tables_of_a_database_are_told(client):
    tables = client().get("/schema", params={"database": "shop"}).json()["tables"]
    assert [one["name"] for one in tables] == ["customers", "orders", "order notes"]
    assert tables[1]["foreign_keys"][0]["foreign_table"] == "customers"


@pytest.mark.parametrize(
    ("question", "run", "database", "status", "message"),
    [
        ("x" * 10_000, "0/one", "shop", 400, "the question has 10,000 characters, over the 2,000"),
        (" \n", "0/one", "shop", 400, "the question is empty"),
        (QUESTION, "0/failed", "shop", 400, "has no adapter (train, failed)"),
        (QUESTION, "0/nothing", "shop", 404, "no such run, sweep or database"),
        (QUESTION, "0/one", "other", 404, "no such run, sweep or database"),
        (QUESTION, "0/one", "/etc/passwd", 404, "no such run, sweep or database"),
        (QUESTION, "0/../secret", "shop", 404, "no such run, sweep or database"),
        (QUESTION, None, "shop", 400, "not a request of this page"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_message(client, question, run, database, status, message):
    sessions = Sessions()
    said = ask(client(sessions), question, run, database)
    assert (said.status_code, sessions.opened) == (status, [])
    assert message in said.json()["error"]


def test_a_database_that_has_gone_is_a_message_and_the_next_question_is_answered(client, found):
    browser = client()
    found.databases["shop"].rename("away")
    assert "the database=shop.sqlite does not exist" in ask(browser).json()["error"]
    Path("away").rename("shop.sqlite")
    assert ask(browser).status_code == 200


def test_a_fault_of_ours_is_a_message_and_frees_the_model(client):
    def fails(question):
        raise RuntimeError("CUDA out of memory")

    sessions = Sessions(fails)
    browser = client(sessions)
    said = ask(browser)
    assert said.status_code == 500
    assert "RuntimeError: CUDA out of memory" in said.json()["error"]
    sessions.answers = fake_answers.answer
    assert ask(browser).status_code == 200


def test_a_second_question_meanwhile_is_told_that_the_first_is_being_answered(client):
    asked, go_on = threading.Event(), threading.Event()

    def slow(question):
        asked.set()
        assert go_on.wait(20)
        return fake_answers.answer(question)

    browser = client(Sessions(slow))
    first = threading.Thread(target=ask, args=(browser,))
    first.start()
    assert asked.wait(20)
    assert browser.get("/work").json()["doing"] == "writing SQL and running it"
    second = ask(browser)
    assert (second.status_code, second.json()["error"][:38]) == (409, "another question is being answered: as")
    go_on.set()
    first.join(20)
    assert browser.get("/work").json()["doing"] == ""
    assert ask(browser).status_code == 200


def test_one_model_is_loaded_at_a_time_and_kept_while_its_run_is_asked(tmp_path):
    sessions = Sessions()
    answerer = Answerer(sessions)
    other = shop.make(tmp_path / "other.sqlite")
    database = shop.make(tmp_path / "shop.sqlite")
    for run, file in (("one", database), ("one", database), ("one", other), ("two", other)):
        answerer.ask(Path(run), file, QUESTION).result()
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("DELETE FROM orders")
        connection.commit()
    answerer.ask(Path("two"), other, QUESTION).result()
    answerer.close()
    assert sessions.opened == [
        ("one", "shop.sqlite", "loaded"),
        ("one", "other.sqlite", "kept"),
        ("two", "other.sqlite", "loaded"),
        ("two", "other.sqlite", "kept"),
    ]
    assert sessions.closed == 4


def test_a_question_that_failed_leaves_the_answerer_free(tmp_path):
    answerer = Answerer(Sessions())
    failed = answerer.ask(Path("one"), tmp_path / "none.sqlite", QUESTION)
    with pytest.raises(ValueError, match="does not exist"):
        failed.result()
    try:
        answerer.ask(Path("one"), shop.make(tmp_path / "shop.sqlite"), QUESTION).result()
    except Busy:
        pytest.fail("it is still busy")
    answerer.close()
