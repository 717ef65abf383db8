"""What stands around a hit: its neighbours in the session, and what it came from: sources, what it replaced, causes. Runs on the engine's
thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ndml.contents import shown
from ndml.errors import FieldInvalid
from ndml.v1.memory_pb2 import Episode
from ndml.v1.types_pb2 import LINK_TYPE_CAUSED_BY, LINK_TYPE_DERIVED_FROM, LINK_TYPE_SUPERSEDES, MemoryTrace
from services.memory_node import episodes
from services.memory_node.filters import Mask
from services.memory_node.partition import Partition
from services.memory_node.ranking import I64
from services.memory_node.reader import Reader
from services.memory_node.records import micros

MOST_ANCESTORS = 32
"""Of one hit: an answer to "why" that somebody reads."""
_CAME_FROM = (LINK_TYPE_SUPERSEDES, LINK_TYPE_DERIVED_FROM, LINK_TYPE_CAUSED_BY)


@dataclass(frozen=True, slots=True)
class _Ancestor:
    """When it was said, its payload, ids of what it came from."""

    said_us: int
    payload: bytes
    sources: Sequence[str]


@dataclass(frozen=True, slots=True)
class Beside:
    """Payloads around one hit, first said first."""

    before: Sequence[bytes] = ()
    after: Sequence[bytes] = ()
    ancestors: Sequence[bytes] = ()
    episode: Episode | None = None


@dataclass(slots=True)
class Surroundings:
    """allowed: rows that the caller may see, None: all; agent, session: what the caller's scope narrows to; limit_bytes: of what stands
    around one query's hits together."""

    partition: Partition
    reader: Reader
    allowed: Mask | None
    agent: str
    session: str
    now_us: int
    limit_bytes: int

    def episodes(self, rows: I64) -> list[I64]:
        """For each row the rows of its episode."""
        return episodes.episodes(self.partition, rows, self.allowed)

    def neighbours(self, rows: I64, width: int, inside: Sequence[I64]) -> list[tuple[list[int], list[int]]]:
        """For each row the sequence numbers of those before it and after it in its session, and in its episode where `inside` has these."""
        columns, evidence = self.partition.columns, self.partition.evidence
        around = evidence.sessions.around(rows, width, columns)
        if inside:
            around = episodes.within(around, inside)
        if self.allowed is not None:
            around = np.where((around >= 0) & self.allowed[around], around, -1)
        sizes = columns.ints("payload_bytes")[around] - self.partition.spaces.left_out(around)
        self._spend(int((sizes * (around >= 0)).sum()), "neighbours")
        sequence = columns.ints("sequence")
        sides = (around[:, :width], around[:, width + 1 :])
        return [tuple(sequence[side[side >= 0]].tolist() for side in each) for each in zip(*sides, strict=True)]

    def ancestors(self, payload: bytes, steps: int) -> list[bytes]:
        """What the trace was made out of, replaced or was caused by, and so on, so many steps back, each after its own sources; what is
        gone is passed over."""
        if not steps:
            return []
        trace = MemoryTrace.FromString(payload)
        seen, found = {trace.trace_id}, dict[str, _Ancestor]()
        at = [trace]
        for _ in range(steps):
            sources = dict.fromkeys(source for each in at for source in self._sources(each))
            at = []
            for trace_id in sources:
                if trace_id in seen or len(found) == MOST_ANCESTORS:
                    continue
                seen.add(trace_id)
                source = self._visible(trace_id)
                if source is not None:
                    at.append(source[0])
                    said = source[0].said_at.ToMicroseconds() or source[0].learned_at.ToMicroseconds()
                    found[trace_id] = _Ancestor(said, source[1], self._sources(source[0]))
        return _sources_first(found)

    def _sources(self, trace: MemoryTrace) -> list[str]:
        """Ids of what the trace came from by its own links, and of what tells why it is so."""
        return [*(link.trace_id for link in trace.links if link.type in _CAME_FROM), *self.partition.told.why(trace.trace_id)]

    def _visible(self, trace_id: str) -> tuple[MemoryTrace, bytes] | None:
        """A trace that is there, has not ended, and is in the caller's scope."""
        stored = self.reader.trace(self.partition.owner_id, bytes.fromhex(trace_id))
        if stored is None:
            return None
        trace = MemoryTrace.FromString(stored[0])
        ended = trace.HasField("expires_at") and micros(trace.expires_at, "expires_at") <= self.now_us
        foreign = (self.agent and trace.scope.agent != self.agent) or (self.session and trace.scope.session != self.session)
        if ended or foreign:
            return None
        payload = shown(stored[0], include_data=False, include_embedding=False)
        self._spend(len(payload), "ancestors")
        return trace, payload

    def _spend(self, size: int, field: str) -> None:
        self.limit_bytes -= size
        if self.limit_bytes < 0:
            raise FieldInvalid(
                f"with their {field} the hits are larger than engine.result_bytes allows: ask for fewer, or a smaller k", field=field
            )


def _sources_first(found: Mapping[str, _Ancestor]) -> list[bytes]:
    """Payloads, each after its sources, else first said first; in a circle, the one that was said first breaks it."""
    left = {trace_id: {source for source in each.sources if source in found and source != trace_id} for trace_id, each in found.items()}
    ordered: list[bytes] = []
    while left:
        free = [trace_id for trace_id, sources in left.items() if not sources & left.keys()]
        first = min(free or left, key=lambda trace_id: found[trace_id].said_us)
        ordered.append(found[first].payload)
        del left[first]
    return ordered
