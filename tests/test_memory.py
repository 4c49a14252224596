"""Predicted memory, whether it fits, what would make it fit, and how long a step takes: against measurements and by themselves."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2sql import fitting, geometry, machines, memory, speed
from text2sql.config import Device
from text2sql.machines import GIB

T4 = machines.GPUS["T4"]
H100 = machines.GPUS["H100"]


@pytest.fixture(scope="module")
def nemo(compose):
    """The default config, of the 12B model, with keyword arguments GROUP__KEY=VALUE laid over it."""
    base = compose([])

    def changed(**settings):
        config = base
        for name, value in settings.items():
            group, _, key = name.partition("__")
            config = replace(config, **{group: replace(getattr(config, group), **{key: value})})
        return config

    return changed


def estimate(config, machine=T4, lengths=None):
    return memory.estimate(config, geometry.of(config.model), machine, lengths)


def measured_with(nemo, tokens, fast_path, checkpointing, fp16=True):
    """The recipe of the measurements: no dropout, other weights and unpacking in half precision."""
    return nemo(
        hardware__max_tokens=tokens,
        hardware__fast_path=fast_path,
        hardware__gradient_checkpointing=checkpointing,
        hardware__fp16=fp16,
        hardware__bf16=not fp16,
        hardware__dtype="float16" if fp16 else "bfloat16",
        hardware__devices=1,
        trainer__batch_size=48,
        lora__lora_dropout=0.0,
        quant__bnb_4bit_compute_dtype="float16",
    )


# One H100, NeMo's geometry, r 16, chunked cross-entropy; the 16 examples of a step had 7,163 tokens, 48 three times as many.
@pytest.mark.parametrize(
    ("tokens", "fast_path", "checkpointing", "fp16", "peak_gib"),
    [
        (1024, False, True, True, 8.96),
        (1024, False, True, False, 9.09),
        (2048, False, True, True, 10.0),
        (4096, False, True, True, 11.3),
        (7163, False, True, False, 13.7),
        (8192, False, True, False, 14.25),
        (7163, True, True, True, 13.0),
        (7163, True, True, False, 12.9),
        (7163, True, False, False, 52.0),
        (21489, True, True, False, 21.5),
    ],
)
def test_predictions_are_within_ten_percent_of_what_was_measured(
    nemo, tokens, fast_path, checkpointing, fp16, peak_gib
):
    config = measured_with(nemo, tokens, fast_path, checkpointing, fp16)
    needed = estimate(config, H100)
    assert needed.tokens == tokens
    assert needed.total / GIB == pytest.approx(peak_gib, rel=0.10)


def test_the_parts_are_named_and_sum_to_the_total(nemo):
    needed = estimate(nemo())
    assert needed.total == sum(part.bytes for part in needed.parts)
    assert [part.name for part in needed.parts] == [
        "4-bit weights", "other weights", "adapters", "gradients", "optimizer", "activations", "one layer", "logits",
    ]  # fmt: skip
    assert all(part.bytes >= 0 and part.reason for part in needed.parts)


settings = st.fixed_dictionaries(
    {
        "hardware__max_tokens": st.sampled_from([1024, 2048, 4096, 8192, 65536]),
        "hardware__gradient_checkpointing": st.booleans(),
        "hardware__fast_path": st.booleans(),
        "hardware__dtype": st.sampled_from(["float16", "float32"]),
        "hardware__fsdp": st.booleans(),
        "trainer__batch_size": st.integers(1, 64),
        "trainer__optim": st.sampled_from(["paged_adamw_8bit", "adamw_torch"]),
        "lora__r": st.integers(1, 256),
        "lora__lora_dropout": st.sampled_from([0.0, 0.05]),
        "quant__load_in_4bit": st.booleans(),
    }
)


@given(settings, st.sampled_from(["hardware__max_tokens", "trainer__batch_size", "lora__r", "trainer__max_length"]))
def test_more_tokens_examples_or_rank_never_take_less(nemo, chosen, grows):
    chosen = {"trainer__max_length": 1024, **chosen}
    before = estimate(nemo(**chosen)).total
    assert estimate(nemo(**{**chosen, grows: 2 * chosen[grows]})).total >= before


@given(settings)
def test_what_saves_memory_saves_memory(nemo, chosen):
    before = estimate(nemo(**chosen)).total
    for saving in (
        {"hardware__gradient_checkpointing": True},
        {"hardware__dtype": "float16"},
        {"hardware__fast_path": True},
        {"lora__lora_dropout": 0.0},
        {"quant__load_in_4bit": True},
        {"trainer__optim": "paged_adamw_8bit"},
    ):
        assert estimate(nemo(**{**chosen, **saving})).total <= before, saving


@given(settings, st.sampled_from(list(machines.GPUS)))
def test_cures_fit_and_are_offered_only_where_something_helps(nemo, chosen, gpu):
    config, machine = nemo(**chosen), machines.GPUS[gpu]
    shape = geometry.of(config.model)
    if fitting.fits(config, estimate(config, machine), machine):
        for change in fitting.room(config, shape, machine):
            assert fitting.fits(change.config, estimate(change.config, machine), machine)
        return
    for change in fitting.cures(config, shape, machine):
        assert change.memory == estimate(change.config, machine)
        assert fitting.fits(change.config, change.memory, machine)


@pytest.mark.parametrize(
    "overrides",
    [
        ["hardware=t4", "hardware.max_tokens=8192"],
        ["hardware=t4x2", "hardware.dtype=float32", "hardware.fast_path=false"],
        ["hardware=t4x2", "quant=none"],
        ["hardware=gpu", "hardware.memory_gib=24"],
        ["hardware=gpu", "hardware.memory_gib=12", "hardware.dtype=float32", "quant=none"],
    ],
)
def test_a_cure_typed_on_the_command_line_makes_the_run_fit(compose, overrides):
    config = compose(overrides)
    machine, shape = machines.of(config.hardware), geometry.of(config.model)
    offered = fitting.cures(config, shape, machine)
    assert offered
    for change in offered:
        cured = compose([*overrides, *change.overrides.split()])
        assert cured == change.config
        assert fitting.check_fits(cured, shape, machines.of(cured.hardware)).total == change.memory.total


def test_what_cannot_fit_is_refused_with_parts_and_cures(compose):
    config = compose(["hardware=t4", "hardware.dtype=float32", "hardware.fast_path=false"])
    with pytest.raises(ValueError, match=r"cannot fit: .* on each T4 .*other weights 5\.00.*hardware\.dtype=float16"):
        fitting.check_fits(config, geometry.of(config.model), machines.of(config.hardware))


def test_where_nothing_helps_that_is_said(nemo):
    config = nemo(hardware__memory_gib=4.0)
    with pytest.raises(ValueError, match="No setting makes it fit: choose a smaller model= or a larger GPU"):
        fitting.check_fits(config, geometry.of(config.model), machines.of(config.hardware))


def test_an_unknown_machine_gets_no_verdict(compose, monkeypatch):
    monkeypatch.setattr(machines, "num_gpus_here", lambda: 0)
    config = compose(["hardware=gpu"])
    assert fitting.check_fits(config, geometry.of(config.model), machines.of(config.hardware)) is None


def test_room_is_the_largest_power_of_two_that_fits_and_no_checkpointing(nemo):
    config = nemo(hardware__max_tokens=2048, hardware__gpu="H100")
    shape = geometry.of(config.model)
    assert [change.overrides for change in fitting.room(config, shape, H100)] == [
        "hardware.gradient_checkpointing=false",
        "hardware.max_tokens=8192",
    ]
    assert fitting.room(nemo(hardware__max_tokens=8192), shape, T4) == []


def test_a_pass_holds_no_more_than_a_device_has_of_a_step(nemo):
    config = nemo(trainer__batch_size=6, hardware__max_tokens=8192)
    assert memory.tokens_per_pass(config) == 3 * 1024  # two devices
    assert memory.tokens_per_pass(config, [100, 200, 300, 400, 5000]) == 300 + 400 + 1024


def test_small_models_hold_their_weights_unpacked_and_large_ones_do_not(compose, nemo):
    small = compose(["model=smollm2_135m", "hardware=gpu"])
    assert memory.unpacks(small, geometry.of(small.model), "bf16")
    assert not memory.unpacks(
        replace(small, hardware=replace(small.hardware, fast_path=False)), geometry.of(small.model), "bf16"
    )
    assert not memory.unpacks(nemo(), geometry.of(nemo().model), "fp16")


def test_sharding_divides_the_weights_and_copies_do_not(nemo):
    def weights(config):
        return estimate(config).parts[0].bytes

    assert weights(nemo(hardware__devices=4)) == weights(nemo(hardware__devices=1))
    assert weights(nemo(hardware__devices=4, hardware__fsdp=True)) == round(weights(nemo(hardware__devices=1)) / 4)


def test_a_cpu_keeps_full_moments_whatever_the_optimizer_is_called(compose):
    config = compose(["model=tiny", "hardware=cpu"])
    parts = {part.name: part.bytes for part in estimate(config, machines.of(config.hardware)).parts}
    assert parts["optimizer"] == 2 * parts["adapters"]


def test_gpus_are_found_by_the_names_that_people_and_torch_use():
    for name in ("T4", "t4", "Tesla T4", "NVIDIA H100", "A100-80", "a100-80gb", "rtx 4090"):
        assert machines.named(name)
    with pytest.raises(ValueError, match=r"hardware.gpu=B9 is not known; it can be T4, .*hardware.memory_gib=N"):
        machines.named("B9")


def test_memory_can_be_corrected_and_the_rest_is_kept(nemo):
    machine = machines.of(nemo(hardware__memory_gib=10.0).hardware)
    assert (machine.name, machine.memory_gib, machine.capability) == ("T4", 10.0, (7, 5))


@pytest.mark.parametrize(("machine", "expected"), [(T4, "fp16"), (H100, "bf16"), (None, "bf16")])
def test_the_machine_decides_the_precision_where_the_config_does_not(nemo, machine, expected):
    assert machines.precision(nemo(hardware__fp16=False, hardware__bf16=None).hardware, machine) == expected


def test_what_was_measured_on_an_h100_is_estimated_within_a_factor_of_one_and_a_half(nemo, compose):
    config = measured_with(nemo, 8192, fast_path=True, checkpointing=True)
    assert speed.estimate(config, geometry.of(config.model), H100, 383).tokens_per_s == pytest.approx(5881, rel=0.5)
    small = compose(["model=smollm2_135m", "hardware=gpu"])
    assert speed.estimate(small, geometry.of(small.model), H100, 383).tokens_per_s == pytest.approx(207_000, rel=0.5)


def test_without_graphs_a_small_model_waits_for_kernel_launches(compose):
    config = compose(["model=smollm2_135m", "hardware=gpu"])
    shape = geometry.of(config.model)
    without = replace(config, hardware=replace(config.hardware, cuda_graphs=False))
    assert speed.estimate(config, shape, H100, 100).bound == "arithmetic"
    assert speed.estimate(without, shape, H100, 100).bound == "launching kernels"
    assert not speed.uses_graphs(
        replace(config, hardware=replace(config.hardware, device=Device.cpu)), shape.num_linear_weights
    )


def test_two_devices_take_half_the_time(nemo):
    one, two = (speed.estimate(nemo(hardware__devices=n), geometry.of(nemo().model), T4, 383) for n in (1, 2))
    assert two.step_s == pytest.approx(one.step_s / 2)
