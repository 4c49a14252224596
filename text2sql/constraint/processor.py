"""The constraint for transformers' generate(), with batches, beams and sampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import LogitsProcessor

from text2sql.constraint.masks import Constraint, State


class SchemaConstraint(LogitsProcessor):
    """Forbids every token that its row's constraint does not allow.

    Args:
        constraints: one for each prompt of the batch.
        prompt_tokens: the width of the padded prompts, which is where the answers begin.
        num_beams: rows per prompt: beams, or sequences returned for each prompt.
    """

    def __init__(self, constraints: Sequence[Constraint], prompt_tokens: int, num_beams: int = 1) -> None:
        self.constraints = list(constraints)
        self.prompt_tokens = prompt_tokens
        self.num_beams = num_beams
        self._known: dict[tuple[int, tuple[int, ...]], State | None] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores (rows, vocabulary) with minus infinity for what is not allowed; a row that has ended may only end."""
        if len(input_ids) != len(self.constraints) * self.num_beams:
            raise ValueError(
                f"{len(input_ids)} rows for {len(self.constraints)} prompts of {self.num_beams} beams: "
                "give SchemaConstraint one constraint a prompt, and num_beams times num_return_sequences of generate()"
            )
        allowed = np.zeros(tuple(scores.shape), dtype=bool)
        known: dict[tuple[int, tuple[int, ...]], State | None] = {}
        for row, answer in enumerate(input_ids[:, self.prompt_tokens :].tolist()):
            prompt, ids = row // self.num_beams, tuple(answer)
            constraint = self.constraints[prompt]
            state = known[prompt, ids] = self._state(prompt, ids)
            if state is None:  # a beam of probability zero, or padding
                allowed[row, constraint.vocabulary.eos_token_id] = True
                continue
            mask = constraint.mask(state)[: scores.shape[1]]
            allowed[row, : len(mask)] = mask
        self._known = known
        return scores.masked_fill(torch.from_numpy(~allowed).to(scores.device), -torch.inf)

    def _state(self, prompt: int, ids: tuple[int, ...]) -> State | None:
        """The state after `ids`, one step from one of the last call where there is one: beams change places."""
        constraint = self.constraints[prompt]
        if not ids:
            return constraint.start()
        if (prompt, ids[:-1]) in self._known:
            before = self._known[prompt, ids[:-1]]
            return constraint.advance(before, ids[-1]) if before is not None else None
        state: State | None = constraint.start()
        for token_id in ids:
            state = constraint.advance(state, token_id) if state is not None else None
        return state
