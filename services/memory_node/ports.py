"""What the core needs from outside, as protocols: the wiring in main.py decides who fills them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

NowNs = Callable[[], int]
"""Unix time in nanoseconds, as `time.time_ns`; a parameter so that tests set the time."""


class PlacementView(Protocol):
    """Who owns what, as this node last heard. Called on the engine's thread: it must not block and needs no event loop."""

    @property
    def epoch(self) -> int:
        """Grows with every change of owners."""
        ...

    def owns(self, tenant: str, user: str) -> bool:
        """True when this node is an owner of (tenant, user)."""
        ...


class OwnsAll:
    """The placement of a node that stands alone."""

    epoch = 0

    def owns(self, tenant: str, user: str) -> bool:
        return True
