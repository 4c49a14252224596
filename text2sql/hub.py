"""The Hub: adapters by name (a local folder as it is, a hub id after its download), and uploads that do not wait for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from text2sql import credentials, upstream

ANSWER_S = 5.0
"""How long the Hub may take to say anything at all."""
PAUSE_S = 60.0
"""How long it may be silent in the middle of an upload; it adds up large files before it answers."""
LOGIN = "set HF_TOKEN to one that is valid, or run `hf auth login`"
REASONS = {
    401: f"it does not accept the token, or there is none (401); {LOGIN}",
    403: "the token may not write there (403); give it write access, or name a repository of yours by hub.hub_model_id",
    404: "it has no such repository for this token (404); name one of yours by hub.hub_model_id",
    429: "it had too many requests (429); wait some minutes",
}


def fetch_adapter(name: str) -> Path:
    """The local folder of the adapter `name`, a folder or a hub id. ValueError if it is neither."""
    folder = Path(name)
    if name and folder.is_dir():
        return folder
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise ValueError(
            f"adapter={name} is no folder; name a run's adapter folder, such as outputs/RUN/adapter, or a hub id"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.yaml", "*.jinja"]))
    except upstream.hub_errors(HFValidationError) as error:
        raise ValueError(
            f"adapter={name} is no folder here and could not be had from the Hub: {str(error).splitlines()[0]}"
        ) from error


def be_impatient() -> None:
    """From now on no request of this process waits for ever: 5 s for a connection, a minute for each part of an answer."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:
        upstream.limit_hub_requests(ANSWER_S, PAUSE_S)


def upload(
    folder: Path | None, repo_id: str, path: str, message: str, leave_out: tuple[str, ...], private: bool
) -> str:
    """Put a folder's files into a repository, which is made if it is not there; "" when they are, or why they are not."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi()
    try:
        try:
            api.model_info(repo_id, timeout=ANSWER_S)
        except RepositoryNotFoundError:
            api.create_repo(repo_id, private=private, exist_ok=True)
        if folder is not None:
            where: dict[str, Any] = {
                "repo_id": repo_id,
                "path_in_repo": path or None,
                "ignore_patterns": list(leave_out),
            }
            api.upload_folder(folder_path=folder, commit_message=message, **where)
    except upstream.hub_errors(ValueError, RuntimeError) as error:
        return _reason(error, api.endpoint)
    return ""


def _reason(error: BaseException, endpoint: str) -> str:
    """What the Hub said, and the cure, in one line without tokens."""
    link: BaseException | None = error
    while link is not None:
        status = getattr(getattr(link, "response", None), "status_code", None)
        if status is not None:
            return REASONS.get(status, f"it failed ({status}); wait some minutes")
        link = link.__cause__
    first = (str(error).splitlines() or [type(error).__name__])[0]
    said = "no answer in time" if upstream.is_hub_timeout(error) else first
    return credentials.redact(f"{endpoint} cannot be reached ({said[:200]})")
