"""States of many traces joined at once: array operations over whole columns, no loop over traces. 10^5 traces are one call.

`StateColumns` hold what authors contributed, a row for each (trace, replica); `LevelBlock` the accumulators alone, [traces, replicas, 8].
Numbers are compared by their bits, in an order that is that of the numbers: -0 stands below +0 and NaN at the ends. So the join is one to
the last bit on every replica, whatever a faulty one sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.record import ORDER, RECORD, decoded, encoded
from ndml.btsp.timescales import MODES
from ndml.errors import FieldInvalid

Rows = NDArray[Any]
"""[n] of dtype ndml.btsp.record.RECORD."""
Counters = NDArray[np.uint64]

ID_BYTES = 16
KEY = np.dtype("S24")
"""Trace id, then replica, big-endian: sorts by trace, then by replica. All keys are full, so numpy's cutting of final zeros is no loss."""
_FRAMED = np.dtype([("version", "u1"), ("body", RECORD)])
LARGEST = ("uses", "successes", "failures")
"""Counts that only grow: the larger, one by one, as the accumulators."""


def bodies(states: Sequence[bytes]) -> Rows:
    """Rows of records of the right length, whatever their numbers: a join is defined for all."""
    rows: Rows = np.frombuffer(b"".join(states), _FRAMED)["body"]
    return rows


def joined_states(our_counters: Counters, ours: Rows, their_counters: Counters, theirs: Rows) -> tuple[Counters, Rows]:
    """Contributions [n] of the same authors to the same traces, row by row: (counters, states).

    An author alone writes its contributions, so they follow each other: all comes from the one with the larger counter (of equal ones by
    record.ORDER, then it does not matter). Accumulators and counts never go down, so they are the larger one by one.
    """
    rows = ours.copy()
    newer, level = their_counters > our_counters, np.flatnonzero(their_counters == our_counters)
    newer[level] = later(ours[level], theirs[level])
    rows[newer] = theirs[newer]
    rows["levels"] = raised(ours["levels"], theirs["levels"])
    for name in LARGEST:
        rows[name] = np.maximum(ours[name], theirs[name])
    return np.maximum(our_counters, their_counters), rows


def later(ours: Rows, theirs: Rows) -> NDArray[np.bool_]:
    """[n]: theirs is larger in the first of record.ORDER in which the two differ."""
    newer = np.zeros(len(ours), np.bool_)
    undecided = np.flatnonzero((_raw(ours) != _raw(theirs)).any(axis=1))  # copies of one state are the rule
    for name in ORDER:
        if not len(undecided):
            break
        mine, other = _ordered(ours[name][undecided]), _ordered(theirs[name][undecided])
        newer[undecided] = other > mine
        undecided = undecided[other == mine]
    return newer


def _raw(rows: Rows) -> NDArray[np.uint8]:
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), RECORD.itemsize)


