"""Other consensus nodes over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc

from ndml.errors import OwnerUnavailable
from ndml.internal.v1 import consensus_pb2 as pb2
from ndml.internal.v1 import consensus_pb2_grpc
from ndml.placement import NodeRecord
from ndml.runtime.channel import Dialer
from ndml.runtime.placement import record_to_proto, records_from_proto
from ndml.wire import rpc_error_to_ndml
from services.consensus.deltas.ports import Message


class PeerLink:
    """Peer at host:port. Needs a running event loop."""

    def __init__(self, dialer: Dialer, address: str, sender: str, timeout_s: float) -> None:
        self.address = address
        self._sender = sender
        self._timeout_s = timeout_s
        self._channel = dialer.open(address)
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


class PeerDialer:
    """Dialer of the consensus node at host:port. Needs a running event loop."""

    def __init__(self, dialer: Dialer, address: str) -> None:
        self.address = address
        self._channel = dialer.open(address, retries=False)
        self._stub: consensus_pb2_grpc.ConsensusServiceAsyncStub = consensus_pb2_grpc.ConsensusServiceStub(self._channel)

    async def open(self) -> CallingWire:
        """Never fails: an address where nobody answers shows in the first message."""
        return CallingWire(self._stub.ExchangeDeltas(None))

    async def close(self) -> None:
        await self._channel.close(None)


class CallingWire:
    """The calling end of a gRPC stream."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._turn = asyncio.Lock()  # gRPC takes one write at a time

    def message(self) -> pb2.ExchangeDeltasRequest:
        return pb2.ExchangeDeltasRequest()

    async def send(self, message: Message) -> None:
        """Waits while the other side is slow. Raises NdmlError."""
        try:
            async with self._turn:
                await self._call.write(message)
        except grpc.aio.AioRpcError as error:
            raise rpc_error_to_ndml(error) from error
        except asyncio.InvalidStateError as error:
            raise OwnerUnavailable("the peer has ended the exchange") from error

    async def receive(self) -> Message | None:
        """Raises NdmlError."""
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise rpc_error_to_ndml(error) from error
        return message if isinstance(message, pb2.ExchangeDeltasResponse) else None

    async def close(self) -> None:
        self._call.cancel()
