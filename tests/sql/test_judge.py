"""One pair, two rules: what strict and official say of it, on one database or several, and how they say that they differ."""

import json
import sqlite3

import pytest

from text2sql.sql import judge as judge_module
from text2sql.sql.judge import GOLD, OURS, PREDICTION, Judge, Limits, Place, Rules, Run, Task

PETS = """
CREATE TABLE pet (id INTEGER PRIMARY KEY, name TEXT, kind TEXT, age INTEGER, weight REAL);
INSERT INTO pet VALUES (1, 'Rex', 'dog', 3, 0.3), (2, 'Tom', 'cat', 1, 4.5), (3, 'Kim', 'dog', 7, 9.0), (4, 'Ada', 'cat', 1, NULL);
"""
FEWER = PETS.replace("(4, 'Ada', 'cat', 1, NULL)", "(4, 'Bob', 'eel', 2, 2.0)")
NO_AGES = PETS.replace("age", "years")
EMPTY = "CREATE TABLE pet (id INTEGER PRIMARY KEY, name TEXT, kind TEXT, age INTEGER, weight REAL);"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
LIMITS = Limits(timeout_s=20.0, max_steps=1_000_000)


def places(*scripts, what=""):
    return [
        Place(f"{what}{number} {script}", context=script, name=f"{what}{number}.sqlite")
        for number, script in enumerate(scripts)
    ]


def judged(gold, prediction, *scripts, neighbours=(), limits=LIMITS, **rules):
    judge = Judge(limits, Rules(**rules))
    try:
        return judge.judge(Task(gold, prediction, places(*scripts or [PETS]), places(*neighbours, what="neighbour ")))
    finally:
        judge.close()


# Where the two rules come apart, and where they do not

BOTH = [
    # gold, prediction, strict's verdict, official's
    ("SELECT name FROM pet", "SELECT name FROM pet;", "match", True),
    ("SELECT name FROM pet", "\n SELECT name FROM pet ; \n", "match", True),
    ("SELECT name FROM pet", "SELECT name FROM pet ORDER BY 1", "match", True),
    ("SELECT name, age FROM pet", "SELECT age, name FROM pet", "match", True),
    ("SELECT name FROM pet ORDER BY age, name", "SELECT name FROM pet ORDER BY age, 1", "match", True),
    ("SELECT name FROM pet ORDER BY name", "SELECT name FROM pet ORDER BY name DESC", "mismatch", False),
    ("SELECT name FROM pet", "SELECT name FROM pet WHERE age > 1", "mismatch", False),
    ("SELECT name FROM pet", "SELECT names FROM pet", "unknown_column", False),
    ("SELECT name FROM pet", "DROP TABLE pet", "denied_write", False),
    ("SELECT name FROM pet", "", "empty_prediction", False),
    ("SELECT names FROM pet", "SELECT name FROM pet", "gold_error", None),
    (ENDLESS, "SELECT name FROM pet", "gold_budget", None),
    ("SELECT name FROM pet", ENDLESS, "step_budget", False),
    # DISTINCT: official takes it out of both
    ("SELECT DISTINCT kind FROM pet", "SELECT kind FROM pet", "mismatch", True),
    ("SELECT kind FROM pet", "SELECT DISTINCT kind FROM pet", "mismatch", True),
    ("SELECT count(DISTINCT kind) FROM pet", "SELECT count(kind) FROM pet", "mismatch", True),
    ("SELECT count(DISTINCT kind) FROM pet", "SELECT 2", "match", False),
    # `value` stands for 1 in a prediction
    ("SELECT name FROM pet WHERE age = 1", "SELECT name FROM pet WHERE age = value", "unknown_column", True),
    # spaced operators
    ("SELECT name FROM pet WHERE age >= 3", "SELECT name FROM pet WHERE age > = 3", "syntax", True),
    ("SELECT name FROM pet WHERE age != 3", "SELECT name FROM pet WHERE age ! = 3", "syntax", True),
    # the order of rows counts for official where the gold says so anywhere
    ("SELECT name FROM pet WHERE id IN (SELECT id FROM pet ORDER BY age)", "SELECT name FROM pet ORDER BY name", "match", False),
    ("SELECT name FROM pet WHERE name <> 'order by'", "SELECT name FROM pet ORDER BY name", "match", False),
    # results without rows
    ("SELECT name FROM pet WHERE age > 99", "SELECT name FROM pet WHERE 0", "empty_both", True),
    ("SELECT name FROM pet WHERE age > 99", "SELECT id, name FROM pet WHERE 0", "mismatch", True),
    ("SELECT name FROM pet WHERE age > 99", "SELECT name FROM pet WHERE age = 99 OR id = 1", "mismatch", False),
    # one statement, or the first of several
    ("SELECT name FROM pet", "SELECT name FROM pet; SELECT 1", "multiple_statements", True),
    ("SELECT name FROM pet", "SELECT 1; SELECT name FROM pet", "multiple_statements", False),
    # numbers
    ("SELECT 0.3", "SELECT 0.1 + 0.2", "match", False),
    ("SELECT age FROM pet", "SELECT age * 1.0 FROM pet", "match", True),
    ("SELECT weight FROM pet WHERE id = 4", "SELECT 0", "mismatch", False),
    ("SELECT age FROM pet", "SELECT CAST(age AS TEXT) FROM pet", "mismatch", False),
    # text that is not UTF-8, which official leaves out
    ("SELECT CAST(x'52FF' AS TEXT)", "SELECT CAST(x'52FE' AS TEXT)", "mismatch", True),
    ("SELECT CAST(x'52FF' AS TEXT)", "SELECT 'R'", "mismatch", True),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "prediction", "strict", "official"), BOTH)
