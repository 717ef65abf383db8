"""The write gate: what a new trace is to what its owner has stored. Pure: it decides, the caller searches, stores and links.

First the familiarity of the associative index, whose cost does not grow with the store. Below `novel` nothing like the text is stored and
no search is made. Otherwise, or where a partition is too small to keep an index (familiarity None), the exact cosine of the nearest stored
trace decides. Thresholds are quantiles of one embedding model (`calibration.py`): a number of one model means nothing to another.

The gate says how a text relates to others; it never says to lose it. What becomes of a duplicate is the caller's choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.contradiction import contradiction, contradicts
from ndml.errors import FieldInvalid

__all__ = ["Decision", "GateThresholds", "Verdict", "contradiction", "contradicts", "decide", "decide_many", "explain", "needs_search"]

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Bools = NDArray[np.bool_]


class Decision(IntEnum):
    """What a new trace is. Values are stored in histories: add at the end, never renumber."""

    NOVEL = 1
    DUPLICATE = 2
    UPDATE = 3
    RELATED = 4


@dataclass(frozen=True, slots=True)
class GateThresholds:
    """Where the decisions part; all from one model's calibration."""

    novel: float
    """Familiarity (0..1) below which a text is new without a search: the 2 % quantile of restatements of stored texts."""
    duplicate: float = 0.95
    """Exact cosine from which a text that does not contradict says the same."""
    related: float = 0.80
    """Exact cosine from which a text is about the same thing: updated where it contradicts, otherwise a candidate to merge."""
    distant: float = 0.50
    """Exact cosine below which a text is new after all: familiarity errs to the side of a search, the search has the last word."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.novel <= 1.0:
            raise FieldInvalid(f"novel is {self.novel}: a familiarity lies between 0 and 1", field="gate.novel")
        if not -1.0 <= self.distant <= self.related <= self.duplicate <= 1.0:
            raise FieldInvalid("give cosines with -1 <= distant <= related <= duplicate <= 1", field="gate.related")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision and the numbers that made it, one line for the caller and for the trace's history."""

    decision: Decision
    reason: str


def decide(familiarity: float | None, nearest: float | None, contradicts: bool, thresholds: GateThresholds) -> Verdict:
    """What the text is. `familiarity` None: no index, exact search alone; `nearest` None: no search was made, or nothing is stored.

    `contradicts` is about the nearest trace. NaN counts as None.
    """
    known = _number(familiarity)
    decision = Decision(int(decide_many(_row(known), _row(_number(nearest)), np.array([contradicts]), thresholds)[0]))
    return Verdict(decision, explain(decision, known, _number(nearest), contradicts, thresholds))


def needs_search(familiarity: F32, thresholds: GateThresholds) -> Bools:
    """bool [n]: whose decision needs the nearest neighbour. NaN where there is no index: needs it."""
    return ~(np.asarray(familiarity, np.float32) < np.float32(thresholds.novel))


def decide_many(familiarity: F32, nearest: F32, contradicts: Bools, thresholds: GateThresholds) -> U8:
    """Decisions uint8 [n] for familiarity [n] and nearest cosine [n] (NaN: not known), contradicts bool [n]."""
    searched = needs_search(familiarity, thresholds)
    cosine = np.nan_to_num(np.asarray(nearest, np.float32), nan=-np.inf)
    new = ~searched | (cosine < np.float32(thresholds.distant))
    # Before the duplicate: a text with one digit exchanged has a cosine of .98 and means something else.
    update = contradicts & (cosine >= np.float32(thresholds.related))
    duplicate = cosine >= np.float32(thresholds.duplicate)
    chosen = np.select([new, update, duplicate], [Decision.NOVEL, Decision.UPDATE, Decision.DUPLICATE], Decision.RELATED)
    return chosen.astype(np.uint8)


def _number(value: float | None) -> float | None:
    return None if value is None or value != value else float(value)


def _row(value: float | None) -> F32:
    return np.array([np.nan if value is None else value], np.float32)


def explain(decision: Decision, familiarity: float | None, nearest: float | None, contradicts: bool, at: GateThresholds) -> str:
    """The decision's numbers, in one line; NaN counts as None."""
    familiarity, nearest = _number(familiarity), _number(nearest)
    if decision is Decision.NOVEL and familiarity is not None and np.float32(familiarity) < np.float32(at.novel):
        return f"familiarity {familiarity:.3f} < {at.novel:.3f}: nothing like it is stored"
    if nearest is None:
        return "nothing is stored to compare with"
    says = _compared(decision, nearest, contradicts, at)
    return says if familiarity is None else f"familiarity {familiarity:.3f}, {says}"


def _compared(decision: Decision, nearest: float, contradicts: bool, at: GateThresholds) -> str:
    if decision is Decision.NOVEL:
        return f"nearest cosine {nearest:.3f} < {at.distant:.2f}"
    if decision is Decision.DUPLICATE:
        return f"nearest cosine {nearest:.3f} >= {at.duplicate:.2f}, no contradiction"
    if decision is Decision.UPDATE:
        return f"nearest cosine {nearest:.3f} >= {at.related:.2f} and it contradicts"
    return f"nearest cosine {nearest:.3f} between {at.distant:.2f} and {at.duplicate:.2f}{_note(nearest, contradicts, at)}"


def _note(nearest: float, contradicts: bool, at: GateThresholds) -> str:
    if contradicts:
        return f"; contradicts, but below {at.related:.2f}"
    return f"; about the same thing ({at.related:.2f})" if nearest >= at.related else ""
