"""The schema study of docs/schema-study.md: all of its trainings and evaluations, several side by side; then tables and plots.

    python benchmarks/schema_study.py run OUT --processes 3 --seconds 560 --collect study.tgz
    python benchmarks/schema_study.py report OUT --images docs/images

Each job is one command of train.py or evaluate.py, printed as it starts, with its log in OUT. What has finished is not run
again, so that a run that was cut short goes on where it stopped. The data are data/gretel and data/spider. `--collect` keeps
the small files of all finished jobs in one archive, up to date after each job; `report` reads OUT or what was unpacked from it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from text2sql.comparison.statistics import clustered_interval

STYLES = ("question_only", "names", "ddl", "ddl_fk", "ddl_values", "ddl_rows", "qualified")
HEADLINE = ("question_only", "ddl", "qualified")
SEEDS = (1, 2, 3)
PATHS = "data.path=${by_phase:data/gretel,data/spider}"
CHOICES = {
    "choices": ("eval.constrained=false,true",),
    "everything": ("eval.votes=8", "eval.constrained=true", "eval.repair=true"),
}
ALL_CHOICES = ("eval.votes=1,8", "eval.constrained=false,true", "eval.repair=false,true")
"""What is tried on top of the best model: of the first seed in all combinations, of the others these."""
KEPT = (
    "id", "db_id", "question", "gold", "prediction", "verdict", "reason", "correct", "strict", "official", "hardness",
    "exact_match", "diagnosis", "hallucinated_tables", "hallucinated_columns", "before_votes", "before_repair", "shortened",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A command whose runs land in OUT/name; `needs` is the job that must have finished before it."""

    name: str
    command: tuple[str, ...]
    num_runs: int
    needs: str | None = None

    def is_done(self, out: Path) -> bool:
        done = [
            path
            for path in (out / self.name).glob("*/run.json")
            if json.loads(path.read_text())["status"] == "finished"
        ]
        return len(done) >= self.num_runs


def jobs(out: Path, extra: Sequence[str] = ()) -> list[Job]:
    """All of the study, what matters most first; `extra` are overrides for every command."""

    def trained(name: str, experiment: str, *overrides: str, num_runs: int = 2) -> Job:
        command = ("train.py", "-m", f"experiment={experiment}", *overrides, *extra, f"hydra.sweep.dir={out / name}")
        return Job(name, command, num_runs)

    def chosen(seed: int, what: str, choices: Sequence[str], num_runs: int) -> Job:
        name, adapter = f"{what}-{seed}", out / f"best-{seed}" / "1" / "adapter"
        command = (
            "evaluate.py",
            "-m",
            f"adapter={adapter}",
            "data.path=data/spider",
            *choices,
            *extra,
            f"hydra.sweep.dir={out / name}",
        )
        return Job(name, command, num_runs, needs=f"best-{seed}")

    def style(name: str, seed: int) -> Job:
        return trained(f"{name}-{seed}", "schema_study", f"prompt={name}", f"seed={seed}", PATHS)

    def arm(data: str, seed: int) -> Job:
        paths = ("data.path=data/spider", "data.gretel_path=data/gretel")
        return trained(f"only-{data}-{seed}", "schema_study_arms", f"data={data}", f"seed={seed}", *paths, num_runs=1)

    first = [trained("best-1", "schema_study_best", "seed=1", PATHS), *(style(name, 1) for name in STYLES)]
    first.append(chosen(1, "choices", ALL_CHOICES, 8))
    arms = [arm(data, seed) for seed in SEEDS for data in ("spider", "mixed")]
    more = [style(name, seed) for seed in SEEDS[1:] for name in HEADLINE]
    best = [trained(f"best-{seed}", "schema_study_best", f"seed={seed}", PATHS) for seed in SEEDS[1:]]
    best += [chosen(seed, "choices", CHOICES["choices"], 2) for seed in SEEDS[1:]]
    best += [chosen(seed, "everything", CHOICES["everything"], 1) for seed in SEEDS[1:]]
    return [*first, *arms[:2], *more, *best, *arms[2:]]


def run(options: argparse.Namespace) -> None:
    """Run what has not finished, `processes` jobs at a time, until nothing is left or the time is up."""
    started, out = time.monotonic(), options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    waiting = [
        job
        for job in jobs(out, options.overrides)
        if not job.is_done(out) and (not options.only or job.name.startswith(tuple(options.only)))
    ]
    running: list[tuple[Job, subprocess.Popen[bytes], float]] = []
    failed: list[str] = []
    while waiting or running:
        over = options.seconds is not None and time.monotonic() - started > options.seconds
        ready = [job for job in waiting if job.needs is None or Job(job.needs, (), 2).is_done(out)]
        while ready and len(running) < options.processes and not over:
            job = ready.pop(0)
            waiting.remove(job)
            running.append((job, _start(job, out), time.monotonic()))
        if over or not running:
            break
        time.sleep(1)
        for entry in [entry for entry in running if entry[1].poll() is not None]:
            running.remove(entry)
            job, process, began = entry
            if not job.is_done(out):
                failed.append(job.name)
            print(f"{job.name}: {'done' if job.is_done(out) else f'exit {process.returncode}, see its log'} "
                  f"after {time.monotonic() - began:.0f} s", flush=True)  # fmt: skip
            if options.collect:
                collect(out, options.collect)
    for job, process, _ in running:
        os.killpg(process.pid, signal.SIGKILL)
        print(f"{job.name}: cut short")
    if options.collect:
        collect(out, options.collect)
    print(f"{len(waiting)} jobs are left")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; see their logs in {out}")


