"""One more turn for an answer that does not run, with the database's error and the nearest names that there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from text2sql import prompts
from text2sql.config import Config
from text2sql.example import Example, Schema, Verdict
from text2sql.scorer import Executed
from text2sql.sql import diagnose, names

MAX_REASON_CHARACTERS = 300
MAX_NAMES = 5
REQUEST = "Write the corrected query. Reply with SQL only."


def complaint(sql: str, executed: Executed, schema: Schema) -> str:
    """The user's next message: why the database refuses the query, and where names are wrong, the nearest that there are."""
    assert executed.error is not None
    reason = executed.reason[:MAX_REASON_CHARACTERS].rstrip(".") or executed.error.value.replace("_", " ")
    lines = [f"The database refuses this query: {reason}."]
    lines += [
        f"There is {detail}." if detail.startswith("no ") else f"{detail}." for detail in _names(sql, executed, schema)
    ]
    return "\n".join([*lines, REQUEST])


def _names(sql: str, executed: Executed, schema: Schema) -> list[str]:
    """A sentence on each name that is none, with the nearest that is one; on that of the error where the SQL does not parse."""
    if not schema.tables:
        return []
    try:
        found = [one.detail for one in names.read(sql, schema).unknown if not one.is_text]
    except ValueError:
        found = []
    if not found and executed.error in (Verdict.UNKNOWN_TABLE, Verdict.UNKNOWN_COLUMN):
        kind, pattern = diagnose.MESSAGES[executed.error]
        if named := pattern.match(executed.reason):
            found = [names.unknown_name(kind, named[1], schema).detail]
    return list(dict.fromkeys(found))[:MAX_NAMES]


def encode(tokenizer: Any, example: Example, config: Config, sql: str, message: str) -> list[int]:
    """The ids of the prompt, the answer `sql`, and `message` as the user's next turn: what encode_prompt gives with less room.

    prompts.TooLong where that does not fit trainer.max_length beside prompt.max_sql_tokens; ValueError for a chat template that
    writes a conversation otherwise than by going on with it.
    """
    chat = prompts.messages(example, config.prompt, config.model.system_role)
    turns = [*chat, {"role": "assistant", "content": sql}, {"role": "user", "content": message}]
    begun, whole = (
        tokenizer.apply_chat_template(some, add_generation_prompt=True, tokenize=False) for some in (chat, turns)
    )
    if not whole.startswith(begun):
        raise ValueError(
            f"eval.repair=true: the chat template of {config.model.name} rewrites earlier turns, so that a second one does "
            "not continue the prompt it was trained on; set eval.repair=false"
        )
    added: list[int] = tokenizer(whole[len(begun) :], add_special_tokens=False)["input_ids"]
    room = config.trainer.max_length - len(added)
    if room <= config.prompt.max_sql_tokens:
        raise prompts.TooLong(
            f"the refused query of {example.id} leaves no room for its prompt; raise trainer.max_length"
        )
    shorter = replace(config, trainer=replace(config.trainer, max_length=room))
    return prompts.encode_prompt(tokenizer, example, shorter).ids + added


def metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`eval/repaired_rate`, the share of rows whose SQL was replaced by one that runs, and `eval/repair_asked_rate`."""
    total = max(1, len(rows))
    return {
        "eval/repair_asked_rate": sum("repair" in row for row in rows) / total,
        "eval/repaired_rate": sum("before_repair" in row for row in rows) / total,
    }
