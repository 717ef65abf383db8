"""Snapshots: consistent copies of the store, taken while it serves, and a store made from one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ndml.errors import StoreUnavailable
from ndml.runtime.files import write_durably
from ndml.runtime.log import get_logger
from services.memory_node import schema
from services.memory_node.schema import Identity, StoreRefused

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A finished copy. `created_ns`: Unix time."""

    path: Path
    size_bytes: int
    traces: int
    sha256: str
    created_ns: int


def take(connection: sqlite3.Connection, directory: Path, keep: int, now_ns: int) -> Snapshot:
    """Copy the store as of now into `directory`, durable before its name is there; removes all but the newest `keep`.

    Raises StoreUnavailable.

    VACUUM INTO reads in one transaction and writes live rows only: nothing deleted is carried along.
    """
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / "snapshot.partial"
    partial.unlink(missing_ok=True)
    try:
        connection.execute("VACUUM INTO ?", (str(partial),))
        with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as copy:
            traces = int(copy.execute("SELECT count(*) FROM traces").fetchone()[0])
            sequence = int(copy.execute("SELECT value FROM meta WHERE key = 'last_sequence'").fetchone()[0])
        digest = _sha256(partial)
        _sync(partial)
        stamp = datetime.fromtimestamp(now_ns / 1e9, UTC).strftime("%Y%m%dT%H%M%S")
        path = directory / f"ndml-{stamp}-{sequence:016d}.db"
        partial.replace(path)
        # Written durably it makes the directory durable, and with it the snapshot's own name.
        write_durably(_checksum_file(path), f"{digest}  {path.name}\n".encode())
    except (sqlite3.DatabaseError, OSError) as error:
        partial.unlink(missing_ok=True)
        raise StoreUnavailable(f"the snapshot could not be written ({error}): free space in {directory} and try again") from error
    _remove_all_but(directory, keep)
    log.info("snapshot", path=str(path), traces=traces)
    return Snapshot(path, path.stat().st_size, traces, digest, now_ns)


def restore(source: Path, target: Path, identity: Identity) -> None:
    """Make the store `target` from a snapshot, which is checked first; nothing happens where a store is already. Raises StoreRefused.

    The copy becomes this node's: a snapshot may bring back a lost node under another name. It is another store than the one that it was
    taken of, which has written more since: the start gives it a number of its own.
    """
    if target.exists():
        log.info("restore_skipped", reason="the data directory has a store", path=str(target))
        return
    if not source.is_file():
        raise StoreRefused(f"store.restore_from: {source} is not a file")
    partial = target.with_name(target.name + ".partial")
    shutil.copyfile(source, partial)
    try:
        _check_copy(source, partial, identity)
    except sqlite3.DatabaseError as error:
        partial.unlink()
        raise StoreRefused(f"store.restore_from: {source} is damaged: {error}") from error
    except StoreRefused:
        partial.unlink()
        raise
    _sync(partial)
    partial.replace(target)
    log.info("restored", source=str(source))


def _check_copy(source: Path, copy: Path, identity: Identity) -> None:
    checksum = _checksum_file(source)
    if checksum.is_file() and checksum.read_text().split()[0] != _sha256(copy):
        raise StoreRefused(f"store.restore_from: {source} differs from its checksum in {checksum.name}: it is damaged")
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if verdict != "ok":
            raise StoreRefused(f"store.restore_from: {source} is damaged: {verdict}")
        connection.execute("UPDATE meta SET value = ? WHERE key = 'node_id'", (identity.node_id,))
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('restored', 1)")
        schema.check_identity(connection, identity)


def _remove_all_but(directory: Path, keep: int) -> None:
    for old in sorted(directory.glob("ndml-*.db"))[:-keep]:
        old.unlink()
        _checksum_file(old).unlink(missing_ok=True)


def _checksum_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
