"""Texts of many callers become batches of one model: whatever arrived while the workers worked, packed by length.

Worker threads share one state under one lock. What `lanes` says is next is tokenised, sorted by length and packed into batches of little
padding, which the workers share.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ndml.errors import DeadlinePassed, FieldInvalid, ModelUnavailable, NdmlError, Overloaded
from ndml.runtime import metrics
from ndml.runtime.log import get_logger
from services.llm.failures import draining
from services.llm.lanes import Lanes, Place, Request
from services.llm.ports import Embedding, Encoder, Tokens

log = get_logger(__name__)

QUEUE = "embed"
_TAKE_BATCHES = 4  # for each worker: the more texts are sorted together, the less is padding; small requests overtake ready batches
_SMALLEST_SHARE = 128  # tokens: below it, splitting a take between workers costs more than it gains: each reads all weights
_FIRST_RATE = 2000.0  # tokens/s of one worker until measured: a slow core with a MiniLM
_RETRY_S = (0.1, 10.0)


@dataclass(frozen=True, slots=True)
class Item:
    """One distinct text of a batch and the places in requests that wait for it."""

    tokens: Tokens
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Distinct texts for one forward pass. small: of small requests alone."""

    items: tuple[Item, ...]
    small: bool

    @property
    def token_vectors(self) -> bool:
        return any(request.token_vectors for item in self.items for request, _ in item.places)

    @property
    def requests(self) -> set[Request]:
        return {request for item in self.items for request, _ in item.places}


