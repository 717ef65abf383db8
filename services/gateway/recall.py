"""Reading by meaning: query -> vector -> the owner's node -> hits. Hits are never parsed here: the node's bytes go to the caller."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ndml.errors import NdmlError
from ndml.internal.v1 import memory_node_pb2 as node_pb2
from ndml.runtime import semconv
from ndml.runtime.call import Call
from ndml.runtime.interceptors import as_ndml_error
from ndml.runtime.telemetry import current_traceparent, span
from ndml.v1 import memory_pb2, types_pb2
from ndml.wire import error_to_status
from services.gateway.ports import Embedder, Nodes
from services.gateway.scopes import Owner, owner_of
from services.gateway.tokens import read_consistency_token, write_consistency_token
from services.gateway.vectors import VectorSpace

DEFAULT_K = 10
_GROUP = 64
"""Queries in one operation at most: its answer must stay far below the largest message."""


class Recall:
    """Searches memories."""

    def __init__(self, nodes: Nodes, embedder: Embedder, space: VectorSpace) -> None:
        self._nodes = nodes
        self._embedder = embedder
        self._space = space

    async def search(self, request: memory_pb2.SearchMemoriesRequest, call: Call) -> bytes:
        """Wire bytes of a SearchMemoriesResponse. Raises NdmlError."""
        began = time.perf_counter()
        alike = _alike(request, call, "")
        vectors, embed_ms = await self._vectors([request], call, lambda _: "")
        [response] = await self._search(alike, request, vectors, embed_ms, began, call)
        return response

    async def search_all(self, requests: Sequence[memory_pb2.SearchMemoriesRequest], call: Call) -> bytes:
        """Wire bytes of a BatchSearchMemoriesResponse. Raises NdmlError for a broken request; one search's failure is in its result.

        Searches that differ in nothing but their query go to the node as one operation.
        """
        began = time.perf_counter()
        groups: dict[_Alike, list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            groups[_alike(request, call, f"searches[{i}].")].append(i)
        vectors, embed_ms = await self._vectors(requests, call, lambda i: f"searches[{i}].")
        parts = [(alike, at[start : start + _GROUP]) for alike, at in groups.items() for start in range(0, len(at), _GROUP)]
        found = await asyncio.gather(
            *(self._search(alike, requests[at[0]], [vectors[i] for i in at], embed_ms, began, call) for alike, at in parts),
            return_exceptions=True,
        )
        results = [b""] * len(requests)
        for (_, at), outcome in zip(parts, found, strict=True):
            for i, response in zip(at, _each(outcome, len(at)), strict=True):
                results[i] = _batch_result(response)
        return b"".join(results)

    async def _vectors(
        self, requests: Sequence[memory_pb2.SearchMemoriesRequest], call: Call, prefix: Callable[[int], str]
    ) -> tuple[list[bytes], float]:
        """Unit query vectors, and the milliseconds that embedding took."""
        given = [i for i, r in enumerate(requests) if r.HasField("embedding")]
        accepted = self._space.accept([requests[i].embedding for i in given], lambda j: f"{prefix(given[j])}embedding")
        if len(given) == len(requests):
            return accepted, 0.0
        began = time.perf_counter()
        worded = [i for i, r in enumerate(requests) if not r.HasField("embedding")]
        embedded = await self._embedder.embed([requests[i].text for i in worded], call)
        vectors = dict(zip(given, accepted, strict=True)) | dict(zip(worded, embedded, strict=True))
        return [vectors[i] for i in range(len(requests))], (time.perf_counter() - began) * 1000

    async def _search(
        self,
        alike: _Alike,
        request: memory_pb2.SearchMemoriesRequest,
        vectors: Sequence[bytes],
        embed_ms: float,
        began: float,
        call: Call,
    ) -> list[bytes]:
        """Wire bytes of a SearchMemoriesResponse for each of `vectors`; all else is as `request` says."""
        with span(semconv.SPAN_SEARCH_MEMORY, {semconv.MEMORY_K: request.k or DEFAULT_K}):
            operation = _operation(alike.owner, request, b"".join(vectors), current_traceparent() or call.traceparent)
            sent = time.perf_counter()
            done = await self._nodes.execute(alike.owner, operation, call, seen=dict(alike.seen), consistency=request.consistency)
            result = done.result
            ended = time.perf_counter()
        timings = types_pb2.StageTimings(
            embed_ms=embed_ms,
            queue_ms=max(0.0, (ended - sent) * 1000 - result.busy_ms),
            total_ms=(ended - began) * 1000,
        )
        # Concatenated messages merge (protobuf encoding): the node's hits and stats, then the gateway's part of the stats, and the token.
        stats = types_pb2.SearchStats(shards_total=1, shards_answered=1, timings=timings)
        own = memory_pb2.SearchMemoriesResponse(stats=stats, consistency_token=write_consistency_token({alike.owner: done.seen}))
        suffix = own.SerializeToString()
        return [response + suffix for response in result.search.responses]


class _Alike(NamedTuple):
    """What searches must have in common to be one operation."""

    owner: Owner
    agent: str
    session: str
    k: int
    filter: bytes
    min_score: float | None
    include_embedding: bool
    explain: bool
    weights: bytes
    include_strength: bool
    seen: tuple[tuple[int, int], ...]
    consistency: types_pb2.Consistency


def _alike(request: memory_pb2.SearchMemoriesRequest, call: Call, prefix: str) -> _Alike:
    """`prefix` is the request's path with a dot, or "". Raises FieldInvalid, TenantDenied, ConsistencyTokenInvalid."""
    owner = owner_of(request.scope, call, f"{prefix}scope")
    return _Alike(
        owner,
        request.scope.agent,
        request.scope.session,
        request.k,
        request.filter.SerializeToString(deterministic=True) if request.HasField("filter") else b"",
        request.min_score if request.HasField("min_score") else None,
        request.include_embedding,
        request.explain,
        request.weights.SerializeToString(deterministic=True) if request.HasField("weights") else b"",
        request.include_strength,
        tuple(sorted(read_consistency_token(request.consistency_token, owner, f"{prefix}consistency_token").items())),
        request.consistency,
    )


