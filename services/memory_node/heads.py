"""What is known of each author of an owner's updates, for reads that must see them, and what a read has seen. On the engine's thread."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from ndml.errors import OwnerUnavailable
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from services.memory_node.commit import Commit
from services.memory_node.positions import Standing
from services.memory_node.reader import Reader
from services.memory_node.records import Owner

_AUTHORED = (pb.PutResult, pb.TraceResult, pb.DeleteResult, pb.ReinforceActionResult)
"""Results of this store's own writes: their sequence number is its position of the owner."""


class Heads:
    """Owners' heads, the `most` used last. Read from the store once, then kept by the commits that the index has followed."""

    def __init__(self, reader: Reader, most: int) -> None:
        self._reader = reader
        self._most = most
        self._known: OrderedDict[Owner, Standing] = OrderedDict()

    @property
    def replica(self) -> int:
        """Number of this store."""
        return self._reader.replica

    def follow(self, commit: Commit) -> None:
        """Take over what a commit says."""
        for owner in commit.dropped:
            self._known.pop(owner, None)
        for owner, grown in commit.heads.items():
            if owner in self._known:
                self._known[owner].take(grown, commit.peaks.get(owner, {}))
        for job, result in zip(commit.jobs, commit.results, strict=True):
            known = self._known.get(job.owner)
            if known is not None and isinstance(result, _AUTHORED) and result.sequence:
                known.heads[self.replica] = max(result.sequence, known.heads.get(self.replica, 0))

    def check(self, owner: Owner, seen: Sequence[rpb.Head], applied: int) -> None:
        """Raises OwnerUnavailable unless this node shows all of it: own writes up to `applied`, others' by what is known of them."""
        for head in seen:
            found = applied if head.replica == self.replica else self._heads_of(owner, applied).get(head.replica, 0)
            if found < head.counter:
                raise OwnerUnavailable(
                    f"this copy has writes of store {head.replica:016x} up to {found}, the read asks for {head.counter}: ask another copy"
                )

    def shown(self, owner: Owner, applied: int, *, stored: bool) -> list[rpb.Head]:
        """What whoever shows as much as a read did just now must know: this store's position of the owner, and others'. An author some of
        whose updates show before earlier ones has two entries: up to where everything is here, 0: nothing is; then up to where they go.

        `stored`: the read was of the store, which may be ahead of the index. Never less than what was shown; a little more at times.
        """
        known = self._known.get(owner)
        row = self._reader.owner(owner) if stored and known is not None else None
        if known is None or (row is not None and row.changed > applied):
            known, _ = self._read(owner, applied)
        if not known.peaks:
            return [rpb.Head(replica=replica, counter=counter) for replica, counter in sorted(known.heads.items())]
        authors = sorted(known.heads.keys() | known.peaks.keys())
        lower = [rpb.Head(replica=replica, counter=known.heads.get(replica, 0)) for replica in authors]
        return lower + [rpb.Head(replica=replica, counter=counter) for replica, counter in sorted(known.peaks.items())]

    def _heads_of(self, owner: Owner, applied: int) -> dict[int, int]:
        known = self._known.get(owner)
        if known is not None:
            self._known.move_to_end(owner)
            return known.heads
        known, ahead = self._read(owner, applied)
        return {} if ahead else known.heads

    def _read(self, owner: Owner, applied: int) -> tuple[Standing, bool]:
        """As on disk; True: that is not in the index yet, and is not kept. In a moment it is."""
        with self._reader.snapshot():
            row, known = self._reader.owner(owner), self._reader.standing(owner)
        if row is not None and row.changed > applied:
            return known, True
        self._known[owner] = known
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return known, False
