"""Updates that came before those which they follow: joined, and waiting to count.

Two gateways, or two ways, bring an author's updates out of order. A head advances over a gap never, and over what waits here as soon as
the gap is filled. In memory only: after a restart a stream or a reconciliation says what is known.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from services.memory_node.records import Owner

_MOST_KEYS = 16_384
_MOST_SPANS = 256


class Span(NamedTuple):
    """An author's update of an owner: its position before and after."""

    replica: int
    previous: int
    counter: int


class Gaps:
    """Spans by owner and author, the least recently noted out first. Not thread-safe: the writer's."""

    def __init__(self) -> None:
        self._spans: OrderedDict[tuple[Owner, int], list[Span]] = OrderedDict()

    def note(self, owner: Owner, spans: Iterable[Span]) -> None:
        """They are on disk and follow on nothing that is known. Past a bound they are forgotten: then a reconciliation has to tell."""
        for span in spans:
            waiting = self._spans.setdefault((owner, span.replica), [])
            if span not in waiting and len(waiting) < _MOST_SPANS:
                waiting.append(span)
            self._spans.move_to_end((owner, span.replica))
        while len(self._spans) > _MOST_KEYS:
            self._spans.popitem(last=False)

    def of(self, owner: Owner, replica: int) -> list[Span]:
        """What waits."""
        return self._spans.get((owner, replica), [])

    def passed(self, owner: Owner, replica: int, head: int) -> None:
        """What the head has reached waits no longer."""
        left = [span for span in self._spans.pop((owner, replica), []) if span.counter > head]
        if left:
            self._spans[owner, replica] = left

    def forget(self, owner: Owner) -> None:
        """The owner is no longer here."""
        for key in [key for key in self._spans if key[0] == owner]:
            del self._spans[key]
