"""A rate of bytes: whoever sends or fetches waits until the rate allows for what has been moved already."""

from __future__ import annotations

from services.memory_node.replication.ports import Clock, Sleep


class Pace:
    """Shared by all repairs of this node. A second's worth may go at once, so that small repairs wait for nothing."""

    def __init__(self, bytes_per_s: float, clock: Clock, sleep: Sleep) -> None:
        self._rate = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._room = bytes_per_s
        self._at = clock()
        self.moved = 0

    async def moved_bytes(self, count: int) -> None:
        """Account for bytes that were moved; returns when more may be."""
        now = self._clock()
        self._room = min(self._rate, self._room + (now - self._at) * self._rate) - count
        self._at = now
        self.moved += count
        if self._room < 0:
            await self._sleep(-self._room / self._rate)
