"""Similarity is not all: candidates are ranked by cosine plus what salience and strength add, hits may compete. Pure numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.homeostasis import HomeostasisOptions, compete
from ndml.v1.types_pb2 import RankingWeights
from services.memory_node.records import F32

I64 = NDArray[np.int64]


class Weights(NamedTuple):
    """score = cosine + salience x its weight + strength x its weight."""

    salience: float
    strength: float

    @property
    def plain(self) -> bool:
        """Nothing counts but the cosine."""
        return not (self.salience or self.strength)


@dataclass(frozen=True, slots=True)
class RankingOptions:
    """Weights unless the request says, how many candidates are ranked at least when something beside the cosine counts, read-out gains."""

    weights: Weights
    candidates: int
    homeostasis: HomeostasisOptions

    def of(self, asked: RankingWeights) -> Weights:
        return Weights(
            asked.salience if asked.HasField("salience") else self.weights.salience,
            asked.strength if asked.HasField("strength") else self.weights.strength,
        )


class Signals(Protocol):
    """What a partition knows of its rows; both give [m] in 0..1."""

    def salience(self, rows: I64) -> F32: ...

    def strength(self, rows: I64) -> F32: ...


class Ranked(NamedTuple):
    """[n, k]: scores descending, their rows (-1: none), and the parts of the scores."""

    scores: F32
    rows: I64
    cosines: F32
    salience: F32
    strength: F32
    competition: F32


def plain(cosines: F32, rows: I64) -> Ranked:
    """As the index gave them."""
    nothing = np.broadcast_to(np.float32(0), cosines.shape)
    return Ranked(cosines, rows, cosines, nothing, nothing, nothing)


def rank(cosines: F32, rows: I64, weights: Weights, signals: Signals, k: int) -> Ranked:
    """The k best of [n, m] candidates by the weighted sum; equal sums keep the order of the cosines."""
    found, position = np.unique(rows, return_inverse=True)  # each row's signals are read once, however many queries found it
    position = position.reshape(rows.shape)
    real = np.maximum(found, 0)
    nothing = np.zeros(len(real), np.float32)
    salience = (weights.salience * signals.salience(real) if weights.salience else nothing)[position]
    strength = (weights.strength * signals.strength(real) if weights.strength else nothing)[position]
    scores = np.where(rows >= 0, cosines + salience + strength, -np.inf).astype(np.float32)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    none = np.broadcast_to(np.float32(0), scores.shape)
    return _ordered(Ranked(scores, rows, cosines, salience, strength, none), best)


def compete_for_rank(ranked: Ranked, vectors: F32, options: HomeostasisOptions) -> Ranked:
    """Hits of a query that say the same push each other down (ndml.btsp.homeostasis); `vectors` [n, k, d] are the hits', unit."""
    after = np.stack([compete(scores, hits, options) for scores, hits in zip(ranked.scores, vectors, strict=True)])
    loss = np.where(ranked.rows >= 0, after - ranked.scores, 0).astype(np.float32)
    return _ordered(ranked._replace(scores=ranked.scores + loss, competition=loss), np.argsort(-after, axis=1, kind="stable"))


def _ordered(ranked: Ranked, order: I64) -> Ranked:
    """Columns `order` [n, k] of every part."""
    scores, cosines, salience, strength, competition = (
        np.take_along_axis(part, order, axis=1)
        for part in (ranked.scores, ranked.cosines, ranked.salience, ranked.strength, ranked.competition)
    )
    return Ranked(scores, np.take_along_axis(ranked.rows, order, axis=1), cosines, salience, strength, competition)
