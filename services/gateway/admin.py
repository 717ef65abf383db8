"""For operators: who is there, who owns what, snapshots. A process that does not answer is shown, it does not fail the question."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from ndml.errors import FieldInvalid, OwnerUnavailable
from ndml.internal.v1 import consensus_pb2, llm_pb2, memory_node_pb2
from ndml.placement import MemberPhase, MemberState, Placement, PlacementNode
from ndml.runtime.interceptors import as_ndml_error
from ndml.v1 import admin_pb2
from services.gateway.ports import Cluster, Stores
from services.gateway.settings import BackupSettings

Status = admin_pb2.ServiceStatus
_NONE = Placement([], 0)
_SILENT = {
    "Connection refused": "nobody listens at its address: does the process run?",
    "Timeout": "its host does not answer: is it up, and the network between?",
    "DNS resolution failed": "its host name is not known here",
    "Hostname Verification": "its certificate has another name than the one called: see tls.server_name",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not of an authority in tls.ca_file, or has expired",
    "WRONG_VERSION_NUMBER": "it speaks plain text and this process TLS: set tls on both or on neither",
    "Socket closed": "it closes the connection: it may be starting, or want a certificate (its tls) that this process has not (ours)",
    "Deadline Exceeded": "it took the connection and does not answer: it hangs, or has too much to do",
}
"""What gRPC says of a process that cannot be asked, for people."""

Described = memory_node_pb2.GetNodeStatusResponse | consensus_pb2.GetConsensusStatusResponse | llm_pb2.GetModelInfoResponse


class PlacementView(Protocol):
    """Where the current placement comes from."""

    @property
    def placement(self) -> Placement | None: ...

    @property
    def epoch(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Peers:
    """What the gateway knows of the others: itself (status), and addresses."""

    me: Callable[[], Status]
    consensus: Sequence[str]
    llm: Sequence[str]


class Admin:
    """Answers AdminService. `now_s` is the wall clock in seconds."""

    def __init__(
        self,
        placement: PlacementView,
        cluster: Cluster,
        stores: Stores,
        peers: Peers,
        settings: BackupSettings,
        now_s: Callable[[], float],
    ) -> None:
        self._placement = placement
        self._cluster = cluster
        self._stores = stores
        self._settings = settings
        self._peers = peers
        self._now_s = now_s

    async def status(self) -> admin_pb2.GetClusterStatusResponse:
        """Every process that the gateway knows."""
        placement = self._placement.placement or _NONE
        asked = [self._ask("ndml-memory-node", n.node_id, n.address, self._cluster.node_status) for n in placement.nodes]
        asked += [self._ask("ndml-consensus", a, a, self._cluster.consensus_status) for a in self._peers.consensus]
        asked += [self._ask("ndml-llm", a, a, self._cluster.model_info) for a in self._peers.llm]
        members = _staying(placement)
        return admin_pb2.GetClusterStatusResponse(
            services=[self._peers.me(), *await asyncio.gather(*asked)],
            epoch=self._placement.epoch,
            healthy=bool(members) and all(m.state in (MemberState.ALIVE, MemberState.SUSPECT) for m in members),
        )

    async def _ask(self, service: str, instance: str, address: str, question: Callable[[str], Awaitable[Described]]) -> Status:
        status = Status(service=service, instance=instance, address=address)
        if not address:
            status.error = "has not registered yet"
            return status
        try:
            answer = await question(address)
        except Exception as error:
            status.error = _why_silent(as_ndml_error(error).message)
            return status
        status.reachable = True
        status.instance = getattr(answer, "node_id", "") or instance
        status.version = answer.version
        status.uptime.FromSeconds(max(0, int(self._now_s() - answer.started_at.ToSeconds())))
        status.details.update(_details(answer))
        return status

    async def drain(self, node_id: str) -> AsyncIterator[admin_pb2.DrainNodeResponse]:
        """Begin a drain, or follow one, until the node has LEFT. Raises FieldInvalid, OwnerUnavailable when the node stays away."""
        node = self._replaceable(node_id)
        status = await self._cluster.node_status(node.address)
        phase, total, misses = await self._stores.set_phase(node, admin_pb2.MEMBER_PHASE_LEAVING), status.owners, 0
        yield admin_pb2.DrainNodeResponse(phase=phase, owners_left=status.owners, owners_total=total)
        while phase != admin_pb2.MEMBER_PHASE_LEFT:
            await asyncio.sleep(self._settings.drain_poll_s)
            try:
                status = await self._cluster.node_status(node.address)
            except Exception as error:
                misses += 1
                if misses >= self._settings.drain_misses:
                    raise OwnerUnavailable(f"{node_id} does not answer any more: once it runs, drain it again, it goes on") from error
                continue
            phase, misses = status.phase, 0
            left = 0 if phase == admin_pb2.MEMBER_PHASE_LEFT else status.owners_to_move
            yield admin_pb2.DrainNodeResponse(phase=phase, owners_left=left, owners_total=total)

    def _replaceable(self, node_id: str) -> PlacementNode:
        placement = self._placement.placement or _NONE
        node = placement.node(node_id)
        if node is None or not node.is_member:
            known = ", ".join(member.node_id for member in placement.members) or "none"
            raise FieldInvalid(f"no memory node {node_id!r}: members are {known}", field="node_id")
        staying = [m for m in placement.members if m.phase in (MemberPhase.ACTIVE, MemberPhase.JOINING) and m.node_id != node_id]
        if len(staying) < placement.replication_factor:
            text = f"{len(staying)} nodes would stay, each owner has {placement.replication_factor} copies: add a node first"
            raise FieldInvalid(text, field="node_id")
        if not node.address:
            raise OwnerUnavailable(f"{node_id} has not registered yet: is the process running?")
        return node

    def placement(self, tenant: str, user: str) -> admin_pb2.GetPlacementResponse:
        """As this gateway sees it now."""
        placement = self._placement.placement or _NONE
        members = [
            admin_pb2.PlacementMember(
                node_id=n.node_id,
                address=n.address,
                zone=n.zone,
                state=admin_pb2.MemberState.Name(n.state),
                phase=admin_pb2.MemberPhase.Name(n.phase),
            )
            for n in placement.nodes
        ]
        owners = [n.node_id for n in placement.owners(tenant, user)] if user else []
        return admin_pb2.GetPlacementResponse(
            epoch=placement.epoch, members=members, replication_factor=placement.replication_factor, owners=owners
        )

    async def snapshot(self) -> admin_pb2.CreateSnapshotResponse:
        """Of every member. Raises OwnerUnavailable when one is away: a snapshot that lacks a node is none."""
        members = _staying(self._placement.placement or _NONE)
        away = [m.node_id for m in members if not m.address]
        if away or not members:
            raise OwnerUnavailable(f"not registered yet: {', '.join(away) or 'any memory node'}; nothing was written")
        made = await asyncio.gather(*(self._cluster.create_snapshot(m.address) for m in members))
        return admin_pb2.CreateSnapshotResponse(snapshots=[_info(m.node_id, s) for m, s in zip(members, made, strict=True)])


def _info(node_id: str, made: memory_node_pb2.CreateSnapshotResponse) -> admin_pb2.SnapshotInfo:
    created = Timestamp()
    created.CopyFrom(made.created_at)
    return admin_pb2.SnapshotInfo(
        node_id=node_id, path=made.path, size_bytes=made.size_bytes, traces=made.traces, sha256=made.sha256, created_at=created
    )


def _staying(placement: Placement) -> list[PlacementNode]:
    """Members but those that have left for good."""
    return [member for member in placement.members if member.phase is not MemberPhase.LEFT]


def _why_silent(message: str) -> str:
    """The first of these that is said; the message itself where none is."""
    return next((words for sign, words in _SILENT.items() if sign in message), message)


def _details(answer: Described) -> dict[str, str]:
    """The figures of a status answer, by the names of its fields; lists and maps in one line."""
    fields = [(field, value) for field, value in answer.ListFields() if field.name not in ("version", "started_at", "node_id")]
    return {field.name: _shown(field, value) for field, value in fields}


def _shown(field: FieldDescriptor, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in sorted(value.items()))
    if field.is_repeated:
        return ", ".join(map(str, value))
    if field.enum_type is admin_pb2.MemberPhase.DESCRIPTOR and value in admin_pb2.MemberPhase.values():
        return admin_pb2.MemberPhase.Name(value).removeprefix("MEMBER_PHASE_").lower()
    return str(value)
