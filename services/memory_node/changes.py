"""What happens to traces besides their content: states, their history, and which feedback was carried out. Runs on the writer's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ndml.v1.types_pb2 import LifecycleState, TraceEvent
from services.memory_node.records import timestamp

HISTORY_KEPT = 64
"""Events kept of a trace; a million reinforcements take no more room than these."""

FEEDBACK_KEPT_US = 7 * 24 * 3600 * 1_000_000
"""How long a request_id of feedback is recognised: longer than any client retries."""

# A trace that was deleted meanwhile gets no state back.
# Its row has its first sequence number, or is one of those that index traces_versions lists.
_STILL_THERE = """WHERE EXISTS (SELECT 1 FROM traces WHERE sequence = ?2 AND owner_id = ?1 AND first_sequence = ?2
  UNION ALL SELECT 1 FROM traces WHERE owner_id = ?1 AND first_sequence = ?2 AND first_sequence <> sequence)"""
_SET_STATE = f"""INSERT INTO states SELECT ?1, ?2, ?3, ?4, ?5 {_STILL_THERE}
  ON CONFLICT DO UPDATE SET lifecycle = excluded.lifecycle, state = excluded.state, changed = max(changed, excluded.changed)"""
_SET_EVENT = f"INSERT INTO history SELECT ?1, ?2, ?3, ?4 {_STILL_THERE}"
_NEXT = "SELECT coalesce(max(number), 0) + 1 FROM history WHERE owner_id = ? AND first_sequence = ?"


class StateRow(NamedTuple):
    """A trace's state: `lifecycle` is LifecycleState's number, `state` a packed record (ndml.btsp.state)."""

    first_sequence: int
    lifecycle: int
    state: bytes
    trace_id: bytes


@dataclass(frozen=True, slots=True)
class StateChange:
    """States, one event for each of some traces, the digest of the request that caused them, the protein that it made (empty: none).

    `basis`: sequence number up to which others' feedback was in memory when the states were made; of later one the writer says Outdated.
    `feedback`: somebody's use of the traces, which other copies learn; else a move in their lives, which is this node's alone.
    """

    states: tuple[StateRow, ...]
    events: tuple[tuple[int, TraceEvent], ...] = ()
    digest: bytes = b""
    protein: bytes = b""
    basis: int = 0
    feedback: bool = True


@dataclass(slots=True)
class Outdated:
    """A state change was made from states that others' feedback has changed since: read them anew and decide again."""

    sequence: int = 0


def write_change(connection: sqlite3.Connection, owner_id: int, change: StateChange, now_us: int, changed: int) -> None:
    """Inside the writer's transaction. `changed`: sequence number of the feedback; 0: it was none."""
    write_states(connection, owner_id, change.states, changed)
    for first_sequence, event in change.events:
        _append(connection, owner_id, first_sequence, event)
    if change.protein:
        connection.execute("INSERT OR REPLACE INTO proteins VALUES (?, ?)", (owner_id, change.protein))
    if change.digest:
        write_requests(connection, owner_id, [change.digest], now_us)


def knows_request(connection: sqlite3.Connection, owner_id: int, digest: bytes) -> bool:
    """Whether it was carried out lately, here or at another copy."""
    return connection.execute("SELECT 1 FROM feedback WHERE owner_id = ? AND digest = ?", (owner_id, digest)).fetchone() is not None


def write_requests(connection: sqlite3.Connection, owner_id: int, digests: Sequence[bytes], now_us: int) -> None:
    """Requests of feedback and of updates that were carried out, here or at another copy."""
    connection.execute("DELETE FROM feedback WHERE owner_id = ? AND at_us < ?", (owner_id, now_us - FEEDBACK_KEPT_US))
    connection.executemany("INSERT OR IGNORE INTO feedback VALUES (?, ?, ?)", [(owner_id, digest, now_us) for digest in digests])


def write_states(connection: sqlite3.Connection, owner_id: int, states: Sequence[StateRow], changed: int) -> None:
    """`changed` as in `write_change`."""
    connection.executemany(_SET_STATE, [(owner_id, *row[:3], changed) for row in states])


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
