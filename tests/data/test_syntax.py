from __future__ import annotations

from pathlib import Path

import pytest

from text2sql.data.syntax import parses


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT for FROM votes WHERE for = 1",
        "SELECT DATE_SUB(CURDATE(), INTERVAL 1 MONTH)",
        "CREATE VIEW a AS SELECT 1; SELECT * FROM a;",
        "INSERT INTO pets VALUES (2, 'Tom; the cat')",
        "WITH a AS (SELECT 1) SELECT * FROM a -- all",
        "SELECT a FROM b; SELECT EXTRACT(YEAR FROM c) FROM d;",
    ],
)
def test_sql_of_other_dialects_and_several_statements_parses(sql: str) -> None:
    assert parses(sql)


@pytest.mark.parametrize("sql", ["How many pets?", "42", "hello world", "SELECT 1; hello world", ";", "-- nothing"])
def test_text_that_is_not_sql_does_not_parse(sql: str) -> None:
    assert not parses(sql)


def test_parsing_runs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "made.sqlite"
    assert parses(f"ATTACH DATABASE '{file}' AS made") and parses(f"VACUUM INTO '{file}'")
    assert not file.exists()
