"""`ndml mcp` as assistants use it: the official client over both transports, against a running suite."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

from ndml.client import NdmlClient
from ndml.testing import Suite

COMMAND = [sys.executable, "-m", "ndml.cli", "mcp"]
BOUND_S = 90.0  # of every wait: the machine may be busy
TOOLS = {"add_memory", "search_memories", "list_recent_memories", "forget_memory", "reinforce_memories"}

Connect = Callable[..., AbstractAsyncContextManager[Client]]


def environment(suite: Suite, user: str, **more: str) -> dict[str, str]:
    return {"NDML_ADDRESS": suite.grpc_address, "NDML_USER": user, **more}


@asynccontextmanager
async def over_stdio(suite: Suite, user: str, mode: str = "auto") -> AsyncIterator[Client]:
    server = StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=environment(suite, user))
    async with Client(server, mode=mode, read_timeout_seconds=BOUND_S) as client:
        yield client


@asynccontextmanager
async def serving(suite: Suite, user: str, **more: str) -> AsyncIterator[str]:
    """URL of a server process of its own; it must end well when it is told to."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "--transport",
        "http",
        "--port",
        "0",
        env={**os.environ, **environment(suite, user, **more)},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        line = (await asyncio.wait_for(process.stderr.readline(), BOUND_S)).decode()
        found = re.search(r"http://\S+?/mcp", line)
        assert found, line + (await process.stderr.read()).decode()
        yield found[0]
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        code = await asyncio.wait_for(process.wait(), BOUND_S)
    assert code == 130, "Ctrl-C ends it as it ends every command"


@asynccontextmanager
async def over_http(suite: Suite, user: str, mode: str = "auto") -> AsyncIterator[Client]:
    async with serving(suite, user) as url, Client(url, mode=mode, read_timeout_seconds=BOUND_S) as client:
        yield client


def new_user() -> str:
    return f"user-{uuid.uuid4().hex[:8]}"


