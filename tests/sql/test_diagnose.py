"""A wrong prediction is told what is wrong with it; SQLite itself is the judge of which names exist."""

import json
import sqlite3
import time
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text2sql.example import Schema, Verdict
from text2sql.sql import database, execute, names
from text2sql.sql.diagnose import KIND_OF_VERDICT, KINDS, MESSAGES, Diagnosis, diagnose

SPIDER = Path(__file__).parents[2].parent / "shared" / "data" / "spider"
SCRIPT = """
CREATE TABLE stadium (id INTEGER PRIMARY KEY, name TEXT, "Home Town" TEXT, capacity INT);
CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, country TEXT, age INT);
CREATE TABLE concert (id INTEGER PRIMARY KEY, title TEXT, year INT, place INT REFERENCES stadium (id));
CREATE TABLE performs (concert_id INT REFERENCES concert (id), singer_id INT REFERENCES singer (id), fee INT);
INSERT INTO singer VALUES (1, 'Joe', 'France', 30);
"""
CONNECTION = database.open_memory(SCRIPT)
SCHEMA = database.read_schema(CONNECTION)
READER = execute.Reader(database.open_memory(SCRIPT), execute.Limits())
WRONG = [
    verdict
    for verdict in Verdict
    if verdict not in (Verdict.MATCH, Verdict.EMPTY_BOTH, Verdict.GOLD_ERROR, Verdict.GOLD_BUDGET)
]
JOINED = "FROM concert AS T1 JOIN performs AS T2 ON T1.id = T2.concert_id"


def diagnosis(gold, prediction, schema=SCHEMA):
    """What is said of a prediction with the verdict that running it gives; MISMATCH where it runs."""
    result = READER.run(prediction)
    return diagnose(gold, prediction, schema, result.error or Verdict.MISMATCH, result.reason)


def detail(found, kind):
    return found.details[found.kinds.index(kind)]


def unknown(sql):
    return [name for name in names.read(sql, SCHEMA).unknown if not name.is_text]


