"""The delta log on disk: one SQLite file in WAL mode, synchronous=FULL, one thread that writes and one that reads."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from zlib import crc32

from ndml.errors import StoreUnavailable
from ndml.runtime.log import get_logger
from services.consensus.deltas.entries import Entry, Key, Via
from services.consensus.deltas.ports import Change, Saved
from services.consensus.ports import Clock

log = get_logger(__name__)

T = TypeVar("T")

_FORMAT = 1
_FILE = "deltas.db"
_BUSY_S = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deltas (
    arrival INTEGER PRIMARY KEY, author INTEGER NOT NULL, counter INTEGER NOT NULL, previous INTEGER NOT NULL, node TEXT NOT NULL,
    tenant TEXT NOT NULL, user TEXT NOT NULL, via INTEGER NOT NULL, taken REAL NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL,
    UNIQUE (author, counter)
);
CREATE TABLE IF NOT EXISTS positions (author INTEGER PRIMARY KEY, node TEXT NOT NULL, position INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS delivered (
    node TEXT NOT NULL, author INTEGER NOT NULL, replica INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (node, author)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lost (
    node TEXT NOT NULL, author INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (node, author)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dropped (author INTEGER PRIMARY KEY, position INTEGER NOT NULL);
"""


class _Unusable(Exception):
    """The file is whole and not ours."""


