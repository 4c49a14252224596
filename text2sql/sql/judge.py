"""Judge a prediction: run it and the gold on the same databases, compare the results, and say what came of it.

Two rules of comparison. `strict` runs both texts as they are. `official` gives the verdict of the evaluator that Spider's
leaderboard uses (Zhong et al. 2020, taoyds/test-suite-sql-eval): it rewrites both texts first (text2sql.sql.official) and
compares by its own rules. What judges here is plain data in and out, so that a process apart can do it.
"""

from __future__ import annotations

import re
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from text2sql.example import Verdict
from text2sql.sql import compare, database, official
from text2sql.sql.execute import OVER_A_LIMIT, Limits, Reader, Result
from text2sql.sql.results import digest, preview

__all__ = ["GOLD", "OURS", "PREDICTION", "Judge", "Limits", "Place", "Rules", "Run", "Task"]

OPEN_DATABASES = 256
KEPT_GOLD_CELLS = 500_000
MAX_PLUGGED = 10_000
GOLD, PREDICTION, OURS = range(3)


@dataclass(frozen=True)
class Rules:
    """How results are compared; `keep_distinct` and `plug_value` are options of the official evaluator.

    `preview_rows` is how many rows of both results come back with a verdict; 0 for no results.
    """

    official: bool = False
    keep_distinct: bool = False
    plug_value: bool = False
    preview_rows: int = 0


class Place(NamedTuple):
    """One database: a file, or a script that builds one; `key` changes with its content."""

    key: str
    path: str = ""
    context: str = ""
    name: str = ""


class Task(NamedTuple):
    """One pair to judge: on `places` by both rules (the first is the database itself), on `neighbours` by strict only."""

    gold: str
    prediction: str
    places: list[Place]
    neighbours: list[Place]


class Run(NamedTuple):
    """One text to be run on the first of `places` and compared with nothing."""

    prediction: str
    places: list[Place]


class Ruling(NamedTuple):
    verdict: Verdict
    reason: str = ""


def outcome(ruling: Ruling, *, official: bool | None) -> dict[str, Any]:
    """What is said of a pair, as JSON has it, when there is nothing to add to its ruling."""
    return {
        "verdict": ruling.verdict.value,
        "reason": ruling.reason,
        "official": official,
        "differences": [],
        "gold_result": None,
        "predicted_result": None,
    }


