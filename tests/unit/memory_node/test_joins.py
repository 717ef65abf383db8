"""Replication inside the store: what one store changed, another one takes, in any order, and ends up with the same."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndml.btsp.state import StateBlock
from ndml.crdt.causal import CausalContext
from ndml.errors import CapacityReached, FieldInvalid, NdmlError
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.v1.types_pb2 import LINK_TYPE_DERIVED_FROM, TRACE_KIND_SEMANTIC, Embedding, MemoryTrace
from services.memory_node.changes import Outdated, StateChange, StateRow
from services.memory_node.commit import WriteAction, WriteJob
from services.memory_node.housekeeping import DropOwner, JournalPrune, Kept
from services.memory_node.reader import NEWEST, Reader
from services.memory_node.records import Owner, timestamp
from services.memory_node.schema import Identity
from services.memory_node.settings import StoreSection
from services.memory_node.store import Store
from tests.unit.memory_node import node_harness as harness

ANN = Owner("t", "ann")


class Site:
    """A store with a reader; its clock is the test's."""

    def __init__(self, directory: Path, name: str, **fields: Any) -> None:
        self.now_ns = (harness.T0_US + 10**9 + fields.pop("later_us", 0)) * 1000
        most = fields.pop("max_owner_traces", 10**6)
        self.store = Store(
            StoreSection(data_dir=directory / name, **fields), Identity(name, harness.DIMENSION, harness.MODEL), most, self._now
        )
        self.store.open()
        self.reader: Reader = self.store.reader()
        self.closed = False

    def _now(self) -> int:
        self.now_ns += 1_000_000
        return self.now_ns

    def do(self, action: WriteAction, owner: Owner = ANN, **job: Any) -> tuple[Any, rpb.OwnerUpdate | None]:
        """Result (raises its error) and update."""
        made = WriteJob(owner, action)
        made.wanted = made.journal = not isinstance(action, pb.MergeAction)
        for name, value in job.items():
            setattr(made, name, value)
        (result,) = self.store.committer.commit([made]).results
        if isinstance(result, NdmlError):
            raise result
        return result, made.update

    def put(self, *traces: MemoryTrace) -> rpb.OwnerUpdate:
        update = self.do(pb.PutAction(traces=traces))[1]
        assert update is not None
        return update

    def change(self, seed: int | str, text: str, **action: Any) -> rpb.OwnerUpdate | None:
        trace = MemoryTrace(trace_id=harness.trace_id(seed), text=text, embedding=Embedding(vector=harness.vector(text)))
        return self.do(pb.UpdateAction(trace=trace, fields=["text"], **action))[1]

    def delete(self, seed: int | str) -> rpb.OwnerUpdate | None:
        return self.do(pb.DeleteAction(trace_id=harness.trace_id(seed)))[1]

    def take(self, *updates: rpb.OwnerUpdate | None, **action: Any) -> pb.MergeResult:
        result: pb.MergeResult = self.do(pb.MergeAction(updates=[update for update in updates if update is not None], **action))[0]
        return result

    def grade(self, seed: int | str, times: int = 1) -> rpb.OwnerUpdate | None:
        """Feedback as the engine writes it: the state in memory, changed."""
        row = self.reader.owner(ANN)
        assert row is not None
        stored = self.reader.stored(row.owner_id, bytes.fromhex(harness.trace_id(seed)))
        assert stored is not None
        block = StateBlock()
        births = self.store.committer.replicas.births([stored.row])
        block.extend_packed([stored.state or births[0]])
        for _ in range(times):
            block.grade([0], [1.0], self.now_ns / 1e9)
        state = StateRow(stored.row.first_sequence, 1, block.pack([0])[0], stored.row.trace_id)
        result, update = self.do(StateChange((state,), digest=b"request %d" % times, basis=row.joined))
        assert not isinstance(result, Outdated)
        return update

    def uses(self, seed: int | str) -> int:
        row = self.reader.owner(ANN)
        stored = None if row is None else self.reader.stored(row.owner_id, bytes.fromhex(harness.trace_id(seed)))
        assert stored is not None
        block = StateBlock()
        block.extend_packed([stored.state]) if stored.state else None
        return int(block.column("uses")[0]) if len(block) else 0

    def shown(self) -> dict[str, str]:
        """Text by id."""
        row = self.reader.owner(ANN)
        if row is None:
            return {}
        page = self.reader.page(row.owner_id, NEWEST, 1000, 1 << 30)
        return {one.row.trace_id.hex(): MemoryTrace.FromString(one.row.payload).text for one in page.traces}

    def state(self) -> rpb.OwnerState:
        with self.reader.snapshot():
            return self.reader.owner_state(ANN)

    def records(self) -> dict[bytes, rpb.TraceRecord]:
        with self.reader.snapshot():
            return {record.trace_id: record for record in self.reader.records(ANN, None)}

    def close(self) -> None:
        """Once or twice."""
        if not self.closed:
            self.closed = True
            self.reader.close()
            self.store.close()


