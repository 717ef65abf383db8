"""One group commit: several owners' writes in one SQLite transaction, in order, each succeeding or failing by itself.

Runs on the writer's thread only. Nothing here commits: `Committer` in commit.py does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ndml.errors import CapacityReached, RequestIdReused, TraceNotFound, VersionConflict
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1.types_pb2 import LIFECYCLE_STATE_ARCHIVED, MemoryTrace
from services.memory_node import merges
from services.memory_node.changes import StateChange, write_change
from services.memory_node.merges import Membership, Merge
from services.memory_node.records import (
    Judgement,
    NewTrace,
    Owner,
    TraceRow,
    changed_trace,
    check_fields,
    decimal,
    parse_trace_id,
    timestamp,
)

COLUMNS = ", ".join("?" * len(TraceRow._fields))
_REPLAYS = """
SELECT trace_id, content_hash, learned_at_us FROM traces WHERE owner_id = ?1 AND trace_id IN ({ids})
UNION ALL SELECT trace_id, NULL, NULL FROM erased WHERE owner_id = ?1 AND trace_id IN ({ids})
"""
_SAYS_THE_SAME = frozenset(("speaker", "said_at", "kind", "metadata", "salience", "provenance", "protected"))
"""Changes of these leave what a trace says, and for how long."""

_LOOKED_UP = 500
"""Ids in one look-up; SQLite takes 32,766 variables."""


@dataclass(slots=True)
class OwnerRow:
    """Counters of one owner; they are stored, so that counting costs no scan. `kinds` by TraceKind, index 0 unused.

    `archived`: how many of the traces forgetting took out of the index; None: not counted yet.
    """

    owner_id: int
    kinds: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    content_bytes: int = 0
    archived: int | None = None

    @property
    def traces(self) -> int:
        return sum(self.kinds)

    def count(self, kind: int, content_bytes: int, sign: int) -> None:
        # A kind of a later release is counted with the episodic ones rather than refused.
        self.kinds[kind if 0 < kind < len(self.kinds) else 1] += sign
        self.content_bytes += sign * content_bytes


@dataclass(slots=True)
class Totals:
    """What the node holds: traces, and owners that have some."""

    traces: int = 0
    owners: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Capacity of the node: `max_traces` in all, `max_owner_traces` that one owner's index may need in memory."""

    max_traces: int
    max_owner_traces: int


