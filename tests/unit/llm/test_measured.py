"""Generations are counted as they pass: the time to the first piece, and the tokens that the end tells of."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ndml.runtime import metrics
from ndml.runtime.call import Call
from services.llm.measured import measured
from services.llm.ports import Finish

PIECES: list[str | Finish] = ["Por", "to.", Finish("stop", prompt_tokens=21, completion_tokens=3)]


def counted() -> tuple[float, float, float]:
    prompt, answer = (metrics.GENERATED.labels(kind)._value.get() for kind in ("prompt", "answer"))
    return prompt, answer, sum(bucket.get() for bucket in metrics.FIRST_PIECE._buckets)


async def pieces(*given: str | Finish) -> AsyncIterator[str | Finish]:
    for piece in given:
        yield piece


async def test_an_answer_passes_unchanged_and_is_counted_once() -> None:
    before = counted()
    assert [piece async for piece in measured(pieces(*PIECES), Call("m"))] == PIECES
    assert tuple(now - then for now, then in zip(counted(), before, strict=True)) == (21, 3, 1)


async def test_an_answer_that_never_came_has_no_first_piece() -> None:
    before = counted()
    assert [piece async for piece in measured(pieces(), Call("m"))] == []
    assert counted() == before