CASES = [
    ("empty", "SELECT name FROM singer", " \n"),
    ("not_a_query", "SELECT count(*) FROM singer", "The number of singers is 3."),
    ("not_a_query", "SELECT count(*) FROM singer", "DROP TABLE singer"),
    ("not_a_query", "SELECT count(*) FROM singer", "SELECT count(*) FROM singer; SELECT 1"),
    ("unparsable", "SELECT count(*) FROM singer", "SELECT count(* FROM singer"),
    ("unparsable", "SELECT id FROM singer UNION SELECT id FROM concert", "SELECT id, age FROM singer UNION SELECT id FROM concert"),
    ("hallucinated_table", "SELECT name FROM singer", "SELECT name FROM singers"),
    ("hallucinated_column", "SELECT country FROM singer", "SELECT citizenship FROM singer"),
    ("hallucinated_column", "SELECT name FROM singer WHERE age = 3", "SELECT name FROM singer WHERE \"ages\" = 3"),
    ("column_of_other_table", "SELECT capacity FROM stadium", "SELECT capacity FROM singer"),
    ("column_of_other_table", "SELECT name FROM singer", "SELECT singer.* FROM stadium"),
    ("column_of_other_alias", f"SELECT T1.title {JOINED}", f"SELECT T2.title {JOINED}"),
    ("column_of_other_alias", f"SELECT T1.title {JOINED}", f"SELECT T3.title {JOINED}"),
    ("ambiguous_column", "SELECT T1.id FROM concert AS T1 JOIN stadium AS T2 ON T1.place = T2.id", "SELECT id FROM concert AS T1 JOIN stadium AS T2 ON T1.place = T2.id"),
    ("wrong_function", "SELECT name FROM singer", "SELECT ucase(name) FROM singer"),
    ("wrong_function", "SELECT name FROM singer", "SELECT name FROM singer (name)"),
    ("wrong_set_operation", "SELECT id FROM singer EXCEPT SELECT singer_id FROM performs", "SELECT id FROM singer INTERSECT SELECT singer_id FROM performs"),
    ("wrong_set_operation", "SELECT id FROM singer UNION SELECT singer_id FROM performs", "SELECT id FROM singer UNION ALL SELECT singer_id FROM performs"),
    ("wrong_set_operation", "SELECT id FROM singer EXCEPT SELECT singer_id FROM performs", "SELECT id FROM singer"),
    ("wrong_nesting", "SELECT name FROM singer WHERE age > (SELECT avg(age) FROM singer)", "SELECT name FROM singer WHERE age > 30"),
    ("wrong_nesting", "SELECT count(*) FROM singer", "SELECT count(*) FROM (SELECT name FROM singer)"),
    ("wrong_join", "SELECT count(*) FROM singer", "SELECT count(*) FROM stadium"),
    ("wrong_join", f"SELECT T1.title {JOINED}", "SELECT T1.title FROM concert AS T1 JOIN performs AS T2 ON T1.id = T2.singer_id"),
    ("wrong_join", f"SELECT T1.title {JOINED}", "SELECT T1.title FROM concert AS T1 LEFT JOIN performs AS T2 ON T1.id = T2.concert_id"),
    ("wrong_join", f"SELECT T1.title {JOINED}", "SELECT T1.title FROM concert AS T1 JOIN performs AS T2"),
    ("missing_join", f"SELECT T1.title {JOINED}", "SELECT title FROM concert"),
    ("extra_join", "SELECT title FROM concert", f"SELECT T1.title {JOINED}"),
    ("wrong_aggregate", "SELECT max(age) FROM singer", "SELECT min(age) FROM singer"),
    ("wrong_aggregate", "SELECT max(age) FROM singer", "SELECT age FROM singer"),
    ("wrong_aggregate", "SELECT count(DISTINCT country) FROM singer", "SELECT count(country) FROM singer"),
    ("wrong_aggregate", "SELECT name FROM singer ORDER BY age", "SELECT name FROM singer ORDER BY avg(age)"),
    ("wrong_projection", "SELECT name FROM singer", "SELECT country FROM singer"),
    ("wrong_projection", "SELECT name FROM singer", "SELECT name, country FROM singer"),
    ("wrong_projection", "SELECT max(age), name FROM singer", "SELECT max(age) FROM singer"),
    ("wrong_filter", "SELECT name FROM singer WHERE age > 30", "SELECT name FROM singer WHERE age >= 30"),
    ("wrong_filter", "SELECT name FROM singer WHERE age > 30", "SELECT name FROM singer"),
    ("wrong_filter", "SELECT name FROM singer WHERE age > 3 OR id = 1", "SELECT name FROM singer WHERE age > 3 AND id = 1"),
    ("wrong_filter_value", "SELECT name FROM singer WHERE country = 'France'", "SELECT name FROM singer WHERE country = 'french'"),
    ("wrong_filter_value", "SELECT name FROM singer WHERE age = 3 OR age = 4", "SELECT name FROM singer WHERE age = 3 OR age = 5"),
    ("wrong_grouping", "SELECT count(*) FROM singer GROUP BY country", "SELECT count(*) FROM singer GROUP BY name"),
    ("wrong_having", "SELECT country FROM singer GROUP BY country HAVING count(*) > 1", "SELECT country FROM singer GROUP BY country HAVING count(*) > 2"),
    ("wrong_order", "SELECT name FROM singer ORDER BY age", "SELECT name FROM singer ORDER BY age DESC"),
    ("wrong_order", "SELECT name FROM singer ORDER BY age, id", "SELECT name FROM singer ORDER BY id, age"),
    ("wrong_limit", "SELECT name FROM singer ORDER BY age LIMIT 1", "SELECT name FROM singer ORDER BY age LIMIT 3"),
    ("wrong_limit", "SELECT name FROM singer ORDER BY age LIMIT 1", "SELECT name FROM singer ORDER BY age LIMIT 1 OFFSET 1"),
    ("extra_distinct", "SELECT name FROM singer", "SELECT DISTINCT name FROM singer"),
    ("missing_distinct", "SELECT DISTINCT name FROM singer", "SELECT name FROM singer"),
    ("unclassified", "SELECT name FROM singer", "SELECT name FROM singer"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "gold", "prediction"), CASES)
def test_the_first_kind_is_what_a_person_would_say(kind, gold, prediction):
    assert diagnosis(gold, prediction).kinds[0] == kind


@pytest.mark.parametrize("verdict", [Verdict.STEP_BUDGET, Verdict.TIMEOUT, Verdict.TOO_MANY_ROWS])
def test_what_hits_a_limit_is_too_costly_and_still_compared(verdict):
    found = diagnose(f"SELECT T1.title {JOINED}", "SELECT concert.title FROM concert, performs", SCHEMA, verdict)
    assert found.kinds == ("too_costly", "wrong_join")


def test_every_kind_has_a_case():
    assert {kind for kind, _, _ in CASES} | {"too_costly"} == set(KINDS)


