"""Read queries on the store. A reader belongs to one thread at a time and has a connection of its own: it never waits for the writer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ndml.v1.types_pb2 import LIFECYCLE_STATE_ARCHIVED
from services.memory_node.owners import OwnerRow, load_owner
from services.memory_node.records import Owner, TraceRow
from services.memory_node.replica_reader import ReplicaReader, store_errors
from services.memory_node.replicas import Damaged, checked

I64 = NDArray[np.int64]

_LOAD_ROWS, _LOAD_BYTES = 4096, 64 << 20
_COLUMNS = "sequence, first_sequence, kind, said_at_us, learned_at_us, agent, session, speaker, payload, vector"
_PAYLOAD = 8
_DYNAMICS = "salience, encoding, expires_at_us, protected, s.lifecycle, s.state, trace_id, checks"


_WITH_STATES = "FROM traces AS t LEFT JOIN states AS s USING (owner_id, first_sequence) WHERE owner_id = ?"
_IN_MERGE = "EXISTS (SELECT 1 FROM members AS m WHERE m.owner_id = t.owner_id AND m.first_sequence = t.first_sequence)"
_STORED = f"SELECT t.*, s.state, {_IN_MERGE} {_WITH_STATES}"
_NOT_ARCHIVED = f" AND (s.lifecycle IS NULL OR s.lifecycle <> {LIFECYCLE_STATE_ARCHIVED})"
_LASTING = "(expires_at_us = 0 OR expires_at_us > ?4)"
_NARROWED = f"owner_id = ?1 AND (?2 = '' OR agent = ?2) AND (?3 = '' OR session = ?3) AND {_LASTING}"


class LoadedRows(NamedTuple):
    """Some rows of an owner as columns: [n] integers, n strings, n vectors (vectors.py), [n * 16] ids."""

    sequence: I64
    first_sequence: I64
    kind: I64
    said_at_us: I64
    learned_at_us: I64
    agent: Sequence[str]
    session: Sequence[str]
    speaker: Sequence[str]
    payloads: Sequence[bytes]
    vectors: Sequence[bytes]
    salience: Sequence[float]
    encoding: Sequence[float]
    expires_at_us: I64
    protected: I64
    lifecycle: Sequence[int | None]
    states: Sequence[bytes | None]
    trace_ids: bytes


class StoredTrace(NamedTuple):
    """A row, its packed state (None: nothing happened to the trace yet), and whether it stands in a semantic trace."""

    row: TraceRow
    state: bytes | None
    merged: bool


class Place(NamedTuple):
    """Of a trace in its owner's list, the same on every copy: when it was learned, then its id."""

    learned_at_us: int
    trace_id: bytes


NEWEST = Place((1 << 63) - 1, b"\xff" * 16)


class Page(NamedTuple):
    """Traces of a page, newest first, and the place that the next one starts before; None: there is none."""

    traces: list[StoredTrace]
    next_before: Place | None


