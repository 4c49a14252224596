"""How a question becomes text and tokens: golden prompts, shortening that spares the question, names SQLite reads back."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text2sql import prompts, tiny
from text2sql.config import Config, Model, Prompt, Trainer
from text2sql.example import Column, Example, Schema, Table
from text2sql.sql.database import read_schema

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
            Table("order", (Column("id", "INTEGER", True), Column("customer_id", "INTEGER"), Column("group", "TEXT"))),
            Table(
                'line "item"',
                (
                    Column("order_id", "INTEGER", True),
                    Column("line no", "INTEGER", True),
                    Column("note", ""),
                    Column("2nd", "REAL"),
                ),
            ),
        )
    ),
)


def configured(style="ddl", max_length=1024, max_sql_tokens=200, system_role=False):
    return Config(
        model=Model(name="tiny", path="tiny", hub_id="tiny", system_role=system_role),
        prompt=Prompt(style=style, instruction=INSTRUCTION, max_sql_tokens=max_sql_tokens),
        trainer=Trainer(max_length=max_length),
    )


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


def test_question_only_shows_nothing_of_the_database():
    assert prompts.question_only(SHOP) == "Question: How many orders has each customer of 'Zürich' placed?"


def test_a_schema_that_is_not_known_is_an_error_with_its_cures():
    with pytest.raises(
        ValueError, match=r"prompt=ddl needs a schema and shop-1 has none.*data\.path.*prompt=question_only"
    ):
        prompts.ddl(replace(SHOP, schema=Schema()))


def test_an_unknown_style_is_an_error_naming_those_there_are():
    with pytest.raises(ValueError, match=r"prompt\.style=xml does not exist; it can be ddl, question_only"):
        prompts.check_style(Prompt(style="xml", instruction=""))


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


@settings(max_examples=60, deadline=None)
@given(EXAMPLES, st.integers(60, 400), st.integers(1, 50), st.sampled_from(sorted(prompts.STYLES)))
def test_only_the_schema_is_shortened_and_the_rest_is_whole_or_refused(
    tokenizer, one, max_length, max_sql_tokens, style
):
    try:
        encoded = prompts.encode(tokenizer, one, configured(style, max_length, max_sql_tokens))
    except prompts.TooLong:
        return
    prompt, answer = encoded.ids[: encoded.prompt_length], encoded.ids[encoded.prompt_length :]
    assert len(prompt) <= max_length - max_sql_tokens
    assert len(answer) <= max_sql_tokens
    assert tokenizer.decode(prompt).endswith(f"Question: {one.question}[/INST]")
    assert INSTRUCTION in tokenizer.decode(prompt)
    assert tokenizer.decode(answer) == prompts.target(one.sql) + tokenizer.eos_token
    whole = prompts.encode_prompt(tokenizer, one, configured(style, 100_000, 1)).ids
    assert (encoded.shortened > 0) == (len(whole) > max_length - max_sql_tokens)


@settings(max_examples=20, deadline=None)
@given(EXAMPLES, st.integers(60, 400))
def test_shortening_is_the_same_every_time(tokenizer, one, max_length):
    def once():
        try:
            return prompts.encode_prompt(tokenizer, one, configured(max_length=max_length, max_sql_tokens=1))
        except prompts.TooLong as error:
            return str(error)

    assert once() == once()


@given(EXAMPLES)
def test_each_step_of_shortening_leaves_one_table_or_column_less_until_one_column_is_left(one):
    while (smaller := prompts.without_least_related(one)) is not None:
        before, after = one.schema.tables, smaller.schema.tables
        if len(before) > 1:
            assert after in [before[:i] + before[i + 1 :] for i in range(len(before))]
        else:
            columns = before[0].columns
            assert after[0].columns in [columns[:i] + columns[i + 1 :] for i in range(len(columns))]
        assert replace(smaller, schema=one.schema) == one
        one = smaller
    assert [len(table.columns) for table in one.schema.tables] == [1]


def table(name, *columns):
    return Table(name, tuple(Column(column) for column in columns or ("id",)))


def names(example):
    return [table.name for table in example.schema.tables]


@pytest.mark.parametrize(
    ("question", "tables", "kept"),
    [
        ("Which singers are there?", [table("song"), table("singer")], ["singer"]),
        ("Which singers are there?", [table("singer"), table("song")], ["singer"]),
        (
            "What did each customer order?",
            [table("orderItems"), table("staff"), table("customer")],
            ["orderItems", "customer"],
        ),
        ("Which year had most rain?", [table("a", "year", "rain"), table("b", "year"), table("c", "sun")], ["a", "b"]),
        ("A name counts before columns: singer", [table("x", "name", "counts"), table("singer", "id")], ["singer"]),
        ("Nothing in common", [table("a"), table("b"), table("c")], ["a", "b"]),
    ],
)
def test_the_table_least_related_to_the_question_goes_first_and_of_equals_the_last(question, tables, kept):
    assert names(prompts.without_least_related(replace(SHOP, question=question, schema=Schema(tuple(tables))))) == kept


def test_of_the_last_table_the_least_related_column_goes_first():
    one = replace(SHOP, question="What is the name?", schema=Schema((table("t", "id", "full_name", "note"),)))
    assert [c.name for c in prompts.without_least_related(one).schema.tables[0].columns] == ["id", "full_name"]


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


# Names and tables, as SQLite reads them.

KEYWORDS = (  # a list would be a line a word
    "abort action add after all alter always analyze and as asc attach autoincrement before begin between by cascade case "
    "cast check collate column commit conflict constraint create cross current current_date current_time "
    "current_timestamp database default deferrable deferred delete desc detach distinct do drop each else end escape "
    "except exclude exclusive exists explain fail filter first following for foreign from full generated glob group "
    "groups having if ignore immediate in index indexed initially inner insert instead intersect into is isnull join "
    "key last left like limit match materialized natural no not nothing notnull null nulls of offset on or order others "
    "outer over partition plan pragma preceding primary query raise range recursive references regexp reindex release "
    "rename replace restrict returning right rollback row rows savepoint select set table temp temporary then ties to "
    "transaction trigger unbounded union unique update using vacuum values view virtual when where window with without"
).split()
ANY_NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
TYPES = st.sampled_from(["", "INTEGER", "TEXT", "REAL", "VARCHAR(20)", "DECIMAL(10,2)", "DOUBLE PRECISION"])


@pytest.fixture
def memory():
    with closing(sqlite3.connect(":memory:")) as connection:
        yield connection


@pytest.mark.parametrize("name", ["id", "customer_id", "_x", "A1", "name", "year", "date", "count"])
def test_a_plain_name_is_written_bare(name):
    assert prompts.quote(name) == name


@pytest.mark.parametrize(
    ("name", "quoted"),
    [("line no", '"line no"'), ("2nd", '"2nd"'), ("Order", '"Order"'), ('a"b', '"a""b"'), ("größe", '"größe"')],
)
def test_any_other_name_is_quoted(name, quoted):
    assert prompts.quote(name) == quoted


@pytest.mark.parametrize("name", KEYWORDS)
def test_a_keyword_names_a_column_wherever_it_stands(memory, name):
    memory.execute(prompts.create_table(table("t", "x", name)))
    memory.execute("INSERT INTO t VALUES ('no', 'yes')")
    quoted = prompts.quote(name)
    query = f"SELECT {quoted}, t.{quoted} FROM t WHERE {quoted} = 'yes' GROUP BY {quoted} ORDER BY {quoted}"
    assert memory.execute(query).fetchall() == [("yes", "yes")]


@pytest.mark.parametrize("name", KEYWORDS)
def test_a_keyword_names_a_table_wherever_it_stands(memory, name):
    memory.execute(prompts.create_table(table(name, "x")))
    quoted = prompts.quote(name)
    memory.execute(f"INSERT INTO {quoted} VALUES ('yes')")
    query = f"SELECT {quoted}.x FROM {quoted} JOIN {quoted} AS other ON {quoted}.x = other.x"
    assert memory.execute(query).fetchall() == [("yes",)]


@given(st.lists(ANY_NAME | st.sampled_from(KEYWORDS), min_size=1, max_size=5, unique_by=str.lower))
def test_sqlite_reads_every_quoted_name_back(columns):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE t ({', '.join(map(prompts.quote, columns))})")
        assert [row[1] for row in connection.execute("PRAGMA table_info(t)")] == columns


@st.composite
def tables(draw):
    names = draw(st.lists(ANY_NAME, min_size=1, max_size=4, unique_by=str.lower))
    columns = (Column(name, draw(TYPES), draw(st.booleans())) for name in names)
    return Table(draw(ANY_NAME.filter(lambda name: not name.lower().startswith("sqlite_"))), tuple(columns))


@given(tables())
def test_a_table_reads_back_from_its_statement_as_it_was(one):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(prompts.create_table(one))
        assert read_schema(connection) == Schema((one,))


@pytest.mark.parametrize(
    ("columns", "statement"),
    [
        (
            [Column("id", "INTEGER", True), Column("name", "TEXT")],
            "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT);",
        ),
        ([Column("id", "", True)], "CREATE TABLE t (id PRIMARY KEY);"),
        ([Column("id"), Column("group", "TEXT")], 'CREATE TABLE t (id, "group" TEXT);'),
        (
            [Column("a", "INT", True), Column("b c", "INT", True)],
            'CREATE TABLE t (a INT, "b c" INT, PRIMARY KEY (a, "b c"));',
        ),
    ],
)
def test_a_table_is_one_statement_on_one_line(columns, statement):
    assert prompts.create_table(Table("t", tuple(columns))) == statement