def test_the_verdict_by_both_rules(gold, prediction, strict, official):
    outcome = judged(gold, prediction)
    assert (outcome["verdict"], outcome["official"]) == (strict, official)


@pytest.mark.parametrize(("gold", "prediction", "strict", "official"), BOTH)
def test_differences_are_told_exactly_where_the_rules_come_apart(gold, prediction, strict, official):
    agree = official in (None, strict in ("match", "empty_both"))
    assert (judged(gold, prediction)["differences"] == []) == agree


@pytest.mark.parametrize(("gold", "prediction", "strict", "official"), BOTH)
def test_under_the_official_rule_its_truth_is_the_verdict_and_there_are_no_differences(
    gold, prediction, strict, official
):
    outcome = judged(gold, prediction, official=True)
    truth = None if outcome["verdict"].startswith("gold_") else outcome["verdict"] in ("match", "empty_both")
    assert (truth, outcome["official"], outcome["differences"]) == (official, official, [])


@pytest.mark.parametrize(
    ("gold", "prediction", "words"),
    [
        ("SELECT DISTINCT kind FROM pet", "SELECT kind FROM pet", "official strips DISTINCT from the gold"),
        ("SELECT kind FROM pet", "SELECT DISTINCT kind FROM pet", "official strips DISTINCT from the prediction"),
        ("SELECT name FROM pet WHERE age = 1", "SELECT name FROM pet WHERE age = value", "official puts 1 for 'value' in the prediction"),
        ("SELECT name FROM pet WHERE age > 3", "SELECT name FROM pet WHERE NOT age < = 3", "official joins spaced operators in the prediction"),
        ("SELECT name FROM pet", "SELECT name FROM pet; SELECT 1", "official runs the first statement only"),
        (
            "SELECT name FROM pet WHERE id IN (SELECT id FROM pet ORDER BY age)",
            "SELECT name FROM pet ORDER BY name",
            "official takes the order of rows as asked for where the gold says 'order by' anywhere",
        ),
    ],
)  # fmt: skip
def test_a_difference_is_told_in_words(gold, prediction, words):
    assert judged(gold, prediction)["differences"] == [words]


def test_two_causes_of_a_difference_are_both_told():
    outcome = judged("SELECT DISTINCT kind FROM pet WHERE age >= 1", "SELECT kind FROM pet WHERE age > = 1")
    assert outcome["differences"] == [
        "official strips DISTINCT from the gold",
        "official joins spaced operators in the prediction",
    ]


def test_a_difference_without_a_known_cause_tells_both_verdicts():
    (words,) = judged("SELECT 0.3", "SELECT 0.1 + 0.2")["differences"]
    assert words.startswith("strict: match; official: mismatch (")


def test_the_reason_of_a_verdict_says_what_differs():
    assert judged("SELECT name FROM pet", "SELECT name, age FROM pet")["reason"] == "2 columns instead of 1"
    assert judged("SELECT name FROM pet", "SELECT height FROM pet")["reason"] == "no such column: height"
    assert judged("SELECT names FROM pet", "SELECT 1")["reason"] == "gold: no such column: names"
    assert judged("SELECT name FROM pet", "SELECT name FROM pet")["reason"] == ""


def test_empty_results_of_other_widths_are_told_apart_by_their_columns():
    outcome = judged("SELECT name FROM pet WHERE 0", "SELECT id, name FROM pet WHERE 0")
    assert outcome["reason"] == "no rows, as the gold has, but 2 columns, not 1"


