"""Generates the embedded data set: both data formats, from a seed, without a download; `data.path=mini` reads it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from text2sql import cache
from text2sql.data import mini_gretel, mini_spider

FORMAT = 1


def write(folder: Path, seed: int = 0) -> None:
    """Writes gretel/ and spider/ into `folder`, byte for byte the same for the same seed and SQLite version.

    Raises FileExistsError when `folder` already holds them.
    """
    mini_gretel.write(folder / "gretel", seed)
    mini_spider.write(folder / "spider", seed)


def path(seed: int = 0) -> Path:
    """The folder with the data, generated on first use in the user's cache.

    It lies in the package's cache folder. Its name changes with the generator, so that an old one is never read; several
    processes may call this at once.
    """
    folder = cache.folder() / f"mini-{FORMAT}-{_source_hash()}-{seed}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix="mini-draft-", dir=folder.parent))
    try:
        write(draft, seed)
        try:
            draft.rename(folder)
        except OSError:
            # Another process was first; rename never replaces a folder that holds files.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _source_hash() -> str:
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("mini*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]
