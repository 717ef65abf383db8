"""Merges on the engine's thread: a semantic trace and the states of its members become one commit, and can be taken back."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum

from google.protobuf.timestamp_pb2 import Timestamp

from ndml.btsp.consolidation import ConsolidationOptions
from ndml.btsp.lifecycle import State
from ndml.btsp.state import TraceFlag
from ndml.errors import NdmlError
from ndml.v1.types_pb2 import LINK_TYPE_DERIVED_FROM, TRACE_KIND_SEMANTIC, MemoryTrace, TraceEvent
from services.memory_node.changes import StateChange
from services.memory_node.feedback import change_of
from services.memory_node.partition import Partition
from services.memory_node.ports import NowNs
from services.memory_node.reader import Reader
from services.memory_node.records import Owner, parse_trace_id
from services.memory_node.states import lifecycle_of


@dataclass(frozen=True, slots=True)
class JobOptions:
    """Bounds of one run unless the request says less. most_runs: at once on this node."""

    plan: ConsolidationOptions
    most_traces: int
    time_budget_s: float
    most_runs: int


class Merged(Enum):
    """What became of a cluster."""

    NEW = "merged"
    UNCHANGED = "unchanged"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Merge:
    """A semantic trace, with its vector and links, of the members with these ids."""

    owner: Owner
    semantic: MemoryTrace
    members: list[str]
    why: str
    dry_run: bool


@dataclass(frozen=True, slots=True)
class MergeTask:
    """A merge that consolidation asks for, and where its outcome goes."""

    merge: Merge
    done: Future[Merged | NdmlError]


class Merger:
    """Moves members into a merge and out of it."""

    def __init__(self, reader: Reader, now_ns: NowNs) -> None:
        self._reader = reader
        self._now_ns = now_ns

    def judge(self, partition: Partition, merge: Merge) -> Merged:
        """UNCHANGED: it was merged before. REJECTED: its user deleted it, or a member is gone since the plan."""
        trace_id = parse_trace_id(merge.semantic.trace_id)
        if self._reader.row(partition.owner_id, trace_id) is not None:
            return Merged.UNCHANGED
        if self._reader.erased(partition.owner_id, trace_id) or len(self._rows(partition, merge.members)) < len(merge.members):
            return Merged.REJECTED
        return Merged.NEW

    def is_merge(self, owner: Owner, trace_id: str) -> bool:
        """True for a stored trace that consolidation made."""
        row, key = self._reader.owner(owner), parse_trace_id(trace_id)
        stored = None if row is None else self._reader.row(row.owner_id, key)
        return stored is not None and stored.kind == TRACE_KIND_SEMANTIC

    def consolidate(self, partition: Partition, merge: Merge) -> StateChange:
        """Members become consolidated, in memory; the change is the caller's to write with the semantic trace."""
        return self._move(partition, merge.members, State.CONSOLIDATED, f"{merge.why}, into {merge.semantic.trace_id}", "consolidated")

    def release(self, partition: Partition, trace_id: str) -> StateChange | None:
        """The semantic trace is about to be deleted: its members are themselves again. None: it is no merge, or none of them is here."""
        stored = self._reader.row(partition.owner_id, parse_trace_id(trace_id))
        trace = MemoryTrace() if stored is None else MemoryTrace.FromString(stored.payload)
        members = [link.trace_id for link in trace.links if link.type == LINK_TYPE_DERIVED_FROM]
        if not self._rows(partition, members):
            return None
        return self._move(partition, members, State.ACTIVE, f"the semantic trace {trace_id} was deleted", "released")

    def _move(self, partition: Partition, members: list[str], state: State, why: str, kind: str) -> StateChange:
        rows = self._rows(partition, members)
        at = Timestamp()
        at.FromNanoseconds(self._now_ns())
        partition.states.set_lifecycle(rows, int(state))
        partition.states.set_flag(rows, TraceFlag.MERGED, state is State.CONSOLIDATED)
        first = partition.columns.ints("first_sequence")[rows].tolist()
        return change_of(partition, rows, [(s, TraceEvent(at=at, kind=kind, why=why, state=lifecycle_of(state))) for s in first])

    def _rows(self, partition: Partition, trace_ids: list[str]) -> list[int]:
        """Rows of those that are in the index."""
        found = []
        for trace_id in trace_ids:
            stored = self._reader.row(partition.owner_id, parse_trace_id(trace_id))
            row = None if stored is None else partition.columns.row_of_trace(stored.first_sequence)
            if row is not None:
                found.append(row)
        return sorted(found)
