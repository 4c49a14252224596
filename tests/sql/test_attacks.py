"""No attack changes a file, outlasts its limits, takes more memory than it may, or changes the verdict on anything else."""

import shutil
import sqlite3
import tempfile
import threading
import time
from contextlib import closing

import pytest
from sql.attacks import ATTACKS, INSIDE_ONE_INSTRUCTION
from sql.processes import children, peak_memory_mb

from text2sql.example import Example, Verdict
from text2sql.scorer import Scorer
from text2sql.sql import official
from text2sql.sql.judge import Limits

TIMEOUT_S = 1.0
LEEWAY_S = 0.5
MEMORY_MB = 512
# Steps run out long before the time, so that what reaches the deadline is inside a single instruction.
LIMITS = Limits(timeout_s=TIMEOUT_S, max_steps=2_000_000)
GOLD = "SELECT 'no attack gives this row', count(*) FROM pet"
ORDINARY = [
    ("SELECT count(*) FROM pet", "SELECT count(name) FROM pet", Verdict.MATCH),
    ("SELECT name FROM pet WHERE age > 3", "SELECT name FROM pet", Verdict.MISMATCH),
    ("SELECT name FROM pet ORDER BY age, name", "SELECT name FROM pet ORDER BY 1, age", Verdict.MISMATCH),
    ("SELECT name FROM pet WHERE age < 0", "SELECT name FROM pet WHERE note = 'none'", Verdict.EMPTY_BOTH),
    ("SELECT max(age) FROM pet", "SELECT max(height) FROM pet", Verdict.UNKNOWN_COLUMN),
    ("SELECT note, count(*) FROM pet GROUP BY 1", "SELECT count(name), note FROM pet GROUP BY note", Verdict.MATCH),
]


def build(folder, name, rows, *settings):
    (folder / name).mkdir()
    path = folder / name / f"{name}.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        for setting in settings:
            connection.execute(setting)
        connection.execute("CREATE TABLE pet (name TEXT UNIQUE, age INTEGER, note TEXT)")
        pets = [(f"pet {i}", i % 20, f"note {i % 7}") for i in range(rows)]
        connection.executemany("INSERT INTO pet VALUES (?, ?, ?)", pets)
        connection.commit()
    return path


class Surroundings:
    """Three databases, and everything that an attack could leave a trace in."""

    def __init__(self, folder):
        self.folder, self.peak_mb = folder, 0.0
        for name in ("databases", "cwd", "tmp"):
            (folder / name).mkdir()
        databases = folder / "databases"
        build(databases, "few", 50)
        build(databases, "many", 3_000, "PRAGMA page_size = 1024")
        wal = build(databases, "written_ahead", 200, "PRAGMA journal_mode = WAL")
        (databases / "copy").mkdir()
        shutil.copy(wal, databases / "copy" / "copy.sqlite")
        self.paths = [databases / name / f"{name}.sqlite" for name in ("few", "many", "copy")]

    def example(self, number, gold):
        path = self.paths[number % len(self.paths)]
        return Example(id=str(number), question="", sql=gold, db_id=path.stem, database=str(path))

    def attack(self, number):
        """The example to ask the attack of, and its SQL."""
        example = self.example(number, GOLD)
        return example, ATTACKS[number].sql.replace("{folder}", str(self.folder / "databases" / example.db_id))

    def ordinary(self, number):
        gold, prediction, verdict = ORDINARY[number % len(ORDINARY)]
        return (self.example(number, gold), prediction), verdict

    def snapshot(self):
        """Every file's content, and when each folder last changed: a file made and deleted again shows there."""
        files = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        folders = {path: path.stat().st_mtime_ns for path in [self.folder, *self.folder.rglob("*")] if path.is_dir()}
        return files, folders

    def watch(self, stop):
        while not stop.wait(0.01):
            self.measure()

    def measure(self):
        self.peak_mb = max([self.peak_mb, *map(peak_memory_mb, children())])


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    found = Surroundings(tmp_path_factory.mktemp("attacks"))
    stop = threading.Event()
    watch = threading.Thread(target=found.watch, args=(stop,))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(found.folder / "cwd")
        patch.setenv("TMPDIR", str(found.folder / "tmp"))
        patch.setenv("SQLITE_TMPDIR", str(found.folder / "tmp"))
        patch.setattr(tempfile, "tempdir", str(found.folder / "tmp"))
        watch.start()
        yield found
        stop.set()
        watch.join()