@contextlib.contextmanager
def sites(directory: Path, count: int, **fields: Any) -> Iterator[list[Site]]:
    made = [Site(directory, f"n{i}", **fields) for i in range(count)]
    try:
        yield made
    finally:
        for site in made:
            site.close()


def as_one(*sites: Site) -> None:
    """All hold the same records, and show the same."""
    first, *others = sites
    for other in others:
        assert other.state().digest == first.state().digest
        assert other.records() == first.records()
        assert other.shown() == first.shown()


def test_what_is_written_here_is_there_bit_for_bit(tmp_path: Path) -> None:
    with sites(tmp_path, 2) as (a, b):
        updates = [a.put(*(harness.trace(i, metadata={"k": str(i)}, session="s") for i in range(5))), a.change(1, "changed"), a.delete(2)]
        assert [(u.previous, u.counter) for u in updates if u] == [(0, 5), (5, 6), (6, 7)]
        merged = [b.take(update) for update in updates]
        assert [result.changed for result in merged] == [5, 1, 1]
        assert [(head.replica, head.counter) for head in merged[-1].heads] == [(a.store.replica, 7)]
        as_one(a, b)
        assert [b.take(update).changed for update in updates] == [0, 0, 0], "what is known already changes nothing"
        row = b.reader.owner(ANN)
        assert row is not None
        assert b.reader.labelled_any(row.owner_id, "k", ["3"]).size == 1
        assert b.store.committer.totals.traces == 4
        # What was erased there does not come back here by a late replay.
        assert b.do(pb.PutAction(traces=[harness.trace(2, metadata={"k": "2"}, session="s")]))[0].outcomes[0].existed


def test_updates_that_come_late_are_joined_but_do_not_count_as_known(tmp_path: Path) -> None:
    with sites(tmp_path, 2) as (a, b):
        first, second, third = (a.put(harness.trace(i)) for i in range(3))
        assert [head.counter for head in b.take(first).heads] == [1]
        assert [head.counter for head in b.take(third).heads] == [1], "the second is not here"
        assert len(b.shown()) == 2
        assert [head.counter for head in b.take(second, third).heads] == [3]
        heads = [rpb.Head(replica=a.store.replica, counter=9), rpb.Head(replica=b.store.replica, counter=9)]
        b.take(heads=heads)
        assert b.reader.heads(ANN) == {a.store.replica: 9}, "own positions are not for others to say"
        as_one(a, b)


