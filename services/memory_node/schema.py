"""Tables of the store, their versions, and who may open a file."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ndml.crdt.envelope import replica_number
from ndml.runtime.log import get_logger

log = get_logger(__name__)

APPLICATION_ID = 0x4E444D4C  # "NDML": `file` and every SQLite tool show it

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE owners (
  id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, user TEXT NOT NULL,
  episodic INTEGER NOT NULL, semantic INTEGER NOT NULL, procedural INTEGER NOT NULL, content_bytes INTEGER NOT NULL,
  UNIQUE (tenant, user));
CREATE TABLE traces (
  sequence INTEGER PRIMARY KEY, owner_id INTEGER NOT NULL, trace_id BLOB NOT NULL, first_sequence INTEGER NOT NULL,
  kind INTEGER NOT NULL, said_at_us INTEGER NOT NULL, learned_at_us INTEGER NOT NULL,
  agent TEXT NOT NULL, session TEXT NOT NULL, speaker TEXT NOT NULL,
  content_hash BLOB NOT NULL, content_bytes INTEGER NOT NULL, vector BLOB NOT NULL, payload BLOB NOT NULL,
  salience REAL NOT NULL DEFAULT 0, encoding REAL NOT NULL DEFAULT 0, expires_at_us INTEGER NOT NULL DEFAULT 0,
  protected INTEGER NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX traces_identity ON traces (owner_id, trace_id);
CREATE UNIQUE INDEX traces_order ON traces (owner_id, first_sequence);
CREATE TABLE labels (
  owner_id INTEGER NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, sequence INTEGER NOT NULL, number REAL,
  PRIMARY KEY (owner_id, key, value, sequence)) WITHOUT ROWID;
CREATE TABLE erased (owner_id INTEGER NOT NULL, trace_id BLOB NOT NULL, PRIMARY KEY (owner_id, trace_id)) WITHOUT ROWID;
"""

DYNAMICS = """
CREATE INDEX traces_expiry ON traces (expires_at_us) WHERE expires_at_us > 0;
CREATE TABLE states (
  owner_id INTEGER NOT NULL, first_sequence INTEGER NOT NULL, lifecycle INTEGER NOT NULL, state BLOB NOT NULL,
  PRIMARY KEY (owner_id, first_sequence)) WITHOUT ROWID;
CREATE TABLE history (
  owner_id INTEGER NOT NULL, first_sequence INTEGER NOT NULL, number INTEGER NOT NULL, event BLOB NOT NULL,
  PRIMARY KEY (owner_id, first_sequence, number)) WITHOUT ROWID;
CREATE TABLE members (
  owner_id INTEGER NOT NULL, first_sequence INTEGER NOT NULL, semantic BLOB NOT NULL,
  PRIMARY KEY (owner_id, first_sequence, semantic)) WITHOUT ROWID;
CREATE INDEX members_of ON members (owner_id, semantic);
CREATE TABLE proteins (owner_id INTEGER PRIMARY KEY, state BLOB NOT NULL);
CREATE TABLE feedback (
  owner_id INTEGER NOT NULL, digest BLOB NOT NULL, at_us INTEGER NOT NULL, PRIMARY KEY (owner_id, digest)) WITHOUT ROWID;
CREATE INDEX feedback_age ON feedback (owner_id, at_us);
"""
"""states: only of traces that something happened to; the others' state follows from their row. lifecycle: LifecycleState's number.
members: traces whose words stand in a semantic trace, and its trace_id. proteins: what an owner's traces share (ndml.btsp.capture),
since feedback made some; from writing alone it follows from the rows.
history: events as ndml.v1.TraceEvent. feedback: digests of requests that were carried out, so that a retry counts once."""


