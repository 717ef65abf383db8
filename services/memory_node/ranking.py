"""Similarity is not all: candidates are ranked by cosine plus what salience and strength add, hits may compete. Pure numpy.

Where the query has words, signals/ ranks by all that is known; this is what stands under its dense signal, and what ranks alone where
similarity does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.homeostasis import HomeostasisOptions, compete
from ndml.v1.types_pb2 import RankingWeights, SearchMode
from services.memory_node.records import F32
from services.memory_node.signals.fusion import SignalWeights

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
    """Weights and mode unless the request says, how many candidates are ranked at least when something beside the cosine counts, read-out
    gains."""

    weights: Weights
    signals: SignalWeights
    mode: SearchMode
    candidates: int
    homeostasis: HomeostasisOptions

    def of(self, asked: RankingWeights) -> Weights:
        return Weights(*(_asked(asked, name, usual) for name, usual in zip(Weights._fields, self.weights, strict=True)))

    def asked(self, asked: RankingWeights) -> Weights:
        """The request's own, none where it does not say: what counts where the cosine ranks unless its caller wants more."""
        return Weights(*(_asked(asked, name, 0.0) for name in Weights._fields))

    def signals_of(self, asked: RankingWeights) -> SignalWeights:
        return SignalWeights(*(_asked(asked, name, usual) for name, usual in zip(SignalWeights._fields, self.signals, strict=True)))


class Signals(Protocol):
    """What a partition knows of its rows; both give [m] in 0..1."""

    def salience(self, rows: I64) -> F32: ...

    def strength(self, rows: I64) -> F32: ...


class Ranked(NamedTuple):
    """[n, k]: scores descending, their rows (-1: none), the rows' cosines, and the shares of the scores by signal."""

    scores: F32
    rows: I64
    cosines: F32
    shares: Mapping[str, F32]


def plain(cosines: F32, rows: I64) -> Ranked:
    """As the index gave them."""
    return Ranked(cosines, rows, cosines, {"dense": cosines})


def rank(cosines: F32, rows: I64, weights: Weights, signals: Signals, k: int) -> Ranked:
    """The k best of [n, m] candidates by the weighted sum; equal sums keep the order of the cosines."""
    found, position = np.unique(rows, return_inverse=True)  # each row's signals are read once, however many queries found it
    position = position.reshape(rows.shape)
    salience, strength = priors(np.maximum(found, 0), weights, signals)
    shares = {"dense": cosines, "salience": salience[position], "strength": strength[position]}
    scores = np.where(rows >= 0, sum(shares.values()), -np.inf).astype(np.float32)
    return ordered(Ranked(scores, rows, cosines, shares), np.argsort(-scores, axis=1, kind="stable")[:, :k])


def priors(rows: I64, weights: Weights, signals: Signals) -> tuple[F32, F32]:
    """[m] what salience and strength add to the cosine."""
    nothing = np.zeros(len(rows), np.float32)
    salience = weights.salience * signals.salience(rows) if weights.salience else nothing
    strength = weights.strength * signals.strength(rows) if weights.strength else nothing
    return salience.astype(np.float32), strength.astype(np.float32)


def compete_for_rank(ranked: Ranked, vectors: F32, options: HomeostasisOptions) -> Ranked:
    """Hits of a query that say the same push each other down (ndml.btsp.homeostasis); `vectors` [n, k, d] are the hits', unit."""
    after = np.stack([compete(scores, hits, options) for scores, hits in zip(ranked.scores, vectors, strict=True)])
    loss = np.where(ranked.rows >= 0, after - ranked.scores, 0).astype(np.float32)
    pushed = ranked._replace(scores=ranked.scores + loss, shares={**ranked.shares, "competition": loss})
    return ordered(pushed, np.argsort(-after, axis=1, kind="stable"))


def _asked(asked: RankingWeights, name: str, usual: float) -> float:
    return float(getattr(asked, name)) if asked.HasField(name) else usual


def ordered(ranked: Ranked, order: I64) -> Ranked:
    """Columns `order` [n, k] of every part."""

    def taken(part: F32) -> F32:
        return np.take_along_axis(part, order, axis=1)

    shares = {name: taken(share) for name, share in ranked.shares.items()}
    return Ranked(taken(ranked.scores), np.take_along_axis(ranked.rows, order, axis=1), taken(ranked.cosines), shares)
