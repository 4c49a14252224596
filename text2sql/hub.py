"""Adapters by name: a local folder as it is, a hub id after its download."""

from __future__ import annotations

from pathlib import Path


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
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.yaml", "*.jinja"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"adapter={name} is no folder here and could not be had from the Hub: {str(error).splitlines()[0]}"
        ) from error
