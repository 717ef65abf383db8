"""Consolidation as a job: plans on a thread of its own, from one consistent read, and has the engine write cluster by cluster.

Killed at any point it leaves whole clusters or none: a semantic trace and whose words it says go to the disk in one commit (merges.py),
its id follows from its members, and the next run finds what is done.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

import numpy as np

from ndml.btsp.consolidation import Cluster, Episodes, SemanticTrace, plan, priority
from ndml.errors import NdmlError, Overloaded
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.runtime import metrics
from ndml.v1.memory_pb2 import ConsolidateMemoriesResponse
from ndml.v1.types_pb2 import LINK_TYPE_DERIVED_FROM, TRACE_KIND_EPISODIC, TRACE_KIND_SEMANTIC, MemoryTrace
from services.memory_node.commit import WriteResult
from services.memory_node.engine import Engine
from services.memory_node.merges import JobOptions, Merge
from services.memory_node.ports import NowNs
from services.memory_node.reader import Reader
from services.memory_node.records import Owner, timestamp
from services.memory_node.states import States
from services.memory_node.store import Store
from services.memory_node.vectors import sentences

_EVENTS = {outcome: metrics.CONSOLIDATION_EVENTS.labels(outcome) for outcome in ("merged", "rejected", "unchanged")}
# A merge is one commit; longer means that the node is stuck or stopping.
_MERGE_S = 30.0
_PROGRESS_S = 0.25

Read = TypeVar("Read")


class Merged(Enum):
    """What became of a cluster."""

    NEW = "merged"
    UNCHANGED = "unchanged"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class _Work:
    """What a run looks at: the episodes, their traces and sequences by id."""

    episodes: Episodes
    traces: dict[bytes, MemoryTrace]
    sequences: dict[bytes, int]


class Consolidations:
    """Hands out runs, at most `most_runs` at a time."""

    def __init__(self, store: Store, engine: Engine, states: States, options: JobOptions, now_ns: NowNs) -> None:
        self._store = store
        self._engine = engine
        self._states = states
        self._options = options
        self._now_ns = now_ns
        self._running = 0

    async def stream(self, request: pb.ConsolidateRequest) -> AsyncIterator[ConsolidateMemoriesResponse]:
        """Progress, the last message with done. Raises Overloaded, StoreUnavailable, CapacityReached. The caller's leaving stops it."""
        if self._running >= self._options.most_runs:
            raise Overloaded(f"{self._running} consolidations are under way (consolidation.most_runs): come back later", retry_after_s=5.0)
        self._running += 1
        left = threading.Event()
        run = self._run(request, left)
        step: asyncio.Future[ConsolidateMemoriesResponse | None] | None = None
        try:
            while True:
                # Shielded, because a generator cannot be closed while it runs.
                step = asyncio.ensure_future(asyncio.to_thread(next, run, None))
                progress = await asyncio.shield(step)
                if progress is None:
                    return
                yield progress
        finally:
            left.set()
            self._running -= 1
            if step is not None:
                await asyncio.wait([step])

    def _run(self, request: pb.ConsolidateRequest, left: threading.Event) -> Iterator[ConsolidateMemoriesResponse]:
        began = time.monotonic()
        budget_s = request.time_budget_ms / 1e3 if request.time_budget_ms else self._options.time_budget_s
        owner = Owner(request.tenant, request.user)
        work = self._read(owner, lambda reader, owner_id: self._work(reader, owner_id, request.max_traces or self._options.most_traces))
        clusters = list(plan(work.episodes, self._options.plan)) if work is not None else []
        progress = ConsolidateMemoriesResponse(clusters_total=len(clusters))
        told = time.monotonic()
        for cluster in clusters:
            if left.is_set() or time.monotonic() - began > budget_s:
                progress.stopped_because = "the caller left" if left.is_set() else f"the time budget of {budget_s:g} s is used up"
                break
            assert work is not None
            cluster = self._under_a_free_id(owner, cluster)
            self._count(progress, cluster, self._outcome(owner, cluster, work, request.dry_run))
            if time.monotonic() - told > _PROGRESS_S:
                yield progress
                told = time.monotonic()
                progress.ClearField("semantic_trace_ids")
        progress.done = True
        yield progress

    def _count(self, progress: ConsolidateMemoriesResponse, cluster: Cluster, merged: Merged) -> None:
        progress.clusters_done += 1
        if merged is Merged.NEW and cluster.semantic is not None:
            progress.merged += 1
            progress.semantic_trace_ids.append(cluster.semantic.trace_id.hex())
        elif merged is Merged.UNCHANGED:
            progress.unchanged += 1
        else:
            progress.rejected += 1
        _EVENTS[merged.value].inc()

    def _read(self, owner: Owner, look: Callable[[Reader, int], Read]) -> Read | None:
        """What `look` finds of the owner in one consistent read; None: there is no such owner."""
        reader = self._store.reader()
        try:
            with reader.snapshot():
                found = reader.owner(owner)
                return None if found is None else look(reader, found.owner_id)
        finally:
            reader.close()

    def _work(self, reader: Reader, owner_id: int, most: int) -> _Work | None:
        """Episodic traces in the index, the `most` that need it most.

        Not those whose words stand in a semantic trace already: sources would multiply with every run. Nor those that are to end: their
        words must not live on in one that does not. Nor those that hold more than words: what an image shows, its caption does not say.
        """
        now_s = self._now_ns() / 1e9
        merged = np.array(reader.merged(owner_id), np.int64)
        vectors, sequences, urgency = [], [], []
        for rows in reader.load(owner_id):
            block = self._states.block()
            self._states.append_loaded(block, rows)
            free = ~np.isin(rows.first_sequence, merged) & (rows.expires_at_us == 0)
            episodic = np.flatnonzero((rows.kind == TRACE_KIND_EPISODIC) & free)
            need = block.strength(episodic, now_s).astype(np.float64)
            salience = block.column("salience")[episodic].astype(np.float64)
            urgency += priority(need, block.retrievability(episodic, now_s), salience).tolist()
            sequences += rows.sequence[episodic].tolist()
            vectors += [rows.vectors[i] for i in episodic.tolist()]
        if len(sequences) < 2:
            return None
        chosen = np.sort(np.argsort(-np.array(urgency), kind="stable")[: min(most, self._options.plan.most_traces)]).tolist()
        stored = reader.payloads(owner_id, [sequences[i] for i in chosen])
        found = [(i, MemoryTrace.FromString(stored[sequences[i]][0])) for i in chosen]
        chosen, traces = [i for i, trace in found if not trace.contents], [trace for _, trace in found if not trace.contents]
        picked = [sequences[i] for i in chosen]
        ids = [bytes.fromhex(trace.trace_id) for trace in traces]
        matrix = sentences([vectors[i] for i in chosen], self._store.identity.dimension)
        episodes = Episodes(ids, [trace.text for trace in traces], matrix, np.array(urgency)[chosen])
        return _Work(episodes, dict(zip(ids, traces, strict=True)), dict(zip(ids, picked, strict=True)))

    def _under_a_free_id(self, owner: Owner, cluster: Cluster) -> Cluster:
        """Where a semantic trace of the same members ended with a source that was corrected since, its id is used up."""
        semantic = cluster.semantic
        if semantic is None:
            return cluster
        trace_id = self._read(owner, lambda reader, owner_id: reader.free_id(owner_id, semantic.trace_id))
        return replace(cluster, semantic=replace(semantic, trace_id=trace_id or semantic.trace_id))

    def _outcome(self, owner: Owner, cluster: Cluster, work: _Work, dry_run: bool) -> Merged:
        """What becomes of one cluster. Raises NdmlError when the node cannot write."""
        if cluster.semantic is None:
            return Merged.REJECTED
        if dry_run:
            trace_id = cluster.semantic.trace_id
            return self._read(owner, lambda reader, owner_id: _foreseen(reader, owner_id, trace_id)) or Merged.REJECTED
        members = [work.traces[member] for member in cluster.members]
        semantic = semantic_trace(owner, cluster.semantic, members, self._now_ns() // 1000)
        return self._merge(owner, Merge(semantic, tuple((member, work.sequences[member]) for member in cluster.members), cluster.why))

    def _merge(self, owner: Owner, merge: Merge) -> Merged:
        done: Future[WriteResult | NdmlError] = Future()
        self._engine.merge(owner, merge, done.set_result)
        result = done.result(_MERGE_S)
        if isinstance(result, NdmlError):
            raise result
        assert isinstance(result, pb.PutResult)
        if not result.outcomes:
            return Merged.REJECTED
        return Merged.UNCHANGED if result.outcomes[0].existed else Merged.NEW


def _foreseen(reader: Reader, owner_id: int, trace_id: bytes) -> Merged:
    """What a merge under this id would come to: its user may have deleted it."""
    if reader.stored(owner_id, trace_id) is not None:
        return Merged.UNCHANGED
    return Merged.REJECTED if reader.erased(owner_id, trace_id) else Merged.NEW


def semantic_trace(owner: Owner, semantic: SemanticTrace, members: list[MemoryTrace], now_us: int) -> MemoryTrace:
    """What is stored of a cluster: its text, vector and links to its sources, as said when the last of them was."""
    made = MemoryTrace(trace_id=semantic.trace_id.hex(), kind=TRACE_KIND_SEMANTIC, text=semantic.text)
    made.scope.tenant, made.scope.user = owner
    made.said_at.CopyFrom(max((m.said_at for m in members), key=lambda t: (t.seconds, t.nanos)))
    made.learned_at.CopyFrom(timestamp(now_us))
    made.salience = min(1.0, max(m.salience or m.gate.salience for m in members))
    made.provenance.source = "consolidation"
    made.embedding.vector = semantic.vector.astype("<f4").tobytes()
    for member in members:
        made.links.add(type=LINK_TYPE_DERIVED_FROM, trace_id=member.trace_id, weight=1.0)
    return made
