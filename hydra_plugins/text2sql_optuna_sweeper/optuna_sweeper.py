"""The plugin, which Hydra finds here and makes by its `_target_`: what it is asked by text2sql.studies it asks of Hydra."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from text2sql.studies.settings import Settings, check


# Hydra runs this file under no name in sys.modules, where a dataclass would look up annotations that are texts: hence none is.
@dataclass
class OptunaSweeperConf(Settings):
    _target_: str = "hydra_plugins.text2sql_optuna_sweeper.optuna_sweeper.OptunaSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="text2sql")


class OptunaSweeper(Sweeper):
    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Launch jobs until the study in the sweep's folder has n_trials of them.

        ValueError for what is wrong with the settings, before any job; JobsFailed if some jobs failed, after all.
        """
        from text2sql.studies import driver

        check(self.settings)
        assert self.config is not None
        return driver.drive(self.settings, Path(self.config.hydra.sweep.dir), arguments, self)

    # What the driver asks of Hydra

    @property
    def config_loader(self) -> Any:
        return self.context.config_loader

    def compose(self, overrides: list[str]) -> DictConfig:
        """The config of a job, without starting it."""
        return self.config_loader.load_sweep_config(self.config, overrides)

    def save(self, file: Path) -> None:
        OmegaConf.save(self.config, file)

    def launch(self, overrides: Sequence[Sequence[str]], first: int) -> list[tuple[JobReturn, str | None]]:
        """What each job returned, and how it failed, if it did."""
        assert self.launcher is not None
        returned = self.launcher.launch(overrides, initial_job_idx=first)
        return [(one, _error(one)) for one in returned]


def _error(returned: JobReturn) -> str | None:
    if returned.status is not JobStatus.FAILED:
        return None
    try:
        _ = returned.return_value
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "it failed"
