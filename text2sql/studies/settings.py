"""What hydra.sweeper holds with hydra/sweeper=optuna: how a study chooses its jobs and which it gives up."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Optional

LIVE_ACCURACY = "live/execution_accuracy"
PRUNE_ON = ("validation/loss", LIVE_ACCURACY)


class Sampler(Enum):
    tpe = "tpe"
    random = "random"
    grid = "grid"


class Pruner(Enum):
    none = "none"
    median = "median"
    hyperband = "hyperband"


class Direction(Enum):
    minimize = "minimize"
    maximize = "maximize"


@dataclass
class Settings:
    """One study.

    `params` is the search space, in Hydra's override grammar. `metric` is read from each job's metrics.json; `direction=null`
    takes the lower loss and the higher accuracy. `n_trials` jobs end in all, `n_jobs` are handed to the launcher at a time. The
    first `n_startup_trials` of sampler=tpe are random. Trial N follows from `seed`, N and the results before it.

    `pruner` ends jobs by what they report at each evaluation: `prune_on` is validation/loss, or live/execution_accuracy of the
    eval.num_live_samples questions. It starts after `pruner_startup_trials` finished jobs, and never before step
    `pruner_warmup_steps`. `storage` is a file or optuna's URL; null is study.journal in the sweep's folder.
    """

    params: Optional[dict[str, Any]] = field(default_factory=dict)
    metric: str = "validation/loss"
    direction: Optional[Direction] = None
    n_trials: int = 20
    n_jobs: int = 1
    sampler: Sampler = Sampler.tpe
    seed: int = 42
    n_startup_trials: int = 10
    pruner: Pruner = Pruner.none
    prune_on: str = "validation/loss"
    pruner_startup_trials: int = 5
    pruner_warmup_steps: int = 0
    storage: Optional[str] = None
    study_name: str = "study"


def check(settings: Settings) -> None:
    """ValueError for settings that cannot work, each by name."""
    counts = {"n_trials": settings.n_trials, "n_jobs": settings.n_jobs}
    problems = [f"hydra.sweeper.{key}={value} must be positive" for key, value in counts.items() if value < 1]
    if settings.prune_on not in PRUNE_ON:
        problems.append(f"hydra.sweeper.prune_on={settings.prune_on} must be one of {', '.join(PRUNE_ON)}")
    if problems:
        raise ValueError("; ".join(problems))
