"""The associative index of a partition: how familiar is a new vector, without a search. Derived, in memory only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

AssociativeIndex = AssociativeOptions = SparseCoder = Any  # TEMPORARY
from services.memory_node.records import F32

I64 = NDArray[np.int64]


class Familiarity:
    """`from_rows`: below this many rows exact search costs less and decides alone."""

    def __init__(self, dimension: int, from_rows: int) -> None:
        self._options: Any = None
        self._from_rows = from_rows
        self._index: Any = None
        self._coder: Any = None

    @property
    def nbytes(self) -> int:
        return 0 if self._index is None else self._index.nbytes

    def wanted(self, rows: int) -> bool:
        """True when the partition has grown so far that `build` pays."""
        return self._index is None and rows >= self._from_rows

    def build(self, vectors: F32, sequences: I64) -> None:
        """Learn all rows, oldest first. Codes are centred on the mean of these rows: on a foreign mean familiarity is half blind."""
        self._coder = SparseCoder(self._options, vectors.mean(axis=0))
        self._index = AssociativeIndex(self._options, self._coder)
        self.learn(vectors, sequences)

    def learn(self, vectors: F32, sequences: I64) -> None:
        """Store new rows [n, d], once built."""
        if self._index is None or self._coder is None or self._index.full:
            return
        self._index.store(self._coder.encode(vectors), [int(s).to_bytes(16, "little") for s in sequences])

    def of(self, vectors: F32) -> F32 | None:
        """Familiarity [n] in 0..1; None where exact search decides alone: too few rows, or more than the synapses can tell apart."""
        if self._index is None or self._coder is None or self._index.full:
            return None
        return self._index.familiarity(self._coder.encode(vectors))
