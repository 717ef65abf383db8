"""A life of a memory played on LoCoMo, for want of recorded feedback: questions in random order, an hour apart, after the last session.

A question is ranked with the state left by the questions before it; then the evidence turns among the ten shown are graded 1, as an answer
that cites them would. Nothing of a question is known before it has been ranked. What is not simulated: wrong grades, missing grades,
users who ask again for what they asked for yesterday. So a gain here is one of clean feedback, and no gain says little about users with
recurring needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.credit import kernel
from ndml.btsp.plateau import CalciumTable
from ndml.btsp.state import StateBlock
from tests.quality.embedded import Embedded
from tests.quality.ranking import F64, Bools, ranked

HOUR_S = 3600.0
TURN_S = 30.0
"""Between two turns of a session. LoCoMo dates sessions, not turns: without it calcium would never decay, a session be one instant."""
REACH_TURNS = 8
"""Where the kernel of credit has fallen below .01."""
SHOWN = 10
"""Hits of a search; grades go to evidence among them."""


def lived(talk: Embedded, encoding: F64) -> StateBlock:
    """States of the turns, written when they were said with these encoding strengths [turns]."""
    block = StateBlock()
    block.append(np.zeros(len(encoding)), encoding, said_s(talk))
    return block


def said_s(talk: Embedded) -> F64:
    """When each turn was said, unix seconds [turns]."""
    turns = talk.talk.turns
    place, at = dict[str, int](), []
    for turn in turns:
        place[turn.session] = place.get(turn.session, -1) + 1
        at.append(turn.said_at.timestamp() + TURN_S * place[turn.session])
    return np.array(at)


def encodings(talk: Embedded, salience: F64) -> F64:
    """Encoding strengths 0..1 [turns] that each session's calcium gives, novelty by exact search of what was said before."""
    calcium, times = CalciumTable(), said_s(talk)
    cosines = np.tril(talk.turns @ talk.turns.T, -1).max(axis=1, initial=0.0)
    rows = zip(talk.talk.turns, talk.turns, np.clip(1.0 - cosines, 0, 1).tolist(), salience.tolist(), times.tolist(), strict=True)
    return np.array([calcium.observe(turn.session, vector, new, much, at).strength for turn, vector, new, much, at in rows])


def replayed(talk: Embedded, scores: F64, encoding: F64, *, credit: float = 0.0, grading: bool = True) -> F64:
    """Strength [q, n] of every turn at the moment each question is asked; `scores` [q, n] decide what is shown and so can be cited."""
    block, order = lived(talk, encoding), asked(talk)
    start = float(said_s(talk).max()) + 24 * HOUR_S
    shown = ranked(scores)[:, :SHOWN]
    strength = np.zeros(scores.shape)
    for step, q in enumerate(order):
        now = start + step * HOUR_S
        strength[q] = block.strength(slice(0, len(encoding)), now)
        cited = [row for row in shown[q].tolist() if row in talk.talk.questions[q].evidence]
        if grading and cited:
            block.grade(np.array(cited), np.ones(len(cited)), now)
            if credit:
                rows, amounts = spread(talk, cited)
                block.credit(rows, credit * amounts)
    return strength


def graded_by(talk: Embedded, scores: F64, asking: Bools) -> F64:
    """Strength [n] after the questions of `asking` [q] alone were asked and graded."""
    block = lived(talk, np.full(len(talk.turns), 0.5))
    now = float(said_s(talk).max()) + 24 * HOUR_S
    shown = ranked(scores)[:, :SHOWN]
    for q in (q for q in asked(talk) if asking[q]):
        cited = [row for row in shown[q].tolist() if row in talk.talk.questions[q].evidence]
        now += HOUR_S
        if cited:
            block.grade(np.array(cited), np.ones(len(cited)), now)
    return np.asarray(block.strength(slice(0, len(talk.turns)), now), np.float64)


def spread(talk: Embedded, cited: Sequence[int]) -> tuple[NDArray[np.int64], F64]:
    """Rows and kernel values that credit reaches from the cited turns: their neighbours in the same session, by turns."""
    turns, reached = talk.talk.turns, dict[int, float]()
    for row in cited:
        for other in range(max(0, row - REACH_TURNS), min(len(turns), row + REACH_TURNS + 1)):
            kappa = float(kernel(float(other - row)))
            if other != row and turns[other].session == turns[row].session and kappa > 0:
                reached[other] = max(reached.get(other, 0.0), kappa)
    rows = np.array(sorted(reached), np.int64)
    return rows, np.array([reached[row] for row in rows.tolist()])


def reuse(pairs: Sequence[tuple[Embedded, F64]]) -> tuple[F64, NDArray[np.int64]]:
    """Whether what was cited is asked for again: chance of evidence among shown turns that were not cited before, and that were; counts."""
    counts = np.zeros((2, 2), np.int64)
    for talk, scores in pairs:
        order, cited, best = asked(talk), set[int](), ranked(scores)[:, :SHOWN]
        for q in order:
            evidence = talk.talk.questions[q].evidence
            shown = best[q].tolist()
            for row in shown:
                counts[int(row in cited), int(row in evidence)] += 1
            cited |= set(shown) & set(evidence)
    return counts[:, 1] / counts.sum(axis=1), counts.sum(axis=1)


def asked(talk: Embedded, seed: int = 0) -> list[int]:
    """The questions in the order in which they are asked."""
    order = list(range(len(talk.talk.questions)))
    Random(seed).shuffle(order)
    return order
