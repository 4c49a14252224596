"""Tokenizer contract, quantised base, adapters, and the choices that depend on the machine."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from huggingface_hub import constants
from peft import PeftModel
from safetensors.torch import load_file, save_file

from text2sql import config as configuration
from text2sql import machines, model, tiny, training, upstream
from text2sql.config import Device

pytestmark = pytest.mark.usefixtures("one_thread")

PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def checksum(network, *, frozen_only=False):
    """sha256 over names and bytes of a model's weights; with `frozen_only`, of those that do not learn."""
    digest = hashlib.sha256()
    for name, parameter in network.named_parameters():
        if frozen_only and parameter.requires_grad:
            continue
        digest.update(name.encode())
        digest.update(parameter.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def with_path(config, path):
    return dataclasses.replace(config, model=dataclasses.replace(config.model, path=str(path)))


@pytest.fixture
def config(small):
    return small("phase=1")


@pytest.fixture
def tokenizer(config):
    """A tokenizer of its own for each test, to be broken."""
    return model.load_tokenizer(config.model)


@pytest.fixture
def adapter(curriculum, tmp_path):
    """A copy of phase 1's adapter, to be changed."""
    return shutil.copytree(curriculum.one.adapter, tmp_path / "adapter")


# The tiny model


def test_the_tiny_models_heads_are_not_its_hidden_size_just_like_nemos(config):
    shape = model.load_base(config).config
    assert shape.head_dim * shape.num_attention_heads != shape.hidden_size


def test_the_tiny_model_is_the_same_wherever_it_is_made(tmp_path):
    assert (tiny.fetch(tmp_path) / "model.safetensors").read_bytes() == (
        tiny.fetch() / "model.safetensors"
    ).read_bytes()


# The tokenizer contract


def test_the_tiny_tokenizer_keeps_the_contract(tokenizer):
    model.check_tokenizer(tokenizer)


def pad_is_eos(tokenizer):
    tokenizer.pad_token = tokenizer.eos_token


def no_eos(tokenizer):
    tokenizer.eos_token = None


def template_writes_bos_twice(tokenizer):
    tokenizer.chat_template = "{{ bos_token }}" + tiny.TEMPLATE


def tokenizer_adds_bos_to_the_templates(tokenizer):
    original = tokenizer.apply_chat_template

    def apply(chat, tokenize, **settings):
        ids_or_text = original(chat, tokenize=tokenize, **settings)
        return [tokenizer.bos_token_id, *ids_or_text] if tokenize else ids_or_text

    tokenizer.apply_chat_template = apply


def prompt_ends_in_eos(tokenizer):
    tokenizer.chat_template = tiny.TEMPLATE + "{{ eos_token }}"


def prompt_ends_in_a_space(tokenizer):
    tokenizer.chat_template = tiny.TEMPLATE + " "  # byte-level BPE joins it with the first word of the SQL


@pytest.mark.parametrize(
    "break_it, message",
    [
        (pad_is_eos, "the padding token is the EOS token"),
        (no_eos, "there is no EOS token"),
        (template_writes_bos_twice, "the BOS of the template is doubled"),
        (tokenizer_adds_bos_to_the_templates, "the BOS of the template is doubled"),
        (prompt_ends_in_eos, "the prompt ends with the EOS token"),
        (prompt_ends_in_a_space, "not a token prefix"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_tokenizer_is_refused_by_name_of_its_fault(tokenizer, break_it, message):
    break_it(tokenizer)
    with pytest.raises(ValueError, match=message):
        model.check_tokenizer(tokenizer)


def test_a_tokenizer_that_pads_with_eos_gets_a_padding_token_of_its_own(config, tokenizer, tmp_path):
    pad_is_eos(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    loaded = model.load_tokenizer(with_path(config, tmp_path).model)
    assert loaded.pad_token == "<pad>" != loaded.eos_token


# The base model


def test_nf4_makes_four_bit_layers_on_a_cpu_and_none_makes_none(small):
    def four_bit(quant):
        return [m for m in model.load_base(small("phase=1", f"quant={quant}")).modules() if isinstance(m, Linear4bit)]

    assert len(four_bit("nf4")) == 2 * len(PROJECTIONS)
    assert four_bit("none") == []


def test_two_loads_give_independent_copies(config):
    first, second = model.load_base(config), model.load_base(config)
    before = checksum(second)
    assert checksum(first) == before
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_() if parameter.dtype != torch.uint8 else parameter.fill_(0)
    assert checksum(first) != before
    assert checksum(second) == checksum(model.load_base(config)) == before


def test_an_evaluation_changes_no_gradient_of_four_bit_weights(small):
    config = small("quant=nf4", "lora.lora_dropout=0")
    base = model.load_base(config)
    network = model.new_adapter(base, config.lora).train()
    ids = torch.arange(5, 69)[None]

    def gradient():
        network.zero_grad()
        network(input_ids=ids, labels=ids).loss.backward()
        return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    before = gradient()
    with torch.no_grad():
        network.eval()(input_ids=ids)
    network.train()
    torch.testing.assert_close(gradient(), before)


def test_training_changes_neither_its_base_nor_the_one_that_the_process_shares(small, tmp_path, monkeypatch):
    config = small("phase=1", "trainer.max_steps=2", "trainer.learning_rate=0.1", "eval.num_live_samples=0")
    shared = model._quantised_on_cpu(config.model, config.quant, config.hardware.dtype)
    before, frozen = checksum(shared), []
    build, save = training.build_trainer, model.save_adapter

    def build_and_sum(config, adapted, *rest):
        frozen.append(checksum(adapted, frozen_only=True))
        return build(config, adapted, *rest)

    def sum_and_save(adapted, *rest):
        frozen.append(checksum(adapted, frozen_only=True))
        save(adapted, *rest)

    monkeypatch.setattr(training, "build_trainer", build_and_sum)
    monkeypatch.setattr(model, "save_adapter", sum_and_save)
    training.train(config, str(tmp_path / "run"))
    assert model._quantised_on_cpu(config.model, config.quant, config.hardware.dtype) is shared
    assert checksum(shared) == before
    assert len(frozen) == 2 and frozen[0] == frozen[1]
    assert model.lora_b_norm(model.load_adapter(model.load_base(config), tmp_path / "run/adapter", trainable=False)) > 0


@pytest.mark.parametrize(
    "load", [lambda config: model.load_tokenizer(config.model), model.load_base], ids=["tokenizer", "base"]
)
@pytest.mark.parametrize("path", ["/nonexistent/model", "nobody/no-such-model"], ids=["folder", "hub id"])
def test_a_model_that_is_not_there_is_a_users_mistake_with_a_cure(config, monkeypatch, path, load):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub._is_offline_mode", True, raising=upstream.major("transformers") < 5)
    with pytest.raises(ValueError, match=rf"^model\.path={path} could not be loaded.*local folder or a hub id"):
        load(with_path(config, path))


# Adapters


def test_a_new_adapter_changes_nothing_yet_and_learns_in_all_seven_projections(config):
    base = model.load_base(config)
    ids = torch.arange(5, 25).unsqueeze(0)
    with torch.no_grad():
        before = base(input_ids=ids).logits
        adapted = model.new_adapter(base, config.lora).eval()
        assert torch.equal(adapted(input_ids=ids).logits, before)
    trainable = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert model.lora_b_norm(adapted) == 0
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in trainable} == PROJECTIONS
    shapes = [parameter.shape for parameter in adapted.parameters() if parameter.requires_grad]
    assert model.count_trainable(adapted) == sum(rows * columns for rows, columns in shapes) > 0
    assert all(config.lora.r in shape for shape in shapes)


def test_a_loaded_adapter_learns_only_where_it_is_asked_to(config, curriculum):
    for trainable in (True, False):
        loaded = model.load_adapter(model.load_base(config), curriculum.one.adapter, trainable=trainable)
        assert (model.count_trainable(loaded) > 0) is trainable
        assert model.lora_b_norm(loaded) > 0


def test_an_adapter_that_never_learned_may_be_evaluated_but_not_continued(config, adapter):
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {key: torch.zeros_like(value) if "lora_B" in key else value for key, value in weights.items()},
        adapter / "adapter_model.safetensors",
    )
    with pytest.raises(ValueError, match="never trained: every LoRA-B matrix"):
        model.load_adapter(model.load_base(config), adapter, trainable=True)
    assert model.lora_b_norm(model.load_adapter(model.load_base(config), adapter, trainable=False)) == 0


def test_check_adapter_passes_what_this_config_trained(config, curriculum):
    model.check_adapter(curriculum.one.adapter, config)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_without_an_adapter_is_refused(config, adapter, missing):
    (adapter / missing).unlink()
    with pytest.raises(ValueError, match="^adapter=.* holds no adapter.*outputs/RUN/adapter"):
        model.check_adapter(adapter, config)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("base_model_name_or_path", "other/model", "was trained on other/model, and model=tiny"),
        ("r", 8, r"has r=8 and lora\.r is 16; set lora\.r=8"),
        ("lora_alpha", 64, r"has lora_alpha=64 and lora\.lora_alpha is 32; set lora\.lora_alpha=64"),
    ],
)
def test_an_adapter_that_does_not_belong_is_refused_by_the_key_that_differs(config, adapter, key, value, message):
    saved = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**saved, key: value}))
    with pytest.raises(ValueError, match=message):
        model.check_adapter(adapter, config)