async def told(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Structured content of a call that went well."""
    result = await client.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult) and not result.is_error, result
    assert isinstance(result.structured_content, dict)
    return result.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """Text of a call that the tool refused."""
    result = await client.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult) and result.is_error, result
    return "".join(part.text for part in result.content if isinstance(part, TextContent))


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("connect", [over_stdio, over_http], ids=["stdio", "http"])
async def test_a_memory_from_its_first_word_to_its_end(doors: Suite, connect: Connect, mode: str) -> None:
    user = new_user()
    async with connect(doors, user, mode) as client:
        listed = await client.list_tools()
        assert {tool.name for tool in listed.tools} == TOOLS
        added = await told(client, "add_memory", text="Ann is allergic to walnuts.", speaker="Ann", metadata={"topic": "food"})
        again = await told(client, "add_memory", text="Ann is allergic to walnuts.", speaker="Ann")
        other = await told(client, "add_memory", text="Ann's bike is green.")
        found = await told(client, "search_memories", query="What must Ann not eat?", limit=1)
        recent = await told(client, "list_recent_memories")
        graded = await told(client, "reinforce_memories", trace_ids=[added["trace_id"]], grade=0.5)
        gone = await told(client, "forget_memory", trace_id=other["trace_id"])
        left = await told(client, "list_recent_memories", limit=5)
    assert (added["decision"], added["already_known"], again["already_known"]) == ("novel", False, True)
    assert again["trace_id"] == added["trace_id"]
    [hit] = found["memories"]
    assert (hit["text"], hit["speaker"], hit["metadata"]) == ("Ann is allergic to walnuts.", "Ann", {"topic": "food"})
    assert hit["score"] > 0 and hit["said_at"]
    assert [memory["trace_id"] for memory in recent["memories"]] == [other["trace_id"], added["trace_id"]]
    assert graded == {"graded": [added["trace_id"]], "missing": []}
    assert gone == {"trace_id": other["trace_id"]}
    assert [memory["trace_id"] for memory in left["memories"]] == [added["trace_id"]]
    with NdmlClient(doors.grpc_address, user=user) as memory:
        history = memory.get(added["trace_id"], include_history=True).history
        assert [item.trace_id for item in memory.list()] == [added["trace_id"]] and len(history) >= 2


@pytest.mark.parametrize("connect", [over_stdio, over_http], ids=["stdio", "http"])
async def test_what_is_wrong_comes_back_in_words(doors: Suite, connect: Connect) -> None:
    missing = "0" * 32
    async with connect(doors, new_user()) as client:
        assert "TRACE_NOT_FOUND: no trace" in await refused(client, "forget_memory", trace_id=missing)
        assert "TRACE_NOT_FOUND" in await refused(client, "reinforce_memories", trace_ids=[missing], grade=1)
        assert "said_at" in await refused(client, "add_memory", text="x", said_at="yesterday")
        assert "limit" in await refused(client, "search_memories", query="x", limit=1000)
        assert "text" in await refused(client, "add_memory", text="")
        assert "grade" in await refused(client, "reinforce_memories", trace_ids=[missing], grade=7)
        assert "metadata" in await refused(client, "add_memory", text="x", metadata={str(key): "v" for key in range(40)})
        assert (await told(client, "list_recent_memories"))["memories"] == []


async def test_users_do_not_see_each_other(doors: Suite) -> None:
    ann, bob = new_user(), new_user()
    async with over_stdio(doors, ann) as one, over_stdio(doors, bob) as two:
        mine = await told(one, "add_memory", text="My code is 4711.")
        assert (await told(two, "search_memories", query="What is my code?"))["memories"] == []
        assert "TRACE_NOT_FOUND" in await refused(two, "forget_memory", trace_id=mine["trace_id"])
        assert len((await told(one, "list_recent_memories"))["memories"]) == 1


async def test_many_calls_at_once_over_one_connection(doors: Suite) -> None:
    async with over_http(doors, new_user()) as client:
        await asyncio.gather(
            *(told(client, "add_memory", text=f"Room {number} is painted in colour {number * 7}.") for number in range(12))
        )
        assert len((await told(client, "list_recent_memories", limit=50))["memories"]) == 12


async def test_a_secret_keeps_others_out_and_a_foreign_page_is_refused(doors: Suite) -> None:
    async with serving(doors, new_user(), NDML_MCP_SECRET="let me in") as url:
        async with httpx2.AsyncClient() as nobody:
            assert (await nobody.post(url, json={})).status_code == 401
            assert (await nobody.post(url, json={}, headers={"authorization": "Bearer let me"})).status_code == 401
            rebound = {"authorization": "Bearer let me in", "host": "evil.example", "content-type": "application/json"}
            assert (await nobody.post(url, content=b"{}", headers=rebound)).status_code == 421
        async with (
            httpx2.AsyncClient(headers={"authorization": "Bearer let me in"}, timeout=BOUND_S) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS


@pytest.mark.parametrize(
    ("arguments", "user", "says"),
    [
        ([], "", "say whose memory"),
        (["--transport", "http", "--host", "0.0.0.0"], "ann", "give a secret"),
        (["--transport", "http", "--port", "{taken}"], "ann", "choose another --port"),
    ],
)
async def test_a_server_that_cannot_start_says_why(doors: Suite, arguments: list[str], user: str, says: str) -> None:
    taken = doors.rest_url.rpartition(":")[2]
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *(argument.format(taken=taken) for argument in arguments),
        env={**os.environ, "NDML_ADDRESS": doors.grpc_address, "NDML_USER": user},
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(process.communicate(), BOUND_S)
    assert process.returncode == 2 and says in errors.decode() and "Traceback" not in errors.decode(), errors.decode()


async def test_a_suite_that_is_not_there_is_an_answer_not_a_crash() -> None:
    nowhere = {"NDML_ADDRESS": "127.0.0.1:1", "NDML_USER": "ann"}
    server = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], "--timeout", "1"], env=nowhere)
    async with Client(server, read_timeout_seconds=BOUND_S) as client:
        text = await refused(client, "search_memories", query="x")
        assert re.search(r"(OWNER_UNAVAILABLE|DEADLINE_EXCEEDED): ", text), text
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
