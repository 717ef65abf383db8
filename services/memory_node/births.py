"""The state that a trace begins with: it follows from its row, so it is nobody's contribution and the same on every copy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ndml.btsp.state import Dynamics, StateBlock, TraceFlag
from ndml.crdt.clock import physical_ms
from services.memory_node.records import TraceRow

# Before clocks, and what no clock of ours reaches: the dynamics take times up to here.
_LATEST_S = 9e10


class Births:
    """Begins states as `dynamics` say, which are the suite's."""

    def __init__(self, dynamics: Dynamics) -> None:
        self._dynamics = dynamics

    def of(self, rows: Sequence[TraceRow]) -> list[bytes]:
        """Packed states (ndml.btsp.record) of the rows as they were when nothing had happened to them."""
        if not rows:
            return []
        block = StateBlock(self._dynamics)
        salience, encoding = [row.salience for row in rows], [row.encoding for row in rows]
        block.append(salience, encoding, [_born_s(row) for row in rows], [TraceFlag.PROTECTED * row.protected for row in rows])
        return block.pack(np.arange(len(rows)))


def _born_s(row: TraceRow) -> float:
    """Not after the write itself, whatever its writer says; by the write's clock, not by this node's."""
    written_s = physical_ms(row.clock) / 1e3 if row.clock else _LATEST_S
    return min(row.said_at_us / 1e6, row.learned_at_us / 1e6, written_s)
