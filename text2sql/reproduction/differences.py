"""Names what differs between a recorded run and its repetition here, each difference in one line with its cure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from text2sql import data, runs, seeds
from text2sql.config import Device
from text2sql.reproduction.plan import KEPT_HERE, Plan, flat

FILES_SHOWN = 5
HUB_PATHS = ("wheel", "tiny")


@dataclass(frozen=True)
class Difference:
    """`blocks` says that the run cannot be repeated with it, `loosens` that the same numbers to the digit are not expected."""

    about: str
    text: str
    blocks: bool = False
    loosens: bool = False

    def __str__(self) -> str:
        return f"{self.about}: {self.text}"


def differences(plan: Plan) -> list[Difference]:
    """Everything that matters to the run's numbers and is not as run.json and the saved config have it.

    Loads the data and, for a training, the tokenizer. What a run did not record is not compared: `not_recorded` names it.
    """
    parts = (_code, _seeds, _versions, _machine, _settings, _prompt, _adapter, _predictions, _data, _model)
    return [found for part in parts for found in part(plan)]


def not_recorded(plan: Plan) -> list[str]:
    """What the run says nothing of, and so cannot be compared."""
    is_training = plan.recorded.stamp["kind"] == "train"
    keys = ["commit", "versions", "cpu", "data"]
    keys += ["tokenizer_sha256", "prompt_sha256", "gpu", "processes"] if is_training else []
    keys += ["parent_sha256"] if is_training and plan.config.adapter is not None else []
    keys += ["adapter_sha256"] if not is_training and plan.config.adapter is not None else []
    return [key for key in keys if key not in plan.recorded.stamp]


def _code(plan: Plan) -> Iterator[Difference]:
    there, here = plan.recorded.stamp, runs.commit()
    if "commit" not in there:
        return
    if there["commit"] != here.get("commit"):
        yield Difference("commit", f"{there['commit'][:12]} in the run, {here.get('commit', 'no checkout')[:12]} here")
    state = [(one.get("dirty", False), one.get("changes_sha256")) for one in (there, here)]
    if state[0] != state[1] or (state[0][0] and state[0][1] is None):
        yield Difference("changes to the commit", f"{_changes(there)} in the run, {_changes(here)} here")


def _seeds(plan: Plan) -> Iterator[Difference]:
    """How streams of random numbers are derived from the seed; a greedy evaluation draws none."""
    there, is_training = plan.recorded.stamp, plan.recorded.stamp["kind"] == "train"
    draws = "order of examples, first weights and dropout are" if is_training else "sampled answers are"
    if there.get("seeds", seeds.FIRST_SCHEME) == seeds.SCHEME or not (is_training or plan.config.eval.votes > 1):
        return
    cure = f"git checkout {there['commit'][:12]}" if "commit" in there else "the version of the run"
    text = f"{draws} drawn from the seed in another way than in the run, so its numbers are others; {cure} repeats them"
    yield Difference("seeds", text, loosens=True)


def _changes(stamp: dict[str, Any]) -> str:
    if not stamp.get("dirty"):
        return "none"
    changed = stamp.get("changed")
    if changed is None:
        return "some, of files not recorded,"
    more = f" and {len(changed) - FILES_SHOWN} more" if len(changed) > FILES_SHOWN else ""
    return ", ".join(changed[:FILES_SHOWN]) + more


def _versions(plan: Plan) -> Iterator[Difference]:
    here = runs.versions()
    for name, version in plan.recorded.stamp.get("versions", {}).items():
        if here.get(name, "not installed") != version:
            text = f"{version} in the run, {here.get(name, 'not installed')} here; pip install {name}=={version}"
            yield Difference(name, text.partition("; pip")[0] if name == "python" else text, loosens=True)


def _machine(plan: Plan) -> Iterator[Difference]:
    there, here = plan.recorded.stamp, runs.processor()
    if plan.recorded.stamp["kind"] == "train":
        yield from _devices(plan)
    if there.get("gpu") or plan.config.predictions is not None or "cpu" not in there:
        return
    if there["cpu"] != here["cpu"]:
        yield Difference("cpu", f"{there['cpu']} in the run, {here['cpu']} here", loosens=True)
    if there["threads"] is None and there["cores"] != here["cores"]:
        text = f"{there['cores']} in the run, {here['cores']} here: sums are split in another way"
        yield Difference("cores", text, loosens=True)


def _devices(plan: Plan) -> Iterator[Difference]:
    """The GPUs and processes of a training, which alone records them."""
    there, hardware = plan.recorded.stamp, plan.config.hardware
    if there.get("processes", hardware.devices) != hardware.devices:
        text = f"{there['processes']} in the run, {hardware.devices} here: rows fall to other passes"
        yield Difference("processes", text, loosens=True)
    if there.get("gpu") is None and hardware.device is Device.cpu:
        return
    import torch

    number = torch.cuda.device_count()
    if hardware.device is Device.cuda and number < hardware.devices:
        cure = "hardware=cpu trains without" if number == 0 else f"hardware.devices={number} takes those that there are"
        yield Difference("GPUs", f"{hardware.devices} wanted, {number} here; {cure}", blocks=True, loosens=True)
        return
    name = torch.cuda.get_device_name() if hardware.device is Device.cuda else None
    if "gpu" in there and there["gpu"] != name:
        yield Difference("GPU", f"{there['gpu'] or 'none'} in the run, {name or 'none'} here", loosens=True)


def _settings(plan: Plan) -> Iterator[Difference]:
    """The settings that an override of the user changes; those that are only named anew for the run are none."""
    there, here = flat(plan.recorded.saved), flat(plan.cfg)
    for key in sorted(there.keys() | here.keys()):
        of_ours = key in KEPT_HERE or key in ("adapter", "hardware.devices", "model.revision")
        if there.get(key) == here.get(key) or (of_ours and key not in plan.asked):
            continue
        old = repr(there[key]) if key in there else "no such setting"
        new = repr(here[key]) if key in here else "none"
        yield Difference(key, f"{old} in the run, {new} here, as you asked", loosens=key.startswith("hardware."))


def _prompt(plan: Plan) -> Iterator[Difference]:
    there, here = plan.recorded.stamp.get("prompt_sha256"), asdict(plan.config.prompt)
    if there is None or there == runs.digest(here):
        return
    known = plan.recorded.stamp.get("fingerprint", {})
    names = [
        f"prompt.{key}" for key, value in here.items() if known.get(f"prompt.{key}") != getattr(value, "name", value)
    ]
    yield Difference("prompt", f"another hash than in the run; look at {', '.join(names) or 'the settings of prompt'}")


def _adapter(plan: Plan) -> Iterator[Difference]:
    """The adapter that a training continued or an evaluation scored."""
    name, is_training = plan.config.adapter, plan.recorded.stamp["kind"] == "train"
    if name is None:
        return
    if name == "auto":
        text = (
            "the run ended before it recorded which one it continued; the newest that fits is taken, or adapter=FOLDER"
        )
        yield Difference("adapter", text)
        return
    if not Path(name).is_dir():
        if name.count("/") != 1 or name.startswith((".", "/")):  # else it may be a hub id
            yield _absent("adapter", name, plan)
        return
    there = plan.recorded.stamp.get("parent_sha256" if is_training else "adapter_sha256")
    here = runs.adapter_sha256(Path(name))
    if there is not None and there != here:
        text = f"{name} holds other weights (sha256 {(here or 'none')[:12]}) than in the run ({there[:12]})"
        yield Difference("adapter", f"{text}; name those with adapter=FOLDER")


def _predictions(plan: Plan) -> Iterator[Difference]:
    name = plan.config.predictions
    if name is not None and not Path(name).is_file():
        yield _absent("predictions", name, plan)


def _absent(key: str, name: str, plan: Plan) -> Difference:
    folder = plan.recorded.folder
    found = similar(Path(name), folder)
    cure = f"text2sql reproduce {folder} {key}={found or 'PATH'}"
    return Difference(key, f"{name} is not here; name it: {cure}", blocks=True)


def similar(path: Path, folder: Path) -> Path | None:
    """What lies by the end of `path` in a folder around the run's: copied together, they still lie side by side."""
    parts = [part for part in path.parts if part not in ("/", "..", ".")]
    for start in range(len(parts) - min(2, len(parts)) + 1):
        for around in folder.parents:
            candidate = around.joinpath(*parts[start:])
            if candidate.exists():
                return candidate
    return None


