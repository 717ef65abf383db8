"""Export streams: one consistent read of an owner, in bounded messages, as fast as the caller takes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Generator, Iterator

from ndml.contents import leave_out
from ndml.errors import DeadlinePassed, Overloaded
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1.types_pb2 import MemoryTrace
from services.memory_node.ports import NowNs
from services.memory_node.reader import Reader
from services.memory_node.records import Owner
from services.memory_node.store import Store
from services.memory_node.vectors import show


class Exports:
    """Hands out streams, at most `store.max_exports` at a time."""

    def __init__(self, store: Store, now_ns: NowNs) -> None:
        self._store = store
        self._now_ns = now_ns
        self._running = 0

    async def stream(self, request: pb.ExportRequest) -> AsyncIterator[pb.ExportResponse]:
        """Oldest first; the first message has the total. Raises Overloaded, DeadlinePassed, StoreUnavailable."""
        settings = self._store.settings
        if self._running >= settings.max_exports:
            raise Overloaded(f"{self._running} exports are under way (store.max_exports): come back later", retry_after_s=5.0)
        self._running += 1
        chunks = self._chunks(request)
        step: asyncio.Future[pb.ExportResponse | None] | None = None
        try:
            while True:
                # The disk is read on another thread; shielded, because a generator cannot be closed while it runs.
                step = asyncio.ensure_future(asyncio.to_thread(next, chunks, None))
                chunk = await asyncio.shield(step)
                if chunk is None:
                    return
                yield chunk
        finally:
            self._running -= 1
            if step is not None:
                await asyncio.wait([step])
            await asyncio.to_thread(chunks.close)

    def _chunks(self, request: pb.ExportRequest) -> Generator[pb.ExportResponse, None, None]:
        reader = self._store.reader()
        try:
            with reader.snapshot():
                yield from self._read(reader, request)
        finally:
            reader.close()

    def _read(self, reader: Reader, request: pb.ExportRequest) -> Iterator[pb.ExportResponse]:
        settings = self._store.settings
        until = time.monotonic() + settings.export_limit_s
        owner = reader.owner(Owner(request.tenant, request.user))
        if owner is None:
            yield pb.ExportResponse()
            return
        what = (owner.owner_id, request.agent, request.session, self._now_ns() // 1000)
        chunk = pb.ExportResponse(total=reader.count(*what))
        size = 0
        for payload, vector in reader.export(*what):
            if len(chunk.traces) == settings.export_chunk or size > settings.export_chunk_bytes:
                yield chunk
                if time.monotonic() > until:
                    raise DeadlinePassed(
                        f"the export took longer than {settings.export_limit_s} s (store.export_limit_s): narrow its scope"
                    )
                chunk, size = pb.ExportResponse(total=chunk.total), 0
            trace = MemoryTrace.FromString(payload)
            leave_out(trace, data=False, embeddings=not request.include_embedding)
            if request.include_embedding:
                identity = self._store.identity
                show(trace.embedding, vector, identity.dimension, identity.embedding_model)
            chunk.traces.append(trace)
            size += len(payload) + len(vector)
        yield chunk
