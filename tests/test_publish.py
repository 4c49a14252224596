"""Publishing: what a card says and never invents, that it loads as typed, what is refused, and what the Hub gets."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from fake_hub import FakeHub, HubError
from huggingface_hub import ModelCard

from text2sql import cli, fetching, merging, model, provenance, publish, resuming, runs, tiny
from text2sql.config import Data

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = torch.tensor([list(range(5, 60))])
ACCURACY = {
    "eval/execution_accuracy": 0.25,
    "eval/execution_accuracy_low": 0.11,
    "eval/execution_accuracy_high": 0.4687,
    "eval/examples": 20,
    "eval/easy/execution_accuracy": 0.5,
    "eval/easy/execution_accuracy_low": 0.2,
    "eval/easy/execution_accuracy_high": 0.8,
    "eval/easy/examples": 8,
}


@pytest.fixture
def run(curriculum, tmp_path):
    """A copy of a finished run of phase 2 that nobody has evaluated."""
    return shutil.copytree(curriculum.two.run, tmp_path / "run")


def stamped(run, **changes):
    """The run with its stamp changed."""
    runs.write_json(run / "run.json", {**json.loads((run / "run.json").read_text()), **changes})
    return run


def evaluated(run, **changes):
    """The run with an evaluation in it, written by hand."""
    folder = run / "evaluation"
    folder.mkdir()
    stamp = {"kind": "evaluate", "status": "finished", "adapter_sha256": runs.adapter_sha256(run / "adapter")}
    stamp |= {"data": {"name": "spider", "path": "data/spider"}, "command": "evaluate.py adapter=x data=spider"}
    runs.write_json(folder / "run.json", {**stamp, **changes})
    runs.write_json(folder / "metrics.json", ACCURACY)
    return run


def published(run, folder, **wish):
    """The card of the run, as the Hub's own client reads it."""
    publish.gather(run, publish.Wish("user/name", **wish), folder)
    return ModelCard((folder / "README.md").read_text(encoding="utf-8"))


# What a card says


def test_a_card_has_the_metadata_that_the_hub_looks_for(run, tmp_path):
    found = published(run, tmp_path / "out").data
    assert (found.library_name, found.pipeline_tag, found.base_model) == ("peft", "text-generation", "tiny")
    assert "text-to-sql" in found.tags
    assert found.eval_results is None and found.datasets is None and found.license is None


def test_a_run_without_evaluation_says_so_and_has_no_figures(run, tmp_path):
    text = published(run, tmp_path / "out").text
    assert "was not evaluated" in text
    assert "execution accuracy |" not in text and "95 %" not in text


def test_figures_come_with_their_intervals_in_text_and_metadata(run, tmp_path):
    found = published(evaluated(run), tmp_path / "out")
    assert "| execution accuracy | 25.0 % | 11.0 to 46.9 % | 20 |" in found.text
    assert "| execution accuracy, easy | 50.0 % | 20.0 to 80.0 % | 8 |" in found.text
    assert "exact match" not in found.text, "the evaluation did not measure it"
    (result,) = found.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_type) == (
        "execution_accuracy",
        0.25,
        "xlangai/spider",
    )
    assert "11.0 to 46.9 %" in result.metric_name


def test_both_phases_data_are_named(run, tmp_path):
    text = published(run, tmp_path / "out").text
    assert text.index("- phase 1: data=gretel") < text.index("- phase 2: data=spider")
    assert "data=gretel data.path=mini: made by text2sql" in text


def test_a_parent_that_is_not_here_is_a_gap_that_is_told(run, tmp_path):
    text = published(stamped(run, parent="/gone/adapter"), tmp_path / "out").text
    assert "continues an earlier adapter, whose data are not known" in text


def test_the_prompt_is_rendered_as_the_model_reads_it(run, tmp_path):
    text = published(run, tmp_path / "out").text
    prompt = re.search(r"```text\n(.*?)\n```", text, re.DOTALL)[1]
    assert prompt.startswith("<s>[INST]") and "CREATE TABLE singer" in prompt and prompt.endswith("[/INST]")


def test_a_named_data_set_brings_its_licence(run, tmp_path):
    found = published(run, tmp_path / "out", datasets=["Salesforce/wikisql", "user/own"])
    assert found.data.datasets == ["Salesforce/wikisql", "user/own"]
    assert "BSD-3-Clause" in found.text and "`user/own`: named by the publisher" in found.text


@pytest.mark.parametrize(
    ("path", "named", "known", "said"),
    [
        ("data/spider", [], ["xlangai/spider"], []),
        ("gretelai/synthetic_text_to_sql", [], ["gretelai/synthetic_text_to_sql"], []),
        ("/home/me/shop", [], [], ["origin and licence are not stated"]),
        ("/home/me/shop", ["user/shop"], [], []),
    ],
)
def test_a_path_is_only_taken_for_a_data_set_where_that_is_known(path, named, known, said):
    found, unknown = provenance.origins(Data("spider", path, "xlangai/spider"), named)
    assert [one.hub_id for one in found] == known
    assert len(unknown) == len(said) and all(words in line for words, line in zip(said, unknown))


