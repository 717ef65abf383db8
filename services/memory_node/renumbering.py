"""The number of a store. One that was made from a snapshot gets a new one: the store that it was taken of went on writing under the old."""

from __future__ import annotations

import sqlite3

from ndml.runtime.log import get_logger
from services.memory_node.births import Births
from services.memory_node.records import TraceRow
from services.memory_node.replicas import CHUNK, Replicas
from services.memory_node.schema import new_replica

log = get_logger(__name__)

_GRADED = """SELECT t.* FROM states AS s JOIN traces AS t ON t.sequence = s.first_sequence
    WHERE t.owner_id = s.owner_id AND t.first_sequence = s.first_sequence AND s.changed > 0
  UNION ALL SELECT t.* FROM traces AS t JOIN states AS s ON s.owner_id = t.owner_id AND s.first_sequence = t.first_sequence
    WHERE t.first_sequence <> t.sequence AND s.changed > 0"""


def renumber(connection: sqlite3.Connection, births: Births) -> int:
    """The store's number, a new one if it was restored: then everything that is its own becomes the former store's, in one transaction."""
    facts = dict(connection.execute("SELECT key, value FROM meta WHERE key IN ('node_id', 'replica', 'restored')"))
    former = int(facts["replica"])
    if "restored" not in facts:
        return former
    replica = new_replica(str(facts["node_id"]))
    connection.execute("BEGIN IMMEDIATE")
    try:
        _hand_over(connection, Replicas(connection, former, births))
        connection.execute("UPDATE meta SET value = ? WHERE key = 'replica'", (replica,))
        connection.execute("DELETE FROM meta WHERE key = 'restored'")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    log.info("store_renumbered", former=f"{former:016x}", replica=f"{replica:016x}")
    return replica


def _hand_over(connection: sqlite3.Connection, former: Replicas) -> None:
    graded: dict[int, list[TraceRow]] = {}
    for row in map(TraceRow._make, connection.execute(_GRADED)):
        graded.setdefault(row.owner_id, []).append(row)
    for owner_id, rows in graded.items():
        for start in range(0, len(rows), CHUNK):
            given = former.contributions(owner_id, rows[start : start + CHUNK])
            connection.executemany(
                "INSERT OR REPLACE INTO contributions VALUES (?, ?, ?, ?, ?)",
                [(owner_id, trace_id, author, one.counter, one.state) for trace_id, each in given.items() for author, one in each.items()],
            )
    connection.execute("UPDATE states SET changed = 0")
    connection.execute("UPDATE traces SET replica = ? WHERE replica = 0", (former.replica,))
    connection.execute("INSERT OR REPLACE INTO heads SELECT id, ?, authored, 0 FROM owners WHERE authored > 0", (former.replica,))
    # A change of any kind: what was known of this owner under the former number is not what is known under the new one.
    last = "(SELECT value FROM meta WHERE key = 'last_sequence')"
    connection.execute(f"UPDATE owners SET authored = 0, changed = {last}, joined = {last}")
    connection.execute("DELETE FROM journal")
