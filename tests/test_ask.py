"""text2sql ask: answers, reasons for none, and a conversation."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import ClassVar

import pytest
import shop

from text2sql import abstention, answering, cli, model, prompts
from text2sql.abstention import Evidence, Thresholds
from text2sql.asking import console, session, settings
from text2sql.asking.table import legible, table
from text2sql.confidence import Confidence
from text2sql.example import Example

pytestmark = pytest.mark.usefixtures("one_thread")

SURE = Confidence(0.99, 0.9)
COUNT = "SELECT COUNT(*) FROM orders WHERE status = 'open'"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXT2SQL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


class Fake:
    """A model that says what it is told to, call after call; its network is never looked at."""

    said: ClassVar[list] = []

    def __init__(self, config):
        self.config, self.seconds, self.asked = config, 0.0, []
        self.tokenizer = model.load_tokenizer(config.model)
        self.network = self

    def eval(self):
        return self

    def say(self, rows, temperatures, constraints, title="generating"):
        self.asked.append((title, [list(row) for row in rows], constraints))
        return Fake.said.pop(0)

    def constraints(self, examples):
        return ["constrained"] * len(examples) if self.config.eval.constrained else None


@pytest.fixture
def opened(small, tmp_path, monkeypatch):
    """A function from what the model says to a session about the shop."""
    monkeypatch.setattr(answering, "Speaker", Fake)
    monkeypatch.setattr(session, "confidence", lambda network, prompt, answer: SURE)
    shop.make(tmp_path / "shop.sqlite")
    open_sessions = []

    def opened(*said, votes=1, repair=True, least=None, num_rows=20):
        Fake.said = list(said)
        config = small("prompt=ddl", primary="evaluate")
        config = replace(config, eval=replace(config.eval, votes=votes, constrained=True, repair=repair))
        found = session.Session(config, tmp_path / "shop.sqlite", least or Thresholds(), num_rows)
        open_sessions.append(found)
        return found

    yield opened
    for one in open_sessions:
        one.scorer.close()
    assert Fake.said == []


# Answers


def test_an_answer_is_sql_and_its_rows(opened):
    answer = opened([COUNT]).ask("How many orders are open?")
    assert (answer.sql, answer.abstained) == (COUNT, None)
    assert answer.result == {"columns": ["COUNT(*)"], "rows": [[10]], "num_rows": 1}
    assert answer.reads == ("orders.status",)
    assert console.as_text(answer, 80) == f"{COUNT};\n\nCOUNT(*)\n--------\n      10\n(1 row)"


def test_the_prompt_is_that_of_training(opened):
    found = opened([COUNT])
    found.ask(" How many  orders are open? ")
    example = Example("1", "How many orders are open?", COUNT, "shop", found.schema, database=found.database)
    trained = prompts.encode(found.speaker.tokenizer, example, found.config)
    assert found.speaker.asked[0][1] == [trained.ids[: trained.prompt_length]]


def test_rows_are_capped_and_counted(opened):
    answer = opened(["SELECT name FROM customers"], num_rows=3).ask("Who?")
    assert (len(answer.result["rows"]), answer.result["num_rows"]) == (3, 40)
    assert "(40 rows, the first 3 shown)" in console.as_text(answer, 80)


def test_sql_that_does_not_run_is_repaired_once(opened):
    wrong = "SELECT name FROM customers WHERE total > 5"
    found = opened([wrong], [wrong], ["SELECT MAX(total) FROM orders"])
    answer = found.ask("What is the largest total?")
    assert (answer.repaired, answer.abstained, answer.result["rows"]) == (True, None, [[290.0]])
    title, (asked,), _ = found.speaker.asked[-1]
    assert title == "repairing"
    assert "column 'total' is in orders" in found.speaker.tokenizer.decode(asked)


def test_votes_take_the_result_that_most_answers_have(opened):
    three = "SELECT COUNT(id) FROM orders WHERE status = 'open'"
    found = opened(["SELECT 5"], ["SELECT 5", COUNT, three, COUNT], votes=4)
    answer = found.ask("How many orders are open?")
    assert (answer.sql, answer.result["rows"], answer.evidence.agreement) == (COUNT, [[10]], 0.75)
    assert "-- 3 of 4 answers have this result" in console.as_text(answer, 80)


def test_sql_never_writes_and_reads_no_other_file(opened, tmp_path):
    before = (tmp_path / "shop.sqlite").read_bytes()
    for sql in ("DELETE FROM orders", f"ATTACH '{tmp_path / 'x.db'}' AS x", "DROP TABLE customers"):
        answer = opened([sql], [sql], repair=False).ask("Anything?")
        assert "no SQL that runs" in answer.abstained
    assert (tmp_path / "shop.sqlite").read_bytes() == before
    assert not (tmp_path / "x.db").exists()


# No answers


def test_a_name_that_is_not_there_is_the_reason_and_the_nearest_is_named(opened):
    answer = opened(["SELECT COUNT(*) FROM orders WHERE state = 'open'"]).ask("How many orders are in state open?")
    assert answer.abstained == "no column 'state' in orders; nearest: orders.status"
    assert answer.result is None
    assert console.as_text(answer, 80).endswith("\nno answer: no column 'state' in orders; nearest: orders.status")


def test_always_answer_writes_under_the_constraint_instead(opened):
    found = opened(["SELECT COUNT(*) FROM orders WHERE state = 'open'"], [COUNT], least=Thresholds(0, 0, names=False))
    answer = found.ask("How many orders are in state open?")
    assert (answer.sql, answer.result["rows"]) == (COUNT, [[10]])
    assert found.speaker.asked[1][2] == ["constrained"]


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        (Evidence((), SURE), None),
        (Evidence(("no table 'x'",), SURE), "no table 'x'"),
        (Evidence((), Confidence(0.2, 0.1)), "the model is not sure"),
        (Evidence((), SURE, agreement=0.25), "only 25% of the answers agree"),
        (Evidence((), SURE, agreement=0.5), None),
        (Evidence((), SURE, error="no such function: f"), "no SQL that runs: no such function: f"),
    ],
)
def test_the_rule_says_why(evidence, said):
    reason = abstention.reason(evidence, Thresholds(0.3, 0.5))
    assert (reason is None) if said is None else reason.startswith(said)


def test_a_column_of_another_table_is_no_missing_name(opened):
    schema = opened().schema
    assert abstention.missing_names("SELECT total FROM customers", schema) == ()
    assert abstention.missing_names("SELECT totl FROM customers", schema) == (
        "no column 'totl' in customers; nearest: orders.total",
    )


def test_a_name_that_is_real_but_for_its_spelling_is_no_missing_one(opened):
    found = opened(["SELECT COUNT(*) FROM order WHERE order.status = 'open'"], [COUNT])
    answer = found.ask("How many orders are open?")
    assert (answer.abstained, answer.sql) == (None, COUNT)
    assert found.speaker.asked[1][2] == ["constrained"]
    assert abstention.missing_names("SELECT cust_omer_id FROM orders", found.schema) == ()


def test_sql_of_several_lines_is_shown_on_one(opened):
    answer = opened(["SELECT COUNT(*)\nFROM orders;"]).ask("How many orders are there?")
    assert console.as_text(answer, 80).startswith("SELECT COUNT(*) FROM orders;\n")


# What cannot be asked


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("x" * 10_000, "the question has 10,000 characters, over the 2,000"),
        (" \n ", "is empty"),
        ("a\0b", "control characters"),
    ],
)
def test_a_question_that_cannot_be_put_is_refused(opened, question, message):
    with pytest.raises(ValueError, match=message):
        opened().ask(question)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.sqlite", "How many?"], "the database=none.sqlite does not exist"),
        (["text.sqlite", "How many?"], "the database=text.sqlite is not a SQLite database"),
        (["shop.sqlite", "How many?", "--run", "nowhere"], "--run nowhere is no run's folder"),
        (["shop.sqlite", "How many?", "--run", "failed"], "--run failed has no adapter (train, failed)"),
        (["shop.sqlite", "How many?", "--adapter", "nowhere/x/y"], "adapter=nowhere/x/y is no folder"),
        (["shop.sqlite", "How many?", "--votes", "0"], "--votes 0 and --rows 20 must be at least 1"),
        (["shop.sqlite", "How many?", "--set", "model=tinny"], "model=tinny does not exist; model can be"),
        (["shop.sqlite", "How many?", "--set", "eval.votes=4"], "--set eval.votes: type --votes N"),
        (["shop.sqlite", "How many?", "--min-confidence", "90"], "--min-confidence 90 is no share"),
        (["shop.sqlite", "--json"], "--json prints the answer to one question"),
        (["shop.sqlite", "How many?", "--votes", "8", "--set", "eval.engine=vllm"], "eval.engine=vllm"),
    ],
)
def test_a_mistake_ends_with_one_message_and_exit_code_2(tmp_path, capsys, arguments, message):
    shop.make(tmp_path / "shop.sqlite")
    (tmp_path / "text.sqlite").write_text("id,name\n")
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed/run.json").write_text(json.dumps({"kind": "train", "status": "failed"}))
    assert cli.main(["ask", *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


# The command


def test_a_trained_adapter_is_asked_by_its_run(curriculum, tmp_path, capsys):
    shop.make(tmp_path / "shop.sqlite")
    run = ["--run", str(curriculum.two.run)]
    code = cli.main(
        ["ask", "shop.sqlite", "How many orders are open?", *run, "--json", "--set", "prompt.max_sql_tokens=8"]
    )
    said = json.loads(capsys.readouterr().out)
    assert code == (3 if said["abstained"] else 0)
    assert said["question"] == "How many orders are open?"
    assert 0 < said["evidence"]["confidence"]["lowest"] <= said["evidence"]["confidence"]["mean"] < 1
    assert bool(said["reason"]) is said["abstained"]


def test_an_adapter_of_another_model_is_refused(curriculum, tmp_path, capsys):
    shop.make(tmp_path / "shop.sqlite")
    adapter = ["--adapter", str(curriculum.two.adapter), "--set", "model=smollm2_135m"]
    assert cli.main(["ask", "shop.sqlite", "How many orders?", *adapter]) == 2
    assert "was trained on tiny, and model=smollm2_135m is" in capsys.readouterr().err


def test_the_run_names_the_prompt_and_the_machine_the_hardware(curriculum):
    config = settings.compose(str(curriculum.two.adapter), [], votes=3, constrained=True, repair=False)
    assert config.prompt == curriculum.two.config.prompt
    assert config.model == curriculum.two.config.model
    assert (config.eval.votes, config.eval.constrained, config.eval.repair) == (3, True, False)


def test_without_a_run_the_base_model_answers_and_a_warning_says_so(caplog):
    config = settings.compose(None, ["hardware=cpu"], votes=1, constrained=True, repair=True)
    assert (config.model.name, config.adapter) == ("smollm2_135m", None)
    assert "no --run and no --adapter: smollm2_135m answers as it came" in caplog.text


# The conversation


def conversation(found, *lines):
    typed = list(lines)

    def read(prompt):
        if not typed:
            raise EOFError
        line = typed.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line

    return console.converse(found, read)


def test_a_conversation_answers_until_the_end_of_input(opened, capsys):
    found = opened([COUNT], ["SELECT MAX(total) FROM orders"])
    assert conversation(found, "How many are open?", "", "And the largest total?") == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{found.path}: 3 tables. Ask, or type \\help.\n{COUNT};")
    assert "290.0" in printed


def test_ctrl_c_and_mistakes_do_not_end_it_and_q_does(opened, capsys):
    found = opened([COUNT])
    assert conversation(found, KeyboardInterrupt(), "x" * 3000, "How many are open?", r"\q", "never read") == 0
    printed = capsys.readouterr()
    assert COUNT in printed.out
    assert "error: the question has 3,000 characters" in printed.err


def test_schema_and_explain_tell_of_tables_and_plans(opened, capsys):
    found = opened([COUNT])
    conversation(found, r"\schema", r"\schema ORDERS", r"\schema x", r"\explain", "How many?", r"\explain", r"\what")
    printed = capsys.readouterr().out
    assert "orders(id, customer_id, total, status)" in printed
    assert "CREATE TABLE orders (id INTEGER PRIMARY KEY" in printed
    assert "no table 'x'" in printed
    assert "nothing has been asked yet" in printed
    assert "SCAN orders" in printed
    assert "\\what: no such command" in printed


def test_a_schema_of_500_tables_is_asked(small, tmp_path, monkeypatch):
    monkeypatch.setattr(answering, "Speaker", Fake)
    monkeypatch.setattr(session, "confidence", lambda network, prompt, answer: SURE)
    with closing(sqlite3.connect(tmp_path / "big.sqlite")) as connection:
        for n in range(500):
            connection.execute(f"CREATE TABLE thing_{n} (id INTEGER PRIMARY KEY, weight_{n} INTEGER)")
        connection.execute("INSERT INTO thing_321 VALUES (1, 5)")
        connection.commit()
    Fake.said = [["SELECT weight_321 FROM thing_321"]]
    config = small("prompt=ddl", primary="evaluate")
    with session.Session(config, tmp_path / "big.sqlite", Thresholds(), 20) as found:
        answer = found.ask("What is the weight 321 of thing 321?")
        (ids,) = found.speaker.asked[0][1]
        assert answer.result["rows"] == [[5]]
        assert "thing_321" in found.speaker.tokenizer.decode(ids)
        assert len(ids) <= config.trainer.max_length - config.prompt.max_sql_tokens


# Tables


def result(columns, rows):
    return {"columns": columns, "rows": rows, "num_rows": len(rows)}


def test_no_line_of_a_table_is_wider_than_the_terminal():
    wide = result([f"column {n}" for n in range(30)], [["word " * 20] * 30])
    lines = table(wide, 60).splitlines()
    assert max(map(len, lines[:-1])) <= 60
    assert lines[-1] == "(1 row; 20 columns do not fit)"
    (row,) = table(result(["id", "text"], [[1, "x" * 200]]), 30).splitlines()[2:3]
    assert row == " 1  " + "x" * 25 + "…"


def test_what_a_terminal_would_act_on_is_written_out():
    shown = table(result(["a\x1b[2J"], [["\x1b[31mred\n\u202egnp"], [None], ["日本"]]), 80)
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\\u001b[31mred\\u000a\\u202egnp" in shown
    assert "NULL" in shown
    assert legible("می\u200cخواهم") == "می\u200cخواهم"
