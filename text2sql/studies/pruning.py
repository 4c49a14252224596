"""The end of hopeless jobs: a job asks its study, at each evaluation, whether it is worth going on with.

The job asks for itself, from inside its training, so that the answer comes at that very step whatever launched the job; the
sweep tells it by an environment variable which trial it is. All that it needs is the study's file.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from typing import Any

from text2sql.studies import storage
from text2sql.studies.settings import Pruner
from text2sql.studies.trials import ABOUT, pruner

log = logging.getLogger(__name__)

VARIABLE = "TEXT2SQL_TRIAL"


def variable(where: str, study: str, trial: int) -> str:
    """What the sweep puts into VARIABLE for one job."""
    return json.dumps([where, study, trial])


@dataclass(frozen=True)
class Judge:
    """The study's view of this job. `metric` is what it wants to be told; `sign` turns it into the study's direction."""

    study: Any
    pruner: Any
    trial_id: int
    metric: str
    sign: float

    def says_stop(self, step: int, value: float) -> bool:
        """Report the value at a step; whether the job should end. A study that cannot be reached stops nothing."""
        try:
            self.study._storage.set_trial_intermediate_value(self.trial_id, step, self.sign * value)
            return bool(self.pruner.prune(self.study, self.study._storage.get_trial(self.trial_id)))
        except Exception as error:
            log.warning("the study could not be asked at step %d: %r; the job goes on", step, error)
            return False


def of_this_job() -> Judge | None:
    """The judge of the trial that this process runs; None outside a study, or in one that prunes nothing."""
    if VARIABLE not in os.environ:
        return None
    import optuna

    where, name, number = json.loads(os.environ[VARIABLE])
    study = optuna.load_study(study_name=name, storage=storage.open_storage(where))
    about = study.user_attrs[ABOUT]
    if about["pruner"] == Pruner.none.name:
        return None
    loss_is_best = about["direction"] == "minimize"
    sign = 1.0 if loss_is_best == about["prune_on"].endswith("loss") else -1.0
    trial = study.get_trials(deepcopy=False)[number]
    return Judge(study, pruner(about), trial._trial_id, about["prune_on"], sign)
