"""A real HTTP server on a loopback port that streams as OpenAI's and Anthropic's APIs do, in good and in bad ways.

The first part of the path names the way: http://127.0.0.1:PORT/<way>/v1.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.unit.llm.recorded import RECORDED, WORDS, Recorded

Way = Callable[["OpenAIServer", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class OpenAIServer:
    """`requests` keeps (way, headers, body) of each call; `closed` counts calls whose caller went away early."""

    port: int = 0
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    tries: dict[str, int] = field(default_factory=dict)

    def url(self, way: str) -> str:
        return f"http://127.0.0.1:{self.port}/{way}/v1"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *rest = head.strip().split("\r\n")
            headers = {k.lower(): v.strip() for k, v in (h.split(":", 1) for h in rest)}
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            method, path, _ = line.split(" ")
            way = path.split("/")[1]
            assert (method, path) == ("POST", f"/{way}/v1/{'messages' if way.startswith('claude') else 'chat/completions'}")
            self.requests.append((way, headers, body))
            self.tries[way] = self.tries.get(way, 0) + 1
            await WAYS[way](self, writer)
        except ConnectionError:
            self.closed.set()
        finally:
            writer.close()


@asynccontextmanager
async def openai_server() -> AsyncIterator[OpenAIServer]:
    made = OpenAIServer()
    server = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


async def _begin(writer: asyncio.StreamWriter, status: str = "200 OK", kind: str = "text/event-stream", extra: str = "") -> None:
    writer.write(f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{extra}connection: close\r\n\r\n".encode())
    await writer.drain()


async def _event(writer: asyncio.StreamWriter, data: object) -> None:
    writer.write(f"data: {data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)}\n\n".encode())
    await writer.drain()


def _delta(text: str | None, finish: str | None = None) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


async def good(server: OpenAIServer, writer: asyncio.StreamWriter) -> None:
    await _begin(writer)
    await _event(writer, {"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}, "finish_reason": None}]})
    for word in WORDS:
        await _event(writer, _delta(word))
    await _event(writer, _delta(None, "length"))
    await _event(writer, {"choices": [], "usage": {"prompt_tokens": 31, "completion_tokens": 5, "total_tokens": 36}})
    await _event(writer, "[DONE]")


async def terse(server: OpenAIServer, writer: asyncio.StreamWriter) -> None:
    """No usage, no [DONE], bytes cut inside a character."""
    await _begin(writer)
    raw = f"data: {json.dumps(_delta('🙂'), ensure_ascii=False)}\r\n\r\n".encode()
    for piece in (raw[: raw.index("🙂".encode()) + 2], raw[raw.index("🙂".encode()) + 2 :]):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.01)
    await _event(writer, _delta("!", "stop"))


async def slow(server: OpenAIServer, writer: asyncio.StreamWriter) -> None:
    """Answers, says one word, and then nothing."""
    await _begin(writer)
    await _event(writer, _delta("one"))
    await asyncio.sleep(60)


async def silent(server: OpenAIServer, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def endless(server: OpenAIServer, writer: asyncio.StreamWriter) -> None:
    await _begin(writer)
    while True:
        await _event(writer, _delta("word "))
        await asyncio.sleep(0.001)


async def error500(server: OpenAIServer, writer: asyncio.StreamWriter) -> None:
    await _begin(writer, "500 Internal Server Error", "application/json")
    writer.write(json.dumps({"error": {"message": "the GPU is on fire " + "x" * 2000, "type": "server_error"}}).encode())
    await writer.drain()


async def once(server: OpenAIServer, writer: asyncio.StreamWriter) -> None:
    """Good the first time, then failing."""
    await (good if server.tries["once"] == 1 else error500)(server, writer)


async def flaky(server: OpenAIServer, writer: asyncio.StreamWriter) -> None:
    """503, then a connection that breaks before the first token, then good."""
    if server.tries["flaky"] == 1:
        await _begin(writer, "503 Service Unavailable", "text/plain", "retry-after: 0.05\r\n")
    elif server.tries["flaky"] == 2:
        await _begin(writer)
    else:
        await good(server, writer)


async def disconnect(server: OpenAIServer, writer: asyncio.StreamWriter) -> None:
    await _begin(writer, extra="transfer-encoding: chunked\r\n")
    data = f"data: {json.dumps(_delta('half an ans'))}\n\n".encode()
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()


def _tool_delta(**call: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]}


async def tools(server: OpenAIServer, writer: asyncio.StreamWriter) -> None:
    """As vLLM and OpenAI: two calls in pieces, interleaved, after some text."""
    await _begin(writer)
    await _event(writer, _delta("Let me look."))
    await _event(writer, _tool_delta(index=0, id="call_a", type="function", function={"name": "weather", "arguments": ""}))
    await _event(writer, _tool_delta(index=1, id="call_b", type="function", function={"name": "time", "arguments": "{}"}))
    for piece in ('{"city"', ': "Porto"}'):
        await _event(writer, _tool_delta(index=0, function={"arguments": piece}))
    await _event(writer, _delta(None, "tool_calls"))
    await _event(writer, "[DONE]")


async def ollama_tools(server: OpenAIServer, writer: asyncio.StreamWriter) -> None:
    """Whole calls without index or id, one with an object for arguments, and "stop" at the end."""
    await _begin(writer)
    await _event(writer, _tool_delta(function={"name": "weather", "arguments": {"city": "Porto"}}))
    await _event(writer, _tool_delta(function={"name": "time", "arguments": "{}"}))
    await _event(writer, _delta("", "stop"))


async def busy(server: OpenAIServer, writer: asyncio.StreamWriter) -> None:
    """429 with Retry-After the first time, then good."""
    if server.tries["busy"] == 1:
        await _begin(writer, "429 Too Many Requests", "application/json", "retry-after: 0.05\r\n")
        writer.write(b'{"error": {"message": "slow down", "type": "rate_limit"}}')
        await writer.drain()
    else:
        await good(server, writer)


CLAUDE_USAGE = {"input_tokens": 20, "cache_read_input_tokens": 11}
CLAUDE_START = {"type": "message_start", "message": {"id": "m", "role": "assistant", "usage": CLAUDE_USAGE}}


def _claude(*blocks: list[dict[str, Any]], stop: str = "end_turn") -> Way:
    async def say(server: OpenAIServer, writer: asyncio.StreamWriter) -> None:
        await _begin(writer)
        await _event(writer, CLAUDE_START)
        await _event(writer, {"type": "ping"})
        for index, events in enumerate(blocks):
            for event in events:
                await _event(writer, event | {"index": index})
            await _event(writer, {"type": "content_block_stop", "index": index})
        await _event(
            writer, {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": {"output_tokens": 5}}
        )
        await _event(writer, {"type": "message_stop"})

    return say


def _text_block(*words: str) -> list[dict[str, Any]]:
    start = {"type": "content_block_start", "content_block": {"type": "text", "text": ""}}
    return [start, *({"type": "content_block_delta", "delta": {"type": "text_delta", "text": word}} for word in words)]


def _tool_block(call: str, name: str, *pieces: str) -> list[dict[str, Any]]:
    start = {"type": "content_block_start", "content_block": {"type": "tool_use", "id": call, "name": name, "input": {}}}
    return [start, *({"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": piece}} for piece in pieces)]


async def claude_busy(server: OpenAIServer, writer: asyncio.StreamWriter) -> None:
    """529, then overloaded in the stream, then good."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    if server.tries["claude_busy"] == 1:
        await _begin(writer, "529 Overloaded", "application/json")
        writer.write(json.dumps(error).encode())
        await writer.drain()
    elif server.tries["claude_busy"] == 2:
        await _begin(writer)
        await _event(writer, error)
    else:
        await _claude(_text_block(*WORDS))(server, writer)


