"""A diagnosis as text for a terminal: a memory table, a histogram, one example in colour, times and traps."""

from __future__ import annotations

import re

from text2sql import fitting
from text2sql.doctor import Report
from text2sql.doctor.tokens import Tokens, View
from text2sql.fitting import Change
from text2sql.machines import GIB

GREY, GREEN, RED, BOLD, INVERSE, PLAIN = "\x1b[90m", "\x1b[32m", "\x1b[31m", "\x1b[1m", "\x1b[7m", "\x1b[0m"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
BINS, BAR_WIDTH = 12, 40
LEFT, RIGHT = "⟦", "⟧"


def as_text(report: Report, color: bool = False) -> str:
    """The whole report, with ANSI colours if `color`; without them what is trained stands in ⟦ ⟧."""
    sections = [report.run, _memory(report, color), _tokens(report, color), _time(report), _traps(report)]
    return "\n\n".join(sections)


def _title(text: str, color: bool) -> str:
    return f"{BOLD}{text}{PLAIN}" if color else text


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.2f} GiB"


def _memory(report: Report, color: bool) -> str:
    needed = report.memory
    width = max(len(part.name) for part in needed.parts)
    lines = [_title("memory of each device, predicted peak", color)]
    lines += [f"  {part.name:{width}}  {part.bytes / GIB:7.2f} GiB  {part.reason}" for part in needed.parts]
    lines.append(f"  {'total':{width}}  {needed.total / GIB:7.2f} GiB")
    shade = {True: GREEN, False: RED, None: ""}[report.fits] if color else ""
    lines.append(f"  {shade}{report.verdict}{PLAIN if shade else ''}")
    if report.fits is False:
        lines.append(f"  {fitting.advice(report.cures)}")
    lines += [f"  room to go faster: {_change(change)}" for change in report.room]
    return "\n".join(lines)


def _change(change: Change) -> str:
    return f"{change.overrides} ({_gib(change.memory.total)})"


def _tokens(report: Report, color: bool) -> str:
    title = _title("tokens of the training examples", color)
    tokens = report.tokens
    if tokens is None:
        return "\n".join([title, *(f"  {note}" for note in report.notes)])
    config, count = report.config, len(tokens.lengths)
    max_length, step = config.trainer.max_length, tokens.mean * config.trainer.batch_size / config.hardware.devices
    passes = -(-step // config.hardware.max_tokens)
    left_out = f"; {tokens.num_too_long} more do not fit and are left out" if tokens.num_too_long else ""
    lines = [
        title,
        *(f"  {line}" for line in histogram(tokens.lengths)),
        f"  {count} examples: mean {tokens.mean:.0f}, median {tokens.percentile(0.5)}, 95 % {tokens.percentile(0.95)}, "
        f"longest {max(tokens.lengths)} ({max(tokens.lengths) / max_length:.0%} of trainer.max_length={max_length})",
        f"  {tokens.num_shortened} prompts ({tokens.num_shortened / count:.1%}) lost a part of their schema to fit{left_out}",
        f"  {_trained_share(tokens):.0%} of the tokens are learned; a step has {step:.0f} tokens a device, "
        f"{passes:.0f} pass(es) of at most {config.hardware.max_tokens}, without padding",
        "",
        *_example(tokens.view, color),
    ]
    return "\n".join(lines)


def _trained_share(tokens: Tokens) -> float:
    return tokens.num_trained / sum(tokens.lengths)


def histogram(lengths: list[int]) -> list[str]:
    """Bars of how many `lengths` lie in each of up to 12 equal ranges."""
    low, high = min(lengths), max(lengths)
    width = max(1, -(-(high - low + 1) // BINS))
    counts = [0] * ((high - low) // width + 1)
    for length in lengths:
        counts[(length - low) // width] += 1
    scale = BAR_WIDTH / max(counts)
    digits = len(str(high + width))
    return [
        f"{low + i * width:{digits}}-{low + (i + 1) * width - 1:<{digits}} {'█' * round(n * scale):{BAR_WIDTH}} {n}".rstrip()
        for i, n in enumerate(counts)
    ]


def _example(view: View, color: bool) -> list[str]:
    masked, trained = visible(view.masked), visible(view.trained)
    heading = f"example {view.number} ({view.id}): "
    if color:
        legend = f"{GREY}read, {view.num_masked} tokens{PLAIN}, {GREEN}learned, {view.num_trained} tokens{PLAIN}"
        body = f"{GREY}{masked}{PLAIN}{GREEN}{trained}{INVERSE}{view.eos}{PLAIN}"
        return [f"  {heading}{legend}, {GREEN}{INVERSE}EOS{PLAIN}", body]
    legend = f"{view.num_masked} tokens are read, the {view.num_trained} in {LEFT} {RIGHT} are learned, EOS included"
    return [f"  {heading}{legend}", f"{masked}{LEFT}{trained}{view.eos}{RIGHT}"]


def visible(text: str) -> str:
    """`text` with control characters written out: data must not steer the terminal."""
    return CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def _time(report: Report) -> str:
    lines = ["time, a rough estimate"]
    if report.speed is None:
        return f"{lines[0]}\n  not known for this device; hardware.gpu=T4 (or another in the table) gives one"
    about = f"{'assuming ' if report.typical else ''}{report.mean_tokens:.0f} tokens an example"
    lines.append(
        f"  {duration(report.speed.step_s)} a step, {report.speed.tokens_per_s:,.0f} tokens/s over all devices ({about}; "
        f"limited by {report.speed.bound})"
    )
    if report.run_s is None:
        lines.append("  the run: not known without the number of examples")
    else:
        lines.append(f"  {duration(report.run_s)} for {report.steps} steps, without loading, evaluating and saving")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Two figures of the unit that fits: ms, s, min or h."""
    for size, unit in ((3600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds * 1000:.0f} ms"


def _traps(report: Report) -> str:
    if not report.traps:
        return "traps: none found"
    return "\n".join(["traps", *(f"  {trap.message}\n    cure: {trap.cure}" for trap in report.traps)])
