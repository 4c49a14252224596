"""Which tables and columns a question is about: by words, values, hints and the foreign keys between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2sql import relevance
from text2sql.example import Column, ForeignKey, Schema, Table


def table(name, *columns, **keys):
    """`keys` name for a column the "table.column" it refers to; a column id is the primary key."""
    references = [ForeignKey((own,), *split(to)) for own, to in keys.items()]
    shown = tuple(Column(column, "", column == "id") for column in (*columns, *keys))
    return Table(name, shown, tuple(references))


def split(reference):
    name, _, column = reference.partition(".")
    return name, (column,)


def ranked(question, *tables, **values):
    """The names of the tables, best first; `values` are columns ("table__column") whose values the question mentions."""
    schema = Schema(tables)
    mentioned = {tuple(name.split("__")): score for name, score in values.items()}
    scores = relevance.rank(question, schema, mentioned).tables
    return [tables[i].name for i in sorted(range(len(tables)), key=lambda i: -scores[i])]


def best_column(question, *columns):
    scores = relevance.rank(question, Schema((table("t", *columns),)), {}).columns[0]
    return columns[max(range(len(columns)), key=lambda i: scores[i])]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("singer_id", ("singer", "id")),
        ("SingerID", ("singer", "id")),
        ("customerFirstName", ("customer", "first", "name")),
        ("HTTPServer", ("http", "server")),
        ("Countries", ("country",)),
        ("addresses", ("address",)),
        ("boxes", ("box",)),
        ("status", ("status",)),
        ("Straße_café", ("strasse", "cafe")),
        ("línea", ("linea",)),
        ("_", ()),
    ],
)
def test_a_name_is_split_into_stems(name, words):
    assert relevance.name_words(name) == words


@pytest.mark.parametrize(
    ("question", "column"),
    [
        ("What are the ages of all?", "age"),
        ("Who is it?", "name"),
        ("How old are they?", "age"),
        ("Where do they live?", "address"),
        ("What happened in 2014?", "year"),
        ("Which nationality do they have?", "nation"),
    ],
)
def test_the_column_that_is_asked_for_comes_first(question, column):
    assert best_column(question, "id", "age", "name", "address", "year", "nation", "note") == column


def test_a_word_that_is_everywhere_says_little():
    tables = [table(name, "id", "name") for name in ("song", "album", "label")]
    assert ranked("What is the name and the genre?", *tables, table("style", "genre")) == [
        "style",
        "song",
        "album",
        "label",
    ]


def test_the_name_of_a_table_counts_more_than_its_columns():
    assert ranked("Which singers are there?", table("prize", "id", "singer"), table("singer", "id"))[0] == "singer"


def test_stop_words_name_no_table():
    scores = relevance.rank("How many are there in all of them?", Schema((table("all", "many"), table("in", "of"))), {})
    assert scores.tables == (0, 0)


def test_a_table_whose_value_is_in_the_question_is_relevant():
    tables = table("a", "id", "x"), table("b", "id", "y"), table("c", "id", "z")
    assert ranked("Where is Zanzibar?", *tables, c__z=1)[0] == "c"


JOINED = (
    table("noise", "id", "x"),
    table("student", "id", "name"),
    table("enrolled", student_id="student.id", course_id="course.id"),
    table("course", "id", "title"),
    table("hall", "id", "seats"),
)


def test_a_table_that_joins_two_relevant_ones_is_relevant_itself():
    question = "Which students take which course?"
    assert set(ranked(question, *JOINED)[:3]) == {"student", "enrolled", "course"}
    found = relevance.rank(question, Schema(JOINED), {})
    assert found.related == {1, 2, 3}


def test_a_chain_of_tables_is_followed():
    tables = (
        table("a", "id"),
        table("employee", "id", dep="department.id"),
        table("department", "id", loc="location.id"),
        table("location", "id", "city"),
    )
    assert set(ranked("In which city is each employee?", *tables)[:3]) == {"employee", "department", "location"}


def test_a_table_that_both_refer_to_joins_nothing():
    tables = table("student", "id", dep="unit.id"), table("unit", "id"), table("course", "id", dep="unit.id")
    assert relevance.rank("Which students take which course?", Schema(tables), {}).related == {0, 2}


def test_a_table_that_refers_to_itself_or_to_nothing_does_no_harm():
    tables = table("a", "id", boss="a.id", lost="nowhere.id"), table("b", "id", other="a.absent")
    assert ranked("b", *tables) == ["b", "a"]


def test_keys_are_known_from_both_ends():
    known = relevance.vocabulary(Schema((table("a", "x", "code"), table("b", "id", "y", to="A.CODE"))))
    assert known.keys == ({1}, {0, 2})
    assert known.foreign == (frozenset(), {2})


@given(st.text(max_size=60), st.lists(st.text(max_size=12), max_size=5))
def test_any_question_and_names_can_be_ranked(question, names):
    schema = Schema(tuple(table(name, *names) for name in names))
    found = relevance.rank(question, schema, {})
    assert found == relevance.rank(question, schema, {})
    assert all(score >= 0 for score in found.tables)
    assert [len(scores) for scores in found.columns] == [len(names)] * len(names)
