"""Schemas as text: what SQLite reads back from each style, and that no value gets out of its comment."""

import math
import re
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2sql import serialise
from text2sql.example import Column, ForeignKey, Schema, Table
from text2sql.serialise import Content
from text2sql.sql.database import read_schema


def table(name, *columns):
    return Table(name, tuple(Column(column) for column in columns or ("id",)))


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
    assert serialise.quote(name) == name


@pytest.mark.parametrize(
    ("name", "quoted"),
    [("line no", '"line no"'), ("2nd", '"2nd"'), ("Order", '"Order"'), ('a"b', '"a""b"'), ("größe", '"größe"')],
)
def test_any_other_name_is_quoted(name, quoted):
    assert serialise.quote(name) == quoted


@pytest.mark.parametrize("name", KEYWORDS)
def test_a_keyword_names_a_column_wherever_it_stands(memory, name):
    memory.execute(serialise.create_table(table("t", "x", name)))
    memory.execute("INSERT INTO t VALUES ('no', 'yes')")
    quoted = serialise.quote(name)
    query = f"SELECT {quoted}, t.{quoted} FROM t WHERE {quoted} = 'yes' GROUP BY {quoted} ORDER BY {quoted}"
    assert memory.execute(query).fetchall() == [("yes", "yes")]


@pytest.mark.parametrize("name", KEYWORDS)
def test_a_keyword_names_a_table_wherever_it_stands(memory, name):
    memory.execute(serialise.create_table(table(name, "x")))
    quoted = serialise.quote(name)
    memory.execute(f"INSERT INTO {quoted} VALUES ('yes')")
    query = f"SELECT {quoted}.x FROM {quoted} JOIN {quoted} AS other ON {quoted}.x = other.x"
    assert memory.execute(query).fetchall() == [("yes",)]


@given(st.lists(ANY_NAME | st.sampled_from(KEYWORDS), min_size=1, max_size=5, unique_by=str.lower))
def test_sqlite_reads_every_quoted_name_back(columns):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE t ({', '.join(map(serialise.quote, columns))})")
        assert [row[1] for row in connection.execute("PRAGMA table_info(t)")] == columns


@st.composite
def tables(draw):
    names = draw(st.lists(ANY_NAME, min_size=1, max_size=4, unique_by=str.lower))
    columns = (Column(name, draw(TYPES), draw(st.booleans())) for name in names)
    return Table(draw(ANY_NAME.filter(lambda name: not name.lower().startswith("sqlite_"))), tuple(columns))


@given(tables())
def test_a_table_reads_back_from_its_statement_as_it_was(one):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(serialise.create_table(one))
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
    assert serialise.create_table(Table("t", tuple(columns))) == statement


# Foreign keys.


@st.composite
def schemas(draw):
    """Tables with keys to any column of any table, themselves included."""
    names = draw(
        st.lists(
            ANY_NAME.filter(lambda name: not name.lower().startswith("sqlite_")),
            min_size=1,
            max_size=4,
            unique_by=lower,
        )
    )
    columns = []
    for _ in names:
        own = draw(st.lists(ANY_NAME, min_size=1, max_size=4, unique_by=lower))
        columns.append(tuple(Column(name, draw(TYPES), draw(st.booleans())) for name in own))
    tables = []
    for name, own in zip(names, columns):
        keys = []
        for _ in range(draw(st.integers(0, 2))):
            to = draw(st.integers(0, len(names) - 1))
            width = draw(st.integers(1, min(len(own), len(columns[to]))))
            keys.append(
                ForeignKey(
                    tuple(c.name for c in draw(st.permutations(own))[:width]),
                    names[to],
                    tuple(c.name for c in draw(st.permutations(columns[to]))[:width]),
                )
            )
        tables.append(Table(name, own, tuple(keys)))
    return Schema(tuple(tables))


def lower(name):
    """As SQLite compares names: only ASCII letters ignore case."""
    return re.sub("[A-Z]", lambda match: match[0].lower(), name)


def executed(text):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(text)
        return read_schema(connection)


@given(schemas())
def test_sqlite_reads_the_schema_with_its_foreign_keys_back(schema):
    assert executed(serialise.ddl_fk(schema, Content())) == schema


def test_a_table_may_refer_to_itself():
    one = Table("t", (Column("id", "INT", True), Column("boss", "INT")), (ForeignKey(("boss",), "t", ("id",)),))
    text = serialise.ddl_fk(Schema((one,)), Content())
    assert text == "CREATE TABLE t (id INT PRIMARY KEY, boss INT, FOREIGN KEY (boss) REFERENCES t(id));"
    assert serialise.qualified(Schema((one,)), Content()) == "t : t.id int, t.boss int\nkeys : t.boss = t.id"


@pytest.mark.parametrize("kind", ["INT -- x", "INT /* x", "a; b", 'x "y"', "INT\nUNSIGNED"])
def test_a_type_that_could_end_the_statement_is_quoted(kind):
    text = serialise.create_table(Table("t", (Column("a", kind, False), Column("b", "INT"))))
    assert [column.name for column in executed(text).tables[0].columns] == ["a", "b"]


# Values.

ANY_VALUE = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=80)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=150)
    | st.text("*/-'\"\n\r\x00();", max_size=80)
)
LITERALS = st.builds(serialise.literal, ANY_VALUE, st.integers(1, 60))


@given(
    st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.none()
    | st.text("ab' -*", max_size=30)
    | st.binary(max_size=15)
)
def test_a_short_value_is_the_literal_that_sqlite_reads_back(value):
    with closing(sqlite3.connect(":memory:")) as connection:
        (read,) = connection.execute(f"SELECT {serialise.literal(value, 30)}").fetchone()
    assert read == value


@given(ANY_VALUE, st.integers(1, 60))
def test_a_literal_is_one_short_line_without_the_end_of_a_comment(value, most):
    text = serialise.literal(value, most)
    assert "*/" not in text
    assert len(text.splitlines()) == 1
    if isinstance(value, str | bytes):
        assert len(text.replace("''", "'")) <= most + len("x''...") + 1


def test_a_long_value_says_that_it_is_cut():
    assert serialise.literal("a" * 31, 30) == "'" + "a" * 30 + "...'"
    assert serialise.literal("a" * 30, 30) == "'" + "a" * 30 + "'"
    assert serialise.literal(b"\xff" * 16, 30) == "x'" + "ff" * 15 + "...'"


def test_infinity_is_written_as_a_number():
    assert (serialise.literal(math.inf, 9), serialise.literal(-math.inf, 9)) == ("9e999", "-9e999")


@st.composite
def contents(draw):
    schema = draw(schemas())
    values = {
        (one.name, column.name): tuple(draw(st.lists(LITERALS, max_size=3)))
        for one in schema.tables
        for column in one.columns
    }
    rows = {
        one.name: tuple({c.name: draw(LITERALS) for c in one.columns} for _ in range(draw(st.integers(0, 2))))
        for one in schema.tables
    }
    return schema, Content(values, rows)


@given(contents())
def test_no_value_gets_out_of_its_comment(both):
    schema, content = both
    assert executed(serialise.ddl_values(schema, content)) == schema
    assert executed(serialise.ddl_rows(schema, content)) == schema


@given(contents())
def test_a_table_is_one_line_whatever_its_values(both):
    schema, content = both
    plain = serialise.qualified(schema, Content())
    assert serialise.qualified(schema, content).count("\n") == plain.count("\n")


def test_values_stand_behind_the_type_of_their_column():
    one = Schema((Table("t", (Column("id", "INT", True), Column("a b", "VARCHAR(9)"))),))
    content = Content({("t", "a b"): ("'x'", "'y'")})
    assert serialise.ddl_values(one, content) == (
        "CREATE TABLE t (id INT PRIMARY KEY, \"a b\" VARCHAR(9) /* 'x', 'y' */);"
    )
    assert serialise.qualified(one, content) == "t : t.id int, t.\"a b\" varchar ( 'x', 'y' )"
