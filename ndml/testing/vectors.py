"""Unit vectors that are as hard to search as sentence embeddings, from a seed.

Calibrated on all-MiniLM-L6-v2 over 2,760 dialogue turns and 999 questions about them (LoCoMo dev), real / here:
length of the mean .54 / .55; participation ratio of the spectrum 54 / 66; similarity of a question to its 1st, 10th, 100th and 1,000th
neighbour .63 .50 .37 .17 / .61 .47 .36 .22; candidates of a 4-bit product quantiser (4 dimensions each) that hold 99 % of the true top
ten 46 / 51 at 2,760 rows and 28 / 25 at 690. Slightly harder, then. Unclustered Gaussian vectors would be far from it: all alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

ROWS_PER_TOPIC = 15
COMMON = 0.54
"""Share of the direction that all vectors have in common."""
TOPIC = 0.4
"""Share of the remaining variance that a topic explains."""
TOPIC_DECAY, OWN_DECAY, KNEE = 1.3, 1.1, 6.0
"""Spectra of topics and of what is a row's own: eigenvalue i is (i + KNEE) ** -decay."""
OTHER = 0.6
"""How far a query stands off the row it is about."""


def sentence_like(rows: int, queries: int, *, dimension: int = 384, seed: int = 0) -> tuple[F32, F32]:
    """(vectors [rows, dimension], queries [queries, dimension]), unit float32; each query is about one random row."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0].astype(np.float32)
    topics = _gaussian(rng, max(1, rows // ROWS_PER_TOPIC), dimension, TOPIC_DECAY)
    common = _unit(_gaussian(rng, 1, dimension, TOPIC_DECAY))
    vectors = _unit(np.float32(COMMON) * common + np.float32(np.sqrt(1 - COMMON**2)) * _about(rng, topics, rows))
    asked = vectors[rng.integers(0, max(1, rows), queries)] if rows else np.zeros((queries, dimension), np.float32)
    other = np.float32(0.9 * OTHER) * _about(rng, topics, queries)
    return _unit(vectors @ turn), _unit((np.float32(1 - OTHER) * asked + other) @ turn)


def _about(rng: np.random.Generator, topics: F32, rows: int) -> F32:
    own = _gaussian(rng, rows, topics.shape[1], OWN_DECAY)
    own *= np.float32(np.sqrt(1 - TOPIC))
    own += np.float32(np.sqrt(TOPIC)) * topics[rng.integers(0, len(topics), rows)]
    return own


def _gaussian(rng: np.random.Generator, rows: int, dimension: int, decay: float) -> F32:
    spectrum = (np.arange(dimension) + KNEE) ** -decay
    return np.asarray(rng.standard_normal((rows, dimension), dtype=np.float32) * np.sqrt(spectrum / spectrum.sum()), dtype=np.float32)


def _unit(vectors: F32) -> F32:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)
