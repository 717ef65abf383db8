"""What happens to traces without a request: expiry, capture, forgetting for room. On the engine's thread, a bounded bit at a time.

Whether a trace is new, active or aging is computed when somebody looks; only moves that outlive a restart are written: consolidated by
capture, archived by age or for room. An archived trace stays in the store; its writer's own expiry deletes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from ndml.btsp.forgetting import ForgettingOptions, WaterMarks, choose, pressure, tie_keys
from ndml.btsp.lifecycle import Cause, LifecycleOptions, State, moved
from ndml.btsp.state import TraceFlag
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.runtime import metrics
from ndml.v1.types_pb2 import TraceEvent
from services.memory_node.changes import StateChange
from services.memory_node.commit import WriteJob
from services.memory_node.feedback import change_of
from services.memory_node.partition import Partition
from services.memory_node.ports import NowNs
from services.memory_node.reader import Reader
from services.memory_node.states import lifecycle_of

I64 = NDArray[np.int64]

# What a semantic trace says too is missed less: half the way from the most to the least salient.
_MERGED = 0.75
_ARCHIVED = metrics.BTSP_UPDATES.labels("archived")


@dataclass(frozen=True, slots=True)
class CareOptions:
    """owner: room of one owner's index, None: no bound but memory. batch: traces that one visit moves at most."""

    lifecycle: LifecycleOptions
    forgetting: ForgettingOptions
    owner: WaterMarks | None
    node: WaterMarks | None
    interval_s: float
    batch: int


class Caretaker:
    """Visits partitions in memory, one at a time; `due` says whose turn it is."""

    def __init__(self, reader: Reader, options: CareOptions, now_ns: NowNs) -> None:
        self._reader = reader
        self._options = options
        self._now_ns = now_ns
        self._expiry_due_s = 0.0

    def due(self, partition: Partition) -> bool:
        return self._now_ns() / 1e9 >= partition.next_visit_s

    def visit(self, partition: Partition, node_traces: int) -> StateChange | None:
        """Move what must be moved, in memory; the change is the caller's to write. `node_traces`: in memory on the whole node."""
        now_s = self._now_ns() / 1e9
        partition.next_visit_s = now_s + self._options.interval_s
        moves = self._by_state(partition, now_s)
        moves |= self._for_room(partition, node_traces, now_s, self._options.batch - len(moves))
        if len(moves) == self._options.batch:
            partition.next_visit_s = now_s  # there may be more: come again soon
        if not moves:
            return None
        at = Timestamp()
        at.FromNanoseconds(self._now_ns())
        first = partition.columns.ints("first_sequence")
        events = []
        for row, (state, why) in moves.items():
            events.append((int(first[row]), TraceEvent(at=at, kind="state", why=why, state=lifecycle_of(state))))
            partition.states.set_lifecycle([row], int(state))
        change = replace(change_of(partition, sorted(moves), events), feedback=False)
        archived = np.array([row for row, (state, _) in moves.items() if state == State.ARCHIVED], np.int64)
        partition.archive(archived)
        _ARCHIVED.inc(len(archived))
        return change

    def expired(self) -> list[WriteJob]:
        """Deletes of traces whose writer gave them an end that is past."""
        now_s = self._now_ns() / 1e9
        if now_s < self._expiry_due_s:
            return []
        ended = self._reader.expired(int(now_s * 1e6), self._options.batch)
        # A full batch: there are more.
        self._expiry_due_s = now_s + (self._options.interval_s if len(ended) < self._options.batch else 0.0)
        return [WriteJob(owner, pb.DeleteAction(trace_id=trace_id.hex())) for owner, trace_id in ended]

    def _by_state(self, partition: Partition, now_s: float) -> dict[int, tuple[State, str]]:
        rows = np.flatnonzero(partition.columns.alive)
        if not rows.size:
            return {}
        outcome = partition.look(rows, now_s)
        lasting = np.isin(outcome.cause, (Cause.CAPTURED, Cause.ARCHIVE_AGE))
        found = np.flatnonzero(lasting)[: self._options.batch]
        return {int(rows[i]): (State(int(outcome.state[i])), outcome.why(int(i))) for i in found.tolist()}

    def _for_room(self, partition: Partition, node_traces: int, now_s: float, limit: int) -> dict[int, tuple[State, str]]:
        """Archive what is missed least when the owner or the node holds too much."""
        wanted, what = self._excess(partition, node_traces)
        rows = np.flatnonzero(partition.columns.alive)
        if not wanted or not rows.size or limit <= 0:
            return {}
        states = partition.states
        salience = states.column("salience")[rows].astype(np.float64)
        force = pressure(
            salience,
            strength=states.strength(rows, now_s).astype(np.float64),
            z=np.maximum(states.captured(rows, now_s), 0.0),
            options=self._options.forgetting,
        )
        lifecycle, flags = states.column("lifecycle")[rows], states.column("flags")[rows]
        force = force + _MERGED * (flags & TraceFlag.MERGED > 0)
        age_s = now_s - partition.columns.ints("learned_at_us")[rows] / 1e6
        kept = (flags & TraceFlag.PROTECTED > 0) | (age_s < self._options.lifecycle.grace_s)
        keys = tie_keys([int(s).to_bytes(8, "little") for s in partition.columns.ints("first_sequence")[rows]])
        chosen = choose(force, min(wanted, limit), kept, keys)
        return {
            int(rows[i]): (
                State.ARCHIVED,
                moved(_settled(State(int(lifecycle[i]))), State.ARCHIVED, f"{what}, pressure {force[i]:.3f}, salience {salience[i]:.2f}"),
            )
            for i in chosen.tolist()
        }

    def _excess(self, partition: Partition, node_traces: int) -> tuple[int, str]:
        owner, node = self._options.owner, self._options.node
        over = owner.excess(partition.live) if owner is not None else 0
        if over and owner is not None:
            return over, f"the owner has {partition.live} traces in the index, room for {owner.capacity}"
        over = node.excess(node_traces) if node is not None else 0
        if over and node is not None:
            share = -(-over * partition.live // max(1, node_traces))
            return share, f"the node has {node_traces} traces in its indexes, room for {node.capacity}"
        return 0, ""


def _settled(state: State) -> State:
    """A consolidating trace is a consolidated one to be, if it must leave the index meanwhile."""
    return State.CONSOLIDATED if state is State.CONSOLIDATING else state
