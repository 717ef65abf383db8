"""The small model for `builtin:entities`: it has read both forms of statement with random facts in them, so it knows how they go and none
of what they say. Made at first use, in seconds, the same each time.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ndml.disk import sync_directory
from ndml.training.entities import WORDS, facts

START, UNKNOWN = "<s>", "<unk>"
HIDDEN, LAYERS, HEADS, INNER, POSITIONS = 64, 2, 4, 192, 64
STEPS, STATEMENTS, RATE = 400, 64, 3e-3
TEMPLATE = "{{ bos_token }}{% for m in messages %}{% if m['role'] != 'system' %} {{ m['content'] }}{% endif %}{% endfor %}"


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for each word of the task."""
    vocabulary = {word: at for at, word in enumerate((START, UNKNOWN, *WORDS))}
    bare = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bare.post_processor = processors.TemplateProcessing(single=f"{START} $A", special_tokens=[(START, 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=bare, bos_token=START, unk_token=UNKNOWN)  # type: ignore[no-untyped-call]
    fast.chat_template = TEMPLATE
    return fast


def make(directory: Path, seed: int = 0) -> Path:
    """Train the model into `directory` unless it is there; some ten seconds of one core. Gives the directory."""
    if (directory / "config.json").exists():
        return directory
    draft = directory.with_name(f"{directory.name}.{os.getpid()}.part")
    shutil.rmtree(draft, ignore_errors=True)
    words = tokenizer()
    _trained(words, seed).save_pretrained(draft)
    words.save_pretrained(draft)
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft.rename(directory)
    sync_directory(directory.parent)
    return directory


def _trained(words: PreTrainedTokenizerFast, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = LlamaForCausalLM(_config())
        torch.nn.init.normal_(model.get_input_embeddings().weight)
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    for step in range(STEPS):
        random = Random(f"{seed}/syntax/{step}")
        said = facts(STATEMENTS, random, new=None)
        texts = [fact.text() if step % 2 else f"{fact.other()} {fact.value}" for fact in said]
        ids = torch.tensor(words(texts)["input_ids"])  # (B, T): all of one form have the same length
        logits = model(input_ids=ids).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def _config() -> LlamaConfig:
    return LlamaConfig(
        # At transformers' .02 and so few steps, words of one kind stay nearly alike and all answers nearly as likely: nothing to look up
        # by, and no way to say it loudly. Models that have read more than this know their words apart.
        initializer_range=0.1,
        vocab_size=len(WORDS) + 2,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=None,
    )
