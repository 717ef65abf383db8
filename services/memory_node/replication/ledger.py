"""Signed updates as they came, own and others', by the traces that they are about: what a repair sends instead of unsigned records.

An author's later update of a trace says all that its earlier one said, and an erasure says all that there is to say. So of each trace and
author at most one update of its content and one of its feedback is kept, and the ledger is as large as the store.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from ndml.crdt import existence
from ndml.crdt.envelope import LEAF_BYTES, leaf
from ndml.internal.v1 import replication_pb2 as rpb
from services.memory_node.records import Owner
from services.memory_node.replicas import CHUNK, CONTENT, STATES

TABLES = """
CREATE TABLE IF NOT EXISTS signed (
  id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, user TEXT NOT NULL, replica INTEGER NOT NULL, counter INTEGER NOT NULL,
  signature BLOB NOT NULL, head BLOB NOT NULL, UNIQUE (tenant, user, replica, counter, signature));
CREATE TABLE IF NOT EXISTS pieces (
  tenant TEXT NOT NULL, user TEXT NOT NULL, trace_id BLOB NOT NULL, replica INTEGER NOT NULL, counter INTEGER NOT NULL,
  signed INTEGER NOT NULL, place INTEGER NOT NULL, part INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (tenant, user, trace_id, replica, counter, signed, place)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pieces_of ON pieces (signed);
"""
_TRACE = "tenant = ? AND user = ? AND trace_id = ?"


def item(record: rpb.TraceRecord) -> bytes:
    """What is signed of a record: its bytes, as every node of a release writes them."""
    return record.SerializeToString(deterministic=True)


def leaves_of(update: rpb.OwnerUpdate) -> list[bytes]:
    """Hashes of all records of the job, also of those that are not here."""
    if not update.leaves:
        return [leaf(item(record)) for record in update.records]
    return [update.leaves[at : at + LEAF_BYTES] for at in range(0, len(update.leaves), LEAF_BYTES)]


def bare(update: rpb.OwnerUpdate) -> rpb.OwnerUpdate:
    """Without its records, but with the hashes of them all."""
    return rpb.OwnerUpdate(
        tenant=update.tenant,
        user=update.user,
        replica=update.replica,
        previous=update.previous,
        counter=update.counter,
        envelope=update.envelope,
        signature=update.signature,
        node_id=update.node_id,
        leaves=b"".join(leaves_of(update)),
    )


def in_parts(update: rpb.OwnerUpdate) -> rpb.OwnerUpdate:
    """The same in the form that says: a repair, nothing before it is to be waited for. Changes the update."""
    if not update.leaves:
        update.leaves = b"".join(leaves_of(update))
        update.places.extend(range(len(update.records)))
    return update


class Ledger:
    """Tables in the connection of a ChainFile; every call within its turn. Raises sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.executescript(TABLES)

    def keep(self, update: rpb.OwnerUpdate) -> None:
        """A signed update, whole or in part, whose records were checked."""
        owner = (update.tenant, update.user)
        signed = self._head(update)
        touched: set[int] = set()
        for place, record in zip(update.places or range(len(update.records)), update.records, strict=True):
            part = _part(record)
            row = (*owner, record.trace_id, update.replica, update.counter, signed, place, part, item(record))
            self._connection.execute("INSERT OR IGNORE INTO pieces VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            touched |= self._superseded(update, record, part, signed)
        for former in touched | {signed}:
            query = "DELETE FROM signed WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM pieces WHERE signed = ?1)"
            self._connection.execute(query, (former,))

    def _head(self, update: rpb.OwnerUpdate) -> int:
        head = bare(update)
        key = (update.tenant, update.user, update.replica, update.counter, update.signature)
        query = "INSERT OR IGNORE INTO signed (tenant, user, replica, counter, signature, head) VALUES (?, ?, ?, ?, ?, ?)"
        self._connection.execute(query, (*key, head.SerializeToString()))
        query = "SELECT id FROM signed WHERE tenant = ? AND user = ? AND replica = ? AND counter = ? AND signature = ?"
        return int(self._connection.execute(query, key).fetchone()[0])

    def _superseded(self, update: rpb.OwnerUpdate, record: rpb.TraceRecord, part: int, signed: int) -> set[int]:
        """Let go of what says nothing beyond this record; returns whose pieces they were."""
        trace = (update.tenant, update.user, record.trace_id)
        if record.length == existence.REMOVED:
            where, values = f"{_TRACE} AND signed <> ?", (*trace, signed)
        else:
            where = f"{_TRACE} AND replica = ? AND counter < ? AND part & ? = part"
            values = (*trace, update.replica, update.counter, part)  # type: ignore[assignment]
        gone = {int(former) for (former,) in self._connection.execute(f"SELECT signed FROM pieces WHERE {where}", values)}
        if gone:
            self._connection.execute(f"DELETE FROM pieces WHERE {where}", values)
        return gone

    def of_traces(self, owner: Owner, trace_ids: Sequence[bytes]) -> list[rpb.OwnerUpdate]:
        """What is kept about these traces, each update with the records about them alone; in the order of their positions."""
        found: dict[int, list[tuple[int, bytes]]] = {}
        for start in range(0, len(trace_ids), CHUNK):
            ids = trace_ids[start : start + CHUNK]
            marks = ", ".join("?" * len(ids))
            query = f"SELECT signed, place, body FROM pieces WHERE tenant = ? AND user = ? AND trace_id IN ({marks})"
            for signed, place, body in self._connection.execute(query, (*owner, *ids)):
                found.setdefault(signed, []).append((place, body))
        made = [self._update(signed, sorted(pieces)) for signed, pieces in found.items()]
        return sorted(made, key=lambda update: (update.replica, update.counter, update.signature))

    def of_author(self, node_id: str, replicas: Sequence[int], limit: int) -> list[rpb.OwnerUpdate]:
        """What is kept of some stores' author, the newest first, at most so many updates."""
        marks = ", ".join("?" * len(replicas))
        query = f"SELECT id FROM signed WHERE replica IN ({marks}) ORDER BY id DESC LIMIT ?"
        made = []
        for (signed,) in self._connection.execute(query, (*replicas, limit)).fetchall():
            pieces = self._connection.execute("SELECT place, body FROM pieces WHERE signed = ? ORDER BY place", (signed,)).fetchall()
            made.append(self._update(signed, pieces))
        return [update for update in made if update.node_id == node_id]

    def _update(self, signed: int, pieces: list[tuple[int, bytes]]) -> rpb.OwnerUpdate:
        (head,) = self._connection.execute("SELECT head FROM signed WHERE id = ?", (signed,)).fetchone()
        update = rpb.OwnerUpdate.FromString(head)
        update.records.extend(rpb.TraceRecord.FromString(body) for _, body in pieces)
        if len(pieces) * LEAF_BYTES == len(update.leaves):
            update.ClearField("leaves")
        else:
            update.places.extend(place for place, _ in pieces)
        return update


def _part(record: rpb.TraceRecord) -> int:
    if record.length == existence.REMOVED:
        return CONTENT | STATES
    return (CONTENT if record.versions else 0) | (STATES if record.states else 0)
