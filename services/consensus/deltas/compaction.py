"""When an update may go: every copy has it and every peer knows of it; or nobody will ever need it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ndml.placement import MemberPhase, Placement
from ndml.runtime import metrics
from services.consensus.deltas.entries import Entry, Key
from services.consensus.deltas.log import DeltaLog


@dataclass(frozen=True, slots=True)
class Keeping:
    """The settings of DeltasSection that say how long entries stay, under the same names."""

    grace_s: float = 60.0
    max_age_s: float = 86_400.0
    scan: int = 5_000


class Compaction:
    """One pass is bounded: by authors and members, and by `scan` entries beyond those that everybody has.

    lag  node id -> updates that it has yet to take, as of the last whole round over the log
    """

    def __init__(self, log: DeltaLog, keeping: Keeping) -> None:
        self.lag: dict[str, int] = {}
        self._log = log
        self._keeping = keeping
        self._round: list[Key] = []
        self._next = 0
        self._counting: Counter[str] = Counter()
        self._gone_since: dict[str, float] = {}

    def run(self) -> None:
        """One pass."""
        placement = self._log.placement()
        self._log.discard(self._settled_prefixes(placement))
        self._scan()
        self._forget_nodes(placement)
        self._log.flush()

    def _settled_prefixes(self, placement: Placement) -> list[Key]:
        """What every member has, without asking whose it is: nearly everything, as a rule."""
        index = self._log.index
        members = [member.node_id for member in placement.members if member.phase is not MemberPhase.LEFT]
        settled: list[Key] = []
        for author in index.positions:
            if not index.holds(author):
                continue
            readers = [node_id for node_id in members if node_id != index.names[author]]
            if readers:
                floor = min(min(index.delivered(node_id, author) for node_id in readers), self._log.peers_have(author))
                settled += [entry.key for entry in index.up_to(author, floor)]
        return settled

    def _scan(self) -> None:
        index = self._log.index
        if self._next >= len(self._round):
            self._end_round()
        stable, expired = [], []
        for key in self._round[self._next : self._next + self._keeping.scan]:
            entry = index.get(key)
            if entry is None:
                continue
            lacking = self._log.lacking(entry)
            self._counting.update(lacking)
            if not lacking and self._nobody_asks(entry):
                stable.append(key)
            elif self._log.clock() - entry.arrived >= self._keeping.max_age_s:
                expired.append(key)
        self._next += self._keeping.scan
        if self._next >= len(self._round):
            self._publish_lag()
        self._log.discard(stable)
        if expired:
            self._log.drop(expired)

    def _nobody_asks(self, entry: Entry) -> bool:
        if self._log.peers_have(entry.author) < entry.counter:
            return False
        copies = self._log.placement().copy_ids(entry.tenant, entry.user)
        # An owner without another copy may be about to get one.
        return (copies != () and copies != (entry.node_id,)) or self._log.clock() - entry.arrived >= self._keeping.grace_s

    def _end_round(self) -> None:
        self._round = [entry.key for entry in self._log.index]
        self._next = 0
        self._counting = Counter()

    def _publish_lag(self) -> None:
        for node_id in self.lag.keys() - self._counting.keys():
            metrics.DELTA_LAG.labels(node_id).set(0)
        self.lag = dict.fromkeys(self._log.index.readers, 0) | dict(self._counting)
        for node_id, count in self.lag.items():
            metrics.DELTA_LAG.labels(node_id).set(count)

    def _forget_nodes(self, placement: Placement) -> None:
        """A node that is not in the placement any more is owed nothing, after a while in which it may come back."""
        now, known = self._log.clock(), self._log.index.readers.keys() | self._log.index.lost.keys()
        gone = {n for n in known if (node := placement.node(n)) is None or not node.is_member}
        self._gone_since = {node_id: self._gone_since.get(node_id, now) for node_id in gone}
        for node_id, since in list(self._gone_since.items()):
            if now - since >= self._keeping.grace_s:
                self._log.forget_node(node_id)
                del self._gone_since[node_id]
