"""The most frequent result wins, failures have no vote, ties go to rows and then to the earliest; no gold is looked at."""

from __future__ import annotations

import pytest

from text2sql import voting
from text2sql.example import Example, Verdict
from text2sql.scorer import Executed, Scorer
from text2sql.voting import Candidate, choose

SCRIPT = "CREATE TABLE pet (name TEXT, age INT); INSERT INTO pet VALUES ('Rex', 3), ('Tom', 1), ('Kim', 7);"


def candidate(text):
    """A candidate as a few letters: `a2` has result A (with rows) and was said twice, `e1` no rows, `!3` failed thrice."""
    kind, count = text[0], int(text[1])
    if kind == "!":
        return Candidate(text, count, Executed(error=Verdict.SYNTAX, reason="near"))
    return Candidate(text, count, Executed(kind.upper(), 0 if kind == "e" else 2))


@pytest.mark.parametrize(
    ("said", "winner"),
    [
        (["a1"], 0),
        (["a1", "b2"], 1),
        (["a2", "b1"], 0),
        (["a1", "b1"], 0),
        (["a1", "b1", "c1"], 0),
        (["a1", "b1", "b1"], 1),
        (["a2", "b1", "b2"], 1),
        (["a1", "b2", "a1"], 0),
        (["!9", "a1"], 1),
        (["!1", "!5"], 0),
        (["!1"], 0),
        (["e1", "a1"], 1),
        (["e2", "a1"], 0),
        (["e1", "b1", "a1"], 1),
        (["!5", "e1"], 1),
        (["b1", "e1", "e1"], 1),
        (["!1", "a1", "b1", "!1", "b1"], 2),
    ],
)
def test_the_winner(said, winner):
    assert choose([candidate(text) for text in said]) == winner


def example(name="1", sql="SELECT none FROM nowhere"):
    return Example(name, "How many?", sql, "pets", context=SCRIPT)


@pytest.fixture(scope="module")
def scorer():
    with Scorer() as scorer:
        yield scorer


def votes(scorer, *answers):
    return list(voting.vote([example(str(i)) for i in range(len(answers))], answers, scorer))


def test_texts_with_equal_results_vote_together_and_a_gold_that_fails_does_not_matter(scorer):
    (vote,) = votes(
        scorer,
        ["SELECT age FROM pet", "SELECT p.name FROM pet AS p", "SELECT nam FROM pet", "SELECT name FROM pet WHERE 1"],
    )
    assert vote.prediction == "SELECT p.name FROM pet AS p"
    assert vote.rows() == [
        {"text": "SELECT age FROM pet", "count": 1, "votes": 1, "verdict": "runs", "reason": ""},
        {"text": "SELECT p.name FROM pet AS p", "count": 1, "votes": 2, "verdict": "runs", "reason": ""},
        {
            "text": "SELECT nam FROM pet",
            "count": 1,
            "votes": 0,
            "verdict": "unknown_column",
            "reason": "no such column: nam",
        },
        {"text": "SELECT name FROM pet WHERE 1", "count": 1, "votes": 2, "verdict": "runs", "reason": ""},
    ]


def test_equal_texts_are_counted_and_run_once(scorer):
    ran = []

    class Runner:
        def run_all(self, pairs):
            ran.extend(pairs)
            return scorer.run_all(pairs)

    found = list(
        voting.vote([example("1"), example("2")], [["SELECT 1", "SELECT 2", "SELECT 2"], ["SELECT 1"] * 3], Runner())
    )
    assert [(one.id, text) for one, text in ran] == [("1", "SELECT 1"), ("1", "SELECT 2"), ("2", "SELECT 1")]
    assert [vote.prediction for vote in found] == ["SELECT 2", "SELECT 1"]
    assert [[one.count for one in vote.candidates] for vote in found] == [[1, 2], [3]]


def test_where_nothing_runs_the_greedy_answer_stays(scorer):
    (vote,) = votes(scorer, ["SELEC", "", "", "DROP TABLE pet"])
    assert vote.prediction == "SELEC"
    assert [row["verdict"] for row in vote.rows()] == ["syntax", "empty_prediction", "denied_write"]


def test_an_order_that_is_asked_for_tells_results_apart(scorer):
    up, down = "SELECT name FROM pet ORDER BY age", "SELECT name FROM pet ORDER BY age DESC"
    (vote,) = votes(scorer, [up, down, f"{down}, name"])
    assert (vote.prediction, vote.votes(0), vote.votes(1)) == (down, 1, 2)


def test_metrics_say_how_often_voting_changed_anything():
    runs, fails = {"count": 1, "votes": 1}, {"count": 3, "votes": 0}
    rows = [
        {"candidates": [{"count": 1, "votes": 1}, {"count": 2, "votes": 2}], "before_votes": "SELECT 1"},
        {"candidates": [{"count": 3, "votes": 3}]},
        {"candidates": [fails]},
        {"candidates": [runs, runs, runs]},
    ]
    assert voting.metrics(rows) == {
        "eval/votes_changed_rate": 0.25,
        "eval/votes_agreement": 0.5,
        "eval/votes_failed_rate": 0.25,
        "eval/votes_distinct": 7 / 4,
    }
    assert voting.metrics([{"prediction": "SELECT 1"}]) == {}
