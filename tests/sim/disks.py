"""A disk as the cores meet it: what is to be written waits for the others and for fsync, then stands; a crash drops what waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

J = TypeVar("J")
R = TypeVar("R")

_GROUP = 256
"""Jobs of one commit at most, as in production."""


class GroupCommit(Generic[J, R]):
    """`carry_out` makes a group durable, at once; `fsync_s` says how long that takes."""

    def __init__(self, carry_out: Callable[[Sequence[J]], Sequence[R]], fsync_s: Callable[[], float]) -> None:
        self._carry_out = carry_out
        self._fsync_s = fsync_s
        self._waiting: deque[tuple[J, asyncio.Future[R]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def submit(self, job: J) -> R:
        """Its result, once that is on disk."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[R] = loop.create_future()
        self._waiting.append((job, done))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._flush())
        return await done

    async def _flush(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._fsync_s())
            group = [self._waiting.popleft() for _ in range(min(_GROUP, len(self._waiting)))]
            for (_, done), result in zip(group, self._carry_out([job for job, _ in group]), strict=True):
                if not done.done():
                    done.set_result(result)
