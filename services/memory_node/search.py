"""Searches: those of one owner that ask for the same things become one matrix search, then each gets its hits as wire bytes.

Runs on the engine's thread.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ndml.contents import shown, words_of
from ndml.errors import FieldInvalid, NdmlError
from ndml.internal.v1.memory_node_pb2 import QueryText, SearchAction
from ndml.runtime import metrics
from ndml.v1.types_pb2 import (
    NODE_PROFILE_GENERAL,
    SEARCH_MODE_DENSE,
    SEARCH_MODE_FAST,
    Embedding,
    MemoryTrace,
    NodeProfile,
    SearchMode,
    SearchStats,
    StageTimings,
)
from services.memory_node import episodes, wire
from services.memory_node.filters import Conditions, conditions
from services.memory_node.partition import Partition
from services.memory_node.payloads import PayloadCache
from services.memory_node.ports import NowNs
from services.memory_node.ranking import Ranked, RankingOptions, compete_for_rank, plain, rank
from services.memory_node.reader import Reader
from services.memory_node.records import F32, unit_vectors
from services.memory_node.selection import diverse, only, within
from services.memory_node.signals.retrieval import Memory, Retrieval, Spent
from services.memory_node.states import lifecycle_of, strength_of
from services.memory_node.surroundings import Beside, Surroundings
from services.memory_node.vectors import MOST_WORDS, show, word_bytes

I64 = NDArray[np.int64]
_STAGES = {stage: metrics.SEARCH_STAGE.labels(stage).observe for stage in ("index", "lexical", "late", "fuse", "fetch")}


class GroupKey(NamedTuple):
    """Searches of one owner with equal keys share a matrix search."""

    k: int
    agent: str
    session: str
    filter: bytes
    include_embedding: bool
    explain: bool
    include_strength: bool
    weights: bytes
    mode: SearchMode
    worded: bool
    neighbours: int
    ancestors: int
    episode: bool
    diversity: float
    max_tokens: int
    space: str
    dimension: int
    include_data: bool


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """dimension, embedding_model: of the suite. chunk: queries in one matrix search. result_bytes: one search's hits at most. profile: the
    node's."""

    dimension: int
    embedding_model: str
    chunk: int
    result_bytes: int
    ranking: RankingOptions
    profile: NodeProfile = NODE_PROFILE_GENERAL


