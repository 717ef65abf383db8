"""The servers of a simulation: production cores in processes that crash, with disks that stay."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from ndml.crdt.clock import physical_ms
from ndml.errors import OwnerUnavailable
from ndml.placement import Placement
from ndml.runtime.placement import PlacementWatcher
from services.consensus.deltas.compaction import Keeping
from services.consensus.deltas.elector import SmallestName
from services.consensus.deltas.entries import Entry, Key
from services.consensus.deltas.exchange import DeltaExchange
from services.consensus.deltas.guard import OpenGuard
from services.consensus.deltas.log import DeltaLog, LogBounds
from services.consensus.deltas.mesh import Mesh, MeshTiming
from services.consensus.deltas.ports import Change, DialedWire, Saved
from services.consensus.deltas.session import SessionBounds
from services.memory_node.replication.answers import Answers
from services.memory_node.replication.component import Replication, World
from services.memory_node.replication.reconcile import KEY_BYTES
from services.memory_node.replication.settings import ReplicationSection
from services.memory_node.replication.shares import PausableView, PlacementShares
from tests.sim.disks import GroupCommit
from tests.sim.loop import EPOCH_NS
from tests.sim.membership import OwnWord
from tests.sim.network import Lost, Network
from tests.sim.processes import Process
from tests.sim.stores import Displaced, Files, SimStore
from tests.sim.wires import Connection, End, ServerOf, SimPartner

REPLICATION = ReplicationSection.model_validate(
    {
        # Looked at less often than in production: nothing happens in a simulation between two looks, and each costs time.
        "stream": {
            "poll_s": 0.5,
            "backoff_max_s": 2.0,
            "hello_s": 2.0,
            "silence_s": 8.0,
            "journal_kept": 8,
            "prune_every": 4,
            "tend_s": 2.0,
        },
        "sweep": {"least_interval_s": 5.0, "most_interval_s": 10.0, "owner_limit_s": 20.0},
    }
)


class Clock:
    """A machine's wall clock: off by some seconds, and it jumps."""

    def __init__(self, skew_s: float) -> None:
        self.skew_s = skew_s

    def now_ns(self) -> int:
        return EPOCH_NS + round((asyncio.get_running_loop().time() + self.skew_s) * 1e9)


class MemoryNode:
    """A memory node's machine: clock and files outlive its processes."""

    def __init__(
        self,
        name: str,
        network: Network,
        files: Files,
        clock: Clock,
        watcher: PlacementWatcher,
        connect: Callable[[str, str], Connection],
        consensus: Sequence[str],
        server_of: ServerOf,
        displaced: Displaced,
        word: OwnWord,
        random: Random,
    ) -> None:
        self.name = name
        self.files = files
        self.clock = clock
        self.watcher = watcher
        self.slowness_s = 0.0
        self._network, self._connect, self._consensus, self._server_of = network, connect, consensus, server_of
        self._displaced = displaced
        self._word = word
        self._random = random
        self.process = Process(name)
        self.process.alive = False

    async def start(self, restore_from: Path | None = None) -> None:
        """A new process on what is on the disk."""
        self.process = Process(self.name)
        self.store = self.process.do(lambda: self._open(restore_from))
        self._network.start(self.name)
        await self.process.run(self._serve)

    def _open(self, restore_from: Path | None) -> SimStore:
        store = self.files.open(restore_from)
        self._view = PausableView(self.watcher.view_of(self.name))
        return SimStore(store, self._view, self.clock.now_ns, self._fsync_s, self._displaced)

    def _fsync_s(self) -> float:
        return self.slowness_s + self._random.expovariate(500.0)

    async def _serve(self) -> None:
        loop, process = asyncio.get_running_loop(), self.process

        async def attach(address: str) -> End:
            connection = self._connect(self.name, address)
            process.on_kill.append(lambda: loop.call_later(self._random.uniform(0, 1), connection.break_))
            return connection.calling

        world = World(
            self.store,
            PlacementShares(self.watcher, self.name),
            lambda node_id: SimPartner(self._network, self.name, node_id, self._server_of),
            attach,
            clock=loop.time,
            rng=Random(self._random.random()),
            make_key=lambda: self._random.randbytes(KEY_BYTES),
        )
        self.replication = Replication(REPLICATION, world, self._consensus, "", self._word, self._view.pause)
        self.watcher.on_change(self.replication.placement_changed)
        await self.replication.start()

    def lead_s(self) -> float:
        """Seconds by which its hybrid clock is ahead of the time."""
        now_ms = (EPOCH_NS + round(asyncio.get_running_loop().time() * 1e9)) // 1_000_000
        return (physical_ms(self.store.store.committer.author.clock.last) - now_ms) / 1000

    @property
    def answers(self) -> Answers:
        return self.replication.answers

    def crash(self) -> None:
        """Power is lost."""
        self._network.stop(self.name)
        if self.process.alive:
            self.process.kill()
            self.store.crash()

    def end(self) -> None:
        """The run is over."""
        if self.process.alive:
            self.process.kill()
            self.store.stop()


