"""What a generation's caller waited for and got, counted as it passes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from ndml.runtime import metrics
from ndml.runtime.call import Call
from services.llm.ports import Finish

_PROMPT, _ANSWER = (metrics.GENERATED.labels(kind) for kind in ("prompt", "answer"))


async def measured(pieces: AsyncIterator[str | Finish], call: Call) -> AsyncIterator[str | Finish]:
    """`pieces` as they are: the time to the first of them, and the tokens that the last one tells of."""
    first = True
    async for piece in pieces:
        if first:
            metrics.FIRST_PIECE.observe(time.monotonic() - call.started, metrics.exemplar(call.traceparent))
            first = False
        if isinstance(piece, Finish):
            _PROMPT.inc(piece.prompt_tokens)
            _ANSWER.inc(piece.completion_tokens)
        yield piece
