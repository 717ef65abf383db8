"""The answering end of an exchange."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from ndml.internal.v1 import consensus_pb2 as pb
from services.consensus.deltas.ports import Message

_IN_FLIGHT = 2  # messages between the session and grpc, which has buffers of its own


class ServerWire:
    """The answering end of a gRPC stream: what the handler reads from, and what it yields."""

    def __init__(self, requests: AsyncIterator[pb.ExchangeDeltasRequest]) -> None:
        self._requests = requests
        self._outgoing: asyncio.Queue[pb.ExchangeDeltasResponse] = asyncio.Queue(_IN_FLIGHT)

    def message(self) -> pb.ExchangeDeltasResponse:
        return pb.ExchangeDeltasResponse()

    async def send(self, message: Message) -> None:
        """Waits while the caller is slow."""
        assert isinstance(message, pb.ExchangeDeltasResponse), "an answering end sends responses"
        await self._outgoing.put(message)

    async def receive(self) -> Message | None:
        return await anext(self._requests, None)

    async def responses(self, served: asyncio.Task[None]) -> AsyncGenerator[pb.ExchangeDeltasResponse]:
        """What is sent until `served` ends. Raises what it raised; ends it when the caller goes away."""
        taking: asyncio.Task[pb.ExchangeDeltasResponse] | None = None
        try:
            while True:
                taking = asyncio.create_task(self._outgoing.get())
                await asyncio.wait({taking, served}, return_when=asyncio.FIRST_COMPLETED)
                if not taking.done():
                    break
                yield taking.result()
            while not self._outgoing.empty():
                yield self._outgoing.get_nowait()
        finally:
            await _end(served, taking)
        if not served.cancelled():
            served.result()


async def _end(*tasks: asyncio.Task[Any] | None) -> None:
    alive = {task for task in tasks if task is not None and not task.done()}
    for task in alive:
        task.cancel()
    if alive:
        await asyncio.wait(alive)
