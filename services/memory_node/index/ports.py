"""What the memory node asks of a vector index, and the array types that cross the seam."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ndml.errors import EmbeddingDimensionMismatch, EmbeddingNotFinite, FieldInvalid

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]


class VectorIndex(Protocol):
    """The unit vectors of one owner, addressed by dense row number in order of insertion; similarity is the inner product.

    Not thread-safe: one worker thread owns it. Vectors and queries are finite unit float32 [n, d]; rows are int64.
    Dead rows (tombstones) keep their number until `compact`.
    """

    @property
    def kind(self) -> str:
        """Name of the structure in use, for statistics."""

    def __len__(self) -> int:
        """Rows, dead ones included."""

    @property
    def live(self) -> int:
        """Rows that a search may return."""

    @property
    def nbytes(self) -> int:
        """Bytes held, growth reserve included, so that the node can bound them."""

    def add(self, vectors: F32) -> None:
        """Append [n, d]; they become rows len .. len+n-1. EmbeddingDimensionMismatch, EmbeddingNotFinite: nothing was added."""

    def remove(self, rows: I64) -> None:
        """Mark rows dead; removing a dead row again is no error. FieldInvalid when a row does not exist: nothing was removed."""

    def search(self, queries: F32, k: int, allowed: Mask | None = None, sure: int = 0) -> tuple[F32, I64]:
        """The k most similar live rows to each of [b, d], among `allowed` [len] when given.

        `sure`: how many of the first must be the true ones; those after it may miss some, where that is cheaper. 0: all k.

        Returns (scores [b, k] descending, rows [b, k]), padded with -inf and -1 where there are fewer than k.
        Raises FieldInvalid (k negative, mask of another length), EmbeddingDimensionMismatch.
        """

    def reconstruct(self, rows: I64) -> F32:
        """Vectors [m, d] of the rows, dead or alive; rounded to half precision where the index keeps no more. FieldInvalid: no such row."""

    @property
    def needs_compaction(self) -> bool:
        """True when so many rows are dead that `compact` pays."""

    def compact(self) -> I64:
        """Drop dead rows and renumber; returns old row -> new row [old len], -1 for a dropped one. Order is kept. Costs O(len)."""

    def maintain(self) -> None:
        """Bounded upkeep; the worker calls it between batches."""

    def close(self) -> None:
        """Give up what runs in the background; the index must not be used afterwards."""


def checked_vectors(vectors: F32, dimension: int) -> F32:
    """`vectors` as contiguous float32 [n, dimension], finite. EmbeddingDimensionMismatch, EmbeddingNotFinite."""
    block = checked_queries(vectors, dimension)
    if not np.isfinite(block).all():
        raise EmbeddingNotFinite("embedding holds NaN or infinity; send finite numbers", field="embedding")
    return block


def checked_queries(queries: F32, dimension: int) -> F32:
    """`queries` as contiguous float32 [b, dimension]. EmbeddingDimensionMismatch."""
    block = np.ascontiguousarray(queries, dtype=np.float32)
    if block.ndim != 2 or block.shape[1] != dimension:
        message = f"embedding has shape {queries.shape}, this index holds [n, {dimension}]; use the model that wrote the memories"
        raise EmbeddingDimensionMismatch(message, field="embedding")
    return block


def checked_rows(rows: I64, length: int) -> I64:
    """`rows` as int64 [m], each in 0..length-1. FieldInvalid."""
    numbers = np.asarray(rows, dtype=np.int64).reshape(-1)
    if numbers.size and (int(numbers.min()) < 0 or int(numbers.max()) >= length):
        raise FieldInvalid(f"rows must lie in 0..{length - 1}; the index holds {length}", field="rows")
    return numbers


def checked_k(k: int) -> int:
    """`k`, not negative. FieldInvalid."""
    if k < 0:
        raise FieldInvalid(f"k is {k}; ask for 0 or more hits", field="k")
    return k
