"""Execute streams: batches in as they come, answers out as they are ready, a bounded number under way in each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ndml.internal.v1 import memory_node_pb2 as pb
from services.memory_node.engine import Engine


class Stream:
    """One stream. Belongs to the event loop."""

    def __init__(self, engine: Engine, requests: AsyncIterator[pb.ExecuteRequest], in_flight: int) -> None:
        self._engine = engine
        self._requests = requests
        self._room = asyncio.Semaphore(in_flight)
        self._answers: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._submitted = 0
        self._reading = asyncio.create_task(self._submit())
        self._reading.add_done_callback(lambda _: self._answers.put_nowait(None))

    def end(self) -> None:
        """Take no further batch; those taken are still answered."""
        self._reading.cancel()

    async def answers(self) -> AsyncIterator[bytes]:
        """Serialised ExecuteResponses, out of order, until the requests end and every batch is answered. Raises what the requests raise."""
        answered = 0
        try:
            while not (self._reading.done() and answered == self._submitted):
                answer = await self._answers.get()
                if answer is None:
                    if not self._reading.cancelled():
                        self._reading.result()
                    continue
                answered += 1
                self._room.release()
                yield answer
        finally:
            self._reading.cancel()

    async def _submit(self) -> None:
        async for request in self._requests:
            # No room: the stream is not read on, and flow control slows its sender.
            await self._room.acquire()
            self._engine.submit(request, self._answers.put_nowait)
            self._submitted += 1


class Streams:
    """The open streams, so that a drain can end them: their callers hold them open for as long as they live."""

    def __init__(self, in_flight: int) -> None:
        self._in_flight = in_flight
        self._open: set[Stream] = set()

    async def run(self, engine: Engine, requests: AsyncIterator[pb.ExecuteRequest]) -> AsyncIterator[bytes]:
        """Serve one stream to its end."""
        stream = Stream(engine, requests, self._in_flight)
        self._open.add(stream)
        try:
            async for answer in stream.answers():
                yield answer
        finally:
            self._open.discard(stream)

    def end(self) -> None:
        """Answer what was taken, take no more."""
        for stream in self._open:
            stream.end()
