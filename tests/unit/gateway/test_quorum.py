"""Writes on several copies that fail in every way, on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import NdmlError, OwnerUnavailable, StaleEpoch
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.placement import MemberState
from ndml.runtime import metrics
from ndml.v1 import types_pb2
from services.gateway.ports import Done
from services.gateway.quorum import copies_of
from tests.sim.loop import run
from tests.unit.gateway.replicas import OWNER, TRY_S, World, put, trace_of

UNSET, ONE, QUORUM, ALL = types_pb2.Consistency.values()
X = trace_of(1)
ID = X.trace_id


def simulated(main: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """The test on a clock of its own."""

    def test() -> None:
        run(lambda loop: main())

    test.__name__, test.__doc__ = main.__name__, main.__doc__
    return test


async def write(world: World, operation: pb.Operation | None = None, consistency: int = UNSET, deadline: float | None = None) -> Done:
    return await world.quorum.write(OWNER, operation or put(X), deadline, consistency)  # type: ignore[arg-type]


def outcomes(outcome: str) -> float:
    value: float = metrics.REPLICA_WRITES.labels(outcome)._value.get()
    return value


@pytest.mark.parametrize(("owners", "expected"), [(1, [1, 1, 1, 1]), (2, [2, 1, 2, 2]), (3, [2, 1, 2, 3]), (5, [2, 1, 3, 5])])
def test_words_stand_for_numbers_of_copies(owners: int, expected: list[int]) -> None:
    assert [copies_of(word, owners, 2) for word in (UNSET, ONE, QUORUM, ALL)] == expected
    assert copies_of(UNSET, owners, 0) == {1: 1, 2: 1, 3: 2, 5: 3}[owners]  # type: ignore[arg-type]


@simulated
async def test_one_copy_costs_one_message() -> None:
    world = World(1)
    done = await write(world)
    assert world.sent == [("n0", "put")] and not done.result.HasField("update")
    assert done.seen == {100: 1}


@simulated
async def test_the_first_copy_writes_the_others_join() -> None:
    world = World(3, coming=1)
    done = await write(world)
    await asyncio.sleep(1)
    assert world.actions() == {"put": 1, "merge": 3} and world.holders(ID) == ["n0", "n1", "n2", "j0"]
    assert all(replica.heads == done.seen == {100: 1} for replica in world.replicas.values())


@simulated
async def test_a_write_waits_for_owners_and_not_for_those_who_come() -> None:
    world = World(3, coming=2)
    world.faults = {"n1": ["slow"], "n2": ["slow"]}
    writing = asyncio.ensure_future(write(world))
    await asyncio.sleep(1)
    assert world.holders(ID) == ["n0", "j0", "j1"] and not writing.done()
    await writing
    assert len(set(world.holders(ID)) - {"j0", "j1"}) >= 2


@simulated
async def test_one_is_answered_before_the_others_have_it() -> None:
    world = World(3)
    await write(world, consistency=ONE)
    assert world.holders(ID) == ["n0"]
    await world.quorum.stop()
    assert world.holders(ID) == ["n0", "n1", "n2"]


@simulated
async def test_too_few_copies_is_said_with_numbers_and_repeated_it_is_done_once() -> None:
    world = World(3)
    world.cut = {"n1", "n2"}
    with pytest.raises(OwnerUnavailable) as short:
        await write(world, deadline=asyncio.get_running_loop().time() + 1)
    assert short.value.metadata == {"acked": "1", "wanted": "2"} and short.value.retry_after_s
    assert asyncio.get_running_loop().time() <= 1
    world.cut = set()
    done = await write(world)
    await asyncio.sleep(1)
    assert done.result.put.outcomes[0].existed and world.holders(ID) == ["n0", "n1", "n2"]
    assert done.seen == {100: 1}
    assert all(dict(r.kept[ID].versions) == {(100, 1): X.SerializeToString()} for r in world.replicas.values())


@simulated
async def test_a_copy_that_comes_back_in_time_saves_the_write() -> None:
    world = World(2, write=2)
    world.faults = {"n1": ["before"] * 4}
    await write(world)
    assert world.holders(ID) == ["n0", "n1"]


@pytest.mark.parametrize("fate", ["before", "after", "silent"])
def test_a_first_copy_that_fails_is_left_for_the_next(fate: str) -> None:
    async def main() -> None:
        world = World(3)
        world.faults = {"n0": [fate, "before"]}
        done = await write(world)
        assert [node for node, action in world.sent if action == "put"] == ["n0", "n1"]
        assert done.seen == {101: 1} and {"n1", "n2"} <= set(world.holders(ID))
        await asyncio.sleep(1)
        await write(world, put(trace_of(2)))
        puts = [node for node, action in world.sent if action == "put"]
        assert puts == ["n0", "n1", "n1"], "a copy that failed a moment ago is not asked first"
        await asyncio.sleep(60)
        await write(world, put(trace_of(3)))
        assert [node for node, action in world.sent if action == "put"][-1] == "n0"

    run(lambda loop: main())


@simulated
async def test_what_consensus_takes_for_dead_is_asked_last() -> None:
    world = World(3)
    world.states |= {"n0": MemberState.DOWN, "n1": MemberState.SUSPECT}
    await write(world)
    assert world.sent[0] == ("n2", "put")


@simulated
async def test_a_stale_placement_is_refreshed_for_each_epoch_of_a_node_that_leaves() -> None:
    world = World(3)
    world.faults = {"n0": ["stale"]}
    await write(world)
    assert world.epoch == 2
    world.faults = {"n0": ["stale", "stale"]}
    await write(world, put(trace_of(2)))
    assert world.epoch == 4
    world.faults = {"n0": ["stale"] * 4}
    with pytest.raises(StaleEpoch):
        await write(world, put(trace_of(3)))


@simulated
async def test_a_delete_whose_answer_was_lost_was_this_calls_own() -> None:
    world = World(3)
    await write(world, consistency=ALL)
    world.faults = {"n0": ["after"], "n1": ["ok"]}
    world.replicas["n1"].kept[ID].erase()  # the delta stream was faster
    done = await write(world, pb.Operation(tenant="t", user="ann", delete=pb.DeleteAction(trace_id=ID)), ALL)
    assert done.result.delete.deleted
    assert all(replica.kept[ID].length == 2 for replica in world.replicas.values())


@simulated
async def test_a_delete_of_nothing_asks_each_owner_once_and_changes_none() -> None:
    world = World(3, coming=1)
    done = await write(world, pb.Operation(tenant="t", user="ann", delete=pb.DeleteAction(trace_id=ID)), ALL)
    assert not done.result.delete.deleted and world.actions() == {"delete": 3} and done.seen == {}


@simulated
async def test_a_repeated_change_reaches_the_copies_that_lack_it() -> None:
    world = World(3)
    await write(world, consistency=ALL)
    world.cut = {"n2"}
    changed = pb.Operation(tenant="t", user="ann", update=pb.UpdateAction(trace=trace_of(1, "y"), fields=["text"]))
    await write(world, changed)
    world.cut = set()
    done = await write(world, changed, ALL)
    assert {replica.kept[ID].trace().text for replica in world.replicas.values()} == {"y"}
    assert done.seen == {100: 2}


@simulated
async def test_feedback_is_told_apart_by_a_digest_where_there_are_copies() -> None:
    feedback = pb.Operation(tenant="t", user="ann", reinforce=pb.ReinforceAction(feedback=[pb.TraceFeedback(trace_id=ID, grade=1)]))
    for owners in (1, 3):
        world = World(owners)
        await write(world)
        world.faults = {"n0": ["after"] if owners == 3 else []}
        operation = pb.Operation()
        operation.CopyFrom(feedback)
        await write(world, operation)
        assert bool(operation.reinforce.request_digest) == (owners == 3)


@simulated
async def test_what_waits_for_a_slow_copy_is_bounded() -> None:
    world = World(3, merges=2)
    world.faults = {"n2": ["silent"] * 50}
    dropped = outcomes("dropped")
    for number in range(1, 11):
        await write(world, put(trace_of(number)))
    assert outcomes("dropped") - dropped == 8
    assert len(world.quorum._merges._tasks) == 2 and sum(node == "n2" for node, _ in world.sent) == 2


FATES = st.lists(st.sampled_from(["ok", "before", "after", "slow", "silent", "stale"]), max_size=4)


@given(
    owners=st.integers(2, 4),
    coming=st.integers(0, 1),
    consistency=st.sampled_from([UNSET, ONE, QUORUM, ALL]),
    fates=st.lists(FATES, min_size=5, max_size=5),
    kind=st.sampled_from(["put", "update", "delete"]),
)
@settings(max_examples=150, deadline=None)
def test_acknowledged_is_on_as_many_copies_as_asked_for(
    owners: int, coming: int, consistency: int, fates: list[list[str]], kind: str
) -> None:
    """And not acknowledged says how many have it, at least; and once all is well, a repeat brings it to all, once."""

    async def main() -> None:
        world = World(owners, coming)
        if kind != "put":
            await write(world, consistency=ALL)
            await world.quorum.stop()
        operation = {
            "put": put(X),
            "update": pb.Operation(tenant="t", user="ann", update=pb.UpdateAction(trace=trace_of(1, "y"), fields=["text"])),
            "delete": pb.Operation(tenant="t", user="ann", delete=pb.DeleteAction(trace_id=ID)),
        }[kind]
        world.faults = {node_id: list(fate) for node_id, fate in zip(world.replicas, fates, strict=False)}
        wanted = copies_of(consistency, owners, 0)  # type: ignore[arg-type]
        try:
            await write(world, operation, consistency, deadline=asyncio.get_running_loop().time() + 60)
        except NdmlError as error:
            assert len(having(world, kind)) >= int(error.metadata.get("acked", 0))
        else:
            assert len(having(world, kind)) >= wanted
        world.faults = {}
        await asyncio.sleep(10 * TRY_S)
        await write(world, operation, ALL)
        assert len(having(world, kind)) == owners
        assert all(len(set(replica.kept[ID].versions.values())) <= 1 for replica in world.replicas.values())

    run(lambda loop: main())


def having(world: World, kind: str) -> list[str]:
    """Owners that have the write."""

    def has(node_id: str) -> bool:
        kept = world.replicas[node_id].kept.get(ID)
        if kept is None:
            return False
        if kind == "delete":
            return kept.length == 2
        return kind == "put" or any(types_pb2.MemoryTrace.FromString(content).text == "y" for content in kept.versions.values())

    return [node_id for node_id in world.replicas if node_id.startswith("n") and has(node_id)]