def pack(lengths: Sequence[int], budget: int, pass_tokens: int) -> list[list[int]]:
    """Positions of `lengths`, longest first, in batches of at most `budget` tokens with padding; one text alone may exceed it.

    A batch ends where its padding would cost more than another pass, which costs as much as `pass_tokens` tokens.
    """
    batches: list[list[int]] = []
    width = padding = 0
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        padding += width - lengths[position]
        if not batches or padding > pass_tokens or width * (len(batches[-1]) + 1) > budget:
            batches.append([])
            width, padding = lengths[position], 0
        batches[-1].append(position)
    return batches


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What bounds the work.

    workers                 threads; 0: as many as the encoder runs well side by side
    batch_tokens            of one batch, padding included
    queue_texts             waiting at most
    max_token_vector_bytes  of one answer
    """

    workers: int
    batch_tokens: int
    queue_texts: int
    max_token_vector_bytes: int


class EmbeddingQueue:
    """Component: loads the encoder at start (in a thread: health checks are answered meanwhile) and owns the worker threads.

    `load` builds the encoder, `prepare` runs first in each worker (thread counts of torch are per thread), `clock` is monotonic seconds.
    """

    def __init__(
        self,
        load: Callable[[], Encoder],
        limits: BatchLimits,
        prepare: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load, self._limits, self._prepare, self._clock = load, limits, prepare, clock
        self._encoder: Encoder | None = None
        self._wake = threading.Condition()
        self._lanes = Lanes()
        self._ready: deque[Batch] = deque()
        self._rate = _FIRST_RATE
        self._workers = 1
        self._closed = False
        self._threads: list[threading.Thread] = []
        metrics.QUEUE_LIMIT.labels(QUEUE).set(limits.queue_texts)

    @property
    def encoder(self) -> Encoder:
        """Raises ModelUnavailable until it is loaded."""
        if self._encoder is None:
            raise ModelUnavailable("the embedding model is still loading: retry in a few seconds", retry_after_s=2.0)
        return self._encoder

    async def start(self) -> None:
        """Raises ModelUnavailable where the model cannot be loaded."""
        began = self._clock()
        self._encoder = await asyncio.to_thread(self._load)
        log.info(
            "embedding_model_loaded", model=self._encoder.model, dimension=self._encoder.dimension, seconds=round(self._clock() - began, 2)
        )
        self._workers = self._limits.workers or self._encoder.parallel
        for number in range(self._workers):
            thread = threading.Thread(target=self._work, args=(self._encoder,), name=f"embed-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    async def stop(self) -> None:
        """Finish the batches under way; what still waits is answered Draining."""
        with self._wake:
            self._closed = True
            left = {*self._lanes.clear(), *(request for batch in self._ready for request in batch.requests)}
            self._ready.clear()
            self._wake.notify_all()
        for request in left:
            self._fail(request, draining())
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    async def embed(
        self, texts: Sequence[str], token_vectors: bool = False, remaining_s: float | None = None, *, word_vectors: bool = False
    ) -> list[Embedding]:
        """Embeddings in the order of `texts`.

        Raises Overloaded (queue full; retry delay from the measured rate), DeadlinePassed (before its batch began), ModelUnavailable,
        Draining, FieldInvalid (token vectors that no answer can hold).
        """
        if not texts:
            return []
        encoder, loop = self.encoder, asyncio.get_running_loop()
        deadline = None if remaining_s is None else self._clock() + remaining_s
        request = Request(texts, token_vectors, word_vectors, deadline, loop.create_future(), loop, missing=len(texts))
        self._enter(request)
        try:
            embeddings = await request.future
        finally:
            self._leave(request)
        self._check_size(embeddings, encoder)
        return embeddings

    def _check_size(self, embeddings: Sequence[Embedding], encoder: Encoder) -> None:
        size = sum(0 if e.token_vectors is None else e.token_vectors.nbytes for e in embeddings)
        limit = self._limits.max_token_vector_bytes
        if size > limit:
            fitting = max(1, limit // (encoder.max_tokens * encoder.dimension * 4))
            raise FieldInvalid(
                f"token vectors of these {len(embeddings)} texts take {size} bytes, the limit is {limit}: {fitting} texts always fit",
                field="texts",
            )

    def _enter(self, request: Request) -> None:
        with self._wake:
            if self._closed:
                raise draining()
            if self._lanes.waiting + len(request.texts) > self._limits.queue_texts:
                waiting, limit = self._lanes.waiting, self._limits.queue_texts
                raise Overloaded(f"{waiting} texts wait to be embedded, the limit is {limit}", retry_after_s=self._delay())
            self._lanes.add(request)
            metrics.QUEUE_DEPTH.labels(QUEUE).set(self._lanes.waiting)
            self._wake.notify()

    def _leave(self, request: Request) -> None:
        """Whatever of it was not taken yet is no longer waited for: answered, failed or its caller gone."""
        with self._wake:
            request.dead = True
            self._lanes.remove(request)
            metrics.QUEUE_DEPTH.labels(QUEUE).set(self._lanes.waiting)

    def _delay(self) -> float:
        """Seconds until half of the queue is done, at the measured rate."""
        return min(max(self._lanes.tokens() / 2 / (self._rate * self._workers), _RETRY_S[0]), _RETRY_S[1])

    # ---- below: worker threads

    def _work(self, encoder: Encoder) -> None:
        self._prepare()
        while True:
            with self._wake:
                while not (self._ready or self._lanes or self._closed):
                    self._wake.wait()
                if self._closed and not self._ready:
                    return
                batch = self._next_batch()
                places, small = ([], False) if batch else self._take(encoder.max_tokens)
            if batch is None:
                self._prepare_batches(encoder, places, small)
            else:
                self._run(encoder, batch)

    def _next_batch(self) -> Batch | None:
        """A batch that is ready; None when a small request goes first, or there is none. Under the lock."""
        if not self._ready or (not self._ready[0].small and self._lanes.urgent()):
            return None
        batch = self._ready.popleft()
        if not batch.small:
            self._lanes.served_import()
        return batch

    def _take(self, max_tokens: int) -> tuple[list[Place], bool]:
        """Texts for all workers' next batches. Under the lock."""
        taken = self._lanes.take(_TAKE_BATCHES * self._limits.batch_tokens * self._workers, max_tokens, self._over)
        metrics.QUEUE_DEPTH.labels(QUEUE).set(self._lanes.waiting)
        return taken

    def _over(self, request: Request) -> bool:
        """Nobody waits for it any more; tells the caller when it is the deadline."""
        if not request.dead and request.deadline is not None and self._clock() >= request.deadline:
            self._fail(request, DeadlinePassed("the deadline passed while the texts waited to be embedded: allow more time or send fewer"))
        return request.dead or request.future.done()

    def _prepare_batches(self, encoder: Encoder, places: list[Place], small: bool) -> None:
        """Tokenise each distinct text once, sort, pack, and hand the batches to all workers; those of small requests go first."""
        if not places:
            return  # all of them were over
        where: dict[str, list[Place]] = {}
        for request, place in places:
            where.setdefault(request.texts[place], []).append((request, place))
        with self._answered({request for request, _ in places}):
            worded = [i for i, waiting in enumerate(where.values()) if any(request.word_vectors for request, _ in waiting)]
            tokens = encoder.tokenize(list(where), worded)
            items = [Item(t, tuple(p)) for t, p in zip(tokens, where.values(), strict=True)]
            lengths = [len(t.ids) for t in tokens]
            parts = max(1, min(self._workers, sum(lengths) // _SMALLEST_SHARE))
            budget = min(self._limits.batch_tokens, -(-sum(lengths) // parts) + max(lengths))
            batches = [Batch(tuple(items[i] for i in batch), small) for batch in pack(lengths, budget, encoder.pass_tokens)]
            with self._wake:
                (self._ready.extendleft if small else self._ready.extend)(batches)
                self._wake.notify_all()

    def _run(self, encoder: Encoder, batch: Batch) -> None:
        live = [item for item in batch.items if any(not self._over(request) for request, _ in item.places)]
        if not live:
            return
        metrics.BATCH_SIZE.labels(QUEUE).observe(len(live))
        began = self._clock()
        with self._answered(batch.requests):
            embeddings = encoder.encode([item.tokens for item in live], batch.token_vectors)
            spent = max(self._clock() - began, 1e-6)
            self._rate += 0.2 * (sum(len(item.tokens.ids) for item in live) / spent - self._rate)
            metrics.EMBEDDED_TEXTS.inc(len(live))
            self._deliver(live, embeddings)

    def _deliver(self, items: Sequence[Item], embeddings: Sequence[Embedding]) -> None:
        with self._wake:
            finished: list[Request] = []
            for item, embedding in zip(items, embeddings, strict=True):
                for request, place in item.places:
                    request.results[place] = embedding
                    request.missing -= 1
                    if request.missing == 0:
                        finished.append(request)
        for request in finished:
            _resolve(request, [request.results[i] for i in range(len(request.texts))])

    @contextmanager
    def _answered(self, requests: set[Request]) -> Iterator[None]:
        """Whatever the model raises (out of memory, a broken driver) reaches the callers, and the worker lives on."""
        try:
            yield
        except Exception as error:
            log.exception("embedding_failed")
            for request in requests:
                self._fail(request, ModelUnavailable(f"the embedding model failed: {' '.join(str(error).split())[:300]}"))

    def _fail(self, request: Request, error: NdmlError) -> None:
        request.dead = True
        _resolve(request, error)


def _resolve(request: Request, outcome: list[Embedding] | NdmlError) -> None:
    """From any thread. A caller that went away, or a loop that closed, needs no answer."""

    def settle() -> None:
        if request.future.done():
            return
        if isinstance(outcome, NdmlError):
            request.future.set_exception(outcome)
        else:
            request.future.set_result(outcome)

    if not request.loop.is_closed():
        request.loop.call_soon_threadsafe(settle)
