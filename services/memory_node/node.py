"""The node as one component: opens the store, puts the engine together, and stops both in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Protocol

from ndml.btsp.plateau import CalciumTable
from ndml.btsp.record import RECORD_BYTES
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime import metrics
from services.memory_node.care import Caretaker
from services.memory_node.columns import ROW_BYTES
from services.memory_node.commit import Signatures
from services.memory_node.consolidations import Consolidations
from services.memory_node.engine import Engine, Item
from services.memory_node.exports import Exports
from services.memory_node.familiarity import Familiarity
from services.memory_node.feedback import FeedbackDesk
from services.memory_node.gate import WriteGate
from services.memory_node.heads import Heads
from services.memory_node.inbox import Inbox
from services.memory_node.index import AdaptiveIndex, IndexOptions, background_trainer, make_index
from services.memory_node.partition import Partition, Parts, load_partition
from services.memory_node.payloads import PayloadCache
from services.memory_node.ports import NowNs, PlacementView, check_owner
from services.memory_node.profiles import PROFILES
from services.memory_node.reader import Reader
from services.memory_node.reads import Reads
from services.memory_node.records import Owner
from services.memory_node.residents import Residents
from services.memory_node.schema import Identity
from services.memory_node.search import Searcher, SearchOptions
from services.memory_node.settings import NodeSettings
from services.memory_node.signals.evidence import evidence_bytes
from services.memory_node.signals.lexical import LexicalOptions
from services.memory_node.snapshots import Snapshot
from services.memory_node.states import States
from services.memory_node.store import Store
from services.memory_node.versions import Trust, trusted
from services.memory_node.writer import Checkpointer, Writer

# A growing slab overshoots by half: what an owner may hold is counted with it.
_OVERSHOOT = 1.5
_GPU_DRIVER = Path("/dev/nvidiactl")


def index_maker(device: str, trainer: Executor) -> Callable[[IndexOptions], AdaptiveIndex]:
    """How to make an owner's index. Without a GPU driver none is looked for: looking may import torch, which takes seconds and 200 MB."""
    from services.memory_node.index.fastscan import FastScanIndex

    if device == "gpu" or (device == "auto" and _GPU_DRIVER.exists()):
        return lambda options: make_index(options, trainer)
    return lambda options: AdaptiveIndex(options, trainer, FastScanIndex)


class NodeSignatures(Signatures, Protocol):
    """Signatures that live as long as the node."""

    def open(self, store: Store) -> None:
        """Before the first commit. Raises StoreUnavailable."""
        ...

    def close(self) -> None:
        """After the last one."""
        ...

    def mends(self, owner: Owner, trace_ids: Sequence[bytes]) -> Sequence[rpb.OwnerUpdate]:
        """What another copy needs to have these traces as they are here, in the form of a repair. Any thread; raises StoreUnavailable."""
        ...

    def trust_of(self, replica: int) -> int:
        """Of a store's author, 0 to 100."""
        ...


class _Queue(Protocol):
    """Something that holds operations back."""

    @property
    def weight(self) -> int:
        """Operations that wait."""
        ...


def _weight(queue: _Queue) -> int:
    return queue.weight


