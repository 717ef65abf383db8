"""What waits for the engine: batches from the event loop, bounded; outcomes from its own helpers, which are answers to work it took."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """Thread-safe. Everything that waits is taken at once: what queued during one turn is the next turn's batch."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._weight = 0
        self._closed = False

    @property
    def weight(self) -> int:
        """Operations taken and not yet released."""
        return self._weight

    @property
    def closed(self) -> bool:
        return self._closed

    def offer(self, item: T, weight: int) -> bool:
        """Queue work of `weight` operations. False when that is more than fits, or after close()."""
        with self._changed:
            # One that is larger than the whole queue is let in when it is alone.
            if self._closed or (self._weight and self._weight + weight > self._limit):
                return False
            self._weight += weight
            self._items.append(item)
            self._changed.notify()
        return True

    def release(self, weight: int) -> None:
        """Work of `weight` operations is answered."""
        with self._changed:
            self._weight -= weight
            self._changed.notify()

    def post(self, item: T) -> None:
        """Queue an outcome; always fits, for each belongs to work that was let in."""
        with self._changed:
            self._items.append(item)
            self._changed.notify()

    def take(self, timeout_s: float) -> list[T]:
        """Everything there is, waiting up to `timeout_s` for something."""
        with self._changed:
            if not self._items:
                self._changed.wait(timeout_s)
            items = list(self._items)
            self._items.clear()
        return items

    def close(self) -> None:
        """Let no more work in."""
        with self._changed:
            self._closed = True
            self._changed.notify()
