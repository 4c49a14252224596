"""Predictions are scored by running them, and summed up without hiding what could not be judged."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from text2sql import evaluation
from text2sql.evaluation import Scorer, comparison_table, evaluate, metrics, table, wilson_interval
from text2sql.example import Example, Score, Verdict

CASES = Path(__file__).parent / "sql" / "cases"
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
    with closing(Scorer(timeout_s=5, max_rows=1000)) as scorer:
        return scorer.score(example, prediction)


@pytest.mark.parametrize(("gold", "prediction", "verdict"), list(golden_pairs()))
def test_a_golden_pair_has_its_verdict(gold, prediction, verdict):
    assert score(example(gold), prediction).verdict.value == verdict


def test_the_golden_pairs_cover_every_verdict_but_the_timeout():
    verdicts = {pair.values[2] for pair in golden_pairs()}
    assert verdicts == {verdict.value for verdict in Verdict} - {"timeout"}


def test_a_prediction_with_extra_rows_is_a_mismatch():
    result = score(example("SELECT name FROM author WHERE id = 1"), "SELECT name FROM author")
    assert result == Score(Verdict.MISMATCH, "3 rows instead of 1")


def test_a_prediction_that_never_ends_is_a_timeout():
    bomb = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with closing(Scorer(timeout_s=0.1, max_rows=10)) as scorer:
        assert scorer.score(example(), bomb).verdict is Verdict.TIMEOUT
        assert scorer.score(example(bomb), "SELECT 1").reason == "gold: still running after 0.1 s"


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


def test_a_gold_runs_once_for_many_predictions(monkeypatch):
    ran = []
    run = evaluation.execute.run
    monkeypatch.setattr(
        evaluation.execute, "run", lambda connection, sql, **limits: ran.append(sql) or run(connection, sql, **limits)
    )
    with closing(Scorer(timeout_s=5, max_rows=10)) as scorer:
        for _ in range(3):
            scorer.score(example("SELECT 1"), "SELECT 2")
    assert ran == ["SELECT 1"] + ["SELECT 2"] * 3


def test_few_databases_stay_open_and_few_golds_are_kept(monkeypatch):
    monkeypatch.setattr(evaluation, "OPEN_DATABASES", 2)
    monkeypatch.setattr(evaluation, "CACHED_GOLD_RESULTS", 3)
    with closing(Scorer(timeout_s=5, max_rows=10)) as scorer:
        for number in [0, 1, 2, 3, 0, 4, 4]:
            assert scorer.score(
                example("SELECT a FROM t", context=f"CREATE TABLE t AS SELECT {number} AS a"), f"SELECT {number}"
            ).correct
        assert len(scorer._connections) == 2
        assert len(scorer._gold_results) == 3


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(0, 0, 0.0, 1.0), (0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_the_interval_is_that_of_wilson(correct, total, low, high):
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=1e-4)


VERDICTS = [Verdict.MATCH, Verdict.MATCH, Verdict.MISMATCH, Verdict.UNKNOWN_COLUMN, Verdict.TIMEOUT, Verdict.GOLD_ERROR]


def graded(verdicts=VERDICTS):
    levels = dict(zip(map(str, range(6)), ["easy", "extra", "extra", "easy", "easy", "medium"]))
    rows = [example(sql=str(number), name=str(number)) for number in range(len(verdicts))]
    return metrics(rows, [Score(verdict) for verdict in verdicts], levels.__getitem__)


def test_gold_errors_are_left_out_of_every_rate():
    result = graded()
    assert (result["eval/examples"], result["eval/gold_errors"]) == (5, 1)
    assert result["eval/execution_accuracy"] == 0.4
    assert result["eval/unknown_column_rate"] == 0.2
    assert result["eval/runs_rate"] == 0.6
    assert "eval/medium/examples" not in result


def test_metrics_are_given_for_each_hardness():
    result = graded()
    assert result["eval/extra/execution_accuracy"] == 0.5
    assert result["eval/easy/examples"] == 3
    assert (result["eval/easy/execution_accuracy_low"], result["eval/easy/execution_accuracy_high"]) == wilson_interval(
        1, 3
    )


def test_a_gold_that_cannot_be_graded_is_unparsed():
    def refuse(sql):
        raise ValueError("cannot grade")

    assert metrics([example()], [Score(Verdict.MATCH)], refuse)["eval/unparsed/examples"] == 1


def test_without_a_working_gold_nothing_is_claimed():
    result = metrics([example()], [Score(Verdict.GOLD_ERROR)])
    assert (result["eval/execution_accuracy_low"], result["eval/execution_accuracy_high"]) == (0.0, 1.0)
    assert table(result).splitlines()[1].split() == ["all", "0", "-", "-"]


def test_the_table_has_a_row_per_hardness_and_one_for_all():
    assert table(graded()).splitlines() == [
        "hardness  examples  accuracy  95 % interval",
        "easy             3    33.3 %    6.1 to 79.2",
        "extra            2    50.0 %    9.5 to 90.5",
        "all              5    40.0 %   11.8 to 76.9",
        "",
        "did not run: unknown column 20.0 %, unknown table 0.0 %, syntax 0.0 %, other 20.0 %",
        "left out, as their gold does not run: 1",
    ]


def test_the_comparison_has_a_row_per_model():
    assert comparison_table({"before": graded(), "after": graded([Verdict.MATCH] * 6)}).splitlines() == [
        "model   accuracy  95 % interval     easy   medium  hard    extra  unknown column  unknown table",
        "before    40.0 %   11.8 to 76.9   33.3 %        -     -   50.0 %          20.0 %          0.0 %",
        "after    100.0 %  61.0 to 100.0  100.0 %  100.0 %     -  100.0 %           0.0 %          0.0 %",
    ]


def test_evaluate_gives_metrics_and_a_row_per_example():
    rows = [example("SELECT count(*) FROM author"), example("SELECT name FROM author ORDER BY name", name="2")]
    result, lines = evaluate(rows, lambda given: [given[0].sql, "SELECT nom FROM author"], timeout_s=5, max_rows=10)
    assert result["eval/execution_accuracy"] == 0.5
    assert lines[1] == {
        "id": "2",
        "db_id": "library",
        "question": "How many?",
        "gold": "SELECT name FROM author ORDER BY name",
        "prediction": "SELECT nom FROM author",
        "verdict": "unknown_column",
        "reason": "no such column: nom",
        "hardness": "easy",
    }


def test_evaluate_refuses_to_score_fewer_predictions_than_examples():
    with pytest.raises(ValueError, match="shorter"):
        evaluate(examples(2), lambda given: ["SELECT 1"], timeout_s=5, max_rows=10)


def test_scoring_loads_neither_torch_nor_hydra_nor_sqlglot():
    code = "import sys, text2sql.evaluation; print({'torch', 'hydra', 'sqlglot', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
