"""Checkpoint folders that are whole or not there: written aside, synced, renamed, and checked against their own manifest.

Knows nothing of what is in them. It cannot notice a disk that lies about having written, nor a file changed together with its
line in the manifest.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
GB = 1e9
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NAME = re.compile(r"checkpoint-(\d+)")
PARTIAL, REPLACED = ".partial", ".replaced"


def write(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make the checkpoint `folder` of what `fill` writes into the folder it is given; one of that name is replaced.

    Killed at any point, it leaves a whole checkpoint or none. RuntimeError, naming the cure, if the disk is full.
    """
    aside = folder.with_name(f".{folder.name}{PARTIAL}")
    replaced = folder.with_name(f".{folder.name}{REPLACED}")
    for rest in (aside, replaced):
        shutil.rmtree(rest, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        fill(aside)
        _seal(aside)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if getattr(error, "errno", None) in NO_SPACE or "No space left" in str(error):
            raise RuntimeError(
                f"no space is left for {folder}: {error}; the checkpoints before it are kept. Free some, or lower "
                "trainer.save_total_limit, and go on with resume=true in the same folder"
            ) from error
        raise
    if folder.exists():
        folder.rename(replaced)
    aside.rename(folder)
    sync(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _seal(folder: Path) -> None:
    """Sync every file and write the manifest of their sizes and checksums, last."""
    files = {}
    for path in sorted(folder.rglob("*")):
        sync(path)
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": _sha256(path)}
    text = json.dumps({"files": files}, indent=2, sort_keys=True)
    manifest = folder / MANIFEST
    manifest.write_text(
        json.dumps({"files": files, "sha256": hashlib.sha256(text.encode()).hexdigest()}, indent=2, sort_keys=True),
        encoding="utf-8",
    )
    sync(manifest)
    sync(folder)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None if every file has the size and checksum it was written with."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files, sealed = manifest["files"], manifest["sha256"]
        text = json.dumps({"files": files}, indent=2, sort_keys=True)
        if hashlib.sha256(text.encode()).hexdigest() != sealed:
            return f"{MANIFEST} is not what was written"
        for name, expected in files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != expected["size"]:
                return f"{name} has {path.stat().st_size} bytes in place of {expected['size']}"
            if _sha256(path) != expected["sha256"]:
                return f"{name} is not what was written (its sha256 differs)"
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"it cannot be read ({error})"
    return None


def step_of(folder: Path) -> int:
    """The optimizer step that a checkpoint's name gives."""
    named = NAME.fullmatch(folder.name)
    assert named is not None, folder
    return int(named[1])


def all_in(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, whole or not, the latest step first."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and NAME.fullmatch(path.name)]
    return sorted(found, key=step_of, reverse=True)


def newest_whole(folder: Path) -> Path | None:
    """The latest checkpoint in `folder` that is whole; each later one is named in the log with what is wrong with it."""
    for path in all_in(folder):
        wrong = damage(path)
        if wrong is None:
            return path
        log.warning("%s is damaged and passed over: %s", path, wrong)
    return None


def forget_older(folder: Path, keep: int, in_use: Collection[Path] = ()) -> None:
    """Delete all but the latest `keep` checkpoints in `folder`, once the latest of them is known to be whole.

    Those in `in_use` stay.
    """
    found = all_in(folder)
    if keep <= 0 or len(found) <= keep:
        return
    if wrong := damage(found[0]):
        log.error("%s is damaged, and so no older checkpoint is deleted: %s", found[0], wrong)
        return
    for path in found[keep:]:
        if path not in in_use:
            shutil.rmtree(path, ignore_errors=True)


def clear_away(folder: Path, after: int | None) -> None:
    """Delete what a killed run has left half done in `folder`, and the checkpoints of steps after `after` (None: all)."""
    for path in (*folder.glob(f".checkpoint-*{PARTIAL}"), *folder.glob(f".checkpoint-*{REPLACED}")):
        shutil.rmtree(path, ignore_errors=True)
    for path in all_in(folder):
        if after is None or step_of(path) > after:
            shutil.rmtree(path, ignore_errors=True)


def check_space(run: Path, num_bytes: int, keep: int, num_saves: int) -> None:
    """ValueError unless the disk of the folder `run` has room for `num_saves` checkpoints of `num_bytes`.

    Of them `keep` stay, or all where it is 0. One more is written before the oldest goes, and the adapter of the end is
    counted as another. Those that the run has already take no more.
    """
    where = next(path for path in (run, *run.absolute().parents) if path.exists())
    held = sum(path.stat().st_size for folder in all_in(run / "checkpoints") for path in folder.rglob("*"))
    free, wanted = shutil.disk_usage(where).free, num_bytes * ((keep or num_saves) + 2) - held
    if free < wanted:
        count = keep or f"0, which keeps {num_saves}"
        raise ValueError(
            f"{run} has {free / GB:.2f} GB free and the run's checkpoints take up to {wanted / GB:.2f} GB more "
            f"(trainer.save_total_limit={count} of {num_bytes / GB:.2f} GB each, one being written and the adapter); free "
            "some, keep fewer by trainer.save_total_limit, lower lora.r, or choose a folder on another disk with "
            "hydra.run.dir=DIR"
        )


def cut(path: Path, size: int) -> None:
    """Cut a file to the size that it had; one that is shorter by now has lost rows, which the log says."""
    if not path.exists():
        return
    if size == 0:
        path.unlink()
        return
    if path.stat().st_size < size:
        log.warning("%s is shorter than when the checkpoint was made; rows of it are lost", path)
        return
    os.truncate(path, size)
