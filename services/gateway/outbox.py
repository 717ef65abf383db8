"""Work that is done after its request was answered: bounded, retried, and finished before the process ends."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ndml.errors import Aborted, CapacityReached, DeadlineExceeded, LearningBacklog, NdmlError, ResourceExhausted, Unavailable
from ndml.runtime import metrics
from ndml.runtime.interceptors import as_ndml_error
from ndml.runtime.log import get_logger
from services.gateway.settings import LearningSettings

log = get_logger(__name__)

T = TypeVar("T")

PASSING = (Unavailable, Aborted, DeadlineExceeded, ResourceExhausted)
"""Failures that the next try may not meet."""

_STOPPING_TRIES = 20
"""Tries that fit into the time to drain, however long the pauses are otherwise."""

_depth = metrics.QUEUE_DEPTH.labels("learning")


def may_pass(error: NdmlError) -> bool:
    """Whether it is worth trying again."""
    return isinstance(error, PASSING) and not isinstance(error, CapacityReached)


@dataclass(slots=True)
class _Waiting(Generic[T]):
    item: T
    size: int
    began: float = field(default_factory=time.monotonic)
    tries: int = 0


class Outbox(Generic[T]):
    """Runs `work` for each item that was put, several at a time; `give_up` hears of those that failed for good. All on the event loop.

    Room is reserved before there is an item, so that what was begun can always be put.
    """

    def __init__(self, work: Callable[[T], Awaitable[object]], give_up: Callable[[T, NdmlError], None], settings: LearningSettings) -> None:
        self._work = work
        self._give_up = give_up
        self._settings = settings
        self._ready: deque[_Waiting[T]] = deque()
        self._delayed: dict[asyncio.TimerHandle, _Waiting[T]] = {}
        self._workers: dict[asyncio.Task[None], _Waiting[T]] = {}
        self._entries = 0
        self._bytes = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = self._stopped = False
        metrics.QUEUE_LIMIT.labels("learning").set(settings.max_entries)

    async def start(self) -> None:
        """Workers start with what there is to do."""

    async def stop(self) -> None:
        """Finish what waits or is reserved, at once and for at most `drain_s`; what is left is given up, and said to be."""
        self._stopping = True
        self._hasten()
        self._pump()
        try:
            async with asyncio.timeout(self._settings.drain_s):
                await self._idle.wait()
        except TimeoutError:
            log.error("learning_cut_short", waiting=len(self._ready) + len(self._delayed), under_way=len(self._workers))
        self._stopped = True
        self._hasten()
        while self._ready:
            self._cut(self._ready.popleft())
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    def reserve(self, size: int) -> None:
        """Take room for one item of `size` bytes. Raises LearningBacklog where there is none."""
        full = self._entries >= self._settings.max_entries or self._bytes + size > self._settings.max_bytes
        if full and self._entries:
            raise LearningBacklog(
                f"{self._entries} turns with {self._bytes} bytes wait to be learned (learning.max_entries, learning.max_bytes): come back "
                "shortly, or send learning: LEARNING_OFF"
            )
        self._hold(1, size)

    def release(self, size: int) -> None:
        """Give room back that nothing was put into."""
        self._hold(-1, -size)

    def put(self, item: T, size: int) -> None:
        """Do it, in the room that was reserved for it."""
        waiting = _Waiting(item, size)
        if self._stopped:
            self._cut(waiting)
            return
        self._ready.append(waiting)
        self._pump()

    def _hold(self, entries: int, size: int) -> None:
        self._entries += entries
        self._bytes += size
        if self._entries:
            self._idle.clear()
        else:
            self._idle.set()
        self._measure()

    def _measure(self) -> None:
        _depth.set(len(self._ready) + len(self._delayed))

    def _pump(self) -> None:
        # A context of its own: the request that happened to come last has nothing to do with what is written now.
        while self._ready and not self._stopped and len(self._workers) < self._settings.workers:
            waiting = self._ready.popleft()
            task = asyncio.get_running_loop().create_task(self._run(waiting), context=Context())
            self._workers[task] = waiting
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        waiting = self._workers.pop(task)
        if task.cancelled():  # perhaps before its first step: what it was to do ends here, not in it
            self._cut(waiting)
        self._pump()
        self._measure()

    async def _run(self, waiting: _Waiting[T]) -> None:
        waiting.tries += 1
        try:
            await self._work(waiting.item)
        except Exception as error:
            self._failed(waiting, error)
        else:
            self._hold(-1, -waiting.size)

    def _failed(self, waiting: _Waiting[T], error: Exception) -> None:
        mapped = as_ndml_error(error)
        if not isinstance(error, NdmlError):
            log.error("learning_fault", exc_info=error)
        settings = self._settings
        delay_s = min(settings.max_backoff_s, settings.backoff_s * 2 ** min(waiting.tries - 1, 30))
        late = time.monotonic() + delay_s - waiting.began > settings.retry_for_s
        if self._stopping:
            delay_s = min(delay_s, settings.drain_s / _STOPPING_TRIES)
        if late or self._stopped or not may_pass(mapped):
            self._end(waiting, mapped)
            return
        handle: asyncio.TimerHandle = asyncio.get_running_loop().call_later(delay_s, lambda: self._due(handle))
        self._delayed[handle] = waiting

    def _due(self, handle: asyncio.TimerHandle) -> None:
        self._ready.append(self._delayed.pop(handle))
        self._pump()

    def _hasten(self) -> None:
        """No pause before the next try."""
        for handle, waiting in self._delayed.items():
            handle.cancel()
            self._ready.append(waiting)
        self._delayed.clear()

    def _cut(self, waiting: _Waiting[T]) -> None:
        self._end(waiting, LearningBacklog("the gateway stopped before this was learned"))

    def _end(self, waiting: _Waiting[T], error: NdmlError) -> None:
        self._hold(-1, -waiting.size)
        self._give_up(waiting.item, error)
