"""Several copies' answers to one search or list as one: what they differ about, and their union once that is mended. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from ndml.internal.v1 import memory_node_pb2 as node_pb2
from ndml.v1 import memory_pb2, types_pb2

_Edition = tuple[int, int, int]
_Place = tuple[int, str]
_Result = node_pb2.OperationResult


class Union(Protocol):
    """`erased`: traces that a copy knows to be erased; they are in no union, whoever still has them."""

    erased: set[str]

    def disputed(self, results: Sequence[_Result]) -> list[str]:
        """Ids of traces that some of the copies left out, or have in another edition."""
        ...

    def joined(self, results: Sequence[_Result]) -> _Result:
        """One answer to the operation."""
        ...


class SearchUnion:
    """Hits of several copies: the best k of all; of a trace the newest edition, with its best score."""

    def __init__(self, operation: node_pb2.Operation) -> None:
        self.erased: set[str] = set()
        self._k = operation.search.k

    def disputed(self, results: Sequence[_Result]) -> list[str]:
        found: dict[str, None] = {}
        for answers in self._by_query(results):
            found |= dict.fromkeys(differing([[hit.trace for hit in answer.hits] for answer in answers]))
        return list(found)

    def joined(self, results: Sequence[_Result]) -> _Result:
        responses = [self._one(answers).SerializeToString() for answers in self._by_query(results)]
        return _Result(search=node_pb2.SearchResult(responses=responses), busy_ms=max(result.busy_ms for result in results))

    def _by_query(self, results: Sequence[_Result]) -> list[tuple[memory_pb2.SearchMemoriesResponse, ...]]:
        parsed = [[memory_pb2.SearchMemoriesResponse.FromString(data) for data in result.search.responses] for result in results]
        return list(zip(*parsed, strict=True))

    def _one(self, answers: Sequence[memory_pb2.SearchMemoriesResponse]) -> memory_pb2.SearchMemoriesResponse:
        best: dict[str, memory_pb2.SearchHit] = {}
        for hit in (hit for answer in answers for hit in answer.hits if hit.trace.trace_id not in self.erased):
            held = best.get(hit.trace.trace_id)
            if held is None or (edition(hit.trace), hit.score) > (edition(held.trace), held.score):
                best[hit.trace.trace_id] = hit
        hits = sorted(best.values(), key=lambda hit: (-hit.score, hit.trace.trace_id))[: self._k]
        return memory_pb2.SearchMemoriesResponse(hits=hits, stats=answers[0].stats)


class ListUnion:
    """Pages of several copies: last learned first, down to where every page reaches, cut to the page's length."""

    def __init__(self, operation: node_pb2.Operation) -> None:
        self.erased: set[str] = set()
        self._limit = operation.list.limit

    def disputed(self, results: Sequence[_Result]) -> list[str]:
        """A page that ends above a trace says nothing about it."""
        pages = [result.list.traces for result in results]
        shown = {trace.trace_id for trace in self._reached(results)[: self._limit]}
        return [trace_id for trace_id in differing(pages) if trace_id in shown]

    def joined(self, results: Sequence[_Result]) -> _Result:
        reached = self._reached(results)
        page = node_pb2.ListResult(traces=reached[: self._limit])
        floor = _floor(results)
        if len(reached) > self._limit:
            floor = place_of(reached[self._limit - 1])
        if floor is not None:
            page.next.CopyFrom(node_pb2.ListPlace(learned_us=floor[0], trace_id=bytes.fromhex(floor[1])))
        return _Result(list=page, busy_ms=max(result.busy_ms for result in results))

    def _reached(self, results: Sequence[_Result]) -> list[types_pb2.MemoryTrace]:
        best: dict[str, types_pb2.MemoryTrace] = {}
        for trace in (trace for result in results for trace in result.list.traces if trace.trace_id not in self.erased):
            held = best.get(trace.trace_id)
            if held is None or edition(trace) > edition(held):
                best[trace.trace_id] = trace
        floor = _floor(results)
        return sorted((t for t in best.values() if floor is None or place_of(t) >= floor), key=place_of, reverse=True)


def _floor(results: Sequence[_Result]) -> _Place | None:
    """The highest place at which a page ended with more to come."""
    places = [result.list.next for result in results if result.list.HasField("next")]
    return max(((place.learned_us, place.trace_id.hex()) for place in places), default=None)


UNIONS: Mapping[str, Callable[[node_pb2.Operation], Union]] = {"search": SearchUnion, "list": ListUnion}


def differing(answers: Sequence[Iterable[types_pb2.MemoryTrace]]) -> list[str]:
    """Ids that not every answer has, or not in the same edition; in order of appearance."""
    editions: dict[str, set[_Edition]] = {}
    times: Counter[str] = Counter()
    for trace in (trace for answer in answers for trace in answer):
        editions.setdefault(trace.trace_id, set()).add(edition(trace))
        times[trace.trace_id] += 1
    return [trace_id for trace_id, found in editions.items() if len(found) > 1 or times[trace_id] < len(answers)]


def edition(trace: types_pb2.MemoryTrace) -> _Edition:
    """Orders the contents of a trace: by changes, then by when."""
    return trace.version, trace.updated_at.seconds, trace.updated_at.nanos


def place_of(trace: types_pb2.MemoryTrace) -> _Place:
    """Orders a list, as node_pb2.ListPlace does."""
    return trace.learned_at.ToMicroseconds(), trace.trace_id
