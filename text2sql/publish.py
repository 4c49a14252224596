"""Publishing a run's adapter: what goes to the Hub is gathered in a folder first, checked, and then pushed as one commit."""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from text2sql import card, credentials, hub, runs, upstream
from text2sql import config as configuration
from text2sql.card import Evaluation, Published
from text2sql.config import Config, Data
from text2sql.errors import first_line

log = logging.getLogger(__name__)

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
ABSOLUTE = re.compile(r"(?<![\w.$}/:~-])(?:~|[A-Za-z]:)?[/\\](?:[^\s'\",=\[\]{}()/\\]+[/\\])+([^\s'\",=\[\]{}()/\\]*)")
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "added_tokens.json",
)
MERGED = "merged"
STAMP, METRICS, CONFIG = "run.json", "metrics.json", "config.yaml"


@dataclass(frozen=True)
class Wish:
    """What is asked of a publication besides the run: where it goes, and what only the publisher knows."""

    repo_id: str
    licence: str | None = None
    datasets: list[str] = field(default_factory=list)
    evaluation: Path | None = None


def gather(run: Path, wish: Wish, folder: Path) -> list[Path]:
    """Write everything that is published of `run` into `folder`, which must be empty or absent; returns the files.

    ValueError for a run that is not finished or has no adapter, for an evaluation of another one, and for text that holds
    a token or a password; `folder` is then as it was.
    """
    if not REPO_ID.fullmatch(wish.repo_id):
        raise ValueError(f"{wish.repo_id} is no name on the Hub; write it as user/name")
    stamp = checked_stamp(run)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not an empty folder; name another, nothing in it was touched")
    config = configuration.load(configuration.read_yaml(str(run / "adapter" / CONFIG)))
    published = _read(run, stamp, config, wish)
    parent = folder.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{folder.name}.") as scratch:
        aside = Path(scratch) / "published"
        _copy_adapter(run / "adapter", aside)
        runs.write_json(aside / STAMP, _shown(stamp))
        found = {**published.metrics, **(published.evaluation.metrics if published.evaluation else {})}
        runs.write_json(aside / METRICS, found)
        (aside / "README.md").write_text(card.text(published), encoding="utf-8")
        _check_secrets(aside)
        folder.mkdir(exist_ok=True)
        for path in aside.iterdir():
            path.rename(folder / path.name)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _shown(stamp: dict[str, Any]) -> dict[str, Any]:
    """What of a run's stamp is for others.

    A setting that names an absolute path is left out: cut to its last part it would be another setting, and the run that
    comes back from the Hub could not be gone on with.
    """
    kept = {key: value for key, value in stamp.items() if key not in ("process", "changed")}
    settings = {key: value for key, value in stamp.get("settings", {}).items() if _without_paths(value) == value}
    return {**_without_paths(kept), **({"settings": settings} if "settings" in stamp else {})}


def checked_stamp(run: Path) -> dict[str, Any]:
    """The run.json of a finished training with its adapter; ValueError, naming the cure, for anything else."""
    stamp = runs.read(run)
    if stamp is None:
        raise ValueError(f"{run} is no run: it has no {STAMP}; name a run's folder, such as outputs/RUN")
    if stamp.get("kind") == "evaluate":
        raise ValueError(
            f"{run} is an evaluation; name the training's folder, and this one with --evaluation {run} to publish its figures"
        )
    if (status := stamp.get("status")) != "finished":
        raise ValueError(
            f"{run} is not finished (its status is {status}); go on with it by resume=true hydra.run.dir={run} first"
        )
    if missing := [name for name in (*ADAPTER, CONFIG) if not (run / "adapter" / name).is_file()]:
        raise ValueError(f"{run} has no adapter to publish: {', '.join(missing)} is missing in {run / 'adapter'}")
    if stamp.get("adapter_sha256") not in (None, runs.adapter_sha256(run / "adapter")):
        raise ValueError(
            f"{run / 'adapter'} is not the adapter that the run ended with (its sha256 differs from {STAMP})"
        )
    return stamp


def _read(run: Path, stamp: dict[str, Any], config: Config, wish: Wish) -> Published:
    metrics = json.loads((run / METRICS).read_text(encoding="utf-8")) if (run / METRICS).is_file() else {}
    learned_on, gap = _lineage(run, stamp, config)
    command = _without_path(str(stamp.get("command", "")))
    return Published(
        repo_id=wish.repo_id,
        config=config,
        stamp={**stamp, "command": command},
        metrics={key: value for key, value in metrics.items() if not key.startswith("eval/")},
        prompt=card.rendered_prompt(run / "adapter", config),
        learned_on=learned_on,
        levels_below=_levels(run / "adapter"),
        lineage_gap=gap,
        evaluation=_evaluation(run, wish.evaluation),
        licence=wish.licence,
        named_datasets=wish.datasets,
    )


def _levels(adapter: Path) -> int:
    """How many adapters were merged into the base model, one into the other's, before this one learned."""
    return 1 + _levels(adapter / MERGED) if (adapter / MERGED).is_dir() else 0


