"""Vectors of fewer components than the suite's: `memory_dimension`.

The suite keeps its embedder's vectors, whole, so that nothing is lost of what is stored or found by text. At this API vectors have
`memory_dimension` components: the embedder's, or fewer by a fixed matrix P with orthonormal rows. A vector given is taken up by P's
transpose, which changes no inner product between given ones; one that is shown is P e at unit length. The inner product of two shown ones
then differs from the true one by about sqrt((1 - k / D) / k) (.054 for 192 of 384 components): good for looking, not for ranking.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ndml.errors import EmbeddingDimensionMismatch, FieldInvalid
from ndml.fusion.readout import Floats

SEED = 20_170_907
"""Of the matrix: the same two dimensions give the same vectors everywhere."""


class Projection:
    """Between the suite's `full` components and the API's `dimension`."""

    def __init__(self, full: int, dimension: int | None) -> None:
        """dimension None: the suite's. Raises FieldInvalid (memory_dimension) for more than the embedder gives."""
        dimension = full if dimension is None else dimension
        if not 1 <= dimension <= full:
            raise FieldInvalid(
                f"memory_dimension is {dimension}, and the suite's embedder gives {full} components: a vector of more could not be stored. "
                f"Give 1 to {full}, leave it out, or take an embedder that gives as many (memory_config.embedding_model)",
                field="memory_dimension",
            )
        self.full, self.dimension = full, dimension
        self._rows = _orthonormal(full, dimension) if dimension < full else None

    def up(self, vector: Any) -> Floats:
        """A caller's vector (dimension,), whatever holds it, as the suite takes it (full,). Raises EmbeddingDimensionMismatch."""
        given = np.asarray(vector.detach().cpu().numpy() if hasattr(vector, "detach") else vector, np.float32)
        if given.shape != (self.dimension,):
            raise EmbeddingDimensionMismatch(
                f"the vector has shape {given.shape}: give ({self.dimension},), the memory_dimension", field="embedding"
            )
        return given if self._rows is None else np.asarray(given @ self._rows, np.float32)

    def down(self, vector: Floats) -> Floats:
        """A suite's vector (full,) as the caller sees it (dimension,), of length 1."""
        if self._rows is None:
            return vector
        shown = self._rows @ vector
        return np.asarray(shown / max(float(np.linalg.norm(shown)), 1e-12), np.float32)


def _orthonormal(full: int, dimension: int) -> Floats:
    """(dimension, full); the signs of QR are fixed, so that libraries agree."""
    drawn = np.random.default_rng(SEED).normal(size=(full, dimension))
    q, r = np.linalg.qr(drawn)
    return np.ascontiguousarray((q * np.sign(np.diag(r))).T, np.float32)
