"""Rankings that are compared: through the API, each one signal more than the row before it, and references in numpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from Stemmer import Stemmer

from ndml.btsp.salience import STOP_WORDS, WORD
from ndml.client import NdmlClient, NewMemory, Query, RankingWeights, SearchMode
from ndml.language.sentences import spoken
from services.memory_node.settings import RankingSection
from tests.quality.embedded import embed
from tests.quality.recall.measures import DEPTH, Hits
from tests.quality.recall.sets import Conversation

F64 = NDArray[np.float64]
_K1, _B = 1.2, 0.75  # the textbook's
_RRF = 60
_CHUNK_S = 300.0  # a chunk is hundreds of texts to embed: seconds of a free core, more of a shared one
_ADDED = {
    "late": "+ late interaction",
    "late_context": "+ late interaction in context",
    "links": "+ links of the session",
    "session": "+ session",
    "date": "+ date",
    "speaker": "+ speaker",
    "asks": "+ less for questions",
    "another": "+ less for other people",
    "slot": "+ the property asked for",
    "newest": "full: + the newer first",
}
"""Signals of the full mode beyond the fast one, in the order in which the rows add them."""
FULL = _ADDED["newest"]
SIGNALS = ("dense", "lexical", *_ADDED)


@dataclass(frozen=True, slots=True)
class Way:
    """A row: how SearchMemories is asked to rank. Weights that are None are the suite's own."""

    name: str
    mode: SearchMode
    weights: RankingWeights = field(default_factory=RankingWeights)


def _ladder() -> list[Way]:
    """The full mode with the first of the added signals, the first two, ...; the others out."""
    names = list(_ADDED)
    without = [dict.fromkeys(names[count:], 0.0) for count in range(1, len(names) + 1)]
    return [Way(_ADDED[name], SearchMode.FULL, RankingWeights(**out)) for name, out in zip(names, without, strict=True)]


FAST = "fast: + words"
WAYS = (
    Way("dense", SearchMode.DENSE, RankingWeights(salience=0.0, strength=0.0)),
    Way("dense + salience", SearchMode.DENSE),
    Way(FAST, SearchMode.FAST),
    *_ladder(),
)
REFERENCES = ("cosine, numpy", "BM25, numpy", "RRF of the two, numpy")
"""Offline, in the same run."""


def neighbours() -> list[Way]:
    """The full ranking with one of the shipped weights halved or doubled; a signal that ships without weight has none."""
    shipped, found = RankingSection(), []
    for signal in SIGNALS:
        weight = float(getattr(shipped, signal))
        for factor in (0.5, 2.0) if weight else ():
            most = 1.0 if signal == "newest" else 10.0
            found.append(Way(f"{signal} x {factor:g}", SearchMode.FULL, RankingWeights(**{signal: min(most, weight * factor)})))
    return found


class Stored:
    """A conversation written through the public API for a user of its own, and searched there."""

    def __init__(self, address: str, talk: Conversation) -> None:
        """Writes it. Raises NdmlError where the suite refuses."""
        self._address, self._talk = address, talk
        with self._client() as client:
            new = [NewMemory(t.text, speaker=t.speaker, said_at=t.said_at, session=t.session) for t in talk.turns]
            self._at = {added.trace_id: place for place, added in enumerate(client.add_many(new))}

    def hits(self, way: Way) -> Hits:
        """DEPTH turns for each question, best first. Raises NdmlError."""
        queries = [Query(question.text, k=DEPTH, mode=way.mode, weights=way.weights) for question in self._talk.questions]
        with self._client() as client:
            return [[self._at[hit.memory.trace_id] for hit in result] for result in client.search_many(queries)]

    def _client(self) -> NdmlClient:
        return NdmlClient(self._address, user=self._talk.name, timeout_s=_CHUNK_S)


def offline(talk: Conversation) -> dict[str, Hits]:
    """What each of REFERENCES finds for each question, exact, with the same embedding model."""
    texts, asked = [spoken(turn.speaker, turn.text) for turn in talk.turns], [question.text for question in talk.questions]
    cosines = (embed(asked) @ embed(texts).T).astype(np.float64)  # [q, n]
    words = bm25(texts, asked)
    ranks = [np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1) for scores in (cosines, words)]
    fused = sum(1 / (_RRF + 1 + rank) for rank in ranks)
    return {name: _best(scores) for name, scores in zip(REFERENCES, (cosines, words, np.asarray(fused)), strict=True)}


def bm25(texts: Sequence[str], queries: Sequence[str]) -> F64:
    """Textbook scores [q, n]: stop words out, Snowball stems, every word of the query once."""
    stemmer = Stemmer("english")

    def terms(text: str) -> list[str]:
        return stemmer.stemWords([word for word in WORD.findall(text.lower()) if word not in STOP_WORDS])  # type: ignore[no-any-return]

    documents = [Counter(terms(text)) for text in texts]
    place = {term: column for column, term in enumerate(dict.fromkeys(term for found in documents for term in found))}
    counts = np.zeros((len(texts), len(place)))
    for row, found in enumerate(documents):
        counts[row, [place[term] for term in found]] = list(found.values())
    lengths, holding = counts.sum(axis=1, keepdims=True), (counts > 0).sum(axis=0)
    rarity = np.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
    weights = rarity * counts * (_K1 + 1) / (counts + _K1 * (1 - _B + _B * lengths / max(1.0, float(lengths.mean()))))
    asked = np.zeros((len(queries), len(place)))
    for row, query in enumerate(queries):
        asked[row, [place[term] for term in set(terms(query)) if term in place]] = 1
    scores: F64 = asked @ weights.T
    return scores


def _best(scores: F64) -> Hits:
    found: Hits = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH].tolist()
    return found
