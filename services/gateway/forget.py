"""Everything of a scope, erased: pages of it are read from enough copies and deleted, until such a read finds nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from ndml.errors import Overloaded
from ndml.internal.v1 import memory_node_pb2 as node_pb2
from ndml.runtime import semconv
from ndml.runtime.call import Call
from ndml.runtime.telemetry import span
from ndml.v1 import memory_pb2, types_pb2
from services.gateway.ports import Nodes, Seen
from services.gateway.scopes import Owner, owner_of
from services.gateway.tokens import joined, read_consistency_token, write_consistency_token

_PAGE = 256
"""Traces deleted side by side."""
_MOST_IDLE = 5
"""Pages in a row of which nothing could be deleted: others delete them, or copies do not agree yet."""
_MOST_WALKS = 100
"""Over what is left. Two are enough where nobody writes: one that deletes, one that meets nothing."""


class Forget:
    """Erases scopes; who stops listening stops it."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    async def forget(self, request: memory_pb2.ForgetScopeRequest, call: Call) -> AsyncIterator[memory_pb2.ForgetScopeResponse]:
        """Progress, the last message with done = true. Raises FieldInvalid, OwnerUnavailable, Overloaded."""
        owner = owner_of(request.scope, call)
        seen: Seen = read_consistency_token(request.consistency_token, owner)
        erased, idle = 0, 0
        with span(semconv.SPAN_FORGET_SCOPE):
            for _ in range(_MOST_WALKS):  # until one from the first place to the last meets nothing
                met, more = False, True
                before: node_pb2.ListPlace | None = None
                while more:
                    page, seen = await self._page(owner, request, before, seen, call)
                    more, before = page.HasField("next"), page.next
                    if not page.traces:
                        continue
                    met = True
                    deleted, seen = await self._delete(owner, [trace.trace_id for trace in page.traces], request.consistency, seen, call)
                    erased, idle = erased + deleted, 0 if deleted else idle + 1
                    if idle == _MOST_IDLE:
                        text = f"{len(page.traces)} traces are listed and cannot be deleted: repeat the call, it goes on from here"
                        raise Overloaded(text)
                    yield memory_pb2.ForgetScopeResponse(erased=erased, consistency_token=write_consistency_token({owner: seen}))
                if not met:
                    break
            else:
                raise Overloaded("the scope is written to faster than it is erased: stop its writers, then repeat the call")
        yield memory_pb2.ForgetScopeResponse(erased=erased, done=True, consistency_token=write_consistency_token({owner: seen}))

    async def _page(
        self, owner: Owner, request: memory_pb2.ForgetScopeRequest, before: node_pb2.ListPlace | None, seen: Seen, call: Call
    ) -> tuple[node_pb2.ListResult, Seen]:
        """Some that are left. One with a place to go on from may be empty: what has expired is not listed, and goes by itself."""
        scope = request.scope
        action = node_pb2.ListAction(limit=_PAGE, before=before, agent=scope.agent, session=scope.session, include_archived=True)
        operation = node_pb2.Operation(tenant=owner.tenant, user=owner.user, traceparent=call.traceparent, list=action)
        consistency = request.consistency or types_pb2.CONSISTENCY_QUORUM
        done = await self._nodes.execute(owner, operation, call, seen=seen, consistency=consistency)
        return done.result.list, joined(seen, done.seen)

    async def _delete(
        self, owner: Owner, trace_ids: Sequence[str], consistency: types_pb2.Consistency, seen: Seen, call: Call
    ) -> tuple[int, Seen]:
        """How many there were, and what is seen with them gone."""

        async def one(trace_id: str) -> tuple[bool, Seen]:
            action = node_pb2.DeleteAction(trace_id=trace_id)
            operation = node_pb2.Operation(tenant=owner.tenant, user=owner.user, traceparent=call.traceparent, delete=action)
            done = await self._nodes.execute(owner, operation, call, seen=seen, consistency=consistency)
            return done.result.delete.deleted, done.seen

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(trace_id)) for trace_id in trace_ids]
        found = [task.result() for task in tasks]
        return sum(deleted for deleted, _ in found), joined(seen, *(each for _, each in found))
