"""How much texts surprise the chat model, asked in batches of what came while the last one was under way. No answer is no fault."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextvars import Context

from ndml.errors import FailedPrecondition, NdmlError, Unimplemented
from ndml.internal.v1 import llm_pb2
from ndml.runtime import metrics
from ndml.runtime.call import Call
from ndml.runtime.interceptors import as_ndml_error
from ndml.runtime.log import get_logger
from services.gateway.extraction import share
from services.gateway.ports import Scorer
from services.gateway.settings import LearningSettings

log = get_logger(__name__)

_MOST_TEXTS = 64  # of one ScoreRequest, as its proto says
_HALF_NATS = 4.0
"""Nats a token that count as half of the greatest surprise: small models read plain sentences at 2 to 6."""

_batch_size = metrics.BATCH_SIZE.labels("score")

_Wanted = tuple[str, "asyncio.Future[float | None]"]


class Surprise:
    """Scores of texts, 0 to 1; None where the model gives none, is busy or away: then nobody asks it again for a while."""

    def __init__(self, scorer: Scorer, settings: LearningSettings) -> None:
        self._scorer = scorer
        self._settings = settings
        self._queue: deque[_Wanted] = deque()
        self._batch: asyncio.Task[None] | None = None
        self._silent_until = 0.0

    async def start(self) -> None:
        """Batches start when texts come."""

    async def stop(self) -> None:
        if self._batch is not None:
            self._batch.cancel()
            await asyncio.gather(self._batch, return_exceptions=True)
        while self._queue:
            self._queue.popleft()[1].cancel()

    async def of(self, texts: Sequence[str], call: Call) -> list[float | None]:
        """One for each text. Whoever asks holds room in the outbox: no more texts wait than it has room for.

        Where the call has a deadline, a part of what is left of it is waited; the rest is for what needs no scores.
        """
        if not self._settings.surprise_weight or time.monotonic() < self._silent_until:
            return [None] * len(texts)
        loop = asyncio.get_running_loop()
        wanted: list[_Wanted] = [(text, loop.create_future()) for text in texts]
        self._queue += wanted
        self._pump()
        try:
            async with asyncio.timeout(share(call)):
                return list(await asyncio.gather(*(future for _, future in wanted)))
        except TimeoutError:
            return [None] * len(texts)

    def _pump(self) -> None:
        if self._queue and self._batch is None:
            self._batch = asyncio.get_running_loop().create_task(self._ask(), context=Context())
            self._batch.add_done_callback(self._finished)

    def _finished(self, _task: asyncio.Task[None]) -> None:
        self._batch = None
        self._pump()

    async def _ask(self) -> None:
        batch: list[_Wanted] = []
        while self._queue and len(batch) < _MOST_TEXTS:
            wanted = self._queue.popleft()
            if not wanted[1].done():  # nobody waits for it any more
                batch.append(wanted)
        if not batch:
            return
        scores: list[float | None] = [None] * len(batch)
        try:
            _batch_size.observe(len(batch))
            request = llm_pb2.ScoreRequest(texts=[text for text, _ in batch])
            answer = await self._scorer.score(request, self._settings.score_timeout_s)
            if len(answer.scores) == len(batch):
                scores = [bounded(score.surprise_nats) if score.tokens else None for score in answer.scores]
        except Exception as error:
            self._note(as_ndml_error(error))
        finally:
            for (_, future), score in zip(batch, scores, strict=True):
                if not future.done():
                    future.set_result(score)

    def _note(self, error: NdmlError) -> None:
        """A model that cannot will not learn to; one that is busy will have time."""
        lasting = isinstance(error, FailedPrecondition | Unimplemented)
        self._silent_until = time.monotonic() + (self._settings.score_pause_s if lasting else self._settings.backoff_s)
        log.debug("no_surprise", reason=error.reason, message=error.message)


def bounded(nats: float) -> float:
    """Mean nats of a token as 0 to 1."""
    return max(0.0, nats) / (max(0.0, nats) + _HALF_NATS)