def test_with_keep_distinct_official_leaves_distinct_in():
    pair = "SELECT DISTINCT kind FROM pet", "SELECT kind FROM pet"
    assert judged(*pair, keep_distinct=True)["official"] is False
    assert judged(*pair, keep_distinct=True)["differences"] == []
    assert judged(*reversed(pair), keep_distinct=True)["official"] is False


# Values of the gold in the place of the prediction's


def test_with_plug_value_official_forgives_wrong_values():
    pair = "SELECT age FROM pet WHERE name = 'Rex'", "SELECT age FROM pet WHERE name = 'x'"
    outcome = judged(*pair, plug_value=True)
    assert (outcome["verdict"], outcome["official"]) == ("mismatch", True)
    assert judged(*pair)["official"] is False


def test_with_plug_value_a_wrong_query_stays_wrong_with_its_own_reason():
    outcome = judged(
        "SELECT age FROM pet WHERE name = 'Rex'",
        "SELECT hight FROM pet WHERE name = 'x'",
        plug_value=True,
        official=True,
    )
    assert (outcome["verdict"], outcome["reason"]) == ("unknown_column", "no such column: hight")


def test_plugged_values_are_tried_a_limited_number_of_times(monkeypatch):
    monkeypatch.setattr(judge_module, "MAX_PLUGGED", 5)
    ran = []
    judge = Judge(LIMITS, Rules(official=True, plug_value=True), ran.append)
    gold = "SELECT age FROM pet WHERE name = 'Rex' OR name = 'Tom' OR name = 'Kim'"
    judge.judge(Task(gold, "SELECT id FROM pet WHERE name = 'a' OR name = 'b' OR name = 'c'", places(PETS), []))
    judge.close()
    assert ran.count(PREDICTION) == 1 + 5


def test_plugging_ends_with_the_first_query_over_its_limits():
    ran = []
    judge = Judge(LIMITS, Rules(official=True, plug_value=True), ran.append)
    task = Task("SELECT 'a', 'b'", f"{ENDLESS} WHERE 'x' <> 'y'", places(PETS), [])
    assert judge.judge(task)["verdict"] == "step_budget"
    judge.close()
    assert ran.count(PREDICTION) == 1


# Several databases


def test_a_pair_must_match_on_every_database_of_its_test_suite():
    pair = "SELECT count(*) FROM pet WHERE kind = 'dog'", "SELECT count(*) / 2 FROM pet"
    assert judged(*pair, PETS)["verdict"] == "match"
    outcome = judged("SELECT count(*) FROM pet WHERE kind = 'cat'", "SELECT count(*) / 2 FROM pet", PETS, FEWER)
    assert (outcome["verdict"], outcome["official"], outcome["differences"]) == ("mismatch", False, [])
    assert outcome["reason"].startswith("on 1.sqlite: ")


def test_an_error_on_a_later_database_is_told_with_its_name():
    outcome = judged("SELECT 1", "SELECT 1 WHERE (SELECT max(age) FROM pet) > 0", PETS, NO_AGES)
    assert (outcome["verdict"], outcome["reason"]) == ("unknown_column", "on 1.sqlite: no such column: age")


def test_one_database_with_rows_makes_it_a_match_and_not_empty_both():
    pair = "SELECT name FROM pet WHERE id = 1", "SELECT name FROM pet WHERE id < 2"
    assert judged(*pair, EMPTY, PETS)["verdict"] == judged(*pair, PETS, EMPTY)["verdict"] == "match"
    assert judged(*pair, EMPTY, EMPTY)["verdict"] == "empty_both"


@pytest.mark.parametrize("scripts", [(PETS, NO_AGES), (NO_AGES, PETS)])
def test_a_gold_that_fails_on_one_database_says_nothing_unless_the_prediction_fails_on_another(scripts):
    outcome = judged("SELECT max(age) FROM pet", "SELECT 7", *scripts)
    assert (outcome["verdict"], outcome["official"]) == ("gold_error", None)
    outcome = judged("SELECT max(age) FROM pet", "SELECT 8", *scripts)
    assert (outcome["verdict"], outcome["official"]) == ("mismatch", False)


def test_a_gold_that_fails_on_the_second_database_is_told_with_its_name():
    assert (
        judged("SELECT max(age) FROM pet", "SELECT 7", PETS, NO_AGES)["reason"]
        == "on 1.sqlite: gold: no such column: age"
    )


def test_of_several_databases_on_which_the_gold_fails_the_first_is_told():
    reason = judged("SELECT max(age) FROM pet", "SELECT 7", PETS, NO_AGES, EMPTY.replace("pet", "animal"))["reason"]
    assert reason == "on 1.sqlite: gold: no such column: age"


