"""The `text2sql` command: `text2sql table FOLDER` prints the evaluations below a folder side by side."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection
from pathlib import Path

from text2sql import evaluation, runs
from text2sql.example import Example, Score, Verdict
from text2sql.sql.hardness import hardness


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    parser = argparse.ArgumentParser(prog="text2sql", description="Work with the folders of finished runs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    table = commands.add_parser("table", help="print the finished evaluations below each FOLDER side by side")
    table.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    table.add_argument(
        "--leave-out", nargs="+", default=[], metavar="DB_ID", help="count no questions about these databases"
    )
    table.set_defaults(run=lambda options: print_table(options.folders, options.leave_out))
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def print_table(folders: list[Path], leave_out: Collection[str] = ()) -> None:
    """One row an evaluation, in the order of their folders, then where the loss curves are.

    `leave_out` names databases whose questions do not count. ValueError if there is no finished evaluation.
    """
    stamps = {path.parent: json.loads(path.read_text(encoding="utf-8")) for path in _files(folders, "run.json")}
    finished = [
        (run, stamp)
        for run, stamp in stamps.items()
        if stamp.get("kind") == "evaluate" and stamp.get("status") == "finished"
    ]
    if not finished:
        raise ValueError(f"no finished evaluation below {', '.join(map(str, folders))}; evaluate.py makes them")
    names = [run.name for run, _ in finished]
    shown = names if len(set(names)) == len(names) else [str(run) for run, _ in finished]
    table = {f"{stamp['label']} ({name})": _metrics(run, leave_out) for (run, stamp), name in zip(finished, shown)}
    print(evaluation.comparison_table(table))
    for plot in _files(folders, "loss.png"):
        print(f"loss curves: {plot}")


def _metrics(run: Path, leave_out: Collection[str]) -> dict[str, float]:
    """The run's metrics.json, or what it would hold without the databases in `leave_out`."""
    if not leave_out:
        return json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    rows = [row for row in runs.read_jsonl(run / "predictions.jsonl") if row["db_id"] not in leave_out]
    examples = [Example(row["id"], row["question"], row["gold"], row["db_id"]) for row in rows]
    scores = [Score(Verdict(row["verdict"]), row["reason"]) for row in rows]
    return evaluation.metrics(examples, scores, hardness)


def _files(folders: list[Path], name: str) -> list[Path]:
    return sorted((path for folder in folders for path in folder.rglob(name)), key=_in_job_order)


def _in_job_order(path: Path) -> list[tuple[bool, int, str]]:
    """Names as text, but job numbers as numbers: 2 before 10."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in path.parts]
