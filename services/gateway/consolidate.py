"""Consolidation on demand: the owner's node does it, its progress is passed on as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from ndml.internal.v1 import memory_node_pb2 as node_pb2
from ndml.runtime import semconv
from ndml.runtime.call import Call
from ndml.runtime.telemetry import span
from ndml.v1 import memory_pb2
from services.gateway.ports import Nodes
from services.gateway.scopes import owner_of
from services.gateway.times import budget_ms


class Consolidate:
    """Starts a consolidation and follows it; who stops listening stops it."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    async def consolidate(
        self, request: memory_pb2.ConsolidateMemoriesRequest, call: Call
    ) -> AsyncIterator[memory_pb2.ConsolidateMemoriesResponse]:
        """The node's messages, the last one with done = true. Raises FieldInvalid, OwnerUnavailable."""
        owner = owner_of(request.scope, call)
        wanted = node_pb2.ConsolidateRequest(
            tenant=owner.tenant,
            user=owner.user,
            max_traces=request.max_traces,
            time_budget_ms=budget_ms(request.time_budget, "time_budget") if request.HasField("time_budget") else 0,
            dry_run=request.dry_run,
        )
        with span(semconv.SPAN_CONSOLIDATE_MEMORY):
            # Closed with this generator and not when it is collected: a caller that left must not keep the node at work.
            async with aclosing(self._nodes.consolidate(owner, wanted, call)) as parts:
                async for part in parts:
                    yield part.progress
