"""Which consensus nodes talk: all of a zone with each other, and between zones only those that speak for theirs.

Whoever reaches the other opens the exchange; where both did, the one that the smaller name opened stays. Zones are learned from hellos.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ndml.errors import NdmlError
from ndml.internal.v1 import consensus_pb2 as pb
from ndml.runtime import metrics
from ndml.runtime.log import get_logger
from services.consensus.deltas.elector import Elector
from services.consensus.deltas.entries import MAX_COUNTER, Via
from services.consensus.deltas.log import DeltaLog
from services.consensus.deltas.peers import PeerSession, check_peer, hello_of
from services.consensus.deltas.ports import Dialer, Guard, Message, Wire
from services.consensus.deltas.session import SessionBounds

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MeshTiming:
    """The settings of MeshSection of the same names."""

    retry_s: float = 2.0
    hello_timeout_s: float = 5.0
    settle_s: float = 1.0


@dataclass(slots=True)
class _Neighbour:
    """What a hello said."""

    node_id: str
    zone: str


@dataclass(slots=True)
class _Link:
    session: PeerSession
    opened_by: str
    ended: asyncio.Event


class Mesh:
    """Component: a loop for each peer's address, and the sessions that there are, by the peer's name."""

    def __init__(
        self,
        node_id: str,
        zone: str,
        dialers: Sequence[Dialer],
        log: DeltaLog,
        guard: Guard,
        bounds: SessionBounds,
        timing: MeshTiming,
        *,
        rng: random.Random | None = None,
    ) -> None:
        self.node_id = node_id
        self.zone = zone
        self._sent: Counter[Via] = Counter()
        self._dialers = {dialer.address: dialer for dialer in dialers}
        self._log = log
        self._guard = guard
        self._bounds = bounds
        self._timing = timing
        self._rng = rng or random.Random()
        self._links: dict[str, _Link] = {}
        self._known: dict[str, _Neighbour] = {}
        self._elector: Elector | None = None
        self._settled_at = float("inf")
        self._tasks: list[asyncio.Task[None]] = []
        self._calling: dict[str, asyncio.Task[None]] = {}

    def elect_with(self, make: Callable[[Mesh], Elector]) -> None:
        """Decide by this elector who speaks for the zone; before start()."""
        self._elector = make(self)

    def neighbours(self) -> list[str]:
        """Names of those of this zone that are linked."""
        return [name for name, link in self._links.items() if link.session.via is Via.ZONE]

    @property
    def linked(self) -> list[str]:
        """Names of all that are linked."""
        return list(self._links)

    @property
    def leads(self) -> bool:
        """This node speaks for its zone. Not in its first moments, in which it sees nobody."""
        elector = self._elector
        return elector is not None and self._log.clock() >= self._settled_at and elector.leads()

    def sent(self, via: Via) -> int:
        """Updates sent to neighbours (ZONE) or to other zones (WIDE) since the start, repeats included."""
        return self._sent[via] + sum(link.session.sent for link in self._links.values() if link.session.via is via)

    def everybody_has(self, author: int) -> int:
        """Position of the author that every linked peer has reached."""
        return min((link.session.has.get(author, 0) for link in self._links.values()), default=MAX_COUNTER)

    async def start(self) -> None:
        self._settled_at = self._log.clock() + self._timing.settle_s
        if self._elector is not None:
            await self._elector.start()
        for dialer in self._dialers.values():
            self._begin(dialer)
        self._tasks = [asyncio.create_task(self._watch_role(), name="mesh-role")]

    async def stop(self) -> None:
        tasks = [*self._tasks, *self._calling.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._tasks = []
        self._calling.clear()
        for link in self._links.values():
            link.session.end()
        for dialer in self._dialers.values():
            await dialer.close()
        if self._elector is not None:
            await self._elector.stop()

    def add_dialer(self, dialer: Dialer) -> None:
        """Call it from now on."""
        self._dialers[dialer.address] = dialer
        if self._tasks:  # start() begins with those that came before it
            self._begin(dialer)

    def drop_dialer(self, address: str) -> None:
        """It is gone: it is called no more, and a session that it was called for ends."""
        del self._dialers[address]
        self._known.pop(address, None)
        if address in self._calling:
            self._calling.pop(address).cancel()

    def _begin(self, dialer: Dialer) -> None:
        self._calling[dialer.address] = asyncio.create_task(self._keep_calling(dialer), name=f"mesh-{dialer.address}")

    async def answer(self, first: Message, wire: Wire) -> None:
        """A peer called. Returns when the session is over; at once where there is to be none. Raises NdmlError.

        Who is called says hello, and then an empty message if there is to be a session: until then the caller sends nothing.
        """
        check_peer(first.hello, self.node_id)
        await wire.send(self._wire_hello(wire))
        if self._wanted(first.hello, first.hello.node_id):
            await wire.send(wire.message())
            await self._hold(first, wire, first.hello.node_id)

    def _wire_hello(self, wire: Wire) -> Message:
        message = wire.message()
        message.hello.CopyFrom(hello_of(self.node_id, self.zone, self._log.index.positions))
        return message

    async def _keep_calling(self, dialer: Dialer) -> None:
        while True:
            if self._worth_calling(dialer.address):
                try:
                    await self._call(dialer)
                except (NdmlError, TimeoutError) as error:
                    log.debug("peer_not_linked", peer=dialer.address, error=str(error))
            await asyncio.sleep(self._timing.retry_s * self._rng.uniform(0.5, 1.5))

    def _worth_calling(self, address: str) -> bool:
        known = self._known.get(address)
        if known is None:
            return True
        return known.node_id not in self._links and (known.zone == self.zone or self.leads)

    async def _call(self, dialer: Dialer) -> None:
        async with asyncio.timeout(self._timing.hello_timeout_s):
            wire = await dialer.open()
        try:
            async with asyncio.timeout(self._timing.hello_timeout_s):
                await wire.send(self._wire_hello(wire))
                first = await wire.receive()
            if first is None:
                return
            check_peer(first.hello, self.node_id)
            self._known[dialer.address] = _Neighbour(first.hello.node_id, first.hello.zone)
            async with asyncio.timeout(self._timing.hello_timeout_s):
                welcome = await wire.receive()
            if welcome is not None and self._wanted(first.hello, self.node_id):
                await self._hold(first, wire, self.node_id)
        finally:
            await wire.close()

    def _wanted(self, peer: pb.DeltaHello, opened_by: str) -> bool:
        """Whether there is to be a session. Where both called, the smaller name's call stays, on both sides alike."""
        if peer.zone != self.zone and not self.leads:
            return False
        held = self._links.get(peer.node_id)
        # A second call by the same means that the first is dead.
        return held is None or held.opened_by == opened_by or held.opened_by != min(peer.node_id, self.node_id)

    async def _hold(self, first: Message, wire: Wire, opened_by: str) -> None:
        """Run the session; one that there is with this peer ends."""
        peer, zone = first.hello.node_id, first.hello.zone
        via = Via.ZONE if zone == self.zone else Via.WIDE
        while (held := self._links.get(peer)) is not None:
            held.session.end()
            await held.ended.wait()
        session = PeerSession(first.hello, via, wire, self._log, self._guard, self._bounds)
        link = self._links[peer] = _Link(session, opened_by, asyncio.Event())
        self._count()
        log.info("peer_linked", peer=peer, zone=zone, via=via.name)
        try:
            await session.run()
        finally:
            if self._links.get(peer) is link:
                del self._links[peer]
            self._sent[via] += session.sent
            link.ended.set()
            self._count()
            log.info("peer_unlinked", peer=peer, zone=zone)

    async def _watch_role(self) -> None:
        led = False
        while True:
            leads = self.leads
            if leads is not led:
                log.info("zone_gateway" if leads else "zone_member", zone=self.zone)
                led = leads
            if not leads:
                for link in self._links.values():
                    if link.session.via is Via.WIDE:
                        link.session.end()
            await asyncio.sleep(self._timing.retry_s / 4)

    def _count(self) -> None:
        for via in (Via.ZONE, Via.WIDE):
            count = sum(link.session.via is via for link in self._links.values())
            metrics.DELTA_STREAMS.labels(via.name.lower()).set(count)
