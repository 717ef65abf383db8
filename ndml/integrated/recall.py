"""What of the found memories a model reads, as a chat of the gateway has it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from ndml.btsp.supersession import Recalled, to_read
from ndml.client import Hit, LinkType, Memory
from ndml.fusion.readout import Entry, MemoryReadout
from ndml.language import asks_about_the_past

_LEAST_STRENGTH = 0.05  # what was recalled counts for something, however much better the best one fits


def readout(hits: Sequence[Hit], k: int, question: str) -> tuple[MemoryReadout, dict[int, Hit]]:
    """At most k of the hits as the model reads them, in the order of `ndml.btsp.supersession`, and which hit each number is."""
    read = to_read([_recalled(hit.memory) for hit in hits], k, past=asks_about_the_past(question))
    best = max((hits[each.place].score for each in read), default=0.0)
    entries = (_entry(number, hits[each.place], best, each.superseded) for number, each in enumerate(read, 1))
    return MemoryReadout(tuple(entries)), {number: hits[each.place] for number, each in enumerate(read, 1)}


def _recalled(memory: Memory) -> Recalled:
    replaced = (link.trace_id for link in memory.links if link.type is LinkType.SUPERSEDES)
    return Recalled(memory.trace_id, memory.text, memory.speaker, round(_said(memory).timestamp() * 1e6), tuple(replaced))


def _entry(number: int, hit: Hit, best: float, superseded: bool) -> Entry:
    memory = hit.memory
    share = hit.score / best if best > 0 else 1.0
    return Entry(
        number=number,
        text=memory.text,
        speaker=memory.speaker,
        said_at=_said(memory),
        embedding=None if memory.embedding is None else np.frombuffer(memory.embedding.vector, "<f4"),
        strength=min(1.0, max(_LEAST_STRENGTH, share)),
        trace_id=memory.trace_id,
        superseded=superseded,
    )


def _said(memory: Memory) -> datetime:
    return memory.said_at or memory.learned_at or datetime.min.replace(tzinfo=UTC)
