"""One evaluation in one run folder: answers from a model, or from a file, judged by execution and summed up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from text2sql import config as configuration
from text2sql import data, evaluation, hub, prompts, runs
from text2sql.config import Config
from text2sql.example import Example

log = logging.getLogger(__name__)


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
    """Evaluate what `config` names and write predictions.jsonl, metrics.json and run.json; returns execution accuracy.

    Reports the table through the log. ValueError for anything a user can mend.
    """
    run = Path(folder)
    prompts.check_style(config.prompt)
    data.check(config.data)
    runs.start(run, kind="evaluate", seed=config.seed, label=label(config))
    started = time.monotonic()
    try:
        metrics, rows, about = _score(config)
    except BaseException as error:
        runs.finish(run, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed", error=repr(error))
        raise
    metrics["eval/seconds"] = round(time.monotonic() - started, 1)
    evaluation.write_predictions(run / "predictions.jsonl", rows)
    runs.write_json(run / "metrics.json", metrics)
    runs.finish(run, "finished", **about)
    log.info("%s on %s\n%s\n%s", label(config), config.data.name, evaluation.table(metrics), run / "predictions.jsonl")
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


def _score(config: Config) -> tuple[dict[str, float], list[dict[str, Any]], dict[str, Any]]:
    if config.predictions is not None and not Path(config.predictions).is_file():
        raise ValueError(f"predictions={config.predictions} is no file; give one SQL a line, or .jsonl")
    loaded = data.load(config.data, config.eval.split, seed=config.seed)
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
    metrics, rows = evaluation.evaluate(
        loaded.examples, generate, timeout_s=config.eval.timeout_s, max_rows=config.eval.max_rows
    )
    about = {
        "data": {"name": config.data.name, "path": config.data.path, "sha256": loaded.report.sha256},
        "data_summary": loaded.report.summary(),
        "adapter": config.adapter,
        "predictions": config.predictions,
    }
    return metrics, [{**row, **more} for row, more in zip(rows, extra)], about


def _model(config: Config, extra: list[dict[str, Any]]) -> Callable[[Sequence[Example]], list[str]]:
    """A function from examples to SQL by the config's model; fills `extra` with each example's prompt and whole answer."""
    from tqdm import tqdm

    from text2sql import generation, model

    model.check_device(config.hardware)
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
        base = model.load_base(config)
        network = base if adapter is None else model.load_adapter(base, adapter, trainable=False)
        answers = generation.generate(
            network,
            tokenizer,
            [one.ids for one in encoded],
            max_new_tokens=config.prompt.max_sql_tokens,
            batch_size=config.hardware.generation_batch_size,
            precision=model.precision(config.hardware),
        )
        for i, text in tqdm(answers, "generating", len(encoded)):
            extra[i] = {"prompt": tokenizer.decode(encoded[i].ids), "answer": text, "shortened": encoded[i].shortened}
        return [generation.extract_sql(more["answer"]) for more in extra]

    return answer
