"""Texts of many callers become batches of one model: whatever arrived while the workers worked, packed by length.

Worker threads share one state under one lock. Requests wait in a round: a take gives each of them a turn, so that a question does not
wait for the whole of somebody's import. A take is tokenised, sorted by length and packed into batches of little padding, which the
workers share.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ndml.errors import DeadlinePassed, Draining, FieldInvalid, ModelUnavailable, NdmlError, Overloaded
from ndml.runtime import metrics
from ndml.runtime.log import get_logger
from services.llm.ports import Embedding, Encoder, Tokens

log = get_logger(__name__)

QUEUE = "embed"
_TURN_TEXTS = 8  # texts a request gives in one turn: enough to fill a batch in few rounds, few enough to let others in
_CHARS_PER_TOKEN = 4  # to guess a take's size before it is tokenised
_SMALLEST_SHARE = 64  # tokens: below it, splitting a take between workers costs more than it gains
_FIRST_RATE = 2000.0  # tokens/s of one worker until measured: a slow core with a MiniLM
_RETRY_S = (0.1, 10.0)


@dataclass(eq=False, slots=True)
class Request:
    """Texts of one call on their way through. `next` counts texts taken, `missing` those without a result."""

    texts: Sequence[str]
    token_vectors: bool
    deadline: float | None
    future: asyncio.Future[list[Embedding]]
    loop: asyncio.AbstractEventLoop
    next: int = 0
    missing: int = 0
    results: dict[int, Embedding] = field(default_factory=dict)
    dead: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One distinct text of a batch and the places in requests that wait for it."""

    tokens: Tokens
    places: tuple[tuple[Request, int], ...]


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Positions of `lengths`, longest first, in batches of at most `budget` tokens with padding; one text alone may exceed it."""
    batches: list[list[int]] = []
    width = 0
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not batches or width * (len(batches[-1]) + 1) > budget:
            batches.append([])
            width = lengths[position]
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
        self._round: deque[Request] = deque()
        self._ready: deque[tuple[list[Item], bool]] = deque()
        self._waiting = 0
        self._rate = _FIRST_RATE
        self._workers = 1
        self._closed = False
        self._threads: list[threading.Thread] = []

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
            left = [*self._round, *(request for items, _ in self._ready for item in items for request, _ in item.places)]
            self._round.clear()
            self._ready.clear()
            self._wake.notify_all()
        for request in left:
            self._fail(request, Draining("this llm service is shutting down: retry"))
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    async def embed(self, texts: Sequence[str], token_vectors: bool = False, remaining_s: float | None = None) -> list[Embedding]:
        """Embeddings in the order of `texts`.

        Raises Overloaded (queue full; retry delay from the measured rate), DeadlinePassed (before its batch began), ModelUnavailable,
        Draining, FieldInvalid (token vectors that no answer can hold).
        """
        if not texts:
            return []
        encoder, loop = self.encoder, asyncio.get_running_loop()
        deadline = None if remaining_s is None else self._clock() + remaining_s
        request = Request(texts, token_vectors, deadline, loop.create_future(), loop, missing=len(texts))
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
                raise Draining("this llm service is shutting down: retry")
            if self._waiting + len(request.texts) > self._limits.queue_texts:
                raise Overloaded(
                    f"{self._waiting} texts wait to be embedded, the limit is {self._limits.queue_texts}", retry_after_s=self._delay()
                )
            self._waiting += len(request.texts)
            self._round.append(request)
            metrics.QUEUE_DEPTH.labels(QUEUE).set(self._waiting)
            self._wake.notify()

    def _leave(self, request: Request) -> None:
        """Whatever of it was not taken yet is no longer waited for: answered, failed or its caller gone."""
        with self._wake:
            request.dead = True
            if request in self._round:
                self._round.remove(request)
            self._untake(request)

    def _untake(self, request: Request) -> None:
        self._waiting -= len(request.texts) - request.next
        request.next = len(request.texts)
        metrics.QUEUE_DEPTH.labels(QUEUE).set(self._waiting)

    def _delay(self) -> float:
        """Seconds until half of the queue is done, at the measured rate."""
        tokens = sum(_guess(text) for request in self._round for text in request.texts[request.next :])
        return min(max(tokens / 2 / (self._rate * self._workers), _RETRY_S[0]), _RETRY_S[1])

    # ---- below: worker threads

    def _work(self, encoder: Encoder) -> None:
        self._prepare()
        while True:
            with self._wake:
                while not (self._ready or self._round or self._closed):
                    self._wake.wait()
                if self._closed and not self._ready:
                    return
                batch = self._ready.popleft() if self._ready else None
                places = [] if batch else self._take(encoder.max_tokens)
            if batch is None:
                self._prepare_batches(encoder, places)
            else:
                self._run(encoder, *batch)

    def _take(self, max_tokens: int) -> list[tuple[Request, int]]:
        """Texts for all workers' next batches, a turn of each request after the other. Under the lock."""
        room = self._limits.batch_tokens * self._workers
        places: list[tuple[Request, int]] = []
        while self._round and room > 0:
            request = self._round.popleft()
            if self._over(request):
                self._untake(request)
                continue
            turn = range(request.next, min(request.next + _TURN_TEXTS, len(request.texts)))
            places += [(request, place) for place in turn]
            room -= sum(min(_guess(request.texts[place]), max_tokens) for place in turn)
            request.next = turn.stop
            self._waiting -= len(turn)
            if request.next < len(request.texts):
                self._round.append(request)
        metrics.QUEUE_DEPTH.labels(QUEUE).set(self._waiting)
        return places

    def _over(self, request: Request) -> bool:
        """Nobody waits for it any more; tells the caller when it is the deadline."""
        if not request.dead and request.deadline is not None and self._clock() >= request.deadline:
            self._fail(request, DeadlinePassed("the deadline passed while the texts waited to be embedded: allow more time or send fewer"))
        return request.dead or request.future.done()

    def _prepare_batches(self, encoder: Encoder, places: list[tuple[Request, int]]) -> None:
        """Tokenise each distinct text once, sort, pack, and hand the batches to all workers."""
        where: dict[str, list[tuple[Request, int]]] = {}
        for request, place in places:
            where.setdefault(request.texts[place], []).append((request, place))
        with self._answered({request for request, _ in places}):
            tokens = encoder.tokenize(list(where))
            items = [Item(t, tuple(p)) for t, p in zip(tokens, where.values(), strict=True)]
            lengths = [len(t.ids) for t in tokens]
            share = max(_SMALLEST_SHARE, -(-sum(lengths) // self._workers))
            batches = [[items[i] for i in batch] for batch in pack(lengths, min(self._limits.batch_tokens, share))]
            with self._wake:
                self._ready.extend((batch, any(r.token_vectors for item in batch for r, _ in item.places)) for batch in batches)
                self._wake.notify_all()

    def _run(self, encoder: Encoder, batch: list[Item], token_vectors: bool) -> None:
        live = [item for item in batch if any(not self._over(request) for request, _ in item.places)]
        if not live:
            return
        metrics.BATCH_SIZE.labels(QUEUE).observe(len(live))
        began = self._clock()
        with self._answered({request for item in live for request, _ in item.places}):
            embeddings = encoder.encode([item.tokens for item in live], token_vectors)
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


def _guess(text: str) -> int:
    return len(text) // _CHARS_PER_TOKEN + 2