class Transaction:
    """Effects so far. `added` and `removed` tell the index what to do once the commit is through."""

    def __init__(
        self, connection: sqlite3.Connection, owners: Mapping[Owner, OwnerRow], last_sequence: int, totals: Totals, limits: Limits
    ) -> None:
        self._connection = connection
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
        self.membership = Membership()

    def look_up(self, owner: Owner, trace_ids: Sequence[bytes]) -> None:
        """Find out which of these are stored or erased already. Comes before their `put`s, with no other write in between."""
        row = self._owner(owner)
        self._replays = {}
        if row is None:
            return
        for start in range(0, len(trace_ids), _LOOKED_UP):
            some = trace_ids[start : start + _LOOKED_UP]
            query = _REPLAYS.format(ids=", ".join(f"?{i + 2}" for i in range(len(some))))
            for trace_id, content_hash, learned_us in self._connection.execute(query, (row.owner_id, *some)):
                self._replays[row.owner_id, trace_id] = content_hash, learned_us

    def put(self, owner: Owner, new: NewTrace, skip_existing: bool, judged: Judgement | None = None) -> pb.PutOutcome:
        """Store `new`, which was looked up, unless it is there, or is to be left out as a duplicate. RequestIdReused, CapacityReached."""
        row = self._owner(owner)
        if row is not None:
            replay = self._replay((row.owner_id, new.trace_id))
            if replay is not None:
                return _replayed(replay, new, skip_existing)
        if judged is not None and judged.duplicate_of and row is not None and self._outlives(row, judged.duplicate_of, new.expires_at_us):
            return pb.PutOutcome(duplicate_of=judged.duplicate_of, learned_at=judged.kept_since)
        self._check_capacity(row)
        row = row or self._create(owner)
        self._insert(owner, row, new, 0)
        return pb.PutOutcome(learned_at=timestamp(new.learned_at_us))

    def update(self, owner: Owner, action: pb.UpdateAction, vector: bytes, now_us: int) -> MemoryTrace:
        """Change a trace; returns it as it reads now. Raises FieldInvalid, TraceNotFound, VersionConflict."""
        check_fields(action.fields, bool(vector))
        owner_row, old = self._find(owner, action.trace.trace_id)
        if 0 < old.expires_at_us <= now_us:
            raise _not_found(action.trace.trace_id)
        version = MemoryTrace.FromString(old.payload).version
        if action.expected_version and action.expected_version != version:
            raise VersionConflict(
                f"the trace has version {version}, not {action.expected_version}: read it again and decide anew",
                metadata={"version": str(version)},
            )
        new, trace = changed_trace(old, action.trace, action.fields, vector, now_us)
        self._remove(owner, owner_row, old)
        self._insert(owner, owner_row, new, old.first_sequence)
        if not _SAYS_THE_SAME.issuperset(action.fields):
            self._withdraw(owner, owner_row, old, "was changed", now_us)
        return trace

    def delete(self, owner: Owner, trace_id: str, now_us: int) -> bool:
        """Erase content, vector and labels; only the id stays, so that a late replay cannot bring it back. False: not there."""
        try:
            row, old = self._find(owner, trace_id)
        except TraceNotFound:
            return False
        self._withdraw(owner, row, old, "was deleted", now_us)
        self._end(owner, row, old, f"the semantic trace {trace_id} was deleted", now_us)
        self._connection.execute("INSERT INTO erased VALUES (?, ?)", (row.owner_id, old.trace_id))
        return True

    def merge(self, owner: Owner, merge: Merge, new: NewTrace, now_us: int) -> pb.PutOutcome | None:
        """Store the semantic trace `new`, which was looked up, with what its sources become. None: they are not as the plan saw them."""
        row = self._owner(owner)
        if row is None:
            return None
        self._flush()
        sources = merges.sources_as_planned(self._connection, row.owner_id, merge)
        replay = self._replay((row.owner_id, new.trace_id))
        if replay is not None or sources is None:
            there = replay is not None and replay[0] is not None
            return pb.PutOutcome(existed=True) if there else None
        self._check_capacity(row)
        self._insert(owner, row, new, 0)
        merges.join(self._connection, row.owner_id, sources, merge, now_us)
        self.membership.merged.setdefault(owner, []).extend(sources)
        return pb.PutOutcome()

    def change_states(self, owner: Owner, change: StateChange, now_us: int) -> None:
        """Write what happened to traces' states. Raises TraceNotFound when the owner is not here."""
        row = self._owner(owner)
        if row is None:
            raise TraceNotFound("the owner has no traces here", field="scope.user")
        self._flush()
        row.archived = None
        write_change(self._connection, row.owner_id, change, now_us)
        self.last_sequence += 1

    def finish(self) -> None:
        """Write what is still pending: rows, counters, the last sequence number."""
        self._flush()
        counters = [(*row.kinds[1:], row.content_bytes, row.owner_id) for row in self.owners.values()]
        self._connection.executemany(
            "UPDATE owners SET episodic = ?, semantic = ?, procedural = ?, content_bytes = ? WHERE id = ?", counters
        )
        self._connection.execute("UPDATE meta SET value = ? WHERE key = 'last_sequence'", (self.last_sequence,))

    def _owner(self, owner: Owner) -> OwnerRow | None:
        row = self.owners.get(owner)
        if row is None:
            known = self._known.get(owner) or load_owner(self._connection, owner)
            if known is None:
                return None
            # A copy: a rollback must leave the known counters as they were.
            row = self.owners[owner] = replace(known, kinds=list(known.kinds))
        return row

    def _create(self, owner: Owner) -> OwnerRow:
        made = self._connection.execute("INSERT INTO owners VALUES (NULL, ?, ?, 0, 0, 0, 0)", owner).lastrowid
        row = self.owners[owner] = OwnerRow(int(made or 0))
        return row

    def _replay(self, key: tuple[int, bytes]) -> tuple[bytes | None, int | None] | None:
        pending = self._pending.get(key)
        if pending is not None:
            return pending.content_hash, pending.learned_at_us
        return self._replays.get(key)

    def adopt(self, owner: Owner, semantic: bytes, sources: list[bytes]) -> None:
        """A semantic trace was imported with the names of its sources: it ends with them here too."""
        row = self._owner(owner)
        if row is not None:
            self._flush()
            self.membership.merged.setdefault(owner, []).extend(merges.adopt(self._connection, row.owner_id, semantic, sources))

    def _outlives(self, row: OwnerRow, trace_id: str, expires_us: int) -> bool:
        """True when the trace is kept, and for as long as one that expires then."""
        self._flush()
        query = "SELECT expires_at_us FROM traces WHERE owner_id = ? AND trace_id = ?"
        kept = self._connection.execute(query, (row.owner_id, parse_trace_id(trace_id))).fetchone()
        return kept is not None and (kept[0] == 0 or 0 < expires_us <= kept[0])

    def _withdraw(self, owner: Owner, row: OwnerRow, source: TraceRow, what: str, now_us: int) -> None:
        """Semantic traces that say what `source` said end with it; a later consolidation may merge what is left."""
        for semantic in merges.holders(self._connection, row.owner_id, source.first_sequence):
            _, old = self._find(owner, semantic.hex())
            self._end(owner, row, old, f"the semantic trace {semantic.hex()} ended: a source of it {what}", now_us)

    def _end(self, owner: Owner, row: OwnerRow, old: TraceRow, why: str, now_us: int) -> None:
        """The trace, its state and its history go; sources that it stood for are themselves again."""
        freed = merges.set_free(self._connection, row.owner_id, old.trace_id, why, now_us)
        self.membership.freed.setdefault(owner, []).extend(freed)
        self._remove(owner, row, old)
        row.archived = None
        for table in ("states", "history", "members"):
            self._connection.execute(f"DELETE FROM {table} WHERE owner_id = ? AND first_sequence = ?", (row.owner_id, old.first_sequence))
        self.last_sequence += 1

    def _archived(self, row: OwnerRow) -> int:
        """Traces that take no room in the index; counted when it matters, and kept until states change."""
        if row.archived is None:
            query = "SELECT count(*) FROM states WHERE owner_id = ? AND lifecycle = ?"
            row.archived = int(self._connection.execute(query, (row.owner_id, LIFECYCLE_STATE_ARCHIVED)).fetchone()[0])
        return row.archived

    def _check_capacity(self, row: OwnerRow | None) -> None:
        if self.totals.traces >= self._limits.max_traces:
            raise CapacityReached(
                f"the node holds {self.totals.traces} traces, its limit (store.max_traces): raise it, add nodes, or delete"
            )
        most = self._limits.max_owner_traces
        if row is not None and row.traces >= most and row.traces - self._archived(row) >= most:
            raise CapacityReached(
                f"the owner holds {row.traces - self._archived(row)} traces, as many as fit into memory"
                " (engine.index_memory_limit): raise it or delete traces"
            )

    def _insert(self, owner: Owner, owner_row: OwnerRow, new: NewTrace, first_sequence: int) -> None:
        self.last_sequence += 1
        sequence = self.last_sequence
        row = TraceRow(sequence, owner_row.owner_id, new.trace_id, first_sequence or sequence, *new[1:-1])
        self._pending[owner_row.owner_id, new.trace_id] = row
        if new.labels:
            self._pending_labels += [(owner_row.owner_id, key, value, sequence, decimal(value)) for key, value in new.labels]
        self.added.setdefault(owner, []).append(row)
        owner_row.count(row.kind, row.content_bytes, 1)
        self.totals.traces += 1
        self.totals.owners += owner_row.traces == 1

    def _remove(self, owner: Owner, owner_row: OwnerRow, old: TraceRow) -> None:
        labels: Iterable[tuple[str, str]] = MemoryTrace.FromString(old.payload).metadata.items()
        self._connection.execute("DELETE FROM traces WHERE sequence = ?", (old.sequence,))
        self._connection.executemany(
            "DELETE FROM labels WHERE owner_id = ? AND key = ? AND value = ? AND sequence = ?",
            [(owner_row.owner_id, key, value, old.sequence) for key, value in labels],
        )
        self.removed.setdefault(owner, []).append(old.sequence)
        owner_row.count(old.kind, old.content_bytes, -1)
        self.totals.traces -= 1
        self.totals.owners -= owner_row.traces == 0

    def _find(self, owner: Owner, trace_id: str) -> tuple[OwnerRow, TraceRow]:
        key, row = parse_trace_id(trace_id), self._owner(owner)
        self._flush()
        found = None
        if row is not None:
            found = self._connection.execute("SELECT * FROM traces WHERE owner_id = ? AND trace_id = ?", (row.owner_id, key)).fetchone()
        if row is None or found is None:
            raise _not_found(trace_id)
        return row, TraceRow(*found)

    def _flush(self) -> None:
        """Rows wait for one executemany; whoever must read them from the table flushes first."""
        if self._pending:
            self._connection.executemany(f"INSERT INTO traces VALUES ({COLUMNS})", list(self._pending.values()))
            self._connection.executemany("INSERT INTO labels VALUES (?, ?, ?, ?, ?)", self._pending_labels)
            self._pending, self._pending_labels = {}, []


def _not_found(trace_id: str) -> TraceNotFound:
    return TraceNotFound(f"no trace {trace_id} here: it was never written in this scope, or it was deleted", field="trace_id")


def load_owner(connection: sqlite3.Connection, owner: Owner) -> OwnerRow | None:
    row = connection.execute(
        "SELECT id, episodic, semantic, procedural, content_bytes FROM owners WHERE tenant = ? AND user = ?", owner
    ).fetchone()
    return None if row is None else OwnerRow(row[0], [0, *row[1:4]], row[4])


def _replayed(replay: tuple[bytes | None, int | None], new: NewTrace, skip_existing: bool) -> pb.PutOutcome:
    digest, learned_us = replay
    if digest is not None and digest != new.content_hash and not skip_existing:
        raise RequestIdReused(
            "this request_id was used before with another content: a retry must repeat the request as it was, a new memory needs a new id",
            field="request_id",
        )
    # A trace that was deleted since answers without a time: nothing of it is kept.
    return pb.PutOutcome(existed=True, learned_at=None if learned_us is None else timestamp(learned_us))
