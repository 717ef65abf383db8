"""Writing: request -> owner -> vector -> the owner's node, which has it on disk and findable before it answers."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from google.protobuf.timestamp_pb2 import Timestamp

from ndml.contents import embedded_as
from ndml.errors import FieldInvalid, NdmlError
from ndml.internal.v1 import memory_node_pb2 as node_pb2
from ndml.language.sentences import spoken
from ndml.runtime.call import Call
from ndml.runtime.interceptors import as_ndml_error
from ndml.v1 import memory_pb2, types_pb2
from ndml.wire import error_to_status, status_to_error
from services.gateway.contents import Contents
from services.gateway.ids import RANDOM_BYTES, fresh_trace_id, trace_id_of_request
from services.gateway.ports import Embedder, Nodes, Seen
from services.gateway.scopes import Owner, owner_of
from services.gateway.times import check_time, check_validity, end_of_life
from services.gateway.vectors import VectorSpace, accept_words, fill

_FAILURES_LISTED = 100
_LINKS = 64
_EVIDENCE_BYTES = 1024
_WRITERS_LINKS: frozenset[int] = frozenset(
    (
        types_pb2.LINK_TYPE_RELATED,
        types_pb2.LINK_TYPE_SUPERSEDES,
        types_pb2.LINK_TYPE_CAUSED_BY,
        types_pb2.LINK_TYPE_CAUSES,
        types_pb2.LINK_TYPE_ABOUT,
    )
)
"""Duplicates are the gate's to find, and what a trace was made out of is consolidation's to say: it ends with its sources."""
_ANY_LINK: frozenset[int] = frozenset(types_pb2.LinkType.values()) - {0}
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
# What another node made of a trace, at another time, beside other memories: an import starts anew. The vector goes its own way.
_NOT_TAKEN_OVER: tuple[Literal["embedding", "gate", "state", "strength", "history", "siblings"], ...] = (
    "embedding",
    "gate",
    "state",
    "strength",
    "history",
    "siblings",
)


@dataclass(slots=True)
class Added:
    """What became of one memory; `error` is None where it is stored, or `deduplicated`: trace_id is then the trace that says the same.

    learned_at: when the store first held it, None where the node does not say. gate: what the node's write gate made of it; None where
    it existed or was not gated.
    """

    trace_id: str
    learned_at: Timestamp | None
    existed: bool = False
    error: NdmlError | None = None
    gate: types_pb2.GateDecision | None = None
    deduplicated: bool = False


@dataclass(slots=True)
class AddedAll:
    """One for each memory, in order, and for each owner what a read must have seen to see them."""

    items: list[Added]
    seen: dict[Owner, Seen] = field(default_factory=dict)


class Remember:
    """Adds memories. `now_ms` is the wall clock in milliseconds, `random_bytes` a source such as os.urandom. contents: None: without joint
    encoders."""

    def __init__(
        self,
        nodes: Nodes,
        embedder: Embedder,
        space: VectorSpace,
        now_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        contents: Contents | None = None,
    ) -> None:
        self._nodes = nodes
        self._embedder = embedder
        self._space = space
        self._now_ms = now_ms
        self._random_bytes = random_bytes
        self._contents = contents or Contents(space)

    async def add(
        self,
        memories: Sequence[memory_pb2.NewMemory],
        request_id: str,
        call: Call,
        path: Callable[[int], str],
        *,
        deduplicate: bool = False,
        consistency: types_pb2.Consistency = types_pb2.CONSISTENCY_UNSPECIFIED,
        places: Sequence[int] = (),
    ) -> AddedAll:
        """Store memories; `path(i)` is the path of the i-th in the request. deduplicate: leave out what the gate finds known.
        places: where these stood in the request that is tried again with a part of them; they keep their ids.

        Raises NdmlError for anything wrong with the request, before anything is written; what fails after that is said item by item.
        """
        owners = [owner_of(memory.scope, call, f"{path(i)}.scope") for i, memory in enumerate(memories)]
        now, ids = self._now_ms(), self._ids(request_id, owners, places or range(len(owners)))
        traces = [self._trace(memory, owner, ids[i], now, path(i)) for i, (memory, owner) in enumerate(zip(memories, owners, strict=True))]
        await self._embed([m.embedding if m.HasField("embedding") else None for m in memories], traces, call, path)
        return await self._put(owners, traces, call, node_pb2.PutAction(deduplicate=deduplicate), consistency)

    async def import_(self, parts: AsyncIterator[memory_pb2.ImportMemoriesRequest], call: Call) -> memory_pb2.ImportMemoriesResponse:
        """Store exported traces, keeping their ids and times; a trace that is refused does not stop the others."""
        response = memory_pb2.ImportMemoriesResponse()
        position = 0
        async for part in parts:
            try:
                added = await self._import_part(part.traces, call)
            except NdmlError as error:
                added = AddedAll([Added("", None, error=error) for _ in part.traces])
            for item in added.items:
                response.imported += item.error is None and not item.existed
                response.skipped += item.error is None and item.existed
                response.failed += item.error is not None
                if item.error is not None and len(response.failures) < _FAILURES_LISTED:
                    response.failures.add(index=position, error=error_to_status(item.error))
                position += 1
        return response

    async def _import_part(self, given: Sequence[types_pb2.MemoryTrace], call: Call) -> AddedAll:
        def path(i: int) -> str:
            return f"traces[{i}]"

        owners = [owner_of(trace.scope, call, f"{path(i)}.scope") for i, trace in enumerate(given)]
        now = self._now_ms()
        traces = [self._imported(trace, owner, now, path(i)) for i, (trace, owner) in enumerate(zip(given, owners, strict=True))]
        await self._embed([t.embedding if t.HasField("embedding") else None for t in given], traces, call, path)
        return await self._put(owners, traces, call, node_pb2.PutAction(skip_existing=True))

    def _ids(self, request_id: str, owners: Sequence[Owner], places: Sequence[int]) -> list[str]:
        if request_id:
            return [trace_id_of_request(owner, request_id, place) for place, owner in zip(places, owners, strict=True)]
        now, random = self._now_ms(), self._random_bytes(RANDOM_BYTES * len(owners))  # one system call for all
        return [fresh_trace_id(now, random[i * RANDOM_BYTES : (i + 1) * RANDOM_BYTES]) for i in range(len(owners))]

    def _trace(self, memory: memory_pb2.NewMemory, owner: Owner, trace_id: str, now: int, path: str) -> types_pb2.MemoryTrace:
        trace = types_pb2.MemoryTrace(
            trace_id=trace_id,
            scope=memory.scope,
            kind=memory.kind or types_pb2.TRACE_KIND_EPISODIC,
            text=memory.text,
            speaker=memory.speaker,
            metadata=memory.metadata,
            salience=memory.salience,
            protected=memory.protected,
            version=1,
            links=check_links(memory.links, f"{path}.links", _WRITERS_LINKS),
        )
        trace.scope.tenant = owner.tenant
        if memory.HasField("provenance"):
            trace.provenance.CopyFrom(memory.provenance)
        if memory.HasField("said_at"):
            trace.said_at.CopyFrom(check_time(memory.said_at, f"{path}.said_at"))
        trace.contents.extend(self._contents.accept(memory, path))
        check_validity(memory, path)
        for name in ("valid_from", "valid_until"):
            if memory.HasField(name):
                getattr(trace, name).CopyFrom(getattr(memory, name))
        expires_at, ttl = memory.expires_at if memory.HasField("expires_at") else None, memory.ttl if memory.HasField("ttl") else None
        ends = end_of_life(expires_at, ttl, now, path)
        if ends is not None:
            trace.expires_at.CopyFrom(ends)
        trace.learned_at.FromMilliseconds(now)
        trace.updated_at.FromMilliseconds(now)
        return trace

    def _imported(self, given: types_pb2.MemoryTrace, owner: Owner, now: int, path: str) -> types_pb2.MemoryTrace:
        check_links(given.links, f"{path}.links")
        contents = self._contents.accept(given, path)
        trace = types_pb2.MemoryTrace()
        trace.CopyFrom(given)
        trace.ClearField("contents")
        trace.contents.extend(contents)
        for derived in _NOT_TAKEN_OVER:
            trace.ClearField(derived)
        trace.scope.tenant = owner.tenant
        trace.trace_id = given.trace_id or fresh_trace_id(now, self._random_bytes(RANDOM_BYTES))
        trace.kind = given.kind or types_pb2.TRACE_KIND_EPISODIC
        trace.version = given.version or 1
        check_validity(given, path)
        for name in ("said_at", "learned_at", "updated_at", "expires_at"):
            if given.HasField(name):
                # An expiry in the past is fine here: an old export may hold what has expired since, and the node leaves that out.
                check_time(getattr(given, name), f"{path}.{name}")
            elif name in ("learned_at", "updated_at"):
                getattr(trace, name).FromMilliseconds(now)
        return trace

    async def _embed(
        self,
        given: Sequence[types_pb2.Embedding | None],
        traces: Sequence[types_pb2.MemoryTrace],
        call: Call,
        path: Callable[[int], str],
    ) -> None:
        """Fill in `embedding`: the caller's vectors checked, the others' texts embedded."""
        have = [i for i, embedding in enumerate(given) if embedding is not None]
        accepted = self._space.accept([e for e in given if e is not None], lambda j: f"{path(have[j])}.embedding")
        for i, vector in zip(have, accepted, strict=True):
            traces[i].embedding.vector = vector
        for i, embedding in enumerate(given):
            if embedding is not None:
                traces[i].embedding.word_vectors = accept_words(embedding, self._space.dimension, f"{path(i)}.embedding")
        lacking = [i for i, embedding in enumerate(given) if embedding is None]
        if lacking:
            texts = [spoken(traces[i].speaker, embedded_as(traces[i])) for i in lacking]
            for i, embedded in zip(lacking, await self._embedder.embed(texts, call), strict=True):
                fill(traces[i].embedding, embedded, self._space.dimension)
        await self._contents.complete([trace.contents for trace in traces], call, lambda i: f"{path(i)}.contents")

    async def _put(
        self,
        owners: Sequence[Owner],
        traces: Sequence[types_pb2.MemoryTrace],
        call: Call,
        options: node_pb2.PutAction,
        consistency: types_pb2.Consistency = types_pb2.CONSISTENCY_UNSPECIFIED,
    ) -> AddedAll:
        """One put for each owner, in the manner of `options`, which has no traces."""
        positions: dict[Owner, list[int]] = defaultdict(list)
        for i, owner in enumerate(owners):
            positions[owner].append(i)
        added = AddedAll([Added(trace.trace_id, trace.learned_at) for trace in traces])
        await asyncio.gather(
            *(self._put_owner(owner, at, [traces[i] for i in at], call, options, consistency, added) for owner, at in positions.items())
        )
        return added

    async def _put_owner(
        self,
        owner: Owner,
        at: list[int],
        traces: list[types_pb2.MemoryTrace],
        call: Call,
        options: node_pb2.PutAction,
        consistency: types_pb2.Consistency,
        added: AddedAll,
    ) -> None:
        """Put the traces that stand at the positions `at` of `added`."""
        put = node_pb2.PutAction(traces=traces, skip_existing=options.skip_existing, deduplicate=options.deduplicate)
        operation = node_pb2.Operation(tenant=owner.tenant, user=owner.user, traceparent=call.traceparent, put=put)
        try:
            done = await self._nodes.execute(owner, operation, call, consistency=consistency)
        except Exception as error:
            mapped = as_ndml_error(error)
            for i in at:
                added.items[i].error = mapped
            return
        added.seen[owner] = done.seen
        for i, outcome in zip(at, done.result.put.outcomes, strict=True):
            _note(added.items[i], outcome)


def _note(item: Added, outcome: node_pb2.PutOutcome) -> None:
    item.trace_id = outcome.duplicate_of or item.trace_id
    item.deduplicated = bool(outcome.duplicate_of)
    item.existed = outcome.existed
    item.learned_at = outcome.learned_at if outcome.HasField("learned_at") else None
    item.gate = outcome.gate if outcome.HasField("gate") else None
    item.error = status_to_error(outcome.error) if outcome.HasField("error") else None


def check_links(links: Sequence[types_pb2.TraceLink], path: str, allowed: frozenset[int] = _ANY_LINK) -> Sequence[types_pb2.TraceLink]:
    """The links. Raises FieldInvalid for those that no node can have made, or that are none of the `allowed` types."""
    if len(links) > _LINKS:
        raise FieldInvalid(f"{len(links)} links, at most {_LINKS} a trace", field=path)
    for i, link in enumerate(links):
        if not _TRACE_ID.fullmatch(link.trace_id):
            raise FieldInvalid("must be 32 lower-case hexadecimal digits", field=f"{path}[{i}].trace_id")
        if link.type not in allowed:
            names = ", ".join(types_pb2.LinkType.keys()[each].removeprefix("LINK_TYPE_") for each in sorted(allowed))
            raise FieldInvalid(f"must be one of {names}", field=f"{path}[{i}].type")
        if not 0 <= link.weight <= 1:
            raise FieldInvalid("must be 0 to 1", field=f"{path}[{i}].weight")
        if len(link.evidence.encode()) > _EVIDENCE_BYTES:
            raise FieldInvalid(f"must be at most {_EVIDENCE_BYTES} bytes", field=f"{path}[{i}].evidence")
    return links
