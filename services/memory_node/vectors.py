"""The vectors of a trace as one value: the sentence's, float32 of unit length, and behind it its content words', for late interaction.

They are made together, stored, copied to other nodes and checked together, so they are one column; only who compares them takes them apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ndml.errors import FieldInvalid
from ndml.v1.types_pb2 import Embedding
from services.memory_node.records import F32

MOST_WORDS = 128
"""Word vectors of one trace."""


def word_bytes(dimension: int) -> int:
    """Of one word vector: a bit a component."""
    return -(-dimension // 8)


def joined(vector: bytes, embedding: Embedding, dimension: int) -> bytes:
    """`vector`, the sentence's, checked, and the embedding's word vectors. Raises FieldInvalid."""
    found = embedding.word_vectors
    if not well_formed(len(found), dimension):
        raise FieldInvalid(
            f"{len(found)} bytes are no word vectors: send {word_bytes(dimension)} for each of {MOST_WORDS} words, or leave them out",
            field="embedding.word_vectors",
        )
    return vector + found if found else vector


def well_formed(size: int, dimension: int) -> bool:
    """Whether word vectors can have this many bytes."""
    width = word_bytes(dimension)
    return 0 <= size <= MOST_WORDS * width and size % width == 0


def sentence(value: bytes, dimension: int) -> bytes:
    """The sentence vector of a stored value."""
    return value[: 4 * dimension]


def sentences(values: Sequence[bytes], dimension: int) -> F32:
    """Sentence vectors [n, dimension] of stored values."""
    width = 4 * dimension
    return np.frombuffer(b"".join([value[:width] for value in values]), "<f4").reshape(-1, dimension)


def words(value: bytes, dimension: int) -> bytes:
    """Word vectors of a stored value, empty where it has none."""
    return value[4 * dimension :]


def show(embedding: Embedding, value: bytes, dimension: int, model: str) -> None:
    """Fill in what a caller who asks for embeddings gets."""
    embedding.vector, embedding.model = sentence(value, dimension), model
    embedding.word_vectors = words(value, dimension)
