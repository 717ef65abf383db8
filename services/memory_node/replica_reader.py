"""Read queries of replication: digests, records, heads, journal. Part of `Reader`."""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ndml.errors import StoreUnavailable
from ndml.internal.v1 import replication_pb2 as rpb
from services.memory_node.digests import U8, Digests, owner_digests
from services.memory_node.owners import load_owner
from services.memory_node.positions import JournalRow, Standing, standing_of, unpacked
from services.memory_node.records import Owner, TraceRow
from services.memory_node.replicas import Held, Replicas, checked

_ENTRY_BYTES = 1024
"""An owner's entry without its digests: two arrays, their views and buffers, names, a place in a dictionary (measured: 1.0 kB)."""


@contextmanager
def store_errors() -> Iterator[None]:
    """A failing disk or file becomes StoreUnavailable; a wrong statement of ours stays what it is."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.DatabaseError as error:
        raise StoreUnavailable(f"the store cannot read ({error}): try again later; the node's log says more") from error


class DigestCache:
    """Digests of owners that have not changed since they were made, within `most_bytes`; least recently used out first. Any thread.

    An owner whose digests alone would take more is not kept: it would push out all others and be made anew all the same.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held: OrderedDict[Owner, tuple[tuple[int, int], Digests]] = OrderedDict()
        self._bytes = 0
        self._turn = threading.Lock()

    @property
    def nbytes(self) -> int:
        """What is kept, and what keeping it takes."""
        return self._bytes

    def get(self, owner: Owner, as_of: tuple[int, int]) -> Digests | None:
        """`as_of`: owner_id, and sequence number of the owner's last change."""
        with self._turn:
            found = self._held.get(owner)
            if found is None or found[0] != as_of:
                return None
            self._held.move_to_end(owner)
            return found[1]

    def put(self, owner: Owner, as_of: tuple[int, int], digests: Digests) -> None:
        size = _taken(digests)
        with self._turn:
            before = self._held.pop(owner, None)
            self._bytes -= 0 if before is None else _taken(before[1])
            if size > self._most:
                return
            self._held[owner] = as_of, digests
            self._bytes += size
            while self._bytes > self._most:
                _, (_, oldest) = self._held.popitem(last=False)
                self._bytes -= _taken(oldest)


def _taken(digests: Digests) -> int:
    return _ENTRY_BYTES + digests.digests.nbytes + digests.trace_ids.nbytes


