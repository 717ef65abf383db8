"""Texts to vectors: cached by text hash, one call for all who wait for a text, in batches of what queued while the last was under way."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass

from cachetools import LRUCache

from ndml.errors import NdmlError, Overloaded
from ndml.runtime import metrics, semconv
from ndml.runtime.call import Call
from ndml.runtime.interceptors import as_ndml_error
from ndml.runtime.telemetry import TraceMetadata, metadata_of, span, trace_metadata
from services.gateway.ports import Embedded

EncodeBatch = Callable[[list[str], TraceMetadata], Awaitable[list[Embedded]]]
"""(texts, trace context of a request that waits) -> what each is compared by."""

_cache_hits = metrics.EMBED_CACHE.labels("hit")
_cache_misses = metrics.EMBED_CACHE.labels("miss")
_batch_size = metrics.BATCH_SIZE.labels("embed")
_depth = metrics.QUEUE_DEPTH.labels("embed")


@dataclass(slots=True)
class _Wanted:
    key: bytes
    text: str
    context: TraceMetadata
    embedded: asyncio.Future[Embedded]


class BatchingEmbedder:
    """Fulfils `ports.Embedder` over `encode`. All its state lives on the event loop.

    cache_entries, max_batch, max_batches, max_queued: as in EmbeddingSettings.
    """

    def __init__(self, encode: EncodeBatch, *, cache_entries: int, max_batch: int, max_batches: int, max_queued: int) -> None:
        self._encode = encode
        self._cache: LRUCache[bytes, Embedded] = LRUCache(cache_entries)
        self._wanted: dict[bytes, _Wanted] = {}
        self._queue: deque[_Wanted] = deque()
        self._max_batch, self._max_batches, self._max_queued = max_batch, max_batches, max_queued
        self._batches: set[asyncio.Task[None]] = set()
        metrics.QUEUE_LIMIT.labels("embed").set(max_queued)

    async def start(self) -> None:
        """Nothing to prepare: batches start when texts come."""

    async def stop(self) -> None:
        for task in self._batches:
            task.cancel()
        await asyncio.gather(*self._batches, return_exceptions=True)
        for wanted in self._wanted.values():
            wanted.embedded.cancel()

    async def embed(self, texts: Sequence[str], call: Call) -> list[Embedded]:
        """One for each of `texts`, in order. Raises Overloaded, ModelUnavailable, ModelNotConfigured."""
        keys = [_key(text) for text in texts]
        ready = {key: found for key in keys if (found := self._cache.get(key)) is not None}
        _cache_hits.inc(len(texts) - (missing := sum(key not in ready for key in keys)))
        if missing:
            _cache_misses.inc(missing)
            with span(semconv.SPAN_EMBED, {semconv.BATCH_SIZE: missing}):
                context = trace_metadata() or metadata_of(call.traceparent, call.tenant_hash)
                pending = [self._want(key, text, context) for key, text in zip(keys, texts, strict=True) if key not in ready]
                # Another caller may wait for the same text: shield it from this caller's cancellation.
                for wanted in pending:
                    ready[wanted.key] = await asyncio.shield(wanted.embedded)
        return [ready[key] for key in keys]

    def _want(self, key: bytes, text: str, context: TraceMetadata) -> _Wanted:
        wanted = self._wanted.get(key)
        if wanted is None:
            if len(self._queue) >= self._max_queued:
                raise Overloaded(f"{self._max_queued} texts wait to be embedded (embedding.max_queued): come back shortly")
            wanted = _Wanted(key, text, context, asyncio.get_running_loop().create_future())
            wanted.embedded.add_done_callback(_retrieve)
            self._wanted[key] = wanted
            self._queue.append(wanted)
            self._pump()
        return wanted

    def _pump(self) -> None:
        # A context of its own: a batch serves several requests and must not write into the trace of the one that happened to start it.
        while self._queue and len(self._batches) < self._max_batches:
            task = asyncio.get_running_loop().create_task(self._run_batch(), context=Context())
            self._batches.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        _depth.set(len(self._queue))
        if not task.cancelled():
            self._pump()

    async def _run_batch(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(self._max_batch, len(self._queue)))]
        if not batch:
            return
        _batch_size.observe(len(batch))
        context = next((w.context for w in batch if w.context), ())
        try:
            made = await self._encode([w.text for w in batch], context)
        except Exception as error:
            self._fail(batch, as_ndml_error(error))
            return
        finally:
            for wanted in batch:
                self._wanted.pop(wanted.key, None)
        for wanted, embedded in zip(batch, made, strict=True):
            if self._cache.maxsize:
                self._cache[wanted.key] = embedded
            if not wanted.embedded.done():
                wanted.embedded.set_result(embedded)

    @staticmethod
    def _fail(batch: list[_Wanted], error: NdmlError) -> None:
        for wanted in batch:
            if not wanted.embedded.done():
                wanted.embedded.set_exception(error)


def _retrieve(future: asyncio.Future[Embedded]) -> None:
    """The caller may be gone when the batch fails; the batch's own call is logged where it failed."""
    if not future.cancelled():
        future.exception()


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
