"""Steps, their examples and their losses in TRL's loop, whatever the hardware; and the settings that TRL gets."""

from __future__ import annotations

import dataclasses
import logging
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from networks import difference, gradients, one_by_one
from transformers import TrainerCallback

from text2sql import data, encoding, fast_path, model, trainer, training, upstream
from text2sql.config import Trainer
from text2sql.graphs import bucket, longest_in, target_bucket
from text2sql.tracking import Tracker
from text2sql.trainer import StepLoader, StepSampler, TokenBudgetTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

NO_TRACKER = Tracker("none", Path(), {})
QUIET = ("phase=1", "eval.num_live_samples=0", "lora.lora_dropout=0.0", "prompt.max_sql_tokens=200")


@pytest.fixture(scope="module")
def tokenizer(small):
    return model.load_tokenizer(small("phase=1").model)


def adapted_at_random(config):
    """The base with an adapter whose B is not zero, so that every LoRA matrix has a gradient."""
    torch.manual_seed(0)
    adapted = model.new_adapter(model.load_base(config), config.lora)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return adapted


def built(config, tokenizer, run, adapted=None):
    """A trainer of all that the config trains on and validates with."""
    sets = [
        encoding.Tokens.of(data.load(config.data, split, seed=config.seed).examples, tokenizer, config)
        for split in ("train", "validation")
    ]
    return training.build_trainer(config, adapted or adapted_at_random(config), tokenizer, *sets, run, NO_TRACKER)


def logged(one):
    """What a finished trainer logged of its losses."""
    return [row[key] for row in one.state.log_history for key in ("loss", "eval_loss", "grad_norm") if key in row]


# The examples of a step


def epochs(sampler, number):
    orders = []
    for epoch in range(number):
        sampler.epoch = epoch
        orders.append(list(sampler))
    return orders


def test_every_epoch_is_another_permutation_and_a_seed_repeats_them():
    orders = epochs(StepSampler(30, 4, seed=1), 3)
    flat = [tuple(i for step in order for i in step) for order in orders]
    assert all(sorted(order) == list(range(30)) for order in flat)
    assert len(set(flat)) == 3
    assert epochs(StepSampler(30, 4, seed=1), 3) == orders
    assert epochs(StepSampler(30, 4, seed=2), 3)[0] not in orders


@pytest.mark.parametrize(("examples", "batch_size", "sizes"), [(30, 4, [4] * 7 + [2]), (8, 4, [4, 4]), (3, 4, [3])])
def test_the_last_step_has_what_is_left(examples, batch_size, sizes):
    sampler = StepSampler(examples, batch_size, seed=1)
    assert [len(step) for step in sampler] == sizes
    assert len(sampler) == len(sizes)


def test_the_loader_yields_the_rows_of_whole_steps_in_the_order_of_its_epoch():
    rows = [f"row {i}" for i in range(10)]
    loader = StepLoader(rows, 4, seed=3)
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        order = epochs(StepSampler(10, 4, seed=3), 2)[epoch]
        assert [batch["rows"] for batch in loader] == [[rows[i] for i in step] for step in order]


@pytest.mark.parametrize("hardware", ["max_tokens=1024", "max_tokens=9999", "fast_path=false", "devices=4"])
def test_whatever_the_hardware_the_steps_are_those_of_seed_and_batch_size(
    small, tokenizer, tmp_path, monkeypatch, hardware
):
    config = small(*QUIET, f"hardware.{hardware}", "trainer.batch_size=5", "trainer.num_train_epochs=2")
    seen = []

    def keep(self, network, inputs, num_items_in_batch=None):
        seen.append(inputs["rows"])
        return torch.zeros(())

    monkeypatch.setattr(TokenBudgetTrainer, "training_step", keep)
    one = built(config, tokenizer, tmp_path)
    one.evaluate = lambda *_, **__: {}
    one.train()
    orders = epochs(StepSampler(len(one.train_rows), 5, seed=config.seed), 2)
    assert seen == [[one.train_rows[i] for i in step] for order in orders for step in order]
    assert one.state.global_step == sum(map(len, orders))


# Losses and gradients


