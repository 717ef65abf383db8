"""One owner's memory as searches see it: vector index and columns, row by row the same order. Derived from the store, never stored.

Belongs to the engine's thread once it is built.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ndml.errors import CapacityReached
from ndml.runtime.log import get_logger
from services.memory_node.columns import Columns
from services.memory_node.filters import Conditions, LabelSource, Mask, mask
from services.memory_node.index import AdaptiveIndex
from services.memory_node.reader import Reader
from services.memory_node.records import Owner, TraceRow

log = get_logger(__name__)

MakeIndex = Callable[[], AdaptiveIndex]


class Partition:
    """`through`: the sequence number up to which the store's changes are in."""

    def __init__(self, owner: Owner, owner_id: int, index: AdaptiveIndex, dimension: int) -> None:
        self.owner = owner
        self.owner_id = owner_id
        self.index = index
        self.columns = Columns()
        self.through = 0
        self._dimension = dimension

    @property
    def nbytes(self) -> int:
        return self.index.nbytes + self.columns.nbytes

    @property
    def live(self) -> int:
        return self.index.live

    def apply(self, added: Sequence[TraceRow], removed: Sequence[int], through: int) -> None:
        """Take over one commit. Rows that are in already (the partition was loaded after the commit) are passed over."""
        fresh = [row for row in added if row.sequence > self.through]
        if fresh:
            self.index.add(np.frombuffer(b"".join([row.vector for row in fresh]), "<f4").reshape(-1, self._dimension))
            self.columns.append(fresh)
        if removed:
            self._remove(self.columns.rows_of(removed))
        self.through = max(self.through, through)

    def retain(self, sequences: NDArray[np.int64]) -> None:
        """Drop every row that the store no longer has."""
        self._remove(np.nonzero(self.columns.alive & ~np.isin(self.columns.ints("sequence"), sequences))[0])

    def _remove(self, rows: NDArray[np.int64]) -> None:
        if len(rows):
            self.index.remove(rows)
            self.columns.alive[rows] = False

    def upkeep(self) -> None:
        """Bounded work between batches: swap in an index that was trained meanwhile, drop dead rows once they are many."""
        state = self.index.poll()
        if state.error is not None:
            log.warning("index_training_failed", traces=self.live, exc_info=state.error)
        if self.index.needs_compaction:
            self.columns.renumber(self.index.compact())

    def close(self) -> None:
        self.index.close()

    def mask(self, wanted: Conditions | None, labels: LabelSource) -> Mask | None:
        return None if wanted is None else mask(wanted, self.columns, self.owner_id, labels)

    def newest(self, before: int, limit: int, allowed: Mask) -> NDArray[np.int64]:
        """Rows that are alive and allowed, with first_sequence below `before`: the `limit` newest, newest first."""
        first = self.columns.ints("first_sequence")
        rows = np.nonzero(self.columns.alive & allowed & (first < before))[0]
        return rows[np.argsort(-first[rows], kind="stable")[:limit]]


def load_partition(reader: Reader, owner: Owner, make_index: MakeIndex, dimension: int, max_traces: int) -> Partition | None:
    """Read an owner's rows into a new partition, in one consistent read. None: there is no such owner.

    Raises CapacityReached, StoreUnavailable.
    """
    with reader.snapshot():
        found = reader.owner(owner)
        if found is None:
            return None
        if found.traces > max_traces:
            raise CapacityReached(
                f"the owner's {found.traces} traces do not fit into memory (engine.index_memory_limit allows {max_traces}): raise it"
            )
        partition = Partition(owner, found.owner_id, make_index(), dimension)
        partition.through = reader.last_sequence()
        try:
            for rows in reader.load(found.owner_id):
                partition.index.add(np.frombuffer(rows.vectors, "<f4").reshape(-1, dimension))
                partition.columns.append_loaded(rows)
        except BaseException:
            partition.close()
            raise
    return partition
