"""Counters and positions of owners, as the writer keeps them and readers read them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from services.memory_node.records import Owner


@dataclass(slots=True)
class OwnerRow:
    """Counters of one owner; they are stored, so that counting costs no scan. `kinds` by TraceKind, index 0 unused.

    Sequence numbers of this store: `authored`: of its last own update of the owner, 0: none; `changed`: when any record changed last;
    `joined`: when others' feedback was joined last. `archived`: how many of the traces forgetting took out of the index; None: not counted;
    `awaits`: whether semantic traces wait for sources (merges.py), None: not looked up.
    """

    owner_id: int
    kinds: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    content_bytes: int = 0
    authored: int = 0
    changed: int = 0
    joined: int = 0
    archived: int | None = None
    awaits: bool | None = None

    @property
    def traces(self) -> int:
        return sum(self.kinds)

    def count(self, kind: int, content_bytes: int, sign: int) -> None:
        # A kind of a later release is counted with the episodic ones rather than refused.
        self.kinds[kind if 0 < kind < len(self.kinds) else 1] += sign
        self.content_bytes += sign * content_bytes

    def stored(self) -> tuple[int, ...]:
        """What is written of it."""
        return (*self.kinds[1:], self.content_bytes, self.authored, self.changed, self.joined)


_FIELDS = ("episodic", "semantic", "procedural", "content_bytes", "authored", "changed", "joined")
_LOAD = f"SELECT id, {', '.join(_FIELDS)} FROM owners WHERE tenant = ? AND user = ?"
_SAVE = f"UPDATE owners SET {', '.join(f'{name} = ?' for name in _FIELDS)} WHERE id = ?"
_CREATE = "INSERT INTO owners (tenant, user, episodic, semantic, procedural, content_bytes) VALUES (?, ?, 0, 0, 0, 0)"


def load_owner(connection: sqlite3.Connection, owner: Owner) -> OwnerRow | None:
    row = connection.execute(_LOAD, owner).fetchone()
    return None if row is None else OwnerRow(row[0], [0, *row[1:4]], *row[4:])


def create_owner(connection: sqlite3.Connection, owner: Owner) -> OwnerRow:
    return OwnerRow(int(connection.execute(_CREATE, owner).lastrowid or 0))


def save_owners(connection: sqlite3.Connection, rows: list[OwnerRow]) -> None:
    connection.executemany(_SAVE, [(*row.stored(), row.owner_id) for row in rows])


@dataclass(slots=True)
class Totals:
    """What the node holds: traces, and owners that have some."""

    traces: int = 0
    owners: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Capacity of the node: `max_traces` in all, `max_owner_traces` that one owner's index may need in memory."""

    max_traces: int
    max_owner_traces: int
