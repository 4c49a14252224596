"""Processes that judge can be killed, by us, by the kernel or by anyone, and every other verdict stays as it is."""

import io
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from sql.attacks import INSIDE_ONE_INSTRUCTION
from sql.processes import children, wait_until_gone

from text2sql.sql import pool as pool_module
from text2sql.sql.judge import Limits, Place, Rules, Run, Task
from text2sql.sql.pool import Pool
from text2sql.sql.worker import packed, receive

ROOT = Path(__file__).resolve().parents[2]
PLACE = Place("pets", context="CREATE TABLE pet (name TEXT); INSERT INTO pet VALUES ('Rex'), ('Tom'), ('Kim');")
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
SLOW = ENDLESS.replace(" FROM n)", " FROM n LIMIT 100000)")
"""Some hundredths of a second."""

ROWS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {rows}) SELECT {columns} FROM n"


def task(prediction, gold="SELECT 1", place=PLACE):
    return Task(gold, prediction, [place], [])


def tasks_of(predictions):
    return [task(prediction) for prediction in predictions]


def verdicts(pool, tasks):
    return [outcome["verdict"] for outcome in pool.judge(tasks)]


@pytest.fixture
def make_pool():
    """A function to Pool; its pools are closed at the end, and then no process may be left."""
    pools = []

    def make(workers=1, timeout_s=5.0, **rules):
        pools.append(Pool(Limits(timeout_s=timeout_s, max_steps=10**12), Rules(**rules), workers))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()
    assert children() == []


# Order and amount


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_outcomes_come_in_the_order_of_the_tasks(make_pool, workers):
    tasks = [task(f"SELECT {i % 3}" if i % 10 else SLOW) for i in range(100)]
    expected = ["match" if i % 3 == 1 and i % 10 else "mismatch" for i in range(100)]
    assert verdicts(make_pool(workers), tasks) == expected


def test_no_tasks_need_no_process(make_pool):
    assert verdicts(make_pool(2), []) == []
    assert children() == []


def test_there_are_no_more_processes_than_workers_or_tasks(make_pool):
    pool = make_pool(3)
    verdicts(pool, [task("SELECT 1")])
    assert len(children()) == 1
    verdicts(pool, [task(SLOW)] * 12)
    assert len(children()) == 3


def test_many_calls_use_the_same_process(make_pool):
    pool, seen = make_pool(), set()
    for i in range(100):
        assert verdicts(pool, [task(f"SELECT {i}")]) == ["match" if i == 1 else "mismatch"]
        seen.update(children())
    assert len(seen) == 1


def test_five_thousand_tasks_with_previews_come_through(make_pool):
    wide = ROWS.format(rows=5, columns="hex(zeroblob(40)), i, 'x', i * 1.5")
    tasks = [task(f"SELECT {i}" if i % 2 else wide, gold=wide) for i in range(5_000)]
    outcomes = list(make_pool(2, preview_rows=5).judge(tasks))
    assert [outcome["verdict"] for outcome in outcomes] == ["match", "mismatch"] * 2_500
    assert [len(outcome["predicted_result"]["rows"]) for outcome in outcomes] == [5, 1] * 2_500


def test_messages_larger_than_a_pipe_come_through_both_ways(make_pool):
    sql = "/*" + "x" * 200_000 + "*/" + ROWS.format(rows=1_000, columns="hex(zeroblob(99)), i")
    outcomes = list(make_pool(2, preview_rows=1_000).judge([task(f"{sql} /*{i}*/", gold=sql) for i in range(24)]))
    assert [outcome["verdict"] for outcome in outcomes] == ["match"] * 24
    assert {len(outcome["gold_result"]["rows"]) for outcome in outcomes} == {1_000}


def test_outcomes_come_before_all_tasks_are_done(make_pool):
    started = time.monotonic()
    outcomes = make_pool(1, timeout_s=3.0).judge([task("SELECT 1"), *[task(ENDLESS)] * 2])
    assert next(outcomes)["verdict"] == "match"
    assert time.monotonic() - started < 3
    outcomes.close()


# Deaths


@pytest.mark.parametrize("workers", [1, 2])
def test_a_query_that_hangs_inside_one_instruction_times_out_and_the_others_keep_their_verdicts(make_pool, workers):
    predictions = ["SELECT 1", "SELECT 2", INSIDE_ONE_INSTRUCTION, "SELECT 1", "SELECT 2"] * 2 + ["SELECT 1"] * 30
    expected = ["match", "mismatch", "timeout", "match", "mismatch"] * 2 + ["match"] * 30
    assert verdicts(make_pool(workers, timeout_s=0.3), tasks_of(predictions)) == expected


