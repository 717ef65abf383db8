"""Durable before told, conflated to slow watchers, converging with peers: the real parts on a real loop, peers joined in process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from ndml.errors import Overloaded, StoreUnavailable
from ndml.placement import MemberState, NodeRecord, Placement, Roster
from services.consensus.coordinator import Coordinator, Timing
from services.consensus.feed import PlacementFeed
from services.consensus.membership import Membership, Policy
from services.consensus.ports import Peer
from services.consensus.store import RosterFile

FAST = Timing(exchange_interval_s=0.05, tick_s=0.02, stall_s=5)
LONG = 30.0  # bound of every wait: far past what any of them needs


def record(node_id: str, incarnation: int = 1) -> NodeRecord:
    return NodeRecord(node_id, "127.0.0.1:7710", "", "general", incarnation)


def coordinator(
    path: Path, peers: list[Peer] | None = None, *, store: RosterFile | None = None, max_watchers: int = 4, keep_alive_s: float = LONG
) -> Coordinator:
    membership = Membership(Policy(["n1", "n2"], suspect_after_s=0.2, down_after_s=0.4), 0.0)
    feed = PlacementFeed(membership.placement(0.0), max_watchers=max_watchers, keep_alive_s=keep_alive_s)
    return Coordinator(membership, feed, store or RosterFile(path), peers or [], FAST)


class InProcessPeer:
    """A peer reached by a function call; it can be cut off."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.target: Coordinator | None = None
        self.cut = False

    async def exchange(self, records: Iterable[NodeRecord]) -> list[NodeRecord]:
        if self.cut or self.target is None:
            raise StoreUnavailable("cut off")
        return await self.target.exchange(list(records))

    async def close(self) -> None:
        self.target = None


class BrokenDisk(RosterFile):
    """A disk that is full until it is repaired."""

    full = True

    def save(self, roster: Roster) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().save(roster)


async def eventually(reached: object, what: str) -> None:
    assert callable(reached)
    async with asyncio.timeout(LONG):
        while not reached():
            await asyncio.sleep(0.005)


async def test_an_epoch_that_was_told_is_on_disk(tmp_path: Path) -> None:
    node = coordinator(tmp_path)
    await node.start()
    told = await asyncio.gather(*(node.heartbeat(record(f"n{1 + i % 2}", 1 + i // 2)) for i in range(20)))
    on_disk = RosterFile(tmp_path).load()  # before stop: nothing is flushed late
    await node.stop()
    assert sum(r.incarnation for r in on_disk.values()) >= max(told)
    again = coordinator(tmp_path)
    await again.start()
    assert again.membership.epoch == again.feed.current.epoch == 20
    await again.stop()


async def test_a_full_disk_is_served_through_and_saved_later(tmp_path: Path) -> None:
    disk = BrokenDisk(tmp_path)
    node = coordinator(tmp_path, store=disk)
    await node.start()
    assert await node.heartbeat(record("n1")) == 1
    assert node.feed.current.epoch == 1
    disk.full = False
    await eventually(lambda: disk.load() == node.membership.roster, "saved by a later tick")
    await node.stop()


async def test_a_watcher_gets_the_placement_at_once_and_after_changes_and_as_keep_alive(tmp_path: Path) -> None:
    node = coordinator(tmp_path, keep_alive_s=0.05)
    watch = node.feed.follow("test")
    first = await anext(watch)
    assert first is await anext(watch), "the keep-alive repeats it"
    node.membership.join([record("n1")])
    await node.settle()
    assert (await anext(watch)).epoch == 1
    await watch.aclose()
    assert node.feed.watchers == 0


async def test_a_slow_watcher_finds_the_newest_and_nothing_in_between(tmp_path: Path) -> None:
    node = coordinator(tmp_path)
    watch = node.feed.follow("slow")
    await anext(watch)
    for incarnation in range(1, 101):
        node.membership.join([record("n1", incarnation)])
        await node.settle()
    assert (await anext(watch)).epoch == 100
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    assert not waiting.done(), "nothing was queued"
    node.membership.join([record("n2")])
    await node.settle()
    assert (await waiting).epoch == 101
    await watch.aclose()


async def test_watches_are_bounded(tmp_path: Path) -> None:
    node = coordinator(tmp_path, max_watchers=2)
    open_watches = [node.feed.follow("a"), node.feed.follow("b")]
    for watch in open_watches:
        await anext(watch)
    with pytest.raises(Overloaded, match="max_watchers"):
        await anext(node.feed.follow("c"))
    await open_watches[0].aclose()
    fourth = node.feed.follow("d")
    assert isinstance(await anext(fourth), Placement)
    for watch in (*open_watches, fourth):
        await watch.aclose()


async def test_silence_is_published_without_any_call(tmp_path: Path) -> None:
    node = coordinator(tmp_path)
    await node.start()
    await node.heartbeat(record("n1"))
    seen: list[MemberState] = []
    watch = node.feed.follow("test")
    async with asyncio.timeout(LONG):
        async for placement in watch:
            member = placement.node("n1")
            assert member is not None and placement.epoch == 1
            seen += [member.state] if member.state not in seen else []
            if member.state is MemberState.DOWN:
                break
    await watch.aclose()
    await node.stop()
    assert seen[-1] is MemberState.DOWN


async def test_peers_converge_and_one_that_was_cut_off_catches_up(tmp_path: Path) -> None:
    links = {(a, b): InProcessPeer(f"node-{b}") for a in range(3) for b in range(3) if a != b}
    nodes = [coordinator(tmp_path / str(a), [links[a, b] for b in range(3) if b != a]) for a in range(3)]
    for (_, b), link in links.items():
        link.target = nodes[b]
    for link in (links[0, 2], links[2, 0], links[1, 2], links[2, 1]):
        link.cut = True
    for node in nodes:
        await node.start()
    await nodes[0].heartbeat(record("n1", 3))
    await nodes[1].heartbeat(record("n2", 4))
    await eventually(lambda: nodes[0].membership.epoch == nodes[1].membership.epoch == 7, "the connected two converge")
    assert nodes[2].membership.epoch == 0 and nodes[2].peers_reachable == 0
    await eventually(lambda: nodes[0].peers_reachable == 1, "the cut is noticed")
    for link in links.values():
        link.cut = False
    await eventually(lambda: len({node.digest for node in nodes}) == 1, "all converge")
    await eventually(lambda: all(node.feed.current.epoch == 7 for node in nodes), "all publish it")
    await eventually(lambda: all(node.peers_reachable == 2 for node in nodes), "all reachable")
    for node in nodes:
        await node.stop()
