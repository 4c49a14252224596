"""The `text2sql` command: it reads, compares and repeats runs, looks at one that has not started, and asks databases."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from text2sql import comparison, credentials, database_commands, evaluation, release_commands, runs, sweeps
from text2sql.ui import command as ui_command


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="text2sql", description="Look at runs, before they start and once they are finished, and ask databases."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_table(commands)
    _add_plot(commands)
    _add_compare(commands)
    _add_doctor(commands)
    _add_reproduce(commands)
    _add_resume(commands)
    _add_sync(commands)
    database_commands.add(commands)
    ui_command.add(commands)
    release_commands.add(commands)
    options = parser.parse_args(arguments)
    try:
        typed = sys.argv[1:] if arguments is None else arguments
        if typed[0] != "copy-database":  # a server's URL has its password, and that command writes it nowhere
            credentials.refuse(typed)
        return options.run(options) or 0
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _add_table(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    table = commands.add_parser(
        "table",
        help="show the jobs of a sweep side by side, best first",
        description="Show every run in and below each FOLDER, a line a job: the keys that differ between the jobs, what came\n"
        "of them with 95 % intervals where a run has them, and of those that failed, were interrupted, run still or were\n"
        "not started the reason. Best first: by execution accuracy, or by validation loss where nothing was evaluated.\n"
        "Below it, the command that repeats the best job. Sweeps of train.py and evaluate.py (multirun/DIR), single runs\n"
        "(outputs/DIR), copies of them, and sweeps in progress are read alike.",
        epilog="examples:\n  text2sql table multirun/SWEEP\n  text2sql table multirun/SWEEP --by train/loss\n"
        "  text2sql table multirun/A multirun/B --format csv --output both.csv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    table.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="of sweeps, of runs, or of several of them"
    )
    _add_order(table)
    table.add_argument(
        "--format", choices=sweeps.FORMATS, default="terminal", help="default: terminal; csv has every digit"
    )
    table.add_argument(
        "--output", type=Path, metavar="FILE", help="write it to FILE, whole or not at all; prints nothing"
    )
    table.add_argument(
        "--leave-out", nargs="+", default=[], metavar="DB_ID", help="count no questions about these databases"
    )
    table.add_argument(
        "--hardness", action="store_true", help="in place of all this: finished evaluations only, accuracy by hardness"
    )
    table.set_defaults(run=print_table)


def _add_order(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--by",
        metavar="METRIC",
        help="what best means: a name from metrics.json, such as eval/exact_match. Losses, error rates, seconds and "
        "memory: lowest first; all others: highest first",
    )
    parser.add_argument(
        "--over",
        metavar="KEY",
        help="give mean and standard deviation over the values of KEY, for each group of the other keys. "
        "Default: seed, where it is swept; `none` for no groups",
    )


def _add_plot(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    plot = commands.add_parser(
        "plot",
        help="draw a sweep: loss curves, the metric against each key, and a page with all of it",
        description="Write plots/*.png (loss curves of all jobs, the metric against each swept key, and parallel coordinates\n"
        "with three numeric keys or an optuna study) and report.html: the table, sortable, the plots and a link to each\n"
        "job's own page, in one file that opens offline. Jobs that have not ended are drawn as far as they are.",
        epilog="examples:\n  text2sql plot multirun/SWEEP\n  text2sql plot multirun/SWEEP --output pictures",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    plot.add_argument("folder", type=Path, metavar="FOLDER", help="of a sweep, or of several")
    _add_order(plot)
    plot.add_argument("--output", type=Path, metavar="DIR", help="write into DIR; default: FOLDER")
    plot.set_defaults(run=plot_sweep)


def print_table(options: argparse.Namespace) -> None:
    """Print a sweep's table or, with --output, write it. ValueError for folders without runs and files not writable."""
    if options.hardness:
        text = by_hardness(options.folders, options.leave_out)
    else:
        table = sweeps.read(options.folders, by=options.by, over=options.over, leave_out=options.leave_out)
        text = sweeps.FORMATS[options.format](table)
    if options.output is None:
        print(text.rstrip("\n"))
    else:
        _write_text(options.output, text.rstrip("\n") + "\n")


def _write_text(file: Path, text: str) -> None:
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(file)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise ValueError(
            f"cannot write --output {file}: {error.strerror}; name a file in a folder that is there"
        ) from None


def plot_sweep(options: argparse.Namespace) -> None:
    """Write a sweep's plots and page, and say where they are. ValueError for a folder without runs or not writable."""
    table = sweeps.read([options.folder], by=options.by, over=options.over)
    page, plots = sweeps.write(table, options.folder, options.output)
    for path in [*plots, page]:
        print(path)


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


