"""What a run still has to upload: uploads.jsonl in its folder, to which rows are only ever appended."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from text2sql import credentials

FILE = "uploads.jsonl"
HUB, WANDB = "hub", "wandb"


@dataclass(frozen=True)
class Upload:
    """A folder of the run, relative to it, and where it is to go; "" is no folder: the repository is only to be there.

    A later upload to the same `place` takes the place of an earlier one.
    """

    to: str
    folder: str
    repo_id: str = ""
    path: str = ""
    message: str = ""
    leave_out: tuple[str, ...] = ()
    private: bool = True
    number: int = field(default=0, compare=False)
    why: str = field(default="", compare=False)

    @property
    def place(self) -> tuple[str, ...]:
        return (
            (self.to, self.folder) if self.to == WANDB else (self.to, self.repo_id, self.path, str(bool(self.folder)))
        )

    def __str__(self) -> str:
        if self.to == WANDB:
            return f"{self.folder} to W&B"
        return f"{self.folder} to {'/'.join(filter(None, (self.repo_id, self.path)))}" if self.folder else self.repo_id


def add(run: Path, uploads: Sequence[Upload]) -> None:
    """Write down what is to be uploaded."""
    first = sum("to" in row for row in _rows(run))
    kept = [item.name for item in fields(Upload) if item.name not in ("number", "why")]
    rows = [{"number": first + k, **{name: asdict(one)[name] for name in kept}} for k, one in enumerate(uploads)]
    _append(run, rows)


def mark_begun(run: Path, upload: Upload) -> None:
    """A process reads its folder from now on."""
    _append(run, [{"begun": upload.number}])


def mark_sent(run: Path, upload: Upload) -> None:
    _append(run, [{"sent": upload.number}])


def mark_gone(run: Path, upload: Upload) -> None:
    """Its folder has been deleted, so that nothing can be uploaded any more."""
    _append(run, [{"sent": upload.number, "gone": True}])


def mark_missed(run: Path, upload: Upload, why: str) -> None:
    _append(run, [{"missed": upload.number, "why": credentials.redact(why)}])


def pending(run: Path) -> list[Upload]:
    """What is left to upload, in the order in which it was written down, each with why it was missed the last time."""
    newest: dict[tuple[str, ...], Upload] = {}
    ended, why = set(), {}
    for row in _rows(run):
        if "to" in row:
            upload = _upload(row)
            newest.pop(upload.place, None)
            newest[upload.place] = upload
        elif "sent" in row:
            ended.add(row["sent"])
        elif "missed" in row:
            why[row["missed"]] = row["why"]
    left = [upload for upload in newest.values() if upload.number not in ended]
    return [Upload(**{**vars(upload), "why": why.get(upload.number, "")}) for upload in left]


def in_hand(run: Path) -> list[Upload]:
    """What a process that uploads may be reading: what it has begun, which may be pending no more, and what comes next."""
    rows = _rows(run)
    begun = [row["begun"] for row in rows if "begun" in row][-1:]
    return [_upload(row) for row in rows if "to" in row and row["number"] in begun] + pending(run)[:2]


@contextmanager
def alone(run: Path) -> Iterator[bool]:
    """Whether this process is the only one that uploads what the run has left, which it is then until the end."""
    with (run / FILE).open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _append(run: Path, rows: Sequence[dict[str, Any]]) -> None:
    """In one write, which other processes' do not fall into; a line that a killed process left half gets an end first."""
    path = run / FILE
    is_torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
    text = "\n" * is_torn + "".join(json.dumps(row) + "\n" for row in rows)
    with path.open("ab", buffering=0) as file:
        file.write(text.encode())


def _upload(row: dict[str, Any]) -> Upload:
    return Upload(**{**row, "leave_out": tuple(row["leave_out"])})


def _rows(run: Path) -> list[dict[str, Any]]:
    """The rows that are whole."""
    found = []
    for line in (run / FILE).read_text(encoding="utf-8").split("\n") if (run / FILE).exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in found if isinstance(row, dict)]
