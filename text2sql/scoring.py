"""One evaluation in one run folder: answers from a model, or from a file, judged by execution and summed up."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from text2sql import cache, credentials, hub, prompts, report, resuming, runs
from text2sql import config as configuration
from text2sql.config import Config
from text2sql.driver import resume
from text2sql.example import Example
from text2sql.scorer import Scorer
from text2sql.sql.judge import Limits, Rules

log = logging.getLogger(__name__)

MAX_WORKERS = 8
REPORTED_ROWS = 10


def settings(cfg: DictConfig, overrides: list[str]) -> Config:
    """The config of this evaluation: with an adapter, its run's own groups wherever `overrides` do not name them."""
    if cfg.merge_adapter is not None:
        raise ValueError(
            "merge_adapter is for training; an adapter that learned on merged weights has them in its folder, so that "
            "adapter=RUN/adapter is enough"
        )
    if cfg.adapter is None:
        return configuration.load(cfg)
    if cfg.predictions is not None:
        raise ValueError("adapter and predictions are both given; score one of them")
    saved = hub.fetch_adapter(cfg.adapter) / "config.yaml"
    if saved.exists():  # an adapter that was made elsewhere has none
        cfg = configuration.with_saved(cfg, configuration.read_yaml(str(saved)), overrides)
    return configuration.load(cfg)


