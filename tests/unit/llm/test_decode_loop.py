"""Rows of one batch: what fails in one of them, those that cannot be joined, those that read by an adapter."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch

from ndml.errors import ModelUnavailable
from ndml.fusion.prompt import Message
from services.llm.decode_loop import DecodingLoop
from services.llm.generation import Generation, Stream
from services.llm.local_model import LocalModel
from services.llm.ports import Ask, Finish, Sampling
from services.llm.settings import ChatSection
from tests.unit.fusion import tiny

SETTINGS = ChatSection(model="Llama")
PROMPT = (Message("user", "where is the notebook?"),)


async def said(generation: Generation) -> str:
    parts = []
    while not isinstance(part := await generation.stream.next(None), Finish):
        parts.append(part)
    return "".join(parts)


async def together(made: LocalModel, generations: list[Generation]) -> list[Any]:
    """What each says, or the error it ends in; all have their prompts read in one turn."""
    loop = DecodingLoop(SETTINGS, made.empty_rows)
    for generation in generations:
        loop.enter(generation)
    loop.start()
    try:
        return await asyncio.gather(*(said(generation) for generation in generations), return_exceptions=True)
    finally:
        await asyncio.to_thread(loop.stop)


async def test_what_fails_in_one_row_ends_that_row_alone() -> None:
    made = LocalModel("Llama", tiny.tokenizer(), tiny.model("Llama"), SETTINGS)
    made.ends = frozenset()

    def generation(seed: int) -> Generation:
        sampling = Sampling(12, 1.0, 0.9, (), seed)
        return Generation(made, made.prepare(Ask(PROMPT, sampling)), sampling, Stream(asyncio.get_running_loop()))

    def poison(_module: object, _args: object, out: Any) -> None:
        if len(out.logits) == 4:
            out.logits[1] = torch.nan

    def stumble(_token: int) -> Any:
        raise RecursionError("too deep")

    alone = [await together(made, [generation(seed)]) for seed in (1, 4)]
    four = [generation(seed) for seed in (1, 2, 3, 4)]
    four[2].take = stumble  # type: ignore[method-assign]
    handle = made.network.register_forward_hook(poison)
    try:
        first, numbers, deep, last = await together(made, four)
    finally:
        handle.remove()
    assert [[first], [last]] == alone
    assert isinstance(numbers, ModelUnavailable) and "probability" in numbers.message
    assert isinstance(deep, ModelUnavailable) and "too deep" in deep.message


async def test_rows_whose_caches_cannot_be_joined_go_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from ndml.fusion import states

    monkeypatch.setattr(states, "_KNOWN", ())
    made = LocalModel("Llama", tiny.tokenizer(), tiny.model("Llama"), SETTINGS)
    made.ends = frozenset()
    assert not made.fusion.family.joins and made.empty_rows().limit == 1

    def generation(length: int) -> Generation:
        sampling = Sampling(4 + length)
        return Generation(made, made.prepare(Ask((Message("user", "x" * length),), sampling)), sampling, Stream(asyncio.get_running_loop()))

    both = await together(made, [generation(3), generation(9)])
    assert both == [said for length in (3, 9) for said in await together(made, [generation(length)])]
    assert all(isinstance(text, str) and text for text in both)
