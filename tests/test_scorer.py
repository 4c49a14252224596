"""The scorer finds the databases of its examples, notices when one changes, and scores alike with any number of workers."""

import os
import random
import shutil
import sqlite3
from contextlib import closing
from dataclasses import asdict

import pytest
from sql import processes

from text2sql import scorer as scorer_module
from text2sql.example import Example, Verdict
from text2sql.scorer import Scorer, suite
from text2sql.sql import judge as judge_module
from text2sql.sql.judge import Limits, Rules

LIMITS = Limits(timeout_s=60.0, max_steps=2_000_000)
PETS = "CREATE TABLE pet (id INTEGER PRIMARY KEY, name TEXT, age INTEGER); INSERT INTO pet VALUES (1, 'Rex', 3), (2, 'Tom', 1);"
ONE_MORE = PETS + "INSERT INTO pet VALUES (3, 'Kim', 7);"
COUNT = "SELECT count(*) FROM pet"


def build(path, script=PETS):
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


@pytest.fixture
def path(tmp_path):
    return build(tmp_path / "pets" / "pets.sqlite")


@pytest.fixture
def scorer():
    """Scores in this process, so that a test can see what is run."""
    with Scorer(LIMITS, workers=0) as scorer:
        yield scorer


@pytest.fixture
def ran(monkeypatch):
    """The SQL that was run in this process, in order."""
    texts, run = [], judge_module.Reader.run
    monkeypatch.setattr(judge_module.Reader, "run", lambda reader, sql: texts.append(sql) or run(reader, sql))
    return texts


def example(path="", gold=COUNT, context=""):
    return Example("q1", "How many?", gold, "pets", database=str(path), context=context)


def verdicts(scorer, *pairs):
    return [score.verdict.value for score in scorer.score_all(pairs)]


# Files that change


def test_a_database_that_changed_between_two_calls_is_read_anew(scorer, path):
    assert verdicts(scorer, (example(path), "SELECT 2")) == ["match"]
    build(path, ONE_MORE)
    assert verdicts(scorer, (example(path), "SELECT 2"), (example(path), "SELECT 3")) == ["mismatch", "match"]
    build(path, PETS)
    assert verdicts(scorer, (example(path), "SELECT 2"), (example(path), "SELECT 3")) == ["match", "mismatch"]


def test_a_database_written_in_place_is_read_anew(path):
    with Scorer(LIMITS, workers=1) as scorer:
        assert verdicts(scorer, (example(path, "SELECT sum(age) FROM pet"), "SELECT 4")) == ["match"]
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript("UPDATE pet SET age = age + 1")
        assert verdicts(scorer, (example(path, "SELECT sum(age) FROM pet"), "SELECT 6")) == ["match"]


def test_a_copy_of_a_database_is_read_itself_when_the_other_changes_later(scorer, tmp_path):
    visits = PETS + "CREATE TABLE visit (day); INSERT INTO visit VALUES (1), (2);"
    path, copy = build(tmp_path / "pets" / "pets.sqlite", visits), build(tmp_path / "copy" / "copy.sqlite", visits)
    assert path.read_bytes() == copy.read_bytes()
    assert verdicts(scorer, (example(path), "SELECT 2"), (example(copy), "SELECT 2")) == ["match", "match"]
    changed = build(tmp_path / "changed" / "changed.sqlite", visits.replace("(1), (2)", "(1)"))
    path.write_bytes(changed.read_bytes())  # in place: whoever has it open sees the new content
    pairs = [(example(one, "SELECT count(*) FROM visit"), f"SELECT {count}") for one, count in ((path, 1), (copy, 2))]
    assert verdicts(scorer, *pairs) == ["match", "match"]


def test_an_unchanged_database_is_read_from_end_to_end_once(scorer, path, monkeypatch):
    read, sha256 = [], scorer_module.sha256
    monkeypatch.setattr(scorer_module, "sha256", lambda path: read.append(path) or sha256(path))
    for _ in range(3):
        verdicts(scorer, *[(example(path), "SELECT 1")] * 3)
    assert read == [str(path)]


def test_golds_are_kept_from_call_to_call(scorer, path, ran):
    for prediction in ("SELECT 1", "SELECT 2", "SELECT 3"):
        verdicts(scorer, (example(path), prediction))
    assert ran.count(COUNT) == 1


def test_golds_are_kept_when_a_database_is_only_touched(scorer, path, ran):
    verdicts(scorer, (example(path), "SELECT 1"))
    os.utime(path, ns=(1, 1))
    verdicts(scorer, (example(path), "SELECT 1"))
    assert ran.count(COUNT) == 1


def test_a_gold_runs_anew_when_its_database_has_changed(scorer, path, ran):
    verdicts(scorer, (example(path), "SELECT 1"))
    build(path, ONE_MORE)
    verdicts(scorer, (example(path), "SELECT 1"))
    assert ran.count(COUNT) == 2


