"""A tiny random model in Mistral NeMo's shape, with its chat format and a byte-level tokenizer, for tests and dry runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from text2sql import cache, upstream

FORMAT = 1
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST]{{ m['content'] }}[/INST]"
    "{% else %}{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
WORDS = (
    "SELECT FROM WHERE GROUP BY HAVING ORDER LIMIT JOIN ON AND OR NOT IN COUNT( AVG( MAX( MIN( SUM( DISTINCT CREATE TABLE "
    "PRIMARY KEY INTEGER TEXT REAL DATE Question Schema Write one SQLite query that answers the question. Reply with SQL only. "
    "How many What is are Which List the of name id from where"
).split()


def fetch(cache_dir: Path | None = None) -> Path:
    """The folder of the tiny model, made on first use under the user's cache folder; the same weights every time."""
    folder = (cache_dir or cache.folder()) / upstream.folder_of_models(f"tiny-{FORMAT}")
    if not (folder / "config.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix="tiny-", dir=folder.parent))
        _write(aside)
        try:
            aside.rename(folder)
        except OSError:  # another process was first; its folder is the same
            assert (folder / "config.json").exists()
    return folder


def _write(folder: Path) -> None:
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    tokenizer = _tokenizer()
    torch.manual_seed(0)
    model = MistralForCausalLM(
        MistralConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,  # 4 * 32 != 64, as in NeMo: q_proj is not square
            max_position_embeddings=4096,
            sliding_window=None,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    assert model.generation_config is not None
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer():  # type: ignore[no-untyped-def]
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "[INST]", "[/INST]"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
    )
    raw.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["[INST]", "[/INST]"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer
