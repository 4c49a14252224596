"""Pushing checkpoints to a hub while training, and adapters that come from one, against the loopback hub."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import secrets
import shutil
import time
import zipfile
from pathlib import Path

import pytest
from fake_hub import FakeHub

from text2sql import model, publish, runs, training

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = "adapter_model.safetensors"
FETCH = "import sys; from text2sql import hub; print(hub.fetch_adapter(sys.argv[1]))"

PLANTED = {"WANDB_API_KEY": secrets.token_hex(20), "WANDB_SILENT": "true", "OMP_NUM_THREADS": "1"}
FAIL = """
import os, runpy, sys
from text2sql import commandline
from text2sql.trainer import TokenBudgetTrainer

def step(self, *some, **more):
    if self.state.global_step == 1:
        said = f"https://user:{os.environ['HF_TOKEN']}@hub/ with {os.environ['WANDB_API_KEY']}"
        raise RuntimeError(said + " and 'Authorization': 'Bearer " + os.environ["HF_TOKEN"] + "'")
    return training_step(self, *some, **more)

training_step, TokenBudgetTrainer.training_step = TokenBudgetTrainer.training_step, step
sys.argv[0] = str(commandline.CONF.parent / "train.py")
runpy.run_path(sys.argv[0], run_name="__main__")
"""

pytestmark = pytest.mark.slow


class SlowHub(FakeHub):
    """Answers the first push only when training has written `awaited` and had the time to push that too."""

    def __init__(self, root, awaited):
        super().__init__(root)
        self.awaited = awaited

    def commit(self, repo, operations):
        deadline = time.monotonic() + 60
        while not self.commits and not self.awaited.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0 if self.commits else 1)
        return super().commit(repo, operations)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory, small_overrides):
    """(hub, run folder) after a training run of two steps with hub=push, over a slow line."""
    folder = tmp_path_factory.mktemp("push")
    last = folder / "run/checkpoints/checkpoint-2/trainer_state.json"
    overrides = [*small_overrides, "trainer.max_steps=2", "eval.num_live_samples=0", "trainer.warmup_ratio=0"]
    push = ["hub=push", "hub.hub_model_id=tester/x", "tracking=offline", f"hydra.run.dir={folder / 'run'}"]
    with SlowHub(folder / "hub", awaited=last) as hub:
        done = hub.run(ROOT / "train.py", *overrides, *push, cwd=folder, env=PLANTED)
        assert done.returncode == 0, done.stderr
        yield hub, folder / "run"


@pytest.fixture(scope="module")
def failed(tmp_path_factory, small_overrides):
    """(hub, sweep's folder, what was printed): a job whose Hub takes no token and whose second step raises one."""
    folder = tmp_path_factory.mktemp("failed")
    overrides = [*small_overrides, "trainer.max_steps=2", "trainer.save_steps=1", "eval.num_live_samples=0"]
    push = ["hub=push", "hub.hub_model_id=tester/x", "tracking=offline", f"hydra.sweep.dir={folder / 'sweep'}"]
    with FakeHub(folder / "hub") as hub:
        hub.fault = 401
        done = hub.run("-c", FAIL, "-m", *overrides, *push, cwd=folder, env=PLANTED)
        assert done.returncode == 1, done.stderr
        yield hub, folder / "sweep", done.stdout + done.stderr


def files_with(secret, folder):
    """The files below a folder that hold a text, in archives too."""
    found = []
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        content = [path.read_bytes()]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content += [archive.read(name) for name in archive.namelist()]
        if content[0][:2] == b"\x1f\x8b":
            content.append(gzip.decompress(content[0]))
        if any(secret.encode() in part or base64.b64encode(secret.encode())[:-4] in part for part in content):
            found.append(path)
    return found


@pytest.fixture
def hub(tmp_path):
    with FakeHub(tmp_path / "hub") as running:
        yield running


def test_training_pushes_its_checkpoints_to_a_private_repository(pushed):
    hub, run = pushed
    assert hub.is_private("models", "tester/x")
    local = {path.read_bytes() for path in run.glob(f"checkpoints/*/{WEIGHTS}")}
    assert len(local) == 2
    assert (hub.folder("models", "tester/x") / WEIGHTS).read_bytes() in local
    assert (hub.folder("models", "tester/x") / "last-checkpoint" / WEIGHTS).read_bytes() in local
    assert hub.token not in (run / "run.json").read_text()


def test_the_hub_ends_with_the_adapter_that_training_ended_with(pushed):
    hub, run = pushed
    assert (hub.folder("models", "tester/x") / WEIGHTS).read_bytes() == (run / "adapter" / WEIGHTS).read_bytes()


def test_a_planted_token_is_in_no_file_of_a_finished_run(pushed):
    hub, run = pushed
    for secret in (hub.token, PLANTED["WANDB_API_KEY"]):
        assert files_with(secret, run) == []
        assert files_with(secret, hub.root) == []
    assert list(run.glob("wandb/offline-run-*/*.wandb")) and (run / "report.html").exists()


def test_a_planted_token_is_in_no_file_of_a_sweep_that_failed_with_it_in_a_trace(failed):
    hub, sweep, printed = failed
    for secret in (hub.token, PLANTED["WANDB_API_KEY"]):
        assert files_with(secret, sweep) == []
        assert secret not in printed
    assert "https://***@hub/ with *** and 'Authorization': 'Bearer ***'" in (sweep / "0/run.json").read_text()
    assert list(sweep.glob("0/wandb/offline-run-*/*.wandb"))
    assert "Bearer ***" in (sweep / "0/output.log").read_text()


def test_a_wrong_token_is_said_once_with_its_cure_and_what_was_missed_is_sent_later(failed):
    hub, sweep, _ = failed
    run = sweep / "0"
    assert (run / "train.log").read_text().count("does not accept the token, or there is none (401); set HF_TOKEN") == 1
    assert not hub.commits
    hub.fault = None
    sync = ["-c", "import sys; from text2sql import cli; sys.exit(cli.main())", "sync", run]
    done = hub.run(*sync, cwd=ROOT)
    assert (done.returncode, done.stdout.count("sent: ")) == (0, 3), done.stdout + done.stderr
    (weights,) = run.glob(f"checkpoints/checkpoint-1/{WEIGHTS}")
    assert (hub.folder("models", "tester/x") / "last-checkpoint" / WEIGHTS).read_bytes() == weights.read_bytes()


def test_what_was_pushed_can_be_continued_from_its_id(pushed, small):
    hub, _ = pushed
    fetched = hub.run("-c", FETCH, "tester/x", cwd=ROOT)
    assert fetched.returncode == 0, fetched.stderr
    folder = Path(fetched.stdout.strip())
    model.check_adapter(folder, small("phase=2"))
    assert not (folder / "last-checkpoint").exists()


def test_an_adapter_is_fetched_by_its_id_with_the_config_that_made_it(hub, curriculum, small):
    shutil.copytree(curriculum.one.adapter, hub.folder("models", "tester/phase-1"))
    fetched = hub.run("-c", FETCH, "tester/phase-1", cwd=ROOT)
    assert fetched.returncode == 0, fetched.stderr
    folder = Path(fetched.stdout.strip())
    for name in (WEIGHTS, "adapter_config.json", "config.yaml"):
        assert (folder / name).read_bytes() == (curriculum.one.adapter / name).read_bytes()
    model.check_adapter(folder, small("phase=2"))


REFUSE = """
import json, sys
from text2sql import hub
said = []
for name in sys.argv[1:]:
    try:
        hub.fetch_adapter(name)
    except ValueError as error:
        said.append([type(error).__name__, str(error)])
print(json.dumps(said))
"""


def test_an_id_that_is_not_there_is_a_users_mistake(hub):
    done = hub.run("-c", REFUSE, "tester/absent", "not a/valid id", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    absent, invalid = json.loads(done.stdout)
    for (kind, message), name in ((absent, "tester/absent"), (invalid, "not a/valid id")):
        assert kind == "ValueError"
        assert message.startswith(f"adapter={name} is no folder here and could not be had from the Hub: ")


def test_a_hub_that_is_not_there_is_a_users_mistake(hub):
    done = hub.run("-c", REFUSE, "tester/absent", cwd=ROOT, env={"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0][0] == "ValueError"


# A run that another machine goes on with

TAKE = """
import json, sys
from pathlib import Path
from text2sql import fetching
said = []
for repo_id, folder in json.loads(sys.argv[1]):
    try:
        said.append(fetching.fetch(repo_id, Path(folder)))
    except ValueError as error:
        said.append(f"refused: {error}")
print(json.dumps(said))
"""


def take(hub, pairs, token=True):
    """What is said of each (repository, folder) that is fetched, in their order."""
    asked = json.dumps([[repo_id, str(folder)] for repo_id, folder in pairs])
    done = hub.run("-c", TAKE, asked, cwd=ROOT, token=token)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def fetched(pushed, tmp_path_factory):
    """(folder, what was said) after fetching from the hub what was pushed, twice, and what cannot be had."""
    hub, run = pushed
    there, folder = hub.folder("models", "tester/x"), tmp_path_factory.mktemp("fetched")
    damaged = shutil.copytree(there, hub.folder("models", "tester/damaged")) / "last-checkpoint/optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    shutil.rmtree(shutil.copytree(there, hub.folder("models", "tester/old")) / "last-checkpoint/run")
    manifest = hub.folder("models", "tester/old") / "last-checkpoint/manifest.json"
    files = {k: v for k, v in json.loads(manifest.read_text())["files"].items() if not k.startswith("run/")}
    text = json.dumps({"files": files}, indent=2, sort_keys=True)
    manifest.write_text(json.dumps({"files": files, "sha256": hashlib.sha256(text.encode()).hexdigest()}))
    publish.gather(run, publish.Wish("tester/done"), hub.folder("models", "tester/done"))
    names = ["x", "x", "damaged", "old", "absent", "done", "done"]
    said = take(hub, [(f"tester/{name}", folder / name) for name in names])
    return folder, dict(zip(["x", "again", "damaged", "old", "absent", "done", "done again"], said))


def test_a_run_goes_on_elsewhere_from_its_last_pushed_checkpoint(pushed, fetched, small, monkeypatch):
    run, (folder, said) = pushed[1], fetched
    assert said["x"].endswith("of tester/x, whole; resume=true goes on from it")
    assert runs.read(folder / "x")["status"] == "interrupted"
    assert "nothing was fetched" in said["again"]
    asked = small("trainer.max_steps=2", "eval.num_live_samples=0", "trainer.warmup_ratio=0", "resume=true")
    training.train(asked, str(folder / "x"))
    assert (folder / "x/adapter" / WEIGHTS).read_bytes() == (run / "adapter" / WEIGHTS).read_bytes()
    steps = [row["step"] for row in runs.read_jsonl(folder / "x/history.jsonl") if "loss" in row]
    assert steps == [row["step"] for row in runs.read_jsonl(run / "history.jsonl") if "loss" in row]


def test_a_damaged_checkpoint_is_not_taken_and_nothing_is_left_of_it(fetched):
    folder, said = fetched
    assert (
        "refused: tester/damaged: its last-checkpoint is damaged and was not taken: optimizer.safetensors"
        in said["damaged"]
    )
    assert "does not say of which run it is" in said["old"]
    assert sorted(path.name for path in folder.iterdir()) == ["done", "x"]


def test_before_the_first_push_there_is_nothing_to_fetch_and_that_is_no_error(fetched):
    assert fetched[1]["absent"] == "tester/absent holds nothing to go on from yet"


def test_a_published_run_comes_back_as_a_finished_one(pushed, fetched, small):
    folder, said = fetched
    assert said["done"].endswith("holds the finished run of tester/done")
    assert "is left as it is" in said["done again"]
    asked = small("trainer.max_steps=2", "eval.num_live_samples=0", "trainer.warmup_ratio=0", "resume=true")
    before = json.loads((pushed[1] / "metrics.json").read_text())["validation/loss"]
    assert training.train(asked, str(folder / "done")) == before


def test_without_a_login_a_private_repository_is_an_error(pushed, tmp_path):
    (said,) = take(pushed[0], [("tester/x", tmp_path / "run")], token=False)
    assert said.startswith(
        "refused: tester/x is not on the Hub, or is private and nobody is logged in here: set HF_TOKEN"
    )
