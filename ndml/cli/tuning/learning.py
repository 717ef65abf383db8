"""Weights out of rankings and the shares of their scores: one convex problem, solved by projected gradient. Pure numpy, deterministic.

A share is its weight times what the signal found, and a score is the sum of the shares, so scores under other weights are linear in the
multipliers of the weights. What is learned maximises the likelihood of the memories that helped under a softmax of the scores, and is
pulled towards the weights that there were: little feedback changes little. Mean reciprocal rank, which the outcome is judged by, is flat
almost everywhere; this is its smooth stand-in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

LEAST, MOST = 0.25, 4.0
"""Bounds of a multiplier. Never 0: a signal that is left out shows no share, and nothing could be learned of it again."""
_PULL = 2.0
"""Of the squared distance of multipliers from 1, against one question's log likelihood: a spread of .5 before any feedback."""
_STEPS = 300
_HALVINGS = 30
_SMALL = 1e-6
_SHARPNESS = np.geomspace(0.01, 100, 81)
"""1 / temperature of the softmax, in standard deviations of the scores."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """c candidates of one query, best first: score [c]; shares [c, s] of it by the signals that are tuned; helpful [c] which helped.

    counts: what the query weighs, 1 for a question that was asked once.
    """

    score: F64
    shares: F64
    helpful: NDArray[np.bool_]
    counts: float = 1.0


class _Problem(NamedTuple):
    """q rankings side by side, padded to c candidates: there [q, c], fixed [q, c] score beside the shares [q, c, s], wanted [q, c] with the
    sum 1, counts [q], sharpness of the softmax."""

    there: NDArray[np.bool_]
    fixed: F64
    shares: F64
    wanted: F64
    counts: F64
    sharpness: float


def rescored(ranking: Ranking, multipliers: F64) -> F64:
    """[c] scores where each tuned weight is its multiplier [s] times what it was; 1 for all gives the scores that there were."""
    scores: F64 = ranking.score + ranking.shares @ (multipliers - 1)
    return scores


def order(scores: F64) -> NDArray[np.int64]:
    """Places of candidates, best first; equal ones stay in their order."""
    return np.argsort(-scores, kind="stable")


def learned(rankings: Sequence[Ranking], now: F64) -> F64:
    """Multipliers [s] of the weights to start from, within LEAST and MOST; `now` [s]: those that the rankings were made with.

    Rankings without a memory that helped, or with nothing else, teach nothing; where all are so, `now` is returned.
    """
    teaching = [each for each in rankings if 0 < each.helpful.sum() < len(each.helpful)]
    if not teaching:
        return now
    problem = _problem(teaching)
    problem = problem._replace(sharpness=_best_sharpness(problem, now))
    at, (loss, slope), step = now, _loss(problem, now, now), 1.0
    for _ in range(_STEPS):
        after, step = _descended(problem, now, at, loss, slope, step)
        moved = float(np.abs(after - at).max())
        at, (loss, slope), step = after, _loss(problem, now, after), step * 2
        if moved < _SMALL:
            break
    return at


def _descended(problem: _Problem, now: F64, at: F64, loss: float, slope: F64, step: float) -> tuple[F64, float]:
    """The next multipliers and the step that led there: halved until the loss falls as a gradient step's must."""
    for _ in range(_HALVINGS):
        after = np.clip(at - step * slope, LEAST, MOST)
        move = after - at
        if _loss(problem, now, after)[0] <= loss + float(slope @ move) + float(move @ move) / (2 * step):
            return after, step
        step /= 2
    return at, step


def _problem(rankings: Sequence[Ranking]) -> _Problem:
    width, signals = max(len(each.score) for each in rankings), rankings[0].shares.shape[1]
    there = np.zeros((len(rankings), width), np.bool_)
    fixed, wanted, shares = np.zeros(there.shape), np.zeros(there.shape), np.zeros((*there.shape, signals))
    for row, each in enumerate(rankings):
        c = len(each.score)
        there[row, :c], shares[row, :c] = True, each.shares
        fixed[row, :c] = each.score - each.shares.sum(axis=1)
        wanted[row, :c] = each.helpful / each.helpful.sum()
    return _Problem(there, fixed, shares, wanted, np.array([each.counts for each in rankings]), 1.0)


def _best_sharpness(problem: _Problem, now: F64) -> float:
    """Of the softmax, for the rankings as they are: scores say nothing of how sure they are, and weights must not grow to say it."""
    scores = problem.fixed + problem.shares.sum(axis=2)
    spreads = [row[there].std() for row, there in zip(scores, problem.there, strict=True)]
    spread = float(np.average(spreads, weights=problem.counts))
    tried = _SHARPNESS / max(spread, _SMALL)
    losses = [_loss(problem._replace(sharpness=float(each)), now, now)[0] for each in tried]
    return float(tried[int(np.argmin(losses))])


def _loss(problem: _Problem, now: F64, at: F64) -> tuple[float, F64]:
    """Negative log likelihood of what helped, with the pull, and its slope [s] by the multipliers; convex in them."""
    scaled = problem.sharpness * (problem.fixed + problem.shares @ (at / now))
    scaled = np.where(problem.there, scaled, -np.inf)
    scaled -= scaled.max(axis=1, keepdims=True)
    raised = np.exp(scaled)
    total = raised.sum(axis=1, keepdims=True)
    likely = np.where(problem.there, scaled, 0) - np.log(total)
    loss = -float(problem.counts @ (problem.wanted * likely).sum(axis=1))
    excess = (raised / total - problem.wanted) * problem.counts[:, None]
    slope = problem.sharpness * np.einsum("qc,qcs->s", excess, problem.shares) / now
    return loss + _PULL * float(((at - 1) ** 2).sum()), slope + 2 * _PULL * (at - 1)
