"""What stands around a hit: its neighbours in the session, and what it came from. Runs on the engine's thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ndml.contents import shown
from ndml.errors import FieldInvalid
from ndml.v1.types_pb2 import LINK_TYPE_DERIVED_FROM, LINK_TYPE_SUPERSEDES, MemoryTrace
from services.memory_node.filters import Mask
from services.memory_node.partition import Partition
from services.memory_node.ranking import I64
from services.memory_node.reader import Reader
from services.memory_node.records import micros

MOST_ANCESTORS = 32
"""Of one hit: an answer to "why" that somebody reads."""
_CAME_FROM = (LINK_TYPE_SUPERSEDES, LINK_TYPE_DERIVED_FROM)


@dataclass(frozen=True, slots=True)
class Beside:
    """Payloads around one hit, first said first."""

    before: Sequence[bytes] = ()
    after: Sequence[bytes] = ()
    ancestors: Sequence[bytes] = ()


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

    def neighbours(self, rows: I64, width: int) -> list[tuple[list[int], list[int]]]:
        """For each row the sequence numbers of those before it and after it in its session."""
        columns, evidence = self.partition.columns, self.partition.evidence
        around = evidence.sessions.around(rows, width, columns)
        if self.allowed is not None:
            around = np.where((around >= 0) & self.allowed[around], around, -1)
        sizes = columns.ints("payload_bytes")[around] - self.partition.spaces.left_out(around)
        self._spend(int((sizes * (around >= 0)).sum()), "neighbours")
        sequence = columns.ints("sequence")
        sides = (around[:, :width], around[:, width + 1 :])
        return [tuple(sequence[side[side >= 0]].tolist() for side in each) for each in zip(*sides, strict=True)]

    def ancestors(self, payload: bytes, steps: int) -> list[bytes]:
        """What the trace was made out of or replaced, and so on, so many steps back; what is gone is passed over."""
        if not steps:
            return []
        trace = MemoryTrace.FromString(payload)
        seen, found = {trace.trace_id}, dict[str, tuple[int, bytes]]()
        at = [trace]
        for _ in range(steps):
            sources = dict.fromkeys(link.trace_id for each in at for link in each.links if link.type in _CAME_FROM)
            at = []
            for trace_id in sources:
                if trace_id in seen or len(found) == MOST_ANCESTORS:
                    continue
                seen.add(trace_id)
                source = self._visible(trace_id)
                if source is not None:
                    at.append(source[0])
                    found[trace_id] = (source[0].said_at.ToMicroseconds() or source[0].learned_at.ToMicroseconds(), source[1])
        return [stored for _, stored in sorted(found.values(), key=lambda each: each[0])]

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
