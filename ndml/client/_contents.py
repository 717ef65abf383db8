"""Vectors as they travel, and what a memory holds beside its text. As in `_models.py`."""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Embedding:
    """A vector as it travels: little-endian float32, 4 bytes a component. `numpy.frombuffer(e.vector, "<f4")` reads it without a copy."""

    vector: bytes
    model: str = ""
    word_vectors: bytes = b""
    """What late interaction compares, as an export gave it. Empty: a memory with a vector of its own is found by its other signals."""

    @property
    def dimension(self) -> int:
        return len(self.vector) // 4

    def floats(self) -> array[float]:
        """The components as an array of float32, shape (dimension,)."""
        values = array("f")
        values.frombytes(self.vector)
        if sys.byteorder == "big":
            values.byteswap()
        return values


@dataclass(frozen=True, slots=True)
class Content:
    """What a memory holds beside its text: an image, a recording, a file. At most 8 a memory, together 512 KiB.

    `text` is a caption or transcript; `embeddings` name the space that each is of in `model`. Answers leave `data` out and say in
    `data_bytes` how much it is; exports have it.
    """

    media_type: str
    data: bytes = b""
    uri: str = ""
    text: str = ""
    embeddings: tuple[Embedding, ...] = ()
    data_bytes: int = 0
