"""Where this store's updates of each owner stand, and what it knows of others': authored positions, journal, heads. In the transaction.

A position is this store's own last sequence number after a job that changed records of the owner. Each job's update says the position
before and after, so who has everything up to the one before has everything up to the one after: the author's head. What came past a head
shows all the same. How far that goes is the author's peak, and it is written down with the head, because it must outlive a restart: nothing
of the author that is past the peak shows here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ndml.internal.v1 import replication_pb2 as rpb
from services.memory_node.gaps import Span
from services.memory_node.records import Owner, TraceRow
from services.memory_node.replicas import CONTENT, Replicas, new_record

_PART_BYTES = 17


class JournalRow(NamedTuple):
    """An own update that waits for a consensus node: position after, owner, position before, traces and what of each (`parts`), and the
    digest of the feedback request that it carried out (empty: none)."""

    sequence: int
    owner: Owner
    previous: int
    trace_ids: tuple[bytes, ...]
    parts: tuple[int, ...]
    request: bytes


class Touched:
    """What one job changed of an owner's records. `fresh`: rows of traces that it made, and nothing else happened to; `parts`: of others,
    CONTENT and STATES; `repeated`: traces that were there as asked."""

    __slots__ = ("fresh", "parts", "repeated", "request")

    def __init__(self) -> None:
        self.parts: dict[bytes, int] = {}
        self.fresh: dict[bytes, TraceRow] = {}
        self.repeated: list[bytes] = []
        self.request = b""

    @property
    def any(self) -> bool:
        """Whether the job changed something."""
        return bool(self.fresh or self.parts)

    def add(self, trace_id: bytes, part: int) -> None:
        made = CONTENT if self.fresh.pop(trace_id, None) else 0
        self.parts[trace_id] = self.parts.get(trace_id, made) | part

    def packed(self) -> bytes:
        """As the journal keeps it."""
        everything = {**dict.fromkeys(self.fresh, CONTENT), **self.parts}
        return b"".join(trace_id + bytes((part,)) for trace_id, part in everything.items())


def unpacked(parts: bytes) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
    """Trace ids, and what of each."""
    starts = range(0, len(parts), _PART_BYTES)
    return tuple(parts[at : at + 16] for at in starts), tuple(parts[at + 16] for at in starts)


def update_records(replicas: Replicas, owner_id: int, touched: Touched) -> list[rpb.TraceRecord]:
    """Records of what the job changed, or found to be as asked. Rows that wait must be in the table, but for fresh ones."""
    fresh = [new_record(row, replicas.dot(row)) for row in touched.fresh.values()]
    other = list(touched.parts.items())
    other += [(trace_id, CONTENT) for trace_id in touched.repeated if trace_id not in touched.parts and trace_id not in touched.fresh]
    records = fresh + list(replicas.records(owner_id, [one for one, _ in other], [part for _, part in other]))
    if touched.request and records:
        records[0].requests.append(touched.request)
    return records


def write_journal(connection: sqlite3.Connection, sequence: int, owner_id: int, previous: int, touched: Touched) -> None:
    connection.execute("INSERT INTO journal VALUES (?, ?, ?, ?, ?)", (sequence, owner_id, previous, touched.packed(), touched.request))


class Standing(NamedTuple):
    """What is known of an owner's authors. `heads`: up to where everything is here; `peaks`: of those whose later updates show already, up
    to where these go."""

    heads: dict[int, int]
    peaks: dict[int, int]

    def take(self, heads: Mapping[int, int], peaks: Mapping[int, int]) -> None:
        """Change to these heads, and these peaks; 0: there is none any more."""
        self.heads.update(heads)
        for replica, peak in peaks.items():
            self.peaks[replica] = peak
            if not peak:
                del self.peaks[replica]


def standing_of(connection: sqlite3.Connection, owner_id: int) -> Standing:
    """What is known of other authors."""
    rows = connection.execute("SELECT replica, counter, peak FROM heads WHERE owner_id = ?", (owner_id,)).fetchall()
    return Standing({row[0]: row[1] for row in rows if row[1]}, {row[0]: row[2] for row in rows if row[2]})


def write_standing(connection: sqlite3.Connection, owner_id: int, standing: Standing, authors: Iterable[int]) -> None:
    """As it is now of these authors."""
    rows = [(owner_id, replica, standing.heads.get(replica, 0), standing.peaks.get(replica, 0)) for replica in authors]
    connection.executemany("INSERT OR REPLACE INTO heads VALUES (?, ?, ?, ?)", rows)


def noted(owner: Owner, shown: Mapping[int, int]) -> list[rpb.OwnerUpdate]:
    """What goes along with records that do not say their authors' positions: nothing of an author in them is past these. As updates from a
    position to the same one, so that no head grows by them."""
    tenant, user = owner
    found = sorted(shown.items())
    return [rpb.OwnerUpdate(tenant=tenant, user=user, replica=replica, previous=at, counter=at) for replica, at in found if at]


def notes_in(updates: Iterable[rpb.OwnerUpdate]) -> dict[int, int]:
    """What `noted` was told; of other updates their authors' positions."""
    shown: dict[int, int] = {}
    for update in updates:
        shown[update.replica] = max(update.counter, shown.get(update.replica, 0))
    return shown


