"""Two nodes, the test in place of the gateway between them: what one is told, the other shows, feedback and conflicts included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ndml.errors import OwnerUnavailable, StaleEpoch
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.v1.types_pb2 import LIFECYCLE_STATE_CONSOLIDATED, Embedding, MemoryTrace
from services.memory_node.commit import WriteResult
from services.memory_node.housekeeping import DropOwner
from services.memory_node.records import Owner, timestamp
from tests.unit.memory_node import dynamics_harness as dynamics
from tests.unit.memory_node import node_harness as harness


@asynccontextmanager
async def pair(directory: Path) -> AsyncIterator[tuple[harness.Driver, harness.Driver, dynamics.Clock]]:
    clock = dynamics.Clock()
    async with dynamics.node(directory / "a", clock) as a, dynamics.node(directory / "b", clock) as b:
        yield a, b, clock


async def told(driver: harness.Driver, **action: Any) -> pb.OperationResult:
    """A write whose update is wanted."""
    operation = harness.operation("u", **action)
    operation.want_update = True
    return await driver.one(operation)


async def passed_on(result: pb.OperationResult, *others: harness.Driver) -> list[pb.MergeResult]:
    return [(await other.one(harness.operation("u", merge=pb.MergeAction(updates=[result.update])))).merge for other in others]


def change(seed: int | str, text: str) -> dict[str, Any]:
    trace = MemoryTrace(trace_id=harness.trace_id(seed), text=text, embedding=Embedding(vector=harness.vector(text)))
    return {"update": pb.UpdateAction(trace=trace, fields=["text"])}


def graded(seed: int | str, digest: bytes = b"") -> dict[str, Any]:
    feedback = pb.TraceFeedback(trace_id=harness.trace_id(seed), grade=1.0)
    return {"reinforce": pb.ReinforceAction(feedback=[feedback], request_digest=digest)}


async def strength(driver: harness.Driver, seed: int | str) -> Any:
    got = await driver.one(harness.operation("u", get=pb.GetAction(trace_id=harness.trace_id(seed), include_strength=True)))
    return got.trace.trace.strength


def state(driver: harness.Driver) -> rpb.OwnerState:
    reader = driver.node.store.reader()
    try:
        with reader.snapshot():
            return reader.owner_state(Owner("t", "u"))
    finally:
        reader.close()


async def test_what_is_passed_on_is_found_and_counted_there(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b, _):
        made = await told(a, put=pb.PutAction(traces=[harness.trace(i) for i in range(30)]))
        [merged] = await passed_on(made, b)
        assert (merged.changed, merged.heads[0].counter) == (30, made.put.sequence)
        assert await b.found("u", 7, 1) == ["text 7"]
        await passed_on(await told(a, **change(7, "seven")), b)
        assert await b.found("u", "seven", 1) == ["seven"]
        await passed_on(await told(a, delete=pb.DeleteAction(trace_id=harness.trace_id(7))), b)
        assert "seven" not in await b.found("u", "seven", 30)
        assert harness.texts(await a.every("u", limit=7)) == harness.texts(await b.every("u", limit=7))
        assert harness.texts(await a.every("u", limit=7, filter={"kinds": [1]})) == harness.texts(await a.every("u"))
        assert state(a).digest == state(b).digest
        plain = await a.one(harness.put("u", harness.trace("plain")))
        assert not plain.HasField("update")


async def test_a_read_that_must_see_a_write_waits_for_no_copy_that_lacks_it(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b, _):
        made = await told(a, put=pb.PutAction(traces=[harness.trace(1)]))
        read = harness.search("u", 1, 1)
        read.seen.add(replica=a.node.store.replica, counter=made.put.sequence)
        await a.one(read)
        with pytest.raises(OwnerUnavailable, match="another copy"):
            await b.one(read)
        await passed_on(made, b)
        assert await b.one(read)
        read.seen.add(replica=12345, counter=1)
        with pytest.raises(OwnerUnavailable, match="0000000000003039"):
            await b.one(read)


async def test_feedback_is_passed_on_into_memory_and_adds_up(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b, _):
        await passed_on(await told(a, put=pb.PutAction(traces=[harness.trace(i, session="s") for i in range(3)])), b)
        before = await strength(b, 1)
        first = await told(a, **graded(1, b"d" * 16))
        assert not first.update.records[0].versions
        await passed_on(first, b)
        after = await strength(b, 1)
        assert (before.uses, after.uses) == (0, 1) and after.strength > before.strength
        assert await strength(a, 1) == after
        again = await told(b, **graded(1, b"d" * 16))
        assert again.reinforce.replayed, "counted once, wherever it is repeated"
        assert [merged.changed for merged in await passed_on(again, a)] == [0]
        # Both grade before either hears of the other.
        left, right = await told(a, **graded(1)), await told(b, **graded(1))
        await passed_on(left, b), await passed_on(right, a)
        assert (await strength(a, 1)).uses == (await strength(b, 1)).uses == 3
        await passed_on(await told(b, **graded(1)), a)
        assert (await strength(a, 1)).uses == 4
        assert (await strength(a, 1)).strength == pytest.approx((await strength(b, 1)).strength, rel=1e-5)
        assert state(a).digest == state(b).digest
    # What memory showed is what the disk has.
    async with pair(tmp_path) as (a, b, _):
        assert (await strength(a, 1)).uses == (await strength(b, 1)).uses == 4


async def test_feedback_that_others_overtake_is_done_again_and_not_lost(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b, _):
        await passed_on(await told(a, put=pb.PutAction(traces=[harness.trace(1)])), b)
        for _ in range(6):
            # Grading here and hearing of grades there are under way at once, in one turn of the engine.
            theirs = await told(a, **graded(1))
            merge = harness.operation("u", merge=pb.MergeAction(updates=[theirs.update]))
            mine = [harness.operation("u", **graded(1)) for _ in range(2)]
            for operation in mine:
                operation.want_update = True
            results = await b.batch([mine[0], merge, mine[1]])
            assert [result.WhichOneof("result") for result in results] == ["reinforce", "merge", "reinforce"]
            await passed_on(results[0], a), await passed_on(results[2], a)
        assert (await strength(b, 1)).uses == (await strength(a, 1)).uses == 18
        assert state(a).digest == state(b).digest


async def test_what_is_said_again_is_one_update_with_what_it_strengthened(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b, _):
        await passed_on(await told(a, put=pb.PutAction(traces=[dynamics.said("first", "I like tea", harness.vector("tea"))])), b)
        again = await told(a, put=pb.PutAction(traces=[dynamics.said("again", "I like tea", harness.vector("tea"))]))
        assert {len(record.states) for record in again.update.records} == {0, 1}
        [merged] = await passed_on(again, b)
        assert merged.heads[0].counter == again.update.counter == again.put.sequence
        assert state(a).digest == state(b).digest
        assert (await strength(a, "first")).by_timescale == pytest.approx((await strength(b, "first")).by_timescale)
        dropped = await told(a, put=pb.PutAction(traces=[dynamics.said("third", "I like tea", harness.vector("tea"))], deduplicate=True))
        assert dropped.put.outcomes[0].duplicate_of and dropped.update.records


async def test_a_conflict_is_shown_on_request_and_ended_by_a_choice(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b, _):
        await passed_on(await told(a, put=pb.PutAction(traces=[harness.trace(1, "start")])), b)
        left, right = await told(a, **change(1, "left")), await told(b, **change(1, "right"))
        await passed_on(left, b), await passed_on(right, a)
        get = pb.GetAction(trace_id=harness.trace_id(1), include_siblings=True)
        at_a, at_b = [(await driver.one(harness.operation("u", get=get))).trace.trace for driver in (a, b)]
        assert at_a.text == at_b.text and at_a.siblings == at_b.siblings
        assert {sibling.trace.text for sibling in at_a.siblings} == {"left", "right"}
        assert [sibling.shown for sibling in at_a.siblings] == [True, False]
        assert at_a.siblings[0].trace.text == at_a.text and at_a.siblings[0].support > 0
        assert {sibling.node_id for sibling in at_a.siblings} == {"n0"}
        assert a.node.status().siblings == 1
        found = [await driver.found("u", text, 1) for driver in (a, b) for text in ("left", "right")]
        assert found == [[at_a.text]] * 4
        other = at_a.siblings[1]
        ended = await told(b, resolve=pb.ResolveAction(trace_id=harness.trace_id(1), sibling_id=other.sibling_id))
        assert ended.trace.trace.text == other.trace.text and ended.trace.trace.version == 3
        await passed_on(ended, a)
        assert await a.found("u", other.trace.text, 1) == [other.trace.text]
        assert not (await a.one(harness.operation("u", get=get))).trace.trace.siblings
        record = (await a.one(harness.operation("u", record=pb.RecordAction(trace_id=harness.trace_id(1))))).record.record
        assert len(record.versions) == 1 and record.length == 1
        nothing = await a.one(harness.operation("u", record=pb.RecordAction(trace_id=harness.trace_id("never"))))
        assert not nothing.record.HasField("record")
        await told(a, delete=pb.DeleteAction(trace_id=harness.trace_id(1)))
        erased = await a.one(harness.operation("u", record=pb.RecordAction(trace_id=harness.trace_id(1))))
        assert erased.record.record.length == 2 and not erased.record.record.versions


class Coming:
    """This node is to become an owner of `soon`, and owns `mine`."""

    epoch = 5

    def owns(self, tenant: str, user: str) -> bool:
        return user == "mine"

    def takes(self, tenant: str, user: str) -> bool:
        return user in ("mine", "soon")

    def copies(self, tenant: str, user: str) -> tuple[str, ...]:
        return ("n0", "n1")


async def test_a_coming_owner_takes_what_others_wrote_and_serves_no_reads(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path), Coming()) as node:
        merge = harness.operation("soon", merge=pb.MergeAction(records=[rpb.TraceRecord(trace_id=bytes(16), length=2)]))
        assert (await node.one(merge, epoch=4)).merge.changed == 1
        for operation in (harness.search("soon", 1), harness.put("soon", harness.trace(1))):
            with pytest.raises(StaleEpoch):
                await node.one(operation, epoch=4)
        merge.user = "gone"
        with pytest.raises(StaleEpoch):
            await node.one(merge, epoch=4)
        await node.one(harness.put("mine", harness.trace(1)), epoch=4)
        reader = node.node.store.reader()
        assert [row.owner for row in reader.journal(0, 9)] == [Owner("t", "mine")], "own writes are journalled, others' are not"
        reader.close()


async def test_components_writes_go_through_the_engines_queue(tmp_path: Path) -> None:
    config = harness.settings(tmp_path, engine={"queue_operations": 4})
    async with harness.running(config) as node:
        loop = asyncio.get_running_loop()

        def ask(count: int) -> asyncio.Future[Any]:
            answer: asyncio.Future[Any] = loop.create_future()
            records = [rpb.TraceRecord(trace_id=i.to_bytes(16, "big"), length=2) for i in range(count)]

            def done(result: WriteResult | Exception) -> None:
                loop.call_soon_threadsafe(answer.set_result, result)

            node.node.engine.join(Owner("t", "u"), pb.MergeAction(records=records), done)
            return answer

        assert (await ask(8)).changed == 8, "one that is larger than the queue is let in alone"
        answers = await asyncio.gather(*(ask(3) for _ in range(20)))
        assert {type(answer).__name__ for answer in answers} == {"MergeResult", "Overloaded"}
        assert (await ask(3)).changed == 0
        assert node.node.engine._inbox.weight == 0


async def component(driver: harness.Driver, action: Any) -> Any:
    """The result of a component's own write."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()
    driver.node.engine.join(Owner("t", "u"), action, lambda result: loop.call_soon_threadsafe(answer.set_result, result))
    return await answer


