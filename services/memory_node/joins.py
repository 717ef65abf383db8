"""Records of other stores into tables: what a merge is inside the writer's transaction.

All of an action is checked before anything of it is written. A trace that is new here, of one version, costs what a put costs; whatever
else is read, joined as ndml.crdt.record says, and the difference is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ndml.crdt import existence
from ndml.crdt.causal import NUMBER_LIMIT, CausalContext, Dot
from ndml.crdt.record import Contribution, TraceRecord, Version, check_states
from ndml.errors import FieldInvalid
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from services.memory_node import merges
from services.memory_node.changes import write_requests
from services.memory_node.contributions import join_states
from services.memory_node.owners import OwnerRow
from services.memory_node.positions import Standing, advanced, names, peaked, standing_of, write_standing
from services.memory_node.records import NewTrace, Owner, TraceRow, joined_trace, row_checks
from services.memory_node.replicas import CHUNK, Stored
from services.memory_node.transaction import Transaction
from services.memory_node.vectors import sentences, well_formed
from services.memory_node.versions import Shown, says_the_same, write_beside

MOST_RECORDS = 4096
"""Records of one action: a group commit holds others up for as long as it takes."""
MOST_VERSIONS = 64
"""Versions of one record: an owner has a handful of copies, and more that differ are an attack."""
MOST_AUTHORS = 4096
"""Stores whose position is known of one owner, and whose nodes are known by name: a liar must not fill the disk with invented ones."""
MOST_NAME = 128
_NAME_AUTHOR = f"INSERT OR IGNORE INTO authors SELECT ?, ? WHERE (SELECT count(*) FROM authors) < {MOST_AUTHORS}"
_UNIT_TOLERANCE = 1e-4
_CONTENT_ONLY: Mapping[int, Contribution] = {}


@dataclass(slots=True)
class _Incoming:
    """One trace of an action: its record, content hashes and rows by dot, traces that a version names as its sources."""

    record: TraceRecord
    hashes: dict[Dot, bytes] = field(default_factory=dict)
    rows: dict[Dot, NewTrace] = field(default_factory=dict)
    sources: list[bytes] = field(default_factory=list)


class _Parsed(NamedTuple):
    by_id: dict[bytes, _Incoming]
    requests: list[bytes]


def weight_of(action: pb.MergeAction) -> int:
    """Records in it, 1 at least."""
    return max(1, len(action.records) + sum(len(update.records) for update in action.updates))


def join(work: Transaction, owner: Owner, action: pb.MergeAction, dimension: int, now_us: int) -> pb.MergeResult:
    """Raises FieldInvalid, CapacityReached, and nothing has changed then."""
    parsed = _parse(work, owner, action, dimension)
    joining = _Join(work, owner, parsed, now_us)
    joining.run()
    return joining.conclude(action)


class _Join:
    """One action under way."""

    def __init__(self, work: Transaction, owner: Owner, parsed: _Parsed, now_us: int) -> None:
        self._work = work
        self._owner = owner
        self._parsed = parsed
        self._now_us = now_us
        self._before = work.last_sequence
        self._changed: set[bytes] = set()
        self._incomplete: set[bytes] = set()
        self._buried: set[bytes] = set()
        work.flush()
        self._row = work.owner(owner)

    def run(self) -> None:
        work, by_id = self._work, self._parsed.by_id
        there, erased = self._look_up(list(by_id))
        new = sum(bool(each.rows) for i, each in by_id.items() if i not in there and i not in erased)
        if new:
            work.check_capacity(self._row, new)
        self._row = row = self._row or work.create(self._owner)
        for trace_id, each in by_id.items():
            if trace_id not in erased:
                self._one(row, trace_id, each, there.get(trace_id))
        work.flush()
        self._join_states(row, erased)
        self._adopt()
        if self._parsed.requests:
            write_requests(work.connection, row.owner_id, self._parsed.requests, self._now_us)

    def conclude(self, action: pb.MergeAction) -> pb.MergeResult:
        """What is known of the authors now, and the action's result."""
        work, row = self._work, self._row
        assert row is not None
        if self._changed:
            work.last_sequence += work.last_sequence == self._before
            row.changed = work.last_sequence
        known = standing_of(work.connection, row.owner_id)
        self._advance(row, known, action)
        work.connection.executemany(_NAME_AUTHOR, names(action.updates).items())
        asked = {update.replica for update in action.updates} | {head.replica for head in action.heads}
        result = pb.MergeResult(changed=len(self._changed), sequence=work.last_sequence)
        told = [(replica, counter) for replica, counter in sorted(known.heads.items()) if replica in asked]
        # Who asks by an update without a position wants to know what may have been seen here.
        questions = [update.replica for update in action.updates if not (update.counter or update.records)]
        told += [(replica, known.peaks[replica]) for replica in questions if replica in known.peaks]
        result.heads.extend(rpb.Head(replica=replica, counter=counter) for replica, counter in told)
        return result

    def _advance(self, row: OwnerRow, known: Standing, action: pb.MergeAction) -> None:
        """Take what the action says of authors into `known`, and onto the disk."""
        work, own = self._work, self._work.replicas.replica
        whole = [update for update in action.updates if not any(each.trace_id in self._incomplete for each in update.records)]
        grown, waiting = advanced(known.heads, whole, action.heads, own, lambda replica: work.early(self._owner, replica))
        work.waiting.setdefault(self._owner, []).extend(waiting)
        peaks = peaked(known, grown, self._claims(action), own)
        authors = known.heads.keys() | known.peaks.keys()
        if len(authors | grown.keys() | peaks.keys()) > MOST_AUTHORS:
            grown = {replica: counter for replica, counter in grown.items() if replica in authors}
            peaks = {replica: peak for replica, peak in peaks.items() if replica in authors}
        if grown or peaks:
            known.take(grown, peaks)
            write_standing(work.connection, row.owner_id, known, grown.keys() | peaks.keys())
            work.heads.setdefault(self._owner, {}).update(grown)
            work.peaks.setdefault(self._owner, {}).update(peaks)

    def _claims(self, action: pb.MergeAction) -> Iterator[tuple[int, int]]:
        """Authors, and positions up to which something of theirs may show since the join. Who erased a trace is not said in its record."""
        records = [self._parsed.by_id[trace_id].record for trace_id in self._changed & self._parsed.by_id.keys()]
        authors = {dot.replica for record in records for dot in record.versions}
        erased = any(record.is_erased for record in records)
        for update in action.updates:
            whole = any(record.trace_id in self._changed for record in update.records)
            if whole or erased or update.replica in authors:
                yield update.replica, update.counter
        for record in records:
            yield from ((replica, given.counter) for replica, given in record.states.items())

    def _look_up(self, ids: Sequence[bytes]) -> tuple[dict[bytes, TraceRow], set[bytes]]:
        there: dict[bytes, TraceRow] = {}
        erased: set[bytes] = set()
        if self._row is not None:
            for start in range(0, len(ids), CHUNK):
                some = ids[start : start + CHUNK]
                there |= self._work.replicas.rows(self._row.owner_id, some, damaged=True)
                erased |= self._work.replicas.erased(self._row.owner_id, some)
        return there, erased

    def _one(self, row: OwnerRow, trace_id: bytes, each: _Incoming, there: TraceRow | None) -> None:
        if each.record.is_erased:
            self._erase(row, trace_id, there)
        elif there is None:
            self._new(row, trace_id, each)
        elif there.checks and there.checks != row_checks(there):
            self._repair(row, trace_id, each, there)
        elif each.record.versions or each.record.context.vector or each.record.context.cloud:
            self._join(row, each, there)

    def _erase(self, row: OwnerRow, trace_id: bytes, there: TraceRow | None) -> None:
        self._changed.add(trace_id)
        self._buried.add(trace_id)
        if there is None:
            self._work.bury(row, trace_id, withdrawn=False)
        else:
            self._work.erase(self._owner, row, there, f"the semantic trace {trace_id.hex()} was deleted", self._now_us)

    def _new(self, row: OwnerRow, trace_id: bytes, each: _Incoming, first_sequence: int = 0) -> None:
        record = each.record
        if not record.versions:
            self._incomplete.add(trace_id)  # feedback on a trace that has not come yet
            return
        self._changed.add(trace_id)
        versions = {dot: Stored(version, each.hashes[dot]) for dot, version in record.versions.items()}
        if len(versions) > 1:
            self._work.place(self._owner, row, None, trace_id, versions, record.context)
            return
        [(dot, new)] = each.rows.items()
        write_beside(self._work.connection, (row.owner_id, trace_id), None, versions, record.context, Shown(dot, frozenset(), {}))
        self._work.insert(self._owner, row, new, first_sequence, dot, record.versions[dot].clock)

    def _repair(self, row: OwnerRow, trace_id: bytes, each: _Incoming, there: TraceRow) -> None:
        """Another copy has what the disk here has damaged."""
        if not each.record.versions:
            self._incomplete.add(trace_id)
            return
        work = self._work
        for table in ("contexts", "siblings"):
            work.connection.execute(f"DELETE FROM {table} WHERE owner_id = ? AND trace_id = ?", (row.owner_id, trace_id))
        work.remove(self._owner, row, there)
        self._new(row, trace_id, each, there.first_sequence)

    def _join(self, row: OwnerRow, each: _Incoming, there: TraceRow) -> None:
        work, trace_id = self._work, there.trace_id
        held = work.replicas.held(there)
        ours = TraceRecord(trace_id, existence.PRESENT, {dot: one.version for dot, one in held.versions.items()}, held.context)
        now = ours.joined(TraceRecord(trace_id, each.record.length, each.record.versions, each.record.context, _CONTENT_ONLY))
        if now.versions == ours.versions and now.context == ours.context:
            return
        if not now.versions:  # only a liar removes a content without another one or an erasure
            self._incomplete.add(trace_id)
            return
        self._changed.add(trace_id)
        versions = {
            dot: Stored(version, held.versions[dot].content_hash if ours.versions.get(dot) == version else each.hashes[dot])
            for dot, version in now.versions.items()
        }
        shown = work.place(self._owner, row, held, trace_id, versions, now.context)
        if shown is not there and not says_the_same(there, _as_new(shown)):
            work.flush()
            work.withdraw(self._owner, row, there, "was changed", self._now_us)

    def _join_states(self, row: OwnerRow, erased: set[bytes]) -> None:
        work = self._work
        incoming = {i: each.record.states for i, each in self._parsed.by_id.items() if each.record.states and i not in erased}
        ids = list(incoming)
        for start in range(0, len(ids), CHUNK):
            rows = work.replicas.rows(row.owner_id, ids[start : start + CHUNK], damaged=True)
            made = join_states(work.connection, work.replicas, rows, {i: incoming[i] for i in rows})
            if made:
                self._changed |= made.keys()
                work.states.setdefault(self._owner, []).extend((each.first_sequence, each.state) for each in made.values())
                work.last_sequence += 1
                row.joined = work.last_sequence

    def _adopt(self) -> None:
        """Semantic traces that came, and traces that some waited for."""
        for semantic, each in self._parsed.by_id.items():
            if each.sources and semantic in self._changed:
                self._work.adopt(self._owner, semantic, each.sources, self._now_us)
        self._work.arrive(self._owner, sorted(self._changed), self._buried, self._now_us)