@dataclass(slots=True)
class _Found:
    """What was found: ranked [n, k], sequences [n, k], how many of them are hits [n], their bytes [n], what the signals took."""

    ranked: Ranked
    sequences: I64
    counts: list[int]
    payload_bytes: list[int]
    spent: Spent


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Searches of one GroupKey on one partition: n actions, their unit vectors [n, d], how long each waited [n]; texts: [n], or none."""

    partition: Partition
    actions: Sequence[SearchAction]
    vectors: F32
    queue_ms: Sequence[float]
    texts: Sequence[QueryText]
    wanted: Conditions | None


class _RowsGone(Exception):
    """The index knows rows that the store no longer has: a commit came between the two looks."""


def group_key(action: SearchAction) -> GroupKey:
    """Raises FieldInvalid."""
    if action.k < 1:
        raise FieldInvalid(f"k is {action.k}: ask for 1 hit or more", field="k")
    if action.episode and action.k > episodes.MOST_HITS:
        raise FieldInvalid(f"k is {action.k}: with episodes at most {episodes.MOST_HITS}, each is worked out anew", field="k")
    text = action.filter.SerializeToString(deterministic=True) if action.HasField("filter") else b""
    weights = action.weights.SerializeToString(deterministic=True) if action.HasField("weights") else b""
    return GroupKey(
        action.k,
        action.agent,
        action.session,
        text,
        action.include_embedding,
        action.explain,
        action.include_strength,
        weights,
        action.mode,
        bool(action.texts),
        action.neighbours,
        action.ancestors,
        action.episode,
        action.diversity,
        action.max_tokens,
        action.space,
        action.dimension,
        action.include_data,
    )


class Searcher:
    """Answers groups of searches on a partition."""

    def __init__(self, reader: Reader, cache: PayloadCache, options: SearchOptions, now_ns: NowNs) -> None:
        self._now_ns = now_ns
        self._reader = reader
        self._cache = cache
        self._options = options

    def run(self, partition: Partition, actions: Sequence[SearchAction], queue_ms: Sequence[float]) -> list[bytes | NdmlError]:
        """One result (a serialised OperationResult) or error for each action; all of one GroupKey. Raises NdmlError when all fail alike."""
        began = time.perf_counter()
        counts = [self._queries(action) for action in actions]
        owners = [i for i, count in enumerate(counts) for _ in range(count)]
        vectors, errors = self._vectors(actions, counts)
        texts, wrong = self._texts(actions, counts)
        first = actions[0]
        wanted = conditions(first.agent, first.session, first.filter if first.HasField("filter") else None)
        answers: list[bytes | NdmlError] = []
        for start in range(0, len(owners), self._options.chunk):
            part = slice(start, start + self._options.chunk)
            whose = owners[part]
            chunk = _Chunk(partition, [actions[i] for i in whose], vectors[part], [queue_ms[i] for i in whose], texts[part], wanted)
            answers += self._run(chunk)
        for i, error in {**wrong, **errors}.items():
            answers[i] = error
        busy_ms = (time.perf_counter() - began) * 1e3
        taken = iter(answers)
        return [_joined([next(taken) for _ in range(count)], busy_ms) for count in counts]

    def nothing(self, action: SearchAction) -> bytes:
        """The OperationResult of a search where there is nothing."""
        stats = SearchStats(node_profile=self._options.profile).SerializeToString()
        return wire.search_result([wire.search_response([], stats)] * self._queries(action))

    def _queries(self, action: SearchAction) -> int:
        """How many queries the action brings; a broken one counts as one, so that it gets its error."""
        return max(1, len(action.vectors) // (4 * self._dimension(action)))

    def _dimension(self, action: SearchAction) -> int:
        """Of the action's queries. Raises FieldInvalid."""
        if action.space and action.dimension < 1:
            raise FieldInvalid(f"dimension is {action.dimension}: say how many components a query has in the space", field="dimension")
        return action.dimension if action.space else self._options.dimension

    def _vectors(self, actions: Sequence[SearchAction], counts: Sequence[int]) -> tuple[F32, dict[int, NdmlError]]:
        """Unit vectors [n, d] of all queries, and the errors by query."""
        width = 4 * self._dimension(actions[0])
        blobs: list[bytes] = []
        for action, count in zip(actions, counts, strict=True):
            whole = len(action.vectors) == count * width
            blobs += [action.vectors[i * width : (i + 1) * width] for i in range(count)] if whole else [action.vectors] * count
        return unit_vectors(blobs, width // 4)

    def _texts(self, actions: Sequence[SearchAction], counts: Sequence[int]) -> tuple[list[QueryText], dict[int, NdmlError]]:
        """Texts of all queries, or none, and the errors by query. What is wrong is one action's: the others keep their places."""
        texts: list[QueryText] = []
        errors: dict[int, NdmlError] = {}
        for action, count in zip(actions, counts, strict=True):
            error = _wrong_texts(action, count, self._options.dimension)
            if error is not None:
                errors |= {len(texts) + i: error for i in range(count)}
            texts += [QueryText()] * count if error is not None else action.texts
        return texts, errors

    def _run(self, chunk: _Chunk) -> list[bytes | NdmlError]:
        if chunk.wanted is None or not chunk.wanted.metadata:
            results = self._try(chunk, fresh=False)
            if results is not None:
                return results
        # Labels, hits and payloads from one state of the store: what is returned meets the conditions as they were read.
        with self._reader.snapshot():
            results = self._try(chunk, fresh=True)
            if results is None:
                chunk.partition.retain(self._reader.sequences(chunk.partition.owner_id))
                results = self._answer(chunk, fresh=True)
        return results

    def _try(self, chunk: _Chunk, *, fresh: bool) -> list[bytes | NdmlError] | None:
        try:
            return self._answer(chunk, fresh=fresh)
        except _RowsGone:
            return None

    def _answer(self, chunk: _Chunk, *, fresh: bool) -> list[bytes | NdmlError]:
        """`fresh`: read every hit from the store, past the cache. Raises _RowsGone."""
        started = time.perf_counter()
        found = self._find(chunk)
        indexed = time.perf_counter()
        sizes = [size if size > self._options.result_bytes else 0 for size in found.payload_bytes]
        wanted = [
            [] if too_large else sequences[:count]
            for sequences, count, too_large in zip(found.sequences.tolist(), found.counts, sizes, strict=True)
        ]
        first = chunk.actions[0]
        around = first.neighbours or first.ancestors or first.episode
        full = first.include_embedding or first.explain or first.include_strength or first.include_data or around
        hits: Sequence[list[bytes] | NdmlError] = (
            self._full_hits(chunk, wanted, found.ranked) if full else self._hits(chunk, wanted, found.ranked, fresh)
        )
        stats = self._stats(chunk, found.spent, (indexed - started) * 1e3, (time.perf_counter() - indexed) * 1e3)
        return [
            pieces if isinstance(pieces, NdmlError) else self._too_large(too_large) if too_large else wire.search_response(pieces, each)
            for pieces, each, too_large in zip(hits, stats, sizes, strict=True)
        ]

    def _stats(self, chunk: _Chunk, spent: Spent, found_ms: float, fetch_ms: float) -> list[bytes]:
        made: dict[float, bytes] = {}
        index_ms = found_ms - spent.lexical_ms - spent.late_ms - spent.fuse_ms
        _STAGES["index"](index_ms / 1e3)
        _STAGES["fetch"](fetch_ms / 1e3)
        if spent.fuse_ms:
            for stage, took_ms in (("lexical", spent.lexical_ms), ("late", spent.late_ms), ("fuse", spent.fuse_ms)):
                _STAGES[stage](took_ms / 1e3)
        for queue_ms in chunk.queue_ms:
            if queue_ms not in made:
                timings = StageTimings(queue_ms=queue_ms, index_ms=index_ms, fetch_ms=fetch_ms)
                timings.lexical_ms, timings.late_ms, timings.fuse_ms = spent.lexical_ms, spent.late_ms, spent.fuse_ms
                stats = SearchStats(timings=timings, traces_in_scope=chunk.partition.live, index=chunk.partition.index.kind)
                stats.node_profile = self._options.profile
                made[queue_ms] = stats.SerializeToString()
        sure = spent.confidence or [None] * len(chunk.queue_ms)
        return [made[queue_ms] + _told(each) for queue_ms, each in zip(chunk.queue_ms, sure, strict=True)]

    def _find(self, chunk: _Chunk) -> _Found:
        columns, actions = chunk.partition.columns, chunk.actions
        if not len(columns):
            nothing = np.empty((len(actions), 0))
            found = plain(nothing.astype(np.float32), nothing.astype(np.int64))
            return _Found(found, found.rows, [0] * len(actions), [0] * len(actions), Spent())
        spent = Spent()
        ranked = self._ranked(chunk, spent)
        scores, rows = ranked.scores, ranked.rows
        kept = rows >= 0
        if any(action.HasField("min_score") for action in actions):
            floors = [action.min_score if action.HasField("min_score") else -np.inf for action in actions]
            kept &= scores >= np.array(floors, np.float32)[:, None]
        each = 4 * self._options.dimension + MOST_WORDS * word_bytes(self._options.dimension) if actions[0].include_embedding else 0
        payloads = columns.ints("payload_bytes")[rows]
        if not (actions[0].include_data or actions[0].include_embedding):
            payloads = payloads - chunk.partition.spaces.left_out(rows)
        sizes = ((payloads + each) * kept).sum(axis=1)
        return _Found(ranked, columns.ints("sequence")[rows], kept.sum(axis=1).tolist(), sizes.tolist(), spent)

    def _ranked(self, chunk: _Chunk, spent: Spent) -> Ranked:
        partition, action, options = chunk.partition, chunk.actions[0], self._options.ranking
        mode = action.mode or options.mode
        worded = bool(chunk.texts) and mode != SEARCH_MODE_DENSE and not action.space
        weights = options.asked(action.weights) if action.space else options.of(action.weights)
        shaped = action.diversity or action.max_tokens
        wanted = action.k if weights.plain and not worded and not shaped else max(action.k, options.candidates)
        k = wanted if shaped else action.k
        allowed = partition.mask(chunk.wanted, self._reader, self._now_us())
        if action.space:
            cosines, rows = partition.spaces.search(action.space, chunk.vectors, wanted, len(partition.columns), allowed)
        else:
            cosines, rows = partition.index.search(chunk.vectors, min(wanted, len(partition.columns)), allowed, sure=action.k)
        signals = partition.signals(self._now_us() / 1e6)
        # Rounding may lift the cosine of equal vectors above 1.
        cosines = np.ascontiguousarray(np.maximum(np.minimum(cosines, 1.0), -1.0), "<f4")
        if worded:
            shares = options.signals_of(action.weights)
            texts = partial(self._texts_of, partition)
            memory = Memory(partition.index, partition.columns, partition.evidence, signals, allowed, self._now_us(), texts)
            shares = shares.fast() if mode == SEARCH_MODE_FAST else shares
            as_of = chunk.wanted is not None and chunk.wanted.timed
            retrieval = Retrieval(memory, shares, weights, k, options.candidates, as_of)
            ranked = retrieval.rank(chunk.texts, chunk.vectors, rows, spent)
        elif weights.plain:
            ranked = plain(cosines, rows)
        else:
            ranked = rank(cosines, rows, weights, signals, min(k, len(partition.columns)))
        if action.space:
            ranked = ranked._replace(shares={action.space if name == "dense" else name: share for name, share in ranked.shares.items()})
        homeostasis = options.homeostasis
        if homeostasis.competition_strength and ranked.rows.size:
            ranked = compete_for_rank(ranked, _vectors_of(chunk, ranked.rows), homeostasis)
        return self._shaped(chunk, ranked) if shaped and ranked.rows.size else ranked

    def _shaped(self, chunk: _Chunk, ranked: Ranked) -> Ranked:
        """The k that the request wants shown, of more."""
        partition, action = chunk.partition, chunk.actions[0]
        if action.diversity:
            vectors = _vectors_of(chunk, ranked.rows)
            ranked = diverse(ranked, vectors, action.diversity, ranked.rows.shape[1] if action.max_tokens else action.k)
        if action.max_tokens:
            texts = [self._texts_of(partition, rows[rows >= 0]) for rows in ranked.rows]
            ranked = only(ranked, [within(said, action.max_tokens, action.k) for said in texts])
        return ranked

    def _texts_of(self, partition: Partition, rows: I64) -> list[tuple[str, str]]:
        """(speaker, text) of rows. Raises _RowsGone."""
        sequences = partition.columns.ints("sequence")[rows].tolist()
        stored = self._rows(partition, sorted(sequences))
        traces = [MemoryTrace.FromString(stored[sequence][0]) for sequence in sequences]
        return [(trace.speaker, words_of(trace)) for trace in traces]

    def _hits(self, chunk: _Chunk, wanted: Sequence[Sequence[int]], ranked: Ranked, fresh: bool) -> list[list[bytes]]:
        heads = self._heads(chunk.partition, {sequence for sequences in wanted for sequence in sequences}, fresh)
        packed, width = wire.scores(ranked.scores, ranked.cosines), wire.SCORES_BYTES * ranked.scores.shape[1]
        results = []
        for i, sequences in enumerate(wanted):
            pieces: list[bytes] = []
            at = i * width
            for sequence in sequences:
                pieces += (heads[sequence], packed[at : at + wire.SCORES_BYTES])
                at += wire.SCORES_BYTES
            results.append(pieces)
        return results

    def _heads(self, partition: Partition, wanted: set[int], fresh: bool) -> dict[int, bytes]:
        heads: dict[int, bytes] = {}
        missing: list[int] = []
        for sequence in wanted:
            head = None if fresh else self._cache.get(sequence)
            if head is None:
                missing.append(sequence)
            else:
                heads[sequence] = head
        if missing:
            for sequence, (payload, _) in self._rows(partition, missing).items():
                heads[sequence] = head = wire.hit_head(shown(payload, include_data=False, include_embedding=False))
                self._cache.put(sequence, head)
        return heads

    def _full_hits(self, chunk: _Chunk, wanted: Sequence[Sequence[int]], ranked: Ranked) -> list[list[bytes] | NdmlError]:
        stored = self._rows(chunk.partition, sorted({sequence for sequences in wanted for sequence in sequences}))
        found: list[list[bytes] | NdmlError] = []
        for i, sequences in enumerate(wanted):
            try:
                around = self._around(chunk, ranked.rows[i, : len(sequences)], [stored[sequence][0] for sequence in sequences])
            except FieldInvalid as error:  # too much stands around this query's hits; the others have their answers
                found.append(error)
                continue
            found.append([self._full_hit(chunk, i, j, stored[sequence], ranked, around[j]) for j, sequence in enumerate(sequences)])
        return found

    def _around(self, chunk: _Chunk, rows: I64, payloads: Sequence[bytes]) -> list[Beside]:
        """What the request wants to see beside each hit. Raises FieldInvalid where that is too large, _RowsGone."""
        action, partition = chunk.actions[0], chunk.partition
        if not (action.neighbours or action.ancestors or action.episode):
            return [Beside()] * len(rows)
        narrowed = conditions(action.agent, action.session, None)
        allowed = partition.mask(narrowed, self._reader, self._now_us())
        view = Surroundings(partition, self._reader, allowed, action.agent, action.session, self._now_us(), self._options.result_bytes)
        inside = view.episodes(rows) if action.episode else []
        sides = view.neighbours(rows, action.neighbours, inside)
        stored = self._rows(partition, sorted({sequence for before, after in sides for sequence in (*before, *after)}))
        told = {s: shown(payload, include_data=False, include_embedding=False) for s, (payload, _) in stored.items()}
        seen = [episodes.shown(partition, turns) for turns in inside] or [None] * len(rows)
        return [
            Beside([told[s] for s in before], [told[s] for s in after], view.ancestors(payload, action.ancestors), episode)
            for (before, after), payload, episode in zip(sides, payloads, seen, strict=True)
        ]

    def _full_hit(self, chunk: _Chunk, i: int, j: int, stored: tuple[bytes, bytes], ranked: Ranked, around: Beside) -> bytes:
        """Hit j of query i with all that was asked for."""
        action, (payload, vector) = chunk.actions[i], stored
        payload = shown(payload, include_data=action.include_data, include_embedding=action.include_embedding)
        if action.include_embedding:
            embedding = Embedding()
            show(embedding, vector, self._options.dimension, self._options.embedding_model)
            payload = wire.with_embedding(payload, embedding)
        if action.include_strength:
            row, now_s = int(ranked.rows[i, j]), self._now_us() / 1e6
            standing = lifecycle_of(int(chunk.partition.look(np.array([row]), now_s).state[0]))
            payload = wire.with_strength(payload, strength_of(chunk.partition.states, row, now_s), standing)
        shares: dict[str, float] = {}
        if action.explain:
            all_shares = {name: float(part[i, j]) for name, part in ranked.shares.items()}
            shares = {name: share for name, share in all_shares.items() if share or name in ("dense", action.space)}
        beside = wire.beside(around.before, around.after, around.ancestors, around.episode)
        return wire.full_hit(payload, float(ranked.scores[i, j]), float(ranked.cosines[i, j]), shares, beside)

    def _now_us(self) -> int:
        return self._now_ns() // 1000

    def _rows(self, partition: Partition, sequences: Sequence[int]) -> dict[int, tuple[bytes, bytes]]:
        rows = self._reader.payloads(partition.owner_id, sequences)
        if len(rows) < len(sequences):
            raise _RowsGone
        return rows

    def _too_large(self, size: int) -> NdmlError:
        limit = self._options.result_bytes
        return FieldInvalid(f"the hits come to {size} bytes, more than {limit} (engine.result_bytes): ask for a smaller k", field="k")


def _vectors_of(chunk: _Chunk, rows: I64) -> F32:
    """[n, k, d] of rows [n, k] in the space that is searched."""
    action, found = chunk.actions[0], np.maximum(rows, 0).ravel()
    spaces = chunk.partition.spaces
    vectors = spaces.reconstruct(action.space, found, action.dimension) if action.space else chunk.partition.index.reconstruct(found)
    return vectors.reshape(*rows.shape, -1)


def _told(confidence: float | None) -> bytes:
    """As a part of SearchStats: concatenated messages merge."""
    return b"" if confidence is None else SearchStats(confidence=confidence).SerializeToString()


def _wrong_texts(action: SearchAction, count: int, dimension: int) -> FieldInvalid | None:
    """What is wrong with the texts of an action that brings `count` queries."""
    if len(action.texts) not in (0, count):
        return FieldInvalid(f"{len(action.texts)} texts for {count} vectors: one each, or none", field="texts")
    for text in action.texts:
        if len(text.word_vectors) % dimension:
            return FieldInvalid(f"{len(text.word_vectors)} bytes are no word vectors of {dimension} components", field="texts.word_vectors")
    return None


def _joined(answers: Sequence[bytes | NdmlError], busy_ms: float) -> bytes | NdmlError:
    """The answers to one action's queries as its result; the first error stands for all."""
    responses: list[bytes] = []
    for answer in answers:
        if isinstance(answer, NdmlError):
            return answer
        responses.append(answer)
    return wire.search_result(responses, busy_ms)
