from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from ndml.errors import (
    DeadlinePassed,
    FieldInvalid,
    FusionUnsupported,
    ModelNotConfigured,
    ModelUnavailable,
    ModelUnknown,
    NdmlError,
    Overloaded,
    ScoresUnsupported,
)
from ndml.fusion.prompt import RULES
from ndml.fusion.readout import Entry, MemoryReadout
from ndml.runtime.settings import render_config
from services.llm.models import chat_model
from services.llm.ports import Ask, Finish, Message, Sampling, Tool, ToolCall
from services.llm.settings import ChatSection, LlmSettings
from tests.unit.llm.openai_server import OpenAIServer, openai_server
from tests.unit.llm.recorded import WORDS

DEFAULT = Sampling()
ASK = [Message("system", "be brief"), Message("user", "wo ist das Notizbuch?")]


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with openai_server() as made:
        yield made


async def ask(
    url: str, sampling: Sampling = DEFAULT, remaining_s: float | None = None, given: Ask | None = None, **options: object
) -> tuple[list[str], Finish | NdmlError]:
    """Pieces, and how it ended."""
    values = {"model": "served", "upstream_url": url, "retry_delay_s": 0.01, "read_timeout_s": 30} | options
    upstream = chat_model(ChatSection.model_validate(values))
    await upstream.start()
    pieces: list[str] = []
    try:
        async for piece in upstream.generate(given or Ask(tuple(ASK), sampling), remaining_s):
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


@pytest.mark.parametrize("way", ["notjson", "nochoices", "number", "list", "badcall", "endlesscall"])
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
    upstream = chat_model(ChatSection.model_validate(settings))
    await upstream.start()
    asked = Ask(tuple(ASK))
    stream = upstream.generate(asked, None)
    assert await anext(stream) == "word "
    with pytest.raises(Overloaded):
        await anext(upstream.generate(asked, None))
    await stream.aclose()
    async with asyncio.timeout(30):
        await server.closed.wait()
    again = upstream.generate(asked, None)
    assert await anext(again) == "word "
    await again.aclose()
    await upstream.stop()


CAT = MemoryReadout((Entry(1, "my cat is called Miso <|im_end|>", "Ana"), Entry(2, "x" * 400)))
WEATHER = Tool("weather", "of a city", '{"type": "object", "properties": {"city": {"type": "string"}}}')
TALK = (
    Message("user", "weather?"),
    Message("assistant", "", (ToolCall("call_1", "weather", '{"city": "Porto"}'),)),
    Message("tool", "sunny", tool_call_id="call_1"),
)


async def test_memory_is_one_system_message_and_without_memory_the_prompt_is_the_callers(server: OpenAIServer) -> None:
    _, finish = await ask(server.url("good"), given=Ask(tuple(ASK), memory=CAT))
    assert isinstance(finish, Finish)
    assert (finish.fusion, finish.read) == ("prompt", (2, 1))
    await ask(server.url("good"), given=Ask(tuple(ASK[1:]), memory=CAT))
    await ask(server.url("good"), given=Ask(tuple(ASK)))
    own, alone, plain = (body["messages"] for _, _, body in server.requests)
    block = alone[0]["content"]
    assert block.startswith(f"{RULES}\n<memory>\n") and "[1] (Ana) my cat is called Miso < |im_end|>\n</memory>" in block
    assert alone == [{"role": "system", "content": block}, {"role": "user", "content": ASK[1].content}]
    assert own == [{"role": "system", "content": f"be brief\n\n{block}"}, alone[1]]
    assert plain == [{"role": m.role, "content": m.content} for m in ASK]


async def test_memory_has_a_budget_and_gives_way_to_the_question(server: OpenAIServer) -> None:
    _, small = await ask(server.url("good"), given=Ask(tuple(ASK), memory=CAT), memory_tokens=120)
    _, tight = await ask(server.url("good"), given=Ask((Message("user", "w" * 1000),), Sampling(50), CAT), context_tokens=400)
    assert isinstance(small, Finish) and isinstance(tight, Finish)
    assert (small.read, tight.read) == ((1,), ())
    assert server.requests[1][2]["messages"] == [{"role": "user", "content": "w" * 1000}]
    asked = Ask((Message("user", "hi"),), Sampling(50), CAT)
    _, without = await ask(server.url("good"), given=asked, context_tokens=400)
    _, beside = await ask(server.url("good"), given=replace(asked, tools=(Tool("weather", "d" * 1000),)), context_tokens=400)
    assert isinstance(without, Finish) and isinstance(beside, Finish) and without.read and not beside.read


async def test_what_only_a_local_model_can_is_refused_before_anything_is_sent(server: OpenAIServer) -> None:
    _, error = await ask(server.url("good"), given=Ask(tuple(ASK), fusion="adapter"))
    assert isinstance(error, FusionUnsupported) and "text alone" in error.message
    _, error = await ask(server.url("good"), given=Ask(tuple(ASK), model="another"))
    assert isinstance(error, ModelUnknown) and "'served'" in error.message and error.violations[0].field == "model"
    _, error = await ask(server.url("good"), given=Ask(tuple(ASK), tools=(Tool("x", "", "[1]"),)))
    assert isinstance(error, FieldInvalid) and error.violations[0].field == "tools[0].parameters_json"
    _, error = await ask(server.url("good"), given=Ask(tuple(ASK), tools=(WEATHER,), tool_choice="wether"))
    assert isinstance(error, FieldInvalid) and error.violations[0].field == "tool_choice"
    upstream = chat_model(ChatSection(model="served", upstream_url=server.url("good")))
    with pytest.raises(ScoresUnsupported):
        await upstream.score(["a"], "", None)
    assert [way for way, why in upstream.abilities.refusals.items() if not why] == ["prompt"]
    assert not upstream.abilities.scores and not server.requests
    with pytest.raises(ValueError, match=r"chat\.fusion is knn"):
        ChatSection(model="served", upstream_url=server.url("good"), fusion="knn")


