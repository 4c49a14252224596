"""One database, one model, many questions: each is answered with checked SQL and its rows, or with a reason for neither.

The SQL runs where an evaluation runs it, in a confined process, on a copy of the database (`text2sql.data.snapshot`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from text2sql import abstention, answering, generation, prompts
from text2sql.abstention import Evidence, Thresholds
from text2sql.asking.question import normalised
from text2sql.confidence import confidence
from text2sql.config import Config
from text2sql.data import snapshot
from text2sql.data.sqlite import read_tables
from text2sql.example import Example
from text2sql.scorer import Executed, Scorer
from text2sql.sql import names
from text2sql.sql.judge import Limits, Rules


@dataclass(frozen=True)
class Answer:
    """What a question came to. `abstained` is why no rows are shown, None where they are; `sql` stands in both cases.

    `result` is {"columns", "rows" (the first few), "num_rows"}; `reads` are the tables and columns that the SQL names, as
    the schema spells them; `repaired` says that it is the second try.
    """

    question: str
    sql: str
    abstained: str | None
    result: dict[str, Any] | None
    evidence: Evidence
    reads: tuple[str, ...] = ()
    repaired: bool = False
    candidates: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


class Session:
    """Answers questions about the SQLite file `path`; close() it at the end. Its weights are loaded at the first question.

    `speaker`, of the same config, is the model of an earlier session in place of another one. ValueError for a file that is no
    database or has no tables, and for whatever keeps the model from being used.
    """

    def __init__(
        self,
        config: Config,
        path: Path,
        least: Thresholds,
        num_rows: int,
        speaker: answering.Speaker | None = None,
    ) -> None:
        self.config, self.path, self.least = config, path, least
        prompts.check_style(config.prompt)
        self.database = snapshot.take(path, "the database")
        self.schema = read_tables(self.database, str(path))
        self.speaker = speaker or answering.Speaker(config)
        limits = Limits(config.eval.timeout_s, config.eval.max_steps, config.eval.max_rows)
        self.scorer = Scorer(limits, Rules(preview_rows=num_rows), workers=1)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.scorer.close()

    def load(self) -> None:
        """Load the weights now, and not at the first question."""
        _ = self.speaker.network

    def ask(self, question: str) -> Answer:
        """The answer to one question; ValueError for a question that cannot be put."""
        started = time.monotonic()
        example = self._example(question)
        encoded = prompts.encode_prompt(self.speaker.tokenizer, example, self.config)
        (said,) = self.speaker.say([encoded.ids], [0.0], None)
        free = generation.extract_sql(said)
        missing = abstention.missing_names(free, self.schema)
        tokenizer = self.speaker.tokenizer
        ids = [*tokenizer(said, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        sure = confidence(self.speaker.network.eval(), encoded.ids, ids)
        evidence = Evidence(missing, sure)
        if self.least.names and missing:  # nothing that is written under the constraint would change it
            return self._answer(example, free, evidence, Executed(), {}, started)
        row: dict[str, Any] = {"prediction": free}
        executed = self._run(example, free)
        if self.config.eval.votes > 1 or missing or executed.error:
            (row,) = answering.answer(self.speaker, [example], self.scorer)
            executed = self._run(example, row["prediction"])
        error = (executed.reason or executed.error.value) if executed.error else ""
        agreed = abstention.agreement(row.get("candidates", []))
        evidence = Evidence(missing, sure, agreed, error)
        return self._answer(example, row["prediction"], evidence, executed, row, started)

    def explain(self, sql: str) -> Executed:
        """SQLite's plan for a query, from the confined process."""
        return self._run(self._example("plan"), f"EXPLAIN QUERY PLAN {sql}")

    def _run(self, example: Example, sql: str) -> Executed:
        (executed,) = self.scorer.run_all([(example, sql)])
        return executed

    def _example(self, question: str) -> Example:
        return Example("the question", normalised(question), "", self.path.stem, self.schema, database=self.database)

    def _answer(
        self, example: Example, sql: str, evidence: Evidence, executed: Executed, row: dict[str, Any], started: float
    ) -> Answer:
        abstained = abstention.reason(evidence, self.least)
        return Answer(
            example.question,
            sql,
            abstained,
            None if abstained else executed.result,
            evidence,
            _reads(sql, example),
            "before_repair" in row,
            row.get("candidates", []),
            round(time.monotonic() - started, 2),
        )


def _reads(sql: str, example: Example) -> tuple[str, ...]:
    try:
        found = names.read(sql, example.schema).names.values()
    except ValueError:
        return ()
    known = (name for name in found if isinstance(name, str) and "." in name and not name.startswith(names.INVENTED))
    return tuple(dict.fromkeys(known))
