"""Plans of passes, shares of ranks, and rows end to end."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from text2sql.passes import Row, concatenate, count_targets, plan, share

LENGTHS = st.lists(st.integers(1, 40), max_size=24)


def tokens(lengths, indices):
    return sum(lengths[i] for i in indices)


def first_fit(lengths, max_tokens):
    """How many passes filling them in the order of the examples takes."""
    loads = []
    for length in lengths:
        fitting = [i for i, load in enumerate(loads) if load + length <= max_tokens]
        if fitting:
            loads[fitting[0]] += length
        else:
            loads.append(length)
    return len(loads)


def fewest(lengths, max_tokens, loads=()):
    """How few passes there can be, by trying everything."""
    if not lengths:
        return len(loads)
    first, *rest = lengths
    best = fewest(rest, max_tokens, (*loads, first))
    for i, load in enumerate(loads):
        if load + first <= max_tokens and loads.index(load) == i:
            best = min(best, fewest(rest, max_tokens, (*loads[:i], load + first, *loads[i + 1 :])))
    return best


@given(LENGTHS, st.integers(1, 90))
def test_every_example_is_in_one_pass(lengths, max_tokens):
    passes = plan(lengths, max_tokens)
    assert sorted(i for one in passes for i in one) == list(range(len(lengths)))
    assert all(one == sorted(one) for one in passes)


@given(LENGTHS, st.integers(1, 90))
def test_only_an_example_that_is_longer_itself_exceeds_the_budget(lengths, max_tokens):
    assert all(tokens(lengths, one) <= max_tokens or len(one) == 1 for one in plan(lengths, max_tokens))


@given(LENGTHS, st.integers(1, 90))
def test_no_two_passes_would_fit_into_one(lengths, max_tokens):
    for one, other in combinations(plan(lengths, max_tokens), 2):
        assert tokens(lengths, one) + tokens(lengths, other) > max_tokens


@given(LENGTHS, st.integers(1, 90))
def test_the_fullest_pass_comes_first(lengths, max_tokens):
    loads = [tokens(lengths, one) for one in plan(lengths, max_tokens)]
    assert loads == sorted(loads, reverse=True)


@given(st.lists(st.integers(1, 40), max_size=8), st.integers(1, 90))
def test_passes_are_within_eleven_ninths_of_the_fewest(lengths, max_tokens):
    assert len(plan(lengths, max_tokens)) <= 11 / 9 * fewest(lengths, max_tokens) + 1


def test_steps_as_they_are_need_no_more_passes_than_first_fit():
    draw = random.Random(0)
    for max_tokens in (1024, 2048, 4096):
        steps = [[draw.randrange(60, 1000) for _ in range(16)] for _ in range(200)]
        # a single step may come out one worse: no rule short of trying everything is best for each
        assert sum(len(plan(one, max_tokens)) for one in steps) <= sum(first_fit(one, max_tokens) for one in steps)


@given(LENGTHS, st.integers(1, 9))
def test_ranks_share_every_example_and_none_twice(lengths, num_ranks):
    shares = share(lengths, num_ranks)
    assert len(shares) == num_ranks
    assert sorted(i for one in shares for i in one) == list(range(len(lengths)))
    assert shares == share(list(lengths), num_ranks)


@given(LENGTHS.filter(len), st.integers(1, 9))
def test_no_rank_has_more_than_one_example_beyond_another(lengths, num_ranks):
    shares = share(lengths, num_ranks)
    loads = [tokens(lengths, one) for one in shares]
    heaviest = shares[loads.index(max(loads))]
    assert max(loads) - min(loads) <= min(lengths[i] for i in heaviest)


def test_ranks_work_about_as_long_as_each_other_in_steps_as_they_are():
    draw = random.Random(0)
    waiting = []
    for _ in range(200):
        lengths = [draw.randrange(60, 1000) for _ in range(16)]
        loads = [tokens(lengths, one) for one in share(lengths, 2)]
        waiting.append(1 - sum(loads) / 2 / max(loads))
    assert sum(waiting) / len(waiting) < 0.02


ROW = st.lists(st.integers(0, 500), min_size=1, max_size=9).flatmap(
    lambda ids: st.builds(Row, st.just(ids), st.integers(0, len(ids)))
)


@given(st.lists(ROW, min_size=1, max_size=6))
def test_a_pass_is_its_rows_end_to_end_without_padding(rows):
    made = concatenate(rows)
    assert made.ids.tolist() == [[token for row in rows for token in row.ids]]
    assert made.positions.tolist() == [[place for row in rows for place in range(len(row.ids))]]
    assert made.lengths == tuple(len(row.ids) for row in rows)
    assert made.num_tokens == sum(made.lengths)


@given(st.lists(ROW, min_size=1, max_size=6))
def test_what_is_learned_follows_the_prompt_and_is_predicted_from_the_place_before_it(rows):
    made = concatenate(rows)
    assert made.targets.tolist() == [token for row in rows for token in row.ids[max(row.prompt_length, 1) :]]
    assert torch.equal(made.ids[0, made.sources + 1], made.targets)
    assert made.num_targets == len(made.sources) == count_targets(rows)


@given(st.lists(ROW, min_size=1, max_size=6))
def test_no_example_is_predicted_from_the_one_before_it(rows):
    made = concatenate(rows)
    assert (made.positions[0, made.sources + 1] > 0).all()
    assert torch.equal(made.positions[0, made.sources + 1], made.positions[0, made.sources] + 1)


@pytest.mark.gpu
def test_a_pass_goes_to_the_gpu_as_it_is():
    rows = [Row([5, 6, 7], 1), Row([8, 9], 1)]
    here, there = concatenate(rows), concatenate(rows, "cuda")
    for name in ("ids", "positions", "sources", "targets"):
        assert getattr(there, name).is_cuda
        assert torch.equal(getattr(there, name).cpu(), getattr(here, name))
