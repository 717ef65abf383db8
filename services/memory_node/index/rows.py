"""Which rows are alive."""

from __future__ import annotations

import numpy as np

from ndml.errors import FieldInvalid
from services.memory_node.index.options import IndexOptions
from services.memory_node.index.ports import I64, Mask, checked_rows


def grown(capacity: int, needed: int, factor: float) -> int:
    """Capacity that holds `needed`: unchanged if it does already, else the larger of `needed` and the old one times `factor`."""
    return capacity if needed <= capacity else max(needed, int(capacity * factor))


class LiveRows:
    """One flag per row: alive, or dead and waiting for compaction."""

    def __init__(self, options: IndexOptions) -> None:
        self._options = options
        self._flags = np.ones(0, dtype=np.bool_)
        self._length = 0
        self.dead = 0

    def __len__(self) -> int:
        return self._length

    @property
    def live(self) -> int:
        return self._length - self.dead

    @property
    def nbytes(self) -> int:
        return self._flags.nbytes

    @property
    def mask(self) -> Mask:
        """View [len]: True where alive."""
        return self._flags[: self._length]

    @property
    def needs_compaction(self) -> bool:
        return self.dead >= max(self._options.tombstone_floor, self._options.tombstone_share * self._length)

    def extend(self, count: int) -> None:
        """Append `count` live rows."""
        needed = self._length + count
        if needed > len(self._flags):
            flags = np.ones(grown(len(self._flags), needed, self._options.growth), dtype=np.bool_)
            flags[: self._length] = self.mask
            self._flags = flags
        self._length = needed

    def remove(self, rows: I64) -> None:
        """Mark rows dead, once or again. FieldInvalid when a row does not exist."""
        numbers = np.unique(checked_rows(rows, self._length))
        self.dead += int(np.count_nonzero(self._flags[numbers]))
        self._flags[numbers] = False

    def select(self, allowed: Mask | None) -> tuple[Mask | None, int]:
        """(mask of rows that may be returned, how many); None instead of a mask that is True everywhere. FieldInvalid."""
        if allowed is None:
            return (self.mask if self.dead else None), self.live
        if allowed.shape != (self._length,):
            raise FieldInvalid(f"filter mask has shape {allowed.shape}, the index holds {self._length} rows", field="allowed")
        mask = allowed.astype(np.bool_, copy=False)
        mask = mask & self.mask if self.dead else mask
        count = int(np.count_nonzero(mask))
        return (None if count == self._length else mask), count

    def compact(self) -> I64:
        """Forget dead rows; returns old row -> new row, -1 for a dead one."""
        alive = self.mask
        mapping = np.where(alive, np.cumsum(alive) - 1, -1).astype(np.int64)
        self._length = self.live
        self._flags = np.ones(self._length, dtype=np.bool_)
        self.dead = 0
        return mapping
