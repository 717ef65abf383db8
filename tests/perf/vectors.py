"""Vectors for benchmarks: clustered on the sphere, about as hard for an index as sentence embeddings (neighbours at cosine .5 to .8)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def clustered(rows: int, dimension: int, seed: int, *, per_cluster: int = 20, noise: float = 0.8) -> NDArray[np.float32]:
    """[rows, dimension] unit float32: rows/per_cluster random centres, each row a centre plus `noise` of the centre's length."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, rows // per_cluster), dimension), dtype=np.float32)  # [c, d]
    vectors = centres[rng.integers(0, len(centres), rows)]  # [n, d]
    vectors += noise * rng.standard_normal((rows, dimension), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors
