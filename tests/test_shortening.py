"""What a prompt shows of a database: the order, and what goes first where it does not fit."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2sql import prompts, serialise, values
from text2sql.config import Order, Prompt
from text2sql.example import Column, Example, ForeignKey, Schema, Table
from text2sql.shortening import Shown, fewest_steps

SCRIPT = """
CREATE TABLE noise (id INTEGER PRIMARY KEY, volume REAL, pitch REAL);
CREATE TABLE singer (id INTEGER PRIMARY KEY, age INT, country TEXT, height REAL);
CREATE TABLE sang (singer_id INTEGER REFERENCES singer, concert_id INTEGER REFERENCES concert, encore INT);
CREATE TABLE concert (id INTEGER PRIMARY KEY, theme TEXT, seats INT);
INSERT INTO singer VALUES (1, 20, 'France', 1.7), (2, 30, 'Old France', 1.8), (3, 40, 'Fiji', 1.9);
INSERT INTO concert VALUES (1, 'France and Fiji', 9);
"""


def column(*words):
    return Column(words[0], words[1] if len(words) > 1 else "", words[0] == "id")


SINGERS = Example(
    id="x",
    question="What is the age of singers from France in each concert?",
    sql="",
    db_id="d",
    context=SCRIPT,
    schema=Schema(
        (
            Table("noise", (column("id", "INTEGER"), column("volume", "REAL"), column("pitch", "REAL"))),
            Table(
                "singer",
                (column("id", "INTEGER"), column("age", "INT"), column("country", "TEXT"), column("height", "REAL")),
            ),
            Table(
                "sang",
                (column("singer_id", "INTEGER"), column("concert_id", "INTEGER"), column("encore", "INT")),
                (ForeignKey(("singer_id",), "singer", ("id",)), ForeignKey(("concert_id",), "concert", ("id",))),
            ),
            Table("concert", (column("id", "INTEGER"), column("theme", "TEXT"), column("seats", "INT"))),
        )
    ),
)


def shown(style="ddl_values", example=SINGERS, seed=0, **more):
    return Shown(example, Prompt(style=style, instruction="", **more), seed)


def names(schema):
    return {table.name: [column.name for column in table.columns] for table in schema.tables}


def test_what_goes_goes_in_the_order_of_its_kind():
    values_first = [step.kind for step in shown().plan.steps]
    rows_first = [step.kind for step in shown("ddl_rows").plan.steps]
    assert list(dict.fromkeys(values_first))[:3] == ["value", "type", "column"]
    assert list(dict.fromkeys(rows_first))[:3] == ["row", "type", "column"]
    assert Counter(rows_first)["row"] == 3
    assert "type" not in [step.kind for step in shown("names").plan.steps]


def test_the_columns_of_an_unrelated_table_go_then_the_table_then_columns_of_the_others():
    one = shown("names")
    gone = [
        (step.kind, table.name, table.columns[step.column].name if step.kind == "column" else "")
        for step in one.plan.steps
        for table in [SINGERS.schema.tables[step.table]]
    ]
    assert gone == [
        ("column", "noise", "pitch"),
        ("column", "noise", "volume"),
        ("table", "noise", ""),
        ("column", "sang", "encore"),
        ("column", "concert", "seats"),
        ("column", "singer", "height"),
        ("table", "sang", ""),
        ("table", "concert", ""),
        ("column", "singer", "id"),
        ("column", "singer", "country"),
    ]


def test_the_worst_values_go_first():
    one = shown(num_values=2)
    all_values = [one.left(steps)[1].values for steps in range(4)]
    assert [values[("singer", "country")] for values in all_values[:2]] == [("'France'", "'Old France'"), ("'France'",)]
    assert all_values[3][("singer", "country")] == ()


def test_rows_go_from_the_last():
    one = shown("ddl_rows", num_rows=2)
    assert [len(one.left(steps)[1].rows["singer"]) for steps in range(3)] == [2, 1, 0]
    assert one.left(1)[1].rows["singer"][0]["country"] == "'France'"


def test_a_key_whose_other_end_is_gone_goes_with_it():
    one = shown("ddl_fk")
    for steps in range(one.most_steps + 1):
        schema, _ = one.left(steps)
        there = names(schema)
        for table in schema.tables:
            for key in table.foreign_keys:
                assert set(key.columns) <= set(there[table.name])
                assert set(key.foreign_columns) <= set(there[key.foreign_table])


NAMES = st.text(st.characters(categories=["Lu", "Ll", "Nd"], include_characters="_ "), min_size=1, max_size=8)


@st.composite
def examples(draw):
    """Schemas with keys, and questions that name some of their parts."""
    tables = []
    for name in draw(st.lists(NAMES, min_size=1, max_size=5, unique_by=str.lower)):
        own = draw(st.lists(NAMES, min_size=1, max_size=4, unique_by=str.lower))
        columns = tuple(Column(n, draw(st.sampled_from(["", "INT"])), draw(st.booleans())) for n in own)
        keys = ()
        if tables and draw(st.booleans()):
            to = draw(st.sampled_from(tables))
            keys = (ForeignKey((own[0],), to.name, (to.columns[0].name,)),)
        tables.append(Table(name, columns, keys))
    said = draw(st.lists(st.sampled_from([t.name for t in tables] + [t.columns[0].name for t in tables]), max_size=3))
    return Example("x", " ".join(said), "", "d", Schema(tuple(tables)))


@given(examples(), st.sampled_from(sorted(serialise.STYLES)))
def test_every_step_takes_one_thing_away_until_one_column_is_left(example, style):
    one = shown(style, example)
    before = example.schema
    for steps in range(1, one.most_steps + 1):
        after, _ = one.left(steps)
        assert set(names(after)) <= set(names(before))
        assert all(table.columns for table in after.tables)
        tables = len(before.tables) - len(after.tables)
        columns = sum(len(names(before)[name]) - len(kept) for name, kept in names(after).items())
        types = sum(
            bool(b.type) - bool(a.type)
            for t in after.tables
            for a in t.columns
            for b in next(x for x in before.tables if x.name == t.name).columns
            if a.name == b.name
        )
        assert (tables, columns, types) in [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
        before = after
    assert [len(columns) for columns in names(before).values()] == [1]


@given(examples(), st.sampled_from(sorted(serialise.STYLES)), st.integers(0, 300), st.sampled_from(Order))
def test_the_search_finds_the_fewest_steps(example, style, room, order):
    one = shown(style, example, order=order)
    fits = [len(one.text(steps)) <= room for steps in range(one.most_steps + 1)]
    found = fewest_steps(one, lambda text: len(text) - room)
    if not any(fits):
        assert found is None
    else:
        assert found is not None and fits[found] and (found == 0 or not fits[found - 1])


# Order.


@given(examples(), st.sampled_from(sorted(serialise.STYLES)), st.sampled_from(Order))
def test_the_order_changes_nothing_but_the_order(example, style, order):
    def content(one):
        schema, _ = one.left()
        return {t.name: (frozenset(t.columns), t.foreign_keys) for t in schema.tables}

    ordered = shown(style, example, order=order)
    assert content(ordered) == content(shown(style, example))
    assert ordered.example == example


def test_the_most_related_comes_first():
    schema, _ = shown("names", order=Order.relevance).left()
    assert next(iter(names(schema))) == "singer"
    assert list(names(schema))[-1] == "noise"
    assert set(names(schema)["singer"][:2]) == {"age", "country"}


def test_a_shuffle_is_one_of_its_own_for_each_seed_and_example():
    def order(seed, id):
        return str(names(shown("names", replace(SINGERS, id=id), seed, order=Order.shuffled).left()[0]))

    assert len({order(seed, id) for seed in range(3) for id in "abc"}) == 9
    assert order(1, "a") == order(1, "a")


def test_what_is_left_keeps_its_shuffled_order():
    one = shown("names", order=Order.shuffled)
    whole = names(one.left()[0])
    for steps in range(one.most_steps + 1):
        left = names(one.left(steps)[0])
        assert list(left) == [name for name in whole if name in left]
        assert all(columns == [c for c in whole[name] if c in columns] for name, columns in left.items())


def test_a_shuffle_is_the_same_in_every_process():
    code = (
        "from text2sql.shortening import Shown; from text2sql.config import Prompt, Order; from text2sql.example import *\n"
        "tables = tuple(Table(f't{i}', tuple(Column(f'c{j}') for j in range(5))) for i in range(5))\n"
        "one = Example('x', 'q', '', 'd', Schema(tables))\n"
        "print(Shown(one, Prompt(style='names', instruction='', order=Order.shuffled), 7).text())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert runs[0].splitlines()[0] != "t0(c0, c1, c2, c3, c4)"


# Without what is needed.


def test_a_style_without_values_does_without_full_text_search(monkeypatch):
    monkeypatch.setattr(values, "can_search", lambda: False)
    assert shown("ddl_fk", order=Order.relevance).text(3)
    with pytest.raises(RuntimeError, match="FTS5"):
        shown("ddl_values").text()


@pytest.mark.parametrize("style", [style for style in prompts.STYLES if style != "question_only"])
def test_a_script_that_does_not_run_is_shown_without_values_and_rows(style):
    broken = replace(SINGERS, context="CREATE TABLE singer (")
    schema, content = shown(style, broken).left()
    assert schema == SINGERS.schema
    assert (content.values, content.rows) == ({}, {})
    assert shown(style, broken).text() == shown(style, replace(SINGERS, context="")).text()
