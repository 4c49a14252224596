"""Hardness follows the rules published with Spider."""

import json
from collections import Counter
from pathlib import Path

import pytest

from text2sql.sql.hardness import LEVELS, hardness

SPIDER_DEV = Path(__file__).parents[2].parent / "shared" / "data" / "spider" / "dev.json"


@pytest.mark.parametrize(
    ("sql", "level"),
    [
        ("SELECT count(*) FROM singer", "easy"),
        ("SELECT name FROM singer WHERE age > 20", "easy"),
        ("SELECT DISTINCT name FROM (SELECT name FROM singer WHERE age > 20)", "easy"),
        ("SELECT name, age FROM singer", "medium"),
        ("SELECT name FROM singer WHERE age > 20 ORDER BY age", "medium"),
        ("SELECT name FROM singer WHERE name LIKE 'A%'", "medium"),
        ("SELECT name FROM singer WHERE age BETWEEN 1 AND 2 AND age <> 3", "medium"),
        ("SELECT name FROM singer WHERE age > 20 OR age < 3", "medium"),
        ("SELECT T1.name FROM singer AS T1, concert AS T2 WHERE T1.id = T2.id", "medium"),
        ("SELECT name, max(age), min(age) FROM singer WHERE a = 1 AND b = 2", "hard"),
        ("SELECT name FROM singer WHERE age = (SELECT max(age) FROM singer)", "hard"),
        ("SELECT name FROM singer EXCEPT SELECT name FROM band", "hard"),
        ("SELECT name FROM singer UNION SELECT name FROM band ORDER BY name LIMIT 3", "hard"),
        ("SELECT T1.name FROM singer AS T1 JOIN concert AS T2 ON T1.id = T2.id ORDER BY T2.year LIMIT 1", "hard"),
        ("SELECT name, age FROM singer WHERE id NOT IN (SELECT id FROM concert)", "extra"),
        ("SELECT a FROM t WHERE b = 1 GROUP BY a ORDER BY count(*) DESC LIMIT 1", "extra"),
    ],
)
def test_a_query_is_graded_by_its_parts(sql, level):
    assert hardness(sql) == level


def test_two_negated_conditions_count_as_aggregates_as_in_the_released_evaluator():
    plain = "SELECT a, b FROM t WHERE c IN (1) AND d IN (2)"
    assert (hardness(plain), hardness(plain.replace(" IN", " NOT IN"))) == ("medium", "hard")


@pytest.mark.parametrize("sql", ["", "SELECT (", "not a query", "DROP TABLE singer"])
def test_what_is_not_a_query_cannot_be_graded(sql):
    with pytest.raises(ValueError, match="cannot grade"):
        hardness(sql)


def test_spider_dev_has_the_published_counts():
    if not SPIDER_DEV.exists():
        pytest.skip(f"needs Spider's dev.json at {SPIDER_DEV}")
    rows = json.loads(SPIDER_DEV.read_text(encoding="utf-8"))
    counts = Counter(hardness(row["query"]) for row in rows)
    assert [counts[level] for level in LEVELS] == [248, 446, 174, 166]
