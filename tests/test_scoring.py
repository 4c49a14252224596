"""Evaluations end to end: files of predictions, the base model, an adapter with its own settings, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from text2sql import answering, data, scoring
from text2sql.predictions import write_predictions
from text2sql.sql.database import connect
from text2sql.sql.pool import Pool

ROOT = Path(__file__).resolve().parent.parent
SPIDER = ("model=tiny", "hardware=cpu", "data=spider", "data.path=mini")


@pytest.fixture(scope="module")
def examples(compose):
    return data.load(compose(SPIDER, "evaluate").data, "test", seed=42).examples


def gold_file(folder, examples, suffix=".txt"):
    """A file that answers every example with its gold."""
    path = folder / f"gold{suffix}"
    if suffix == ".jsonl":
        write_predictions(path, [{"id": example.id, "prediction": example.sql} for example in reversed(examples)])
    else:
        path.write_text("".join(f"{example.sql}\n" for example in examples))
    return path


def read(path):
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


# Files of predictions


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_gold_as_prediction_is_all_right(compose, examples, tmp_path, suffix):
    config = compose([*SPIDER, f"predictions={gold_file(tmp_path, examples, suffix)}"], "evaluate")
    assert scoring.score(config, str(tmp_path / "run")) == 1.0
    rows, metrics = read(tmp_path / "run/predictions.jsonl"), read(tmp_path / "run/metrics.json")
    assert [row["id"] for row in rows] == [example.id for example in examples]
    for row, example in zip(rows, examples):
        assert (row["question"], row["gold"], row["prediction"]) == (example.question, example.sql, example.sql)
        assert (row["verdict"], row["db_id"]) == ("match", example.db_id)
        assert {"reason", "hardness"} <= row.keys()
    assert metrics["eval/execution_accuracy"] == metrics["eval/runs_rate"] == 1.0
    assert metrics["eval/examples"] == len(examples)
    assert metrics["eval/gold_errors"] == 0
    assert metrics["eval/seconds"] >= 0


def test_metrics_are_flat_and_add_up_over_hardness(compose, examples, tmp_path):
    lines = [example.sql for example in examples]
    lines[0], lines[1], lines[2] = "SELECT nothing_of_that_name", "SELECT 1 FROM no_such_table", "SELEC"
    (tmp_path / "sql.txt").write_text("\n".join(lines) + "\n")
    config = compose([*SPIDER, f"predictions={tmp_path / 'sql.txt'}"], "evaluate")
    scoring.score(config, str(tmp_path / "run"))
    metrics, rows = read(tmp_path / "run/metrics.json"), read(tmp_path / "run/predictions.jsonl")
    total, hard = len(examples), [row for row in rows if row["hardness"] == "hard"]
    assert all(isinstance(value, (int, float)) for value in metrics.values())
    assert metrics["eval/execution_accuracy"] == pytest.approx((total - 3) / total)
    for verdict in ("unknown_column", "unknown_table", "syntax"):
        assert metrics[f"eval/{verdict}_rate"] == pytest.approx(1 / total)
    assert [row["verdict"] for row in rows[:3]] == ["unknown_column", "unknown_table", "syntax"]
    assert all(row["reason"] for row in rows[:3])
    assert 0 < metrics["eval/hard/examples"] == len(hard)
    right = sum(row["verdict"] == "match" for row in hard)
    assert metrics["eval/hard/execution_accuracy"] == pytest.approx(right / len(hard))
    levels = [metrics[f"eval/{level}/examples"] for level in ("easy", "medium", "hard", "extra")]
    assert sum(levels) == total


def test_a_finished_evaluation_says_what_was_judged(compose, examples, tmp_path):
    path = gold_file(tmp_path, examples)
    scoring.score(compose([*SPIDER, f"predictions={path}"], "evaluate"), str(tmp_path / "run"))
    stamp = read(tmp_path / "run/run.json")
    assert (stamp["status"], stamp["kind"], stamp["label"]) == ("finished", "evaluate", "gold.txt")
    assert (stamp["predictions"], stamp["adapter"]) == (str(path), None)
    assert stamp["data"]["name"] == "spider"
    assert len(stamp["data"]["sha256"]) == 64


def test_a_run_holds_a_page_and_the_schemas_it_shows(compose, examples, tmp_path):
    config = compose([*SPIDER, f"predictions={gold_file(tmp_path, examples)}"], "evaluate")
    scoring.score(config, str(tmp_path / "run"))
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert examples[0].question in page
    schemas = read(tmp_path / "run/schemas.json")
    assert schemas.keys() == {example.db_id for example in examples}
    assert schemas[examples[0].db_id]["tables"][0]["columns"]


def test_official_rules_have_their_own_headline(compose, examples, tmp_path):
    lines = [example.sql for example in examples]
    number = 0
    lines[number] += " ; SELECT 1"
    (tmp_path / "sql.txt").write_text("\n".join(lines) + "\n")
    accuracy = {}
    for rules in ("strict", "official"):
        config = compose([*SPIDER, f"eval={rules}", f"predictions={tmp_path / 'sql.txt'}"], "evaluate")
        accuracy[rules] = scoring.score(config, str(tmp_path / rules))
    assert (accuracy["official"], accuracy["strict"]) == (1.0, pytest.approx(1 - 1 / len(examples)))
    row = read(tmp_path / "strict/predictions.jsonl")[number]
    assert (row["verdict"], row["official"]) == ("multiple_statements", True)
    assert row["differences"] == ["official runs the first statement only"]


def test_neighbours_find_out_what_is_right_by_accident(compose, examples, tmp_path, monkeypatch):
    monkeypatch.setenv("TEXT2SQL_CACHE", str(tmp_path / "cache"))
    lines = [example.sql for example in examples]
    number = next(i for i, sql in enumerate(lines) if sql.startswith("SELECT COUNT(*) FROM") and sql.count(" ") == 3)
    table = lines[number].split()[-1].strip(";")
    with closing(connect(examples[number])) as connection:
        (count,) = connection.execute(lines[number]).fetchone()
    lines[number] = f"SELECT {count} FROM {table} LIMIT 1"
    (tmp_path / "sql.txt").write_text("\n".join(lines) + "\n")
    rows = {}
    for neighbours in (0, 2):
        overrides = [f"eval.neighbours={neighbours}", f"predictions={tmp_path / 'sql.txt'}"]
        scoring.score(compose([*SPIDER, *overrides], "evaluate"), str(tmp_path / f"run{neighbours}"))
        rows[neighbours] = read(tmp_path / f"run{neighbours}/predictions.jsonl")
    assert rows[0][number]["correct"]
    assert (rows[2][number]["verdict"], rows[2][number]["official"]) == ("mismatch", True)
    assert rows[2][number]["reason"].startswith("on neighbour ")
    assert sum(row["correct"] for row in rows[2]) == len(examples) - 1


def test_neighbours_of_scripts_are_refused(compose, tmp_path):
    config = compose([*SPIDER, "data=gretel", "data.path=mini", "eval.neighbours=1"], "evaluate")
    refused(config, tmp_path / "run", "eval.neighbours needs databases on files; data=gretel has scripts")


SCORE_A_FILE = """
import sys
import hydra
from text2sql import commandline, scoring
with hydra.initialize_config_dir(version_base="1.3", config_dir=str(commandline.CONF)):
    cfg = hydra.compose("evaluate", overrides=sys.argv[2:])
