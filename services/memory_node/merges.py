"""Semantic traces and their sources, inside the writer's transaction: whose words a merge says, and that none outlives its source.

Table `members` is the truth of what is merged. A source that is deleted or corrected takes the semantic trace with it; the semantic trace's
own end, by whatever way, sets the other sources free.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from ndml.btsp.consolidation import ConsolidationOptions
from ndml.v1.types_pb2 import LIFECYCLE_STATE_ACTIVE, LIFECYCLE_STATE_CONSOLIDATED, MemoryTrace
from services.memory_node.changes import write_event
from services.memory_node.records import Owner

_FIND = "SELECT first_sequence FROM traces WHERE owner_id = ? AND trace_id = ? AND sequence = ?"
_SOURCES = "SELECT first_sequence FROM members WHERE owner_id = ? AND semantic = ?"
_HOLDERS = "SELECT semantic FROM members WHERE owner_id = ? AND first_sequence = ?"
_HELD = "SELECT 1 FROM members WHERE owner_id = ? AND first_sequence = ?"


@dataclass(frozen=True, slots=True)
class JobOptions:
    """Bounds of one run unless the request says less. most_runs: at once on this node."""

    plan: ConsolidationOptions
    most_traces: int
    time_budget_s: float
    most_runs: int


@dataclass(frozen=True, slots=True)
class Merge:
    """A semantic trace with vector and links, and its sources as the plan saw them: trace_id and sequence of each."""

    semantic: MemoryTrace
    sources: tuple[tuple[bytes, int], ...]
    why: str


@dataclass(slots=True)
class Membership:
    """What a commit did to sources, by owner: first sequences of those merged, and of those that stand in no merge any more."""

    merged: dict[Owner, list[int]] = field(default_factory=dict)
    freed: dict[Owner, list[int]] = field(default_factory=dict)


def sources_as_planned(connection: sqlite3.Connection, owner_id: int, merge: Merge) -> list[int] | None:
    """First sequences of the sources; None when one was deleted, changed or merged since the plan."""
    found: list[int] = []
    for trace_id, sequence in merge.sources:
        row = connection.execute(_FIND, (owner_id, trace_id, sequence)).fetchone()
        if row is None or connection.execute(_HELD, (owner_id, row[0])).fetchone() is not None:
            return None
        found.append(int(row[0]))
    return found


def join(connection: sqlite3.Connection, owner_id: int, sources: list[int], merge: Merge, now_us: int) -> None:
    """The sources stand in the merge from now on."""
    semantic, why = bytes.fromhex(merge.semantic.trace_id), f"{merge.why}, into {merge.semantic.trace_id}"
    connection.executemany("INSERT INTO members VALUES (?, ?, ?)", [(owner_id, first, semantic) for first in sources])
    for first in sources:
        write_event(connection, owner_id, first, "consolidated", why, LIFECYCLE_STATE_CONSOLIDATED, now_us)


def adopt(connection: sqlite3.Connection, owner_id: int, semantic: bytes, sources: list[bytes]) -> list[int]:
    """An imported semantic trace stands for those of its sources that are here: first sequences."""
    found: list[int] = []
    for trace_id in sources:
        row = connection.execute("SELECT first_sequence FROM traces WHERE owner_id = ? AND trace_id = ?", (owner_id, trace_id)).fetchone()
        found += [] if row is None else [int(row[0])]
    connection.executemany("INSERT OR IGNORE INTO members VALUES (?, ?, ?)", [(owner_id, first, semantic) for first in found])
    return found


def holders(connection: sqlite3.Connection, owner_id: int, first_sequence: int) -> list[bytes]:
    """Ids of the semantic traces that say what this trace says."""
    return [semantic for (semantic,) in connection.execute(_HOLDERS, (owner_id, first_sequence)).fetchall()]


def set_free(connection: sqlite3.Connection, owner_id: int, semantic: bytes, why: str, now_us: int) -> list[int]:
    """The semantic trace ends: first sequences of the sources that stand in no merge now. Empty: it was none."""
    sources = [first for (first,) in connection.execute(_SOURCES, (owner_id, semantic)).fetchall()]
    connection.execute("DELETE FROM members WHERE owner_id = ? AND semantic = ?", (owner_id, semantic))
    for first in sources:
        write_event(connection, owner_id, first, "released", why, LIFECYCLE_STATE_ACTIVE, now_us)
    return [first for first in sources if connection.execute(_HELD, (owner_id, first)).fetchone() is None]
