"""An answer that does not run is asked for again in the same conversation, within the same length, with the nearest names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from text2sql import model, prompts, repair
from text2sql.example import Column, Example, Schema, Table, Verdict
from text2sql.scorer import Executed

SCHEMA = Schema(
    (
        Table("singer", tuple(map(Column, ("singer_id", "name", "age")))),
        Table("concert", tuple(map(Column, ("concert_id", "theme", "year")))),
    )
)
EXAMPLE = Example("1", "Which themes are there?", "SELECT theme FROM concert", "concerts", SCHEMA)


@pytest.mark.parametrize(
    ("sql", "error", "reason", "said"),
    [
        ("SELECT nme FROM singer", Verdict.UNKNOWN_COLUMN, "no such column: nme", "no column 'nme' in singer; nearest: singer.name"),
        ("SELECT name FROM singers", Verdict.UNKNOWN_TABLE, "no such table: singers", "no table 'singers'; nearest: singer"),
        ("SELECT theme FROM singer", Verdict.UNKNOWN_COLUMN, "no such column: theme", "concert"),
        ("SELECT nme FROM singer WHERE", Verdict.UNKNOWN_COLUMN, "no such column: nme", "no column 'nme' in any table; nearest: singer.name"),
    ],
)  # fmt: skip
def test_the_error_and_the_nearest_names_are_told(sql, error, reason, said):
    message = repair.complaint(sql, Executed(error=error, reason=reason), SCHEMA)
    first, second, last = message.split("\n")
    assert first == f"The database refuses this query: {reason}."
    assert said in second
    assert last == "Write the corrected query. Reply with SQL only."


@pytest.mark.parametrize(
    ("error", "reason", "first"),
    [
        (Verdict.SYNTAX, 'near "SELEC": syntax error', 'this query: near "SELEC": syntax error.'),
        (Verdict.EMPTY_PREDICTION, "", "this query: empty prediction."),
        (Verdict.SYNTAX, "x" * 10_000, f"this query: {'x' * 300}."),
    ],
)
def test_where_no_name_is_wrong_only_the_error_is_told(error, reason, first):
    lines = repair.complaint("SELEC", Executed(error=error, reason=reason), SCHEMA).split("\n")
    assert len(lines) == 2 and lines[0].endswith(first)


def test_without_a_schema_no_name_is_told():
    executed = Executed(error=Verdict.UNKNOWN_TABLE, reason="no such table: a")
    assert len(repair.complaint("SELECT 1 FROM a", executed, Schema()).split("\n")) == 2


@pytest.fixture(scope="module")
def settings(small):
    return small("prompt=ddl", primary="evaluate")


@pytest.fixture(scope="module")
def tokenizer(settings):
    return model.load_tokenizer(settings.model)


def test_the_second_turn_continues_the_first(settings, tokenizer):
    first = prompts.encode_prompt(tokenizer, EXAMPLE, settings).ids
    ids = repair.encode(tokenizer, EXAMPLE, settings, "SELECT a FROM b", "No.")
    assert ids[: len(first)] == first
    chat = prompts.messages(EXAMPLE, settings.prompt, settings.model.system_role)
    chat += [{"role": "assistant", "content": "SELECT a FROM b"}, {"role": "user", "content": "No."}]
    assert ids == tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)


def shortened_to(settings, max_length):
    return replace(settings, trainer=replace(settings.trainer, max_length=max_length))


def test_a_conversation_that_is_too_long_loses_schema_and_never_the_message(settings, tokenizer):
    whole = repair.encode(tokenizer, EXAMPLE, settings, "SELECT a FROM b", "No such thing.")
    tight = shortened_to(settings, len(whole) - 5 + settings.prompt.max_sql_tokens)
    ids = repair.encode(tokenizer, EXAMPLE, tight, "SELECT a FROM b", "No such thing.")
    assert len(ids) <= tight.trainer.max_length - tight.prompt.max_sql_tokens
    text = tokenizer.decode(ids)
    assert "No such thing." in text and "SELECT a FROM b" in text and EXAMPLE.question in text
    assert len(ids) < len(whole), "the schema is shorter"


@pytest.mark.parametrize("max_length", [70, 100])
def test_where_there_is_no_room_at_all_it_is_too_long(settings, tokenizer, max_length):
    with pytest.raises(prompts.TooLong):
        repair.encode(tokenizer, EXAMPLE, shortened_to(settings, max_length), "SELECT a FROM b", "No such thing.")


def test_a_template_that_rewrites_earlier_turns_is_refused(settings, tokenizer):
    class Rewriting:
        def apply_chat_template(self, chat, **_):
            return " ".join(message["content"] for message in chat[-1:])

    with pytest.raises(ValueError, match=r"chat template of tiny .* set eval\.repair=false"):
        repair.encode(Rewriting(), EXAMPLE, settings, "SELECT a FROM b", "No.")


def test_metrics_are_shares_of_all_rows():
    rows = [{}, {"repair": {}}, {"repair": {}, "before_repair": "SELEC"}, {}]
    assert repair.metrics(rows) == {"eval/repair_asked_rate": 0.5, "eval/repaired_rate": 0.25}
