"""Real models of a few kilobytes, made from configs, and byte-level tokenizers trained on a page of text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedTokenizerFast,
)

from ndml import tiny

TEXT = [
    "user: where did Anna put the red notebook? assistant: On the shelf by the window.",
    "system: answer briefly. The dog runs through the wet grass while the children watch from the porch.",
    "Größe, façade, naïve, 記憶は流れる, Привет мир, 🙂🚀👩‍👩‍👧, tabs\tand\nlines.",
]
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
STRICT = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}"
)
TOOLS = (
    "{% if tools %}tools:{% for t in tools %}{{ t.function.name }}({{ t.function.parameters.type }});{% endfor %}{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments.city }}){% endfor %}{% endfor %}"
)
SPECIALS = ["<|end|>", "<|im_start|>", "<|im_end|>", "<pad>"]


def byte_tokenizer(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """Byte-level BPE of some 300 tokens: every string round-trips, most characters past ASCII take several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<pad>"
    )
    fast.chat_template = chat_template
    return fast


def save_causal(path: Path, family: Literal["gpt2", "llama", "mamba"], chat_template: str | None = None, context: int = 256) -> Path:
    """A random causal LM with its tokenizer."""
    torch.manual_seed(7)
    tokenizer = byte_tokenizer(chat_template)
    size, ends = len(tokenizer), {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None, "pad_token_id": tokenizer.pad_token_id}
    model: Any
    if family == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_positions=context, n_embd=32, n_layer=2, n_head=2, **ends))
    elif family == "llama":
        config = LlamaConfig(
            vocab_size=size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=context,
            **ends,
        )
        model = LlamaForCausalLM(config)
    else:
        model = MambaForCausalLM(MambaConfig(vocab_size=size, hidden_size=32, state_size=4, num_hidden_layers=2, **ends))
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def save_endless(path: Path) -> Path:
    """The boxed model, except that no token ends an answer: it has as many as are asked for."""
    shutil.copytree(tiny.path(), path)
    for name in ("config.json", "generation_config.json"):
        _rewrite(path / name, eos_token_id=json.loads((path / name).read_text())["pad_token_id"])
    _rewrite(path / "tokenizer_config.json", eos_token=json.loads((path / "tokenizer_config.json").read_text())["pad_token"])
    return path


def _rewrite(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def save_encoder(path: Path, pooling: Literal["mean", "cls", "max"] | None, *, legacy: bool = True) -> Path:
    """A random BERT of 24 dimensions reading 32 tokens, as sentence-transformers would have saved it when `pooling` is given."""
    torch.manual_seed(11)
    words = sorted({w for text in TEXT for w in text.lower().split()})
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", model_max_length=32
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(path)
    fast.save_pretrained(path)
    if pooling is not None:
        _write_modules(path, pooling, legacy)
    return path


def _write_modules(path: Path, pooling: str, legacy: bool) -> None:
    names = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
    config = {f"pooling_mode_{v}": k == pooling for k, v in names.items()} if legacy else {"pooling_mode": pooling}
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 24} | config))
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [{"idx": i, "name": str(i), "path": p, "type": f"sentence_transformers.models.{t}"} for i, (p, t) in enumerate(kinds)]
    (path / "modules.json").write_text(json.dumps(modules))
