"""Neighbours keep the schema and its promises, keep the golds running, and tell accidental matches from true ones."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text2sql.sql import neighbours
from text2sql.sql.neighbours import build, check, source_rows

SCHOOL = """
    CREATE TABLE school (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT, founded INT);
    CREATE TABLE pupil (
        id INTEGER PRIMARY KEY, name TEXT, age INT, born TEXT, note TEXT,
        school_id INT REFERENCES school (id), UNIQUE (name, born)
    );
    CREATE INDEX by_age ON pupil (age);
    CREATE VIEW old AS SELECT name FROM pupil WHERE age > 15;
    INSERT INTO school VALUES (1, 'North', 'Rome', 1900), (2, 'South', 'Oslo', 1950), (3, 'East', 'Rome', 1990);
    INSERT INTO pupil VALUES
        (1, 'Ann', 12, '2010-02-03', NULL, 1), (2, 'Bob', 15, '2007-05-06', 'x', 1), (3, 'Cid', 16, '2006-07-08', 'y', 2),
        (4, 'Dan', 12, '2010-02-04', 'x', 2), (5, 'Eve', 18, '2004-11-12', 'z', 1), (6, 'Fay', 13, '2009-09-09', NULL, 3);
"""
GOLDS = [
    "SELECT name FROM pupil WHERE age > 15",
    "SELECT count(*) FROM pupil AS p JOIN school AS s ON p.school_id = s.id WHERE s.city = 'Rome' AND p.age < 14",
    "SELECT name FROM pupil WHERE name LIKE 'A%'",
    "SELECT city FROM school WHERE founded BETWEEN 1940 AND 1995",
    "SELECT name FROM pupil ORDER BY age DESC LIMIT 1",
    'SELECT s.name FROM school AS s JOIN pupil AS p ON p.school_id = s.id WHERE s.city = "Oslo" GROUP BY s.id',
    "SELECT name FROM old",
]


def write(path, script, encoding="UTF-8"):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.executescript(script)
    return path


def fetch(path, sql):
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


def dump(path):
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return list(connection.iterdump())


def schema(path):
    return fetch(
        path, "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY 2"
    )


def derived(tmp_path, script, golds=(), count=4, seed=0, **options):
    """The neighbours of a database built from a script."""
    source = write(tmp_path / "source.sqlite", script, **options)
    return neighbours.derive(source, tmp_path / "neighbours", count, seed, golds)


@pytest.fixture
def school(tmp_path):
    return write(tmp_path / "school.sqlite", SCHOOL)


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    """The source and ten neighbours, for tests that only read."""
    folder = tmp_path_factory.mktemp("ten")
    source = write(folder / "school.sqlite", SCHOOL)
    return source, neighbours.derive(source, folder / "neighbours", 10, 0, GOLDS)


# What a neighbour keeps


def test_a_neighbour_has_the_schema_of_its_source(ten):
    source, paths = ten
    assert all(schema(path) == schema(source) for path in paths)


def test_the_source_keeps_its_bytes_and_gets_no_company(school, tmp_path):
    before, there = school.read_bytes(), set(tmp_path.iterdir())
    neighbours.derive(school, tmp_path / "neighbours", 2, 0, GOLDS)
    assert school.read_bytes() == before
    assert set(tmp_path.iterdir()) - there == {tmp_path / "neighbours"}


def test_every_gold_runs_on_every_neighbour(ten):
    for path in ten[1]:
        for gold in GOLDS:
            fetch(path, gold)


def test_golds_with_rows_on_the_source_mostly_have_rows_on_neighbours(ten):
    empty = sum(not fetch(path, gold) for path in ten[1] for gold in GOLDS)
    assert empty <= 0.1 * len(ten[1]) * len(GOLDS)


@pytest.mark.parametrize(
    "condition", ["age = 15", "age = 16", "name LIKE 'A%'", "school_id IN (SELECT id FROM school WHERE city = 'Oslo')"]
)
def test_values_that_golds_name_and_those_beside_them_keep_occurring(ten, condition):
    found = sum(bool(fetch(path, f"SELECT 1 FROM pupil WHERE {condition}")) for path in ten[1])
    assert found > len(ten[1]) / 2


def test_a_literal_that_the_source_lacks_occurs_in_neighbours(tmp_path):
    gold = "SELECT name FROM pupil WHERE age = 77"
    found = [fetch(path, gold) for path in derived(tmp_path, SCHOOL, [gold], count=6)]
    assert any(found)


def test_declared_foreign_keys_that_the_source_obeys_are_obeyed(ten):
    orphans = "SELECT 1 FROM pupil WHERE school_id NOT NULL AND school_id NOT IN (SELECT id FROM school)"
    assert not any(fetch(path, orphans) for path in ten[1])


def test_rows_that_dangle_in_the_source_mostly_get_a_partner(tmp_path):
    script = (
        "CREATE TABLE a (code TEXT PRIMARY KEY); INSERT INTO a VALUES ('x'), ('y'), ('z');"
        "CREATE TABLE b (id INTEGER PRIMARY KEY, code TEXT REFERENCES a);"
        "INSERT INTO b (code) VALUES (' x'), (' y'), (' z'), (' x'), (' y'), (' z'), (' x'), (' y')"
    )
    for path in derived(tmp_path, script):
        total, met = fetch(path, "SELECT count(*), sum(code IN (SELECT code FROM a)) FROM b")[0]
        assert met > total / 2


def test_null_comes_only_to_columns_that_hold_it(ten):
    nulls = [
        fetch(path, "SELECT sum(name IS NULL), sum(born IS NULL), sum(note IS NULL) FROM pupil")[0] for path in ten[1]
    ]
    assert {(name, born) for name, born, _ in nulls} == {(0, 0)}
    assert any(note for _, _, note in nulls)


def test_a_first_column_that_could_be_the_key_stays_distinct(tmp_path):
    script = "CREATE TABLE t (id INT, a TEXT); INSERT INTO t VALUES (1, 'p'), (2, 'q'), (3, 'p'), (4, 'r')"
    for path in derived(tmp_path, script, ["SELECT a FROM t WHERE a = 'p'"]):
        assert not fetch(path, "SELECT id FROM t GROUP BY id HAVING count(*) > 1")


# What a neighbour changes


def differ(paths, gold, other):
    return any(sorted(fetch(path, gold)) != sorted(fetch(path, other)) for path in paths)


@pytest.mark.parametrize(
    ("gold", "accident"),
    [
        ("SELECT name FROM pupil WHERE age > 15", "SELECT name FROM pupil WHERE age >= 16 AND age <= 18"),
        ("SELECT name FROM pupil WHERE age > 13", "SELECT name FROM pupil WHERE age > 14"),
        ("SELECT name FROM pupil WHERE name LIKE 'A%'", "SELECT name FROM pupil WHERE name LIKE 'An%'"),
        ("SELECT name FROM pupil WHERE name LIKE 'A%'", "SELECT name FROM pupil WHERE name = 'Ann'"),
        ("SELECT max(age) FROM pupil", "SELECT age FROM pupil WHERE name = 'Eve'"),
        ("SELECT city FROM school", "SELECT s.city FROM school AS s JOIN pupil AS p ON p.school_id = s.id GROUP BY s.id"),
        ("SELECT name FROM school", "SELECT DISTINCT name FROM school"),
        ("SELECT count(*) FROM school", "SELECT 3"),
        (
            "SELECT school_id FROM pupil GROUP BY school_id HAVING count(*) > 9",
            "SELECT school_id FROM pupil GROUP BY school_id HAVING count(*) > 8",
        ),
        (
            "SELECT s.id FROM school AS s JOIN pupil AS p ON p.school_id = s.id GROUP BY s.id HAVING count(*) >= 2",
            "SELECT s.id FROM school AS s JOIN pupil AS p ON p.school_id = s.id GROUP BY s.id HAVING count(*) > 1 AND s.id < 3",
        ),
        (
            "SELECT name FROM pupil WHERE age = (SELECT max(age) FROM pupil)",
            "SELECT name FROM pupil ORDER BY age DESC LIMIT 1",
        ),
    ],
)  # fmt: skip
def test_sql_that_is_right_by_accident_comes_out_wrong(tmp_path, gold, accident):
    paths = derived(tmp_path, SCHOOL, [gold], count=10)
    assert not differ([tmp_path / "source.sqlite"], gold, accident)
    assert differ(paths, gold, accident)


@pytest.mark.parametrize(
    ("gold", "same"),
    [
        ("SELECT name FROM pupil WHERE age > 15", "SELECT name FROM pupil WHERE NOT age <= 15"),
        ("SELECT count(*) FROM pupil", "SELECT count(id) FROM pupil"),
        ("SELECT id FROM pupil", "SELECT DISTINCT id FROM pupil"),
        (
            "SELECT count(*) FROM pupil WHERE school_id NOT NULL",
            "SELECT count(*) FROM school AS s JOIN pupil AS p ON s.id = p.school_id",
        ),
    ],
)
def test_sql_that_is_equal_by_the_schema_stays_equal(tmp_path, gold, same):
    assert not differ(derived(tmp_path, SCHOOL, [gold], count=10), gold, same)


def test_rows_of_the_source_are_missing_in_some_neighbours(ten):
    assert any(fetch(path, "SELECT count(*) FROM school WHERE id IN (1, 2, 3)") != [(3,)] for path in ten[1])


def test_a_table_without_rows_gets_some(tmp_path):
    script = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, day DATE, price REAL)"
    paths = derived(tmp_path, script, ["SELECT name FROM t WHERE price > 3"], count=6)
    assert all(fetch(path, "SELECT 1 FROM t") for path in paths)
    assert any(fetch(path, "SELECT name FROM t WHERE price > 3") for path in paths)


# Which neighbours count for a gold

TIE = "SELECT name FROM pupil ORDER BY age DESC LIMIT 1"


def test_neighbours_with_a_tie_at_the_limit_do_not_count(ten):
    _, paths = ten
    counting = neighbours.usable(paths[0].parent, TIE)
    oldest = "SELECT count(*) FROM pupil WHERE age = (SELECT max(age) FROM pupil)"
    assert 0 < len(counting) < len(paths)
    assert [path for path in paths if fetch(path, oldest) == [(1,)]] == counting


@pytest.mark.parametrize("gold", [TIE, "SELECT name FROM pupil ORDER BY age"])
def test_every_third_neighbour_has_ties_and_the_others_have_none(tmp_path, gold):
    paths = derived(tmp_path, SCHOOL, [gold], count=6)
    assert neighbours.usable(paths[0].parent, gold) == [path for number, path in enumerate(paths) if number % 3 < 2]


def test_a_number_that_golds_compare_with_text_does_not_hide_a_tie(tmp_path):
    script = "CREATE TABLE t (name TEXT, age TEXT); INSERT INTO t VALUES ('a', '32'), ('b', '29'), ('c', '41')"
    golds = ["SELECT name FROM t ORDER BY age", "SELECT name FROM t WHERE age = 32 OR age = 33"]
    paths = derived(tmp_path, script, golds, count=6)
    assert len(neighbours.usable(paths[0].parent, golds[0])) > 2


def test_a_gold_that_takes_a_null_by_sorting_does_not_count(tmp_path):
    script = "CREATE TABLE t (a INTEGER PRIMARY KEY, b INT CHECK ((a = 1) = (b IS NULL)));"
    gold = "SELECT a FROM t ORDER BY b LIMIT 1"
    paths = derived(tmp_path, script + "INSERT INTO t VALUES (1, NULL), (2, 2), (3, 3), (4, 4)", [gold], count=6)
    unknown = [path for path in paths if fetch(path, "SELECT 1 FROM t WHERE b IS NULL")]
    assert unknown
    assert set(unknown).isdisjoint(neighbours.usable(paths[0].parent, gold))


@pytest.mark.parametrize(
    "gold",
    [
        "SELECT a FROM t ORDER BY b",
        "SELECT a FROM t ORDER BY b LIMIT 1",
        "SELECT a FROM t ORDER BY 0 + 0 LIMIT 2",
        "SELECT a FROM t WHERE a = (SELECT a FROM t ORDER BY b LIMIT 1)",
        "SELECT a FROM t LIMIT 1",
        "SELECT a, b AS c FROM t ORDER BY c",
        "SELECT a, b FROM t ORDER BY 2",
        "SELECT b, a FROM t GROUP BY b",
        "SELECT a, b FROM t UNION ALL SELECT a, b FROM t ORDER BY b",
    ],
)
def test_a_gold_that_leaves_its_answer_to_chance_counts_nowhere(tmp_path, gold):
    # CHECK keeps b at 1, so that all rows tie.
    script = "CREATE TABLE t (a INTEGER PRIMARY KEY, b INT CHECK (b = 1)); INSERT INTO t VALUES (1, 1), (2, 1), (3, 1)"
    paths = derived(tmp_path, script, [gold], count=3)
    assert neighbours.usable(paths[0].parent, gold) == []


@pytest.mark.parametrize("gold", ["SELECT a FROM t ORDER BY a", "SELECT b FROM t ORDER BY b", "SELECT count(*) FROM t"])
def test_a_gold_whose_answer_the_data_settle_counts_everywhere(tmp_path, gold):
    script = "CREATE TABLE t (a INTEGER PRIMARY KEY, b INT CHECK (b = 1)); INSERT INTO t VALUES (1, 1), (2, 1), (3, 1)"
    paths = derived(tmp_path, script, [gold], count=3)
    assert neighbours.usable(paths[0].parent, gold) == paths


def test_a_gold_counts_with_or_without_its_semicolon(ten):
    folder = ten[1][0].parent
    assert neighbours.usable(folder, f" {GOLDS[0]} ;\n") == neighbours.usable(folder, GOLDS[0])


def test_a_gold_that_fails_on_the_source_is_set_aside(tmp_path):
    attach = f"ATTACH '{tmp_path / 'other'}' AS other"
    failing = ["SELECT nothing FROM pupil", "SELECT 1; SELECT 2", "SELECT '\udcff'", "DELETE FROM pupil", attach]
    paths = derived(tmp_path, SCHOOL, [*failing, *GOLDS], count=2)
    assert all(neighbours.usable(paths[0].parent, gold) == [] for gold in failing)
    assert neighbours.usable(paths[0].parent, GOLDS[0]) == paths
    assert not (tmp_path / "other").exists()


# Once more


def test_the_same_inputs_give_the_same_rows_in_any_process(school, tmp_path):
    golds = json.dumps(GOLDS)
    code = (
        "import json, sys; from pathlib import Path; from text2sql.sql import neighbours;"
        "neighbours.derive(sys.argv[1], Path(sys.argv[2]), 3, 7, json.loads(sys.argv[3]))"
    )
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code, str(school), str(tmp_path / seed), golds]
        here = Path(__file__).resolve().parents[2]
        subprocess.run(command, check=True, timeout=60, cwd=here, env={**os.environ, "PYTHONHASHSEED": seed})
    for number in range(3):
        assert dump(tmp_path / "1" / f"n{number:02}.sqlite") == dump(tmp_path / "2" / f"n{number:02}.sqlite")


def test_neighbour_i_does_not_depend_on_their_number_or_the_order_of_golds(school, tmp_path):
    few = neighbours.derive(school, tmp_path / "few", 2, 0, GOLDS)
    many = neighbours.derive(school, tmp_path / "many", 4, 0, [*GOLDS[::-1], GOLDS[0]])
    assert [dump(path) for path in few] == [dump(path) for path in many[:2]]


def test_another_seed_gives_other_rows(school, tmp_path):
    one, other = (neighbours.derive(school, tmp_path / str(seed), 1, seed, GOLDS)[0] for seed in (0, 1))
    assert dump(one) != dump(other)


def times(paths):
    return [path.stat().st_mtime_ns for path in paths]


def test_neighbours_of_the_same_inputs_are_used_again(school, tmp_path):
    first = neighbours.derive(school, tmp_path / "n", 3, 0, GOLDS)
    before = times(first)
    assert neighbours.derive(school, tmp_path / "n", 3, 0, GOLDS) == first
    assert times(first) == before


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"count": 4}, {"golds": GOLDS[1:]}, {"script": "INSERT INTO school VALUES (9, 'Far', 'Bonn', 2000)"}],
)
def test_neighbours_of_other_inputs_are_written_anew(school, tmp_path, change):
    inputs = {"count": 3, "seed": 0, "golds": GOLDS}
    before = times(neighbours.derive(school, tmp_path / "n", **inputs))
    if script := change.pop("script", ""):
        write(school, script)
    assert times(neighbours.derive(school, tmp_path / "n", **{**inputs, **change}))[:3] != before


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"short")])
def test_a_missing_or_changed_neighbour_is_written_anew(school, tmp_path, damage):
    paths = neighbours.derive(school, tmp_path / "n", 2, 0, GOLDS)
    before = dump(paths[1])
    damage(paths[1])
    neighbours.derive(school, tmp_path / "n", 2, 0, GOLDS)
    assert dump(paths[1]) == before


def test_nothing_but_neighbours_and_their_manifest_is_left_in_the_folder(ten):
    folder = ten[1][0].parent
    assert set(folder.iterdir()) == {*ten[1], folder / "manifest.json"}


# Odd databases


@pytest.mark.parametrize(
    ("script", "gold"),
    [
        ('CREATE TABLE "odd ""name" ("a b" INT, "c\'d" TEXT, [e[] INT); INSERT INTO "odd ""name" VALUES (1, \'x\', 2)', None),
        (
            'CREATE TABLE "my table" ("first name" TEXT, "order" INT); INSERT INTO "my table" VALUES (\'Jo\', 1), (\'Al\', 2)',
            'SELECT "first name" FROM "my table" WHERE "order" > 1 ORDER BY "order"',
        ),
        ("CREATE TABLE t (a TEXT PRIMARY KEY, b INT) WITHOUT ROWID; INSERT INTO t VALUES ('x', 1), ('y', 2)", "SELECT b FROM t"),
        ("CREATE TABLE t (a INT, b INT AS (a + 1), c INT AS (a * 2) STORED); INSERT INTO t (a) VALUES (1), (5)", "SELECT b FROM t WHERE c > 2"),
        ("CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT, b BLOB); INSERT INTO t (b) VALUES (x'00ff'), (x''), (NULL)", "SELECT b FROM t"),
        ("CREATE TABLE t (a); INSERT INTO t VALUES (1), ('x'), (2.5), (x'01'), (NULL), (9223372036854775807)", "SELECT a FROM t WHERE a > 1 ORDER BY a"),
        ("CREATE TABLE t (a REAL); INSERT INTO t VALUES (9e999), (-9e999), (1e300), (0.1)", "SELECT max(a) FROM t WHERE a > 0.1"),
        ("CREATE TABLE t (a INT CHECK (a BETWEEN 1 AND 3) UNIQUE); INSERT INTO t VALUES (1), (2)", "SELECT a FROM t WHERE a = 2"),
        ("CREATE TABLE t (a TEXT); INSERT INTO t VALUES (CAST(x'52e978' AS TEXT)), ('a' || char(0) || 'b')", "SELECT a FROM t WHERE a LIKE '%x'"),
        ("CREATE TABLE t (a INT, p INT REFERENCES t (a)); INSERT INTO t VALUES (1, NULL), (2, 1), (3, 2)", "SELECT a FROM t WHERE p = 1"),
        ("CREATE TABLE p (a INT, b INT, PRIMARY KEY (a, b)); CREATE TABLE c (a INT, b INT, FOREIGN KEY (a, b) REFERENCES p);"
         "INSERT INTO p VALUES (1, 1), (1, 2), (2, 1); INSERT INTO c VALUES (1, 2), (1, 2), (2, 1)", "SELECT c.a FROM c JOIN p ON c.a = p.a"),
        ("CREATE TABLE t (a INT REFERENCES nowhere (x)); INSERT INTO t VALUES (1), (2)", "SELECT a FROM t"),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); INSERT INTO t VALUES (1, 'p'), (2, 'q')", "SELECT a FROM t WHERE id = 'none'"),
        ("CREATE TABLE t (a INT, b TEXT); CREATE UNIQUE INDEX u ON t (lower(b)); CREATE UNIQUE INDEX v ON t (a) WHERE a > 1;"
         "INSERT INTO t VALUES (1, 'x'), (2, 'Y')", "SELECT a FROM t WHERE b = 'x'"),
        ("CREATE TABLE t (day TEXT, n TEXT); INSERT INTO t VALUES ('9999-12-31', '007'), ('2020-02-30', '-1.50')", "SELECT n FROM t WHERE day > '9999-12-31'"),
        ("CREATE TABLE t (a INT); INSERT INTO t VALUES (1)", "SELECT a FROM t WHERE a < 99999999999999999999 AND a > -1"),
        ("CREATE TABLE t (a INT); INSERT INTO t VALUES (1)", "WITH RECURSIVE n (i) AS (SELECT 1 UNION SELECT i + 1 FROM n WHERE i < 9) SELECT i FROM n"),
        ("SELECT 1", None),
    ],
)  # fmt: skip
def test_an_odd_database_gets_neighbours(tmp_path, script, gold):
    write(tmp_path / "source.sqlite", "CREATE TABLE first (x INT)")
    paths = derived(tmp_path, script, [gold] if gold else [], count=5)
    for path in paths:
        assert schema(path) == schema(tmp_path / "source.sqlite")
        assert fetch(path, "PRAGMA integrity_check") == [("ok",)]


def test_utf16_stays_utf16(tmp_path):
    script = "CREATE TABLE t (a TEXT); INSERT INTO t VALUES ('é'), ('日本')"
    (path,) = derived(tmp_path, script, ["SELECT a FROM t WHERE a = 'é'"], count=1, encoding="UTF-16le")
    assert fetch(path, "PRAGMA encoding") == [("UTF-16le",)]


def test_triggers_and_virtual_tables_are_left_out_with_a_reason(tmp_path):
    script = SCHOOL + (
        "CREATE TRIGGER grow AFTER INSERT ON pupil BEGIN UPDATE school SET founded = 0; END;"
        "CREATE VIRTUAL TABLE words USING fts5 (body); INSERT INTO words VALUES ('hello');"
    )
    paths = derived(tmp_path, script, GOLDS, count=1)
    manifest = json.loads((paths[0].parent / "manifest.json").read_text())
    assert [row for row in schema(paths[0]) if row[0] == "trigger" or "words" in row[1]] == []
    assert manifest["left_out"]["grow"] == "a trigger"
    assert manifest["left_out"]["words"] == "a virtual table"
    assert manifest["left_out"]["words_data"] == "belongs to the virtual table words"


def test_a_large_table_is_sampled_with_what_golds_name_and_its_partners(tmp_path, monkeypatch):
    monkeypatch.setattr(source_rows, "MAX_ROWS", 40)
    script = (
        "CREATE TABLE a (id INTEGER PRIMARY KEY, word TEXT); CREATE TABLE b (a_id INT REFERENCES a (id), n INT);"
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999)"
        "INSERT INTO a SELECT i, 'w' || i FROM n; INSERT INTO b SELECT id, id * 2 FROM a;"
    )
    gold = "SELECT a.word FROM a JOIN b ON b.a_id = a.id WHERE b.n = 1110"
    for path in derived(tmp_path, script, [gold], count=5):
        assert fetch(path, "SELECT count(*) FROM a")[0][0] < 200
        assert fetch(path, "SELECT count(*) FROM b WHERE a_id NOT IN (SELECT id FROM a)") == [(0,)]
    assert any(fetch(path, "SELECT 1 FROM b WHERE a_id = 555") for path in (tmp_path / "neighbours").glob("*.sqlite"))


@settings(max_examples=30)
@given(
    rows=st.lists(
        st.tuples(st.integers(-3, 3) | st.none(), st.text(max_size=3), st.floats(allow_nan=False)), max_size=6
    ),
    literal=st.integers(-3, 3),
)
def test_any_small_table_gets_neighbours_on_which_its_golds_run(tmp_path_factory, rows, literal):
    folder = tmp_path_factory.mktemp("any")
    source = write(folder / "s.sqlite", "CREATE TABLE t (a INT, b TEXT, c REAL, UNIQUE (a, b))")
    with closing(sqlite3.connect(source)) as connection, connection:
        connection.executemany("INSERT OR IGNORE INTO t VALUES (?, ?, ?)", rows)
    golds = [
        f"SELECT b FROM t WHERE a > {literal}",
        "SELECT b FROM t ORDER BY c LIMIT 1",
        "SELECT a FROM t GROUP BY a HAVING count(*) > 1",
    ]
    for path in neighbours.derive(source, folder / "n", 3, 0, golds):
        assert fetch(path, "SELECT count(*) > 0 FROM t") == [(1,)]
        for gold in golds:
            fetch(path, gold)


# Refusals


def test_no_neighbours_are_refused(school, tmp_path):
    with pytest.raises(ValueError, match="0 neighbours asked for: ask for at least 1"):
        neighbours.derive(school, tmp_path / "n", 0, 0, GOLDS)


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.sqlite"):
        neighbours.derive(tmp_path / "none.sqlite", tmp_path / "n", 1, 0, GOLDS)


def test_a_source_that_is_no_database_is_named(tmp_path):
    (tmp_path / "text.sqlite").write_text("no database" * 100)
    with pytest.raises(ValueError, match=r"text\.sqlite is not a SQLite database"):
        neighbours.derive(tmp_path / "text.sqlite", tmp_path / "n", 1, 0, GOLDS)


def test_a_gold_that_fails_on_every_try_is_named_and_nothing_is_written(tmp_path):
    script = SCHOOL + "CREATE TRIGGER grow AFTER INSERT ON pupil BEGIN SELECT 1; END"
    gold = "SELECT abs(-9223372036854775807 - (count(*) = 0)) FROM sqlite_master WHERE type = 'trigger'"
    with pytest.raises(ValueError, match=r"some gold fails.*integer overflow.*sqlite_master.*leave it out"):
        derived(tmp_path, script, [gold])
    assert list((tmp_path / "neighbours").iterdir()) == []


def test_rows_come_closer_to_the_source_until_its_golds_run(tmp_path):
    columns = [f"c{number}" for number in range(6)]
    row = ", ".join(["json_object('x', 1)"] * 6)
    script = f"CREATE TABLE t (id INTEGER PRIMARY KEY, {', '.join(columns)});" + "".join(
        f"INSERT INTO t VALUES ({number}, {row});" for number in range(20)
    )
    gold = f"SELECT {', '.join(f'json_extract({column}, ' + repr('$.x') + ')' for column in columns)} FROM t"
    assert all(fetch(path, gold) for path in derived(tmp_path, script, [gold]))


def test_a_gold_that_takes_too_many_steps_is_named(tmp_path, monkeypatch):
    for module in (build, check):
        monkeypatch.setattr(module, "MAX_STEPS", 5_000)
    gold = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(ValueError, match=r"5000 steps.*WITH RECURSIVE"):
        derived(tmp_path, SCHOOL, [gold])


def test_a_schema_that_cannot_be_built_again_is_named(tmp_path):
    source = write(tmp_path / "source.sqlite", "CREATE TABLE t (a TEXT)")
    with closing(sqlite3.connect(source)) as connection:
        connection.create_collation("mine", lambda one, other: (one > other) - (one < other))
        connection.execute("CREATE INDEX i ON t (a COLLATE mine)")
        connection.commit()
    with pytest.raises(ValueError, match=r"schema of .*source\.sqlite cannot be built again.*mine"):
        neighbours.derive(source, tmp_path / "n", 1, 0, [])


def test_usable_asks_for_neighbours_to_be_derived_first(tmp_path):
    with pytest.raises(ValueError, match="no neighbours in .*: derive them first"):
        neighbours.usable(tmp_path, "SELECT 1")


def test_usable_names_a_gold_that_neighbours_were_not_derived_with(ten):
    with pytest.raises(ValueError, match="not derived with this gold: 'SELECT 1'"):
        neighbours.usable(ten[1][0].parent, "SELECT 1")
