"""Updates by way of a consensus node: order, bounds, answers, what is lost and how it is mended."""

from __future__ import annotations

import pytest

from ndml.errors import CapacityReached, FieldInvalid, Overloaded
from ndml.internal.v1 import consensus_pb2 as cpb
from services.memory_node.records import Owner
from tests.sim.loop import VirtualLoop, run
from tests.unit.memory_node.replication.harness import ALICE, BOB, Suite, trace_id

NEVER = {"least_interval_s": 1e6, "most_interval_s": 1e6}
"""Sweep settings under which only what is asked for is swept."""


def test_what_one_wrote_the_others_join_in_order_and_a_copy_that_has_it_does_not_ask_for_it() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(3, sweep=NEVER)
        await suite.start()
        for n in range(30):
            suite.store(0).write(ALICE, trace_id(n))
            if n == 20:  # the gateway has brought these to n1 already
                row = suite.store(0).rows[-1]
                await suite.store(1).join(ALICE, _merge(suite, 21))
                assert suite.store(1).known[ALICE][1] == row.sequence
        await suite.until(lambda: len(suite.digests()) == 1)
        publisher = suite.nodes["n0"].replication.publisher
        await suite.until(lambda: publisher.drained)
        assert publisher.durable == suite.store(0).last_sequence
        assert suite.store(1).known[ALICE][1] == suite.store(2).known[ALICE][1] == publisher.durable
        assert suite.hub.updates_sent == 30 + 9
        assert suite.hub.delivered[2] == suite.hub.delivered[3] == set(suite.hub.log)
        assert suite.bytes == {}  # no repair
        await suite.stop()

    run(main)


def _merge(suite: Suite, count: int):  # type: ignore[no-untyped-def]
    from ndml.internal.v1 import memory_node_pb2 as pb

    store = suite.store(0)
    return pb.MergeAction(updates=[store.update_of(row) for row in store.rows[:count]])


def test_updates_that_the_log_had_to_let_go_are_mended_by_the_sweep() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(2, sweep=NEVER)
        suite.hub.room = 5
        await suite.start()
        suite.network.cut("n1", "hub")
        await suite.nodes["n0"].replication._world.sleep(1)
        for n in range(40):
            suite.store(0).write(ALICE if n % 2 else BOB, trace_id(n))
        await suite.until(lambda: suite.nodes["n0"].replication.publisher.drained)
        suite.network.heal()
        for owner in (ALICE, BOB):
            await suite.until_equal(owner)
        assert suite.bytes["fetched"] > 0 or suite.bytes["pushed"] > 0
        # And what is known of the author is whole again: the next update follows on it.
        await suite.until(lambda: suite.store(1).known[ALICE].get(1) == suite.store(0).known[ALICE][1])
        await suite.stop()

    run(main)


def test_a_journal_without_a_consensus_node_is_bounded_and_the_gap_it_leaves_is_repaired() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(2, sweep=NEVER, stream={"journal_rows": 10, "journal_kept": 2, "prune_every": 1})
        suite.network.cut("n0", "hub")
        await suite.nodes["n1"].replication.start()
        await suite.nodes["n1"].replication.sweeper.round()
        await suite.nodes["n0"].replication.start()
        for n in range(100):
            suite.store(0).write(ALICE, trace_id(n))
        await suite.until(lambda: len(suite.store(0).rows) == 10)
        assert suite.nodes["n0"].replication.publisher.unpublished > 0
        suite.network.heal()
        await suite.until(lambda: len(suite.digests()) == 1)
        await suite.until(lambda: suite.store(1).known[ALICE].get(1) == 100)
        await suite.until(lambda: len(suite.store(0).rows) <= 3)  # what is durable goes, but for what another consensus node may lack
        assert suite.nodes["n0"].replication.publisher.unpublished == 0
        await suite.stop()

    run(main)


def test_a_consensus_node_that_does_not_greet_or_answer_is_left_for_another_try() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(1, sweep=NEVER)
        suite.hub.greets = False
        await suite.start()
        suite.store(0).write(ALICE, trace_id(1))
        await suite.nodes["n0"].replication._world.sleep(20)
        attachment = suite.nodes["n0"].replication.attachment
        assert attachment is not None
        assert attachment.attached_to == ""
        suite.hub.greets = True
        await suite.until(lambda: suite.nodes["n0"].replication.publisher.drained)
        assert attachment.attached_to == "hub"
        before = loop.time()
        await suite.stop()
        assert loop.time() == before  # nothing was left to wait for

    run(main)


def test_what_is_in_flight_is_bounded_and_stopping_waits_for_it_no_longer_than_said() -> None:
    async def main(loop: VirtualLoop) -> None:
        stream = {"in_flight_updates": 4, "batch_updates": 2, "drain_s": 3.0}
        suite = Suite(1, sweep=NEVER, stream=stream)
        await suite.start()
        await suite.until(lambda: bool(suite.hub.sessions))
        for session in suite.hub.sessions:
            session.mute = True  # takes, and never says so
        await suite.nodes["n0"].replication._world.sleep(1)
        suite.store(0).write(ALICE, trace_id(1))
        for n in range(50):
            suite.store(0).write(ALICE, trace_id(n))
        await suite.nodes["n0"].replication._world.sleep(5)
        assert len(suite.hub.log) == 4
        before = loop.time()
        await suite.stop()
        assert 3.0 <= loop.time() - before < 3.5

    run(main)


def test_a_refused_update_is_settled_and_its_neighbours_are_joined_but_one_that_found_no_room_is_not() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(2, sweep=NEVER, stream={"join_attempts": 2})
        author, reader = suite.store(0), suite.nodes["n1"]
        author.write(ALICE, trace_id(1))
        author.write(ALICE, trace_id(2))
        author.write(BOB, trace_id(3))
        updates = [author.update_of(row) for row in author.rows]
        # Together they are refused, then the first alone; the second is taken.
        reader.store.fail = [FieldInvalid("bad"), FieldInvalid("bad"), CapacityReached("full")]
        take = reader.replication.subscriber.take
        answers = await take(cpb.ExchangeDeltasResponse(updates=[updates[0], updates[1]]))
        reader.store.fail = []
        assert [(answer.counter, answer.wanted) for answer in answers] == [(1, False)]
        assert reader.replication.sweeper.behind == 1
        reader.store.fail = [Overloaded("busy")] * 2
        assert await take(cpb.ExchangeDeltasResponse(updates=[updates[2]])) == []
        assert reader.replication.sweeper.behind == 2
        reader.store.fail = [Overloaded("busy")]
        assert len(await take(cpb.ExchangeDeltasResponse(updates=[updates[2]]))) == 1
        await reader.replication.sweeper.repair()
        assert reader.replication.sweeper.behind == 0
        assert reader.store.held == author.held

    run(main)


@pytest.mark.parametrize("owner", [ALICE, Owner("t", "elsewhere")])
def test_offers_are_answered_by_what_is_known_and_whose_they_are(owner: Owner) -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(2, sweep=NEVER)
        suite.map.serving = {Owner("t", "elsewhere"): ["n0"]}
        suite.store(1).known[ALICE] = {1: 5, 9: 3}
        offers = [cpb.DeltaOffer(tenant="t", user=owner.user, replica=replica, counter=4) for replica in (1, 9, 8, 2)]
        answers = await suite.nodes["n1"].replication.subscriber.take(cpb.ExchangeDeltasResponse(offers=offers))
        wanted = [answer.replica for answer in answers if answer.wanted]
        assert wanted == ([9, 8] if owner == ALICE else [])

    run(main)
