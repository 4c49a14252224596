"""What a constraint, sampling and both cost while SQL is generated, beside greedy generation that nothing constrains.

    python benchmarks/constrained.py --hardware cpu --data data/spider --questions 8 --max-new-tokens 32
    python benchmarks/constrained.py --hardware gpu --data data/spider --adapter RUN/adapter

The sides take turns and the best of --rounds counts; on a CPU it is the processor's time, so that other programs do not. An
untrained model is refused more often than a trained one, and never stops by itself. Beside each time stand the recorded steps,
wide and narrow, what constraints refused, and the first digits of the answers' SHA-256. With --guesses 0, whose steps guess
nothing, those of the first two sides are the same; in bf16 two processes may round apart, whatever they guess.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from hydra import compose, initialize_config_dir

from text2sql import checking, commandline, config, constraint, data, generation, model, prompts, scoring, steps
from text2sql.answering import network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hardware", choices=["cpu", "gpu", "t4"], required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--questions", type=int, default=1034)
    parser.add_argument("--max-new-tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--guesses", type=int, help="tokens that a recorded step guesses, with many rows and with few")
    options = parser.parse_args()
    if options.guesses is not None:
        steps.GUESSES = steps.FEW_GUESSES = options.guesses
    settings = prepared(options)
    tokenizer = model.load_tokenizer(settings.model)
    examples = data.load(settings.data, "test", seed=1).examples
    rows = [prompts.encode_prompt(tokenizer, example, settings).ids for example in examples]
    started = time.perf_counter()
    vocabulary = constraint.Vocabulary(tokenizer)
    constraints = [constraint.of(example.schema, vocabulary) for example in examples]
    print(
        f"{len(rows)} prompts, {sum(map(len, rows))} tokens; constraints made in {time.perf_counter() - started:.1f} s"
    )
    sides: dict[str, dict[str, Any]] = {
        "greedy": {},
        "constrained": {"constraints": constraints},
        "sampled": {"temperature": 0.7},
        "sampled, constrained": {"temperature": 0.7, "constraints": constraints},
    }
    compare(settings, network(settings, options.adapter), tokenizer, rows, sides, options.rounds)


def prepared(options: argparse.Namespace) -> config.Config:
    overrides = [f"data=spider data.path={options.data} data.max_test_samples={options.questions}"]
    overrides = [*overrides[0].split(), f"prompt.max_sql_tokens={options.max_new_tokens}"]
    if options.adapter is not None:
        overrides.append(f"adapter={options.adapter}")
    else:
        overrides += ["model=smollm2_135m", "quant=none", "prompt=qualified"]
    overrides.append(f"hardware={options.hardware}")
    with initialize_config_dir(version_base="1.3", config_dir=str(commandline.CONF)):
        return scoring.settings(compose("evaluate", overrides=overrides), overrides)


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Counts of what decoding does: recorded steps, tokens asked for and refused, refusals that cost no other step."""
    counts: Counter[str] = Counter()
    take, advance, another = checking.Answer.take, steps.Recorded.advance, checking.Look._took_another

    def counted_take(self: checking.Answer, *some: Any) -> bool:
        taken = take(self, *some)
        counts.update(tokens=1, refused=not taken)
        return taken

    def counted_advance(self: steps.Recorded, number: int, *some: Any) -> None:
        counts["narrow" if self.is_narrow else "wide"] += number
        advance(self, number, *some)

    def counted_another(self: checking.Look, *some: Any) -> bool:
        taken = another(self, *some)
        counts.update(set_back=1, noted=taken)
        return taken

    with (
        mock.patch.object(checking.Answer, "take", counted_take),
        mock.patch.object(steps.Recorded, "advance", counted_advance),
        mock.patch.object(checking.Look, "_took_another", counted_another),
    ):
        yield counts


def compare(
    settings: config.Config,
    net: Any,
    tokenizer: Any,
    rows: list[list[int]],
    sides: dict[str, dict[str, Any]],
    rounds: int,
) -> None:
    """Print each side's best time, and what it did."""
    on_cpu = settings.hardware.device is config.Device.cpu
    clock = time.process_time if on_cpu else time.perf_counter
    best: dict[str, float] = {}
    did: dict[str, str] = {}
    for number in range(rounds):
        for name, more in list(sides.items())[:: 1 if number % 2 == 0 else -1]:
            with counting() as counts:
                began = clock()
                answers = generation.generate(
                    net,
                    tokenizer,
                    rows,
                    max_new_tokens=settings.prompt.max_sql_tokens,
                    precision=model.precision(settings.hardware),
                    max_cache_tokens=settings.hardware.max_cache_tokens,
                    graphs=False if on_cpu else settings.hardware.cuda_graphs,
                    **more,
                )
                said = dict(answers)
                if not on_cpu:
                    torch.cuda.synchronize()
                best[name] = min(clock() - began, best.get(name, float("inf")))
            assert len(said) == len(rows)
            did[name] = told(counts, [said[i] for i in range(len(rows))])
    for name, seconds in best.items():
        print(f"{name}: {seconds:.2f} s, {seconds / best['greedy'] - 1:+.1%}, {did[name]}")


def told(counts: Counter[str], answers: list[str]) -> str:
    found = [f"answers {hashlib.sha256(repr(answers).encode()).hexdigest()[:8]}"]
    if counts["wide"]:
        found.append(f"{counts['wide']} wide and {counts['narrow']} narrow steps")
    if counts["tokens"]:
        found.append(f"{counts['refused']} of {counts['tokens']} tokens refused")
    if counts["set_back"]:
        found.append(f"{counts['noted']} of {counts['set_back']} set back to a noted token")
    return ", ".join(found)


if __name__ == "__main__":
    main()