def test_a_gold_that_hangs_inside_one_instruction_is_a_gold_over_its_budget(make_pool):
    pool = make_pool(timeout_s=0.3)
    outcomes = list(pool.judge([task("SELECT 1", gold=INSIDE_ONE_INSTRUCTION), task("SELECT 1")]))
    assert [outcome["verdict"] for outcome in outcomes] == ["gold_budget", "match"]
    assert outcomes[0]["official"] is None
    assert "still running after 0.3 s" in outcomes[0]["reason"]


def test_a_query_of_a_killed_process_has_an_outcome_with_all_keys(make_pool):
    pool = make_pool(timeout_s=0.3, preview_rows=3)
    hung, fine = pool.judge([task(INSIDE_ONE_INSTRUCTION), task("SELECT 1")])
    assert hung.keys() == fine.keys()


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_killed_from_outside_while_they_work_change_no_verdict(make_pool, workers):
    tasks = [task(SLOW if i % 4 else f"SELECT {i % 8 // 4}") for i in range(40)]
    expected = ["mismatch" if i % 4 or i % 8 < 4 else "match" for i in range(40)]
    found = []
    for outcome in make_pool(workers).judge(tasks):
        found.append(outcome["verdict"])
        if len(found) in (1, 15, 30):
            for pid in children():
                os.kill(pid, signal.SIGKILL)
    assert found == expected


def test_a_process_killed_between_two_calls_changes_no_verdict(make_pool):
    pool = make_pool()
    for _ in range(3):
        assert verdicts(pool, tasks_of(["SELECT 1", "SELECT 2"])) == ["match", "mismatch"]
        killed = children()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        assert wait_until_gone(killed, 2.0) == []


def test_processes_killed_while_they_write_long_outcomes_change_no_verdict(make_pool):
    sql = ROWS.format(rows=2_000, columns="hex(zeroblob(99)), i, hex(zeroblob(99))")
    found = []
    for outcome in make_pool(1, preview_rows=2_000).judge([task(sql, gold=sql) for _ in range(20)]):
        found.append((outcome["verdict"], len(outcome["predicted_result"]["rows"])))
        if len(found) in (1, 8, 15):
            for pid in children():
                os.kill(pid, signal.SIGKILL)
    assert found == [("match", 2_000)] * 20


@pytest.mark.parametrize("kept", [0, 3, 4, 5, -1])
def test_a_message_cut_short_is_the_end_of_the_stream(kept):
    assert receive(io.BytesIO(packed([{"verdict": "match"}])[:kept])) is None


FATAL = """
import os, signal
from text2sql.sql import judge
reader_run, in_words = judge.Reader.run, judge.compare.same_result

def run(self, sql):
    if "fatal" in sql:
        os.kill(os.getpid(), signal.SIGSEGV)
    return reader_run(self, sql)

def same_result(gold, predicted, **options):
    if predicted == [("compared to death",)]:
        os.kill(os.getpid(), signal.SIGSEGV)
    return in_words(gold, predicted, **options)

judge.Reader.run, judge.compare.same_result = run, same_result
main()
"""


