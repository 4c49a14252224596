"""Send what a run has left to upload: `text2sql sync RUN`, and the process that does it beside a training."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from text2sql import hub, runs, tracking, uploads
from text2sql.uploads import Upload

LEFT, BUSY = 3, 4
"""Exit codes: something is left; another process is at it. Python itself ends with 1 and 2, on an error of ours."""


@dataclass
class Synced:
    """What became of a run's uploads; `left` is why, of each."""

    sent: list[Upload] = field(default_factory=list)
    gone: list[Upload] = field(default_factory=list)
    left: dict[Upload, str] = field(default_factory=dict)


def sync(run: Path, kinds: tuple[str, ...] = (uploads.HUB, uploads.WANDB)) -> Synced:
    """Send what is pending, in order. ValueError if `run` is no run's folder or another process is at it.

    A server that fails once is not asked again: what is for it is left.
    """
    record = runs.read(run)
    if record is None:
        raise ValueError(f"{run} holds no run; name its folder, such as outputs/RUN")
    result = Synced()
    if not (run / uploads.FILE).exists():
        return result
    with uploads.alone(run) as is_alone:
        if not is_alone:
            raise ValueError(f"another process is uploading what is in {run}; wait for its end")
        failed: dict[str, str] = {}
        tried: set[int] = set()
        while (upload := _next(run, kinds, tried)) is not None:
            tried.add(upload.number)
            uploads.mark_begun(run, upload)  # before it is looked for, so that nobody deletes it in between
            if upload.folder and not (run / upload.folder).is_dir():
                uploads.mark_gone(run, upload)
                result.gone.append(upload)
            elif why := failed.get(upload.to) or _send(run, upload, runs.is_at_work(record)):
                failed[upload.to] = result.left[upload] = why
                uploads.mark_missed(run, upload, why)
            else:
                uploads.mark_sent(run, upload)
                result.sent.append(upload)
    return result


def _next(run: Path, kinds: tuple[str, ...], tried: Collection[int]) -> Upload | None:
    """The first upload whose number is not among those tried; a training may have added some meanwhile."""
    return next((one for one in uploads.pending(run) if one.to in kinds and one.number not in tried), None)


def _send(run: Path, upload: Upload, is_at_work: bool) -> str:
    """ "" when it is sent, or why it is not."""
    if upload.to == uploads.WANDB:
        return "the run is still writing it" if is_at_work else tracking.upload(run / upload.folder)
    folder = run / upload.folder if upload.folder else None
    return hub.upload(folder, upload.repo_id, upload.path, upload.message, upload.leave_out, upload.private)


def main(arguments: list[str]) -> int:
    """Sync the run of the first argument, the kinds of the others; the exit code says whether something is left."""
    run, *kinds = arguments
    hub.be_impatient()
    try:
        return LEFT if sync(Path(run), tuple(kinds)).left else 0
    except ValueError:
        return BUSY


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
