"""The seed of each stream of random numbers, derived from a run's one `seed` by the stream's name.

No stream takes numbers from another, so that a change to one (a rank, a dropout rate, an epoch more) shifts none of the others.
"""

from __future__ import annotations

import hashlib
import json

SCHEME = 2
"""How seeds are derived, as stamps and checkpoints record it. Those that record none are of 1: sums, such as seed + epoch."""
FIRST_SCHEME = 1

DATA_ORDER = "data order"
"""The shuffle of the examples; its part is the epoch."""
ADAPTER = "adapter"
"""A fresh adapter's first weights, the same on every rank."""
DROPOUT = "dropout"
"""Its part is the rank: each has examples of its own."""
SAMPLING = "sampling"
"""Answers that are no greedy ones; in padded batches its part is the batch's number."""


def derive(seed: int, name: str, *parts: int | str) -> int:
    """The seed of the stream `name`, or of the part of it that `parts` say, in a run of `seed`: from 0 to 2**32 - 1.

    torch, NumPy and vLLM all take such a number. It is the first four bytes, the highest first, of the SHA-256 of the JSON of
    [seed, name, *parts], and stays so: what is drawn otherwise is another SCHEME.
    """
    text = json.dumps([seed, name, *parts])
    return int.from_bytes(hashlib.sha256(text.encode("ascii")).digest()[:4], "big")
