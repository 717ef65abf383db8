"""The way of deltas: durable before acked, offered to the copies, delivered once it is wanted, and gone when every copy has it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ndml.errors import CapacityReached, Overloaded, StoreUnavailable
from ndml.internal.v1 import consensus_pb2 as pb
from ndml.placement import MemberPhase
from services.consensus.deltas.compaction import Keeping
from services.consensus.deltas.entries import Via, delta_of
from services.consensus.deltas.exchange import DeltaExchange
from services.consensus.deltas.log import DeltaLog, LogBounds
from services.consensus.deltas.store import SqliteDeltaStore
from tests.unit.consensus.delta_harness import (
    KEEPING,
    SESSION,
    Member,
    Net,
    eventually,
    exchange,
    placement_of,
    running,
    update,
)

ALL = placement_of((1, 2, 3), 3)


def stays(node: DeltaExchange) -> DeltaExchange:
    """Never compact: the test looks at the log."""
    node.compaction.run = lambda: None  # type: ignore[method-assign]
    return node


async def test_an_update_reaches_the_other_copies_and_then_leaves_the_log(tmp_path: Path) -> None:
    node, author, reader, other = exchange(tmp_path, lambda: ALL), Member(1), Member(2), Member(3)
    async with running(node):
        for member in (author, reader):
            await member.attach(node)
        assert author.position == 0
        sent = [update(1, counter, previous=counter - 1) for counter in range(1, 301)]
        await author.write_durably(*sent[:200])
        await author.write_durably(*sent[200:])
        await eventually(lambda: len(reader.has.get(1, ())) == 300, "the reader has everything")
        assert [reader.bodies[1, u.counter] for u in sent] == sent, "as it was written"
        assert len(node.log.index) == 300, "the third copy has yet to come"
        await eventually(lambda: node.compaction.lag.get("m3") == 300, "and it is known how much it lacks")
        other.has[1] = set(range(1, 291))  # the gateway gave it these
        await other.attach(node)
        await eventually(lambda: len(other.has[1]) == 300, "the third copy has everything")
        assert set(other.bodies) == {(1, counter) for counter in range(291, 301)}, "only what it wanted was sent"
        await eventually(lambda: len(node.log.index) == 0, "nobody needs them any more")
        assert author.offers == [], "nobody is offered his own"
        for member in (author, reader, other):
            await member.detach()


async def test_an_author_goes_on_where_the_log_ends_and_repeats_are_harmless(tmp_path: Path) -> None:
    author, reader = Member(1), Member(2)
    first = exchange(tmp_path, lambda: ALL)
    async with running(first):
        await author.attach(first)
        await author.write_durably(update(1, 5), update(1, 9, previous=5))
        await author.detach()
    again = exchange(tmp_path, lambda: ALL)
    async with running(again):
        assert len(again.log.index) == 2, "a restart forgets nothing"
        await author.attach(again)
        assert author.position == 9
        await author.write_durably(update(1, 5), update(1, 9, previous=5), update(1, 12, previous=9))
        assert [entry.counter for entry in again.log.index] == [5, 9, 12] and again.log.taken == 1
        await reader.attach(again)
        await eventually(lambda: reader.has.get(1) == {5, 9, 12}, "the reader has everything once")
        await reader.detach()
        await author.detach()


async def test_only_copies_are_offered_an_update_and_only_they_hold_it_up(tmp_path: Path) -> None:
    pairs = placement_of((1, 2, 3), 2)
    users = {n: next(u for u in map(str, range(99)) if set(pairs.copy_ids("acme", u)) == {"m1", n}) for n in ("m2", "m3")}
    node, author, second, third = exchange(tmp_path, lambda: pairs), Member(1), Member(2), Member(3)
    async with running(node):
        await author.attach(node)
        await second.attach(node)
        await author.write_durably(update(1, 1, user=users["m2"]), update(1, 2, user=users["m3"]), update(1, 3, user=users["m2"]))
        await eventually(lambda: second.has.get(1) == {1, 3}, "its owners' updates")
        await eventually(lambda: [e.counter for e in node.log.index] == [2], "what m3 alone needs waits for m3 alone")
        await third.attach(node)
        await eventually(lambda: third.has.get(1) == {2} and not len(node.log.index), "m3 takes it")
        assert set(second.offers) == {(1, 1), (1, 3)} and third.offers == [(1, 2)]
        for member in (author, second, third):
            await member.detach()


async def test_a_joining_node_is_offered_what_it_is_going_to_own(tmp_path: Path) -> None:
    joining = placement_of((1,), 1).joined_with(placement_of((2,), 1, MemberPhase.JOINING))
    user = next(u for u in map(str, range(99)) if joining.copy_ids("acme", u) == ("m1", "m2"))
    node, author, new = exchange(tmp_path, lambda: joining), Member(1), Member(2)
    async with running(node):
        await author.attach(node)
        await new.attach(node)
        await author.write_durably(update(1, 1, user=user))
        await eventually(lambda: new.has.get(1) == {1}, "a coming owner gets the writes")
        await author.detach()
        await new.detach()


async def test_a_slow_reader_holds_up_nobody_and_is_bounded(tmp_path: Path) -> None:
    session = replace(SESSION, offers_in_flight=8)
    node, author, slow, quick = exchange(tmp_path, lambda: ALL, session=session), Member(1), Member(2), Member(3)
    async with running(stays(node)):
        slow.mute = True
        for member in (author, slow, quick):
            await member.attach(node)
        await author.write_durably(*(update(1, counter) for counter in range(1, 101)))
        await eventually(lambda: len(quick.has.get(1, ())) == 100, "the quick one has everything")
        assert {counter for _, counter in slow.offers} <= set(range(1, 9)), "no more than it may leave unanswered"
        slow.mute = False
        await eventually(lambda: len(slow.has.get(1, ())) == 100, "offers are made again, and the slow one catches up")
        for member in (author, slow, quick):
            await member.detach()


async def test_an_update_that_could_not_be_taken_comes_again(tmp_path: Path) -> None:
    node, author, reader = exchange(tmp_path, lambda: ALL), Member(1), Member(2)
    async with running(node):
        await author.attach(node)
        await reader.attach(node)
        reader.refuses = True
        await author.write_durably(update(1, 1))
        await eventually(lambda: len(reader.offers) >= 2, "it is offered again")
        assert node.log.index.delivered("m2", 1) == 0
        reader.refuses = False
        await eventually(lambda: reader.has.get(1) == {1}, "and taken in the end")
        await eventually(lambda: node.log.index.delivered("m2", 1) == 1, "which is known")
        await author.detach()
        await reader.detach()


async def test_at_the_bound_the_oldest_go_and_who_lacks_them_is_told(tmp_path: Path) -> None:
    node, author, here, away = exchange(tmp_path, lambda: ALL, bounds=LogBounds(max_entries=100)), Member(1), Member(2), Member(3)
    async with running(node):
        await author.attach(node)
        await here.attach(node)
        for start in range(1, 200, 20):
            await author.write_durably(*(update(1, counter) for counter in range(start, start + 20)))
            await eventually(lambda: len(here.has.get(1, ())) == start + 19, "delivered")  # noqa: B023
        assert 0 < len(node.log.index) <= 100
        oldest = next(iter(node.log.index)).counter
        await here.detach()
        await author.detach()
    again = exchange(tmp_path, lambda: ALL)
    async with running(again):
        await away.attach(again)
        await eventually(lambda: away.lost == {1: oldest - 1}, "the one that was away is told how far, after a restart too")
        await eventually(lambda: away.has.get(1) == set(range(oldest, 201)), "and gets what is left")
        await eventually(lambda: not again.log.index.lost, "it has said something since: it knows")
        await here.attach(again)
        await asyncio.sleep(0.05)
        assert here.lost == {}, "the others have missed nothing"
        await here.detach()
        await away.detach()


async def test_updates_that_are_too_old_go_and_are_told(tmp_path: Path) -> None:
    node, author, reader = exchange(tmp_path, lambda: ALL, keeping=Keeping(0.0, 0.1, 100)), Member(1), Member(2)
    async with running(node):
        await author.attach(node)
        await author.write_durably(update(1, 1))
        await eventually(lambda: not len(node.log.index), "erased content does not lie here for ever")
        await reader.attach(node)
        await eventually(lambda: reader.lost == {1: 1}, "told")
        await author.detach()
        await reader.detach()


async def test_another_store_of_a_node_begins_with_nothing(tmp_path: Path) -> None:
    node, author, reader, third = exchange(tmp_path, lambda: ALL), Member(1), Member(2), Member(3)
    async with running(stays(node)):
        await author.attach(node)
        await reader.attach(node)
        await author.write_durably(update(1, 1), update(1, 2))
        await eventually(lambda: node.log.index.delivered("m2", 1) == 2, "delivered")
        await reader.detach()
        wiped = Member(77, "m2")
        await wiped.attach(node)
        await eventually(lambda: wiped.has.get(1) == {1, 2}, "everything is offered to the new store")
        assert node.log.index.readers["m2"].replica == 77
        for member in (author, wiped, third):
            await member.detach()


async def test_a_second_stream_of_a_node_takes_the_place_of_the_first(tmp_path: Path) -> None:
    node, first, second = exchange(tmp_path, lambda: ALL), Member(1), Member(1)
    async with running(node):
        await first.attach(node)
        await second.attach(node)
        await eventually(lambda: not first.attached, "the first is over")
        assert node.attached == ["m1"] and second.attached
        await first.detach()
        await second.detach()
        await eventually(lambda: node.attached == [], "nobody is left")


async def test_what_the_author_let_go_and_nobody_passed_on_is_told_as_lost(tmp_path: Path) -> None:
    node, author, reader = exchange(tmp_path, lambda: ALL), Member(1), Member(2)
    async with running(node):
        author.floor = 40  # given to a consensus node that died with it
        await author.attach(node)
        await reader.attach(node)
        await eventually(lambda: reader.lost == {1: 40}, "the reader is told to compare")
        await author.detach()
        await reader.detach()


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (update(2, 1), "updates[0].replica"),
        (update(1, 1, node="m9"), "updates[0].replica"),
        (update(1, 4, previous=4), "updates[0].previous"),
        (update(1, 0), "updates[0].counter"),
        (update(1, 1, user=""), "updates[0].user"),
        (update(1, 1, user="u" * 257), "updates[0].user"),
        (update(1 << 63, 1), "updates[0].replica"),
        (update(1, 1 << 63), "updates[0].counter"),
        (update(1, 1, size=2 << 20), "updates[0]"),
    ],
)
async def test_a_bad_update_ends_the_stream_and_leaves_nothing(tmp_path: Path, bad: object, field: str) -> None:
    node, author = exchange(tmp_path, lambda: ALL, session=replace(SESSION, max_update_bytes=1 << 20)), Member(1)
    async with running(node):
        await author.attach(node)
        await author.write(update(1, 3), bad) if field == "updates[1].counter" else await author.write(bad)  # type: ignore[arg-type]
        await eventually(lambda: not author.attached, "refused")
        assert len(node.log.index) == 0 and node.log.index.positions == {}
        await author.detach()


async def test_updates_out_of_order_are_refused(tmp_path: Path) -> None:
    node, author = exchange(tmp_path, lambda: ALL), Member(1)
    async with running(node):
        await author.attach(node)
        await author.write(update(1, 3), update(1, 2))
        await eventually(lambda: not author.attached, "refused")
        assert len(node.log.index) == 0
        await author.detach()


async def test_answers_and_acks_out_of_the_blue_say_nothing(tmp_path: Path) -> None:
    node, author, reader = exchange(tmp_path, lambda: ALL), Member(1), Member(2)
    async with running(stays(node)):
        await author.attach(node)
        await reader.attach(node)
        answers = [pb.DeltaAnswer(replica=1, counter=9), pb.DeltaAnswer(replica=5, counter=1, wanted=True)]
        await reader.say(pb.ExchangeDeltasRequest(answers=answers, acked=[{"replica": 1, "counter": 1000}]))
        await author.write_durably(update(1, 1), update(1, 9))
        await eventually(lambda: reader.has.get(1) == {1, 9}, "what came later is offered all the same")
        await author.detach()
        await reader.detach()


async def start_log(path: Path, bounds: LogBounds | None = None) -> DeltaLog:
    log = DeltaLog(SqliteDeltaStore(path, time.monotonic), bounds or LogBounds(), lambda: ALL, time.monotonic)
    await log.start()
    return log


def delta(replica: int, counter: int) -> object:
    return delta_of(update(replica, counter), time.monotonic(), Via.AUTHOR, 1 << 20)


async def test_what_was_acked_is_on_disk(tmp_path: Path) -> None:
    """Read by another connection at the moment of the ack: nothing is flushed late."""
    log = await start_log(tmp_path)

    async def one(counter: int) -> int:
        await log.append([delta(counter % 7 + 1, counter)])  # type: ignore[list-item]
        with sqlite3.connect(tmp_path / "deltas.db") as seen:
            return int(seen.execute("SELECT count(*) FROM deltas WHERE counter = ?", (counter,)).fetchone()[0])

    assert await asyncio.gather(*(one(counter) for counter in range(1, 101))) == [1] * 100
    await log.stop()


async def test_a_disk_that_fails_refuses_and_keeps_index_and_file_alike(tmp_path: Path) -> None:
    log = await start_log(tmp_path)
    await log.append([delta(1, 1)])  # type: ignore[list-item]
    with sqlite3.connect(tmp_path / "deltas.db") as blocker:
        blocker.execute("CREATE TRIGGER full BEFORE INSERT ON deltas BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
        blocker.commit()
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await log.append([delta(1, 2)])  # type: ignore[list-item]
        assert len(log.index) == 1 and log.index.positions == {1: 1}
        blocker.execute("DROP TRIGGER full")
        blocker.commit()
    await log.append([delta(1, 2)])  # type: ignore[list-item]
    assert log.index.positions == {1: 2}
    await log.stop()


@pytest.mark.parametrize("damage", [b"not a database at all, but long enough to be looked at" * 100, b"SQLite format 3\x00" + bytes(5000)])
async def test_a_damaged_log_is_set_aside_and_begins_empty(tmp_path: Path, damage: bytes) -> None:
    log = await start_log(tmp_path)
    await log.append([delta(1, 1)])  # type: ignore[list-item]
    await log.stop()
    for name in ("deltas.db-wal", "deltas.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "deltas.db").write_bytes(damage)
    again = await start_log(tmp_path)
    assert len(again.index) == 0 and (tmp_path / "deltas.db.corrupt").read_bytes() == damage
    await again.append([delta(1, 1)])  # type: ignore[list-item]
    await again.stop()
    third = await start_log(tmp_path)
    assert len(third.index) == 1
    await third.stop()


async def test_a_flipped_bit_in_an_update_is_noticed_and_told_as_lost(tmp_path: Path) -> None:
    node, author, reader = exchange(tmp_path, lambda: ALL, bounds=LogBounds(recent_bytes=0)), Member(1), Member(2)
    async with running(stays(node)):
        await author.attach(node)
        await author.write_durably(update(1, 1), update(1, 2))
        with sqlite3.connect(tmp_path / "c1" / "deltas.db") as file:
            body = file.execute("SELECT body FROM deltas WHERE counter = 1").fetchone()[0]
            file.execute("UPDATE deltas SET body = ? WHERE counter = 1", (body[:-1] + bytes([body[-1] ^ 1]),))
        await reader.attach(node)
        await eventually(lambda: reader.has.get(1) == {2} and reader.lost == {1: 1}, "the whole one comes, the other is told as lost")
        await author.detach()
        await reader.detach()


async def test_a_full_log_refuses_rather_than_drop_what_was_not_passed_on(tmp_path: Path) -> None:
    log = await start_log(tmp_path, LogBounds(max_entries=100))
    passed = {1: 0}
    log.peers_have = lambda author: passed[author]
    await log.append([delta(1, counter) for counter in range(1, 151)])  # type: ignore[misc]
    assert len(log.index) == 150, "one message over the bound, no more"
    with pytest.raises(Overloaded, match="yet to take"):
        await log.append([delta(1, 151)])  # type: ignore[list-item]
    passed[1] = 150
    await log.append([delta(1, 151)])  # type: ignore[list-item]
    assert len(log.index) <= 100 and log.index.positions == {1: 151}
    await log.stop()


async def test_authors_are_bounded_and_idle_ones_make_room(tmp_path: Path) -> None:
    log = await start_log(tmp_path, LogBounds(max_authors=5))
    for author in (11, 12, 13, 14, 15):
        await log.append([delta(author, 1)])  # type: ignore[list-item]
    with pytest.raises(CapacityReached, match="max_authors"):
        await log.append([delta(16, 1)])  # type: ignore[list-item]
    log.discard([(11, 1)])
    await log.append([delta(16, 1)])  # type: ignore[list-item]
    assert set(log.index.positions) == {12, 13, 14, 15, 16}
    await log.stop()
    again = await start_log(tmp_path, LogBounds(max_authors=5))
    assert set(again.index.positions) == {12, 13, 14, 15, 16}
    await again.stop()


async def test_a_stopping_node_lets_its_streams_go(tmp_path: Path) -> None:
    node, author = exchange(tmp_path, lambda: ALL, keeping=KEEPING, net=Net()), Member(1)
    await node.start()
    await author.attach(node)
    node.drain()
    await eventually(lambda: not author.attached, "the stream ended")
    await node.stop()
    await author.detach()
