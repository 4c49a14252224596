"""An adapter merged into the base model's weights: what it computes, what learns on it, and what is kept beside that."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from text2sql import config, data, encoding, launch, lineage, merging, model, runs, scoring, training
from text2sql.trainer import step_gradient

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = torch.tensor([list(range(5, 60))])


def logits(network):
    with torch.no_grad():
        return network.eval()(input_ids=IDS).logits


@pytest.fixture
def settings(small):
    return lambda quant, *more: small("phase=2", "adapter=null", "merge_adapter=auto", f"quant={quant}", *more)


@pytest.fixture(scope="module")
def fresh(curriculum, small, tmp_path_factory):
    """A finished run of phase 2 that learned a fresh adapter of another shape on phase 1's merged weights: (folder, config)."""
    folder = tmp_path_factory.mktemp("fresh")
    asked = small(
        "phase=2", "adapter=null", f"merge_adapter={curriculum.one.adapter}", "lora.r=4", "eval.after_phase=2"
    )
    launch.run(asked, str(folder / "run"))
    return folder / "run", asked


# The mathematics


def test_full_precision_weights_compute_what_they_did_with_the_adapter(curriculum, settings):
    asked = settings("none", "hardware.dtype=float32")
    beside = logits(model.load_adapter(model.load_base(asked), curriculum.one.adapter, trainable=False))
    without = logits(model.load_base(asked))
    network, rounded_away = merging.merge(model.load_base(asked), curriculum.one.adapter)
    assert (logits(network) - beside).norm() < 1e-3 * (without - beside).norm()
    assert rounded_away < 1e-3


def louder(adapter, folder, factor):
    """A copy of the adapter whose change is `factor` times as large."""
    copied = shutil.copytree(adapter, folder)
    weights = load_file(copied / "adapter_model.safetensors")
    save_file(
        {name: w * (factor if "lora_B" in name else 1) for name, w in weights.items()},
        copied / "adapter_model.safetensors",
    )
    return copied


@pytest.mark.parametrize(("factor", "low", "high"), [(1, 0.7, 1.3), (300, 0.0, 0.3)])
def test_four_bit_weights_lose_a_change_that_is_small_beside_their_steps_and_it_is_said(
    curriculum, settings, tmp_path, caplog, factor, low, high
):
    adapter = louder(curriculum.one.adapter, tmp_path / "louder", factor)
    asked = settings("nf4")
    beside = logits(model.load_adapter(model.load_base(asked), adapter, trainable=False))
    without = logits(model.load_base(asked))
    network, rounded_away = lineage.merge(model.load_base(asked), adapter)
    assert low < rounded_away < high
    assert low < (logits(network) - beside).norm() / (without - beside).norm() < high
    assert ("quant=none keeps it" in caplog.text) == (rounded_away > lineage.MUCH)


