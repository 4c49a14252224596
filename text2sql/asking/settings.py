"""The config that a question is answered with: that of the run whose adapter answers, on the machine at hand."""

from __future__ import annotations

import logging

import hydra

from text2sql import commandline, scoring
from text2sql.config import Config

log = logging.getLogger(__name__)

BASE_MODEL = "smollm2_135m"


def compose(adapter: str | None, overrides: list[str], votes: int, constrained: bool, repair: bool) -> Config:
    """The config of `evaluate.py adapter=ADAPTER` with `overrides`, answering as asked.

    A run that was trained on a GPU answers on the CPU where there is none. Hydra's and omegaconf's own errors for overrides
    that do not exist, ValueError for those that cannot work, or that options of their own are for.
    """
    named = {override.partition("=")[0].lstrip("+") for override in overrides}
    asked = {"eval.votes": votes, "eval.constrained": constrained, "eval.repair": repair}
    if twice := sorted(named & asked.keys()):
        raise ValueError(f"--set {twice[0]}: type --votes N, --no-constrained or --no-repair in its place")
    typed = [*overrides, *(f"{name}={str(value).lower()}" for name, value in asked.items())]
    if adapter is not None:
        typed.append(f"adapter='{adapter}'")
    elif "model" not in named:
        log.warning(
            "no --run and no --adapter: %s answers as it came, without any training on SQL; expect wrong answers",
            BASE_MODEL,
        )
        typed.append(f"model={BASE_MODEL}")
    if "hardware" not in named and not _has_gpu():
        typed.append("hardware=cpu")
    elif "hardware" not in named and adapter is None:
        typed.append("hardware=gpu")
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(commandline.CONF)):
        return scoring.settings(hydra.compose("evaluate", commandline.quote_phase(typed)), typed)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
