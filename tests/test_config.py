"""What the YAML in conf/ composes to, what load() refuses, and that a saved config comes back as it was."""

import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from text2sql import config
from text2sql.commandline import quote_phase

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
PRIMARIES = ("train", "evaluate")
GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra")
CHOICES = {group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in GROUPS}
ARMS = sorted(path.stem for path in (CONF / "experiment/arm").glob("*.yaml"))
# What a choice cannot do without.
NEEDS = {("hub", "push"): ["hub.hub_model_id=someone/adapter"]}


@functools.cache
def composed(primary, *overrides, folder=CONF, with_hydra=False):
    with initialize_config_dir(version_base="1.3", config_dir=str(folder)):
        return compose(primary, overrides=quote_phase(list(overrides)), return_hydra_config=with_hydra)


@functools.cache
def loaded(primary, *overrides):
    return config.load(composed(primary, *overrides))


def defaults_of(primary):
    """The groups of a primary config, each with its choice where none is named."""
    entries = yaml.safe_load((CONF / f"{primary}.yaml").read_text())["defaults"]
    named = [item for entry in entries if isinstance(entry, dict) for item in entry.items()]
    return {group: choice for group, choice in named if not group.startswith("override ")}


def at(settings, key):
    for name in key.split("."):
        settings = getattr(settings, name)
    return getattr(settings, "value", settings)  # of an enum, what is typed


@pytest.fixture(scope="module")
def default():
    return loaded("train")


@pytest.mark.parametrize(
    ("key", "value"),
    {
        "model.path": "mistralai/Mistral-Nemo-Instruct-2407",
        "model.hub_id": "mistralai/Mistral-Nemo-Instruct-2407",
        "model.system_role": False,
        "quant.load_in_4bit": True,
        "quant.load_in_8bit": False,
        "quant.bnb_4bit_quant_type": "nf4",
        "quant.bnb_4bit_use_double_quant": True,
        "quant.bnb_4bit_compute_dtype": "float32",
        "lora.r": 16,
        "lora.lora_alpha": 32,
        "lora.lora_dropout": 0.05,
        "lora.target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "lora.bias": "none",
        "lora.task_type": "CAUSAL_LM",
        "trainer.learning_rate": 1e-4,
        "trainer.batch_size": 16,
        "trainer.num_train_epochs": 1.0,
        "trainer.optim": "paged_adamw_8bit",
        "trainer.max_length": 1024,
        "trainer.save_total_limit": 2,
        "hardware.name": "t4x2",
        "hardware.device": "cuda",
        "hardware.devices": 2,
        "hardware.fp16": True,
        "hardware.bf16": False,
        "hardware.gradient_checkpointing": True,
        "data.name": "gretel",
        "data.path": "gretelai/synthetic_text_to_sql",
        "data.hub_id": "gretelai/synthetic_text_to_sql",
        "data.max_samples": 10000,
        "prompt.style": "ddl",
        "tracking.mode": "online",
        "hub.push_to_hub": False,
        "adapter": None,
        "phase.number": 1,
    }.items(),
)
def test_no_override_composes_the_original_experiment(default, key, value):
    assert at(default, key) == value


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        ("phase=2", "data.name", "spider"),
        ("phase=2", "data.hub_id", "xlangai/spider"),
        ("phase=2", "trainer.learning_rate", 1e-5),
        ("phase=2", "adapter", "auto"),
        ("phase=2", "phase.number", 2),
        ("hub=push hub.hub_model_id=someone/adapter", "hub.push_to_hub", True),
        ("hub=push hub.hub_model_id=someone/adapter", "hub.hub_strategy", "checkpoint"),
        ("experiment=original", "prompt.style", "question_only"),
        ("experiment=original", "data.path", "gretelai/synthetic_text_to_sql"),
        ("experiment=original phase=2", "data.path", "xlangai/spider"),
        ("experiment=quickstart", "model.path", "wheel"),
        ("experiment=quickstart", "data.path", "mini"),
        ("experiment=quickstart phase=2", "data.path", "mini"),
        ("experiment=quickstart", "quant.load_in_4bit", True),
        ("experiment=quickstart", "hardware.device", "cpu"),
        ("experiment=quickstart lora.lora_dropout=0.3", "lora.lora_dropout", 0.3),
        ("phase=2 data=gretel", "data.name", "gretel"),
        ("phase=2 trainer.learning_rate=3e-5", "trainer.learning_rate", 3e-5),
    ],
)
def test_a_choice_sets_its_values(overrides, key, value):
    assert at(loaded("train", *overrides.split()), key) == value


