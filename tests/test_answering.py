"""From examples to SQL: what a model is asked, in which order its answers are generated, voted on and repaired."""

from __future__ import annotations

import json

import pytest

from text2sql import answering, model, prompts, scoring
from text2sql.answering import answer
from text2sql.example import Column, Example, Schema, Table
from text2sql.scorer import Scorer

pytestmark = pytest.mark.usefixtures("one_thread")

SCRIPT = "CREATE TABLE pet (name TEXT, age INT); INSERT INTO pet VALUES ('Rex', 3), ('Tom', 1);"
SCHEMA = Schema((Table("pet", (Column("name", "TEXT"), Column("age", "INT"))),))


def examples(count):
    return [Example(str(i), f"Which {i}?", "SELECT gold", "pets", SCHEMA, context=SCRIPT) for i in range(count)]


class Fake:
    """A model that says what it is told to, call after call."""

    def __init__(self, config, *calls):
        self.config, self.calls, self.asked, self.seconds = config, list(calls), [], 0.0
        self.tokenizer = model.load_tokenizer(config.model)

    def say(self, rows, temperatures, constraints, title="generating"):
        texts = [self.tokenizer.decode(row) for row in rows]
        self.asked.append((title, texts, list(temperatures), constraints and list(constraints)))
        return self.calls.pop(0)

    def constraints(self, examples):
        return [f"only {one.id}" for one in examples] if self.config.eval.constrained else None


@pytest.fixture(scope="module")
def scorer():
    with Scorer() as scorer:
        yield scorer


@pytest.fixture
def asked(small, scorer):
    """A function from overrides and what the model says to (rows, what it was asked)."""

    def run(overrides, count, *calls):
        speaker = Fake(small("prompt=ddl", *overrides, primary="evaluate"), *calls)
        rows = answer(speaker, examples(count), scorer)
        assert not speaker.calls
        return rows, speaker.asked

    return run


def test_without_votes_and_repair_the_greedy_answer_stands(asked):
    rows, ((title, texts, temperatures, constraints),) = asked([], 2, ["SELECT 1", "```sql\nSELEC\n```"])
    assert [(row["prediction"], row["answer"]) for row in rows] == [
        ("SELECT 1", "SELECT 1"),
        ("SELEC", "```sql\nSELEC\n```"),
    ]
    assert [row["prompt"] for row in rows] == texts
    assert (title, temperatures, constraints) == ("generating", [0.0, 0.0], None)
    assert all(row.keys() == {"prediction", "prompt", "answer", "shortened"} for row in rows)


def test_all_candidates_are_asked_for_at_once_and_the_greedy_one_comes_first(asked):
    said = ["SELECT 1", "SELECT 2", "```\nSELECT 1 + 1\n```", "SELECT 3", "SELECT 4", "SELECT 3"]
    overrides = ["eval.votes=3", "eval.temperature=0.5", "eval.constrained=true"]
    rows, ((_, texts, temperatures, constraints),) = asked(overrides, 2, said)
    assert texts == [texts[0]] * 3 + [texts[3]] * 3 and texts[0] != texts[3]
    assert temperatures == [0.0, 0.5, 0.5] * 2
    assert constraints == ["only 0"] * 3 + ["only 1"] * 3
    assert [row["prediction"] for row in rows] == ["SELECT 2", "SELECT 3"]
    assert rows[0]["before_votes"] == "SELECT 1" and "before_votes" not in rows[1]
    assert [(one["text"], one["count"], one["votes"]) for one in rows[0]["candidates"]] == [
        ("SELECT 1", 1, 1),
        ("SELECT 2", 1, 2),
        ("SELECT 1 + 1", 1, 2),
    ]


def test_the_whole_answer_is_that_of_the_chosen_candidate(asked):
    rows, _ = asked(["eval.votes=2"], 1, ["SELEC", "So:\n```sql\nSELECT 2\n```"])
    assert (rows[0]["prediction"], rows[0]["answer"]) == ("SELECT 2", "So:\n```sql\nSELECT 2\n```")