def test_every_wrong_verdict_is_provided_for():
    alone = {Verdict.MISMATCH, Verdict.EMPTY_PREDICTION}
    assert alone | set(KIND_OF_VERDICT) | set(MESSAGES) == set(WRONG)


@pytest.mark.parametrize("verdict", [Verdict.MATCH, Verdict.EMPTY_BOTH, Verdict.GOLD_ERROR, Verdict.GOLD_BUDGET])
def test_only_wrong_predictions_are_diagnosed(verdict):
    with pytest.raises(AssertionError):
        diagnose("SELECT 1", "SELECT 2", SCHEMA, verdict)


SAME = [
    ("SELECT name FROM singer", "select NAME from Singer;"),
    ("SELECT name, age FROM singer", "SELECT age, name FROM singer"),
    ("SELECT name FROM singer", "SELECT T1.name AS n FROM singer AS T1"),
    ("SELECT * FROM singer", "SELECT age, country, name, id FROM singer"),
    ("SELECT T1.* FROM singer AS T1", "SELECT * FROM singer"),
    ("SELECT name FROM singer WHERE age > 3 AND id = 1", "SELECT name FROM singer WHERE (1 = id) AND 3 < age"),
    ("SELECT name FROM singer WHERE age BETWEEN 1 AND 2", "SELECT name FROM singer WHERE age <= 2 AND age >= 1"),
    ("SELECT name FROM singer WHERE age NOT BETWEEN 1 AND 2", "SELECT name FROM singer WHERE age < 1 OR age > 2"),
    ("SELECT name FROM singer WHERE id IN (1, 2)", "SELECT name FROM singer WHERE id = 2 OR id = 1"),
    ("SELECT name FROM singer WHERE id NOT IN (1, 2)", "SELECT name FROM singer WHERE id <> 1 AND id != 2"),
    ("SELECT name FROM singer WHERE NOT age > 3", "SELECT name FROM singer WHERE age <= 3"),
    ("SELECT name FROM singer WHERE age = 3", "SELECT name FROM singer WHERE age = '3'"),
    ("SELECT name FROM singer WHERE age = -3.0", 'SELECT name FROM singer WHERE age = "-3"'),
    ("SELECT name FROM singer WHERE name = 'Joe'", 'SELECT name FROM singer WHERE name = "Joe"'),
    ("SELECT age + id FROM singer", "SELECT id + age FROM singer"),
    ("SELECT count(*) FROM singer", "SELECT count(1) FROM singer"),
    ("SELECT count(*) FROM singer", "SELECT COUNT(id) FROM singer"),
    ("SELECT name FROM singer ORDER BY age", "SELECT name FROM singer ORDER BY age ASC"),
    ("SELECT name, age FROM singer ORDER BY age", "SELECT name, age AS a FROM singer ORDER BY a"),
    ("SELECT name, age FROM singer ORDER BY age", "SELECT name, age FROM singer ORDER BY 2"),
    ("SELECT country, count(*) FROM singer GROUP BY country", "SELECT country AS c, count(*) FROM singer GROUP BY c"),
    ("SELECT country, count(*) FROM singer GROUP BY country", "SELECT country, count(*) FROM singer GROUP BY 1"),
    ("SELECT DISTINCT name FROM singer", "SELECT name FROM singer GROUP BY name"),
    (f"SELECT T1.title {JOINED}", "SELECT a.title FROM performs b JOIN concert a ON b.concert_id = a.id"),
    (f"SELECT T1.title {JOINED}", "SELECT title FROM concert, performs WHERE concert.id = concert_id"),
    (f"SELECT T1.id {JOINED}", f"SELECT T2.concert_id {JOINED}"),
    (f"SELECT T1.id {JOINED} WHERE fee > 1", f"SELECT T1.id {JOINED} AND T2.fee > 1"),
    ("SELECT id FROM singer UNION SELECT id FROM concert", "SELECT id FROM concert UNION SELECT id FROM singer"),
    ("SELECT q.name FROM (SELECT name FROM singer) AS q", "WITH c AS (SELECT name FROM singer) SELECT name FROM c"),
    (
        "SELECT name FROM singer WHERE id IN (SELECT singer_id FROM performs) AND age > (SELECT avg(age) FROM singer)",
        "SELECT name FROM singer WHERE age > (SELECT avg(age) FROM singer) AND id IN (SELECT singer_id FROM performs)",
    ),
]


@pytest.mark.parametrize(("gold", "prediction"), SAME)
def test_two_ways_of_writing_one_form_are_no_difference(gold, prediction):
    assert diagnosis(gold, prediction).kinds == ("unclassified",)
    assert diagnosis(prediction, gold).kinds == ("unclassified",)