class Judge:
    """Judges tasks, keeping databases open and gold results in memory; close() it at the end.

    `watch` is told what begins: GOLD or PREDICTION (a query), or OURS (all else).
    """

    def __init__(self, limits: Limits, rules: Rules, watch: Callable[[int], None] = lambda phase: None) -> None:
        self.limits, self.rules, self.watch = limits, rules, watch
        self._readers: OrderedDict[tuple[str, str], Reader | str] = OrderedDict()
        self._golds: OrderedDict[tuple[str, str], Result] = OrderedDict()
        self._gold_cells = 0
        self._steps = 0

    def close(self) -> None:
        while self._readers:
            reader = self._readers.popitem()[1]
            if isinstance(reader, Reader):
                reader.close()

    def judge(self, task: Task) -> dict[str, Any]:
        """The outcome as JSON has it.

        Keys: verdict and reason by the rules asked for; official (true, false, or null where the gold fails or was not
        asked for); differences (how strict and official came apart); gold_result and predicted_result, {columns, rows,
        num_rows} or null. Raises sqlite3.Error when a database is broken.
        """
        try:
            return self._judge(task)
        except MemoryError:  # while comparing or showing results that did fit
            self._let_go(None)
            return outcome(Ruling(Verdict.TOO_MANY_ROWS, "results too large to compare in memory"), official=False)

    def run(self, run: Run) -> dict[str, Any]:
        """What came of running one text, as JSON has it: {verdict, reason} where it failed, else {digest, num_rows}.

        With `rules.preview_rows` also the first rows, as `result`.
        The text is run as strict judging would. A script that does not build is a GOLD_ERROR, as there.
        """
        sql = _stripped(run.prediction)
        try:
            result = self._run(PREDICTION, run.places[0], sql)
            if result.error:
                return {"verdict": result.error.value, "reason": result.reason}
            found = digest(result.rows, len(result.columns), ordered=compare.is_ordered(sql))
            shown = {"result": preview(result, self.rules.preview_rows)} if self.rules.preview_rows else {}
            return {"digest": found, "num_rows": len(result.rows), **shown}
        except _DoesNotBuild as error:
            return {"verdict": Verdict.GOLD_ERROR.value, "reason": f"the database does not build: {error}"}
        except MemoryError:
            self._let_go(None)
            return {"verdict": Verdict.TOO_MANY_ROWS.value, "reason": "result too large to compare in memory"}

    def _judge(self, task: Task) -> dict[str, Any]:
        texts = _Texts(task, self.rules, self.limits.max_sql_bytes)
        by_official = self._official(task, texts)
        ruling = by_official if self.rules.official else self._strict(task, texts)
        judged = outcome(ruling, official=_truth(by_official))
        if not self.rules.official:
            judged["differences"] = self._differences(task, texts, ruling, by_official)
        if self.rules.preview_rows:
            gold_text = texts.official_gold if self.rules.official else texts.strict_gold
            gold = self._golds.get((task.places[0].key, gold_text))
            judged["gold_result"] = preview(gold, self.rules.preview_rows)
            text = texts.official if self.rules.official else texts.strict
            predicted = gold if text == gold_text else texts.results.get((task.places[0].key, text))
            judged["predicted_result"] = preview(predicted, self.rules.preview_rows)
        return judged

    # Strict

    def _strict(self, task: Task, texts: _Texts) -> Ruling:
        ordered = compare.is_ordered(task.gold)

        def same(gold: Result, predicted: Result) -> tuple[bool, str]:
            if not gold.rows and not predicted.rows and len(gold.columns) != len(predicted.columns):
                return False, f"no rows, as the gold has, but {len(predicted.columns)} columns, not {len(gold.columns)}"
            return compare.same_result(gold.rows, predicted.rows, ordered=ordered)

        everywhere = [*task.places, *task.neighbours]
        return self._everywhere(everywhere, texts.strict_gold, texts.strict, texts, same)

    # Official

    def _official(self, task: Task, texts: _Texts) -> Ruling:
        ordered = official.is_ordered(texts.official_gold)

        def same(gold: Result, predicted: Result) -> tuple[bool, str]:
            return compare.same_result_official(_legible(gold), _legible(predicted), ordered=ordered)

        first: Ruling | None = None
        self._steps = 0
        for prediction in texts.official_predictions():
            ruling = self._everywhere(
                task.places,
                texts.official_gold,
                prediction,
                texts,
                same,
                nothing_is_empty=bool(task.prediction.strip()),
            )
            if _truth(ruling) is not False:
                return ruling
            first = first or ruling
            if self._steps > self.limits.max_steps:
                break  # all that values are plugged into together may take as long as one query
        assert first is not None
        return first

    # Both

    def _everywhere(
        self,
        places: list[Place],
        gold_text: str,
        text: str,
        texts: _Texts,
        same: Callable[[Result, Result], tuple[bool, str]],
        nothing_is_empty: bool = False,
    ) -> Ruling:
        """MATCH or EMPTY_BOTH where all places agree; else the first failure, before the first gold that fails.

        With `nothing_is_empty` a text without a statement, a comment say, has an empty result, and so has BEGIN.
        """
        gold_failure: Ruling | None = None
        verdict = Verdict.EMPTY_BOTH
        for number, place in enumerate(places):
            try:
                gold = self._gold(place, gold_text)
            except _DoesNotBuild as error:
                return Ruling(Verdict.GOLD_ERROR, f"gold: the database does not build: {error}")
            if gold.error:
                kind = Verdict.GOLD_BUDGET if gold.error in OVER_A_LIMIT else Verdict.GOLD_ERROR
                gold_failure = gold_failure or Ruling(kind, _on(place, number, f"gold: {gold.reason}"))
                continue
            predicted = gold if text == gold_text else self._predicted(place, text, texts)
            if predicted.error and not (nothing_is_empty and _returns_nothing(text, predicted)):
                return Ruling(predicted.error, _on(place, number, predicted.reason))
            equal, reason = same(gold, predicted)
            if not equal:
                return Ruling(Verdict.MISMATCH, _on(place, number, reason))
            if gold.rows:
                verdict = Verdict.MATCH
        return gold_failure or Ruling(verdict)

    def _gold(self, place: Place, text: str) -> Result:
        key = (place.key, text)
        if key in self._golds:
            self._golds.move_to_end(key)
            return self._golds[key]
        result = self._run(GOLD, place, text)
        self._golds[key] = result
        self._gold_cells += _cells(result)
        while self._gold_cells > KEPT_GOLD_CELLS and len(self._golds) > 1:
            self._gold_cells -= _cells(self._golds.popitem(last=False)[1])
        return result

    def _predicted(self, place: Place, text: str, texts: _Texts) -> Result:
        """The result of a prediction; one that both rules run as it is runs once."""
        key = (place.key, text)
        if key in texts.results:
            return texts.results[key]
        result = self._run(PREDICTION, place, text)
        if text in (texts.strict, texts.official):  # not those with values plugged in: there can be thousands
            texts.results[key] = result
        return result

    def _run(self, phase: int, place: Place, text: str) -> Result:
        reader = self._reader(place)
        self.watch(phase)
        result = reader.run(text)
        if result.out_of_memory and self._let_go(reader):
            self.watch(phase)
            result = reader.run(text)
        self.watch(OURS)
        self._steps += reader.steps
        return result

    def _let_go(self, kept: Reader | None) -> bool:
        """Give back the memory of everything but one reader; whether there was anything to give."""
        others = {key: reader for key, reader in self._readers.items() if reader is not kept}
        anything = bool(others or self._golds)
        for key, reader in others.items():
            del self._readers[key]
            if isinstance(reader, Reader):
                reader.close()
        self._golds.clear()
        self._gold_cells = 0
        return anything

    def _reader(self, place: Place) -> Reader:
        """The open database; one whose script does not build is remembered as such."""
        key = (place.key, place.path)
        if key not in self._readers:
            self._readers[key] = self._opened(place)
            if len(self._readers) > OPEN_DATABASES:
                oldest = self._readers.popitem(last=False)[1]
                if isinstance(oldest, Reader):
                    oldest.close()
        self._readers.move_to_end(key)
        reader = self._readers[key]
        if isinstance(reader, str):
            raise _DoesNotBuild(reader)
        return reader

    def _opened(self, place: Place) -> Reader | str:
        """A new reader, or why a script does not build."""
        try:
            connection = database.open_readonly(place.path) if place.path else database.open_memory(place.context)
        except sqlite3.Error as error:
            return str(error)
        except MemoryError:
            return self._opened(place) if self._let_go(None) else "out of memory"
        return Reader(connection, self.limits)

    # What sets strict and official apart

    def _differences(self, task: Task, texts: _Texts, strict: Ruling, by_official: Ruling) -> list[str]:
        """Why the two rules disagree on this pair, in words; empty where they agree."""
        if _truth(strict) == _truth(by_official):
            return []
        causes = [words for changed, words in texts.rewritings() if changed]
        if compare.is_ordered(task.gold) != official.is_ordered(texts.official_gold):
            causes.append("official takes the order of rows as asked for where the gold says 'order by' anywhere")
        if strict.reason.startswith("on neighbour"):
            causes.append("only a neighbour database tells them apart")
        if not causes:
            causes.append(f"strict: {_in_words(strict)}; official: {_in_words(by_official)}")
        return causes