def _refusing(status: str, body: str) -> Way:
    async def refuse(server: OpenAIServer, writer: asyncio.StreamWriter) -> None:
        await _begin(writer, status, "application/json")
        writer.write(body.encode())
        await writer.drain()

    return refuse


def _saying(*events: str) -> Way:
    async def say(server: OpenAIServer, writer: asyncio.StreamWriter) -> None:
        await _begin(writer)
        for event in events:
            await _event(writer, event)

    return say


def _replaying(recorded: Recorded) -> Way:
    async def replay(server: OpenAIServer, writer: asyncio.StreamWriter) -> None:
        await _begin(writer, recorded.status, recorded.kind)
        writer.write(recorded.body.encode())
        await writer.drain()

    return replay


WAYS: dict[str, Way] = {name: _replaying(recorded) for name, recorded in RECORDED.items()} | {
    "good": good,
    "terse": terse,
    "slow": slow,
    "silent": silent,
    "endless": endless,
    "error500": error500,
    "once": once,
    "flaky": flaky,
    "disconnect": disconnect,
    "tools": tools,
    "ollama_tools": ollama_tools,
    "busy": busy,
    "claude": _claude(_text_block(*WORDS)),
    "claude_tools": _claude(_text_block("Let me look."), _tool_block("toolu_1", "weather", "", '{"city"', ': "Porto"}'), stop="tool_use"),
    "claude_long": _claude(_text_block("a"), stop="max_tokens"),
    "claude_busy": claude_busy,
    "claude_cut": _saying(json.dumps(CLAUDE_START), json.dumps(_text_block("so")[1] | {"index": 0})),
    "claude_list": _saying("[]"),
    "claude_nomodel": _refusing("404 Not Found", '{"type": "error", "error": {"type": "not_found_error", "message": "model: none"}}'),
    "key": _refusing("401 Unauthorized", '{"error": {"message": "bad key"}}'),
    "nomodel": _refusing("404 Not Found", '{"error": "model not found, try pulling it first"}'),
    "toolong": _refusing("400 Bad Request", '{"error": {"message": "maximum context length is 4096 tokens"}}'),
    "html": _refusing("302 Found", "<html>go away</html>"),
    "notjson": _saying("this is no json"),
    "nochoices": _saying('{"hello": "world"}'),
    "number": _saying('{"choices": [{"delta": {"content": 7}}]}'),
    "list": _saying("[1, 2]"),
    "badcall": _saying(json.dumps(_tool_delta(index=0, function="no"))),
    "endlesscall": _saying(json.dumps(_tool_delta(index=0, function={"name": "x", "arguments": "y" * 70_000}))),
    "inband": _saying(json.dumps(_delta("so far")), '{"error": {"message": "engine died"}}'),
}
