"""What the suite's speed is measured against: the least that two hops of Python gRPC can do. Three processes, no NDML code.

    python -m tests.perf.reference echo-node   PORT                 answers with a payload of the size of ten hits
    python -m tests.perf.reference echo-gateway PORT NODE_PORT      passes bytes on, one unary call for one
    python -m tests.perf.reference drain-node  PORT ROWS DIMENSION  FAISS flat in one worker thread that batches what arrived
    python -m tests.perf.reference drain-gateway PORT NODE_PORT     drains its queue into batches over one stream

Identity serialisers throughout; a message is 4 bytes of length and the vector, a batch is joined messages.
"""

from __future__ import annotations

import asyncio
import queue
import struct
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

SERVICE = "reference.Reference"
REPLY_BYTES = 2600  # ten hits with their text, as the suite answers the benchmark's queries
_OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


def pack(items: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


def unpack(data: bytes) -> list[bytes]:
    items, at = [], 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        items.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return items


async def serve(port: int, **handlers: Any) -> None:
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


async def echo_node(port: int) -> None:
    reply = bytes(REPLY_BYTES)

    async def search(request: bytes, context: Any) -> bytes:
        return reply

    await serve(port, Search=grpc.unary_unary_rpc_method_handler(search))


async def echo_gateway(port: int, node_port: int) -> None:
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{node_port}", options=_OPTIONS)
    ask = channel.unary_unary(f"/{SERVICE}/Search")

    async def search(request: bytes, context: Any) -> bytes:
        reply: bytes = await ask(request)
        return reply

    await serve(port, Search=grpc.unary_unary_rpc_method_handler(search))


async def drain_node(port: int, rows: int, dimension: int) -> None:
    import faiss
    import numpy as np

    from tests.perf.vectors import clustered

    faiss.omp_set_num_threads(1)
    faiss.cvar.distance_compute_blas_threshold = 8 * dimension
    index = faiss.IndexFlatIP(dimension)
    index.add(clustered(rows, dimension, seed=1))
    waiting: queue.Queue[tuple[bytes, Callable[[bytes], None]]] = queue.Queue()
    filler = bytes(REPLY_BYTES - 80)

    def work() -> None:
        faiss.omp_set_num_threads(1)
        while True:
            jobs = [waiting.get()]
            while not waiting.empty() and len(jobs) < 16:
                jobs.append(waiting.get())
            batches = [unpack(data) for data, _ in jobs]
            queries = np.frombuffer(b"".join(q for batch in batches for q in batch), "<f4").reshape(-1, dimension)
            _, found = index.search(queries, 10)
            at = 0
            for (_, done), batch in zip(jobs, batches, strict=True):
                done(pack([found[at + i].tobytes() + filler for i in range(len(batch))]))
                at += len(batch)

    threading.Thread(target=work, daemon=True).start()
    loop = asyncio.get_running_loop()

    async def execute(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        answers: asyncio.Queue[bytes] = asyncio.Queue()

        async def read() -> None:
            async for request in requests:
                waiting.put((request, lambda reply: loop.call_soon_threadsafe(answers.put_nowait, reply) and None))

        reader = asyncio.create_task(read())
        try:
            while True:
                yield await answers.get()
        finally:
            reader.cancel()

    await serve(port, Execute=grpc.stream_stream_rpc_method_handler(execute))


async def drain_gateway(port: int, node_port: int) -> None:
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{node_port}", options=_OPTIONS)
    stream: Any = channel.stream_stream(f"/{SERVICE}/Execute")()
    waiting: deque[tuple[bytes, asyncio.Future[bytes]]] = deque()
    under_way: deque[list[asyncio.Future[bytes]]] = deque()
    wake = asyncio.Event()

    async def search(request: bytes, context: Any) -> bytes:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        waiting.append((request, future))
        wake.set()
        return await future

    async def write() -> None:
        while True:
            await wake.wait()
            wake.clear()
            while waiting and len(under_way) < 2:
                batch = [waiting.popleft() for _ in range(min(64, len(waiting)))]
                under_way.append([future for _, future in batch])
                await stream.write(pack([data for data, _ in batch]))

    async def read() -> None:
        async for reply in stream:
            for future, item in zip(under_way.popleft(), unpack(reply), strict=True):
                future.set_result(item)
            wake.set()

    tasks = [asyncio.create_task(write()), asyncio.create_task(read())]
    await serve(port, Search=grpc.unary_unary_rpc_method_handler(search))
    del tasks


ROLES = {"echo-node": echo_node, "echo-gateway": echo_gateway, "drain-node": drain_node, "drain-gateway": drain_gateway}

if __name__ == "__main__":
    asyncio.run(ROLES[sys.argv[1]](*map(int, sys.argv[2:])))
