"""FSRS-6: how stable a memory is and how hard, learned from graded outcomes only. Vectorised, float64, days.

Stability S: days until the chance of recall falls to 90 %. Difficulty D: 1 to 10. Rating G: 1 again, 2 hard, 3 good, 4 easy.
    recall    R(t, S) = (1 + F t/S)^-w20,  F = .9^(-1/w20) - 1
    success   S' = S (1 + e^w8 (11-D) S^-w9 (e^(w10 (1-R)) - 1) [w15 if hard] [w16 if easy])
    failure   S' = min(w11 D^-w12 ((S+1)^w13 - 1) e^(w14 (1-R)),  S / e^(w17 w18))
    same day  S' = S e^(w17 (G-3+w18)) S^-w19, not below S for a success
    start     S0 = w[G-1],  D0(G) = w4 - e^(w5 (G-1)) + 1;    D' = w7 D0(4) + (1-w7) (D - w6 (G-3) (10-D)/9)
Source: the FSRS-6 equations and default parameters of open-spaced-repetition (py-fsrs 6.3, MIT), against which the tests compare.
`graded` and `encoded` are ours: they let grades and encoding strengths lie between the four ratings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ndml.btsp.checks import F64, numbers
from ndml.errors import FieldInvalid

AGAIN, HARD, GOOD, EASY = 1, 2, 3, 4
STABILITY_MIN, DIFFICULTY_MIN, DIFFICULTY_MAX = 0.001, 1.0, 10.0
STABILITY_MAX = 36500.0  # a hundred years: the same bound that FSRS puts on intervals; keeps a million successes finite
DAY_S = 86400.0
DEFAULT_WEIGHTS = (
    *(0.212, 1.2931, 2.3065, 8.2956, 6.4133, 0.8334, 3.0194, 0.001, 1.8722, 0.1666, 0.796),
    *(1.4835, 0.0614, 0.2629, 1.6483, 0.6014, 1.8729, 0.5425, 0.0912, 0.0658, 0.1542),
)


@dataclass(frozen=True, slots=True)
class StabilityOptions:
    """Parameters of FSRS-6."""

    weights: tuple[float, ...] = DEFAULT_WEIGHTS
    """w0 .. w20. The defaults are the published fit to the reviews of about 10,000 users; there are no data to refit them on here."""

    def __post_init__(self) -> None:
        if len(self.weights) != len(DEFAULT_WEIGHTS):
            raise FieldInvalid(f"weights has {len(self.weights)} numbers: FSRS-6 takes {len(DEFAULT_WEIGHTS)}", field="weights")
        numbers(self.weights, "weights", 0.0, 100.0)
        numbers([*self.weights[:4], self.weights[20]], "weights", 1e-3, 100.0)


DEFAULTS = StabilityOptions()


def retrievability(elapsed_days: ArrayLike, stability: F64, options: StabilityOptions = DEFAULTS) -> F64:
    """R in 0..1 after `elapsed_days` without a review; a negative time (a clock that went back) counts as 0."""
    decay = -options.weights[20]
    factor = 0.9 ** (1 / decay) - 1
    recall: F64 = (1 + factor * np.maximum(elapsed_days, 0.0) / stability) ** decay
    return recall


def initial(ratings: ArrayLike, options: StabilityOptions = DEFAULTS) -> tuple[F64, F64]:
    """(S0, D0) after the first review; a rating between two whole ones takes S on the straight line of ln S between them."""
    g = numbers(ratings, "ratings", AGAIN, EASY)
    w = options.weights
    stability = np.exp(np.interp(g, (AGAIN, HARD, GOOD, EASY), np.log(w[:4])))
    return np.maximum(stability, STABILITY_MIN), np.clip(_difficulty_at_start(g, w), DIFFICULTY_MIN, DIFFICULTY_MAX)


def encoded(strengths: ArrayLike, options: StabilityOptions = DEFAULTS) -> tuple[F64, F64]:
    """(S0, D0) of a trace written with an encoding strength in 0..1: 0 as a first review that failed, 1 as an easy one."""
    return initial(1.0 + 3.0 * numbers(strengths, "strength", 0.0, 1.0), options)


def review(
    stability: F64, difficulty: F64, ratings: ArrayLike, elapsed_days: ArrayLike, options: StabilityOptions = DEFAULTS
) -> tuple[F64, F64]:
    """(S, D) after a review of each [n] with rating 1..4, `elapsed_days` after the one before; below one day the same-day rule holds.

    py-fsrs counts whole days: floor `elapsed_days` to get its numbers.
    """
    g = numbers(ratings, "ratings", AGAIN, EASY)
    elapsed = np.maximum(numbers(elapsed_days, "elapsed_days"), 0.0)
    recall = retrievability(elapsed, stability, options)
    later = np.where(g > AGAIN, _recalled(stability, difficulty, recall, g, options), _forgotten(stability, difficulty, recall, options))
    changed = np.where(elapsed < 1.0, _same_day(stability, g, options), later)
    return np.clip(changed, STABILITY_MIN, STABILITY_MAX), _next_difficulty(difficulty, g, options)


def graded(
    stability: F64, difficulty: F64, grades: ArrayLike, elapsed_days: ArrayLike, options: StabilityOptions = DEFAULTS
) -> tuple[F64, F64]:
    """(S, D) after feedback in -1..1: FSRS's "good" at 1, "again" at -1, no change at 0, in between that share of the way (S in ln S).

    Never "easy": feedback says that a memory was right, not that it came without effort.
    """
    share = numbers(grades, "grades", -1.0, 1.0)
    after_s, after_d = review(stability, difficulty, np.where(share > 0, GOOD, AGAIN), elapsed_days, options)
    weight = np.abs(share)
    return stability * (after_s / stability) ** weight, difficulty + weight * (after_d - difficulty)


def _difficulty_at_start(g: ArrayLike, w: tuple[float, ...]) -> F64:
    start: F64 = w[4] - np.exp(w[5] * (np.asarray(g) - 1.0)) + 1.0
    return start


def _recalled(s: F64, d: F64, recall: F64, g: F64, options: StabilityOptions) -> F64:
    w = options.weights
    bonus = np.where(g == HARD, w[15], 1.0) * np.where(g == EASY, w[16], 1.0)
    grown: F64 = s * (1.0 + np.exp(w[8]) * (11.0 - d) * s ** -w[9] * np.expm1((1.0 - recall) * w[10]) * bonus)
    return grown


def _forgotten(s: F64, d: F64, recall: F64, options: StabilityOptions) -> F64:
    w = options.weights
    after = w[11] * d ** -w[12] * ((s + 1.0) ** w[13] - 1.0) * np.exp((1.0 - recall) * w[14])
    shrunk: F64 = np.minimum(after, s / np.exp(w[17] * w[18]))
    return shrunk


def _same_day(s: F64, g: F64, options: StabilityOptions) -> F64:
    w = options.weights
    growth = np.exp(w[17] * (g - 3.0 + w[18])) * s ** -w[19]
    kept: F64 = s * np.where(g > AGAIN, np.maximum(growth, 1.0), growth)
    return kept


def _next_difficulty(d: F64, g: F64, options: StabilityOptions) -> F64:
    w = options.weights
    moved = d - w[6] * (g - 3.0) * (10.0 - d) / 9.0
    after: F64 = np.clip(w[7] * _difficulty_at_start(EASY, w) + (1.0 - w[7]) * moved, DIFFICULTY_MIN, DIFFICULTY_MAX)
    return after
