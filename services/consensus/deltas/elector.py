"""Who speaks for a zone to other zones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

NeighboursNow = Callable[[], Iterable[str]]
"""Names of the other consensus nodes of the zone that are linked to this one now."""


class Elector(Protocol):
    """Component. At times two may lead or nobody: then an update crosses twice, or waits; nothing depends on there being exactly one."""

    def leads(self) -> bool:
        """This node speaks for its zone now."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class SmallestName:
    """The smallest name among those that see each other leads. No messages, no clocks."""

    def __init__(self, own: str, neighbours: NeighboursNow) -> None:
        self._own = own
        self._neighbours = neighbours

    def leads(self) -> bool:
        return all(self._own < name for name in self._neighbours())

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Nothing to do."""
