"""Which copy begins a write: one that has what was written before, here or as the caller says; and who may say "not there"."""

from __future__ import annotations

import asyncio

import pytest

from ndml.errors import OwnerUnavailable, TraceNotFound
from ndml.internal.v1 import memory_node_pb2 as pb
from services.gateway.known import Known
from services.gateway.ports import NOTHING_SEEN, Done, Seen
from services.gateway.scopes import Owner
from tests.unit.gateway.replicas import OWNER, World, put, trace_of
from tests.unit.gateway.test_quorum import ALL, ID, ONE, UNSET, simulated, write
from tests.unit.gateway.test_reads import keep

UPDATE = pb.Operation(tenant="t", user="ann", update=pb.UpdateAction(trace=trace_of(1, "y"), fields=["text"]))
DELETE = pb.Operation(tenant="t", user="ann", delete=pb.DeleteAction(trace_id=ID))


async def on_top_of(world: World, seen: Seen, operation: pb.Operation, consistency: int = UNSET) -> Done:
    return await world.quorum.write(OWNER, operation, None, consistency, seen)  # type: ignore[arg-type]


async def behind(world: World) -> None:
    """X stands on n0 and n2, which have heard of it; n1 has not."""
    world.faults = {"n1": ["before"]}
    await write(world)
    await asyncio.sleep(60)  # n1 is not avoided any more
    assert world.holders(ID) == ["n0", "n2"]
    world.faults = {}
    world.sent.clear()


def test_what_is_known_is_joined_and_bounded() -> None:
    known, owners = Known(2), [Owner("t", name) for name in ("a", "b", "c")]
    assert known.of(owners[0]) == NOTHING_SEEN
    known.note(owners[0], {1: 5, 2: 3})
    known.note(owners[0], {1: 4, 3: 1})
    known.note(owners[1], NOTHING_SEEN)
    assert known.of(owners[0]) == {1: 5, 2: 3, 3: 1} and known.of(owners[1]) == NOTHING_SEEN
    known.note(owners[1], {1: 1})
    known.note(owners[0], {1: 6})
    known.note(owners[2], {9: 9})
    assert [known.of(owner) for owner in owners] == [{1: 6, 2: 3, 3: 1}, NOTHING_SEEN, {9: 9}], "the least recently written went"


def test_numbers_of_stores_that_are_gone_do_not_pile_up() -> None:
    known = Known()
    for store in range(1, 1000):
        known.note(OWNER, {store: store})
        assert 0 < len(known.of(OWNER)) <= 64 and known.of(OWNER)[store] == store


@simulated
async def test_a_change_begins_at_a_copy_that_has_the_write_before_it() -> None:
    world = World(3)
    await behind(world)
    world.cut = {"n0"}
    done = await write(world, UPDATE)
    assert [node for node, action in world.sent if action == "update"] == ["n0", "n1", "n2"]
    assert done.seen == {102: 1}
    assert set(world.replicas["n2"].kept[ID].versions) == {(102, 1)}, (
        "one content: the change replaced the put, which n1 would have written beside"
    )


@simulated
async def test_a_new_memory_waits_for_nothing_that_was_written_before() -> None:
    world = World(3)
    await behind(world)
    world.cut = {"n0"}
    done = await write(world, put(trace_of(2)))
    assert [node for node, action in world.sent if action == "put"] == ["n0", "n1"] and done.seen == {101: 1}


@simulated
async def test_what_this_gateway_knows_is_given_up_before_the_write_is() -> None:
    world = World(3)
    await behind(world)
    world.replicas["n1"].join(world.replicas["n0"].kept[ID].record(ID))  # by a repair, which has no positions
    world.cut = {"n0", "n2"}
    done = await write(world, UPDATE, ONE)
    assert [node for node, action in world.sent if action == "update" and node == "n1"] == ["n1", "n1"]
    assert done.seen == {101: 1} and world.replicas["n1"].kept[ID].trace().text == "y"


@simulated
async def test_what_the_caller_has_seen_is_not_given_up() -> None:
    world = World(3)
    keep(world, "n1", 1, "x")
    with pytest.raises(OwnerUnavailable, match="behind"):
        await on_top_of(world, {100: 1}, UPDATE, ONE)
    assert world.replicas["n1"].kept[ID].trace().text == "x"
    world.replicas["n1"].heads[100] = 1
    assert (await on_top_of(world, {100: 1}, UPDATE, ONE)).seen == {101: 1}


@simulated
async def test_what_the_first_copy_does_not_know_another_one_may() -> None:
    world = World(3)
    keep(world, "n1", 1, "x")
    done = await write(world, UPDATE, ONE)
    assert done.result.trace.trace.text == "y" and done.seen == {101: 1}
    world.replicas["n0"].kept.clear()
    world.replicas["n0"].heads.clear()
    assert (await on_top_of(world, {}, DELETE, ALL)).result.delete.deleted
    assert world.replicas["n1"].kept[ID].length == world.replicas["n2"].kept[ID].length == 2


@simulated
async def test_not_there_is_what_more_copies_say_than_a_write_may_have_missed() -> None:
    for lost, certain in (({"n1", "n2"}, False), ({"n2"}, True), (set[str](), True)):
        world = World(3)
        world.cut = lost
        if certain:
            with pytest.raises(TraceNotFound):
                await write(world, UPDATE)
            assert not (await write(world, DELETE)).result.delete.deleted
            continue
        for operation in (UPDATE, DELETE):
            with pytest.raises(OwnerUnavailable, match="away"):
                await write(world, operation)


@simulated
async def test_of_two_copies_with_one_acknowledged_both_must_say_that_it_is_not_there() -> None:
    world = World(2)
    world.cut = {"n1"}
    with pytest.raises(OwnerUnavailable):
        await write(world, UPDATE)
    world.cut = set()
    with pytest.raises(TraceNotFound):
        await write(world, UPDATE)


@simulated
async def test_a_delete_that_was_done_before_is_known_to_the_copy() -> None:
    world = World(3)
    await write(world, consistency=ALL)
    assert (await write(world, DELETE, ALL)).result.delete.deleted
    world.sent.clear()
    again = await write(world, DELETE, ALL)
    assert not again.result.delete.deleted and [node for node, action in world.sent if action == "delete"] == ["n0"]
