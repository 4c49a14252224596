"""The config: one dataclass per group, one schema, and `load()`, the one door between Hydra and the rest of the package."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import MISSING, DictConfig, OmegaConf

# omegaconf reads annotations at run time and knows Optional[X] on every Python we support.


class BadRow(Enum):
    drop = "drop"
    refuse = "refuse"


class TrackingMode(Enum):
    online = "online"
    offline = "offline"
    none = "none"


class Rules(Enum):
    strict = "strict"
    official = "official"


class Order(Enum):
    schema = "schema"
    relevance = "relevance"
    shuffled = "shuffled"


class SqlForm(Enum):
    as_written = "as_written"
    qualified = "qualified"


class Device(Enum):
    cuda = "cuda"
    cpu = "cpu"


class Engine(Enum):
    native = "native"
    vllm = "vllm"


@dataclass
class Model:
    """A causal language model: `path` is a hub id, a local folder, `wheel` (SmolLM2 from the package index) or `tiny`.

    `system_role` says whether its chat template takes a system message (Mistral's does not).
    """

    name: str = MISSING
    path: str = MISSING
    hub_id: str = MISSING
    revision: Optional[str] = None
    system_role: bool = False
    attn_implementation: str = "sdpa"


@dataclass
class Quant:
    """Weight quantisation; the names are those of transformers' BitsAndBytesConfig."""

    load_in_4bit: bool = False
    load_in_8bit: bool = False
    bnb_4bit_quant_type: str = "nf4"
    bnb_4bit_use_double_quant: bool = False
    bnb_4bit_compute_dtype: str = "float32"


@dataclass
class Lora:
    """The adapter's shape; the names are those of PEFT's LoraConfig."""

    r: int = MISSING
    lora_alpha: int = MISSING
    lora_dropout: float = MISSING
    target_modules: list[str] = MISSING
    bias: str = "none"
    task_type: str = "CAUSAL_LM"


@dataclass
class Data:
    """Where examples come from: `path` is a hub id, a local file or folder, or `mini` (generated, no download).

    `gretel_path` and `max_gretel_samples` say what `data=mixed` adds to Spider's training questions.
    """

    name: str = MISSING
    path: str = MISSING
    hub_id: str = MISSING
    max_samples: Optional[int] = None
    max_validation_samples: Optional[int] = None
    max_test_samples: Optional[int] = None
    validation_fraction: float = 0.05
    on_bad_row: BadRow = BadRow.drop
    include_others: bool = False
    gretel_path: Optional[str] = None
    max_gretel_samples: Optional[int] = None


@dataclass
class Prompt:
    """How a question is put to the model, and in which form it answers.

    `order` is that of tables and columns: the database's own, the most related to the question first, or shuffled by seed and
    example. `max_schema_tokens` bounds the schema (null: what trainer.max_length leaves). `num_values` are shown of a column
    at most, `num_rows` of a table, by the styles that show any. `question_first` asks before the schema as well as after
    it. `sql_form=qualified` trains on `singer.name` in place of `T1.name`. `max_sql_tokens` is the room kept for the answer
    inside trainer.max_length.
    """

    style: str = MISSING
    instruction: str = MISSING
    order: Order = Order.schema
    max_schema_tokens: Optional[int] = None
    num_values: int = 3
    num_rows: int = 3
    question_first: bool = False
    sql_form: SqlForm = SqlForm.as_written
    max_sql_tokens: int = 200


@dataclass
class Phase:
    """A step of the curriculum; the files in conf/phase also choose the data, the learning rate and the adapter."""

    number: int = 1
    name: str = ""


@dataclass
class Hardware:
    """What fits on a machine. Nothing here changes what is learned: that is `trainer`.

    `devices` are copies of the model, one process each. `max_tokens` is how many tokens one forward and backward pass
    holds, `max_cache_tokens` how many a batch of answers holds in the key-value cache (null: what the free memory takes).
    `cuda_graphs=null` records passes where the model is so small that launching kernels is what takes the time.
    `gradient_checkpointing=null` computes layers a second time only where memory asks for it.
    `fsdp` shards the frozen weights over the devices. `gpu` names the GPU that is meant and `memory_gib` its memory, for
    `text2sql doctor`; null asks the device itself.
    """

    name: str = MISSING
    device: Device = MISSING
    devices: int = 1
    fp16: bool = False
    bf16: Optional[bool] = None
    dtype: str = "float32"
    max_tokens: int = MISSING
    max_cache_tokens: Optional[int] = None
    gradient_checkpointing: Optional[bool] = False
    fast_path: bool = True
    cuda_graphs: Optional[bool] = None
    fsdp: bool = False
    gpu: Optional[str] = None
    memory_gib: Optional[float] = None


@dataclass
class Trainer:
    """What is learned; the names are those of TRL's SFTConfig, but for batch_size, the examples per optimizer step, and
    num_tokens: train on so many tokens, prompts included, in place of num_train_epochs, so that arms cost the same.

    `logging_steps`, `eval_steps` and `save_steps` below 1 are shares of the whole training; 1 and more count steps, so that
    eval_steps=1 evaluates after every one.
    """

    batch_size: int = MISSING
    learning_rate: float = MISSING
    num_train_epochs: float = 1.0
    max_steps: int = -1
    num_tokens: Optional[int] = None
    lr_scheduler_type: str = "linear"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    optim: str = MISSING
    max_length: int = MISSING
    logging_steps: float = 10
    eval_steps: float = 0.25
    save_steps: float = 0.25
    save_total_limit: int = 2


@dataclass
class Eval:
    """How answers are generated and judged.

    `max_steps` counts SQLite's own instructions: the same verdict on a busy machine. `workers` are the processes that run
    SQL, one a core where it is null. `neighbours` is how many databases are derived from each to be matched on as well.
    `constrained` lets the model write no table or column that the schema has not; with `loose` it bars no valid query beside,
    where by default it also keeps a model from dodging a table that FROM still needs. `votes` answers are executed and the
    most frequent result wins: one is greedy, the others are sampled at `temperature`. `repair` asks once more where the
    answer does not run, with the database's error and the nearest real names. A training of phase `after_phase` is followed
    by its evaluation, in the same folder.
    """

    split: str = "test"
    rules: Rules = Rules.strict
    keep_distinct: bool = False
    plug_value: bool = False
    num_live_samples: int = 5
    timeout_s: float = 10.0
    max_steps: int = 300_000_000
    max_rows: int = 100_000
    workers: Optional[int] = None
    neighbours: int = 0
    engine: Engine = Engine.native
    constrained: bool = False
    loose: bool = False
    votes: int = 1
    temperature: float = 0.7
    repair: bool = False
    after_phase: Optional[int] = None


@dataclass
class Tracking:
    mode: TrackingMode = TrackingMode.none
    project: str = "text2sql"
    entity: Optional[str] = None
    group: Optional[str] = None


@dataclass
class Hub:
    """Where checkpoints are pushed; tokens come from the environment or the login cache, never from the config."""

    push_to_hub: bool = False
    hub_model_id: Optional[str] = None
    hub_strategy: str = "checkpoint"
    hub_private_repo: bool = True


@dataclass
class Config:
    model: Model = field(default_factory=Model)
    quant: Quant = field(default_factory=Quant)
    lora: Lora = field(default_factory=Lora)
    data: Data = field(default_factory=Data)
    prompt: Prompt = field(default_factory=Prompt)
    phase: Phase = field(default_factory=Phase)
    hardware: Hardware = field(default_factory=Hardware)
    trainer: Trainer = field(default_factory=Trainer)
    eval: Eval = field(default_factory=Eval)
    tracking: Tracking = field(default_factory=Tracking)
    hub: Hub = field(default_factory=Hub)
    adapter: Optional[str] = None
    predictions: Optional[str] = None
    seed: int = 42


ConfigStore.instance().store(name="schema", node=Config)


def _by_phase(*values: Any, _root_: DictConfig) -> Any:
    """`${by_phase:1e-4,1e-5}`: the first value in phase 1, the second in phase 2, where one multirun trains both."""
    number = _root_.phase.number
    if not 0 < number <= len(values):
        raise ValueError(f"${{by_phase:...}} has {len(values)} values and phase={number} is not among them")
    return values[number - 1]


OmegaConf.register_new_resolver("by_phase", _by_phase, replace=True)

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
    check(config)
    return config


def check(config: Config) -> None:
    """Refuse what the types allow and the mathematics or the machine does not."""
    problems = [message for wrong, message in _rules(config) if wrong]
    if problems:
        raise ValueError("; ".join(problems))


def _rules(config: Config) -> list[tuple[bool, str]]:
    trainer, hardware, quant, data = config.trainer, config.hardware, config.quant, config.data
    positive: dict[str, Any] = {
        "trainer.batch_size": trainer.batch_size,
        "trainer.learning_rate": trainer.learning_rate,
        "trainer.max_length": trainer.max_length,
        "hardware.max_tokens": hardware.max_tokens,
        "hardware.max_cache_tokens": 1 if hardware.max_cache_tokens is None else hardware.max_cache_tokens,
        "hardware.devices": hardware.devices,
        "lora.r": config.lora.r,
        "eval.timeout_s": config.eval.timeout_s,
        "eval.max_rows": config.eval.max_rows,
        "eval.max_steps": config.eval.max_steps,
        "eval.workers": 1 if config.eval.workers is None else config.eval.workers,
        "prompt.max_sql_tokens": config.prompt.max_sql_tokens,
        "prompt.max_schema_tokens": 1 if config.prompt.max_schema_tokens is None else config.prompt.max_schema_tokens,
    }
    rules = [(value <= 0, f"{key}={value} must be positive") for key, value in positive.items()]
    return [
        *rules,
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
        (
            config.phase.number > 1 and config.adapter is None,
            f"phase={config.phase.number} continues an adapter and adapter=null names none; use adapter=auto, a folder "
            "or a hub id, or train a fresh one on these data with phase=1 data=" + data.name,
        ),
        (
            config.hub.push_to_hub and not config.hub.hub_model_id,
            "hub=push needs hub.hub_model_id=USER/NAME to push checkpoints to",
        ),
        *_length_rules(config.prompt, trainer),
        *_eval_rules(config.eval, config.predictions),
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