print(scoring.score(scoring.settings(cfg, sys.argv[2:]), sys.argv[1]), "torch" in sys.modules)
"""


def test_scoring_a_file_needs_no_torch(examples, tmp_path):
    overrides = [*SPIDER, f"predictions={gold_file(tmp_path, examples)}"]
    command = [sys.executable, "-c", SCORE_A_FILE, str(tmp_path / "run"), *overrides]
    assert subprocess.check_output(command, cwd=ROOT, text=True).split() == ["1.0", "False"]


def test_a_finished_evaluation_is_taken_for_itself_and_for_no_other(compose, examples, tmp_path, monkeypatch, caplog):
    path = gold_file(tmp_path, examples)
    typed = [*SPIDER, f"predictions={path}", "resume=true"]
    scoring.score(compose(typed, "evaluate"), str(tmp_path / "run"))
    monkeypatch.setattr(scoring, "_score", None)
    caplog.set_level("INFO")
    assert scoring.score(compose([*typed, "eval.workers=1"], "evaluate"), str(tmp_path / "run")) == 1.0
    assert "run holds a finished evaluation, which is left as it is" in caplog.text
    other = compose([*typed, "eval.max_rows=9"], "evaluate")
    with pytest.raises(ValueError, match=r"other settings.*eval\.max_rows is 9 here and \d+ there"):
        scoring.score(other, str(tmp_path / "run"))


def test_a_finished_training_is_no_evaluation(compose, tmp_path):
    (tmp_path / "run.json").write_text('{"kind": "train", "status": "finished", "settings": {}}')
    (tmp_path / "metrics.json").write_text('{"validation/loss": 2}')
    with pytest.raises(ValueError, match="holds no evaluation whose settings are known"):
        scoring.score(compose([*SPIDER, "predictions=sql.txt", "resume=true"], "evaluate"), str(tmp_path))


# What is refused


def refused(config, folder, message):
    with pytest.raises(ValueError, match=message):
        scoring.score(config, str(folder))
    assert read(folder / "run.json")["status"] == "failed"
    assert not (folder / "metrics.json").exists()


def test_a_wrong_number_of_predictions_is_refused(compose, examples, tmp_path):
    path = gold_file(tmp_path, examples[:-1])
    config = compose([*SPIDER, f"predictions={path}"], "evaluate")
    refused(config, tmp_path / "run", f"{len(examples) - 1} predictions, expected {len(examples)}")


def test_a_file_that_is_not_there_is_refused(compose, tmp_path):
    config = compose([*SPIDER, "predictions=nowhere.txt"], "evaluate")
    refused(config, tmp_path / "run", r"predictions=nowhere\.txt is no file; give one SQL a line, or \.jsonl")


def test_an_adapter_and_a_file_of_predictions_are_not_judged_at_once(compose_raw):
    overrides = [*SPIDER, "adapter=some/folder", "predictions=sql.txt"]
    with pytest.raises(ValueError, match="adapter and predictions are both given; score one of them"):
        scoring.settings(compose_raw(overrides, "evaluate"), overrides)


def test_data_without_databases_cannot_be_scored(compose, tmp_path):
    row = {"sql_prompt": "How many?", "sql": "SELECT COUNT(*) FROM t"}
    for split in ("train", "test"):
        lines = [
            {**row, "id": i, "sql_context": f"CREATE TABLE t (c{i} INT) PARTITION BY HASH(c{i});"} for i in range(3)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "sql.txt").write_text("SELECT 1\n" * 3)
    config = compose(
        [*SPIDER, "data=gretel", f"data.path={tmp_path}", f"predictions={tmp_path / 'sql.txt'}"], "evaluate"
    )
    refused(config, tmp_path / "run", "3 of 3 examples have no database to run SQL on; point data.path at data with")


def test_spider_without_its_databases_is_refused(compose, tmp_path):
    (tmp_path / "dev.json").write_text("[]")
    (tmp_path / "sql.txt").write_text("SELECT 1\n")
    config = compose([*SPIDER, f"data.path={tmp_path}", f"predictions={tmp_path / 'sql.txt'}"], "evaluate")
    refused(config, tmp_path / "run", "has no database/ folder: unpack Spider's official archive")


@pytest.fixture
def official_layout(compose, examples, tmp_path):
    """A folder in Spider's layout that a test may damage, and a file of its golds."""
    source = Path(examples[0].database).parent.parent.parent
    shutil.copytree(source, tmp_path / "spider")
    return tmp_path / "spider", gold_file(tmp_path, examples)