def _lineage(run: Path, stamp: dict[str, Any], config: Config) -> tuple[list[tuple[str, Data]], str]:
    """The data of this run and of those that it continues, the first one first; and a sentence if one of them is not here."""
    phases = [(f"phase {config.phase.number}", config.data)]
    while parent := stamp.get("parent") or stamp.get("merged_parent"):
        adapter = Path(parent)
        if not (adapter / CONFIG).is_file():
            return phases, "It continues an earlier adapter, whose data are not known where it was published."
        data = configuration.saved_data(str(adapter / CONFIG))
        number = configuration.read_yaml(str(adapter / CONFIG)).get("phase", {}).get("number", "?")
        phases.insert(0, (f"phase {number}", data))
        stamp = runs.read(adapter.parent) or {}
    return phases, ""


def _evaluation(run: Path, named: Path | None) -> Evaluation | None:
    """The evaluation in the folder `named`, else the one that followed the training, if it is whole and of this adapter."""
    folder = named or run / "evaluation"
    stamp = runs.read(folder)
    if stamp is None and named is None:
        return None
    if stamp is None or stamp.get("kind") != "evaluate" or stamp.get("status") != "finished":
        if named is None:
            log.warning("%s is not finished, so its figures are not published", folder)
            return None
        raise ValueError(
            f"{folder} is no finished evaluation; make one with python evaluate.py adapter={run / 'adapter'}"
        )
    if stamp.get("adapter_sha256") != runs.adapter_sha256(run / "adapter"):
        raise ValueError(f"{folder} judged another adapter than {run / 'adapter'}; name an evaluation of that one")
    saved = _saved_evaluation(folder, run)
    data = {"name": stamp["data"]["name"], "path": stamp["data"]["path"], "hub_id": ""}
    return Evaluation(
        metrics=json.loads((folder / METRICS).read_text(encoding="utf-8")),
        data=Data(**data),
        settings=saved,
        command=_without_path(str(stamp.get("command", ""))),
    )


def _saved_evaluation(folder: Path, run: Path) -> dict[str, Any]:
    """The eval settings of an evaluation: its own, else those of the training that it followed."""
    for path in (folder / ".hydra/config.yaml", run / "adapter" / CONFIG):
        if path.is_file():
            return dict(configuration.read_yaml(str(path)).get("eval", {}))
    return {}


def _copy_adapter(adapter: Path, target: Path) -> None:
    """Adapter, tokenizer and config, and what was merged below it."""
    target.mkdir(parents=True, exist_ok=True)
    for name in (*ADAPTER, *TOKENIZER):
        if (adapter / name).is_file():
            shutil.copyfile(adapter / name, target / name)
    if (adapter / CONFIG).is_file():
        text = (adapter / CONFIG).read_text(encoding="utf-8")
        (target / CONFIG).write_text(_config_without_paths(text), encoding="utf-8")
    if (adapter / MERGED).is_dir():
        _copy_adapter(adapter / MERGED, target / MERGED)


def _config_without_paths(text: str) -> str:
    """The config with the model by its id on the Hub where it lay in a folder, and other absolute paths by their last part."""
    from omegaconf import OmegaConf

    saved: Any = OmegaConf.create(text)
    if Path(str(saved.model.get("path", ""))).is_absolute():
        saved.model.path = saved.model.hub_id
    plain = _without_paths(OmegaConf.to_container(saved, resolve=False))
    return OmegaConf.to_yaml(OmegaConf.create(plain))


def _without_paths(value: Any) -> Any:
    """The same JSON with the name alone in place of every absolute path: it would tell whose machine it was."""
    if isinstance(value, dict):
        return {key: _without_paths(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_paths(one) for one in value]
    return _without_path(value) if isinstance(value, str) else value


def _without_path(text: str) -> str:
    return ABSOLUTE.sub(lambda match: match[1], text)


def _check_secrets(folder: Path) -> None:
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".safetensors"):
        text = path.read_text(encoding="utf-8", errors="replace")
        if credentials.redact(text) != text:
            raise ValueError(
                f"{path.name} holds a token or a password, or what looks like one; take it out of the run's command, "
                "config or metrics first"
            )


def push(folder: Path, repo_id: str, *, private: bool, revision: str | None) -> str:
    """Upload `folder` as one commit, making the repository where there is none; returns the commit's address.

    ValueError, with the cure, if nobody is logged in, the token has no right, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo_id, folder_path=folder, revision=revision, commit_message="Publish adapter and card"
        )
    except (LocalTokenNotFoundError, HFValidationError) as error:
        raise ValueError(f"{repo_id}: {first_line(error)} (log in with `hf auth login`, or set HF_TOKEN)") from error
    except HfHubHTTPError as error:
        status: Any = error.response.status_code if error.response is not None else None
        why = hub.REASONS.get(status, f"it refused ({status}): {first_line(error)}")
        raise ValueError(f"{repo_id}: not pushed to the Hub, {why}") from error
    except upstream.hub_errors() as error:  # offline mode is one too
        raise ValueError(
            f"the Hub cannot be reached ({first_line(error)}); `--dry-run FOLDER` writes the same files without it"
        ) from error
    return str(done.commit_url)
