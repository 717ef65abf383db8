"""Every invariant that a history and what the copies show in the end can be held against, for who does not count them one by one."""

from __future__ import annotations

from collections.abc import Mapping

from tests.sim.checkers.erased import erased_returns
from tests.sim.checkers.lost_acks import lost_acks
from tests.sim.checkers.sessions import monotonic_reads, read_your_writes
from tests.sim.history import History


def violations(history: History, finals: Mapping[str, Mapping[str, int]]) -> list[str]:
    """`finals` as in `lost_acks`."""
    return [*lost_acks(history, finals), *erased_returns(history, finals), *read_your_writes(history), *monotonic_reads(history)]
