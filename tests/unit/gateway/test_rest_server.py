"""The REST door as it is: uvicorn on a loopback port, before the real call chain."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from ndml.errors import ModelNotConfigured
from ndml.runtime.admission import Limits
from ndml.runtime.call import Call
from ndml.runtime.interceptors import Chain, ChainOptions
from ndml.runtime.server import Dispatcher, methods_of
from ndml.runtime.validation import ProtoValidator
from ndml.v1 import chat_pb2
from services.gateway.rest import HealthReport, RestServer, RestSettings, build_app

BODY = {"scope": {"user": "u"}, "messages": [{"role": "ROLE_USER", "content": "hi"}]}
ChatMethod = Callable[[chat_pb2.ChatRequest, Call], AsyncIterator[chat_pb2.ChatResponse]]


class Chatty:
    """A ChatService that says one word, then waits for `go_on`."""

    def __init__(self) -> None:
        self.started, self.go_on, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.silent = False

    async def Chat(self, request: chat_pb2.ChatRequest, call: Call) -> AsyncIterator[chat_pb2.ChatResponse]:
        if request.messages[0].content == "no model":
            raise ModelNotConfigured("set llm.chat.model")
        try:
            self.started.set()
            if not self.silent:
                yield chat_pb2.ChatResponse(delta="one")
            await self.go_on.wait()
            yield chat_pb2.ChatResponse(delta="two")
        finally:
            self.left.set()


@asynccontextmanager
async def serving(chatty: Chatty, **knobs: Any) -> AsyncIterator[tuple[RestServer, httpx.AsyncClient]]:
    settings = RestSettings(port=0, **knobs)
    chain = Chain(ChainOptions(None, False, Limits(64), 5.0, 1.0), ProtoValidator(), lambda: True)
    dispatcher = Dispatcher(chain, methods_of(chat_pb2.DESCRIPTOR.services_by_name["ChatService"], chatty))
    server = RestServer(build_app(dispatcher, settings, lambda: HealthReport(True, "ndml-gateway", "g1", "1.0", 1.0)), settings)
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client:
            yield server, client
    finally:
        await server.stop()


async def test_messages_arrive_while_the_stream_goes_on() -> None:
    chatty = Chatty()
    async with serving(chatty) as (_, client), client.stream("POST", "/v1/chat", json=BODY) as response:
        lines = response.aiter_lines()
        assert json.loads(await anext(lines))["delta"] == "one"
        chatty.go_on.set()
        assert json.loads(await anext(lines))["delta"] == "two"
        assert [line async for line in lines] == []


@pytest.mark.parametrize("silent", [False, True], ids=["after the first message", "before it"])
@pytest.mark.parametrize("path", ["/v1/chat", "/chat"])
async def test_the_call_is_cancelled_when_the_client_goes_away(path: str, silent: bool) -> None:
    chatty = Chatty()
    chatty.silent = silent
    body = BODY if path == "/v1/chat" else {"user_id": "u", "message": "m"}
    async with serving(chatty) as (_, client):
        call = asyncio.create_task(client.post(path, json=body))
        await chatty.started.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await chatty.left.wait()


async def test_the_deadline_ends_a_stream_with_a_last_line() -> None:
    chatty = Chatty()
    async with serving(chatty) as (_, client):
        response = await client.post("/v1/chat", json=BODY, headers={"ndml-timeout-ms": "50"})
        await chatty.left.wait()
    assert json.loads(response.text.splitlines()[-1])["error"]["reason"] == "DEADLINE_EXCEEDED"


async def test_rules_of_the_protos_and_errors_of_the_service_become_problems(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(Chatty()) as (server, client):
        large = await said(server.port, b"POST /v1/chat HTTP/1.1\r\nhost: a\r\ncontent-length: 999999999\r\n\r\n{")
        junk = await said(server.port, b"\x00\x01 hello\r\n\r\n")
        empty = await client.post("/v1/chat", json={"scope": {"user": "u"}})
        refused = await client.post("/v1/chat", json={**BODY, "messages": [{"role": "ROLE_USER", "content": "no model"}]})
        health = await client.get("/health")
    assert (empty.status_code, empty.json()["errors"][0]["field"]) == (400, "messages")
    assert (refused.status_code, refused.json()["reason"], refused.json()["detail"]) == (400, "MODEL_NOT_CONFIGURED", "set llm.chat.model")
    assert large.startswith(b"HTTP/1.1 413 ") and b"BODY_TOO_LARGE" in large
    assert junk.startswith(b"HTTP/1.1 400 ")
    assert health.json()["status"] == "healthy"
    assert not [record for record in caplog.records if record.exc_info]


async def said(port: int, request: bytes) -> bytes:
    """All that the server says to raw bytes until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def test_stop_lets_a_call_under_way_finish() -> None:
    chatty = Chatty()
    async with serving(chatty) as (server, client):
        call = asyncio.create_task(client.post("/v1/chat", json=BODY))
        await chatty.started.wait()
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        chatty.go_on.set()
        response = await call
        await stopping
        with pytest.raises(httpx.ConnectError):
            await client.get("/health")
    assert [json.loads(line)["delta"] for line in response.text.splitlines()] == ["one", "two"]


async def test_stop_cancels_what_does_not_finish_in_time() -> None:
    chatty = Chatty()
    async with serving(chatty, drain_s=0) as (server, client):
        call = asyncio.create_task(client.post("/v1/chat", json=BODY))
        await chatty.started.wait()
        await server.stop()
        with pytest.raises(httpx.HTTPError):
            await call
    assert chatty.left.is_set()


async def test_a_taken_port_is_an_error_that_can_be_caught() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = RestServer(build_app_for_nothing(), RestSettings(port=taken.getsockname()[1]))
        with pytest.raises(OSError, match="in use"):
            await server.start()
        await server.stop()


def build_app_for_nothing() -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nobody calls")

    return app
