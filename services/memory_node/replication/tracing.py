"""The traces of anti-entropy: one for each comparison that found something, a span in it for each owner that was mended.

A round that finds copies equal leaves none. The trace of the write behind it ended long ago: what repairs it is linked to that, and
no part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

from opentelemetry.trace import Span

from ndml.runtime import semconv
from ndml.runtime.telemetry import linked_span, owner_hash, tracing, untraced
from services.memory_node.records import Owner

_SPANS = 64  # owners of a round that get a span each: of the others the counts in the comparison's tell
_NOTED = 256  # owners whose requests are remembered until they are mended
_NOTED_REQUESTS = 8  # of each

Tell = Callable[[int, int], None]
"""Takes the records that were fetched and pushed."""


class RepairSpans:
    """Of one node's rounds, one round at a time. Belongs to the event loop."""

    def __init__(self) -> None:
        self._why = ""
        self._left = 0
        self._behind: dict[Owner, list[str]] = {}
        self._noted: dict[Owner, list[str]] = {}

    def begin(self, why: str) -> None:
        """A round begins, because of this."""
        self._why = why
        self._left = _SPANS
        self._noted, self._behind = self._behind, {}

    def behind(self, owner: Owner, traceparents: Iterable[str]) -> None:
        """Updates of these requests showed that the owner is incomplete here."""
        noted = self._behind.get(owner, [])
        sampled = [value for value in traceparents if value][: _NOTED_REQUESTS - len(noted)]
        if sampled and (noted or len(self._behind) < _NOTED):
            self._behind[owner] = noted + sampled

    def digest(self, partner: str, began_ns: int) -> AbstractContextManager[Span]:
        """Of a comparison that found that something differs, and of what is done about it."""
        attributes = {semconv.PARTNER_ID: partner, semconv.REASON: self._why}
        return linked_span(semconv.SPAN_DIGEST, (), attributes, start_ns=began_ns)

    @contextmanager
    def repair(self, owner: Owner, partner: str) -> Iterator[Tell]:
        """Of one owner with one partner."""
        if not tracing():
            yield _nothing
            return
        self._left -= 1
        if self._left < 0:
            with untraced():
                yield _nothing
            return
        attributes = {semconv.PARTNER_ID: partner, semconv.OWNER_HASH: owner_hash(*owner), semconv.REASON: self._why}
        with linked_span(semconv.SPAN_REPAIR, self._noted.get(owner, ()), attributes, below=True) as made:
            yield lambda fetched, pushed: made.set_attributes({semconv.FETCHED: fetched, semconv.PUSHED: pushed})


def _nothing(fetched: int, pushed: int) -> None:
    """Nobody looks."""