def _start(job: Job, out: Path) -> subprocess.Popen[bytes]:
    print("$", shlex.join(["python", *job.command]), flush=True)
    folder = out / job.name
    if folder.exists():  # begun and not finished
        folder.rename(out / f"{job.name}-before-{time.time_ns()}")
    with (out / f"{job.name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, *job.command], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def collect(out: Path, archive: Path) -> None:
    """Metrics, losses, configs and predictions (without prompts) of all runs in OUT, as one archive that is always whole."""
    aside = archive.with_name(archive.name + ".tmp")
    with tarfile.open(aside, "w:gz") as tar:
        for path in sorted(out.rglob("metrics.json")):
            for name in ("metrics.json", "history.jsonl", "run.json", ".hydra/overrides.yaml", ".hydra/config.yaml"):
                if (file := path.parent / name).is_file():
                    tar.add(file, str(file.relative_to(out)))
            if (file := path.parent / "predictions.jsonl").is_file():
                rows = ({key: row[key] for key in KEPT if key in row} for row in map(json.loads, file.open()))
                data = "".join(json.dumps(row) + "\n" for row in rows).encode()
                info = tarfile.TarInfo(str(file.relative_to(out)))
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    os.replace(aside, archive)


# The report


@dataclass(frozen=True)
class Evaluation:
    """One scored run: its seed, its metrics, and its predictions by id."""

    seed: str
    metrics: dict[str, float]
    rows: dict[str, dict[str, Any]]


WHAT = {"constrained": "eval.constrained=true", "8 votes": "eval.votes=8", "repair": "eval.repair=true"}


def evaluations(out: Path) -> dict[str, list[Evaluation]]:
    """The evaluations by row of the table, one a seed."""
    found: dict[str, list[Evaluation]] = {}
    for path in sorted(out.glob("*/*/**/predictions.jsonl")):
        name, seed = path.relative_to(out).parts[0].rsplit("-", 1)
        if name in CHOICES:
            overrides = (path.parent / ".hydra" / "overrides.yaml").read_text().lower()
            name = " + ".join(["best", *(setting for setting, text in WHAT.items() if text in overrides)])
        elif path.parent.name != "evaluation" or (name == "best" and (out / f"choices-{seed}").exists()):
            continue
        metrics = json.loads((path.parent / "metrics.json").read_text())
        rows = {row["id"]: row for row in map(json.loads, path.open())}
        found.setdefault(name, []).append(Evaluation(seed, metrics, rows))
    order = [*STYLES, "only-spider", "only-mixed"]
    return dict(sorted(found.items(), key=lambda one: order.index(one[0]) if one[0] in order else len(order)))


def interval(runs: Sequence[Evaluation]) -> tuple[float, float] | None:
    """The 95 % interval of execution accuracy, by a bootstrap over databases."""
    rows = [row for one in runs for row in one.rows.values()]
    return clustered_interval([float(r["correct"]) for r in rows], [r["db_id"] for r in rows], resamples=2000, seed=0)


def report(options: argparse.Namespace) -> None:
    """Print the tables as Markdown and draw the plots."""
    found = evaluations(options.out)
    print(table(found))
    for title, baseline, others in (
        ("over ddl", "ddl", ("ddl_fk", "ddl_values", "ddl_rows", "qualified")),
        ("over question_only", "question_only", ("ddl", "qualified", "best")),
        ("over the curriculum (qualified)", "qualified", ("only-spider", "only-mixed")),
        ("over best", "best", tuple(name for name in found if name.startswith("best +"))),
    ):
        print(f"\n{title}\n" + differences(found, baseline, others))
    print("\n" + examples(found))
    if options.images:
        plot(found, options.images)


def table(found: dict[str, list[Evaluation]]) -> str:
    lines = [
        "| | seeds | strict EX | 95 % interval | official EX | exact match | easy / medium / hard / extra "
        "| unknown column / table |"
    ]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, runs in found.items():
        ends = interval(runs)
        spread = [100 * one.metrics["eval/execution_accuracy"] for one in runs]
        shown = f"{sum(spread) / len(spread):.1f}" + (
            f" ({', '.join(f'{x:.1f}' for x in spread)})" if len(spread) > 1 else ""
        )
        low_high = f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}" if ends else "-"
        levels = " / ".join(
            _percent(runs, f"eval/{level}/execution_accuracy", 0) for level in ("easy", "medium", "hard", "extra")
        )
        unknown = " / ".join(_percent(runs, f"eval/unknown_{what}_rate") for what in ("column", "table"))
        official, exact = (_percent(runs, f"eval/{key}") for key in ("official_execution_accuracy", "exact_match"))
        lines.append(f"| {name} | {len(runs)} | {shown} | {low_high} | {official} | {exact} | {levels} | {unknown} |")
    return "\n".join(lines)


