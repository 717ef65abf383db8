from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from ndml.errors import DeadlinePassed, FieldInvalid, ModelNotConfigured, ModelUnavailable, NdmlError, Overloaded
from ndml.runtime.settings import render_config
from services.llm.ports import Finish, Message, Sampling
from services.llm.settings import ChatSection, LlmSettings
from services.llm.upstream import OpenAIUpstream
from tests.unit.llm.openai_server import WORDS, OpenAIServer, openai_server

DEFAULT = Sampling()
ASK = [Message("system", "be brief"), Message("user", "wo ist das Notizbuch?")]


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with openai_server() as made:
        yield made


async def ask(
    url: str, sampling: Sampling = DEFAULT, remaining_s: float | None = None, **options: object
) -> tuple[list[str], Finish | NdmlError]:
    """Pieces, and how it ended."""
    values = {"model": "served", "upstream_url": url, "retry_delay_s": 0.01, "read_timeout_s": 30} | options
    upstream = OpenAIUpstream(ChatSection.model_validate(values))
    await upstream.start()
    pieces: list[str] = []
    try:
        async for piece in upstream.generate(ASK, sampling, remaining_s):
            if isinstance(piece, Finish):
                return pieces, piece
            pieces.append(piece)
        raise AssertionError("the stream ended without Finish or error")
    except NdmlError as error:
        return pieces, error
    finally:
        await upstream.stop()


async def test_text_finish_and_usage_come_through(server: OpenAIServer) -> None:
    pieces, finish = await ask(server.url("good"), Sampling(77, 0.7, 0.9, ("END",), 5), api_key="secret-key")
    assert pieces == WORDS
    assert finish == Finish("length", 31, 5)
    [(_, headers, body)] = server.requests
    assert headers["authorization"] == "Bearer secret-key"
    assert body["messages"] == [{"role": m.role, "content": m.content} for m in ASK]
    wanted = {"model": "served", "stream": True, "max_tokens": 77, "temperature": 0.7, "top_p": 0.9, "stop": ["END"], "seed": 5}
    assert {key: body[key] for key in wanted} == wanted


async def test_defaults_leave_out_what_was_not_set(server: OpenAIServer) -> None:
    await ask(server.url("good"), max_tokens_field="max_completion_tokens")
    [(_, headers, body)] = server.requests
    assert body["max_completion_tokens"] == 256
    assert not {"max_tokens", "stop", "seed"} & body.keys()
    assert "authorization" not in headers


async def test_a_terse_server_is_enough(server: OpenAIServer) -> None:
    assert await ask(server.url("terse")) == (["🙂", "!"], Finish("stop", 0, 0))


async def test_failures_before_the_first_token_are_retried(server: OpenAIServer) -> None:
    pieces, finish = await ask(server.url("flaky"))
    assert pieces == WORDS
    assert isinstance(finish, Finish)
    assert server.tries["flaky"] == 3


async def test_retries_are_bounded_and_the_upstreams_words_cut(server: OpenAIServer) -> None:
    pieces, error = await ask(server.url("error500"), retries=2)
    assert pieces == []
    assert isinstance(error, ModelUnavailable)
    assert "the GPU is on fire" in error.message
    assert len(error.message) < 700
    assert server.tries["error500"] == 3


@pytest.mark.parametrize(("way", "said", "words"), [("disconnect", ["half an ans"], "broke off"), ("inband", ["so far"], "engine died")])
async def test_no_retry_after_the_first_token(server: OpenAIServer, way: str, said: list[str], words: str) -> None:
    pieces, error = await ask(server.url(way))
    assert pieces == said
    assert isinstance(error, ModelUnavailable)
    assert words in error.message
    assert server.tries[way] == 1


@pytest.mark.parametrize("way", ["notjson", "nochoices", "number", "list"])
async def test_garbage_is_model_unavailable(server: OpenAIServer, way: str) -> None:
    pieces, error = await ask(server.url(way))
    assert pieces == []
    assert isinstance(error, ModelUnavailable)
    assert "no chat completion stream" in error.message


@pytest.mark.parametrize(
    ("way", "kind", "words"),
    [
        ("key", ModelNotConfigured, "bad key -- check chat.upstream_url, chat.model and chat.api_key"),
        ("nomodel", ModelNotConfigured, "try pulling it first"),
        ("toolong", FieldInvalid, "maximum context length is 4096 tokens"),
        ("html", ModelUnavailable, "302: <html>go away</html>"),
    ],
)
async def test_refusals_are_final_and_say_what_to_check(server: OpenAIServer, way: str, kind: type[NdmlError], words: str) -> None:
    _, error = await ask(server.url(way))
    assert type(error) is kind
    assert words in error.message
    assert server.tries[way] == 1


async def test_silence_is_bounded_before_and_after_the_first_token(server: OpenAIServer) -> None:
    _, error = await ask(server.url("silent"), read_timeout_s=0.1, retries=1)
    assert isinstance(error, ModelUnavailable)
    assert "in time" in error.message
    assert server.tries["silent"] == 2
    pieces, error = await ask(server.url("slow"), read_timeout_s=0.1, retries=1)
    assert pieces == ["one"]
    assert isinstance(error, ModelUnavailable)
    assert server.tries["slow"] == 1


async def test_nobody_there(server: OpenAIServer) -> None:
    _, error = await ask("http://127.0.0.1:1/v1", retries=1)
    assert isinstance(error, ModelUnavailable)
    assert "http://127.0.0.1:1/v1/chat/completions" in error.message


async def test_the_callers_deadline_ends_it(server: OpenAIServer) -> None:
    pieces, error = await ask(server.url("slow"), remaining_s=0.3)
    assert isinstance(error, DeadlinePassed)
    assert pieces == ["one"]


async def test_closing_the_stream_hangs_up_and_frees_the_slot(server: OpenAIServer) -> None:
    settings = {"model": "served", "upstream_url": server.url("endless"), "max_concurrent": 1, "max_waiting": 0}
    upstream = OpenAIUpstream(ChatSection.model_validate(settings))
    await upstream.start()
    stream = upstream.generate(ASK, Sampling(), None)
    assert await anext(stream) == "word "
    with pytest.raises(Overloaded):
        await anext(upstream.generate(ASK, Sampling(), None))
    await stream.aclose()
    async with asyncio.timeout(30):
        await server.closed.wait()
    again = upstream.generate(ASK, Sampling(), None)
    assert await anext(again) == "word "
    await again.aclose()
    await upstream.stop()


def test_settings_name_what_is_missing_and_hide_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="NDML_LLM__CHAT__MODEL"):
        ChatSection(upstream_url="http://127.0.0.1:1/v1")
    monkeypatch.setenv("NDML_LLM__CHAT__API_KEY", "secret-key")
    settings = LlmSettings()
    assert settings.chat.api_key.get_secret_value() == "secret-key"
    assert "secret-key" not in render_config(settings)