def test_codes_with_leading_zeros_are_no_numbers():
    found = diagnosis("SELECT id FROM singer WHERE name = '07'", "SELECT id FROM singer WHERE name = '7'")
    assert found.kinds == ("wrong_filter_value",)


def test_a_null_makes_counting_a_column_that_is_no_key_another_aggregate_than_counting_rows():
    assert diagnosis("SELECT count(*) FROM singer", "SELECT count(age) FROM singer").kinds == ("wrong_projection",)


def test_what_differs_inside_a_subquery_is_told_as_such():
    query = "SELECT name FROM singer WHERE age > (SELECT {}(age) FROM singer)"
    found = diagnosis(query.format("avg"), query.format("max"))
    assert found == Diagnosis(
        ("wrong_aggregate",), ("in a subquery: selects max(singer.age) instead of avg(singer.age)",)
    )


def test_a_column_of_a_table_that_holds_the_same_key_is_one_error_and_not_two():
    gold = "SELECT place, count(*) FROM concert GROUP BY place"
    assert diagnosis(gold, "SELECT id, count(*) FROM stadium GROUP BY id").kinds == ("wrong_join",)


def test_the_clause_that_holds_an_invented_name_is_not_counted_twice():
    found = diagnosis("SELECT country FROM singer WHERE age = 3", "SELECT citizenship FROM singer WHERE age = 3")
    assert found.kinds == ("hallucinated_column",)


def test_a_column_under_the_wrong_alias_is_taken_for_the_one_meant():
    assert diagnosis(f"SELECT T1.title {JOINED}", f"SELECT T2.title {JOINED}").kinds == ("column_of_other_alias",)


def test_joining_on_a_column_that_does_not_exist_is_told_once():
    found = diagnosis(
        f"SELECT T1.title {JOINED}", "SELECT T1.title FROM concert AS T1 JOIN performs AS T2 ON T1.id = T2.shoe"
    )
    assert found.kinds == ("hallucinated_column",)


def test_a_column_from_around_a_subquery_is_told_as_such():
    query = "SELECT name FROM singer WHERE id IN (SELECT {} FROM performs)"
    found = diagnosis(query.format("singer_id"), query.format("age"))
    assert found.details == ("in a subquery: selects outer singer.age instead of performs.singer_id",)


def test_a_difference_in_case_alone_is_said_to_be_one():
    found = diagnosis("SELECT id FROM singer WHERE name = 'Joe'", "SELECT id FROM singer WHERE name = 'joe'")
    assert found.details == ("filters by singer.name = 'joe' instead of singer.name = 'Joe' (only in case)",)


def test_an_invented_column_comes_with_the_nearest_real_one_of_the_tables_in_scope():
    found = diagnosis("SELECT name FROM singer", "SELECT nmae FROM singer")
    assert found.details == ("no column 'nmae' in singer; nearest: singer.name",)
    assert (found.hallucinated_columns, found.hallucinated_tables) == (("nmae",), ())


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("nmae", "singer.name"),
        ("sniger_name", "singer.name"),
        ("countries", "singer.country"),
        ("ag", ""),
        ("shoe", ""),
    ],
)
def test_the_nearest_column_is_the_one_spelt_most_like_the_name_or_its_last_word(name, column):
    assert names.nearest(name, ["singer.id", "singer.name", "singer.country"]) == column


def test_the_nearest_column_is_looked_for_in_the_whole_schema_last():
    assert names.read("SELECT capacities FROM singer", SCHEMA).unknown[0].detail.endswith("nearest: stadium.capacity")


def test_an_invented_table_comes_with_the_nearest_real_one():
    found = diagnosis("SELECT name FROM singer", "SELECT name FROM singers")
    assert found.details == ("no table 'singers'; nearest: singer",)
    assert (found.hallucinated_columns, found.hallucinated_tables) == ((), ("singers",))


def test_a_column_of_an_invented_table_is_invented_only_if_no_table_has_it():
    found = diagnosis("SELECT name FROM singer", "SELECT T1.name, T1.shoe FROM singers AS T1")
    assert (found.hallucinated_columns, found.hallucinated_tables) == (("shoe",), ("singers",))


def test_a_string_beside_an_invented_table_stays_a_string():
    found = diagnosis("SELECT name FROM singer", 'SELECT name FROM singers WHERE name = "Joe"')
    assert found.hallucinated_columns == ()


