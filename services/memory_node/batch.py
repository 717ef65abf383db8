"""A batch under way: its operations, the results so far, and where the answer goes. Touched by the engine's thread only once submitted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from google.protobuf.message import Message
from opentelemetry.util.types import AttributeValue

from ndml.errors import DeadlinePassed, NdmlError, Overloaded
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime import metrics, semconv
from ndml.runtime.telemetry import server_span_at, tenant_hash
from ndml.wire import error_to_status
from services.memory_node import wire
from services.memory_node.commit import WriteResult
from services.memory_node.records import Owner
from services.memory_node.requests import recent

Deliver = Callable[[bytes], None]
"""Takes a serialised ExecuteResponse, on the event loop."""

_SPANS = {
    "put": semconv.SPAN_CREATE_MEMORY,
    "search": semconv.SPAN_SEARCH_MEMORY,
    "get": semconv.SPAN_GET_MEMORY,
    "list": semconv.SPAN_LIST_MEMORY,
    "update": semconv.SPAN_UPDATE_MEMORY,
    "delete": semconv.SPAN_DELETE_MEMORY,
    "stats": semconv.SPAN_MEMORY_STATS,
    "reinforce": semconv.SPAN_UPDATE_MEMORY,
    "merge": semconv.SPAN_UPDATE_MEMORY,
    "resolve": semconv.SPAN_UPDATE_MEMORY,
    "record": semconv.SPAN_GET_MEMORY,
}


class Batch:
    """`finished` is called when the last result is in, on the thread that brought it."""

    __slots__ = ("_arrived", "_arrived_ns", "_left", "_results", "deliver", "finished", "operations", "request")

    def __init__(self, request: pb.ExecuteRequest, deliver: Deliver, finished: Callable[[Batch], None]) -> None:
        self.request = request
        # A list, because a repeated field makes a new object at each look.
        self.operations: list[pb.Operation] = list(request.operations)
        self.deliver = deliver
        self.finished = finished
        self._results: list[bytes] = [b""] * len(self.operations)
        self._left = len(self.operations)
        self._arrived = time.monotonic()
        self._arrived_ns = time.time_ns()

    def waited_ms(self) -> float:
        """Milliseconds since the batch arrived."""
        return (time.monotonic() - self._arrived) * 1e3

    def finish(self, position: int, result: Message | bytes | NdmlError) -> None:
        """Set one operation's result: an OperationResult, serialised or not, or its error. The first one stands."""
        if self._results[position]:
            return
        if isinstance(result, NdmlError):
            self._results[position] = _error_bytes(result)
            action = self.operations[position].WhichOneof("action") or ""
            metrics.OPERATION_ERRORS.labels(action, result.code.name, result.reason).inc()
        else:
            self._results[position] = result if isinstance(result, bytes) else result.SerializeToString()
        operation = self.operations[position]
        if operation.traceparent:
            self._record(operation, result if isinstance(result, NdmlError) else None)
        self._left -= 1
        if not self._left:
            self.finished(self)

    def _record(self, operation: pb.Operation, error: NdmlError | None) -> None:
        kind = operation.WhichOneof("action") or ""
        name = _SPANS.get(kind, "operation")
        attributes: dict[str, AttributeValue] = {
            semconv.GEN_AI_OPERATION_NAME: name,
            semconv.BATCH_SIZE: len(self.operations),
            semconv.TENANT_HASH: tenant_hash(operation.tenant),
        }
        server_span_at(name, operation.traceparent, self._arrived_ns, time.time_ns(), attributes, error)

    def encode(self, limit_bytes: int, replica: int = 0) -> bytes:
        """The serialised ExecuteResponse; results that would make it longer than `limit_bytes` become OVERLOADED.

        `replica`: number of the store.
        """
        total = 0
        for i, result in enumerate(self._results):
            if total + len(result) > limit_bytes and total:
                self._results[i] = result = _error_bytes(_crowded_out(limit_bytes))
            total += len(result)
        return wire.execute_response(self.request.batch_id, self._results, replica)


class Slot:
    """One operation of a batch."""

    __slots__ = ("action", "batch", "operation", "owner", "position", "tries")

    def __init__(self, batch: Batch, position: int) -> None:
        self.batch = batch
        self.position = position
        self.operation = operation = batch.operations[position]
        self.owner = Owner(operation.tenant, operation.user)
        self.action = operation.WhichOneof("action")
        self.tries = 0

    def finish(self, result: Message | bytes | NdmlError) -> None:
        self.batch.finish(self.position, result)

    def written(self, result: WriteResult | NdmlError, update: rpb.OwnerUpdate | None = None, more: Sequence[rpb.OwnerUpdate] = ()) -> None:
        """The outcome of a write, and what it changed where the caller wants to know; `more`: signed updates beside that."""
        if isinstance(result, NdmlError):
            self.finish(result)
            return
        if update is not None:
            update.traceparent = self.operation.traceparent
        if self.operation.traceparent:
            recent.note(self.operation, update)
        if isinstance(result, pb.PutResult):
            self.finish(pb.OperationResult(put=result, update=update, more_updates=more))
        elif isinstance(result, pb.TraceResult):
            self.finish(pb.OperationResult(trace=result, update=update, more_updates=more))
        elif isinstance(result, pb.DeleteResult):
            self.finish(pb.OperationResult(delete=result, update=update, more_updates=more))
        elif isinstance(result, pb.MergeResult):
            self.finish(pb.OperationResult(merge=result))
        else:
            assert isinstance(result, pb.ReinforceActionResult), result
            self.finish(pb.OperationResult(reinforce=result, update=update, more_updates=more))

    def check_deadline(self) -> None:
        """Raises DeadlinePassed."""
        limit = self.operation.deadline_ms
        if limit and self.batch.waited_ms() > limit:
            raise DeadlinePassed(f"the caller's {limit} ms had passed before the operation began: nothing was done")


def refusal(request: pb.ExecuteRequest, error: NdmlError) -> bytes:
    """Serialised ExecuteResponse of a batch that is refused as a whole."""
    return wire.execute_response(request.batch_id, [_error_bytes(error)] * len(request.operations))


def _error_bytes(error: NdmlError) -> bytes:
    return pb.OperationResult(error=error_to_status(error)).SerializeToString()


def _crowded_out(limit_bytes: int) -> Overloaded:
    return Overloaded(f"the batch's results come to more than {limit_bytes} bytes (engine.response_bytes): ask again, or for less at once")
