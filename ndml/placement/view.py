"""A placement as its readers hold it: members, their liveness, and who owns what. Immutable; a newer one replaces it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from ndml.placement.rendezvous import Ring
from ndml.placement.roster import MemberPhase, NodeRecord, epoch_of, join

_SERVING = frozenset({MemberPhase.ACTIVE, MemberPhase.LEAVING})
_JOINED = frozenset({MemberPhase.JOINING})
_STAYING = frozenset({MemberPhase.ACTIVE, MemberPhase.JOINING})


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
    def phase(self) -> MemberPhase:
        return self.record.phase

    @property
    def is_member(self) -> bool:
        return self.state is not MemberState.STANDBY


class Placement:
    """Who owns what. Equal rosters of members give equal epochs and equal owners; liveness is advice and belongs to neither.

    An owner's reads and writes go to its `owners`: the best of the members that are ACTIVE or LEAVING. Writes go to its `coming` owners
    too: those of the best of ACTIVE and JOINING that are not among them. Where no member is ACTIVE or LEAVING, nobody has anything that
    a JOINING one could wait for, and the JOINING ones are the owners.

    nodes    members and standbys, by node_id
    members  those that take part, whatever their phase
    profiles node profiles of the members that serve
    epoch    sum of the members' incarnations
    """

    __slots__ = ("_by_id", "_next", "_ring", "epoch", "members", "nodes", "profiles", "replication_factor")

    _ring: Ring
    _next: Ring

    def __init__(self, nodes: Iterable[PlacementNode], replication_factor: int, *, like: Placement | None = None) -> None:
        self.nodes = tuple(sorted(nodes, key=lambda node: node.node_id))
        self.members = tuple(node for node in self.nodes if node.is_member)
        self.profiles = frozenset(member.record.profile for member in self.members if member.phase in _SERVING)
        self.replication_factor = replication_factor
        self.epoch = epoch_of(member.record for member in self.members)
        self._by_id = {node.node_id: node for node in self.nodes}
        serving = _shape(self.members, _SERVING) or _shape(self.members, _JOINED)
        staying = _shape(self.members, _STAYING)
        lent = () if like is None else (like._ring, like._next)
        self._ring = _ring(serving, replication_factor, lent)
        self._next = self._ring if staying == serving else _ring(staying, replication_factor, lent)

    def owners(self, tenant: str, user: str) -> tuple[PlacementNode, ...]:
        """Owners of (tenant, user), first choice first, dead ones included: their data is on their disks. Empty without members."""
        return tuple([self._by_id[node_id] for node_id in _ids(self._ring, tenant, user)])

    def coming(self, tenant: str, user: str) -> tuple[PlacementNode, ...]:
        """Those that will own (tenant, user) when all who join have joined and all who leave have left, and do not yet."""
        return self.copies(tenant, user)[len(self._ring.rank(tenant, user)) :]

    def copies(self, tenant: str, user: str) -> tuple[PlacementNode, ...]:
        """Owners, then coming owners: whoever gets the writes of (tenant, user)."""
        return tuple([self._by_id[node_id] for node_id in self.copy_ids(tenant, user)])

    def copy_ids(self, tenant: str, user: str) -> tuple[str, ...]:
        """Node ids of `copies`."""
        owners = _ids(self._ring, tenant, user)
        if self._next is self._ring:
            return owners
        return owners + tuple([node_id for node_id in _ids(self._next, tenant, user) if node_id not in owners])

    def owns(self, node_id: str, tenant: str, user: str) -> bool:
        """True when the node is among the owners of (tenant, user): it serves them."""
        return node_id in _ids(self._ring, tenant, user)

    def takes(self, node_id: str, tenant: str, user: str) -> bool:
        """True when the node gets the writes of (tenant, user), as an owner or as a coming one."""
        return self.owns(node_id, tenant, user) or (self._next is not self._ring and node_id in _ids(self._next, tenant, user))

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


def _ids(ring: Ring, tenant: str, user: str) -> tuple[str, ...]:
    nodes = ring.nodes
    return tuple([nodes[index][0] for index in ring.rank(tenant, user)])


def _shape(members: tuple[PlacementNode, ...], phases: frozenset[MemberPhase]) -> tuple[tuple[str, str], ...]:
    return tuple((member.node_id, member.zone) for member in members if member.phase in phases)


def _ring(shape: tuple[tuple[str, str], ...], replication_factor: int, lent: Iterable[Ring]) -> Ring:
    # Owners depend on ids, zones, phases and factor only: liveness and addresses change without losing the cached look-ups.
    for ring in lent:
        if ring.nodes == shape and ring.replication_factor == replication_factor:
            return ring
    return Ring(shape, replication_factor)
