"""An adapter merged into the base model's weights, on which a fresh one then learns: what such an adapter keeps beside itself.

The folder of an adapter that learned on merged weights has a copy of what was merged, `merged/`, and is loaded on that only.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight

FOLDER = "merged"
KEPT = ("adapter_config.json", "adapter_model.safetensors", "config.yaml")
CARD = "\nThis adapter learned on a base model with the adapter in `merged/` merged into it. Merge that one first.\n"


def merge(base: Any, folder: Path) -> tuple[Any, float]:
    """`add` to `base` what the adapter in `folder` learned on, if that was merged weights, and then the adapter."""
    return add(with_merged(base, folder), folder)


def add(base: Any, folder: Path) -> tuple[Any, float]:
    """`base` with the adapter in `folder` added to its weights, and the share of that change that rounding took away again.

    Full-precision weights become W + BA * alpha / r, rounded to their own type. 4-bit weights are dequantised, added to and
    quantised again, as PEFT does: W lies on the grid of NF4, so that a change of less than half a step is rounded away whole.
    A share of 0 is an exact merge, and at 1 the merged network is as far from the adapted one as the base model is. The same
    merge gives the same bits, in training and in evaluation.
    """
    adapted = PeftModel.from_pretrained(base, str(folder))
    lost = changed = 0.0
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", message="Merge lora module to 4-bit")
        for layer in [module for module in adapted.modules() if isinstance(module, LoraLayer)]:
            before, change = _weight(layer), _change(layer)
            layer.merge()
            lost += (_weight(layer) - before - change).square().sum().item()
            changed += change.square().sum().item()
    merged = adapted.unload()
    if hasattr(merged, "peft_config"):
        del merged.peft_config  # PEFT leaves it, and then takes the next adapter for a second one
    for parameter in merged.parameters():
        parameter.requires_grad_(False)
    return merged, (lost / changed) ** 0.5 if changed else 0.0


def _change(layer: Any) -> torch.Tensor:
    change: torch.Tensor = layer.get_delta_weight("default")
    return change.detach().float()


def _weight(layer: Any) -> torch.Tensor:
    """A layer's weight in float32, dequantised where it is quantised."""
    weight: torch.Tensor = dequantize_module_weight(layer.get_base_layer())
    return weight.detach().float().clone()


def with_merged(base: Any, adapter: Path) -> Any:
    """`base` as the adapter in this folder learned on it."""
    return merge(base, adapter / FOLDER)[0] if (adapter / FOLDER).is_dir() else base


def keep(merged: Path, adapter: Path) -> None:
    """Copy what was merged into the adapter's folder, so that the folder can be copied anywhere, and say so in its card."""
    target = adapter / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (merged / name).is_file():
            shutil.copyfile(merged / name, target / name)
    if (merged / FOLDER).is_dir():
        keep(merged / FOLDER, target)
    card = adapter / "README.md"
    if card.is_file() and CARD not in card.read_text(encoding="utf-8"):
        card.write_text(card.read_text(encoding="utf-8") + CARD, encoding="utf-8")
