"""Evidence recall question by question, weights chosen without the conversation they are judged on, and paired intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.salience import DocumentFrequencies, salience01
from tests.quality.embedded import Embedded

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
Scores = list[F64]
"""One array [questions, turns] for each conversation."""

CUTS = (5, 10)
"""Hits that recall is looked at in."""
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


@dataclass(frozen=True)
class Bench:
    """Conversations, and what rankings of them share. Each list has one entry for each conversation."""

    talks: Sequence[Embedded]

    @cached_property
    def dense(self) -> Scores:
        """Cosine of question and turn."""
        return [(talk.questions @ talk.turns.T).astype(np.float64) for talk in self.talks]

    @cached_property
    def information(self) -> list[F64]:
        """Nats [turns], each against the turns before it."""
        return [DocumentFrequencies().observe_many(turn.text for turn in talk.talk.turns) for talk in self.talks]

    @cached_property
    def salience(self) -> list[F64]:
        """0..1, [turns]."""
        return [salience01(nats) for nats in self.information]

    def with_salience(self, weight: float) -> Scores:
        """Cosine + weight * salience."""
        return added(self.dense, self.salience, weight)

    def evidence_kept(self, kept: Sequence[Bools]) -> float:
        """Share of the evidence that is among the kept turns, averaged over questions."""
        pairs = zip(self.talks, kept, strict=True)
        return float(np.mean([rows[list(question.evidence)].mean() for talk, rows in pairs for question in talk.talk.questions]))


def ranked(scores: F64) -> NDArray[np.int64]:
    """Turns of each question, best first; equal scores in order of the conversation."""
    order: NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")
    return order


@dataclass(frozen=True, slots=True)
class Recalls:
    """Share of the evidence among the first five and the first ten hits, percent, for every question of every conversation, [Q]."""

    at5: F64
    at10: F64


def recalls(talks: Sequence[Embedded], scores: Scores) -> Recalls:
    """Of the turns in the order of their scores."""
    return recalls_of(talks, [ranked(matrix)[:, : max(CUTS)].tolist() for matrix in scores])


def recalls_of(talks: Sequence[Embedded], hits: Sequence[Sequence[Sequence[int]]]) -> Recalls:
    """Of the turns that each question of each conversation was shown, best first."""
    at5, at10 = (
        np.array(
            [
                100 * len(set(shown[:k]) & set(question.evidence)) / len(question.evidence)
                for talk, rows in zip(talks, hits, strict=True)
                for shown, question in zip(rows, talk.talk.questions, strict=True)
            ]
        )
        for k in CUTS
    )
    return Recalls(at5, at10)


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


def left_out(talks: Sequence[Embedded], candidates: Mapping[float, Recalls]) -> tuple[Recalls, list[float]]:
    """Recalls of each conversation under the weight whose R@10 is best on the others, and the weights taken."""
    owner = conversation_of(talks)
    at5, at10, picks = np.zeros(len(owner)), np.zeros(len(owner)), []
    for held in range(len(talks)):
        best = max(candidates, key=lambda weight: (float(candidates[weight].at10[owner != held].mean()), -weight))
        at5[owner == held] = candidates[best].at5[owner == held]
        at10[owner == held] = candidates[best].at10[owner == held]
        picks.append(best)
    return Recalls(at5, at10), picks


def added(base: Scores, prior: Sequence[F64], weight: float) -> Scores:
    """base + weight * prior."""
    return [b + weight * p for b, p in zip(base, prior, strict=True)]


def only(kept: Sequence[Bools], scores: Scores) -> Scores:
    """The scores of the kept turns; the others are not found."""
    return [np.where(rows, matrix, -np.inf) for rows, matrix in zip(kept, scores, strict=True)]
