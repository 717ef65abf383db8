"""Placement as gateways and memory nodes follow it: one watch on one consensus node, the others in reserve, the last answer kept."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import cast

import grpc
from pydantic import Field, field_validator

from ndml.errors import FieldInvalid, OwnerUnavailable
from ndml.internal.v1 import consensus_pb2 as pb2
from ndml.internal.v1 import consensus_pb2_grpc
from ndml.placement import MemberPhase, MemberState, NodeRecord, Placement, PlacementNode, is_address
from ndml.runtime import metrics
from ndml.runtime.addresses import Addresses
from ndml.runtime.channel import Dialer
from ndml.runtime.log import get_logger
from ndml.runtime.settings import Section
from ndml.v1 import admin_pb2

log = get_logger(__name__)

_STATES = frozenset(MemberState)
_PHASES = frozenset(MemberPhase)


def check_addresses(addresses: list[str]) -> list[str]:
    """Settings validator: each is host:port, none stands twice. Raises ValueError."""
    for address in addresses:
        if not is_address(address):
            raise ValueError(f"{address!r} is not host:port")
    if len(set(addresses)) != len(addresses):
        raise ValueError("an address stands twice")
    return addresses


class PlacementSettings(Section):
    """Where placement comes from."""

    consensus: list[str] = Field(
        [], max_length=64, description="host:port of every consensus node; one is watched, the others are in reserve."
    )
    fixed: list[str] = Field(
        [], max_length=1024, description="id=host:port or id=host:port@zone of each memory node: no consensus is asked."
    )
    replication_factor: int = Field(1, ge=1, le=16, description="Copies of each owner's traces; of a fixed placement only.")
    first_answer_s: float = Field(3.0, gt=0, description="A consensus node answers at once; one that takes longer is passed over.")
    silence_s: float = Field(25.0, gt=0, description="It speaks at least each 10 s; after two and a half of them it counts as dead.")
    backoff_min_s: float = Field(0.05, gt=0, description="First pause between attempts, jittered; doubles with each failure.")
    backoff_max_s: float = Field(2.0, gt=0, description="Longest pause: a consensus node that comes back is found within this time.")
    news_after_s: float = Field(0.5, gt=0, description="Somebody needs a newer epoch: pass on after so long without one, not more often.")

    @field_validator("consensus")
    @classmethod
    def _addresses(cls, addresses: list[str]) -> list[str]:
        return check_addresses(addresses)

    @field_validator("fixed")
    @classmethod
    def _members(cls, members: list[str]) -> list[str]:
        try:
            fixed_placement(members, 1)
        except FieldInvalid as error:
            raise ValueError(error.message) from None
        return members


class PlacementWatcher:
    """Component that holds the newest placement known. Starting never waits for a consensus node, and their loss changes nothing.

    What it holds only moves forward: a report is joined to it record by record, so an older one updates liveness and nothing else.
    Look-ups may come from any thread; `wait_newer` and `on_change` belong to the event loop.
    """

    def __init__(
        self,
        settings: PlacementSettings,
        watcher: str,
        dialer: Dialer,
        consensus: Addresses | None = None,
        zone: str = "",
        *,
        rng: random.Random | None = None,
    ) -> None:
        """consensus: the nodes to watch, where they are not those of the settings; one of `zone` is watched first."""
        self._settings = settings
        self._watcher = watcher
        self._dialer = dialer
        self._zone = zone
        self._rng = rng or random.Random()
        self._consensus = Addresses(settings.consensus) if consensus is None else consensus
        self._session: asyncio.Task[None] | None = None
        self._addresses: list[str] = []
        self._arrange()
        self._consensus.on_change(self._arrange)
        self._watching = ""
        self._placement = fixed_placement(settings.fixed, settings.replication_factor) if settings.fixed else None
        self._callbacks: list[Callable[[Placement], None]] = []
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._session_began = 0.0
        self._heard_from = ""

    @property
    def epoch(self) -> int:
        """Epoch of the placement held, 0 before the first."""
        return 0 if self._placement is None else self._placement.epoch

    @property
    def placement(self) -> Placement | None:
        """The placement held; None before the first report."""
        return self._placement

    @property
    def source(self) -> str:
        """Address of the consensus node that is being watched, "" when none answers."""
        return self._heard_from

    def owners(self, tenant: str, user: str) -> tuple[PlacementNode, ...]:
        """Owners of (tenant, user), first choice first; an address is empty until that node's first heartbeat.

        Raises OwnerUnavailable while no placement is known, or when it has no members that serve.
        """
        owners = self._known().owners(tenant, user)
        if not owners:
            raise OwnerUnavailable("no member owns data: list the memory nodes in `cluster.members` of the consensus nodes")
        return owners

    def copies(self, tenant: str, user: str) -> tuple[PlacementNode, ...]:
        """Owners of (tenant, user), then coming owners: all of them get its writes. Raises OwnerUnavailable while none is known."""
        return self._known().copies(tenant, user)

    def owns(self, node_id: str, tenant: str, user: str) -> bool:
        """True when the node is an owner of (tenant, user) as far as is known; False before the first placement."""
        return self._placement is not None and self._placement.owns(node_id, tenant, user)

    def takes(self, node_id: str, tenant: str, user: str) -> bool:
        """True when the node gets the writes of (tenant, user), as owner or as a coming one; False before the first placement."""
        return self._placement is not None and self._placement.takes(node_id, tenant, user)

    def view_of(self, node_id: str) -> NodeView:
        """What a memory node asks of the placement: its own share."""
        return NodeView(self, node_id)

    def on_change(self, callback: Callable[[Placement], None]) -> None:
        """Call `callback` on the event loop after every change, liveness included; at once when a placement is known already."""
        self._callbacks.append(callback)
        if self._placement is not None:
            callback(self._placement)

    async def wait_newer(self, epoch: int, timeout_s: float) -> bool:
        """Wait until an epoch past `epoch` is held; False when `timeout_s` passes before that.

        A consensus node that has no news within `news_after_s` may be cut off: the next one is asked, round after round.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not await self._newer_within(epoch, min(self._settings.news_after_s, deadline - loop.time())):
            if loop.time() >= deadline:
                return False
            self._rotate()
        return True

    async def start(self) -> None:
        if self._consensus.expected and not self._settings.fixed:
            self._task = asyncio.create_task(self._watch(), name="placement-watch")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({task for task in (self._task, self._session) if task is not None})
            self._task = self._session = None

    def _known(self) -> Placement:
        if self._placement is None:
            asked = ", ".join(self._addresses) or "none configured: set placement.consensus"
            raise OwnerUnavailable(f"no placement is known yet (consensus nodes: {asked}): come back shortly")
        return self._placement

    async def _newer_within(self, epoch: int, timeout_s: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.epoch <= epoch:
                    await self._changed.wait()
        return self.epoch > epoch

    def _rotate(self) -> None:
        # Many callers may find the same placement old at once: one change of consensus node serves them all.
        settled = asyncio.get_running_loop().time() - self._session_began >= self._settings.news_after_s
        if self._session is not None and len(self._addresses) > 1 and settled:
            self._session.cancel()

    def _arrange(self) -> None:
        """In an order of one's own, so that not all watch the same; from one that is gone to the next at once."""
        mixed = self._rng.sample(list(self._consensus), len(self._consensus))
        near = set(mixed) if not self._zone else {a for a in mixed if self._consensus.zone_of(a) == self._zone}
        self._addresses = sorted(mixed, key=lambda address: address not in near)
        if self._session is not None and self._watching not in self._addresses:
            self._session.cancel()

    async def _watch(self) -> None:
        failures = turn = 0
        while True:
            address = self._watching = self._addresses[turn % len(self._addresses)] if self._addresses else ""
            heard = bool(address) and await self._one_session(address)
            failures = 0 if heard else failures + 1
            turn += 1
            longest = min(self._settings.backoff_max_s, self._settings.backoff_min_s * 2 ** min(failures, 16))
            await asyncio.sleep(self._rng.uniform(0, longest))

    async def _one_session(self, address: str) -> bool:
        """Watch until the stream ends, however it ends; True when it said anything."""
        self._session_began = asyncio.get_running_loop().time()
        self._session = asyncio.create_task(self._follow(address), name=f"placement-watch-{address}")
        try:
            await asyncio.wait({self._session})
        finally:
            self._session.cancel()
        heard, self._heard_from = self._heard_from == address, ""
        error = None if self._session.cancelled() else self._session.exception()
        self._log_end(address, error, heard)
        return heard

    def _log_end(self, address: str, error: BaseException | None, heard: bool) -> None:
        if error is not None and not isinstance(error, grpc.aio.AioRpcError | TimeoutError):
            log.error("placement_watch_fault", address=address, exc_info=error)
        elif heard:
            log.info("placement_watch_ended", address=address, error=_brief(error))
        else:
            log.debug("placement_watch_failed", address=address, error=_brief(error))

    async def _follow(self, address: str) -> None:
        async with self._dialer.open(address) as channel:
            stub: consensus_pb2_grpc.ConsensusServiceAsyncStub = consensus_pb2_grpc.ConsensusServiceStub(channel)
            stream = stub.WatchPlacement(pb2.WatchPlacementRequest(watcher=self._watcher))
            patience = self._settings.first_answer_s
            while True:
                async with asyncio.timeout(patience):
                    response = await stream.read()
                if not isinstance(response, pb2.WatchPlacementResponse):
                    return
                patience = self._settings.silence_s
                if self._heard_from != address:
                    self._heard_from = address
                    log.info("placement_watch_begun", address=address, epoch=response.placement.epoch)
                self._accept(placement_from_proto(response.placement))

    def _accept(self, report: Placement) -> None:
        held = self._placement
        merged = report if held is None else held.joined_with(report)
        if held is not None and merged.same_as(held):
            return
        self._placement = merged
        if held is None or merged.epoch != held.epoch:
            metrics.PLACEMENT_EPOCH.set(merged.epoch)
            log.info("placement_changed", epoch=merged.epoch, members=len(merged.members))
        self._changed.set()
        self._changed = asyncio.Event()
        for callback in self._callbacks:
            try:
                callback(merged)
            except Exception:
                log.exception("placement_callback_fault", callback=repr(callback))


class NodeView:
    """A watcher as one memory node needs it: is this owner mine, and as of which epoch? Look-ups may come from any thread."""

    def __init__(self, watcher: PlacementWatcher, node_id: str) -> None:
        self._watcher = watcher
        self._node_id = node_id

    @property
    def epoch(self) -> int:
        return self._watcher.epoch

    @property
    def replication_factor(self) -> int:
        """Owners of each (tenant, user) where there are members enough; 1 before the first placement."""
        placement = self._watcher.placement
        return 1 if placement is None else placement.replication_factor

    def owns(self, tenant: str, user: str) -> bool:
        """This node serves (tenant, user)."""
        return self._watcher.owns(self._node_id, tenant, user)

    def takes(self, tenant: str, user: str) -> bool:
        """This node gets the writes of (tenant, user): it owns it, or is coming to."""
        return self._watcher.takes(self._node_id, tenant, user)

    def copies(self, tenant: str, user: str) -> tuple[str, ...]:
        """Node ids of the owners of (tenant, user), then of the coming ones; empty before the first placement."""
        placement = self._watcher.placement
        return () if placement is None else placement.copy_ids(tenant, user)


def fixed_placement(members: Iterable[str], replication_factor: int) -> Placement:
    """Placement of "id=host:port" or "id=host:port@zone" entries, epoch = their number. Raises FieldInvalid."""
    nodes = [PlacementNode(_fixed_record(entry), MemberState.ALIVE) for entry in members]
    if len({node.node_id for node in nodes}) != len(nodes):
        raise FieldInvalid("two entries have the same id: each memory node has its own", field="placement.fixed")
    return Placement(nodes, replication_factor)


def _fixed_record(entry: str) -> NodeRecord:
    node_id, _, rest = entry.partition("=")
    address, _, zone = rest.partition("@")
    if not node_id or not is_address(address):
        raise FieldInvalid(f"{entry!r} is not id=host:port or id=host:port@zone", field="placement.fixed")
    return NodeRecord(node_id, address, zone, "general", 1)


def record_to_proto(record: NodeRecord) -> pb2.NodeRecord:
    return pb2.NodeRecord(
        node_id=record.node_id, address=record.address, zone=record.zone, profile=record.profile, incarnation=record.incarnation,
        phase=cast("admin_pb2.MemberPhase", record.phase.value), replica=record.replica,
    )  # fmt: skip


def record_from_proto(record: pb2.NodeRecord) -> NodeRecord:
    phase = phase_from_proto(record.phase)
    return NodeRecord(record.node_id, record.address, record.zone, record.profile, record.incarnation, phase, record.replica)


def phase_from_proto(number: int) -> MemberPhase:
    """Unspecified, and a phase that only a newer release knows, read as ACTIVE: no owner moves on a word that we do not understand."""
    return MemberPhase(number) if number in _PHASES and number else MemberPhase.ACTIVE


def records_from_proto(records: Sequence[pb2.NodeRecord]) -> list[NodeRecord]:
    return [record_from_proto(record) for record in records]


def placement_to_proto(placement: Placement) -> pb2.Placement:
    nodes = [pb2.PlacementNode(record=record_to_proto(node.record), state=_wire_state(node.state)) for node in placement.nodes]
    return pb2.Placement(epoch=placement.epoch, nodes=nodes, replication_factor=placement.replication_factor)


def placement_from_proto(message: pb2.Placement) -> Placement:
    """The epoch is computed from the nodes again: it is a function of them."""
    nodes = [PlacementNode(record_from_proto(node.record), _state(node.state)) for node in message.nodes]
    return Placement(nodes, message.replication_factor)


def _wire_state(state: MemberState) -> admin_pb2.MemberState:
    return cast("admin_pb2.MemberState", state.value)


def _state(number: int) -> MemberState:
    # A state that a newer release added is one that this release does not know.
    return MemberState(number) if number in _STATES else MemberState.UNKNOWN


def _brief(error: BaseException | None) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return "" if error is None else repr(error)
