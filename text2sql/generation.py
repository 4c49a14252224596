"""SQL for batches of examples, greedy or sampled, freely or under constraints, from the same prompts that training uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit

from text2sql import decoding, fast_path, seeds, upstream
from text2sql.checking import Constraint

FENCED = re.compile(r"```(?:sqlite|sql)?\s*(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
PADDED_CACHE_TOKENS = 32_768
"""What a padded batch holds at most, its answers included, where nobody says."""


def extract_sql(text: str) -> str:
    """The SQL in a model's answer: the first fenced block where there is one (base models chat), else the whole text."""
    fenced = FENCED.search(text)
    return (fenced[1] if fenced else text).strip()


def generate(
    model: Any,
    tokenizer: Any,
    rows: Sequence[list[int]],
    *,
    max_new_tokens: int,
    precision: str,
    max_cache_tokens: int | None = None,
    graphs: bool | None = None,
    temperature: float | Sequence[float] = 0.0,
    seed: int = 0,
    constraints: Sequence[Constraint] | None = None,
) -> Iterator[tuple[int, str]]:
    """Yield (index into `rows`, answer) as answers end; `rows` are prompts' token ids.

    Answers are greedy where `temperature`, one for all or one a row, is 0, and else samples of softmax(scores / temperature)
    by the run's `seed`; a row with a constraint says only what it allows. Rows that are alike share keys and values.

    A model on the fast path is decoded by `decoding`, which says what `max_cache_tokens` and `graphs` mean, in the type that
    it was switched on with; any other by transformers' generate() in padded batches, in `precision` (`fp16`, `bf16`, `fp32`).
    Both begin with the longest prompts, so that memory runs out early or never.
    """
    temperatures = [temperature] * len(rows) if isinstance(temperature, (int, float)) else list(temperature)
    assert len(temperatures) == len(rows) and min(temperatures, default=0.0) >= 0
    if not fast_path.is_on(model):
        said = partial(_generate_batch, model, tokenizer, max_new_tokens=max_new_tokens)
        with inference(model, precision):
            yield from _generate_padded(said, rows, max_new_tokens, max_cache_tokens, temperatures, seed, constraints)
        return
    with evaluating(model):
        for i, ids in decoding.decode(
            model,
            rows,
            max_new_tokens=max_new_tokens,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            max_cache_tokens=max_cache_tokens,
            graphs=graphs,
            temperatures=temperatures,
            seed=seeds.derive(seed, seeds.SAMPLING),
            constraints=constraints,
        ):
            yield i, tokenizer.decode(ids, skip_special_tokens=True).strip()


def _generate_padded(
    said: Callable[..., list[str]],
    rows: Sequence[list[int]],
    max_new_tokens: int,
    max_cache_tokens: int | None,
    temperatures: Sequence[float],
    seed: int,
    constraints: Sequence[Constraint] | None,
) -> Iterator[tuple[int, str]]:
    """The answers of `said` to batches of rows of one temperature each."""
    number = 0
    for temperature in sorted(set(temperatures)):
        of_it = [i for i, one in enumerate(temperatures) if one == temperature]
        lengths = [len(rows[i]) + max_new_tokens for i in of_it]
        for batch in token_budget_batches(lengths, max_cache_tokens or PADDED_CACHE_TOKENS):
            indices = [of_it[k] for k in batch]
            some = constraints and [constraints[i] for i in indices]
            derived = seeds.derive(seed, seeds.SAMPLING, number)
            number += 1
            yield from zip(
                indices, said([rows[i] for i in indices], temperature=temperature, seed=derived, constraints=some)
            )


def token_budget_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices, longest first, in batches of at most `max_tokens` when padded to their longest; a longer one stands alone."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= max_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def _generate_batch(
    model: Any,
    tokenizer: Any,
    rows: list[list[int]],
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    constraints: Sequence[Constraint] | None = None,
) -> list[str]:
    width = max(map(len, rows))
    padded = [[tokenizer.pad_token_id] * (width - len(row)) + row for row in rows]
    ids = torch.tensor(padded, device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    sampled = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
    greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            **(sampled if temperature else greedy),
            logits_processor=_processors(constraints, width),
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            use_cache=True,
        )
    return [text.strip() for text in tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)]


def _processors(constraints: Sequence[Any] | None, prompt_width: int) -> list[Any] | None:
    if constraints is None:
        return None
    from text2sql.constraint.processor import SchemaConstraint

    return [SchemaConstraint(list(constraints), prompt_width)]


def hold_linears_in(model: Any, dtype: torch.dtype) -> None:
    """Round the unquantised linear layers, the adapter's among them, to `dtype` once: the fast path would at every step.

    For a model that only answers; the head keeps its type, since it may be the embedding.
    """
    head = fast_path.head(model)
    for module in model.modules():
        if type(module) is torch.nn.Linear and module is not head:
            module.weight.data = module.weight.data.to(dtype)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode, and afterwards the mode from before."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def inference(model: Any, precision: str) -> Iterator[None]:
    """Evaluation mode with a working key-value cache, and everything as it was afterwards.

    Gradient checkpointing disables the cache in train mode, so it is switched off meanwhile.
    """
    checkpointing = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    use_cache = model.config.use_cache
    if checkpointing:
        upstream.set_checkpointing(model, False)
    model.config.use_cache = True
    kind = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    try:
        with ExitStack() as stack:
            stack.enter_context(evaluating(model))
            stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.autocast(model.device.type, dtype=kind, enabled=precision != "fp32"))
            if model.device.type == "cpu":
                stack.enter_context(dequantized(model))
            yield
    finally:
        model.config.use_cache = use_cache
        if checkpointing:
            upstream.set_checkpointing(model, True)


@contextmanager
def dequantized(model: Any) -> Iterator[None]:
    """Hold the 4-bit weights in full for a while: the same values, unpacked once instead of at every token.

    On a CPU unpacking is most of a decoding step; and bitsandbytes 0.49.1, in evaluation mode on a processor with bf16
    arithmetic, would pack the weights anew for good, with scales rounded to bf16, and multiply in bf16 whatever it is given.
    It costs 4 bytes a parameter, so it is for small models.
    """
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    for layer in layers:
        packed: Any = layer.weight
        weight = dequantize_4bit(packed.data, packed.quant_state).to(layer.compute_dtype or torch.float32)
        layer.forward = _full_linear(weight, layer.bias)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _full_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
    return lambda x: torch.nn.functional.linear(x.to(weight.dtype), weight, bias).to(x.dtype)
