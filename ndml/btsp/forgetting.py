"""Which traces leave the index first when a bound is reached: forgetting pressure, and the choice by it.

    P_i = w_red [red_i > near] rank(red_i) - w_sal rank(sal_i) - w_rec exp(-dn_i / n_rec) - w_str strength_i - w_z z_i

rank is the share of the rows below, 0..1; red the largest cosine to another stored trace; dn how many turns ago the trace was learned.
Salience leads: at half the capacity it keeps .8 of what is asked for later, first in first out .5. Recency adds nothing, redundancy only
among near duplicates: hence the defaults. Forgetting bounds memory at the least loss; it does not make recall better.

To leave the index is not to be deleted: the store keeps the row, and this node's choice says nothing to other nodes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.checks import numbers
from ndml.errors import FieldInvalid

F64 = NDArray[np.float64]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ForgettingOptions:
    """Weights of the pressure."""

    salience: float = 1.5
    """Leads all others: the one term that keeps what is asked for later."""
    redundancy: float = 1.0
    """Of two near duplicates, one is enough. Smaller than salience, so that a duplicate of something salient outlives small talk."""
    near: float = 0.9
    """Cosine from which another trace makes this one redundant; below it redundancy cost evidence."""
    recency: float = 0.0
    """Off: it kept less evidence at a quarter of the capacity. What has just been written is protected by its state instead."""
    recency_turns: float = 50.0
    """Turns in which recency falls to 1/e."""
    strength: float = 0.5
    """A trace graded useful outlives one of the same salience: with simulated grades a point of R@10 at half the capacity."""
    consolidated: float = 0.5
    """So does one whose trace was captured (z = 1)."""

    def __post_init__(self) -> None:
        weights = (self.salience, self.redundancy, self.recency, self.strength, self.consolidated)
        if any(not 0 <= weight < np.inf for weight in weights) or not self.recency_turns > 0:
            raise FieldInvalid("weights must be 0 or more and finite, recency_turns above 0", field="forgetting")


@dataclass(frozen=True, slots=True)
class WaterMarks:
    """Eviction starts above `high` and ends at `low` (shares of `capacity`): in rare batches, not with every write."""

    capacity: int
    """Rows that may stand in the index of a scope or a node."""
    high: float = 1.0
    """The bound itself: nothing is forgotten as long as there is room."""
    low: float = 0.9
    """A tenth of room after an eviction: one pass over the columns then pays for capacity / 10 writes."""

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise FieldInvalid(f"capacity is {self.capacity}: set at least 1", field="forgetting.capacity")
        if not 0.0 < self.low <= self.high <= 1.0:
            raise FieldInvalid("set 0 < low <= high <= 1", field="forgetting.low")

    def excess(self, count: int) -> int:
        """Rows to evict at `count` resident rows; 0 below the high mark."""
        return max(0, count - int(self.low * self.capacity)) if count > self.high * self.capacity else 0


def pressure(
    salience: F64,
    *,
    redundancy: F64 | None = None,
    turns_since: F64 | None = None,
    strength: F64 | None = None,
    z: F64 | None = None,
    options: ForgettingOptions | None = None,
) -> F64:
    """Forgetting pressure [n] from columns [n] of the same rows; the higher, the earlier a row goes. None: that term is left out.

    Ranks are among the rows given, ties share theirs. Raises FieldInvalid for columns of unequal length or values that are not finite.
    """
    weights = options or ForgettingOptions()
    total = -weights.salience * ranks(_checked("salience", salience, len(salience)))
    if redundancy is not None:
        near = _checked("redundancy", redundancy, len(total))
        total += weights.redundancy * ranks(near) * (near > weights.near)
    if turns_since is not None:
        total -= weights.recency * np.exp(-np.maximum(_checked("turns_since", turns_since, len(total)), 0.0) / weights.recency_turns)
    if strength is not None:
        total -= weights.strength * _checked("strength", strength, len(total))
    if z is not None:
        total -= weights.consolidated * _checked("z", z, len(total))
    return total


def ranks(values: F64) -> F64:
    """Share of the other rows below each row, 0..1 [n]; equal values have equal ranks, whatever their order."""
    if values.size < 2:
        return np.zeros(values.shape)
    ordered = np.sort(values)
    return np.searchsorted(ordered, values, side="left") / (values.size - 1)


def tie_keys(trace_ids: Sequence[bytes]) -> U64:
    """uint64 [n] out of trace ids, the same in every process: the order among equals, unrelated to time."""
    return np.frombuffer(b"".join(hashlib.blake2b(one, digest_size=8).digest() for one in trace_ids), "<u8").astype(np.uint64)


def choose(pressure: F64, count: int, protected: Bools, keys: U64) -> I64:
    """Rows int64 of the `count` largest pressures that are not protected, largest first; fewer where not so many are free.

    Equal pressures go by `keys`, so that the same rows give the same choice in any order.
    """
    free = np.flatnonzero(~protected)
    wanted = min(max(count, 0), free.size)
    if wanted == 0:
        return np.empty(0, np.int64)
    # Only rows at or above the wanted-th pressure can be chosen: sorting these spares sorting a million for a thousand.
    bound = np.partition(pressure[free], free.size - wanted)[free.size - wanted]
    near = free[pressure[free] >= bound]
    order = np.lexsort((keys[near], -pressure[near]))
    chosen: I64 = near[order[:wanted]].astype(np.int64)
    return chosen


def _checked(name: str, column: F64, rows: int) -> F64:
    values = numbers(column, name)
    if values.shape != (rows,):
        raise FieldInvalid(f"{name} has shape {values.shape}, expected ({rows},): give one value a row", field=name)
    return values
