"""Evidence recall question by question, weights chosen without the conversation they are judged on, and paired intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.quality.embedded import Embedded

F64 = NDArray[np.float64]
Scores = list[F64]
"""One array [questions, turns] for each conversation."""

RESAMPLES = 4000


@dataclass(frozen=True, slots=True)
class Gain:
    """Mean difference of two rankings over the same questions, and its 95 % interval by paired bootstrap."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"

    @property
    def helps(self) -> bool:
        return self.low > 0

    @property
    def harms(self) -> bool:
        return self.high < 0


def ranked(scores: F64) -> NDArray[np.int64]:
    """Turns of each question, best first; equal scores in order of the conversation."""
    order: NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")
    return order


def recalls(talks: Sequence[Embedded], scores: Scores, k: int = 10) -> F64:
    """Share of the evidence in the first k, percent, for every question of every conversation, [Q]."""
    found = [
        len(set(row[:k].tolist()) & set(question.evidence)) / len(question.evidence)
        for talk, matrix in zip(talks, scores, strict=True)
        for row, question in zip(ranked(matrix), talk.talk.questions, strict=True)
    ]
    return 100 * np.array(found)


def paired(after: F64, before: F64, seed: int = 0) -> Gain:
    """after - before, resampled over questions."""
    difference = after - before
    random = np.random.default_rng(seed)
    means = np.array([difference[random.integers(0, len(difference), len(difference))].mean() for _ in range(RESAMPLES)])
    low, high = np.quantile(means, [0.025, 0.975])
    return Gain(float(difference.mean()), float(low), float(high))


def conversation_of(talks: Sequence[Embedded]) -> NDArray[np.int64]:
    """Which conversation each question belongs to, [Q]."""
    return np.repeat(np.arange(len(talks)), [len(talk.talk.questions) for talk in talks])


def left_out(talks: Sequence[Embedded], candidates: Mapping[float, F64]) -> tuple[F64, list[float]]:
    """Recalls [Q] of each conversation under the weight that is best on the others, and the weights taken."""
    owner = conversation_of(talks)
    joined, picks = np.zeros(len(owner)), []
    for held in range(len(talks)):
        best = max(candidates, key=lambda weight: (float(candidates[weight][owner != held].mean()), -weight))
        joined[owner == held] = candidates[best][owner == held]
        picks.append(best)
    return joined, picks


def grid(talks: Sequence[Embedded], base: Scores, prior: Sequence[F64], weights: Sequence[float], k: int = 10) -> dict[float, F64]:
    """Recalls [Q] of base + weight * prior for each weight; a prior is [turns] or [questions, turns] of its conversation."""
    return {w: recalls(talks, [b + w * p for b, p in zip(base, prior, strict=True)], k) for w in weights}


def added(base: Scores, prior: Sequence[F64], weight: float) -> Scores:
    """base + weight * prior."""
    return [b + weight * p for b, p in zip(base, prior, strict=True)]