def _as_new(row: TraceRow) -> NewTrace:
    return NewTrace(row.trace_id, *row[4:18], ())


def _parse(work: Transaction, owner: Owner, action: pb.MergeAction, dimension: int) -> _Parsed:
    """Check everything. Raises FieldInvalid."""
    if weight_of(action) > MOST_RECORDS:
        raise FieldInvalid(f"{weight_of(action)} records, more than {MOST_RECORDS}: send them in several actions", field="merge.records")
    for update in action.updates:
        _check_update(owner, update)
    for head in action.heads:
        _check_number(head.replica, "merge.heads.replica")
        _check_number(head.counter, "merge.heads.counter")
    messages = [record for update in action.updates for record in update.records]
    messages += action.records
    _check_vectors([version.vector for message in messages for version in message.versions], dimension)
    by_id: dict[bytes, _Incoming] = {}
    requests: list[bytes] = []
    for message in messages:
        each = _incoming(work, owner, message)
        requests += message.requests
        known = by_id.get(message.trace_id)
        by_id[message.trace_id] = each if known is None else _both(known, each)
    check_states(each.record for each in by_id.values() if each.record.states)
    if any(not 0 < len(request) <= 64 for request in requests):
        raise FieldInvalid("a request's digest has 1 to 64 bytes", field="merge.records.requests")
    return _Parsed(by_id, requests)