REPLICATION = """
CREATE INDEX traces_list ON traces (owner_id, learned_at_us);
CREATE INDEX traces_versions ON traces (owner_id, first_sequence, replica, counter)
  WHERE replica <> 0 OR counter <> 1 OR first_sequence <> sequence;
CREATE TABLE contexts (
  owner_id INTEGER NOT NULL, trace_id BLOB NOT NULL, context BLOB NOT NULL, PRIMARY KEY (owner_id, trace_id)) WITHOUT ROWID;
CREATE TABLE siblings (
  owner_id INTEGER NOT NULL, trace_id BLOB NOT NULL, replica INTEGER NOT NULL, counter INTEGER NOT NULL, rival INTEGER NOT NULL,
  clock INTEGER NOT NULL, content BLOB NOT NULL, vector BLOB NOT NULL, salience REAL NOT NULL, encoding REAL NOT NULL,
  content_hash BLOB NOT NULL, checks BLOB NOT NULL,
  PRIMARY KEY (owner_id, trace_id, replica, counter)) WITHOUT ROWID;
CREATE TABLE contributions (
  owner_id INTEGER NOT NULL, trace_id BLOB NOT NULL, replica INTEGER NOT NULL, counter INTEGER NOT NULL, state BLOB NOT NULL,
  PRIMARY KEY (owner_id, trace_id, replica)) WITHOUT ROWID;
CREATE TABLE heads (
  owner_id INTEGER NOT NULL, replica INTEGER NOT NULL, counter INTEGER NOT NULL, PRIMARY KEY (owner_id, replica)) WITHOUT ROWID;
CREATE TABLE journal (
  sequence INTEGER PRIMARY KEY, owner_id INTEGER NOT NULL, previous INTEGER NOT NULL, parts BLOB NOT NULL, request BLOB NOT NULL);
CREATE TABLE authors (replica INTEGER PRIMARY KEY, node_id TEXT NOT NULL);
CREATE TABLE awaited (
  owner_id INTEGER NOT NULL, source BLOB NOT NULL, semantic BLOB NOT NULL, PRIMARY KEY (owner_id, source, semantic)) WITHOUT ROWID;
"""
"""traces.replica, counter: the dot of the version that is shown; replica 0 is this store. contexts: where more dots are known than those of
the shown version's replica up to its own. siblings: the other versions; rival: of another content. contributions: what stores' feedback
added; this store's own stands there only beside others', else it follows from `states`. heads: up to where others' updates are known.
journal: own updates that wait for a consensus node; parts: see positions.py. authors: whose store it is. awaited: sources of a semantic
trace that it came before. traces_list: the order of lists. traces_versions: what was not simply put here and left as it is; with
traces_identity all that digests need, and by it a trace is found by its first sequence."""

PEAKS = """
ALTER TABLE heads ADD COLUMN peak INTEGER NOT NULL DEFAULT 0;
CREATE INDEX heads_unsettled ON heads (owner_id) WHERE peak > 0;
"""
"""heads.peak: up to where some of an author's updates show already, past what is known without a gap; 0: no further."""

REPLICATION_COLUMNS = (
    ("traces", "replica INTEGER NOT NULL DEFAULT 0"),
    ("traces", "counter INTEGER NOT NULL DEFAULT 1"),
    ("traces", "clock INTEGER NOT NULL DEFAULT 0"),
    ("traces", "checks BLOB NOT NULL DEFAULT x''"),
    ("states", "changed INTEGER NOT NULL DEFAULT 0"),
    ("erased", "withdrawn INTEGER NOT NULL DEFAULT 0"),
    ("owners", "authored INTEGER NOT NULL DEFAULT 0"),
    ("owners", "changed INTEGER NOT NULL DEFAULT 0"),
    ("owners", "joined INTEGER NOT NULL DEFAULT 0"),
)
"""checks: see records.checks_of. states.changed: sequence of the last own feedback. erased.withdrawn: ended with a source, not by its user.
owners: sequence of the last own update, of the last change of any record, and of the last join of others' feedback."""


def new_replica(node_id: str) -> int:
    """A number for a store of this node: 63 bits, not 0. Half of them say whose it is, so that nobody can write under another's."""
    return replica_number(node_id, secrets.randbelow((1 << 32) - 1) + 1)


