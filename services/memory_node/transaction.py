"""One group commit: several owners' writes in one SQLite transaction, in order, each succeeding or failing by itself.

Runs on the writer's thread only. Nothing here commits: `Committer` in commit.py does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from ndml.crdt.causal import CausalContext, Dot
from ndml.crdt.clock import HybridClock
from ndml.crdt.record import Version
from ndml.errors import FieldInvalid, RequestIdReused, TraceNotFound, VersionConflict
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.v1.types_pb2 import MemoryTrace
from services.memory_node import housekeeping, merges
from services.memory_node.changes import Outdated, StateChange, knows_request, write_change, write_requests
from services.memory_node.contributions import keep_own
from services.memory_node.gaps import Gaps, Span
from services.memory_node.housekeeping import DropOwner, SettleOwner
from services.memory_node.merges import Membership, Merge
from services.memory_node.owners import Limits, OwnerRow, Totals, save_owners
from services.memory_node.positions import Touched, update_records, write_journal
from services.memory_node.records import (
    Judgement,
    NewTrace,
    Owner,
    TraceRow,
    changed_trace,
    check_fields,
    parse_trace_id,
    timestamp,
)
from services.memory_node.replicas import CONTENT, STATES, Held, Replicas, Stored
from services.memory_node.rows import Rows, not_found
from services.memory_node.versions import Shown, Trust, as_trace, parse_sibling_id, says_the_same, shown, write_beside

_SAYS_THE_SAME = frozenset(("speaker", "said_at", "kind", "metadata", "salience", "provenance", "protected"))
"""Changes of these leave what a trace says, and for how long."""

MOST_SOURCES = 1024
"""Sources of a semantic trace that are looked at; links of a trace are 64 at most."""


@dataclass(frozen=True, slots=True)
class Author:
    """This store as a writer of updates: its clock, its node's name, the dimension of its vectors, and whom it trusts how much."""

    clock: HybridClock
    node_id: str
    dimension: int
    trust: Trust


