"""The training examples as the model will see them: lengths in tokens, what had to be shortened, and one in full."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from text2sql import data, prompts
from text2sql.config import Config
from text2sql.errors import first_line


@dataclass(frozen=True)
class View:
    """Training example `number`: text of the tokens that are only read, of those that are learned, and of the EOS token."""

    number: int
    id: str
    masked: str
    trained: str
    eos: str
    num_masked: int
    num_trained: int


@dataclass(frozen=True)
class Tokens:
    """Lengths of the training examples in tokens, how many prompts lost a part of their schema, how many rows were left out."""

    lengths: list[int]
    num_shortened: int
    num_too_long: int
    num_trained: int
    view: View

    @property
    def mean(self) -> float:
        return fmean(self.lengths)

    def percentile(self, share: float) -> int:
        """The length that `share` (0 to 1) of the examples do not exceed."""
        return sorted(self.lengths)[max(0, math.ceil(share * len(self.lengths)) - 1)]


def measure(config: Config, number: int = 0) -> tuple[Tokens | None, list[str]]:
    """Encode the training examples of `config` as training does; None with the reasons where that cannot be done here.

    ValueError if there is no example `number`, or data.on_bad_row=refuse and one does not fit.
    """
    from tqdm import tqdm

    from text2sql import model

    notes, examples, tokenizer = [], [], None
    try:
        tokenizer = model.load_tokenizer(config.model)
    except (ValueError, RuntimeError) as error:
        notes.append(f"no tokenizer, so nothing about tokens: {first_line(error)}")
    try:
        examples = data.load(config.data, "train", seed=config.seed).examples
    except ValueError as error:
        notes.append(f"no data: {first_line(error)}")
    if notes or tokenizer is None:
        return None, notes
    shown = tqdm(examples, desc="tokens", unit="example", leave=False, disable=None)
    encoded, too_long = prompts.encode_all(tokenizer, shown, config)
    if not encoded:
        return None, [f"no example fits: {too_long[0]}"]
    if not 0 <= number < len(encoded):
        raise ValueError(f"--example {number} does not exist; there are 0 to {len(encoded) - 1}")
    return Tokens(
        lengths=[len(one.ids) for _, one in encoded],
        num_shortened=sum(one.shortened > 0 for _, one in encoded),
        num_too_long=len(too_long),
        num_trained=sum(len(one.ids) - one.prompt_length for _, one in encoded),
        view=_view(number, encoded[number][0].id, encoded[number][1], tokenizer),
    ), []


def _view(number: int, id: str, encoded: prompts.Encoded, tokenizer: Any) -> View:
    masked, trained = encoded.ids[: encoded.prompt_length], encoded.ids[encoded.prompt_length :]
    assert trained[-1] == tokenizer.eos_token_id
    return View(
        number,
        id,
        tokenizer.decode(masked),
        tokenizer.decode(trained[:-1]),
        tokenizer.eos_token,
        len(masked),
        len(trained),
    )
