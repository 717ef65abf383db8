"""Read queries on the store. A reader belongs to one thread at a time and has a connection of its own: it never waits for the writer."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ndml.errors import StoreUnavailable
from services.memory_node.records import Owner
from services.memory_node.transaction import OwnerRow, load_owner

I64 = NDArray[np.int64]

_LOAD_ROWS = 4096
_COLUMNS = "sequence, first_sequence, kind, said_at_us, learned_at_us, agent, session, speaker, length(payload), vector"


_NARROWED = "owner_id = ?1 AND (?2 = '' OR agent = ?2) AND (?3 = '' OR session = ?3)"


class LoadedRows(NamedTuple):
    """Some rows of an owner as columns: [n] integers, n strings, [n * dimension] float32 as bytes."""

    sequence: I64
    first_sequence: I64
    kind: I64
    said_at_us: I64
    learned_at_us: I64
    agent: Sequence[str]
    session: Sequence[str]
    speaker: Sequence[str]
    payload_bytes: I64
    vectors: bytes


class Page(NamedTuple):
    """Payloads (and vectors where asked for) of a page, newest first, and the first_sequence that the next one starts before; 0: none."""

    payloads: list[tuple[bytes, bytes]]
    next_before: int


@contextmanager
def store_errors() -> Iterator[None]:
    """A failing disk or file becomes StoreUnavailable; a wrong statement of ours stays what it is."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.DatabaseError as error:
        raise StoreUnavailable(f"the store cannot read ({error}): try again later; the node's log says more") from error


class Reader:
    """Every method raises StoreUnavailable when the disk fails."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

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
        with store_errors():
            found: tuple[bytes, bytes] | None = self._connection.execute(
                "SELECT payload, vector FROM traces WHERE owner_id = ? AND trace_id = ?", (owner_id, trace_id)
            ).fetchone()
            return found

    def payloads(self, owner_id: int, sequences: Sequence[int]) -> dict[int, tuple[bytes, bytes]]:
        """sequence -> (payload, vector) of those rows of the owner that are there."""
        query = (
            "SELECT t.sequence, t.payload, t.vector FROM json_each(?) AS wanted CROSS JOIN traces AS t"
            " ON t.sequence = wanted.value WHERE t.owner_id = ?"
        )
        with store_errors():
            return {s: (payload, vector) for s, payload, vector in self._connection.execute(query, (json.dumps(sequences), owner_id))}

    def page(self, owner_id: int, before: int, limit: int, limit_bytes: int) -> Page:
        """Up to `limit` traces below first_sequence `before`; fewer where they come to more than `limit_bytes`."""
        query = "SELECT first_sequence, payload, vector FROM traces WHERE owner_id = ? AND first_sequence < ?"
        query += " ORDER BY first_sequence DESC LIMIT ?"
        rows: list[tuple[bytes, bytes]] = []
        size, last = 0, 0
        with store_errors():
            for first_sequence, payload, vector in self._connection.execute(query, (owner_id, before, limit + 1)):
                size += len(payload) + len(vector)
                if len(rows) == limit or (rows and size > limit_bytes):
                    return Page(rows, last)
                rows.append((payload, vector))
                last = first_sequence
        return Page(rows, 0)

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
        """All rows of an owner in chunks, in order of their first sequence."""
        query = f"SELECT {_COLUMNS} FROM traces WHERE owner_id = ? ORDER BY first_sequence"
        with store_errors():
            cursor = self._connection.execute(query, (owner_id,))
            while chunk := cursor.fetchmany(_LOAD_ROWS):
                s, f, kind, said, learned, agent, session, speaker, size, vectors = zip(*chunk, strict=True)
                yield LoadedRows(
                    _i64(s), _i64(f), _i64(kind), _i64(said), _i64(learned), agent, session, speaker, _i64(size), b"".join(vectors)
                )

    def export(self, owner_id: int, agent: str, session: str) -> Iterator[tuple[bytes, bytes]]:
        """(payload, vector) of the owner's rows, oldest first, narrowed where agent or session is set."""
        query = f"SELECT payload, vector FROM traces WHERE {_NARROWED} ORDER BY first_sequence"
        with store_errors():
            yield from self._connection.execute(query, (owner_id, agent, session))

    def count(self, owner_id: int, agent: str, session: str) -> int:
        """Rows that `export` gives."""
        with store_errors():
            return int(self._connection.execute(f"SELECT count(*) FROM traces WHERE {_NARROWED}", (owner_id, agent, session)).fetchone()[0])


def _i64(column: Sequence[int]) -> I64:
    return np.array(column, np.int64)
