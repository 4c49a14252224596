"""One evaluation in one run folder: answers from a model, or from a file, judged by execution and summed up."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from text2sql import cache, hub, prompts, report, runs
from text2sql import config as configuration
from text2sql.config import Config
from text2sql.example import Example
from text2sql.scorer import Scorer
from text2sql.sql.judge import Limits, Rules

log = logging.getLogger(__name__)

MAX_WORKERS = 8
REPORTED_ROWS = 10


def settings(cfg: DictConfig, overrides: list[str]) -> Config:
    """The config of this evaluation: with an adapter, its run's own groups wherever `overrides` do not name them."""
    if cfg.adapter is None:
        return configuration.load(cfg)
    if cfg.predictions is not None:
        raise ValueError("adapter and predictions are both given; score one of them")
    saved = hub.fetch_adapter(cfg.adapter) / "config.yaml"
    if saved.exists():  # an adapter that was made elsewhere has none
        cfg = configuration.with_saved(cfg, configuration.read_yaml(str(saved)), overrides)
    return configuration.load(cfg)


def score(config: Config, folder: str) -> float:
    """Evaluate what `config` names into a run folder; returns execution accuracy.

    Writes predictions.jsonl, metrics.json, schemas.json, report.html and run.json, and the table to the log. ValueError for
    anything a user can mend.
    """
    judged = f"{label(config)} on {config.data.name}"
    log.info("scoring %s (%s), by %s rules", judged, config.data.path, config.eval.rules.name)
    from text2sql import data, evaluation  # after the first line of progress: they take longer than all before it

    run = Path(folder)
    prompts.check_style(config.prompt)
    data.check(config.data)
    runs.start(run, kind="evaluate", seed=config.seed, label=label(config))
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
    extra: list[dict[str, Any]] = [{} for _ in loaded.examples]
    if config.predictions is not None:
        read = evaluation.read_predictions(config.predictions, loaded.examples)
        generate: Callable[[Sequence[Example]], Iterable[str]] = lambda _: read  # noqa: E731
    else:
        generate = _model(config, extra)
    with _scorer(config, loaded.examples) as scorer:
        scorer.check(loaded.examples)
        metrics, rows = evaluation.evaluate(loaded.examples, generate, scorer)
    schemas = {example.db_id: example.schema for example in loaded.examples}
    runs.write_json(folder / "schemas.json", {db_id: asdict(schema) for db_id, schema in schemas.items()})
    about = {
        "data": {"name": config.data.name, "path": config.data.path, "sha256": loaded.report.sha256},
        "data_summary": loaded.report.summary(),
        "adapter": config.adapter,
        "predictions": config.predictions,
    }
    return metrics, [{**row, **more} for row, more in zip(rows, extra)], about


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


def _model(config: Config, extra: list[dict[str, Any]]) -> Callable[[Sequence[Example]], list[str]]:
    """A function from examples to SQL by the config's model; fills `extra` with each example's prompt and whole answer."""
    from tqdm import tqdm

    from text2sql import generation, model, vllm_engine

    model.check_device(replace(config.hardware, devices=1))  # answers come from one, however many trained
    by_vllm = config.eval.engine is configuration.Engine.vllm
    if by_vllm:
        vllm_engine.check(config)
    adapter = hub.fetch_adapter(config.adapter) if config.adapter is not None else None
    if adapter is not None:
        model.check_adapter(adapter, config)
    tokenizer = model.load_tokenizer(config.model)

    def answer(examples: Sequence[Example]) -> list[str]:
        """One SQL text an example, in their order; the weights are loaded at the first call, after every cheap check."""
        encoded = [prompts.encode_prompt(tokenizer, example, config) for example in examples]
        log.info(
            "%d of %d prompts are shortened in their schema", sum(one.shortened > 0 for one in encoded), len(encoded)
        )
        rows = [one.ids for one in encoded]
        if by_vllm:
            answers = vllm_engine.generate(config, tokenizer, rows, adapter=adapter)
        else:
            answers = generation.generate(
                _network(config, adapter),
                tokenizer,
                rows,
                max_new_tokens=config.prompt.max_sql_tokens,
                precision=model.precision(config.hardware),
                max_cache_tokens=config.hardware.max_cache_tokens,
                graphs=config.hardware.cuda_graphs if config.hardware.device is configuration.Device.cuda else False,
            )
        for i, text in tqdm(answers, "generating", len(encoded)):
            extra[i] = {"prompt": tokenizer.decode(encoded[i].ids), "answer": text, "shortened": encoded[i].shortened}
        return [generation.extract_sql(more["answer"]) for more in extra]

    return answer


def _network(config: Config, adapter: Path | None) -> Any:
    """The base model with the adapter, if any, as config.hardware has it answer."""
    from text2sql import fast_path, generation, model

    base = model.load_base(config)
    network = base if adapter is None else model.load_adapter(base, adapter, trainable=False)
    if config.hardware.fast_path:
        dtype = model.torch_dtype(config.hardware)
        if fast_path.unsupported(base) is None:
            generation.hold_linears_in(network, dtype)
        fast_path.switch_on(network, dtype)
    return network
