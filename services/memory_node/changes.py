"""What happens to traces besides their content: states, their history, and which feedback was carried out. Runs on the writer's thread."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import NamedTuple

from ndml.v1.types_pb2 import LifecycleState, TraceEvent
from services.memory_node.records import timestamp

HISTORY_KEPT = 64
"""Events kept of a trace; a million reinforcements take no more room than these."""

FEEDBACK_KEPT_US = 7 * 24 * 3600 * 1_000_000
"""How long a request_id of feedback is recognised: longer than any client retries."""

# A trace that was deleted meanwhile gets no state back.
_STILL_THERE = "WHERE EXISTS (SELECT 1 FROM traces WHERE owner_id = ?1 AND first_sequence = ?2)"
_SET_STATE = f"INSERT OR REPLACE INTO states SELECT ?1, ?2, ?3, ?4 {_STILL_THERE}"
_SET_EVENT = f"INSERT INTO history SELECT ?1, ?2, ?3, ?4 {_STILL_THERE}"
_NEXT = "SELECT coalesce(max(number), 0) + 1 FROM history WHERE owner_id = ? AND first_sequence = ?"


class StateRow(NamedTuple):
    """A trace's state: `lifecycle` is LifecycleState's number, `state` a packed record (ndml.btsp.state)."""

    first_sequence: int
    lifecycle: int
    state: bytes


@dataclass(frozen=True, slots=True)
class StateChange:
    """States, one event for each of some traces, the digest of the request that caused them, the protein that it made (empty: none)."""

    states: tuple[StateRow, ...]
    events: tuple[tuple[int, TraceEvent], ...] = ()
    digest: bytes = b""
    protein: bytes = b""


def write_change(connection: sqlite3.Connection, owner_id: int, change: StateChange, now_us: int) -> None:
    """Inside the writer's transaction."""
    connection.executemany(_SET_STATE, [(owner_id, *row) for row in change.states])
    for first_sequence, event in change.events:
        _append(connection, owner_id, first_sequence, event)
    if change.protein:
        connection.execute("INSERT OR REPLACE INTO proteins VALUES (?, ?)", (owner_id, change.protein))
    if change.digest:
        connection.execute("DELETE FROM feedback WHERE owner_id = ? AND at_us < ?", (owner_id, now_us - FEEDBACK_KEPT_US))
        connection.execute("INSERT OR IGNORE INTO feedback VALUES (?, ?, ?)", (owner_id, change.digest, now_us))


def write_event(
    connection: sqlite3.Connection, owner_id: int, first_sequence: int, kind: str, why: str, state: LifecycleState, now_us: int
) -> None:
    """One event of a trace, inside the writer's transaction."""
    _append(connection, owner_id, first_sequence, TraceEvent(at=timestamp(now_us), kind=kind, why=why, state=state))


def _append(connection: sqlite3.Connection, owner_id: int, first_sequence: int, event: TraceEvent) -> None:
    number = int(connection.execute(_NEXT, (owner_id, first_sequence)).fetchone()[0])
    connection.execute(_SET_EVENT, (owner_id, first_sequence, number, event.SerializeToString()))
    if number > HISTORY_KEPT:
        connection.execute(
            "DELETE FROM history WHERE owner_id = ? AND first_sequence = ? AND number <= ?",
            (owner_id, first_sequence, number - HISTORY_KEPT),
        )
