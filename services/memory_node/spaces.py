"""Vectors of what traces hold beside their text, a space for each model that made them. Derived from the rows' payloads, never stored.

A space is exact: unit float32 rows, compared with every query by one product. Vectors of two spaces are never compared. Belongs to the
engine's thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ndml.errors import CapacityReached, FieldInvalid
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1.types_pb2 import MemoryTrace
from services.memory_node.filters import Mask
from services.memory_node.records import F32, unit_vectors
from services.memory_node.signals.arrays import grown

I64 = NDArray[np.int64]
MOST_SPACES = 32
"""Of one owner: models of images, of sound, and those that they replaced."""
_SPACE_BYTES, _ENTRY_BYTES = 1000, 200


class _Key(NamedTuple):
    """Vectors of one model that have another number of components are another space: they cannot be compared."""

    name: str
    dimension: int


class _Space:
    """Vectors [n, d], and the row that each belongs to [n], -1: none any more."""

    def __init__(self, dimension: int) -> None:
        self._vectors: F32 = np.empty((0, dimension), np.float32)
        self._rows: I64 = np.empty(0, np.int64)
        self._count = 0

    @property
    def nbytes(self) -> int:
        return self._vectors.nbytes + self._rows.nbytes + _SPACE_BYTES

    @property
    def empty(self) -> bool:
        return not (self._rows[: self._count] >= 0).any()

    def append(self, vectors: F32, rows: I64) -> None:
        end = self._count + len(rows)
        self._vectors, self._rows = grown(self._vectors, self._count, end), grown(self._rows, self._count, end)
        self._vectors[self._count : end], self._rows[self._count : end] = vectors, rows
        self._count = end

    def remove(self, rows: I64) -> None:
        held = self._rows[: self._count]
        held[np.isin(held, rows)] = -1

    def renumber(self, new_rows: I64) -> None:
        held = self._rows[: self._count]
        numbers = np.where(held >= 0, new_rows[np.maximum(held, 0)], -1)
        kept = numbers >= 0
        self._vectors, self._rows = np.ascontiguousarray(self._vectors[: self._count][kept]), numbers[kept]
        self._count = len(self._rows)

    def cosines(self, queries: F32, size: int) -> F32:
        """[q, size] of each row its best vector's; -inf where it has none."""
        best = np.full((len(queries), size), -np.inf, np.float32)
        held = np.flatnonzero(self._rows[: self._count] >= 0)
        rows = self._rows[held]
        for found, scores in zip(best, queries @ self._vectors[: self._count].T, strict=True):
            np.maximum.at(found, rows, scores[held])
        return best

    def first_of(self, rows: I64) -> F32:
        """[m, d] the first vector of each row, zeros where it has none."""
        held, found = self._rows[: self._count], np.zeros((len(rows), self._vectors.shape[1]), np.float32)
        for i, row in enumerate(rows.tolist()):
            places = np.flatnonzero(held == row)
            if row >= 0 and len(places):
                found[i] = self._vectors[places[0]]
        return found