class DeltaDisk:
    """A DeltaStore whose file is a dictionary; `image` outlives its processes."""

    def __init__(self, image: Image, fsync_s: Callable[[], float]) -> None:
        self._image = image
        self._commits: GroupCommit[Change, None] = GroupCommit(self._carry_out, fsync_s)

    async def open(self) -> Saved:
        image = self._image
        return Saved(
            list(image.entries.values()),
            dict(image.positions),
            [(node, replica, author, at) for (node, author), (replica, at) in image.delivered.items()],
            [(node, author, at) for (node, author), at in image.lost.items()],
            dict(image.dropped),
        )

    async def commit(self, change: Change) -> None:
        await self._commits.submit(copy.copy(change))

    async def read(self, keys: Sequence[Key]) -> list[bytes | None]:
        return [self._image.bodies.get(key) for key in keys]

    async def close(self) -> None:
        """Nothing is open."""

    def _carry_out(self, changes: Sequence[Change]) -> list[None]:
        for change in changes:
            self._image.apply(change)
        return [None] * len(changes)


class Image:
    """What a consensus node has on disk."""

    def __init__(self) -> None:
        self.entries: dict[Key, Entry] = {}
        self.bodies: dict[Key, bytes] = {}
        self.positions: dict[int, tuple[str, int]] = {}
        self.delivered: dict[tuple[str, int], tuple[int, int]] = {}
        self.lost: dict[tuple[str, int], int] = {}
        self.dropped: dict[int, int] = {}

    def apply(self, change: Change) -> None:
        for key in change.removed:
            self.entries.pop(key, None)
            self.bodies.pop(key, None)
        for author in change.forgotten:
            self.positions.pop(author, None)
            self.dropped.pop(author, None)
        self.delivered = {key: at for key, at in self.delivered.items() if key[0] not in change.gone and key[1] not in change.forgotten}
        self.lost = {key: at for key, at in self.lost.items() if key[0] not in change.gone and key[1] not in change.forgotten}
        for delta in change.added:
            self.entries[delta.entry.key] = delta.entry
            self.bodies[delta.entry.key] = delta.body
        self.positions |= change.positions
        self.delivered |= change.delivered
        self.lost = {key: at for key, at in (self.lost | change.lost).items() if at}
        self.dropped = {author: at for author, at in (self.dropped | change.dropped).items() if at}


class _Dialer:
    def __init__(self, address: str, source: str, connect: Callable[[str, str], Connection]) -> None:
        self.address = address
        self._source = source
        self._connect = connect

    async def open(self) -> DialedWire:
        return self._connect(self._source, self.address).calling

    async def close(self) -> None:
        """Nothing is kept."""


class ConsensusNode:
    """A consensus node's machine."""

    def __init__(
        self,
        name: str,
        zone: str,
        peers: Sequence[str],
        connect: Callable[[str, str], Connection],
        network: Network,
        watcher: PlacementWatcher,
        random: Random,
    ) -> None:
        self.name = name
        self.zone = zone
        self.image = Image()
        self._peers, self._connect, self._network, self._watcher, self._random = peers, connect, network, watcher, random
        self.process = Process(name)
        self.process.alive = False

    async def start(self) -> None:
        self.process = Process(self.name)
        self._network.start(self.name)
        await self.process.run(self._serve)

    async def _serve(self) -> None:
        clock = asyncio.get_running_loop().time
        log = DeltaLog(DeltaDisk(self.image, lambda: self._random.expovariate(500.0)), LogBounds(), self._placement, clock)
        bounds = SessionBounds(gossip_interval_s=1.0, answer_timeout_s=10.0)
        dialers = [_Dialer(peer, self.name, self._connect) for peer in self._peers]
        mesh = Mesh(self.name, self.zone, dialers, log, OpenGuard(), bounds, MeshTiming(), rng=Random(self._random.random()))
        mesh.elect_with(lambda mesh: SmallestName(mesh.node_id, mesh.neighbours))
        self.exchange = DeltaExchange(log, mesh, OpenGuard(), bounds, Keeping(grace_s=5.0), compact_interval_s=2.0)
        await self.exchange.start()

    def _placement(self) -> Placement:
        placement = self._watcher.placement
        assert placement is not None
        return placement

    def accept(self, connection: Connection) -> None:
        """Somebody called. Raises OwnerUnavailable where nobody is there."""
        if not self.process.alive:
            raise OwnerUnavailable(f"{self.name} does not answer")
        loop = asyncio.get_running_loop()
        self.process.on_kill.append(lambda: loop.call_later(self._random.uniform(0, 1), connection.break_))
        served = self.process.do(lambda: self.exchange.serve(connection.answering))

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                connection.break_()
            elif not connection.broken:
                connection.answering._deliver(None)

        served.add_done_callback(ended)

    def crash(self) -> None:
        """Power is lost."""
        self._network.stop(self.name)
        self.end()

    def end(self) -> None:
        """The run is over."""
        if self.process.alive:
            self.process.kill()


def dead(name: str) -> Lost:
    return Lost(f"{name} does not run")
