"""The `text2sql` command: `table` and `compare` look at finished evaluations, `doctor` at a run that has not started."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from text2sql import comparison, evaluation, runs


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="text2sql", description="Look at runs: before they start, and once they are finished."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    table = commands.add_parser("table", help="print the finished evaluations below each FOLDER side by side")
    table.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    table.add_argument(
        "--leave-out", nargs="+", default=[], metavar="DB_ID", help="count no questions about these databases"
    )
    table.set_defaults(run=lambda options: print_table(options.folders, options.leave_out))
    _add_compare(commands)
    _add_doctor(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options) or 0
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    compare = commands.add_parser(
        "compare",
        help="compare evaluations of the same questions with the first of them",
        description="Compare finished evaluations of the same questions: accuracies with 95 % intervals, paired\n"
        "differences with McNemar's test, the settings that differ, and the questions that flipped.",
        epilog="example:\n  text2sql compare outputs/EVALUATION_OF_PHASE_1 outputs/EVALUATION_OF_PHASE_2 --json phases.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument("baseline", type=Path, metavar="RUN_A", help="run folder that the others are compared with")
    compare.add_argument("others", nargs="+", type=Path, metavar="RUN_B", help="run folder of another evaluation")
    compare.add_argument("--metric", choices=comparison.METRICS, default="correct", help="what counts as right")
    compare.add_argument("--common", action="store_true", help="compare only the questions that all runs have")
    compare.add_argument("--all", action="store_true", help="list every flip, not the first ten of each kind")
    compare.add_argument("--json", type=Path, metavar="FILE", help="write everything, with all flips, to FILE as well")
    compare.set_defaults(run=print_comparison)


def print_comparison(options: argparse.Namespace) -> None:
    """Print one comparison and, with --json, write it. ValueError if the runs cannot be compared or FILE not written."""
    compared = comparison.compare([options.baseline, *options.others], metric=options.metric, common=options.common)
    print(comparison.as_text(compared, all_flips=options.all))
    if options.json is not None:
        _write_json(options.json, asdict(compared))


def _write_json(file: Path, content: object) -> None:
    try:
        runs.write_json(file, content)
    except OSError as error:
        cure = "name a file in a folder that is there"
        raise ValueError(f"cannot write --json {file}: {error.strerror}; {cure}") from None


def _add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="tell what a run would meet, before it starts: memory, tokens, time, traps",
        description="Compose the config that train.py would run and tell what it would meet: GPU memory by part, token\n"
        "lengths, one example with what is learned of it, time, traps. Loads no weights and needs no GPU. Exit code 1\n"
        "if the run cannot fit, 2 if an override is wrong.",
        epilog="examples:\n  text2sql doctor hardware=t4x2\n  text2sql doctor experiment=smollm2 hardware.gpu=H100",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for train.py: group=choice or key=value")
    doctor.add_argument("--json", type=Path, metavar="FILE", help="write everything to FILE as well")
    doctor.add_argument("--example", type=int, default=0, metavar="N", help="the training example to show, from 0")
    doctor.add_argument("--no-color", action="store_true", help="no colours, as on anything that is no terminal")
    doctor.set_defaults(run=print_diagnosis)


def print_diagnosis(options: argparse.Namespace) -> int:
    """Print what the composed run would meet; returns 1 if it cannot fit. ValueError for overrides that are wrong."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from text2sql import commandline, doctor
    from text2sql.doctor.text import as_text

    try:
        config = doctor.compose(options.overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(commandline.explain(error)) from error
    doctor.go_offline_without_hub(config)
    report = doctor.diagnose(config, options.example)
    color = sys.stdout.isatty() and not options.no_color and not os.environ.get("NO_COLOR")
    print(as_text(report, color))
    if options.json is not None:
        _write_json(options.json, doctor.to_json(report))
    return int(report.fits is False)


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
    return evaluation.metrics(rows)


def _files(folders: list[Path], name: str) -> list[Path]:
    return sorted((path for folder in folders for path in folder.rglob(name)), key=_in_job_order)


def _in_job_order(path: Path) -> list[tuple[bool, int, str]]:
    """Names as text, but job numbers as numbers: 2 before 10."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in path.parts]
