"""For operators: who is there, who owns what, snapshots. A process that does not answer is shown, it does not fail the question."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from ndml.errors import OwnerUnavailable
from ndml.internal.v1 import consensus_pb2, llm_pb2, memory_node_pb2
from ndml.placement import MemberState, Placement
from ndml.runtime.interceptors import as_ndml_error
from ndml.v1 import admin_pb2
from services.gateway.ports import Cluster

Status = admin_pb2.ServiceStatus
_NONE = Placement([], 0)

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

    def __init__(self, placement: PlacementView, cluster: Cluster, peers: Peers, now_s: Callable[[], float]) -> None:
        self._placement = placement
        self._cluster = cluster
        self._peers = peers
        self._now_s = now_s

    async def status(self) -> admin_pb2.GetClusterStatusResponse:
        """Every process that the gateway knows."""
        placement = self._placement.placement or _NONE
        asked = [self._ask("ndml-memory-node", n.node_id, n.address, self._cluster.node_status) for n in placement.nodes]
        asked += [self._ask("ndml-consensus", a, a, self._cluster.consensus_status) for a in self._peers.consensus]
        asked += [self._ask("ndml-llm", a, a, self._cluster.model_info) for a in self._peers.llm]
        members = placement.members
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
            status.error = as_ndml_error(error).message
            return status
        status.reachable = True
        status.version = answer.version
        status.uptime.FromSeconds(max(0, int(self._now_s() - answer.started_at.ToSeconds())))
        status.details.update(_details(answer))
        return status

    def placement(self, tenant: str, user: str) -> admin_pb2.GetPlacementResponse:
        """As this gateway sees it now."""
        placement = self._placement.placement or _NONE
        members = [
            admin_pb2.PlacementMember(node_id=n.node_id, address=n.address, zone=n.zone, state=admin_pb2.MemberState.Name(n.state))
            for n in placement.nodes
        ]
        owners = [n.node_id for n in placement.owners(tenant, user)] if user else []
        return admin_pb2.GetPlacementResponse(
            epoch=placement.epoch, members=members, replication_factor=placement.replication_factor, owners=owners
        )

    async def snapshot(self) -> admin_pb2.CreateSnapshotResponse:
        """Of every member. Raises OwnerUnavailable when one is away: a snapshot that lacks a node is none."""
        members = (self._placement.placement or _NONE).members
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


def _details(answer: Described) -> dict[str, str]:
    """The figures of a status answer, by the names of its fields."""
    shown = {}
    for field, value in answer.ListFields():
        if field.name not in ("version", "started_at", "node_id") and not field.is_repeated:
            shown[field.name] = str(value)
    return shown
