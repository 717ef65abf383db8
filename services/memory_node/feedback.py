"""Feedback on the node: graded use of traces, and credit to those that were active around them. Runs on the engine's thread.

States change in memory at once and are then written; the answer waits for the disk. So two requests under way never undo each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from ndml.btsp.checks import in_range
from ndml.btsp.credit import CreditOptions, kernel
from ndml.errors import TraceNotFound
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.runtime import metrics
from ndml.v1 import memory_pb2
from ndml.v1.types_pb2 import WRITE_DECISION_DUPLICATE, GateDecision, TraceEvent
from ndml.wire import error_to_status
from services.memory_node.changes import StateChange, StateRow
from services.memory_node.partition import Partition
from services.memory_node.ports import NowNs
from services.memory_node.reader import Reader, StoredTrace
from services.memory_node.records import parse_trace_id
from services.memory_node.states import States, lifecycle_of, strength_of

I64 = NDArray[np.int64]

_UPDATES = {kind: metrics.BTSP_UPDATES.labels(kind) for kind in ("reinforced", "credited", "restated")}
# Credit that changes a weight by less than a thousandth is not worth a write.
_LEAST_CREDIT = 0.01


class FeedbackDesk:
    """`options`: how far credit reaches unless the request says."""

    def __init__(self, reader: Reader, states: States, options: CreditOptions, now_ns: NowNs) -> None:
        self._reader = reader
        self._states = states
        self._options = options
        self._now_ns = now_ns

    def reinforce(self, partition: Partition | None, action: pb.ReinforceAction) -> tuple[pb.ReinforceActionResult, StateChange | None]:
        """Change states as the feedback says. None: there is nothing to write. `partition` None: the owner has no traces.

        Raises FieldInvalid, StoreUnavailable, and nothing has changed then.
        """
        options = _spread(action.spread, self._options)
        for one in action.feedback:
            in_range(one.grade, "feedback.grade", -1.0, 1.0)
            parse_trace_id(one.trace_id)
        result = pb.ReinforceActionResult()
        found = {} if partition is None else {one.trace_id: self._find(partition, one.trace_id) for one in action.feedback}
        events: list[tuple[int, TraceEvent]] = []
        touched: set[int] = set()
        if partition is not None and action.request_digest and self._reader.knows_feedback(partition.owner_id, action.request_digest):
            result.replayed = True
        elif partition is not None:
            for one in action.feedback:
                stored = found[one.trace_id]
                if one.grade and stored is not None:
                    touched |= self._grade(partition, self._row(partition, stored), one, options, events)
        result.credited = sum(event.kind == "credited" for _, event in events)
        for one in action.feedback:
            stored = found.get(one.trace_id)
            result.results.append(
                _missing(one.trace_id) if stored is None or partition is None else self._as_it_stands(partition, one.trace_id, stored)
            )
        if partition is None or not touched:
            return result, None
        change = change_of(partition, sorted(touched), events, action.request_digest)
        return result, replace(change, protein=partition.states.protein.pack())

    def restated(self, partition: Partition, outcomes: Sequence[pb.PutOutcome]) -> StateChange | None:
        """What was said again is strengthened: an event on the timescales, no grade. None: nothing was."""
        again: dict[str, list[GateDecision]] = {}
        for outcome in outcomes:
            if outcome.gate.decision == WRITE_DECISION_DUPLICATE and not outcome.existed and not outcome.HasField("error"):
                again.setdefault(outcome.gate.nearest_trace_id, []).append(outcome.gate)
        rows, events = [], []
        now_s = self._now_ns() / 1e9
        for trace_id, gates in again.items():
            stored = self._find(partition, trace_id)
            row = None if stored is None else partition.columns.row_of_trace(stored.row.first_sequence)
            if row is None:
                continue
            rows.append(row)
            partition.states.restate(np.full(len(gates), row), [gate.encoding_strength for gate in gates], now_s)
            times = "" if len(gates) == 1 else f" {len(gates)} times"
            events.append(self._event(partition, row, "restated", f"said again{times}, cosine {gates[-1].similarity:.3f}", 0.0))
            _UPDATES["restated"].inc(len(gates))
        return change_of(partition, rows, events) if rows else None

    def _find(self, partition: Partition, trace_id: str) -> StoredTrace | None:
        """The trace, if the owner has it and its time is not over."""
        stored = self._reader.stored(partition.owner_id, parse_trace_id(trace_id))
        return None if stored is None or 0 < stored.row.expires_at_us <= self._now_ns() // 1000 else stored

    def _row(self, partition: Partition, stored: StoredTrace) -> int:
        """The trace's row in the index; one that is archived is brought back: graded use says that it is needed."""
        row = partition.columns.row_of_trace(stored.row.first_sequence)
        return partition.revive(stored) if row is None else row

    def _grade(
        self,
        partition: Partition,
        row: int,
        one: pb.TraceFeedback,
        options: CreditOptions | None,
        events: list[tuple[int, TraceEvent]],
    ) -> set[int]:
        """Grade one trace and credit its neighbours; returns the rows that changed."""
        grade = one.grade
        partition.states.grade(np.array([row]), np.array([grade]), self._now_ns() / 1e9)
        events.append(self._event(partition, row, "reinforced", f"graded {grade:+.2f}", grade))
        _UPDATES["reinforced"].inc()
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

    def _as_it_stands(self, partition: Partition, trace_id: str, stored: StoredTrace) -> memory_pb2.ReinforceResult:
        block, row = self._states.of(stored, partition)
        return memory_pb2.ReinforceResult(trace_id=trace_id, strength=strength_of(block, row, self._now_ns() / 1e9))


def change_of(partition: Partition, rows: Sequence[int], events: Sequence[tuple[int, TraceEvent]], digest: bytes = b"") -> StateChange:
    """The states of `rows` as they stand in memory, to be written."""
    places = np.array(rows, np.int64)
    first = partition.columns.ints("first_sequence")[places].tolist()
    lifecycles = [lifecycle_of(int(state)) for state in partition.states.column("lifecycle")[places]]
    packed = partition.states.pack(places)
    ids = partition.columns.trace_ids(places)
    return StateChange(tuple(map(StateRow, first, lifecycles, packed, ids)), tuple(events), digest, basis=partition.joined)


def neighbours(partition: Partition, row: int, options: CreditOptions) -> tuple[I64, NDArray[np.float64]]:
    """Rows of the same session within reach of `row`, itself included, and kappa of each.

    A session is ordered by when its traces were said; the distance is in turns or seconds as the options' clock says.
    """
    columns = partition.columns
    session = columns.ints("session")[row]
    if session == columns.strings.number(""):
        return np.array([row]), np.ones(1)  # traces without a session have none in common
    same = (columns.ints("session") == session) & columns.alive
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
