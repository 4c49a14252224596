"""Merging a run into 16-bit weights: what is written, that the answers decide, and what is refused or left alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf
from peft.utils.integrations import dequantize_module_weight
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from text2sql import cli, config, export, merging, model, training

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = torch.tensor([list(range(5, 60))])


@pytest.fixture
def run(curriculum, tmp_path):
    """A copy of the finished run of phase 2, trained on an NF4 base."""
    return shutil.copytree(curriculum.two.run, tmp_path / "run")


def merge(run, out, *options):
    return cli.main(["merge", str(run), str(out), "--probes", "3", *options])


def logits(network):
    with torch.no_grad():
        return network.eval()(input_ids=IDS).logits.float()


@pytest.fixture(scope="module", params=export.BASES)
def merged(request, curriculum, tmp_path_factory):
    """(what it was added to, folder) of the finished run of phase 2 merged into bfloat16."""
    out = tmp_path_factory.mktemp("merged") / "out"
    loose = ("--tolerance", "1")  # random weights: near ties, which rounding breaks
    assert merge(curriculum.two.run, out, "--dtype", "bfloat16", "--base", request.param, *loose) == 0
    return request.param, out


@pytest.fixture
def base(merged, curriculum, small):
    """What the adapter was added to: the run's base model, quantised as the run had it, or not at all."""
    quant = curriculum.two.config.quant if merged[0] == export.TRAINED else config.Quant()
    return model.load_base(replace(small("phase=2", "hardware.dtype=float32"), quant=quant))


def test_plain_transformers_load_what_was_merged(merged, base, curriculum):
    loaded = AutoModelForCausalLM.from_pretrained(merged[1], dtype="auto")
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16}
    assert not hasattr(loaded.config, "quantization_config")
    assert loaded.generation_config.eos_token_id == AutoTokenizer.from_pretrained(merged[1]).eos_token_id
    wanted = logits(model.load_adapter(base, curriculum.two.adapter, trainable=False))
    assert (logits(loaded.float()) - wanted).norm() < 0.02 * wanted.norm()


def test_the_weights_are_those_that_were_asked_for_with_the_adapter(merged, base, curriculum, small):
    name = "model.layers.0.self_attn.q_proj"
    kept = load_file(merged[1] / "model.safetensors")[f"{name}.weight"].float()
    before = dequantize_module_weight(base.get_submodule(name)).float().clone()
    own = model.load_base(small("phase=2", "quant=none", "hardware.dtype=float32"))
    change = -own.get_submodule(name).weight.clone()
    change += merging.merge(own, curriculum.two.adapter)[0].get_submodule(name).weight
    assert (kept - before - change).norm() < 0.005 * before.norm()
    assert (kept - before - change).norm() < change.norm(), "the adapter is in them"


def test_an_adapter_on_merged_weights_is_added_to_those(small, curriculum, tmp_path):
    """Its run had the first adapter merged into NF4 weights, which were rounded to NF4 again."""
    asked = small("phase=2", "adapter=null", f"merge_adapter={curriculum.one.adapter}", "hardware.dtype=float32")
    training.train(asked, str(tmp_path / "run"))
    wanted = logits(model.load_adapter(model.load_base(asked), tmp_path / "run/adapter", trainable=False))
    assert merge(tmp_path / "run", tmp_path / "out", "--tolerance", "1") == 0
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert (logits(loaded) - wanted).norm() < 0.005 * wanted.norm()


def test_the_figures_of_the_merge_stand_beside_the_weights(merged):
    found = json.loads((merged[1] / "merge.json").read_text())
    assert found["dtype"] == "bfloat16" and found["base"] == merged[0]
    assert found["merging"]["num_probes"] == found["as_trained"]["num_probes"] == 3
    assert 0 <= found["merging"]["accuracy_after"] <= 1


def test_both_comparisons_are_printed(run, tmp_path, capsys):
    assert merge(run, tmp_path / "out", "--tolerance", "1", "--accuracy-tolerance", "1") == 0
    rounded, beside, trained, out = capsys.readouterr().out.splitlines()
    assert rounded.startswith("rounding to float16 took ")
    assert beside.startswith("float16 weights with the adapter beside them -> merged: ") and "% identical SQL" in beside
    assert trained.startswith("the run as it was trained, quantised -> merged: ") and "execution accuracy" in trained
    assert out == str(tmp_path / "out")


def test_beyond_tolerance_nothing_is_written_and_the_exit_code_is_1(run, tmp_path, capsys, monkeypatch):
    def forget(base, folder):  # a merge that does nothing, of an adapter that changes every answer
        return base, 0.0

    weights = load_file(run / "adapter/adapter_model.safetensors")
    loud = {name: weight * (200 if "lora_B" in name else 1) for name, weight in weights.items()}
    save_file(loud, run / "adapter/adapter_model.safetensors")
    stamp = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**stamp, "adapter_sha256": None}))
    monkeypatch.setattr(export.merging, "add", forget)
    (tmp_path / "out").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    assert merge(run, tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert "error: merging changes 100.0 % of the answers, over --tolerance 0.1" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "nothing of the user's is gone, nothing is left"


def parity(identical, before, after):
    return export.Parity(10, identical, before, after)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (export.Outcome(parity(10, 0.5, 0.5), None), []),
        (export.Outcome(parity(9, 0.5, 0.4), parity(0, 0.45, 0.4)), ["accuracy falls by 10.0 points"]),
        (export.Outcome(parity(9, 0.4, 0.4), parity(0, 0.5, 0.4)), ["accuracy falls by 10.0 points"]),
        (export.Outcome(parity(8, 0.5, 0.6), None), ["merging changes 20.0 % of the answers"]),
        (export.Outcome(parity(9, None, None), None), []),
    ],
)
def test_what_is_beyond_tolerance(outcome, said):
    problems = outcome.problems(0.1, 0.05)
    assert len(problems) == len(said) and all(words in line for words, line in zip(said, problems))


@pytest.mark.parametrize("status", ["interrupted", "running"])
def test_an_unfinished_run_is_not_merged(run, tmp_path, capsys, status):
    stamp = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**stamp, "status": status}))
    assert merge(run, tmp_path / "out") == 2
    assert f"its status is {status}" in capsys.readouterr().err


def test_a_folder_with_files_is_left_alone(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    assert merge(run, tmp_path / "out") == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert (tmp_path / "out/mine").read_text() == "mine"


def test_a_disk_that_is_too_full_is_seen_before_anything_is_written(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 10**4))
    assert merge(run, tmp_path / "out") == 2
    assert "GB free and the merged weights take 0.00 GB" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_eight_bit_weights_are_not_unpacked_without_a_gpu(run, tmp_path, capsys):
    saved = OmegaConf.load(run / "adapter/config.yaml")
    saved.hardware.device = "cuda"
    saved.quant.load_in_4bit, saved.quant.load_in_8bit = False, True
    OmegaConf.save(saved, run / "adapter/config.yaml")
    assert merge(run, tmp_path / "out") == 2
    assert "need a GPU; --base original merges without one" in capsys.readouterr().err


def test_data_that_are_not_here_are_named_with_the_option(run, tmp_path, capsys):
    assert merge(run, tmp_path / "out", "--data", "/nonexistent") == 2
    assert "data.path=/nonexistent" in capsys.readouterr().err
