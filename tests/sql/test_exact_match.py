"""Facts measured on process_sql.py and evaluation.py of taoyds/test-suite-sql-eval with nltk 3.10.4, as small cases."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2sql.example import Column, ForeignKey, Schema, Table
from text2sql.sql import exact_match
from text2sql.sql.exact_match import Part, aggregate, compare, foreign_key_classes, foreign_key_classes_of, hardness
from text2sql.sql.spider_parser import (
    MAX_CHAIN,
    MAX_DEPTH,
    Condition,
    Operand,
    Query,
    Term,
    parse,
    read_tables,
)
from text2sql.sql.spider_words import Unparsable, tokenize

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "spider"
TABLES = {
    "singer": ["singer_id", "name", "age", "st"],
    "concert": ["concert_id", "title", "singer_id", "year"],
}
KEYS = {"__concert.singer_id__": "__singer.singer_id__", "__singer.singer_id__": "__singer.singer_id__"}
JOINED = "singer AS T1 JOIN concert AS T2 ON T1.singer_id = T2.singer_id"


def read(sql: str) -> Query:
    return parse(sql, TABLES)


def read_if_possible(sql: str) -> Query | None:
    try:
        return read(sql)
    except Unparsable:
        return None


def match(gold: str, prediction: str, keys: dict[str, str] = KEYS) -> exact_match.Match:
    return compare(read(gold), read_if_possible(prediction), keys)


def wrong_parts(gold: str, prediction: str, keys: dict[str, str] = KEYS) -> set[str]:
    return {name for name, part in match(gold, prediction, keys).parts.items() if not part.f1}


# Words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SELECT count(*), T1.name", "select count ( * ) , t1.name"),
        ("a >= 1 and b! =2 and c > = 3 and d<e", "a >= 1 and b ! =2 and c >= 3 and d < e"),
        ("x <> 1", "x < > 1"),
        ("x = 'It' AND y=\"B c\"", 'x = "It" and y=__val_15_19__'),
        ("x = 'It''s'", "x = __val_4_7____val_8_10__"),
        ("__val_5_7__ \"\"  'b'", '__val_5_7__ "" "b"'),
        ("SELECT T1.* FROM", "select t1 . * from"),
        ("1,000.5 + .5", "1,000.5 + .5"),
        ("1,,a,2:30 : b", "1 , ,a,2:30 : b"),
        ("a--b - -c", "a -- b - -c"),
        ("I cannot `go` ``now``", "i can not ` go ` `` now ``"),
        ("x = é AND “q” — z", "x = é and “ q ” — z"),
        ("FROM singer.", "from singer ."),
        ("FROM a.b.c.", "from a.b.c ."),
        ("FROM singer ...", "from singer ..."),
        ("ORDER BY name. this is", "order by name . this is"),
        ("ORDER BY st. this is", "order by st. this is"),
        ("ORDER BY st. This is", "order by st . this is"),
        ("ORDER BY st. LIMIT 3", "order by st. limit 3"),
        ("ORDER BY a. this is", "order by a. this is"),
        ("ORDER BY a. This is", "order by a . this is"),
        ("LIMIT 3. union x", "limit 3. union x"),
        ("LIMIT 3. UNION x", "limit 3 . union x"),
        ("age > 3.), x", "age > 3 . ) , x"),
        ("(age > 3.) x", "( age > 3 . ) x"),
        ("5.-3 e.g. x", "5.-3 e.g . x"),
        ("x? y! = 3", "x ? y != 3"),
    ],
)
def test_words_are_those_of_the_official_evaluator(text: str, words: str) -> None:
    assert " ".join(tokenize(text)) == words


def test_a_quote_that_is_not_closed_is_unparsable() -> None:
    with pytest.raises(Unparsable, match="quote"):
        tokenize("name = 'it's'")


WORDS = st.lists(
    st.sampled_from("a T1.b 1.5 1,000 10:30 >= <= != = ( ) * , ; < > ! : [x] {y} a=b %".split()), max_size=12
)


@given(st.data())
def test_plain_text_and_text_with_a_foreign_letter_are_split_alike(data: st.DataObject) -> None:
    words = data.draw(WORDS)
    text = "".join(word + data.draw(st.sampled_from(["", " ", "\n"])) for word in words)
    assert tokenize(f"{text} é") == [*tokenize(text), "é"]


@given(st.text(st.characters(codec="ascii", exclude_characters="'\"=")))
def test_splitting_loses_and_adds_no_character(text: str) -> None:
    assert "".join(tokenize(text)) == "".join(text.lower().split())


# Queries


def test_a_query_is_read_into_its_parts() -> None:
    age = Operand("none", "__singer.age__", False)
    name, state = age._replace(column="__singer.name__"), age._replace(column="__singer.st__")
    assert read("SELECT DISTINCT max(age), name FROM singer WHERE age - st NOT BETWEEN 3 AND 'x' LIMIT 7") == Query(
        distinct=True,
        selected=(("max", Term("none", age, None)), ("none", Term("none", name, None))),
        tables=("__singer__",),
        joined_on=(),
        where=(Condition(True, "between", Term("-", age, state), 3.0, '"x"'),),
        group=(),
        having=(),
        order=None,
        limit=1,
        intersect=None,
        union=None,
        except_=None,
    )


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("SELECT name FROM singer LIMIT 1", "SELECT name FROM singer LIMIT many"),
        ("SELECT name FROM singer ORDER BY age, name DESC", "SELECT name FROM singer ORDER BY age DESC, name"),
        ("SELECT name FROM singer ORDER BY name. This lists ...", "SELECT name FROM singer ORDER BY name"),
        ("SELECT name FROM singer) anything", "SELECT name FROM singer"),
        ("SELECT name age FROM singer", "SELECT name, age FROM singer"),
        ("SELECT name FROM singer WHERE name = st + 1 OR age = 3", "SELECT name FROM singer WHERE name = st"),
        ("SELECT name FROM singer WHERE", "SELECT name FROM singer"),
        ("SELECT T1.name FROM singer AS T1 WHERE age = 1", "SELECT singer.name FROM singer WHERE singer.age = 1.0"),
        ("(SELECT name FROM singer);", "SELECT name FROM singer"),
        ("SELECT none(name) FROM singer", "SELECT name FROM singer"),
    ],
)
def test_these_texts_are_one_query(text: str, same: str) -> None:
    assert read(text) == read(same)


def test_a_condition_needs_no_connective_before_it() -> None:
    assert [type(one) for one in read("SELECT name FROM singer WHERE age = 1 age = 2").where] == [Condition, Condition]


def test_the_conditions_of_two_joins_have_and_between_them() -> None:
    query = read(f"SELECT T1.name FROM {JOINED} JOIN singer AS T3 ON T1.st = T3.st")
    assert [one if isinstance(one, str) else one.operator for one in query.joined_on] == ["=", "and", "="]


def test_not_a_number_is_not_itself() -> None:
    sql = "SELECT name FROM singer WHERE age = nan"
    assert read(sql) != read(sql)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SELECT 1",
        "SELECT name FROM singers",
        "SELECT title FROM singer",
        "SELECT name FROM singer s",
        "SELECT name FROM singer, concert",
        "SELECT name FROM singer LEFT JOIN concert",
        "SELECT name FROM singer AS concert",
        "SELECT name FROM singer AS",
        "SELECT T1.* FROM singer AS T1",
        "SELECT main.singer.name FROM singer",
        "SELECT name AS n FROM singer",
        "SELECT max(age + 1) FROM singer",
        "SELECT name FROM singer WHERE age=3",
        "SELECT name FROM singer WHERE age <> 3",
        "SELECT name FROM singer WHERE age",
        "SELECT name FROM singer WHERE age IS NOT NULL",
        "SELECT name FROM singer WHERE name = 'It''s'",
        "SELECT name FROM singer WHERE age > (3",
        "SELECT name FROM singer WHERE age = max(age)",
        "SELECT name FROM singer WHERE age = 1 HAVING age = 1",
        "SELECT name FROM singer GROUP age",
        "SELECT name FROM singer LIMIT",
        "SELECT name FROM singer UNION",
        "SELECT name FROM (SELECT name FROM singer)",
        "SELECT * FROM (SELECT name FROM singer) AS T1",
        "SELECT CASE WHEN age > 3 THEN 1 END FROM singer",
        "SELECT name FROM singer ORDER BY st. this lists ...",
    ],
)
def test_these_texts_are_no_query(text: str) -> None:
    with pytest.raises(Unparsable):
        read(text)


SQL = st.lists(
    st.one_of(
        st.sampled_from(
            "select from where group by having order limit union intersect except ( ) , ; . * + - / = < > != not between and or in "
            "like is join on as max count none distinct asc desc singer concert name age singer.name T1.name T1 3 nan 'x' \" ' \0".split(
                " "
            )
        ),
        st.text(max_size=3),
    ),
    max_size=30,
)


@given(SQL)
def test_any_text_is_read_or_unparsable(words: list[str]) -> None:
    for text in (" ".join(words), "select name from singer where " + " ".join(words)):
        read_if_possible(text)


@pytest.mark.parametrize("unit", ["(", "select * from ( ", "a. ", "!a. ", ". ", "x = 1 and ", "'\n", ",", "` ", "as "])
def test_a_long_text_is_no_trouble(unit: str) -> None:
    text = unit * (20_000 // len(unit))
    read_if_possible(text)
    read_if_possible(f"SELECT name FROM singer WHERE {text}")


NESTED = {
    "values": lambda depth: (
        "SELECT name FROM singer WHERE age IN (" * (depth - 1) + "SELECT name FROM singer" + ")" * (depth - 1)
    ),
    "tables": lambda depth: "SELECT * FROM (" * (depth - 1) + "SELECT * FROM singer" + ")" * (depth - 1),
}


@pytest.mark.parametrize("kind", NESTED)
def test_deep_nesting_is_compared_and_the_deepest_refused(kind: str) -> None:
    deep = NESTED[kind](MAX_DEPTH)
    assert match(deep, deep).exact
    with pytest.raises(Unparsable, match="inside one another"):
        read(NESTED[kind](MAX_DEPTH + 1))


def test_a_chain_of_set_operations_is_long_before_it_is_refused() -> None:
    single, chain = "SELECT name FROM singer", " UNION ".join(["SELECT name FROM singer"] * MAX_CHAIN)
    assert match(chain, chain).exact
    against = match(single, chain)
    assert not against.exact
    assert (against.parts["select"].f1, against.parts["iuen"].predicted_total) == (1, 1)
    with pytest.raises(Unparsable, match="chain of set operations"):
        read(chain + " UNION " + single)


def test_tables_of_a_database_are_read_whatever_they_are_called() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute('CREATE TABLE "Order ""1" ("A b" INTEGER PRIMARY KEY AUTOINCREMENT, "select" TEXT)')
        connection.execute("CREATE TABLE first (Z, Y)")
        connection.execute("CREATE VIEW seen AS SELECT 1")
        tables = read_tables(connection)
    assert tables == {'order "1': ["a b", "select"], "sqlite_sequence": ["name", "seq"], "first": ["z", "y"]}
    assert list(tables) == ['order "1', "sqlite_sequence", "first"]


# Exact match and its parts


@pytest.mark.parametrize(
    ("gold", "prediction"),
    [
        ("SELECT name, age FROM singer", "SELECT age, name FROM singer"),
        ("SELECT name FROM singer WHERE age = 3", "SELECT name FROM singer WHERE age = 'x'"),
        ("SELECT name FROM singer WHERE age = 3 AND st = 1", "SELECT name FROM singer WHERE st = 1 AND age = 3"),
        ("SELECT DISTINCT name FROM singer", "SELECT name FROM singer"),
        ("SELECT count(DISTINCT name) FROM singer", "SELECT count(name) FROM singer"),
        ("SELECT name FROM singer LIMIT 1", "SELECT name FROM singer LIMIT 5"),
        (f"SELECT T1.singer_id FROM {JOINED}", f"SELECT T2.singer_id FROM {JOINED}"),
        (
            f"SELECT T1.name FROM {JOINED}",
            "SELECT T1.name FROM concert AS T2 JOIN singer AS T1 ON T1.singer_id = T2.singer_id",
        ),
        (f"SELECT T1.name FROM {JOINED}", f"SELECT T1.name FROM {JOINED} AND T1.age = 3"),
        (
            "SELECT name FROM singer WHERE age IN (SELECT age FROM singer WHERE age = 3)",
            "SELECT name FROM singer WHERE age IN (SELECT age FROM singer WHERE age = 4)",
        ),
        (
            f"SELECT name FROM singer UNION SELECT DISTINCT T1.singer_id FROM {JOINED} WHERE age = 1",
            f"SELECT name FROM singer UNION SELECT T1.singer_id FROM {JOINED} WHERE age = 2",
        ),
    ],
)
def test_these_match_exactly(gold: str, prediction: str) -> None:
    assert match(gold, prediction).exact
    assert wrong_parts(gold, prediction) == set()


@pytest.mark.parametrize(
    ("gold", "prediction", "wrong"),
    [
        ("SELECT name FROM singer", "SELECT age FROM singer", "select select_no_agg"),
        ("SELECT max(age) FROM singer", "SELECT min(age) FROM singer", "select"),
        ("SELECT name FROM singer", "SELECT name, name FROM singer", "select select_no_agg"),
        ("SELECT name FROM singer WHERE age > 3", "SELECT name FROM singer WHERE age < 3", "where"),
        ("SELECT name FROM singer WHERE age > 3", "SELECT name FROM singer WHERE st > 3", "where where_no_op"),
        (
            "SELECT name FROM singer WHERE age > 3 OR st = 1",
            "SELECT name FROM singer WHERE age > 3 AND st = 1",
            "and_or keywords",
        ),
        ("SELECT st FROM singer GROUP BY st", "SELECT st FROM singer GROUP BY age", "group_no_having group"),
        (
            "SELECT st FROM singer GROUP BY st HAVING count(*) > 1",
            "SELECT st FROM singer GROUP BY st HAVING count(*) < 1",
            "group",
        ),
        ("SELECT name FROM singer ORDER BY age", "SELECT name FROM singer ORDER BY age DESC", "order keywords"),
        ("SELECT name FROM singer ORDER BY age", "SELECT name FROM singer ORDER BY age LIMIT 1", "order keywords"),
        ("SELECT st FROM singer", "SELECT st FROM singer LIMIT 1", "keywords"),
        (
            "SELECT name FROM singer UNION SELECT st FROM singer",
            "SELECT name FROM singer EXCEPT SELECT st FROM singer",
            "iuen keywords",
        ),
        (
            "SELECT name FROM singer UNION SELECT st FROM singer",
            "SELECT name FROM singer UNION SELECT age FROM singer",
            "iuen",
        ),
        (
            "SELECT name FROM singer WHERE age IN (SELECT DISTINCT age FROM singer)",
            "SELECT name FROM singer WHERE age IN (SELECT age FROM singer)",
            "where",
        ),
        (
            f"SELECT name FROM singer WHERE age IN (SELECT T1.singer_id FROM {JOINED})",
            f"SELECT name FROM singer WHERE age IN (SELECT T2.singer_id FROM {JOINED})",
            "where",
        ),
        ("SELECT singer_id FROM singer", "SELECT singer_id FROM concert", ""),
        (f"SELECT T1.name FROM {JOINED}", "SELECT T1.name FROM singer AS T1", ""),
        (
            "SELECT * FROM (SELECT age FROM singer WHERE age = 3)",
            "SELECT * FROM (SELECT age FROM singer WHERE age = 4)",
            "",
        ),
    ],
)
def test_these_do_not_match_and_these_parts_are_wrong(gold: str, prediction: str, wrong: str) -> None:
    assert not match(gold, prediction).exact
    assert wrong_parts(gold, prediction) == set(wrong.split())


def test_a_column_stands_for_another_only_by_a_foreign_key() -> None:
    gold = f"SELECT T1.name FROM {JOINED} GROUP BY T1.singer_id"
    prediction = f"SELECT T1.name FROM {JOINED} GROUP BY T2.singer_id"
    assert match(gold, prediction).exact
    assert wrong_parts(gold, prediction, keys={}) == {"group"}


def test_a_foreign_key_reaches_set_operations_only_for_tables_of_the_first_from() -> None:
    gold = f"SELECT name FROM singer UNION SELECT T1.singer_id FROM {JOINED}"
    prediction = f"SELECT name FROM singer UNION SELECT T2.singer_id FROM {JOINED}"
    assert wrong_parts(gold, prediction) == {"iuen"}


def test_a_prediction_that_does_not_parse_is_an_empty_query() -> None:
    parts = match("SELECT name, age FROM singer WHERE st = 1", "SELECT").parts
    assert parts["select"] == Part(0, 0, 0, gold_total=2, predicted_total=0)
    assert parts["keywords"] == Part(0, 0, 0, gold_total=1, predicted_total=0)
    assert parts["order"] == parts["iuen"] == Part(1, 1, 1, gold_total=0, predicted_total=0)


def test_the_totals_of_and_or_are_exchanged_where_the_two_differ() -> None:
    gold = "SELECT name FROM singer WHERE age = 1 AND st = 1 OR st = 2"
    assert match(gold, "SELECT name FROM singer WHERE age = 1").parts["and_or"] == Part(0, 0, 0, 0, 2)
    assert match(gold, gold).parts["and_or"] == Part(1, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("gold", "exact"),
    [
        ("SELECT * FROM (SELECT age FROM singer) (SELECT st FROM singer)", True),
        ("SELECT * FROM (SELECT st FROM singer) (SELECT age FROM singer)", True),
        ("SELECT * FROM (SELECT st FROM singer) (SELECT st FROM singer)", False),
    ],
)
def test_two_subqueries_in_from_are_compared_in_any_order(gold: str, exact: bool) -> None:
    assert match(gold, "SELECT * FROM (SELECT age FROM singer) (SELECT st FROM singer)").exact is exact


@pytest.mark.parametrize("connective", ["AND", "OR"])
def test_a_connective_in_the_place_of_a_condition_is_passed_over(connective: str) -> None:
    odd = f"SELECT name FROM singer WHERE age = 1 st IN (SELECT st FROM singer) {connective} name = 2"
    assert match(odd, odd).exact
    assert wrong_parts("SELECT name FROM singer WHERE age = 1", odd) == {"and_or"}
    assert hardness(read(odd)) == "medium"


# Hardness


@pytest.mark.parametrize(
    ("sql", "level"),
    [
        ("SELECT name FROM singer", "easy"),
        ("SELECT name FROM singer WHERE age = 1", "easy"),
        ("SELECT name, age FROM singer WHERE age = 1", "medium"),
        ("SELECT st, max(age), min(age) FROM singer", "medium"),
        ("SELECT name FROM singer WHERE age = 1 AND name LIKE 'x'", "medium"),
        ("SELECT name FROM singer ORDER BY age LIMIT 1", "medium"),
        (f"SELECT T1.name FROM {JOINED} WHERE age = 1 OR age = 2", "hard"),
        ("SELECT max(age), min(age) FROM singer WHERE age = 1 AND st = 2 GROUP BY st, age", "hard"),
        ("SELECT max(age), min(age) FROM singer GROUP BY st, age ORDER BY age", "hard"),
        ("SELECT name FROM singer WHERE age IN (SELECT age FROM singer)", "hard"),
        ("SELECT name FROM singer UNION SELECT st FROM singer", "hard"),
        ("SELECT name, st FROM singer UNION SELECT st FROM singer", "extra"),
        (f"SELECT T1.name FROM {JOINED} WHERE age = 1 ORDER BY age LIMIT 1", "extra"),
        ("SELECT name FROM singer WHERE age NOT LIKE 'x'", "medium"),
    ],
)
def test_hardness_counts_clauses_nesting_and_the_rest(sql: str, level: str) -> None:
    assert hardness(read(sql)) == level


@pytest.mark.parametrize(
    "tail", ["WHERE age NOT IN (1)", "GROUP BY st HAVING age = 1 AND age = 2", "GROUP BY max(st)", "ORDER BY max(age)"]
)
def test_what_counts_as_one_more_aggregate(tail: str) -> None:
    assert hardness(read(f"SELECT st FROM singer {tail}")) == "easy"
    assert hardness(read(f"SELECT max(st) FROM singer {tail}")) == "medium"


# Foreign keys and averages

ENTRY = {
    "table_names_original": ["Singer", "Concert", "Visit"],
    "column_names_original": [
        [-1, "*"],
        [0, "ID"],
        [0, "Name"],
        [1, "Singer_ID"],
        [1, "No"],
        [2, "Singer"],
        [2, "Concert"],
    ],
}


@pytest.mark.parametrize(
    ("pairs", "classes"),
    [
        ([], {}),
        ([[3, 1]], {"concert.singer_id": "singer.id", "singer.id": "singer.id"}),
        ([[5, 3], [3, 1]], dict.fromkeys(["singer.id", "concert.singer_id", "visit.singer"], "singer.id")),
        (
            [[3, 1], [6, 4], [4, 1]],  # the last ties the first two together, too late
            dict.fromkeys(["singer.id", "concert.singer_id"], "singer.id")
            | dict.fromkeys(["concert.no", "visit.concert"], "concert.no"),
        ),
    ],
)
def test_foreign_keys_that_share_a_column_make_one_class(pairs: list[list[int]], classes: dict[str, str]) -> None:
    expected = {f"__{name}__": f"__{first}__" for name, first in classes.items()}
    assert foreign_key_classes({**ENTRY, "foreign_keys": pairs}) == expected


def test_a_schema_read_from_a_database_gives_the_same_classes() -> None:
    singer = Table("Singer", (Column("ID"), Column("Name")))
    concert = Table("Concert", (Column("Singer_ID"), Column("No")), (ForeignKey(("Singer_ID",), "singer", ("id",)),))
    visit = Table(
        "Visit",
        (Column("Singer"), Column("Concert")),
        (ForeignKey(("Singer", "Concert"), "Concert", ("Singer_ID", "No")), ForeignKey(("Singer",), "gone", ("id",))),
    )
    expected = foreign_key_classes({**ENTRY, "foreign_keys": [[3, 1], [5, 3], [6, 4]]})
    assert foreign_key_classes_of(Schema((singer, concert, visit))) == expected


def test_averages_are_over_what_has_the_part() -> None:
    gold = "SELECT name FROM singer ORDER BY age"
    pairs = [
        ("easy", match(gold, gold)),
        ("easy", match(gold, "SELECT name FROM singer")),
        ("hard", match("SELECT name FROM singer", gold)),
    ]
    metrics = aggregate(pairs)
    order = {
        key.removeprefix("eval/partial/order/"): value for key, value in metrics.items() if "eval/partial/order/" in key
    }
    assert order == {"accuracy": 1 / 2, "recall": 1 / 2, "f1": 1 / 2}
    assert metrics["eval/exact_match"] == 1 / 3
    assert metrics["eval/easy/exact_match"] == 1 / 2
    assert metrics["eval/easy/partial/order/f1"] == pytest.approx(2 / 3)
    assert not [key for key in metrics if key.startswith(("eval/medium", "eval/extra"))]


def test_f1_is_1_where_nothing_is_right() -> None:
    metrics = aggregate([("easy", match("SELECT name FROM singer", "SELECT age FROM singer"))])
    select = {score: metrics[f"eval/partial/select/{score}"] for score in ("accuracy", "recall", "f1")}
    assert select == {"accuracy": 0.0, "recall": 0.0, "f1": 1.0}


def test_no_pairs_have_no_averages() -> None:
    assert aggregate([]) == {}


# Spider


def test_every_gold_of_spider_dev_is_read_and_matches_itself() -> None:
    if not (SHARED / "dev.json").exists():
        pytest.skip("Spider is not in ../shared/data/spider")
    entries = {entry["db_id"]: entry for entry in json.loads((SHARED / "tables.json").read_text(encoding="utf-8"))}
    levels: dict[str, int] = {}
    for row in json.loads((SHARED / "dev.json").read_text(encoding="utf-8")):
        entry = entries[row["db_id"]]
        tables: dict[str, list[str]] = {name.lower(): [] for name in entry["table_names_original"]}
        for table, column in entry["column_names_original"][1:]:
            tables[entry["table_names_original"][table].lower()].append(column.lower())
        gold = parse(row["query"], tables)
        assert compare(gold, parse(row["query"], tables), foreign_key_classes(entry)).exact
        levels[hardness(gold)] = levels.get(hardness(gold), 0) + 1
    assert levels == {"easy": 248, "medium": 446, "hard": 174, "extra": 166}
