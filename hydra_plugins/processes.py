"""`hydra/launcher=processes`, the launcher of train.py and evaluate.py: each job of a multirun is a process of its own.

On Linux a job is a fork of the driver. The driver has composed the job's config and loaded Hydra but no torch and no
thread, which is when a fork is both safe and cheap: 10 ms in place of the half second that Hydra takes to load again, and
nothing has to be pickled. Elsewhere a fork is not safe whatever the driver holds (macOS's own libraries), so the job is a
new interpreter, which loads the script again. The work itself is done in text2sql.driver; this folder is where Hydra
looks for launchers, which it makes by the `_target_` in their config.
"""

# No `from __future__ import annotations`: Hydra loads this file before it is in sys.modules, where dataclasses would look.
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from text2sql import lock
from text2sql.driver import child, gpus, journal, processes, resume
from text2sql.driver.processes import Ended, Job
from text2sql.driver.summary import SUMMARY


@dataclass
class ProcessesConf:
    """`processes` is how many jobs run side by side. `gpus_per_job` is how many GPUs each of several has to itself.

    gpus_per_job=null: as many as the jobs' hardware.devices says, and 0 without a GPU; with 0, all jobs see all GPUs.
    """

    _target_: str = "hydra_plugins.processes.ProcessesLauncher"
    processes: int = 1
    gpus_per_job: Optional[int] = None


ConfigStore.instance().store(group="hydra/launcher", name="processes", node=ProcessesConf, provider="text2sql")


class JobFailed(RuntimeError):
    """A job failed, was killed or was told to end; the first word is the error's type in its process."""


class Reported(JobReturn):
    """A failure that the launcher has told. Hydra's own sweeper would end at it, and never come to its next batch."""

    @property
    def return_value(self) -> Any:
        return None


class ComposesOnce:
    """Hydra's config loader with the configs of jobs kept until they are asked for again.

    A sweeper composes each job to see that it can be, and the launcher composes it to run it: 70 ms a job each time.
    """

    def __init__(self, loader: Any) -> None:
        self.loader, self.kept = loader, {}  # type: ignore[var-annotated]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        key = tuple(sweep_overrides)
        if key in self.kept:
            return pickle.loads(self.kept.pop(key))
        config = self.loader.load_sweep_config(master_config, sweep_overrides)
        self.kept[key] = pickle.dumps(config)
        return config


class ProcessesLauncher(Launcher):
    """See the module. A failed job comes back with JobStatus.FAILED; reading its return_value raises JobFailed."""

    def __init__(self, processes: int = 1, gpus_per_job: int | None = None) -> None:
        if processes < 1:
            raise ValueError(f"hydra.launcher.processes={processes} must be at least 1")
        if gpus_per_job is not None and gpus_per_job < 0:
            raise ValueError(f"hydra.launcher.gpus_per_job={gpus_per_job} must be null or not negative")
        self.processes, self.gpus_per_job = processes, gpus_per_job

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        hydra_context.config_loader = ComposesOnce(hydra_context.config_loader)  # type: ignore[assignment]
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        sweep = Path(str(self.config.hydra.sweep.dir))
        lock.hold(sweep)
        journal.end_leftovers(sweep)
        composed = [self._compose(initial_job_idx + at, one) for at, one in enumerate(job_overrides)]
        folders = [_folder(config) for config in composed]
        configs = dict(zip(_numbers(folders, initial_job_idx), composed))
        jobs = self._jobs(configs, folders)
        kept, missing = _kept(jobs, configs)
        environments = gpus.environments(self.processes, self._gpus_per_job(configs))
        ended, caught = processes.run(missing, sweep, environments, explain=_explain, kept=kept)
        SUMMARY.add(sweep, ended, len(jobs))
        if caught is not None:
            raise KeyboardInterrupt if caught.name == "SIGINT" else SystemExit(128 + caught)
        by_number = {one.number: one for one in ended}
        return [self._returned(by_number[number], config) for number, config in configs.items()]

    def _compose(self, number: int, overrides: Sequence[str]) -> DictConfig:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = number
            config.hydra.job.num = number
        return config

    def _jobs(self, configs: dict[int, DictConfig], folders: Sequence[Path]) -> list[Job]:
        """Each labelled by what not all have in common; a phase needs the last job of an earlier one that is typed alike."""
        typed = {number: _overrides(config) for number, config in configs.items()}
        phases = {number: _phase(config) for number, config in configs.items()}
        in_common = set.intersection(*map(set, typed.values())) if len(typed) > 1 else set()
        alike: dict[tuple[str, ...], list[int]] = {}
        for number, overrides in typed.items():
            alike.setdefault(_but_phase(overrides), []).append(number)
        jobs = []
        for (number, config), folder in zip(configs.items(), folders):
            label = " ".join(one for one in filter_overrides(typed[number]) if one not in in_common)
            parents = [other for other in alike[_but_phase(typed[number])] if phases[other] < phases[number]]
            needs = max(parents, default=None) if _continues(config) else None
            jobs.append(Job(number, label, folder, self._call(config), phases[number], needs))
        return jobs

    def _call(self, config: DictConfig) -> Callable[[], Any]:
        if processes.START_METHOD == "fork":
            return partial(_run_here, self.hydra_context, self.task_function, config)
        return partial(_run, config, self.task_function.__name__)

    def _gpus_per_job(self, configs: dict[int, DictConfig]) -> int:
        if self.gpus_per_job is not None:
            return self.gpus_per_job
        hardware = [OmegaConf.select(config, "hardware") or {} for config in configs.values()]
        return max((one.get("devices", 1) for one in hardware if str(one.get("device")).endswith("cuda")), default=0)

    def _returned(self, ended: Ended, config: DictConfig) -> JobReturn:
        told = ended.how != child.FINISHED and str(self.config.hydra.sweeper._target_).endswith(".BasicSweeper")
        result = (Reported if told else JobReturn)(
            overrides=_overrides(config),
            working_dir=str(Path.cwd()),
            task_name=str(config.hydra.job.name),
            status=JobStatus.COMPLETED if ended.how == child.FINISHED else JobStatus.FAILED,
        )
        failure = JobFailed(f"{ended.error_type}: job {ended.number} {ended.how}: {ended.reason}")
        result._return_value = ended.value if ended.how == child.FINISHED else failure
        return result


