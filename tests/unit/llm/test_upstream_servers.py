"""llama.cpp's server and LM Studio as upstreams: what they really send, where it is not what OpenAI's API says."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ndml.errors import FieldInvalid, ModelNotConfigured, ModelUnavailable, NdmlError
from services.llm.ports import Finish, ToolCall
from tests.unit.llm.openai_server import OpenAIServer, openai_server
from tests.unit.llm.recorded import SAID, WORDS
from tests.unit.llm.test_upstream import ask


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with openai_server() as made:
        yield made


@pytest.mark.parametrize("way", ["llamacpp", "llamacpp_2025", "llamacpp_logprobs", "llamacpp_thinks", "lmstudio"])
async def test_streams_come_through_whatever_stands_beside_the_text(server: OpenAIServer, way: str) -> None:
    pieces, finish = await ask(server.url(way))
    assert (pieces, finish) == (WORDS, Finish("length", 31, 5))
    [(_, _, body)] = server.requests
    assert body["stream"] is True and body["stream_options"] == {"include_usage": True}


async def test_a_server_that_counts_nothing(server: OpenAIServer) -> None:
    assert await ask(server.url("lmstudio_nousage")) == (WORDS, Finish("length", 0, 0))


@pytest.mark.parametrize("way", ["llamacpp_whole", "lmstudio_whole"])
async def test_an_answer_in_one_body_is_one_piece(server: OpenAIServer, way: str) -> None:
    assert await ask(server.url(way)) == ([SAID], Finish("length", 31, 5))


async def test_lm_studios_tool_calls_repeat_an_empty_name(server: OpenAIServer) -> None:
    pieces, finish = await ask(server.url("lmstudio_tools"))
    assert pieces == ["Let me look."]
    assert finish == Finish("tool_calls", 0, 0, (ToolCall("365174485", "weather", '{"city": "Porto"}'),))


@pytest.mark.parametrize(
    ("way", "kind", "words", "tries"),
    [
        ("llamacpp_overflow", FieldInvalid, "exceeds the available context size (4096 tokens)", 1),
        ("llamacpp_overflow_event", FieldInvalid, "exceeds the available context size (4096 tokens)", 1),
        ("llamacpp_overflow_field", FieldInvalid, "exceeds the available context size (4096 tokens)", 1),
        ("llamacpp_loading", ModelUnavailable, "answers 503: Loading model", 3),
        ("llamacpp_key", ModelNotConfigured, "Invalid API Key -- check chat.upstream_url", 1),
        ("llamacpp_path", ModelNotConfigured, "File Not Found -- check chat.upstream_url", 1),
        ("lmstudio_path", ModelNotConfigured, "(POST /chat/completions) -- check chat.upstream_url", 1),
        ("lmstudio_overflow", FieldInvalid, "The input has 31430 tokens", 1),
        ("lmstudio_overflow_2025", FieldInvalid, "context length of only 2048 tokens", 1),
        ("lmstudio_unloaded", ModelUnavailable, "failed: Model is unloaded.", 3),
        ("lmstudio_nomodel", ModelNotConfigured, "`lms load`", 1),
        ("lmstudio_cannot_load", FieldInvalid, 'Failed to load model "gpt-oss-20b"', 1),
    ],
)
async def test_what_they_refuse_is_told_in_their_words_and_asked_again_only_if_it_may_pass(
    server: OpenAIServer, way: str, kind: type[NdmlError], words: str, tries: int
) -> None:
    pieces, error = await ask(server.url(way), retries=2)
    assert (pieces, type(error)) == ([], kind)
    assert isinstance(error, NdmlError) and words in error.message
    assert server.tries[way] == tries


async def test_a_context_that_fills_up_ends_the_answer_with_what_was_said(server: OpenAIServer) -> None:
    pieces, error = await ask(server.url("llamacpp_full"))
    assert pieces == WORDS[:2]
    assert isinstance(error, ModelUnavailable) and "Context size has been exceeded" in error.message
    assert server.tries["llamacpp_full"] == 1
