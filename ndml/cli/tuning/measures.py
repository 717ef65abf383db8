"""How good rankings are, and whether one is better than another on questions that taught it nothing. Pure numpy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

HELD_OUT = 1 / 3
"""Share of the questions that teach nothing."""
LEAST_TRAIN, LEAST_HELD_OUT = 40, 20
"""Different questions on either side. Of 20, four must get better and none worse for the interval to leave zero: fewer tell luck from gain
only where nearly all of them change."""
CUTOFF = 10
"""Hits that recall counts: an answer's usual length."""
DRAWS = 4_000
_BLOCK = 100
_COVERED = 0.95


class Quality(NamedTuple):
    """Of one ranking: 1 / rank of the first memory that helped (0: not found), share of those that helped among the first CUTOFF."""

    reciprocal: float
    recall: float


class Interval(NamedTuple):
    """Mean of paired differences, and the middle 95 % of its bootstrap."""

    mean: float
    low: float
    high: float


def question_of(query: str) -> str:
    """What makes two queries the same question: their words, whatever the case and the space between them."""
    return " ".join(query.casefold().split())


def held_out(question: str) -> bool:
    """Whether a question is for the comparison alone. By its hash: it stays on its side, whatever feedback comes later."""
    digest = hashlib.sha256(question.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT * 2**64


def quality(ids: Sequence[str], helpful: frozenset[str]) -> Quality:
    """Of `ids`, best first; `helpful` is not empty."""
    first = next((rank for rank, each in enumerate(ids, 1) if each in helpful), 0)
    return Quality(1 / first if first else 0.0, len(helpful.intersection(ids[:CUTOFF])) / len(helpful))


def by_question(questions: Sequence[str], values: Sequence[Quality]) -> F64:
    """[n, 2] mean qualities of each different question, in the order of their first occurrence: one asked often counts once."""
    places = {question: place for place, question in enumerate(dict.fromkeys(questions))}
    place = [places[question] for question in questions]
    total = np.zeros((len(places), len(Quality._fields)))
    np.add.at(total, place, np.array(values, np.float64).reshape(len(place), -1))
    means: F64 = total / np.bincount(place, minlength=len(places))[:, None]
    return means


def interval(differences: F64, seed: int) -> Interval:
    """Paired bootstrap of the mean of [n] differences, DRAWS times; the same seed gives the same interval."""
    random, n = np.random.default_rng(seed), len(differences)
    means = [differences[random.integers(0, n, (_BLOCK, n))].mean(axis=1) for _ in range(DRAWS // _BLOCK)]
    low, high = np.quantile(np.concatenate(means), [(1 - _COVERED) / 2, (1 + _COVERED) / 2])
    return Interval(float(differences.mean()), float(low), float(high))