def test_a_gold_over_its_budget_on_one_database_says_nothing():
    gold = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10 OR NOT EXISTS (SELECT 1 FROM pet)) SELECT max(i) FROM n"
    outcome = judged(gold, "SELECT 10", PETS, EMPTY)
    assert (outcome["verdict"], outcome["official"]) == ("gold_budget", None)
    assert outcome["reason"].startswith("on 1.sqlite: gold: more than")


def test_a_neighbour_tells_apart_for_strict_only():
    pair = "SELECT count(*) FROM pet WHERE kind = 'cat'", "SELECT count(*) / 2 FROM pet"
    outcome = judged(*pair, neighbours=[PETS, FEWER])
    assert (outcome["verdict"], outcome["official"]) == ("mismatch", True)
    assert outcome["reason"].startswith("on neighbour 1.sqlite: ")
    assert outcome["differences"] == ["only a neighbour database tells them apart"]
    assert judged(*pair, neighbours=[PETS, FEWER], official=True)["verdict"] == "match"


def test_a_gold_that_fails_on_a_neighbour_is_a_gold_error_for_strict_only():
    outcome = judged("SELECT max(age) FROM pet", "SELECT 7", neighbours=[NO_AGES])
    assert (outcome["verdict"], outcome["official"]) == ("gold_error", True)


def test_a_script_that_does_not_build_is_a_gold_error_each_time():
    judge = Judge(LIMITS, Rules())
    task = Task("SELECT 1", "SELECT 1", places("CREATE TABLE pet (name TEXT); INSERT INTO pet VALUES (1, 2)"), [])
    outcomes = [judge.judge(task) for _ in range(2)]
    judge.close()
    assert outcomes[0] == outcomes[1]
    assert (outcomes[0]["verdict"], outcomes[0]["official"]) == ("gold_error", None)
    assert "2 values" in outcomes[0]["reason"]


def test_a_script_that_runs_out_of_memory_is_a_gold_error(monkeypatch):
    def full(script):
        raise MemoryError

    monkeypatch.setattr(judge_module.database, "open_memory", full)
    assert judged("SELECT 1", "SELECT 1")["verdict"] == "gold_error"