def remove(path):
    path.unlink()


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1024])


def overwrite_the_rows(path):
    """All pages but the first, which holds the schema."""
    content = path.read_bytes()
    page = int.from_bytes(content[16:18], "big")
    assert page < len(content)
    path.write_bytes(content[:page] + b"\xff" * (len(content) - page))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove, r"is not whole \(missing database file: \d+ examples, first spider/dev/\d+\): unpack"),
        (lambda path: path.write_text("<html>"), r"is not whole \(unreadable database file: "),
        (lambda path: path.write_bytes(b""), r"is not whole \(unreadable database file: "),
        (cut_short, r"\.sqlite is damaged \(.*\): unpack|unreadable database file"),
        (overwrite_the_rows, r"\.sqlite is damaged \(.*\): unpack|unreadable database file"),
    ],
)
def test_a_bad_database_is_refused_before_anything_is_scored(
    compose, examples, official_layout, tmp_path, monkeypatch, damage, message
):
    folder, predictions = official_layout
    damage(folder / "database" / examples[-1].db_id / f"{examples[-1].db_id}.sqlite")
    monkeypatch.setattr(Pool, "judge", None)
    config = compose([*SPIDER, f"data.path={folder}", f"predictions={predictions}"], "evaluate")
    refused(config, tmp_path / "run", message)