def test_a_column_of_another_table_is_not_counted_as_invented():
    found = diagnosis("SELECT capacity FROM stadium", "SELECT capacity FROM singer")
    assert detail(found, "column_of_other_table") == "column 'capacity' is in stadium; singer has none"
    assert found.hallucinated_columns == ()


def test_a_name_that_ran_is_never_called_invented_though_the_schema_lacks_it():
    found = diagnose("SELECT name FROM singer", "SELECT nick FROM some_view", SCHEMA, Verdict.MISMATCH)
    assert (found.hallucinated_columns, found.hallucinated_tables) == ((), ())
    assert "hallucinated_table" not in found.kinds


def test_without_a_schema_no_name_of_a_table_is_called_invented():
    assert diagnose("SELECT a FROM b", "SELECT c FROM d", Schema(), Verdict.MISMATCH).kinds == (
        "wrong_join",
        "wrong_projection",
    )


@pytest.mark.parametrize(
    ("verdict", "reason", "kind"),
    [
        (Verdict.UNKNOWN_COLUMN, "no such column: T1.shoe", "hallucinated_column"),
        (Verdict.UNKNOWN_COLUMN, "no such column: T1.capacity", "column_of_other_table"),
        (Verdict.UNKNOWN_COLUMN, "cannot join using column shoe - column not present in both tables", "hallucinated_column"),
        (Verdict.UNKNOWN_TABLE, "no such table: bands", "hallucinated_table"),
        (Verdict.UNKNOWN_TABLE, "unknown database bands", "hallucinated_table"),
        (Verdict.AMBIGUOUS, "ambiguous column name: id", "ambiguous_column"),
        (Verdict.UNKNOWN_COLUMN, "", "hallucinated_column"),
    ],
)  # fmt: skip
def test_where_the_parser_gives_up_the_name_comes_from_the_message(verdict, reason, kind):
    found = diagnose("SELECT name FROM singer", "SELECT ((", SCHEMA, verdict, reason)
    assert found.kinds == (kind,)
    named = found.hallucinated_columns + found.hallucinated_tables
    assert named == ((("shoe" if "shoe" in reason else "bands"),) if kind[0] == "h" and reason else ())


def test_a_gold_that_cannot_be_read_leaves_what_the_prediction_says_by_itself():
    assert diagnosis("SELECT ((", "SELECT shoe FROM singer").kinds == ("hallucinated_column", "unclassified")


def test_what_follows_the_first_statement_does_not_hide_its_names():
    found = diagnosis("SELECT name FROM singer", "SELECT shoe FROM singer;\n\nResult: it's 1")
    assert found.hallucinated_columns == ("shoe",)


