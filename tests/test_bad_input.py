"""Twenty kinds of bad rows, each one counted row, and twenty kinds of bad configs, each one clear error; docs/reliability.md
lists them."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from text2sql import commandline, data, model, prompts, trainer
from text2sql.config import BadRow, Data

DOCUMENT = (Path(__file__).resolve().parent.parent / "docs/reliability.md").read_text(encoding="utf-8")
DEEP = "CREATE TABLE a (id INT DEFAULT " + "(" * 3000 + "1" + ")" * 3000 + ")"

ROWS = {  # the reason that is counted: what is wrong with the row
    "missing sql": ("gretel", {"sql": None}),
    "missing sql_prompt": ("gretel", {"sql_prompt": None}),
    "missing sql_context": ("gretel", {"sql_context": float("nan")}),
    "sql is not text": ("gretel", {"sql": True}),
    "sql_prompt is not text": ("gretel", {"sql_prompt": ["How many?"]}),
    "sql_context is not text": ("gretel", {"sql_context": {"a": 1}}),
    "empty sql": ("gretel", {"sql": " \n"}),
    "empty sql_prompt": ("gretel", {"sql_prompt": ""}),
    "sql is not valid Unicode": ("gretel", {"sql": "SELECT '\ud800'"}),
    "sql holds a NUL character": ("gretel", {"sql": "SELECT '\0'"}),
    "SQL does not parse": ("gretel", {"sql": "-- nothing"}),
    "sql_context does not parse": ("gretel", {"sql_context": DEEP}),
    "no table in sql_context": ("gretel", {"sql_context": "SELECT 1"}),
    "id of several rows": ("gretel", {"id": 3}),
    "unknown db_id": ("spider", {"db_id": "../database/a"}),
    "missing db_id": ("spider", {"db_id": None}),
    "db_id is not text": ("spider", {"db_id": ["a"]}),
    "missing database file": ("spider", {"db_id": "gone"}),
    "unreadable database file": ("spider", {"db_id": "torn"}),
    "database without tables": ("spider", {"db_id": "empty"}),
}


def write(folder, name, changes):
    """Forty good rows over four databases and a bad one, as the data set `name` has them."""
    if name == "gretel":
        rows = [
            {
                "id": number,
                "sql_prompt": f"How many pets, {number}?",
                "sql_context": f"CREATE TABLE pets{number % 4} (id INT);",
                "sql": f"SELECT COUNT(*) FROM pets{number % 4}",
            }
            for number in range(41)
        ]
        rows[-1] |= changes
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    for db_id in ("a", "b", "c", "d", "torn", "empty", "gone"):
        (folder / "database" / db_id).mkdir(parents=True)
        if db_id not in ("torn", "gone"):
            with sqlite3.connect(folder / f"database/{db_id}/{db_id}.sqlite") as connection:
                connection.execute("CREATE TABLE pets (id INT)")
            if db_id == "empty":
                connection.execute("DROP TABLE pets")
            connection.close()
    (folder / "database/torn/torn.sqlite").write_bytes(b"no database, but long enough to look at" * 100)
    rows = [
        {"question": f"How many, {n}?", "query": "SELECT COUNT(*) FROM pets", "db_id": "abcd"[n % 4]} for n in range(41)
    ]
    rows[-1] |= changes
    (folder / "train_spider.json").write_text(json.dumps(rows))
    (folder / "dev.json").write_text(json.dumps(rows))


@pytest.mark.parametrize("reason", ROWS)
def test_a_bad_row_is_counted_and_the_counts_add_up(tmp_path, reason):
    name, changes = ROWS[reason]
    write(tmp_path, name, changes)
    reports = [
        data.load(Data(name, str(tmp_path), "x/y", validation_fraction=0.3), split, seed=0).report
        for split in ("train", "validation")
    ]
    expected = 2 if reason == "id of several rows" else 1
    assert {key: len(ids) for one in reports for key, ids in one.dropped.items()} == {reason: expected}
    for one in reports:
        assert one.rows_read == one.used + one.num_dropped + one.held_out + one.not_sampled == 41
    assert sum(one.used for one in reports) == 41 - expected
    refusing = Data(name, str(tmp_path), "x/y", validation_fraction=0.3, on_bad_row=BadRow.refuse)
    with pytest.raises(ValueError, match=f"{expected} bad rows \\({reason}.*data.on_bad_row=drop"):
        [data.load(refusing, split, seed=0) for split in ("train", "validation")]


FILES = {
    "is not in UTF-8": ("train.jsonl", b'{"sql": "\xff"}\n'),
    "is not valid JSON: maximum recursion": ("train.json", b"[" * 100_000),
    "must hold one object per row": ("train.jsonl", b"null\n"),
    "is not valid JSON": ("train.jsonl", b'{"sql": "SEL'),
    "holds no rows": ("train.csv", b""),
}


@pytest.mark.parametrize("said", FILES)
def test_a_bad_file_is_named(tmp_path, said):
    name, content = FILES[said]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} {said}"):
        data.load(Data("gretel", str(tmp_path), "x/y"), "train", seed=0)


def test_a_line_separator_in_a_text_ends_no_row_and_a_byte_order_mark_is_no_text(tmp_path):
    write(tmp_path, "gretel", {})
    file = tmp_path / "train.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[5]["sql_prompt"] = "a\u2028b\x85c"
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert data.load(Data("gretel", str(tmp_path), "x/y"), "train", seed=0).report.rows_read == 41


CONFIGS = {  # what is typed: words of the message
    "lora.rank=8": "lora.rank is not a setting; lora has",
    "lora.r=big": "'big' of type 'str' could not be converted to Integer",
    "lora.r=0": "lora.r=0 must be positive",
    "lora.lora_dropout=1.5": "lora.lora_dropout=1.5 must lie between 0 and 1",
    "lora.target_modules=[]": "lora.target_modules=[] leaves nothing to learn",
    "lora.target_modules=[nothing]": "the model has no nothing; it has down_proj",
    "lora.bias=some": "lora.bias=some must be one of none, all, lora_only",
    "lora.task_type=SEQ_CLS": "lora.task_type=SEQ_CLS must be CAUSAL_LM",
    "trainer.learning_rate=nan": "trainer.learning_rate=nan must be positive",
    "trainer.num_train_epochs=0": "trainer.num_train_epochs=0.0 must be positive",
    "trainer.optim=adamw": "trainer.optim=adamw does not exist; it can be adamw_torch",
    "trainer.lr_scheduler_type=zigzag": "trainer.lr_scheduler_type=zigzag does not exist; it can be linear",
    "trainer.warmup_ratio=2": "trainer.warmup_ratio=2.0 must lie between 0 and 1",
    "trainer.save_steps=1.5": "trainer.save_steps=1.5 must be a whole number of steps",
    "trainer.weight_decay=-1": "trainer.weight_decay=-1.0 must not be negative",
    "trainer.max_steps=0": "trainer.max_steps=0 must be positive, or -1",
    "seed=-1": "seed=-1 must lie between 0 and 4294967295",
    "hardware.dtype=float7": "hardware.dtype=float7 must be one of auto, float32",
    "model.attn_implementation=magic": "model.attn_implementation=magic must be one of sdpa",
    "quant.bnb_4bit_quant_type=fp8": "quant.bnb_4bit_quant_type=fp8 must be one of nf4, fp4",
    "hub=push hub.hub_model_id=mine": "hub=push needs hub.hub_model_id=USER/NAME to push checkpoints to, and it is mine",
    "data=nothing": "data=nothing does not exist; data can be gretel, mixed, spider",
    "tracking.mode=sometimes": "'sometimes', expected one of [online, offline, none]",
    "prompt.style=nothing": "prompt.style=nothing does not exist; it can be ddl",
    "resume=perhaps": "resume=perhaps must be true (or auto) or false",
}


def begin(compose, override):
    """What a training does with its config, up to its adapter."""
    settings = compose(["model=tiny", "hardware=cpu", "data.path=mini", *override.split()])
    prompts.check_style(settings.prompt)
    trainer.check_names(settings.trainer)
    model.new_adapter(model.load_base(settings), settings.lora)


@pytest.mark.parametrize("override", CONFIGS)
def test_a_bad_config_is_one_clear_error(compose, override):
    with pytest.raises((ValueError, HydraException, OmegaConfBaseException)) as refused:
        begin(compose, override)
    assert commandline.is_users_mistake(refused.value), "and so it is said in one line, with exit code 2"
    assert CONFIGS[override] in commandline.explain(refused.value)


def test_the_document_lists_every_kind():
    listed = re.findall(r"^\| `([^`]+)` \|", DOCUMENT, re.MULTILINE)
    assert [kind for kind in (*ROWS, *CONFIGS) if kind not in listed] == []
    assert (len(ROWS), len(CONFIGS)) >= (20, 20)