def test_a_database_that_nobody_knows_is_refused(compose, official_layout, tmp_path):
    folder, predictions = official_layout
    rows = json.loads((folder / "dev.json").read_text())
    rows[1]["db_id"] = "nobody_knows"
    (folder / "dev.json").write_text(json.dumps(rows))
    config = compose([*SPIDER, f"data.path={folder}", f"predictions={predictions}"], "evaluate")
    refused(config, tmp_path / "run", r"unknown db_id: 1 examples, first spider/dev/1")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty: expected"), (b"SELECT '\xff'\n", r"sql\.txt:1: not UTF-8 .*: save the file as UTF-8")],
)
def test_a_bad_file_of_predictions_is_refused(compose, tmp_path, content, message):
    (tmp_path / "sql.txt").write_bytes(content)
    refused(compose([*SPIDER, f"predictions={tmp_path / 'sql.txt'}"], "evaluate"), tmp_path / "run", message)


# Models


@pytest.mark.parametrize("judged", ["base", "adapter"])
@pytest.mark.usefixtures("one_thread")
def test_a_model_is_judged_on_what_it_writes(compose_raw, curriculum, tmp_path, judged):
    overrides = ["data=spider", "data.path=mini", "data.max_test_samples=5"]
    if judged == "base":
        overrides += ["model=tiny", "hardware=cpu", "prompt.max_sql_tokens=24"]
    else:
        overrides += [f"adapter={curriculum.two.adapter}"]
    config = scoring.settings(compose_raw(overrides, "evaluate"), overrides)
    accuracy = scoring.score(config, str(tmp_path / "run"))
    rows, metrics = read(tmp_path / "run/predictions.jsonl"), read(tmp_path / "run/metrics.json")
    assert metrics["eval/execution_accuracy"] == accuracy == sum(row["verdict"] == "match" for row in rows) / 5
    assert len(rows) == metrics["eval/examples"] == 5
    for row in rows:
        assert row["prompt"].startswith("<s>[INST]")
        assert "CREATE TABLE" in row["prompt"]
        assert row["prompt"].endswith(f"Question: {row['question']}[/INST]")
        assert row["prediction"] == row["answer"].strip() != ""
        assert row["shortened"] == 0
    stamp = read(tmp_path / "run/run.json")
    assert stamp["label"] == {"base": "tiny base", "adapter": "tiny phase 2"}[judged]
    assert stamp["adapter"] == {"base": None, "adapter": str(curriculum.two.adapter)}[judged]


