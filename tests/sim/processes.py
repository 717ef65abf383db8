"""Processes on one loop: whatever a coroutine starts belongs to its process, and a crash ends all of it between two instructions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar

from tests.sim.network import Lost

R = TypeVar("R")

_CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)


class Process:
    """`kill()` it and none of its tasks runs on; what others wait for in it is Lost to them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.on_kill: list[Callable[[], object]] = []
        self._tasks: dict[asyncio.Task[Any], None] = {}  # ordered, so that a seed repeats
        self._context = copy_context()
        self._context.run(_CURRENT.set, self)

    async def run(self, work: Callable[[], Awaitable[R]]) -> R:
        """Have the process do something for a caller outside. Raises Lost where it dies meanwhile."""
        if not self.alive:
            raise Lost(f"{self.name} is dead")

        async def inside() -> R:
            return await work()

        loop = asyncio.get_running_loop()
        task, ended = loop.create_task(inside(), context=self._context), loop.create_future()
        # Not awaited itself: its end by a crash must not look like the caller's own.
        task.add_done_callback(partial(_tell, ended))
        try:
            await ended
        finally:
            task.cancel()
        if task.cancelled():
            raise Lost(f"{self.name} died")
        return task.result()

    def do(self, work: Callable[[], R]) -> R:
        """Do something in it that does not wait."""
        return self._context.run(work)

    def kill(self) -> None:
        self.alive = False
        for tell in self.on_kill:
            tell()
        for task in list(self._tasks):
            task.cancel()

    def own(self, task: asyncio.Task[Any]) -> None:
        if self.alive:
            self._tasks[task] = None
            task.add_done_callback(self._forget)
        else:
            task.cancel()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)


def _tell(ended: asyncio.Future[None], task: asyncio.Task[Any]) -> None:
    if not ended.done():
        ended.set_result(None)


def make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, R] | Generator[Any, None, R], context: Context | None = None
) -> asyncio.Task[R]:
    """The loop's task factory."""
    task: asyncio.Task[R] = asyncio.Task(coroutine, loop=loop, context=context)
    process = _CURRENT.get() if context is None else context.get(_CURRENT)
    if process is not None:
        process.own(task)
    return task
