"""What keeps a store's signals in range, as gains applied where a value is read: nothing is rescaled in place, so each costs O(1) a read.

Each is off by default (rate or strength 0). The ablation (`tests/quality/ablation.py`) says what one has to show to be switched on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ndml.errors import FieldInvalid

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
_Float = TypeVar("_Float", bound=np.floating)


@dataclass(frozen=True, slots=True)
class HomeostasisOptions:
    """Rates of the three mechanisms; 0 switches one off."""

    scaling_rate: float = 0.0
    """Share of the gap to `target_salience` that the node's log-gain closes with each observation."""
    target_salience: float = 0.5
    """Mean salience after scaling: the middle of 0..1, so that ranking neither saturates nor vanishes as an owner's texts grow alike."""
    most_gain: float = 4.0
    """Bound of the gain in both directions: a node of nothing but small talk must not look like one of news."""
    usage_rate: float = 0.0
    """Step of the bias of a code unit towards mean use, in units of its input for each unit of relative overuse."""
    most_usage: float = 5.0
    """Times the mean use above which a unit counts as overused in `overused`."""
    competition_strength: float = 0.0
    """Share of the gap that a stronger, similar trace takes from a weaker one at retrieval; the seed had .1."""
    competition_from: float = 0.8
    """Cosine from which two traces compete: those that say the same."""

    def __post_init__(self) -> None:
        shares = (self.scaling_rate, self.usage_rate, self.competition_strength)
        if any(not 0.0 <= share <= 1.0 for share in shares):
            raise FieldInvalid("rates and competition_strength lie between 0 and 1", field="homeostasis")
        if not 0.0 < self.target_salience <= 1.0 or self.most_gain < 1.0 or self.most_usage < 1.0:
            raise FieldInvalid("target_salience in (0, 1], most_gain and most_usage at least 1", field="homeostasis.target_salience")
        if not -1.0 <= self.competition_from < 1.0:
            raise FieldInvalid("competition_from is a cosine below 1", field="homeostasis.competition_from")


class LogGain:
    """Multiplicative scaling: one number for all traces of a node, moved by what is written, applied where salience is read."""

    def __init__(self, options: HomeostasisOptions, log_gain: float = 0.0) -> None:
        self._options = options
        self.log_gain = log_gain

    def observe(self, salience: float) -> float:
        """Take one trace's salience into account; the gain afterwards. A salience of 0 or NaN says nothing about scale."""
        options = self._options
        if options.scaling_rate and salience > 0:
            gap = math.log(options.target_salience / salience) - self.log_gain
            bound = math.log(options.most_gain)
            self.log_gain = min(bound, max(-bound, self.log_gain + options.scaling_rate * gap))
        return math.exp(self.log_gain)

    def observe_all(self, salience: Sequence[float]) -> None:
        """One trace after the other; free where scaling is off."""
        if self._options.scaling_rate:
            for one in salience:
                self.observe(one)

    def apply(self, salience: NDArray[_Float]) -> NDArray[_Float]:
        """Salience [n] as read, clipped to 1. Order is kept wherever it does not saturate."""
        return np.minimum(salience * salience.dtype.type(math.exp(self.log_gain)), 1.0) if self.log_gain else salience


class UsageEqualiser:
    """Bias of each code unit against overuse: units that always win are shared by all codes and tell nothing."""

    def __init__(self, units: int, options: HomeostasisOptions) -> None:
        self._options = options
        self.uses = np.zeros(units, np.int64)
        self.bias = np.zeros(units, np.float64)

    def observe(self, codes: NDArray[np.integer]) -> None:
        """Count active units of codes [n, I] and move the biases: b -= rate (u / mean(u) - 1). No effect at rate 0 but the count."""
        np.add.at(self.uses, codes.ravel(), 1)
        mean = self.uses.mean()
        if self._options.usage_rate and mean > 0:
            # Biases sum to about zero: they move wins between units and leave the mean input where it is.
            self.bias -= self._options.usage_rate * (self.uses / mean - 1.0)

    def overused(self) -> NDArray[np.int64]:
        """Units used more than `most_usage` times the mean."""
        return np.flatnonzero(self.uses > self._options.most_usage * max(self.uses.mean(), np.finfo(np.float64).tiny))


def compete(scores: F32, vectors: F32, options: HomeostasisOptions) -> F32:
    """Scores [k] of the hits of one search after competition; `vectors` [k, d] are their unit vectors. O(k^2 d), k is a page of hits.

    a_i -= strength * sum_j max(0, cos_ij - from) max(0, a_j - a_i): of hits that say the same, the strongest pushes the others down.
    """
    if not options.competition_strength or len(scores) < 2:
        return scores
    alike = np.maximum(vectors @ vectors.T - np.float32(options.competition_from), 0)  # [k, k]
    ahead = np.maximum(scores[None, :] - scores[:, None], 0)  # [k, k], how far j is ahead of i
    loss: F32 = options.competition_strength * (alike * ahead).sum(axis=1, dtype=np.float32)
    return np.asarray(scores - loss, np.float32)