def _add_reproduce(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    reproduce = commands.add_parser(
        "reproduce",
        help="repeat a run from its folder and compare the results",
        usage="text2sql reproduce RUN [OVERRIDE ...] [--check] [--output DIR] [--tolerance X]",
        description="Say what differs here from what the run recorded, run it again in a new folder, and put the results side\n"
        "by side. Exit code 0 if all are within tolerance, 1 if one is not, 2 if the run cannot be repeated.",
        epilog="examples:\n  text2sql reproduce outputs/RUN --check\n"
        "  text2sql reproduce outputs/RUN data.path=data/spider --output outputs/RUN-again",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    reproduce.add_argument(
        "folder", type=Path, metavar="RUN", help="folder of a training, an evaluation or a sweep's job"
    )
    reproduce.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="what to change, shown as a difference")
    reproduce.add_argument("--check", action="store_true", help="only say what differs; exit code 1 if something does")
    reproduce.add_argument("--output", type=Path, metavar="DIR", help="folder of the new run, in outputs/ if not named")
    reproduce.add_argument(
        "--tolerance", type=float, metavar="X", help="allowed difference: relative of losses, absolute of accuracies"
    )
    reproduce.set_defaults(run=print_reproduction)


def print_reproduction(options: argparse.Namespace) -> int:
    """Print what differs, run again and print both results; returns the exit code. ValueError if that cannot be done."""
    from text2sql import reproduction

    plan = reproduction.prepare(options.folder, options.overrides, options.output)
    differences = reproduction.differences(plan)
    said = [str(difference) for difference in differences]
    print(*(said or ["same: nothing that the run recorded is different here"]), sep="\n")
    if unknown := reproduction.not_recorded(plan):
        print(f"not recorded by the run, so not compared: {', '.join(unknown)}")
    if options.check:
        return int(bool(differences))
    if any(difference.blocks for difference in differences):
        raise ValueError("the run cannot be repeated here; the lines above name what is missing and what mends it")
    print(f"$ {shlex.join(reproduction.command(plan))}", flush=True)
    if code := reproduction.repeat(plan):
        print(f"error: the repeated run ended with exit code {code}", file=sys.stderr)
        return code if code == 2 else 1
    if not plan.recorded.is_finished:
        print(
            f"nothing to compare with: the run's status is {plan.recorded.stamp.get('status')}; repeated in {plan.output}"
        )
        return 0
    tolerance = reproduction.tolerance(plan, differences) if options.tolerance is None else options.tolerance
    rows = reproduction.compare(plan.recorded.folder, plan.output, tolerance, options.tolerance)
    print(reproduction.table(rows), reproduction.footnote(tolerance, options.tolerance), sep="\n")
    return int(any(row.within is False for row in rows))


def _add_resume(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "resume",
        help="go on with a sweep that was cut short",
        description="Run what is missing of a sweep of train.py or evaluate.py, as it was typed: finished jobs stay\n"
        "as they are, those that failed or were ended go on from their last checkpoint, and numbers and folders stay the same.",
        epilog="examples:\n  text2sql resume multirun/SWEEP\n  text2sql resume multirun/SWEEP hydra.launcher.processes=2",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("folder", type=Path, metavar="SWEEP", help="folder of the sweep: multirun/DIR")
    command.add_argument(
        "settings", nargs="*", metavar="HYDRA_SETTING", help="how to run it, such as hydra.launcher.processes=2"
    )
    command.set_defaults(run=resume_sweep)


def resume_sweep(options: argparse.Namespace) -> None:
    """Become the script that goes on with the sweep. ValueError for a folder that is no sweep or cannot be read."""
    from text2sql import commandline
    from text2sql.driver import resume

    if wrong := [one for one in options.settings if not one.startswith(("hydra.", "hydra/"))]:
        raise ValueError(f"{wrong[0]} would change the sweep's jobs; only hydra.KEY=VALUE can be given to resume")
    name, folder, arguments = resume.command(options.folder)
    script = commandline.CONF.parent / f"{name}.py"
    if not script.is_file():
        raise ValueError(f"{script} is not there: resume works in a checkout of the repository (pip install -e .)")
    print(f"$ python {name}.py {shlex.join([*arguments, *options.settings])}", flush=True)
    os.chdir(folder)
    os.execv(sys.executable, [sys.executable, str(script), *arguments, *options.settings])


def _add_sync(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "sync",
        help="upload what a run could not",
        description="Send to the Hub and to W&B what a run has queued in its uploads.jsonl because they could not be reached,\n"
        "were too slow or did not accept the token. Typed again it sends only what is left. Exit code 0 if nothing is left, 1\n"
        "if something is, 2 for a folder that is no run.",
        epilog="example:\n  text2sql sync outputs/RUN",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("folder", type=Path, metavar="RUN", help="folder of a training")
    command.set_defaults(run=sync_run)


def sync_run(options: argparse.Namespace) -> int:
    """Say what was sent and what is left; returns 1 if something is. ValueError for a folder that is no run."""
    from text2sql import hub, syncing

    hub.be_impatient()
    done = syncing.sync(options.folder)
    lines = [f"sent: {upload}" for upload in done.sent]
    lines += [f"deleted meanwhile, and so not sent: {upload}" for upload in done.gone]
    lines += [f"left: {upload}: {why}" for upload, why in done.left.items()]
    print(*(lines or ["nothing is left to upload"]), sep="\n")
    return int(bool(done.left))


def by_hardness(folders: list[Path], leave_out: Collection[str] = ()) -> str:
    """One row a finished evaluation, in the order of their folders, with its accuracy by hardness.

    `leave_out` names databases whose questions do not count. ValueError if there is no finished evaluation.
    """
    found = sorted((run for folder in folders for run in runs.below(folder)), key=sweeps.in_job_order)
    stamps = {run: runs.read(run) or {} for run in found}
    finished = [
        (run, stamp)
        for run, stamp in stamps.items()
        if stamp.get("kind") == "evaluate" and stamp.get("status") == "finished"
    ]
    if not finished:
        raise ValueError(f"no finished evaluation below {', '.join(map(str, folders))}; evaluate.py makes them")
    names = [run.name for run, _ in finished]
    shown = names if len(set(names)) == len(names) else [str(run) for run, _ in finished]
    return evaluation.comparison_table(
        {f"{stamp['label']} ({name})": _metrics(run, leave_out) for (run, stamp), name in zip(finished, shown)}
    )


def _metrics(run: Path, leave_out: Collection[str]) -> dict[str, float]:
    """The run's metrics.json, or what it would hold without the databases in `leave_out`."""
    if not leave_out:
        return json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    rows = [row for row in runs.read_jsonl(run / "predictions.jsonl") if row["db_id"] not in leave_out]
    return evaluation.metrics(rows)
