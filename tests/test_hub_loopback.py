"""Checks that the real client libraries can load from and push to the loopback Hub of fake_hub.py."""

import json
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_hub import FakeHub

from text2sql import upstream

ROWS = {
    "train": [("How many singers are there?", "CREATE TABLE singer (id INT);", "SELECT COUNT(*) FROM singer")] * 5,
    "test": [("List the cities.", "CREATE TABLE city (name TEXT);", "SELECT name FROM city")] * 2,
}

LOAD_DATASETS = """
import json
from datasets import load_dataset

parquet, lines = load_dataset("gretel/sql"), load_dataset("tester/lines", split="train")
sizes = {split: part.num_rows for split, part in parquet.items()}
print(json.dumps({"sizes": sizes, "columns": parquet["train"].column_names, "test": parquet["test"][0]["sql"],
                  "lines": lines["sql"][:]}))
"""

DOWNLOAD = """
import sys
from huggingface_hub import HfApi, snapshot_download

print(snapshot_download("tester/tiny"))
print(snapshot_download("tester/tiny", revision=sys.argv[1]))
print(HfApi().whoami()["name"])
"""

UPLOAD = """
import sys
from huggingface_hub import HfApi

api = HfApi()
for _ in range(2):
    url = api.create_repo("tester/pushed", private=True, exist_ok=True)
    done = api.upload_folder(repo_id=url.repo_id, folder_path=sys.argv[1], commit_message="End of training")
    print(done.oid)
api.delete_file("old.txt", url.repo_id)
"""

REFUSED = """
import json
import os
from huggingface_hub import HfApi, hf_hub_download, snapshot_download

def outcome(call, *arguments, **options):
    try:
        call(*arguments, **options)
        return "fine"
    except Exception as error:
        return [type(error).__name__, error.response.status_code]

print(json.dumps({
    "private": outcome(snapshot_download, "tester/secret"),
    "with token": outcome(snapshot_download, "tester/secret", token=os.environ["GIVEN"]),
    "wrong token": outcome(HfApi().model_info, "tester/tiny", token="wrong"),
    "no repo": outcome(HfApi().model_info, "tester/absent"),
    "no file": outcome(hf_hub_download, "tester/tiny", "absent.json"),
    "no revision": outcome(hf_hub_download, "tester/tiny", "config.json", revision="v9"),
    "write": outcome(HfApi().create_repo, "tester/new"),
}))
"""


@pytest.fixture
def hub(tmp_path):
    """A running loopback Hub with nothing in it."""
    with FakeHub(tmp_path / "hub") as running:
        yield running


def write_files(folder, files):
    """Write {relative path: bytes} below a folder."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def read_files(folder):
    """Read {relative path: bytes} of everything below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def model_files():
    """A model repository in little: two text files, one of them in a folder, and a valid safetensors file."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [256], "data_offsets": [0, 256]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + bytes(range(256))
    config = b'{"model_type": "gpt2"}'
    return {"config.json": config, "templates/a b.jinja": "{{ prüfen }}".encode(), "model.safetensors": weights}


def output_of(finished):
    """Lines printed by a client process, which must have succeeded."""
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.splitlines()


def test_dataset_repositories_load_with_their_splits(hub):
    folder = hub.folder("datasets", "gretel/sql")
    folder.mkdir(parents=True)
    for split, rows in ROWS.items():
        columns = dict(zip(("sql_prompt", "sql_context", "sql"), map(list, zip(*rows))))
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
    write_files(
        hub.folder("datasets", "tester/lines"),
        {
            "README.md": b"---\nlicense: mit\n---\n# Lines\n",
            "data/train.jsonl": b'{"sql": "SELECT 1"}\n{"sql": "SELECT 2"}\n',
        },
    )
    loaded = json.loads(output_of(hub.run("-c", LOAD_DATASETS))[-1])
    assert loaded["sizes"] == {"train": 5, "test": 2}
    assert loaded["columns"] == ["sql_prompt", "sql_context", "sql"]
    assert loaded["test"] == "SELECT name FROM city"
    assert loaded["lines"] == ["SELECT 1", "SELECT 2"]
    assert any(request.path.endswith("/train.parquet") and request.has_token for request in hub.requests)


def test_a_model_repository_downloads_as_the_same_files(hub):
    write_files(hub.folder("models", "tester/tiny"), model_files())
    hub.accept_revision("models", "tester/tiny", "0" * 40)
    by_branch, by_revision, name = output_of(hub.run("-c", DOWNLOAD, "0" * 40))
    assert read_files(Path(by_branch)) == read_files(Path(by_revision)) == model_files()
    assert Path(by_branch).name == hub.revision("models", "tester/tiny")
    assert name == "tester"


def test_an_uploaded_folder_ends_as_the_same_bytes_in_the_repository(hub, tmp_path):
    write_files(
        tmp_path / "run", {**model_files(), "README.md": b"# Pushed\n", "old.txt": b"delete me", "empty.txt": b""}
    )
    first, second = output_of(hub.run("-c", UPLOAD, tmp_path / "run"))
    assert first == second, "a second push of the same files makes no commit"
    kept = {**model_files(), "README.md": b"# Pushed\n", "empty.txt": b""}
    assert read_files(hub.folder("models", "tester/pushed")) == kept
    assert hub.is_private("models", "tester/pushed")
    assert [commit.summary for commit in hub.commits][:1] == ["End of training"]
    assert hub.commits[1].paths == ("old.txt",)
    puts = [request for request in hub.requests if request.method == "PUT"]
    assert len(puts) == 1 and not puts[0].has_token, "only the weights go through large-file storage, without the token"


def test_a_refusal_raises_the_exception_of_the_library(hub):
    write_files(hub.folder("models", "tester/secret"), model_files())
    write_files(hub.folder("models", "tester/tiny"), model_files())
    hub.make_private("models", "tester/secret")
    outcomes = json.loads(output_of(hub.run("-c", REFUSED, token=False, env={"GIVEN": hub.token}))[-1])
    assert outcomes == {
        "private": ["RepositoryNotFoundError", 401],
        "with token": "fine",
        "wrong token": ["HfHubHTTPError", 401],
        "no repo": ["RepositoryNotFoundError", 401],
        "no file": ["EntryNotFoundError" if upstream.major("huggingface-hub") < 1 else "RemoteEntryNotFoundError", 404],
        "no revision": ["RevisionNotFoundError", 404],
        "write": ["HfHubHTTPError", 401],
    }
    assert hub.token not in repr(hub.requests)
