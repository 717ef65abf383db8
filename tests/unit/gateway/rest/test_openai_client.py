"""OpenAI's own client before the real call chain: credentials, retries, leaving early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from ndml.errors import Overloaded
from ndml.runtime.admission import Limits
from ndml.runtime.auth import Principal, TokenAuthenticator
from ndml.runtime.call import Call
from ndml.runtime.interceptors import Chain, ChainOptions
from ndml.runtime.server import Dispatcher, methods_of
from ndml.runtime.validation import ProtoValidator
from ndml.v1 import chat_pb2
from services.gateway.rest import HealthReport, RestServer, RestSettings, build_app

ASK: Any = [{"role": "user", "content": "hi"}]
AUTHENTICATOR = TokenAuthenticator({"right": Principal("app", frozenset({"acme", "zoo"}))})


class Chatty:
    """A ChatService: overloaded `refusals` times, then one word, then it waits for `go_on`."""

    def __init__(self, refusals: int = 0, silent: bool = False) -> None:
        self.refusals, self.silent = refusals, silent
        self.tenants: list[str] = []
        self.started, self.go_on, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def Chat(self, request: chat_pb2.ChatRequest, call: Call) -> AsyncIterator[chat_pb2.ChatResponse]:
        self.tenants.append(call.tenant)
        if self.refusals:
            self.refusals -= 1
            raise Overloaded("come back", retry_after_s=0.01)
        try:
            self.started.set()
            if not self.silent:
                yield chat_pb2.ChatResponse(delta="one")
            await self.go_on.wait()
            yield chat_pb2.ChatResponse(finish_reason=chat_pb2.FINISH_REASON_STOP, model="m")
        finally:
            self.left.set()


@asynccontextmanager
async def serving(chatty: Chatty, **options: Any) -> AsyncIterator[AsyncOpenAI]:
    settings = RestSettings(port=0)
    chain = Chain(ChainOptions(AUTHENTICATOR, False, Limits(64), 5.0, 1.0), ProtoValidator(), lambda: True)
    dispatcher = Dispatcher(chain, methods_of(chat_pb2.DESCRIPTOR.services_by_name["ChatService"], chatty))
    server = RestServer(build_app(dispatcher, settings, lambda: HealthReport(True, "ndml-gateway", "g1", "1.0", 1.0)), settings)
    await server.start()
    given = {"api_key": "right", "max_retries": 0, "timeout": 60, **options}
    try:
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", **given) as client:
            yield client
    finally:
        chatty.go_on.set()
        await server.stop()


async def said(client: AsyncOpenAI, **wishes: Any) -> Any:
    call: Any = {"model": "", "messages": ASK, "user": "ann", "metadata": {"tenant": "zoo"}, **wishes}
    return await client.chat.completions.create(**call)


async def test_the_api_key_is_our_token_and_metadata_names_the_tenant() -> None:
    chatty = Chatty()
    chatty.go_on.set()
    async with serving(chatty) as client:
        assert (await said(client)).choices[0].message.content == "one"
        with pytest.raises(openai.PermissionDeniedError):
            await said(client, metadata={"tenant": "elsewhere"})
        with pytest.raises(openai.AuthenticationError) as caught:
            await said(client.with_options(api_key="wrong"))
    assert (caught.value.code, caught.value.response.headers["www-authenticate"]) == ("invalid_api_key", "Bearer")
    assert chatty.tenants == ["zoo"]


async def test_rules_of_the_protos_name_the_clients_field() -> None:
    async with serving(Chatty()) as client:
        with pytest.raises(openai.BadRequestError) as tokens:
            await said(client, max_tokens=1_000_000)
        with pytest.raises(openai.BadRequestError) as message:
            await said(client, messages=[*ASK, {"role": "user", "content": ""}])
    assert (tokens.value.param, message.value.param) == ("max_completion_tokens", "messages[1]")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_overload_is_a_rate_limit_and_the_client_comes_back_by_itself(stream: bool) -> None:
    chatty = Chatty(refusals=2)
    chatty.go_on.set()
    async with serving(chatty) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await said(client, stream=stream)
        await said(client.with_options(max_retries=2), stream=stream)
    assert caught.value.response.headers["retry-after-ms"] == "10"
    assert len(chatty.tenants) == 3


@pytest.mark.parametrize("silent", [False, True], ids=["after a word", "before it"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_the_call(stream: bool, silent: bool) -> None:
    chatty = Chatty(silent=silent)
    async with serving(chatty) as client:
        call = asyncio.create_task(said(client, stream=stream))
        await chatty.started.wait()
        if stream and not silent:
            await (await call).close()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await chatty.left.wait()
        assert not chatty.go_on.is_set()
