"""A local model as a `Generator`: plans in a few threads, decodes in one, scores in one, streams to the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ndml.errors import DeadlinePassed, ModelUnavailable, NdmlError, Overloaded, ScoresUnsupported
from ndml.runtime import metrics
from ndml.runtime.log import get_logger
from services.llm.failures import draining, failed
from services.llm.names import check_model
from services.llm.ports import WAYS, Abilities, Ask, Finish, Score
from services.llm.settings import ChatSection

if TYPE_CHECKING:
    from services.llm.decode_loop import DecodingLoop
    from services.llm.local_model import LocalModel

T = TypeVar("T")
log = get_logger(__name__)

_PLANNERS = 2  # a plan is a millisecond of template and tokens, unless it reads a state or builds a store: that must not stop all others
_LOADING = "the chat model is still loading: retry in a few seconds"
_RETRY_S = (0.2, 10.0)


class LocalGenerator:
    """Component and `Generator`. `load` reads the model, at start and in a thread; `prepare` runs first in each thread that computes."""

    def __init__(self, settings: ChatSection, load: Callable[[], LocalModel], prepare: Callable[[], None] = lambda: None) -> None:
        self._settings, self._load, self._prepare = settings, load, prepare
        self._local: LocalModel | None = None
        self._decoding: DecodingLoop | None = None
        self._planners = ThreadPoolExecutor(_PLANNERS, "plan", initializer=prepare)
        self._scorer = ThreadPoolExecutor(1, "score", initializer=prepare)
        self._inside = self._scoring = 0
        self._closed = False
        self._seconds = 1.0  # that a generation took lately
        metrics.QUEUE_LIMIT.labels("generate").set(settings.max_waiting)

    @property
    def model(self) -> str:
        return self._settings.model if self._local is None else self._local.name

    @property
    def abilities(self) -> Abilities:
        return Abilities(dict.fromkeys(WAYS, _LOADING), False, 0) if self._local is None else self._local.abilities

    async def start(self) -> None:
        """Raises ModelUnavailable, ModelNotConfigured where the model cannot be loaded."""
        from services.llm.decode_loop import DecodingLoop

        local = self._local = await asyncio.to_thread(self._load)
        self._decoding = DecodingLoop(self._settings, local.empty_rows, self._prepare)
        self._decoding.start()
        family = local.fusion.family
        log.info(
            "chat_model_loaded",
            model=local.name,
            architecture=family.architecture,
            keeps=family.keeps,
            context=local.context,
            ways=local.fusion.ways(),
            plain_template=local.prompts.plain,
        )

    async def stop(self) -> None:
        self._closed = True
        pools = (self._planners, self._scorer)
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)  # who waits for a thread is answered before those at work end
        if self._decoding is not None:
            await asyncio.to_thread(self._decoding.stop)
        for pool in pools:
            await asyncio.to_thread(pool.shutdown)

    async def generate(self, ask: Ask, remaining_s: float | None) -> AsyncGenerator[str | Finish, None]:
        """See ports.Generator."""
        from services.llm.generation import Generation, Stream

        local, decoding = self._ready()
        check_model(ask.model, local.name, self._settings.model)
        loop = asyncio.get_running_loop()
        until = None if remaining_s is None else loop.time() + remaining_s
        with self._turn():
            job = await _within(self._planners, until, local.prepare, ask)
            generation = Generation(local, job, ask.sampling, Stream(loop))
            decoding.enter(generation)
            try:
                earliest = 0.0
                while not isinstance(item := await generation.stream.next(until, earliest), Finish):
                    yield item
                    earliest = loop.time() + self._settings.stream_interval_s
                yield item
            finally:
                decoding.leave(generation)

    async def score(self, texts: Sequence[str], context: str, remaining_s: float | None) -> list[Score]:
        """See ports.Generator."""
        from services.llm.scoring import score

        local, _ = self._ready()
        if local.mute:
            raise ScoresUnsupported(local.mute)
        if self._scoring + len(texts) > self._settings.score_queue:
            raise Overloaded(f"{self._scoring} texts wait to be scored, the limit is {self._settings.score_queue}", retry_after_s=1.0)
        self._scoring += len(texts)
        until = None if remaining_s is None else asyncio.get_running_loop().time() + remaining_s
        try:
            return await _within(self._scorer, until, score, local, texts, context, self._settings.score_tokens)
        finally:
            self._scoring -= len(texts)

    def _ready(self) -> tuple[LocalModel, DecodingLoop]:
        if self._closed:
            raise draining()
        if self._local is None or self._decoding is None:
            raise ModelUnavailable(_LOADING, retry_after_s=2.0)
        return self._local, self._decoding

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Raises Overloaded when the line is full; its delay is the time in which a place should come free."""
        running, waiting = self._settings.max_concurrent, self._settings.max_waiting
        if self._inside >= running + waiting:
            delay = min(max(self._seconds * waiting / running / 2, _RETRY_S[0]), _RETRY_S[1])
            raise Overloaded(
                f"{running} generations run and {waiting} wait, the limit: retry, or raise chat.max_waiting", retry_after_s=delay
            )
        began = time.monotonic()
        self._enter(1)
        try:
            yield
        finally:
            self._enter(-1)
            self._seconds += 0.1 * (time.monotonic() - began - self._seconds)

    def _enter(self, change: int) -> None:
        self._inside += change
        metrics.QUEUE_DEPTH.labels("generate").set(max(0, self._inside - self._settings.max_concurrent))


async def _within(pool: ThreadPoolExecutor, until: float | None, work: Callable[..., T], *given: Any) -> T:
    """What `work` gives in a thread of the pool. Raises DeadlinePassed, Draining where the pool ends first, what `_guarded` raises."""
    try:
        async with asyncio.timeout_at(until):
            return await asyncio.get_running_loop().run_in_executor(pool, _guarded, work, *given)
    except TimeoutError:
        raise DeadlinePassed("the deadline passed while the model was busy: allow more time") from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise draining() from None  # nobody cancelled the caller: its work was


def _guarded(work: Callable[..., T], *given: Any) -> T:
    """Raises NdmlError alone."""
    try:
        return work(*given)
    except NdmlError:
        raise
    except Exception as error:
        log.exception("model_failed")
        raise failed(error) from error
