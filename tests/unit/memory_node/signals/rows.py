"""Rows for tests of the signals: what the columns of a partition hold of a turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.memory_node.columns import Columns
from services.memory_node.records import TraceRow

DAY_US = 86_400_000_000


def row(sequence: int, session: str = "", said_at_us: int = 0, *, first_sequence: int = 0, speaker: str = "") -> TraceRow:
    """The row that has this sequence number; of a trace that was never changed unless `first_sequence` says otherwise."""
    names = ("", session, speaker)
    times = (said_at_us, said_at_us)
    state = (0.5, 0.25, 0, 0)
    return TraceRow(sequence, 1, sequence.to_bytes(16, "big"), first_sequence or sequence, 1, *times, *names, b"", 0, b"", b"", *state)


def columns_of(rows: Sequence[TraceRow]) -> Columns:
    columns = Columns()
    columns.append(rows)
    return columns


def dropping(alive: Sequence[bool]) -> np.ndarray:
    """What a compaction says: new numbers of the rows that are left, in their order, -1 for the others."""
    kept = np.asarray(alive, np.bool_)
    return np.where(kept, np.cumsum(kept) - 1, -1)
