"""One thread steps every generation of a local model: between two steps some come, those that ended go.

What is asked for is planned elsewhere (`generator.py`); here it waits for room, has its prompt read and then shares each step with all
others. A caller that left, or whose deadline passed, costs no further token.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence

from torch import Tensor

from ndml.errors import NdmlError
from ndml.runtime import metrics
from ndml.runtime.log import get_logger
from services.llm.failures import draining, failed
from services.llm.generation import End, Generation, Stream
from services.llm.rows import Rows
from services.llm.settings import ChatSection

log = get_logger(__name__)

QUEUE = "generate"


class DecodingLoop:
    """`make` gives an empty batch, also after a failure; `prepare` runs first in the thread."""

    def __init__(self, settings: ChatSection, make: Callable[[], Rows], prepare: Callable[[], None] = lambda: None) -> None:
        self._settings, self._make, self._prepare = settings, make, prepare
        self._wake = threading.Condition()
        self._waiting: deque[Generation] = deque()
        self._running: list[Generation] = []
        self._closed = False
        self._news: dict[asyncio.AbstractEventLoop, list[tuple[Stream, str, End | None]]] = {}
        self._thread = threading.Thread(target=self._work, name="decode", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Blocks until the step under way is over; whoever still waits is answered Draining."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    def enter(self, generation: Generation) -> None:
        """Any thread; how many may wait is the caller's to bound. Raises Draining."""
        with self._wake:
            if self._closed:
                raise draining()
            self._waiting.append(generation)
            self._wake.notify()

    def leave(self, generation: Generation) -> None:
        """Nobody waits for it any more: it gives up its place in the line at once, or its row with the next token."""
        generation.gone = True
        with self._wake:
            if generation in self._waiting:
                self._waiting.remove(generation)

    # ---- below: the thread

    def _work(self) -> None:
        self._prepare()
        rows = self._make()
        while (arrivals := self._admit(rows.limit)) is not None:
            try:
                self._turn(rows, arrivals)
            except Exception as error:
                log.exception("generation_failed")
                self._end_all(failed(error), arrivals)
                rows = self._make()
            self._send()
        self._end_all(draining(), self._waiting)
        self._send()

    def _turn(self, rows: Rows, arrivals: Sequence[Generation]) -> None:
        """Read new prompts, give every row its next token, step those that go on."""
        if arrivals:
            together = [*self._running, *arrivals]
            self._running = [together[row] for row in rows.add([generation.job.plan for generation in arrivals])]
        if not self._running:
            return
        metrics.BATCH_SIZE.labels(QUEUE).observe(len(self._running))
        logits = rows.logits
        likely: list[int] = logits.argmax(-1).tolist()
        tokens = [self._take(generation, logits, row, likely[row]) for row, generation in enumerate(self._running)]
        live = [row for row, token in enumerate(tokens) if token is not None]
        if len(live) < len(self._running):
            live = rows.keep(live)
            self._running = [self._running[row] for row in live]
        if live:
            rows.step([token for row in live if (token := tokens[row]) is not None])

    def _take(self, generation: Generation, logits: Tensor, row: int, likely: int) -> int | None:
        """The token that it goes on with, None where it needs no further one. What fails here is its own and ends no other."""
        if generation.gone:
            return None
        try:
            token = likely if generation.sampler.greedy else generation.sampler.choose(logits[row])
            text, end = generation.take(token)
        except Exception as error:
            log.exception("row_failed")
            self._tell(generation, "", failed(error))
            return None
        if text or end:
            self._tell(generation, text, end)
        return token if end is None else None

    def _admit(self, limit: int | None) -> list[Generation] | None:
        """Who joins now, first come first served; waits while there is nothing to do. None: it is over."""
        with self._wake:
            while not (self._waiting or self._running or self._closed):
                self._wake.wait()
            if self._closed:
                return None
            room = min(self._settings.max_concurrent, limit or self._settings.max_concurrent) - len(self._running)
            longest, read = max((generation.positions for generation in self._running), default=0), 0
            arrivals: list[Generation] = []
            while self._waiting and len(arrivals) < room:
                next_one = self._waiting[0]
                longest, read = max(longest, next_one.positions), read + len(next_one.job.plan.unread)
                if not self._fits(len(self._running) + len(arrivals), len(arrivals), longest, read):
                    break
                arrivals.append(self._waiting.popleft())
            return arrivals

    def _fits(self, rows: int, arrivals: int, longest: int, read: int) -> bool:
        """One more: in the cache, whose rows are as long as the longest, and in what this turn reads. One alone always does."""
        room = rows == 0 or longest * (rows + 1) <= self._settings.batch_tokens
        return room and (arrivals == 0 or read <= self._settings.prefill_tokens)

    def _end_all(self, error: NdmlError, others: Sequence[Generation]) -> None:
        for generation in {*self._running, *others}:
            self._tell(generation, "", error)
        self._running = []

    def _tell(self, generation: Generation, text: str, end: End | None) -> None:
        self._news.setdefault(generation.stream.loop, []).append((generation.stream, text, end))

    def _send(self) -> None:
        """All news of a turn in one call to each loop: waking a loop costs as much as a step of a small row."""
        news, self._news = self._news, {}
        for loop, told in news.items():
            try:
                loop.call_soon_threadsafe(_deliver, told)
            except RuntimeError:
                log.info("loop_closed", streams=len(told))  # whoever waited there is gone with it


def _deliver(news: Sequence[tuple[Stream, str, End | None]]) -> None:
    for stream, text, end in news:
        stream.put(text, end)
