"""One generation: tokens in, text out to whoever waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal

from ndml.errors import DeadlinePassed, NdmlError
from services.llm.local_model import Job, LocalModel
from services.llm.ports import Finish, Sampling
from services.llm.prompt import PLAIN_STOPS
from services.llm.sampler import Sampler
from services.llm.text_stream import Detokenizer, StopFilter
from services.llm.tool_calls import ToolCallFilter

End = Finish | NdmlError


class Stream:
    """From the decoding thread to a caller's event loop; pieces that the caller did not take yet become one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._text: deque[str] = deque()
        self._end: End | None = None
        self._news = asyncio.Event()
        self._held = False  # there is text, and it waits for its time

    def put(self, text: str, end: End | None) -> None:
        """On the loop's thread."""
        if text:
            self._text.append(text)
        self._end = self._end or end
        if end is not None or not self._held:
            self._news.set()

    async def next(self, until: float | None, earliest: float = 0.0) -> str | Finish:
        """Text, not before `earliest` unless it is the last, and when all of it is taken, the end. Times are the loop's.

        Raises what it ended in, DeadlinePassed at `until`.
        """
        while self._end is None and (not self._text or self.loop.time() < earliest):
            self._held = bool(self._text)
            limit = earliest if self._held and (until is None or earliest < until) else until
            self._news.clear()
            try:
                async with asyncio.timeout_at(limit):
                    await self._news.wait()
            except TimeoutError:
                if limit == until:
                    raise DeadlinePassed("the deadline passed before the answer was complete: allow more time or fewer tokens") from None
        self._held = False
        if self._text:
            text = "".join(self._text)
            self._text.clear()
            return text
        assert self._end is not None
        if isinstance(self._end, NdmlError):
            raise self._end
        return self._end


class Generation:
    """A request under way. gone: nobody waits for it any more, which any thread may say."""

    def __init__(self, local: LocalModel, job: Job, sampling: Sampling, stream: Stream) -> None:
        self.job, self.stream, self.sampler = job, stream, Sampler(sampling)
        plain = local.prompts.plain
        self._detokenizer = Detokenizer(local.decode)
        self._stop = StopFilter((*sampling.stop, *(PLAIN_STOPS if plain else ())))
        self._calls = ToolCallFilter(job.tools)
        self._lead = plain  # "assistant:" is followed by a blank that is no part of the answer
        self._ends = local.ends
        self._tokens = 0
        self.gone = False

    @property
    def positions(self) -> int:
        """Of the cache, at most."""
        return self.job.plan.positions + self.job.new_tokens

    def take(self, token: int) -> tuple[str, Finish | None]:
        """New text, and the end when this token is the last."""
        self._tokens += 1
        ended = token in self._ends
        text = "" if ended else self._out(self._stop.add(self._detokenizer.add(token)))
        if self._stop.stopped or ended:
            return text + self._rest(), self._finish("stop")
        if self._tokens >= self.job.new_tokens:
            return text + self._rest(), self._finish("length")
        return text, None

    def _rest(self) -> str:
        held = self._out(self._stop.add(self._detokenizer.flush())) + self._out(self._stop.flush())
        return held + self._calls.flush()

    def _finish(self, reason: Literal["stop", "length"]) -> Finish:
        plan, calls = self.job.plan, tuple(self._calls.calls)
        return Finish("tool_calls" if calls else reason, plan.positions, self._tokens, calls, plan.way, plan.used)

    def _out(self, piece: str) -> str:
        if self._lead:
            piece = piece.lstrip()
            self._lead = not piece
        return self._calls.add(piece)
