"""Rows of one group commit: who owns them, which are there, what comes and goes. What writes mean is Transaction's (transaction.py).

Rows wait in memory for one statement at the end; whoever must read them from the table flushes first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ndml.crdt.causal import Dot
from ndml.errors import CapacityReached, TraceNotFound
from ndml.v1.types_pb2 import LIFECYCLE_STATE_ARCHIVED, MemoryTrace
from services.memory_node.owners import Limits, OwnerRow, Totals, create_owner, load_owner
from services.memory_node.records import NewTrace, Owner, TraceRow, checked_row, decimal, parse_trace_id, row_checks
from services.memory_node.replicas import Replicas, checked

COLUMNS = ", ".join("?" * len(TraceRow._fields))
_REPLAYS = """
SELECT trace_id, content_hash, learned_at_us FROM traces WHERE owner_id = ?1 AND trace_id IN ({ids})
UNION ALL SELECT trace_id, NULL, NULL FROM erased WHERE owner_id = ?1 AND trace_id IN ({ids})
"""
_LOOKED_UP = 500
"""Ids in one look-up; SQLite takes 32,766 variables."""


class Rows:
    """`added` and `removed` tell the index what to do once the commit is through; `dropped` which owners are gone from here."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        owners: Mapping[Owner, OwnerRow],
        last_sequence: int,
        totals: Totals,
        limits: Limits,
        replicas: Replicas,
    ) -> None:
        self.connection = connection
        self.replicas = replicas
        self._known = owners
        self._limits = limits
        self._pending: dict[tuple[int, bytes], TraceRow] = {}
        self._pending_labels: list[tuple[int, str, str, int, float | None]] = []
        self._replays: dict[tuple[int, bytes], tuple[bytes | None, int | None]] = {}
        self.owners: dict[Owner, OwnerRow] = {}
        self.last_sequence = last_sequence
        self.totals = replace(totals)
        self.added: dict[Owner, list[TraceRow]] = {}
        self.removed: dict[Owner, list[int]] = {}
        self.dropped: set[Owner] = set()

    def look_up(self, owner: Owner, trace_ids: Sequence[bytes]) -> None:
        """Find out which of these are stored or erased already. Comes before their `put`s, with no other write in between."""
        row = self.owner(owner)
        self._replays = {}
        if row is None:
            return
        for start in range(0, len(trace_ids), _LOOKED_UP):
            some = trace_ids[start : start + _LOOKED_UP]
            query = _REPLAYS.format(ids=", ".join(f"?{i + 2}" for i in range(len(some))))
            for trace_id, content_hash, learned_us in self.connection.execute(query, (row.owner_id, *some)):
                self._replays[row.owner_id, trace_id] = content_hash, learned_us

    def owner(self, owner: Owner) -> OwnerRow | None:
        row = self.owners.get(owner)
        if row is None:
            known = (None if owner in self.dropped else self._known.get(owner)) or load_owner(self.connection, owner)
            if known is None:
                return None
            # A copy: a rollback must leave the known counters as they were.
            row = self.owners[owner] = replace(known, kinds=list(known.kinds))
        return row

    def create(self, owner: Owner) -> OwnerRow:
        row = self.owners[owner] = create_owner(self.connection, owner)
        return row

    def replayed(self, key: tuple[int, bytes]) -> tuple[bytes | None, int | None] | None:
        pending = self._pending.get(key)
        if pending is not None:
            return pending.content_hash, pending.learned_at_us
        return self._replays.get(key)

    def _archived(self, row: OwnerRow) -> int:
        """Traces that take no room in the index; counted when it matters, and kept until states change."""
        if row.archived is None:
            query = "SELECT count(*) FROM states WHERE owner_id = ? AND lifecycle = ?"
            row.archived = int(self.connection.execute(query, (row.owner_id, LIFECYCLE_STATE_ARCHIVED)).fetchone()[0])
        return row.archived

    def check_capacity(self, row: OwnerRow | None, more: int = 1) -> None:
        """Raises CapacityReached where `more` traces do not fit."""
        if self.totals.traces + more > self._limits.max_traces:
            raise CapacityReached(
                f"the node holds {self.totals.traces} traces, its limit (store.max_traces): raise it, add nodes, or delete"
            )
        most = self._limits.max_owner_traces
        if row is not None and row.traces + more > most and row.traces + more - self._archived(row) > most:
            raise CapacityReached(
                f"the owner holds {row.traces - self._archived(row)} traces, as many as fit into memory"
                " (engine.index_memory_limit): raise it or delete traces"
            )

    def insert(self, owner: Owner, owner_row: OwnerRow, new: NewTrace, first_sequence: int, dot: Dot, clock: int) -> TraceRow:
        """A row, of the write `dot` at `clock`; first_sequence 0: of a new trace."""
        self.last_sequence += 1
        sequence = self.last_sequence
        place = (sequence, owner_row.owner_id, new.trace_id, first_sequence or sequence)
        row = checked_row((*place, *new[1:-1], *self.replicas.local(dot), clock))
        self._pending[owner_row.owner_id, new.trace_id] = row
        if new.labels:
            self._pending_labels += [(owner_row.owner_id, key, value, sequence, decimal(value)) for key, value in new.labels]
        self.added.setdefault(owner, []).append(row)
        owner_row.count(row.kind, row.content_bytes, 1)
        self.totals.traces += 1
        self.totals.owners += owner_row.traces == 1
        return row

    def remove(self, owner: Owner, owner_row: OwnerRow, old: TraceRow) -> None:
        self.connection.execute("DELETE FROM traces WHERE sequence = ?", (old.sequence,))
        if old.checks and old.checks != row_checks(old):  # what it is labelled with cannot be read from it
            self.connection.execute("DELETE FROM labels WHERE owner_id = ? AND sequence = ?", (owner_row.owner_id, old.sequence))
        else:
            labels = MemoryTrace.FromString(old.payload).metadata
            if labels:
                self.connection.executemany(
                    "DELETE FROM labels WHERE owner_id = ? AND key = ? AND value = ? AND sequence = ?",
                    [(owner_row.owner_id, key, value, old.sequence) for key, value in labels.items()],
                )
        self.removed.setdefault(owner, []).append(old.sequence)
        owner_row.count(old.kind, old.content_bytes, -1)
        self.totals.traces -= 1
        self.totals.owners -= owner_row.traces == 0

    def find(self, owner: Owner, trace_id: str, *, damaged: bool = False) -> tuple[OwnerRow, TraceRow]:
        """Raises FieldInvalid, TraceNotFound, Damaged (unless `damaged` rows will do)."""
        key, row = parse_trace_id(trace_id), self.owner(owner)
        self.flush()
        found = None
        if row is not None:
            found = self.connection.execute("SELECT * FROM traces WHERE owner_id = ? AND trace_id = ?", (row.owner_id, key)).fetchone()
        if row is None or found is None:
            raise not_found(trace_id)
        return row, TraceRow(*found) if damaged else checked(TraceRow(*found))

    def flush(self) -> None:
        """Rows wait for one executemany; whoever must read them from the table flushes first."""
        if self._pending:
            self.connection.executemany(f"INSERT INTO traces VALUES ({COLUMNS})", list(self._pending.values()))
            if self._pending_labels:
                self.connection.executemany("INSERT INTO labels VALUES (?, ?, ?, ?, ?)", self._pending_labels)
            self._pending, self._pending_labels = {}, []


def not_found(trace_id: str) -> TraceNotFound:
    return TraceNotFound(f"no trace {trace_id} here: it was never written in this scope, or it was deleted", field="trace_id")
