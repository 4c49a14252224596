"""The constraint over a tokenizer: masks say what advance does, and generate() obeys them with batches, beams and sampling."""

import random

import numpy as np
import pytest
import torch
from constraint.test_constraint_names import SINGERS
from transformers import AutoModelForCausalLM, AutoTokenizer

from text2sql import constraint, tiny
from text2sql.constraint.processor import SchemaConstraint
from text2sql.example import Column, Schema, Table

CARS = Schema((Table("car", (Column("maker"), Column("horse power"))),))


@pytest.fixture(scope="module")
def loaded():
    folder = tiny.fetch()
    return AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def vocabulary(loaded):
    return constraint.Vocabulary(loaded[0])


@pytest.mark.parametrize("loose", [False, True])
def test_a_mask_allows_what_advance_does(vocabulary, loose):
    one, rng = constraint.of(SINGERS, vocabulary, loose), random.Random(0)
    for _ in range(12):
        state = one.start()
        for _ in range(25):
            mask = one.mask(state)
            assert mask.tolist() == [one.advance(state, i) is not None for i in range(vocabulary.size)]
            state = one.advance(state, rng.choice(np.flatnonzero(mask).tolist()))


def test_special_tokens_are_never_allowed_but_for_eos_at_an_end(loaded, vocabulary):
    tokenizer, one = loaded[0], constraint.of(SINGERS, vocabulary)
    state = one.start()
    for token_id in tokenizer("SELECT name FROM singer;", add_special_tokens=False)["input_ids"]:
        state = one.advance(state, token_id)
    assert set(np.flatnonzero(one.mask(state))) & set(tokenizer.all_special_ids) == {tokenizer.eos_token_id}
    assert not set(np.flatnonzero(one.mask(one.start()))) & set(tokenizer.all_special_ids)


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"do_sample": True}, {"do_sample": True, "num_return_sequences": 2}]
)
def test_generate_writes_beginnings_of_queries(loaded, vocabulary, options):
    tokenizer, model = loaded
    torch.manual_seed(0)
    rows, schemas = torch.tensor([[1, 40, 41], [0, 1, 50]]), [SINGERS, CARS]
    constraints = [constraint.of(schema, vocabulary) for schema in schemas]
    copies = options.get("num_beams", 1) * options.get("num_return_sequences", 1)
    processor = SchemaConstraint(constraints, rows.shape[1], copies)
    output = model.generate(
        rows, attention_mask=(rows > 0).long(), max_new_tokens=24, logits_processor=[processor], **options
    )
    returned = len(output) // 2
    for i, answer in enumerate(output[:, rows.shape[1] :].tolist()):
        one = constraints[i // returned]
        state = one.start()
        for token_id in answer:
            if token_id == tokenizer.pad_token_id:
                break
            state = one.advance(state, token_id)
            assert state is not None, tokenizer.decode(answer)


def test_the_processor_wants_a_constraint_for_each_prompt(vocabulary):
    processor = SchemaConstraint([constraint.of(SINGERS, vocabulary)], 1)
    with pytest.raises(ValueError, match="2 rows for 1 prompts"):
        processor(torch.zeros((2, 1), dtype=torch.long), torch.zeros((2, vocabulary.size)))
