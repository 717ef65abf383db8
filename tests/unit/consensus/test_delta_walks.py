"""The same sessions on virtual time: a hundred random walks of crashes, cuts and moves, each of which repeats by its seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from services.consensus.deltas.compaction import Keeping
from services.consensus.deltas.elector import SmallestName
from services.consensus.deltas.entries import Entry, Key, Via
from services.consensus.deltas.exchange import DeltaExchange
from services.consensus.deltas.guard import OpenGuard
from services.consensus.deltas.log import DeltaLog, LogBounds
from services.consensus.deltas.mesh import Mesh, MeshTiming
from services.consensus.deltas.ports import Change, Saved
from services.consensus.deltas.session import SessionBounds
from tests.sim.loop import VirtualLoop, run
from tests.unit.consensus.delta_harness import InProcessDialer, Member, Net, placement_of, update

ALL = placement_of((1, 2, 3), 3)
ZONES = {"a1": "a", "a2": "a", "b1": "b", "b2": "b"}


@dataclass
class Disk:
    """What is on a disk, as rows; a commit takes time, and a crash before its end leaves nothing of it."""

    rows: dict[Key, tuple[Entry, bytes]] = field(default_factory=dict)
    saved: Saved = field(default_factory=Saved)
    delivered: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    lost: dict[tuple[str, int], int] = field(default_factory=dict)


class SlowStore:
    """DeltaStore on a Disk."""

    def __init__(self, disk: Disk, rng: random.Random) -> None:
        self._disk = disk
        self._rng = rng
        self.crashed = False

    async def open(self) -> Saved:
        disk = self._disk
        return Saved(
            [entry for entry, _ in disk.rows.values()],
            dict(disk.saved.positions),
            [(node, replica, author, at) for (node, author), (replica, at) in disk.delivered.items()],
            [(node, author, at) for (node, author), at in disk.lost.items() if at],
        )

    async def commit(self, change: Change) -> None:
        await asyncio.sleep(self._rng.uniform(0.001, 0.02))
        if self.crashed:
            await asyncio.Event().wait()
        disk = self._disk
        for key in change.removed:
            disk.rows.pop(key, None)
        disk.rows |= {delta.entry.key: (delta.entry, delta.body) for delta in change.added}
        disk.saved.positions |= change.positions
        disk.delivered |= change.delivered
        disk.lost |= change.lost

    async def read(self, keys: Sequence[Key]) -> list[bytes | None]:
        await asyncio.sleep(0.001)
        return [self._disk.rows[key][1] if key in self._disk.rows else None for key in keys]

    async def close(self) -> None:
        """Nothing is open."""


class World:
    """Consensus nodes that crash and come back, and three memory nodes that attach wherever one runs."""

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        self.loop = loop
        self.rng = random.Random(seed)
        self.net = Net()
        self.disks = {name: Disk() for name in ZONES}
        self.stores: dict[str, SlowStore] = {}
        self.members = {n: Member(n) for n in (1, 2, 3)}
        self.written = dict.fromkeys(self.members, 0)

    async def start(self, name: str) -> None:
        store = self.stores[name] = SlowStore(self.disks[name], self.rng)
        session = SessionBounds(offers_in_flight=16, peer_in_flight=16, relay_after_s=0.5, answer_timeout_s=1.0)
        log = DeltaLog(store, LogBounds(recent_bytes=500), lambda: ALL, self.loop.time)
        dialers = [InProcessDialer(other, self.net, name) for other in ZONES if other != name]
        guard = OpenGuard()
        mesh = Mesh(name, ZONES[name], dialers, log, guard, session, MeshTiming(0.5, 5.0, 0.5), rng=self.rng)
        mesh.elect_with(lambda nodes: SmallestName(nodes.node_id, nodes.neighbours))
        node = DeltaExchange(log, mesh, guard, session, Keeping(grace_s=0.0), compact_interval_s=0.3)
        await node.start()
        self.net.nodes[name] = node

    async def crash(self, name: str) -> None:
        """What is not on disk is gone, and everybody who was connected finds the line dead."""
        self.stores[name].crashed = True
        node = self.net.nodes.pop(name)
        everybody = [other for other in ZONES if other != name]
        await self.net.separate([name], everybody)
        self.net.cuts -= {(name, other) for other in everybody} | {(other, name) for other in everybody}
        for member in self.members.values():
            if member.where == name:
                await member.detach()
        node.drain()
        for task in (*node.mesh._tasks, *node.mesh._calling.values(), node._task, node.log._task):
            if task is not None:
                task.cancel()

    async def attach(self, n: int) -> None:
        name = self.rng.choice(sorted(self.net.nodes))
        self.members[n].where = name
        await self.members[n].attach(self.net.nodes[name])

    async def write(self, n: int, most: int) -> None:
        member = self.members[n]
        if not member.attached:
            await self.attach(n)
        self.written[n] += self.rng.randint(0, most)
        # As a memory node's journal: everything past what this consensus node has, old or new.
        position = max(member.position, member.acked_here)
        sent = [update(n, c, previous=c - 1) for c in range(position + 1, self.written[n] + 1)]
        if sent:
            await member.write(*sent)
            member.position = self.written[n]

    async def walk(self, steps: int) -> None:
        for _ in range(steps):
            await asyncio.sleep(self.rng.expovariate(5.0))
            chance = self.rng.random()
            if chance < 0.15 and len(self.net.nodes) > 1:
                await self.crash(self.rng.choice(sorted(self.net.nodes)))
            elif chance < 0.35 and len(self.net.nodes) < len(ZONES):
                await self.start(self.rng.choice(sorted(ZONES.keys() - self.net.nodes.keys())))
            elif chance < 0.45:
                one, other = self.rng.sample(sorted(ZONES), 2)
                await self.net.separate([one], [other])
            elif chance < 0.55:
                self.net.cuts.clear()
            elif chance < 0.65:
                await self.attach(self.rng.choice(sorted(self.members)))
            else:
                await self.write(self.rng.choice(sorted(self.members)), 6)

    async def settle(self) -> None:
        """Everything runs and is connected: in bounded time everybody has everything, and the logs are empty."""
        self.net.cuts.clear()
        for name in sorted(ZONES.keys() - self.net.nodes.keys()):
            await self.start(name)
        for n in self.members:
            await self.attach(n)
            await self.write(n, 3)
        async with asyncio.timeout(120):
            while not self.delivered() or any(len(node.log.index) for node in self.net.nodes.values()):
                await asyncio.sleep(0.1)

    def delivered(self) -> bool:
        return all(
            member.has.get(author, set()) == set(range(1, last + 1)) or (author == n or not last)
            for n, member in self.members.items()
            for author, last in self.written.items()
        )


async def one_walk(loop: VirtualLoop, seed: int) -> tuple[object, ...]:
    world = World(loop, seed)
    for name in ZONES:
        await world.start(name)
    await world.walk(60)
    await world.settle()
    assert not any(member.lost for member in world.members.values()), "nothing was dropped, so nobody is to reconcile"
    leads = {name for name, node in world.net.nodes.items() if node.mesh.leads}
    crossed = sum(node.mesh.sent(Via.WIDE) for node in world.net.nodes.values())
    offers = [tuple(member.offers) for member in world.members.values()]
    return loop.time(), dict(world.written), leads, crossed, offers


@pytest.mark.parametrize("seed", range(40))
def test_after_any_walk_everybody_has_everything(seed: int) -> None:
    *_, leads, _, _ = run(lambda loop: one_walk(loop, seed))
    assert leads == {"a1", "b1"}


def test_a_walk_repeats_by_its_seed() -> None:
    assert run(lambda loop: one_walk(loop, 7)) == run(lambda loop: one_walk(loop, 7))