def _data(plan: Plan) -> Iterator[Difference]:
    """The data as the script would load them now, against the hash that the run recorded."""
    config, there = plan.config, plan.recorded.stamp.get("data", {}).get("sha256")
    split = "train" if plan.recorded.stamp["kind"] == "train" else config.eval.split
    try:
        here = data.load(config.data, split, seed=config.seed).report.sha256
    except ValueError as error:
        found = similar(Path(config.data.path), plan.recorded.folder)
        cure = f"text2sql reproduce {plan.recorded.folder} data.path={found or 'PATH'}"
        yield Difference("data", f"{error}; name them: {cure}", blocks=True)
        return
    if there is not None and there != here:
        yield Difference(
            "data", f"other examples (sha256 {here[:12]}) than in the run ({there[:12]}); data.path=PATH names those"
        )


def _model(plan: Plan) -> Iterator[Difference]:
    """The tokenizer, the precision and the weights' revision of a training."""
    there, config = plan.recorded.stamp, plan.config
    if there["kind"] != "train":
        return
    from text2sql import model

    path = config.model.path
    if config.model.revision is None and path not in HUB_PATHS and not Path(path).exists():
        text = f"of {path}, none was pinned or recorded: the newest is taken, or model.revision=COMMIT"
        yield Difference("model revision", text)
    try:
        tokenizer = model.load_tokenizer(config.model)
    except ValueError as error:
        yield Difference("model", str(error), blocks=True)
        return
    here = runs.digest(tokenizer.backend_tokenizer.to_str())
    if there.get("tokenizer_sha256", here) != here:
        text = f"another one (sha256 {here[:12]}) than in the run ({there['tokenizer_sha256'][:12]})"
        yield Difference("tokenizer", text)
    if there.get("precision", precision := _precision(plan)) != precision:
        yield Difference("precision", f"{there['precision']} in the run, {precision} here", loosens=True)


def _precision(plan: Plan) -> str | None:
    from text2sql import model

    return model.precision(plan.config.hardware)
