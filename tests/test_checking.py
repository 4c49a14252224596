"""Constrained and sampled decoding: each step's likeliest allowed token, or a sample of those that are allowed, however often one looks."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import talkative

from text2sql import decoding, fast_path, steps

pytestmark = pytest.mark.usefixtures("one_thread")

EOS, PAD = 2, 0
FAR = 21.1
"""One in 10 000 fair samples is farther off by chi-square with three degrees of freedom."""


def adapted(small, device="cpu"):
    """A model on the fast path whose adapter says something else to every prompt."""
    network = talkative(small("phase=2", "quant=none")).to(device)
    assert fast_path.switch_on(network, torch.float32)
    return network


@pytest.fixture(scope="module")
def network(small):
    return adapted(small)


@pytest.fixture(scope="module")
def rows():
    torch.manual_seed(1)
    draw = lambda count: torch.randint(5, 300, (count,)).tolist()  # noqa: E731
    shared = draw(40)
    return [*(shared + draw(2 + k) for k in range(5)), *(draw(length) for length in (70, 7, 2, 1)), shared, shared]


class NoNames:
    """A constraint for which no other way on is better."""

    def instead(self, tokens, refused):
        return None


class Hashed(NoNames):
    """Every token rules out a third of those that may follow it; the text may end after `shortest` tokens."""

    def __init__(self, size, salt=0, shortest=3, share=3):
        self.size, self.salt, self.shortest, self.share = size, salt, shortest, share
        self.asked = 0

    def start(self):
        return (0, self.salt)

    def advance(self, state, token):
        self.asked += 1
        return (state[0] + 1, token) if self.mask(state)[token] else None

    def mask(self, state):
        count, last = state
        allowed = (np.arange(self.size) * 7 + last * 5 + count) % self.share != 0
        allowed[EOS] = count >= self.shortest
        return allowed


class Returning(Hashed):
    """Goes three tokens back where one is refused that is even, to where two thirds of what was allowed is not any more."""

    def instead(self, tokens, refused):
        kept = len(tokens) - 3
        return (kept, (kept, tokens[kept - 1] + self.size)) if kept > 0 and refused % 2 == 0 else None


class Only(NoNames):
    """Texts of one token out of each of some sets, in turn, then EOS."""

    def __init__(self, size, *sets):
        self.masks = np.zeros((len(sets) + 1, size), dtype=bool)
        for mask, tokens in zip(self.masks, (*sets, [EOS])):
            mask[list(tokens)] = True

    def start(self):
        return 0

    def advance(self, state, token):
        return state + 1 if state < len(self.masks) and self.masks[state][token] else None

    def mask(self, state):
        return self.masks[state]


def decode(network, rows, max_new_tokens=20, **settings):
    settings = {"eos_token_id": EOS, "pad_token_id": PAD, "graphs": False, **settings}
    found = list(decoding.decode(network, rows, max_new_tokens=max_new_tokens, **settings))
    assert sorted(i for i, _ in found) == list(range(len(rows)))
    return [ids for _, ids in sorted(found)]


def scores(network, ids):
    """What the model says comes after `ids`, by a forward without any cache."""
    fast_path.switch_off(network)
    with torch.no_grad():
        result = network(input_ids=torch.tensor([ids], device=network.device), use_cache=False).logits[0, -1].cpu()
    fast_path.switch_on(network, torch.float32)
    return result


def by_whole_forwards(network, row, constraint, max_new_tokens):
    """At each step the likeliest allowed token, and how often that was not the likeliest of all."""
    state, said, refused, mended = constraint.start(), [], 0, 0
    while len(said) < max_new_tokens:
        logits = scores(network, row + said)
        allowed = torch.as_tensor(constraint.mask(state))
        token = int(logits.masked_fill(~allowed, -torch.inf).argmax())
        if token != int(logits.argmax()):
            refused += 1
            back = constraint.instead(said, int(logits.argmax()))
            if back is not None and back[0] > mended:
                mended, state = back
                said = said[:mended]
                continue
        state = constraint.advance(state, token)
        if token == EOS:
            break
        said.append(token)
    return said, refused


@pytest.fixture(scope="module")
def size(network):
    return network.get_output_embeddings().weight.shape[0]


@pytest.fixture(scope="module")
def expected(network, rows, size):
    found = [by_whole_forwards(network, row, Hashed(size, i), 20) for i, row in enumerate(rows)]
    assert sum(refused for _, refused in found) > 2 * len(rows), "the constraints must bite"
    return [said for said, _ in found]


@pytest.mark.parametrize("looks_every", [1, 2, 3, 8, 50])
@pytest.mark.parametrize("max_cache_tokens", [None, 1, 300])
def test_a_constrained_answer_is_the_likeliest_allowed_token_at_each_step(
    network, rows, size, expected, looks_every, max_cache_tokens
):
    constraints = [Hashed(size, i) for i in range(len(rows))]
    settings = {"constraints": constraints, "looks_every": looks_every, "max_cache_tokens": max_cache_tokens}
    assert decode(network, rows, **settings) == expected


@pytest.mark.parametrize("looks_every", [1, 2, 3, 8, 50])
def test_an_answer_goes_back_where_its_constraint_knows_a_better_way_on(network, rows, size, expected, looks_every):
    constraints = [Returning(size, i) for i in range(len(rows))]
    found = decode(network, rows, constraints=constraints, looks_every=looks_every)
    assert found == [by_whole_forwards(network, row, one, 20)[0] for row, one in zip(rows, constraints)]
    assert found != expected
    sampled = {"temperatures": [1.5] * len(rows), "looks_every": looks_every, "seed": 1}
    without = decode(network, rows, constraints=[Hashed(size, i) for i in range(len(rows))], **sampled)
    assert decode(network, rows, constraints=constraints, **sampled) == without


@pytest.fixture(scope="module")
def frequent(network, rows, size):
    """A token that ends some constrained answers early and some never, when it is taken for EOS."""
    said = [
        token
        for ids in decode(network, rows, constraints=[Hashed(size, i, 99) for i in range(len(rows))])
        for token in ids
    ]
    return Counter(said).most_common(1)[0][0]


@pytest.mark.parametrize("looks_every", [1, 3, 8])
def test_an_answer_ends_only_where_its_constraint_lets_it(network, rows, size, frequent, looks_every, monkeypatch):
    monkeypatch.setitem(globals(), "EOS", frequent)
    unconstrained = decode(network, rows, eos_token_id=frequent)
    shortest = 1 + min(map(len, unconstrained))
    constraints = [Hashed(size, i, shortest=shortest) for i in range(len(rows))]
    expected = [by_whole_forwards(network, row, one, 20)[0] for row, one in zip(rows, constraints)]
    assert min(map(len, expected)) >= shortest and len(set(map(len, expected))) > 1
    found = decode(network, rows, eos_token_id=frequent, constraints=constraints, looks_every=looks_every)
    assert found == expected


@pytest.mark.parametrize("looks_every", [1, 8])
def test_a_constraint_that_allows_everything_changes_nothing(network, rows, size, looks_every):
    constraints = [Hashed(size, i, shortest=0, share=10**9) for i in range(len(rows))]
    free = decode(network, rows)
    assert decode(network, rows, constraints=constraints, looks_every=looks_every) == free


def test_a_head_that_is_wider_than_the_masks_says_none_of_its_other_tokens(network, rows, size):
    narrow = size // 2
    constraints = [Hashed(narrow, i, shortest=99) for i in range(len(rows))]
    for one in constraints:
        one.advance = lambda state, token, one=one: None if token >= narrow else Hashed.advance(one, state, token)
    found = decode(network, rows, constraints=constraints)
    assert max(token for ids in found for token in ids) < narrow
    assert decode(network, rows, constraints=constraints, looks_every=8) == found


def steps_run(network, rows, **settings):
    calls = []
    layer = network.get_base_model().model.layers[0]
    hook = layer.register_forward_pre_hook(lambda _, inputs: calls.append(tuple(inputs[0].shape[:2])))
    decode(network, rows, **settings)
    hook.remove()
    return calls


def test_no_step_is_lost_on_rows_that_keep_to_their_constraint(network, rows, size):
    everything = [Hashed(size, i, shortest=0, share=10**9) for i in range(len(rows))]
    free = steps_run(network, rows, looks_every=8)
    assert steps_run(network, rows, constraints=everything, looks_every=8) == free


def test_a_token_is_checked_once_but_where_it_is_refused(network, rows, size, expected):
    constraints = [Hashed(size, i) for i in range(len(rows))]
    decode(network, rows, constraints=constraints)
    tokens = sum(map(len, expected))
    refused = sum(by_whole_forwards(network, row, Hashed(size, i), 20)[1] for i, row in enumerate(rows))
    ended = sum(len(ids) < 20 for ids in expected)
    assert sum(one.asked for one in constraints) == tokens + ended + refused


# Samples


def test_rows_without_a_temperature_are_greedy_among_samples(network, rows):
    greedy = decode(network, rows)
    mixed = decode(network, [*rows, *rows], temperatures=[0.0] * len(rows) + [2.0] * len(rows), seed=3)
    assert mixed[: len(rows)] == greedy
    assert mixed[len(rows) :] != greedy


@pytest.mark.parametrize("looks_every", [1, 8])
def test_one_seed_one_answer(network, rows, size, looks_every):
    settings = {"temperatures": [1.5] * len(rows), "looks_every": looks_every}
    settings["constraints"] = [Hashed(size, i) for i in range(len(rows))]
    first = decode(network, rows, seed=1, **settings)
    assert decode(network, rows, seed=1, **settings) == first
    assert decode(network, rows, seed=2, **settings) != first


@pytest.mark.parametrize("looks_every", [1, 8])
@pytest.mark.parametrize("max_cache_tokens", [None, 300])
def test_every_sample_keeps_to_its_constraint(network, rows, size, looks_every, max_cache_tokens):
    constraints = [Hashed(size, i) for i in range(len(rows))]
    settings = {"temperatures": [1.5] * len(rows), "looks_every": looks_every, "max_cache_tokens": max_cache_tokens}
    for ids, one in zip(decode(network, rows, constraints=constraints, **settings), constraints):
        state = one.start()
        for token in ids if len(ids) == 20 else [*ids, EOS]:
            state = one.advance(state, token)
            assert state is not None


def distance(counts, probabilities, total):
    """Chi-square of counts by token against probabilities."""
    return sum((counts[token] - total * p) ** 2 / (total * p) for token, p in probabilities.items())


def sets_after(network, row):
    """For two tokens after `row`: the likeliest alone, then some of the likely ones, most of all left out; and their scores."""
    first = int(scores(network, row).argmax())
    logits = scores(network, [*row, first])
    allowed = logits.topk(8).indices.tolist()[1::2]
    return [[first], allowed], logits[allowed]


@pytest.mark.parametrize("temperature", [0.7, 2.0])
@pytest.mark.parametrize("looks_every", [1, 8])
def test_samples_follow_the_distribution_over_what_is_allowed(network, rows, size, temperature, looks_every):
    total, (sets, logits) = 4000, sets_after(network, rows[0])
    settings = {"temperatures": [temperature] * total, "seed": 7, "max_cache_tokens": 10**6, "looks_every": looks_every}
    found = decode(network, [rows[0]] * total, 4, constraints=[Only(size, *sets)] * total, **settings)
    assert all(len(ids) == 2 for ids in found)
    expected = dict(zip(sets[1], torch.softmax(logits / temperature, 0).tolist()))
    assert distance(Counter(ids[1] for ids in found), expected, total) < FAR


def test_samples_of_one_prompt_share_its_prefill(network, rows):
    row = rows[5]
    calls = steps_run(network, [row] * 6, max_new_tokens=1, temperatures=[0.0] + [1.0] * 5)
    assert sum(a * b for a, b in calls) == len(row) - 1 + 6


# Graphs


class Replayed(steps.Recorded):
    """A recording that launches its steps anew, if they are still about the tensors that it was made with."""

    def _warm_up(self):
        pass

    def _recording(self):
        recorded = [self.cache, *(getattr(self, name).data_ptr() for name in self.tensors)]

        def replay():
            assert [self.cache, *(getattr(self, name).data_ptr() for name in self.tensors)] == recorded
            self.step(self.cache)

        return SimpleNamespace(replay=replay)


@pytest.fixture
def replayed(monkeypatch):
    """How many rows went on in the narrow part of a recording, each time that some did."""
    found = []

    class Noted(Replayed):
        def drop(self, slots):
            found.append(len(slots))
            super().drop(slots)

    monkeypatch.setattr(decoding, "Recorded", Noted)
    monkeypatch.setattr(steps, "FEW", 2)
    return found


@pytest.fixture
def eos(network, rows, monkeypatch):
    """The token that is in most free answers, as EOS."""
    said = decode(network, rows, max_new_tokens=40)
    token = Counter(token for ids in said for token in set(ids)).most_common(1)[0][0]
    monkeypatch.setitem(globals(), "EOS", token)
    return token


@pytest.mark.parametrize("looks_every", [1, 2, 8])
@pytest.mark.parametrize("max_cache_tokens", [10_000, 1000])
def test_the_last_rows_go_on_in_the_narrow_part_of_a_recording(
    network, rows, size, eos, replayed, looks_every, max_cache_tokens
):
    settings = {"eos_token_id": eos, "looks_every": looks_every, "max_cache_tokens": max_cache_tokens}
    free = decode(network, rows, max_new_tokens=40, **settings, graphs=True)
    assert free == decode(network, rows, max_new_tokens=40, **settings)
    assert replayed, "no row was left alone"
    replayed.clear()
    constraints = [Hashed(size, i) for i in range(len(rows))]
    found = decode(network, rows, max_new_tokens=40, constraints=constraints, **settings, graphs=True)
    assert found == [by_whole_forwards(network, row, Hashed(size, i), 40)[0] for i, row in enumerate(rows)]
    assert replayed, "no row was left alone"


def knowing(rows, answers, wrong_every):
    """Guesses that are right but for every so-manieth place of an answer."""

    def guess(history, ends, count):
        found = torch.zeros((len(history), count), dtype=torch.long)
        for slot, said in enumerate(history.tolist()):
            known = [i for i, row in enumerate(rows) if said[: len(row)] == row]
            if known:
                i = max(known, key=lambda i: len(rows[i]))
                made = int(ends[slot]) - len(rows[i]) + 1
                places = range(made, min(made + count, len(answers[i])))
                right = [answers[i][place] + (place % wrong_every == 0) for place in places]
                found[slot, : len(right)] = torch.tensor(right)
        return found

    return guess


@pytest.mark.parametrize(("wrong_every", "num_steps"), [(1000, 5), (4, 10), (1, 39)])
@pytest.mark.parametrize("constrained", [False, True])
def test_guesses_that_are_right_save_steps_and_those_that_are_not_change_nothing(
    network, rows, size, constrained, wrong_every, num_steps, monkeypatch
):
    constraints = [Hashed(size, i, shortest=99) for i in range(len(rows))] if constrained else None
    settings = {"constraints": constraints, "max_new_tokens": 40, "eos_token_id": EOS if constrained else size + 1}
    expected, taken = decode(network, rows, **settings), []

    class Counted(Replayed):
        def advance(self, steps, correct=None):
            taken.append(steps)
            super().advance(steps, correct)

    monkeypatch.setattr(decoding, "Recorded", Counted)
    monkeypatch.setattr(steps, "guess", knowing(rows, expected, wrong_every))
    monkeypatch.setattr(steps, "GUESSES", 7)
    assert decode(network, rows, graphs=True, looks_every=1, **settings) == expected
    if not constrained:
        assert sum(taken) == num_steps


@pytest.fixture(scope="module")
def on_gpu(small):
    return adapted(small, "cuda")


@pytest.fixture(scope="module")
def expected_of_gpu(on_gpu, rows, size):
    return [by_whole_forwards(on_gpu, row, Hashed(size, i), 20)[0] for i, row in enumerate(rows)]


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("max_cache_tokens", [None, 1000])
def test_a_gpu_says_under_constraints_what_whole_forwards_do(
    on_gpu, rows, size, expected_of_gpu, graphs, max_cache_tokens
):
    constraints = [Hashed(size, i) for i in range(len(rows))]
    found = decode(on_gpu, rows, constraints=constraints, graphs=graphs, max_cache_tokens=max_cache_tokens)
    assert found == expected_of_gpu


@pytest.mark.gpu
@pytest.mark.parametrize("constrained", [False, True])
def test_a_recording_samples_anew_at_every_replay_and_by_its_seed(on_gpu, rows, size, constrained):
    many, settings = [rows[0]] * 64, {"temperatures": [0.0] + [1.5] * 63, "graphs": True}
    settings["constraints"] = [Hashed(size, 0) for _ in many] if constrained else None
    first = decode(on_gpu, many, seed=1, **settings)
    assert decode(on_gpu, many, seed=1, **settings) == first
    assert decode(on_gpu, many, seed=2, **settings) != first
    assert len(set(map(tuple, first))) > 32
    settings["temperatures"] = [0.0] * 64
    assert decode(on_gpu, many, **settings)[0] == first[0]


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_samples_of_a_gpu_follow_the_distribution_over_what_is_allowed(on_gpu, network, rows, size, graphs):
    total, (sets, logits) = 4000, sets_after(network, rows[0])
    settings = {"temperatures": [1.0] * total, "seed": 7, "max_cache_tokens": 10**6, "graphs": graphs}
    found = decode(on_gpu, [rows[0]] * total, 4, constraints=[Only(size, *sets)] * total, **settings)
    expected = dict(zip(sets[1], torch.softmax(logits, 0).tolist()))
    assert distance(Counter(ids[1] for ids in found), expected, total) < FAR