def test_contents_written_apart_stand_beside_each_other_and_all_show_the_same_one(tmp_path: Path) -> None:
    with sites(tmp_path, 3) as (a, b, c):
        start = a.put(harness.trace(1, "start"))
        b.take(start)
        left, right = a.change(1, "tea at noon"), b.change(1, "coffee at night")
        a.take(right), b.take(left), c.take(right), c.take(start), c.take(left)
        as_one(a, b, c)
        assert a.reader.conflicts() == c.reader.conflicts() == 1
        [shown] = a.shown().values()
        # An update replaces what was shown. The other content, which its writer did not see, stays.
        third = c.change(1, "tea at one")
        a.take(third), b.take(third)
        as_one(a, b, c)
        [record] = a.records().values()
        texts = {MemoryTrace.FromString(version.content).text for version in record.versions}
        assert texts == {"tea at one", *{"tea at noon", "coffee at night"} - {shown}}
        dots = {MemoryTrace.FromString(version.content).text: version.dot for version in record.versions}
        keep = dots["tea at one"]
        resolved = b.do(pb.ResolveAction(trace_id=harness.trace_id(1), sibling_id=f"{keep.replica:016x}-{keep.counter}"))
        a.take(resolved[1]), c.take(resolved[1])
        as_one(a, b, c)
        assert set(a.shown().values()) == {"tea at one"} and a.reader.conflicts() == 0
        again = b.do(pb.ResolveAction(trace_id=harness.trace_id(1), sibling_id=f"{keep.replica:016x}-{keep.counter}"))[0]
        assert again.trace.text == "tea at one", "a repeat is answered as done"
        with pytest.raises(FieldInvalid, match="sibling"):
            b.do(pb.ResolveAction(trace_id=harness.trace_id(1), sibling_id="77-1"))


def test_the_same_request_at_two_copies_is_no_conflict_and_one_update_ends_both(tmp_path: Path) -> None:
    with sites(tmp_path, 2) as (a, b):
        later = harness.trace(1, "hello", learned_at_us=harness.T0_US + 5_000_000)
        later.said_at.CopyFrom(later.learned_at)
        one, two = a.put(harness.trace(1, "hello")), b.put(later)
        a.take(two), b.take(one)
        as_one(a, b)
        assert a.reader.conflicts() == 0
        [record] = a.records().values()
        assert len(record.versions) == 2
        b.take(a.change(1, "bye"))
        as_one(a, b)
        [record] = b.records().values()
        assert [MemoryTrace.FromString(version.content).text for version in record.versions] == ["bye"]


def test_a_write_that_is_repeated_at_another_copy_is_answered_as_done(tmp_path: Path) -> None:
    with sites(tmp_path, 2) as (a, b):
        b.take(a.put(harness.trace(1, "hello")))
        change = MemoryTrace(trace_id=harness.trace_id(1), text="bye", embedding=Embedding(vector=harness.vector("bye")))
        change.updated_at.CopyFrom(timestamp(harness.T0_US + 7))
        action = pb.UpdateAction(trace=change, fields=["text"], expected_version=1)
        first, update = a.do(action)
        b.take(update)
        again, repeated = b.do(action)
        assert again.trace == first.trace and again.trace.version == 2
        assert update is not None and len(update.records[0].requests) == 1
        del update.records[0].requests[:]
        assert repeated is not None and repeated.counter == 0 and repeated.records == update.records
        a.take(repeated)
        as_one(a, b)
        other = pb.UpdateAction(trace=change, fields=["text"], expected_version=7)
        other.trace.updated_at.CopyFrom(timestamp(harness.T0_US + 8))
        with pytest.raises(NdmlError, match="version 2"):
            b.do(other)
        b.take(a.delete(1))
        result, repeated = b.do(pb.DeleteAction(trace_id=harness.trace_id(1)))
        assert not result.deleted and repeated is not None and repeated.records[0].length == 2


