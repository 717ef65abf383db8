"""Reading by meaning: query -> vector -> the owner's node -> hits. Hits are never parsed here: the node's bytes go to the caller."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from ndml.errors import NdmlError
from ndml.internal.v1 import memory_node_pb2 as node_pb2
from ndml.runtime import metrics, semconv
from ndml.runtime.call import Call
from ndml.runtime.interceptors import as_ndml_error
from ndml.runtime.telemetry import current_traceparent, span
from ndml.v1 import memory_pb2, types_pb2
from ndml.wire import error_to_status
from services.gateway.contents import Contents, in_a_space
from services.gateway.ports import NOTHING_SEEN, Embedder, Nodes, Seen
from services.gateway.profiles import wanted_profile
from services.gateway.scopes import Owner, owner_of
from services.gateway.tokens import read_consistency_token, write_consistency_token
from services.gateway.vectors import VectorSpace

DEFAULT_K = 10
_GROUP = 64
"""Queries in one operation at most: its answer must stay far below the largest message."""
_NO_SPAN: AbstractContextManager[object] = nullcontext()
_embed_stage = metrics.SEARCH_STAGE.labels("embed")


class Recall:
    """Searches memories."""

    def __init__(self, nodes: Nodes, embedder: Embedder, space: VectorSpace, contents: Contents | None = None) -> None:
        """contents: None: without joint encoders."""
        self._nodes = nodes
        self._embedder = embedder
        self._space = space
        self._contents = contents or Contents(space)

    async def search(self, request: memory_pb2.SearchMemoriesRequest, call: Call) -> bytes:
        """Wire bytes of a SearchMemoriesResponse. Raises NdmlError."""
        began = time.perf_counter()
        owner = owner_of(request.scope, call)
        seen = read_consistency_token(request.consistency_token, owner) if request.consistency_token else NOTHING_SEEN
        queries, embed_ms = await self._queries([request], call, lambda _: "")
        [response] = await self._search(owner, seen, request, queries, embed_ms, began, call)
        return response

    async def search_all(self, requests: Sequence[memory_pb2.SearchMemoriesRequest], call: Call) -> bytes:
        """Wire bytes of a BatchSearchMemoriesResponse. Raises NdmlError for a broken request; one search's failure is in its result.

        Searches that differ in nothing but their query go to the node as one operation.
        """
        began = time.perf_counter()
        groups: dict[tuple[_Alike, _Place], list[int]] = defaultdict(list)
        profiles = self._nodes.profiles
        alikes = [_alike(request, call, wanted_profile(request, profiles), f"searches[{i}].") for i, request in enumerate(requests)]
        queries, embed_ms = await self._queries(requests, call, lambda i: f"searches[{i}].")
        for i, (alike, query) in enumerate(zip(alikes, queries, strict=True)):
            groups[alike, query.place].append(i)
        parts = [(alike, at[start : start + _GROUP]) for (alike, _), at in groups.items() for start in range(0, len(at), _GROUP)]
        found = await asyncio.gather(
            *(
                self._search(alike.owner, dict(alike.seen), requests[at[0]], [queries[i] for i in at], embed_ms, began, call)
                for alike, at in parts
            ),
            return_exceptions=True,
        )
        results = [b""] * len(requests)
        for (_, at), outcome in zip(parts, found, strict=True):
            for i, response in zip(at, _each(outcome, len(at)), strict=True):
                results[i] = _batch_result(response)
        return b"".join(results)

    async def _queries(
        self, requests: Sequence[memory_pb2.SearchMemoriesRequest], call: Call, prefix: Callable[[int], str]
    ) -> tuple[list[_Query], float]:
        """What to look for, and the milliseconds that embedding took."""
        if any(in_a_space(request) for request in requests):
            return await self._with_spaces(requests, call, prefix)
        if len(requests) == 1 and requests[0].HasField("embedding"):
            [vector] = self._space.accept([requests[0].embedding], lambda _: f"{prefix(0)}embedding")
            return [_Query(vector)], 0.0
        given = [i for i, r in enumerate(requests) if r.HasField("embedding")]
        accepted = self._space.accept([requests[i].embedding for i in given], lambda j: f"{prefix(given[j])}embedding")
        queries = {i: _Query(vector) for i, vector in zip(given, accepted, strict=True)}
        if len(given) == len(requests):
            return [queries[i] for i in given], 0.0
        began = time.perf_counter()
        worded = [i for i, r in enumerate(requests) if not r.HasField("embedding")]
        embedded = await self._embedder.embed([requests[i].text for i in worded], call)
        for i, (vector, words) in zip(worded, embedded, strict=True):
            queries[i] = _Query(vector, node_pb2.QueryText(text=requests[i].text, word_vectors=words))
        _embed_stage.observe(took := time.perf_counter() - began, metrics.exemplar(call.traceparent))
        return [queries[i] for i in range(len(requests))], took * 1000

    async def _with_spaces(
        self, requests: Sequence[memory_pb2.SearchMemoriesRequest], call: Call, prefix: Callable[[int], str]
    ) -> tuple[list[_Query], float]:
        """As `_queries`, of some that look in spaces of contents."""
        began = time.perf_counter()
        usual = [i for i, request in enumerate(requests) if not in_a_space(request)]
        spaced = [i for i, request in enumerate(requests) if in_a_space(request)]
        found, _ = await self._queries([requests[i] for i in usual], call, lambda j: prefix(usual[j])) if usual else ([], 0.0)
        sought = await self._contents.sought([(requests[i], prefix(i)) for i in spaced], call)
        queries = dict(zip(usual, found, strict=True))
        queries |= {i: _Query(each.vector, None, (each.space, each.dimension)) for i, each in zip(spaced, sought, strict=True)}
        return [queries[i] for i in range(len(requests))], (time.perf_counter() - began) * 1000

    async def _search(
        self,
        owner: Owner,
        seen: Seen,
        request: memory_pb2.SearchMemoriesRequest,
        queries: Sequence[_Query],
        embed_ms: float,
        began: float,
        call: Call,
    ) -> list[bytes]:
        """Wire bytes of a SearchMemoriesResponse for each of `queries`; all else is as `request` says."""
        with _span(request, call):
            operation = _operation(owner, request, queries, call)
            operation.search.node_profile = wanted_profile(request, self._nodes.profiles)
            sent = time.perf_counter()
            done = await self._nodes.execute(owner, operation, call, seen=seen, consistency=request.consistency)
            result = done.result
            ended = time.perf_counter()
        queue_ms = max(0.0, (ended - sent) * 1000 - result.busy_ms)
        suffix = _own_part(embed_ms, queue_ms, (ended - began) * 1000, write_consistency_token({owner: done.seen}) if done.seen else "")
        return [response + suffix for response in result.search.responses]


_Place = tuple[str, int]
"""A space of contents and its number of components; ("", 0): that of words."""


class _Query(NamedTuple):
    """A unit vector, the words that it came from, None where the caller gave the vector, and where it looks."""

    vector: bytes
    text: node_pb2.QueryText | None = None
    place: _Place = ("", 0)


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
    mode: types_pb2.SearchMode
    worded: bool
    neighbours: int
    ancestors: int
    episode: bool
    diversity: float
    max_tokens: int
    include_data: bool
    node_profile: types_pb2.NodeProfile


def _alike(request: memory_pb2.SearchMemoriesRequest, call: Call, profile: types_pb2.NodeProfile, prefix: str) -> _Alike:
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
        request.mode,
        not request.HasField("embedding"),
        request.neighbours,
        request.ancestors,
        request.episode,
        request.diversity,
        request.max_tokens,
        request.include_data,
        profile,
    )


def _span(request: memory_pb2.SearchMemoriesRequest, call: Call) -> AbstractContextManager[object]:
    """Of a call that is traced: it has a `traceparent` then."""
    return span(semconv.SPAN_SEARCH_MEMORY, {semconv.MEMORY_K: request.k or DEFAULT_K}) if call.traceparent else _NO_SPAN


def _operation(owner: Owner, request: memory_pb2.SearchMemoriesRequest, queries: Sequence[_Query], call: Call) -> node_pb2.Operation:
    # Filled in place: as an argument of another message it would be copied, its vectors too.
    operation = node_pb2.Operation(tenant=owner.tenant, user=owner.user)
    if call.traceparent:
        operation.traceparent = current_traceparent() or call.traceparent
    search, scope = operation.search, request.scope
    search.vectors, search.k = b"".join([query.vector for query in queries]), request.k or DEFAULT_K
    search.mode = request.mode
    if request.mode != types_pb2.SEARCH_MODE_DENSE:
        search.texts.extend(query.text for query in queries if query.text is not None)
    search.agent, search.session = scope.agent, scope.session
    search.include_embedding, search.explain = request.include_embedding, request.explain
    search.include_strength = request.include_strength
    search.neighbours, search.ancestors, search.episode = request.neighbours, request.ancestors, request.episode
    search.diversity, search.max_tokens = request.diversity, request.max_tokens
    (search.space, search.dimension), search.include_data = queries[0].place, request.include_data
    if request.HasField("weights"):
        search.weights.CopyFrom(request.weights)
    if request.HasField("filter"):
        search.filter.CopyFrom(request.filter)
    if request.HasField("min_score"):
        search.min_score = request.min_score
    return operation


def _own_part(embed_ms: float, queue_ms: float, total_ms: float, token: str) -> bytes:
    """The gateway's part of a SearchMemoriesResponse, to stand behind the node's: concatenated messages merge (protobuf encoding)."""
    response = memory_pb2.SearchMemoriesResponse()
    stats = response.stats
    stats.shards_total = stats.shards_answered = 1
    timings = stats.timings
    timings.embed_ms, timings.queue_ms, timings.total_ms = embed_ms, queue_ms, total_ms
    if token:
        response.consistency_token = token
    return response.SerializeToString()


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