def test_results_too_large_to_compare_are_too_many_rows(monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(judge_module.compare, "same_result", full)
    outcome = judged("SELECT 1", "SELECT 2")
    assert (outcome["verdict"], outcome["reason"]) == ("too_many_rows", "results too large to compare in memory")


def test_a_broken_database_is_an_error_and_no_verdict(tmp_path):
    path = tmp_path / "pets.sqlite"
    path.write_bytes(b"SQLite format 3\0" + bytes(5_000))
    judge = Judge(LIMITS, Rules())
    with pytest.raises((sqlite3.DatabaseError, ValueError)):
        judge.judge(Task("SELECT 1 FROM pet", "SELECT 1", [Place("x", str(path))], []))
    judge.close()


# What is run, how often, and what is kept


def phases(*tasks, rules=Rules()):  # noqa: B008
    told = []
    judge = Judge(LIMITS, rules, told.append)
    for task in tasks:
        judge.judge(task)
    judge.close()
    return told


def test_a_gold_runs_once_for_all_its_predictions():
    told = phases(*[Task("SELECT 1", f"SELECT {i}", places(PETS), []) for i in range(5)])
    assert (told.count(GOLD), told.count(PREDICTION)) == (1, 4)


def test_a_query_that_both_rules_run_as_it_is_runs_once():
    assert phases(Task("SELECT 1", "SELECT 2", places(PETS), [])) == [GOLD, OURS, PREDICTION, OURS]


def test_a_prediction_that_is_the_gold_needs_no_run_of_its_own():
    assert phases(Task("SELECT name FROM pet", "SELECT name FROM pet ;", places(PETS), [])) == [GOLD, OURS]


def test_a_gold_runs_once_on_each_database():
    assert phases(Task("SELECT name FROM pet", "SELECT 1", places(PETS, FEWER), [])).count(GOLD) == 1
    assert phases(Task("SELECT 1", "SELECT 2 - 1", places(PETS, FEWER), [])).count(GOLD) == 2


def test_forgotten_golds_and_closed_databases_change_no_verdict(monkeypatch):
    monkeypatch.setattr(judge_module, "OPEN_DATABASES", 2)
    monkeypatch.setattr(judge_module, "KEPT_GOLD_CELLS", 3)
    judge = Judge(LIMITS, Rules())
    scripts = [PETS, FEWER, EMPTY, NO_AGES, PETS + "DELETE FROM pet WHERE id = 1"]
    found = [
        judge.judge(Task("SELECT count(*) FROM pet", f"SELECT {count}", [place], []))["verdict"]
        for count in (4, 0)
        for place in places(*scripts) * 2
    ]
    judge.close()
    assert (
        found
        == ["match", "match", "mismatch", "match", "mismatch"] * 2
        + ["mismatch", "mismatch", "match", "mismatch", "mismatch"] * 2
    )


# Previews


def test_without_previews_an_outcome_has_no_results():
    outcome = judged("SELECT 1", "SELECT 1")
    assert (outcome["gold_result"], outcome["predicted_result"]) == (None, None)


def test_a_preview_shows_the_first_rows_and_counts_them_all():
    outcome = judged("SELECT name AS who FROM pet", "SELECT id, name FROM pet", preview_rows=2)
    assert outcome["gold_result"] == {"columns": ["who"], "rows": [["Rex"], ["Tom"]], "num_rows": 4}
    assert outcome["predicted_result"] == {"columns": ["id", "name"], "rows": [[1, "Rex"], [2, "Tom"]], "num_rows": 4}


def test_a_query_that_did_not_run_has_no_preview():
    outcome = judged("SELECT name FROM pet", "SELECT names FROM pet", preview_rows=2)
    assert outcome["predicted_result"] is None
    assert outcome["gold_result"]["num_rows"] == 4
    outcome = judged("SELECT names FROM pet", "SELECT name FROM pet", preview_rows=2)
    assert (outcome["gold_result"], outcome["predicted_result"]) == (None, None)


def test_a_preview_is_of_the_texts_that_the_rule_asked_for_runs():
    pair = "SELECT DISTINCT kind FROM pet", "SELECT kind FROM pet"
    assert judged(*pair, preview_rows=9)["gold_result"]["num_rows"] == 2
    assert judged(*pair, preview_rows=9, official=True)["gold_result"]["num_rows"] == 4


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("NULL", None),
        ("1.5", 1.5),
        ("9e999", "inf"),
        ("-9e999", "-inf"),
        ("9007199254740991", 9007199254740991),
        ("9007199254740992", "9007199254740992"),
        ("-9223372036854775807 - 1", "-9223372036854775808"),
        ("x'00FF'", "x'00ff'"),
        ("''", ""),
        ("CAST(x'52FF' AS TEXT)", "R?"),
        ("char(55357)", "???"),
        ("'<b>é 😀'", "<b>é 😀"),
        ("hex(zeroblob(100))", "0" * 200),
        ("hex(zeroblob(101))", "0" * 200 + "…"),
        ("zeroblob(1000)", "x'" + "0" * 198 + "…"),
    ],
)
def test_a_preview_shows_any_value_as_json_can_hold_it(value, shown):
    outcome = judged(f"SELECT {value}", "SELECT 1", preview_rows=1)
    assert outcome["gold_result"]["rows"] == [[shown]]
    assert json.loads(json.dumps(outcome, allow_nan=False)) == outcome


# Running without comparing


def ran(text, script=PETS, limits=LIMITS):
    judge = Judge(limits, Rules())
    try:
        return judge.run(Run(text, places(script, FEWER)))
    finally:
        judge.close()


def test_a_run_says_what_its_result_is():
    found = ran("SELECT name FROM pet;")
    assert found.keys() == {"digest", "num_rows"} and found["num_rows"] == 4
    assert ran(" SELECT p.name FROM pet AS p WHERE 1 ")["digest"] == found["digest"]
    assert ran("SELECT kind FROM pet")["digest"] != found["digest"]


@pytest.mark.parametrize(
    ("text", "verdict", "reason"),
    [
        ("SELECT names FROM pet", "unknown_column", "no such column: names"),
        ("", "empty_prediction", "no SQL"),
        ("DELETE FROM pet", "denied_write", "not authorized"),
        (ENDLESS, "step_budget", "more than 1000000 SQLite steps"),
    ],
)
def test_a_run_that_fails_says_why(text, verdict, reason):
    assert ran(text) == {"verdict": verdict, "reason": reason}


def test_a_run_on_a_script_that_does_not_build_is_the_fault_of_the_data():
    assert ran("SELECT 1", script="CREATE TABEL pet")["verdict"] == "gold_error"


def test_a_result_too_large_for_a_digest_is_too_many_rows(monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(judge_module, "digest", full)
    assert ran("SELECT name FROM pet")["verdict"] == "too_many_rows"