class SqliteDeltaStore:
    """DeltaStore in `directory`. Times go to disk as Unix seconds and come back on the log's clock.

    A file that cannot be trusted is kept beside as evidence, the newest one only, and the log starts empty: authors send what no
    consensus node has acked, peers send what they hold, and anti-entropy between the memory nodes finds whatever is missing then.
    """

    def __init__(self, directory: Path, clock: Clock, wall: Clock = time.time) -> None:
        self.path = directory / _FILE
        self._clock = clock
        self._wall = wall
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._writing = ThreadPoolExecutor(1, "delta-writer")
        self._reading = ThreadPoolExecutor(1, "delta-reader")

    async def open(self) -> Saved:
        """Raises OSError, StoreUnavailable."""
        return await self._on(self._writing, self._open)

    async def commit(self, change: Change) -> None:
        """Raises StoreUnavailable; nothing of the change is there then."""
        await self._on(self._writing, lambda: self._commit(change))

    async def read(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Raises StoreUnavailable."""
        return await self._on(self._reading, lambda: [self._body(key) for key in keys])

    async def close(self) -> None:
        await self._on(self._reading, lambda: self._reader.close() if self._reader else None)
        await self._on(self._writing, lambda: self._writer.close() if self._writer else None)
        self._reading.shutdown()
        self._writing.shutdown()

    async def _on(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, work)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the delta log {self.path} cannot be used now: {error}") from error

    def _open(self) -> Saved:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._load()
        except (sqlite3.DatabaseError, _Unusable) as error:
            if isinstance(error, sqlite3.OperationalError):
                raise  # locked, no space, no permission: the file may be good
            self._set_aside(error)
            return self._load()

    def _load(self) -> Saved:
        writer = self._writer = self._connect()
        # Freed pages are zeroed: what was erased from memory must not lie on here.
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
            writer.execute(f"PRAGMA {pragma}")
        verdict = writer.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise _Unusable(str(verdict))
        writer.executescript(_SCHEMA)
        writer.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (_FORMAT,))
        found = writer.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()[0]
        if found != _FORMAT:
            raise _Unusable(f"format {found}, this release reads {_FORMAT}")
        self._reader = self._connect()
        self._reader.execute("PRAGMA query_only = ON")
        return self._saved(writer)

    def _connect(self) -> sqlite3.Connection:
        # check_same_thread: opened on the writer's thread, used on one thread each.
        return sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)

    def _saved(self, connection: sqlite3.Connection) -> Saved:
        now, wall = self._clock(), self._wall()
        rows = connection.execute(
            "SELECT author, counter, previous, node, tenant, user, length(body), taken, via FROM deltas ORDER BY arrival"
        )
        # A wall clock that was set back makes nothing younger than now.
        entries = [
            Entry(author, counter, previous, node, tenant, user, size, now - max(0.0, wall - taken), Via(via))
            for author, counter, previous, node, tenant, user, size, taken, via in rows
        ]
        positions = {author: (node, at) for author, node, at in connection.execute("SELECT author, node, position FROM positions")}
        delivered = connection.execute("SELECT node, replica, author, position FROM delivered").fetchall()
        lost = connection.execute("SELECT node, author, position FROM lost").fetchall()
        return Saved(entries, positions, delivered, lost, dict(connection.execute("SELECT author, position FROM dropped")))

    def _set_aside(self, error: Exception) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None
        aside = self.path.with_name(f"{_FILE}.corrupt")
        for suffix in ("", "-wal", "-shm"):
            part = self.path.with_name(_FILE + suffix)
            if part.exists():
                part.replace(aside.with_name(aside.name + suffix))
        log.error("delta_log_corrupt", path=str(self.path), kept_as=str(aside), error=str(error))

    def _commit(self, change: Change) -> None:
        writer = self._writer
        assert writer is not None, "the store is not open"
        writer.execute("BEGIN IMMEDIATE")
        try:
            self._write(writer, change)
            writer.execute("COMMIT")
        except BaseException:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise
        if change.removed:
            self._empty_log(writer)

    def _empty_log(self, writer: sqlite3.Connection) -> None:
        """What goes, goes from the log of the file too. The commit stands, whatever becomes of this."""
        try:
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.DatabaseError as error:
            log.warning("checkpoint_failed", error=str(error))

    def _write(self, writer: sqlite3.Connection, change: Change) -> None:
        writer.executemany("DELETE FROM deltas WHERE author = ? AND counter = ?", change.removed)
        for table in ("positions", "delivered", "lost", "dropped"):
            writer.executemany(f"DELETE FROM {table} WHERE author = ?", ((author,) for author in change.forgotten))
        for table in ("delivered", "lost"):
            writer.executemany(f"DELETE FROM {table} WHERE node = ?", ((node_id,) for node_id in change.gone))
        writer.executemany(
            "INSERT OR IGNORE INTO deltas (author, counter, previous, node, tenant, user, via, taken, crc, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            self._rows(change),
        )
        writer.executemany(
            "INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", ((a, node, at) for a, (node, at) in change.positions.items())
        )
        writer.executemany(
            "INSERT OR REPLACE INTO delivered VALUES (?, ?, ?, ?)",
            ((node, author, replica, at) for (node, author), (replica, at) in change.delivered.items()),
        )
        writer.executemany("INSERT OR REPLACE INTO lost VALUES (?, ?, ?)", ((n, a, at) for (n, a), at in change.lost.items() if at))
        writer.executemany("DELETE FROM lost WHERE node = ? AND author = ?", (key for key, at in change.lost.items() if not at))
        writer.executemany("INSERT OR REPLACE INTO dropped VALUES (?, ?)", ((a, at) for a, at in change.dropped.items() if at))
        writer.executemany("DELETE FROM dropped WHERE author = ?", ((author,) for author, at in change.dropped.items() if not at))

    def _rows(self, change: Change) -> Iterable[tuple[object, ...]]:
        now, wall = self._clock(), self._wall()
        for delta in change.added:
            e = delta.entry
            taken = wall - (now - e.arrived)
            yield e.author, e.counter, e.previous, e.node_id, e.tenant, e.user, int(e.via), taken, crc32(delta.body), delta.body

    def _body(self, key: Key) -> bytes | None:
        assert self._reader is not None, "the store is not open"
        row = self._reader.execute("SELECT body, crc FROM deltas WHERE author = ? AND counter = ?", key).fetchone()
        return row[0] if row is not None and crc32(row[0]) == row[1] else None
