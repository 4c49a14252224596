"""Our official verdicts are those of taoyds/test-suite-sql-eval: facts measured by running it on databases of our own.

official/pairs.jsonl holds one pair a line with what that evaluator said: execution (also with its options keep_distinct
and, where that was run, plug_value), exact match, hardness of the gold, and the parts that are not all right, as
[accuracy, recall, F1, items in the gold, items in the prediction]. official/*.sql are the databases, and
official/tables.json describes them as Spider's tables.json does. `python benchmarks/parity.py` measures the same on
Spider itself.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from text2sql.evaluation import Scorer, grade
from text2sql.example import Example
from text2sql.sql.judge import Limits, Rules

FOLDER = Path(__file__).parent / "official"
PAIRS = [json.loads(line) for line in (FOLDER / "pairs.jsonl").read_text(encoding="utf-8").strip("\n").split("\n")]
PARTS = ["select", "select(no AGG)", "where", "where(no OP)", "group(no Having)", "group", "order", "and/or", "IUEN"]
PARTS += ["keywords"]


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder laid out as Spider's: database/<db_id>/<db_id>.sqlite, and tables.json."""
    folder = tmp_path_factory.mktemp("official")
    shutil.copyfile(FOLDER / "tables.json", folder / "tables.json")
    for script in FOLDER.glob("*.sql"):
        file = folder / "database" / script.stem / f"{script.stem}.sqlite"
        file.parent.mkdir(parents=True)
        with closing(sqlite3.connect(file)) as connection:
            connection.executescript(script.read_text(encoding="utf-8"))
    return folder / "database"


def _example(pair: dict[str, Any], databases: Path) -> Example:
    return Example("", "", pair["gold"], pair["db"], database=str(databases / pair["db"] / f"{pair['db']}.sqlite"))


def _shown(pair: dict[str, Any], *verdicts: object) -> str:
    return f"\n{pair['db']}\ngold        {pair['gold']}\nprediction  {pair['prediction']}\nthe evaluator says, ours says: {verdicts}"


@pytest.mark.parametrize("option", ["", "keep_distinct", "plug_value"])
def test_execution_verdicts_are_those_of_the_official_evaluator(option: str, databases: Path) -> None:
    key = f"execution_{option}" if option else "execution"
    pairs = [pair for pair in PAIRS if key in pair]
    rules = Rules(official=True, keep_distinct=option == "keep_distinct", plug_value=option == "plug_value")
    with Scorer(Limits(), rules, workers=1) as scorer:
        scores = list(scorer.score_all([(_example(pair, databases), pair["prediction"]) for pair in pairs]))
    wrong = [_shown(pair, pair[key], one) for pair, one in zip(pairs, scores) if one.official is not bool(pair[key])]
    assert not wrong, f"{len(wrong)} of {len(pairs)} differ: {''.join(wrong[:5])}"


def test_exact_match_is_that_of_the_official_evaluator(databases: Path) -> None:
    wrong = []
    for pair in PAIRS:
        _, match = grade(_example(pair, databases), pair["prediction"])
        if match is None or match.exact is not bool(pair["exact"]):
            wrong.append(_shown(pair, pair["exact"], match))
    assert not wrong, f"{len(wrong)} of {len(PAIRS)} differ: {''.join(wrong[:5])}"


def test_part_scores_are_those_of_the_official_evaluator(databases: Path) -> None:
    wrong = []
    for pair in PAIRS:
        _, match = grade(_example(pair, databases), pair["prediction"])
        assert match is not None, _shown(pair)
        ours = dict(zip(PARTS, map(list, match.parts.values()), strict=True))
        imperfect = {name: values for name, values in ours.items() if values[:3] != [1, 1, 1]}
        if imperfect != pair["parts"]:
            wrong.append(_shown(pair, pair["parts"], imperfect))
    assert not wrong, f"{len(wrong)} of {len(PAIRS)} differ: {''.join(wrong[:5])}"


def test_hardness_is_that_of_the_official_evaluator(databases: Path) -> None:
    levels = [grade(_example(pair, databases), pair["prediction"])[0] for pair in PAIRS]
    wrong = [_shown(pair, pair["hardness"], level) for pair, level in zip(PAIRS, levels) if level != pair["hardness"]]
    assert not wrong, f"{len(wrong)} of {len(PAIRS)} differ: {''.join(wrong[:5])}"


def test_the_facts_hold_both_outcomes_of_all_that_is_compared() -> None:
    """Otherwise the tests above could pass by saying the same of every pair."""
    for key in ("execution", "execution_keep_distinct", "execution_plug_value", "exact"):
        assert {pair[key] for pair in PAIRS if key in pair} == {0, 1}
    assert {pair["hardness"] for pair in PAIRS} == {"easy", "medium", "hard", "extra"}
    assert {name for pair in PAIRS for name in pair["parts"]} == set(PARTS)
    assert any(pair["execution"] != pair["execution_keep_distinct"] for pair in PAIRS)
    assert any(pair["execution"] != pair.get("execution_plug_value", pair["execution"]) for pair in PAIRS)