def _kept(jobs: Sequence[Job], configs: dict[int, DictConfig]) -> tuple[list[Ended], list[Job]]:
    """The jobs that an earlier driver has finished, where this one resumes, and those to start.

    ValueError, before any job is started, if one of the folders holds the run of another job, or any run without resume.
    """
    kept: list[Ended] = []
    for job in jobs:
        config = configs[job.number]
        if not resumes(config):
            if (job.folder / "run.json").exists():
                raise ValueError(
                    f"{job.folder} already holds a run; go on with the sweep by adding resume=true, or choose another "
                    "folder with hydra.sweep.dir=DIR"
                )
            continue
        resume.check_same(job.folder, _overrides(config))
        after_phase = OmegaConf.select(config, "eval.after_phase")
        ends_with = "eval/execution_accuracy" if after_phase is not None and after_phase == _phase(config) else None
        value = resume.finished_value(job.folder, ends_with)
        if value is not None:
            kept.append(Ended(job.number, job.label, job.folder, child.FINISHED, value, kept=True))
    done = {one.number for one in kept}
    missing = [job for job in jobs if job.number not in done]
    for job in missing:
        if resumes(configs[job.number]):
            resume.make_room(job.folder)
    return kept, missing


def resumes(config: DictConfig) -> bool:
    return str(OmegaConf.select(config, "resume")).lower() in ("true", "auto")


def _overrides(config: DictConfig) -> list[str]:
    return [str(one) for one in config.hydra.overrides.task]


def _but_phase(overrides: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(one for one in overrides if not one.startswith("phase=")))


def _continues(config: DictConfig) -> bool:
    return "auto" in (OmegaConf.select(config, "adapter"), OmegaConf.select(config, "merge_adapter"))


def _phase(config: DictConfig) -> int:
    number = OmegaConf.select(config, "phase.number")
    return number if isinstance(number, int) else 0


def _folder(config: DictConfig) -> Path:
    from hydra.core.hydra_config import HydraConfig

    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)  # the name of the subfolder may refer to the job's number
    try:
        return Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
    finally:
        HydraConfig.instance().cfg = before


def _numbers(folders: Sequence[Path], first: int) -> list[int]:
    """The jobs' numbers: those of their folders, for a study starts jobs again in theirs; else counted from `first`."""
    names = [folder.name for folder in folders]
    if len(set(names)) == len(names) and all(name.isdecimal() for name in names):
        return [int(name) for name in names]
    return list(range(first, first + len(names)))


def _explain(error: BaseException) -> str | None:
    """A user's mistake in words, None for any other error."""
    from text2sql import commandline

    return commandline.explain(error) if commandline.is_users_mistake(error) else None


def _run_here(context: HydraContext, task: TaskFunction, config: DictConfig) -> Any:
    """Do the job in this process, a fork of the driver, with Hydra's own steps around it."""
    done = run_job(
        hydra_context=context,
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    if done.status is JobStatus.FAILED:
        raise done._return_value
    return done.return_value


def _run(config: DictConfig, task: str) -> Any:
    """Do the job in this process, a new interpreter, in which multiprocessing has loaded the script as `__main__`."""
    from hydra._internal.callbacks import Callbacks
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path
    from hydra.core.plugins import Plugins

    Plugins.instance()
    setup_globals()
    JobRuntime.instance().set("name", config.hydra.job.name)
    context = HydraContext(ConfigLoaderImpl(create_config_search_path(None)), Callbacks(config))
    return _run_here(context, getattr(sys.modules["__main__"], task).__wrapped__, config)
