"""Predictions are scored by running them, and summed up without hiding what could not be judged."""

import subprocess
import sys
from pathlib import Path

import pytest

from text2sql.evaluation import comparison_table, evaluate, metrics, table, wilson_interval
from text2sql.example import Column, Example, Schema, Score, Table, Verdict
from text2sql.scorer import Scorer
from text2sql.sql.judge import Limits, Rules

CASES = Path(__file__).parent / "sql" / "cases"
LIMITS = Limits(timeout_s=5, max_rows=1000)
AUTHOR = Schema((Table("author", tuple(map(Column, ("id", "name", "born")))),))
LIBRARY = (CASES / "library.sql").read_text(encoding="utf-8")


def example(sql="SELECT 1", name="1", db_id="library", **fields):
    return Example(name, "How many?", sql, db_id, **{"context": LIBRARY, **fields})


def examples(count):
    return [example(name=str(number), db_id=f"db{number}") for number in range(count)]


def golden_pairs():
    for path in sorted(CASES.glob("*.sql")):
        blocks = path.read_text(encoding="utf-8").strip().split("\n\n")[1:]
        for block in blocks:
            first, prediction = block.split("\n")
            gold, _, verdict = first.rpartition(" -- ")
            yield pytest.param(gold, prediction, verdict, id=f"{path.stem}: {prediction}")


def score(example, prediction):
    with Scorer(LIMITS) as scorer:
        return scorer.score(example, prediction)


@pytest.fixture(scope="module")
def scorer():
    with Scorer(LIMITS) as scorer:
        yield scorer


@pytest.mark.parametrize(("gold", "prediction", "verdict"), list(golden_pairs()))
def test_a_golden_pair_has_its_verdict(scorer, gold, prediction, verdict):
    assert scorer.score(example(gold), prediction).verdict.value == verdict


def test_the_golden_pairs_cover_every_verdict_but_those_of_time():
    verdicts = {pair.values[2] for pair in golden_pairs()}
    assert verdicts == {verdict.value for verdict in Verdict} - {"timeout", "step_budget", "gold_budget"}


def test_a_prediction_with_extra_rows_is_a_mismatch():
    result = score(example("SELECT name FROM author WHERE id = 1"), "SELECT name FROM author")
    assert result == Score(Verdict.MISMATCH, "3 rows instead of 1")


def test_a_prediction_that_never_ends_is_a_timeout():
    bomb = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with Scorer(Limits(timeout_s=0.1)) as scorer:
        assert scorer.score(example(), bomb).verdict is Verdict.TIMEOUT
        assert scorer.score(example(bomb), "SELECT 1") == Score(Verdict.GOLD_BUDGET, "gold: still running after 0.1 s")


def test_one_semicolon_and_space_around_a_prediction_do_not_count():
    assert score(example(), "\n SELECT 1 ;\n").correct
    assert not score(example(), "```sql\nSELECT 1\n```").runs


def test_a_gold_that_fails_says_so():
    assert score(example("SELECT age FROM author"), "SELECT 1").reason == "gold: no such column: age"


def test_a_context_that_does_not_build_is_a_gold_error():
    result = score(example(context="CREATE TABEL t"), "SELECT 1")
    assert result.verdict is Verdict.GOLD_ERROR
    assert result.reason.startswith("gold: the database does not build: ")


def test_an_example_without_a_database_is_refused():
    with pytest.raises(ValueError, match=r"data\.path"):
        score(example(context=""), "SELECT 1")


def test_a_missing_database_file_is_our_fault_and_not_a_verdict():
    with pytest.raises(FileNotFoundError):
        score(example(context="", database="/nowhere/to/be.sqlite"), "SELECT 1")


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(0, 0, 0.0, 1.0), (0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_the_interval_is_that_of_wilson(correct, total, low, high):
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=1e-4)


VERDICTS = ["match", "empty_both", "mismatch", "unknown_column", "timeout", "gold_error", "gold_budget"]
LEVELS = ["easy", "extra", "extra", "easy", "easy", "medium", "medium"]


def row(verdict, hardness="easy", **fields):
    correct = verdict in ("match", "empty_both")
    return {"verdict": verdict, "reason": "", "hardness": hardness, "strict": correct, "official": correct, **fields}


def graded(verdicts=VERDICTS):
    rows = [row(verdict, level) for verdict, level in zip(verdicts, LEVELS)]
    if "unknown_column" in verdicts:
        rows[3] |= {"diagnosis": ["hallucinated_column", "missing_join"], "hallucinated_columns": ["age"]}
        rows[2] |= {"diagnosis": ["wrong_limit"], "hallucinated_columns": [], "official": True}
    return metrics(rows)


def test_golds_that_fail_are_left_out_of_every_rate():
    result = graded()
    assert (result["eval/examples"], result["eval/gold_errors"], result["eval/gold_budget"]) == (5, 1, 1)
    assert result["eval/execution_accuracy"] == 0.4
    assert result["eval/unknown_column_rate"] == 0.2
    assert result["eval/runs_rate"] == 0.6
    assert "eval/medium/examples" not in result


def test_two_empty_results_count_as_right_and_are_counted():
    assert graded()["eval/empty_both"] == 1


def test_both_rules_have_an_accuracy():
    result = graded()
    assert (result["eval/strict_execution_accuracy"], result["eval/official_execution_accuracy"]) == (0.4, 0.6)


def test_the_diagnosis_is_summed_up():
    result = graded()
    assert (result["eval/hallucinated_column_rate"], result["eval/hallucinated_table_rate"]) == (0.2, 0.0)
    assert {key: value for key, value in result.items() if key.startswith("eval/diagnosis/")} == {
        "eval/diagnosis/hallucinated_column": 0.2,
        "eval/diagnosis/wrong_limit": 0.2,
    }


