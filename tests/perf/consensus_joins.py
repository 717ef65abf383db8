"""What joining feedback of many traces costs: whole columns in one call, beside record by record, beside moving the bytes alone."""

from __future__ import annotations

from statistics import median

import numpy as np

from ndml.btsp.record import RECORD, encoded
from ndml.crdt.blocks import StateColumns
from ndml.crdt.existence import PRESENT
from ndml.crdt.record import Contribution, TraceRecord, joined_all
from tests.perf.consensus_sync import timed
from tests.perf.tables import Part, Row, Table

ONE_BY_ONE = 5_000
"""Records joined one at a time: as many as take some tenths of a second."""
_REPLICAS = (1, 2)


def columns(traces: int, seed: int) -> StateColumns:
    """A contribution of one author to each trace; ids are the same for every seed, half of the counters tie."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(traces, RECORD)
    rows["levels"] = rng.uniform(-9, 9, rows["levels"].shape)
    rows["stability"], rows["difficulty"] = 1.0, 5.0
    rows["uses"] = rng.integers(0, 9, traces)
    ids = [number.to_bytes(16, "big") for number in range(traces)]
    counters = np.where(np.arange(traces) % 2, 1, rng.integers(1, 9, traces))
    return StateColumns.of(ids, [_REPLICAS[0]] * traces, counters.tolist(), encoded(rows))


def records(held: StateColumns, count: int) -> list[TraceRecord]:
    """The first so many, as records."""
    return [
        TraceRecord(trace_id, PRESENT, states={replica: Contribution(counter, state)})
        for trace_id, replica, counter, state in held.rows()[:count]
    ]


def joins(traces: int, seeds: int) -> Part:
    """Both ways over the same contributions; raises RuntimeError where they disagree."""
    ours, theirs = columns(traces, 1), columns(traces, 2)
    one, other = records(ours, ONE_BY_ONE), records(theirs, ONE_BY_ONE)
    whole, singly, moved = [], [], []
    for _ in range(seeds):
        joined, took = timed(lambda: ours.joined(theirs))
        whole.append(took)
        each, took = timed(lambda: [joined_all([a], [b])[0] for a, b in zip(one, other, strict=True)])
        singly.append(took / ONE_BY_ONE * traces)
        _, took = timed(lambda: (ours.states.copy(), theirs.states.copy()))
        moved.append(took)
    if [record.states[_REPLICAS[0]].state for record in each] != [row[3] for row in joined.rows()[:ONE_BY_ONE]]:
        raise RuntimeError("columns and records disagree")
    block, single, copy = (median(times) for times in (whole, singly, moved))
    found = f"{block:.0f} ms, {1e3 * block / traces:.2f} us a trace"
    note = f"{traces:,} traces with feedback on both sides, {RECORD.itemsize} bytes each; medians of {seeds}."
    rows = [
        ("columns, one call", f"{block:.1f}", f"{1e3 * block / traces:.2f}"),
        (f"records one by one (of {ONE_BY_ONE:,}, for as many)", f"{single:.1f}", f"{1e3 * single / traces:.2f}"),
        ("copying both sides' bytes", f"{copy:.1f}", f"{1e3 * copy / traces:.2f}"),
    ]
    path = f"join of {traces:,} traces' feedback in one call"
    target = Row(path, found, f"one by one {single:,.0f} ms", ">= 5 x faster", single >= 5 * block)
    return Part([target], [Table("Feedback of many traces joined", note, ("how", "ms", "us a trace"), rows)])
