"""Answers of the config's model to examples: generated, chosen among several by their results, and repaired where they fail."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from text2sql import fast_path, generation, hub, merging, model, prompts, repair, vllm_engine, voting
from text2sql.checking import Constraint
from text2sql.config import Config, Device, Engine
from text2sql.example import Example
from text2sql.voting import Runner

log = logging.getLogger(__name__)


class Speaker:
    """The config's model: everything cheap is checked at once, the weights are loaded when it is first asked and stay.

    `seconds` is how long it has been generating. ValueError for what the machine or the adapter does not allow.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.seconds = config, 0.0
        model.check_device(replace(config.hardware, devices=1))  # answers come from one, however many trained
        if config.eval.engine is Engine.vllm:
            vllm_engine.check(config)
        self.adapter = hub.fetch_adapter(config.adapter) if config.adapter is not None else None
        if self.adapter is not None:
            model.check_adapter(self.adapter, config)
            if config.eval.engine is Engine.vllm and (self.adapter / merging.FOLDER).is_dir():
                raise ValueError(
                    f"adapter={self.adapter} learned on merged weights, which vLLM is not given; set eval.engine=native"
                )
        self.tokenizer = model.load_tokenizer(config.model)
        self._network: Any = None

    @property
    def network(self) -> Any:
        """The base model with the adapter, if any; loaded when it is first asked for."""
        if self._network is None:
            self._network = network(self.config, self.adapter)
        return self._network

    def say(
        self,
        rows: Sequence[list[int]],
        temperatures: Sequence[float],
        constraints: Sequence[Constraint] | None,
        title: str = "generating",
    ) -> list[str]:
        """The whole answer to each of `rows` (token ids), in their order; greedy where the temperature is 0."""
        if self.config.eval.engine is Engine.vllm:
            started = time.monotonic()
            answers = vllm_engine.generate(self.config, self.tokenizer, rows, adapter=self.adapter)
        else:
            loaded = self.network
            started, hardware = time.monotonic(), self.config.hardware
            answers = generation.generate(
                loaded,
                self.tokenizer,
                rows,
                max_new_tokens=self.config.prompt.max_sql_tokens,
                precision=model.precision(hardware),
                max_cache_tokens=hardware.max_cache_tokens,
                graphs=hardware.cuda_graphs if hardware.device is Device.cuda else False,
                temperature=temperatures,
                seed=self.config.seed,
                constraints=constraints,
            )
        found = dict(tqdm(answers, title, len(rows)))
        self.seconds += time.monotonic() - started
        return [found[i] for i in range(len(rows))]

    def constraints(self, examples: Sequence[Example]) -> list[Constraint] | None:
        """What each answer may say, where eval.constrained asks for it; ValueError for an example without a schema."""
        if not self.config.eval.constrained:
            return None
        from text2sql import constraint

        if without := [example.id for example in examples if not example.schema.tables]:
            raise ValueError(
                f"eval.constrained=true needs schemas and {len(without)} of {len(examples)} examples have none, first "
                f"{without[0]}; point data.path at data with databases, or set eval.constrained=false"
            )
        vocabulary = constraint.Vocabulary(self.tokenizer)
        return [constraint.of(example.schema, vocabulary, self.config.eval.loose) for example in examples]


def network(config: Config, adapter: Path | None) -> Any:
    """The base model with the adapter, if any, as config.hardware has it answer."""
    base = model.load_base(config)
    found = base if adapter is None else model.load_adapter(base, adapter, trainable=False)
    if config.hardware.fast_path:
        dtype = model.torch_dtype(config.hardware)
        if fast_path.unsupported(base) is None:
            generation.hold_linears_in(found, dtype)
        fast_path.switch_on(found, dtype)
    return found


def answer(speaker: Speaker, examples: Sequence[Example], runner: Runner) -> list[dict[str, Any]]:
    """One row an example, in their order: `prediction` (SQL), `prompt`, `answer` (whole) and `shortened`; as eval.votes and
    eval.repair ask, also `candidates`, `before_votes`, `repair` and `before_repair`, the last two where they apply.
    """
    settings, tokenizer = speaker.config.eval, speaker.tokenizer
    encoded = [prompts.encode_prompt(tokenizer, example, speaker.config) for example in examples]
    log.info("%d of %d prompts are shortened in their schema", sum(one.shortened > 0 for one in encoded), len(encoded))
    constraints, votes = speaker.constraints(examples), settings.votes
    said = speaker.say(
        [one.ids for one in encoded for _ in range(votes)],
        [0.0, *[settings.temperature] * (votes - 1)] * len(encoded),
        constraints and [one for one in constraints for _ in range(votes)],
    )
    rows: list[dict[str, Any]] = [
        {
            "prediction": generation.extract_sql(said[i * votes]),
            "prompt": tokenizer.decode(one.ids),
            "answer": said[i * votes],
            "shortened": one.shortened,
        }
        for i, one in enumerate(encoded)
    ]
    if votes > 1:
        _vote(rows, examples, said, votes, runner)
    if settings.repair:
        _repair(rows, examples, speaker, constraints, runner)
    return rows


def _vote(
    rows: Sequence[dict[str, Any]], examples: Sequence[Example], said: Sequence[str], votes: int, runner: Runner
) -> None:
    answers = [said[i * votes : (i + 1) * votes] for i in range(len(rows))]
    texts = [[generation.extract_sql(one) for one in some] for some in answers]
    found = tqdm(voting.vote(examples, texts, runner), "voting", len(rows))
    for row, whole, sql, vote in zip(rows, answers, texts, found):
        row["candidates"] = vote.rows()
        if vote.prediction != row["prediction"]:
            row["before_votes"] = row["prediction"]
            row |= {"prediction": vote.prediction, "answer": whole[sql.index(vote.prediction)]}


def _repair(
    rows: Sequence[dict[str, Any]],
    examples: Sequence[Example],
    speaker: Speaker,
    constraints: Sequence[Constraint] | None,
    runner: Runner,
) -> None:
    """Ask again where the prediction does not run and there is room to ask; what runs then takes its place."""
    asked: list[int] = []
    prompted: list[list[int]] = []
    before = runner.run_all([(example, row["prediction"]) for example, row in zip(examples, rows)])
    for i, executed in enumerate(before):
        if executed.error is None:
            continue
        sql, example = rows[i]["prediction"], examples[i]
        message = repair.complaint(sql, executed, example.schema)
        try:
            ids = repair.encode(speaker.tokenizer, example, speaker.config, sql, message)
        except prompts.TooLong as error:
            log.warning("not repaired: %s", error)
            continue
        rows[i]["repair"] = {"message": message}
        asked.append(i)
        prompted.append(ids)
    if not asked:
        return
    some = constraints and [constraints[i] for i in asked]
    texts = list(map(generation.extract_sql, speaker.say(prompted, [0.0] * len(asked), some, "repairing")))
    runs = runner.run_all([(examples[i], text) for i, text in zip(asked, texts)])
    for i, text, executed in zip(asked, texts, runs):
        rows[i]["repair"] |= {"prediction": text, "verdict": executed.error.value if executed.error else "runs"}
        if executed.error is None:
            rows[i] |= {"before_repair": rows[i]["prediction"], "prediction": text}