def _percent(runs: Sequence[Evaluation], key: str, digits: int = 1) -> str:
    return f"{100 * sum(one.metrics.get(key, 0.0) for one in runs) / len(runs):.{digits}f}"


def differences(found: dict[str, list[Evaluation]], baseline: str, others: Sequence[str]) -> str:
    """Points of execution accuracy over `baseline` on the same questions, by seed, with bootstrap intervals over databases."""
    lines = []
    for name in others:
        pairs = [
            (float(one.rows[i]["correct"]) - float(base.rows[i]["correct"]), one.rows[i]["db_id"])
            for one in found.get(name, [])
            for base in found.get(baseline, [])
            if one.seed == base.seed
            for i in one.rows.keys() & base.rows.keys()
        ]
        if pairs:
            values, clusters = zip(*sorted(pairs, key=lambda pair: pair[1]))
            ends = clustered_interval(values, clusters, resamples=2000, seed=0)
            assert ends is not None
            mean = 100 * sum(values) / len(values)
            lines.append(f"{name}: {mean:+.1f} points ({100 * ends[0]:+.1f} to {100 * ends[1]:+.1f})")
    return "\n".join(lines)


def examples(found: dict[str, list[Evaluation]], count: int = 10) -> str:
    """Questions that the model answers with invented names, and right once it may write only what is there."""
    before, after = found.get("best"), found.get("best + constrained")
    if not before or not after:
        return ""
    lines = []
    for i, row in before[0].rows.items():
        invented = [*row.get("hallucinated_columns", []), *row.get("hallucinated_tables", [])]
        if invented and after[0].rows[i]["correct"] and len(lines) < count:
            lines.append(
                f"* {row['question']}\n  `{row['prediction']}` (no {', '.join(invented)})\n  `{after[0].rows[i]['prediction']}`"
            )
    return "\n".join(lines)


def plot(found: dict[str, list[Evaluation]], folder: Path) -> None:
    """Accuracy, and invented names, of each row of the table."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    names = list(found)[::-1]
    figures = {
        "schema-study-accuracy.png": ("execution accuracy on Spider dev, %", ["eval/execution_accuracy"]),
        "schema-study-unknown.png": (
            "answers that fail for an unknown name, %",
            ["eval/unknown_column_rate", "eval/unknown_table_rate"],
        ),
    }
    for file, (label, keys) in figures.items():
        figure, axes = pyplot.subplots(figsize=(8, 0.4 * len(names) + 1.2), layout="constrained")
        left = [0.0] * len(names)
        for key, colour in zip(keys, ("#3b6ea5", "#d98b3a")):
            values = [100 * sum(one.metrics.get(key, 0.0) for one in found[name]) / len(found[name]) for name in names]
            what = "table" if "table" in key else "column"
            axes.barh(names, values, left=left, color=colour, label=what if len(keys) > 1 else None)
            left = [a + b for a, b in zip(left, values)]
        beyond = left
        if len(keys) == 1:
            ends = [interval(found[name]) for name in names]
            low, high = ([100 * one[side] if one else v for one, v in zip(ends, left)] for side in (0, 1))
            errors = [[v - x for v, x in zip(left, low)], [x - v for v, x in zip(left, high)]]
            axes.errorbar(left, names, xerr=errors, fmt="none", ecolor="#222222", capsize=3)
            beyond = high
        else:
            axes.legend()
        for name, value, x in zip(names, left, beyond):
            axes.annotate(f"{value:.1f}", (x, name), xytext=(8, -3), textcoords="offset points", fontsize=8)
        axes.set_xlim(0, max(beyond) * 1.12 + 1)
        axes.set_ylim(-0.7, len(names) - 0.3)
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(folder / file, dpi=120)
        pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run", help="train and evaluate what has not finished")
    runs.add_argument("out", type=Path)
    runs.add_argument("--processes", type=int, default=1, help="jobs side by side on the one GPU")
    runs.add_argument("--seconds", type=float, help="stop after so many; what was running then is run again next time")
    runs.add_argument("--collect", type=Path, help="an archive of the results, kept up to date")
    runs.add_argument("--only", nargs="*", help="beginnings of names of jobs")
    runs.add_argument("--overrides", nargs="*", default=(), help="for every command, such as model=tiny hardware=cpu")
    runs.set_defaults(do=run)
    reports = commands.add_parser("report", help="tables, differences, examples and plots")
    reports.add_argument("out", type=Path)
    reports.add_argument("--images", type=Path, help="a folder for the plots")
    reports.set_defaults(do=report)
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()
