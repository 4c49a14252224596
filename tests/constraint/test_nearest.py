"""A name that is begun and does not exist, and the real ones that a model may have meant by it."""

import random
import re
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2sql import constraint
from text2sql.constraint.nearest import meant
from text2sql.example import Column, Schema, Table

SHOP = Schema(
    (
        Table("cartoon", (Column("title"), Column("original_air_date"), Column("production_code"))),
        Table("pets", (Column("pettype"), Column("pet_age"), Column("weight"))),
        Table("auto_makers", (Column("maker"), Column("surfacearea"), Column("major_record_format"))),
        Table("record_company", (Column("record_id"), Column("city"))),
    )
)
NAMES = [b"song_release_year", b"pet_age", b"pettype", b"surfacearea", b"degree_programs", b"abbreviation", b"name"]


@pytest.mark.parametrize(
    ("begun", "expected"),
    [
        (b"release_year", {b"song_release_year"}),
        (b"release", {b"song_release_year"}),
        (b"pet_type", {b"pettype"}),
        (b"age", {b"pet_age"}),
        (b"area", {b"surfacearea"}),
        (b"degrees_programs", {b"degree_programs"}),
        (b"degrees_", {b"degree_programs"}),
        (b"abreviation", {b"abbreviation"}),
        (b"pet", {b"pet_age", b"pettype"}),
        (b"id", set()),
        (b"employer", set()),
        (b"", set()),
    ],
)
def test_names_meant_by_a_beginning(begun, expected):
    assert meant(begun, NAMES) == expected


@given(st.text("abs_1", max_size=8), st.sets(st.text("abs_1é", min_size=1, max_size=8), max_size=6))
def test_what_is_meant_is_one_of_the_names_and_itself_where_it_is_there(begun, names):
    names = {name.encode() for name in names}
    found = meant(begun.encode(), names)
    assert found <= names
    if begun.encode() in names and len(begun.replace("_", "")) > 4:
        assert begun.encode() in found


class Words:
    """A tokenizer of words, of signs and, with `letters`, of single letters for the words that it has not."""

    eos_token_id, all_special_ids, added_tokens_decoder, backend_tokenizer = 0, [0], {}, None

    def __init__(self, text, letters=string.ascii_letters + " "):
        pieces = dict.fromkeys([*re.findall("[A-Za-z]+|[^A-Za-z]", text), *letters])
        self.ids = {"</s>": 0} | {piece: 1 + i for i, piece in enumerate(pieces)}

    def get_vocab(self):
        return self.ids

    def __len__(self):
        return len(self.ids)

    def encode(self, text):
        return [self.ids[piece] for piece in re.findall("[A-Za-z]+|[^A-Za-z]", text)]

    def decode(self, ids):
        texts = {i: piece for piece, i in self.ids.items()}
        return "".join(texts[i] for i in ids)


GOING_BACK = {
    "SELECT cartoon.air_date FROM": "SELECT cartoon.original_air_date",
    "SELECT pets.pet_type FROM": "SELECT pets.pettype",
    "SELECT auto_makers.record_format": "SELECT auto_makers.major_record_format",
    "SELECT maker FROM autos_makers": "SELECT maker FROM auto_makers",
    "SELECT pets.weight FROM pets ORDER BY pets.age DESC": "SELECT pets.weight FROM pets ORDER BY pets.pet_age",
    "SELECT auto_makers.area FROM": "SELECT auto_makers.surfacearea",
}
STAYING = [
    "SELECT cartoon.zebra FROM",  # like nothing
    "SELECT pets.maker FROM",  # real, and of another table
    "SELECT title FROM cartoon WHERE WHERE",  # no name
    "SELECT title FROM cartoon ) ",
    "dropped",  # nothing stands before it
]


@pytest.fixture(scope="module")
def tokenizer():
    return Words(" ".join([*GOING_BACK, *STAYING]))


@pytest.fixture(scope="module")
def one(tokenizer):
    return constraint.of(SHOP, constraint.Vocabulary(tokenizer))


def refused(one, tokenizer, text):
    """The tokens of `text` that are taken, and the first that is not."""
    ids, state = tokenizer.encode(text), one.start()
    for k, token_id in enumerate(ids):
        state = one.advance(state, token_id)
        if state is None:
            return ids[:k], ids[k]
    raise AssertionError(f"{text} is allowed")


def spelled(one, tokenizer, text, rng):
    """`text` as it goes on after its first refused token, by allowed tokens at random until the name is complete."""
    tokens, token_id = refused(one, tokenizer, text)
    found = one.instead(tokens, token_id)
    if found is None:
        return None
    kept, state = found
    tokens = tokens[:kept]
    while hasattr(state, "left"):
        mask = one.mask(state)
        assert mask.tolist() == [one.advance(state, i) is not None for i in range(len(mask))]
        tokens.append(rng.choice(np.flatnonzero(mask).tolist()))
        state = one.advance(state, tokens[-1])
    return tokenizer.decode(tokens)


@pytest.mark.parametrize(("text", "expected"), GOING_BACK.items())
def test_a_text_goes_back_to_where_the_name_began(one, tokenizer, text, expected):
    for seed in range(3):
        assert spelled(one, tokenizer, text, random.Random(seed)) == expected


@pytest.mark.parametrize("text", STAYING)
def test_what_names_nothing_that_is_like_it_stays_where_it_is(one, tokenizer, text):
    assert one.instead(*refused(one, tokenizer, text)) is None


def test_a_tokenizer_that_cannot_spell_a_name_is_not_asked_to():
    tokenizer = Words("SELECT pets.pet_x", letters="")
    one = constraint.of(SHOP, constraint.Vocabulary(tokenizer))
    assert one.instead(*refused(one, tokenizer, "SELECT pets.pet_x")) is None
