"""How sure a model is of an answer: the probabilities that it gives to the tokens of one, read in a single pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from text2sql import attention, fast_path, passes


class Confidence(NamedTuple):
    """Probabilities of the tokens of one answer, its end included: their geometric mean and the lowest of them."""

    mean: float
    lowest: float


@torch.no_grad()
def confidence(network: Any, prompt: list[int], answer: list[int]) -> Confidence:
    """What `network`, in evaluation mode, makes of the tokens of `answer` after `prompt`; both are token ids, not empty."""
    head = fast_path.head(network)
    one = passes.concatenate([passes.Row(prompt + answer, len(prompt))], head.weight.device)
    if fast_path.is_on(network):
        dtype = network.get_input_embeddings()(one.ids[:, :1]).dtype
        layout = attention.packed(one.lengths, one.ids.device, dtype)
        hidden = fast_path.hidden_states(network, one.ids, one.positions, layout)
    else:
        decoder = fast_path.causal(network).get_decoder()
        hidden = decoder(input_ids=one.ids, position_ids=one.positions, use_cache=False)[0]
    scores = head(hidden[0].index_select(0, one.sources).to(head.weight.dtype)).float()
    of_answer = scores.log_softmax(-1).gather(1, one.targets[:, None])[:, 0]
    return Confidence(of_answer.mean().exp().item(), of_answer.min().exp().item())
