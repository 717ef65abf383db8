"""The profile of a user: read off their traces, page by page, at each call. Nothing is stored of it, so nothing outlives its traces."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ndml.btsp.profile import Stated, profile, told
from ndml.internal.v1 import memory_node_pb2 as node_pb2
from ndml.language.subjects import is_assistant
from ndml.runtime.call import Call
from ndml.v1 import memory_pb2, types_pb2
from services.gateway.ports import Nodes
from services.gateway.scopes import owner_of
from services.gateway.tokens import joined, read_consistency_token, write_consistency_token

MOST_TRACES = 5_000
"""Read for one profile: a second of one core the first time, and some megabytes on the wire."""
_PAGE, _MOST_PAGES = 1_000, 200


class Profile:
    """Reads profiles."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    async def get(self, request: memory_pb2.GetProfileRequest, call: Call) -> memory_pb2.GetProfileResponse:
        """Raises FieldInvalid, OwnerUnavailable."""
        owner = owner_of(request.scope, call)
        seen = read_consistency_token(request.consistency_token, owner)
        action = node_pb2.ListAction(limit=_PAGE, agent=request.scope.agent, session=request.scope.session, filter=request.filter)
        telling: list[types_pb2.MemoryTrace] = []
        response = memory_pb2.GetProfileResponse()
        for _ in range(_MOST_PAGES):
            operation = node_pb2.Operation(tenant=owner.tenant, user=owner.user, traceparent=call.traceparent, list=action)
            done = await self._nodes.execute(owner, operation, call, seen=seen, consistency=request.consistency)
            seen, page = joined(seen, done.seen), done.result.list
            response.traces_read += len(page.traces)
            # A quarter of a millisecond a trace: not on the thread that everybody waits for.
            telling += await asyncio.to_thread(_telling, page.traces)
            if not page.HasField("next") or response.traces_read >= MOST_TRACES:
                break
            action.before.CopyFrom(page.next)
        response.partial = page.HasField("next")
        response.properties.extend(await asyncio.to_thread(_properties, telling))
        response.consistency_token = write_consistency_token({owner: seen})
        return response


def _telling(traces: Sequence[types_pb2.MemoryTrace]) -> list[types_pb2.MemoryTrace]:
    """Those that tell a property. An assistant tells nothing of itself."""
    return [trace for trace in traces if not is_assistant(trace.speaker) and told(trace.speaker, trace.text)]


def _properties(traces: Sequence[types_pb2.MemoryTrace]) -> list[memory_pb2.ProfileProperty]:
    by_id = {trace.trace_id: trace for trace in traces}
    stated = [Stated(trace.trace_id, trace.speaker, trace.text, _begins(trace)) for trace in traces]
    made = []
    for each in profile(stated):
        shown = memory_pb2.ProfileProperty(whose=each.whose, kind=each.kind, what=each.what, replaced_trace_ids=each.replaced)
        shown.trace.CopyFrom(by_id[each.trace_id])
        shown.since.FromNanoseconds(each.since)
        made.append(shown)
    return made


def _begins(trace: types_pb2.MemoryTrace) -> int:
    """When what it says began to hold, in nanoseconds."""
    if trace.HasField("valid_from"):
        return trace.valid_from.ToNanoseconds()
    return (trace.said_at if trace.HasField("said_at") else trace.learned_at).ToNanoseconds()
