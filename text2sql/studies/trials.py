"""The trials of one sweep: which job is next, what became of it, and what a driver that was killed has left undone.

A job is a folder, by its number; a trial is one attempt at it. A job that died gets a second trial with the same settings and
the same folder, so that the numbering is stable and the study ends with exactly n_trials jobs.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from text2sql import runs
from text2sql.studies import storage
from text2sql.studies.settings import Pruner, Sampler, Settings
from text2sql.studies.space import Space

log = logging.getLogger(__name__)

JOB, REASON, ABOUT = "job", "reason", "text2sql"
MAX_REASON = 500
DIED = "it was still running when the driver ended"


@dataclass(frozen=True)
class Job:
    """A job to launch: its number, which names its folder, its parameters, and the trial that it reports to."""

    number: int
    params: dict[str, Any]
    trial: int
    again: bool


class Trials:
    """The jobs of the study in one sweep folder. ValueError if the folder's study is another one."""

    def __init__(self, folder: Path, settings: Settings, space: Space, maximize: bool) -> None:
        import optuna

        self.folder, self.settings, self.space, self.optuna = folder, settings, space, optuna
        self.where = settings.storage or str((folder / storage.JOURNAL).absolute())
        self.grid = space.grid() if settings.sampler is Sampler.grid else None
        self.num_jobs = min(settings.n_trials, len(self.grid)) if self.grid is not None else settings.n_trials
        if "://" not in self.where:
            storage.cut_torn_end(Path(self.where))
        opened = storage.open_storage(self.where)
        known = {one.study_name for one in opened.get_all_studies()}
        about = _about(settings, space, maximize)
        if settings.study_name in known:
            self.study = optuna.load_study(study_name=settings.study_name, storage=opened, pruner=pruner(about))
            _check_same(self.study.user_attrs.get(ABOUT, {}), about, self.where)
        else:
            directions = optuna.study.StudyDirection
            direction = directions.MAXIMIZE if maximize else directions.MINIMIZE
            self.study = optuna.create_study(
                storage=opened, study_name=settings.study_name, direction=direction, pruner=pruner(about)
            )
        self.study.set_user_attr(ABOUT, about)
        self._again = self._take_up()

    def next(self) -> list[Job]:
        """The jobs to launch now, at most n_jobs; none when the study is complete."""
        numbers = [*self._again, *range(self._first_new(), self.num_jobs)][: self.settings.n_jobs]
        jobs = []
        for number in numbers:
            again = number in self._again
            if not again:
                params = self.grid[number] if self.grid is not None else {}
                self.study.enqueue_trial(params, user_attrs={JOB: number})
            self.study.sampler = self._sampler(number)
            trial = self.study.ask(dict(self.space.distributions))
            jobs.append(Job(trial.user_attrs[JOB], trial.params, trial.number, again))
        self._again = [number for number in self._again if number not in {job.number for job in jobs}]
        return jobs

    def record(self, job: Job, error: str | None) -> None:
        """Tell the study what became of a job, from its folder; `error` is how its process ended, if it failed.

        ValueError if it finished without the metric: then no other job will have it either.
        """
        run, metric = self._run(job.number), self.settings.metric
        state, value, reason = self._outcome(job.number, error)
        self._tell(job.trial, state, value, reason)
        if reason:
            log.warning("job %d %s: %s", job.number, state.name.lower(), reason)
        if error is None and _finished(run) and metric not in _metrics(run):
            raise ValueError(
                f"hydra.sweeper.metric={metric} is not in {run}/metrics.json, which has {', '.join(sorted(_metrics(run)))}; "
                "metrics of an evaluation need eval.after_phase=PHASE"
            )

    def failures(self) -> dict[int, str]:
        """Why each failed job failed, by number."""
        failed = self.optuna.trial.TrialState.FAIL
        return {number: one.user_attrs.get(REASON, "") for number, one in self._latest().items() if one.state is failed}

    def counts(self) -> dict[str, int]:
        """How many jobs there are of each state, in words."""
        names = [one.state.name.lower() for one in self._latest().values()]
        return {name: names.count(name) for name in sorted(set(names))}

    def best(self) -> Any | None:
        """The best complete trial, or None."""
        complete = self.study.get_trials(states=(self.optuna.trial.TrialState.COMPLETE,))
        return self.study.best_trial if complete else None

    # What a driver that is gone has left

    def _take_up(self) -> list[int]:
        """Settle the trials of a driver that is gone; returns the numbers of the jobs whose trials wait again."""
        states = self.optuna.trial.TrialState
        for trial in self.study.get_trials(states=(states.RUNNING,)):
            number = trial.user_attrs.get(JOB)
            state, value, reason = self._outcome(number, None) if number is not None else (states.FAIL, None, "")
            self._tell(trial.number, state, value, f"{DIED}; {reason}" if state is states.FAIL else reason)
        for number, trial in sorted(self._latest().items()):
            if trial.state is states.FAIL:
                log.info("job %d starts again: %s", number, trial.user_attrs.get(REASON, "it failed"))
                self.study.enqueue_trial(trial.params, user_attrs={JOB: number})
        waiting = self.study.get_trials(states=(states.WAITING,))
        return [trial.user_attrs[JOB] for trial in waiting if JOB in trial.user_attrs]

    def _latest(self) -> dict[int, Any]:
        """The last trial of each job."""
        return {trial.user_attrs[JOB]: trial for trial in self.study.get_trials() if JOB in trial.user_attrs}

    def _first_new(self) -> int:
        return max(self._latest(), default=-1) + 1

    def _tell(self, number: int, state: Any, value: float | None, reason: str | None) -> None:
        trial = self.study.get_trials()[number]
        if reason:
            self.study._storage.set_trial_user_attr(trial._trial_id, REASON, reason[:MAX_REASON])
        self.study.tell(number, value, state)

    # What became of a job

    def _run(self, number: int) -> Path:
        return self.folder / str(number)

    def _outcome(self, number: int, error: str | None) -> tuple[Any, float | None, str | None]:
        """(state, value, reason) of a job: what is not in its folder did not happen."""
        states, run = self.optuna.trial.TrialState, self._run(number)
        stamp, metric = runs.read_object(run / "run.json"), self.settings.metric
        if error is not None:
            return states.FAIL, None, error
        if stamp.get("status") == "pruned":
            return states.PRUNED, None, str(stamp.get("reason", "pruned"))
        if not _finished(run):
            return states.FAIL, None, f"its status is {stamp.get('status', 'not known: there is no run.json')}"
        value = _metrics(run).get(metric)
        if value is None or not math.isfinite(value):
            return states.FAIL, None, f"its {metric} is {value}"
        return states.COMPLETE, float(value), None

    def _sampler(self, number: int) -> Any:
        """A sampler for one job: with one seed for all, a resumed study would draw its first values once more."""
        import numpy as np

        seed = int(np.random.SeedSequence([self.settings.seed, number]).generate_state(1)[0])
        samplers = self.optuna.samplers
        if self.settings.sampler is not Sampler.tpe:
            return samplers.RandomSampler(seed=seed)
        liar = self.settings.n_jobs > 1
        return samplers.TPESampler(seed=seed, n_startup_trials=self.settings.n_startup_trials, constant_liar=liar)


