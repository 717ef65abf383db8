"""ReplicationService: the door for other memory nodes and for backups."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime.call import Call
from services.memory_node.replication.component import Replication


class ReplicationServicer:
    """Methods as in protos/ndml/internal/v1/replication.proto."""

    def __init__(self, replication: Replication) -> None:
        self._replication = replication

    async def ListOwners(self, request: rpb.ListOwnersRequest, call: Call) -> AsyncIterator[rpb.ListOwnersResponse]:
        async for page in self._replication.answers.list_owners(request):
            yield page

    async def CompareBuckets(self, request: rpb.CompareBucketsRequest, call: Call) -> rpb.CompareBucketsResponse:
        return await self._replication.answers.compare(request)

    async def StreamSymbols(self, request: rpb.StreamSymbolsRequest, call: Call) -> AsyncIterator[rpb.StreamSymbolsResponse]:
        async for block in self._replication.answers.symbols(request):
            yield block

    async def FetchRecords(self, request: rpb.FetchRecordsRequest, call: Call) -> AsyncIterator[rpb.FetchRecordsResponse]:
        async for chunk in self._replication.answers.fetch(request):
            yield chunk

    async def PushRecords(self, request: AsyncIterator[rpb.PushRecordsRequest], call: Call) -> AsyncIterator[rpb.PushRecordsResponse]:
        async for message in request:
            yield await self._replication.answers.push(message)

    async def SetPhase(self, request: rpb.SetPhaseRequest, call: Call) -> rpb.SetPhaseResponse:
        return rpb.SetPhaseResponse(phase=await self._replication.set_phase(request.phase))
