"""What several test files share: composed configs, one thread for torch, and one trained two-phase curriculum."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import hydra
import pytest
from hypothesis import HealthCheck, settings

from text2sql import commandline, config

# The same examples in every run: what passes here passes on a busy machine, and a change is judged by itself.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")

# A few seconds on a CPU, the same numbers on all of them: random weights, embedded data, short answers, golds that fit.
SMALL = (
    "model=tiny",
    "hardware=cpu",
    "hardware.bf16=false",
    "data.path=mini",
    "tracking=none",
    "prompt.max_sql_tokens=64",
    "data.max_samples=24",
    "data.max_validation_samples=4",
    "data.max_test_samples=6",
    "trainer.batch_size=8",
    "trainer.logging_steps=1",
    "eval.num_live_samples=1",
)


def pytest_collection_modifyitems(items):
    """Skip what is marked gpu where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(scope="session")
def compose_raw():
    """A function from overrides, as typed, to the composed config before config.load()."""

    def compose(overrides, primary="train"):
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(commandline.CONF)):
            return hydra.compose(primary, overrides=commandline.quote_phase(list(overrides)))

    return compose


@pytest.fixture(scope="session")
def compose(compose_raw):
    """A function from overrides, as typed, to a Config."""
    return lambda overrides, primary="train": config.load(compose_raw(overrides, primary))


@pytest.fixture(scope="session")
def small(compose):
    """A function from overrides to the Config of a run that takes seconds on a CPU."""
    return lambda *overrides, primary="train": compose([*SMALL, *overrides], primary)


@pytest.fixture(scope="session")
def small_overrides():
    return list(SMALL)


@pytest.fixture(scope="module")
def one_thread():
    """Torch on one thread: faster for tiny matrices, and the same sums whatever the machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Phase:
    """One finished run: its folder and the config that made it."""

    run: Path
    config: config.Config

    @property
    def adapter(self) -> Path:
        return self.run / "adapter"

    def read(self, name: str):
        """The content of one of the run's .json or .jsonl files."""
        text = (self.run / name).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()] if name.endswith(".jsonl") else json.loads(text)


@pytest.fixture(scope="session")
def curriculum(tmp_path_factory, small):
    """Both phases with NF4, phase 2 by adapter=auto in a folder that also holds a failed phase 1; `.one`, `.two`, `.folder`."""
    import torch

    from text2sql import training

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("curriculum")
    runs = folder / "outputs"
    phases = {"one": Phase(runs / "one", small("phase=1")), "two": Phase(runs / "two", small("phase=2"))}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        training.train(phases["one"].config, str(phases["one"].run))
        failed = runs / "zzz_failed"
        failed.mkdir()
        (failed / "run.json").write_text(json.dumps({**phases["one"].read("run.json"), "status": "failed"}))
        training.train(phases["two"].config, str(phases["two"].run))
    torch.set_num_threads(threads)
    return SimpleNamespace(folder=folder, **phases)