class _DoesNotBuild(Exception):
    """The script of a database failed, in words."""


class _Texts:
    """The texts that are run for one task, and the results of the prediction's."""

    def __init__(self, task: Task, rules: Rules, max_bytes: int) -> None:
        self.task, self.keep_distinct = task, rules.keep_distinct
        self.plug_value = rules.plug_value
        self.strict_gold, self.strict = _stripped(task.gold), _stripped(task.prediction)
        self.official_gold = official.gold_text(task.gold, keep_distinct=rules.keep_distinct)
        self.official = self.strict
        if len(task.prediction) <= max_bytes:
            self.official = official.prediction_text(task.prediction, keep_distinct=rules.keep_distinct)
        self.results: dict[tuple[str, str], Result] = {}
        # Texts that differ in a last semicolon or in space around them need no second run.
        self.official_gold = _merged(self.official_gold, self.strict_gold)
        self.official = _merged(self.official, self.strict)

    def official_predictions(self) -> Iterator[str]:
        """The prediction, then, with plug_value, the ways to put the gold's values into it, up to MAX_PLUGGED."""
        yield self.official
        if self.plug_value and max(map(len, (self.official, self.official_gold))) <= official.MAX_LENGTH:
            plugged = official.plugged(self.task.gold, self.task.prediction, keep_distinct=self.keep_distinct)
            yield from islice(plugged, MAX_PLUGGED)

    def rewritings(self) -> list[tuple[bool, str]]:
        """What official may change in the texts: (whether it did, in words)."""
        if self.official == self.strict and self.official_gold == self.strict_gold:
            return []
        gold, prediction = self.task.gold.lower(), self.task.prediction.lower()
        spaced = ("> =", "< =", "! =")
        return [
            (not self.keep_distinct and "distinct" in gold, "official strips DISTINCT from the gold"),
            (not self.keep_distinct and "distinct" in prediction, "official strips DISTINCT from the prediction"),
            ("value" in self.task.prediction, "official puts 1 for 'value' in the prediction"),
            (any(operator in prediction for operator in spaced), "official joins spaced operators in the prediction"),
            (";" in self.strict, "official runs the first statement only"),
        ]