@pytest.fixture(scope="module")
def scorer(surroundings):
    with Scorer(LIMITS, workers=1) as scorer:
        yield scorer


def too_late_s(scorer, example, sql):
    """The score and how much longer than it may it took, negative if not.

    A prediction that the official rule changes is two statements, each with a limit of its own, and one that runs out of
    memory runs once more with nothing else open. A busy machine can delay one try; what lasts too long does so each time.
    """
    text = sql[: LIMITS.max_sql_bytes]
    num_statements = 1 if official.prediction_text(text, keep_distinct=False) == text else 2
    for _ in range(3):
        started = time.monotonic()
        (score,) = scorer.score_all([(example, sql)])
        took_s = time.monotonic() - started
        num_runs = num_statements * (2 if "MB of memory" in score.reason else 1)
        late_s = took_s - num_runs * TIMEOUT_S - LEEWAY_S
        if late_s <= 0:
            break
    return score, late_s


@pytest.mark.parametrize("number", range(len(ATTACKS)), ids=[attack.name for attack in ATTACKS])
def test_an_attack_ends_in_time_with_its_verdict_and_without_a_trace(scorer, surroundings, number):
    (pair, verdict), before = surroundings.ordinary(number), surroundings.snapshot()
    assert [score.verdict for score in scorer.score_all([pair])] == [verdict]
    score, late_s = too_late_s(scorer, *surroundings.attack(number))
    surroundings.measure()
    assert score.verdict in ATTACKS[number].verdicts, score.reason
    assert late_s <= 0
    assert surroundings.peak_mb < MEMORY_MB
    assert [score.verdict for score in scorer.score_all([pair])] == [verdict]
    assert surroundings.snapshot() == before


def test_all_attacks_in_one_batch_leave_the_verdicts_between_them_as_they_are(surroundings):
    before = surroundings.snapshot()
    pairs, expected = [], []
    for number, attack in enumerate(ATTACKS):
        pair, verdict = surroundings.ordinary(number)
        pairs += [pair, surroundings.attack(number)]
        expected += [{verdict}, attack.verdicts]
    with Scorer(LIMITS, workers=2) as scorer:
        scores = list(scorer.score_all(pairs))
        surroundings.measure()
    wrong = [(pair[1][:80], score) for pair, score, right in zip(pairs, scores, expected) if score.verdict not in right]
    assert wrong == []
    assert surroundings.peak_mb < MEMORY_MB
    assert surroundings.snapshot() == before


def test_there_are_enough_attacks_and_no_two_are_the_same():
    assert len({attack.sql for attack in ATTACKS}) == len(ATTACKS) >= 120


def test_no_attack_may_count_as_correct():
    assert not [attack.name for attack in ATTACKS if attack.verdicts & {Verdict.MATCH, Verdict.EMPTY_BOTH}]


def test_an_attack_as_a_gold_says_nothing_about_the_prediction_and_does_no_harm(surroundings):
    attacks = ["DELETE FROM pet", INSIDE_ONE_INSTRUCTION, "DROP TABLE pet; SELECT 1"]
    before = surroundings.snapshot()
    with Scorer(LIMITS, workers=1) as scorer:
        scores = list(scorer.score_all([(surroundings.example(0, attack), "SELECT 1") for attack in attacks]))
    assert not any(score.judged for score in scores)
    assert [score.official for score in scores] == [None] * len(attacks)
    assert surroundings.snapshot() == before
