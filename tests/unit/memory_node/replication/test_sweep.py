"""Anti-entropy between stores in memory, on a virtual clock and a bad network."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ndml.crdt.iblt import SYMBOL_BYTES
from ndml.errors import FieldInvalid, Overloaded, StoreUnavailable
from ndml.placement import MemberPhase
from services.memory_node.records import Owner
from tests.sim.loop import VirtualLoop, run
from tests.sim.network import Weather
from tests.unit.memory_node.replication.harness import ALICE, BOB, Suite, trace_id


def test_two_copies_that_each_lack_something_become_equal_and_know_each_others_heads() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(2, hub=False)
        common = [trace_id(i) for i in range(50)]
        for i in (0, 1):
            suite.store(i).write(ALICE, *(trace_id((i, n)) for n in range(5)))
        for one in common:
            suite.store(0).write(ALICE, one)
        await suite.round(1)
        suite.store(1).write(ALICE, common[0], text="changed")
        suite.store(0).erase(ALICE, common[1])
        done = await suite.round(0)
        assert done.clean
        assert done.passes["n1"].differed == 1
        assert len(suite.digests()) == 1
        assert suite.store(0).held == suite.store(1).held
        assert suite.store(0).known[ALICE] == suite.store(1).known[ALICE]
        # Equal copies cost one comparison and nothing else.
        joins, moved = suite.store(0).joins + suite.store(1).joins, dict(suite.bytes)
        assert (await suite.round(1)).passes["n0"].differed == 0
        assert (suite.store(0).joins + suite.store(1).joins, suite.bytes) == (joins, moved)

    run(main)


def test_a_hundred_differences_of_ten_thousand_cost_a_few_kilobytes_beside_the_records() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(2, hub=False)
        suite.store(0).write(ALICE, *(trace_id(n) for n in range(10_000)))
        await suite.round(1)
        suite.bytes.clear()
        suite.store(0).write(ALICE, *(trace_id(("new", n)) for n in range(60)))
        suite.store(1).write(ALICE, *(trace_id(n) for n in range(20)), text="other")  # each differs on both sides: two digests
        await suite.round(0)
        assert len(suite.digests()) == 1
        assert suite.bytes["symbols"] <= 100 * SYMBOL_BYTES * 2 * 1.35
        assert 0 < suite.bytes["fetched"] < 10_000

    run(main)


def test_a_wiped_store_copies_everything_page_by_page_and_an_interrupted_copy_goes_on() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(3, hub=False, sweep={"chunk_records": 16})
        for n in range(40):
            suite.store(n % 2).write(ALICE, *(trace_id((n, i)) for i in range(10)))
            suite.store(n % 2).write(Owner("t", f"u{n}"), trace_id(n))
        await suite.round(0)
        await suite.round(2)
        wiped = suite.add("n2", 77)
        wiped.store.fail = [StoreUnavailable("disk full")] * 3
        first = await suite.round(2)
        assert not first.clean
        assert (await suite.round(2)).clean
        assert len(suite.digests()) == 1
        assert wiped.store.held == suite.store(0).held
        assert wiped.store.known[ALICE].items() >= suite.store(0).known[ALICE].items() >= {1: suite.store(0).known[ALICE][1]}.items()

    run(main)


@pytest.mark.parametrize("seed", range(4))
def test_three_copies_converge_through_loss_repeats_reordering_and_partitions(seed: int) -> None:
    async def main(loop: VirtualLoop) -> None:
        sweep = {"least_interval_s": 2.0, "most_interval_s": 4.0}
        suite = Suite(3, seed, Weather(drop=0.1, repeat=0.2, delay_s=0.01), sweep=sweep)
        await suite.start()
        owners = [Owner("t", f"u{n}") for n in range(6)]
        for step in range(120):
            i, owner = suite.random.randrange(3), suite.random.choice(owners)
            ids = [trace_id((owner, suite.random.randrange(40))) for _ in range(3)]
            if suite.random.random() < 0.1:
                suite.store(i).erase(owner, ids[0])
            else:
                suite.store(i).write(owner, *dict.fromkeys(one for one in ids if not _erased(suite, i, owner, one)))
            if step % 30 == 10:
                a, b = suite.random.sample(["n0", "n1", "n2", "hub"], 2)
                suite.network.cut(a, b)
            if step % 30 == 25:
                suite.network.heal()
            await suite.nodes["n0"].replication._world.sleep(suite.random.random())
        suite.network.heal()
        await suite.until(lambda: all(len(suite.digests(owner)) == 1 for owner in owners), 120)
        await suite.stop()
        for owner in owners:
            assert suite.store(0).held[owner] == suite.store(1).held[owner] == suite.store(2).held[owner]

    run(main)


def _erased(suite: Suite, i: int, owner: Owner, one: bytes) -> bool:
    held = suite.store(i).held[owner].get(one)
    return held is not None and held.is_erased


def test_what_is_here_and_belongs_to_others_is_given_to_all_of_them_and_let_go() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(3, hub=False)
        suite.map.serving = {ALICE: ["n1", "n2"], BOB: ["n0", "n1", "n2"]}
        suite.store(0).write(ALICE, trace_id(1), trace_id(2))
        suite.store(0).write(BOB, trace_id(3))
        suite.store(1).write(ALICE, trace_id(2), trace_id(4))
        suite.network.stop("n2")
        assert (await suite.round(0)).dropped == 0
        assert ALICE in suite.store(0).held
        suite.network.start("n2")
        done = await suite.round(0)
        assert (done.foreign, done.dropped) == (1, 1)
        assert suite.store(0).owners(None, 9) == [BOB]
        await suite.round(1)
        assert suite.store(1).held[ALICE].keys() == {trace_id(1), trace_id(2), trace_id(4)}
        assert len(suite.digests()) == 1

    run(main)


def test_nothing_is_let_go_while_no_placement_is_known() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(2, hub=False)
        suite.map.nodes = []
        suite.store(0).write(ALICE, trace_id(1))
        done = await suite.round(0)
        assert (done.foreign, done.dropped, done.held) == (0, 0, 1)
        assert ALICE in suite.store(0).held

    run(main)


def test_a_busy_store_is_waited_for_and_a_round_takes_a_bounded_number_of_owners() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(2, hub=False, sweep={"round_owners": 3, "owners_at_once": 2})
        for n in range(8):
            suite.store(0).write(Owner("t", f"u{n}"), trace_id(n))
        suite.store(1).fail = [Overloaded("busy")] * 3
        done = await suite.round(1)
        assert (done.passes["n0"].differed, done.unfinished, done.clean) == (3, True, False)
        for _ in range(2):
            done = await suite.round(1)
        assert done.passes["n0"].whole
        assert suite.store(1).held == suite.store(0).held

    run(main)


def test_epochs_that_differ_are_waited_for() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(2, hub=False)
        other = Suite(2, hub=False)
        other.map.change()
        suite.nodes["n1"] = other.nodes["n1"]
        suite.store(0).write(ALICE, trace_id(1))
        done = await suite.round(0)
        assert not done.clean
        assert done.passes["n1"].error is not None
        assert suite.bytes == {}

    run(main)


def test_a_node_that_joins_turns_active_when_it_has_all_that_living_partners_have() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(2, hub=False)
        suite.store(0).write(ALICE, *(trace_id(n) for n in range(20)))
        suite.store(1).write(BOB, trace_id("b"))
        suite.map.taking = {ALICE: ["n2"], BOB: ["n2"]}
        suite.map.phases["n2"] = MemberPhase.JOINING
        joining = suite.add("n2", 3)
        suite.network.cut("n2", "n1")
        await suite.start()
        await suite.until(lambda: ALICE in joining.store.held)
        assert joining.phases.phase is MemberPhase.JOINING  # n1 lives and was not reached
        suite.network.heal()
        await suite.until(lambda: joining.phases.phase is MemberPhase.ACTIVE)
        assert joining.store.held[BOB].keys() == {trace_id("b")}
        await suite.stop()

    run(main)


def test_a_drain_gives_everything_to_the_coming_owners_pauses_once_and_then_has_left() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(3, hub=False)
        owners = [Owner("t", f"u{n}") for n in range(10)]
        for n, owner in enumerate(owners):
            suite.map.serving[owner], suite.map.taking[owner] = ["n0"], [f"n{1 + n % 2}"]
            suite.store(0).write(owner, *(trace_id((n, i)) for i in range(10)))
        leaving = suite.nodes["n0"]
        suite.network.cut("n0", "n2")
        await suite.start()
        assert leaving.replication.keeper is not None
        await leaving.replication.keeper.set(MemberPhase.LEAVING)
        await suite.until(lambda: owners[0] in suite.store(1).held)
        assert leaving.phases.phase is MemberPhase.LEAVING
        await suite.until(lambda: leaving.replication.keeper is not None and leaving.replication.keeper.to_move == 5)
        assert leaving.phases.phase is MemberPhase.LEAVING
        suite.store(0).write(owners[0], trace_id("late"))
        suite.network.heal()
        await suite.until(lambda: suite.map.phases["n0"] is MemberPhase.LEFT)
        for n, owner in enumerate(owners):
            assert suite.store(1 + n % 2).held[owner] == suite.store(0).held[owner]
        suite.map.serving.update({owner: suite.map.taking[owner] for owner in owners})
        suite.map.change()
        await suite.until(lambda: not suite.store(0).held)
        assert leaving.paused == [True, False]
        await suite.stop()

    run(main)


def test_a_node_leaves_while_others_go_on_to_write_what_it_has_a_copy_of() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(2, hub=False)
        suite.map.serving[ALICE], suite.map.taking[ALICE] = ["n0"], ["n1"]
        suite.store(0).write(ALICE, trace_id("a"))

        async def others() -> None:
            while True:
                suite.store(0).last_sequence += 1
                await asyncio.sleep(0.01)

        await suite.start()
        writing = asyncio.ensure_future(others())
        leaving = suite.nodes["n0"]
        assert leaving.replication.keeper is not None
        await leaving.replication.keeper.set(MemberPhase.LEAVING)
        await suite.until(lambda: suite.map.phases["n0"] is MemberPhase.LEFT, limit_s=30.0)
        await suite.until(lambda: leaving.paused == [True, False], limit_s=1.0)
        writing.cancel()
        await suite.stop()

    run(main)


def test_an_only_node_cannot_leave_and_other_phases_are_not_for_the_asking() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(1, hub=False)
        keeper: Any = suite.nodes["n0"].replication.keeper
        for phase in (MemberPhase.LEAVING, MemberPhase.LEFT, MemberPhase.ACTIVE):
            with pytest.raises(FieldInvalid) as caught:
                await keeper.set(phase)
            assert caught.value.violations[0].field == "phase"

    run(main)
