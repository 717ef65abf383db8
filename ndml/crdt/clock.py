"""Hybrid logical clock: 48 bits of milliseconds since 1970, then 16 bits that count what happened within one.

Source: S. Kulkarni, M. Demirbas, D. Madappa, B. Avva, M. Leone, "Logical physical clocks", OPODIS 2014. Clocks of replicas order
versions for display; nothing is dropped because of a clock, so one that is wrong costs a wrong order and never a write.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from ndml.errors import FieldInvalid

LOGICAL_BITS = 16
CLOCK_LIMIT = 1 << 63
"""Clocks are below it: SQLite's integers have a sign. Reached in the year 6429."""


def physical_ms(clock: int) -> int:
    """Milliseconds since 1970 of a clock."""
    return clock >> LOGICAL_BITS


class HybridClock:
    """One replica's clock. Ticks grow strictly, also where the machine's clock stands or goes back. Any thread may call it."""

    def __init__(self, now_ns: Callable[[], int], max_ahead_s: float = 60.0, start: int = 0) -> None:
        """`now_ns`: the machine's time, ns since 1970. `max_ahead_s`: how far others' clocks may lead; more is a fault or an attack, and
        following it would drag every replica along. `start`: the largest clock that this replica gave before it was restarted.
        """
        self._now_ns = now_ns
        self._max_ahead_ms = round(max_ahead_s * 1000)
        self._last = start
        self._lock = Lock()

    @property
    def last(self) -> int:
        """The largest clock given or observed."""
        return self._last

    def tick(self) -> int:
        """A clock larger than every one given or observed before. 65,536 ticks within one ms run into the next one."""
        with self._lock:
            self._last = max(self._last + 1, self._now_ms() << LOGICAL_BITS)
            return self._last

    def observe(self, clock: int) -> None:
        """Another replica's clock was seen: ticks from here on are larger. FieldInvalid (clock): no clock, or too far ahead."""
        if not 0 <= clock < CLOCK_LIMIT:
            raise FieldInvalid(f"clock is {clock}: give milliseconds since 1970 times 65536 plus a count", field="clock")
        ahead_ms = physical_ms(clock) - self._now_ms()
        if ahead_ms > self._max_ahead_ms:
            raise FieldInvalid(
                f"clock is {ahead_ms} ms ahead of this machine, more than {self._max_ahead_ms}: set the clock of its author", field="clock"
            )
        with self._lock:
            self._last = max(self._last, clock)

    def _now_ms(self) -> int:
        return max(self._now_ns() // 1_000_000, 0)