RESOLVED = [
    "SELECT T1.NAME FROM Singer AS t1",
    'SELECT "name", [age], `country`, "Home Town" FROM (SELECT name, age, country FROM singer), (SELECT "Home Town" FROM stadium)',
    "SELECT singer.name FROM singer",
    "SELECT main.singer.name FROM main.singer",
    "SELECT rowid, oid, _rowid_ FROM singer",
    "SELECT T1.rowid, T2._rowid_ FROM singer AS T1 JOIN concert AS T2",
    "SELECT T1.*, T2.title FROM singer AS T1 JOIN concert AS T2",
    "SELECT count(*) FROM singer",
    "SELECT age AS years FROM singer WHERE years > 3 GROUP BY years HAVING years > 1 ORDER BY years",
    "SELECT T1.id AS id FROM singer AS T1 JOIN concert AS T2 ORDER BY id",
    "SELECT name FROM singer WHERE EXISTS (SELECT 1 FROM performs WHERE singer_id = singer.id AND fee > age)",
    "SELECT name FROM singer AS a WHERE age > (SELECT avg(b.age) FROM singer AS b WHERE b.country = a.country)",
    "SELECT (SELECT name) FROM singer",
    "SELECT q.years FROM (SELECT age AS years FROM singer) AS q WHERE q.years > 1",
    "SELECT name FROM (SELECT * FROM singer)",
    "SELECT name FROM ((SELECT T1.* FROM singer AS T1))",
    'SELECT q."count(*)" FROM (SELECT count(*) FROM singer) AS q',
    "WITH c AS (SELECT name AS n FROM singer) SELECT n FROM c UNION SELECT n FROM c",
    "WITH c (n) AS (SELECT name FROM singer), d AS (SELECT n FROM c) SELECT d.n FROM d",
    "WITH a AS (SELECT x FROM b), b AS (SELECT 1 AS x) SELECT x FROM a",
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT i FROM n",
    "SELECT id FROM singer JOIN stadium USING (id, name)",
    "SELECT id, name FROM singer NATURAL JOIN stadium",
    "SELECT title FROM (concert JOIN performs ON concert.id = concert_id)",
    "SELECT title FROM concert AS T1 JOIN performs AS T2 ON T1.id = T2.concert_id AND T3.age = 3 JOIN singer AS T3",
    "SELECT name FROM singer UNION SELECT title FROM concert ORDER BY name",
    "SELECT name FROM singer UNION SELECT title FROM concert ORDER BY title",
    "SELECT value FROM json_each('[1, 2]') AS j WHERE j.key = 0",
    "SELECT name FROM sqlite_master",
    "SELECT column1 FROM (VALUES (1, 2))",
    "SELECT name FROM singer WHERE (id, age) IN (SELECT id, age FROM singer) AND id IN (SELECT 1)",
    "SELECT sum(age) OVER w FROM singer WINDOW w AS (PARTITION BY country ORDER BY id)",
    "SELECT max(age) FILTER (WHERE id > 1), CAST(age AS text), age COLLATE nocase FROM singer",
    "SELECT 'name', name FROM 'singer'",
    'SELECT name FROM singer WHERE name = "shoe" AND country LIKE "%a%" AND name IN ("Joe", "Ann") OR "x" = name',
    'SELECT name AS "full name" FROM singer ORDER BY "full name"',
    "SELECT name FROM singer WHERE country IN (SELECT 'a') /* T9.shoe */ -- shoe",
]
UNRESOLVED = [
    ("SELECT shoe FROM singer", "shoe"),
    ("SELECT T2.name FROM singer AS T1", "name"),
    ("SELECT singer.name FROM singer AS T1", "name"),
    ("SELECT T1.title FROM singer AS T1 JOIN concert AS T2", "title"),
    ("SELECT T1.\"shoe\" FROM singer AS T1", "shoe"),
    ("SELECT [shoe] FROM singer", "shoe"),
    ("SELECT temp.singer.name FROM temp.singer", "temp.singer"),
    ("SELECT count(shoe) FROM singer", "shoe"),
    ("SELECT name FROM singer WHERE shoe = 3", "shoe"),
    ("SELECT name FROM singer WHERE id IN (SELECT shoe FROM performs)", "shoe"),
    ("SELECT name FROM singer WHERE id IN (SELECT T1.fee FROM performs AS T2 WHERE T1.id = 1) AND T2.fee = 1", "fee"),
    ("SELECT name FROM singer GROUP BY shoe", "shoe"),
    ("SELECT name FROM singer ORDER BY shoe", "shoe"),
    ("SELECT age AS years, years + 1 FROM singer", "years"),
    ("SELECT age AS years, (SELECT years) FROM singer", "years"),
    ("SELECT age FROM (SELECT name FROM singer)", "age"),
    ("SELECT q.age FROM (SELECT name FROM singer) AS q", "age"),
    ("SELECT 1 FROM singer, (SELECT singer.age) AS q", "age"),
    ("WITH c (n) AS (SELECT name FROM singer) SELECT name FROM c", "name"),
    ("SELECT 1 FROM singer JOIN concert USING (title)", "title"),
    ("SELECT name FROM singer UNION SELECT shoe FROM concert", "shoe"),
    ("SELECT T9.* FROM singer", "T9"),
    ("SELECT name FROM bands", "bands"),
    ("SELECT 1 FROM singer WHERE id IN bands", "bands"),
    ("SELECT 1 FROM singer JOIN (concert JOIN bands)", "bands"),
    ("SELECT 1 FROM singer WHERE EXISTS (SELECT 1 FROM bands)", "bands"),
    ("SELECT sum(age) OVER (ORDER BY shoe) FROM singer", "shoe"),
    ("SELECT T1.T2.shoe FROM singer AS T1", "shoe"),
]  # fmt: skip


@pytest.mark.parametrize("sql", RESOLVED)
def test_a_name_that_sqlite_resolves_is_known(sql):
    CONNECTION.execute(f"EXPLAIN {sql}")
    assert unknown(sql) == []


