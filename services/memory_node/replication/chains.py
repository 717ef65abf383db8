"""What is remembered of signed updates: a bounded number of envelopes a chain, proofs, and own updates as they were signed.

One SQLite file beside the store. An own update is on disk here before anybody sees it: records change, and an author that signed another
text for the same place would convict itself.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ndml.crdt.chain import KEEP, Row
from ndml.errors import StoreUnavailable
from services.memory_node.replication.ledger import Ledger

_SCHEMA = """
CREATE TABLE IF NOT EXISTS chains (
  tenant TEXT NOT NULL, user TEXT NOT NULL, replica INTEGER NOT NULL, floor INTEGER NOT NULL, written INTEGER NOT NULL,
  PRIMARY KEY (tenant, user, replica)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS envelopes (
  tenant TEXT NOT NULL, user TEXT NOT NULL, replica INTEGER NOT NULL, counter INTEGER NOT NULL, hash BLOB NOT NULL,
  previous INTEGER NOT NULL, envelope BLOB NOT NULL, PRIMARY KEY (tenant, user, replica, counter, hash)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS proofs (node_id TEXT PRIMARY KEY, proof BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS own (replica INTEGER NOT NULL, counter INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (replica, counter));
"""
_CHAIN = "tenant = ? AND user = ? AND replica = ?"
_ROW = "tenant, user, replica, counter, hash, previous, envelope"


class ChainFile:
    """A ChainStore of ndml.crdt.chain, own updates, and the ledger of all.

    `turn()` makes what happens inside one durable change; any thread, one at a time.

    Raises StoreUnavailable, OSError where the file cannot be opened.
    """

    def __init__(self, path: Path, keep: int = KEEP) -> None:
        self._keep = keep
        self._turn = threading.RLock()
        self._durable = True
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(_SCHEMA)
            self.ledger = Ledger(self._connection)
            # Later than every chain that was written before.
            self._written = int(self._connection.execute("SELECT ifnull(max(written), 0) FROM chains").fetchone()[0])
        except sqlite3.DatabaseError as error:
            raise StoreUnavailable(f"{path} cannot be read ({error}): without it this node could contradict what it signed") from error

    @contextmanager
    def turn(self, *, durable: bool = True) -> Iterator[None]:
        """Raises StoreUnavailable, and nothing has changed then.

        durable: on disk at the end. What is known of others need not be: after a failure of power they are judged again.
        """
        with self._turn:
            try:
                self._be(durable)
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise StoreUnavailable(f"what is known of authors cannot be written ({error}): free space beside the store") from error
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _be(self, durable: bool) -> None:
        if durable != self._durable:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    def close(self) -> None:
        self._connection.close()

    def own(self, replica: int, counter: int) -> bytes | None:
        """This node's update at a position, as it was signed."""
        query = "SELECT body FROM own WHERE replica = ? AND counter = ?"
        found = self._connection.execute(query, (replica, counter)).fetchone()
        return None if found is None else bytes(found[0])

    def put_own(self, replica: int, counter: int, body: bytes) -> None:
        self._connection.execute("INSERT INTO own VALUES (?, ?, ?)", (replica, counter, body))

    def forget_own(self, up_to: int) -> None:
        """Others have them."""
        self._connection.execute("DELETE FROM own WHERE counter <= ?", (up_to,))

    # ChainStore

    def has(self, tenant: str, user: str, replica: int, counter: int, hashed: bytes) -> bool:
        query = f"SELECT 1 FROM envelopes WHERE {_CHAIN} AND counter = ? AND hash = ?"
        return self._connection.execute(query, (tenant, user, replica, counter, hashed)).fetchone() is not None

    def above(self, tenant: str, user: str, replica: int, counter: int) -> Row | None:
        query = f"SELECT {_ROW} FROM envelopes WHERE {_CHAIN} AND counter > ? ORDER BY counter, hash LIMIT 1"
        found = self._connection.execute(query, (tenant, user, replica, counter)).fetchone()
        return None if found is None else Row(*found)

    def floor(self, tenant: str, user: str, replica: int) -> int:
        found = self._connection.execute(f"SELECT floor FROM chains WHERE {_CHAIN}", (tenant, user, replica)).fetchone()
        return 0 if found is None else int(found[0])

    def put(self, row: Row) -> None:
        chain = row.tenant, row.user, row.replica
        self._connection.execute("INSERT OR REPLACE INTO envelopes VALUES (?, ?, ?, ?, ?, ?, ?)", (*chain, *row[3:]))
        self._written += 1
        query = "INSERT INTO chains VALUES (?, ?, ?, 0, ?) ON CONFLICT DO UPDATE SET written = excluded.written"
        self._connection.execute(query, (*chain, self._written))
        query = f"SELECT counter, hash FROM envelopes WHERE {_CHAIN} ORDER BY counter DESC, hash DESC LIMIT -1 OFFSET ?"
        gone = self._connection.execute(query, (*chain, self._keep)).fetchall()
        if gone:
            query = f"DELETE FROM envelopes WHERE {_CHAIN} AND counter = ? AND hash = ?"
            self._connection.executemany(query, [(*chain, *place) for place in gone])
            self.raise_floor(*chain, gone[0][0])

    def heads(self, tenant: str, user: str) -> Sequence[Row]:
        query = "SELECT replica FROM chains WHERE tenant = ? AND user = ? ORDER BY written DESC"
        replicas = [replica for (replica,) in self._connection.execute(query, (tenant, user))]
        query = f"SELECT {_ROW} FROM envelopes WHERE {_CHAIN} ORDER BY counter DESC, hash DESC LIMIT 1"
        found = [self._connection.execute(query, (tenant, user, replica)).fetchone() for replica in replicas]
        return [Row(*row) for row in found if row is not None]

    def raise_floor(self, tenant: str, user: str, replica: int, counter: int) -> None:
        query = "INSERT INTO chains VALUES (?, ?, ?, ?, 0) ON CONFLICT DO UPDATE SET floor = max(floor, excluded.floor)"
        self._connection.execute(query, (tenant, user, replica, counter))

    def proofs(self) -> Sequence[bytes]:
        return [proof for (proof,) in self._connection.execute("SELECT proof FROM proofs ORDER BY node_id")]

    def put_proof(self, node_id: str, proof: bytes) -> None:
        self._connection.execute("INSERT OR REPLACE INTO proofs VALUES (?, ?)", (node_id, proof))