def test_a_choice_changes_its_own_group_only(default):
    changed = loaded("train", "model=smollm2_135m")
    assert dataclasses.replace(changed, model=default.model) == default


@pytest.mark.parametrize("group", GROUPS)
def test_train_offers_every_group_there_is_a_folder_for(group):
    assert group in defaults_of("train")


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_has_a_choice(group):
    assert CHOICES[group]


@pytest.mark.parametrize("primary", PRIMARIES)
def test_the_default_choices_compose_to_a_config_that_passes(primary):
    assert isinstance(loaded(primary), config.Config)


@pytest.mark.parametrize(
    ("primary", "group", "choice"),
    [
        (primary, group, choice)
        for primary in PRIMARIES
        for group, default_choice in defaults_of(primary).items()
        for choice in CHOICES[group]
        if choice != default_choice
    ],
)
def test_every_choice_composes_to_a_config_that_passes(primary, group, choice):
    settings = loaded(primary, f"{group}={choice}", *NEEDS.get((group, choice), []))
    assert isinstance(settings, config.Config)


@pytest.mark.parametrize("group", sorted(set(GROUPS) & {field.name for field in dataclasses.fields(config.Config)}))
def test_the_choices_of_a_group_differ(group):
    def values(choice):
        override = [] if choice == defaults_of("train")[group] else [f"{group}={choice}"]
        return repr(getattr(loaded("train", *override, *NEEDS.get((group, choice), [])), group))

    assert len({values(choice) for choice in CHOICES[group]}) == len(CHOICES[group])


@pytest.mark.parametrize("phase", CHOICES["phase"])
@pytest.mark.parametrize("experiment", CHOICES["experiment"])
def test_every_experiment_goes_with_every_phase(experiment, phase):
    assert at(loaded("train", f"experiment={experiment}", f"phase={phase}"), "phase.number") == int(phase)


@pytest.mark.parametrize("experiment", CHOICES["experiment"])
def test_an_experiment_says_first_what_it_is_for(experiment):
    package, purpose = (CONF / "experiment" / f"{experiment}.yaml").read_text().splitlines()[:2]
    assert package == "# @package _global_"
    assert purpose.startswith("# ")


@pytest.mark.parametrize("sweep", CHOICES["sweep"])
def test_every_job_of_a_sweep_composes_to_a_config_that_passes(sweep):
    params = composed("train", f"sweep={sweep}", with_hydra=True).hydra.sweeper.params
    assert params
    for override in OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()]):
        interval = override.value()
        jobs = (
            list(override.sweep_string_iterator()) if override.is_discrete_sweep() else [interval.start, interval.end]
        )
        assert len(jobs) > 1
        for job in jobs:
            loaded("train", f"{override.key_or_group}={job}")


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_of_the_curriculum_costs_the_same_tokens_up_to_its_end(arm):
    settings = loaded("train", "experiment=curriculum_arms", f"experiment/arm={arm}", "phase.tokens=[3,4]")
    before = {"phase_2": 3, "merged": 3}.get(arm, 0)  # those of phase_1, whose adapter it has
    assert before + settings.trainer.num_tokens == {"phase_1": 3}.get(arm, 7)


def test_the_arms_of_the_curriculum_differ_from_it_in_what_they_control_alone():
    number, data, adapter, merged = ("phase.number", "data.name", "adapter", "merge_adapter")
    expected = {
        "phase_1": (1, "gretel", None, None),
        "phase_2": (2, "spider", "auto", None),
        "merged": (2, "spider", None, "auto"),
        "phase_2_only": (0, "spider", None, None),
        "mixed": (0, "mixed", None, None),
    }
    arms = {arm: loaded("train", "experiment=curriculum_arms", f"experiment/arm={arm}") for arm in ARMS}
    assert {
        arm: tuple(at(one, key) for key in (number, data, adapter, merged)) for arm, one in arms.items()
    } == expected
    for group in ("model", "quant", "lora", "prompt", "hardware"):
        assert len({repr(getattr(one, group)) for one in arms.values()}) == 1
    assert len({one.trainer.learning_rate for one in arms.values()}) == 1