class Reader(ReplicaReader):
    """Every method raises StoreUnavailable when the disk fails, or when what it reads is not as it was written."""

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything read inside sees the same state of the store."""
        with store_errors():
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("COMMIT")

    def last_sequence(self) -> int:
        with store_errors():
            return int(self._connection.execute("SELECT value FROM meta WHERE key = 'last_sequence'").fetchone()[0])

    def owner(self, owner: Owner) -> OwnerRow | None:
        with store_errors():
            return load_owner(self._connection, owner)

    def tenant(self, tenant: str) -> tuple[OwnerRow, int]:
        """Sum over a tenant's owners, and how many of them hold traces."""
        query = """SELECT count(*), total(episodic), total(semantic), total(procedural), total(content_bytes)
                   FROM owners WHERE tenant = ? AND episodic + semantic + procedural > 0"""
        with store_errors():
            owners, *sums = (int(value) for value in self._connection.execute(query, (tenant,)).fetchone())
        return OwnerRow(0, [0, *sums[:3]], sums[3]), owners

    def trace(self, owner_id: int, trace_id: bytes) -> tuple[bytes, bytes] | None:
        """(payload, vector)."""
        query = "SELECT payload, vector, checks FROM traces WHERE owner_id = ? AND trace_id = ?"
        with store_errors():
            found = self._connection.execute(query, (owner_id, trace_id)).fetchone()
            return None if found is None else _checked(*found)

    def payloads(self, owner_id: int, sequences: Sequence[int]) -> dict[int, tuple[bytes, bytes]]:
        """sequence -> (payload, vector) of those rows of the owner that are there."""
        query = (
            "SELECT t.sequence, t.payload, t.vector, t.checks FROM json_each(?) AS wanted CROSS JOIN traces AS t"
            " ON t.sequence = wanted.value WHERE t.owner_id = ?"
        )
        with store_errors():
            return {s: _checked(*rest) for s, *rest in self._connection.execute(query, (json.dumps(sequences), owner_id))}

    def protein(self, owner_id: int) -> bytes | None:
        """Packed protein of an owner whose traces got feedback."""
        with store_errors():
            found = self._connection.execute("SELECT state FROM proteins WHERE owner_id = ?", (owner_id,)).fetchone()
            return None if found is None else bytes(found[0])

    def stored(self, owner_id: int, trace_id: bytes) -> StoredTrace | None:
        """The trace as it stands."""
        with store_errors():
            found = self._connection.execute(f"{_STORED} AND trace_id = ?", (owner_id, trace_id)).fetchone()
            return None if found is None else _stored(found)

    def merged(self, owner_id: int) -> list[int]:
        """First sequences of the traces that stand in a semantic trace."""
        with store_errors():
            return [first for (first,) in self._connection.execute("SELECT first_sequence FROM members WHERE owner_id = ?", (owner_id,))]

    def history(self, owner_id: int, first_sequence: int) -> list[bytes]:
        """Serialised TraceEvents, last first."""
        query = "SELECT event FROM history WHERE owner_id = ? AND first_sequence = ? ORDER BY number DESC"
        with store_errors():
            return [event for (event,) in self._connection.execute(query, (owner_id, first_sequence))]

    def knows_feedback(self, owner_id: int, digest: bytes) -> bool:
        """True when feedback with this digest was carried out."""
        query = "SELECT 1 FROM feedback WHERE owner_id = ? AND digest = ?"
        with store_errors():
            return self._connection.execute(query, (owner_id, digest)).fetchone() is not None

    def erased(self, owner_id: int, trace_id: bytes) -> bool:
        """True when the trace was deleted."""
        query = "SELECT 1 FROM erased WHERE owner_id = ? AND trace_id = ?"
        with store_errors():
            return self._connection.execute(query, (owner_id, trace_id)).fetchone() is not None

    def free_id(self, owner_id: int, trace_id: bytes) -> bytes:
        """`trace_id`, or the first of those that follow from it that was not withdrawn.

        A semantic trace that ended with a source of it never comes back; once the source is corrected the same members may be merged again.
        """
        query = "SELECT 1 FROM erased WHERE owner_id = ? AND trace_id = ? AND withdrawn"
        with store_errors():
            while self._connection.execute(query, (owner_id, trace_id)).fetchone() is not None:
                trace_id = blake2b(trace_id, digest_size=16, person=b"semantic again").digest()
        return trace_id

    def newest(self, owner_id: int, limit: int) -> list[bytes]:
        """Payloads of the last rows, oldest of them first."""
        query = "SELECT payload FROM traces WHERE owner_id = ? ORDER BY learned_at_us DESC, sequence DESC LIMIT ?"
        with store_errors():
            return [payload for (payload,) in self._connection.execute(query, (owner_id, limit))][::-1]

    def archived(self, owner_id: int) -> int:
        """How many traces forgetting took out of the index."""
        query = "SELECT count(*) FROM states WHERE owner_id = ? AND lifecycle = ?"
        with store_errors():
            return int(self._connection.execute(query, (owner_id, LIFECYCLE_STATE_ARCHIVED)).fetchone()[0])

    def expired(self, now_us: int, limit: int) -> list[tuple[Owner, bytes]]:
        """(owner, trace_id) of up to `limit` traces whose time is over."""
        query = "SELECT o.tenant, o.user, t.trace_id FROM traces AS t JOIN owners AS o ON o.id = t.owner_id"
        query += " WHERE t.expires_at_us > 0 AND t.expires_at_us <= ? LIMIT ?"
        with store_errors():
            return [(Owner(tenant, user), trace_id) for tenant, user, trace_id in self._connection.execute(query, (now_us, limit))]

    def page(self, owner_id: int, before: Place, limit: int, limit_bytes: int, archived: bool = False) -> Page:
        """Up to `limit` traces before a place; fewer where they come to more than `limit_bytes`."""
        query = f"{_STORED} AND (learned_at_us, trace_id) < (?, ?)"
        query += "" if archived else _NOT_ARCHIVED
        query += " ORDER BY learned_at_us DESC, trace_id DESC LIMIT ?"
        traces: list[StoredTrace] = []
        size = 0
        with store_errors():
            for columns in self._connection.execute(query, (owner_id, *before, limit + 1)):
                one = _stored(columns)
                size += len(one.row.payload) + len(one.row.vector)
                if len(traces) == limit or (traces and size > limit_bytes):
                    last = traces[-1].row
                    return Page(traces, Place(last.learned_at_us, last.trace_id))
                traces.append(one)
        return Page(traces, None)

    def labelled(self, owner_id: int, key: str) -> I64:
        """Sequences of the rows that carry the key."""
        return self._sequences("SELECT sequence FROM labels WHERE owner_id = ? AND key = ?", (owner_id, key))

    def labelled_any(self, owner_id: int, key: str, values: Sequence[str]) -> I64:
        """Sequences of the rows where the key has one of the values."""
        query = f"SELECT sequence FROM labels WHERE owner_id = ? AND key = ? AND value IN ({', '.join('?' * len(values))})"
        return self._sequences(query, (owner_id, key, *values))

    def labelled_range(self, owner_id: int, key: str, at_least: float | None, less_than: float | None) -> I64:
        """Sequences of the rows where the key's value reads as a number in [at_least, less_than)."""
        query = "SELECT sequence FROM labels WHERE owner_id = ?1 AND key = ?2 AND number IS NOT NULL"
        query += " AND (?3 IS NULL OR number >= ?3) AND (?4 IS NULL OR number < ?4)"
        return self._sequences(query, (owner_id, key, at_least, less_than))

    def sequences(self, owner_id: int) -> I64:
        """Sequences of all rows of the owner."""
        return self._sequences("SELECT sequence FROM traces WHERE owner_id = ?", (owner_id,))

    def _sequences(self, query: str, values: tuple[object, ...]) -> I64:
        with store_errors():
            return np.fromiter((row[0] for row in self._connection.execute(query, values)), np.int64)

    def load(self, owner_id: int) -> Iterator[LoadedRows]:
        """All rows of an owner that are not archived, in chunks, first learned first."""
        query = f"SELECT {_COLUMNS}, {_DYNAMICS} {_WITH_STATES} {_NOT_ARCHIVED} ORDER BY learned_at_us, sequence"
        with store_errors():
            cursor = self._connection.execute(query, (owner_id,))
            for chunk in _chunks(cursor):
                (s, f, kind, said, learned, agent, session, speaker, payloads, vectors, *rest) = zip(*chunk, strict=True)
                salience, encoding, expires, protected, lifecycle, states, ids, checks = rest
                _check_vectors(vectors, checks, ids)
                yield LoadedRows(
                    sequence=_i64(s),
                    first_sequence=_i64(f),
                    kind=_i64(kind),
                    said_at_us=_i64(said),
                    learned_at_us=_i64(learned),
                    agent=agent,
                    session=session,
                    speaker=speaker,
                    payloads=payloads,
                    vectors=vectors,
                    salience=salience,
                    encoding=encoding,
                    expires_at_us=_i64(expires),
                    protected=_i64(protected),
                    lifecycle=lifecycle,
                    states=states,
                    trace_ids=b"".join(ids),
                )

    def export(self, owner_id: int, agent: str, session: str, now_us: int) -> Iterator[tuple[bytes, bytes]]:
        """(payload, vector) of the owner's rows that have not expired, oldest first, narrowed where agent or session is set."""
        query = f"SELECT payload, vector, checks FROM traces WHERE {_NARROWED} ORDER BY learned_at_us, sequence"
        with store_errors():
            for row in self._connection.execute(query, (owner_id, agent, session, now_us)):
                yield _checked(*row)

    def count(self, owner_id: int, agent: str, session: str, now_us: int) -> int:
        """Rows that `export` gives."""
        query = f"SELECT count(*) FROM traces WHERE {_NARROWED}"
        with store_errors():
            return int(self._connection.execute(query, (owner_id, agent, session, now_us)).fetchone()[0])


