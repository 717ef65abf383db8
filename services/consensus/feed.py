"""Fan-out of the placement to its watchers: each gets the newest there is when it can take it, never a backlog."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from ndml.errors import Overloaded
from ndml.placement import Placement
from ndml.runtime.log import get_logger

log = get_logger(__name__)


class PlacementFeed:
    """The current placement and who waits for the next. Belongs to one event loop."""

    def __init__(self, first: Placement, *, max_watchers: int, keep_alive_s: float) -> None:
        self.current = first
        self.watchers = 0
        self._max_watchers = max_watchers
        self._keep_alive_s = keep_alive_s
        self._version = 0
        self._changed = asyncio.Event()
        self._closed = False

    def close(self) -> None:
        """End every watch: its watcher goes to another consensus node."""
        self._closed = True
        self._changed.set()

    def publish(self, placement: Placement) -> bool:
        """Make `placement` the current one; False where it says nothing new."""
        if placement.same_as(self.current):
            return False
        self.current = placement
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()
        return True

    async def follow(self, watcher: str) -> AsyncGenerator[Placement]:
        """The placement at once, after every change, and each `keep_alive_s` again. Raises Overloaded past `max_watchers`.

        A watcher that is slow to take one finds the newest next and misses those between: nothing is queued for it.
        """
        if self.watchers >= self._max_watchers:
            raise Overloaded(f"{self._max_watchers} watches are open (watch.max_watchers): try another consensus node", retry_after_s=1.0)
        self.watchers += 1
        log.info("watch_begun", watcher=watcher, watchers=self.watchers)
        try:
            while not self._closed:
                version = self._version
                yield self.current
                await self._past(version)
        finally:
            self.watchers -= 1
            log.info("watch_ended", watcher=watcher, watchers=self.watchers)

    async def _past(self, version: int) -> None:
        if self._version == version:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._keep_alive_s):
                    await self._changed.wait()
