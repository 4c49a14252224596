"""The differences between the oldest and the newest releases that this package runs on, each with the one that made it.

constraints/seed.txt and constraints/latest.txt are the two ends. Everything else is written once, for both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

SYNCED = "*.wandb.synced"
"""The mark that `wandb sync` leaves in a run's folder."""


@cache
def major(package: str) -> int:
    """The first number of the version of `package` that is installed."""
    return int(metadata.version(package).partition(".")[0])


def warmup(share: float) -> dict[str, Any]:
    """The setting that warms up over this share of the steps, from 0 to 1.

    transformers 5.0 takes a share as `warmup_steps` below 1, and then dropped `warmup_ratio`.
    """
    if major("transformers") < 5:
        return {"warmup_ratio": share}
    return {"warmup_steps": min(share, math.nextafter(1.0, 0.0))}  # 1.0 would be one step


def folder_of_models(name: str) -> str:
    """The folder in the cache of a model made here: each of two formats has its own.

    transformers 5.0 writes tokenizers that 4 cannot read: their class is `TokenizersBackend`.
    """
    return name if major("transformers") < 5 else f"{name}-transformers-5"


def hub_errors(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What a Hub that refuses or cannot be reached is reported by, and `more`, for an `except`.

    huggingface-hub 1.0 exchanged requests, whose errors are OSErrors, for httpx (2 has httpx2), whose errors are not.
    """
    from huggingface_hub.errors import HTTPError

    return (OSError, HTTPError, *more)


def is_hub_timeout(error: BaseException) -> bool:
    """Whether the Hub did not answer in time; the name of that error came with httpx, in huggingface-hub 1.0."""
    from huggingface_hub.errors import HTTPError

    client = import_module(HTTPError.__module__.partition(".")[0])
    return isinstance(error, client.Timeout if client.__name__ == "requests" else client.TimeoutException)


def limit_hub_requests(answer_s: float, pause_s: float) -> None:
    """Have every request of this process to the Hub connect in `answer_s`, and be silent for `pause_s` at most.

    huggingface-hub 1.0 takes a factory of httpx clients where it took one of requests' sessions.
    """
    if major("huggingface-hub") < 1:
        _limit_requests(answer_s, pause_s)
    else:
        _limit_httpx(answer_s, pause_s)


def _limit_requests(answer_s: float, pause_s: float) -> None:
    import requests
    from huggingface_hub import configure_http_backend

    class Adapter(requests.adapters.HTTPAdapter):
        def send(self, *some: Any, **more: Any) -> Any:
            return super().send(*some, **{**more, "timeout": more.get("timeout") or (answer_s, pause_s)})

    def session() -> requests.Session:
        made = requests.Session()
        for scheme in ("http://", "https://"):
            made.mount(scheme, Adapter())
        return made

    configure_http_backend(session)


def _limit_httpx(answer_s: float, pause_s: float) -> None:
    from huggingface_hub import set_client_factory

    upstreams = import_module("huggingface_hub.utils._http").default_client_factory  # no public name leads there

    def client() -> Any:
        made = upstreams()
        made.timeout = (answer_s, pause_s, pause_s, pause_s)  # to connect, read, write, and for a free connection
        return made

    set_client_factory(client)


def is_synced(folder: Path, said: Iterable[str]) -> bool:
    """Whether `wandb sync`, which ends with 0 either way, has sent the run in `folder`, where no mark was before.

    wandb 0.31 marks each run that it has sent, and may end before it says so. 0.24 marks each that came to its end, sent
    or not, and says all addresses: of one that was refused without the owner, unless the run itself names that.
    """
    addresses = [line.partition("Syncing: ")[2].partition("://")[2] for line in said if "Syncing: " in line]
    return not any("//" in one for one in addresses) if addresses else any(folder.glob(SYNCED))


def unpacked_gguf() -> dict[str, Any]:
    """How from_pretrained is told to give a GGUF file's weights as numbers.

    transformers 5, by 5.24, keeps them packed where it can, and saves no model that came from such a file without this.
    """
    import transformers

    if not hasattr(transformers, "GgufConfig"):
        return {}
    return {"quantization_config": transformers.GgufConfig(dequantize=True)}


def save_adapter(model: Any, values: dict[str, Any], folder: Path) -> None:
    """PEFT's files of an adapter with these `values`, by the names that parameters have in a model that is not sharded.

    PEFT 0.21 takes only values under names of live modules, which FSDP has renamed: of a sharded model it saves none.
    """
    # LoRA never changes embeddings, and save_embedding_layers=True or auto would ask the Hub
    model.save_pretrained(str(folder), state_dict=values, save_embedding_layers=False)
    if not values.keys() <= dict(model.named_parameters()).keys():
        from safetensors.torch import save_file

        tensors = {name.replace(".default.", "."): value.to("cpu").contiguous() for name, value in values.items()}
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def set_checkpointing(model: Any, on: bool) -> None:
    """Recompute activations in the backward pass, or no longer; transformers 5, by 5.24, has another name for it."""
    renamed = hasattr(model, "activation_checkpointing_enable")
    name = "activation_checkpointing" if renamed else "gradient_checkpointing"
    if on:
        getattr(model, f"{name}_enable")({"use_reentrant": False})
    else:
        getattr(model, f"{name}_disable")()


def checkpointing(on: bool) -> dict[str, Any]:
    """The trainer's settings for the same; the old names are deprecated, and transformers 6 will not have them."""
    from transformers import TrainingArguments

    renamed = any(field.name == "activation_checkpointing" for field in fields(TrainingArguments))
    name = "activation_checkpointing" if renamed else "gradient_checkpointing"
    return {name: on, f"{name}_kwargs": {"use_reentrant": False}}


class TrainerHooks:
    """What a trainer of ours says to the newest transformers and TRL that the oldest do not ask."""

    def _send_telemetry(self) -> None:
        """Nothing: TRL 1 reports each training to its makers, and nobody has asked this package to."""

    def count_whole_run(self) -> None:
        """Means and rates at the end are over all steps of a run that goes on: transformers 5 takes those since it did."""
        self._initial_global_step = 0
