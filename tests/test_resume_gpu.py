"""On a GPU with hardware.deterministic: two runs of one config, and a run that was broken off, end with the same bytes."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import load_file

from text2sql import runs, snapshot, training
from text2sql.trainer import TokenBudgetTrainer

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before a GPU is first used in this process

pytestmark = pytest.mark.gpu

# Six steps with dropout, two checkpoints; matrices large enough for moments of 8 bits.
SETTINGS = (
    "phase=1",
    "lora=r64",
    "lora.lora_dropout=0.1",
    "trainer.batch_size=4",
    "trainer.save_steps=2",
    "hardware=gpu",
    "hardware.deterministic=true",
)


class Killed(BaseException):
    pass


@pytest.fixture(autouse=True)
def as_before():
    """Torch's choice of operations, which a training sets for its process."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def config(compose, small_overrides):
    """A function from overrides to a small run's config on the GPU."""
    ours = [text for text in small_overrides if not text.startswith(("hardware", "trainer.batch_size"))]
    return lambda *overrides: compose([*ours, *SETTINGS, *overrides])


def trained(config, run):
    training.train(config, str(run))
    return runs.adapter_sha256(run / "adapter")


@pytest.mark.parametrize("graphs", ["true", "false"], ids=["recorded", "launched"])
@pytest.mark.parametrize("optim", ["paged_adamw_8bit", "adamw_torch"])
def test_a_run_that_goes_on_ends_as_two_that_were_never_stopped(config, tmp_path, monkeypatch, optim, graphs):
    settings = (f"trainer.optim={optim}", f"hardware.cuda_graphs={graphs}")
    whole = trained(config(*settings), tmp_path / "whole")
    assert trained(config(*settings), tmp_path / "again") == whole
    compute = TokenBudgetTrainer.training_step

    def until(self, *some, **more):
        if self.state.global_step == 3:
            raise Killed
        return compute(self, *some, **more)

    with monkeypatch.context() as patch:
        patch.setattr(TokenBudgetTrainer, "training_step", until)
        with pytest.raises(Killed):
            training.train(config(*settings), str(tmp_path / "run"))
    moments = load_file(tmp_path / "run/checkpoints/checkpoint-2" / snapshot.OPTIMIZER)
    assert ("8bit" in optim) == any(tensor.dtype is torch.uint8 for tensor in moments.values())
    assert trained(config(*settings, "resume=true"), tmp_path / "run") == whole
