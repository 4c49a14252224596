"""How a question becomes tokens: schema, chat messages and labels, by the same code for training and evaluation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from text2sql.config import BadRow, Config, Prompt
from text2sql.example import Example, Schema, Table

PLAIN_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The reserved words that real schemas use as names; SQLite accepts its other keywords unquoted where a name is expected.
RESERVED = frozenset(
    "add all alter and as between by case check column commit constraint create cross default delete distinct drop else "
    "escape except exists foreign from full group having in index inner insert intersect into is isnull join left "
    "limit natural not notnull null on or order outer primary references right select set table then to transaction union "
    "unique update using values when where autoincrement cast collate current_date current_time current_timestamp "
    "deferrable if nothing raise returning".split()
)
LITERAL_OR_SPACE = re.compile(
    r"""('(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\])|(?:\s|--[^\n]*|/\*.*?\*/)+""", re.DOTALL
)


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


def quote(name: str) -> str:
    """`name` as it must be written in SQLite: bare where that is allowed, else in double quotes."""
    if PLAIN_IDENTIFIER.fullmatch(name) and name.lower() not in RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def create_table(table: Table) -> str:
    """One CREATE TABLE statement on one line, with types and the primary key."""
    keys = [column.name for column in table.columns if column.primary_key]
    parts = [
        " ".join(filter(None, (quote(c.name), c.type, "PRIMARY KEY" if keys == [c.name] else "")))
        for c in table.columns
    ]
    if len(keys) > 1:
        parts.append(f"PRIMARY KEY ({', '.join(map(quote, keys))})")
    return f"CREATE TABLE {quote(table.name)} ({', '.join(parts)});"


def question_only(example: Example) -> str:
    """The original work's prompt: the question and nothing of the database."""
    return f"Question: {example.question}"


def ddl(example: Example) -> str:
    """The CREATE TABLE statements of the database, then the question. ValueError when the schema is not known."""
    if not example.schema.tables:
        raise ValueError(
            f"prompt=ddl needs a schema and {example.id} has none; point data.path at data with databases "
            "(Spider's official folder, or mini), or use prompt=question_only"
        )
    schema = "\n".join(create_table(table) for table in example.schema.tables)
    return f"Schema:\n{schema}\n\nQuestion: {example.question}"


STYLES: dict[str, Callable[[Example], str]] = {"question_only": question_only, "ddl": ddl}


def check_style(prompt: Prompt) -> None:
    """ValueError naming the styles there are, if prompt.style is none of them."""
    if prompt.style not in STYLES:
        raise ValueError(f"prompt.style={prompt.style} does not exist; it can be {', '.join(sorted(STYLES))}")


def messages(example: Example, prompt: Prompt, system_role: bool) -> list[dict[str, str]]:
    """The chat up to the answer. The instruction is a system message where the model's template has one (it then takes the
    place of any default), else it opens the user message."""
    text = STYLES[prompt.style](example)
    if system_role:
        return [{"role": "system", "content": prompt.instruction}, {"role": "user", "content": text}]
    return [{"role": "user", "content": f"{prompt.instruction}\n\n{text}"}]


def target(sql: str) -> str:
    """The gold SQL as the model shall write it: on one line, single spaces outside quotes, no closing semicolon."""
    one_line = LITERAL_OR_SPACE.sub(lambda match: match[1] or " ", sql)
    return one_line.strip().rstrip("; ")


def encode_prompt(tokenizer: Any, example: Example, config: Config) -> Encoded:
    """The prompt's token ids, at most trainer.max_length - prompt.max_sql_tokens of them.

    A prompt that is longer loses tables, then columns, of its schema, the least related to the question first; question and
    instruction are never touched. TooLong if it does not fit without any schema either.
    """
    prompt, max_length = config.prompt, config.trainer.max_length
    limit, shortened = max_length - prompt.max_sql_tokens, 0
    while True:
        chat = messages(example, prompt, config.model.system_role)
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True)
        if len(ids) <= limit:
            return Encoded(ids, len(ids), shortened)
        smaller = without_least_related(example) if prompt.style != "question_only" else None
        if smaller is None:
            raise TooLong(
                f"the prompt of {example.id} has {len(ids)} tokens without a schema to shorten, over the {limit} that "
                f"trainer.max_length={max_length} less prompt.max_sql_tokens={prompt.max_sql_tokens} leaves; "
                "raise trainer.max_length or leave the question out"
            )
        example, shortened = smaller, shortened + 1


def encode(tokenizer: Any, example: Example, config: Config) -> Encoded:
    """Prompt, SQL and EOS token for training: the prompt of `encode_prompt`, so a token prefix by construction.

    TooLong if the SQL is longer than prompt.max_sql_tokens, EOS included.
    """
    encoded = encode_prompt(tokenizer, example, config)
    answer = tokenizer(target(example.sql), add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    if len(answer) > (limit := config.prompt.max_sql_tokens):
        raise TooLong(f"the SQL of {example.id} has {len(answer)} tokens, over prompt.max_sql_tokens={limit}; raise it")
    return replace(encoded, ids=encoded.ids + answer)


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


def words(text: str) -> set[str]:
    """Lower-case words of a question or an identifier: split at underscores and capitals, plural s dropped."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text).replace("_", " ").lower()
    return {word[:-1] if len(word) > 3 and word.endswith("s") else word for word in re.findall(r"\w+", spaced)}


def without_least_related(example: Example) -> Example | None:
    """The example less the table (the last one's: less the column) that shares fewest words with the question; ties: the later.

    None once one column of one table is left.
    """
    asked = words(example.question)
    tables = list(example.schema.tables)
    if len(tables) > 1:
        related = [
            (len(words(t.name) & asked), len(set().union(*(words(c.name) for c in t.columns)) & asked)) for t in tables
        ]
        del tables[min(range(len(tables)), key=lambda i: (related[i], -i))]
    elif tables and len(tables[0].columns) > 1:
        columns = list(tables[0].columns)
        del columns[min(range(len(columns)), key=lambda i: (len(words(columns[i].name) & asked), -i))]
        tables = [replace(tables[0], columns=tuple(columns))]
    else:
        return None
    return replace(example, schema=Schema(tuple(tables)))
