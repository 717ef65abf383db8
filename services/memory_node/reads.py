"""Get, list and stats: small reads that the store answers by itself. Runs on the engine's thread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ndml.btsp.lifecycle import Outcome
from ndml.btsp.state import StateBlock
from ndml.errors import FieldInvalid, TraceNotFound
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1.memory_pb2 import GetMemoryStatsResponse
from ndml.v1.types_pb2 import MemoryTrace, TraceEvent
from services.memory_node.filters import conditions
from services.memory_node.partition import Partition
from services.memory_node.ports import NowNs
from services.memory_node.reader import Reader
from services.memory_node.records import Owner, TraceRow, parse_trace_id, timestamp
from services.memory_node.residents import Residents
from services.memory_node.states import States, lifecycle_of, strength_of

_KINDS = ("", "episodic", "semantic", "procedural")
_NEWEST = (1 << 63) - 1


class Reads:
    """dimension, embedding_model: of the suite. result_bytes: one page's traces at most."""

    def __init__(self, reader: Reader, states: States, dimension: int, embedding_model: str, result_bytes: int, now_ns: NowNs) -> None:
        self._reader = reader
        self._states = states
        self._now_ns = now_ns
        self._dimension = dimension
        self._embedding_model = embedding_model
        self._result_bytes = result_bytes

    def is_empty(self, owner: Owner) -> bool:
        """True when the owner has no traces."""
        row = self._reader.owner(owner)
        return row is None or row.traces == 0

    def needs_partition(self, operation: pb.Operation) -> bool:
        """True for a page with conditions, which are met on a partition's columns, and for strength, which its traces share protein for."""
        action = operation.WhichOneof("action")
        if action == "get":
            return operation.get.include_strength or operation.get.include_history
        page = operation.list
        return action == "list" and conditions(page.agent, page.session, page.filter if page.HasField("filter") else None) is not None

    def run(self, owner: Owner, operation: pb.Operation, residents: Residents) -> pb.OperationResult:
        """Raises FieldInvalid, TraceNotFound, StoreUnavailable."""
        action, partition = operation.WhichOneof("action"), residents.get(owner)
        if action == "get":
            return pb.OperationResult(trace=self._get(owner, operation.get, partition))
        if action == "list":
            if partition is not None and self.needs_partition(operation):
                return pb.OperationResult(list=self._filtered_page(partition, operation.list))
            return pb.OperationResult(list=self._page(owner, operation.list, partition))
        return pb.OperationResult(stats=self._stats(owner, residents))

    def _get(self, owner: Owner, action: pb.GetAction, partition: Partition | None) -> pb.TraceResult:
        trace_id, row = parse_trace_id(action.trace_id), self._reader.owner(owner)
        stored = None if row is None else self._reader.stored(row.owner_id, trace_id)
        if stored is None or row is None or 0 < stored.row.expires_at_us <= self._now_us():
            raise TraceNotFound(f"no trace {action.trace_id} here: it was never written in this scope, or it was deleted", field="trace_id")
        found = stored.row
        trace = self._trace(found.payload, found.vector, action.include_embedding)
        now_s = self._now_us() / 1e6
        block, place = self._states.of(stored, partition)
        outcome = self._look(block, place, [found])
        trace.state = lifecycle_of(int(outcome.state[0]))
        if action.include_strength:
            trace.strength.CopyFrom(strength_of(block, place, now_s))
        if action.include_history:
            if outcome.changed.size:
                trace.history.add(at=timestamp(self._now_us()), kind="state", why=outcome.why(0), state=trace.state)
            trace.history.extend(map(TraceEvent.FromString, self._reader.history(row.owner_id, found.first_sequence)))
        return pb.TraceResult(trace=trace)

    def _look(self, block: StateBlock, first: int, rows: Sequence[TraceRow]) -> Outcome:
        """Where traces stand in their lives; the block has them from row `first` on."""
        learned, expires = np.array([row.learned_at_us for row in rows]), np.array([row.expires_at_us for row in rows])
        return self._states.look(block, np.arange(first, first + len(rows)), learned, expires, self._now_us() / 1e6)

    def _page(self, owner: Owner, action: pb.ListAction, partition: Partition | None) -> pb.ListResult:
        row = self._reader.owner(owner)
        if row is None:
            return pb.ListResult()
        before, limit = action.before_sequence or _NEWEST, checked_limit(action)
        page = self._reader.page(row.owner_id, before, limit, self._result_bytes, action.include_archived)
        # One that has expired and is not deleted yet is left out; the page is then shorter.
        stored = [one for one in page.traces if not 0 < one.row.expires_at_us <= self._now_us()]
        traces = self._traces([(one.row.payload, one.row.vector) for one in stored], action.include_embedding)
        block = self._states.stored(stored, None if partition is None else partition.states.protein)
        for trace, state in zip(traces, self._look(block, 0, [one.row for one in stored]).state.tolist(), strict=True):
            trace.state = lifecycle_of(state)
        return pb.ListResult(traces=traces, next_before_sequence=page.next_before)

    def _now_us(self) -> int:
        return self._now_ns() // 1000

    def _filtered_page(self, partition: Partition, action: pb.ListAction) -> pb.ListResult:
        """A page of the traces that meet the conditions."""
        limit = checked_limit(action)
        if action.include_archived:
            raise FieldInvalid("archived traces are not in the index, so no condition can be met on them: list without it", field="filter")
        wanted = conditions(action.agent, action.session, action.filter if action.HasField("filter") else None)
        with self._reader.snapshot():
            allowed = partition.mask(wanted, self._reader, self._now_us())
            assert allowed is not None
            rows = partition.newest(action.before_sequence or _NEWEST, limit + 1, allowed)
            page = rows[: self._fitting(partition, rows, limit)]
            sequences = partition.columns.ints("sequence")[page].tolist()
            found = self._reader.payloads(partition.owner_id, sequences)
        more = len(rows) > len(page)
        # A row that was deleted since the index last heard is left out; the page is then shorter, and the next one starts where it should.
        there = [sequence in found for sequence in sequences]
        traces = self._traces([found[sequence] for sequence in sequences if sequence in found], action.include_embedding)
        for trace, state in zip(traces, partition.look(page[there], self._now_us() / 1e6).state.tolist(), strict=True):
            trace.state = lifecycle_of(state)
        before = int(partition.columns.ints("first_sequence")[page[-1]]) if more else 0
        return pb.ListResult(traces=traces, next_before_sequence=before)

    def _fitting(self, partition: Partition, rows: np.ndarray[tuple[int], np.dtype[np.int64]], limit: int) -> int:
        """How many of the rows one result may carry: at least one, so that a reader gets on."""
        sizes = np.cumsum(partition.columns.ints("payload_bytes")[rows[:limit]] + 4 * self._dimension, dtype=np.int64)
        return max(1, int(np.searchsorted(sizes, self._result_bytes, side="right")))

    def _stats(self, owner: Owner, residents: Residents) -> GetMemoryStatsResponse:
        if owner.user:
            row, resident = self._reader.owner(owner), residents.count(owner)
            owners = int(row is not None and row.traces > 0)
        else:
            row, owners = self._reader.tenant(owner.tenant)
            resident = residents.count_tenant(owner.tenant)
        stats = GetMemoryStatsResponse(owners=owners, resident_traces=resident)
        stats.dimension, stats.embedding_model = self._dimension, self._embedding_model
        if row is not None:
            stats.traces, stats.content_bytes = row.traces, row.content_bytes
            stats.archived_traces = self._reader.archived(row.owner_id) if owner.user else 0
            stats.traces_by_kind.update({name: count for name, count in zip(_KINDS, row.kinds, strict=True) if name and count})
        return stats

    def _traces(self, rows: Sequence[tuple[bytes, bytes]], include_embedding: bool) -> list[MemoryTrace]:
        return [self._trace(payload, vector, include_embedding) for payload, vector in rows]

    def _trace(self, payload: bytes, vector: bytes, include_embedding: bool) -> MemoryTrace:
        trace = MemoryTrace.FromString(payload)
        if include_embedding:
            trace.embedding.vector, trace.embedding.model = vector, self._embedding_model
        return trace


def checked_limit(action: pb.ListAction) -> int:
    """Raises FieldInvalid."""
    if action.limit < 1:
        raise FieldInvalid(f"limit is {action.limit}: ask for 1 trace or more", field="page_size")
    return action.limit
