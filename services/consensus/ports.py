"""What the core needs from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ndml.placement import NodeRecord, Roster

Clock = Callable[[], float]
"""Seconds that only grow, as `time.monotonic`."""


class RosterStore(Protocol):
    """Where the roster outlives the process."""

    def load(self) -> dict[str, NodeRecord]:
        """The roster saved last; empty where there is none, or none that can be trusted."""
        ...

    def founders(self, listed: Sequence[str]) -> list[str]:
        """The nodes that were listed when the roster was begun, durably; begins it with `listed` where there is none. Raises OSError."""
        ...

    def save(self, roster: Roster) -> None:
        """Return when the roster is durable. Raises OSError. Called from one thread at a time."""
        ...


class Peer(Protocol):
    """Another consensus node."""

    @property
    def address(self) -> str: ...

    async def exchange(self, records: Iterable[NodeRecord]) -> list[NodeRecord]:
        """Give it ours, get the join. Raises NdmlError where it does not answer."""
        ...

    async def close(self) -> None: ...