def test_feedback_at_two_copies_adds_up_and_counts_once(tmp_path: Path) -> None:
    with sites(tmp_path, 3) as (a, b, c):
        start = a.put(harness.trace(1))
        b.take(start), c.take(start)
        left, right = a.grade(1, 2), b.grade(1, 3)
        assert left is not None and not left.records[0].versions and left.records[0].requests == [b"request 2"]
        a.take(right), b.take(left), c.take(left), c.take(right), c.take(left)
        as_one(a, b, c)
        assert [site.uses(1) for site in (a, b, c)] == [5, 5, 5]
        states = [site.reader.stored(1, bytes.fromhex(harness.trace_id(1))) for site in (a, b, c)]
        assert len({each.state for each in states if each}) == 1
        more = b.grade(1, 1)
        a.take(more), c.take(more)
        as_one(a, b, c)
        assert [site.uses(1) for site in (a, b, c)] == [6, 6, 6]
        assert b.reader.knows_feedback(1, b"request 2") and c.reader.knows_feedback(1, b"request 3")
        # On a trace that is not here it waits: the update does not count as known.
        made = a.put(harness.trace(2))
        graded = a.grade(2)
        assert [head.counter for head in b.take(graded).heads] == [left.counter]
        b.take(made, graded)
        as_one(a, b)


def test_states_made_before_others_feedback_came_are_refused(tmp_path: Path) -> None:
    with sites(tmp_path, 2) as (a, b):
        b.take(a.put(harness.trace(1)))
        row = a.reader.owner(ANN)
        assert row is not None
        stored = a.reader.stored(row.owner_id, bytes.fromhex(harness.trace_id(1)))
        assert stored is not None
        state = a.store.committer.replicas.births([stored.row])[0]
        a.take(b.grade(1))
        late = StateChange((StateRow(stored.row.first_sequence, 1, state, stored.row.trace_id),), basis=row.joined)
        assert isinstance(a.do(late)[0], Outdated)
        assert a.uses(1) == 1
        assert not isinstance(a.do(dataclasses.replace(late, basis=a.store.committer.last_sequence))[0], Outdated)


def semantic(*sources: int | str, text: str = "all of it") -> MemoryTrace:
    made = harness.trace("semantic", text, kind=TRACE_KIND_SEMANTIC)
    for source in sources:
        made.links.add(type=LINK_TYPE_DERIVED_FROM, trace_id=harness.trace_id(source), weight=1.0)
    return made


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0), (2, 1, 0), (2, 0, 1), (0, 2, 1)])
def test_a_semantic_trace_ends_with_its_source_on_every_copy_in_every_order(tmp_path: Path, order: tuple[int, int, int]) -> None:
    with sites(tmp_path, 3) as (a, b, c):
        sources = a.put(harness.trace(1, "salt"), harness.trace(2, "pepper"))
        b.take(sources)
        made = a.put(semantic(1, 2, text="salt, pepper"))
        ended = b.delete(1)
        for place in order:
            c.take((sources, made, ended)[place])
        a.take(ended), b.take(made)
        as_one(a, b, c)
        assert set(c.shown().values()) == {"pepper"}
        assert c.do(pb.DeleteAction(trace_id=harness.trace_id(2)))[0].deleted


def test_a_corrected_source_takes_the_semantic_trace_with_it_elsewhere_too(tmp_path: Path) -> None:
    with sites(tmp_path, 2) as (a, b):
        b.take(a.put(harness.trace(1, "salt"), harness.trace(2, "pepper")))
        b.take(a.put(semantic(1, 2)))
        update = a.change(1, "sugar")
        assert update is not None and {record.length for record in update.records} == {1, 2}
        b.take(update)
        as_one(a, b)
        assert set(b.shown().values()) == {"sugar", "pepper"}


