"""Feedback on the node: graded use of traces, and credit to those that were active around them. Runs on the engine's thread.

States change in memory at once and are then written; the answer waits for the disk. So two requests under way never undo each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from ndml.btsp.credit import CreditOptions, kernel
from ndml.errors import NdmlError, TraceNotFound
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.runtime import metrics
from ndml.v1 import memory_pb2
from ndml.v1.types_pb2 import WRITE_DECISION_DUPLICATE, TraceEvent
from ndml.wire import error_to_status
from services.memory_node.changes import StateChange, StateRow
from services.memory_node.partition import Partition
from services.memory_node.ports import NowNs
from services.memory_node.reader import Reader
from services.memory_node.records import Judgement, parse_trace_id
from services.memory_node.states import lifecycle_of, strength_of

I64 = NDArray[np.int64]

_UPDATES = {kind: metrics.BTSP_UPDATES.labels(kind) for kind in ("reinforced", "credited", "restated")}
# Credit that changes a weight by less than a thousandth is not worth a write.
_LEAST_CREDIT = 0.01


class FeedbackDesk:
    """`options`: how far credit reaches unless the request says."""

    def __init__(self, reader: Reader, options: CreditOptions, now_ns: NowNs) -> None:
        self._reader = reader
        self._options = options
        self._now_ns = now_ns
        self._under_way: set[bytes] = set()

    def reinforce(self, partition: Partition | None, action: pb.ReinforceAction) -> tuple[pb.ReinforceActionResult, StateChange | None]:
        """Change states as the feedback says. None: there is nothing to write. `partition` None: the owner has no traces.

        Raises FieldInvalid, StoreUnavailable.
        """
        result = pb.ReinforceActionResult()
        if partition is None:
            result.results.extend(_missing(one.trace_id) for one in action.feedback)
            return result, None
        if action.request_digest and self._known(partition, action.request_digest):
            result.replayed = True
            result.results.extend(self._as_it_stands(partition, one.trace_id) for one in action.feedback)
            return result, None
        now_s = self._now_ns() / 1e9
        events: list[tuple[int, TraceEvent]] = []
        touched: set[int] = set()
        for one in action.feedback:
            row = self._row(partition, one.trace_id)
            if isinstance(row, NdmlError):
                result.results.append(memory_pb2.ReinforceResult(trace_id=one.trace_id, error=error_to_status(row)))
                continue
            result.results.append(memory_pb2.ReinforceResult(trace_id=one.trace_id))
            if one.grade:
                touched |= self._grade(partition, row, one, action.spread, now_s, events)
        result.credited = sum(event.kind == "credited" for _, event in events)
        for made in result.results:
            if not made.HasField("error"):
                made.CopyFrom(self._as_it_stands(partition, made.trace_id))
        if not touched:
            return result, None
        if action.request_digest:
            self._under_way.add(action.request_digest)
        change = change_of(partition, sorted(touched), events, action.request_digest)
        return result, replace(change, protein=partition.states.protein.pack())

    def restated(self, partition: Partition, judged: Sequence[Judgement | None]) -> list[StateChange]:
        """What was said again is strengthened: an event on the timescales, no grade."""
        changes = []
        for judgement in judged:
            gate = None if judgement is None else judgement.made.gate
            if gate is None or gate.decision != WRITE_DECISION_DUPLICATE:
                continue
            row = self._row(partition, gate.nearest_trace_id)
            if isinstance(row, int):
                partition.states.restate(np.array([row]), gate.encoding_strength, self._now_ns() / 1e9)
                event = self._event(partition, row, "restated", f"said again, cosine {gate.similarity:.3f}", 0.0)
                _UPDATES["restated"].inc()
                changes.append(change_of(partition, [row], [event]))
        return changes

    def settled(self, change: StateChange) -> None:
        """The change is on disk, or failed."""
        self._under_way.discard(change.digest)

    def _known(self, partition: Partition, digest: bytes) -> bool:
        return digest in self._under_way or self._reader.knows_feedback(partition.owner_id, digest)

    def _row(self, partition: Partition, trace_id: str) -> int | NdmlError:
        """The trace's row in the partition; one that is archived is brought back: graded use says that it is needed."""
        stored = self._reader.row(partition.owner_id, parse_trace_id(trace_id))
        if stored is None:
            return TraceNotFound(f"no trace {trace_id} here: it was never written in this scope, or it was deleted", field="trace_id")
        row = partition.columns.row_of_trace(stored.first_sequence)
        if row is not None:
            return row
        state = self._reader.state(partition.owner_id, stored.first_sequence)
        if state is None:
            # Committed, but not in the index yet: the next turn has it.
            return TraceNotFound(f"trace {trace_id} is being written: repeat the feedback", field="trace_id")
        return partition.revive(stored, state[1])

    def _grade(
        self,
        partition: Partition,
        row: int,
        one: pb.TraceFeedback,
        spread: memory_pb2.CreditSpread,
        now_s: float,
        events: list[tuple[int, TraceEvent]],
    ) -> set[int]:
        """Grade one trace and credit its neighbours; returns the rows that changed."""
        grade = one.grade
        partition.states.grade(np.array([row]), np.array([grade]), now_s)
        events.append(self._event(partition, row, "reinforced", f"graded {grade:+.2f}", grade))
        _UPDATES["reinforced"].inc()
        options = _spread(spread, self._options)
        if options is None:
            partition.states.credit(np.array([row]), np.array([grade]))
            return {row}
        rows, kappa = neighbours(partition, row, options)
        partition.states.credit(rows, grade * kappa)
        for other, share in zip(rows.tolist(), kappa.tolist(), strict=True):
            if other != row:
                why = f"{one.trace_id} of its session was graded {grade:+.2f}, kappa {share:.3f}"
                events.append(self._event(partition, other, "credited", why, grade * share))
                _UPDATES["credited"].inc()
        return {row, *rows.tolist()}

    def _event(self, partition: Partition, row: int, kind: str, why: str, grade: float) -> tuple[int, TraceEvent]:
        at = Timestamp()
        at.FromNanoseconds(self._now_ns())
        state = lifecycle_of(int(partition.states.column("lifecycle")[row]))
        event = TraceEvent(at=at, kind=kind, why=why, state=state, grade=grade)
        return int(partition.columns.ints("first_sequence")[row]), event

    def _as_it_stands(self, partition: Partition, trace_id: str) -> memory_pb2.ReinforceResult:
        row = self._row(partition, trace_id)
        if isinstance(row, NdmlError):
            return memory_pb2.ReinforceResult(trace_id=trace_id, error=error_to_status(row))
        strength = strength_of(partition.states, row, self._now_ns() / 1e9)
        return memory_pb2.ReinforceResult(trace_id=trace_id, strength=strength)