@pytest.mark.parametrize(("sql", "name"), UNRESOLVED)
def test_a_name_that_sqlite_does_not_resolve_is_unknown(sql, name):
    with pytest.raises(
        sqlite3.OperationalError, match=f"(no such (column|table): |cannot join using column )(.*\\.)?{name}"
    ):
        CONNECTION.execute(f"EXPLAIN {sql}")
    assert name in [found.name for found in unknown(sql)]


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ('SELECT "shoe" FROM singer', True),
        ('SELECT count(DISTINCT "shoe") AS n FROM singer', True),
        ('SELECT name FROM singer GROUP BY "shoe"', True),
        ('SELECT name FROM singer ORDER BY "shoe" DESC', True),
        ('SELECT name FROM singer WHERE "shoe" = 3', True),
        ('SELECT name FROM singer WHERE "shoe" LIKE "a%"', True),
        ('SELECT name FROM singer WHERE ("shoe") BETWEEN 1 AND 2', True),
        ('SELECT name FROM singer WHERE "shoe" IS NULL', True),
        ('SELECT name FROM singer WHERE "shoe" IN (1, 2)', True),
        ('SELECT name FROM singer WHERE name = "shoe"', False),
        ('SELECT name FROM singer WHERE "shoe" = name', False),
        ('SELECT name FROM singer WHERE name LIKE "shoe"', False),
        ('SELECT name FROM singer WHERE name BETWEEN "shoe" AND "toe"', False),
        ('SELECT name FROM singer WHERE "shoe" IN (SELECT name FROM singer)', False),
        ('SELECT name FROM singer WHERE "shoe" = (SELECT name FROM singer)', False),
        ('SELECT replace(name, "shoe", "toe") FROM singer', False),
        ("SELECT 'shoe' FROM singer", False),
    ],
)  # fmt: skip
def test_an_unknown_name_in_double_quotes_is_a_column_where_only_a_column_makes_sense(sql, named):
    CONNECTION.execute(sql)
    assert [name.name for name in names.read(sql, SCHEMA).unknown] == (["shoe"] if named else [])


@pytest.mark.parametrize(
    ("sql", "ambiguous"),
    [
        ("SELECT id FROM singer JOIN concert", True),
        ("SELECT singer.id FROM singer JOIN singer", True),
        ("SELECT T1.id AS id FROM singer AS T1 JOIN concert AS T2 GROUP BY id", True),
        ("SELECT T1.id AS id FROM singer AS T1 JOIN concert AS T2 ORDER BY id", False),
        ("SELECT id FROM singer JOIN concert USING (id)", False),
        ("SELECT id FROM singer WHERE 1 IN (SELECT id FROM concert)", False),
    ],
)
def test_a_column_of_two_tables_is_ambiguous_where_sqlite_says_so(sql, ambiguous):
    error = READER.run(sql).error
    assert (error is Verdict.AMBIGUOUS) == ambiguous
    assert [name.kind for name in unknown(sql)] == (["ambiguous_column"] if ambiguous else [])


def spider_dev(folder):
    """(schema, gold) for each gold of the dev set of Spider whose database is there."""
    if not (SPIDER / "database_dev.zip").exists():
        pytest.skip(f"needs Spider's dev.json and database_dev.zip in {SPIDER}")
    zipfile.ZipFile(SPIDER / "database_dev.zip").extractall(folder)
    schemas = {}
    for file in folder.rglob("*.sqlite"):
        with closing(database.open_readonly(str(file))) as connection:
            schemas[file.stem] = database.read_schema(connection)
    rows = json.loads((SPIDER / "dev.json").read_text(encoding="utf-8"))
    golds = dict.fromkeys((row["db_id"], row["query"]) for row in rows if row["db_id"] in schemas)
    return [(schemas[db_id], gold) for db_id, gold in golds]


def test_no_gold_of_spider_has_an_unknown_name_or_differs_from_itself(tmp_path):
    examples = spider_dev(tmp_path)
    assert len(examples) > 450
    for schema, gold in examples:
        assert names.read(gold, schema).unknown == []
        assert diagnose(gold, gold, schema, Verdict.MISMATCH).kinds == ("unclassified",)


WORDS = """SELECT FROM WHERE GROUP BY ORDER BY HAVING LIMIT JOIN ON USING LEFT NATURAL UNION EXCEPT AND OR NOT IN LIKE IS NULL
    BETWEEN EXISTS CASE WHEN THEN END DISTINCT AS WITH VALUES OVER CAST( count( max( ( ) , . * ; = < > - || ' " ` [ ] -- /* */ ? :a
    singer concert T1 T2 name id shoe "name" 'x' 1 2.5 0x1F 1e999 NULL TRUE INTERVAL DATE \0 \ud800 é""".split()
QUERIES = [prediction for _, _, prediction in CASES] + RESOLVED


