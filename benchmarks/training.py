"""Training speed and memory beside plain TRL: python benchmarks/training.py nemo --rows rows.json.gz (see --help).

`encode` writes the rows once: Spider's training questions as SmolLM2's tokens, with the schema in the prompt. The network of
`nemo` has Mistral NeMo 12B's shape and random NF4 weights, so nothing is downloaded. Plain and ours alternate in one process,
on the same weights. `ranks` measures the 12B shape on as many GPUs as torchrun starts processes:

    python benchmarks/training.py ranks --rows rows.json.gz
    torchrun --standalone --nproc-per-node 2 benchmarks/training.py ranks --rows rows.json.gz
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import logging
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import networks
import torch
from arms import BATCH, GIB, measure, our_steps, plain_trl, turing

from text2sql import fast_path, fused, model, ranks
from text2sql.graphs import GraphedPasses
from text2sql.passes import Row
from text2sql.step import StepGradient


def encode(options: argparse.Namespace) -> None:
    """Write the training questions of Spider as tokens."""
    from hydra import compose, initialize_config_dir

    from text2sql import commandline, config, data, encoding

    with initialize_config_dir(version_base="1.3", config_dir=str(commandline.CONF)):
        overrides = ["model=smollm2_135m", "hardware=cpu", "data=spider", f"data.path={options.data}"]
        settings = config.load(compose("train", overrides=overrides))
    examples = data.load(settings.data, "train", seed=settings.seed).examples
    tokens = encoding.Tokens.of(examples, model.load_tokenizer(settings.model), settings)
    with gzip.open(options.rows, "wt") as file:
        json.dump([[ids, start] for ids, start in zip(tokens.rows, tokens.prompt_lengths)], file)


def read_rows(path: str) -> list[Row]:
    with gzip.open(path, "rt") as file:
        return [Row(ids, start) for ids, start in json.load(file)]


def steps_of(rows: list[Row], number: int, seed: int = 0) -> list[list[Row]]:
    """`number` optimizer steps of BATCH rows each; the first holds the longest example, which is where memory runs out."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    steps = [[rows[i] for i in order[start : start + BATCH]] for start in range(0, number * BATCH, BATCH)]
    steps[0][0] = max(rows, key=lambda row: len(row.ids))
    return steps


def matrix_rate(dtype: torch.dtype, size: int = 8192) -> float:
    """Measured FLOP/s of a square matrix product, random data."""
    a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(10):
        a @ b
    torch.cuda.synchronize()
    return 10 * 2 * size**3 / (time.perf_counter() - started)


def show(name: str, found: dict[str, Any], results: dict[str, Any]) -> None:
    results.setdefault(name, []).append(found)
    if not found["fits"]:
        print(f"{name:58s} out of memory", flush=True)
        return
    print(
        f"{name:58s} {found['examples_per_second']:8.2f} ex/s {found['tokens_per_second']:9.0f} tok/s "
        f"{found['seconds_a_step']:7.3f} s/step  first {found['first_step']:6.1f} s  peak {found['peak_gib']:6.2f} GiB",
        flush=True,
    )


def run_nemo(options: argparse.Namespace, tokenizer: Any, results: dict[str, Any]) -> None:
    """The 12B geometry: as on a T4 (fp16, 14.5 GiB, no flash attention), then bf16 with all of the GPU."""
    rows = read_rows(options.rows)
    half = torch.float16
    started = time.perf_counter()
    network = networks.adapted(networks.nemo("cuda", half, half, layers=options.layers), 0.05)
    torch.cuda.synchronize()
    made_s, held = time.perf_counter() - started, torch.cuda.memory_allocated() / GIB
    print(f"network made in {made_s:.0f} s, {held:.2f} GiB", flush=True)
    if "t4" in options.arms:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(14.5 * GIB / total)
        with turing():
            as_on_a_t4(network, rows, tokenizer, options, results)
        torch.cuda.set_per_process_memory_fraction(1.0)
    if "bf16" in options.arms:
        in_bf16(network, rows, tokenizer, options, results)


def num_tokens(steps: list[list[Row]]) -> int:
    return sum(len(row.ids) for step in steps for row in step)