@pytest.mark.parametrize(
    ("gpu", "watts"),
    [("Tesla T4", 70), ("NVIDIA A100-SXM4-80GB", 400), ("NVIDIA H100 80GB HBM3", 700), ("NVIDIA L4", 72)],
)
def test_carbon_is_seconds_by_power_by_processes(gpu, watts):
    found = provenance.carbon(7200, gpu, 2)
    assert found.kwh == pytest.approx(2 * watts * 2 / 1000)
    assert f"{watts} W" in found.assumption


@pytest.mark.parametrize("gpu", [None, "AMD Instinct MI300X"])
def test_carbon_of_unknown_power_is_not_made_up(gpu):
    assert provenance.carbon(7200, gpu, 1) is None


def test_a_gpus_carbon_is_said_to_be_an_estimate(run, tmp_path):
    found = published(stamped(run, gpu="Tesla T4"), tmp_path / "out")
    assert "not measured: " in found.text and "70 W" in found.text
    assert found.data.to_dict()["co2_eq_emissions"]["source"].startswith("estimated, not measured")


def test_a_cpus_carbon_is_not_measured(run, tmp_path):
    assert "Energy and carbon: not measured." in published(run, tmp_path / "out").text


# That it loads as typed


def logits(network):
    with torch.no_grad():
        return network.eval()(input_ids=IDS).logits


@pytest.fixture
def as_typed(tmp_path, monkeypatch):
    """A function from a card to (the model that its own lines load, those lines), where its names are folders here."""

    def as_typed(card):
        code = re.search(r"```python\n(.*?)```", card.text, re.DOTALL)[1]
        (tmp_path / "tiny").symlink_to(tiny.fetch())
        monkeypatch.chdir(tmp_path)
        names = {}
        exec(code, names)
        return names["model"], code

    return as_typed


def check_same(found, adapter, asked):
    """The logits of `found` are those of the adapter, measured by how far the base model's are from them."""
    wanted = logits(model.load_adapter(model.load_base(asked), adapter, trainable=False))
    base = logits(model.load_base(asked))
    assert (logits(found) - wanted).norm() < 1e-2 * (base - wanted).norm()


def test_the_cards_lines_load_the_adapter_as_typed(run, tmp_path, small, as_typed):
    found, code = as_typed(published(run, tmp_path / "user/name"))
    assert len(code.splitlines()) <= 3
    check_same(found, run / "adapter", small("phase=2", "quant=none", "hardware.dtype=float32"))


def test_the_cards_lines_merge_what_the_adapter_learned_on(run, curriculum, tmp_path, small, as_typed):
    merging.keep(curriculum.one.adapter, run / "adapter")
    found, code = as_typed(published(run, tmp_path / "user/name"))
    assert 'subfolder="merged"' in code
    check_same(found, run / "adapter", small("phase=2", "quant=none", "hardware.dtype=float32"))


# What is kept back and what is refused


def test_no_path_of_this_machine_is_published(run, tmp_path):
    stamped(run, command="train.py data.path=/home/alice/shop.sqlite adapter=/home/alice/x/adapter")
    published(run, tmp_path / "out")
    for file in (tmp_path / "out").rglob("*"):
        if file.suffix in (".json", ".yaml", ".md") and file.name not in ("tokenizer.json", "tokenizer_config.json"):
            text = file.read_text(encoding="utf-8")
            assert "/home/alice" not in text and str(tmp_path) not in text and str(run) not in text, file.name
    assert "data.path=shop.sqlite" in (tmp_path / "out/README.md").read_text()


def test_a_token_in_the_command_is_refused(run, tmp_path, capsys):
    record = json.loads((run / "run.json").read_text())
    record["command"] = "train.py hub.token=hf_" + "a" * 34  # as a run of an older version wrote it
    (run / "run.json").write_text(json.dumps(record))
    assert cli.main(["publish", str(run), "user/name", "--dry-run", str(tmp_path / "out")]) == 2
    assert "looks like one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_that_comes_back_from_the_hub_is_gone_on_with_though_its_data_lie_in_an_absolute_path(
    run, curriculum, tmp_path, monkeypatch
):
    there = curriculum.two.config
    config = replace(there, data=replace(there.data, path="/kaggle/input/spider"), resume="true")
    stamped(run, settings=json.loads(json.dumps(resuming.settings(config))))
    repo = tmp_path / "repo"
    publish.gather(run, publish.Wish("user/name"), repo)
    assert "data.path" not in runs.read(repo)["settings"]
    assert runs.read(repo)["settings"]["data.name"] == "spider"
    monkeypatch.setattr(fetching, "_files", lambda *_: [path.name for path in repo.iterdir()])
    monkeypatch.setattr(
        fetching, "_download", lambda repo_id, revision, folder, *_: shutil.copytree(repo, folder / "x")
    )
    fetching.fetch("user/name", tmp_path / "again")
    loss = resuming.finished_loss(tmp_path / "again", config)
    assert loss == curriculum.two.read("metrics.json")["validation/loss"]
    with pytest.raises(ValueError, match="seed is 1 here"):
        resuming.finished_loss(tmp_path / "again", replace(config, seed=1))