class Transaction(Rows):
    """Effects so far, for the index to follow: rows that came and went, `states` that others' feedback changed (by first sequence), `heads`
    that are known now of other authors, and their `peaks` (positions.py), `membership` of semantic traces."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        owners: Mapping[Owner, OwnerRow],
        last_sequence: int,
        totals: Totals,
        limits: Limits,
        replicas: Replicas,
        author: Author,
        gaps: Gaps,
    ) -> None:
        super().__init__(connection, owners, last_sequence, totals, limits, replicas)
        self.author = author
        self._gaps = gaps
        self._clock = 0
        self._first = Dot(replicas.replica, 1)
        self.touched = Touched()
        self.states: dict[Owner, list[tuple[int, bytes]]] = {}
        self.heads: dict[Owner, dict[int, int]] = {}
        self.peaks: dict[Owner, dict[int, int]] = {}
        self.waiting: dict[Owner, list[Span]] = {}
        self.membership = Membership()

    def early(self, owner: Owner, replica: int) -> list[Span]:
        """Updates of an author that came before those which they follow, this group's included."""
        return self._gaps.of(owner, replica) + [span for span in self.waiting.get(owner, ()) if span.replica == replica]

    def begin_job(self) -> None:
        """What follows is one job's."""
        self.touched = Touched()

    def end_job(self, owner: Owner, *, journal: bool, update: bool, follows: int | None = None) -> tuple[int, rpb.OwnerUpdate | None]:
        """Give what the job changed its position, write it down where there are other copies, and make its update on request.

        Returns the owner's position and the update; None: nothing changed, or not asked for. `follows`: the job belongs to an operation
        whose update ends there; where others came in between, what it changed has no position of its own, and digests find it.
        """
        row, touched = self.owners.get(owner), self.touched
        if row is None:
            return 0, None
        previous, changed = row.authored, touched.any
        placed = changed and (follows is None or follows == previous)
        if changed:
            row.changed = self.last_sequence
        if placed:
            row.authored = self.last_sequence
            if journal:
                write_journal(self.connection, row.authored, row.owner_id, previous, touched)
        return row.authored, self._update(owner, row, previous, placed) if update else None

    def _update(self, owner: Owner, row: OwnerRow, previous: int, placed: bool) -> rpb.OwnerUpdate | None:
        touched = self.touched
        if not (touched.any or touched.repeated):
            return None
        if touched.parts or touched.repeated:
            self.flush()
        made = rpb.OwnerUpdate(tenant=owner.tenant, user=owner.user, replica=self.replicas.replica, node_id=self.author.node_id)
        made.records.extend(update_records(self.replicas, row.owner_id, touched))
        if placed:
            made.previous, made.counter = previous, row.authored
        return made

    def clock(self) -> int:
        """Of the versions that the transaction writes: one, for they are written at once."""
        self._clock = self._clock or self.author.clock.tick()
        return self._clock

    def put(self, owner: Owner, new: NewTrace, skip_existing: bool, judged: Judgement | None = None) -> pb.PutOutcome:
        """Store `new`, which was looked up, unless it is there, or is to be left out as a duplicate. RequestIdReused, CapacityReached."""
        row = self.owner(owner)
        if row is not None:
            replay = self.replayed((row.owner_id, new.trace_id))
            if replay is not None:
                self.touched.repeated.append(new.trace_id)
                return _replayed(replay, new, skip_existing)
        if judged is not None and judged.duplicate_of and row is not None and self._outlives(row, judged.duplicate_of, new.expires_at_us):
            return pb.PutOutcome(duplicate_of=judged.duplicate_of, learned_at=judged.kept_since)
        self.check_capacity(row)
        row = row or self.create(owner)
        self.touched.fresh[new.trace_id] = self.insert(owner, row, new, 0, self._first, self.clock())
        return pb.PutOutcome(learned_at=timestamp(new.learned_at_us))

    def update(self, owner: Owner, action: pb.UpdateAction, vector: bytes, now_us: int) -> MemoryTrace:
        """Change a trace; returns it as it reads now. Raises FieldInvalid, TraceNotFound, VersionConflict.

        It replaces what was shown, and equal versions; a sibling that its writer did not see stays, and may be what is shown then. One that
        was carried out already (same values, same updated_at) is answered as done: it may be repeated at another copy.
        """
        check_fields(action.fields, bool(vector))
        owner_row, old = self.find(owner, action.trace.trace_id)
        if 0 < old.expires_at_us <= now_us:
            raise not_found(action.trace.trace_id)
        stored = MemoryTrace.FromString(old.payload)
        request = _request_of(action)
        if _applied(stored, old, action, vector) or (request and knows_request(self.connection, owner_row.owner_id, request)):
            self.touched.repeated.append(old.trace_id)
            return stored
        if action.expected_version and action.expected_version != stored.version:
            raise VersionConflict(
                f"the trace has version {stored.version}, not {action.expected_version}: read it again and decide anew",
                metadata={"version": str(stored.version)},
            )
        new, trace = changed_trace(old, action.trace, action.fields, vector, now_us)
        held = self.replicas.held(old)
        row = self.rewrite(owner, owner_row, held, new, {held.shown, *held.twins})
        if not _SAYS_THE_SAME.issuperset(action.fields):
            self.withdraw(owner, owner_row, old, "was changed", now_us)
        if request:
            write_requests(self.connection, owner_row.owner_id, [request], now_us)
            self.touched.request = request
        return trace if row.payload == new.payload else MemoryTrace.FromString(row.payload)

    def resolve(self, owner: Owner, action: pb.ResolveAction, now_us: int) -> MemoryTrace:
        """End a conflict: the chosen content replaces every version. Where there is none nothing happens. FieldInvalid, TraceNotFound."""
        owner_row, old = self.find(owner, action.trace_id)
        held = self.replicas.held(old)
        chosen = parse_sibling_id(action.sibling_id) if action.sibling_id else held.shown
        if not held.context.covers(chosen) or (chosen not in held.versions and len(held.versions) > 1):
            raise FieldInvalid(f"the trace has no sibling {action.sibling_id!r} now: read it with include_siblings", field="sibling_id")
        if len(held.versions) == 1:
            self.touched.repeated.append(old.trace_id)
            return MemoryTrace.FromString(old.payload)
        trace = MemoryTrace.FromString(held.versions[chosen].version.content)
        trace.version = 1 + max(MemoryTrace.FromString(each.version.content).version for each in held.versions.values())
        trace.updated_at.CopyFrom(timestamp(now_us))
        version = held.versions[chosen].version
        content = Version(version.clock, trace.SerializeToString(deterministic=True), version.vector, version.salience, version.encoding)
        new = as_trace(owner, old.trace_id, Stored(content, held.versions[chosen].content_hash))
        if not says_the_same(old, new):
            self.withdraw(owner, owner_row, old, "was changed", now_us)
        self.rewrite(owner, owner_row, held, new, set(held.versions))
        return trace

    def rewrite(self, owner: Owner, owner_row: OwnerRow, held: Held, new: NewTrace, replaces: set[Dot]) -> TraceRow:
        """`new` becomes a version of this store in place of those named; returns the row that is shown then."""
        dot = held.context.next(self.replicas.replica)
        clock = self.clock()
        if len(replaces) < len(held.versions):
            version = Version(clock, new.payload, new.vector, new.salience, new.encoding)
            kept = {each: stored for each, stored in held.versions.items() if each not in replaces}
            versions = kept | {dot: Stored(version, new.content_hash)}
            return self.place(owner, owner_row, held, held.row.trace_id, versions, held.context.with_dots((dot,)))
        self.remove(owner, owner_row, held.row)
        # Of what takes the place of all only the number counts here: its content is the row's.
        context, alone = held.context.with_dots((dot,)), {dot: held.versions[held.shown]}
        write_beside(self.connection, (owner_row.owner_id, new.trace_id), held, alone, context, Shown(dot, frozenset(), {}))
        self.touched.add(new.trace_id, CONTENT)
        return self.insert(owner, owner_row, new, held.row.first_sequence, dot, clock)

    def place(
        self, owner: Owner, owner_row: OwnerRow, held: Held | None, trace_id: bytes, versions: Mapping[Dot, Stored], context: CausalContext
    ) -> TraceRow:
        """Write a trace's versions, the one that resolution shows as its row; returns that. FieldInvalid, and nothing is written then."""
        it = shown(versions, self.author.trust, self.author.dimension)
        same = held is not None and held.shown == it.dot and held.versions[it.dot] == versions[it.dot]
        new = None if same else as_trace(owner, trace_id, versions[it.dot])
        write_beside(self.connection, (owner_row.owner_id, trace_id), held, versions, context, it)
        self.touched.add(trace_id, CONTENT)
        if new is None:
            assert held is not None
            return held.row
        if held is not None:
            self.remove(owner, owner_row, held.row)
        clock = versions[it.dot].version.clock
        return self.insert(owner, owner_row, new, 0 if held is None else held.row.first_sequence, it.dot, clock)

    def delete(self, owner: Owner, trace_id: str, now_us: int) -> bool:
        """Erase content, vector and labels; only the id stays, so that a late replay cannot bring it back. False: not there."""
        try:
            row, old = self.find(owner, trace_id, damaged=True)
        except TraceNotFound:
            self._repeat_erasure(owner, bytes.fromhex(trace_id))
            return False
        self.erase(owner, row, old, f"the semantic trace {trace_id} was deleted", now_us)
        return True

    def erase(self, owner: Owner, row: OwnerRow, old: TraceRow, why: str, now_us: int) -> None:
        """The trace goes for good, with semantic traces that say what it said."""
        self.withdraw(owner, row, old, "was deleted", now_us)
        self._end(owner, row, old, why, now_us, withdrawn=False)

    def _repeat_erasure(self, owner: Owner, trace_id: bytes) -> None:
        row = self.owner(owner)
        if row is not None and self.replicas.erased(row.owner_id, [trace_id]):
            self.touched.repeated.append(trace_id)

    def merge(self, owner: Owner, merge: Merge, new: NewTrace, now_us: int) -> pb.PutOutcome | None:
        """Store the semantic trace `new`, which was looked up, with what its sources become. None: they are not as the plan saw them."""
        row = self.owner(owner)
        if row is None:
            return None
        self.flush()
        sources = merges.sources_as_planned(self.connection, row.owner_id, merge)
        replay = self.replayed((row.owner_id, new.trace_id))
        if replay is not None or sources is None:
            there = replay is not None and replay[0] is not None
            return pb.PutOutcome(existed=True) if there else None
        self.check_capacity(row)
        self.touched.fresh[new.trace_id] = self.insert(owner, row, new, 0, self._first, self.clock())
        merges.join(self.connection, row.owner_id, sources, new.trace_id, merge.why, now_us)
        self.membership.merged.setdefault(owner, []).extend(sources)
        return pb.PutOutcome()

    def change_states(self, owner: Owner, change: StateChange, now_us: int) -> pb.ReinforceActionResult | Outdated:
        """Write what happened to traces' states. Raises TraceNotFound when the owner is not here."""
        row = self.owner(owner)
        if row is None:
            raise TraceNotFound("the owner has no traces here", field="scope.user")
        if change.basis < row.joined:
            return Outdated()
        self.flush()
        row.archived = None
        self.last_sequence += 1
        if row.joined and change.feedback:
            keep_own(self.connection, self.replicas, row.owner_id, change, self.last_sequence)
        write_change(self.connection, row.owner_id, change, now_us, self.last_sequence if change.feedback else 0)
        if change.feedback:
            self.touched.request = change.digest
            for state in change.states:
                self.touched.add(state.trace_id, STATES)
        return pb.ReinforceActionResult()

    def drop(self, owner: Owner, action: DropOwner) -> bool:
        """Let the owner go, if it is as the action says."""
        row = self.owner(owner)
        self.flush()
        if row is None or not housekeeping.drop(self.connection, row, action, self.replicas.replica):
            return False
        self.totals.traces -= row.traces
        self.totals.owners -= row.traces > 0
        self.last_sequence += 1
        self.dropped.add(owner)
        del self.owners[owner]
        for mine in (self.added, self.removed, self.states, self.heads, self.peaks, self.membership.merged, self.membership.freed):
            mine.pop(owner, None)
        return True

    def settle(self, owner: Owner, action: SettleOwner) -> bool:
        """Forget peaks, if the owner is as the action says; whether some went."""
        row = self.owner(owner)
        self.flush()
        gone = {} if row is None else housekeeping.settle(self.connection, row, action, self.replicas.replica)
        if gone:
            self.heads.setdefault(owner, {})
            self.peaks.setdefault(owner, {}).update(gone)
        return bool(gone)

    def finish(self) -> None:
        """Write what is still pending: rows, counters, the last sequence number and clock."""
        self.flush()
        save_owners(self.connection, list(self.owners.values()))
        facts = [(self.last_sequence, "last_sequence"), (self.author.clock.last, "clock")]
        self.connection.executemany("UPDATE meta SET value = ? WHERE key = ?", facts)

    def adopt(self, owner: Owner, semantic: bytes, sources: Sequence[bytes], now_us: int) -> None:
        """A semantic trace came with the names of its sources: it stands for those that are here, waits for those that are not, and ends at
        once with one that is erased."""
        row = self.owner(owner)
        if row is None:
            return
        self.flush()
        adopted = merges.adopt(self.connection, row.owner_id, semantic, sources)
        self.membership.merged.setdefault(owner, []).extend(adopted)
        row.awaits = merges.await_sources(self.connection, row.owner_id, semantic, sources) or self._awaits(row)
        if self.replicas.erased(row.owner_id, sources[:MOST_SOURCES]):
            self.end_semantic(owner, row, semantic, "was deleted", now_us)

    def arrive(self, owner: Owner, trace_ids: Collection[bytes], buried: Collection[bytes], now_us: int) -> None:
        """Traces came, or were erased before they came (`buried`): semantic traces that waited for them stand for them, or end."""
        row = self.owner(owner)
        if row is None or not self._awaits(row):
            return
        waiting = merges.awaiting(self.connection, row.owner_id, trace_ids)
        self.flush()
        for source, semantic in waiting:
            if source in buried:
                self.end_semantic(owner, row, semantic, "was deleted", now_us)
            else:
                adopted = merges.adopt(self.connection, row.owner_id, semantic, [source])
                self.membership.merged.setdefault(owner, []).extend(adopted)
        merges.arrived(self.connection, row.owner_id, [source for source, _ in waiting])

    def _awaits(self, row: OwnerRow) -> bool:
        """Whether semantic traces of the owner wait for sources; looked up once, for hardly any owner has some."""
        if row.awaits is None:
            row.awaits = merges.awaits(self.connection, row.owner_id)
        return row.awaits

    def _outlives(self, row: OwnerRow, trace_id: str, expires_us: int) -> bool:
        """True when the trace is kept, and for as long as one that expires then."""
        self.flush()
        query = "SELECT expires_at_us FROM traces WHERE owner_id = ? AND trace_id = ?"
        kept = self.connection.execute(query, (row.owner_id, parse_trace_id(trace_id))).fetchone()
        return kept is not None and (kept[0] == 0 or 0 < expires_us <= kept[0])

    def withdraw(self, owner: Owner, row: OwnerRow, source: TraceRow, what: str, now_us: int) -> None:
        """Semantic traces that say what `source` said end with it; a later consolidation may merge what is left, under another id."""
        for semantic in merges.holders(self.connection, row.owner_id, source.first_sequence):
            self.end_semantic(owner, row, semantic, what, now_us)

    def end_semantic(self, owner: Owner, row: OwnerRow, semantic: bytes, what: str, now_us: int) -> None:
        """One semantic trace ends, if it is there, because a source of it `what`."""
        self.flush()
        old = self.replicas.rows(row.owner_id, [semantic], damaged=True).get(semantic)
        if old is not None:
            why = f"the semantic trace {semantic.hex()} ended: a source of it {what}"
            self._end(owner, row, old, why, now_us, withdrawn=True)

    def _end(self, owner: Owner, row: OwnerRow, old: TraceRow, why: str, now_us: int, *, withdrawn: bool) -> None:
        """The trace, its versions, states and history go, its id stays; sources that it stood for are themselves again."""
        freed = merges.set_free(self.connection, row.owner_id, old.trace_id, why, now_us)
        self.membership.freed.setdefault(owner, []).extend(freed)
        self.remove(owner, row, old)
        row.archived = None
        for table in ("states", "history", "members"):
            self.connection.execute(f"DELETE FROM {table} WHERE owner_id = ? AND first_sequence = ?", (row.owner_id, old.first_sequence))
        for table, key in (("contexts", "trace_id"), ("siblings", "trace_id"), ("contributions", "trace_id"), ("awaited", "semantic")):
            self.connection.execute(f"DELETE FROM {table} WHERE owner_id = ? AND {key} = ?", (row.owner_id, old.trace_id))
        self.bury(row, old.trace_id, withdrawn=withdrawn)

    def bury(self, row: OwnerRow, trace_id: bytes, *, withdrawn: bool) -> None:
        """The id, which stands for nothing here, never comes back."""
        self.connection.execute("INSERT OR IGNORE INTO erased VALUES (?, ?, ?)", (row.owner_id, trace_id, withdrawn))
        self.touched.add(trace_id, CONTENT)
        self.last_sequence += 1