def as_on_a_t4(
    network: Any, rows: list[Row], tokenizer: Any, options: argparse.Namespace, results: dict[str, Any]
) -> None:
    """Ours by tokens a pass and dropout, plain one by one, and both with the other weights in float32."""
    few, more = steps_of(rows, 2), steps_of(rows, options.steps)
    ours = {"dtype": torch.float16, "ck": True}
    plain = {"per_pass": 1, "precision": "fp16", "ck": True}
    longest = [[Row((few[0][0].ids * 2)[:1024], 1000)]]
    run = partial(our_steps, network, longest * 2, max_tokens=1024, **ours)
    show("ours, 1 x 1,024 tokens, fp16, 14.5 GiB", measure(run, 2048, 2), results)
    for rate in (0.0, 0.05):
        networks.set_dropout(network, rate)
        for max_tokens in options.max_tokens:
            run = partial(our_steps, network, more, max_tokens=max_tokens, **ours)
            name = f"ours, <= {max_tokens} tokens, fp16, dropout {rate}, 14.5 GiB"
            show(name, measure(run, num_tokens(more), len(more)), results)
    for _ in range(options.repeats):
        run = partial(plain_trl, network, tokenizer, few, **plain)
        show("plain TRL one by one, others fp16, 14.5 GiB", measure(run, num_tokens(few), len(few)), results)
        run = partial(our_steps, network, more, max_tokens=4096, **ours)
        show("ours, <= 4096 tokens, fp16, dropout 0.05, 14.5 GiB", measure(run, num_tokens(more), len(more)), results)
    networks.convert_others(network, torch.float32)
    networks.set_compute(network, torch.float32)
    run = partial(plain_trl, network, tokenizer, few[:1], **plain)
    show("plain TRL, the original's (others fp32), 14.5 GiB", measure(run, num_tokens(few[:1]), 1), results)
    run = partial(our_steps, network, more, max_tokens=1024, **ours)
    show("ours, others fp32, <= 1024 tokens, 14.5 GiB", measure(run, num_tokens(more), len(more)), results)


LEVERS: list[tuple[str, dict[str, Any]]] = [
    ("plain modules, <= 8192 tokens, ck", {"parts": None, "ck": True}),
    ("+ fused norm and SwiGLU", {"parts": ("embedding", "norm", "mlp"), "ck": True}),
    ("+ fused LoRA linear", {"parts": ("embedding", "norm", "mlp", "linear"), "ck": True}),
    ("+ attention by bounds, rotary: the fast path, ck", {"ck": True}),
    ("the fast path without checkpointing", {"ck": False}),
]


def in_bf16(
    network: Any, rows: list[Row], tokenizer: Any, options: argparse.Namespace, results: dict[str, Any]
) -> None:
    """What each lever of the fast path adds, the rate of a matrix product beside it, and plain one by one."""
    few, more = steps_of(rows, 2), steps_of(rows, options.steps)
    networks.convert_others(network, torch.bfloat16)
    networks.set_compute(network, torch.bfloat16)
    results["bf16_matrix_flops"] = matrix_rate(torch.bfloat16)
    print(f"bf16 matrix product {results['bf16_matrix_flops'] / 1e12:.0f} TFLOP/s", flush=True)
    for dropout in (0.0, 0.05):
        networks.set_dropout(network, dropout)
        for name, settings in LEVERS if dropout else LEVERS[-2:]:
            run = partial(our_steps, network, more, max_tokens=8192, dtype=torch.bfloat16, **settings)
            show(f"bf16 {name}, dropout {dropout}", measure(run, num_tokens(more), len(more)), results)
    run = partial(plain_trl, network, tokenizer, few, per_pass=1, precision="bf16", ck=True)
    show("plain TRL one by one, bf16, ck", measure(run, num_tokens(few), len(few)), results)


def run_smollm2(options: argparse.Namespace, tokenizer: Any, results: dict[str, Any]) -> None:
    """SmolLM2-135M, r16, batch 16: plain TRL in padded batches of 16 against passes, the fast path and graphs."""
    rows = read_rows(options.rows)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16
    base = networks.smollm2(options.smollm2, f"{device}:0" if device == "cuda" else device, True, dtype)
    network = networks.adapted(base, 0.05)
    few, more = steps_of(rows, options.steps), steps_of(rows, options.steps * 4)
    num_few, num_more = num_tokens(few), num_tokens(more)
    settings: dict[str, Any] = {"max_tokens": 16_384, "dtype": dtype, "ck": False}
    for _ in range(options.repeats):
        for ck in (True, False):
            run = partial(plain_trl, network, tokenizer, few, per_pass=BATCH, precision="bf16", ck=ck)
            show(f"plain TRL, padded batch of 16, {'' if ck else 'no '}ck", measure(run, num_few, len(few)), results)
        run = partial(our_steps, network, few, parts=None, **settings)
        show("passes, plain modules", measure(run, num_few, len(few)), results)
        run = partial(our_steps, network, few, **settings)
        show("the fast path, no graphs", measure(run, num_few, len(few)), results)
        if device == "cuda":
            for optim in ("paged_adamw_8bit", "adamw_torch_fused"):
                twice = more + more  # every size is recorded in the first half
                run = partial(
                    our_steps,
                    network,
                    twice,
                    graphs=True,
                    optim=optim,
                    warm_up=len(more),
                    **settings,
                )
                show(f"the fast path, graphs, {optim}", measure(run, num_more, len(more)), results)


