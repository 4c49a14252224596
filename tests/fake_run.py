"""Run folders written by hand, with texts that try to leave their place in a page."""

from __future__ import annotations

import json

HOSTILE = {
    "script": "</script><img src=x onerror=alert(1)>",
    "comment": "<!-- <script>alert(1)</script>",
    "cdata": "]]> \"'`&lt;&#60; ${alert(1)} {{examples}}",
    "separators": "a\u2028b\u2029c\r\nd",
    "surrogates": "\ud800 \udfff \U0001f600",
    "nul": "a\0b\x1b[31m",
    "turned": "\u202egnp.exe\u2069 \u05d0\u05d1 \u200f",
    "prototype": "__proto__",
    "long": "x<" * 2_500,
}

SCHEMA = {
    "tables": [
        {"name": "city", "columns": [{"name": "id", "type": "INT", "primary_key": True}], "foreign_keys": []},
        {
            "name": "singer",
            "columns": [
                {"name": "name", "type": "TEXT", "primary_key": False},
                {"name": "home", "type": "INT", "primary_key": False},
            ],
            "foreign_keys": [{"columns": ["home"], "foreign_table": "city", "foreign_columns": ["id"]}],
        },
    ]
}


def example(number, **fields):
    """One line of predictions.jsonl: every third is right, every third names an unknown column, every third differs."""
    verdict = ("match", "unknown_column", "mismatch")[number % 3]
    correct = verdict == "match"
    result = {"columns": ["name"], "rows": [["Ann"], [None], [1.0]], "num_rows": 3}
    row = {
        "id": f"spider/dev/{number}",
        "db_id": ("concert", "world")[number % 2],
        "question": f"Who sings song number {number}?",
        "gold": "SELECT name FROM singer WHERE home = 1",
        "prediction": "SELECT name FROM singer" + ("" if correct else " WHERE home > 1"),
        "verdict": verdict,
        "reason": "" if correct else "2 rows instead of 3",
        "correct": correct,
        "hardness": ("easy", "hard")[number % 2],
        "strict": correct,
        "official": correct or number == 2,
        "exact_match": correct,
        "differences": ["official strips DISTINCT from the gold"] if number == 2 else [],
        "diagnosis": [] if correct else ["wrong_filter"],
        "diagnosis_details": [] if correct else ["filters home > 1"],
        "gold_result": result,
        "predicted_result": {**result, "rows": result["rows"][:2], "num_rows": 2},
        "prompt": f"Schema: ... Question {number}",
        "answer": "SELECT 1",
        "shortened": 0,
    }
    return {**row, **fields}


def hostile_examples():
    """An example for each text in HOSTILE, which stands in every field that takes text."""
    for number, (name, text) in enumerate(HOSTILE.items(), 900):
        result = {"columns": [text], "rows": [[text[:400]], [2**60], [float("inf")]], "num_rows": 3}
        texts = dict.fromkeys("db_id question gold prediction reason prompt answer".split(), text)
        lists = {field: [text] for field in ("differences", "diagnosis", "diagnosis_details")}
        yield example(number, id=f"hostile/{name}", **texts, **lists, gold_result=result, predicted_result=result)


def write(folder, **files):
    """Write files by name (dots for double underscores): rows to .jsonl, anything else to .json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        path = folder / name.replace("__", ".")
        lines = value if path.suffix == ".jsonl" else [value]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def evaluation(folder, rows):
    """An evaluation's folder with everything in it."""
    correct = sum(row["correct"] for row in rows) / len(rows)
    metrics = {
        "eval/examples": len(rows),
        "eval/execution_accuracy": correct,
        "eval/strict_execution_accuracy": correct,
    }
    metrics |= {"eval/execution_accuracy_low": correct / 2, "eval/execution_accuracy_high": (1 + correct) / 2}
    metrics |= {"eval/official_execution_accuracy": correct, "eval/exact_match": correct, "eval/gold_errors": 0}
    metrics |= {"eval/partial/and/or/f1": 0.5, "eval/hallucinated_column_rate": 0.25, "eval/seconds": 75.0}
    for level in ("easy", "hard"):
        metrics |= {f"eval/{level}/{key.removeprefix('eval/')}": metrics[key] for key in list(metrics)[:5]}
    stamp = {"kind": "evaluate", "label": HOSTILE["script"], "status": "finished", "command": "evaluate.py data=spider"}
    stamp |= {"commit": "abc", "dirty": True, "versions": {"python": "3.11"}, "data": {"name": "spider", "path": "p"}}
    return write(
        folder,
        run__json={**stamp, "adapter": None, "started": "2026-01-02T03:04:05+0000"},
        metrics__json=metrics,
        predictions__jsonl=rows,
        schemas__json={"concert": SCHEMA, "world": SCHEMA},
        history__jsonl=[{"step": step, "loss": 2 / step} for step in range(1, 9)] + [{"step": 8, "eval_loss": 0.4}],
    )


def training(folder):
    """A training run's folder."""
    sample = {"id": "a", "question": HOSTILE["script"], "gold": "SELECT a", "verdict": "syntax", "reason": "near x"}
    return write(
        folder,
        run__json={
            "kind": "train",
            "phase": 2,
            "status": "failed",
            "error": "boom",
            "fingerprint": {"model": "x/tiny"},
        },
        metrics__json={"validation/loss": 0.5, "train/loss": 0.25, "train/steps": 4.0},
        history__jsonl=[{"step": 1, "loss": 1.0}, {"step": 2, "loss": float("nan")}, {"step": 2, "eval_loss": 0.5}],
        samples__jsonl=[{**sample, "step": step, "prediction": f"SELECT {step}", "matches": False} for step in (1, 2)],
    )
