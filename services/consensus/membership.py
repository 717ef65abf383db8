"""The core: which memory nodes there are, how they are, and the placement that follows. No I/O; time is a parameter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ndml.errors import Overloaded, StaleEpoch
from ndml.placement import MemberState, NodeRecord, Placement, PlacementNode, check_record, epoch_of, join

INCARNATION_KEY = "incarnation"
"""Key of the known incarnation in the metadata of the StaleEpoch that answers a heartbeat from the past."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator decides.

    members            ids of the nodes that own data
    replication_factor copies of each owner's traces
    suspect_after_s    age of the last heartbeat at which a node is suspect ...
    down_after_s       ... and down
    max_standbys       other nodes remembered at once
    """

    members: Sequence[str]
    replication_factor: int = 1
    suspect_after_s: float = 3.0
    down_after_s: float = 10.0
    max_standbys: int = 256


@dataclass(slots=True)
class _Standby:
    record: NodeRecord
    heard_at: float


class Membership:
    """Roster of the members (durable, joined among consensus nodes) and what this node has heard itself (soft).

    `version` counts the changes of the roster, for whoever saves or publishes it.
    """

    def __init__(self, policy: Policy, now: float) -> None:
        self._policy = policy
        self._members = frozenset(policy.members)
        self._roster: dict[str, NodeRecord] = {}
        self._heard_at: dict[str, float] = {}
        self._standbys: dict[str, _Standby] = {}
        self._since = now
        self.version = 0

    @property
    def epoch(self) -> int:
        """Sum of the members' incarnations."""
        return epoch_of(self._roster.values())

    @property
    def roster(self) -> dict[str, NodeRecord]:
        """A copy of the members' records."""
        return dict(self._roster)

    def is_member(self, node_id: str) -> bool:
        return node_id in self._members

    def heartbeat(self, record: NodeRecord, now: float) -> None:
        """Take a node's word that it lives. Raises FieldInvalid, StaleEpoch, Overloaded.

        StaleEpoch: a record that is newer, or as new and different, is known: the node lost its disk, or two nodes share an id. Its
        metadata say which incarnation to count past. The sender lives all the same, so its age starts anew.
        """
        check_record(record)
        if not self.is_member(record.node_id):
            self._hear_standby(record, now)
            return
        self._heard_at[record.node_id] = now
        known = self._roster.get(record.node_id)
        if known == record:
            return
        if known is not None and record.incarnation <= known.incarnation:
            raise StaleEpoch(
                f"node {record.node_id!r} is known at {known.address} with incarnation {known.incarnation}: count past it; "
                "if another process runs under this id, give each its own",
                field="node.incarnation",
                metadata={INCARNATION_KEY: str(known.incarnation)},
            )
        self._merge([record])

    def join(self, records: Iterable[NodeRecord]) -> None:
        """Join what a peer knows; nodes that are not members here are passed over. Raises FieldInvalid, changing nothing."""
        ours = [record for record in records if self.is_member(record.node_id)]
        for record in ours:
            check_record(record, "records")
        self._merge(ours)

    def forgive(self, seconds: float, now: float) -> None:
        """Count `seconds` in which this process stood still against nobody: their heartbeats may be waiting in our socket."""
        self._since = min(now, self._since + seconds)
        self._heard_at = {node_id: min(now, heard + seconds) for node_id, heard in self._heard_at.items()}
        for standby in self._standbys.values():
            standby.heard_at = min(now, standby.heard_at + seconds)

    def placement(self, now: float, like: Placement | None = None) -> Placement:
        """Members and living standbys at `now`. Standbys that are down are forgotten; `like` lends its cached look-ups."""
        self._forget_standbys(now)
        members = [PlacementNode(self._roster.get(node_id) or NodeRecord(node_id), self._state(node_id, now)) for node_id in self._members]
        standbys = [PlacementNode(standby.record, MemberState.STANDBY) for standby in self._standbys.values()]
        return Placement([*members, *standbys], self._policy.replication_factor, like=like)

    def _merge(self, records: Iterable[NodeRecord]) -> None:
        joined = join(self._roster, records)
        if joined != self._roster:
            self._roster = joined
            self.version += 1

    def _hear_standby(self, record: NodeRecord, now: float) -> None:
        self._forget_standbys(now)
        if record.node_id not in self._standbys and len(self._standbys) >= self._policy.max_standbys:
            raise Overloaded(
                f"{self._policy.max_standbys} nodes that are not members send heartbeats (cluster.max_standbys): list this one in "
                "cluster.members, or stop some",
                retry_after_s=self._policy.down_after_s,
            )
        self._standbys[record.node_id] = _Standby(record, now)

    def _forget_standbys(self, now: float) -> None:
        limit = self._policy.down_after_s
        self._standbys = {node_id: standby for node_id, standby in self._standbys.items() if now - standby.heard_at < limit}

    def _state(self, node_id: str, now: float) -> MemberState:
        heard_at = self._heard_at.get(node_id)
        age = now - (self._since if heard_at is None else heard_at)
        if age >= self._policy.down_after_s:
            return MemberState.DOWN
        if heard_at is None:
            return MemberState.UNKNOWN
        return MemberState.SUSPECT if age >= self._policy.suspect_after_s else MemberState.ALIVE
