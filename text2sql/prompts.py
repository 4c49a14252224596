"""How a question becomes tokens: schema, chat messages and labels, by the same code for training and evaluation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from text2sql import serialise
from text2sql.config import BadRow, Config, Prompt, SqlForm
from text2sql.example import Example
from text2sql.shortening import Shown, fewest_steps
from text2sql.sql.qualify import qualified

LITERAL_OR_SPACE = re.compile(
    r"""('(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\])|(?:\s|--[^\n]*|/\*.*?\*/)+""", re.DOTALL
)


MOST_CHARACTERS_A_TOKEN = 16
"""Of a schema only so many characters for each token of the limit are tokenised at first: enough to see that it is over."""


class TooLong(ValueError):
    """An example that cannot be made to fit: a fault of one row, which data.on_bad_row may drop."""


@dataclass(frozen=True)
class Encoded:
    """One example as token ids: `ids[:prompt_length]` is the prompt, the rest (if any) the SQL and the EOS token.

    `shortened` counts the tables and columns that were left out of the schema to fit.
    """

    ids: list[int]
    prompt_length: int
    shortened: int = 0


STYLES = ("question_only", *serialise.STYLES)


def check_style(prompt: Prompt) -> None:
    """ValueError naming the styles there are, if prompt.style is none of them."""
    if prompt.style not in STYLES:
        raise ValueError(f"prompt.style={prompt.style} does not exist; it can be {', '.join(sorted(STYLES))}")


def messages(example: Example, prompt: Prompt, system_role: bool, seed: int = 0) -> list[dict[str, str]]:
    """The chat up to the answer, with the whole schema; `seed` sets a shuffled order.

    The instruction is a system message where the model's template has one (it then takes the place of any default), else it
    opens the user message. ValueError when the style shows a schema and the example has none.
    """
    schema = None if prompt.style == "question_only" else Shown(example, prompt, seed).text(0)
    return _chat(example.question, schema, prompt, system_role)


def _chat(question: str, schema: str | None, prompt: Prompt, system_role: bool) -> list[dict[str, str]]:
    """The one place where schema, question and instruction become a chat; `schema` is None for question_only."""
    text = f"Question: {question}"
    if schema is not None:
        first = f"{text}\n\n" if prompt.question_first else ""
        text = f"{first}Schema:\n{schema}\n\n{text}"
    if system_role:
        return [{"role": "system", "content": prompt.instruction}, {"role": "user", "content": text}]
    return [{"role": "user", "content": f"{prompt.instruction}\n\n{text}"}]


def target(sql: str) -> str:
    """SQL as the model shall write it: on one line, single spaces outside quotes, no closing semicolon."""
    one_line = LITERAL_OR_SPACE.sub(lambda match: match[1] or " ", sql)
    return one_line.strip().rstrip("; ")


def answer(example: Example, prompt: Prompt) -> str:
    """What the model shall answer: the gold SQL, with prompt.sql_form=qualified in the form of `text2sql.sql.qualify`."""
    return target(qualified(example.sql, example.schema) if prompt.sql_form is SqlForm.qualified else example.sql)


def encode_prompt(tokenizer: Any, example: Example, config: Config) -> Encoded:
    """The prompt's token ids, within trainer.max_length - prompt.max_sql_tokens, its schema's within prompt.max_schema_tokens.

    A schema that is longer is shortened as `text2sql.shortening` says; question and instruction are never touched. TooLong if
    the prompt does not fit with the least of its schema either.
    """
    schema, steps = None, 0
    if config.prompt.style != "question_only":
        shown = Shown(example, config.prompt, config.seed)
        steps = steps_to_fit(tokenizer, shown, config)
        schema = shown.text(steps)
    ids = _ids(tokenizer, example, schema, config)
    if len(ids) > (limit := _limit(config)):
        raise TooLong(
            f"the prompt of {example.id} has {len(ids)} tokens without a schema to shorten, over the {limit} that "
            f"trainer.max_length={config.trainer.max_length} less prompt.max_sql_tokens={config.prompt.max_sql_tokens} "
            "leaves; raise trainer.max_length or leave the question out"
        )
    return Encoded(ids, len(ids), steps)


def steps_to_fit(tokenizer: Any, shown: Shown, config: Config) -> int:
    """After how many steps of shortening the prompt fits: all of them where it never does.

    TooLong where the schema alone never fits prompt.max_schema_tokens.
    """
    most = config.prompt.max_schema_tokens

    def whole(schema: str) -> list[int]:
        return _ids(tokenizer, shown.example, schema, config)

    def alone(schema: str) -> list[int]:
        ids: list[int] = tokenizer(schema, add_special_tokens=False)["input_ids"]
        return ids

    def excess(schema: str) -> int:
        if most is None:
            return _excess(whole, schema, _limit(config))
        over = _excess(alone, schema, most)
        return over if over > 0 else max(over, _excess(whole, schema, _limit(config)))

    steps = fewest_steps(shown, excess)
    if steps is not None:
        return steps
    if most is not None and (least := len(alone(shown.text(shown.most_steps)))) > most:
        raise TooLong(
            f"the schema of {shown.example.id} has {least} tokens with one column left, over "
            f"prompt.max_schema_tokens={most}; raise it"
        )
    return shown.most_steps


def _limit(config: Config) -> int:
    return config.trainer.max_length - config.prompt.max_sql_tokens


def _ids(tokenizer: Any, example: Example, schema: str | None, config: Config) -> list[int]:
    chat = _chat(example.question, schema, config.prompt, config.model.system_role)
    ids: list[int] = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
    return ids


def _excess(tokenise: Callable[[str], list[int]], schema: str, limit: int) -> int:
    """By how many tokens a schema makes a text too long, by estimate where the beginning of the schema alone does."""
    start = schema[: MOST_CHARACTERS_A_TOKEN * max(limit, 1)]
    over = len(tokenise(start)) - limit
    if over <= 0 and len(start) < len(schema):
        return len(tokenise(schema)) - limit
    return over if len(start) == len(schema) else (over + limit) * len(schema) // len(start) - limit


def encode(tokenizer: Any, example: Example, config: Config) -> Encoded:
    """Prompt, SQL and EOS token for training: the prompt of `encode_prompt`, so a token prefix by construction.

    TooLong if the SQL is longer than prompt.max_sql_tokens, EOS included.
    """
    encoded = encode_prompt(tokenizer, example, config)
    text = answer(example, config.prompt)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    if len(ids) > (limit := config.prompt.max_sql_tokens):
        raise TooLong(f"the SQL of {example.id} has {len(ids)} tokens, over prompt.max_sql_tokens={limit}; raise it")
    return replace(encoded, ids=encoded.ids + ids)


def encode_all(
    tokenizer: Any, examples: Iterable[Example], config: Config
) -> tuple[list[tuple[Example, Encoded]], list[str]]:
    """The examples that fit, encoded, and why each other one does not; TooLong at the first if data.on_bad_row=refuse."""
    encoded, too_long = [], []
    for example in examples:
        try:
            encoded.append((example, encode(tokenizer, example, config)))
        except TooLong as error:
            if config.data.on_bad_row is BadRow.refuse:
                raise
            too_long.append(str(error))
    return encoded, too_long
