"""One Execute stream: batches in as they come, answers out as they are ready, a bounded number under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ndml.internal.v1 import memory_node_pb2 as pb
from services.memory_node.engine import Engine


async def execute(engine: Engine, requests: AsyncIterator[pb.ExecuteRequest], in_flight: int) -> AsyncIterator[bytes]:
    """Serialised ExecuteResponses, out of order. Ends when `requests` has ended and every batch is answered; raises what it raises."""
    answers: asyncio.Queue[bytes | None] = asyncio.Queue()
    room = asyncio.Semaphore(in_flight)
    reading = asyncio.create_task(_submit(engine, requests, room, answers))
    reading.add_done_callback(lambda _: answers.put_nowait(None))
    answered, total = 0, -1
    try:
        while answered != total:
            answer = await answers.get()
            if answer is None:
                total = reading.result()
                continue
            answered += 1
            room.release()
            yield answer
    finally:
        reading.cancel()


async def _submit(
    engine: Engine, requests: AsyncIterator[pb.ExecuteRequest], room: asyncio.Semaphore, answers: asyncio.Queue[bytes | None]
) -> int:
    """Returns how many batches there were."""
    submitted = 0
    async for request in requests:
        # No room: the stream is not read on, and flow control slows its sender.
        await room.acquire()
        engine.submit(request, answers.put_nowait)
        submitted += 1
    return submitted