class ReplicaReader:
    """Every method raises StoreUnavailable when the disk fails, or a row is not as it was written."""

    def __init__(self, connection: sqlite3.Connection, replicas: Replicas, node_id: str, cache: DigestCache) -> None:
        self._connection = connection
        self._replicas = replicas
        self._node_id = node_id
        self._cache = cache

    @property
    def replica(self) -> int:
        """Number of the store."""
        return self._replicas.replica

    def owners(self, after: Owner | None, limit: int) -> list[Owner]:
        """Owners that have records, erased ones count, in order, past `after`."""
        query = "SELECT tenant, user FROM owners WHERE changed > 0 AND (tenant, user) > (?, ?) ORDER BY tenant, user LIMIT ?"
        with store_errors():
            return [Owner(*row) for row in self._connection.execute(query, (*(after or ("", "")), limit))]

    def changed_owners(self, after: int) -> list[Owner]:
        """Owners whose records have changed since a sequence number, in any order."""
        with store_errors():
            return [Owner(*row) for row in self._connection.execute("SELECT tenant, user FROM owners WHERE changed > ?", (after,))]

    def owner_state(self, owner: Owner) -> rpb.OwnerState:
        """Digest, number of records, and heads, this store's own among them. Of an owner that is not here: zeros."""
        digests = self._digests(owner)
        state = rpb.OwnerState(tenant=owner.tenant, user=owner.user, digest=digests.whole, records=len(digests.digests))
        state.heads.extend(rpb.Head(replica=replica, counter=counter) for replica, counter in sorted(self.heads(owner).items()))
        return state

    def record_digests(self, owner: Owner) -> tuple[U8, U8]:
        """Digests [n, 16] and trace ids [n, 16] of all records, erased ones included."""
        return self._digests(owner)

    def _digests(self, owner: Owner) -> Digests:
        with store_errors():
            row = load_owner(self._connection, owner)
            as_of = (0, 0) if row is None else (row.owner_id, row.changed)
            found = self._cache.get(owner, as_of)
            if found is None:
                found = owner_digests(self._connection, as_of[0], self.replica)
                if row is not None and self._connection.in_transaction:
                    # Outside of a snapshot the owner may have changed between the two reads.
                    self._cache.put(owner, as_of, found)
            return found

    def heads(self, owner: Owner) -> dict[int, int]:
        """What is known of each author, this store's own position included."""
        return self.standing(owner).heads

    def shown(self, owner: Owner) -> dict[int, int]:
        """Up to where each author's updates may show here. Never less than `heads`."""
        standing = self.standing(owner)
        return standing.heads | standing.peaks

    def unsettled(self, limit: int) -> list[Owner]:
        """Owners of whom something shows before what it follows on is here."""
        query = "SELECT DISTINCT o.tenant, o.user FROM heads AS h JOIN owners AS o ON o.id = h.owner_id WHERE h.peak > 0 LIMIT ?"
        with store_errors():
            return [Owner(*row) for row in self._connection.execute(query, (limit,))]

    def standing(self, owner: Owner) -> Standing:
        """Heads as `heads` has them, and peaks."""
        with store_errors():
            row = load_owner(self._connection, owner)
            if row is None:
                return Standing({}, {})
            standing = standing_of(self._connection, row.owner_id)
            if row.authored:
                standing.heads[self.replica] = row.authored
            return standing

    def records(self, owner: Owner, trace_ids: Sequence[bytes] | None, parts: Sequence[int] = ()) -> Iterator[rpb.TraceRecord]:
        """Records of these traces, as far as there are any; None: all of the owner. `parts`: see Replicas.records."""
        with store_errors():
            row = load_owner(self._connection, owner)
            if row is not None:
                ids = self._replicas.ids(row.owner_id) if trace_ids is None else trace_ids
                yield from self._replicas.records(row.owner_id, ids, parts)

    def record(self, owner: Owner, trace_id: bytes) -> rpb.TraceRecord | None:
        """None: nothing is known of the trace."""
        return next(self.records(owner, [trace_id]), None)

    def held(self, row: TraceRow) -> Held:
        """All versions of a trace, given its row."""
        with store_errors():
            return self._replicas.held(checked(row))

    def journal(self, after: int, limit: int) -> list[JournalRow]:
        """Own updates past a position, in order."""
        query = (
            "SELECT j.sequence, o.tenant, o.user, j.previous, j.parts, j.request FROM journal AS j JOIN owners AS o ON o.id = j.owner_id"
        )
        query += " WHERE j.sequence > ? ORDER BY j.sequence LIMIT ?"
        with store_errors():
            return [
                JournalRow(sequence, Owner(tenant, user), previous, *unpacked(parts), request)
                for sequence, tenant, user, previous, parts, request in self._connection.execute(query, (after, limit))
            ]

    def journal_size(self, after: int) -> int:
        """Own updates past a position."""
        with store_errors():
            return int(self._connection.execute("SELECT count(*) FROM journal WHERE sequence > ?", (after,)).fetchone()[0])

    def journal_keep(self, rows: int) -> int:
        """The position up to which all but the newest `rows` lie; 0: there are no more."""
        with store_errors():
            found = self._connection.execute("SELECT sequence FROM journal ORDER BY sequence DESC LIMIT 1 OFFSET ?", (rows,)).fetchone()
            return 0 if found is None else int(found[0])

    def update_of(self, row: JournalRow) -> rpb.OwnerUpdate:
        """The update of a job, its records as they are now. What a later job changed of them stands in it too: it is joined twice then."""
        made = rpb.OwnerUpdate(
            tenant=row.owner.tenant,
            user=row.owner.user,
            replica=self.replica,
            previous=row.previous,
            counter=row.sequence,
            node_id=self._node_id,
        )
        with store_errors():
            owner = load_owner(self._connection, row.owner)
            if owner is not None:
                made.records.extend(self._replicas.records(owner.owner_id, row.trace_ids, row.parts))
        if row.request and made.records:
            made.records[0].requests.append(row.request)
        return made

    def conflicts(self) -> int:
        """Traces with more than one distinct content."""
        query = "SELECT count(*) FROM (SELECT DISTINCT owner_id, trace_id FROM siblings WHERE rival)"
        with store_errors():
            return int(self._connection.execute(query).fetchone()[0])

    def author_names(self) -> dict[int, str]:
        """Nodes by store, as far as updates said."""
        with store_errors():
            return dict(self._connection.execute("SELECT replica, node_id FROM authors").fetchall()) | {self.replica: self._node_id}