def change_of(partition: Partition, rows: Sequence[int], events: Sequence[tuple[int, TraceEvent]], digest: bytes = b"") -> StateChange:
    """The states of `rows` as they stand in memory, to be written."""
    places = np.array(rows, np.int64)
    first = partition.columns.ints("first_sequence")[places].tolist()
    lifecycles = [lifecycle_of(int(state)) for state in partition.states.column("lifecycle")[places]]
    packed = partition.states.pack(places)
    return StateChange(tuple(map(StateRow, first, lifecycles, packed)), tuple(events), digest)


def neighbours(partition: Partition, row: int, options: CreditOptions) -> tuple[I64, NDArray[np.float64]]:
    """Rows of the same session within reach of `row`, itself included, and kappa of each.

    A session is ordered by when its traces were said; the distance is in turns or seconds as the options' clock says.
    """
    columns = partition.columns
    same = (columns.ints("session") == columns.ints("session")[row]) & columns.alive
    rows = np.flatnonzero(same)
    said = columns.ints("said_at_us")[rows]
    order = np.lexsort((columns.ints("first_sequence")[rows], said))
    rows, said = rows[order], said[order]
    place = int(np.flatnonzero(rows == row)[0])
    distance = (said - said[place]) / 1e6 if options.clock == "seconds" else np.arange(len(rows)) - place
    kappa = kernel(distance, options)
    near = kappa >= _LEAST_CREDIT
    return rows[near], kappa[near]


def _spread(asked: memory_pb2.CreditSpread, default: CreditOptions) -> CreditOptions | None:
    """Options of one request; None: no credit to neighbours."""
    if asked.clock == memory_pb2.CREDIT_CLOCK_NONE:
        return None
    options = default
    if asked.clock:
        options = replace(options, clock="seconds" if asked.clock == memory_pb2.CREDIT_CLOCK_SECONDS else "turns")
    if asked.HasField("tau_before"):
        options = replace(options, tau_before=asked.tau_before)
    if asked.HasField("tau_after"):
        options = replace(options, tau_after=asked.tau_after)
    return options


def _missing(trace_id: str) -> memory_pb2.ReinforceResult:
    error = TraceNotFound(f"no trace {trace_id} here: it was never written in this scope, or it was deleted", field="trace_id")
    return memory_pb2.ReinforceResult(trace_id=trace_id, error=error_to_status(error))
