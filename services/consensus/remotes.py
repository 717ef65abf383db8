"""Other consensus nodes over gRPC."""

from __future__ import annotations

from collections.abc import Iterable

import grpc

from ndml.internal.v1 import consensus_pb2 as pb2
from ndml.internal.v1 import consensus_pb2_grpc
from ndml.placement import NodeRecord
from ndml.runtime.channel import open_channel
from ndml.runtime.placement import record_to_proto, records_from_proto
from ndml.wire import rpc_error_to_ndml


class PeerLink:
    """Peer at host:port. Needs a running event loop."""

    def __init__(self, address: str, sender: str, timeout_s: float) -> None:
        self.address = address
        self._sender = sender
        self._timeout_s = timeout_s
        self._channel = open_channel(address)
        self._stub: consensus_pb2_grpc.ConsensusServiceAsyncStub = consensus_pb2_grpc.ConsensusServiceStub(self._channel)

    async def exchange(self, records: Iterable[NodeRecord]) -> list[NodeRecord]:
        """Raises NdmlError when no answer comes within `timeout_s`."""
        request = pb2.ExchangeRosterRequest(node_id=self._sender, records=[record_to_proto(record) for record in records])
        try:
            answer = await self._stub.ExchangeRoster(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            raise rpc_error_to_ndml(error) from error
        return records_from_proto(answer.records)

    async def close(self) -> None:
        await self._channel.close(None)