def test_metrics_are_given_for_each_hardness():
    result = graded()
    assert result["eval/extra/execution_accuracy"] == 0.5
    assert result["eval/easy/examples"] == 3
    low, high = result["eval/easy/execution_accuracy_low"], result["eval/easy/execution_accuracy_high"]
    assert (low, high) == wilson_interval(1, 3)


def test_rows_of_earlier_evaluations_can_still_be_summed_up():
    assert metrics([{"verdict": "match", "reason": "", "hardness": "easy"}])["eval/execution_accuracy"] == 1.0


def test_without_a_working_gold_nothing_is_claimed():
    result = metrics([row("gold_error")])
    assert (result["eval/execution_accuracy_low"], result["eval/execution_accuracy_high"]) == (0.0, 1.0)
    assert table(result).splitlines()[1].split() == ["all", "0", "-", "-", "-"]


def test_the_table_has_a_row_per_hardness_and_one_for_all():
    assert table(graded() | {"eval/exact_match": 0.25, "eval/easy/exact_match": 1 / 3}).splitlines() == [
        "hardness  examples  accuracy  95 % interval  exact match",
        "easy             3    33.3 %    6.1 to 79.2       33.3 %",
        "extra            2    50.0 %    9.5 to 90.5            -",
        "all              5    40.0 %   11.8 to 76.9       25.0 %",
        "",
        "accuracy: strict 40.0 %, official 60.0 %; right only in that both results are empty: 1",
        "hallucinated: column 20.0 %, table 0.0 %",
        "wrong by: hallucinated column 20.0 %, wrong limit 20.0 %",
        "left out, as their gold does not run: 1, or hits a limit: 1",
    ]


def test_the_table_says_what_votes_and_repairs_changed():
    more = {"eval/votes_changed_rate": 0.1, "eval/votes_agreement": 0.8}
    more |= {"eval/repaired_rate": 0.02, "eval/repair_asked_rate": 0.05}
    assert table(graded() | more).splitlines()[-3:-1] == [
        "by votes: 10.0 % not the greedy answer; of the answers 80.0 % have the winning result",
        "repaired: 2.0 %, of 5.0 % asked again",
    ]


def test_the_comparison_has_a_row_per_model():
    assert comparison_table({"before": graded(), "after": graded(["match"] * 6)}).splitlines() == [
        "model   accuracy  95 % interval     easy   medium  hard    extra  unknown column  unknown table",
        "before    40.0 %   11.8 to 76.9   33.3 %        -     -   50.0 %          20.0 %          0.0 %",
        "after    100.0 %  61.0 to 100.0  100.0 %  100.0 %     -  100.0 %           0.0 %          0.0 %",
    ]


def judged(examples, predictions, **rules):
    with Scorer(LIMITS, Rules(preview_rows=2, **rules)) as scorer:
        return evaluate(examples, lambda given: predictions, scorer, progress=False)


def test_evaluate_gives_metrics_and_a_row_per_example():
    first = example("SELECT count(*) FROM author")
    second = example("SELECT name FROM author ORDER BY name", name="2", schema=AUTHOR)
    result, lines = judged([first, second], [first.sql, "SELECT nam FROM author"])
    assert result["eval/execution_accuracy"] == 0.5
    assert lines[1] == {
        "id": "2",
        "db_id": "library",
        "question": "How many?",
        "gold": "SELECT name FROM author ORDER BY name",
        "prediction": "SELECT nam FROM author",
        "verdict": "unknown_column",
        "reason": "no such column: nam",
        "correct": False,
        "strict": False,
        "official": False,
        "differences": [],
        "hardness": "easy",
        "exact_match": False,
        "wrong_parts": lines[1]["wrong_parts"],
        "diagnosis": lines[1]["diagnosis"],
        "diagnosis_details": lines[1]["diagnosis_details"],
        "hallucinated_tables": [],
        "hallucinated_columns": ["nam"],
        "gold_result": {"columns": ["name"], "rows": [["Ada"], ["Ben"]], "num_rows": 3},
        "predicted_result": None,
    }
    assert "name" in lines[1]["diagnosis_details"][0]


def test_by_official_rules_there_is_no_strict_verdict():
    gold = example("SELECT DISTINCT reader FROM loan")
    (strict,), (official,) = (
        judged([gold], ["SELECT reader FROM loan"])[1],
        judged([gold], ["SELECT reader FROM loan"], official=True)[1],
    )
    assert (strict["correct"], strict["strict"], strict["official"]) == (False, False, True)
    assert strict["differences"] == ["official strips DISTINCT from the gold"]
    assert (official["correct"], official["strict"], official["official"]) == (True, None, True)


def test_exact_match_and_its_parts_are_among_the_metrics():
    authors = example("SELECT name FROM author WHERE id = 1", schema=AUTHOR)
    result, (line,) = judged([authors], ["SELECT name FROM author WHERE born = 1815"])
    assert (line["correct"], line["exact_match"]) == (True, False)
    assert "where" in line["wrong_parts"]
    assert (result["eval/exact_match"], result["eval/partial/select/f1"], result["eval/partial/where/f1"]) == (0, 1, 1)


def test_evaluate_refuses_to_score_fewer_predictions_than_examples():
    with pytest.raises(ValueError, match="shorter"):
        judged(examples(2), ["SELECT 1"])


def test_scoring_loads_neither_torch_nor_hydra_nor_sqlglot():
    code = "import sys, text2sql.evaluation; print({'torch', 'hydra', 'sqlglot', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
