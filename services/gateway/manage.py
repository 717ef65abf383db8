"""Single traces and whole scopes: get, list, update, delete, count, export."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from ndml.contents import embedded_as, leave_out
from ndml.errors import FieldInvalid, TraceNotFound
from ndml.internal.v1 import memory_node_pb2 as node_pb2
from ndml.language.sentences import spoken
from ndml.runtime.call import Call
from ndml.v1 import memory_pb2, types_pb2
from services.gateway.contents import Contents
from services.gateway.ports import Embedder, Nodes
from services.gateway.scopes import Owner, owner_of, tenant_of
from services.gateway.times import check_expiry, check_time, check_validity
from services.gateway.tokens import fingerprint, joined, read_consistency_token, read_page_token, write_consistency_token, write_page_token
from services.gateway.vectors import VectorSpace, accept_words, fill

DEFAULT_PAGE = 50
CHANGEABLE = (
    *("text", "speaker", "said_at", "kind", "metadata", "salience", "provenance", "embedding", "protected", "expires_at"),
    *("valid_from", "valid_until", "contents"),
)
_SAID = frozenset(("text", "speaker", "contents"))
"""What the vector is made of."""


class Manage:
    """Everything about memories but adding and searching. `now_ms` is the wall clock in milliseconds. contents: None: without joint
    encoders."""

    def __init__(
        self, nodes: Nodes, embedder: Embedder, space: VectorSpace, now_ms: Callable[[], int], contents: Contents | None = None
    ) -> None:
        self._nodes = nodes
        self._embedder = embedder
        self._space = space
        self._now_ms = now_ms
        self._contents = contents or Contents(space)

    async def get(self, request: memory_pb2.GetMemoryRequest, call: Call) -> memory_pb2.GetMemoryResponse:
        """Raises TraceNotFound."""
        owner = owner_of(request.scope, call)
        action = node_pb2.GetAction(
            trace_id=request.trace_id,
            include_embedding=request.include_embedding,
            include_strength=request.include_strength,
            include_history=request.include_history,
            include_siblings=request.include_siblings,
            include_data=request.include_data,
        )
        seen = read_consistency_token(request.consistency_token, owner)
        operation = _operation(owner, call, get=action)
        done = await self._nodes.execute(owner, operation, call, seen=seen, consistency=request.consistency)
        return memory_pb2.GetMemoryResponse(trace=done.result.trace.trace, consistency_token=write_consistency_token({owner: done.seen}))

    async def list_(self, request: memory_pb2.ListMemoriesRequest, call: Call) -> memory_pb2.ListMemoriesResponse:
        """Raises PageTokenInvalid."""
        owner = owner_of(request.scope, call)
        archived = ("archived",) if request.include_archived else ()
        query = fingerprint(*owner, request.scope.agent, request.scope.session, request.filter, *archived)
        action = node_pb2.ListAction(
            limit=request.page_size or DEFAULT_PAGE,
            before=read_page_token(request.page_token, query),
            agent=request.scope.agent,
            session=request.scope.session,
            filter=request.filter,
            include_embedding=request.include_embedding,
            include_archived=request.include_archived,
        )
        seen = read_consistency_token(request.consistency_token, owner)
        operation = _operation(owner, call, list_=action)
        done = await self._nodes.execute(owner, operation, call, seen=seen, consistency=request.consistency)
        page = done.result.list
        return memory_pb2.ListMemoriesResponse(
            traces=page.traces,
            next_page_token=write_page_token(query, page.next if page.HasField("next") else None),
            consistency_token=write_consistency_token({owner: done.seen}),
        )

    async def update(self, request: memory_pb2.UpdateMemoryRequest, call: Call) -> memory_pb2.UpdateMemoryResponse:
        """Raises TraceNotFound, VersionConflict, FieldInvalid for a mask that names what cannot change."""
        owner = owner_of(request.trace.scope, call, "trace.scope")
        fields = list(request.update_mask.paths)
        trace = await self._changed(request.trace, fields, request.consistency_token, call)
        action = node_pb2.UpdateAction(trace=trace, fields=fields, expected_version=request.expected_version)
        seen = read_consistency_token(request.consistency_token, owner)
        done = await self._nodes.execute(owner, _operation(owner, call, update=action), call, seen=seen, consistency=request.consistency)
        token = write_consistency_token({owner: joined(seen, done.seen)})
        return memory_pb2.UpdateMemoryResponse(trace=_answered(done.result.trace.trace), consistency_token=token)

    async def resolve(self, request: memory_pb2.ResolveConflictRequest, call: Call) -> memory_pb2.ResolveConflictResponse:
        """Raises TraceNotFound, FieldInvalid for a sibling that the trace does not have."""
        owner = owner_of(request.scope, call)
        action = node_pb2.ResolveAction(trace_id=request.trace_id, sibling_id=request.sibling_id)
        seen = read_consistency_token(request.consistency_token, owner)
        done = await self._nodes.execute(owner, _operation(owner, call, resolve=action), call, seen=seen, consistency=request.consistency)
        token = write_consistency_token({owner: joined(seen, done.seen)})
        return memory_pb2.ResolveConflictResponse(trace=_answered(done.result.trace.trace), consistency_token=token)

    async def _changed(self, given: types_pb2.MemoryTrace, fields: list[str], token: str, call: Call) -> types_pb2.MemoryTrace:
        """The new values, with a vector where text or vector change; `fields` gains "embedding" then."""
        unknown = [name for name in fields if name not in CHANGEABLE]
        if unknown or not fields:
            raise FieldInvalid(f"update_mask may name {', '.join(CHANGEABLE)}; got {', '.join(unknown) or 'nothing'}", field="update_mask")
        if not given.trace_id:
            raise FieldInvalid("trace_id is required", field="trace.trace_id")
        if "text" in fields and not (given.text or ("contents" in fields and given.contents)):
            raise FieldInvalid("must be at least 1 character; to remove a memory use DeleteMemory", field="trace.text")
        if "said_at" in fields and given.HasField("said_at"):
            check_time(given.said_at, "trace.said_at")
        check_validity(given, "trace")
        if "expires_at" in fields and given.HasField("expires_at"):
            check_expiry(given.expires_at, self._now_ms(), "trace.expires_at")
        trace = types_pb2.MemoryTrace()
        trace.CopyFrom(given)
        if "contents" in fields:
            contents = self._contents.accept_all(given.contents, "trace.contents")
            trace.ClearField("contents")
            trace.contents.extend(contents)
        trace.updated_at.FromMilliseconds(self._now_ms())
        if "embedding" in fields:
            [trace.embedding.vector] = self._space.accept([given.embedding], lambda _: "trace.embedding")
            trace.embedding.word_vectors = accept_words(given.embedding, self._space.dimension, "trace.embedding")
        elif not _SAID.isdisjoint(fields):
            fields.append("embedding")
            after = await self._said_after(trace, fields, token, call)
            [embedded] = await self._embedder.embed([spoken(after.speaker, embedded_as(after))], call)
            fill(trace.embedding, embedded, self._space.dimension)
        if "contents" in fields:
            await self._contents.complete([trace.contents], call, lambda _: "trace.contents")
        return trace

    async def _said_after(self, trace: types_pb2.MemoryTrace, fields: list[str], token: str, call: Call) -> types_pb2.MemoryTrace:
        """Text, speaker and contents as they will be: what the mask does not name stays as it is stored."""
        after = types_pb2.MemoryTrace()
        if not _SAID.issubset(fields):
            get = memory_pb2.GetMemoryRequest(scope=trace.scope, trace_id=trace.trace_id, consistency_token=token)
            after.CopyFrom((await self.get(get, call)).trace)
        for name in _SAID.intersection(fields):
            after.ClearField(name)
            after.MergeFrom(types_pb2.MemoryTrace(**{name: getattr(trace, name)}))
        if not (after.text or after.contents):
            raise FieldInvalid("nothing would be left to remember; to remove a memory use DeleteMemory", field="trace.contents")
        return after

    async def delete(self, request: memory_pb2.DeleteMemoryRequest, call: Call) -> memory_pb2.DeleteMemoryResponse:
        """Raises TraceNotFound unless allow_missing."""
        owner = owner_of(request.scope, call)
        action = node_pb2.DeleteAction(trace_id=request.trace_id)
        seen = read_consistency_token(request.consistency_token, owner)
        done = await self._nodes.execute(owner, _operation(owner, call, delete=action), call, seen=seen, consistency=request.consistency)
        deleted = done.result.delete.deleted
        if not deleted and not request.allow_missing:
            raise TraceNotFound(f"no trace {request.trace_id} in this scope", field="trace_id")
        token = write_consistency_token({owner: joined(seen, done.seen)})
        return memory_pb2.DeleteMemoryResponse(deleted=deleted, consistency_token=token)

    async def stats(self, request: memory_pb2.GetMemoryStatsRequest, call: Call) -> memory_pb2.GetMemoryStatsResponse:
        """Of the owner, or of the whole tenant over all nodes. Raises the first node's error: half a count would be a wrong one.

        With several copies a tenant's count is that of all nodes by the number of copies: exact where no copy is behind.
        """
        tenant = tenant_of(request.scope, call)
        owner = Owner(tenant, request.scope.user)
        operation = _operation(owner, call, stats=node_pb2.StatsAction())
        if owner.user:
            parts = [(await self._nodes.execute(owner, operation, call)).result.stats]
        else:
            parts = [_stats_or_raise(result) for _, result in await self._nodes.execute_on_all(operation, call)]
        total = memory_pb2.GetMemoryStatsResponse(dimension=self._space.dimension, embedding_model=self._space.model)
        for part in parts:
            _add_stats(total, part)
        if not owner.user:
            _once_each(total, self._nodes.copies_each)
        return total

    async def export(self, request: memory_pb2.ExportMemoriesRequest, call: Call) -> AsyncIterator[memory_pb2.ExportMemoriesResponse]:
        """Every trace of the scope, first learned first."""
        owner = owner_of(request.scope, call)
        wanted = node_pb2.ExportRequest(
            tenant=owner.tenant,
            user=owner.user,
            agent=request.scope.agent,
            session=request.scope.session,
            include_embedding=request.include_embedding,
        )
        async with aclosing(self._nodes.export(owner, wanted, call)) as parts:
            async for part in parts:
                yield memory_pb2.ExportMemoriesResponse(traces=part.traces, total=part.total)


def _operation(
    owner: Owner,
    call: Call,
    *,
    get: node_pb2.GetAction | None = None,
    list_: node_pb2.ListAction | None = None,
    update: node_pb2.UpdateAction | None = None,
    delete: node_pb2.DeleteAction | None = None,
    stats: node_pb2.StatsAction | None = None,
    resolve: node_pb2.ResolveAction | None = None,
) -> node_pb2.Operation:
    return node_pb2.Operation(
        tenant=owner.tenant,
        user=owner.user,
        traceparent=call.traceparent,
        get=get,
        list=list_,
        update=update,
        delete=delete,
        stats=stats,
        resolve=resolve,
    )


def _answered(trace: types_pb2.MemoryTrace) -> types_pb2.MemoryTrace:
    """As the answer to a write has it: without its contents' data and vectors."""
    leave_out(trace, data=True, embeddings=True)
    return trace


def _stats_or_raise(result: node_pb2.OperationResult | Exception) -> memory_pb2.GetMemoryStatsResponse:
    if isinstance(result, Exception):
        raise result
    return result.stats


def _add_stats(total: memory_pb2.GetMemoryStatsResponse, part: memory_pb2.GetMemoryStatsResponse) -> None:
    total.traces += part.traces
    total.owners += part.owners
    total.content_bytes += part.content_bytes
    total.resident_traces += part.resident_traces
    total.archived_traces += part.archived_traces
    for kind, count in part.traces_by_kind.items():
        total.traces_by_kind[kind] += count


def _once_each(total: memory_pb2.GetMemoryStatsResponse, copies: int) -> None:
    """Counts of all copies as counts of what they are copies of."""
    for name in ("traces", "owners", "content_bytes", "resident_traces", "archived_traces"):
        setattr(total, name, round(getattr(total, name) / copies))
    for kind, count in total.traces_by_kind.items():
        total.traces_by_kind[kind] = round(count / copies)