class Spaces:
    """Every space of an owner, and how much of each row's payload answers leave out."""

    def __init__(self) -> None:
        self._spaces: dict[_Key, _Space] = {}
        self._left_out: dict[int, int] = {}

    @property
    def nbytes(self) -> int:
        return sum(space.nbytes for space in self._spaces.values()) + _ENTRY_BYTES * len(self._left_out)

    def append(self, first: int, traces: Iterable[MemoryTrace]) -> None:
        """Rows from `first` on. A vector without direction is passed over: no gateway lets one in."""
        found: dict[_Key, list[tuple[int, F32]]] = {}
        for row, trace in enumerate(traces, first):
            if not trace.contents:
                continue
            self._left_out[row] = sum(content.ByteSize() - len(content.text) for content in trace.contents)
            for name, vector in _vectors(trace):
                if (unit := _unit(vector)) is not None:
                    found.setdefault(_Key(name, len(unit)), []).append((row, unit))
        for key, some in found.items():
            space = self._spaces.setdefault(key, _Space(key.dimension))
            space.append(np.stack([unit for _, unit in some]), np.array([row for row, _ in some], np.int64))

    def remove(self, rows: I64) -> None:
        """Rows that end: they are in no space any more."""
        if self._left_out:
            for space in self._spaces.values():
                space.remove(rows)
            for row in rows.tolist():
                self._left_out.pop(row, None)
            self._spaces = {key: space for key, space in self._spaces.items() if not space.empty}

    def renumber(self, new_rows: I64) -> None:
        """Row i becomes new_rows[i]; dropped where that is negative."""
        for space in self._spaces.values():
            space.renumber(new_rows)
        self._left_out = {int(new_rows[row]): size for row, size in self._left_out.items() if new_rows[row] >= 0}

    def left_out(self, rows: I64) -> I64 | int:
        """Bytes of contents, but for their words, in the payloads of rows, in their shape; 0 where no row has any."""
        if not self._left_out:
            return 0
        return np.array([self._left_out.get(row, 0) for row in rows.ravel().tolist()], np.int64).reshape(rows.shape)

    def search(self, name: str, queries: F32, k: int, size: int, allowed: Mask | None) -> tuple[F32, I64]:
        """Cosines [q, k], best first, and rows (-1: none) of unit queries [q, d] among `size` rows, of those that are allowed.

        Raises FieldInvalid where the space has vectors of another number of components.
        """
        count = min(k, size)
        nothing = np.full((len(queries), count), -np.inf, np.float32), np.full((len(queries), count), -1, np.int64)
        space = self._spaces.get(_Key(name, queries.shape[1]))
        if space is None:
            self._check(name, queries.shape[1], "embedding.vector")
            return nothing
        cosines = space.cosines(queries, size)
        if allowed is not None:
            cosines[:, ~allowed] = -np.inf
        rows = np.argpartition(-cosines, count - 1, axis=1)[:, :count] if count < size else np.tile(np.arange(size), (len(queries), 1))
        rows = np.take_along_axis(rows, np.lexsort((rows, -np.take_along_axis(cosines, rows, axis=1)), axis=1), axis=1)
        scores = np.take_along_axis(cosines, rows, axis=1)
        return scores, np.where(np.isfinite(scores), rows, -1)

    def reconstruct(self, name: str, rows: I64, dimension: int) -> F32:
        """[m, d] a vector of each row in the space, zeros where it has none."""
        space = self._spaces.get(_Key(name, dimension))
        return np.zeros((len(rows), dimension), np.float32) if space is None else space.first_of(rows)

    def check(self, traces: Sequence[MemoryTrace], room_bytes: int) -> None:
        """Raises FieldInvalid for vectors that their spaces cannot take, CapacityReached where they need more than `room_bytes`."""
        dimensions = {key.name: key.dimension for key in self._spaces}
        size = 0
        for name, vector in (each for trace in traces for each in _vectors(trace)):
            dimension = len(vector) // 4
            if dimensions.setdefault(name, dimension) != dimension:
                raise _other_dimension(name, dimensions[name], dimension, "contents.embeddings.vector")
            if len(dimensions) > MOST_SPACES:
                raise FieldInvalid(f"the owner has vectors of {MOST_SPACES} models, as many as are kept", field="contents.embeddings.model")
            size += len(vector)
        if size > max(0, room_bytes):
            raise CapacityReached(
                "the owner's vectors take as much memory as there is (engine.index_memory_limit): raise it or delete traces with contents"
            )

    def _check(self, name: str, dimension: int, field: str) -> None:
        """Raises FieldInvalid where the space is there under another number of components."""
        there = [key.dimension for key in self._spaces if key.name == name]
        if there:
            raise _other_dimension(name, there[0], dimension, field)


def bringing(action: str | None, operation: pb.Operation) -> list[MemoryTrace]:
    """Traces of a write whose contents have vectors. action: what the operation asks for."""
    traces = operation.put.traces if action == "put" else (operation.update.trace,) if action == "update" else ()
    return [trace for trace in traces if trace.contents and _vectors(trace)]


def _other_dimension(name: str, there: int, given: int, field: str) -> FieldInvalid:
    return FieldInvalid(f"the vector has {given} components, the owner's others of {name!r} have {there}: one model, one size", field=field)


def _vectors(trace: MemoryTrace) -> list[tuple[str, bytes]]:
    return [(embedding.model, embedding.vector) for content in trace.contents for embedding in content.embeddings]


def _unit(vector: bytes) -> F32 | None:
    """As a unit vector; None where it has no direction."""
    if not vector or len(vector) % 4:
        return None
    units, errors = unit_vectors([vector], len(vector) // 4)
    return None if errors else units[0]
