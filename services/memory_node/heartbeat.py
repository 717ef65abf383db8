"""Tells every consensus node that this memory node lives, where it is and what it is for.

The node is the only writer of its record. It is kept in the data directory and its incarnation counted up whenever anything else in it
changes, so that the newest word wins wherever it arrives first.

A node whose store is not the one that is known of it says JOINING by itself: it gets writes and is not read from until it has copied what
it lacks. So does one that the consensus nodes do not count among the members.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
from pydantic import Field, field_validator

from ndml.errors import FieldInvalid, NdmlError, StaleEpoch
from ndml.internal.v1 import consensus_pb2 as pb2
from ndml.internal.v1 import consensus_pb2_grpc
from ndml.placement import MemberPhase, NodeRecord, check_record
from ndml.runtime.addresses import Addresses, follow
from ndml.runtime.channel import Dialer
from ndml.runtime.files import write_durably
from ndml.runtime.log import get_logger
from ndml.runtime.placement import check_addresses, record_to_proto
from ndml.runtime.settings import Section
from ndml.wire import rpc_error_to_ndml
from services.memory_node.profiles import ProfileName

log = get_logger(__name__)

_FILE = "identity.json"
# In the metadata of the StaleEpoch that a consensus node answers.
_INCARNATION_KEY = "incarnation"
_REPLICA_KEY = "replica"


class HeartbeatSettings(Section):
    """Registration with the consensus nodes."""

    consensus: list[str] = Field(
        [], max_length=64, description="host:port of every consensus node; each gets its own heartbeat. Empty: none."
    )
    interval_s: float = Field(
        1.0, gt=0, description="Between heartbeats (+-10 %, so that nodes do not beat in step): a third of suspect_after_s."
    )
    timeout_s: float = Field(1.0, gt=0, description="A consensus node that takes longer is tried again at the next interval.")
    profile: ProfileName = Field(
        "general", description="Node profile: chooses analyzers and weights of the ranking; gateways send what fits it here."
    )

    @field_validator("consensus")
    @classmethod
    def _addresses(cls, addresses: list[str]) -> list[str]:
        return check_addresses(addresses)


class Identity:
    """This node's record and its place on disk. `replica` gives the number of the store, asked when the store is open; 0: unknown.

    rejoin: a node that was leaving, or had left, joins when it is started again.
    """

    def __init__(
        self,
        directory: Path,
        node_id: str,
        address: str,
        zone: str,
        profile: str,
        replica: Callable[[], int] = lambda: 0,
        *,
        keeps_zone: bool = False,
        rejoin: bool = False,
    ) -> None:
        """keeps_zone: where `zone` is "" it could not be learned this time, and the one on disk stays: another one would move owners."""
        self._keeps_zone = keeps_zone and not zone
        self._path = directory / _FILE
        self._replica = replica
        self._rejoin = rejoin
        self._begun = False
        self.record = NodeRecord(node_id, address, zone, profile, 1)

    def restore(self) -> None:
        """Go on from the incarnation on disk, one past it where the record changed. Raises FieldInvalid, OSError."""
        known = self._read()
        self._begun = known is None
        self.record = replace(self.record, replica=self._replica())
        if known is not None:
            if self._keeps_zone:
                self.record = replace(self.record, zone=known.zone)
            back = self._rejoin and known.phase in (MemberPhase.LEAVING, MemberPhase.LEFT)
            phase = MemberPhase.JOINING if back or self._other_store(known.replica) else known.phase
            record = replace(self.record, incarnation=known.incarnation, phase=phase)
            self.record = known if record == known else replace(record, incarnation=known.incarnation + 1)
        check_record(self.record)
        if self.record != known:
            self._write()

    def count_past(self, incarnation: int, replica: int = 0) -> None:
        """Make the record newer than `incarnation`; nothing where it is already. Raises FieldInvalid, OSError.

        `replica` is the store that the record of `incarnation` had: with another one now, what it held is to be copied from others.
        """
        if incarnation >= self.record.incarnation:
            lost = self._other_store(replica) or (self._begun and replica == 0 != self.record.replica)
            self._replace(replace(self.record, incarnation=incarnation + 1, phase=MemberPhase.JOINING if lost else self.record.phase))

    def set_phase(self, phase: MemberPhase) -> None:
        """Say `phase` from now on, durably. Raises FieldInvalid, OSError."""
        if phase is not self.record.phase:
            self._replace(replace(self.record, incarnation=self.record.incarnation + 1, phase=phase))

    def _other_store(self, replica: int) -> bool:
        return replica not in (0, self.record.replica) and self.record.replica != 0

    def _replace(self, record: NodeRecord) -> None:
        check_record(record)
        before, self.record = self.record, record
        try:
            self._write()
        except OSError:
            self.record = before
            raise

    def _read(self) -> NodeRecord | None:
        try:
            known = NodeRecord.from_json(json.loads(self._path.read_bytes()))
            check_record(known)
            return known
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, AttributeError, RecursionError, FieldInvalid) as error:
            # Not worth refusing to start: consensus nodes know the incarnation, and say so when we begin at 1 again.
            log.warning("identity_unreadable", path=str(self._path), error=str(error))
            return None

    def _write(self) -> None:
        write_durably(self._path, json.dumps(self.record.to_json(), indent=1).encode())


@dataclass(slots=True)
class _Link:
    """One consensus node; `up` and `member` are None before its first answer."""

    address: str
    up: bool | None = None
    member: bool | None = None


class Heartbeat:
    """Component: one loop for each consensus node, so that a dead one delays no other. Starting waits for none of them."""

    def __init__(
        self,
        settings: HeartbeatSettings,
        identity: Identity,
        dialer: Dialer,
        consensus: Addresses | None = None,
        *,
        rng: random.Random | None = None,
    ) -> None:
        """consensus: the nodes to tell, where they are not those of the settings."""
        self._settings = settings
        self._identity = identity
        self._dialer = dialer
        self._consensus = Addresses(settings.consensus) if consensus is None else consensus
        self._rng = rng or random.Random()
        self._beating: dict[str, tuple[_Link, asyncio.Task[None]]] = {}
        self._renaming = asyncio.Lock()
        self._news = asyncio.Event()

    @property
    def _links(self) -> list[_Link]:
        return [link for link, _ in self._beating.values()]

    @property
    def record(self) -> NodeRecord:
        """What this node says of itself."""
        return self._identity.record

    @property
    def reachable(self) -> int:
        """Consensus nodes that took the last heartbeat."""
        return sum(link.up is True for link in self._links)

    @property
    def is_member(self) -> bool:
        """True when a consensus node lists this node among the owners."""
        return any(link.member is True for link in self._links)

    @property
    def phase(self) -> MemberPhase:
        """How this node takes part, by its own word."""
        return self._identity.record.phase

    async def set_phase(self, phase: MemberPhase) -> NodeRecord:
        """Take part as `phase` says: on disk when this returns, and on its way to every consensus node. Raises FieldInvalid, OSError.

        Returns the record as it is now; the placement shows when it has arrived.
        """
        async with self._renaming:
            before = self._identity.record
            await asyncio.to_thread(self._identity.set_phase, phase)
            if self._identity.record != before:
                log.info("phase", phase=phase.name, was=before.phase.name, incarnation=self._identity.record.incarnation)
                self._tell()
            return self._identity.record

    async def start(self) -> None:
        """Raises FieldInvalid where the node's address, zone or profile cannot be told to others, OSError from the data directory."""
        await asyncio.to_thread(self._identity.restore)
        follow(self._consensus, self._begin, self._end)

    async def stop(self) -> None:
        tasks = [task for _, task in self._beating.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._beating.clear()

    def _begin(self, address: str) -> None:
        link = _Link(address)
        self._beating[address] = link, asyncio.create_task(self._beat_forever(link), name=f"heartbeat-{address}")

    def _end(self, address: str) -> None:
        self._beating.pop(address)[1].cancel()

    async def _beat_forever(self, link: _Link) -> None:
        async with self._dialer.open(link.address) as channel:
            stub: consensus_pb2_grpc.ConsensusServiceAsyncStub = consensus_pb2_grpc.ConsensusServiceStub(channel)
            while True:
                news = self._news
                if await self._beat(stub, link):
                    await self._beat(stub, link)  # once: two processes under one id must not race each other faster than the interval
                await self._join_if_stranger()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.interval_s * self._rng.uniform(0.9, 1.1)):
                        await news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _join_if_stranger(self) -> None:
        """More than half of the consensus nodes say that this node is no member, and none that it is: what it would own is elsewhere."""
        strange = 2 * sum(link.member is False for link in self._links) > len(self._links) and not self.is_member
        if strange and self.phase is MemberPhase.ACTIVE and not self._renaming.locked():
            try:
                await self.set_phase(MemberPhase.JOINING)
            except (OSError, FieldInvalid) as fault:
                log.error("phase_not_set", error=str(fault))

    async def _beat(self, stub: consensus_pb2_grpc.ConsensusServiceAsyncStub, link: _Link) -> bool:
        """One heartbeat; True when it should be repeated at once, under a newer incarnation."""
        sent = self._identity.record
        try:
            answer = await stub.Heartbeat(pb2.HeartbeatRequest(node=record_to_proto(sent)), timeout=self._settings.timeout_s)
        except grpc.aio.AioRpcError as error:
            return await self._refused(link, sent, rpc_error_to_ndml(error))
        self._note(link, True, member=answer.is_member)
        return False

    async def _refused(self, link: _Link, sent: NodeRecord, error: NdmlError) -> bool:
        self._note(link, False, error=error.message)
        if not isinstance(error, StaleEpoch):
            return False
        async with self._renaming:
            if self._identity.record != sent:
                return True  # raised since on another consensus node's word: what this one knows may be that very record
            try:
                known, replica = (int(error.metadata.get(key, "0")) for key in (_INCARNATION_KEY, _REPLICA_KEY))
                await asyncio.to_thread(self._identity.count_past, known, replica)
            except (OSError, ValueError, FieldInvalid) as fault:
                log.error("incarnation_not_raised", consensus=link.address, error=str(fault))
                return False
        raised = self._identity.record
        log.warning("incarnation_raised", incarnation=raised.incarnation, phase=raised.phase.name, reason=error.message)
        return self._identity.record != sent

    def _note(self, link: _Link, up: bool, *, member: bool | None = None, error: str = "") -> None:
        if link.up is not up:
            log.info("consensus_reachable" if up else "consensus_unreachable", consensus=link.address, error=error)
        if member is not None and link.member is not member:
            log.info("member" if member else "standby", consensus=link.address, node=self.record.node_id)
            link.member = member
        link.up = up