class Node:
    """Component. `engine` and `exports` are there between start() and stop()."""

    engine: Engine
    exports: Exports
    consolidations: Consolidations

    def __init__(
        self, settings: NodeSettings, placement: PlacementView, now_ns: NowNs = time.time_ns, signatures: NodeSignatures | None = None
    ) -> None:
        self._settings = settings
        self._signatures = signatures
        trust: Trust = trusted if signatures is None else signatures.trust_of
        self._placement = placement
        node = settings.node
        row_bytes = (4 * node.dimension + ROW_BYTES + RECORD_BYTES + evidence_bytes(node.dimension)) * _OVERSHOOT
        self._max_owner_traces = max(1, int(settings.engine.index_memory_limit / row_bytes))
        identity = Identity(node.node_id, node.dimension, node.embedding_model)
        dynamics = settings.dynamics.options().dynamics
        self.store = Store(settings.store, identity, self._max_owner_traces, now_ns, dynamics, trust)
        self._trust = trust
        self._trainer = background_trainer()
        self._make_index: Callable[[IndexOptions], AdaptiveIndex]
        self._index_options = settings.index.options(node.dimension)
        self._readers: list[Reader] = []
        self._now_ns = now_ns

    async def start(self) -> None:
        """Raises StoreRefused."""
        await asyncio.to_thread(self.store.open)
        if self._signatures is not None:
            await asyncio.to_thread(self._signatures.open, self.store)
        # Imports FAISS: seconds that the first search must not wait for.
        self._make_index = await asyncio.to_thread(index_maker, self._settings.index.device, self._trainer)
        self._assemble()
        self._checkpointer = Checkpointer(self.store)
        self._checkpointer.start()
        self.engine.start(asyncio.get_running_loop())

    async def stop(self) -> None:
        await asyncio.to_thread(self._stop)

    def _assemble(self) -> None:
        settings, node = self._settings.engine, self._settings.node
        reader = self.store.reader()
        self._readers.append(reader)
        inbox: Inbox[Item] = Inbox(settings.queue_operations)
        cache = PayloadCache(settings.payload_cache_bytes)
        dynamics = self._settings.dynamics.options()
        ranking = self._settings.ranking.options(dynamics.competition_strength)
        own = PROFILES[self._settings.heartbeat.profile]
        options = SearchOptions(node.dimension, node.embedding_model, settings.search_chunk, settings.result_bytes, ranking, own.number)
        lifecycle = self._settings.lifecycle.options()
        states = States(dynamics.dynamics, lifecycle.lifecycle, self._now_ns)
        gate = self._settings.gate
        profile = gate.load(node.embedding_model, node.dimension)
        self._parts = Parts(
            node.dimension,
            lambda: self._make_index(self._index_options),
            states,
            lambda: Familiarity(node.dimension, gate.familiarity_from, gate.familiarity_neurons),
            ranking.homeostasis,
            LexicalOptions(added=own.added),
        )
        calcium = CalciumTable(dynamics.calcium)

        self.engine = Engine(
            inbox,
            writer := Writer(self.store, inbox.post, self._signatures),
            Residents(settings.index_memory_limit, self.store.reader, self._load, inbox.post),
            Searcher(reader, cache, options, self._now_ns),
            self._reads(reader, states),
            cache,
            self._placement,
            None if profile is None else WriteGate(profile, calcium, reader, self._now_ns, self._settings.gate.causes),
            FeedbackDesk(reader, states, dynamics.dynamics.credit, self._now_ns),
            Caretaker(reader, lifecycle, self._now_ns),
            settings.response_bytes,
            self.store.committer.last_sequence,
            Heads(reader, settings.heads_cache),
            self._signatures,
        )
        self._status_reader = self.store.reader()
        self._readers.append(self._status_reader)
        self.exports = Exports(self.store, self._now_ns)
        self.consolidations = Consolidations(self.store, self.engine, states, self._settings.consolidation.options(), self._now_ns)
        self._show(inbox, writer)

    def _reads(self, reader: Reader, states: States) -> Reads:
        node, result_bytes = self._settings.node, self._settings.engine.result_bytes
        made = partial(Reads, reader, states, node.dimension, node.embedding_model, result_bytes, self._now_ns, self._trust)
        return made() if self._signatures is None else made(self._signatures.mends)

    def _load(self, reader: Reader, owner: Owner) -> Partition | None:
        return load_partition(reader, owner, self._parts, self._max_owner_traces)

    def _show(self, inbox: _Queue, writer: _Queue) -> None:
        """Gauges that are read when somebody looks."""
        committer, most = self.store.committer, self._settings.store.max_traces
        metrics.MEMORY_TOTAL_TRACES.set_function(lambda: committer.totals.traces)
        metrics.MEMORY_UTILIZATION.set_function(lambda: committer.totals.traces / most)
        metrics.INDEX_BYTES.set_function(lambda: self.engine.index_bytes)
        metrics.INDEX_LIMIT_BYTES.set(self._settings.engine.index_memory_limit)
        metrics.RESIDENT_TRACES.set_function(lambda: self.engine.resident_traces)
        metrics.STORE_BYTES.set_function(self.store.bytes_on_disk)
        metrics.STORE_FREE_BYTES.set_function(self.store.bytes_free)
        queues = {"engine": (inbox, self._settings.engine.queue_operations), "commit": (writer, self._settings.store.queue_operations)}
        for queue, (holder, limit) in queues.items():
            metrics.QUEUE_DEPTH.labels(queue).set_function(partial(_weight, holder))
            metrics.QUEUE_LIMIT.labels(queue).set(limit)

    def _stop(self) -> None:
        self.engine.stop()
        self._checkpointer.stop()
        self._trainer.shutdown(wait=True, cancel_futures=True)
        for reader in self._readers:
            reader.close()
        if self._signatures is not None:
            self._signatures.close()
        self.store.close()

    def check_epoch(self, tenant: str, user: str, epoch: int) -> None:
        """Raises StaleEpoch, see `check_owner`."""
        check_owner(self._placement, epoch, tenant, user)

    async def snapshot(self) -> Snapshot:
        """Raises StoreUnavailable; a second one waits for the first."""
        return await asyncio.to_thread(self.store.snapshot)

    def status(self) -> pb.GetNodeStatusResponse:
        """What the node knows of itself; name, version and start are the servicer's to add."""
        totals = self.store.committer.totals
        return pb.GetNodeStatusResponse(
            node_id=self.store.identity.node_id,
            traces=totals.traces,
            owners=totals.owners,
            resident_traces=self.engine.resident_traces,
            index_bytes=self.engine.index_bytes,
            store_bytes=self.store.bytes_on_disk(),
            epoch=self._placement.epoch,
            sequence=self.store.committer.last_sequence,
            replica=self.store.replica,
            siblings=self._status_reader.conflicts(),
        )
