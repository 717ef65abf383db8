"""Which of a trace's versions is shown, and how a set of versions becomes rows. Inside the writer's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ndml.contents import words_of
from ndml.crdt.causal import CausalContext, Dot
from ndml.crdt.oscillator import COSINE_ONE
from ndml.crdt.resolve import LARGEST_SCORE, Resolution, Sibling, quantised, resolve
from ndml.errors import FieldInvalid
from ndml.v1.types_pb2 import MemoryTrace
from services.memory_node.records import NewTrace, Owner, TraceRow, checks_of, content_key, joined_trace
from services.memory_node.replicas import Held, Stored, implied
from services.memory_node.vectors import sentence

Trust = Callable[[int], int]
"""Weight of what a store's node writes, by the store's number; 0 and up."""

_SALIENCE_UNITS = 1000
_PUT_SIBLING = "INSERT INTO siblings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def trusted(replica: int) -> int:
    """Everybody alike: without a roster of authors."""
    return 1


@dataclass(frozen=True, slots=True)
class Shown:
    """The version that reads show, those that say something else, and what speaks for each."""

    dot: Dot
    rivals: frozenset[Dot]
    support: dict[Dot, int]


def shown(versions: Mapping[Dot, Stored], trust: Trust, dimension: int) -> Shown:
    """Of one or several versions, whose sentence vectors have `dimension` components; the same on every copy that has the same ones and
    knows the same of authors.

    A version whose author is not trusted at all is shown only where there is no other one, whatever it agrees with. A first write beside
    an update of the same first write is a repetition of it, by a store that had not heard: it is neither shown nor a rival, however late.
    """
    if len(versions) == 1:
        return Shown(next(iter(versions)), frozenset(), {})
    judged = sorted(versions.keys() - _repeated(versions))
    trusts = {dot: trust(dot.replica) for dot in judged}
    dots = [dot for dot, weight in trusts.items() if weight > 0] or judged
    siblings = [_sibling(versions[dot], trusts[dot], dimension) for dot in dots]
    found = resolve(siblings)
    winner = dots[found.winner]
    key = siblings[found.winner].key
    rivals = frozenset(dot for dot in judged if _key(versions[dot]) != key)
    support = {dot: _support(found, i, sibling) for i, (dot, sibling) in enumerate(zip(dots, siblings, strict=True))}
    return Shown(winner, rivals, dict.fromkeys(versions, 0) | support)


def _repeated(versions: Mapping[Dot, Stored]) -> frozenset[Dot]:
    """First writes of which an update stands beside them."""
    first = {dot for dot, stored in versions.items() if MemoryTrace.FromString(stored.version.content).version <= 1}
    updated = {stored.content_hash for dot, stored in versions.items() if dot not in first}
    return frozenset(dot for dot in first if versions[dot].content_hash in updated)


def _support(found: Resolution, place: int, sibling: Sibling) -> int:
    """The winner's is its coalition's; of the others each speaks for itself."""
    return found.support if place == found.winner else sibling.score * COSINE_ONE


def _sibling(stored: Stored, trust: int, dimension: int) -> Sibling:
    version = stored.version
    score = min(LARGEST_SCORE, trust * (1 + round(_SALIENCE_UNITS * version.salience)))
    return Sibling(_key(stored), quantised(sentence(version.vector, dimension)), score, version.clock)


def _key(stored: Stored) -> bytes:
    return content_key(stored.version.content, stored.version.vector)


def sibling_id(dot: Dot) -> str:
    """Names a version in ResolveConflict."""
    return f"{dot.replica:016x}-{dot.counter}"


def parse_sibling_id(text: str) -> Dot:
    """Raises FieldInvalid."""
    replica, _, counter = text.partition("-")
    try:
        return Dot(int(replica, 16), int(counter))
    except ValueError:
        raise FieldInvalid(f"sibling_id {text!r} is none: take it from GetMemory with include_siblings", field="sibling_id") from None


def says_the_same(old: TraceRow, new: NewTrace) -> bool:
    """True where what was made out of the old content still stands: same words, for as long."""
    if (old.vector, old.expires_at_us) != (new.vector, new.expires_at_us):
        return False
    return words_of(MemoryTrace.FromString(old.payload)) == words_of(MemoryTrace.FromString(new.payload))


def as_trace(owner: Owner, trace_id: bytes, stored: Stored) -> NewTrace:
    """The columns that follow from a version's content. Raises FieldInvalid."""
    return joined_trace(owner, trace_id, stored.version, stored.content_hash)[0]


def needs_context(context: CausalContext, dot: Dot, versions: int) -> bool:
    """Whether the row alone does not say all that is known of the trace's dots."""
    return versions > 1 or context != implied(dot)


def sibling_rows(owner_id: int, trace_id: bytes, versions: Mapping[Dot, Stored], chosen: Shown) -> list[tuple[object, ...]]:
    """Rows of table `siblings`: all versions but the shown one."""
    return [
        (
            *(owner_id, trace_id, *dot, int(dot in chosen.rivals), version.clock, version.content, version.vector),
            *(version.salience, version.encoding, digest, checks_of(version.vector, version.content)),
        )
        for dot, (version, digest) in versions.items()
        if dot != chosen.dot
    ]


def write_beside(
    connection: sqlite3.Connection,
    place: tuple[int, bytes],
    held: Held | None,
    versions: Mapping[Dot, Stored],
    context: CausalContext,
    it: Shown,
) -> None:
    """All about versions but the shown row. `place`: owner_id and trace id; `held`: as it was before, None: a new trace."""
    if held is not None and len(held.versions) > 1:
        connection.execute("DELETE FROM siblings WHERE owner_id = ? AND trace_id = ?", place)
    if len(versions) > 1:
        connection.executemany(_PUT_SIBLING, sibling_rows(*place, versions, it))
    if needs_context(context, it.dot, len(versions)):
        connection.execute("INSERT OR REPLACE INTO contexts VALUES (?, ?, ?)", (*place, context.to_bytes()))
    elif held is not None and needs_context(held.context, held.shown, len(held.versions)):
        connection.execute("DELETE FROM contexts WHERE owner_id = ? AND trace_id = ?", place)