def _both(one: _Incoming, other: _Incoming) -> _Incoming:
    record = one.record.joined(other.record)
    rows = {dot: row for dot, row in (one.rows | other.rows).items() if dot in record.versions}
    return _Incoming(record, one.hashes | other.hashes, rows, one.sources + other.sources)


def _incoming(work: Transaction, owner: Owner, message: rpb.TraceRecord) -> _Incoming:
    if message.length == existence.REMOVED:
        return _Incoming(TraceRecord(message.trace_id, existence.REMOVED))
    if len(message.versions) > MOST_VERSIONS:
        raise FieldInvalid(f"a record has {len(message.versions)} versions, more than {MOST_VERSIONS}", field="merge.records.versions")
    versions: dict[Dot, Version] = {}
    hashes: dict[Dot, bytes] = {}
    for one in message.versions:
        dot = Dot(_check_number(one.dot.replica, "versions.dot.replica"), _check_number(one.dot.counter, "versions.dot.counter"))
        work.author.clock.observe(one.clock)
        versions[dot] = Version(one.clock, one.content, one.vector, one.salience, one.encoding)
        hashes[dot] = one.content_hash
    context = CausalContext.from_bytes(message.context) if message.context else CausalContext()
    states = {
        _check_number(one.replica, "states.replica"): Contribution(_check_number(one.counter, "states.counter"), one.state)
        for one in message.states
    }
    each = _Incoming(TraceRecord(message.trace_id, message.length, versions, context, states), hashes)
    for dot, version in versions.items():
        each.rows[dot], trace = joined_trace(owner, message.trace_id, version, hashes[dot])
        if trace.links:
            each.sources += merges.sources_of(trace)
    return each


