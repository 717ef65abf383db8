"""What replication has the writer do besides writes: forget the journal, let an owner go that lives elsewhere now."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from services.memory_node.digests import owner_digests
from services.memory_node.owners import OwnerRow

_BY_OWNER = (
    *("traces", "labels", "erased", "states", "history", "members", "proteins", "feedback"),
    *("contexts", "siblings", "contributions", "heads", "journal", "awaited"),
)


@dataclass(frozen=True, slots=True)
class JournalPrune:
    """Forget own updates up to this position: a consensus node has them, or there are too many."""

    up_to: int


@dataclass(frozen=True, slots=True)
class DropOwner:
    """Remove an owner from this node, if its records still have this digest. Nothing is erased: others have it all."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class SettleOwner:
    """What shows of an owner stands at every other copy as well, if its records still have this digest: peaks (positions.py) may go, for a
    read of any copy shows as much. `absent`: a node that could not be asked; only peaks of its own stores may go, "" where there is none.
    """

    digest: bytes
    absent: str = ""


@dataclass(slots=True)
class Kept:
    """What became of it. `done` False: the owner has changed, or is not here."""

    done: bool
    sequence: int = 0


def prune(connection: sqlite3.Connection, action: JournalPrune) -> Kept:
    connection.execute("DELETE FROM journal WHERE sequence <= ?", (action.up_to,))
    return Kept(True)


def settle(connection: sqlite3.Connection, row: OwnerRow, action: SettleOwner, replica: int) -> dict[int, int]:
    """Authors whose peaks go, as `Commit.peaks` has it. Rows that wait must be in the table."""
    if owner_digests(connection, row.owner_id, replica).whole != action.digest:
        return {}
    which = "owner_id = ?1 AND peak > 0 AND (?2 = '' OR replica IN (SELECT replica FROM authors WHERE node_id = ?2))"
    values = (row.owner_id, action.absent)
    gone = {author: 0 for (author,) in connection.execute(f"SELECT replica FROM heads WHERE {which}", values).fetchall()}
    connection.execute(f"UPDATE heads SET peak = 0 WHERE {which}", values)
    return gone


def drop(connection: sqlite3.Connection, row: OwnerRow, action: DropOwner, replica: int) -> bool:
    """True: nothing of the owner is left. Rows that wait must be in the table."""
    if owner_digests(connection, row.owner_id, replica).whole != action.digest:
        return False
    for table in _BY_OWNER:
        connection.execute(f"DELETE FROM {table} WHERE owner_id = ?", (row.owner_id,))
    connection.execute("DELETE FROM owners WHERE id = ?", (row.owner_id,))
    return True
