"""What clients did and saw, in the form that the checkers read. Filled by the simulator and by clients of real processes alike.

Each trace has one writer, whose writes to it are numbered: 1 is the put, then updates; a delete is `GONE`. So what a read sees has a place
in an order, and "older than" means something.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

GONE = 1 << 30
"""The number of a delete: nothing is written after it."""


class Outcome(Enum):
    """ACKED: the caller was told that it stands. UNKNOWN: it was told of a failure, or of nothing: it may stand or not."""

    ACKED = "acked"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Write:
    """A client's write `number` of a trace. `copies`: that have it on disk, by what was asked for; 0: nobody noted it."""

    client: str
    trace: str
    number: int
    outcome: Outcome
    at: float
    copies: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """What a client saw of a trace: a number, 0 for "not there". `in_session`: it passed its token on. `began`: when it asked so many
    `copies`, 0: nobody noted it."""

    client: str
    trace: str
    number: int
    at: float
    in_session: bool = True
    began: float = 0.0
    copies: int = 0


@dataclass(slots=True)
class History:
    """Events in the order in which their clients learned of them."""

    events: list[Write | Read] = field(default_factory=list)

    def add(self, event: Write | Read) -> None:
        self.events.append(event)

    def writes(self) -> Iterable[Write]:
        return (event for event in self.events if isinstance(event, Write))

    def acked(self) -> dict[str, int]:
        """The highest number of each trace that a caller was told stands."""
        highest: dict[str, int] = {}
        for write in self.writes():
            if write.outcome is Outcome.ACKED:
                highest[write.trace] = max(write.number, highest.get(write.trace, 0))
        return highest

    def attempted(self) -> dict[str, int]:
        """The highest number of each trace that was tried."""
        highest: dict[str, int] = {}
        for write in self.writes():
            highest[write.trace] = max(write.number, highest.get(write.trace, 0))
        return highest
