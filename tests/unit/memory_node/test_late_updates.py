"""An update whose stream was slow reaches a copy after another one has carried it out, and newer ones have followed."""

from __future__ import annotations

from pathlib import Path

from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1.types_pb2 import Embedding, MemoryTrace
from services.memory_node.records import timestamp
from tests.unit.memory_node import node_harness as harness
from tests.unit.memory_node.test_joins import as_one, sites


def test_an_update_that_comes_late_behind_newer_ones_replaces_nothing(tmp_path: Path) -> None:
    with sites(tmp_path, 2) as (a, b):
        b.take(a.put(harness.trace(1, "hello")))
        change = MemoryTrace(trace_id=harness.trace_id(1), text="bye", embedding=Embedding(vector=harness.vector("bye")))
        change.updated_at.CopyFrom(timestamp(harness.T0_US + 7))
        action = pb.UpdateAction(trace=change, fields=["text"])
        b.take(a.do(action)[1])
        a.take(b.change(1, "see you"))
        for site in (a, b):  # its gateway had given one of them up, whose stream was slow
            late, _ = site.do(action)
            assert late.trace.text == "see you"
        as_one(a, b)


def test_with_one_copy_too_a_repeat_replaces_nothing_newer_not_even_after_a_crash(tmp_path: Path) -> None:
    """Its node was killed between commit and answer; while the gateway waited to repeat it, somebody else's change came."""
    change = MemoryTrace(trace_id=harness.trace_id(1), text="bye", embedding=Embedding(vector=harness.vector("bye")))
    change.updated_at.CopyFrom(timestamp(harness.T0_US + 7))
    action = pb.UpdateAction(trace=change, fields=["text"])
    with sites(tmp_path, 1) as (a,):
        a.do(pb.PutAction(traces=[harness.trace(1, "hello")]), journal=False, wanted=False)
        a.do(action, journal=False, wanted=False)
    with sites(tmp_path, 1) as (a,):
        newer = MemoryTrace(trace_id=harness.trace_id(1), text="see you", embedding=Embedding(vector=harness.vector("see you")))
        a.do(pb.UpdateAction(trace=newer, fields=["text"]), journal=False, wanted=False)
        repeated, _ = a.do(action, journal=False, wanted=False)
        assert repeated.trace.text == "see you"
        assert list(a.shown().values()) == ["see you"]
        assert a.reader.journal_size(0) == 0


def test_what_was_written_alone_is_the_same_on_copies_that_come_later(tmp_path: Path) -> None:
    """Without a journal nobody streams it: a new copy compares digests, and takes the records and their heads as they are."""
    with sites(tmp_path, 2) as (a, b):
        for seed in (1, 2, 3):
            a.do(pb.PutAction(traces=[harness.trace(seed, f"hello {seed}")]), journal=False, wanted=False)
        change = MemoryTrace(trace_id=harness.trace_id(2), text="bye", embedding=Embedding(vector=harness.vector("bye")))
        a.do(pb.UpdateAction(trace=change, fields=["text"]), journal=False, wanted=False)
        a.do(pb.DeleteAction(trace_id=harness.trace_id(3)), journal=False, wanted=False)
        assert a.reader.journal_size(0) == 0
        b.take(records=list(a.records().values()), heads=a.state().heads)
        as_one(a, b)
        b.take(a.change(1, "and so on"))  # from now on with other copies: it follows on all that was before
        as_one(a, b)
        assert b.state().heads == a.state().heads


def test_a_first_write_that_is_repeated_behind_its_update_is_neither_shown_nor_a_rival(tmp_path: Path) -> None:
    """A copy was killed while its gateway tried it; the add went to another one, was changed there, and then the first try arrived."""
    with sites(tmp_path, 3) as (a, b, c):
        written, changed = a.put(harness.trace(1, "hello")), a.change(1, "bye")
        b.now_ns = a.now_ns + 10 * 10**9
        late = b.put(harness.trace(1, "hello"))
        for site, orders in ((a, [late]), (b, [written, changed]), (c, [late, changed, written])):
            for update in orders:
                site.take(update)
            assert list(site.shown().values()) == ["bye"]
        as_one(a, b, c)
        last = b.change(1, "see you")
        for site in (a, c):
            site.take(last)
            assert list(site.shown().values()) == ["see you"]
        as_one(a, b, c)
        [record] = a.records().values()
        assert len(record.versions) == 1, "the repetition went with what it repeats"