class Gradients(TrainerCallback):
    """Keeps the gradients as the optimizer finds them."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.found = gradients(model)


@pytest.mark.parametrize("quant", ["none", "nf4"])
@pytest.mark.parametrize("hardware", ["fast_path=true", "fast_path=false", "gradient_checkpointing=true"])
def test_the_optimizer_finds_the_gradient_of_the_steps_examples_taken_one_by_one(
    small, tokenizer, tmp_path, quant, hardware
):
    config = small(
        *QUIET,
        f"quant={quant}",
        f"hardware.{hardware}",
        "hardware.max_tokens=1024",
        "data.max_samples=10",
        "trainer.batch_size=10",
        "trainer.max_steps=1",
        "trainer.optim=sgd",
        "trainer.max_grad_norm=1e9",
    )
    one, seen = built(config, tokenizer, tmp_path), Gradients()
    loss, expected = one_by_one(adapted_at_random(config), one.train_rows)
    one.add_callback(seen)
    one.train()
    assert all(gradient.norm() > 0 for gradient in expected.values())
    assert difference(seen.found, expected) < 1e-5
    assert logged(one)[0] == pytest.approx(loss, abs=1e-4)  # the trainer logs four decimals
    assert one.step.num_passes > 1
    assert fast_path.is_on(one.model) is (hardware != "fast_path=false")


def test_validation_is_the_mean_over_its_learned_tokens_one_by_one(small, tokenizer, tmp_path):
    config = small(*QUIET, "quant=none", "lora.lora_dropout=0.5", "data.max_validation_samples=6")
    one = built(config, tokenizer, tmp_path)
    without = small(*QUIET, "quant=none", "data.max_validation_samples=6")
    expected, _ = one_by_one(adapted_at_random(without), one.validation_rows)
    metrics = one.evaluate()
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-5)
    assert metrics["eval_runtime"] > 0


@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_hardware_changes_nothing_of_what_is_learned(small, tokenizer, tmp_path, quant):
    runs, few = {}, ("data.max_samples=15", "trainer.batch_size=5", "trainer.eval_steps=1.0", "trainer.save_steps=1.0")
    for hardware in ("max_tokens=4096", "max_tokens=1024", "fast_path=false", "gradient_checkpointing=true"):
        config = small(*QUIET, *few, f"quant={quant}", f"hardware.{hardware}", "trainer.learning_rate=1e-3")
        one = built(config, tokenizer, tmp_path / hardware)
        one.train()
        runs[hardware] = logged(one)
    expected = runs.pop("max_tokens=4096")
    assert len(expected) >= 7
    for losses in runs.values():
        assert losses == pytest.approx(expected, rel=1e-3)


# What a recorded pass fills up with


def steps_as_they_are(number=2000):
    """The tokens of steps of 16 examples: between 60 and 1,000 each, 380 on average."""
    draw = random.Random(0)
    lengths = (min(1000, max(60, round(draw.lognormvariate(5.83, 0.48)))) for _ in range(16 * number))
    return [sum(next(lengths) for _ in range(16)) for _ in range(number)]


def test_filling_is_two_percent_of_a_step():
    totals = steps_as_they_are()
    assert 370 < sum(totals) / len(totals) / 16 < 390
    assert sum(bucket(total) - total for total in totals) / sum(totals) <= 0.022


def test_there_are_few_sizes_to_record():
    assert len({bucket(total) for total in steps_as_they_are()}) < 40


@pytest.mark.parametrize("max_length", [32, 201, 1024])
def test_no_example_of_a_recorded_pass_is_longer_than_it_says_not_even_its_filling(max_length):
    for number in range(1, 20_000, 7):
        size = bucket(number)
        assert size - number <= longest_in(size, max_length) <= size
        assert longest_in(size, max_length) >= min(max_length, size)


def test_a_recorded_pass_has_room_for_all_tokens_and_targets():
    for number in range(1, 9000):
        assert number <= bucket(number) <= number + max(16, number / 16)
        assert number <= target_bucket(number) <= max(target_bucket(1), 2 * number)


# TRL's settings


@pytest.fixture
def passed(monkeypatch):
    """A function from config to what sft_config() would pass to TRL, also for GPUs that this machine does not have."""
    monkeypatch.setattr(trainer, "SFTConfig", lambda **settings: SimpleNamespace(**settings))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
    return lambda config: trainer.sft_config(config, Path("run"))


@pytest.mark.parametrize("hardware", ["cpu", "gpu", "t4", "t4x2", "fsdp"])
def test_whatever_the_hardware_a_batch_of_trls_loop_is_a_step_of_batch_size_examples(compose, passed, hardware):
    config = compose(["model=tiny", f"hardware={hardware}"])
    settings = passed(config)
    assert (settings.per_device_train_batch_size, settings.gradient_accumulation_steps) == (
        config.trainer.batch_size,
        1,
    )


@pytest.mark.parametrize("hardware, fp16, bf16", [("t4", True, False), ("t4x2", True, False), ("gpu", False, True)])
def test_at_most_one_half_precision_is_on(compose, passed, hardware, fp16, bf16):
    settings = passed(compose(["model=tiny", f"hardware={hardware}"]))
    assert (settings.fp16, settings.bf16) == (fp16, bf16)


@pytest.mark.parametrize("bf16", [True, False])
def test_the_cpu_gets_a_bf16_flag_of_its_own_and_never_fp16(compose, passed, bf16):
    settings = passed(compose(["model=tiny", "hardware=cpu", f"hardware.bf16={bf16}"]))
    assert (settings.fp16, settings.bf16, settings.use_cpu) == (False, bf16, True)


@pytest.mark.parametrize("hardware", ["cpu", "gpu", "t4"])
def test_upstreams_names_are_passed_on_unchanged(compose, passed, hardware):
    overrides = {
        "learning_rate": 0.3,
        "num_train_epochs": 2.5,
        "max_steps": 7,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.2,
        "weight_decay": 0.1,
        "max_grad_norm": 0.7,
        "optim": "sgd",
        "max_length": 777,
        "logging_steps": 0.25,
        "eval_steps": 0.5,
        "save_steps": 0.5,
        "save_total_limit": 3,
    }
    assert overrides.keys() | {"batch_size", "num_tokens", "max_hours", "on_nan"} == {
        field.name for field in dataclasses.fields(Trainer)
    }
    settings = passed(
        compose(["model=tiny", f"hardware={hardware}", "seed=5", *(f"trainer.{k}={v}" for k, v in overrides.items())])
    )
    assert upstream.warmup(overrides.pop("warmup_ratio")).items() <= vars(settings).items()
    assert {key: getattr(settings, key) for key in overrides} == overrides
    assert (settings.seed, settings.data_seed) == (5, 5)


@pytest.mark.parametrize("share, steps", [(0, 0), (0.03, 3), (0.125, 13), (1, 100)])
def test_the_rate_warms_up_over_a_share_of_the_steps(small, tmp_path, share, steps):
    assert trainer.sft_config(small(f"trainer.warmup_ratio={share}"), tmp_path).get_warmup_steps(100) == steps


@pytest.mark.parametrize("on", [True, False])
def test_activations_are_recomputed_as_asked_by_no_name_that_upstream_will_drop(small, tmp_path, recwarn, on):
    settings = trainer.sft_config(small("phase=1", f"hardware.gradient_checkpointing={on}"), tmp_path)
    assert settings.gradient_checkpointing is on
    assert settings.gradient_checkpointing_kwargs == {"use_reentrant": False}
    assert [str(one.message) for one in recwarn if issubclass(one.category, FutureWarning)] == []


def test_trl_takes_the_settings_and_keeps_two_checkpoints(small, tmp_path):
    settings = trainer.sft_config(small("phase=1"), tmp_path)
    assert settings.save_total_limit == 2
    assert settings.logging_nan_inf_filter is False
    assert Path(settings.output_dir) == tmp_path / "checkpoints"


@pytest.mark.parametrize("optim", ["paged_adamw_8bit", "paged_adamw_32bit", "adamw_8bit"])
def test_a_gpu_optimizer_is_replaced_on_the_cpu_with_one_warning(small, tmp_path, caplog, optim):
    caplog.set_level(logging.WARNING)
    assert trainer.sft_config(small("phase=1", f"trainer.optim={optim}"), tmp_path).optim == "adamw_torch"
    assert [record.getMessage() for record in caplog.records if optim in record.getMessage()] == [
        f"trainer.optim={optim} needs a GPU; on the CPU adamw_torch takes its place"
    ]


def test_an_optimizer_stays_where_it_works(compose, small, passed, caplog):
    assert passed(compose(["model=tiny", "hardware=gpu"])).optim == "paged_adamw_8bit"
    assert passed(small("phase=1", "trainer.optim=adamw_torch_fused")).optim == "adamw_torch_fused"
    assert "takes its place" not in caplog.text


def test_upstream_is_told_of_no_hub_which_it_would_wait_for(small, passed):
    for settings in (["hub=push", "hub.hub_model_id=tester/x"], []):
        assert not [key for key in vars(passed(small("phase=1", *settings))) if "hub" in key]
