"""How a question becomes text and tokens: golden prompts, shortening that spares the question, names SQLite reads back."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text2sql import prompts, tiny
from text2sql.config import Config, Model, Order, Prompt, Trainer
from text2sql.example import Column, Example, ForeignKey, Schema, Table
from text2sql.shortening import Shown

GOLDEN = Path(__file__).parent / "golden"
INSTRUCTION = "Write one SQLite query that answers the question. Reply with SQL only."

SHOP = Example(
    id="shop-1",
    question="How many orders has each customer of 'Zürich' placed?",
    sql='SELECT customer_id,\n  count(*) FROM "order"  GROUP BY customer_id;',
    db_id="shop",
    schema=Schema(
        (
            Table("customer", (Column("id", "INTEGER", True), Column("name", "TEXT"), Column("city", "VARCHAR(40)"))),
            Table(
                "order",
                (Column("id", "INTEGER", True), Column("customer_id", "INTEGER"), Column("group", "TEXT")),
                (ForeignKey(("customer_id",), "customer", ("id",)),),
            ),
            Table(
                'line "item"',
                (
                    Column("order_id", "INTEGER", True),
                    Column("line no", "INTEGER", True),
                    Column("note", ""),
                    Column("2nd", "REAL"),
                ),
                (ForeignKey(("order_id",), "order", ("id",)),),
            ),
        )
    ),
    context='''
        CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, city VARCHAR(40));
        CREATE TABLE "order" (id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customer, "group" TEXT);
        CREATE TABLE "line ""item""" (order_id INTEGER REFERENCES "order", "line no" INTEGER, note, "2nd" REAL,
                                      PRIMARY KEY (order_id, "line no"));
        INSERT INTO customer VALUES (1, 'Ann O''Neil', 'Zürich'), (2, 'Bo', 'Neu Zürich'), (3, 'Cy', NULL);
        INSERT INTO "order" VALUES (7, 1, 'a customer''s'), (8, 1, 'gift */ DROP'), (9, 2, 'gift');
        INSERT INTO "line ""item""" VALUES (7, 1, x'00ff', 0.5), (7, 2, 'two
lines, and a good deal more than there is room to show', 1e9);
    ''',
)


def configured(style="ddl", max_length=1024, max_sql_tokens=200, system_role=False, **more):
    return Config(
        model=Model(name="tiny", path="tiny", hub_id="tiny", system_role=system_role),
        prompt=Prompt(style=style, instruction=INSTRUCTION, max_sql_tokens=max_sql_tokens, **more),
        trainer=Trainer(max_length=max_length),
    )


WITH_SCHEMA = [style for style in prompts.STYLES if style != "question_only"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny.fetch(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("style", prompts.STYLES)
def test_the_prompt_is_the_golden_one(tokenizer, style):
    text = tokenizer.decode(prompts.encode_prompt(tokenizer, SHOP, configured(style)).ids)
    assert text + "\n" == (GOLDEN / f"prompt_{style}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("style", prompts.STYLES)
def test_the_prompt_is_a_token_prefix_of_the_training_text(tokenizer, style):
    asked = prompts.encode_prompt(tokenizer, SHOP, configured(style))
    taught = prompts.encode(tokenizer, SHOP, configured(style))
    assert taught.prompt_length == asked.prompt_length == len(asked.ids)
    assert taught.ids[: taught.prompt_length] == asked.ids


def test_the_training_text_ends_with_the_sql_and_the_end_token(tokenizer):
    taught = prompts.encode(tokenizer, SHOP, configured())
    assert taught.ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(taught.ids[taught.prompt_length : -1]) == (
        'SELECT customer_id, count(*) FROM "order" GROUP BY customer_id'
    )


def test_there_is_one_beginning_and_one_end_token(tokenizer):
    ids = prompts.encode(tokenizer, SHOP, configured()).ids
    assert (ids.count(tokenizer.bos_token_id), ids.count(tokenizer.eos_token_id)) == (1, 1)


@pytest.mark.parametrize("style", prompts.STYLES)
def test_the_instruction_is_a_system_message_where_the_model_has_one(style):
    system, user = prompts.messages(SHOP, configured(style).prompt, system_role=True)
    assert system == {"role": "system", "content": INSTRUCTION}
    assert user["role"] == "user"
    assert INSTRUCTION not in user["content"]


@pytest.mark.parametrize("style", prompts.STYLES)
def test_the_instruction_opens_the_user_message_elsewhere(style):
    (user,) = prompts.messages(SHOP, configured(style).prompt, system_role=False)
    assert user["role"] == "user"
    assert user["content"].startswith(INSTRUCTION + "\n\n")


def text(example=SHOP, style="ddl", seed=0, **more):
    """The user's message after the instruction."""
    (user,) = prompts.messages(example, configured(style, **more).prompt, False, seed)
    return user["content"].removeprefix(INSTRUCTION + "\n\n")


def test_question_only_shows_nothing_of_the_database():
    assert text(style="question_only") == "Question: How many orders has each customer of 'Zürich' placed?"


@pytest.mark.parametrize("style", WITH_SCHEMA)
def test_the_question_may_stand_before_the_schema_as_well(style):
    question = f"Question: {SHOP.question}"
    once, twice = text(style=style), text(style=style, question_first=True)
    assert twice == f"{question}\n\n{once}"
    assert once.startswith("Schema:\n")
    assert once.endswith(question)


@pytest.mark.parametrize("style", WITH_SCHEMA)
def test_a_schema_that_is_not_known_is_an_error_with_its_cures(style):
    with pytest.raises(
        ValueError, match=rf"prompt={style} needs a schema and shop-1 has none.*data\.path.*prompt=question_only"
    ):
        text(replace(SHOP, schema=Schema()), style)


def test_an_unknown_style_is_an_error_naming_those_there_are():
    with pytest.raises(
        ValueError, match=r"prompt\.style=xml does not exist; it can be ddl, .*names, qualified, question_only"
    ):
        prompts.check_style(Prompt(style="xml", instruction=""))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_no_more_values_or_rows_are_shown_than_asked_for(count):
    shown = text(style="ddl_values", num_values=count).rpartition("Question:")[0]
    assert [f"'{city}'" in shown for city in ("Zürich", "Neu Zürich")] == [count >= 1, count >= 2]
    assert [f"{n}, 1, '" in text(style="ddl_rows", num_rows=count) for n in (7, 8)] == [count >= 1, count >= 2]


@pytest.mark.parametrize("style", prompts.STYLES)
def test_the_gold_sql_changes_nothing_in_the_prompt(tokenizer, style):
    asked = prompts.encode_prompt(tokenizer, SHOP, configured(style))
    assert prompts.encode_prompt(tokenizer, replace(SHOP, sql="SELECT 'Bo'"), configured(style)) == asked


@pytest.mark.parametrize("style", prompts.STYLES)
def test_training_and_evaluation_see_what_messages_shows(tokenizer, style):
    config = configured(style, order=Order.shuffled, question_first=True)
    chat = prompts.messages(SHOP, config.prompt, False, config.seed)
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert prompts.encode_prompt(tokenizer, SHOP, config).ids == ids


@pytest.mark.parametrize("style", prompts.STYLES)
def test_a_style_that_exists_passes(style):
    prompts.check_style(Prompt(style=style, instruction=""))


# Shortening.

NAMES = st.text(st.characters(categories=["Lu", "Ll", "Nd"], include_characters="_ "), min_size=1, max_size=12)
COLUMNS = st.lists(
    st.builds(Column, NAMES, st.sampled_from(["", "INTEGER", "TEXT"]), st.booleans()), min_size=1, max_size=5
)
SCHEMAS = st.lists(st.builds(Table, NAMES, COLUMNS.map(tuple)), min_size=1, max_size=5).map(lambda t: Schema(tuple(t)))
EXAMPLES = st.builds(
    Example,
    id=st.just("x"),
    question=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60),
    sql=st.sampled_from(["SELECT 1", "SELECT name FROM t WHERE note = 'a  b;'", "SELECT " + ", ".join("abcdefgh")]),
    db_id=st.just("d"),
    schema=SCHEMAS,
)


@settings(max_examples=100, deadline=None)
@given(
    EXAMPLES,
    st.integers(60, 400),
    st.integers(1, 50),
    st.sampled_from(prompts.STYLES),
    st.none() | st.integers(1, 150),
    st.sampled_from(Order),
    st.booleans(),
)
def test_only_the_schema_is_shortened_and_the_rest_is_whole_or_refused(
    tokenizer, one, max_length, max_sql_tokens, style, most, order, first
):
    more = {"order": order, "question_first": first, "max_schema_tokens": most}
    config = configured(style, max_length, max_sql_tokens, **more)
    try:
        encoded = prompts.encode(tokenizer, one, config)
    except prompts.TooLong:
        return
    prompt, answer = encoded.ids[: encoded.prompt_length], encoded.ids[encoded.prompt_length :]
    assert len(prompt) <= max_length - max_sql_tokens
    assert len(answer) <= max_sql_tokens
    assert tokenizer.decode(prompt).endswith(f"Question: {one.question}[/INST]")
    assert INSTRUCTION in tokenizer.decode(prompt)
    assert tokenizer.decode(answer) == prompts.target(one.sql) + tokenizer.eos_token
    whole = prompts.encode_prompt(tokenizer, one, configured(style, 100_000, 1, order=order, question_first=first)).ids
    over = len(whole) > max_length - max_sql_tokens
    if style != "question_only":
        shown = Shown(one, config.prompt, config.seed)
        assert shown.text(encoded.shortened) in tokenizer.decode(prompt)
        if most is not None:
            assert num_tokens(tokenizer, shown.text(encoded.shortened)) <= most
            over = over or num_tokens(tokenizer, shown.text()) > most
    assert (encoded.shortened > 0) == over


def num_tokens(tokenizer, schema):
    return len(tokenizer(schema, add_special_tokens=False)["input_ids"])


@settings(max_examples=20, deadline=None)
@given(EXAMPLES, st.integers(60, 400), st.sampled_from(Order))
def test_shortening_is_the_same_every_time(tokenizer, one, max_length, order):
    def once():
        try:
            return prompts.encode_prompt(
                tokenizer, one, configured(max_length=max_length, max_sql_tokens=1, order=order)
            )
        except prompts.TooLong as error:
            return str(error)

    assert once() == once()


@pytest.mark.parametrize("style", WITH_SCHEMA)
def test_one_step_less_would_not_fit(tokenizer, style):
    config = configured(style, max_schema_tokens=90)
    encoded = prompts.encode_prompt(tokenizer, SHOP, config)
    shown = Shown(SHOP, config.prompt, config.seed)
    assert encoded.shortened > 0
    assert num_tokens(tokenizer, shown.text(encoded.shortened)) <= 90
    assert num_tokens(tokenizer, shown.text(encoded.shortened - 1)) > 90


def test_a_bound_that_no_schema_fits_is_too_long_and_names_the_setting(tokenizer):
    with pytest.raises(
        prompts.TooLong, match=r"the schema of shop-1 has \d+ tokens.*prompt\.max_schema_tokens=3; raise"
    ):
        prompts.encode_prompt(tokenizer, SHOP, configured(max_schema_tokens=3))


def test_a_large_schema_is_shortened_with_few_tokenisations(tokenizer):
    words = "customer order invoice product supplier region account payment".split()
    tables = tuple(
        Table(f"{words[i % 8]}_{i}", tuple(Column(f"{words[(i + j) % 8]}_{j}", "VARCHAR(40)") for j in range(10)))
        for i in range(500)
    )
    counted = []

    class Counting:
        def __call__(self, text, **options):
            counted.append(len(text))
            return tokenizer(text, **options)

        def apply_chat_template(self, chat, **options):
            counted.append(len(chat[0]["content"]))
            return tokenizer.apply_chat_template(chat, **options)

    encoded = prompts.encode_prompt(
        Counting(), replace(SHOP, schema=Schema(tables), context=""), configured(max_schema_tokens=600)
    )
    assert encoded.shortened > 5000
    assert len(counted) < 40
    assert (
        sum(counted)
        < 100_000
        < len(prompts.messages(replace(SHOP, schema=Schema(tables)), configured().prompt, False)[0]["content"])
    )


def test_a_prompt_that_fits_keeps_its_whole_schema(tokenizer):
    length = prompts.encode_prompt(tokenizer, SHOP, configured()).prompt_length
    exact = prompts.encode_prompt(tokenizer, SHOP, configured(max_length=length + 200))
    assert (exact.prompt_length, exact.shortened) == (length, 0)
    assert prompts.encode_prompt(tokenizer, SHOP, configured(max_length=length + 199)).shortened == 1


def test_a_question_that_cannot_fit_is_too_long_and_says_by_how_much(tokenizer):
    with pytest.raises(
        prompts.TooLong, match=r"the prompt of shop-1 has \d+ tokens.* over the 10 .*trainer\.max_length=210"
    ):
        prompts.encode_prompt(tokenizer, SHOP, configured(max_length=210))


def test_sql_that_cannot_fit_is_too_long_and_names_the_setting(tokenizer):
    with pytest.raises(prompts.TooLong, match=r"the SQL of shop-1 has \d+ tokens, over prompt\.max_sql_tokens=5"):
        prompts.encode(tokenizer, SHOP, configured(max_sql_tokens=5))


def test_the_end_token_counts_as_sql(tokenizer):
    taught = prompts.encode(tokenizer, SHOP, configured())
    length = len(taught.ids) - taught.prompt_length
    prompts.encode(tokenizer, SHOP, configured(max_sql_tokens=length))
    with pytest.raises(prompts.TooLong):
        prompts.encode(tokenizer, SHOP, configured(max_sql_tokens=length - 1))


# The SQL as it is to be written.


@pytest.mark.parametrize(
    ("sql", "written"),
    [
        ("SELECT 1;", "SELECT 1"),
        ("SELECT 1 ; ;\n", "SELECT 1"),
        ("  SELECT\n\t1  ", "SELECT 1"),
        ("SELECT 'a  b'  ;", "SELECT 'a  b'"),
        ("SELECT 'it''s  so'   FROM  t", "SELECT 'it''s  so' FROM t"),
        ('SELECT "a\n b" FROM t', 'SELECT "a\n b" FROM t'),
        ("SELECT `a  b`  FROM t", "SELECT `a  b` FROM t"),
        ("SELECT [a  b]  FROM t", "SELECT [a  b] FROM t"),
        ("SELECT 1 -- it's one\nFROM t", "SELECT 1 FROM t"),
        ("SELECT 1 -- one;\n", "SELECT 1"),
        ("SELECT /* it's\none */ 1", "SELECT 1"),
        ("SELECT '--', '/*', 1", "SELECT '--', '/*', 1"),
        ("SELECT 2 - -1", "SELECT 2 - -1"),
        ("SELECT ';'", "SELECT ';'"),
        ("SELECT '; '", "SELECT '; '"),
    ],
)
def test_the_target_is_one_line_without_a_semicolon(sql, written):
    assert prompts.target(sql) == written


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=10), min_size=1, max_size=4))
def test_no_literal_is_changed_in_the_target(literals):
    quoted = ["'" + literal.replace("'", "''") + "'" for literal in literals]
    assert prompts.target("SELECT \n " + " ,\t".join(quoted) + "  ;\n") == "SELECT " + " , ".join(quoted)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_the_target_of_a_target_is_itself(sql):
    assert prompts.target(prompts.target(sql)) == prompts.target(sql)