def raised(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The larger, element by element."""
    return np.where(_ordered(theirs) > _ordered(ours), theirs, ours)


def _ordered(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the order of the values: bits of a float, those of a negative one turned round."""
    if values.dtype.kind != "f":
        return values
    width = 8 * values.dtype.itemsize
    bits = values.view(f"<i{width // 8}")
    turned: NDArray[Any] = bits ^ ((bits >> (width - 1)) & ((1 << (width - 1)) - 1))
    return turned


@dataclass(frozen=True, slots=True)
class StateColumns:
    """Contributions of many authors to many traces: keys [m] sorted and distinct, counters [m], states [m]."""

    keys: NDArray[np.bytes_]
    counters: Counters
    states: Rows

    @classmethod
    def of(cls, ids: Sequence[bytes], replicas: Sequence[int], counters: Sequence[int], states: Sequence[bytes]) -> StateColumns:
        """From rows in any order. FieldInvalid: a bad id or state, columns of different length, a (trace, replica) that stands twice."""
        if not len(ids) == len(replicas) == len(counters) == len(states):
            raise FieldInvalid("columns differ in length: give one value in each for every row", field="states")
        if any(len(trace_id) != ID_BYTES for trace_id in ids):
            raise FieldInvalid(f"a trace id has not {ID_BYTES} bytes", field="ids")
        keys = np.array([i + r.to_bytes(8, "big") for i, r in zip(ids, replicas, strict=True)], KEY)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        if (keys[1:] == keys[:-1]).any():
            raise FieldInvalid("a replica contributes twice to one trace: give one row for each", field="replicas")
        return cls(keys, np.array(counters, np.uint64)[order], decoded(states)[order])

    def rows(self) -> list[tuple[bytes, int, int, bytes]]:
        """(trace id, replica, counter, state) of each row, sorted."""
        raw, size = self.keys.tobytes(), KEY.itemsize
        keys = [raw[at : at + size] for at in range(0, len(raw), size)]
        split = ((key[:ID_BYTES], int.from_bytes(key[ID_BYTES:], "big")) for key in keys)
        return [(*key, c, s) for key, c, s in zip(split, self.counters.tolist(), encoded(self.states), strict=True)]

    def joined(self, other: StateColumns) -> StateColumns:
        """Least upper bound: rows of either side, those of both joined."""
        if np.array_equal(self.keys, other.keys):
            return StateColumns(self.keys, *joined_states(self.counters, self.states, other.counters, other.states))
        at = np.searchsorted(self.keys, other.keys)
        shared = np.zeros(len(at), np.bool_)
        inside = at < len(self.keys)
        shared[inside] = self.keys[at[inside]] == other.keys[inside]
        counters, states = self.counters.copy(), self.states.copy()
        both = at[shared]
        if len(both):
            counters[both], states[both] = joined_states(counters[both], states[both], other.counters[shared], other.states[shared])
        new = ~shared
        places = at[new] + np.arange(int(new.sum()))
        ours = np.ones(len(self.keys) + len(places), np.bool_)
        ours[places] = False
        columns = ((self.keys, other.keys[new]), (counters, other.counters[new]), (states, other.states[new]))
        return StateColumns(*(_interleaved(mine, theirs, ours) for mine, theirs in columns))


def _interleaved(ours: NDArray[Any], theirs: NDArray[Any], where_ours: NDArray[np.bool_]) -> NDArray[Any]:
    both = np.empty(len(where_ours), ours.dtype)
    both[where_ours], both[~where_ours] = ours, theirs
    return both


@dataclass(frozen=True, slots=True)
class LevelBlock:
    """Accumulators of every replica: ids [n] (S16) and replicas [r] sorted and distinct, levels [n, r, 8]; -inf where nothing happened."""

    ids: NDArray[np.bytes_]
    replicas: Counters
    levels: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.levels.shape != (len(self.ids), len(self.replicas), MODES):
            shape = (len(self.ids), len(self.replicas), MODES)
            raise FieldInvalid(f"levels have the shape {self.levels.shape}: give {shape}", field="levels")

    def joined(self, other: LevelBlock) -> LevelBlock:
        """Least upper bound, over all traces and replicas of either side."""
        if np.array_equal(self.ids, other.ids) and np.array_equal(self.replicas, other.replicas):
            return LevelBlock(self.ids, self.replicas, raised(self.levels, other.levels))
        ids, replicas = np.union1d(self.ids, other.ids), np.union1d(self.replicas, other.replicas)
        levels = np.full((len(ids), len(replicas), MODES), -np.inf)
        for block in (self, other):
            where = np.ix_(np.searchsorted(ids, block.ids), np.searchsorted(replicas, block.replicas))
            levels[where] = raised(levels[where], block.levels)
        return LevelBlock(ids, replicas, levels)


def empty_columns() -> StateColumns:
    """Columns without a row, the bottom of the lattice."""
    return StateColumns(np.empty(0, KEY), np.empty(0, np.uint64), np.empty(0, RECORD))