def _operation(owner: Owner, request: memory_pb2.SearchMemoriesRequest, vectors: bytes, traceparent: str) -> node_pb2.Operation:
    search = node_pb2.SearchAction(
        vectors=vectors,
        k=request.k or DEFAULT_K,
        agent=request.scope.agent,
        session=request.scope.session,
        include_embedding=request.include_embedding,
        explain=request.explain,
        include_strength=request.include_strength,
    )
    if request.HasField("weights"):
        search.weights.CopyFrom(request.weights)
    if request.HasField("filter"):
        search.filter.CopyFrom(request.filter)
    if request.HasField("min_score"):
        search.min_score = request.min_score
    return node_pb2.Operation(tenant=owner.tenant, user=owner.user, traceparent=traceparent, search=search)


def _each(outcome: Sequence[bytes] | BaseException, count: int) -> Sequence[bytes | BaseException]:
    """The outcome of an operation for each of its `count` searches."""
    return [outcome] * count if isinstance(outcome, BaseException) else outcome


def _batch_result(result: bytes | BaseException) -> bytes:
    """One BatchSearchResult as field 1 of a BatchSearchMemoriesResponse, built without parsing the hits."""
    if isinstance(result, bytes):
        inner = b"\x0a" + _varint(len(result)) + result  # field 1, length-delimited: response
    else:
        error: NdmlError = as_ndml_error(result)
        inner = memory_pb2.BatchSearchResult(error=error_to_status(error)).SerializeToString()
    return b"\x0a" + _varint(len(inner)) + inner  # field 1, length-delimited: results


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
