"""A model over several devices: each holds a shard of the frozen weights and gathers one layer at a time (PyTorch's FSDP).

Only what is frozen is sharded. The adapter, some hundred times smaller, is whole in every process as it is in a run that does
not shard; so its gradients, the optimizer, clipping and checkpoints are those of such a run. Not for fsdp: the fast path and
CUDA graphs, which hold on to weights, and answers to questions, which one process cannot generate alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import distributed
from torch.distributed.fsdp import BackwardPrefetch, FullyShardedDataParallel
from torch.distributed.fsdp.wrap import CustomPolicy

from text2sql import attention, fast_path, ranks
from text2sql.cross_entropy import cross_entropy
from text2sql.passes import Pass, Row, plan, share
from text2sql.step import StepGradient, plain_hidden_states


class Head(torch.nn.Module):
    """The output layer as one unit: FSDP has a layer's weights whole only while that layer's own forward runs."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return cross_entropy(hidden, self.linear, targets)


class PassLoss(torch.nn.Module):
    """The summed cross-entropy of a pass, by the decoder and the head of `model`, which stay where they are in it."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.decoder, self.head, self.dtype = fast_path.causal(model).get_decoder(), Head(fast_path.head(model)), dtype

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        hidden = plain_hidden_states(self.decoder, ids, positions, self.dtype)
        return self.head(hidden[0].index_select(0, sources).to(self.dtype), targets)


def shard(model: Any, dtype: torch.dtype, on_gpu: bool) -> FullyShardedDataParallel:
    """Shard the frozen weights of `model` in place, over the processes' devices; returns its `PassLoss`, computed in `dtype`.

    On GPUs, only the weights of rank 0 count, and all may lie in CPU memory. Every forward of the result is a collective.
    """
    device = torch.device("cuda", ranks.local_rank()) if on_gpu else torch.device("cpu")
    network = PassLoss(model, dtype)
    adapter = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in adapter:
        parameter.data = parameter.data.to(device)
        distributed.broadcast(parameter.data, src=0)  # loading may have drawn other random numbers elsewhere
    return FullyShardedDataParallel(
        network,
        auto_wrap_policy=CustomPolicy(units(network).__contains__),
        ignored_states=adapter,
        device_id=device,
        sync_module_states=on_gpu,  # on the CPU every process has loaded the weights itself
        backward_prefetch=BackwardPrefetch.BACKWARD_PRE,
        limit_all_gathers=True,
        use_orig_params=False,
    )


def units(network: PassLoss) -> set[torch.nn.Module]:
    """What is gathered at a time: a decoder layer; embedding and head, unless they are one and the same weight."""
    embedding, head = network.decoder.get_input_embeddings(), network.head
    tied = embedding.weight is head.linear.weight
    return {*network.decoder.layers, *(() if tied else (embedding, head))}


class ShardedStepGradient(StepGradient):
    """`StepGradient` for a model whose `loss` is that of `shard`: every rank takes part in every pass of every other."""

    def __init__(self, model: Any, max_tokens: int, dtype: torch.dtype, network: torch.nn.Module) -> None:
        super().__init__(model, max_tokens, dtype)
        self.network = network

    def _passes(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """As many on each rank; one with fewer fills up with two tokens that nothing is learned from."""
        lengths = [len(row.ids) for row in rows]
        shares = share(lengths, ranks.world_size())
        counts = [len(plan([lengths[i] for i in mine], self.max_tokens)) for mine in shares]
        yield from super()._passes(rows)
        for _ in range(max(counts) - counts[ranks.rank()]):
            yield [Row(rows[0].ids[:2], 2)]

    def loss(self, examples: Pass, layout: attention.Packed | None = None) -> torch.Tensor:
        """The summed cross-entropy of a pass; a collective, so every rank calls it at the same time."""
        assert layout is None, "attention follows from the positions"
        loss: torch.Tensor = self.network(examples.ids, examples.positions, examples.sources, examples.targets)
        return loss
