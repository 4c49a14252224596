"""The state of a training as files without code in them: safetensors for tensors, JSON for everything else, never a pickle."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

ADAPTER, OPTIMIZER, STATE = "adapter_model.safetensors", "optimizer.safetensors", "state.json"


def write_json(path: Path, value: Any) -> None:
    """`value` as JSON. TypeError for what JSON would not give back."""
    path.write_text(json.dumps(value), encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def save_optimizer(optimizer: Any, folder: Path) -> dict[str, Any]:
    """Write the tensors of an optimizer's state, of whatever kind, into `folder`; returns the rest of it, for JSON."""
    found = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    rest: dict[str, dict[str, Any]] = {}
    for number, state in found["state"].items():
        rest[str(number)] = {}
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                # a copy: optimizers share a table among parameters, and safetensors takes no tensor twice
                tensors[f"{number}/{name}"] = value.detach().to("cpu", copy=True).contiguous()
            else:
                rest[str(number)][name] = value
    save_file(tensors, folder / OPTIMIZER)
    return {"state": rest, "param_groups": found["param_groups"]}


def load_optimizer(optimizer: Any, folder: Path, rest: dict[str, Any]) -> None:
    """Give `optimizer` the state that `save_optimizer` wrote, `rest` being what it returned."""
    state: dict[int, dict[str, Any]] = {int(number): dict(values) for number, values in rest["state"].items()}
    for key, tensor in load_file(folder / OPTIMIZER).items():
        number, _, name = key.partition("/")
        state[int(number)][name] = tensor
    groups = [
        {key: tuple(value) if isinstance(live.get(key), tuple) else value for key, value in saved.items()}
        for live, saved in zip(optimizer.param_groups, rest["param_groups"])
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def saved_name(name: str) -> str:
    """The name that PEFT saves a parameter of its one adapter under."""
    return name.replace(".default.", ".")


def load_adapter(parameters: dict[str, torch.Tensor], folder: Path) -> None:
    """Copy an adapter's values into `parameters`, by name, where they are."""
    values = load_file(folder / ADAPTER)
    assert values.keys() == {saved_name(name) for name in parameters}, "the checkpoint has other parameters"
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[saved_name(name)])


def random_state() -> dict[str, Any]:
    """Where this process's random numbers are, for JSON: Python's, NumPy's, PyTorch's, and the current GPU's."""
    kind, keys, *place = np.random.get_state(legacy=True)
    version, numbers, gauss = random.getstate()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), *place],
        "torch": _hex(torch.get_rng_state()),
        "cuda": _hex(torch.cuda.get_rng_state()) if torch.cuda.is_available() and torch.cuda.is_initialized() else None,
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Go on with the random numbers from where `random_state` was."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *place = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *place))
    torch.set_rng_state(_tensor(state["torch"]))
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(_tensor(state["cuda"]))


def _hex(tensor: torch.Tensor) -> str:
    return tensor.numpy().tobytes().hex()


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
