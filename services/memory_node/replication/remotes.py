"""Other memory nodes and consensus nodes over gRPC. A call that says nothing for too long is given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from ndml.errors import OwnerUnavailable
from ndml.internal.v1 import consensus_pb2 as cpb
from ndml.internal.v1 import consensus_pb2_grpc, replication_pb2_grpc
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime.channel import Dialer
from ndml.runtime.telemetry import trace_metadata
from ndml.wire import rpc_error_to_ndml
from services.memory_node.replication.ports import Member, Shares

M = TypeVar("M", bound=Message)


class GrpcPartner:
    """A memory node at host:port. `silence_s`: longest wait for one message. Needs a running event loop."""

    def __init__(self, dialer: Dialer, address: str, silence_s: float) -> None:
        self.address = address
        self._silence_s = silence_s
        self._channel = dialer.open(address)
        # Any: the stubs' types do not know of calls that are written to.
        self._stub: Any = replication_pb2_grpc.ReplicationServiceStub(self._channel)

    async def compare(self, request: rpb.CompareBucketsRequest) -> rpb.CompareBucketsResponse:
        try:
            answer = await self._stub.CompareBuckets(request, timeout=self._silence_s)
        except grpc.aio.AioRpcError as error:
            raise rpc_error_to_ndml(error) from error
        return _message(answer, rpb.CompareBucketsResponse)

    def list_owners(self, request: rpb.ListOwnersRequest) -> AsyncIterator[rpb.ListOwnersResponse]:
        return self._stream(self._stub.ListOwners(request, metadata=trace_metadata()))

    def symbols(self, request: rpb.StreamSymbolsRequest) -> AsyncIterator[rpb.StreamSymbolsResponse]:
        return self._stream(self._stub.StreamSymbols(request, metadata=trace_metadata()))

    def fetch(self, request: rpb.FetchRecordsRequest) -> AsyncIterator[rpb.FetchRecordsResponse]:
        return self._stream(self._stub.FetchRecords(request, metadata=trace_metadata()))

    async def push(self, request: rpb.PushRecordsRequest) -> rpb.PushRecordsResponse:
        call = self._stub.PushRecords(metadata=trace_metadata())
        try:
            await call.write(request)
            await call.done_writing()
            async with asyncio.timeout(self._silence_s):
                answer = await call.read()
            return _message(answer, rpb.PushRecordsResponse)
        except grpc.aio.AioRpcError as error:
            raise rpc_error_to_ndml(error) from error
        except asyncio.InvalidStateError as error:
            raise await _cause(call, error) from error
        except TimeoutError:
            raise self._silent() from None
        finally:
            call.cancel()

    async def _stream(self, call: Any) -> AsyncIterator[Any]:
        """Messages until the end; whoever stops reading ends the call."""
        try:
            while True:
                async with asyncio.timeout(self._silence_s):
                    message = await call.read()
                if not isinstance(message, Message):
                    return  # the end
                yield message
        except grpc.aio.AioRpcError as error:
            raise rpc_error_to_ndml(error) from error
        except TimeoutError:
            raise self._silent() from None
        finally:
            call.cancel()

    def _silent(self) -> OwnerUnavailable:
        return OwnerUnavailable(f"{self.address} has said nothing for {self._silence_s} s (replication.sweep.silence_s)")

    async def close(self) -> None:
        await self._channel.close(None)


class Partners:
    """Component. Partners by node id, at the addresses that the placement has now; a channel each, kept."""

    def __init__(self, dialer: Dialer, shares: Shares, silence_s: float) -> None:
        self._dialer = dialer
        self._shares = shares
        self._silence_s = silence_s
        self._open: dict[str, GrpcPartner] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __call__(self, node_id: str) -> GrpcPartner:
        """Raises OwnerUnavailable where the placement has no address of the node."""
        member = next((member for member in self._shares.partners() if member.node_id == node_id), None)
        if member is None:
            raise OwnerUnavailable(f"the placement has no address of {node_id}")
        return self._at(member)

    def _at(self, member: Member) -> GrpcPartner:
        known = self._open.get(member.node_id)
        if known is not None and known.address == member.address:
            return known
        if known is not None:
            task = asyncio.create_task(known.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        made = self._open[member.node_id] = GrpcPartner(self._dialer, member.address, self._silence_s)
        return made

    async def start(self) -> None:
        """Channels are opened when they are needed first."""

    async def stop(self) -> None:
        for partner in self._open.values():
            await partner.close()
        self._open.clear()


class ConsensusSession:
    """An exchange of deltas with the consensus node at host:port, on a channel of its own."""

    def __init__(self, dialer: Dialer, address: str) -> None:
        self._channel = dialer.open(address, retries=False)
        stub: Any = consensus_pb2_grpc.ConsensusServiceStub(self._channel)
        self._call: Any = stub.ExchangeDeltas()

    @classmethod
    async def open(cls, dialer: Dialer, address: str) -> ConsensusSession:
        """With its dialer given, OpenSession of the ports. Connects when the first message is sent."""
        return cls(dialer, address)

    async def send(self, message: cpb.ExchangeDeltasRequest) -> None:
        try:
            await self._call.write(message)
        except grpc.aio.AioRpcError as error:
            raise rpc_error_to_ndml(error) from error
        except asyncio.InvalidStateError as error:
            raise await _cause(self._call, error) from error

    async def receive(self) -> cpb.ExchangeDeltasResponse | None:
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise rpc_error_to_ndml(error) from error
        return message if isinstance(message, cpb.ExchangeDeltasResponse) else None

    async def close(self) -> None:
        self._call.cancel()
        await self._channel.close(None)


async def _cause(call: Any, error: Exception) -> Exception:
    """Why a call is over on which somebody wanted to write."""
    details = await call.details() if call.done() else str(error)
    return OwnerUnavailable(f"the call ended: {details}")


def _message(answer: object, kind: type[M]) -> M:
    if not isinstance(answer, kind):
        raise OwnerUnavailable("the other side ended the call without an answer")
    return answer
