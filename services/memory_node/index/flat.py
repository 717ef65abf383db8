"""Exact index on one contiguous float32 slab: the fastest there is while a partition is small."""

from __future__ import annotations

import numpy as np

from services.memory_node.index.exact import exact_search, padded, padding
from services.memory_node.index.options import IndexOptions
from services.memory_node.index.ports import F32, I64, Mask, checked_k, checked_queries, checked_rows, checked_vectors
from services.memory_node.index.rows import LiveRows, grown

# Copying the allowed rows out costs about four times as much as reading them in place: below this share it wins.
GATHER_BELOW = 0.25


class FlatIndex:
    """VectorIndex without approximation. Rows once written never move or change until `compact`, so a view of them is a snapshot."""

    kind = "flat"

    def __init__(self, options: IndexOptions) -> None:
        self._options = options
        self._slab = np.empty((0, options.dimension), dtype=np.float32)
        self._rows = LiveRows(options)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def live(self) -> int:
        return self._rows.live

    @property
    def nbytes(self) -> int:
        return self._slab.nbytes + self._rows.nbytes

    @property
    def needs_compaction(self) -> bool:
        return self._rows.needs_compaction

    @property
    def vectors(self) -> F32:
        """Read-only view [len, d] of all rows; it stays as it is while the index grows, shrinks or compacts."""
        view = self._slab[: len(self)]
        view.flags.writeable = False
        return view

    @property
    def alive(self) -> Mask:
        """View [len]: True where a row is alive."""
        return self._rows.mask

    def add(self, vectors: F32) -> None:
        block = checked_vectors(vectors, self._options.dimension)
        start, end = len(self), len(self) + len(block)
        if end > len(self._slab):
            slab = np.empty((grown(len(self._slab), end, self._options.growth), self._options.dimension), dtype=np.float32)
            slab[:start] = self._slab[:start]
            self._slab = slab
        self._slab[start:end] = block
        self._rows.extend(len(block))

    def remove(self, rows: I64) -> None:
        self._rows.remove(rows)

    def search(self, queries: F32, k: int, allowed: Mask | None = None, sure: int = 0) -> tuple[F32, I64]:
        batch = checked_queries(queries, self._options.dimension)
        mask, count = self._rows.select(allowed)
        found = min(checked_k(k), count)
        if not found or not len(batch):
            return padding(len(batch), k)
        return padded(*self._exact(batch, found, mask, count), k)

    def _exact(self, batch: F32, k: int, mask: Mask | None, count: int) -> tuple[F32, I64]:
        vectors = self._slab[: len(self)]
        if mask is None or count > GATHER_BELOW * len(self) or 4 * count * vectors.shape[1] > self._options.block_bytes:
            return exact_search(vectors, batch, k, self._options.block_bytes, mask)
        chosen = np.flatnonzero(mask)
        scores, places = exact_search(vectors[chosen], batch, k, self._options.block_bytes)
        return scores, chosen[places]

    def reconstruct(self, rows: I64) -> F32:
        return self._slab[checked_rows(rows, len(self))]

    def compact(self) -> I64:
        self._slab = self._slab[: len(self)][self.alive]
        return self._rows.compact()

    def maintain(self) -> None:
        """Nothing to do: the slab is always in its best shape."""

    def close(self) -> None:
        """Nothing runs in the background."""
