"""MemoryNodeService: from the wire to the engine and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.runtime.call import Call
from services.memory_node.node import Node
from services.memory_node.records import timestamp
from services.memory_node.streams import Streams


class NodeServicer:
    """Methods as in protos/ndml/internal/v1/memory_node.proto. `started_at`: Unix seconds.

    describe  adds to the status what the node itself does not know
    """

    def __init__(
        self,
        node: Node,
        streams: Streams,
        version: str,
        started_at: float,
        describe: Callable[[pb.GetNodeStatusResponse], None] = lambda status: None,
    ) -> None:
        self._node = node
        self._streams = streams
        self._version = version
        self._started_us = int(started_at * 1e6)
        self._describe = describe

    async def Execute(self, request: AsyncIterator[pb.ExecuteRequest], call: Call) -> AsyncIterator[bytes]:
        async for answer in self._streams.run(self._node.engine, request):
            yield answer

    async def Export(self, request: pb.ExportRequest, call: Call) -> AsyncIterator[pb.ExportResponse]:
        self._node.check_epoch(request.tenant, request.user, request.epoch)
        async for chunk in self._node.exports.stream(request):
            yield chunk

    async def Consolidate(self, request: pb.ConsolidateRequest, call: Call) -> AsyncIterator[pb.ConsolidateResponse]:
        self._node.check_epoch(request.tenant, request.user, request.epoch)
        async for progress in self._node.consolidations.stream(request):
            yield pb.ConsolidateResponse(progress=progress)

    async def CreateSnapshot(self, request: pb.CreateSnapshotRequest, call: Call) -> pb.CreateSnapshotResponse:
        made = await self._node.snapshot()
        answer = pb.CreateSnapshotResponse(path=str(made.path), size_bytes=made.size_bytes, traces=made.traces, sha256=made.sha256)
        answer.created_at.CopyFrom(timestamp(made.created_ns // 1000))
        return answer

    async def GetNodeStatus(self, request: pb.GetNodeStatusRequest, call: Call) -> pb.GetNodeStatusResponse:
        status = await asyncio.to_thread(self._node.status)
        status.version = self._version
        status.started_at.CopyFrom(timestamp(self._started_us))
        self._describe(status)
        return status
