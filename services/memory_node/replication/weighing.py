"""Has siblings weighed anew when trust in an author has changed: a quarantine while the node runs, another roster when it starts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ndml.errors import NdmlError
from ndml.runtime import metrics
from ndml.runtime.log import get_logger
from services.memory_node.replication.ports import Sleep
from services.memory_node.weighing import Weigh, Weighed

log = get_logger(__name__)


class Weighing:
    """Component. weights: names the trust in force; weigh: has one page done, raises NdmlError; every_s: how often trust is looked at."""

    def __init__(
        self, weights: Callable[[], bytes], weigh: Callable[[Weigh], Awaitable[Weighed]], every_s: float, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._weights = weights
        self._weigh = weigh
        self._every_s = every_s
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Waits for nothing."""
        self._task = asyncio.create_task(self._run(), name="replication-weighing")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        done = b""
        while True:
            now = self._weights()
            if now != done and await self._all(now):
                done = now
            await self._sleep(self._every_s)

    async def _all(self, weights: bytes) -> bool:
        """Page by page, so that writes come in between. False: the store could not, and is asked again."""
        looked = changed = 0
        page = Weigh(weights)
        while True:
            try:
                result = await self._weigh(page)
            except NdmlError as error:
                log.warning("siblings_not_weighed", reason=error.reason, error=error.message)
                return False
            looked, changed = looked + result.looked, changed + result.changed
            metrics.TRACES_WEIGHED.labels("changed").inc(result.changed)
            metrics.TRACES_WEIGHED.labels("same").inc(result.looked - result.changed)
            if result.done:
                break
            page = Weigh(weights, result.after)
        if looked:
            log.info("siblings_weighed", traces=looked, changed=changed)
        return True
