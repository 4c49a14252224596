"""A copy of somebody's SQLite file in the cache folder: what is read, queried and indexed is the copy, never the file.

The file is opened by no SQLite and written by nobody: it and the log beside it (`-wal` or `-journal`) are copied as bytes,
and the copy is brought up to date from that log. So a database in WAL mode, or one that another process has locked, is read as
of its last commit, and nothing appears beside it. What this does NOT protect from: a file that is written to without a pause
is not copied, and says so.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path

from text2sql import cache
from text2sql.sql.database import check_file, sha256

HEADER = b"SQLite format 3\0"
TRIES = 5


def take(path: str | Path, setting: str) -> str:
    """The path of an up-to-date copy of the SQLite file `path`, whose name and content it has.

    `setting` names in errors what the user has to change. ValueError where there is no such file, it is no database or a
    damaged one, or it changes faster than it can be read.
    """
    file = Path(path).expanduser()
    check(file, setting)
    folder = cache.folder() / "databases" / hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]
    target = folder / f"{file.stem}.sqlite"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder))
    except OSError as error:
        raise ValueError(
            f"no copy of {file} can be written ({error}): set TEXT2SQL_CACHE to a writable folder"
        ) from error
    try:
        copy = _settled(_copied(file, draft, setting), file, setting)
        if not target.exists() or sha256(str(target)) != sha256(str(copy)):
            os.replace(copy, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return str(target)


def check(file: Path, setting: str) -> None:
    """ValueError for what is no SQLite file, judged by its first bytes."""
    named = f"{setting}={file}"
    if not file.exists():
        raise ValueError(f"{named} does not exist: name a SQLite file")
    if not file.is_file():
        raise ValueError(f"{named} is no file: name a SQLite file")
    try:
        with file.open("rb") as opened:
            start = opened.read(len(HEADER))
    except OSError as error:
        raise ValueError(f"{named} cannot be read: {error.strerror}") from error
    if start != HEADER:
        what = "is empty" if not start else "is not a SQLite database"
        cure = "; `text2sql copy-database URL` reads PostgreSQL, MySQL and DuckDB" if start else ""
        raise ValueError(f"{named} {what}: name a SQLite 3 file{cure}")


def state(file: Path) -> list[tuple[str, int, int]]:
    """Name, bytes and time of change of the file and its log: another list as soon as something is written to them."""
    return [(part.name, (status := part.stat()).st_size, status.st_mtime_ns) for part in _parts(file)]


def _copied(file: Path, folder: Path, setting: str) -> Path:
    """The bytes of the file and its log, all of one moment."""
    for _ in range(TRIES):
        with suppress(FileNotFoundError):  # a log that has been written back and removed
            before = state(file)
            for part in _parts(file):
                shutil.copyfile(part, folder / part.name)
            if state(file) == before:
                return folder / file.name
        for left in folder.iterdir():
            left.unlink()
    raise ValueError(f"{setting}={file} keeps changing while it is read: try again when less is written to it")


def _parts(file: Path) -> list[Path]:
    beside = (file.with_name(file.name + suffix) for suffix in ("-wal", "-journal"))
    return [file, *(part for part in beside if part.is_file() and part.stat().st_size)]


def _settled(copy: Path, file: Path, setting: str) -> Path:
    """The copy as one file: what its log holds is in it."""
    try:
        copy.chmod(0o600)
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE").fetchall()
        check_file(str(copy))
    except (sqlite3.Error, ValueError) as error:
        reason = str(error).replace(str(copy), "it").split(":")[0]
        raise ValueError(
            f"{setting}={file} is damaged ({reason}): restore it, or dump and load it with sqlite3"
        ) from error
    return copy
