"""A run brought back from the Hub into its folder: the last checkpoint that it pushed or, if it was published, all of it."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from text2sql import checkpoints, runs, upstream

log = logging.getLogger(__name__)

LAST, OF_RUN, STAMP, METRICS = "last-checkpoint", "run", "run.json", "metrics.json"


def fetch(repo_id: str, run: Path, revision: str | None = None) -> str:
    """Bring into the folder `run` what resume=true goes on from; returns what was done, in a sentence.

    A published run comes as a finished one; else the last checkpoint that was pushed comes, its manifest checked. What the
    folder holds already is left alone where it is as far or further. ValueError for a Hub that refuses, and for a
    checkpoint that is damaged or says nothing of its run.
    """
    if (runs.read(run) or {}).get("status") == "finished":
        return f"{run} holds a finished run, which is left as it is"
    files = _files(repo_id, revision)
    with tempfile.TemporaryDirectory(dir=_parent_of(run), prefix=f".{run.name}.") as scratch:
        if STAMP in files:
            return _take_finished(repo_id, _download(repo_id, revision, Path(scratch), [], [f"{LAST}/*"]), run)
        if any(name.startswith(f"{LAST}/") for name in files):
            found = _download(repo_id, revision, Path(scratch), [f"{LAST}/*"], []) / LAST
            return _take_checkpoint(repo_id, found, run)
    return f"{repo_id} holds nothing to go on from yet"


def _parent_of(run: Path) -> Path:
    parent = run.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write {run}: {error.strerror}; name a folder that can be made") from None
    return parent


def _files(repo_id: str, revision: str | None) -> list[str]:
    """The paths in the repository; none where it does not exist yet, which only somebody with a token can know."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return HfApi().list_repo_files(repo_id, revision=revision)
    except RepositoryNotFoundError as error:
        if get_token() is None:
            raise ValueError(
                f"{repo_id} is not on the Hub, or is private and nobody is logged in here: set HF_TOKEN, or run "
                "`hf auth login`"
            ) from error
        return []
    except upstream.hub_errors(HFValidationError) as error:
        raise ValueError(f"{repo_id} could not be had from the Hub: {str(error).splitlines()[0]}") from error


def _download(repo_id: str, revision: str | None, folder: Path, allow: list[str], ignore: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(
            repo_id, revision=revision, local_dir=folder, allow_patterns=allow or None, ignore_patterns=ignore or None
        )
    except upstream.hub_errors() as error:
        raise ValueError(f"{repo_id} could not be had from the Hub: {str(error).splitlines()[0]}") from error
    return folder


def _take_finished(repo_id: str, found: Path, run: Path) -> str:
    stamp = runs.read(found) or {}
    if stamp.get("status") != "finished" or stamp.get("adapter_sha256") != runs.adapter_sha256(found):
        raise ValueError(f"{repo_id} holds another adapter than its {STAMP} names; publish the run again")
    _refuse_other(run)
    shutil.rmtree(run / "adapter", ignore_errors=True)
    run.mkdir(parents=True, exist_ok=True)
    shutil.move(found / METRICS, run / METRICS)
    (found / STAMP).unlink()
    shutil.rmtree(found / ".cache", ignore_errors=True)
    shutil.copytree(found, run / "adapter")
    runs.write_json(run / STAMP, stamp)
    return f"{run} holds the finished run of {repo_id}"


def _take_checkpoint(repo_id: str, found: Path, run: Path) -> str:
    if wrong := checkpoints.damage(found):
        raise ValueError(f"{repo_id}: its {LAST} is damaged and was not taken: {wrong}; nothing in {run} was changed")
    stamp = runs.read(found / OF_RUN)
    if not stamp:
        raise ValueError(f"{repo_id}: its {LAST} does not say of which run it is; it was pushed by an older text2sql")
    step = _step(found)
    _refuse_other(run)
    folder = run / "checkpoints" / f"checkpoint-{step}"
    here = checkpoints.newest_whole(run / "checkpoints") if (run / "checkpoints").is_dir() else None
    if runs.read(run) and here is not None and checkpoints.step_of(here) >= step:
        return f"{run} has checkpoint {checkpoints.step_of(here)}, and {repo_id} has {step}: nothing was fetched"
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)  # damaged, or there without its run
    shutil.move(found, folder)
    for path in (folder / OF_RUN).iterdir():
        if path.name != STAMP:
            shutil.copyfile(path, run / path.name)
    runs.write_json(run / STAMP, {**stamp, "status": "interrupted", "fetched_from": repo_id})
    return f"{run} has checkpoint {step} of {repo_id}, whole; resume=true goes on from it"


def _refuse_other(run: Path) -> None:
    stamp = runs.read(run)
    if stamp is not None and (stamp.get("kind", "train") != "train" or runs.is_at_work(stamp)):
        raise ValueError(f"{run} holds an evaluation, or a training that is at work; name another folder")


def _step(checkpoint: Path) -> int:
    state: dict[str, Any] = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return int(state["global_step"])
