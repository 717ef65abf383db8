"""Ranking by every signal: candidates from similarity and from words, their neighbours in the session, one score for each.

What is read per query is bounded: some hundred candidates, whatever the owner has. Belongs to the engine's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ndml.btsp.asked import asked_slots
from ndml.btsp.slots import SPEAKER
from ndml.internal.v1.memory_node_pb2 import QueryText
from ndml.language.statements import asks_about_the_asker, asks_what_holds
from services.memory_node.columns import Columns
from services.memory_node.filters import Mask
from services.memory_node.index import AdaptiveIndex
from services.memory_node.ranking import I64, Ranked, Signals, Weights, priors
from services.memory_node.records import F32
from services.memory_node.signals.confidence import LOOKED_AT, confidence
from services.memory_node.signals.evidence import Evidence
from services.memory_node.signals.fusion import WIDTH, Candidates, SignalWeights, fuse
from services.memory_node.signals.late import query_words
from services.memory_node.signals.leaders import COMPARED, READ, Leaders, of_own, renewed, tells
from services.memory_node.signals.lexical import Matches
from services.memory_node.signals.understanding import Understood, understood

_DECIMALS = 4
"""Scores that agree so far are equal: the newer comes first. Single precision has no more of a sum of ten signals."""
_LEAST_WEIGHT = 0.05
"""Of a query's word that nearly every memory has."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What of an owner's partition a ranking reads; allowed: rows that may be found, None: all; now_us: the time of the search; texts:
    (speaker, text) of rows, from the store."""

    index: AdaptiveIndex
    columns: Columns
    evidence: Evidence
    signals: Signals
    allowed: Mask | None
    now_us: int
    texts: Callable[[I64], Sequence[tuple[str, str]]]


@dataclass(slots=True)
class Spent:
    """Milliseconds of a group of queries: looking words up, late interaction, one score out of all. confidence: of each query, in their
    order; None where words were not compared."""

    lexical_ms: float = 0.0
    late_ms: float = 0.0
    fuse_ms: float = 0.0
    confidence: list[float | None] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Retrieval:
    """weights: of the signals; priors: beside the cosine. k: hits, candidates: of each signal at least. as_of: the request chooses the
    time itself, by a filter: what it calls past is what is asked for, and days that the query names say nothing more."""

    memory: Memory
    weights: SignalWeights
    priors: Weights
    k: int
    candidates: int
    as_of: bool = False

    def rank(self, texts: Sequence[QueryText], vectors: F32, near: I64, spent: Spent) -> Ranked:
        """The k best rows for each query; `vectors` [n, d] are theirs, `near` [n, m] what similarity found (-1: nothing)."""
        each = [self._one(text, vector, rows[rows >= 0], spent) for text, vector, rows in zip(texts, vectors, near, strict=True)]
        width = max((len(rows) for rows, _, _ in each), default=0)
        rows, cosines = np.full((len(each), width), -1, np.int64), np.zeros((len(each), width), np.float32)
        shares: dict[str, F32] = {}
        for i, (found, near_to, parts) in enumerate(each):
            rows[i, : len(found)], cosines[i, : len(found)] = found, near_to
            for name, part in parts.items():
                shares.setdefault(name, np.zeros(rows.shape, np.float32))[i, : len(found)] = part
        total = np.sum(list(shares.values()), axis=0) if shares else np.zeros(rows.shape)
        return Ranked(np.where(rows >= 0, total, -np.inf).astype("<f4"), rows, cosines, shares)

    def _one(self, text: QueryText, vector: F32, near: I64, spent: Spent) -> tuple[I64, F32, dict[str, F32]]:
        """Best rows [<= k], their cosines and their shares."""
        began = time.perf_counter()
        query = understood(text.text, self.memory.columns, self.memory.now_us)
        postings = self.memory.evidence.postings
        matches = postings.match([*query.terms, *postings.added(text.text)])
        rows, around = self._neighbourhood(self._found(query, matches, vector, near))
        if not len(rows):
            spent.confidence.append(None)
            return rows, np.empty(0, np.float32), {}
        lexical = matches.of(rows)
        looked_up = time.perf_counter()
        similarities, weights = self._late(text, query, rows)
        compared = time.perf_counter()
        columns, evidence = self.memory.columns, self.memory.evidence
        speaker, cosines = columns.ints("speaker")[rows], np.clip(self.memory.index.reconstruct(rows) @ vector, -1, 1)
        candidates = Candidates(
            dense=cosines + sum(priors(rows, self.priors, self.memory.signals)),
            lexical=lexical,
            words=similarities,
            word_weights=weights,
            around=around,
            speaker=speaker,
            session=columns.ints("session")[rows],
            asks=evidence.asks(rows),
            another=evidence.of_another(rows) & asks_about_the_asker(query.text, alone=True),
            assistant=evidence.assistant(rows),
            dated=query.said(columns.ints("said_at_us")[rows]) & ~np.bool_(self.as_of),
            named=query.named(speaker, columns.strings) if self.weights.speaker else np.zeros(len(rows), np.bool_),
        )
        shares = fuse(candidates, self.weights)
        score = np.sum(list(shares.values()), axis=0) if shares else np.zeros(len(rows), np.float32)
        shares |= self._looked_at(query, rows, candidates, score)
        score = np.round(np.sum(list(shares.values()), axis=0), _DECIMALS) if shares else score
        order = np.lexsort((-columns.ints("said_at_us")[rows], -score))
        best = order[: self.k]
        spent.confidence.append(confidence(similarities[:, order[:LOOKED_AT]], weights))
        spent.lexical_ms += (looked_up - began) * 1e3
        spent.late_ms += (compared - looked_up) * 1e3
        spent.fuse_ms += (time.perf_counter() - compared) * 1e3
        return rows[best], cosines[best], {name: share[best] for name, share in shares.items()}

    def _looked_at(self, query: Understood, rows: I64, candidates: Candidates, score: F32) -> dict[str, F32]:
        """Shares [c] of the signals that look at the leaders alone."""
        columns, shares = self.memory.columns, dict[str, F32]()
        said, told = columns.ints("said_at_us")[rows], np.zeros(len(rows), np.bool_)
        wanted = asked_slots(query.text) if self.weights.slot else frozenset()
        own = any(slot.whose == SPEAKER for slot in wanted)
        if wanted:
            read, deviation = np.argsort(-score, kind="stable")[:READ], np.float32(score.std())
            texts = self.memory.texts(rows[read])
            told[read] = tells(wanted, texts) & (said[read] <= query.until)
            shares["slot"] = (self.weights.slot * deviation * told).astype(np.float32)
            score = score + shares["slot"]
            if own and self.weights.another and not candidates.another.any():
                # Who asks for their dentist asks for nobody else's.
                strangers = self.memory.evidence.of_another(rows[read]) & ~told[read] & ~of_own(wanted, texts)
                shares["another"] = np.zeros(len(rows), np.float32)
                shares["another"][read] = -self.weights.another * deviation * strangers
                score = score + shares["another"]
        if self.weights.newest and asks_what_holds(query.text, then=self.as_of or bool(query.spans), own=own):
            best = np.argsort(-score, kind="stable")[:COMPARED]
            apart = candidates.asks[best] | candidates.another[best]
            leaders = Leaders(self.memory.index.reconstruct(rows[best]), said[best], candidates.speaker[best], apart, told[best])
            shares["newest"] = np.zeros(len(rows), np.float32)
            shares["newest"][best] = self.weights.newest * (renewed(score[best], leaders, query.until) - score[best])
        return shares

    def _found(self, query: Understood, matches: Matches, vector: F32, near: I64) -> I64:
        """Rows that similarity or words find, where the query names days also the nearest of those that were said then; ascending."""
        memory = self.memory
        _, worded = matches.best(self.candidates, memory.allowed)
        if not (query.spans and self.weights.date) or self.as_of:
            return np.union1d(near, worded)
        then = query.said(memory.columns.ints("said_at_us"))
        allowed = then if memory.allowed is None else then & memory.allowed
        _, dated = memory.index.search(vector[None], min(self.candidates, len(then)), allowed)
        _, both = matches.best(self.candidates, allowed)
        return np.unique(np.concatenate([near, worded, dated[dated >= 0], both]))

    def _neighbourhood(self, found: I64) -> tuple[I64, I64]:
        """`found` and the rows around them, ascending, and for each of these the places of those around it among them, -1: not there."""
        if not (self.weights.links or self.weights.late_context):
            alone = np.full((len(found), 2 * WIDTH + 1), -1, np.int64)
            alone[:, WIDTH] = np.arange(len(found))
            return found, alone
        sessions, columns = self.memory.evidence.sessions, self.memory.columns
        near = sessions.around(found, WIDTH, columns)
        rows = np.unique(near[near >= 0])
        if self.memory.allowed is not None:
            rows = rows[self.memory.allowed[rows]]
        around = sessions.around(rows, WIDTH, columns)
        place = np.minimum(np.searchsorted(rows, around), max(len(rows) - 1, 0))
        return rows, np.where((around >= 0) & (rows[place] == around), place, -1) if len(rows) else around

    def _late(self, text: QueryText, query: Understood, rows: I64) -> tuple[F32, F32]:
        """[w, c] cosines of the query's words to those of the rows, and the words' weights [w]."""
        evidence = self.memory.evidence
        vectors = query_words(text.word_vectors, evidence.words.dimension)
        words = [(word, place) for word, place in query.words if place < len(vectors)]
        if not (self.weights.late or self.weights.late_context) or not words:
            return np.empty((0, len(rows)), np.float32), np.empty(0, np.float32)
        # A word of several terms, where the script has no spaces, is as rare as the rarest of them.
        starts = np.cumsum([0, *(len(word.terms) for word, _ in words[:-1])])
        idf = np.maximum.reduceat(evidence.postings.idfs([term for word, _ in words for term in word.terms]), starts)
        found = evidence.words.similarities(vectors[[place for _, place in words]], rows)
        has = evidence.words.has(rows)
        unknown = ~has & evidence.postings.worded(rows)
        if unknown.any() and has.any():
            # A caller's own vector, or an older release's row: nobody knows how near its words are, so it is as near as the others.
            found[:, unknown] = found[:, has].mean(axis=1, keepdims=True)
        return found, np.maximum(idf, np.float32(_LEAST_WEIGHT))
