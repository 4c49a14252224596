"""The sweep itself: job after job from the study to the launcher and back, until there are as many as were asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from omegaconf import OmegaConf

from text2sql import config as configuration
from text2sql import lock, multirun, overriding
from text2sql.driver.summary import SUMMARY, JobsFailed
from text2sql.studies import pruning
from text2sql.studies.settings import LIVE_ACCURACY, Direction, Pruner, Settings
from text2sql.studies.space import Space, parse
from text2sql.studies.trials import Job, Trials
from text2sql.sweeps import repeat
from text2sql.sweeps.jobs import job_in
from text2sql.sweeps.table import lower_is_better

log = logging.getLogger(__name__)

RESULTS = "optimization_results.yaml"
MAX_LISTED = 5


class Hydra(Protocol):
    """What the plugin does for the driver."""

    @property
    def config_loader(self) -> Any: ...
    def compose(self, overrides: list[str]) -> Any: ...
    def save(self, file: Path) -> None: ...
    def launch(self, overrides: Sequence[Sequence[str]], first: int) -> list[tuple[Any, str | None]]: ...


def drive(settings: Settings, folder: Path, typed: Sequence[str], hydra: Hydra) -> list[Any]:
    """Run the study in `folder`, or what is missing of it, and return what its jobs returned.

    ValueError before the first job for what is wrong; JobsFailed when some jobs have failed, once all are done.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ValueError(f"hydra/sweeper=optuna: {error}; pip install -e '.[optuna]'") from error
    space = parse(settings.params or {}, typed, hydra.config_loader)
    _check_jobs(space, settings, hydra)
    direction = settings.direction or (Direction.minimize if lower_is_better(settings.metric) else Direction.maximize)
    folder.mkdir(parents=True, exist_ok=True)
    lock.hold(folder)
    trials = Trials(folder, settings, space, maximize=direction is Direction.maximize)
    hydra.save(folder / "multirun.yaml")
    log.info("study in %s: %d jobs, %s", trials.where, trials.num_jobs, trials.counts() or "none yet")
    returned = []
    while jobs := trials.next():
        returned += _launch(jobs, trials, settings, hydra)
    _conclude(trials, folder)
    if (failed := trials.failures()) and SUMMARY.all_finished:  # where the launcher has not told of them
        multirun.log_table(folder)
        listed = "; ".join(f"job {number}: {reason}" for number, reason in list(failed.items())[:MAX_LISTED])
        raise JobsFailed(f"{len(failed)} of {trials.num_jobs} jobs failed, the others are done: {listed}")
    return returned


def _check_jobs(space: Space, settings: Settings, hydra: Hydra) -> None:
    """Compose jobs with every choice and both ends of every range, so that a wrong key ends the sweep before its first job."""
    for params in space.ends():
        composed = hydra.compose(space.overrides(params))
        if composed.hydra.job.config_name == "evaluate":
            continue  # its config is whole only once its adapter's is laid under it
        loaded = configuration.load(_without_hydra(composed))
        if _prunes_by_samples(settings) and loaded.eval.num_live_samples < 1:
            raise ValueError(
                f"hydra.sweeper.prune_on={LIVE_ACCURACY} needs eval.num_live_samples, the questions that a job answers at each "
                "evaluation; set it to 50, say"
            )


def _prunes_by_samples(settings: Settings) -> bool:
    return settings.pruner is not Pruner.none and settings.prune_on == LIVE_ACCURACY


def _without_hydra(composed: Any) -> Any:
    return OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])


def _launch(jobs: list[Job], trials: Trials, settings: Settings, hydra: Hydra) -> list[Any]:
    """Launch one batch and record it. The folder is named by the job's number, whatever number the launcher gives it."""
    first = jobs[0].number
    overrides = [_overrides(job, first + index, trials, settings) for index, job in enumerate(jobs)]
    results = hydra.launch(overrides, first)
    for job, (_, error) in zip(jobs, results):
        trials.record(job, error)
    return [returned for returned, _ in results]


def _overrides(job: Job, launched_as: int, trials: Trials, settings: Settings) -> list[str]:
    said = overriding.quoted(pruning.variable(trials.where, settings.study_name, job.trial))
    overrides = [one for one in trials.space.overrides(job.params) if not (job.again and one.startswith("resume="))]
    overrides += ["resume=true"] if job.again else []
    overrides += [f"hydra.sweep.subdir='{job.number}'"] if job.number != launched_as else []
    overrides += [f"++hydra.job.env_set.{pruning.VARIABLE}={said}"] if settings.pruner is not Pruner.none else []
    return overrides


def _conclude(trials: Trials, folder: Path) -> None:
    """Write the best job with the command that repeats it beside the study, and log both."""
    best = trials.best()
    result: dict[str, Any] = {"name": "optuna", "jobs": trials.counts(), "metric": trials.settings.metric}
    if best is not None:
        number = best.user_attrs["job"]
        job = job_in(folder / str(number))
        commands = [command for command in (repeat.from_config(job), repeat.as_typed(job)) if command]
        result |= {
            "best_job": number,
            "best_value": best.value,
            "best_params": dict(best.params),
            "best_commands": commands,
        }
        params = " ".join(f"{key}={value}" for key, value in best.params.items())
        log.info("best of %s is job %d, %s = %.6g: %s", result["jobs"], number, result["metric"], best.value, params)
    aside = folder / f".{RESULTS}"
    aside.write_text(OmegaConf.to_yaml(OmegaConf.create(result)), encoding="utf-8")
    aside.replace(folder / RESULTS)