def test_only_answers_that_do_not_run_are_asked_for_again_and_only_what_runs_replaces_them(asked):
    said = ["SELECT name FROM pet", "SELECT nam FROM pet", "SELECT ag FROM pet", "SELEC"]
    again = ["```sql\nSELECT name FROM pet\n```", "SELECT agee FROM pet", "SELECT 1"]
    rows, (_, second) = asked(["eval.repair=true", "eval.constrained=true"], 4, said, again)
    title, texts, temperatures, constraints = second
    assert (title, temperatures, constraints) == ("repairing", [0.0] * 3, ["only 1", "only 2", "only 3"])
    assert "no such column: nam" in texts[0] and "nearest: pet.name" in texts[0] and "SELECT nam FROM pet" in texts[0]
    assert [row["prediction"] for row in rows] == ["SELECT name FROM pet"] * 2 + ["SELECT ag FROM pet", "SELECT 1"]
    assert [row.get("before_repair") for row in rows] == [None, "SELECT nam FROM pet", None, "SELEC"]
    assert "repair" not in rows[0]
    assert (rows[2]["repair"]["prediction"], rows[2]["repair"]["verdict"]) == ("SELECT agee FROM pet", "unknown_column")


def test_where_everything_runs_nothing_is_asked_again(asked):
    rows, calls = asked(["eval.repair=true"], 2, ["SELECT 1", "SELECT 2"])
    assert len(calls) == 1 and not any("repair" in row for row in rows)


def test_what_was_voted_for_is_repaired(asked):
    said, again = ["SELEC", "SELECT nam FROM pet"], ["SELECT name FROM pet"]
    (row,), _ = asked(["eval.votes=2", "eval.repair=true"], 1, said, again)
    assert (row["prediction"], row["before_repair"]) == ("SELECT name FROM pet", "SELEC")


def test_an_answer_without_room_to_ask_again_stays(asked, small, caplog):
    tokenizer = model.load_tokenizer(small().model)
    config = small("prompt=ddl", primary="evaluate")
    length = len(prompts.encode_prompt(tokenizer, examples(1)[0], config).ids) + config.prompt.max_sql_tokens
    overrides = ["eval.repair=true", f"trainer.max_length={length}", f"hardware.max_tokens={length}"]
    (row,), calls = asked(overrides, 1, ["SELEC " * 40])
    assert row["prediction"].startswith("SELEC") and len(calls) == 1
    assert "not repaired" in caplog.text


def test_constraints_need_schemas(small):
    speaker = answering.Speaker(small("eval.constrained=true", primary="evaluate"))
    without = [*examples(2), Example("bare", "Which?", "SELECT 1", "pets")]
    with pytest.raises(ValueError, match=r"1 of 3 examples have none, first bare; .*eval\.constrained=false"):
        speaker.constraints(without)


@pytest.mark.parametrize("fast_path", ["true", "false"])
def test_an_evaluation_with_votes_and_repair_is_scored_and_summed_up(compose, tmp_path, fast_path):
    overrides = ["model=tiny", "hardware=cpu", "data=spider", "data.path=mini", "data.max_test_samples=5"]
    overrides += ["eval.votes=3", "eval.repair=true", "prompt.max_sql_tokens=8", f"hardware.fast_path={fast_path}"]
    config = compose(overrides, "evaluate")
    scoring.score(config, str(tmp_path / "run"))
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 5
    for row in rows:
        assert sum(one["count"] for one in row["candidates"]) == 3
        assert "repair" in row, "an untrained model writes no SQL"
    assert metrics["eval/votes_distinct"] > 1 and metrics["eval/repair_asked_rate"] == 1.0
    assert "eval/seconds_generating" in metrics
    assert metrics["eval/execution_accuracy"] == sum(row["correct"] for row in rows) / 5
