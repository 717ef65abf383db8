"""llama.cpp's server, LM Studio, vLLM, Ollama and Anthropic as upstreams: what they really send, where it is not what OpenAI's API says."""

from __future__ import annotations

import json
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


STREAMS = [
    *("llamacpp", "llamacpp_2025", "llamacpp_logprobs", "llamacpp_thinks", "lmstudio"),
    *("vllm", "vllm_thinks_2025", "vllm_thinks", "ollama", "ollama_thinks"),
]


@pytest.mark.parametrize("way", STREAMS)
async def test_streams_come_through_whatever_stands_beside_the_text(server: OpenAIServer, way: str) -> None:
    pieces, finish = await ask(server.url(way))
    assert (pieces, finish) == (WORDS, Finish("length", 31, 5))
    [(_, _, body)] = server.requests
    assert body["stream"] is True and body["stream_options"] == {"include_usage": True}


async def test_a_server_that_counts_nothing(server: OpenAIServer) -> None:
    assert await ask(server.url("lmstudio_nousage")) == (WORDS, Finish("length", 0, 0))


@pytest.mark.parametrize("way", ["llamacpp_whole", "lmstudio_whole", "vllm_whole", "ollama_whole"])
async def test_an_answer_in_one_body_is_one_piece(server: OpenAIServer, way: str) -> None:
    assert await ask(server.url(way)) == ([SAID], Finish("length", 31, 5))


async def test_lm_studios_tool_calls_repeat_an_empty_name(server: OpenAIServer) -> None:
    pieces, finish = await ask(server.url("lmstudio_tools"))
    assert pieces == ["Let me look."]
    assert finish == Finish("tool_calls", 0, 0, (ToolCall("365174485", "weather", '{"city": "Porto"}'),))


@pytest.mark.parametrize(("way", "call"), [("vllm_tools", "chatcmpl-tool-2f0e"), ("ollama_calls", "call_x1")])
async def test_tool_calls_in_pieces_and_whole(server: OpenAIServer, way: str, call: str) -> None:
    pieces, finish = await ask(server.url(way))
    assert isinstance(finish, Finish) and (pieces, finish.reason, finish.prompt_tokens) == ([], "tool_calls", 31)
    [made] = finish.tool_calls
    assert (made.id, made.name, json.loads(made.arguments)) == (call, "weather", {"city": "Porto"})


async def test_a_model_that_only_thought_has_said_nothing(server: OpenAIServer) -> None:
    assert await ask(server.url("vllm_thought_only")) == ([], Finish("length", 31, 5))


async def test_what_claude_thinks_and_signs_is_no_text_of_its_answer(server: OpenAIServer) -> None:
    assert await ask(server.url("claude_thinks"), upstream_kind="anthropic") == (WORDS, Finish("length", 31, 5))


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
        ("vllm_overflow_2025", FieldInvalid, "maximum context length is 16384 tokens", 1),
        ("vllm_overflow", FieldInvalid, "maximum context length is 16384 tokens", 1),
        ("vllm_overflow_event", FieldInvalid, "maximum context length is 16384 tokens", 1),
        ("vllm_overflow_bare", FieldInvalid, "maximum context length is 16384 tokens", 1),
        ("vllm_nomodel", ModelNotConfigured, "The model `served` does not exist. -- check chat.upstream_url", 1),
        ("vllm_key", ModelNotConfigured, "answers 401: Unauthorized", 1),
        ("vllm_path", ModelNotConfigured, "Not Found", 1),
        ("vllm_dead", ModelUnavailable, "EngineCore encountered an issue", 3),
        ("ollama_nomodel_2024", ModelNotConfigured, "try pulling it first -- check chat.upstream_url", 1),
        ("ollama_nomodel", ModelNotConfigured, "model 'served' not found -- check chat.upstream_url", 1),
        ("ollama_notools", FieldInvalid, "does not support tools", 1),
        ("ollama_memory", ModelUnavailable, "answers 500: model requires more system memory", 3),
    ],
)
async def test_what_they_refuse_is_told_in_their_words_and_asked_again_only_if_it_may_pass(
    server: OpenAIServer, way: str, kind: type[NdmlError], words: str, tries: int
) -> None:
    pieces, error = await ask(server.url(way), retries=2)
    assert (pieces, type(error)) == ([], kind)
    assert isinstance(error, NdmlError) and words in error.message
    assert server.tries[way] == tries


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("llamacpp_full", "Context size has been exceeded"),
        ("vllm_dies", "EngineCore encountered an issue"),
        ("vllm_aborts", "ended with abort"),
        ("ollama_breaks", "without a finish_reason"),
    ],
)
async def test_a_failure_within_the_answer_leaves_what_was_said(server: OpenAIServer, way: str, words: str) -> None:
    pieces, error = await ask(server.url(way))
    assert pieces == WORDS[:2]
    assert isinstance(error, ModelUnavailable) and words in error.message
    assert server.tries[way] == 1
