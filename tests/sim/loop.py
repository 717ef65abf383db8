"""An asyncio loop on a virtual clock: production coroutines run unchanged, sleeping costs nothing, and the same seed gives the same run.

Nothing in it waits for the world: when every task sleeps, the clock jumps to the next timer. Executors run inline. A run in which every
task waits for something that nobody will ever do is a deadlock and raises.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context, copy_context
from itertools import count
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH_NS = 1_700_000_000_000_000_000
"""Wall clock at virtual time 0."""

_AT_ONCE_S = 1e-9
"""Timers so close together are due together, in the order in which they were set."""


class Deadlock(RuntimeError):
    """Every task waits and no timer is set."""


class _Handle(asyncio.TimerHandle):
    """asyncio's without its book-keeping: a run makes thousands of them. A callback that raises ends the run."""

    __slots__ = ()

    def __init__(self, when: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None) -> None:
        self._when = when
        self._callback = callback
        self._args = args
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._repr = self._source_traceback = None

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None  # type: ignore[assignment]


class VirtualLoop(asyncio.BaseEventLoop):
    """Time is `time()` seconds since the loop was made. It has no selector, no pipe and no threads."""

    _ready: deque[_Handle]

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._timers: list[tuple[float, int, _Handle]] = []
        self._ticket = count()

    def time(self) -> float:
        return self._now

    def time_ns(self) -> int:
        """Wall clock that goes with `time()`."""
        return EPOCH_NS + round(self._now * 1e9)

    def call_soon(self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> asyncio.Handle:
        handle = _Handle(self._now, callback, args, context)
        self._ready.append(handle)
        return handle

    def call_at(self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> asyncio.TimerHandle:
        handle = _Handle(when, callback, args, context)
        heapq.heappush(self._timers, (when, next(self._ticket), handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def run_in_executor(self, executor: Executor | None, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Inline: a thread would make the order of events the machine's."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def _run_once(self) -> None:
        """asyncio's turn: what is due joins what is ready, and what was ready when the turn began is run."""
        ready, timers = self._ready, self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            if not timers:
                raise Deadlock(f"at {self._now:.3f} s every task waits and no timer is set")
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] < self._now + _AT_ONCE_S:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._context.run(handle._callback, *handle._args)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on a loop of its own to its end; tasks that it leaves are cancelled."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        result = loop.run_until_complete(main(loop))
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        return result
    finally:
        asyncio.set_event_loop(None)
        loop.close()