def _chunks(cursor: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    """Rows by the thousand, fewer where they hold images: what is read at once must fit into memory."""
    chunk: list[tuple[Any, ...]] = []
    size = 0
    for row in cursor:
        chunk.append(row)
        size += len(row[_PAYLOAD])
        if len(chunk) == _LOAD_ROWS or size > _LOAD_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _stored(columns: Sequence[Any]) -> StoredTrace:
    *row, state, merged = columns
    return StoredTrace(checked(TraceRow(*row)), state, bool(merged))


def _check_vectors(vectors: Sequence[bytes], checks: Sequence[bytes], trace_ids: Sequence[bytes]) -> None:
    """Raises Damaged."""
    for vector, check, trace_id in zip(vectors, checks, trace_ids, strict=True):
        if check and crc32(vector) != int.from_bytes(check[:4], "little"):
            raise Damaged(f"the vector of trace {trace_id.hex()} is not as it was written")


def _checked(payload: bytes, vector: bytes, checks: bytes) -> tuple[bytes, bytes]:
    """Raises Damaged."""
    if checks and (crc32(vector) | crc32(payload) << 32) != int.from_bytes(checks[:8], "little"):
        raise Damaged("a row is not as it was written")
    return payload, vector


def _i64(column: Sequence[int]) -> I64:
    return np.array(column, np.int64)
