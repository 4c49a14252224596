"""Steps whose loss or gradient is no number, which are kept from the adapter; and spikes of the loss.

Whether a step is bad is computed where the loss is. A GPU is not waited for: the host reads of a step once the next one is
queued, and meanwhile the device itself undoes what a bad step has changed.
"""

from __future__ import annotations

import logging
import statistics
import types
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.optim.optimizer import Optimizer8bit

log = logging.getLogger(__name__)

MAX_IN_A_ROW = 10
"""Bad steps one after the other, after which no policy goes on: it is not the data then."""
WINDOW, FEWEST, THRESHOLD = 50, 20, 6.0
"""A loss is a spike that many standard deviations above the mean of the last WINDOW, once there are FEWEST."""


@dataclass
class Seen:
    """A step as the device has seen it: `values` are its loss and whether it is bad, on the host once `event` has passed."""

    step: int
    rows: Sequence[Any]
    values: torch.Tensor
    event: Any

    def read(self) -> tuple[float, bool]:
        if self.event is not None:
            self.event.synchronize()
        loss, bad = self.values.tolist()
        return loss, bool(bad)


class Watch:
    """Looks at each step between its gradient and the optimizer.

    `waits` says that the optimizer makes the host wait for the device anyway, and so the check may too.
    """

    def __init__(self, waits: bool) -> None:
        self.waits = waits
        self.has_moments = False
        self.bad: torch.Tensor | None = None
        self.queue: deque[Seen] = deque()

    def see(self, step: int, rows: Sequence[Any], loss: torch.Tensor, gradient: torch.Tensor | None) -> torch.Tensor:
        """Note whether `loss` and `gradient` are numbers; returns the loss, or 0 in place of one of a bad step.

        No gradient is given where a gradient scaler looks at it: what overflows there is no fault of the step.
        """
        is_number = torch.isfinite(loss)
        if gradient is not None:
            is_number = is_number & torch.isfinite(gradient.sum())
        self.bad = ~is_number
        values = torch.stack([loss.float(), self.bad.float()])
        event = None
        if values.is_cuda:
            values = torch.empty(2, pin_memory=True).copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self.queue.append(Seen(step, rows, values, event))
        return torch.where(self.bad, torch.zeros_like(loss), loss)

    def settled(self, everything: bool) -> list[Seen]:
        """The steps that can be read without making a GPU wait, or all of them."""
        at_once = everything or self.waits or not self.queue or self.queue[-1].event is None
        return [self.queue.popleft() for _ in range(len(self.queue) - (0 if at_once else 1))]

    def guard(self, optimizer: Any) -> None:
        """Make `optimizer` change nothing in a bad step."""
        self.waits = self.waits or isinstance(optimizer, Optimizer8bit)  # it synchronizes behind each parameter
        make = optimizer.step

        def step(_: Any, *some: Any, **more: Any) -> Any:
            return self.apply(optimizer, lambda: make(*some, **more))

        optimizer.step = types.MethodType(step, optimizer)  # a method, which a schedule wraps in turn

    def apply(self, optimizer: Any, make_step: Callable[[], Any]) -> Any:
        """`make_step()`, unless the step is bad."""
        if self.bad is None:
            return make_step()
        if self.waits or not self.bad.is_cuda or not self.has_moments:  # they appear with the first step that is made
            if self.bad.item():
                return None
            self.has_moments = True
            return make_step()
        return undone_where(self.bad, optimizer, make_step)


def undone_where(bad: torch.Tensor, optimizer: Any, make_step: Callable[[], Any]) -> Any:
    """`make_step()`, whose changes to the parameters and moments on the device are undone there where `bad` holds.

    Counts of steps that the host keeps go on, and with them Adam's correction of a bias that is gone after some hundred.
    """
    changing = [p.data for group in optimizer.param_groups for p in group["params"]]
    changing += [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.device == bad.device
    ]
    before = [tensor.clone() for tensor in changing]
    result = make_step()
    for tensor, was in zip(changing, before):
        tensor.copy_(torch.where(bad, was, tensor))
    return result


class Spikes:
    """How far above its predecessors a loss is."""

    def __init__(self) -> None:
        self.losses: deque[float] = deque(maxlen=WINDOW)

    def see(self, loss: float) -> float | None:
        """The standard deviations by which `loss` is above the mean of those before it, if that makes it a spike."""
        found = None
        if len(self.losses) >= FEWEST:
            mean = statistics.fmean(self.losses)
            spread = max(statistics.pstdev(self.losses), 1e-3 * abs(mean), 1e-9)
            found = (loss - mean) / spread
        self.losses.append(loss)
        return found if found is not None and found > THRESHOLD else None
