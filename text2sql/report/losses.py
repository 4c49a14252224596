"""The picture of a run's losses, drawn with matplotlib from its history.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from text2sql import runs


def plot_losses(run: Path) -> Path | None:
    """plots/loss.png: training and validation loss by optimizer step, from history.jsonl; None if nothing was logged yet."""
    history = runs.read_jsonl(run / "history.jsonl")
    series = {
        "training": [(row["step"], row["loss"]) for row in history if "loss" in row],
        "validation": [(row["step"], row["eval_loss"]) for row in history if "eval_loss" in row],
    }
    if not any(series.values()):
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    styles: list[dict[str, Any]] = [{"color": "#3b6fb6", "lw": 1.4}, {"color": "#c9502c", "marker": "o"}]
    for (name, points), style in zip(series.items(), styles):
        if points:
            axes.plot(*zip(*points), label=name, **style)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("cross-entropy of the SQL tokens (nats)")
    axes.set_title(_title(run), fontsize=10)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    path = run / "plots" / "loss.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path)
    return path


def _title(run: Path) -> str:
    stamp = json.loads((run / "run.json").read_text(encoding="utf-8"))
    model = stamp["fingerprint"]["model"].rpartition("/")[2]
    return f"{model}, phase {stamp['phase']}, {stamp['data']['name']}"