# Files that are no database


def damaged(path):
    build(path, PETS + "CREATE TABLE filler (text); INSERT INTO filler VALUES (hex(zeroblob(20000)))")
    content = bytearray(path.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    path.write_bytes(content)


KINDS = {
    "missing": lambda path: path.unlink(),
    "in a missing folder": lambda path: shutil.rmtree(path.parent),
    "empty": lambda path: path.write_bytes(b""),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "text": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n" * 40),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:5_000]),
    "damaged": damaged,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_no_sound_database_is_named_before_anything_is_scored(scorer, path, tmp_path, ran, kind):
    sound = build(tmp_path / "sound" / "sound.sqlite")
    KINDS[kind](path)
    with pytest.raises((ValueError, FileNotFoundError), match=r"pets\.sqlite"):
        scorer.score_all([(example(sound), "SELECT 1"), (example(path), "SELECT 1")])
    with pytest.raises((ValueError, FileNotFoundError), match=r"pets\.sqlite"):
        scorer.check([example(sound), example(path)])
    assert ran == []


@pytest.fixture
def children():
    """The workers that run and were begun in this test: what trains in another one may have left some."""
    before = set(processes.children())
    return lambda: [pid for pid in processes.children() if pid not in before]


def test_the_processes_that_wait_end_although_a_file_is_no_database(path, children):
    path.write_bytes(b"")
    with Scorer(LIMITS, workers=2) as scorer, pytest.raises(ValueError, match=r"pets\.sqlite"):
        scorer.score_all([(example(path), "SELECT 1")])
    assert children() == []


def test_a_database_that_breaks_later_is_named(scorer, path):
    verdicts(scorer, (example(path), "SELECT 1"))
    path.write_bytes(b"no database" * 500)
    with pytest.raises(ValueError, match=r"pets\.sqlite"):
        scorer.score_all([(example(path), "SELECT 1")])


def test_an_example_without_a_database_is_named_with_the_cure(scorer):
    with pytest.raises(ValueError, match=r"q1.*data\.path"):
        scorer.score_all([(example(), "SELECT 1")])


def test_a_database_may_be_named_from_the_current_folder(scorer, path, monkeypatch):
    monkeypatch.chdir(path.parent)
    assert verdicts(scorer, (example("pets.sqlite"), "SELECT 2")) == ["match"]


# Databases in memory


def test_a_context_is_a_database(scorer):
    assert verdicts(scorer, (example(context=PETS), "SELECT 2"), (example(context=ONE_MORE), "SELECT 2")) == [
        "match",
        "mismatch",
    ]


@pytest.mark.parametrize("context", ["CREATE TABLE pet (", "SELECT '\ud800'", "ATTACH 'x.sqlite' AS x"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_context_that_does_not_build_is_a_gold_error(context, workers):
    with Scorer(LIMITS, workers=workers) as scorer:
        pairs = [(example(context=context), "SELECT 1"), (example(context=PETS), "SELECT 2")]
        assert verdicts(scorer, *pairs) == ["gold_error", "match"]


def test_a_context_with_text_beyond_ascii_goes_to_a_worker_as_it_is():
    context = PETS + "INSERT INTO pet VALUES (9, 'Zoë 😀', 2);"
    with Scorer(LIMITS, workers=1) as scorer:
        assert verdicts(
            scorer, (example(context=context, gold="SELECT name FROM pet WHERE id = 9"), "SELECT 'Zoë 😀'")
        ) == ["match"]


# Databases beside, and neighbours


def test_all_databases_in_a_folder_are_one_test_suite(scorer, path):
    assert verdicts(scorer, (example(path), "SELECT 2")) == ["match"]
    build(path.parent / "pets_more.sqlite", ONE_MORE)
    (score,) = scorer.score_all([(example(path), "SELECT 2")])
    assert (score.verdict, score.official) == (Verdict.MISMATCH, False)
    assert score.reason.startswith("on pets_more.sqlite: ")
    assert verdicts(scorer, (example(path), "SELECT count(id) FROM pet")) == ["match"]


def test_a_test_suite_begins_with_its_own_database_and_leaves_out_logs(path):
    names = [
        "b.sqlite",
        "a.sqlite",
        "c.sqlite3",
        "a.sqlite-wal",
        "a.sqlite-shm",
        "a.sqlite-journal",
        "schema.sql",
        "a.db",
    ]
    for name in names:
        (path.parent / name).write_bytes(b"x")
    found = [os.path.basename(file) for file in suite(str(path))]
    assert found == ["pets.sqlite", "a.sqlite", "b.sqlite", "c.sqlite3"]


def test_a_damaged_database_beside_is_named(scorer, path):
    (path.parent / "beside.sqlite").write_bytes(b"no database" * 500)
    with pytest.raises(ValueError, match=r"beside\.sqlite"):
        scorer.score_all([(example(path), "SELECT 2")])


def test_neighbours_count_for_strict_only(path, tmp_path):
    neighbour = build(tmp_path / "neighbours" / "n1.sqlite", ONE_MORE)
    with Scorer(LIMITS, workers=0, neighbours=lambda example: [neighbour]) as scorer:
        scores = list(scorer.score_all([(example(path), "SELECT 2"), (example(path), "SELECT count(id) FROM pet")]))
    assert [score.verdict for score in scores] == [Verdict.MISMATCH, Verdict.MATCH]
    assert [score.official for score in scores] == [True, True]
    assert scores[0].reason.startswith("on neighbour n1.sqlite: ")


# One process, many, or none


def test_score_is_score_all_of_one_pair(path):
    with Scorer(LIMITS, workers=1) as scorer:
        assert scorer.score(example(path), "SELECT 2").verdict is Verdict.MATCH


def test_score_keeps_the_process_and_its_golds(path, children):
    with Scorer(LIMITS, workers=1) as scorer:
        seen = set()
        for _ in range(5):
            scorer.score(example(path), "SELECT 2")
            seen.update(children())
    assert len(seen) == 1


def test_closing_ends_the_processes(path, children):
    with Scorer(LIMITS, workers=2) as scorer:
        verdicts(scorer, *[(example(path), "SELECT 2")] * 50)
        assert children() != []
    assert children() == []


GOLDS = [
    "SELECT name FROM pet WHERE age > 2 ORDER BY name",
    "SELECT DISTINCT age FROM pet WHERE name LIKE '%e%' OR age >= 3",
    "SELECT count ( * ) , avg ( age ) FROM pet WHERE id IN ( SELECT pet_id FROM visit WHERE cost < 20.5 )",
    "SELECT p.name , sum ( v.cost ) FROM pet AS p JOIN visit AS v ON p.id = v.pet_id GROUP BY p.id HAVING count ( * ) > 1",
    "SELECT name FROM pet EXCEPT SELECT p.name FROM pet AS p JOIN visit AS v ON p.id = v.pet_id",
    "SELECT max ( cost ) - min ( cost ) FROM visit WHERE day BETWEEN '2024-01-01' AND '2024-06-30'",
]
CLINIC = PETS + (
    "INSERT INTO pet VALUES (3, 'Kim', 7), (4, 'Zoë', NULL), (5, CAST(x'52E978' AS TEXT), 3);"
    "CREATE TABLE visit (pet_id INTEGER REFERENCES pet (id), day TEXT, cost REAL);"
    "INSERT INTO visit VALUES (1, '2024-01-05', 20), (1, '2024-02-01', 7.25), (3, '2024-03-09', 41), (5, '2023-12-31', NULL);"
)
ALIKE = [
    ["name", "age", "id", "p.name", "p.id", "v.cost", "cost", "day", "pet_id", "v.pet_id", "value", "height"],
    ["pet", "visit", "pets"],
    ["<", ">", "=", ">=", "<>", "> =", "! ="],
    ["1", "2", "3", "20.5", "value", "NULL"],
    ["count", "avg", "sum", "max", "min", "abs", "median"],
    ["AND", "OR", "AND NOT"],
    ["DISTINCT", "ALL"],
    ["EXCEPT", "UNION", "INTERSECT", "; SELECT"],
    ["SELECT", "SELECT DISTINCT", "DELETE", "SELECT id ,"],
]


def mutated(sql, draw):
    """The SQL with some words changed into others of their kind, or left out."""
    words = sql.split()
    for _ in range(draw.randrange(5)):
        place = draw.randrange(len(words))
        kinds = [kind for kind in ALIKE if words[place] in kind]
        if kinds:
            words[place] = draw.choice(draw.choice(kinds))
        elif draw.random() < 0.2:
            del words[place]
    return " ".join(words)


@pytest.mark.parametrize("rules", [Rules(preview_rows=3), Rules(official=True), Rules(plug_value=True)], ids=str)
def test_workers_none_or_many_give_equal_scores(path, rules):
    build(path, CLINIC)
    draw = random.Random(7)
    database = [example(path, gold) for gold in GOLDS] + [example(context=CLINIC, gold=gold) for gold in GOLDS]
    chosen = [draw.choice(database) for _ in range(300)]
    pairs = [(one, mutated(one.sql, draw)) for one in chosen]
    found = []
    for workers in (0, 1, 2):
        with Scorer(LIMITS, rules, workers=workers) as scorer:
            found.append([asdict(score) for score in scorer.score_all(pairs)])
    assert found[0] == found[1] == found[2]
    assert len({score["verdict"] for score in found[0]}) >= 6
