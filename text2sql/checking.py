"""What a constraint allows, kept up with while rows are decoded: at every step, or some steps late while others run.

A token that is not allowed is replaced by one chosen among those that are. Greedy, that is the likeliest allowed token. A
sample that is refused and drawn again among the allowed is a sample of the distribution over the allowed alone: an allowed
token of probability p comes up with p + (1 - P) p / P = p / P, where P is the probability of all that is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from text2sql.steps import NOTHING, Steps


class Constraint(Protocol):
    """Which tokens an answer may go on with, after `state`; EOS is allowed where the text may end."""

    def start(self) -> Any: ...

    def advance(self, state: Any, token_id: int) -> Any | None:
        """The state after a token; None where it is not allowed."""

    def mask(self, state: Any) -> Any:
        """numpy bool (vocabulary,): True for each token that is allowed, of which there is at least one."""

    def instead(self, tokens: Sequence[int], refused: int) -> tuple[int, Any] | None:
        """Where there is a better way to go on than from the last of `tokens`, after which one was refused: how many of them
        to keep, at least one, and the state there. None where there is none."""


@dataclass(eq=False)
class Answer:
    """One answer while it is made: `tokens` are those that its constraint has taken, `made` those that the device has.

    `stale` says that the steps now running began before the row was set back: what they write is for nothing. `barred`, that
    nothing noted was allowed where it was, so that the next token has to be chosen under a mask. `mended` is
    where it last went back to write another name: it does so further on only, and so an end of times.
    """

    index: int
    constraint: Constraint
    sampled: bool = False
    tokens: list[int] = field(default_factory=list)
    state: Any = None
    made: int = 0
    over: bool = False
    stale: bool = False
    barred: bool = False
    mended: int = 0

    def __post_init__(self) -> None:
        self.state = self.constraint.start()

    def take(self, token: int, eos_token_id: int, max_new_tokens: int) -> bool:
        """Whether the next token is allowed; if it is, go on behind it."""
        state = self.constraint.advance(self.state, token)
        if state is None:
            return False
        self.state = state
        if token == eos_token_id:
            self.over = True
        else:
            self.tokens.append(token)
            self.over = len(self.tokens) == max_new_tokens
        return True

    def go_back(self, refused: int) -> bool:
        """After a token that is not allowed, go back to where the name began that it is of, if a real one is like it.

        Whether tokens were taken back; where the name began here it is restricted to real ones without. Never in a sample,
        which would no longer be one of the allowed tokens.
        """
        found = None if self.sampled else self.constraint.instead(self.tokens, refused)
        if found is None or found[0] <= self.mended:
            return False
        length = len(self.tokens)
        self.mended, self.state = found
        del self.tokens[self.mended :]
        return self.mended < length


def forbidden(answers: Sequence[Answer], vocabulary: int, pinned: bool = False) -> torch.Tensor:
    """(answers, vocabulary) on the CPU: True for each token that may not come next. A head can be wider than the masks."""
    found = torch.empty((len(answers), vocabulary), dtype=torch.bool, pin_memory=pinned)
    rows = found.numpy()  # numpy fills it: torch would wake all of its threads for it
    rows.fill(True)
    for row, answer in zip(rows, answers):
        allowed = answer.constraint.mask(answer.state)[:vocabulary]
        assert allowed.any(), f"nothing is allowed after {answer.tokens}"
        np.logical_not(allowed, out=row[: len(allowed)])
    return found


class AtOnce:
    """Checks every token before the next step: a `steps.Correction`. Right where a look at the device costs nothing."""

    def __init__(self, answers: Sequence[Answer], steps: Steps) -> None:
        self.answers, self.steps = answers, steps
        self.taken_back: list[int] = []

    def __call__(self, scores: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        proposed = chosen.tolist()
        refused = [slot for slot, token in enumerate(proposed[: len(self.answers)]) if not self._take(slot, token)]
        self.taken_back = [slot for slot in refused if self.answers[slot].go_back(proposed[slot])]
        refused = [slot for slot in refused if slot not in self.taken_back]
        if not refused:
            return chosen
        where = torch.tensor(refused, device=scores.device)
        bars = forbidden([self.answers[slot] for slot in refused], scores.shape[1]).to(scores.device)
        again = self.steps.choose(scores[where].masked_fill(bars, -torch.inf), self.steps.temperatures[where])
        for slot, token in zip(refused, again.tolist()):
            taken = self._take(slot, token)
            assert taken, f"the mask allows token {token}, and the constraint does not"
        return chosen.index_copy(0, where, again)

    def rewind(self) -> None:
        """Let the rows that took tokens back in the last step stand there; what they said in it is for nothing."""
        if self.taken_back:
            answers = [self.answers[slot] for slot in self.taken_back]
            self.steps.set_back(
                self.taken_back, [len(one.tokens) for one in answers], [one.tokens[-1] for one in answers]
            )
            self.taken_back = []

    def _take(self, slot: int, token: int) -> bool:
        answer = self.answers[slot]
        return answer.over or answer.take(token, self.steps.one.eos_token_id, self.steps.max_new_tokens)


class Look:
    """What all slots had written after some steps: copied while the device goes on, to be read once it is there."""

    def __init__(self, answers: Sequence[Answer], steps: Steps) -> None:
        self.answers = list(answers)
        self.eos_token_id, self.max_new_tokens = steps.one.eos_token_id, steps.max_new_tokens
        self.event = None
        self.written, self.runners_up, self.finished, self.made = (
            _copied(tensor[: len(answers)])
            for tensor in (steps.written, steps.runners_up, steps.finished, steps.made.squeeze(1))
        )
        if steps.one.device.type == "cuda":
            self.event = torch.cuda.Event()
            self.event.record()

    def _wait(self) -> None:
        if self.event is not None:
            self.event.synchronize()

    def goes_on(self) -> bool:
        """Whether there is something to run, whatever the constraints will say of these tokens; waits for the device."""
        self._wait()
        return any(
            not answer.over and (answer.stale or not ended)
            for answer, ended in zip(self.answers, self.finished.tolist())
        )

    def check(self, runs_on: bool) -> list[Answer]:
        """Take what is allowed; the answers to be set back. `runs_on`: further steps were begun since."""
        self._wait()
        refused, written = [], self.written.numpy()
        for slot, (answer, made) in enumerate(zip(self.answers, self.made.tolist())):
            if answer.stale or answer.over:
                answer.stale = False
                continue
            answer.made = max(answer.made, made)
            for token in written[slot, len(answer.tokens) : made].tolist():
                if answer.over:
                    break
                if not answer.take(token, self.eos_token_id, self.max_new_tokens):
                    answer.go_back(token)
                    answer.barred = not self._took_another(slot, answer)
                    answer.made, answer.stale = len(answer.tokens), runs_on
                    refused.append(answer)
                    break
        return [answer for answer in refused if not answer.over]

    def _took_another(self, slot: int, answer: Answer) -> bool:
        """Whether the likeliest token that is allowed where the answer now stands was noted, and is taken."""
        place = len(answer.tokens)
        noted = [int(self.written[slot, place]), *self.runners_up[slot, place].tolist()]
        return noted[1] != NOTHING and any(
            answer.take(token, self.eos_token_id, self.max_new_tokens) for token in noted
        )


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU; of a tensor on a GPU it is there after all that was begun before."""
    if tensor.device.type == "cpu":
        return tensor.clone()
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
