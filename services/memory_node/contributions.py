"""What each store's feedback added to traces, in tables: own changes, and the join of others'. Inside the writer's transaction.

Table `states` has what is shown: birth and all contributions. This store's own contribution is what is left without birth and the others';
it is written down only where there are others, so a node without copies pays nothing for it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from ndml.btsp.record import decoded
from ndml.crdt import strength
from ndml.crdt.record import Contribution, TraceRecord, joined_all
from services.memory_node.changes import StateChange, StateRow, write_states
from services.memory_node.records import TraceRow
from services.memory_node.replicas import CHUNK, Replicas
from services.memory_node.states import lifecycle_of

_SET = "INSERT OR REPLACE INTO contributions VALUES (?, ?, ?, ?, ?)"


def keep_own(connection: sqlite3.Connection, replicas: Replicas, owner_id: int, change: StateChange, changed: int) -> None:
    """After own feedback on traces that others gave feedback on too: what is ours of it now. `changed`: its sequence number."""
    shown = {row.trace_id: row.state for row in change.states}
    ids = list(shown)
    for start in range(0, len(ids), CHUNK):
        rows = list(replicas.rows(owner_id, ids[start : start + CHUNK]).values())
        known = _written(connection, owner_id, rows)
        rows = [row for row in rows if row.trace_id in known]
        foreign = [[state.state for author, state in known[row.trace_id].items() if author != replicas.replica] for row in rows]
        if not rows:
            continue
        own = strength.contribution([shown[row.trace_id] for row in rows], replicas.births(rows), foreign)
        for row, state in zip(rows, own, strict=True):
            before = known[row.trace_id].get(replicas.replica)
            now = _later(row.trace_id, before, Contribution(changed, state))
            connection.execute(_SET, (owner_id, row.trace_id, replicas.replica, now.counter, now.state))


def join_states(
    connection: sqlite3.Connection, replicas: Replicas, rows: Mapping[bytes, TraceRow], incoming: Mapping[bytes, Mapping[int, Contribution]]
) -> dict[bytes, StateRow]:
    """Join contributions to traces, whose rows are given by id; returns the states of those that changed, which are in the table.

    The records are checked already. Flags and lifecycle stay this node's.
    """
    if not incoming:
        return {}
    owner_id = next(iter(rows.values())).owner_id
    known = replicas.contributions(owner_id, list(rows.values()))
    ours = [TraceRecord(trace_id, states=known.get(trace_id, {})) for trace_id in incoming]
    theirs = [TraceRecord(trace_id, states=states) for trace_id, states in incoming.items()]
    changed = {now.trace_id: now.states for before, now in zip(ours, joined_all(ours, theirs), strict=True) if before.states != now.states}
    if not changed:
        return {}
    written = [(owner_id, i, author, one.counter, one.state) for i, states in changed.items() for author, one in states.items()]
    connection.executemany(_SET, written)
    made = _shown(connection, replicas, [rows[trace_id] for trace_id in changed], list(changed.values()))
    for row in made.values():
        own = changed[row.trace_id].get(replicas.replica)
        write_states(connection, owner_id, [row], 0 if own is None else own.counter)
    return made


def _shown(
    connection: sqlite3.Connection, replicas: Replicas, rows: Sequence[TraceRow], states: Sequence[Mapping[int, Contribution]]
) -> dict[bytes, StateRow]:
    """What the traces show now, by id."""
    births = replicas.births(rows)
    query = f"SELECT first_sequence, state FROM states WHERE owner_id = ? AND first_sequence IN ({', '.join('?' * len(rows))})"
    local = dict(connection.execute(query, (rows[0].owner_id, *(row.first_sequence for row in rows))))
    kept = [local.get(row.first_sequence, birth) for row, birth in zip(rows, births, strict=True)]
    combined = strength.combined(births, [[one.state for one in each.values()] for each in states], kept)
    lifecycles = [lifecycle_of(int(state)) for state in decoded(combined)["lifecycle"]]
    return {
        row.trace_id: StateRow(row.first_sequence, life, state, row.trace_id)
        for row, life, state in zip(rows, lifecycles, combined, strict=True)
    }


def _written(connection: sqlite3.Connection, owner_id: int, rows: Sequence[TraceRow]) -> dict[bytes, dict[int, Contribution]]:
    """Contributions that stand in the table."""
    ids = [row.trace_id for row in rows]
    query = f"SELECT trace_id, replica, counter, state FROM contributions WHERE owner_id = ? AND trace_id IN ({', '.join('?' * len(ids))})"
    found: dict[bytes, dict[int, Contribution]] = {}
    for trace_id, author, counter, state in connection.execute(query, (owner_id, *ids)):
        found.setdefault(trace_id, {})[author] = Contribution(counter, state)
    return found


def _later(trace_id: bytes, before: Contribution | None, now: Contribution) -> Contribution:
    """Own contributions never go down, whatever rounding says."""
    if before is None:
        return now
    return TraceRecord(trace_id, states={1: before}).joined(TraceRecord(trace_id, states={1: now})).states[1]
