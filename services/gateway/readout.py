"""What of the recalled traces a model reads, within a budget of bytes, and what of it the answer says. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from ndml.btsp.supersession import Recalled, to_read
from ndml.contents import words_of
from ndml.internal.v1 import llm_pb2
from ndml.v1 import chat_pb2, memory_pb2, types_pb2
from services.gateway.answers import write_answer_id

_LEAST_STRENGTH = 0.05
"""A trace that was recalled counts for something, however much better the best one fits."""
_TAIL = 64
"""Characters of an answer that are looked at again with the next ones: a citation may come in pieces."""
_CITED = re.compile(r"\[(\d{1,3}(?:\s{0,2},\s{0,2}\d{1,3}){0,8})\]")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A trace that the model is to read. `superseded`: a later one says otherwise."""

    hit: memory_pb2.SearchHit
    superseded: bool = False


def choose(hits: Sequence[memory_pb2.SearchHit], k: int, limit_bytes: int, *, past: bool) -> list[Chosen]:
    """At most k of the hits as `to_read` has them, those whose words fit into `limit_bytes` together. What has none nobody can read."""
    worded = [hit for hit in hits if words_of(hit.trace)]
    read = to_read([_recalled(hit.trace) for hit in worded], k, past=past)
    return _within([Chosen(worded[each.place], each.superseded) for each in read], limit_bytes)


def _recalled(trace: types_pb2.MemoryTrace) -> Recalled:
    replaced = (link.trace_id for link in trace.links if link.type == types_pb2.LINK_TYPE_SUPERSEDES)
    return Recalled(trace.trace_id, words_of(trace), trace.speaker, said_ns(trace), tuple(replaced))


def entries(chosen: Sequence[Chosen]) -> list[llm_pb2.MemoryEntry]:
    """As the llm service takes them, numbered from 1. Strength is how well each fits beside the best."""
    best = max((c.hit.score for c in chosen), default=0.0)
    made = []
    for number, each in enumerate(chosen, 1):
        trace = each.hit.trace
        share = each.hit.score / best if best > 0 else 1.0
        made.append(
            llm_pb2.MemoryEntry(
                number=number,
                text=words_of(trace),
                speaker=trace.speaker,
                said_at=said_at(trace),
                embedding=trace.embedding.vector,
                strength=max(_LEAST_STRENGTH, min(1.0, share)),
                superseded=each.superseded,
            )
        )
    return made


def citations(chosen: Sequence[Chosen], read: Iterable[int], mentioned: frozenset[int]) -> tuple[list[chat_pb2.Citation], str]:
    """Those that the model read, by number, and the answer's id: it stands for the mentioned ones, else for all of them."""
    numbers = sorted({n for n in read if 1 <= n <= len(chosen)})
    cited = [
        chat_pb2.Citation(
            number=n,
            trace_id=chosen[n - 1].hit.trace.trace_id,
            score=chosen[n - 1].hit.score,
            text=words_of(chosen[n - 1].hit.trace),
            mentioned=n in mentioned,
        )
        for n in numbers
    ]
    used = [c.trace_id for c in cited if c.mentioned] or [c.trace_id for c in cited]
    return cited, write_answer_id(used)


class Mentions:
    """Finds the numbers that an answer cites as [1] or [1, 3] while it streams."""

    def __init__(self) -> None:
        self._tail = ""
        self._found: set[int] = set()

    def feed(self, delta: str) -> None:
        text = self._tail + delta
        for cited in _CITED.finditer(text):
            self._found.update(int(number) for number in cited.group(1).split(","))
        self._tail = text[-_TAIL:]

    @property
    def numbers(self) -> frozenset[int]:
        return frozenset(self._found)


def said_at(trace: types_pb2.MemoryTrace) -> Timestamp:
    """When it was said, as far as is known."""
    return trace.said_at if trace.HasField("said_at") else trace.learned_at


def said_ns(trace: types_pb2.MemoryTrace) -> int:
    return said_at(trace).ToNanoseconds()


def _within(chosen: Sequence[Chosen], limit_bytes: int) -> list[Chosen]:
    """By rank; one that is too long lets shorter ones after it in."""
    kept = []
    for each in chosen:
        size = len(words_of(each.hit.trace).encode())
        if size <= limit_bytes:
            limit_bytes -= size
            kept.append(each)
    return kept
