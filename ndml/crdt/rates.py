"""How many updates of one author are taken in a second: who writes more is slowed, and nobody else with it. Pure; one thread at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

BURST_S = 2.0
"""Seconds' worth of updates that may come at once: an honest author comes in batches, and after a pause with what queued meanwhile."""
MOST_AUTHORS = 4096
"""Authors remembered, as many as a roster names: the one heard of least lately is forgotten, and begins with a full burst."""


class AuthorRates:
    """A bucket for each author, filled at `per_s` updates a second up to BURST_S of them; 0: no bound.

    What has been taken is accounted for afterwards, so a bucket may be overdrawn by one batch, and a batch of any size passes.
    clock: seconds that only grow.
    """

    def __init__(self, per_s: float, clock: Callable[[], float], most: int = MOST_AUTHORS) -> None:
        self._per_s = per_s
        self._clock = clock
        self._most = most
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # author -> (updates that may come, as of when)

    def wait_s(self, author: str) -> float:
        """Seconds until more of this author may be taken; 0: now."""
        return 0.0 if self._per_s <= 0 else max(0.0, -self._room(author) / self._per_s)

    def took(self, author: str, updates: int) -> float:
        """Account for updates that were taken; returns wait_s afterwards."""
        if self._per_s <= 0 or updates <= 0:
            return 0.0
        self._buckets[author] = (self._room(author) - updates, self._clock())
        self._buckets.move_to_end(author)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return self.wait_s(author)

    def _room(self, author: str) -> float:
        most = self._per_s * BURST_S
        room, at = self._buckets.get(author, (most, 0.0))
        return min(most, room + (self._clock() - at) * self._per_s)
