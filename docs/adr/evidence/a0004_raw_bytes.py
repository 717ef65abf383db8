"""What the gateway pays for one search result of a batch: passed on as bytes, or parsed and serialised again. For ADR 4."""

import timeit
from collections.abc import Callable

from ndml.internal.v1 import memory_node_pb2 as node
from ndml.v1 import memory_pb2, types_pb2

BATCH = 64
OWN = memory_pb2.SearchMemoriesResponse(stats=types_pb2.SearchStats(shards_total=1, timings=types_pb2.StageTimings(total_ms=2)))


def result(hits: int, text: str) -> bytes:
    """What a node answers."""
    scope = types_pb2.Scope(tenant="default", user="ann", session="monday")
    trace = types_pb2.MemoryTrace(trace_id="0" * 32, text=text, speaker="ann", scope=scope, metadata={"channel": "chat"})
    return memory_pb2.SearchMemoriesResponse(hits=[memory_pb2.SearchHit(score=0.5, trace=trace)] * hits).SerializeToString()


def passed_on(batch: bytes) -> list[bytes]:
    return [each.search + OWN.SerializeToString() for each in node.ExecuteResponse.FromString(batch).results]


def parsed(batch: bytes) -> list[bytes]:
    answers = []
    for each in node.ExecuteResponse.FromString(batch).results:
        response = memory_pb2.SearchMemoriesResponse.FromString(each.search)
        response.stats.MergeFrom(OWN.stats)
        answers.append(response.SerializeToString())
    return answers


def microseconds(work: Callable[[bytes], list[bytes]], batch: bytes) -> float:
    return min(timeit.repeat(lambda: work(batch), number=20, repeat=15)) / 20 / BATCH * 1e6


for hits, length in ((10, 150), (10, 2_000), (100, 150)):
    data = result(hits, "x" * length)
    batch = node.ExecuteResponse(results=[node.OperationResult(search=data)] * BATCH).SerializeToString()
    answer = memory_pb2.SearchMemoriesResponse.FromString
    assert list(map(answer, passed_on(batch))) == list(map(answer, parsed(batch)))
    one, other = microseconds(passed_on, batch), microseconds(parsed, batch)
    print(f"{hits:3} hits of {length:5} bytes: passed on {one:6.1f} us, parsed {other:6.1f} us a result, {other / one:.1f} x")
