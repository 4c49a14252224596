"""What a text may go on with, guessed from what it has said."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from text2sql.guessing import guess

TOKENS = st.integers(0, 3)


def by_hand(said: list[int], count: int) -> list[int] | None:
    """What followed the last earlier place with the same two tokens, else with the same one; None where there is none."""
    last = len(said) - 1
    places = [k for k in range(last) if said[k] == said[last]]
    both = [k for k in places if k > 0 and last > 0 and said[k - 1] == said[last - 1]]
    if not places:
        return None
    found = (both or places)[-1]
    followed = said[found + 1 :]
    return [followed[k % len(followed)] for k in range(count)]


@given(
    st.lists(st.lists(TOKENS, min_size=1, max_size=12), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 3)
)
def test_what_followed_before_is_guessed_whatever_stands_behind(rows, count, junk):
    history = torch.full((len(rows), 14), junk)
    for row, said in zip(history, rows):
        row[: len(said)] = torch.tensor(said)
    found = guess(history, torch.tensor([[len(said) - 1] for said in rows]), count).tolist()
    assert all(len(one) == count for one in found)
    for said, one in zip(rows, found):
        expected = by_hand(said, count)
        assert expected is None or one == expected


def test_a_text_that_goes_round_is_guessed_to_go_on_so():
    history = torch.tensor([[9, 1, 2, 3, 1, 2, 3, 1, 0, 0]])
    assert guess(history, torch.tensor([[7]]), 5).tolist() == [[2, 3, 1, 2, 3]]
