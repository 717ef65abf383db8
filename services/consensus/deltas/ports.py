"""What the delta cores need from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ndml.internal.v1 import consensus_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.placement import Placement
from services.consensus.deltas.entries import MAX_COUNTER, Delta, Entry, Key

Message = pb.ExchangeDeltasRequest | pb.ExchangeDeltasResponse

PlacementNow = Callable[[], Placement]
"""The placement as this node knows it."""

PeersHave = Callable[[int], int]
"""Author -> position that every consensus node this one is linked to has reached."""


def nobody_else(_author: int) -> int:
    """PeersHave of a consensus node that stands alone."""
    return MAX_COUNTER


@dataclass(slots=True)
class Saved:
    """What a store remembers, without the bytes of the updates. Entries in the order of arrival."""

    entries: list[Entry] = field(default_factory=list)
    positions: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Author -> its node, its position."""
    delivered: list[tuple[str, int, int, int]] = field(default_factory=list)
    """Node id, its store, author, position."""
    lost: list[tuple[str, int, int]] = field(default_factory=list)
    """Node id, author, position."""
    dropped: dict[int, int] = field(default_factory=dict)
    """Author -> position."""


@dataclass(slots=True)
class Change:
    """What becomes durable at once."""

    added: list[Delta] = field(default_factory=list)
    removed: list[Key] = field(default_factory=list)
    positions: dict[int, tuple[str, int]] = field(default_factory=dict)
    forgotten: list[int] = field(default_factory=list)
    """Authors."""
    delivered: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    """Node id, author -> the node's store, position."""
    lost: dict[tuple[str, int], int] = field(default_factory=dict)
    """Node id, author -> position; 0: nothing any more."""
    dropped: dict[int, int] = field(default_factory=dict)
    """Author -> position; 0: nothing any more."""
    gone: list[str] = field(default_factory=list)
    """Node ids of which nothing needs to be remembered."""

    def __bool__(self) -> bool:
        entries, readers = self.added or self.removed or self.positions or self.forgotten, self.delivered or self.lost or self.gone
        return bool(entries or readers or self.dropped)


class DeltaStore(Protocol):
    """Where the log outlives the process."""

    async def open(self) -> Saved:
        """What was saved; nothing where there is nothing, or nothing that can be trusted. Raises OSError, StoreUnavailable."""
        ...

    async def commit(self, change: Change) -> None:
        """Return when it is durable, all or nothing. Raises StoreUnavailable. One at a time."""
        ...

    async def read(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Bytes of updates; None where one is not there or is damaged. Raises StoreUnavailable."""
        ...

    async def close(self) -> None: ...


class Wire(Protocol):
    """One end of an exchange, whoever opened it."""

    def message(self) -> Message:
        """An empty message of the kind that this end sends."""
        ...

    async def send(self, message: Message) -> None:
        """Waits while the other side is slow. Raises NdmlError when the exchange is broken."""
        ...

    async def receive(self) -> Message | None:
        """None: the other side ended it. Raises NdmlError when the exchange is broken."""
        ...


class Dialer(Protocol):
    """Another consensus node, to be called."""

    @property
    def address(self) -> str: ...

    async def open(self) -> DialedWire:
        """Begin an exchange. Raises NdmlError."""
        ...

    async def close(self) -> None: ...


class DialedWire(Wire, Protocol):
    """A wire that this end opened and must close."""

    async def close(self) -> None: ...


class Guard(Protocol):
    """Judges the signatures of updates."""

    async def refusals(self, updates: Sequence[rpb.OwnerUpdate]) -> dict[int, str]:
        """Index -> why, of those that must not be passed on."""
        ...

    async def learn(self, proofs: Sequence[bytes]) -> None:
        """Of other nodes, that authors contradicted themselves. Raises RequestMalformed."""
        ...

    @property
    def signs(self) -> bool:
        """Whether there is anything to judge."""
        ...

    @property
    def proofs(self) -> Sequence[bytes]:
        """Against the quarantined."""
        ...

    @property
    def quarantined(self) -> Sequence[str]:
        """Authors that have contradicted themselves."""
        ...