@st.composite
def mutated(draw):
    """A query with some words taken out, put in, exchanged or repeated."""
    words = draw(st.sampled_from(QUERIES)).split()
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(words)))
        end = draw(st.integers(start, min(len(words), start + 4)))
        kept = words[start:end] * draw(st.integers(0, 3))
        words[start:end] = draw(st.sampled_from([[], [draw(st.sampled_from(WORDS))], kept]))
    return " ".join(words)


texts = st.one_of(mutated(), st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join), st.text())
reasons = st.sampled_from(["", "no such column: T1.shoe", "no such table: a.b", "ambiguous column name: id", "else"])


@settings(max_examples=200)
@given(gold=st.sampled_from(QUERIES), prediction=texts, verdict=st.sampled_from(WRONG), reason=reasons)
def test_any_text_gets_kinds_with_a_sentence_on_each(gold, prediction, verdict, reason):
    found = diagnose(gold, prediction, SCHEMA, verdict, reason)
    assert found.kinds and set(found.kinds) <= set(KINDS) and len(set(found.kinds)) == len(found.kinds)
    assert len(found.details) == len(found.kinds) and all(found.details)
    assert not found.hallucinated_columns or "hallucinated_column" in found.kinds
    assert not found.hallucinated_tables or "hallucinated_table" in found.kinds


@settings(max_examples=200)
@given(sql=mutated())
def test_names_are_known_exactly_where_sqlite_compiles_the_query(sql):
    try:
        CONNECTION.execute(f"EXPLAIN {sql}")
        error = ""
    except (sqlite3.Error, sqlite3.Warning, ValueError) as failure:
        error = str(failure)
    try:
        found = unknown(sql)
    except ValueError:
        return
    assert not (found and not error)
    assert found or not error.startswith(("no such column", "no such table"))


NESTED = {
    "brackets": "SELECT " + "(" * 5_000 + "1" + ")" * 5_000,
    "open brackets": "SELECT " + "(" * 15_000,
    "functions": "SELECT " + "max(" * 4_000,
    "not": "SELECT name FROM singer WHERE " + "NOT " * 4_000 + "1",
    "sum": "SELECT " + "age + " * 3_000 + "1 FROM singer",
    "subqueries": "SELECT * FROM " + "(SELECT * FROM " * 900 + "singer" + ")" * 900,
}
LONG = {
    "and": "SELECT name FROM singer WHERE " + " AND ".join(["age > 1"] * 900),
    "or": "SELECT name FROM singer WHERE " + " OR ".join(["age > 1"] * 900),
    "union": " UNION ".join(["SELECT 1"] * 900),
    "columns": "SELECT " + ", ".join(f"shoe{number}" for number in range(900)) + " FROM singer",
    "tables": "SELECT 1 FROM " + ", ".join(["singer"] * 900),
    "joins without ON": "SELECT 1 FROM singer" + " JOIN concert" * 22,
}


@pytest.mark.parametrize("sql", NESTED.values(), ids=NESTED)
def test_what_is_nested_deeper_than_the_parser_stands_is_unparsable(sql):
    found = diagnose("SELECT name FROM singer", sql, SCHEMA, Verdict.MISMATCH)
    assert found == Diagnosis(("unparsable",), ("nested too deeply",))


@pytest.mark.parametrize("sql", LONG.values(), ids=LONG)
def test_what_is_long_but_flat_takes_no_longer_than_its_length(sql):
    started = time.process_time()
    assert diagnose("SELECT name FROM singer", sql, SCHEMA, Verdict.MISMATCH).kinds
    assert time.process_time() - started < 5


@pytest.mark.parametrize("text", ["SELECT a, ", "/* */", "/*", "(", "--\n", "[", "'", "no SQL "])
def test_a_megabyte_is_refused_at_once(text):
    started = time.process_time()
    found = diagnose("SELECT name FROM singer", text * (1_000_000 // len(text)), SCHEMA, Verdict.SYNTAX, "near")
    assert found == Diagnosis(("unparsable",), ("longer than 20000 characters",))
    assert time.process_time() - started < 1


def test_not_more_names_are_looked_up_than_anyone_reads():
    found = diagnose("SELECT name FROM singer", LONG["columns"], SCHEMA, Verdict.UNKNOWN_COLUMN)
    assert len(found.hallucinated_columns) == names.MAX_UNKNOWN


def test_more_tables_than_sqlite_joins_are_unparsable():
    found = diagnose("SELECT name FROM singer", LONG["tables"], SCHEMA, Verdict.MISMATCH)
    assert found == Diagnosis(("unparsable",), ("more than 64 tables in one FROM",))