def test_the_arms_of_the_curriculum_are_all_swept():
    params = composed("train", "experiment=curriculum_arms", with_hydra=True).hydra.sweeper.params
    assert sorted(params["experiment/arm"].split(",")) == ARMS


@pytest.mark.parametrize("hardware", CHOICES["hardware"])
@pytest.mark.parametrize("primary", PRIMARIES)
def test_hardware_does_not_change_the_mathematics(primary, hardware):
    before, after = loaded(primary), loaded(primary, f"hardware={hardware}")
    assert dataclasses.replace(after, hardware=before.hardware) == before


def test_no_primary_hides_the_config_of_a_run_that_is_replayed():
    # --config-dir RUN/.hydra --config-name config looks in conf/ first.
    assert not (CONF / "config.yaml").exists()


# What load() refuses: overrides of a composed default, and words the message must have.


def refused(values, changes):
    cfg = OmegaConf.create(values)
    for key, value in changes.items():
        OmegaConf.update(cfg, key, value, force_add=True)
    with pytest.raises((ValueError, OmegaConfBaseException)) as caught:
        config.load(cfg)
    return str(caught.value)


@pytest.fixture(scope="module")
def values(default):
    return dataclasses.asdict(default)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora.rank": 8}, ["lora.rank", "Lora"]),
        ({"colour": "red"}, ["colour"]),
        ({"lora.r": "big"}, ["lora.r", "big"]),
        ({"trainer.learning_rate": [1]}, ["trainer.learning_rate"]),
        ({"model.system_role": "perhaps"}, ["model.system_role", "perhaps"]),
        ({"tracking.mode": "sometimes"}, ["tracking.mode", "sometimes", "offline"]),
        ({"data.on_bad_row": "keep"}, ["data.on_bad_row", "keep", "refuse"]),
        ({"hardware.device": "tpu"}, ["hardware.device", "tpu", "cpu"]),
        ({"lora": 3}, ["Lora"]),
        ({"lora.r": "???", "model.hub_id": "???"}, ["lora.r", "model.hub_id", "no value"]),
    ],
)
def test_what_does_not_fit_the_schema_is_refused_by_name(values, changes, words):
    message = refused(values, changes)
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize(
    "key",
    [
        "trainer.batch_size",
        "trainer.learning_rate",
        "trainer.max_length",
        "hardware.max_tokens",
        "hardware.max_cache_tokens",
        "hardware.devices",
        "lora.r",
        "eval.timeout_s",
        "eval.max_rows",
        "eval.max_steps",
        "eval.workers",
        "prompt.max_sql_tokens",
    ],
)
def test_a_quantity_that_is_not_positive_is_refused_by_name(values, key, value):
    assert f"{key}={value}" in refused(values, {key: value}).replace(".0 ", " ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"trainer.max_length": 512, "hardware.max_tokens": 511},
            ["hardware.max_tokens=511", "trainer.max_length=512", "raise the first"],
        ),
        ({"hardware.fp16": True, "hardware.bf16": True}, ["hardware.fp16", "hardware.bf16"]),
        ({"hardware.device": "cpu", "hardware.fp16": True}, ["hardware.fp16", "hardware=cpu"]),
        ({"quant.load_in_8bit": True}, ["quant.load_in_4bit", "load_in_8bit"]),
        (
            {"quant.load_in_8bit": True, "quant.load_in_4bit": False, "hardware.device": "cpu", "hardware.fp16": False},
            ["quant=int8", "quant=nf4", "hardware=cpu"],
        ),
        (
            {"hardware.fsdp": True, "quant.load_in_8bit": True, "quant.load_in_4bit": False},
            ["hardware.fsdp=true", "quant=int8", "quant=nf4", "quant=none"],
        ),
        ({"trainer.max_length": 200}, ["trainer.max_length=200", "prompt.max_sql_tokens=200"]),
        ({"phase.number": 2, "adapter": None}, ["phase=2", "adapter=null", "adapter=auto", "data=gretel"]),
        ({"hub.push_to_hub": True}, ["hub=push", "hub.hub_model_id"]),
        ({"eval.split": "train"}, ["eval.split=train", "test", "validation"]),
        ({"eval.neighbours": -1}, ["eval.neighbours=-1"]),
        ({"eval.neighbours": 2, "eval.rules": "official"}, ["eval.neighbours", "eval=strict"]),
        ({"eval.keep_distinct": True}, ["eval.keep_distinct", "eval=official"]),
        ({"eval.plug_value": True}, ["eval.plug_value", "eval=official"]),
        ({"eval.votes": 0}, ["eval.votes=0", "at least 1"]),
        ({"eval.temperature": 0.0}, ["eval.temperature=0.0", "positive", "eval.votes=1"]),
        ({"eval.votes": 5, "eval.engine": "vllm"}, ["eval.engine=native", "eval.votes=5"]),
        ({"eval.constrained": True, "eval.engine": "vllm"}, ["eval.engine=native", "eval.constrained=true"]),
        ({"eval.repair": True, "predictions": "sql.txt"}, ["predictions=sql.txt", "eval.repair=true", "leave one"]),
    ],
)
def test_a_combination_that_cannot_work_is_refused_with_its_settings(values, changes, words):
    message = refused(values, changes)
    assert [word for word in words if word not in message] == []