def bad(what: str, update: rpb.OwnerUpdate) -> None:
    """Make the update a liar's."""
    record = update.records[-1]
    version = record.versions[0]
    if what == "owner":
        update.user = "bob"
    elif what == "vector":
        version.vector = version.vector[:-4]
    elif what == "nan":
        version.vector = b"\xff\xff\xff\x7f" * harness.DIMENSION
    elif what == "length of vector":
        version.vector = (2 * np.frombuffer(version.vector, "<f4")).tobytes()
    elif what == "id":
        record.trace_id = b"short"
    elif what == "another id":
        record.trace_id = bytes(16)
    elif what == "length":
        record.length = 3
    elif what == "clock":
        version.clock += 120_000 << 16
    elif what == "dot":
        version.dot.counter = 7
    elif what == "no replica":
        version.dot.replica = 0
    elif what == "context":
        record.context = record.context[:-1]
    elif what == "content":
        version.content = b"\xff\xff"
    elif what == "scope":
        version.content = harness.trace("x", "text").SerializeToString()
    elif what == "salience":
        version.salience = float("nan")
    elif what == "hash":
        version.content_hash = b""
    elif what == "state":
        record.states.add(replica=5, counter=1, state=b"\xff" * 123)
    elif what == "replica":
        update.replica = 1 << 63
    else:
        update.previous = update.counter + 1


WRONG = ["owner", "vector", "nan", "length of vector", "id", "another id", "length", "clock", "dot", "no replica", "context", "content"]


@pytest.mark.parametrize("what", [*WRONG, "scope", "salience", "hash", "state", "replica", "position"])
def test_nothing_of_a_liars_update_is_taken(tmp_path: Path, what: str) -> None:
    with sites(tmp_path, 2) as (a, b):
        b.take(a.put(harness.trace(0)))
        before = b.state()
        update = a.put(*(harness.trace(i) for i in range(1, 4)))
        good = rpb.OwnerUpdate.FromString(update.SerializeToString())
        bad(what, update)
        with pytest.raises(FieldInvalid) as refused:
            b.take(update)
        assert refused.value.violations
        assert b.state() == before and b.store.committer.totals.traces == 1
        assert b.take(good).changed == 3


def test_an_owner_that_is_full_takes_nothing_and_loses_nothing(tmp_path: Path) -> None:
    with sites(tmp_path, 1) as (a,), sites(tmp_path / "b", 1, max_owner_traces=3) as (b,):
        updates = [a.put(*(harness.trace(3 * j + i) for i in range(2))) for j in range(2)]
        b.take(updates[0])
        with pytest.raises(CapacityReached, match="index_memory_limit"):
            b.take(updates[1])
        assert len(b.shown()) == 2
        b.take(a.delete(0))
        assert b.take(updates[1]).changed == 2


def test_the_journal_says_again_what_a_job_changed(tmp_path: Path) -> None:
    with sites(tmp_path, 3) as (a, b, c):
        made = [a.put(harness.trace(1), harness.trace(2)), a.change(1, "changed"), a.grade(2), a.delete(1)]
        rows = a.reader.journal(0, 100)
        assert [(row.previous, row.sequence) for row in rows] == [(u.previous, u.counter) for u in made if u]
        for row in rows:
            b.take(a.reader.update_of(row))
        for update in made:
            c.take(update)
        as_one(a, b, c)
        assert b.reader.heads(ANN) == c.reader.heads(ANN) == {a.store.replica: made[-1].counter}  # type: ignore[union-attr]
        assert b.reader.knows_feedback(1, b"request 1")
        assert (a.reader.journal_size(0), a.reader.journal_keep(1), a.reader.journal_keep(9)) == (4, rows[-2].sequence, 0)
        a.do(JournalPrune(rows[1].sequence), Owner("", ""))
        assert a.reader.journal(0, 100) == rows[2:]
        a.do(pb.PutAction(traces=[harness.trace(5)]), journal=False)
        assert a.reader.journal_size(0) == 2


