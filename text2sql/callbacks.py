"""What a run says while it trains: every logged number, and live SQL for a fixed handful of validation questions."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import distributed
from transformers import TrainerCallback

from text2sql import config as configuration
from text2sql import generation, prompts, ranks, runs
from text2sql.config import Config
from text2sql.example import Example
from text2sql.scorer import Scorer
from text2sql.sql.judge import Limits, Rules
from text2sql.studies import pruning
from text2sql.studies.pruning import Judge
from text2sql.studies.settings import LIVE_ACCURACY
from text2sql.tracking import Tracker

log = logging.getLogger(__name__)


class HistoryCallback(TrainerCallback):
    """Append every logged step to history.jsonl and hand it to the tracker, as it happens."""

    def __init__(self, path: Path, tracker: Tracker) -> None:
        self.path, self.tracker = path, tracker

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero or not logs:
            return
        runs.append_jsonl(self.path, [{"step": state.global_step, "epoch": state.epoch, **logs}])
        self.tracker.log(logs, state.global_step)


class SQLSampleCallback(TrainerCallback):
    """At every evaluation, write SQL for the same few validation questions, and say whether it runs and matches.

    Question, gold, prediction, verdict and reason go to the log, to samples.jsonl and to the tracker's table.
    """

    def __init__(
        self, config: Config, tokenizer: Any, examples: Sequence[Example], path: Path, tracker: Tracker, precision: str
    ) -> None:
        self.config, self.tokenizer, self.examples = config, tokenizer, list(examples)
        self.path, self.tracker, self.precision = path, tracker, precision
        limits = Limits(config.eval.timeout_s, config.eval.max_steps, config.eval.max_rows)
        self.scorer = Scorer(limits, Rules(official=config.eval.rules is configuration.Rules.official))
        self.prompts = [prompts.encode_prompt(tokenizer, example, config).ids for example in examples]
        self.execution_accuracy: float | None = None  # of the samples, at the last evaluation

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Generate, judge and report the samples; the model is left as training needs it."""
        if not state.is_world_process_zero or not self.examples:
            return
        answers = generation.generate(
            model,
            self.tokenizer,
            self.prompts,
            max_new_tokens=self.config.prompt.max_sql_tokens,
            precision=self.precision,
            max_cache_tokens=self.config.hardware.max_cache_tokens,
            graphs=self.config.hardware.cuda_graphs,
        )
        rows = [self._row(state.global_step, self.examples[i], text) for i, text in sorted(answers)]
        for row in rows:
            log.info(
                "step %(step)d | %(question)s\n    gold        %(gold)s\n    prediction  %(prediction)s\n"
                "    %(verdict)s %(reason)s",
                row,
            )
        judged = [row["matches"] for row in rows if row["matches"] is not None]
        self.execution_accuracy = sum(judged) / len(judged) if judged else None
        runs.append_jsonl(self.path, rows)
        self.tracker.table("samples", rows, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.scorer.close()

    def _row(self, step: int, example: Example, text: str) -> dict[str, Any]:
        prediction = generation.extract_sql(text)
        row = {
            "step": step,
            "id": example.id,
            "question": example.question,
            "gold": example.sql,
            "prediction": prediction,
        }
        if not example.executable:
            return {**row, "runs": None, "matches": None, "verdict": "not_executed", "reason": "no database"}
        score = self.scorer.score(example, prediction)
        return {
            **row,
            "runs": score.runs,
            "matches": score.correct,
            "verdict": score.verdict.value,
            "reason": score.reason,
        }


class PruningCallback(TrainerCallback):
    """At every evaluation but the last, ask the study whether the job is worth going on with, and end it where it is not.

    Rank 0 asks and all ranks learn the answer, so that all of them end at the same step. It stands after `samples` in the list
    of callbacks, whose accuracy it reports where the study wants that.
    """

    def __init__(self, judge: Judge | None, samples: SQLSampleCallback) -> None:
        self.judge, self.samples, self.reason = judge, samples, ""

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any
    ) -> None:
        """Set control.should_training_stop, and `reason`, where the study has given the job up."""
        said = [self._asked(state, metrics or {}) if self.judge is not None else ""]
        if ranks.world_size() > 1 and pruning.VARIABLE in os.environ:
            distributed.broadcast_object_list(said, src=0)
        if said[0]:
            self.reason = said[0]
            control.should_training_stop = True
            log.info("%s", self.reason)

    def _asked(self, state: Any, metrics: dict[str, float]) -> str:
        assert self.judge is not None
        of_samples = self.judge.metric == LIVE_ACCURACY
        value = self.samples.execution_accuracy if of_samples else metrics.get("eval_loss")
        if value is None or not self.judge.says_stop(state.global_step, value) or state.global_step >= state.max_steps:
            return ""
        return f"pruned at step {state.global_step} of {state.max_steps}: {self.judge.metric} {value:.4g}"
