"""A placement as its readers hold it: members, their liveness, and who owns what. Immutable; a newer one replaces it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from ndml.placement.rendezvous import Ring
from ndml.placement.roster import NodeRecord, epoch_of, join


class MemberState(IntEnum):
    """How a member is. The numbers are those of ndml.v1.MemberState (a test holds them together)."""

    UNKNOWN = 0
    ALIVE = 1
    SUSPECT = 2
    DOWN = 3
    STANDBY = 4


@dataclass(frozen=True, slots=True)
class PlacementNode:
    """A member, or a standby, with what the reporting consensus node sees of it. `address` is empty until its first heartbeat."""

    record: NodeRecord
    state: MemberState = MemberState.UNKNOWN

    @property
    def node_id(self) -> str:
        return self.record.node_id

    @property
    def address(self) -> str:
        return self.record.address

    @property
    def zone(self) -> str:
        return self.record.zone

    @property
    def is_member(self) -> bool:
        return self.state is not MemberState.STANDBY


class Placement:
    """Who owns what. Equal rosters of members give equal epochs and equal owners; liveness is advice and belongs to neither.

    nodes    members and standbys, by node_id
    members  those that own data
    epoch    sum of the members' incarnations
    """

    __slots__ = ("_by_id", "_ring", "epoch", "members", "nodes", "replication_factor")

    def __init__(self, nodes: Iterable[PlacementNode], replication_factor: int, *, like: Placement | None = None) -> None:
        self.nodes = tuple(sorted(nodes, key=lambda node: node.node_id))
        self.members = tuple(node for node in self.nodes if node.is_member)
        self.replication_factor = replication_factor
        self.epoch = epoch_of(member.record for member in self.members)
        self._by_id = {node.node_id: node for node in self.nodes}
        self._ring = _ring(self.members, replication_factor, like)

    def owners(self, tenant: str, user: str) -> tuple[PlacementNode, ...]:
        """Owners of (tenant, user), first choice first, dead ones included: their data is on their disks. Empty without members."""
        members = self.members
        return tuple([members[index] for index in self._ring.rank(tenant, user)])

    def owns(self, node_id: str, tenant: str, user: str) -> bool:
        """True when the node is among the owners of (tenant, user)."""
        return any(self.members[index].node_id == node_id for index in self._ring.rank(tenant, user))

    def node(self, node_id: str) -> PlacementNode | None:
        """The node of this name, if the placement has it."""
        return self._by_id.get(node_id)

    def joined_with(self, other: Placement) -> Placement:
        """This placement moved forward by a newer report: records by join, so never back; liveness and factor as `other` says.

        A member that `other` does not list stays: owners are taken from a member by a hand-off, never by forgetting it.
        """
        records = join({m.node_id: m.record for m in self.members}, (m.record for m in other.members))
        members = [PlacementNode(record, _state(other, node_id)) for node_id, record in records.items()]
        standbys = [node for node in other.nodes if not node.is_member and node.node_id not in records]
        return Placement([*members, *standbys], other.replication_factor, like=self)

    def same_as(self, other: Placement) -> bool:
        """Equal nodes (liveness included) and factor: nothing to tell anybody."""
        return self.nodes == other.nodes and self.replication_factor == other.replication_factor


def _state(report: Placement, node_id: str) -> MemberState:
    node = report.node(node_id)
    return node.state if node is not None and node.is_member else MemberState.UNKNOWN


def _ring(members: tuple[PlacementNode, ...], replication_factor: int, like: Placement | None) -> Ring:
    # Owners depend on ids, zones and factor only: liveness and addresses change without losing the cached look-ups.
    shape = tuple((member.node_id, member.zone) for member in members)
    if like is not None and like._ring.nodes == shape and like._ring.replication_factor == replication_factor:
        return like._ring
    return Ring(shape, replication_factor)