def test_an_owner_is_let_go_only_as_it_was_seen_and_may_come_back(tmp_path: Path) -> None:
    with sites(tmp_path, 2) as (a, b):
        b.take(a.put(*(harness.trace(i) for i in range(4))), a.delete(3))
        a.do(pb.PutAction(traces=[harness.trace("other")]), Owner("t", "bob"))
        seen = a.state().digest
        a.put(harness.trace(9))
        kept = a.do(DropOwner(seen))[0]
        assert isinstance(kept, Kept) and not kept.done and len(a.shown()) == 4
        b.take(records=list(a.records().values()))
        assert a.do(DropOwner(a.state().digest))[0].done
        assert a.shown() == {} and a.state().records == 0 and a.reader.owners(None, 9) == [Owner("t", "bob")]
        assert a.store.committer.totals.traces == 1
        a.take(records=list(b.records().values()), heads=b.state().heads)
        as_one(a, b)
        assert a.do(pb.PutAction(traces=[harness.trace(3)]))[0].outcomes[0].existed, "what was erased stays erased"


def test_a_restored_store_is_another_author(tmp_path: Path) -> None:
    with sites(tmp_path, 2) as (a, b):
        b.take(a.put(harness.trace(1), harness.trace(2)), a.change(1, "changed"))
        b.take(a.grade(2))
        snapshot = a.store.snapshot()
        b.take(a.change(2, "after the snapshot"))
        former = a.store.replica
        a.close()
        a.store.path.unlink()
        a = Site(tmp_path, "n0", restore_from=snapshot.path)
        assert a.store.replica != former
        assert a.reader.heads(ANN)[former] > 0
        update = a.change(2, "written without it")
        assert update is not None and update.replica == a.store.replica and update.previous == 0
        b.take(update)
        a.take(records=list(b.records().values()))
        as_one(a, b)
        assert a.reader.conflicts() == 1, "neither overwrote the other"
        assert a.uses(2) == b.uses(2) == 1
        again = a.store.replica
        a.close()
        a = Site(tmp_path, "n0")
        assert a.store.replica == again
        a.close()


def test_a_store_of_the_second_schema_joins_in(tmp_path: Path) -> None:
    with sites(tmp_path, 1) as (a,):
        a.put(harness.trace(1), harness.trace(2))
        a.change(1, "changed")
        a.grade(2)
    raw = sqlite3.connect(tmp_path / "n0" / "ndml.db", isolation_level=None)
    harness.without_replication(raw)
    raw.close()
    with sites(tmp_path, 2) as (a, b):
        assert set(a.shown().values()) == {"changed", "text 2"}
        b.take(records=list(a.records().values()), heads=a.state().heads)
        as_one(a, b)
        assert b.uses(2) == 1
        assert b.take(a.change(2, "changed too")).heads[0].counter == a.state().heads[0].counter
        as_one(a, b)


@pytest.mark.parametrize("seed", range(12))
def test_stores_that_exchange_everything_are_one_whatever_was_lost_repeated_or_late(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    with sites(tmp_path, 3) as all_sites:
        on_the_way: list[rpb.OwnerUpdate] = []
        for step in range(60):
            site, key = dice.choice(all_sites), dice.randrange(4)
            here = harness.trace_id(key) in site.shown()
            what = dice.choice(["put", "change", "change", "delete", "grade", "take", "take", "take"])
            if what == "put":
                on_the_way.append(site.put(harness.trace(key)))
            elif what == "take" and on_the_way:
                site.take(*dice.choices(on_the_way, k=dice.randrange(1, 4)))
            elif here and what == "change":
                on_the_way += [u] if (u := site.change(key, f"{key} at {step}")) else []
            elif here and what == "delete" and dice.random() < 0.3:
                on_the_way += [u] if (u := site.delete(key)) else []
            elif here and what == "grade":
                on_the_way += [u] if (u := site.grade(key)) else []
        for _ in range(2):
            for one in all_sites:
                for other in all_sites:
                    one.take(records=list(other.records().values()))
        as_one(*all_sites)
        uses = [{key: site.uses(key) for key in range(4) if harness.trace_id(key) in site.shown()} for site in all_sites]
        assert uses[0] == uses[1] == uses[2]
        for record in all_sites[0].records().values():
            assert record.length == 2 or CausalContext.from_bytes(record.context).vector