def test_all_that_is_wrong_is_said_at_once(values):
    message = refused(values, {"lora.r": 0, "eval.split": "train"})
    assert "lora.r=0" in message
    assert "eval.split=train" in message


@pytest.mark.parametrize(
    "changes",
    [
        {"trainer.max_length": 512, "hardware.max_tokens": 512},
        {"trainer.batch_size": 7, "hardware.devices": 4},
        {"hardware.max_cache_tokens": None},
        {"hardware.fp16": False, "hardware.bf16": True},
        {"trainer.max_length": 201},
        {"phase.number": 2, "adapter": "auto"},
        {"hub.push_to_hub": True, "hub.hub_model_id": "someone/adapter"},
        {"eval.split": "validation"},
        {"eval.rules": "official", "eval.keep_distinct": True, "eval.plug_value": True},
        {"eval.neighbours": 2},
        {"eval.votes": 5, "eval.temperature": 0.3, "eval.constrained": True, "eval.repair": True},
        {"quant.load_in_8bit": True, "quant.load_in_4bit": False},
    ],
)
def test_a_combination_beside_a_rule_passes(values, changes):
    cfg = OmegaConf.create(values)
    for key, value in changes.items():
        OmegaConf.update(cfg, key, value)
    config.load(cfg)


# Saving and replaying.

# omegaconf reads ${...} in a string as a reference and ??? as a missing value; YAML folds the rarer line breaks.
TEXTS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], include_characters="\n\t"), max_size=40
).filter(lambda text: "${" not in text and text != "???" and not text.endswith("\\"))


@settings(max_examples=25, deadline=None)
@given(
    learning_rate=st.floats(1e-12, 1e3),
    seed=st.integers(0, 2**32 - 1),
    max_samples=st.none() | st.integers(0, 10**9),
    instruction=TEXTS,
    adapter=st.none() | TEXTS,
    modules=st.lists(TEXTS, min_size=1, max_size=3),
)
@example(1e-4, 42, None, "1e-3", "null", ["on", "1_0", "0x10", "~"])
@example(1e-4, 42, None, "yes: 'no'", "2026-01-01", ["1:30", " a ", "#b"])
def test_a_config_reads_back_from_its_yaml_as_it_was(
    default, learning_rate, seed, max_samples, instruction, adapter, modules
):
    changed = dataclasses.replace(
        default,
        trainer=dataclasses.replace(default.trainer, learning_rate=learning_rate),
        data=dataclasses.replace(default.data, max_samples=max_samples, path=instruction),
        prompt=dataclasses.replace(default.prompt, instruction=instruction),
        lora=dataclasses.replace(default.lora, target_modules=modules),
        adapter=adapter,
        seed=seed,
    )
    assert config.load(OmegaConf.create(config.to_yaml(changed))) == changed


@pytest.mark.parametrize("overrides", ["", "phase=2 lora.r=8", "experiment=quickstart phase=2 tracking=offline"])
def test_the_config_of_a_run_composes_again_to_the_same(tmp_path, overrides):
    cfg = composed("train", *overrides.split())
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    assert config.load(composed("config", folder=tmp_path)) == config.load(cfg)


