"""How good a ranking is, question by question, and how sure a difference is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tests.quality.ranking import F64, RESAMPLES, Gain, paired
from tests.quality.recall.sets import Conversation

Hits = list[list[int]]
"""For each question of a conversation the turns it was shown, best first."""
DEPTH = 20
"""Hits that are asked for."""
CUTS = (5, 10, 20)


@dataclass(frozen=True, slots=True)
class Measured:
    """Of every question of every conversation, [Q] each, percent: share of the evidence among the first k, whether any (hit) and whether
    all of it is among the first ten, and the reciprocal place of the first of it within DEPTH (times 100).
    """

    recall: dict[int, F64]
    hit: F64
    all: F64
    reciprocal: F64

    def part(self, chosen: NDArray[np.bool_]) -> Measured:
        """Of the questions where `chosen` [Q] holds."""
        recall = {k: values[chosen] for k, values in self.recall.items()}
        return Measured(recall, self.hit[chosen], self.all[chosen], self.reciprocal[chosen])

    def means(self) -> tuple[float, ...]:
        """R@5, R@10, R@20, H@10, ALL@10, MRR."""
        return tuple(float(values.mean()) for values in (*self.recall.values(), self.hit, self.all, self.reciprocal))


MEANS = ("R@5", "R@10", "R@20", "H@10", "ALL@10", "MRR")


@dataclass(frozen=True)
class Asked:
    """The questions of some conversations in one line."""

    talks: Sequence[Conversation]

    @cached_property
    def categories(self) -> NDArray[np.str_]:
        """[Q]."""
        return np.array([question.category for talk in self.talks for question in talk.questions])

    @cached_property
    def conversation(self) -> NDArray[np.int64]:
        """Which conversation a question belongs to, [Q]."""
        return np.repeat(np.arange(len(self.talks)), [len(talk.questions) for talk in self.talks])

    def measure(self, found: Sequence[Hits]) -> Measured:
        """Of the hits, one list for each conversation. Raises ValueError where hits and questions are not one to one."""
        rows = [
            _of_one(shown, question.evidence)
            for talk, hits in zip(self.talks, found, strict=True)
            for question, shown in zip(talk.questions, hits, strict=True)
        ]
        columns = np.array(rows, np.float64).T * 100
        return Measured(dict(zip(CUTS, columns, strict=False)), *columns[len(CUTS) :])


def _of_one(shown: Sequence[int], evidence: Sequence[int]) -> tuple[float, ...]:
    """0..1 each, in the order of Measured."""
    wanted = set(evidence)
    counts = [len(wanted & set(shown[:k])) / len(wanted) for k in (*CUTS, 10)]
    place = next((at for at, turn in enumerate(shown[:DEPTH], 1) if turn in wanted), 0)
    return (*counts[:-1], float(counts[-1] > 0), float(counts[-1] == 1), 1 / place if place else 0.0)


def gain(after: Measured, before: Measured, k: int) -> Gain:
    """Difference of R@k, paired over the questions, with its 95 % interval."""
    return paired(after.recall[k], before.recall[k])


def interval(values: F64, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean, by bootstrap over the questions."""
    random = np.random.default_rng(seed)
    means = [values[random.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """R@10 with the weights as shipped; with those that are best on all conversations; and with those that are best on the others."""

    shipped: float
    best: float
    left_out: float
    picks: tuple[str, ...]
    """What was best on the others, for each conversation."""
    all: dict[str, float]
    """R@10 of every candidate on all conversations."""

    @property
    def apart(self) -> float:
        """Points between the shipped weights and the honest choice among their neighbours."""
        return abs(self.left_out - self.shipped)


def left_out(asked: Asked, candidates: dict[str, Measured], shipped: str) -> LeftOut:
    """`candidates`: rankings by name, `shipped` among them; each conversation is judged with what is best on the others.

    Raises ValueError for a single conversation: then there are no others.
    """
    talks = len(asked.talks)
    if talks < 2:
        raise ValueError("leaving one conversation out takes two at least")
    values = {name: measured.recall[10] for name, measured in candidates.items()}
    result, picks = np.zeros(len(asked.conversation)), []
    for held in range(talks):
        inside = asked.conversation == held
        # Where several are as good, the shipped weights count as chosen.
        best = max(values, key=lambda name: (float(values[name][~inside].mean()), name == shipped))
        result[inside] = values[best][inside]
        picks.append(best)
    every = {name: float(each.mean()) for name, each in values.items()}
    return LeftOut(every[shipped], max(every.values()), float(result.mean()), tuple(picks), every)
