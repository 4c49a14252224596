"""Choose among several answers to one question by what they return: the most frequent result wins. No gold is looked at.

The rule is the execution-guided self-consistency of Li et al. 2022 (AlphaCode's clusters) and Ni et al. 2023 (LEVER's
baseline): answers that fail have no vote, and those with equal results vote together, however they are written.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from text2sql.example import Example
from text2sql.scorer import Executed


class Runner(Protocol):
    """What runs texts: a `scorer.Scorer`."""

    def run_all(self, pairs: Sequence[tuple[Example, str]]) -> Iterator[Executed]: ...


@dataclass(frozen=True)
class Candidate:
    """One text, how many of the answers are that text, and what came of running it."""

    text: str
    count: int
    executed: Executed


@dataclass(frozen=True)
class Vote:
    """The distinct answers to one question as they first came up, the greedy one first; `winner` is a place among them."""

    candidates: tuple[Candidate, ...]
    winner: int

    @property
    def prediction(self) -> str:
        return self.candidates[self.winner].text

    def votes(self, place: int) -> int:
        """How many answers have the result of this candidate; 0 for one that fails."""
        executed = self.candidates[place].executed
        if executed.error:
            return 0
        return sum(one.count for one in self.candidates if one.executed == executed)

    def rows(self) -> list[dict[str, Any]]:
        """For a row of predictions.jsonl: {text, count, votes, verdict, reason} for each candidate; `runs` is no error."""
        return [
            {
                "text": one.text,
                "count": one.count,
                "votes": self.votes(place),
                "verdict": one.executed.error.value if one.executed.error else "runs",
                "reason": one.executed.reason,
            }
            for place, one in enumerate(self.candidates)
        ]


def vote(examples: Sequence[Example], answers: Sequence[Sequence[str]], runner: Runner) -> Iterator[Vote]:
    """One vote an example, in their order; `answers` has for each its texts, the greedy one first. Equal texts run once."""
    counted = [Counter(texts) for texts in answers]  # keeps the order of first appearance
    pairs = [(example, text) for example, counts in zip(examples, counted, strict=True) for text in counts]
    executed = runner.run_all(pairs)
    for counts in counted:
        candidates = tuple(Candidate(text, count, next(executed)) for text, count in counts.items())
        yield Vote(candidates, choose(candidates))


def choose(candidates: Sequence[Candidate]) -> int:
    """The place of the winner: the first candidate with the most frequent result.

    Between results as frequent, one with rows beats one without, then the one that came up first. Where all fail the first
    candidate wins.
    """
    places: defaultdict[Executed, list[int]] = defaultdict(list)
    for place, one in enumerate(candidates):
        if not one.executed.error:
            places[one.executed].append(place)
    if not places:
        return 0
    _, best = max(
        places.items(),
        key=lambda group: (sum(candidates[place].count for place in group[1]), group[0].num_rows > 0, -group[1][0]),
    )
    return best[0]


def metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over rows with `candidates` and `before_votes`; none where there are none.

    `eval/votes_changed_rate` is the share whose SQL is not the greedy one, `eval/votes_agreement` the share of the answers
    that have the winning result, `eval/votes_failed_rate` the share of which no answer runs, `eval/votes_distinct` how many
    texts the answers are.
    """
    rows = [row for row in rows if row.get("candidates")]
    if not rows:
        return {}
    asked = sum(one["count"] for one in rows[0]["candidates"])
    won = [max(one["votes"] for one in row["candidates"]) for row in rows]
    return {
        "eval/votes_changed_rate": sum("before_votes" in row for row in rows) / len(rows),
        "eval/votes_agreement": sum(won) / asked / len(rows),
        "eval/votes_failed_rate": sum(count == 0 for count in won) / len(rows),
        "eval/votes_distinct": sum(len(row["candidates"]) for row in rows) / len(rows),
    }
