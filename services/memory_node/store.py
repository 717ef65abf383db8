"""The durable truth: one SQLite file in WAL mode, synchronous=FULL. Opens, checks, checkpoints and closes it.

Files in the data directory: `ndml.db` (with `-wal` and `-shm` beside it), `ndml.lock`, `snapshots/`. Indexes are derived and never stored.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from ndml.btsp.state import Dynamics
from ndml.runtime.files import claim_directory
from ndml.runtime.log import get_logger
from services.memory_node import schema, seal, snapshots
from services.memory_node.births import Births
from services.memory_node.commit import Committer
from services.memory_node.owners import Limits
from services.memory_node.ports import NowNs
from services.memory_node.reader import Reader
from services.memory_node.renumbering import renumber
from services.memory_node.replica_reader import DigestCache
from services.memory_node.replicas import Replicas, check_rows
from services.memory_node.schema import Identity, StoreDamaged, StoreRefused
from services.memory_node.settings import StoreSection
from services.memory_node.versions import Trust, trusted

log = get_logger(__name__)

# A reader meets a lock only in the instants in which the log is reset.
_BUSY_S = 5.0
# While a checkpoint waits for readers it keeps the writer out.
_CHECKPOINT_WAIT_MS = 50
_PARTS = ("", "-wal", "-shm", ".seal")
_DAMAGED_KEPT = 2
"""Newest damaged stores that stay beside the new one: a disk that goes on damaging them must not fill."""


class Store:
    """Open with `open()`, once; then `replica` is its number, `committer` belongs to the writer's thread, each `reader()` to who asked.

    `set_aside`: where a damaged store was moved when it was opened; None: there was none.
    """

    committer: Committer
    replica: int

    def __init__(
        self,
        settings: StoreSection,
        identity: Identity,
        max_owner_traces: int,
        now_ns: NowNs = time.time_ns,
        dynamics: Dynamics | None = None,
        trust: Trust = trusted,
    ) -> None:
        self.settings = settings
        self.identity = identity
        self.path = settings.data_dir / "ndml.db"
        self.log_path = settings.data_dir / "ndml.db-wal"
        self._limits = Limits(settings.max_traces, max_owner_traces)
        self._now_ns = now_ns
        self._trust = trust
        self.set_aside: Path | None = None
        self._opening: list[sqlite3.Connection] | None = []
        self._lock: sqlite3.Connection | None = None
        self._checkpoints: sqlite3.Connection | None = None
        self._births = Births(dynamics or Dynamics())
        self._digests = DigestCache(settings.digest_cache_bytes)
        self._checkpoint_turn = threading.Lock()
        self._snapshot_turn = threading.Lock()

    def open(self) -> None:
        """Recover and check. Raises StoreRefused, OSError; a file is never changed to make it fit."""
        claim_directory(self.settings.data_dir, "store.data_dir")
        self._lock = lock_directory(self.settings.data_dir)
        try:
            self._open_or_set_aside()
        except sqlite3.DatabaseError as error:
            self._release()
            raise StoreDamaged(_damaged(self.path, str(error))) from error
        except BaseException:
            self._release()
            raise

    def _open_or_set_aside(self) -> None:
        try:
            self._open()
        except (sqlite3.DatabaseError, StoreDamaged) as error:
            # Locked, no space, no permission: the file may be good.
            if self.settings.on_damage == "refuse" or isinstance(error, sqlite3.OperationalError):
                raise
            self.set_aside = self._move_away()
            log.error("store_set_aside", error=str(error), kept_as=str(self.set_aside))
            self._open()

    def _move_away(self) -> Path:
        """The damaged file, with its log, under a name of its own; returns that."""
        self._close_all()
        stamp = datetime.fromtimestamp(self._now_ns() / 1e9, UTC).strftime("%Y%m%dT%H%M%S%f")
        kept = self.path.with_name(f"{self.path.name}.damaged-{stamp}")
        for suffix in _PARTS:
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(kept.with_name(kept.name + suffix))
        for old in sorted(self.path.parent.glob(f"{self.path.name}.damaged-*[0-9]"))[:-_DAMAGED_KEPT]:
            for suffix in _PARTS:
                old.with_name(old.name + suffix).unlink(missing_ok=True)
        return kept

    def _open(self) -> None:
        if self.settings.check != "never" and not self.log_bytes() and seal.is_broken(self.path):
            raise StoreDamaged(_damaged(self.path, f"it differs from its seal, {seal.seal_of(self.path).name}"))
        seal.remove(self.path)
        if self.settings.restore_from is not None:
            snapshots.restore(self.settings.restore_from, self.path, self.identity)
        existed = self.path.exists()
        writer = self._connect(f"PRAGMA page_size = {self.settings.page_bytes}")
        # The log of a killed process is replayed by this first statement.
        writer.execute("PRAGMA journal_mode = WAL")
        for pragma in ("synchronous = FULL", "secure_delete = ON", "wal_autocheckpoint = 0"):
            writer.execute(f"PRAGMA {pragma}")
        if existed:
            self._check(writer)
        schema.prepare(writer, self.identity)
        if self.settings.max_store_bytes:
            page = int(writer.execute("PRAGMA page_size").fetchone()[0])
            writer.execute(f"PRAGMA max_page_count = {max(1, self.settings.max_store_bytes // page)}")
        writer.execute("UPDATE meta SET value = 0 WHERE key = 'clean'")
        self.replica = renumber(writer, self._births)
        replicas = Replicas(writer, self.replica, self._births)
        self.committer = Committer(writer, self.identity, self._limits, self.settings.owner_cache, self._now_ns, replicas, self._trust)
        self._checkpoints = self._connect(f"PRAGMA busy_timeout = {_CHECKPOINT_WAIT_MS}")
        self._opening = None
        log.info("store_open", path=str(self.path), traces=self.committer.totals.traces, sequence=self.committer.last_sequence)

    def _check(self, connection: sqlite3.Connection) -> None:
        """Raises StoreRefused when pages are damaged."""
        clean = False
        if connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'").fetchone()[0]:
            clean = bool(connection.execute("SELECT value FROM meta WHERE key = 'clean'").fetchone()[0])
        if self.settings.check == "never" or (self.settings.check == "unclean" and clean):
            return
        started = time.monotonic()
        thorough = self.settings.check == "always"
        verdict = connection.execute(f"PRAGMA {'integrity' if thorough else 'quick'}_check(1)").fetchone()[0]
        if verdict != "ok":
            raise StoreDamaged(_damaged(self.path, str(verdict)))
        if thorough and schema.version_of(connection) == schema.VERSION:
            check_rows(connection)
        log.info("store_checked", after_crash=not clean, seconds=round(time.monotonic() - started, 3))

    def _connect(self, *pragmas: str) -> sqlite3.Connection:
        # check_same_thread: connections are handed from the thread that opens them to the one that uses them; none is shared.
        connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        if self._opening is not None:
            self._opening.append(connection)
        for pragma in (*pragmas, f"PRAGMA cache_size = -{self.settings.cache_bytes // 1024}"):
            connection.execute(pragma)
        return connection

    def reader(self) -> Reader:
        """A reader with a connection of its own; the caller closes it."""
        connection = self._connect("PRAGMA query_only = ON")
        return Reader(connection, Replicas(connection, self.replica, self._births), self.identity.node_id, self._digests)

    def snapshot(self) -> snapshots.Snapshot:
        """Write a consistent copy beside the store while it serves. Raises StoreUnavailable."""
        directory = self.settings.data_dir / "snapshots"
        with self._snapshot_turn, contextlib.closing(self._connect()) as connection:
            return snapshots.take(connection, directory, self.settings.snapshots_kept, self._now_ns())

    def checkpoint(self, *, empty_log: bool) -> bool:
        """Move the log into the store; `empty_log` also truncates it, for which no reader may be under way.

        False when not all could be moved, now: nothing is lost by it, the log keeps the data.
        """
        assert self._checkpoints is not None, "the store is not open"
        try:
            with self._checkpoint_turn:
                busy, pages, moved = self._checkpoints.execute(
                    f"PRAGMA wal_checkpoint({'TRUNCATE' if empty_log else 'PASSIVE'})"
                ).fetchone()
        except sqlite3.DatabaseError as error:
            log.warning("checkpoint_failed", error=str(error))
            return False
        return not busy and pages == moved

    def log_bytes(self) -> int:
        try:
            return self.log_path.stat().st_size
        except FileNotFoundError:
            return 0

    def bytes_on_disk(self) -> int:
        return self.path.stat().st_size + self.log_bytes()

    def bytes_free(self) -> int:
        """Of the disk that the store lies on, as this user may use them."""
        return shutil.disk_usage(self.path.parent).free

    def close(self) -> None:
        """Empty the log and mark the store clean, so that the next start needs no check."""
        writer = self.committer.connection
        writer.execute("UPDATE meta SET value = 1 WHERE key = 'clean'")
        empty = self.checkpoint(empty_log=True)
        writer.close()
        if self._checkpoints is not None:
            self._checkpoints.close()
        if empty:
            seal.write(self.path, self.settings.seal_bytes)
        self._release()

    def _close_all(self) -> None:
        """Connections of an opening that failed."""
        for connection in self._opening or ():
            connection.close()
        self._opening = []

    def _release(self) -> None:
        self._close_all()
        for connection in (self._checkpoints, self._lock):
            if connection is not None:
                connection.close()
        self._checkpoints = self._lock = None


def lock_directory(data_dir: Path) -> sqlite3.Connection:
    """Hold the directory for this process until the returned connection is closed or the process dies. Raises StoreRefused.

    An SQLite lock, because it works the same on every platform.
    """
    lock = sqlite3.connect(data_dir / "ndml.lock", timeout=0, isolation_level=None, check_same_thread=False)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        raise StoreRefused(f"{data_dir} is in use by another process ({error}): one node, one directory (store.data_dir)") from None
    return lock


def _damaged(path: Path, what: str) -> str:
    return (
        f"{path} is damaged: {what}. It was left as it is. Where owners have other copies start with store.on_damage = set_aside. Else keep"
        " it for inspection, move it away and start with store.restore_from = a snapshot; `sqlite3 ndml.db .recover` may save more"
    )