def _request_of(action: pb.UpdateAction) -> bytes:
    """Names an update, by which a copy that meets it late, behind newer ones, knows it. Empty: no gateway gave it a time."""
    if not action.trace.HasField("updated_at"):
        return b""
    return blake2b(action.SerializeToString(deterministic=True), digest_size=16, person=b"ndml-update").digest()


def _applied(stored: MemoryTrace, row: TraceRow, action: pb.UpdateAction, vector: bytes) -> bool:
    """True when the trace is what this very update made of it."""
    change = action.trace
    if not change.HasField("updated_at") or stored.updated_at != change.updated_at or (vector and vector != row.vector):
        return False
    return all(getattr(stored, name) == getattr(change, name) for name in action.fields if name != "embedding")


def _replayed(replay: tuple[bytes | None, int | None], new: NewTrace, skip_existing: bool) -> pb.PutOutcome:
    digest, learned_us = replay
    if digest is not None and digest != new.content_hash and not skip_existing:
        raise RequestIdReused(
            "this request_id was used before with another content: a retry must repeat the request as it was, a new memory needs a new id",
            field="request_id",
        )
    # A trace that was deleted since answers without a time: nothing of it is kept.
    return pb.PutOutcome(existed=True, learned_at=None if learned_us is None else timestamp(learned_us))