def _stripped(sql: str) -> str:
    return sql.strip().removesuffix(";").rstrip()


def _merged(text: str, strict: str) -> str:
    """The strict text for one that is the same but for its last semicolon and the space around it, else the text."""
    return strict if _stripped(text) == strict and not strict.endswith(";") else text


def _returns_nothing(sql: str, result: Result) -> bool:
    """Whether SQLite would take this for a statement that returns nothing and changes nothing."""
    begins = result.error is Verdict.DENIED_WRITE and re.match(r"\s*(begin|savepoint)\b", sql, re.IGNORECASE)
    return result.error is Verdict.EMPTY_PREDICTION or bool(begins)


def _on(place: Place, number: int, reason: str) -> str:
    return f"on {place.name}: {reason}" if number else reason


def _truth(ruling: Ruling) -> bool | None:
    """Whether the prediction is right; None where the gold fails."""
    if ruling.verdict in (Verdict.GOLD_ERROR, Verdict.GOLD_BUDGET):
        return None
    return ruling.verdict in (Verdict.MATCH, Verdict.EMPTY_BOTH)


def _in_words(ruling: Ruling) -> str:
    return f"{ruling.verdict.value} ({ruling.reason})" if ruling.reason else ruling.verdict.value


def _cells(result: Result) -> int:
    return 1 + len(result.rows) * len(result.columns)


def _legible(result: Result) -> list[tuple]:
    """The rows as the official evaluator reads them: bytes that are not UTF-8 are left out of a text."""
    if not result.ill_coded:
        return result.rows
    return [tuple(_left_out(value) if isinstance(value, str) else value for value in row) for row in result.rows]


def _left_out(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "ignore")
