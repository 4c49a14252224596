"""What the page may open: the runs below the folders that it was started with, and the databases that were named.

A browser names a database by its name in a list, and a folder by the number of its root and the path below that. What leads
out of a root, by `..`, an absolute path or a link, is not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from text2sql.data import snapshot
from text2sql.data.sqlite import database_files

DEFAULT_FOLDERS = (Path("outputs"), Path("multirun"))


@dataclass(frozen=True)
class Places:
    """The folders whose runs are shown and the databases that can be asked, these by the name that the page gives them."""

    roots: tuple[Path, ...]
    databases: Mapping[str, Path]

    def key(self, folder: Path) -> str:
        """What a browser calls a folder that is a root or lies below one."""
        for number, root in enumerate(self.roots):
            if folder.is_relative_to(root):
                below = folder.relative_to(root).as_posix()
                return str(number) if below == "." else f"{number}/{below}"
        raise KeyError(folder)

    def folder(self, key: str) -> Path:
        """The folder of a key. KeyError for one that is not there or lies outside of the roots."""
        number, _, below = key.partition("/")
        if not number.isdecimal() or int(number) >= len(self.roots) or "\0" in below:
            raise KeyError(key)
        root = self.roots[int(number)]
        folder = root / below
        if not folder.resolve().is_relative_to(root.resolve()) or not folder.is_dir():
            raise KeyError(key)
        return folder

    def run(self, key: str) -> Path:
        """The folder of a key, which must be a run's. KeyError for anything else."""
        folder = self.folder(key)
        if not (folder / "run.json").is_file():
            raise KeyError(key)
        return folder


def find(folders: Sequence[Path], databases: Sequence[Path], runs: Sequence[Path]) -> Places:
    """The places that a command line names; without folders and runs, those of DEFAULT_FOLDERS that are there.

    ValueError for a folder or a database that is none, and where there is nothing to show at all.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder; name that of a sweep (multirun/DIR), of a run, or of several")
    roots = folders or [folder for folder in DEFAULT_FOLDERS if folder.is_dir()]
    named = _named(databases)
    if not (roots or runs or named):
        raise ValueError(
            "there is nothing to show: name a folder with runs (outputs and multirun are not here), a run with --run, "
            "or a database with --database"
        )
    return Places(_outermost([*roots, *runs]), named)


def _outermost(folders: Iterable[Path]) -> tuple[Path, ...]:
    """The folders, in their order, without those that lie in one before them."""
    found: list[Path] = []
    for folder in folders:
        if not any(folder.resolve().is_relative_to(one.resolve()) for one in found):
            found.append(folder)
    return tuple(found)


def _named(paths: Iterable[Path]) -> dict[str, Path]:
    """The databases by the names of their files, and by their paths where two have one name."""
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            snapshot.check(path, "--database")
        files += database_files(path, "--database").values()
    stems = Counter(file.stem for file in files)
    return {file.stem if stems[file.stem] == 1 else str(file): file for file in files}
