"""What the core needs from outside, as protocols: the wiring in main.py decides who fills them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ndml.errors import StaleEpoch

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

    def takes(self, tenant: str, user: str) -> bool:
        """True when this node is an owner of (tenant, user), or becomes one: it gets what others write."""
        ...

    def copies(self, tenant: str, user: str) -> tuple[str, ...]:
        """Node ids of the owners and coming owners of (tenant, user)."""
        ...


def check_owner(placement: PlacementView, epoch: int, tenant: str, user: str) -> None:
    """Raises StaleEpoch when a caller with a placement older than ours asks for an owner that is not here."""
    if epoch < placement.epoch and not placement.owns(tenant, user):
        raise StaleEpoch(f"the owner moved: your placement is of epoch {epoch}, ours of {placement.epoch}")


def check_taker(placement: PlacementView, epoch: int, tenant: str, user: str) -> None:
    """As `check_owner`, of what others wrote: it is for coming owners too."""
    if epoch < placement.epoch and not placement.takes(tenant, user):
        raise StaleEpoch(f"the copies moved: your placement is of epoch {epoch}, ours of {placement.epoch}")


class OwnsAll:
    """The placement of a node that stands alone."""

    epoch = 0

    def owns(self, tenant: str, user: str) -> bool:
        return True

    def takes(self, tenant: str, user: str) -> bool:
        return True

    def copies(self, tenant: str, user: str) -> tuple[str, ...]:
        return ("",)