def test_a_replay_by_the_command_line_takes_the_saved_config_and_further_overrides(tmp_path):
    saved = tmp_path / "run" / ".hydra"
    saved.mkdir(parents=True)
    (saved / "config.yaml").write_text(OmegaConf.to_yaml(composed("train", "phase=2", "lora.r=8", "seed=7")))
    shown = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--config-dir", str(saved), "--config-name", "config", "--cfg", "job", "seed=8"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert config.load(OmegaConf.create(shown.stdout)) == loaded("train", "phase=2", "lora.r=8", "seed=8")


def test_a_file_that_is_no_config_is_refused_by_name(tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    with pytest.raises(ValueError, match=r"list\.yaml is not a saved config"):
        config.read_yaml(str(path))


# What evaluation takes from the run that made an adapter.


@pytest.fixture(scope="module")
def saved():
    settings = loaded("train", "experiment=quickstart", "prompt=question_only", "lora.r=8", "trainer.batch_size=32")
    return OmegaConf.create(config.to_yaml(settings))


def evaluated(saved, *overrides):
    return config.load(config.with_saved(composed("evaluate", *overrides), saved, quote_phase(list(overrides))))


@pytest.mark.parametrize("group", config.SAVED_WITH_ADAPTER)
def test_a_group_that_is_not_named_comes_from_the_run(saved, group):
    assert getattr(evaluated(saved, "data=gretel", "seed=1"), group) == getattr(config.load(saved), group)


@pytest.mark.parametrize("group", ["data", "eval", "tracking", "hub", "phase", "seed"])
def test_what_is_evaluated_is_not_taken_from_the_run(saved, group):
    assert getattr(evaluated(saved), group) == getattr(loaded("evaluate"), group)


@pytest.mark.parametrize(
    ("override", "group"),
    [("prompt=ddl", "prompt"), ("model=tiny", "model"), ("hardware=gpu", "hardware"), ("quant=none", "quant")],
)
def test_a_group_on_the_command_line_wins_over_the_run(saved, override, group):
    assert getattr(evaluated(saved, override), group) == getattr(loaded("evaluate", override), group)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("lora.r=4", "lora.r", 4),
        ("++lora.r=4", "lora.r", 4),
        ("prompt.instruction='Answer, in SQL'", "prompt.instruction", "Answer, in SQL"),
        ("lora.target_modules=[q_proj]", "lora.target_modules", ["q_proj"]),
        ("hardware.bf16=null", "hardware.bf16", None),
    ],
)
def test_a_single_key_is_laid_over_the_group_of_the_run(saved, override, key, value):
    settings, original = evaluated(saved, override), config.load(saved)
    assert at(settings, key) == value
    group, _, name = key.partition(".")
    restored = dataclasses.replace(getattr(settings, group), **{name: at(original, key)})
    assert restored == getattr(original, group)


def test_a_run_of_an_older_version_is_evaluated_without_the_hardware_settings_that_are_gone(saved):
    older = saved.copy()
    older.hardware.per_device_train_batch_size = 4
    del older.hardware["max_tokens"], older.hardware["fast_path"]
    found = evaluated(older).hardware
    assert (found.name, found.device) == ("cpu", config.Device.cpu)
    assert (found.max_tokens, found.fast_path) == (loaded("evaluate").hardware.max_tokens, True)


def test_a_reference_on_the_command_line_is_to_the_settings_of_the_run(saved):
    assert at(evaluated(saved, "model.path=${model.hub_id}"), "model.path") == saved.model.hub_id


def test_the_runs_own_config_is_left_as_it_is(saved):
    before = OmegaConf.to_yaml(saved)
    evaluated(saved, "lora.r=4")
    assert OmegaConf.to_yaml(saved) == before


@pytest.mark.parametrize(("phase", "expected"), [("1", 10), ("2", 20)])
def test_one_override_has_a_value_for_each_phase(compose, phase, expected):
    assert compose([f"phase={phase}", "trainer.max_steps=${by_phase:10,20}"]).trainer.max_steps == expected


def test_a_phase_without_a_value_is_named(compose):
    with pytest.raises(Exception, match=r"by_phase.*1 values and phase=2"):
        compose(["phase=2", "trainer.max_steps=${by_phase:10}"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["eval.loose=true"], "eval.loose=true is a kind of eval.constrained=true"),
        (["prompt.num_values=-1"], "prompt.num_values=-1"),
        (["prompt.max_schema_tokens=0"], "prompt.max_schema_tokens=0 must be positive"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_setting(compose, overrides, message):
    with pytest.raises(ValueError, match=message):
        compose(["phase=1", *overrides])
