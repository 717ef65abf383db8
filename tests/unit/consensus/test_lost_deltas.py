"""What one consensus node had to drop, the others' memory nodes hear of at once: they compare instead of waiting for their next round."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ndml.internal.v1 import consensus_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from services.consensus.deltas.exchange import DeltaExchange
from services.consensus.deltas.log import LogBounds
from services.consensus.deltas.peers import PeerSession
from tests.unit.consensus.delta_harness import (
    AnsweringEnd,
    CallingEnd,
    Member,
    Net,
    Pipe,
    eventually,
    exchange,
    placement_of,
    running,
    update,
)

ALL = placement_of((1, 2, 3), 3)
TINY = LogBounds(max_entries=20)


def node_of(path: Path, name: str, net: Net, peers: list[str], bounds: LogBounds = TINY, zone: str = "z") -> DeltaExchange:
    return exchange(path, lambda: ALL, name, zone=zone, net=net, peers=peers, bounds=bounds)


async def overflow(node: DeltaExchange, author: Member, reader: Member, updates: int = 60) -> int:
    """Write more than the log holds while m3 is away; returns the last counter that was dropped."""
    await author.attach(node)
    await reader.attach(node)
    for counter in range(1, updates + 1):
        await author.write_durably(update(author.replica, counter, previous=counter - 1))
    await eventually(lambda: len(reader.has.get(author.replica, ())) == updates, "the one that is there has everything")
    return next(iter(node.log.index)).counter - 1


@asynccontextmanager
async def two_apart(path: Path) -> AsyncIterator[tuple[Net, DeltaExchange, DeltaExchange]]:
    net = Net()
    first, second = node_of(path, "c1", net, ["c2"]), node_of(path, "c2", net, ["c1"])
    async with running(first, second, net=net):
        await net.separate(["c1"], ["c2"])
        await eventually(lambda: not (first.mesh.linked or second.mesh.linked), "cut")
        yield net, first, second


async def test_a_peer_that_lacks_what_was_dropped_tells_its_own(tmp_path: Path) -> None:
    async with two_apart(tmp_path) as (net, first, second):
        author, reader, away = Member(1), Member(2), Member(3)
        dropped = await overflow(first, author, reader)
        assert dropped > 0
        await away.attach(second)
        net.cuts.clear()
        await eventually(lambda: away.lost == {1: dropped}, "it is told how far it has to compare")
        await eventually(lambda: away.has.get(1) == set(range(dropped + 1, 61)), "and gets what is left")
        assert reader.lost == {} and "m2" not in second.log.index.lost, "whoever has it all is told nothing"
        for member in (author, reader, away):
            await member.detach()


async def test_a_restart_forgets_neither_what_was_dropped_nor_who_is_to_be_told(tmp_path: Path) -> None:
    net = Net()
    author, reader, away = Member(1), Member(2), Member(3)
    alone = node_of(tmp_path, "c1", net, [])
    async with running(alone):
        dropped = await overflow(alone, author, reader)
        await author.detach()
        await reader.detach()
    first, second = node_of(tmp_path, "c1", net, ["c2"]), node_of(tmp_path, "c2", net, ["c1"])
    async with running(first, second, net=net):
        await eventually(lambda: second.log.index.lost.get("m3") == {1: dropped}, "the new peer knows who has to be told")
    again = node_of(tmp_path, "c2", Net(), [])
    async with running(again):
        await away.attach(again)
        await eventually(lambda: away.lost == {1: dropped}, "it is told, by the other and after a restart")
        await away.detach()


async def test_it_goes_on_to_those_that_the_first_does_not_reach(tmp_path: Path) -> None:
    net, zones = Net(), {"a1": "a", "a2": "a", "b1": "b"}
    nodes = {name: node_of(tmp_path, name, net, [other for other in zones if other != name], zone=zone) for name, zone in zones.items()}
    async with running(*nodes.values(), net=net):
        await net.separate(["a2"], ["a1", "b1"])
        await eventually(lambda: nodes["a2"].mesh.linked == [], "cut")
        author, reader, away = Member(1), Member(2), Member(3)
        dropped = await overflow(nodes["a2"], author, reader)
        await away.attach(nodes["b1"])
        net.cuts = {("a2", "b1"), ("b1", "a2")}
        await eventually(lambda: away.lost == {1: dropped}, "told by its own consensus node, by way of the zone's gateway")
        await eventually(lambda: away.has.get(1) == set(range(dropped + 1, 61)), "and gets what is left the same way")
        for member in (author, reader, away):
            await member.detach()


async def test_peers_that_have_it_are_told_nothing(tmp_path: Path) -> None:
    net = Net()
    first, second = node_of(tmp_path, "c1", net, ["c2"]), node_of(tmp_path, "c2", net, ["c1"], LogBounds())
    async with running(first, second, net=net):
        await eventually(lambda: first.mesh.linked and second.mesh.linked, "linked")
        author, reader, away = Member(1), Member(2), Member(3)
        assert await overflow(first, author, reader) > 0
        await away.attach(second)
        await eventually(lambda: away.has.get(1) == set(range(1, 61)), "the larger log has everything")
        assert away.lost == {} and second.log.index.dropped == {}
        for member in (author, reader, away):
            await member.detach()


async def test_an_update_that_was_damaged_on_its_way_to_a_peer_is_told(tmp_path: Path) -> None:
    net = Net()
    bounds = LogBounds(recent_bytes=0)
    first = node_of(tmp_path, "c1", net, ["c2"], bounds)
    author, away = Member(1), Member(3)
    async with running(first, net=net):
        await author.attach(first)
        await author.write_durably(update(1, 1), update(1, 2, previous=1), update(1, 3, previous=2))
        with sqlite3.connect(tmp_path / "c1" / "deltas.db") as file:
            file.execute("UPDATE deltas SET body = zeroblob(length(body)) WHERE counter = 2")
        second = node_of(tmp_path, "c2", net, ["c1"], bounds)
        async with running(second, net=net):
            await away.attach(second)
            await eventually(lambda: away.has.get(1) == {1, 3} and away.lost == {1: 2}, "the whole ones come, the other is told as lost")
            await away.detach()
        await author.detach()


async def test_two_full_logs_that_meet_take_from_each_other(tmp_path: Path) -> None:
    """Each is full of what the other has not got: where both refused, neither would ever have room."""
    async with two_apart(tmp_path) as (net, first, second):
        one, other, away = Member(1), Member(2), Member(3)
        for author, node in ((one, first), (other, second)):
            await author.attach(node)
            for counter in range(1, 61):
                await author.write_durably(update(author.replica, counter, previous=counter - 1))
        assert all(len(node.log.index) > 15 for node in (first, second))
        net.cuts.clear()
        await eventually(lambda: first.log.index.positions == second.log.index.positions == {1: 60, 2: 60}, "both know everything")
        await eventually(lambda: all(len(node.log.index) <= 20 for node in (first, second)), "and both are within their bounds")
        await one.write_durably(update(1, 61, previous=60))
        await away.attach(second)
        await eventually(lambda: 61 in away.has.get(1, ()) and {1, 2} <= away.lost.keys(), "writes go on, it hears what it lacks")
        for member in (one, other, away):
            await member.detach()


async def test_the_same_loss_is_told_once_whatever_links_break(tmp_path: Path) -> None:
    async with two_apart(tmp_path) as (net, first, second):
        away, said, miss = Member(3), [], second.log.miss

        def counted(author: int, counter: int) -> None:
            said.append((author, counter))
            miss(author, counter)

        second.log.miss = counted  # type: ignore[method-assign]
        first.log.miss(1, 40)  # of an author that died with what it had given to a third
        await away.attach(second)
        net.cuts.clear()
        await eventually(lambda: away.lost == {1: 40}, "told")
        await away.say(pb.ExchangeDeltasRequest(answers=[]))
        await eventually(lambda: "m3" not in second.log.index.lost, "and it is known that it was")
        away.lost.clear()
        await net.separate(["c1"], ["c2"])
        net.cuts.clear()
        await eventually(lambda: said == [(1, 40)] * 2, "linked anew, the peer says it again")
        assert away.lost == {} and "m3" not in second.log.index.lost
        await away.detach()


async def test_what_is_remembered_of_drops_is_bounded(tmp_path: Path) -> None:
    node = exchange(tmp_path, lambda: ALL, bounds=LogBounds(max_authors=5))
    async with running(node):
        for author in range(1, 9):
            node.log.miss(author, 7)
        assert node.log.index.dropped == dict.fromkeys(range(4, 9), 7), "the oldest make room"
    again = exchange(tmp_path, lambda: ALL, bounds=LogBounds(max_authors=5))
    async with running(again):
        assert again.log.index.dropped == dict.fromkeys(range(4, 9), 7)


@pytest.mark.parametrize("head", [rpb.Head(replica=0, counter=1), rpb.Head(replica=1, counter=0), rpb.Head(replica=1, counter=1 << 63)])
async def test_a_loss_that_cannot_be_ends_the_link(tmp_path: Path, head: rpb.Head) -> None:
    node = exchange(tmp_path, lambda: ALL)
    async with running(node):
        pipe = Pipe()
        served = node.serve(AnsweringEnd(pipe))
        end = CallingEnd(pipe)
        await end.send(pb.ExchangeDeltasRequest(hello=pb.DeltaHello(node_id="peer", zone="z")))
        await end.send(pb.ExchangeDeltasRequest(lost=[head]))
        await asyncio.wait({served})
        assert served.exception() is not None and node.log.index.dropped == {}


async def test_without_the_message_the_peer_would_never_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first test again, with the bug that was: the position moves over the hole, and nobody is told."""

    async def nothing(self: PeerSession) -> None:
        return None

    monkeypatch.setattr(PeerSession, "_send_lost", nothing)
    async with two_apart(tmp_path) as (net, first, second):
        author, reader, away = Member(1), Member(2), Member(3)
        dropped = await overflow(first, author, reader)
        await away.attach(second)
        net.cuts.clear()
        await eventually(lambda: away.has.get(1) == set(range(dropped + 1, 61)), "what is left comes")
        await eventually(lambda: second.log.index.delivered("m3", 1) == 60, "and counts as everything")
        assert away.lost == {} and "m3" not in second.log.index.lost
        for member in (author, reader, away):
            await member.detach()
