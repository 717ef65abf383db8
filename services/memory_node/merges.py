"""Semantic traces and their sources, inside the writer's transaction: whose words a merge says, and that none outlives its source.

Table `members` is the truth of what is merged. A source that is deleted or corrected takes the semantic trace with it; the semantic trace's
own end, by whatever way, sets the other sources free.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ndml.btsp.consolidation import ConsolidationOptions
from ndml.v1.types_pb2 import LIFECYCLE_STATE_ACTIVE, LIFECYCLE_STATE_CONSOLIDATED, LINK_TYPE_DERIVED_FROM, MemoryTrace
from services.memory_node.changes import write_event
from services.memory_node.records import Owner, is_trace_id

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


def join(connection: sqlite3.Connection, owner_id: int, sources: list[int], semantic: bytes, why: str, now_us: int) -> None:
    """The sources stand in the merge from now on."""
    why = f"{why}, into {semantic.hex()}"
    connection.executemany("INSERT INTO members VALUES (?, ?, ?)", [(owner_id, first, semantic) for first in sources])
    for first in sources:
        write_event(connection, owner_id, first, "consolidated", why, LIFECYCLE_STATE_CONSOLIDATED, now_us)


def adopt(connection: sqlite3.Connection, owner_id: int, semantic: bytes, sources: Sequence[bytes]) -> list[int]:
    """An imported semantic trace stands for those of its sources that are here: first sequences."""
    found: list[int] = []
    for trace_id in sources:
        row = connection.execute("SELECT first_sequence FROM traces WHERE owner_id = ? AND trace_id = ?", (owner_id, trace_id)).fetchone()
        found += [] if row is None else [int(row[0])]
    connection.executemany("INSERT OR IGNORE INTO members VALUES (?, ?, ?)", [(owner_id, first, semantic) for first in found])
    return found


def sources_of(trace: MemoryTrace) -> list[bytes]:
    """Ids of the traces whose words a semantic trace says."""
    links = (link for link in trace.links if link.type == LINK_TYPE_DERIVED_FROM)
    return [bytes.fromhex(link.trace_id) for link in links if is_trace_id(link.trace_id)]


def await_sources(connection: sqlite3.Connection, owner_id: int, semantic: bytes, sources: Sequence[bytes]) -> bool:
    """Remember those of the sources that are not here yet: one that comes, or is erased, after the semantic trace is found by it."""
    query = "INSERT OR IGNORE INTO awaited SELECT ?1, ?2, ?3 WHERE NOT EXISTS"
    query += " (SELECT 1 FROM traces WHERE owner_id = ?1 AND trace_id = ?2)"
    return connection.executemany(query, [(owner_id, source, semantic) for source in sources]).rowcount > 0


def awaits(connection: sqlite3.Connection, owner_id: int) -> bool:
    """True when semantic traces of the owner wait for sources."""
    return connection.execute("SELECT 1 FROM awaited WHERE owner_id = ? LIMIT 1", (owner_id,)).fetchone() is not None


def awaiting(connection: sqlite3.Connection, owner_id: int, sources: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """(source, semantic) of those that semantic traces wait for."""
    query = "SELECT source, semantic FROM awaited WHERE owner_id = ? AND source = ?"
    return [(found[0], found[1]) for source in sources for found in connection.execute(query, (owner_id, source)).fetchall()]


def arrived(connection: sqlite3.Connection, owner_id: int, sources: Sequence[bytes]) -> None:
    """Nothing waits for these any more."""
    connection.executemany("DELETE FROM awaited WHERE owner_id = ? AND source = ?", [(owner_id, source) for source in sources])


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
