"""The core: which memory nodes there are, how they are, and the placement that follows. No I/O; time is a parameter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ndml.errors import Overloaded, StaleEpoch
from ndml.placement import MemberPhase, MemberState, NodeRecord, Placement, PlacementNode, check_record, epoch_of, join

INCARNATION_KEY = "incarnation"
"""Key of the known incarnation in the metadata of the StaleEpoch that answers a heartbeat from the past ..."""
REPLICA_KEY = "replica"
"""... and of the number of the store that the node had then: with another one now, the node has lost what it stored."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator decides.

    members            ids of the nodes that own data; those among them that came later than the roster have to join
    replication_factor copies of each owner's traces
    suspect_after_s    age of the last heartbeat at which a node is suspect ...
    down_after_s       ... and down
    max_standbys       other nodes remembered at once
    admit              nodes that are not listed and say that they join become members ...
    max_members        ... as long as there are fewer than these, listed ones included
    """

    members: Sequence[str]
    replication_factor: int = 1
    suspect_after_s: float = 3.0
    down_after_s: float = 10.0
    max_standbys: int = 256
    admit: bool = False
    max_members: int = 1024


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
        self._listed = self._founders = frozenset(policy.members)
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

    @property
    def listed(self) -> list[str]:
        """Ids that the operator gave."""
        return sorted(self._listed)

    def found(self, founders: Iterable[str]) -> None:
        """These were listed when the roster was begun: they own data whether they have been heard of or not."""
        self._founders = self._listed & frozenset(founders)

    def is_member(self, node_id: str) -> bool:
        """A founder, or admitted: the roster has none but members."""
        return node_id in self._founders or node_id in self._roster

    def heartbeat(self, record: NodeRecord, now: float) -> None:
        """Take a node's word that it lives. Raises FieldInvalid, StaleEpoch, Overloaded.

        StaleEpoch: a record that is newer, or as new and different, is known: the node lost its disk, or two nodes share an id. Its
        metadata say which incarnation to count past. The sender lives all the same, so its age starts anew.
        """
        check_record(record)
        if not self.is_member(record.node_id) and not self._admissible(record):
            self._hear_standby(record, now)
            return
        self._standbys.pop(record.node_id, None)
        self._heard_at[record.node_id] = now
        known = self._roster.get(record.node_id)
        if known == record:
            return
        if known is not None and record.incarnation <= known.incarnation:
            raise StaleEpoch(
                f"node {record.node_id!r} is known at {known.address} with incarnation {known.incarnation}: count past it; "
                "if another process runs under this id, give each its own",
                field="node.incarnation",
                metadata={INCARNATION_KEY: str(known.incarnation), REPLICA_KEY: str(known.replica)},
            )
        self._merge([record])

    def join(self, records: Iterable[NodeRecord]) -> None:
        """Join what a peer knows, or what was saved. Raises FieldInvalid, changing nothing.

        Nodes that are neither listed nor admitted here are passed over. What a peer has admitted is a member here too where `admit` is
        set, whatever phase it has reached since.
        """
        room = self._policy.max_members - self._total() if self._policy.admit else 0
        ours = []
        for record in records:
            known = self.is_member(record.node_id)
            if known or record.node_id in self._listed or room > 0:
                check_record(record, "records")
                ours.append(record)
                room -= not known
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
        listed = self._founders | self._roster.keys()
        members = [PlacementNode(self._roster.get(node_id) or NodeRecord(node_id), self._state(node_id, now)) for node_id in listed]
        standbys = [PlacementNode(standby.record, MemberState.STANDBY) for standby in self._standbys.values()]
        return Placement([*members, *standbys], self._policy.replication_factor, like=like)

    def _total(self) -> int:
        return len(self._listed | self._roster.keys())

    def _admissible(self, record: NodeRecord) -> bool:
        # An ACTIVE one that nobody listed would be read from before it has anything.
        welcome = record.node_id in self._listed or (self._policy.admit and self._total() < self._policy.max_members)
        return welcome and record.phase is MemberPhase.JOINING

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
