"""A run's adapter merged into 16-bit weights that any server loads, and kept only if the answers stay the same.

An adapter learns on the base model as it is quantised, and makes up for its rounding: so the quantised weights are unpacked to
16 bits and the adapter is added to those, or, where it is asked for, to the model's own weights.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tqdm import tqdm

from text2sql import answering, checkpoints, data, generation, merging, model, prompts, publish, runs
from text2sql import config as configuration
from text2sql.config import Config, Device
from text2sql.example import Example
from text2sql.scorer import Scorer
from text2sql.sql.judge import Limits, Rules

log = logging.getLogger(__name__)

DTYPES = ("float16", "bfloat16")
TRAINED, ORIGINAL = BASES = ("trained", "original")
"""What an adapter is added to: the base model as the run had it, unpacked where it was quantised, or its own weights."""
SHARD = "4GB"


@dataclass(frozen=True)
class Parity:
    """Answers to the same questions by two forms of a model; accuracies are None where no question could be judged."""

    num_probes: int
    identical: int
    accuracy_before: float | None
    accuracy_after: float | None

    @property
    def different_share(self) -> float:
        return 1 - self.identical / self.num_probes

    @property
    def accuracy_loss(self) -> float:
        if self.accuracy_before is None or self.accuracy_after is None:
            return 0.0
        return self.accuracy_before - self.accuracy_after

    def __str__(self) -> str:
        said = f"{100 - 100 * self.different_share:.1f} % identical SQL ({self.identical} of {self.num_probes})"
        if self.accuracy_before is None or self.accuracy_after is None:
            return f"{said}, execution not judged: the probes have no database"
        before, after = 100 * self.accuracy_before, 100 * self.accuracy_after
        return f"{said}, execution accuracy {before:.1f} % -> {after:.1f} % ({after - before:+.1f} points)"


@dataclass(frozen=True)
class Outcome:
    """The merged weights against the adapter beside the same 16-bit weights, and against the run as it was trained.

    The second is None where the run's base model was not quantised, or cannot be on this machine. `rounded_away` is the share
    of the adapter's change that the 16 bits of the weights took away again, as `merging.merge` has it.
    """

    merging: Parity
    as_trained: Parity | None
    rounded_away: float = 0.0

    def problems(self, tolerance: float, accuracy_tolerance: float) -> list[str]:
        """What is beyond tolerance, in words: the share of answers that merging changes, and how far accuracy falls."""
        found = []
        if self.merging.different_share > tolerance + 1e-9:
            share = 100 * self.merging.different_share
            found.append(f"merging changes {share:.1f} % of the answers, over --tolerance {tolerance:g}")
        loss = max(one.accuracy_loss for one in (self.merging, self.as_trained) if one is not None)
        if loss > accuracy_tolerance + 1e-9:
            over = f"over --accuracy-tolerance {accuracy_tolerance:g}"
            found.append(f"execution accuracy falls by {100 * loss:.1f} points, {over}")
        return found


@dataclass(frozen=True)
class Plan:
    """A merge about to be made: the run's config, its adapter and what that is added to, and the questions that are asked."""

    config: Config
    adapter: Path
    out: Path
    dtype: str
    base: str
    probes: list[Example]


def prepare(
    run: Path, out: Path, *, dtype: str, base: str, num_probes: int, data_path: str | None, model_path: str | None
) -> Plan:
    """Everything cheap, checked before weights are loaded. ValueError for a run, a folder or data that do not do."""
    if dtype not in DTYPES:
        raise ValueError(f"--dtype {dtype} is not one of {', '.join(DTYPES)}")
    if base not in BASES:
        raise ValueError(f"--base {base} is not one of {', '.join(BASES)}")
    if num_probes < 1:
        raise ValueError(
            f"--probes {num_probes} must be at least 1: without a probe nothing says that the merge is right"
        )
    publish.checked_stamp(run)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not an empty folder; name another, nothing in it was touched")
    adapter = run / "adapter"
    config = configuration.load(configuration.read_yaml(str(adapter / publish.CONFIG)))
    if model_path is not None:
        config = replace(config, model=replace(config.model, path=model_path))
    model.check_adapter(adapter, config)
    config = _here(config)
    if base == TRAINED and config.quant.load_in_8bit and config.hardware.device is Device.cpu:
        raise ValueError(f"the 8-bit weights that {run} learned on need a GPU; --base {ORIGINAL} merges without one")
    return Plan(config, adapter, out, dtype, base, _probes(run, config, num_probes, data_path))


def _here(config: Config) -> Config:
    """The config as one device of this machine has it, whatever trained it."""
    if config.hardware.device is Device.cuda and torch.cuda.is_available():
        return replace(config, hardware=replace(config.hardware, devices=1, fsdp=False))
    hardware = replace(
        config.hardware, device=Device.cpu, devices=1, dtype="float32", fp16=False, bf16=None, fsdp=False, gpu=None
    )
    return replace(config, hardware=hardware)


def _probes(run: Path, config: Config, count: int, path: str | None) -> list[Example]:
    """The first `count` test questions of what the run was evaluated on or, if it was not, of its own data."""
    settings, folder = config.data, run / "evaluation"
    if (folder / ".hydra/config.yaml").is_file():
        settings = configuration.saved_data(str(folder / ".hydra/config.yaml"))
    if path is not None:
        settings = replace(settings, path=path)
    return data.load(replace(settings, max_test_samples=count), "test", seed=config.seed).examples


