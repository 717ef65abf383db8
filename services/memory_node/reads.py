"""Get, list and stats: small reads that the store answers by itself. Runs on the engine's thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ndml.btsp.lifecycle import Outcome
from ndml.btsp.state import StateBlock
from ndml.contents import leave_out
from ndml.crdt.record import Version
from ndml.errors import FieldInvalid, TraceNotFound
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.v1.memory_pb2 import GetMemoryStatsResponse
from ndml.v1.types_pb2 import MemoryTrace, TraceEvent, TraceSibling
from services.memory_node.filters import conditions
from services.memory_node.partition import Partition
from services.memory_node.ports import NowNs
from services.memory_node.reader import NEWEST, Place, Reader
from services.memory_node.records import Owner, TraceRow, parse_trace_id, timestamp
from services.memory_node.replicas import STATES
from services.memory_node.residents import Residents
from services.memory_node.states import States, lifecycle_of, strength_of
from services.memory_node.vectors import show
from services.memory_node.versions import Trust, shown, sibling_id, trusted

_KINDS = ("", "episodic", "semantic", "procedural")

Kept = Callable[[Owner, Sequence[bytes]], Sequence[rpb.OwnerUpdate]]


class Reads:
    """dimension, embedding_model: of the suite. result_bytes: one page's traces at most. trust: in authors of versions. kept: where updates
    are signed, those that traces are made of."""

    def __init__(
        self,
        reader: Reader,
        states: States,
        dimension: int,
        embedding_model: str,
        result_bytes: int,
        now_ns: NowNs,
        trust: Trust = trusted,
        kept: Kept = lambda owner, trace_ids: (),
    ) -> None:
        self._reader = reader
        self._trust = trust
        self._kept = kept
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
        if action == "record":
            return self._record(owner, operation.record)
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
        trace = self._trace(found.payload, found.vector, action.include_embedding, include_data=action.include_data)
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
        if action.include_siblings:
            trace.siblings.extend(self._siblings(found, action.include_embedding, action.include_data))
        return pb.TraceResult(trace=trace)

    def _siblings(self, row: TraceRow, include_embedding: bool, include_data: bool) -> list[TraceSibling]:
        """Distinct contents of a trace, the shown one first; none where there is no conflict."""
        held = self._reader.held(row)
        rivals = [dot for dot in sorted(held.versions) if dot != held.shown and dot not in held.twins]
        if not rivals:
            return []
        support, names = shown(held.versions, self._trust, self._dimension).support, self._reader.author_names()
        return [
            TraceSibling(
                sibling_id=sibling_id(dot),
                trace=self._sibling(held.versions[dot].version, include_embedding, include_data),
                node_id=names.get(dot.replica, ""),
                shown=dot == held.shown,
                support=support.get(dot, 0),
            )
            for dot in (held.shown, *rivals)
        ]

    def _sibling(self, version: Version, include_embedding: bool, include_data: bool) -> MemoryTrace:
        return self._trace(version.content, version.vector, include_embedding, include_data=include_data)

    def feedback_update(self, owner: Owner, action: pb.ReinforceAction) -> rpb.OwnerUpdate:
        """What feedback that was carried out before had changed, as it is now, for copies that may not have it yet. Without a position."""
        ids = [parse_trace_id(one.trace_id) for one in action.feedback]
        update = rpb.OwnerUpdate(tenant=owner.tenant, user=owner.user, replica=self._reader.replica)
        with self._reader.snapshot():
            update.records.extend(self._reader.records(owner, ids, [STATES] * len(ids)))
        if update.records:
            update.records[0].requests.append(action.request_digest)
        return update

    def _record(self, owner: Owner, action: pb.RecordAction) -> pb.OperationResult:
        """Where updates are signed with what it is made of: nobody takes the record itself."""
        trace_id = parse_trace_id(action.trace_id)
        with self._reader.snapshot():
            record = pb.RecordResult(record=self._reader.record(owner, trace_id))
        return pb.OperationResult(record=record, more_updates=self._kept(owner, [trace_id]))

    def _look(self, block: StateBlock, first: int, rows: Sequence[TraceRow]) -> Outcome:
        """Where traces stand in their lives; the block has them from row `first` on."""
        learned, expires = np.array([row.learned_at_us for row in rows]), np.array([row.expires_at_us for row in rows])
        return self._states.look(block, np.arange(first, first + len(rows)), learned, expires, self._now_us() / 1e6)

    def _page(self, owner: Owner, action: pb.ListAction, partition: Partition | None) -> pb.ListResult:
        row = self._reader.owner(owner)
        if row is None:
            return pb.ListResult()
        page = self._reader.page(row.owner_id, place_of(action), checked_limit(action), self._result_bytes, action.include_archived)
        # One that has expired and is not deleted yet is left out; the page is then shorter.
        stored = [one for one in page.traces if not 0 < one.row.expires_at_us <= self._now_us()]
        traces = self._traces([(one.row.payload, one.row.vector) for one in stored], action.include_embedding)
        block = self._states.stored(stored, None if partition is None else partition.states.protein)
        for trace, state in zip(traces, self._look(block, 0, [one.row for one in stored]).state.tolist(), strict=True):
            trace.state = lifecycle_of(state)
        return _page(traces, page.next_before)

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
            rows = partition.newest(place_of(action), limit + 1, allowed)
            page = rows[: self._fitting(partition, rows, limit)]
            sequences = partition.columns.ints("sequence")[page].tolist()
            found = self._reader.payloads(partition.owner_id, sequences)
        more = len(rows) > len(page)
        # A row that was deleted since the index last heard is left out; the page is then shorter, and the next one starts where it should.
        there = [sequence in found for sequence in sequences]
        traces = self._traces([found[sequence] for sequence in sequences if sequence in found], action.include_embedding)
        for trace, state in zip(traces, partition.look(page[there], self._now_us() / 1e6).state.tolist(), strict=True):
            trace.state = lifecycle_of(state)
        last = page[-1:]
        learned_us, ids = partition.columns.ints("learned_at_us")[last].tolist(), partition.columns.trace_ids(last)
        return _page(traces, Place(learned_us[0], ids[0]) if more else None)

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

    def _trace(self, payload: bytes, vector: bytes, include_embedding: bool, *, include_data: bool = False) -> MemoryTrace:
        trace = MemoryTrace.FromString(payload)
        leave_out(trace, data=not include_data, embeddings=not include_embedding)
        if include_embedding:
            show(trace.embedding, vector, self._dimension, self._embedding_model)
        return trace


def place_of(action: pb.ListAction) -> Place:
    """Where the page starts. Raises FieldInvalid."""
    if not action.HasField("before"):
        return NEWEST
    if len(action.before.trace_id) != 16:
        raise FieldInvalid("a place in a list has a trace id of 16 bytes: send it as ListResult.next gave it", field="before.trace_id")
    return Place(action.before.learned_us, action.before.trace_id)


def _page(traces: Sequence[MemoryTrace], before: Place | None) -> pb.ListResult:
    place = None if before is None else pb.ListPlace(learned_us=before.learned_at_us, trace_id=before.trace_id)
    return pb.ListResult(traces=traces, next=place)


def checked_limit(action: pb.ListAction) -> int:
    """Raises FieldInvalid."""
    if action.limit < 1:
        raise FieldInvalid(f"limit is {action.limit}: ask for 1 trace or more", field="page_size")
    return action.limit
