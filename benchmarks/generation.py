"""Answers per second of generation beside transformers' generate(), on the prompts of a data set.

    python benchmarks/generation.py --hardware cpu --data mini --max-new-tokens 64
    python benchmarks/generation.py --hardware gpu --data DATA/spider --adapter RUN/adapter
    python benchmarks/generation.py --hardware gpu --data DATA/spider --limit 200 --check

The sides take turns and the best of --rounds counts. An untrained model never stops, so without --adapter every answer has
all its tokens: fair to no side in particular, but longer than real work. `one by one` is timed on --single prompts and
extrapolated. --check compares, in fp32, the text of ours with one-by-one generate() on all prompts and prints no times.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from hydra import compose, initialize_config_dir

from text2sql import commandline, config, data, decoding, fast_path, generation, model, prompts
from text2sql.config import Config

BATCH = {"gpu": 256, "t4": 64, "cpu": 32}
Answers = dict[int, str]


@dataclass(frozen=True)
class Work:
    """The model plain and on the fast path (the same weights), and the prompts as token ids."""

    settings: Config
    tokenizer: Any
    plain: Any
    fast: Any
    rows: list[list[int]]


def main() -> None:
    options = arguments()
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING)
    work = prepare(options)
    where = torch.cuda.get_device_name() if options.hardware != "cpu" else f"{torch.get_num_threads()} CPU threads"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    print(f"{len(work.rows)} prompts, {sum(map(len, work.rows))} tokens; {where}; {versions}")
    if options.check:
        check(work, options)
    else:
        measure(work, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hardware", choices=BATCH, required=True)
    parser.add_argument("--data", required=True, help="Spider's official folder, or mini")
    parser.add_argument("--model", default="smollm2_135m")
    parser.add_argument("--quant", default="nf4")
    parser.add_argument("--adapter", type=Path, help="an adapter folder; without, a fresh one that changes nothing")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--max-new-tokens", type=int, default=200)
    parser.add_argument("--single", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    return parser.parse_args()


def prepare(options: argparse.Namespace) -> Work:
    overrides = [
        f"model={options.model}",
        f"hardware={options.hardware}",
        f"quant={options.quant}",
        "data=spider",
        f"data.path={options.data}",
        f"prompt.max_sql_tokens={options.max_new_tokens}",
    ]
    if options.limit:
        overrides.append(f"data.max_test_samples={options.limit}")
    if options.check:
        overrides += ["hardware.bf16=false", "hardware.fp16=false", "hardware.dtype=float32"]
    with initialize_config_dir(version_base="1.3", config_dir=str(commandline.CONF)):
        settings = config.load(compose("evaluate", overrides=overrides))
    tokenizer = model.load_tokenizer(settings.model)
    plain, fast = (load(settings, options.adapter) for _ in range(2))
    dtype = model.torch_dtype(settings.hardware)
    generation.hold_linears_in(fast, dtype)
    assert fast_path.switch_on(fast, dtype)
    examples = data.load(settings.data, "test", seed=settings.seed).examples
    rows = [prompts.encode_prompt(tokenizer, example, settings).ids for example in examples]
    return Work(settings, tokenizer, plain, fast, rows)


def load(settings: Config, adapter: Path | None) -> Any:
    base = model.load_base(settings)
    return (
        model.new_adapter(base, settings.lora)
        if adapter is None
        else model.load_adapter(base, adapter, trainable=False)
    )


def generate_padded(work: Work, rows: Sequence[list[int]], batch: int) -> Answers:
    """transformers' generate() in length-sorted batches of so many prompts."""
    limit = work.settings.prompt.max_sql_tokens
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    found: Answers = {}
    with generation.inference(work.plain, model.precision(work.settings.hardware)):
        for start in range(0, len(order), batch):
            some = order[start : start + batch]
            texts = generation._generate_batch(work.plain, work.tokenizer, [rows[i] for i in some], limit)
            found.update(zip(some, texts))
    return found


def generate_fast(work: Work, graphs: bool) -> Answers:
    hardware = work.settings.hardware
    answers = generation.generate(
        work.fast,
        work.tokenizer,
        work.rows,
        max_new_tokens=work.settings.prompt.max_sql_tokens,
        precision=model.precision(hardware),
        max_cache_tokens=hardware.max_cache_tokens,
        graphs=graphs,
    )
    return dict(answers)


def timed(run: Callable[[], Answers]) -> tuple[float, Answers]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    answers = run()
    return time.perf_counter() - started, answers


def measure(work: Work, options: argparse.Namespace) -> None:
    """A table of seconds and answers per second, each the best of the rounds, and one JSON line."""
    batch, total = BATCH[options.hardware], len(work.rows)
    single = work.rows[:: max(1, total // options.single)][: options.single]
    sides: dict[str, tuple[int, Callable[[], Answers]]] = {
        f"generate(), batches of {batch}": (total, lambda: generate_padded(work, work.rows, batch)),
        f"generate(), one by one (of {len(single)})": (len(single), lambda: generate_padded(work, single, 1)),
        "ours, steps launched": (total, lambda: generate_fast(work, graphs=False)),
    }
    if options.hardware != "cpu":
        sides["ours, steps recorded"] = (total, lambda: generate_fast(work, graphs=True))
    generate_fast_once(work)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    texts: dict[str, Answers] = {}
    for number in range(options.rounds):
        for name in list(sides) if number % 2 == 0 else list(sides)[::-1]:
            count, run = sides[name]
            took, texts[name] = timed(run)
            seconds[name].append(took * total / count)
    report(seconds, texts, total, f"generate(), batches of {batch}")


def generate_fast_once(work: Work) -> None:
    """What compiles on first use compiles now."""
    for _ in decoding.decode(
        work.fast.eval(), work.rows[:2], max_new_tokens=2, eos_token_id=-1, pad_token_id=0, graphs=False
    ):
        pass


def report(seconds: dict[str, list[float]], texts: dict[str, Answers], total: int, plain: str) -> None:
    best = {name: min(rounds) for name, rounds in seconds.items()}
    print(
        "| generation | seconds, best (all) | answers/s | times as fast | same text |\n| --- | --- | --- | --- | --- |"
    )
    for name, took in best.items():
        rounds = " ".join(f"{one:.1f}" for one in seconds[name])
        same = sum(texts[name].get(i) == text for i, text in texts[plain].items()) if len(texts[name]) == total else "-"
        print(f"| {name} | {took:.2f} ({rounds}) | {total / took:.1f} | {best[plain] / took:.2f} | {same} |")
    print(
        json.dumps(
            {"answers": total, "seconds": seconds, "ratio": {name: best[plain] / took for name, took in best.items()}}
        )
    )


def check(work: Work, options: argparse.Namespace) -> None:
    """Whether every way of ours says, in fp32, what one-by-one generate() says."""
    alone = generate_padded(work, work.rows, 1)
    for graphs in (False, True) if options.hardware != "cpu" else (False,):
        found = generate_fast(work, graphs)
        differing = [i for i in alone if alone[i] != found[i]]
        print(json.dumps({"graphs": graphs, "answers": len(alone), "differing": len(differing)}))
        for i in differing[:5]:
            print(f"  {i}: {alone[i]!r}\n     {found[i]!r}")


if __name__ == "__main__":
    main()
