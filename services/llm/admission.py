"""A bounded waiting line before bounded work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ndml.errors import DeadlinePassed, Overloaded
from ndml.runtime import metrics


class Admission:
    """At most `running` at once and `waiting` in line behind them, first come first served."""

    def __init__(self, queue: str, running: int, waiting: int) -> None:
        self._queue, self._running, self._limit = queue, running, running + waiting
        self._slots = asyncio.Semaphore(running)
        self._inside = 0
        metrics.QUEUE_LIMIT.labels(queue).set(waiting)

    @asynccontextmanager
    async def turn(self, remaining_s: float | None) -> AsyncIterator[None]:
        """Hold a slot. Raises Overloaded when the line is full, DeadlinePassed when the turn did not come in time."""
        if self._inside >= self._limit:
            raise Overloaded(
                f"{self._running} generations run and {self._limit - self._running} wait, the limit: retry, or raise chat.max_waiting",
                retry_after_s=1.0,
            )
        self._enter(1)
        try:
            try:
                await asyncio.wait_for(self._slots.acquire(), remaining_s)
            except TimeoutError:
                raise DeadlinePassed("the deadline passed while the generation waited for its turn: allow more time") from None
            try:
                yield
            finally:
                self._slots.release()
        finally:
            self._enter(-1)

    def _enter(self, change: int) -> None:
        self._inside += change
        metrics.QUEUE_DEPTH.labels(self._queue).set(max(0, self._inside - self._running))