@pytest.fixture
def fatal(monkeypatch):
    """Workers that die of some SQL; the list of processes started so far."""
    start = pool_module._START.removesuffix("main()")
    assert start != pool_module._START
    monkeypatch.setattr(pool_module, "_START", start + FATAL)
    started, popen = [], subprocess.Popen

    def counting(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(pool_module.subprocess, "Popen", counting)
    return started


def test_sql_that_kills_every_process_gets_a_verdict_and_the_others_keep_theirs(make_pool, fatal):
    predictions = ["SELECT 1", "SELECT 'fatal'", "SELECT 2", "SELECT 'fatal' AS again", "SELECT 'fatal'", "SELECT 1"]
    outcomes = list(make_pool(1).judge(tasks_of(predictions)))
    assert [outcome["verdict"] for outcome in outcomes] == ["match", "type", "mismatch", "type", "type", "match"]
    assert "SIGSEGV" in outcomes[1]["reason"]
    assert 3 <= len(fatal) <= 8


def test_a_gold_that_kills_every_process_is_a_gold_error(make_pool, fatal):
    outcomes = list(make_pool(1).judge([task("SELECT 1", gold="SELECT 'fatal'"), task("SELECT 1")]))
    assert [outcome["verdict"] for outcome in outcomes] == ["gold_error", "match"]


def test_a_process_that_always_dies_of_our_own_work_is_an_error_and_not_an_endless_loop(make_pool, fatal):
    with pytest.raises(RuntimeError, match=r"SIGSEGV(.|\n)*compared to death"):
        verdicts(make_pool(1), tasks_of(["SELECT 1", "SELECT 'compared to death'"]))
    assert len(fatal) <= 3


def test_a_process_that_does_not_start_is_an_error_and_not_an_endless_loop(make_pool, monkeypatch):
    monkeypatch.setattr(pool_module, "_START", "raise SystemExit('no such thing')")
    with pytest.raises(RuntimeError, match="no such thing"):
        verdicts(make_pool(1), [task("SELECT 1")])


def test_our_own_exception_in_a_worker_comes_with_its_traceback(make_pool):
    pool = make_pool(2)
    with pytest.raises(RuntimeError, match=r"Traceback(.|\n)*(Attribute|Type)Error"):
        verdicts(pool, [task("SELECT 1"), task("SELECT 1", gold=5), task("SELECT 1")])
    assert verdicts(pool, [task("SELECT 1")]) == ["match"]


@pytest.fixture
def broken(tmp_path):
    """A database whose rows cannot be read."""
    path = tmp_path / "pets.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(PLACE.context)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * len(content[4096:])
    path.write_bytes(content)
    return Place("broken", str(path))


def test_a_broken_database_is_named_and_the_pool_can_be_used_again(make_pool, broken):
    pool = make_pool(2)
    with pytest.raises(ValueError, match=r"pets\.sqlite"):
        verdicts(pool, [task("SELECT name FROM pet", place=broken)] * 5)
    assert verdicts(pool, [task("SELECT 1")]) == ["match"]


def test_what_a_stopped_call_left_unread_is_no_answer_to_the_next(make_pool, broken, monkeypatch):
    kill = subprocess.Popen.kill
    monkeypatch.setattr(subprocess.Popen, "kill", lambda process: threading.Timer(0.3, kill, [process]).start())
    pool = make_pool(1)
    with pytest.raises(ValueError, match=r"pets\.sqlite"):
        verdicts(pool, [task("SELECT name FROM pet", place=broken), *[task("SELECT 2")] * 40])
    assert verdicts(pool, [task("SELECT 1")]) == ["match"]


# Memory

FULL = "CREATE TABLE t (b); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {}) INSERT INTO t SELECT zeroblob(500000) FROM n"


def small_pool(workers=1):
    return Pool(Limits(timeout_s=20.0, max_memory_mb=24), Rules(), workers)


def test_a_script_that_takes_more_memory_than_it_may_is_a_gold_error():
    too_large = task("SELECT 1", gold="SELECT count(*) FROM t", place=Place("large", context=FULL.format(100)))
    with closing(small_pool()) as pool:
        assert verdicts(pool, [task("SELECT 1"), too_large, task("SELECT 1")]) == ["match", "gold_error", "match"]


def test_many_scripts_that_fit_one_by_one_all_build():
    tasks = [task("SELECT 9", "SELECT count(*) FROM t", Place(str(i), context=FULL.format(9))) for i in range(12)]
    with closing(small_pool()) as pool:
        assert verdicts(pool, tasks) == ["match"] * 12


@pytest.mark.parametrize(("rows", "verdict"), [(16_000, "match"), (40_000, "too_many_rows")])
def test_what_was_open_before_does_not_change_what_a_query_may_take(rows, verdict):
    grouped = "count(*) FROM (SELECT hex(randomblob(500)) FROM n GROUP BY 1)"
    sql = ROWS.format(rows=rows, columns=grouped).removesuffix(" FROM n")
    before = [task("SELECT 9", "SELECT count(*) FROM t", Place(str(i), context=FULL.format(9))) for i in range(4)]
    with closing(small_pool()) as pool:
        assert verdicts(pool, [task(sql, gold=f"SELECT {rows}")]) == [verdict]
    with closing(small_pool()) as pool:
        assert verdicts(pool, [*before, task(sql, gold=f"SELECT {rows}")])[-1] == verdict


def test_a_hundred_megabytes_of_sql_are_a_verdict():
    with closing(small_pool()) as pool:
        predictions = ["SELECT 1", *["SELECT '" + "x" * 100_000_000 + "'"] * 3, "SELECT 1"]
        assert verdicts(pool, tasks_of(predictions)) == ["match", "syntax", "syntax", "syntax", "match"]


# The caller's end


@pytest.mark.parametrize("taken", [1, 10])
def test_closing_half_way_stops_all_work_at_once_and_the_pool_can_be_used_again(make_pool, taken):
    pool = make_pool(2, timeout_s=1.0)
    outcomes = pool.judge(tasks_of([*["SELECT 1"] * 20, *[ENDLESS] * 40]))
    for _ in range(taken):
        next(outcomes)
    working, started = children(), time.monotonic()
    outcomes.close()
    assert time.monotonic() - started < 2
    assert wait_until_gone(working, 2.0) == []
    assert verdicts(pool, tasks_of(["SELECT 1", "SELECT 2"])) == ["match", "mismatch"]


def test_an_interrupt_by_the_user_stops_all_work_at_once(make_pool):
    outcomes = make_pool(2, timeout_s=1.0).judge(tasks_of(["SELECT 1", *[ENDLESS] * 40]))
    next(outcomes)
    working, started = children(), time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        outcomes.throw(KeyboardInterrupt)
    assert time.monotonic() - started < 2
    assert wait_until_gone(working, 2.0) == []


def test_pools_leave_no_thread_and_no_open_file_behind(make_pool):
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        pool = Pool(Limits(timeout_s=0.2), Rules(), 2)
        verdicts(pool, tasks_of(["SELECT 1", INSIDE_ONE_INSTRUCTION, "SELECT 2"]))
        pool.close()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, files)