def score(config: Config, folder: str) -> float:
    """Evaluate what `config` names into a run folder; returns execution accuracy, at once if resume=true finds it there.

    Writes predictions.jsonl, metrics.json, schemas.json, report.html and run.json, and the table to the log. ValueError for
    anything a user can mend.
    """
    credentials.redact_logs()
    if config.resume == "true" and (done := _finished(Path(folder), config)) is not None:
        return done
    judged = f"{label(config)} on {config.data.name}"
    log.info("scoring %s (%s), by %s rules", judged, config.data.path, config.eval.rules.name)
    from text2sql import data, evaluation  # after the first line of progress: they take longer than all before it

    run = Path(folder)
    prompts.check_style(config.prompt)
    data.check(config.data)
    runs.start(run, kind="evaluate", seed=config.seed, label=label(config), settings=resuming.settings(config))
    started = time.monotonic()
    try:
        metrics, rows, about = _score(config, run)
    except BaseException as error:
        runs.finish(run, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed", error=repr(error))
        raise
    metrics["eval/seconds"] = round(time.monotonic() - started, 1)
    evaluation.write_predictions(run / "predictions.jsonl", rows)
    runs.write_json(run / "metrics.json", metrics)
    runs.finish(run, "finished", **about)
    page = report.write_page(run)
    log.info("%s\n%s\n%s", judged, evaluation.table(metrics), page)
    return metrics["eval/execution_accuracy"]


def _finished(run: Path, config: Config) -> float | None:
    """The execution accuracy of the finished evaluation in the folder `run`, if any; ValueError if that is another one."""
    accuracy = resume.finished_value(run)
    if accuracy is None:
        return None
    resuming.check_same(run, runs.read(run) or {}, config, "evaluate")
    log.info("%s holds a finished evaluation, which is left as it is: its accuracy is %.4f", run, accuracy)
    return accuracy


def label(config: Config) -> str:
    """What is being judged, in a word or two, for tables of several evaluations."""
    if config.predictions is not None:
        return Path(config.predictions).name
    if config.adapter is None:
        return f"{config.model.name} base"
    saved = hub.fetch_adapter(config.adapter) / "config.yaml"
    phase = configuration.read_yaml(str(saved)).phase.number if saved.exists() else "?"
    return f"{config.model.name} phase {phase}"


def _score(config: Config, folder: Path) -> tuple[dict[str, float], list[dict[str, Any]], dict[str, Any]]:
    from text2sql import data, evaluation

    if config.predictions is not None and not Path(config.predictions).is_file():
        raise ValueError(f"predictions={config.predictions} is no file; give one SQL a line, or .jsonl")
    loaded = data.load(config.data, config.eval.split, seed=config.seed)
    without = {reason: ids for reason, ids in loaded.report.dropped.items() if reason in data.DATABASE_FAULTS}
    if without:
        reasons = "; ".join(f"{reason}: {len(ids)} examples, first {ids[0]}" for reason, ids in without.items())
        raise ValueError(f"data.path={config.data.path} is not whole ({reasons}): unpack its databases again")
    if loaded.report.not_executable:
        raise ValueError(
            f"{loaded.report.not_executable} of {len(loaded.examples)} examples have no database to run SQL on; "
            "point data.path at data with databases (Spider's official folder, or mini)"
        )
    answer = _answers(config, loaded.examples)
    with _scorer(config, loaded.examples) as scorer:
        scorer.check(loaded.examples)
        answers, more = answer(scorer)
        metrics, rows = evaluation.evaluate(loaded.examples, lambda _: [one["prediction"] for one in answers], scorer)
    schemas = {example.db_id: example.schema for example in loaded.examples}
    runs.write_json(folder / "schemas.json", {db_id: asdict(schema) for db_id, schema in schemas.items()})
    about = {
        "data": {"name": config.data.name, "path": config.data.path, "sha256": loaded.report.sha256},
        "data_summary": loaded.report.summary(),
        "adapter": config.adapter,
        "adapter_sha256": runs.adapter_sha256(hub.fetch_adapter(config.adapter)) if config.adapter else None,
        "predictions": config.predictions,
    }
    return metrics | more, [{**row, **one} for row, one in zip(rows, answers)], about


Answers = tuple[list[dict[str, Any]], dict[str, float]]
"""A row an example, its SQL as `prediction`, and what is to be said of all of them besides their scores."""


def _answers(config: Config, examples: Sequence[Example]) -> Callable[[Scorer], Answers]:
    """What answers the examples, once every cheap check is done and the scorer, which voting and repairing want, is there."""
    if config.predictions is not None:
        from text2sql import evaluation

        read = evaluation.read_predictions(config.predictions, examples)
        return lambda scorer: ([{"prediction": sql} for sql in read], {})
    from text2sql import answering, repair, voting

    speaker = answering.Speaker(config)

    def answer(scorer: Scorer) -> Answers:
        rows = answering.answer(speaker, examples, scorer)
        repaired = repair.metrics(rows) if config.eval.repair else {}
        return rows, {**voting.metrics(rows), **repaired, "eval/seconds_generating": round(speaker.seconds, 1)}

    return answer


def _scorer(config: Config, examples: Sequence[Example]) -> Scorer:
    settings = config.eval
    limits = Limits(settings.timeout_s, settings.max_steps, settings.max_rows)
    official = settings.rules is configuration.Rules.official
    rules = Rules(official, settings.keep_distinct, settings.plug_value, preview_rows=REPORTED_ROWS)
    workers = settings.workers or min(os.cpu_count() or 1, MAX_WORKERS)
    neighbours = _neighbours(config, examples) if settings.neighbours else None
    return Scorer(limits, rules, workers=workers, neighbours=neighbours)


def _neighbours(config: Config, examples: Sequence[Example]) -> Callable[[Example], list[Path]]:
    """A function from an example to the databases derived from its own; they are made once and kept in the cache."""
    from tqdm import tqdm

    from text2sql.sql.neighbours import derive, usable

    if any(not example.database for example in examples):
        raise ValueError(f"eval.neighbours needs databases on files; data={config.data.name} has scripts: set it to 0")
    golds: dict[str, list[str]] = {}
    for example in examples:
        golds.setdefault(example.database, []).append(example.sql)
    count, folders = config.eval.neighbours, {}
    for path, queries in tqdm(golds.items(), "neighbour databases", unit="database"):
        folders[path] = cache.folder() / "neighbours" / runs.digest([path, config.seed, count, queries])[:16]
        derive(path, folders[path], count, config.seed, queries)
    return lambda example: usable(folders[example.database], example.sql)