def test_casting_makes_what_learns_float32_and_leaves_the_rest(config):
    adapted = model.new_adapter(model.load_base(config), config.lora)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    frozen = {name: p.dtype for name, p in adapted.named_parameters() if not p.requires_grad}
    model.restore_adapter(adapted, model.adapter_in_float32(adapted))
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}
    assert {name: p.dtype for name, p in adapted.named_parameters() if not p.requires_grad} == frozen
    assert torch.uint8 in frozen.values()


def test_a_saved_adapter_carries_tokenizer_config_and_the_models_public_name(curriculum):
    folder = curriculum.one.adapter
    saved = json.loads((folder / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == curriculum.one.config.model.hub_id == "tiny"
    assert load_file(folder / "adapter_model.safetensors")
    assert configuration.load(configuration.read_yaml(str(folder / "config.yaml"))) == curriculum.one.config
    from_adapter = model.load_tokenizer(with_path(curriculum.one.config, folder).model)
    assert from_adapter.get_vocab() == model.load_tokenizer(curriculum.one.config.model).get_vocab()


def test_a_saved_adapter_names_no_folder_of_this_machine(curriculum):
    here = str(tiny.fetch().parent)
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for path in curriculum.one.adapter.iterdir()
        if path.suffix != ".safetensors"
    }
    assert [name for name, text in texts.items() if here in text] == []


def test_a_saved_adapter_loads_with_plain_peft(config, curriculum):
    ids = torch.arange(5, 25).unsqueeze(0)
    ours = model.load_adapter(model.load_base(config), curriculum.one.adapter, trainable=False).eval()
    plain = PeftModel.from_pretrained(model.load_base(config), str(curriculum.one.adapter)).eval()
    with torch.no_grad():
        expected, found = ours(input_ids=ids).logits, plain(input_ids=ids).logits
        assert torch.equal(found, expected)
        with plain.disable_adapter():
            assert not torch.equal(plain(input_ids=ids).logits, expected)


# What depends on the machine


@pytest.mark.parametrize(
    "choice, capability, cpu_flags, expected",
    [
        ("hardware=t4", (8, 0), True, "fp16"),
        ("hardware=gpu", (8, 0), False, "bf16"),
        ("hardware=gpu", (7, 5), True, "fp16"),
        ("hardware=cpu", (8, 0), True, "bf16"),
        ("hardware=cpu", (8, 0), False, "fp32"),
    ],
)
def test_precision_follows_the_machine_where_the_config_leaves_it_open(
    compose, monkeypatch, choice, capability, cpu_flags, expected
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(machines, "cpu_multiplies_bf16", lambda: cpu_flags)
    assert model.precision(compose(["model=tiny", choice]).hardware) == expected


@pytest.mark.parametrize("choice", ["hardware=gpu", "hardware=cpu"])
@pytest.mark.parametrize("bf16, expected", [(True, "bf16"), (False, "fp32")])
def test_an_explicit_bf16_is_not_second_guessed(compose, monkeypatch, choice, bf16, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0) if not bf16 else (7, 5))
    monkeypatch.setattr(machines, "cpu_multiplies_bf16", lambda: not bf16)
    assert model.precision(compose(["model=tiny", choice, f"hardware.bf16={bf16}"]).hardware) == expected


def test_two_gpus_asked_of_a_machine_with_fewer_is_refused_with_a_cure(compose, monkeypatch):
    t4x2 = compose(["model=tiny", "hardware=t4x2"]).hardware
    for found in (0, 1):
        monkeypatch.setattr(torch.cuda, "device_count", lambda found=found: found)
        with pytest.raises(ValueError, match=rf"hardware=t4x2 asks for 2 CUDA.* sees {found}; use hardware=cpu"):
            model.check_device(t4x2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    model.check_device(t4x2)


def test_the_cpu_is_never_refused(compose, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    cpu = compose(["model=tiny", "hardware=cpu"]).hardware
    assert cpu.device is Device.cpu
    model.check_device(cpu)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_nf4_loads_on_a_gpu_with_the_same_layers(compose):
    base = model.load_base(compose(["model=tiny", "hardware=gpu"]))
    assert sum(isinstance(module, Linear4bit) for module in base.modules()) == 2 * len(PROJECTIONS)
    assert {parameter.device.type for parameter in base.parameters()} == {"cuda"}
