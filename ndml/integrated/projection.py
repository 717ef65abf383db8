"""Vectors of fewer or more components than the suite's: `memory_dimension`.

The suite keeps its embedder's vectors, whole, so that nothing is lost of what is stored or found by text. At this API vectors have
`memory_dimension` components: the embedder's D, or k by a fixed k x D matrix P. A vector given is taken in by P's transpose, one that is
shown is P e.

k < D: P has orthonormal rows. What is given keeps all inner products; what is shown, at unit length, has them off by about
sqrt((1 - k / D) / k) (.054 for 192 of 384 components): good for looking, not for ranking.

k > D: P has orthonormal columns, an isometry. What is shown keeps all inner products and comes back as it was, to a float's rounding. Of a
vector from elsewhere the part in P's image is kept, D / k of its squared length on average: the cosine of two such, as they are found by,
is off by about sqrt((1 - D / k) / D) (.026 for 512 over 384).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ndml.errors import EmbeddingDimensionMismatch, FieldInvalid
from ndml.fusion.readout import Floats

SEED = 20_170_907
"""Of the matrix: the same two dimensions give the same vectors everywhere."""


MOST = 4_096
"""Components. Above this the matrix is megabytes at each start, and nearly all that a vector from elsewhere says would be lost."""


class Projection:
    """Between the suite's `full` components and the API's `dimension`."""

    def __init__(self, full: int, dimension: int | None) -> None:
        """dimension None: the suite's. Raises FieldInvalid (memory_dimension) for less than 1 and more than MOST and the suite's."""
        dimension = full if dimension is None else dimension
        if not 1 <= dimension <= max(full, MOST):
            raise FieldInvalid(
                f"memory_dimension is {dimension}, and the suite's embedder gives {full} components: of a vector of so many, hardly "
                f"anything could be stored. Give 1 to {max(full, MOST)}, leave it out, or take another embedder "
                "(memory_config.embedding_model)",
                field="memory_dimension",
            )
        self.full, self.dimension = full, dimension
        self._matrix = None if dimension == full else _orthonormal(full, dimension)

    def up(self, vector: Any) -> Floats:
        """A caller's vector (dimension,), whatever holds it, as the suite takes it (full,). Raises EmbeddingDimensionMismatch."""
        given = np.asarray(vector.detach().cpu().numpy() if hasattr(vector, "detach") else vector, np.float32)
        if given.shape != (self.dimension,):
            raise EmbeddingDimensionMismatch(
                f"the vector has shape {given.shape}: give ({self.dimension},), the memory_dimension", field="embedding"
            )
        return given if self._matrix is None else np.asarray(given @ self._matrix, np.float32)

    def down(self, vector: Floats) -> Floats:
        """A suite's vector (full,) as the caller sees it (dimension,): of length 1 where components are fewer, of its own where not."""
        if self._matrix is None:
            return vector
        shown = np.asarray(self._matrix @ vector, np.float32)
        return shown if self.dimension > self.full else np.asarray(shown / max(float(np.linalg.norm(shown)), 1e-12), np.float32)


def _orthonormal(full: int, dimension: int) -> Floats:
    """(dimension, full), orthonormal along the shorter side; the signs of QR are fixed, so that libraries agree."""
    drawn = np.random.default_rng(SEED).normal(size=(max(full, dimension), min(full, dimension)))
    q, r = np.linalg.qr(drawn)
    columns = q * np.sign(np.diag(r))
    return np.ascontiguousarray(columns if dimension > full else columns.T, np.float32)