KINDS = {
    "dropout": ("dropout", "masked_scale", "to_copy_add_mul_0"),
    "attention": ("flash", "fmha"),
    "unpacking": ("Dequantize",),
    "norm, SwiGLU, rotary": ("triton",),
    "matrix products": ("nvjet", "gemm", "cutlass", "splitK", "aten::mm", "aten::addmm"),
}


def run_profile(options: argparse.Namespace, tokenizer: Any, results: dict[str, Any]) -> None:
    """Where one step of SmolLM2 spends its device time, recorded on a GPU, by kind of kernel and by kernel."""
    on_gpu, dtype = torch.cuda.is_available(), torch.bfloat16
    base = networks.smollm2(options.smollm2, "cuda:0" if on_gpu else "cpu", True, dtype)
    network = networks.adapted(base, 0.05).train()
    fast_path.switch_on(network, dtype)
    step = StepGradient(network, 16_384, dtype, GraphedPasses(BATCH, 1024) if on_gpu else None)
    (rows,) = steps_of(read_rows(options.rows), 1)
    step(rows)
    activity = torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profile:
        step(rows)
        if on_gpu:
            torch.cuda.synchronize()
    spent = {
        event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total
        for event in profile.key_averages()
    }
    kinds = dict.fromkeys([*KINDS, "other"], 0.0)
    for name, microseconds in spent.items():
        kinds[next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "other")] += (
            microseconds
        )
    results["profile_us"] = kinds
    number = sum(event.count for event in profile.key_averages())
    print(f"{num_tokens([rows])} tokens, {number} kernels, {sum(spent.values()) / 1e3:.1f} ms")
    for name, microseconds in [*kinds.items(), *sorted(spent.items(), key=lambda item: -item[1])[:12]]:
        print(f"{microseconds / 1e3:9.2f} ms  {name[:100]}")


def run_ranks(options: argparse.Namespace, tokenizer: Any, results: dict[str, Any]) -> None:
    """Examples a second of the 12B geometry on all ranks together, and the losses, which must not depend on their number."""
    device = torch.device("cuda", ranks.local_rank())
    torch.cuda.set_device(device)
    if ranks.world_size() > 1:
        torch.distributed.init_process_group("nccl", device_id=device)
    steps = steps_of(read_rows(options.rows), options.steps)
    tokens = num_tokens(steps)
    network = networks.adapted(networks.nemo(str(device), torch.float16, torch.float16, layers=options.layers), 0.0)
    losses: list[float] = []
    for arm, dtype, max_tokens in (("t4", torch.float16, 6144), ("bf16", torch.bfloat16, 8192)):
        if arm not in options.arms:
            continue
        networks.convert_others(network, dtype)
        networks.set_compute(network, dtype)
        with turing() if arm == "t4" else contextlib.nullcontext():
            run = partial(
                our_steps,
                network,
                steps,
                max_tokens=max_tokens,
                dtype=dtype,
                ck=True,
                losses=losses,
            )
            found = measure(run, tokens, len(steps))
        if ranks.is_main():
            show(f"{arm}, <= {max_tokens} tokens a pass, {ranks.world_size()} GPU(s)", found, results)
    if ranks.is_main():
        print("losses", " ".join(f"{loss:.5f}" for loss in losses))
    if ranks.world_size() > 1:
        torch.distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["encode", "nemo", "smollm2", "profile", "ranks"])
    parser.add_argument("--rows", required=True, help="the encoded rows (.json.gz)")
    parser.add_argument("--data", help="encode: Spider's folder")
    parser.add_argument("--smollm2", help="folder of the converted SmolLM2 (default: the package's cache)")
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps of an arm")
    parser.add_argument("--repeats", type=int, default=2, help="how often plain and ours alternate")
    parser.add_argument("--layers", type=int, default=40, help="layers of the 12B geometry")
    parser.add_argument(
        "--max-tokens", nargs="+", type=int, default=[4096, 6144], help="nemo: passes tried under the cap"
    )
    parser.add_argument("--arms", nargs="+", default=["t4", "bf16"], help="nemo: t4, bf16")
    parser.add_argument("--json", type=Path, help="write every number here")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if options.what == "encode":
        encode(options)
        return
    from text2sql import smollm2

    options.smollm2 = options.smollm2 or str(smollm2.fetch())
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.smollm2)
    results: dict[str, Any] = {"torch": torch.__version__, "command": " ".join(sys.argv)}
    if torch.cuda.is_available():
        results["gpu"] = torch.cuda.get_device_name()
        fused.compile_elementwise(torch.device("cuda"))
    {"nemo": run_nemo, "smollm2": run_smollm2, "profile": run_profile, "ranks": run_ranks}[options.what](
        options, tokenizer, results
    )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
