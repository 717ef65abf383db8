"""Which traces tell why another is so: links of type CAUSES, from the end that they point to. Pure; derived from the rows' payloads.

A link stands on the trace that was said later, and an explanation comes after what it explains: who asks why starts at the other end.
"""

from __future__ import annotations

from collections.abc import Iterable

from ndml.v1.types_pb2 import LINK_TYPE_CAUSES, MemoryTrace

MOST_TELLERS = 32
"""Of one trace: an answer to "why" that somebody reads."""
_BYTES = 300
"""Of a trace that is explained, with one that explains it."""


class Told:
    """Ids of an owner's traces that explain others. What is deleted since may still stand here: who follows a link looks into the store.
    Belongs to the engine's thread."""

    def __init__(self) -> None:
        self._tellers: dict[str, dict[str, None]] = {}

    @property
    def nbytes(self) -> int:
        return _BYTES * len(self._tellers)

    def append(self, traces: Iterable[MemoryTrace]) -> None:
        """New rows; a row that replaces another says the same again, or less."""
        for trace in traces:
            for link in trace.links:
                if link.type == LINK_TYPE_CAUSES:
                    tellers = self._tellers.setdefault(link.trace_id, {})
                    if len(tellers) < MOST_TELLERS:
                        tellers[trace.trace_id] = None

    def why(self, trace_id: str) -> Iterable[str]:
        """Ids of those that tell why this trace is so, first written first."""
        return self._tellers.get(trace_id, ())