def check_space(plan: Plan, num_parameters: int) -> None:
    """ValueError unless the disk of the output has room for so many 16-bit weights."""
    size = 2 * num_parameters
    where = next(path for path in (plan.out.absolute(), *plan.out.absolute().parents) if path.exists())
    free = shutil.disk_usage(where).free
    if free < 1.05 * size:
        raise ValueError(
            f"{where} has {free / checkpoints.GB:.2f} GB free and the merged weights take {size / checkpoints.GB:.2f} GB; free "
            "some, or name a folder on another disk"
        )


def merge(plan: Plan, tolerance: float, accuracy_tolerance: float) -> tuple[Outcome, list[str]]:
    """Merge, compare and, if nothing is beyond tolerance, put the folder in its place; returns (outcome, what is beyond it).

    The merged weights are read back from the disk before they answer, so that what is judged is what is kept.
    """
    tokenizer = model.load_tokenizer(plan.config.model)
    base = _base(plan)
    check_space(plan, sum(weight.numel() for weight in base.parameters()))
    beside = _answers(PeftModel.from_pretrained(_answering(plan, base), str(plan.adapter)), tokenizer, plan)
    del base
    trained = _as_trained(tokenizer, plan)
    parent = plan.out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{plan.out.name}.") as scratch:
        aside = Path(scratch) / "merged"
        rounded_away = _write(plan, tokenizer, aside)
        after = _answers(_answering(plan, _in_16_bit(plan, str(aside))), tokenizer, plan)
        with _scorer(plan.config) as scorer:
            found = [None if one is None else compare(plan.probes, one, after, scorer) for one in (beside, trained)]
        assert found[0] is not None
        outcome = Outcome(found[0], found[1], rounded_away)
        problems = outcome.problems(tolerance, accuracy_tolerance)
        if not problems:
            runs.write_json(aside / "merge.json", {**asdict(outcome), "dtype": plan.dtype, "base": plan.base})
            if plan.out.exists():
                plan.out.rmdir()  # fails, and nothing is lost, if it is no longer as empty as `prepare` has seen it
            aside.rename(plan.out)
    return outcome, problems


def _in_16_bit(plan: Plan, path: str) -> Any:
    """The model in this folder or of this id in full, every weight of it in plan.dtype."""
    wanted = replace(plan.config.model, path=path)
    loaded = model.load_in_full(wanted, plan.dtype, plan.config.hardware.device)
    return loaded.to(getattr(torch, plan.dtype))


def _base(plan: Plan) -> Any:
    """What the adapter is added to, every weight of it in plan.dtype."""
    if plan.base == ORIGINAL or not plan.config.quant.enabled:
        return merging.with_merged(_in_16_bit(plan, plan.config.model.path), plan.adapter)
    quantised = merging.with_merged(model.load_base(plan.config), plan.adapter)
    return quantised.dequantize().to(getattr(torch, plan.dtype))


def _answering(plan: Plan, network: Any) -> Any:
    """16-bit weights ready to answer: on a CPU, which multiplies them slowly, the same values in 32 bits."""
    return network.float() if plan.config.hardware.device is Device.cpu else network


def _write(plan: Plan, tokenizer: Any, folder: Path) -> float:
    """Write the merged model into `folder`; returns the share of the adapter's change that rounding took away."""
    merged, rounded_away = merging.add(_base(plan), plan.adapter)
    merged.config.use_cache = True
    merged.config._name_or_path = plan.config.model.hub_id
    merged.generation_config.use_cache = True
    merged.generation_config.eos_token_id = tokenizer.eos_token_id
    merged.generation_config.pad_token_id = tokenizer.pad_token_id
    merged.save_pretrained(folder, max_shard_size=SHARD)
    tokenizer.save_pretrained(folder)
    shutil.copyfile(plan.adapter / publish.CONFIG, folder / publish.CONFIG)
    return rounded_away


def _answers(network: Any, tokenizer: Any, plan: Plan, precision: str = "fp32") -> list[str]:
    """SQL for each probe; with `fp32` nothing is cast on the way, so that weights compute in the type that they have."""
    rows = [prompts.encode_prompt(tokenizer, example, plan.config).ids for example in plan.probes]
    most = plan.config.prompt.max_sql_tokens
    answers = generation.generate(network, tokenizer, rows, max_new_tokens=most, precision=precision)
    said = dict(tqdm(answers, "asking probes", len(rows)))
    return [generation.extract_sql(said[number]) for number in range(len(rows))]


def _as_trained(tokenizer: Any, plan: Plan) -> list[str] | None:
    """The answers of the run's own form, its base model quantised; None where it was not or cannot be here."""
    quant, hardware = plan.config.quant, plan.config.hardware
    if not quant.enabled:
        return None
    if quant.load_in_8bit and hardware.device is Device.cpu:
        log.warning("8-bit weights need a GPU, so the merged model is not compared with the run as it was trained")
        return None
    return _answers(answering.network(plan.config, plan.adapter), tokenizer, plan, model.precision(hardware))


def compare(probes: Sequence[Example], before: Sequence[str], after: Sequence[str], scorer: Scorer) -> Parity:
    """The parity of two lists of answers to `probes`."""
    judged = [number for number, example in enumerate(probes) if example.executable]
    accuracies = [_accuracy([(probes[n], answers[n]) for n in judged], scorer) for answers in (before, after)]
    identical = sum(one == other for one, other in zip(before, after))
    return Parity(len(probes), identical, accuracies[0], accuracies[1])


def _scorer(config: Config) -> Scorer:
    settings = config.eval
    limits = Limits(settings.timeout_s, settings.max_steps, settings.max_rows)
    return Scorer(limits, Rules(), workers=settings.workers or 1)


def _accuracy(pairs: Sequence[tuple[Example, str]], scorer: Scorer) -> float | None:
    scores = [score for score in scorer.score_all(pairs) if score.judged]
    return sum(score.correct for score in scores) / len(scores) if scores else None