def _about(settings: Settings, space: Space, maximize: bool) -> dict[str, Any]:
    """What the study keeps of itself: what must be the same when it goes on, and what its jobs need to prune."""
    return {
        "space": space.described(),
        "metric": settings.metric,
        "direction": "maximize" if maximize else "minimize",
        "pruner": settings.pruner.name,
        "prune_on": settings.prune_on,
        "pruner_startup_trials": settings.pruner_startup_trials,
        "pruner_warmup_steps": settings.pruner_warmup_steps,
    }


def pruner(about: dict[str, Any]) -> Any:
    """Optuna's pruner for what a study keeps of itself."""
    from optuna import pruners

    warmup = about["pruner_warmup_steps"]
    if about["pruner"] == Pruner.median.name:
        return pruners.MedianPruner(n_startup_trials=about["pruner_startup_trials"], n_warmup_steps=warmup)
    if about["pruner"] == Pruner.hyperband.name:
        return pruners.HyperbandPruner(min_resource=max(1, warmup))
    return pruners.NopPruner()


def _check_same(saved: dict[str, Any], ours: dict[str, Any], where: str) -> None:
    theirs, here = _to_compare(saved), _to_compare(ours)
    keys = sorted(theirs.keys() | here.keys())
    differing = [f"{key} is {here.get(key, 'not set')} here and {theirs.get(key, 'not set')} there" for key in keys
                 if theirs.get(key) != here.get(key)]  # fmt: skip
    if differing:
        raise ValueError(
            f"the study in {where} is another one: {'; '.join(differing)}. Give the same search space to go on with it, or "
            "another hydra.sweep.dir to begin a new one"
        )


def _to_compare(about: dict[str, Any]) -> dict[str, Any]:
    return {**about.get("space", {}), **{f"hydra.sweeper.{key}": about.get(key) for key in ("metric", "direction")}}


def _finished(run: Path) -> bool:
    return runs.read_object(run / "run.json").get("status") == "finished"


def _metrics(run: Path) -> dict[str, float]:
    return {
        key: value for key, value in runs.read_object(run / "metrics.json").items() if isinstance(value, int | float)
    }