PARENT = f"""
import sys, threading
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from sql.processes import children
from sql.test_pool import ENDLESS, SLOW, Limits, Pool, Rules, tasks_of
pool = Pool(Limits(timeout_s=60.0, max_steps=10**12), Rules(), 2)
list(pool.judge(tasks_of([SLOW] * 8)))
if sys.argv[1] == "busy":
    threading.Thread(target=lambda: list(pool.judge(tasks_of([ENDLESS] * 8)))).start()
print(*children(), flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_processes_end_when_their_parent_is_killed(state):
    with subprocess.Popen([sys.executable, "-c", PARENT, state], stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        time.sleep(0.2)
        parent.kill()
    left = wait_until_gone(pids, 2.0)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert len(pids) == 2
    assert left == []


# What a worker is and is not


def test_code_that_python_runs_at_its_start_does_not_run_in_a_worker(make_pool, tmp_path, monkeypatch):
    marker = tmp_path / "marker"
    for name in ("sitecustomize.py", "usercustomize.py", "startup.py"):
        (tmp_path / name).write_text(f"open({str(marker)!r}, 'a').write('{name}')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "startup.py"))
    monkeypatch.setenv("PYTHONINSPECT", "1")
    monkeypatch.syspath_prepend(tmp_path)
    assert verdicts(make_pool(), [task("SELECT 1")]) == ["match"]
    assert not marker.exists()
    subprocess.run([sys.executable, "-c", ""], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert "sitecustomize.py" in marker.read_text()


def test_a_worker_finds_the_package_from_any_folder_and_however_it_is_installed(make_pool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [path for path in sys.path if path and not Path(path).resolve().is_relative_to(ROOT / "tests")]
    monkeypatch.setattr(sys, "path", [path for path in paths if Path(path).resolve() != ROOT])
    assert verdicts(make_pool(), [task("SELECT 1")]) == ["match"]


def test_the_kernel_holds_a_worker_to_its_memory_and_to_no_files(make_pool):
    verdicts(make_pool(), [task("SELECT 1")])
    (pid,) = children()
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    limits = {line[:26].strip(): line[26:].split()[:2] for line in lines[1:]}
    assert [int(limit) <= 512 << 20 for limit in limits["Max address space"]] == [True, True]
    assert limits["Max file size"] == ["0", "0"]
    assert limits["Max core file size"] == ["0", "0"]


# Running without comparing


@pytest.mark.parametrize("workers", [1, 3])
def test_texts_to_be_run_only_may_stand_among_pairs_to_be_judged(make_pool, workers):
    tasks = [Run(f"SELECT {i % 3} -- {i}", [PLACE]) if i % 2 else task(f"SELECT {i % 3}") for i in range(120)]
    outcomes = list(make_pool(workers).judge(tasks))
    digests = [outcome["digest"] for outcome in outcomes[1::2]]
    assert len(set(digests)) == 3 and digests == digests[:3] * 20
    assert {outcome["verdict"] for outcome in outcomes[::2]} == {"match", "mismatch"}


def test_a_text_to_be_run_that_hangs_is_a_timeout_and_the_others_are_run(make_pool):
    texts = ["SELECT 1", INSIDE_ONE_INSTRUCTION, "SELECT 2"]
    outcomes = list(make_pool(timeout_s=0.3).judge([Run(text, [PLACE]) for text in texts]))
    assert ["digest" in outcome for outcome in outcomes] == [True, False, True]
    assert outcomes[1]["verdict"] == "timeout"