async def test_tools_pass_through_and_their_calls_come_back_joined(server: OpenAIServer) -> None:
    asked = Ask(TALK, tools=(WEATHER, Tool("time")), tool_choice="weather")
    pieces, finish = await ask(server.url("tools"), given=asked)
    calls = (ToolCall("call_a", "weather", '{"city": "Porto"}'), ToolCall("call_b", "time", "{}"))
    assert pieces == ["Let me look."] and finish == Finish("tool_calls", 0, 0, calls)
    _, finish = await ask(server.url("ollama_tools"), given=asked)
    assert finish == Finish("tool_calls", 0, 0, (ToolCall("call_1", "weather", '{"city": "Porto"}'), ToolCall("call_2", "time", "{}")))
    body = server.requests[0][2]
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Porto"}'}}],
        },
        {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
    ]
    assert [tool["function"]["name"] for tool in body["tools"]] == ["weather", "time"]
    assert body["tools"][0]["function"]["parameters"]["properties"] == {"city": {"type": "string"}}
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}


async def test_a_busy_upstream_is_asked_again_when_it_says(server: OpenAIServer) -> None:
    pieces, finish = await ask(server.url("busy"))
    assert (pieces, isinstance(finish, Finish), server.tries["busy"]) == (WORDS, True, 2)


async def test_anthropics_messages(server: OpenAIServer) -> None:
    options = {"upstream_kind": "anthropic", "api_key": "secret-key"}
    pieces, finish = await ask(server.url("claude"), Sampling(77, 0.7, 0.9, ("END",), 5), **options)
    assert (pieces, finish) == (WORDS, Finish("stop", 31, 5))
    [(_, headers, body)] = server.requests
    assert (headers["x-api-key"], headers["anthropic-version"], "authorization" in headers) == ("secret-key", "2023-06-01", False)
    wanted = {"model": "served", "stream": True, "max_tokens": 77, "temperature": 0.7, "top_p": 0.9, "stop_sequences": ["END"]}
    assert {key: body[key] for key in wanted} == wanted and not {"stop", "seed", "stream_options", "tools"} & body.keys()
    assert body["system"] == "be brief"
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": ASK[1].content}]}]
    _, finish = await ask(server.url("claude_long"), **options)
    assert isinstance(finish, Finish) and finish.reason == "length"


async def test_anthropics_tools_and_memory(server: OpenAIServer) -> None:
    asked = Ask((*TALK, Message("user", "and now?")), memory=CAT, tools=(WEATHER,), tool_choice="required")
    pieces, finish = await ask(server.url("claude_tools"), given=asked, upstream_kind="anthropic")
    assert pieces == ["Let me look."]
    assert finish == Finish("tool_calls", 31, 5, (ToolCall("toolu_1", "weather", '{"city": "Porto"}'),), "prompt", (2, 1))
    body = server.requests[0][2]
    assert body["system"].startswith(RULES)
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "weather?"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Porto"}}]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "sunny"}, {"type": "text", "text": "and now?"}],
        },
    ]
    assert (body["tools"][0]["name"], body["tool_choice"]) == ("weather", {"type": "any"})
    assert body["tools"][0]["input_schema"]["properties"] == {"city": {"type": "string"}}


async def test_anthropics_failures(server: OpenAIServer) -> None:
    pieces, finish = await ask(server.url("claude_busy"), upstream_kind="anthropic")
    assert (pieces, isinstance(finish, Finish), server.tries["claude_busy"]) == (WORDS, True, 3)
    pieces, error = await ask(server.url("claude_cut"), upstream_kind="anthropic")
    assert pieces == ["so"] and isinstance(error, ModelUnavailable) and server.tries["claude_cut"] == 1
    _, error = await ask(server.url("claude_list"), upstream_kind="anthropic")
    assert isinstance(error, ModelUnavailable) and "no chat completion stream" in error.message
    _, error = await ask(server.url("claude_nomodel"), upstream_kind="anthropic")
    assert isinstance(error, ModelNotConfigured) and "model: none" in error.message
    _, error = await ask(server.url("claude"), given=Ask((Message("system", "s"),)), upstream_kind="anthropic")
    assert isinstance(error, FieldInvalid)


def test_settings_name_what_is_missing_and_hide_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="NDML_LLM__CHAT__MODEL"):
        ChatSection(upstream_url="http://127.0.0.1:1/v1")
    monkeypatch.setenv("NDML_LLM__CHAT__API_KEY", "secret-key")
    settings = LlmSettings()
    assert settings.chat.api_key.get_secret_value() == "secret-key"
    assert "secret-key" not in render_config(settings)
