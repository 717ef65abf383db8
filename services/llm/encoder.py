"""Any Hugging Face encoder as an `Encoder`: tokenize, forward, pool, normalise. Equal to sentence-transformers within 1e-5."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from ndml.errors import ModelUnavailable
from services.llm.cores import usable_cores
from services.llm.model_files import Pooling, SentenceConfig, explained, resolve, sentence_config
from services.llm.packed import pack
from services.llm.ports import Embedding, Tokens
from services.llm.settings import EmbeddingSection
from services.llm.word_vectors import compress, word_spans

# Workers tokenise side by side already; a pool of Rust threads below each of them would fight over the same cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
_MOST_WORKERS = 16  # each holds a batch's activations; past this, run another instance
_PASS_TOKENS = {"cpu": 24, "cuda": 2048}  # a pass of MiniLM spends some 5 ms on launching, in which a core does 20 tokens, a GPU thousands
_UNBOUNDED = 1 << 24  # tokenizers that know no limit say 1e30


def pick_device(wanted: str, setting: str) -> torch.device:
    """auto: cuda where there is one. Raises ModelUnavailable where cuda is asked for and absent."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelUnavailable(f"{setting}=cuda, but torch sees no GPU here: set it to auto or cpu, or install a CUDA build of torch")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


class HuggingFaceEncoder:
    """Thread-safe after construction: a forward pass in inference mode shares nothing but the weights."""

    def __init__(self, model: str, tokenizer: Any, network: Any, config: SentenceConfig, device: torch.device) -> None:
        self._model, self._tokenizer, self._network, self._config, self._device = model, tokenizer, network, config, device
        limits = (config.max_tokens, tokenizer.model_max_length, getattr(network.config, "max_position_embeddings", None))
        self._max_tokens = min(int(limit) for limit in limits if limit and limit < _UNBOUNDED)
        self._pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self._special = frozenset(tokenizer.all_special_ids)
        # The first call also clears truncation and padding that the tokenizer's file sets; later ones, from many threads, change nothing.
        self.encode(self.tokenize(["warm"]), token_vectors=False)

    @classmethod
    def load(cls, settings: EmbeddingSection, packed: bool = True) -> HuggingFaceEncoder:
        """Read weights and tokenizer; takes seconds. packed: on a CPU, see `packed.py`. Raises ModelUnavailable."""
        model, source = resolve(settings.model)
        device = pick_device(settings.device, "embedding.device")
        dtype = torch.float16 if settings.half_precision and device.type == "cuda" else torch.float32
        with explained("embedding.model", settings.model):
            tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True)
            network = AutoModel.from_pretrained(source, dtype=dtype).to(device).eval()
            if packed:
                pack(network)
            return cls(model, tokenizer, network, sentence_config(source), device)

    @property
    def model(self) -> str:
        return self._model

    @property
    def dimension(self) -> int:
        return int(self._network.config.hidden_size)

    @property
    def max_tokens(self) -> int:
        return self._max_tokens

    @property
    def parallel(self) -> int:
        return 1 if self._device.type == "cuda" else min(usable_cores(), _MOST_WORKERS)

    @property
    def pass_tokens(self) -> int:
        return _PASS_TOKENS[self._device.type]

    def tokenize(self, texts: Sequence[str], words: Collection[int] = ()) -> list[Tokens]:
        """Cut at max_tokens, not padded; with content words for the texts at the places `words`."""
        prepared = [text.lower() if self._config.lower_case else text for text in texts]
        located = bool(words) and self._tokenizer.is_fast
        # truncation=True would set a limit in the shared Rust tokenizer, which fails while another thread reads it: cut here instead.
        encoded = self._tokenizer(
            prepared, truncation=False, padding=False, return_attention_mask=False, return_offsets_mapping=located, verbose=False
        )
        found = [self._cut(ids) for ids in encoded["input_ids"]]
        if located:
            for i in words:
                spans = word_spans(texts[i], prepared[i], encoded["offset_mapping"][i], self._kept(encoded["input_ids"][i]))
                found[i] = replace(found[i], words=spans)
        return found

    def _kept(self, ids: list[int]) -> int:
        """Tokens before the cut."""
        if len(ids) <= self._max_tokens:
            return len(ids)
        return self._max_tokens - (ids[-1] in self._special)  # [SEP] or </s> ends a cut text too

    def _cut(self, ids: list[int]) -> Tokens:
        if len(ids) <= self._max_tokens:
            return Tokens(tuple(ids), False)
        kept = self._kept(ids)
        return Tokens((*ids[:kept], *ids[len(ids) - self._max_tokens + kept :]), True)

    def encode(self, batch: Sequence[Tokens], token_vectors: bool) -> list[Embedding]:
        """One forward pass over the batch, in its order; word vectors where the tokens have words."""
        with torch.inference_mode():
            ids = pad_sequence([torch.tensor(tokens.ids) for tokens in batch], batch_first=True, padding_value=self._pad_id)  # (B, T)
            lengths = torch.tensor([len(tokens.ids) for tokens in batch])
            mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long().to(self._device)  # (B, T)
            hidden = self._network(input_ids=ids.to(self._device), attention_mask=mask).last_hidden_state.float()  # (B, T, D)
            vectors = normalize(pool(hidden, mask, self._config.pooling), dim=1).cpu().numpy()  # (B, D)
            words = compress(hidden, [tokens.words for tokens in batch])
            rows = hidden.cpu().numpy() if token_vectors else None
        return [
            Embedding(vectors[i], None if rows is None else np.ascontiguousarray(rows[i, : len(tokens.ids)]), tokens, words[i])
            for i, tokens in enumerate(batch)
        ]


def pool(hidden: torch.Tensor, mask: torch.Tensor, how: Pooling) -> torch.Tensor:
    """Token vectors (B, T, D) and mask (B, T) of 0 and 1 to sentence vectors (B, D), padding left out."""
    if how == "cls":
        return hidden[:, 0]
    if how == "max":
        return hidden.masked_fill(mask[:, :, None] == 0, float("-inf")).amax(dim=1)
    weights = mask[:, :, None].to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)
