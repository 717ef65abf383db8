"""When what a trace says holds, for the few that say so: from `valid_from` until `valid_until`. Pure; derived from the rows' payloads."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ndml.v1.types_pb2 import MemoryTrace
from services.memory_node.records import micros

I64 = NDArray[np.int64]
_ALWAYS = np.iinfo(np.int64).max
_BYTES = 200
"""Of an entry: most traces have none."""


class Validity:
    """Intervals of an owner's rows, in microseconds since 1970. Belongs to the engine's thread."""

    def __init__(self) -> None:
        self._said: dict[int, tuple[int | None, int]] = {}

    @property
    def nbytes(self) -> int:
        return _BYTES * len(self._said)

    def append(self, first: int, traces: Iterable[MemoryTrace]) -> None:
        """Rows from `first` on."""
        for row, trace in enumerate(traces, first):
            begins, ends = trace.HasField("valid_from"), trace.HasField("valid_until")
            if begins or ends:
                start = micros(trace.valid_from, "valid_from") if begins else None
                self._said[row] = (start, micros(trace.valid_until, "valid_until") if ends else _ALWAYS)

    def renumber(self, new_rows: I64) -> None:
        """Row i becomes new_rows[i]; dropped where that is negative."""
        self._said = {int(new_rows[row]): interval for row, interval in self._said.items() if new_rows[row] >= 0}

    def holds(self, at_us: int, said_at_us: I64) -> NDArray[np.bool_]:
        """[n] True where the row holds at that time: from when it was said on, where it does not say."""
        held = said_at_us <= at_us
        for row, (start, end) in self._said.items():
            held[row] = (held[row] if start is None else start <= at_us) and at_us < end
        return held
