"""A model sharded over two CPU processes: it learns what one process learns, and leaves the adapter that one leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from text2sql import model, sharding, training
from text2sql.passes import Row, concatenate, count_targets

ROOT = Path(__file__).resolve().parent.parent
TRAIN = [sys.executable, str(ROOT / "train.py")]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", str(ROOT / "train.py")]

EXACT = ["lora.lora_dropout=0", "trainer.max_steps=3", "trainer.save_steps=2", "hydra.run.dir=run"]
# One example a pass and three a step: one rank has two passes, the other one and a filling.
UNEVEN = ["trainer.batch_size=3", "trainer.max_length=512", "hardware.max_tokens=512"]
CASES = {
    "none": ["quant=none"],
    "nf4": ["quant=nf4", "hardware.gradient_checkpointing=true", *UNEVEN],
    "bf16": ["quant=nf4", "hardware.bf16=true", "hardware.dtype=bfloat16"],
}


def trained(folder, command, overrides):
    """What a run in `folder` leaves; its own log lines are in `.said`."""
    kept = {key: value for key, value in os.environ.items() if key not in ("HYDRA_FULL_ERROR", "RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [*command, *overrides],
        cwd=folder,
        env={**kept, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = folder / "run"
    history = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [
        (row["step"], key, row[key]) for row in history for key in ("loss", "eval_loss", "grad_norm") if key in row
    ]
    return SimpleNamespace(run=run, losses=losses, said=done.stdout)


@pytest.fixture(scope="module", params=list(CASES))
def one_and_sharded(request, tmp_path_factory, small_overrides):
    """The same run in one process and sharded over two, the last case under torchrun."""
    case = [*small_overrides, *EXACT, *CASES[request.param]]
    start = TORCHRUN if request.param == "bf16" else [*TRAIN, "hardware.devices=2"]
    one = trained(tmp_path_factory.mktemp("one"), TRAIN, [*case, "hardware.fast_path=false"])
    sharded = trained(tmp_path_factory.mktemp("sharded"), start, [*case, "hardware.fsdp=true"])
    exact = 1e-2 if request.param == "bf16" else 1e-5  # of bf16's sums, and of norms in it, the last digits differ
    return SimpleNamespace(one=one, sharded=sharded, exact=exact)


@pytest.mark.slow
def test_two_shards_learn_what_one_process_learns(one_and_sharded):
    expected, got = one_and_sharded.one.losses, one_and_sharded.sharded.losses
    assert [row[:2] for row in got] == [row[:2] for row in expected]
    assert [row[2] for row in got] == pytest.approx([row[2] for row in expected], rel=one_and_sharded.exact)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["adapter", "checkpoints/checkpoint-2", "checkpoints/checkpoint-3"])
def test_what_a_sharded_run_saves_is_what_one_process_saves(one_and_sharded, folder):
    one, sharded = (one_and_sharded.one.run / folder, one_and_sharded.sharded.run / folder)
    names = {path.name for path in one.iterdir()} - {"rng_state.pth"}
    assert names <= {path.name for path in sharded.iterdir()}
    expected, got = (load_file(path / "adapter_model.safetensors") for path in (one, sharded))
    assert {name: (value.shape, value.dtype) for name, value in got.items()} == {
        name: (value.shape, value.dtype) for name, value in expected.items()
    }
    learned = [name for name in got if "lora_B" in name]  # zeros at first
    moved = sum(expected[name].abs().sum() for name in learned)
    apart = sum((got[name] - expected[name]).abs().sum() for name in learned)
    assert moved > 0 and apart < 10 * one_and_sharded.exact * moved


@pytest.mark.slow
def test_a_sharded_run_says_that_it_writes_no_live_samples(one_and_sharded):
    assert one_and_sharded.sharded.said.count("no live samples") == 1
    assert not (one_and_sharded.sharded.run / "samples.jsonl").exists()


# In one process


@pytest.fixture
def rank_of(monkeypatch):
    def become(rank, world_size):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world_size))

    return become


def steps(max_tokens):
    network = torch.nn.Linear(1, 1)
    network.device = torch.device("cpu")
    return sharding.ShardedStepGradient(network, max_tokens, torch.float32, torch.nn.Identity())


@given(st.lists(st.integers(2, 20), min_size=1, max_size=12), st.integers(1, 4), st.integers(20, 40))
def test_every_rank_has_as_many_passes_and_together_they_have_each_example_once(lengths, world_size, max_tokens):
    rows = [Row([i] * length, 1) for i, length in enumerate(lengths)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", str(world_size))
        passes = []
        for rank in range(world_size):
            patch.setenv("RANK", str(rank))
            passes.append(list(steps(max_tokens)._passes(rows)))
    assert len({len(mine) for mine in passes}) == 1
    learned = [row for mine in passes for some in mine for row in some if count_targets([row]) > 0]
    assert sorted(row.ids[0] for row in learned) == list(range(len(rows)))


def test_a_pass_that_fills_up_has_nothing_to_learn(rank_of):
    rank_of(1, 2)
    ((filling,),) = steps(100)._passes([Row([5, 6, 7, 8], 2)])
    assert (filling.ids, concatenate([filling]).num_targets) == ([5, 6], 0)


def test_nothing_is_sharded_in_a_run_of_one_process(compose, rank_of):
    hardware = compose(["model=tiny", "hardware=fsdp"]).hardware
    rank_of(0, 1)
    assert not model.is_sharded(hardware)
    rank_of(0, 2)
    assert model.is_sharded(hardware)
    assert not model.is_sharded(compose(["model=tiny", "hardware=gpu"]).hardware)


def test_training_one_shard_is_refused_with_the_way_to_do_it(small, tmp_path):
    with pytest.raises(ValueError, match="hardware.fsdp=true .* raise hardware.devices, or set hardware.fsdp=false"):
        training.train(small("hardware.fsdp=true"), str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_4_bit_weights_to_shard_lie_in_the_type_of_the_others(compose):
    quant = compose(["model=tiny", "hardware=fsdp"]).quant
    assert model.quantization(quant).bnb_4bit_quant_storage == torch.uint8
    stored = model.quantization(quant, "bfloat16")
    assert (stored.bnb_4bit_quant_storage, stored.bnb_4bit_compute_dtype) == (torch.bfloat16, torch.bfloat16)


@pytest.mark.parametrize("tied", [True, False])
def test_embedding_and_head_are_units_unless_they_share_their_weight(small, tied):
    base = model.load_base(small("quant=none"))
    if tied:
        base.lm_head.weight = base.get_input_embeddings().weight
    network = sharding.PassLoss(model.new_adapter(base, small().lora), torch.float32)
    assert len(sharding.units(network)) == len(network.decoder.layers) + (0 if tied else 2)


def test_weights_on_meta_are_given_memory_and_a_tied_one_stays_one(small):
    base = model.load_base(small("quant=nf4"))
    base.lm_head.weight = base.get_input_embeddings().weight
    kept = base.model.layers[0].mlp.up_proj.weight.quant_state
    for module in base.modules():
        for name, weight in module.named_parameters(recurse=False):
            about = {key: value for key, value in vars(weight).items() if not key.startswith("_")}
            module.register_parameter(name, type(weight)(weight.data.to("meta"), requires_grad=False, **about))
    base.lm_head.weight = base.get_input_embeddings().weight
    model._fill_meta(base)
    assert not any(weight.is_meta for weight in base.parameters())
    assert base.lm_head.weight is base.get_input_embeddings().weight
    filled = base.model.layers[0].mlp.up_proj.weight
    assert (type(filled), filled.quant_state, filled.dtype) == (model.Params4bit, kept, torch.uint8)


def test_the_switches_of_loading_are_gone_when_it_fails():
    before = dict(os.environ)
    with pytest.raises(ZeroDivisionError), model._kept_by_one_process():
        1 / (os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] != "true")
    assert dict(os.environ) == before
