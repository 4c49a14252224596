"""The config: `load()`, the one door between Hydra and the rest of the package, and the rules that every config keeps."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from text2sql import credentials, ranges
from text2sql.groups import BadRow as BadRow
from text2sql.groups import Config as Config
from text2sql.groups import Data as Data
from text2sql.groups import Device as Device
from text2sql.groups import Dialect as Dialect
from text2sql.groups import Engine as Engine
from text2sql.groups import Eval as Eval
from text2sql.groups import Hardware as Hardware
from text2sql.groups import Hub as Hub
from text2sql.groups import HubStrategy as HubStrategy
from text2sql.groups import Lora as Lora
from text2sql.groups import Model as Model
from text2sql.groups import OnNan as OnNan
from text2sql.groups import Order as Order
from text2sql.groups import Phase as Phase
from text2sql.groups import Prompt as Prompt
from text2sql.groups import Quant as Quant
from text2sql.groups import Rules as Rules
from text2sql.groups import SqlForm as SqlForm
from text2sql.groups import Tracking as Tracking
from text2sql.groups import TrackingMode as TrackingMode
from text2sql.groups import Trainer as Trainer

ConfigStore.instance().store(name="schema", node=Config)


def _by_phase(*values: Any, _root_: DictConfig) -> Any:
    """`${by_phase:1e-4,1e-5}`: the first value in phase 1, the second in phase 2, where one multirun trains both."""
    number = _root_.phase.number
    if not 0 < number <= len(values):
        raise ValueError(f"${{by_phase:...}} has {len(values)} values and phase={number} is not among them")
    return values[number - 1]


OmegaConf.register_new_resolver("by_phase", _by_phase, replace=True)
OmegaConf.register_new_resolver("sum", lambda values: sum(values), replace=True)

# What an adapter was trained with, and so what its evaluation takes from the run instead of the defaults.
SAVED_WITH_ADAPTER = ("model", "quant", "lora", "prompt", "hardware", "trainer")


def load(cfg: DictConfig) -> Config:
    """Turn a composed, replayed or hand-written config into a checked `Config`: the one door, behind which Hydra ends.

    Raises ValueError for combinations that cannot work, and omegaconf's own errors for unknown keys and wrong types.
    """
    # A plain container drops the types that Hydra's `+key=value` may already have widened, so every key is checked anew.
    merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.to_container(cfg, resolve=False))
    missing = sorted(OmegaConf.missing_keys(merged))
    if missing:
        raise ValueError(f"the config has no value for {', '.join(missing)}; choose a group file or set each")
    config = OmegaConf.to_object(merged)
    assert isinstance(config, Config)
    config.resume = {"auto": "true"}.get(config.resume.lower(), config.resume.lower())
    check(config)
    return config


def check(config: Config) -> None:
    """Refuse what the types allow and the mathematics or the machine does not."""
    credentials.refuse_in(asdict(config))
    problems = ranges.problems(config) + [message for wrong, message in _rules(config) if wrong]
    if problems:
        raise ValueError("; ".join(problems))


def _rules(config: Config) -> list[tuple[bool, str]]:
    return [
        *_hardware_rules(config),
        *_adapter_rules(config),
        (config.resume not in ("true", "false"), f"resume={config.resume} must be true (or auto) or false"),
        *_length_rules(config.prompt, config.trainer),
        *_eval_rules(config.eval, config.predictions),
    ]


def _hardware_rules(config: Config) -> list[tuple[bool, str]]:
    trainer, hardware, quant = config.trainer, config.hardware, config.quant
    return [
        (
            0 < hardware.max_tokens < trainer.max_length,
            f"hardware.max_tokens={hardware.max_tokens} is less than one example may have, "
            f"trainer.max_length={trainer.max_length}; raise the first or lower the second",
        ),
        (
            hardware.fsdp and quant.load_in_8bit,
            "quant=int8 cannot be sharded; choose quant=nf4 or quant=none with hardware.fsdp=true",
        ),
        (hardware.fp16 and hardware.bf16 is True, "hardware.fp16 and hardware.bf16 are both true; choose one"),
        (
            hardware.fp16 and hardware.device is Device.cpu,
            "hardware.fp16=true needs a GPU; set hardware.fp16=false (hardware=cpu does)",
        ),
        (
            hardware.cuda_graphs is True and hardware.gradient_checkpointing is True,
            "hardware.cuda_graphs=true records no gradient checkpointing; set hardware.gradient_checkpointing=false",
        ),
        (quant.load_in_4bit and quant.load_in_8bit, "quant.load_in_4bit and load_in_8bit are both true; choose one"),
        (
            quant.load_in_8bit and hardware.device is Device.cpu,
            "quant=int8 trains on a GPU only; choose quant=nf4 or quant=none with hardware=cpu",
        ),
    ]


def _adapter_rules(config: Config) -> list[tuple[bool, str]]:
    return [
        (
            config.phase.number > 1 and config.adapter is None and config.merge_adapter is None,
            f"phase={config.phase.number} continues an adapter and adapter=null names none; use adapter=auto, a folder "
            f"or a hub id, or train a fresh one on these data with phase=1 data={config.data.name}, or on the weights of "
            "the phase before with merge_adapter=auto",
        ),
        (
            config.adapter is not None and config.merge_adapter is not None,
            f"adapter={config.adapter} goes on learning and merge_adapter={config.merge_adapter} makes a fresh one; "
            "choose one and set the other to null",
        ),
        (
            config.merge_adapter is not None and config.hardware.fsdp,
            "merge_adapter needs whole weights and hardware.fsdp=true has shards of them; set hardware.fsdp=false",
        ),
    ]


def _length_rules(prompt: Prompt, trainer: Trainer) -> list[tuple[bool, str]]:
    return [
        (
            min(prompt.num_values, prompt.num_rows) < 0,
            f"prompt.num_values={prompt.num_values} and prompt.num_rows={prompt.num_rows} must not be negative",
        ),
        (
            trainer.num_tokens is not None and (trainer.num_tokens <= 0 or trainer.max_steps > 0),
            f"trainer.num_tokens={trainer.num_tokens} must be positive, and stand without trainer.max_steps="
            f"{trainer.max_steps}: both say how long to train",
        ),
        (
            trainer.max_length <= prompt.max_sql_tokens,
            f"trainer.max_length={trainer.max_length} leaves no room for a prompt beside "
            f"prompt.max_sql_tokens={prompt.max_sql_tokens}; raise the first or lower the second",
        ),
    ]


def _eval_rules(config: Eval, predictions: str | None) -> list[tuple[bool, str]]:
    asked = {"eval.constrained=true": config.constrained, "eval.repair=true": config.repair}
    asked[f"eval.votes={config.votes}"] = config.votes > 1
    of_a_model = " and ".join(setting for setting, is_set in asked.items() if is_set)
    return [
        (config.votes < 1, f"eval.votes={config.votes} must be at least 1; 1 takes the greedy answer alone"),
        (
            config.temperature <= 0,
            f"eval.temperature={config.temperature} must be positive: eval.votes above 1 samples answers at it (0.7, say), and "
            "eval.votes=1 takes the greedy answer without it",
        ),
        (
            bool(of_a_model) and config.engine is Engine.vllm,
            f"eval.engine=vllm only writes greedy answers; set eval.engine=native for {of_a_model}",
        ),
        (
            bool(of_a_model) and predictions is not None,
            f"predictions={predictions} is scored as it is, and {of_a_model} needs a model; leave one of them out",
        ),
        (
            config.loose and not config.constrained,
            "eval.loose=true is a kind of eval.constrained=true; set that as well",
        ),
        (config.neighbours < 0, f"eval.neighbours={config.neighbours} must not be negative"),
        (
            config.neighbours > 0 and config.rules is Rules.official,
            "eval.neighbours needs eval=strict: the official evaluator knows no databases derived from others",
        ),
        (
            (config.keep_distinct or config.plug_value) and config.rules is Rules.strict,
            "eval.keep_distinct and eval.plug_value are options of the official evaluator; choose eval=official",
        ),
        (config.split not in ("test", "validation"), f"eval.split={config.split} must be test or validation"),
    ]


def with_saved(cfg: DictConfig, saved: DictConfig, overrides: list[str]) -> DictConfig:
    """`cfg` with the groups an adapter was trained with taken from its run's `saved` config.

    A group named on the command line (`prompt=ddl`) stays as composed; a single key (`prompt.style=ddl`) is laid over the
    saved group. `overrides` are the task overrides as typed. Of `hardware`, settings that no longer exist are passed over,
    and those that did not exist yet are `cfg`'s.
    """
    result = OmegaConf.merge(cfg, {})
    assert isinstance(result, DictConfig)
    typed: Any = OmegaConf.to_container(cfg, resolve=False)  # a reference typed by hand is to the saved run's settings
    keys = [override.key_or_group for override in OverridesParser.create().parse_overrides(overrides)]
    for group in SAVED_WITH_ADAPTER:
        if group in keys:
            continue
        schema, known = OmegaConf.structured(Config)[group], saved[group]
        if group == "hardware":  # what fits is no part of what was learned: settings of another version are passed over
            names = {item.name for item in fields(Hardware)}
            known = {**typed[group], **{key: value for key, value in saved[group].items() if key in names}}
        values = OmegaConf.merge(schema, known)
        for key in keys:
            if key.startswith(group + "."):
                name = key.removeprefix(group + ".")
                OmegaConf.update(values, name, typed[group][name])
        result[group] = values
    return result


def to_yaml(config: Config) -> str:
    """The config as YAML that `load()` reads back to an equal Config."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def read_yaml(path: str) -> DictConfig:
    """A saved config; ValueError if the file is not one."""
    cfg = OmegaConf.load(path)
    if not isinstance(cfg, DictConfig):
        raise ValueError(f"{path} is not a saved config")
    return cfg


def saved_data(path: str) -> Data:
    """The data that the run of a saved config used; its other groups may be of another version."""
    data = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Data), read_yaml(path).data))
    assert isinstance(data, Data)
    return data
