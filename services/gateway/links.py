"""Long-lived streams to the memory nodes. A lane sends what queued while its last batches were under way: no timers, no fixed batch size.

A node has two lanes, so that a search never waits behind a commit. One writer a stream: grpc.aio breaks when two `write`s overlap.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc

from ndml.errors import DeadlinePassed, NdmlError, Overloaded, OwnerUnavailable
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import memory_node_pb2_grpc as pb_grpc
from ndml.internal.v1 import replication_pb2_grpc
from ndml.runtime import metrics
from ndml.runtime.channel import Dialer
from ndml.runtime.log import get_logger
from ndml.wire import rpc_error_to_ndml
from services.gateway.settings import LinkSettings

log = get_logger(__name__)

_OPERATION_OVERHEAD = 256
"""Bytes counted for a read: it is small, measuring it would cost more than it saves."""
_LARGE = frozenset({"put", "merge"})


class Reply(NamedTuple):
    """A result, and the number of the store that gave it: sequence numbers in the result are positions of that store."""

    replica: int
    result: pb.OperationResult


@dataclass(slots=True)
class _Queued:
    operation: pb.Operation
    deadline: float | None
    result: asyncio.Future[Reply]


class Lane:
    """One Execute stream to one node."""

    def __init__(self, name: str, stub: pb_grpc.MemoryNodeServiceAsyncStub, epoch: Callable[[], int], options: LinkSettings) -> None:
        self._name = name
        self._stub = stub
        self._epoch = epoch
        self._options = options
        self._queue: deque[_Queued] = deque()
        self._under_way: dict[int, list[_Queued]] = {}
        self._next_batch = 1
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._batch_size = metrics.BATCH_SIZE.labels("link")

    async def submit(self, operation: pb.Operation, deadline: float | None) -> Reply:
        """Queue the operation and wait for its result. Raises Overloaded, OwnerUnavailable, DeadlinePassed."""
        if len(self._queue) >= self._options.max_queued:
            raise Overloaded(f"{self._options.max_queued} operations wait for {self._name} (links.max_queued): come back shortly")
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._serve(), context=Context())
        queued = _Queued(operation, deadline, asyncio.get_running_loop().create_future())
        self._queue.append(queued)
        self._wake.set()
        return await queued.result

    async def close(self) -> None:
        """Fail what is queued and end the stream."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._fail_all(OwnerUnavailable(f"the link to {self._name} is closed"))

    async def _serve(self) -> None:
        """Life of one stream: from the first operation until the stream breaks; the next operation opens another one."""
        open_stream: Callable[[], Any] = self._stub.Execute  # type: ignore[assignment]  # written to, not iterated
        stream = open_stream()
        reader = asyncio.get_running_loop().create_task(self._read(stream))
        reader.add_done_callback(lambda _: self._wake.set())
        try:
            while not reader.done():
                while self._queue and len(self._under_way) < self._options.max_in_flight:
                    await self._send(stream)
                self._wake.clear()
                if not reader.done():
                    await self._wake.wait()
            self._fail_all(self._why(reader))
        except (grpc.RpcError, asyncio.InvalidStateError) as error:
            self._fail_all(self._lost(error))
        finally:
            reader.cancel()
            stream.cancel()

    async def _send(self, stream: Any) -> None:
        batch = self._take()
        if not batch:
            return
        self._batch_size.observe(len(batch))
        number, self._next_batch = self._next_batch, self._next_batch + 1
        self._under_way[number] = batch
        await stream.write(pb.ExecuteRequest(batch_id=number, epoch=self._epoch(), operations=[q.operation for q in batch]))

    def _take(self) -> list[_Queued]:
        """The next batch, at most max_batch operations and about max_batch_bytes; callers that left are dropped."""
        batch: list[_Queued] = []
        size, now = 0, time.monotonic()
        while self._queue and len(batch) < self._options.max_batch and size < self._options.max_batch_bytes:
            queued = self._queue.popleft()
            if queued.result.done():
                continue
            if queued.deadline is not None:
                left_ms = int((queued.deadline - now) * 1000)
                if left_ms <= 0:
                    queued.result.set_exception(DeadlinePassed("the deadline passed before the operation was sent; nothing was written"))
                    continue
                queued.operation.deadline_ms = left_ms
            size += queued.operation.ByteSize() if queued.operation.WhichOneof("action") in _LARGE else _OPERATION_OVERHEAD
            batch.append(queued)
        return batch

    async def _read(self, stream: Any) -> None:
        async for response in stream:
            batch = self._under_way.pop(response.batch_id, ())
            for queued, result in zip(batch, response.results, strict=True):
                if not queued.result.done():
                    queued.result.set_result(Reply(response.replica, result))
            self._wake.set()

    def _why(self, reader: asyncio.Task[None]) -> NdmlError:
        error = None if reader.cancelled() else reader.exception()
        return self._lost(error)

    def _lost(self, error: BaseException | None) -> NdmlError:
        reason = rpc_error_to_ndml(error).message if isinstance(error, grpc.RpcError) else str(error or "it closed the stream")
        log.info("link_lost", node=self._name, reason=reason, under_way=len(self._under_way), queued=len(self._queue))
        return OwnerUnavailable(f"{self._name} does not answer ({reason}): repeat the call, a write with the same request_id")

    def _fail_all(self, error: NdmlError) -> None:
        waiting = [q for batch in self._under_way.values() for q in batch] + list(self._queue)
        self._under_way.clear()
        self._queue.clear()
        for queued in waiting:
            if not queued.result.done():
                queued.result.set_exception(error)


class NodeLink:
    """Everything that goes to one memory node's address."""

    def __init__(self, dialer: Dialer, node_id: str, address: str, epoch: Callable[[], int], options: LinkSettings) -> None:
        self.node_id = node_id
        self.address = address
        self._channel = dialer.open(address, retries=False)
        self.stub: pb_grpc.MemoryNodeServiceAsyncStub = pb_grpc.MemoryNodeServiceStub(self._channel)
        self.replication: replication_pb2_grpc.ReplicationServiceAsyncStub = replication_pb2_grpc.ReplicationServiceStub(self._channel)
        self.reads = Lane(f"{node_id} ({address})", self.stub, epoch, options)
        self.writes = Lane(f"{node_id} ({address})", self.stub, epoch, options)

    async def close(self) -> None:
        await self.reads.close()
        await self.writes.close()
        await self._channel.close(None)
