"""Replication as one component: the parts put together, their tasks, and what the node's status says of them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ndml.crdt.rates import AuthorRates
from ndml.errors import FieldInvalid
from ndml.internal.v1 import consensus_pb2 as cpb
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.placement import MemberPhase
from ndml.runtime import metrics
from ndml.runtime.addresses import Addresses
from ndml.runtime.log import get_logger
from ndml.v1 import admin_pb2
from services.memory_node.replication.answers import Answers
from services.memory_node.replication.attachment import Attachment
from services.memory_node.replication.joining import Joins
from services.memory_node.replication.owners import Catalog
from services.memory_node.replication.pace import Pace
from services.memory_node.replication.phase import Membership, PhaseKeeper
from services.memory_node.replication.ports import Clock, LocalStore, OpenSession, PartnerOf, Shares, Sleep, UpdateGuard
from services.memory_node.replication.publisher import Publisher
from services.memory_node.replication.reconcile import Reconciler, new_key
from services.memory_node.replication.rumours import Rumours
from services.memory_node.replication.settings import ReplicationSection
from services.memory_node.replication.subscriber import Subscriber
from services.memory_node.replication.sweep import Sweeper

log = get_logger(__name__)

_AFTER_FAULT_S = 1.0


@dataclass(frozen=True, slots=True)
class World:
    """Everything outside: the simulator gives its own."""

    store: LocalStore
    shares: Shares
    partner_of: PartnerOf
    open_session: OpenSession
    guard: UpdateGuard | None = None
    clock: Clock = time.monotonic
    sleep: Sleep = asyncio.sleep
    rng: random.Random | None = None
    make_key: Callable[[], bytes] = new_key


class Replication:
    """Component. Everything belongs to the event loop.

    consensus   addresses of the consensus nodes that take updates; none: updates are not streamed, the sweep is all there is
    membership  None where phases are not this node's to say (a fixed placement)
    """

    def __init__(
        self,
        settings: ReplicationSection,
        world: World,
        consensus: Sequence[str],
        zone: str = "",
        membership: Membership | None = None,
        pause: Callable[[bool], None] = lambda paused: None,
    ) -> None:
        self._settings = settings
        self._world = world
        self._consensus = Addresses.of(consensus)
        self._zone = zone
        self._membership = membership
        self._pause = pause
        self._tasks: list[asyncio.Task[None]] = []
        self._epoch = 0
        self._alive: set[str] = set()
        sweep, store, shares = settings.sweep, world.store, world.shares
        joins = Joins(store, settings.stream.join_attempts, world.sleep)
        catalog = Catalog(store, shares, sweep.page_owners)
        rates = AuthorRates(settings.signing.author_updates_per_s, world.clock)
        self.answers = Answers(store, shares, catalog, joins, sweep, world.sleep, world.guard, rates)
        self.pace = Pace(sweep.bytes_per_s, world.clock, world.sleep)
        reconciler = Reconciler(store, joins, sweep, self.pace, world.make_key, world.guard)
        self.sweeper = Sweeper(
            store, shares, catalog, reconciler, world.partner_of, sweep, clock=world.clock, sleep=world.sleep, rng=world.rng
        )
        self.publisher = Publisher(store, settings.stream, world.guard, clock=world.clock, sleep=world.sleep)
        self.subscriber = Subscriber(store, shares, joins, self.sweeper, world.guard)
        self.keeper: PhaseKeeper | None = None
        if membership is not None:
            self.keeper = PhaseKeeper(membership, store, shares, self.sweeper, pause, settings.phase, sleep=world.sleep)
        self.attachment: Attachment | None = None

    async def start(self) -> None:
        """Waits for nobody."""
        self._spawn("replication-journal", self.publisher.tend_forever)
        if not self._settings.enabled:
            return
        self._spawn("replication-sweep", self.sweeper.run)
        if self.keeper is not None:
            self._spawn("replication-phase", self.keeper.run)
        if self._world.guard is not None:
            every_s = self._settings.signing.rumours_s
            told = Rumours(self._world.guard, self._world.shares, self._world.partner_of, every_s, self._world.sleep)
            self._spawn("replication-rumours", told.run)
        if self._consensus.expected:
            self.attachment = self._attach()
            self._spawn("replication-stream", self.attachment.run)
        metrics.OWNERS_BEHIND.set_function(lambda: self.sweeper.behind)
        metrics.QUARANTINED_AUTHORS.set_function(lambda: len(self.quarantined))

    def _attach(self) -> Attachment:
        world, store = self._world, self._world.store
        hello = cpb.DeltaHello(node_id=world.shares.node_id, replica=store.replica, zone=self._zone)
        return Attachment(
            store,
            self._consensus,
            world.open_session,
            self.publisher,
            self.subscriber,
            hello,
            self._settings.stream,
            clock=world.clock,
            sleep=world.sleep,
            rng=world.rng,
            guard=world.guard,
        )

    def _spawn(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks.append(asyncio.create_task(self._keep_going(name, work), name=name))

    async def _keep_going(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Exception:
                # A fault of ours must not end what keeps copies equal: it is tried again, and the log says why.
                log.exception("replication_fault", task=name)
            await self._world.sleep(_AFTER_FAULT_S)

    async def stop(self) -> None:
        """Give what is in the journal a moment to become durable elsewhere, then end."""
        if self.attachment is not None and self.attachment.attached_to:
            until = self._world.clock() + self._settings.stream.drain_s
            while not self.publisher.drained and self._world.clock() < until:
                await self._world.sleep(self._settings.stream.poll_s)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []

    def placement_changed(self, *_: Any) -> None:
        """Have what moved, or came back, looked at soon."""
        alive = {partner.node_id for partner in self._world.shares.partners() if partner.alive}
        epoch = self._world.shares.epoch
        if epoch != self._epoch or alive - self._alive:
            self.sweeper.request("placement_changed")
        self._epoch, self._alive = epoch, alive

    @property
    def quarantined(self) -> Sequence[str]:
        """Authors that equivocated."""
        return () if self._world.guard is None else self._world.guard.quarantined

    async def set_phase(self, phase: int) -> admin_pb2.MemberPhase:
        """As SetPhase. Raises FieldInvalid."""
        if self.keeper is None:
            raise FieldInvalid("this node's placement is fixed: phases need consensus nodes (heartbeat.consensus)", field="phase")
        if phase not in set(MemberPhase):
            raise FieldInvalid("unknown phase: give LEAVING or JOINING", field="phase")
        return phase_to_proto(await self.keeper.set(MemberPhase(phase)))

    def describe(self, status: pb.GetNodeStatusResponse) -> None:
        """Fill in what is replication's."""
        status.replica = self._world.store.replica
        status.phase = phase_to_proto(self.keeper.phase if self.keeper is not None else MemberPhase.ACTIVE)
        status.unpublished = self.publisher.unpublished
        status.owners_behind = self.sweeper.behind
        status.last_round_s = self.sweeper.last_round_s
        status.owners_to_move = self.keeper.to_move if self.keeper is not None else 0
        status.quarantined[:] = self.quarantined


def phase_to_proto(phase: MemberPhase) -> admin_pb2.MemberPhase:
    return cast("admin_pb2.MemberPhase", phase.value)