def peaked(known: Standing, grown: Mapping[int, int], claims: Iterable[tuple[int, int]], own: int) -> dict[int, int]:
    """Peaks that change, 0: there is none any more; by what was joined just now (`claims`: author and position) and by heads that grew."""
    claimed: dict[int, int] = {}
    for replica, counter in claims:
        claimed[replica] = max(counter, claimed.get(replica, 0))
    changed: dict[int, int] = {}
    for replica in (claimed.keys() | known.peaks.keys()) - {own}:
        before, head = known.peaks.get(replica, 0), grown.get(replica, known.heads.get(replica, 0))
        peak = max(claimed.get(replica, 0), before)
        if (peak if peak > head else 0) != before:
            changed[replica] = peak if peak > head else 0
    return changed


class Advance(NamedTuple):
    """Heads that grow, and updates that follow on nothing that is known yet."""

    grown: dict[int, int]
    waiting: list[Span]


def advanced(
    known: Mapping[int, int],
    updates: Iterable[rpb.OwnerUpdate],
    heads: Iterable[rpb.Head],
    own: int,
    earlier: Callable[[int], Iterable[Span]],
) -> Advance:
    """Heads after these: by updates that follow on what is known, by what a reconciliation says, and by what came too early before.

    `own`: number of this store; `earlier`: what waits of an author.
    """
    grown: dict[int, int] = {}
    for each in heads:
        if each.counter > max(known.get(each.replica, 0), grown.get(each.replica, 0)):
            grown[each.replica] = each.counter
    came: dict[int, set[Span]] = {replica: set() for replica in grown}
    for update in updates:
        came.setdefault(update.replica, set()).add(Span(update.replica, update.previous, update.counter))
    waiting: list[Span] = []
    for replica, spans in came.items():
        head = grown.get(replica, known.get(replica, 0))
        for span in sorted(spans.union(earlier(replica)), key=lambda span: span.counter):
            if span.previous <= head < span.counter:
                head = span.counter
            elif span.counter > max(head, span.previous) and span in spans:
                waiting.append(span)
        if head > known.get(replica, 0):
            grown[replica] = head
    grown.pop(own, None)
    return Advance(grown, waiting)


def joined_update(first: rpb.OwnerUpdate | None, second: rpb.OwnerUpdate | None) -> rpb.OwnerUpdate | None:
    """Two updates of one operation as one. The second stands at the end of the first, or has no position."""
    if first is None or second is None:
        return first or second
    whole = rpb.OwnerUpdate()
    whole.CopyFrom(first)
    whole.records.extend(second.records)
    if second.counter:
        whole.counter = second.counter
    return whole


def names(updates: Sequence[rpb.OwnerUpdate]) -> dict[int, str]:
    """Authors' nodes, by store."""
    return {update.replica: update.node_id for update in updates if update.node_id}