def _check_update(owner: Owner, update: rpb.OwnerUpdate) -> None:
    if (update.tenant, update.user) != owner:
        raise FieldInvalid("an update is of another owner than its operation", field="merge.updates.user")
    _check_number(update.replica, "merge.updates.replica")
    if update.counter >= NUMBER_LIMIT or update.previous > update.counter or len(update.node_id) > MOST_NAME:
        raise FieldInvalid("an update's position, or its node's name, is none that NDML makes", field="merge.updates.counter")


def _check_number(number: int, field: str) -> int:
    if not 0 < number < NUMBER_LIMIT:
        raise FieldInvalid(f"{field} is {number}: numbers of stores and writes are 1 to 2^63 - 1", field=field)
    return number


def _check_vectors(blobs: Sequence[bytes], dimension: int) -> None:
    if any(not well_formed(len(blob) - 4 * dimension, dimension) for blob in blobs):
        raise FieldInvalid(f"a version's vector has not {dimension} float32 components and whole word vectors", field="versions.vector")
    vectors = sentences(blobs, dimension)
    with np.errstate(all="ignore"):
        off = ~(np.abs(np.einsum("nd,nd->n", vectors, vectors) - 1) <= _UNIT_TOLERANCE)
    if off.any():
        raise FieldInvalid("a version's vector is not of unit length: send it as its author stored it", field="versions.vector")
