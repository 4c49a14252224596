"""A search space in Hydra's override grammar, as optuna's distributions.

As Hydra documents them, `range(a, b)` and `interval(a, b)` do not contain b: `int(interval(1, 5))` is 1, 2, 3 or 4.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

UNSEARCHABLE = ("phase", "resume")
"""Keys of which a study can have one value only: its jobs are to be comparable, and each is a whole."""
TAGS = {"log"}


@dataclass(frozen=True)
class Space:
    """What is searched, by key, and the overrides that all jobs have. A choice is a text, as Hydra writes it."""

    distributions: dict[str, Any]
    fixed: list[str]

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """One job's overrides."""
        chosen = [f"{key}={value if isinstance(value, str) else repr(value)}" for key, value in params.items()]
        return [*self.fixed, *chosen]

    def ends(self) -> list[dict[str, Any]]:
        """Jobs that between them have every choice and both ends of every range: what is wrong in one is wrong at once."""
        values = [_choices_or_ends(one) for one in self.distributions.values()]
        rows = itertools.zip_longest(*values)
        return [
            {key: known[0] if value is None else value for key, known, value in zip(self.distributions, values, row)}
            for row in rows
        ]

    def grid(self) -> list[dict[str, Any]]:
        """Every combination. ValueError for a key without steps."""
        values = [_all_values(key, one) for key, one in self.distributions.items()]
        return [dict(zip(self.distributions, row)) for row in itertools.product(*values)]

    def described(self) -> dict[str, str]:
        """Keys and values as texts, by which a study tells whether it is still the same."""
        fixed = dict(one.partition("=")[::2] for one in self.fixed)
        kept = {key: value for key, value in fixed.items() if key != "resume" and not key.startswith("hydra")}
        return {**kept, **{key: _text(one) for key, one in self.distributions.items()}}


def parse(params: Mapping[str, Any], typed: Sequence[str], config_loader: Any = None) -> Space:
    """The space of hydra.sweeper.params and of the command line, which comes after and wins.

    ValueError for what optuna cannot search, naming the key.
    """
    overrides = {}
    parser = OverridesParser.create(config_loader=config_loader)
    for override in parser.parse_overrides([*(f"{key}={value}" for key, value in params.items()), *typed]):
        overrides[override.key_or_group] = override
    distributions, fixed = {}, []
    for key, override in overrides.items():
        if override.is_sweep_override():
            distributions[override.get_key_element()] = _distribution(key, override)
        else:
            name, value = override.get_key_element(), override.get_value_element_as_str()
            fixed.append(name if override.is_delete() else f"{name}={value}")
    if not distributions:
        raise ValueError(
            "there is nothing to search: give hydra.sweeper.params or the command line a key with choices, a range or an "
            "interval, such as 'trainer.learning_rate=tag(log,interval(1e-5,1e-3))'"
        )
    return Space(distributions, fixed)


def _distribution(key: str, override: Override) -> Any:
    from optuna.distributions import CategoricalDistribution

    if key in UNSEARCHABLE:
        raise ValueError(f"{key} cannot be searched: all jobs of a study have the same; give {key}= one value")
    sweep: Any = override.value()
    tags = set(getattr(sweep, "tags", ()))
    if tags - TAGS:
        unknown = sorted(tags - TAGS)[0]
        raise ValueError(f"{key}: the tag {unknown} is not known; there is log, as in tag(log,interval(1e-5,1e-3))")
    if isinstance(sweep, IntervalSweep):
        return _interval(key, sweep, "log" in tags)
    if isinstance(sweep, RangeSweep):
        return _range(key, sweep, "log" in tags)
    if tags:
        raise ValueError(f"{key}: choices have no logarithm; leave tag(log,...) out, or give an interval")
    choices = list(dict.fromkeys(override.sweep_string_iterator()))
    return CategoricalDistribution(sorted(choices) if sweep.shuffle else choices)


def _interval(key: str, sweep: IntervalSweep, log: bool) -> Any:
    from optuna.distributions import FloatDistribution, IntDistribution

    low, high = sweep.start, sweep.end
    assert low is not None and high is not None
    whole = isinstance(low, int) and isinstance(high, int)
    if low >= high or (log and low <= 0):
        raise ValueError(f"{key}: interval({low},{high}) is empty, or begins at 0 or below and so has no logarithm")
    if whole:
        return IntDistribution(int(low), int(high) - 1, log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _range(key: str, sweep: RangeSweep, log: bool) -> Any:
    from optuna.distributions import FloatDistribution, IntDistribution

    values = list(sweep.range())
    if not values:
        raise ValueError(f"{key}: range({sweep.start},{sweep.stop},{sweep.step}) is empty; its end is not part of it")
    if log:
        raise ValueError(
            f"{key}: a range has steps and so no logarithm; give tag(log,int(interval({values[0]},{sweep.stop})))"
        )
    low, high, step = min(values), max(values), abs(sweep.step)
    if all(isinstance(value, int) for value in values):
        return IntDistribution(int(low), int(high), step=int(step))
    return FloatDistribution(float(low), float(high), step=float(step))


def _text(distribution: Any) -> str:
    choices = getattr(distribution, "choices", None)
    if choices is not None:
        return " or ".join(choices)
    step = f" by {distribution.step}" if distribution.step not in (None, 1) else ""
    kind = type(distribution).__name__.removesuffix("Distribution").lower()
    return f"{kind} {distribution.low} to {distribution.high}{step}{' log' if distribution.log else ''}"


def _choices_or_ends(distribution: Any) -> list[Any]:
    choices = getattr(distribution, "choices", None)
    return list(choices) if choices is not None else list(dict.fromkeys((distribution.low, distribution.high)))


def _all_values(key: str, distribution: Any) -> list[Any]:
    choices = getattr(distribution, "choices", None)
    if choices is not None:
        return list(choices)
    if distribution.log or distribution.step is None:
        raise ValueError(f"{key}: sampler=grid needs choices or a range for every key, and this is an interval")
    size = round((distribution.high - distribution.low) / distribution.step) + 1
    return [distribution.low + number * distribution.step for number in range(size)]