@pytest.mark.usefixtures("one_thread")
def test_an_adapter_changes_what_its_base_writes(small, curriculum, monkeypatch):
    """The tiny model learns little in three steps, so its adapter is made a hundred times larger."""
    from text2sql import model

    load = model.load_adapter

    def loudly(base, folder, *, trainable):
        network = load(base, folder, trainable=trainable)
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.data *= 100
        return network

    monkeypatch.setattr(model, "load_adapter", loudly)

    def answers(*overrides):
        config = small("prompt.max_sql_tokens=12", "data.max_test_samples=4", *overrides, primary="evaluate")
        examples = data.load(config.data, "test", seed=42).examples
        rows = answering.answer(answering.Speaker(config), examples, runner=None)
        return [row["prediction"] for row in rows]

    assert answers(f"adapter={curriculum.two.adapter}") != answers()


# An adapter brings its settings along


@pytest.fixture
def settle(compose_raw, curriculum):
    """A function from overrides to the settings that evaluating phase 2's adapter with them has."""

    def settle(*overrides):
        typed = [f"adapter={curriculum.two.adapter}", *overrides]
        return scoring.settings(compose_raw(typed, "evaluate"), typed)

    return settle


def test_an_adapter_is_evaluated_with_what_it_was_trained_with(settle, curriculum):
    config, trained = settle(), curriculum.two.config
    assert (config.model.name, config.hardware.name) == ("tiny", "cpu")
    for group in ("model", "quant", "lora", "prompt", "hardware", "trainer"):
        assert getattr(config, group) == getattr(trained, group)
    assert config.prompt.max_sql_tokens == 64


def test_what_the_command_line_names_wins_over_the_adapters_settings(settle, compose):
    assert settle("quant=none").quant == compose(["quant=none"], "evaluate").quant
    config = settle("prompt.style=question_only", "hardware.max_cache_tokens=3000")
    assert (config.prompt.style, config.prompt.max_sql_tokens) == ("question_only", 64)
    assert (config.hardware.max_cache_tokens, config.hardware.name) == (3000, "cpu")
    assert settle("prompt=question_only").prompt.max_sql_tokens == 200


def test_the_data_are_those_of_the_evaluation(settle):
    assert settle("data.max_test_samples=3").data.max_test_samples == 3
    assert settle("data=gretel").data.name == "gretel"


def test_an_adapter_without_a_saved_config_takes_the_composed_one(compose_raw, compose, curriculum, tmp_path):
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((curriculum.two.adapter / name).read_bytes())
    typed = [*SPIDER, f"adapter={tmp_path}"]
    config = scoring.settings(compose_raw(typed, "evaluate"), typed)
    assert config == compose(typed, "evaluate")
    assert scoring.label(config) == "tiny phase ?"


def test_an_adapter_that_is_nowhere_is_refused(compose_raw):
    typed = [*SPIDER, "adapter=/nonexistent/adapter"]
    with pytest.raises(ValueError, match="adapter=/nonexistent/adapter is no folder"):
        scoring.settings(compose_raw(typed, "evaluate"), typed)


@pytest.mark.parametrize(
    "override, message",
    [
        ("model=smollm2_135m", "was trained on tiny, and model=smollm2_135m is HuggingFaceTB"),
        ("lora.r=8", r"has r=16 and lora\.r is 8; set lora\.r=16"),
    ],
)
def test_an_adapter_of_another_model_is_refused_before_weights_are_loaded(
    settle, tmp_path, monkeypatch, override, message
):
    from text2sql import model

    def load_nothing(*_, **__):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(model, "_from_pretrained", load_nothing)
    refused(settle("data.path=mini", override), tmp_path / "run", message)


def test_a_label_says_what_is_judged(compose, curriculum):
    assert scoring.label(compose([*SPIDER], "evaluate")) == "tiny base"
    assert scoring.label(compose([*SPIDER, "predictions=some/where/gpt.txt"], "evaluate")) == "gpt.txt"
    assert scoring.label(compose([*SPIDER, f"adapter={curriculum.one.adapter}"], "evaluate")) == "tiny phase 1"
