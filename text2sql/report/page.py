"""The page of a run, report.html: everything its folder says, in one file that opens offline and asks no network.

Questions, model output and cell values are hostile text here. They reach the page as JSON in which no character can end
the element that holds it, the page's script inserts them as text nodes only, and a Content-Security-Policy allows that
script and that style sheet by their hashes and nothing else. What this does NOT protect from: a reader who believes
what a hostile text says.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from text2sql import runs
from text2sql.report import words
from text2sql.sql.kinds import KINDS

HERE = Path(__file__).resolve().parent
SCRIPTS = "elements sql losses summary repeat detail examples list samples page".split()
MAX_TEXT = 100_000
"""Characters of one text; a longer one is cut and says so."""
MAX_CELL = 500
"""Characters of one cell of a result."""
MAX_RESULT_ROWS = 10
MAX_PROMPTS = 4_000_000
"""Characters of all prompts and answers together; where there are more, the page leaves them out and says so."""

EXAMPLE_FIELDS = (
    "id db_id question gold prediction verdict reason correct hardness strict official exact_match "
    "wrong_parts differences diagnosis diagnosis_details gold_result predicted_result prompt answer shortened "
    "candidates before_votes repair before_repair"
).split()


def write_page(run: Path) -> Path:
    """Write run/report.html from the files in the folder `run`, training or evaluation; returns its path.

    run.json must be there; every other file, and every field in it, may be missing: the page shows what there is. The
    page appears complete or not at all, and the same files give the same page. ValueError for a folder without a run.
    """
    path = run / "report.html"
    aside = run / f".report.html.{os.getpid()}"
    aside.write_bytes(html(content(run)).encode("utf-8"))
    aside.replace(path)
    return path


def content(run: Path) -> dict[str, Any]:
    """All that the page shows, as JSON-ready values; `examples` has one entry for each line of predictions.jsonl."""
    if not (run / "run.json").is_file():
        raise ValueError(f"{run} holds no run.json; name the folder of a run")
    stamp = _read_json(run / "run.json")
    rows = runs.read_jsonl(run / "predictions.jsonl")
    num_characters = sum(len(row.get(field) or "") for row in rows for field in ("prompt", "answer"))
    left_out = {"prompt", "answer"} if num_characters > MAX_PROMPTS else set()
    value = {
        "folder": run.resolve().name,
        "run": stamp,
        "metrics": _read_json(run / "metrics.json"),
        "schemas": _read_json(run / "schemas.json"),
        "losses": _losses(run, stamp),
        "samples": runs.read_jsonl(run / "samples.jsonl"),
        "prompts_left_out": bool(left_out),
        "words": {"verdicts": words.VERDICTS, "diagnoses": KINDS},
    }
    return {**_plain(value), "examples": [_plain(_example(row, left_out)) for row in rows]}


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _losses(run: Path, stamp: Mapping[str, Any]) -> dict[str, Any]:
    """Points [step, loss] of this run's history, or else of the run that made its adapter; `source` says whose."""
    source, history = "", runs.read_jsonl(run / "history.jsonl")
    adapter = stamp.get("adapter")
    if not history and adapter and Path(adapter).is_dir():
        source, history = str(Path(adapter).parent), runs.read_jsonl(Path(adapter).parent / "history.jsonl")
    return {
        "source": source,
        "training": [[row["step"], row["loss"]] for row in history if "loss" in row],
        "validation": [[row["step"], row["eval_loss"]] for row in history if "eval_loss" in row],
    }


def _example(row: Mapping[str, Any], left_out: set[str]) -> dict[str, Any]:
    """The fields of one prediction that the page shows; an answer that is just the SQL is not told twice."""
    kept = {field: row[field] for field in EXAMPLE_FIELDS if field in row and field not in left_out}
    if kept.get("answer") == kept.get("prediction"):
        kept.pop("answer", None)
    for field in ("gold_result", "predicted_result"):
        if kept.get(field):
            result = kept[field]
            cells = [[cell(value) for value in cells] for cells in result["rows"][:MAX_RESULT_ROWS]]
            kept[field] = {**result, "rows": cells}
    return kept


def cell(value: Any) -> Any:
    """A cell that JavaScript shows as Python does: numbers that it would write otherwise go as {"number": text}."""
    if isinstance(value, str) and len(value) > MAX_CELL:
        return {"text": value[:MAX_CELL], "length": len(value)}
    if isinstance(value, float) and (not math.isfinite(value) or value.is_integer() or "e" in repr(value)):
        return {"number": repr(value)}
    if isinstance(value, int) and abs(value) >= 2**53:
        return {"number": str(value)}
    return value


def _plain(value: Any) -> Any:
    """The value with its texts cut to MAX_TEXT and null for numbers that JSON has no spelling for."""
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]} … [cut here: {len(value):,} characters in all]"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


def html(content: Mapping[str, Any]) -> str:
    """The page as text, ASCII but for our own files: template, style sheet and script from this folder, and the data."""
    style = (HERE / "page.css").read_text(encoding="utf-8")
    script = "\n".join((HERE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    parts = {
        "style": style,
        "style_hash": _hash(style),
        "script": script,
        "script_hash": _hash(script),
        "run": escaped_json({key: value for key, value in content.items() if key != "examples"}),
        "examples": _json_lines(content["examples"]),
    }
    template = (HERE / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template)


def _hash(source: str) -> str:
    """A source expression of CSP: base64 of the sha256 of the element's text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode("utf-8")).digest()).decode()


def escaped_json(value: Any) -> str:
    """JSON for a <script> element: ASCII, so U+2028 and lone surrogates are escapes, and <, > and & are escapes too."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _json_lines(rows: Iterable[Any]) -> str:
    """A JSON array with one row a line, so that the page's source can be searched and compared."""
    return "[\n" + ",\n".join(map(escaped_json, rows)) + "\n]"
