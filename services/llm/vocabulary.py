"""Texts to token ids and back, past transformers' own calls: they cost several times what the tokenizer below them does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

_OURS = ("__call__", "_encode_plus", "decode", "_decode")  # where a tokenizer has its own, that is what is called


class Vocabulary:
    """One tokenizer. Any thread."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        tokenizer("")  # the first call clears truncation and padding that the tokenizer's file sets
        usual = all(getattr(type(tokenizer), name, None) is getattr(PreTrainedTokenizerFast, name) for name in _OURS)
        self._backend = tokenizer.backend_tokenizer if usual else None

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        """Of a text; special: with the tokens that the tokenizer sets around it."""
        found: list[int]
        if self._backend is not None:
            found = self._backend.encode(text, add_special_tokens=special).ids
        else:
            found = self._tokenizer(text, add_special_tokens=special)["input_ids"]
        return found

    def text(self, ids: Sequence[int]) -> str:
        """Without control tokens."""
        found: str
        if self._backend is not None:
            found = self._backend.decode(list(ids), skip_special_tokens=True)
        else:
            found = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return found
