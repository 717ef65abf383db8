"""Reads of several copies: which is asked, what happens when they differ."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import FieldInvalid, OwnerUnavailable, TraceNotFound
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.runtime import metrics
from ndml.v1 import memory_pb2, types_pb2
from services.gateway.ports import NOTHING_SEEN, Done, Seen
from services.gateway.reads import enough
from tests.sim.loop import run
from tests.unit.gateway.replicas import OWNER, Kept, World, trace_of
from tests.unit.gateway.test_quorum import ALL, ID, ONE, QUORUM, UNSET, simulated, write

GET = pb.Operation(tenant="t", user="ann", get=pb.GetAction(trace_id=ID))
SEARCH = pb.Operation(tenant="t", user="ann", search=pb.SearchAction(k=3))


async def reading(world: World, operation: pb.Operation, consistency: int = UNSET, seen: Seen = NOTHING_SEEN) -> Done:
    return await world.reads.read(OWNER, operation, None, seen, consistency)  # type: ignore[arg-type]


async def read(world: World, operation: pb.Operation, consistency: int = UNSET, seen: Seen = NOTHING_SEEN) -> pb.OperationResult:
    return (await reading(world, operation, consistency, seen)).result


async def shown(world: World, consistency: int, seen: Seen = NOTHING_SEEN) -> str:
    return (await read(world, GET, consistency, seen)).trace.trace.text


async def found(world: World, consistency: int) -> list[str]:
    [data] = (await read(world, SEARCH, consistency)).search.responses
    return [hit.trace.text for hit in memory_pb2.SearchMemoriesResponse.FromString(data).hits]


async def listed(world: World, consistency: int, limit: int, before: pb.ListPlace | None = None) -> pb.ListResult:
    action = pb.ListAction(limit=limit, before=before)
    return (await read(world, pb.Operation(tenant="t", user="ann", list=action), consistency)).list


def keep(world: World, node_id: str, number: int, text: str, *, version: int = 1, learned_us: int = 0) -> None:
    """Have the copy hold this content, as written by its own store or, for later versions, on top of what it has."""
    replica = world.replicas[node_id]
    trace = trace_of(number, text, learned_us)
    trace.version = version
    replica.kept.setdefault(trace.trace_id, Kept()).write(replica.replica, trace.SerializeToString())


def copied(world: World, source: str, target: str, number: int) -> None:
    trace_id = f"{number:032x}"
    world.replicas[target].join(world.replicas[source].kept[trace_id].record(trace_id))


@simulated
async def test_one_copy_answers_and_the_next_one_when_it_is_away_or_slow() -> None:
    world = World(3)
    await write(world, consistency=ALL)
    for fates in ([], ["before"], ["silent"]):
        world.faults = {"n0": list(fates)}
        assert await shown(world, ONE) == "x"
    assert [node for node, action in world.sent if action == "get"] == ["n0", "n0", "n1", "n0", "n1"]


@simulated
async def test_a_copy_that_is_behind_what_was_seen_is_passed_over() -> None:
    world = World(3)
    world.cut = {"n0"}
    await asyncio.gather(write(world, consistency=ONE))
    world.cut = set()
    assert world.holders(ID) == ["n1"] or world.holders(ID) == ["n1", "n2"]
    world.replicas["n2"].kept.clear()
    world.replicas["n2"].heads.clear()
    assert await shown(world, ONE, {101: 1}) == "x"
    with pytest.raises(OwnerUnavailable, match="behind"):
        await shown(world, ONE, {101: 2})


@simulated
async def test_an_equal_answer_of_enough_is_given_without_mending() -> None:
    world = World(3)
    await write(world, consistency=ALL)
    world.sent.clear()
    assert await shown(world, QUORUM) == "x"
    assert world.actions() == {"record": 2, "get": 1}


@simulated
async def test_a_quorum_read_shows_the_newest_and_leaves_it_everywhere_it_looked() -> None:
    world = World(3)
    await write(world, consistency=ALL)
    keep(world, "n1", 1, "newer")
    repairs = metrics.READ_REPAIRS._value.get()
    assert await shown(world, ALL) == "newer"
    assert metrics.READ_REPAIRS._value.get() == repairs + 3  # n0 and n2 get n1's, n1 both of theirs, which are one
    assert {replica.kept[ID].trace().text for replica in world.replicas.values()} == {"newer"}


@simulated
async def test_what_one_copy_has_erased_is_not_there_for_a_quorum() -> None:
    world = World(3)
    for number, text in enumerate(["a", "bb", "ccc", "dddd", "eeeee"], 1):
        keep(world, "n0", number, text)
        for other in ("n1", "n2"):
            copied(world, "n0", other, number)
    world.replicas["n1"].kept[f"{5:032x}"].erase()
    assert await found(world, ONE) == ["eeeee", "dddd", "ccc"]
    assert await found(world, QUORUM) == ["dddd", "ccc", "bb"]
    assert [t.text for t in (await listed(world, ALL, 2)).traces] == ["dddd", "ccc"]
    assert world.replicas["n2"].kept[f"{5:032x}"].length == 2
    world.replicas["n1"].kept[f"{1:032x}"].erase()
    with pytest.raises(TraceNotFound):
        await shown(world, QUORUM)


@simulated
async def test_a_search_finds_what_only_one_copy_has_in_its_newest_content() -> None:
    world = World(2)
    keep(world, "n0", 1, "the longest of all texts")
    copied(world, "n0", "n1", 1)
    keep(world, "n1", 1, "short", version=2)
    keep(world, "n0", 2, "only here")
    assert await found(world, ALL) == ["only here", "short"]
    assert await found(world, ONE) == ["only here", "short"]


@simulated
async def test_a_copy_that_refuses_anothers_record_is_not_the_callers_fault() -> None:
    world = World(2)
    await write(world, consistency=ALL)
    keep(world, "n0", 1, "written under a clock that is minutes ahead", version=2)

    def refuse(action: pb.MergeAction, operation: pb.Operation) -> pb.OperationResult:
        raise FieldInvalid("clock is 162644 ms ahead of this machine", field="clock")

    world.replicas["n1"].merge = refuse  # type: ignore[method-assign]
    with pytest.raises(OwnerUnavailable, match="162644 ms ahead"):
        await shown(world, ALL)
    assert await shown(world, ONE) == "written under a clock that is minutes ahead"


@simulated
async def test_too_few_copies_is_said() -> None:
    world = World(3)
    await write(world, consistency=ALL)
    world.cut = {"n0", "n2"}
    with pytest.raises(OwnerUnavailable, match="fewer than 2 of 3") as few:
        await shown(world, QUORUM)
    assert few.value.metadata == {"acked": "1", "wanted": "2"}
    assert await shown(world, ONE) == "x"


@simulated
async def test_a_silent_copy_does_not_hold_a_quorum() -> None:
    world = World(3)
    await write(world, consistency=ALL)
    world.faults = {"n1": ["silent"]}
    assert await shown(world, QUORUM) == "x"


@simulated
async def test_enough_asks_no_more_than_it_needs() -> None:
    asked: list[int] = []

    async def answer(number: int) -> int:
        asked.append(number)
        if number == 1:
            raise OwnerUnavailable("away")
        return number

    assert await enough([lambda n=n: answer(n) for n in range(4)], 2, 1.0) == [0, 2]  # type: ignore[misc]
    assert asked == [0, 1, 2]


HOLDINGS = st.lists(st.dictionaries(st.integers(1, 9), st.integers(1, 3), max_size=9), min_size=3, max_size=3)


@given(holdings=HOLDINGS, erased=st.sets(st.tuples(st.integers(0, 2), st.integers(1, 9)), max_size=4), limit=st.integers(1, 4))
@settings(max_examples=80, deadline=None)
def test_pages_of_differing_copies_together_are_the_whole_list(
    holdings: list[Mapping[int, int]], erased: set[tuple[int, int]], limit: int
) -> None:
    """Each trace once, the newest edition of it, nothing that a copy knows to be erased; last learned first."""

    async def main() -> None:
        world = World(3)
        for number in range(1, 10):
            editions = sorted((held[number], place) for place, held in enumerate(holdings) if number in held)
            for previous, (version, place) in zip([None, *editions], editions, strict=False):
                if previous is not None:
                    copied(world, f"n{previous[1]}", f"n{place}", number)
                if previous is None or version > previous[0]:
                    keep(world, f"n{place}", number, f"{number}.{version}", version=version, learned_us=1000 - number)
        gone = {number for place, number in erased if world.replicas[f"n{place}"].has(f"{number:032x}")}
        for place, number in erased:
            if number in gone and world.replicas[f"n{place}"].has(f"{number:032x}"):
                world.replicas[f"n{place}"].kept[f"{number:032x}"].erase()
        newest = {n: max(held[n] for held in holdings if n in held) for n in range(1, 10) if any(n in held for held in holdings)}
        texts: list[str] = []
        before: pb.ListPlace | None = None
        while True:
            page = await listed(world, ALL, limit, before)
            texts += [trace.text for trace in page.traces]
            if not page.HasField("next"):
                break
            before = page.next
        assert texts == [f"{number}.{version}" for number, version in sorted(newest.items()) if number not in gone]

    run(lambda loop: main())


def test_the_words_have_their_numbers() -> None:
    assert [types_pb2.Consistency.Name(word) for word in (UNSET, ONE, QUORUM, ALL)] == [
        f"CONSISTENCY_{name}" for name in ("UNSPECIFIED", "ONE", "QUORUM", "ALL")
    ]
