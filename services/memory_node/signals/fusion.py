"""How the signals of a query become one score for each of its candidates. Pure numpy, deterministic.

Each signal is measured in standard deviations among the candidates (ranks would throw the margins away), the score is their weighted sum.
Then it spreads along the links of the sessions: what answers a question is often said beside the words that ask for it. Last, the best of
a session lift the others in it. docs/science/recall.md shows what each adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.memory_node.records import F32

I64 = NDArray[np.int64]
Flags = NDArray[np.bool_]

WIDTH = 2
"""Neighbours on either side that count."""
_DECAY = 0.8
"""What a neighbour's words count, a step away: evidence for the same thing, said beside it."""
_FORWARD, _BACK = 0.5, 0.4
"""What a link passes on, a step forward and back."""
_ASIDE, _SAME = 0.25, 0.5
"""Share of it where the link plays no role, and back to what the same speaker said."""
_BEST_OF_SESSION = 3
_STEADY = 0.15
"""Added to the spread of a word's cosines: where all are alike, their noise must not decide."""
_LEAST_SPREAD = 1e-6


class SignalWeights(NamedTuple):
    """What each signal counts; 0: it is left out, and need not be there."""

    dense: float
    lexical: float
    late: float
    late_context: float
    links: float
    session: float
    date: float
    speaker: float
    asks: float
    another: float
    slot: float
    newest: float

    def fast(self) -> SignalWeights:
        """Similarity and words alone."""
        return SignalWeights(self.dense, self.lexical, *[0.0] * (len(self) - 2))


@dataclass(frozen=True, slots=True)
class Candidates:
    """c rows that may answer a query, and what speaks for each.

    dense, lexical: [c]. words: [w, c] cosine of each of the query's w content words to the row's nearest; word_weights: [w].
    around: [c, 2 * WIDTH + 1] places of the neighbours among the candidates, -1 where there is none; the row itself is in the middle.
    speaker, session: [c] numbers, 0 for none. asks: the row holds a question; assistant: an assistant said it. dated: it was said when the
    query asks about; named: the query names who said it. another: it tells of somebody else, and who asks asks about themselves.
    """

    dense: F32
    lexical: F32
    words: F32
    word_weights: F32
    around: I64
    speaker: I64
    session: I64
    asks: Flags
    another: Flags
    assistant: Flags
    dated: Flags
    named: Flags


def fuse(candidates: Candidates, weights: SignalWeights) -> dict[str, F32]:
    """Each signal's share [c] of the score; the score is their sum. Signals without weight are not in it; "slot" and "newest" are for the
    leaders alone, see there."""
    shares = {"dense": weights.dense * _standard(candidates.dense), "lexical": weights.lexical * _standard(candidates.lexical)}
    if len(candidates.word_weights):
        late, context = _late(candidates)
        shares["late"] = weights.late * _standard(late)
        shares["late_context"] = weights.late_context * _standard(context)
    score = np.sum(list(shares.values()), axis=0)
    if weights.links:
        shares["links"] = weights.links * _spread(score, candidates)
        score = score + shares["links"]
    if weights.session:
        shares["session"] = weights.session * _session(score, candidates)
        score = score + shares["session"]
    shares |= _marks(candidates, weights, score)
    return {name: share.astype(np.float32, copy=False) for name, share in shares.items() if getattr(weights, name)}


def _marks(candidates: Candidates, weights: SignalWeights, score: F32) -> dict[str, F32]:
    """Shares of what holds of a row or does not, in standard deviations of the score; none where none of them has a weight."""
    if not (weights.date or weights.speaker or weights.asks or weights.another):
        return {}
    deviation = np.float32(score.std())
    # To an assistant people tell things by asking: "My sister turns 30, what can I give her?"
    assisted = (candidates.assistant[candidates.around] & (candidates.around >= 0)).any(axis=1)
    return {
        "date": weights.date * deviation * candidates.dated,
        "speaker": weights.speaker * deviation * candidates.named,
        "asks": -weights.asks * deviation * (candidates.asks & ~assisted),
        "another": -weights.another * deviation * candidates.another,
    }


def _standard(values: F32) -> F32:
    """`values` in standard deviations from their mean; 0 where they are all alike."""
    centred = values - values.mean()
    spread = float(np.sqrt(centred @ centred / len(centred)))
    return centred / np.float32(spread) if spread >= _LEAST_SPREAD else np.zeros_like(values)


def _late(candidates: Candidates) -> tuple[F32, F32]:
    """[c] how near the query's words come to those of the row, against the other rows, by weight; the same with its neighbours' words."""
    weights = candidates.word_weights / candidates.word_weights.sum()
    distance = np.abs(np.arange(-WIDTH, WIDTH + 1))
    decay = np.where(candidates.around >= 0, _DECAY**distance, 0).astype(np.float32)  # [c, 2 * WIDTH + 1]
    # Of one word all cosines lie close together, of another far apart: each counts by how far a row stands out.
    centred = candidates.words - candidates.words.mean(axis=1, keepdims=True)
    words = centred / (candidates.words.std(axis=1, keepdims=True) + np.float32(_STEADY))
    around = np.maximum(words[:, candidates.around], 0) * decay  # [w, c, 2 * WIDTH + 1]
    # A word that is near nothing may be below 0; its neighbours must not lift it for that.
    context = np.maximum(words, around.max(axis=2))
    return weights @ words, weights @ context


def _spread(score: F32, candidates: Candidates) -> F32:
    """[c] what each row gets from its neighbours: of what is above the mean, by how far away they are and by the role of the link."""
    gained = np.zeros_like(score)
    positive = np.maximum(score, 0)
    for step in (*range(-WIDTH, 0), *range(1, WIDTH + 1)):
        source = candidates.around[:, WIDTH + step]
        passes = np.where(source >= 0, _strength(candidates, source, step), 0)
        gained += passes * positive[source]
    return gained


def _strength(candidates: Candidates, source: I64, step: int) -> NDArray[np.float64]:
    """[c] strength of the link from the row `step` places away: below 0 it was said before.

    Between people a question leads on to the other's reply. With an assistant a reply leads back to what it replied to.
    """
    same = candidates.speaker[source] == candidates.speaker
    assisted = candidates.assistant[source] | candidates.assistant
    if step < 0:
        leads = candidates.asks[source] & ~same & ~assisted
        return np.where(leads, 1, _ASIDE) * _FORWARD**-step
    replied = candidates.assistant[source] & ~candidates.assistant & (step == 1)
    people = np.where(same, _SAME, _ASIDE) * _BACK**step
    return np.where(assisted, np.where(replied, 1, _ASIDE) * _FORWARD**step, people)


def _session(score: F32, candidates: Candidates) -> F32:
    """[c] how good the best of each row's session are, on the scale of `score`; a row without a session is one of its own."""
    alone = candidates.session == 0
    numbers = np.where(alone, -1 - np.arange(len(score)), candidates.session)
    found, place = np.unique(numbers, return_inverse=True)
    order = np.lexsort((-score, place))
    begins = np.flatnonzero(np.append(True, place[order][1:] != place[order][:-1]))
    rank = np.arange(len(order)) - np.repeat(begins, np.diff(np.append(begins, len(order))))
    best = order[rank < _BEST_OF_SESSION]
    total = np.bincount(place[best], score[best], len(found))
    mean = (total / np.bincount(place[best], minlength=len(found)))[place].astype(np.float32)
    lift: F32 = _standard(mean) * np.float32(score.std())
    return lift
