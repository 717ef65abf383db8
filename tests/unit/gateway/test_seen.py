"""What a read says it has seen, and that a session which passes it on never sees less."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import NdmlError, OwnerUnavailable, TraceNotFound
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.placement import MemberState
from ndml.seen import MAX_ENTRIES, read_seen
from ndml.v1 import memory_pb2, types_pb2
from services.gateway.ports import NOTHING_SEEN, Done, Seen
from services.gateway.tokens import TOKEN, read_consistency_token, tell_seen, write_consistency_token
from tests.sim.loop import run
from tests.unit.gateway.replicas import OWNER, Copy, World, trace_of
from tests.unit.gateway.test_memory_service import ANN, CALL, IDS, SCOPE, Nodes, service
from tests.unit.gateway.test_quorum import ALL, ID, ONE, QUORUM, UNSET, simulated, write
from tests.unit.gateway.test_reads import GET, SEARCH, copied, keep, reading

LIST = pb.Operation(tenant="t", user="ann", list=pb.ListAction(limit=9))
DELETE = pb.Operation(tenant="t", user="ann", delete=pb.DeleteAction(trace_id=ID))
GONE = 1 << 30


def told(error: NdmlError) -> Seen:
    return read_consistency_token(error.metadata.get(TOKEN, ""), OWNER)


@simulated
async def test_a_read_says_what_its_copy_knew_and_what_its_caller_had_seen() -> None:
    world = World(3)
    await write(world, consistency=ALL)
    world.replicas["n0"].heads[7] = 4
    for operation in (GET, SEARCH, LIST):
        assert (await reading(world, operation, ONE, {7: 3})).seen == {100: 1, 7: 4}
    counted = pb.Operation(tenant="t", user="ann", record=pb.RecordAction(trace_id=ID))
    assert (await reading(world, counted, ONE, {7: 3})).seen == {7: 3} and not counted.want_heads


@simulated
async def test_one_copy_is_asked_for_nothing_and_says_nothing() -> None:
    world = World(1)
    await write(world)
    operation = pb.Operation()
    operation.CopyFrom(GET)
    assert (await reading(world, operation, ALL, {100: 1})).seen == {} and not operation.want_heads
    world.replicas["n0"].kept.clear()
    with pytest.raises(TraceNotFound) as gone:
        await reading(world, operation)
    assert gone.value.metadata == {}


@simulated
async def test_what_a_read_saw_a_later_one_sees_at_another_copy() -> None:
    world = World(3)
    world.faults = {"n2": ["before"]}
    await write(world)
    await asyncio.sleep(60)  # n2 is not avoided any more
    first = await reading(world, GET)
    world.states |= {"n0": MemberState.DOWN, "n1": MemberState.SUSPECT}
    world.cut = {"n0"}
    with pytest.raises(TraceNotFound):
        await reading(world, GET)
    world.sent.clear()
    assert (await reading(world, GET, UNSET, first.seen)).result.trace.trace.text == "x"
    assert [node for node, _ in world.sent] == ["n2", "n1"]


@simulated
async def test_that_it_is_gone_is_seen_too() -> None:
    world = World(3)
    await write(world, consistency=ALL)
    world.faults = {"n2": ["before"]}
    await write(world, DELETE)
    await asyncio.sleep(60)  # n2 is not avoided any more
    world.faults = {}
    with pytest.raises(TraceNotFound) as gone:
        await reading(world, GET, ONE, {55: 0})
    assert told(gone.value) == {100: 2}
    world.states |= {"n0": MemberState.DOWN, "n1": MemberState.SUSPECT}
    assert (await reading(world, GET)).result.trace.trace.text == "x", "n2 has not heard of it"
    with pytest.raises(TraceNotFound):
        await reading(world, GET, ONE, told(gone.value))


@simulated
async def test_copies_of_one_mind_say_what_all_of_them_know_others_what_they_know_together() -> None:
    world = World(3)
    keep(world, "n0", 1, "same")
    for other in ("n1", "n2"):
        copied(world, "n0", other, 1)
    world.replicas["n0"].heads = {7: 5, 8: 1}
    world.replicas["n1"].heads = {7: 2, 8: 6}
    for operation in (SEARCH, LIST):
        assert (await reading(world, operation, QUORUM)).seen == {7: 2, 8: 1}
    assert (await reading(world, GET, QUORUM)).seen in ({7: 5, 8: 1}, {7: 2, 8: 6}), "one of them answers once they are equal"
    for version, operation in enumerate((GET, SEARCH, LIST), 2):
        keep(world, "n1", 1, f"another {version}", version=version)
        assert (await reading(world, operation, QUORUM)).seen == {7: 5, 8: 6}
    with pytest.raises(TraceNotFound) as gone:
        world.replicas["n1"].kept[ID].erase()
        await reading(world, GET, QUORUM)
    assert told(gone.value) == {7: 5, 8: 6}


@simulated
async def test_a_quorum_has_seen_what_its_copies_know_together() -> None:
    world = World(3)
    keep(world, "n0", 1, "x")
    for other in ("n1", "n2"):
        copied(world, "n0", other, 1)
    for node, heads in (("n0", {7: 5}), ("n1", {8: 6}), ("n2", {9: 1})):
        world.replicas[node].heads = heads
    with pytest.raises(OwnerUnavailable, match="behind"):
        await reading(world, GET, ONE, {7: 5, 8: 6})
    world.sent.clear()
    assert (await reading(world, GET, QUORUM, {7: 5, 8: 6})).result.trace.trace.text == "x"
    assert {node for node, _ in world.sent} == {"n0", "n1"}
    assert (await reading(world, SEARCH, QUORUM, {7: 5, 9: 1})).seen == {7: 5, 9: 1}, "the third one is asked as well"
    for word in (QUORUM, ALL):
        with pytest.raises(OwnerUnavailable, match="together"):
            await reading(world, LIST, word, {7: 6})


def reconciled(copies: list[Copy]) -> None:
    """All of them have everything, as after a round of anti-entropy."""
    for one in copies:
        for other in copies:
            for trace_id, kept in list(other.kept.items()):
                one.join(kept.record(trace_id))
            for replica, counter in other.heads.items():
                one.heads[replica] = max(counter, one.heads.get(replica, 0))


@given(seed=st.integers(0, 1 << 32), words=st.lists(st.sampled_from([UNSET, ONE, QUORUM, ALL]), min_size=12, max_size=12))
@settings(max_examples=120, deadline=None)
def test_a_session_that_only_reads_never_goes_back(seed: int, words: list[int]) -> None:
    """Whatever merges are lost and whichever copy answers: each read sees what the one before saw, or something newer, or fails."""

    async def main() -> None:
        world, random, seen, newest = World(3), Random(seed), dict[int, int](), 0
        await write(world, consistency=ALL)
        for number in range(2, 8):
            reconciled(list(world.replicas.values()))
            text = f"{'x' * number}"
            change = pb.Operation(tenant="t", user="ann", update=pb.UpdateAction(trace=trace_of(1, text), fields=["text"]))
            if number == 7:
                change = DELETE
            world.faults = {node: ["before"] * random.randrange(2) for node in random.sample(list(world.replicas), 2)}
            await write(world, change, ONE)
            await asyncio.sleep(60)
            for word in random.sample(words, 4):
                world.states = {node: random.choice([MemberState.ALIVE, MemberState.SUSPECT]) for node in world.replicas}
                world.cut = set(random.sample(list(world.replicas), random.choice([0, 0, 1])))
                shown, seen = await looked(world, word, seen)
                assert shown is None or shown >= newest
                newest = newest if shown is None else shown
            world.cut = set()

    run(lambda loop: main())


async def looked(world: World, word: int, seen: dict[int, int]) -> tuple[int | None, dict[int, int]]:
    """What a read shows, None where it fails, and what the session has seen then."""
    try:
        done = await reading(world, GET, word, seen)
    except TraceNotFound as error:
        return GONE, dict(told(error))
    except OwnerUnavailable:
        return None, seen
    return len(done.result.trace.trace.text), dict(done.seen)


class Copies(Nodes):
    """A node among others, which knows what it knows."""

    async def execute(
        self, owner: object, operation: pb.Operation, call: object, *, seen: Seen = NOTHING_SEEN, consistency: int = 0
    ) -> Done:  # type: ignore[override]
        return Done(self.answer(operation), {**seen, 100: 9})


async def test_every_read_gives_a_token_that_has_the_requests_in_it() -> None:
    hits = memory_pb2.SearchMemoriesResponse(hits=[memory_pb2.SearchHit(trace=types_pb2.MemoryTrace(trace_id=IDS[0]))]).SerializeToString()

    def answer(operation: pb.Operation) -> pb.OperationResult:
        if operation.HasField("search"):
            return pb.OperationResult(search=pb.SearchResult(responses=[hits] * (len(operation.search.vectors) // 8)))
        if operation.HasField("delete"):
            return pb.OperationResult(delete=pb.DeleteResult(deleted=True))
        return pb.OperationResult()

    given_, both = (write_consistency_token({ANN: seen}) for seen in ({7: 3}, {7: 3, 100: 9}))
    api = service(Copies(answer))
    got = await api.GetMemory(memory_pb2.GetMemoryRequest(scope=SCOPE, trace_id=IDS[0], consistency_token=given_), CALL)
    listed = await api.ListMemories(memory_pb2.ListMemoriesRequest(scope=SCOPE, consistency_token=given_), CALL)
    asked = memory_pb2.SearchMemoriesRequest(scope=SCOPE, text="x", consistency_token=given_)
    found = memory_pb2.SearchMemoriesResponse.FromString(await api.SearchMemories(asked, CALL))
    gone = await api.DeleteMemory(memory_pb2.DeleteMemoryRequest(scope=SCOPE, trace_id=IDS[0], consistency_token=given_), CALL)
    assert [each.consistency_token for each in (got, listed, found, gone)] == [both] * 4
    assert found.hits[0].trace.trace_id == IDS[0] and found.stats.shards_total == 1
    batch = await api.BatchSearchMemories(memory_pb2.BatchSearchMemoriesRequest(searches=[asked, asked]), CALL)
    results = memory_pb2.BatchSearchMemoriesResponse.FromString(batch).results
    assert [(len(row.response.hits), row.response.consistency_token) for row in results] == [(1, both)] * 2
    plain = await service(Nodes()).GetMemory(memory_pb2.GetMemoryRequest(scope=SCOPE, trace_id=IDS[0], consistency_token=given_), CALL)
    assert plain.consistency_token == ""


def test_an_error_carries_a_token_as_long_as_it_arrives() -> None:
    error = TraceNotFound("gone", metadata={"kept": "yes"})
    tell_seen(error, OWNER, {})
    assert error.metadata == {"kept": "yes"}
    tell_seen(error, OWNER, {1: 5, 2: 2})
    tell_seen(error, OWNER, {1: 4, 3: 3})
    assert told(error) == {1: 5, 2: 2, 3: 3} and error.metadata["kept"] == "yes"
    tell_seen(error, OWNER, dict.fromkeys(range(1, 60), 1))
    assert error.metadata == {"kept": "yes"}
    token = write_consistency_token({OWNER: {store: store for store in range(1, 1000)}})
    assert len(token) <= 8192 and set(read_seen(token).values()) == set(range(1000 - MAX_ENTRIES, 1000))