@pytest.mark.parametrize(
    "secret", ["sk-" + "a1" * 12, "wandb_v1_" + "b" * 24, "https://user:pass@host/x", "0123456789abcdef" * 2]
)
@pytest.mark.parametrize("file", ["metrics.json", "adapter/adapter_config.json", "adapter/tokenizer_config.json"])
def test_a_secret_in_any_file_is_refused_and_the_folder_stays_as_it_was(run, tmp_path, monkeypatch, secret, file):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 2)
    (run / file).write_text(json.dumps({**json.loads((run / file).read_text()), "note": secret}))
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=f"{file.rpartition('/')[2]} holds a token or a password"):
        publish.gather(run, publish.Wish("user/name"), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: shutil.rmtree(run), "is no run"),
        (lambda run: stamped(run, status="interrupted"), "is not finished (its status is interrupted)"),
        (lambda run: stamped(run, status="pruned"), "is not finished (its status is pruned)"),
        (lambda run: stamped(run, kind="evaluate"), "is an evaluation; name the training's folder"),
        (lambda run: shutil.rmtree(run / "adapter"), "has no adapter to publish"),
        (lambda run: stamped(run, adapter_sha256="0"), "is not the adapter that the run ended with"),
    ],
)
def test_what_cannot_be_published_is_refused_and_nothing_is_written(run, tmp_path, capsys, change, said):
    change(run)
    assert cli.main(["publish", str(run), "user/name", "--dry-run", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_evaluation_of_another_adapter_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match="judged another adapter"):
        published(evaluated(run, adapter_sha256="0"), tmp_path / "out")


def test_a_name_without_a_user_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match="write it as user/name"):
        publish.gather(run, publish.Wish("name"), tmp_path / "out")


def test_a_folder_with_files_in_it_is_left_alone(run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not an empty folder"):
        publish.gather(run, publish.Wish("user/name"), tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


# The Hub


class Guarded(FakeHub):
    """A Hub on which a token may write below its own user only, as on the real one."""

    def create(self, kind, repo_id, private):
        if repo_id.split("/")[0] != self.user:
            raise HubError(403, "You don't have the rights to create a model under this namespace")
        return super().create(kind, repo_id, private)


PUSH = """
import sys
from pathlib import Path
from text2sql import publish
for name in sys.argv[2:]:
    try:
        print(publish.push(Path(sys.argv[1]), name, private=True, revision=None))
    except ValueError as error:
        print("refused:", error)
"""


@pytest.mark.slow
def test_a_push_is_one_commit_of_the_same_files_and_a_refusal_says_what_to_do(run, tmp_path):
    files = publish.gather(run, publish.Wish("tester/name"), tmp_path / "out")
    with Guarded(tmp_path / "hub") as hub:
        done = hub.run("-c", PUSH, tmp_path / "out", "tester/name", "somebody/else")
        assert done.returncode == 0, done.stderr
        address, forbidden = done.stdout.splitlines()
        assert address.startswith(f"{hub.url}/tester/name/commit/") and hub.is_private("models", "tester/name")
        assert len(hub.commits) == 1
        there = hub.folder("models", "tester/name")
        for file in files:
            assert (there / file.relative_to(tmp_path / "out")).read_bytes() == file.read_bytes()
        assert "the token may not write there (403); give it write access" in forbidden
        nobody = hub.run("-c", PUSH, tmp_path / "out", "tester/name", token=False)
        assert "there is none (401); set HF_TOKEN to one that is valid, or run `hf auth login`" in nobody.stdout, (
            nobody.stderr
        )
    gone = hub.run("-c", PUSH, tmp_path / "out", "tester/name")
    assert "the Hub cannot be reached" in gone.stdout and "--dry-run" in gone.stdout


def test_a_revision_is_a_branch_that_is_made_and_pushed_to(tmp_path, monkeypatch):
    asked = []

    class Api:
        def create_repo(self, repo_id, **more):
            asked.append(("repo", repo_id, more))

        def create_branch(self, repo_id, **more):
            asked.append(("branch", repo_id, more))

        def upload_folder(self, **more):
            asked.append(("upload", more["repo_id"], more["revision"]))
            return SimpleNamespace(commit_url="there")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert publish.push(tmp_path, "user/name", private=False, revision="v2") == "there"
    assert asked == [
        ("repo", "user/name", {"private": False, "exist_ok": True}),
        ("branch", "user/name", {"branch": "v2", "exist_ok": True}),
        ("upload", "user/name", "v2"),
    ]


def test_how_the_answers_were_made_is_told(run, tmp_path):
    evaluated(run)
    hydra = run / "evaluation/.hydra"
    hydra.mkdir()
    (hydra / "config.yaml").write_text(
        "eval: {split: test, rules: official, votes: 8, constrained: true, repair: false}\n"
    )
    text = published(run, tmp_path / "out").text
    assert (
        "the most frequent result of 8 answers, only names that the schema has, judged by execution (official rules)"
        in text
    )
    assert "greedy" not in text
