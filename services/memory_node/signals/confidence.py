"""How sure a search is that its first hits hold what was asked for. Scores cannot say: they compare within one answer only.

How near each of the query's content words comes to some word of a hit is a cosine, whatever else the owner has; its mean over the words,
each by its rarity in this owner's memories, is on one scale for every query. The logistic was fitted to whether evidence was among the
first ten, on LoCoMo, task logs and review threads and on questions about somebody else's memories (docs/recall.md, "Confidence"). It is of
all-MiniLM-L6-v2: another model's cosines may keep its order, not its scale.
"""

from __future__ import annotations

import math

import numpy as np

from services.memory_node.records import F32

LOOKED_AT = 5
"""Hits that are looked at: the best of them counts."""
_OFFSET, _SLOPE = -5.36, 13.29


def confidence(similarities: F32, weights: F32) -> float | None:
    """0 to 1. similarities [w, m]: cosines of the query's words to those of the first m hits; weights [w] of the words. None: there is no
    word or no hit to judge by."""
    if not similarities.size:
        return None
    nearest = float(np.max(weights @ similarities[:, :LOOKED_AT])) / float(weights.sum())
    return 1 / (1 + math.exp(-(_OFFSET + _SLOPE * nearest)))
