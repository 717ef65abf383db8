"""What a consensus node does over time: makes changes durable, publishes them, exchanges rosters with its peers, and notices silence."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ndml.errors import NdmlError
from ndml.placement import MemberState, NodeRecord, Placement, digest_of
from ndml.runtime import metrics
from ndml.runtime.log import get_logger
from services.consensus.feed import PlacementFeed
from services.consensus.membership import Membership
from services.consensus.ports import Clock, Peer, RosterStore

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """exchange_interval_s between exchanges with one peer when nothing changes; tick_s between looks at the heartbeats' ages;
    stall_s: a tick that comes this late means that this process stood still."""

    exchange_interval_s: float = 1.0
    tick_s: float = 0.25
    stall_s: float = 1.0


class Coordinator:
    """Component around the core. A change is on disk before a watcher or a node hears of its epoch."""

    def __init__(
        self,
        membership: Membership,
        feed: PlacementFeed,
        store: RosterStore,
        peers: Sequence[Peer],
        timing: Timing,
        *,
        clock: Clock = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.membership = membership
        self.feed = feed
        self._store = store
        self._peers = {peer.address: peer for peer in peers}
        self._timing = timing
        self._clock = clock
        self._rng = rng or random.Random()
        self._saving = asyncio.Lock()
        self._saved_version = 0
        self._save_failing = False
        self._roster_changed = asyncio.Event()
        self._reachable: dict[str, bool] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._exchanging: dict[str, asyncio.Task[None]] = {}

    @property
    def epoch(self) -> int:
        """Of the placement published last, which is on disk."""
        return self.feed.current.epoch

    @property
    def digest(self) -> str:
        """SHA-256 of the roster published last: equal on converged nodes."""
        return digest_of(member.record for member in self.feed.current.members)

    @property
    def peers_total(self) -> int:
        return len(self._peers)

    @property
    def peers_reachable(self) -> int:
        """Peers that answered their last exchange."""
        return sum(self._reachable.values())

    async def start(self) -> None:
        """Raises OSError where the roster cannot be read. Waits for no peer."""
        self.membership.found(await asyncio.to_thread(self._store.founders, self.membership.listed))
        self.membership.join((await asyncio.to_thread(self._store.load)).values())
        self._saved_version = self.membership.version
        self._publish()
        log.info("roster_loaded", epoch=self.membership.epoch, nodes=len(self.membership.roster))
        self._tasks = [asyncio.create_task(self._tick(), name="liveness")]
        for peer in self._peers.values():
            self._begin(peer)

    async def stop(self) -> None:
        tasks = [*self._tasks, *self._exchanging.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for peer in self._peers.values():
            await peer.close()

    def add_peer(self, peer: Peer) -> None:
        """Exchange rosters with it from now on."""
        self._peers[peer.address] = peer
        if self._tasks:  # start() begins with those that came before it
            self._begin(peer)

    def drop_peer(self, address: str) -> None:
        """It is gone. Its channel is let go with it."""
        del self._peers[address]
        self._reachable.pop(address, None)
        if address in self._exchanging:
            self._exchanging.pop(address).cancel()

    def _begin(self, peer: Peer) -> None:
        self._exchanging[peer.address] = asyncio.create_task(self._keep_exchanging(peer), name=f"exchange-{peer.address}")

    async def heartbeat(self, record: NodeRecord) -> int:
        """Take a heartbeat; returns the epoch, which is durable. Raises what Membership.heartbeat raises."""
        metrics.CONSENSUS_OPERATIONS.labels("heartbeat").inc()
        self.membership.heartbeat(record, self._clock())
        await self._settle_changes()
        return self.epoch

    async def exchange(self, records: Iterable[NodeRecord]) -> list[NodeRecord]:
        """Join a peer's records; returns the join, which is durable. Raises FieldInvalid."""
        metrics.CONSENSUS_OPERATIONS.labels("exchange").inc()
        self.membership.join(records)
        await self._settle_changes()
        return list(self.membership.roster.values())

    async def settle(self) -> None:
        """Save what changed, then publish what is new. Calls that meet here share one save."""
        async with self._saving:
            while self._saved_version != self.membership.version and await self._save():
                continue
            self._publish()

    async def _settle_changes(self) -> None:
        if self._saved_version != self.membership.version:
            await self.settle()

    async def _save(self) -> bool:
        version = self.membership.version
        try:
            await asyncio.to_thread(self._store.save, self.membership.roster)
        except OSError as error:
            # Serving from memory beats not serving: peers and heartbeats hold the same records. The next tick tries again.
            if not self._save_failing:
                log.error("roster_not_saved", error=str(error))
            self._save_failing = True
            return False
        if self._save_failing:
            log.info("roster_saved_again", epoch=self.membership.epoch)
        self._save_failing = False
        self._saved_version = version
        return True

    def _publish(self) -> None:
        before = self.feed.current
        after = self.membership.placement(self._clock(), like=before)
        if not self.feed.publish(after):
            return
        metrics.PLACEMENT_EPOCH.set(after.epoch)
        _count_states(after)
        _log_transitions(before, after)
        if after.epoch != before.epoch:
            self._roster_changed.set()
            self._roster_changed = asyncio.Event()

    async def _tick(self) -> None:
        while True:
            began = self._clock()
            await asyncio.sleep(self._timing.tick_s)
            now = self._clock()
            late = now - began - self._timing.tick_s
            if late >= self._timing.stall_s:
                log.warning("stood_still", seconds=round(late, 2))
                self.membership.forgive(late, now)
            await self.settle()

    async def _keep_exchanging(self, peer: Peer) -> None:
        while True:
            changed = self._roster_changed
            self._note(peer, await self._exchange_with(peer))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timing.exchange_interval_s * self._rng.uniform(0.8, 1.2)):
                    await changed.wait()

    async def _exchange_with(self, peer: Peer) -> NdmlError | None:
        try:
            self.membership.join(await peer.exchange(self.membership.roster.values()))
        except NdmlError as error:
            return error
        await self._settle_changes()
        return None

    def _note(self, peer: Peer, error: NdmlError | None) -> None:
        reachable = error is None
        if self._reachable.get(peer.address) is not reachable:
            log.info("peer_reachable" if reachable else "peer_unreachable", peer=peer.address, error=error and error.message)
        self._reachable[peer.address] = reachable


def _count_states(placement: Placement) -> None:
    counts = Counter(node.state for node in placement.nodes)
    for state in MemberState:
        metrics.MEMBERS.labels(state.name.lower()).set(counts[state])


def _log_transitions(before: Placement, after: Placement) -> None:
    for node in after.nodes:
        known = before.node(node.node_id)
        if known != node:
            was = known.state.name if known is not None else "NONE"
            log.info("member", node=node.node_id, address=node.address, state=node.state.name, was=was, epoch=after.epoch)