def _with_replication(connection: sqlite3.Connection) -> None:
    for table, column in REPLICATION_COLUMNS:
        connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
    connection.execute("DROP INDEX traces_order")
    run_script(connection, REPLICATION)
    (node_id,) = connection.execute("SELECT value FROM meta WHERE key = 'node_id'").fetchone()
    connection.executemany("INSERT INTO meta VALUES (?, ?)", [("replica", new_replica(node_id)), ("clock", 0)])
    # Everything that is here was written here, up to the last sequence number.
    last = "(SELECT value FROM meta WHERE key = 'last_sequence')"
    connection.execute(f"UPDATE states SET changed = {last}")
    connection.execute(f"UPDATE owners SET authored = {last}, changed = {last}")


def _with_dynamics(connection: sqlite3.Connection) -> None:
    columns = ("salience REAL", "encoding REAL", "expires_at_us INTEGER", "protected INTEGER")
    for column in columns:
        connection.execute(f"ALTER TABLE traces ADD COLUMN {column} NOT NULL DEFAULT 0")
    run_script(connection, DYNAMICS)


def _with_peaks(connection: sqlite3.Connection) -> None:
    run_script(connection, PEAKS)


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_with_dynamics, _with_replication, _with_peaks)
"""Step i takes a store from version i + 1 to i + 2; each runs in one transaction with the change of the version number."""

VERSION = 1 + len(MIGRATIONS)


class StoreRefused(OSError):
    """The store cannot be used as it is; the message says why and what to do. Stops the start: an operator's matter, not a caller's."""


class StoreDamaged(StoreRefused):
    """The file is not as it was written."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a store belongs to: it is opened by the same node with the same vector space only."""

    node_id: str
    dimension: int
    embedding_model: str


def prepare(connection: sqlite3.Connection, identity: Identity) -> None:
    """Create the tables, bring an older store up to VERSION, or refuse one that is not ours. Raises StoreRefused."""
    found = version_of(connection)
    if found == 0:
        _create(connection, identity)
        found = VERSION
    elif found > VERSION:
        raise StoreRefused(
            f"the store has schema {found}, this release knows up to {VERSION}: run the release that wrote it or a newer one"
        )
    migrate(connection, found, MIGRATIONS)
    check_identity(connection, identity)


def version_of(connection: sqlite3.Connection) -> int:
    """Version of the store's schema; 0: it is empty."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, found: int, steps: Sequence[Callable[[sqlite3.Connection], None]]) -> None:
    """Run the steps that a store of version `found` still lacks, each with its version number in one transaction."""
    for version in range(found, 1 + len(steps)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            steps[version - 1](connection)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute(f"PRAGMA user_version = {version + 1}")
        connection.execute("COMMIT")
        log.info("store_migrated", schema=version + 1)


def check_identity(connection: sqlite3.Connection, identity: Identity) -> None:
    """Raises StoreRefused when the store belongs to another node or another vector space."""
    wanted = {"node_id": identity.node_id, "dimension": identity.dimension, "embedding_model": identity.embedding_model}
    found = dict(connection.execute("SELECT key, value FROM meta"))
    for key, value in wanted.items():
        if found.get(key) != value:
            raise StoreRefused(f"the store was made with node.{key} = {found.get(key)!r}, the settings say {value!r}: one of them is wrong")


def run_script(connection: sqlite3.Connection, script: str) -> None:
    """Statement by statement: executescript would end the transaction."""
    for statement in script.split(";\n"):
        if statement.strip():
            connection.execute(statement)


def _create(connection: sqlite3.Connection, identity: Identity) -> None:
    if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise StoreRefused("the file is an SQLite database, but not NDML's: point store.data_dir elsewhere")
    connection.execute("BEGIN IMMEDIATE")
    run_script(connection, TABLES + DYNAMICS)
    facts = [
        ("node_id", identity.node_id),
        ("dimension", identity.dimension),
        ("embedding_model", identity.embedding_model),
        ("last_sequence", 0),
        ("clean", 1),
    ]
    connection.executemany("INSERT INTO meta VALUES (?, ?)", facts)
    _with_replication(connection)
    _with_peaks(connection)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")