async def test_an_owner_that_is_let_go_is_gone_from_memory_too_and_may_come_back(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b, _):
        await passed_on(await told(a, put=pb.PutAction(traces=[harness.trace(i) for i in range(5)])), b)
        assert await b.found("u", 3, 1) == ["text 3"]
        assert not (await component(b, DropOwner(bytes(16)))).done
        assert (await component(b, DropOwner(state(b).digest))).done
        assert await b.found("u", 3, 1) == [] and not await b.every("u")
        assert b.node.status().resident_traces == 0
        made = await told(a, put=pb.PutAction(traces=[harness.trace(9)]))
        [merged] = await passed_on(made, b)
        assert not merged.heads, "what came before it is not known here any more"
        reader = a.node.store.reader()
        await component(b, pb.MergeAction(records=list(reader.records(Owner("t", "u"), None)), heads=state(a).heads))
        reader.close()
        assert await b.found("u", 3, 1) == ["text 3"]
        assert state(a).digest == state(b).digest


async def test_what_a_node_does_by_itself_is_journalled_where_others_must_know(tmp_path: Path) -> None:
    class Copied(Coming):
        def owns(self, tenant: str, user: str) -> bool:
            return True

    clock = dynamics.Clock()
    async with dynamics.node(tmp_path / "a", clock, lifecycle={"interval_s": 0.01}) as a, dynamics.node(tmp_path / "b", clock) as b:
        a.node.engine._placement = Copied()
        members = [dynamics.said(f"m{i}", f"Ann likes tea {'abc'[i]}", dynamics.near("tea", 0.97, str(i))) for i in range(3)]
        ends = harness.trace("ends", "soon over")
        ends.expires_at.CopyFrom(timestamp(harness.T0_US + 10_000_000))
        far = [harness.trace(i) for i in range(20)]
        await a.put("u", *members, *far, ends)
        assert (await dynamics.consolidate(a)).merged == 1
        clock.now_s += 60

        async def ended() -> bool:
            return len(await a.every("u", include_archived=True)) == 24

        await dynamics.until(ended, "the caretaker deletes what has expired")
        reader = a.node.store.reader()
        for row in reader.journal(0, 100):
            await component(b, pb.MergeAction(updates=[reader.update_of(row)]))
        assert reader.heads(Owner("t", "u"))[a.node.store.replica] == max(row.sequence for row in reader.journal(0, 100))
        reader.close()
        assert state(a).digest == state(b).digest
        got = await dynamics.get(b, "m0")
        assert got.state == LIFECYCLE_STATE_CONSOLIDATED, "whose words are merged follows from the merged trace"
