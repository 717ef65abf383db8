"""What each replica's own feedback added to a trace, and what all of them show together.

A trace's accumulators hold ln of a sum over events (`ndml.btsp.timescales`), so sums of replicas are sums of sums:
    shown = birth (+) contribution_1 (+) contribution_2 ...          own = shown (-) birth (-) contributions of others
Birth follows from the content and is known to all, so it is nobody's contribution and is never counted twice. Only the author writes its
contribution; replicas join copies of one by the larger accumulator (`blocks.joined_states`), never the shown sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.record import decoded, encoded
from ndml.btsp.timescales import joint
from ndml.crdt.blocks import LARGEST, later
from ndml.errors import FieldInvalid

F64 = NDArray[np.float64]
Rows = NDArray[Any]

ROUNDING = 64
"""A difference of fewer units in the last place of the sum is what the order of adding left, no event. In the mode that never decays one
event of gain .001 among a thousand of gain 1 is ten million times that."""
_COUNT_MAX = np.iinfo(np.uint32).max


def contribution(combined: Sequence[bytes], birth: Sequence[bytes], foreign: Sequence[Sequence[bytes]]) -> list[bytes]:
    """This replica's own part of each of n traces. `foreign[i]`: contributions of the other replicas to trace i, in any order.

    Accumulators -inf and counts 0 where it added nothing; flags and lifecycle 0, they are nobody else's; all else as it is shown now.
    In a fast mode an old event of ours vanishes behind a later one of another replica: join the result with our last contribution.
    FieldInvalid: lengths that differ, a record that is none.
    """
    shown, born, others = _same_length(combined, birth, foreign)
    own = shown.copy()
    rest, counts = born["levels"].copy(), {name: born[name].astype(np.int64) for name in LARGEST}
    for traces, states in others:
        rest[traces] = np.logaddexp(rest[traces], _joint(states["levels"]))
        for name in LARGEST:
            counts[name][traces] += states[name].sum(axis=1, dtype=np.int64)
    own["levels"] = _less(shown["levels"], rest)
    for name in LARGEST:
        own[name] = np.clip(shown[name].astype(np.int64) - counts[name], 0, _COUNT_MAX)
    own["flags"] = own["lifecycle"] = 0
    return encoded(own)


def combined(birth: Sequence[bytes], contributions: Sequence[Sequence[bytes]], local: Sequence[bytes] | None = None) -> list[bytes]:
    """What each of n traces shows: `contributions[i]` are those of every replica to trace i, in any order, with the same bytes as result.

    Accumulators and counts: the sum with birth's. Salience: birth's, the content's. Flags and lifecycle: from `local`, the states that this
    node shows now (None: birth's). All else: from the newest of birth and contributions by record.ORDER. FieldInvalid as `contribution`.
    """
    born, kept, others = _same_length(birth, birth if local is None else local, contributions)
    shown = born.copy()
    for traces, states in others:
        newest = born[traces]
        for slot in range(states.shape[1]):
            newest = np.where(later(newest, states[:, slot]), states[:, slot], newest)
        newest["levels"] = np.logaddexp(born["levels"][traces], _joint(states["levels"]))
        for name in LARGEST:
            total = born[name][traces].astype(np.int64) + states[name].sum(axis=1, dtype=np.int64)
            newest[name] = np.minimum(total, _COUNT_MAX)
        shown[traces] = newest
    for name, source in (("salience", born), ("flags", kept), ("lifecycle", kept)):
        shown[name] = source[name]
    return encoded(shown)


def _same_length(
    one: Sequence[bytes], other: Sequence[bytes], many: Sequence[Sequence[bytes]]
) -> tuple[Rows, Rows, list[tuple[NDArray[np.int64], Rows]]]:
    if not len(one) == len(other) == len(many):
        raise FieldInvalid(f"{len(one)}, {len(other)} and {len(many)} states: give one of each for every trace", field="states")
    return decoded(one), decoded(other), list(_by_count(many))


def _by_count(states: Sequence[Sequence[bytes]]) -> Iterator[tuple[NDArray[np.int64], Rows]]:
    """Traces with equally many contributions: (positions [g], rows [g, count]). So one trace with many replicas pads no other."""
    counts = np.array([len(each) for each in states], np.int64)
    for count in np.unique(counts[counts > 0]).tolist():
        traces = np.flatnonzero(counts == count)
        rows = decoded([state for trace in traces.tolist() for state in states[trace]])
        yield traces, rows.reshape(len(traces), count)


def _joint(levels: F64) -> F64:
    """[n, 8] of [n, replicas, 8]. Sorted first: a sum of floats depends on its order, and nothing else says one."""
    return joint(np.sort(levels, axis=1).swapaxes(0, 1))


def _less(total: F64, rest: F64) -> F64:
    """ln(e^total - e^rest), -inf where they are equal up to rounding or the rest is larger."""
    left = np.full(total.shape, -np.inf)
    alone = np.isneginf(rest)
    left[alone] = total[alone]
    gap = np.subtract(total, rest, out=np.zeros_like(total), where=~alone & ~np.isneginf(total))
    real = gap > ROUNDING * np.spacing(np.maximum(np.abs(np.where(alone, 1.0, rest)), 1.0))
    left[real] = total[real] + np.log(-np.expm1(-gap[real]))
    return left
