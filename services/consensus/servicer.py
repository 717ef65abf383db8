"""ConsensusService: proto <-> domain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from ndml.internal.v1 import consensus_pb2 as pb2
from ndml.runtime import metrics
from ndml.runtime.call import Call
from ndml.runtime.placement import placement_to_proto, record_from_proto, record_to_proto, records_from_proto
from services.consensus.coordinator import Coordinator
from services.consensus.deltas.exchange import DeltaExchange
from services.consensus.deltas.wires import ServerWire
from services.consensus.status import describe


class ConsensusServicer:
    """node_id, version, started_at (Unix seconds): what GetConsensusStatus says of this process."""

    def __init__(self, coordinator: Coordinator, deltas: DeltaExchange, node_id: str, version: str, started_at: float) -> None:
        self._coordinator = coordinator
        self._deltas = deltas
        self._node_id = node_id
        self._version = version
        self._started_at = started_at

    async def Heartbeat(self, request: pb2.HeartbeatRequest, call: Call) -> pb2.HeartbeatResponse:
        epoch = await self._coordinator.heartbeat(record_from_proto(request.node))
        return pb2.HeartbeatResponse(epoch=epoch, is_member=self._coordinator.membership.is_member(request.node.node_id))

    async def WatchPlacement(self, request: pb2.WatchPlacementRequest, call: Call) -> AsyncIterator[pb2.WatchPlacementResponse]:
        metrics.CONSENSUS_OPERATIONS.labels("watch").inc()
        async with aclosing(self._coordinator.feed.follow(request.watcher)) as placements:
            async for placement in placements:
                yield pb2.WatchPlacementResponse(placement=placement_to_proto(placement))

    async def ExchangeRoster(self, request: pb2.ExchangeRosterRequest, call: Call) -> pb2.ExchangeRosterResponse:
        records = await self._coordinator.exchange(records_from_proto(request.records))
        return pb2.ExchangeRosterResponse(records=[record_to_proto(record) for record in records])

    async def ExchangeDeltas(
        self, requests: AsyncIterator[pb2.ExchangeDeltasRequest], call: Call
    ) -> AsyncIterator[pb2.ExchangeDeltasResponse]:
        metrics.CONSENSUS_OPERATIONS.labels("deltas").inc()
        wire = ServerWire(requests)
        async with aclosing(wire.responses(self._deltas.serve(wire))) as responses:
            async for response in responses:
                yield response

    async def GetConsensusStatus(self, request: pb2.GetConsensusStatusRequest, call: Call) -> pb2.GetConsensusStatusResponse:
        status = describe(self._coordinator, self._deltas)
        status.node_id, status.version = self._node_id, self._version
        status.started_at.FromMilliseconds(int(self._started_at * 1000))
        return status
