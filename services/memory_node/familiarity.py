"""The associative index of a partition: how familiar is a new vector, without a search. Derived, in memory only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.associative import AssociativeIndex, AssociativeOptions, rebuilt
from ndml.btsp.code import CodeOptions, SparseCoder
from services.memory_node.records import F32

I64 = NDArray[np.int64]

# Room for as many traces again: the index is built anew each time an owner doubles.
_HEADROOM = 2


class Familiarity:
    """`from_rows`: below this many rows exact search costs less and decides alone. `most_neurons`: bounds the memory, 1 KiB each."""

    def __init__(self, dimension: int, from_rows: int, most_neurons: int) -> None:
        self._options = AssociativeOptions(CodeOptions.fitting(dimension))
        self._from_rows = from_rows
        self._most_neurons = most_neurons
        self._index: AssociativeIndex | None = None

    @property
    def nbytes(self) -> int:
        return 0 if self._index is None else self._index.nbytes

    def wanted(self, rows: int) -> bool:
        """True when the partition has grown so far that `build` pays: the first time, and whenever the index is full and may grow."""
        if self._index is None:
            return rows >= self._from_rows and self._holds(rows)
        if self._index.full and not self._holds(rows):
            self._index = None  # it is not asked any more
        return self._index is not None and self._index.full

    def _holds(self, rows: int) -> bool:
        return self._options.sized(rows, most=self._most_neurons).capacity > rows

    def build(self, vectors: F32, sequences: I64) -> None:
        """Learn all rows, oldest first. Codes are centred on the mean of these rows: on a foreign mean familiarity is half blind."""
        options = self._options.sized(_HEADROOM * len(vectors), most=self._most_neurons)
        coder = SparseCoder(options.code, vectors.mean(axis=0, dtype=np.float64).astype(np.float32))
        self._index = rebuilt(options, coder, vectors, _keys(sequences))

    def learn(self, vectors: F32, sequences: I64) -> None:
        """Store new rows [n, d], once built."""
        if self._index is not None and not self._index.full:
            self._index.store(self._index.coder.encode(vectors), _keys(sequences))

    def of(self, vectors: F32) -> F32 | None:
        """Familiarity [n] in 0..1; None where exact search decides alone: too few rows, or more than the neurons can tell apart."""
        if self._index is None or self._index.full:
            return None
        return self._index.familiarity(self._index.coder.encode(vectors))


def _keys(sequences: I64) -> list[bytes]:
    return [int(sequence).to_bytes(16, "little") for sequence in sequences]