@pytest.mark.parametrize("quant", ["nf4", "none"])
def test_the_same_merge_gives_the_same_bits_and_leaves_the_shared_base_alone(curriculum, settings, quant):
    asked = settings(quant)
    before = logits(model.load_base(asked))
    first, second = (logits(merging.merge(model.load_base(asked), curriculum.one.adapter)[0]) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(logits(model.load_base(asked)), before)


@pytest.mark.parametrize("quant", ["nf4", "none"])
def test_a_fresh_adapter_on_merged_weights_changes_nothing_yet_and_alone_learns(curriculum, settings, quant):
    asked = settings(quant)
    merged, _ = merging.merge(model.load_base(asked), curriculum.one.adapter)
    before = logits(merged)
    adapted = model.new_adapter(merged, asked.lora)
    assert model.lora_b_norm(adapted) == 0
    assert torch.equal(logits(adapted), before)
    assert {name.split(".")[-3] for name, p in adapted.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}


# A run


def test_a_run_says_what_it_merged_and_starts_fresh(fresh, curriculum):
    stamp = json.loads((fresh[0] / "run.json").read_text())
    assert (stamp["parent"], stamp["parent_lora_b_norm"]) == (None, 0.0)
    assert stamp["merged_parent"] == str(curriculum.one.adapter)
    assert stamp["fingerprint"]["merged"] == runs.adapter_sha256(curriculum.one.adapter)


def test_the_adapters_folder_alone_gives_the_validation_loss_of_its_training(fresh, tmp_path, small):
    shutil.copytree(fresh[0] / "adapter", tmp_path / "copied")  # on another machine, without the run that was merged
    asked = small("phase=2", f"adapter={tmp_path / 'copied'}", "lora.r=4")
    tokenizer = model.load_tokenizer(asked.model)
    held_out = data.load(asked.data, "validation", seed=asked.seed)
    rows = encoding.Tokens.of(held_out.examples, tokenizer, asked).as_rows()
    loaded = model.load_adapter(model.load_base(asked), tmp_path / "copied", trainable=True)
    found = step_gradient(asked, loaded).mean_loss(rows)
    trained = json.loads((fresh[0] / "metrics.json").read_text())["validation/loss"]
    assert found == pytest.approx(trained, rel=1e-5)


def test_what_is_forgotten_is_measured_against_what_was_merged(fresh, curriculum):
    metrics = json.loads((fresh[0] / "metrics.json").read_text())
    assert metrics["forgetting/loss_before"] == pytest.approx(
        curriculum.one.read("metrics.json")["validation/loss"], rel=0.02
    )
    assert metrics["forgetting/loss_after"] != metrics["forgetting/loss_before"]


def test_a_run_is_evaluated_with_what_was_merged(fresh):
    stamp = json.loads((fresh[0] / "evaluation/run.json").read_text())
    assert stamp["status"] == "finished"
    assert (fresh[0] / "adapter/README.md").read_text().endswith(merging.CARD)


def test_an_adapter_that_goes_on_learning_keeps_what_was_merged_below_it(fresh, small, tmp_path):
    asked = small("phase=2", f"adapter={fresh[0] / 'adapter'}", "lora.r=4", "trainer.max_steps=1")
    training.train(asked, str(tmp_path / "run"))
    ours, theirs = (load_file(run / "adapter/merged/adapter_model.safetensors") for run in (tmp_path / "run", fresh[0]))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# What is refused


def test_auto_does_not_go_on_with_an_adapter_of_other_weights(fresh, small, tmp_path, monkeypatch):
    run = tmp_path / "outputs/one"
    run.mkdir(parents=True)
    stamp = json.loads((fresh[0] / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**stamp, "phase": 1}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="merged is None here and '"):
        lineage.newest(small("phase=2", "lora.r=4"), tmp_path / "outputs/two")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["merge_adapter=auto"], "adapter=auto goes on learning and merge_adapter=auto makes a fresh one"),
        (["adapter=null", "merge_adapter=auto", "hardware.fsdp=true"], "merge_adapter needs whole weights"),
        (["adapter=null"], "merge_adapter=auto"),
    ],
)
def test_what_cannot_work_is_refused_with_its_settings(small, overrides, message):
    with pytest.raises(ValueError, match=message):
        small("phase=2", *overrides)


def test_an_adapter_of_another_model_is_not_merged(fresh, small, curriculum, tmp_path):
    other = shutil.copytree(curriculum.one.adapter, tmp_path / "other")
    saved = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**saved, "base_model_name_or_path": "another/model"}))
    with pytest.raises(ValueError, match="was trained on another/model"):
        lineage.to_merge(small("phase=2", "adapter=null", f"merge_adapter={other}"), tmp_path / "run")


def test_an_evaluation_is_told_that_the_adapter_is_enough(compose_raw):
    with pytest.raises(ValueError, match="adapter=RUN/adapter is enough"):
        scoring.settings(compose_raw(["merge_adapter=auto"], "evaluate"), ["merge_adapter=auto"])


def test_a_merged_parent_survives_in_the_saved_config(small):
    asked = small("phase=2", "adapter=null", "merge_adapter=auto")
    assert "merge_adapter: auto" in config.to_yaml(asked)
