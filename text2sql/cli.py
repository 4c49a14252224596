"""The `text2sql` command: `text2sql table FOLDER` prints the evaluations below a folder side by side."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from text2sql import evaluation


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    parser = argparse.ArgumentParser(prog="text2sql", description="Work with the folders of finished runs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    table = commands.add_parser("table", help="print the finished evaluations below each FOLDER side by side")
    table.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    table.set_defaults(run=lambda options: print_table(options.folders))
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def print_table(folders: list[Path]) -> None:
    """One row an evaluation, in the order of their folders, then where the loss curves are. ValueError if there is none."""
    stamps = {path.parent: json.loads(path.read_text(encoding="utf-8")) for path in _files(folders, "run.json")}
    evaluations = {
        f"{stamp['label']} ({run.name})": json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        for run, stamp in stamps.items()
        if stamp.get("kind") == "evaluate" and stamp.get("status") == "finished"
    }
    if not evaluations:
        raise ValueError(f"no finished evaluation below {', '.join(map(str, folders))}; evaluate.py makes them")
    print(evaluation.comparison_table(evaluations))
    for plot in _files(folders, "loss.png"):
        print(f"loss curves: {plot}")


def _files(folders: list[Path], name: str) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob(name))
