"""Late interaction: how near each content word of a query comes to the nearest content word of a memory. Pure numpy.

Of a memory's words the signs of the components are kept, of a query's the components themselves (docs/adr/0010): 48 bytes a word with 384
dimensions, so a memory of ten words takes half a kilobyte. Only candidates of other signals are compared.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndml.errors import FieldInvalid
from services.memory_node.columns import order_of
from services.memory_node.records import F32
from services.memory_node.signals.arrays import grown
from services.memory_node.vectors import word_bytes

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]
Q8 = NDArray[np.int8]
BestSums = Callable[[Q8, U8, I64, I32], I32]

_LEAST_HOLES = 4096
"""Words of dropped rows below which nothing is moved."""
_AT_ONCE = 4096
"""Words that are unpacked at once: 6 MB with 384 dimensions."""


class WordPool:
    """Word vectors of an owner's rows, row by row; `dimension` is that of the sentence vectors. Belongs to the engine's thread."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._words: U8 = np.empty((0, word_bytes(dimension)), np.uint8)
        self._used = 0
        self._start: I64 = np.empty(0, np.int64)
        self._count: I32 = np.empty(0, np.int32)
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    @property
    def nbytes(self) -> int:
        return self._words.nbytes + self._start.nbytes + self._count.nbytes

    def append(self, blobs: Sequence[bytes]) -> None:
        """Rows at the end; each blob as Embedding.word_vectors has it, empty where there are none."""
        width = self._words.shape[1]
        counts = np.array([len(blob) // width for blob in blobs], np.int32)
        new = np.frombuffer(b"".join(blobs), np.uint8).reshape(-1, width)
        self._reserve(len(blobs), len(new))
        at = slice(self._rows, self._rows + len(blobs))
        self._start[at] = self._used + np.cumsum(counts, dtype=np.int64) - counts
        self._count[at] = counts
        self._words[self._used : self._used + len(new)] = new
        self._rows, self._used = self._rows + len(blobs), self._used + len(new)

    def renumber(self, new_rows: I64) -> None:
        """Row i becomes new_rows[i]; dropped where that is negative, and its words with it."""
        order = order_of(new_rows)
        self._start, self._count, self._rows = self._start[order], self._count[order], len(order)
        if self._used - int(self._count.sum()) >= _LEAST_HOLES or not len(order):
            places, _ = _places(self._start, self._count)
            self._words, self._used = self._words[places], len(places)
            self._start = np.cumsum(self._count, dtype=np.int64) - self._count

    def similarities(self, query: Q8, rows: I64) -> F32:
        """[m, n]: of each of the m query words [m, dimension] the cosine to the nearest word of each row, of whose components the signs are
        known, as if they were of equal size; 0 for a row without words."""
        found = np.zeros((len(query), len(rows)), np.float32)
        counts = self._count[rows]
        full = np.flatnonzero(counts)
        if not len(query) or not len(full):
            return found
        sums = (native() or best_sums)(query, self._words, self._start[rows[full]], counts[full])
        lengths = np.maximum(np.linalg.norm(query.astype(np.float32), axis=1, keepdims=True), 1) * np.float32(np.sqrt(self.dimension))
        found[:, full] = sums / lengths
        return found

    def has(self, rows: I64) -> NDArray[np.bool_]:
        """[n] True where the row has words."""
        has: NDArray[np.bool_] = self._count[rows] > 0
        return has

    def _reserve(self, rows: int, words: int) -> None:
        end = self._rows + rows
        self._start, self._count = grown(self._start, self._rows, end), grown(self._count, self._rows, end)
        self._words = grown(self._words, self._used, self._used + words)


def query_words(blob: bytes, dimension: int) -> Q8:
    """Vectors [m, dimension] of a query's content words. Raises FieldInvalid."""
    if len(blob) % dimension:
        raise FieldInvalid(f"{len(blob)} bytes are no word vectors of {dimension} components", field="texts.word_vectors")
    return np.frombuffer(blob, np.int8).reshape(-1, dimension)


def best_sums(query: Q8, words: U8, start: I64, count: I32) -> I32:
    """[m, n]: the largest sum of a query word's components with the signs of any of a row's words: `count` from `start`, 1 or more."""
    places, begins = _places(start, count)
    values = query.astype(np.float32)  # sums of whole numbers below 2^24: exact
    parts = []
    for at in range(0, len(places), _AT_ONCE):
        bits = np.unpackbits(words[places[at : at + _AT_ONCE]], axis=1, count=query.shape[1]).astype(np.float32)
        # Signs are 2 b - 1: twice the sum over the set bits, less the sum over all.
        parts.append(2 * (values @ bits.T) - values.sum(axis=1, keepdims=True))
    best: I32 = np.maximum.reduceat(np.concatenate(parts, axis=1), begins, axis=1).astype(np.int32)
    return best


@lru_cache(maxsize=1)
def native() -> BestSums | None:
    """`best_sums` in C, several times faster, or None where it was not built."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_late{suffix}")
        if path.is_file():
            library = ctypes.CDLL(str(path))
            library.late_prepare()
            return _bound(library.late_best)
    return None


def _bound(function: Any) -> BestSums:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [pointer, pointer, number, pointer, number, pointer, pointer, number, pointer, pointer]
    function.restype = None

    def call(query: Q8, words: U8, start: I64, count: I32) -> I32:
        m, width = len(query), words.shape[1]
        padded = np.zeros((m, 8 * width), np.int16)
        padded[:, : query.shape[1]] = query
        total = query.sum(axis=1, dtype=np.int32)
        start, count = np.ascontiguousarray(start), np.ascontiguousarray(count)
        scratch, best = np.empty(8 * width, np.int16), np.empty((m, len(start)), np.int32)
        function(
            *(padded.ctypes.data, total.ctypes.data, m, words.ctypes.data, width),
            *(start.ctypes.data, count.ctypes.data, len(start), scratch.ctypes.data, best.ctypes.data),
        )
        return best

    return call


def _places(start: I64, count: I32) -> tuple[I64, I64]:
    """Places of the words of rows, one row after the other, and where each row's begin among them."""
    ends = np.cumsum(count, dtype=np.int64)
    begins = ends - count
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(start - begins, count) + np.arange(total), begins
