"""Feedback: grades on traces and on whole answers -> one operation for the owner's node."""

from __future__ import annotations

from ndml.errors import FieldInvalid
from ndml.internal.v1 import memory_node_pb2 as node_pb2
from ndml.runtime import semconv
from ndml.runtime.call import Call
from ndml.runtime.telemetry import current_traceparent, span
from ndml.v1 import memory_pb2
from services.gateway.answers import read_answer_id
from services.gateway.ids import request_digest
from services.gateway.ports import Nodes
from services.gateway.scopes import owner_of
from services.gateway.tokens import joined, read_consistency_token, write_consistency_token

MAX_GRADED = 1024
"""Graded traces in one operation, as its proto says: answers that cite 50 each come to more sooner than single traces do."""


class Reinforce:
    """Takes feedback. Nothing else strengthens a trace: being found is not being used."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    async def reinforce(self, request: memory_pb2.ReinforceMemoriesRequest, call: Call) -> memory_pb2.ReinforceMemoriesResponse:
        """One result for each graded trace. Raises FieldInvalid, OwnerUnavailable; a trace that is not there fails by itself."""
        owner = owner_of(request.scope, call)
        action = node_pb2.ReinforceAction(request_digest=request_digest(owner, request.request_id), feedback=graded(request))
        if request.HasField("spread"):
            action.spread.CopyFrom(request.spread)
        with span(semconv.SPAN_UPDATE_MEMORY, {semconv.MEMORY_COUNT: len(action.feedback)}):
            traceparent = current_traceparent() or call.traceparent
            operation = node_pb2.Operation(tenant=owner.tenant, user=owner.user, traceparent=traceparent, reinforce=action)
            seen = read_consistency_token(request.consistency_token, owner)
            done = await self._nodes.execute(owner, operation, call, seen=seen, consistency=request.consistency)
        taken = done.result.reinforce
        return memory_pb2.ReinforceMemoriesResponse(
            results=taken.results,
            credited=taken.credited,
            replayed=taken.replayed,
            consistency_token=write_consistency_token({owner: joined(seen, done.seen)}),
        )


def graded(request: memory_pb2.ReinforceMemoriesRequest) -> list[node_pb2.TraceFeedback]:
    """Each graded trace with its grade, in the request's order; an answer stands for every trace it cited. Raises FieldInvalid."""
    found: list[node_pb2.TraceFeedback] = []
    for i, feedback in enumerate(request.feedback):
        whole = feedback.WhichOneof("target") == "answer_id"
        cited = read_answer_id(feedback.answer_id, f"feedback[{i}].answer_id") if whole else [feedback.trace_id]
        found += [node_pb2.TraceFeedback(trace_id=trace_id, grade=feedback.grade) for trace_id in cited]
    if len(found) > MAX_GRADED:
        raise FieldInvalid(f"grades {len(found)} traces, at most {MAX_GRADED} in one call: split it", field="feedback")
    return found
