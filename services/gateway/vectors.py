"""Vectors from outside: checked, made unit length. Pure numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ndml.errors import EmbeddingDimensionMismatch, EmbeddingModelMismatch, EmbeddingNotFinite, FieldInvalid
from ndml.v1 import types_pb2
from services.gateway.ports import Embedded

_LITTLE_FLOAT32 = np.dtype("<f4")
_UNIT_TOLERANCE = 1e-6
_MOST_WORDS = 128
"""Of one text, as the llm service makes them."""


class VectorSpace:
    """The suite's vector space: `model` names it, `dimension` is its number of components."""

    def __init__(self, model: str, dimension: int) -> None:
        self.model = model
        self.dimension = dimension

    def accept(self, embeddings: Sequence[types_pb2.Embedding], field: Callable[[int], str]) -> list[bytes]:
        """Unit vectors of `embeddings`, float32 little-endian; `field(i)` is the path of the i-th in the request.

        Raises EmbeddingModelMismatch, EmbeddingDimensionMismatch, EmbeddingNotFinite.
        """
        for i, embedding in enumerate(embeddings):
            self._check_shape(embedding, field(i))
        if len(embeddings) <= 1:
            return [self._unit(embedding.vector, field(0)) for embedding in embeddings]
        rows = np.frombuffer(b"".join(e.vector for e in embeddings), _LITTLE_FLOAT32).reshape(-1, self.dimension)  # [n, d]
        norms = _norms(rows)  # [n]
        bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
        if bad.size:
            raise _not_finite(field(int(bad[0])))
        unit = (rows / norms[:, None]).astype(_LITTLE_FLOAT32, copy=False).tobytes()  # [n, d]
        width = 4 * self.dimension
        return [unit[i * width : (i + 1) * width] for i in range(len(embeddings))]

    def _unit(self, vector: bytes, path: str) -> bytes:
        """One vector, without the overhead of a batch: it is every search's way."""
        row = np.frombuffer(vector, _LITTLE_FLOAT32)  # [d]
        norm = math.sqrt(float(np.dot(row, row)))
        if not 0 < norm < math.inf:
            raise _not_finite(path)
        return vector if abs(norm - 1) < _UNIT_TOLERANCE else (row / norm).astype(_LITTLE_FLOAT32, copy=False).tobytes()

    def _check_shape(self, embedding: types_pb2.Embedding, path: str) -> None:
        if embedding.model and embedding.model != self.model:
            raise EmbeddingModelMismatch(
                f"the vector is from {embedding.model!r}, this suite embeds with {self.model!r}: send the text, or vectors of that model",
                field=f"{path}.model",
            )
        if len(embedding.vector) != 4 * self.dimension:
            raise EmbeddingDimensionMismatch(
                f"{len(embedding.vector)} bytes, expected {4 * self.dimension}: {self.dimension} float32 of model {self.model!r}",
                field=f"{path}.vector",
            )


def fill(embedding: types_pb2.Embedding, embedded: Embedded, dimension: int) -> None:
    """What is kept of an embedded text: its vector, and of its words' vectors the signs."""
    embedding.vector = embedded.vector
    if embedded.words:
        signs = np.frombuffer(embedded.words, np.int8).reshape(-1, dimension) >= 0
        embedding.word_vectors = np.packbits(signs, axis=1).tobytes()


def accept_words(embedding: types_pb2.Embedding, dimension: int, path: str) -> bytes:
    """`word_vectors` of a caller's embedding, which stands at `path`; empty: it has none. Raises FieldInvalid."""
    size, width = len(embedding.word_vectors), -(-dimension // 8)
    if size % width or size > width * _MOST_WORDS:
        raise FieldInvalid(
            f"{size} bytes, expected {width} for each of at most {_MOST_WORDS} words: give back what an export gave, or leave it out",
            field=f"{path}.word_vectors",
        )
    return embedding.word_vectors


def _not_finite(path: str) -> EmbeddingNotFinite:
    return EmbeddingNotFinite("the vector holds NaN or infinity, or its length is zero", field=f"{path}.vector")


def _norms(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        norms: NDArray[np.float32] = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    return norms


def unit_vector(vector: bytes, path: str) -> bytes:
    """A vector of whatever space, which stands at `path`, as a unit one. Raises FieldInvalid, EmbeddingNotFinite."""
    if not vector or len(vector) % 4:
        raise FieldInvalid(f"{len(vector)} bytes are no float32 components, 4 bytes each", field=f"{path}.vector")
    row = np.frombuffer(vector, _LITTLE_FLOAT32).astype(np.float64)  # [d]
    norm = float(np.sqrt(row @ row))
    if not 0 < norm < math.inf:
        raise _not_finite(path)
    return vector if abs(norm - 1) < _UNIT_TOLERANCE else (row / norm).astype(_LITTLE_FLOAT32).tobytes()
