"""Which of the ranked are shown where the request wants them unlike each other, or within a budget of tokens. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ndml.btsp.supersession import same_words
from services.memory_node.ranking import I64, Ranked, ordered
from services.memory_node.records import F32

TOKEN_BYTES = 4
"""What a token is taken for: of English text, by the usual tokenizers, four bytes and a little more."""


def diverse(ranked: Ranked, vectors: F32, diversity: float, k: int) -> Ranked:
    """The k best of [n, m] by maximal marginal relevance; `vectors` [n, m, d] are theirs, unit.

    A hit loses by its greatest cosine to those before it, on the scale of the query's scores: the share "diversity", at most 0. Source:
    Carbonell and Goldstein, SIGIR 1998, lambda = 1 - diversity.
    """
    count = min(k, ranked.rows.shape[1])
    order = np.zeros((len(ranked.rows), count), np.int64)
    after = np.full((len(ranked.rows), count), -np.inf, np.float32)
    for i, (scores, rows) in enumerate(zip(ranked.scores, ranked.rows, strict=True)):
        found = int((rows >= 0).sum())
        order[i], after[i, : min(found, count)] = _marginal(scores[:found], vectors[i, :found], diversity, count)
    taken = ordered(ranked, order)
    loss = np.where(taken.rows >= 0, after - taken.scores, 0).astype(np.float32)
    return taken._replace(scores=np.where(taken.rows >= 0, after, -np.inf).astype("<f4"), shares={**taken.shares, "diversity": loss})


def _marginal(scores: F32, vectors: F32, diversity: float, k: int) -> tuple[I64, F32]:
    """Places [k] of the best one after the other, then of nothing (the last), and the scores of those that there are."""
    order, after = np.full(k, len(scores) - 1, np.int64), np.empty(min(k, len(scores)), np.float32)
    if not len(scores):
        return np.zeros(k, np.int64), after
    low, spread = float(scores.min()), float(np.ptp(scores)) or 1.0
    relevance, nearest, left = (scores - low) / spread, np.zeros(len(scores), np.float32), np.ones(len(scores), np.bool_)
    for place in range(len(after)):
        marginal = np.where(left, (1 - diversity) * relevance - diversity * nearest, -np.inf)
        best = int(np.argmax(marginal))
        order[place], after[place], left[best] = best, low + spread * float(marginal[best]), False
        nearest = np.maximum(nearest, vectors @ vectors[best])
    return order, after


def within(said: Sequence[tuple[str, str]], max_tokens: int, k: int) -> list[int]:
    """Places of at most k of the (speaker, text) that fit into the budget together, in their order, none of them twice."""
    kept: list[int] = []
    seen: set[tuple[str, str]] = set()
    left = max_tokens * TOKEN_BYTES
    for place, (speaker, text) in enumerate(said):
        size, key = len(text.encode()), (speaker, same_words(text))
        if len(kept) < k and size <= left and key not in seen:
            kept.append(place)
            seen.add(key)
            left -= size
    return kept


def only(ranked: Ranked, places: Sequence[Sequence[int]]) -> Ranked:
    """Of each query the hits at these places; behind them nothing."""
    order = np.zeros((len(places), max(map(len, places), default=0)), np.int64)
    there = np.zeros(order.shape, np.bool_)
    for i, kept in enumerate(places):
        order[i, : len(kept)], there[i, : len(kept)] = kept, True
    taken = ordered(ranked, order)
    return taken._replace(scores=np.where(there, taken.scores, -np.inf).astype("<f4"), rows=np.where(there, taken.rows, -1))
