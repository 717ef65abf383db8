"""A chat model for tests of the doors: an OpenAI-compatible upstream on loopback whose answers follow from the prompt alone.

It says what stands in its memory block and cites it, asks for the first tool that it is given, and tells what a tool returned.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

_MEMORY = re.compile(r"^\[(\d+)\] \([^)]*\) (.*)$", re.MULTILINE)
OVERLOADED = "please be overloaded"
NAME = "parrot"


def answer_to(body: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """(text, tool calls) for a request's body."""
    messages = body["messages"]
    last = messages[-1]
    if last["role"] == "tool":
        return f"The tool says: {last['content']}", []
    if body.get("tools") and body.get("tool_choice", "auto") != "none":
        arguments = json.dumps({"about": last["content"]})
        function = {"name": body["tools"][0]["function"]["name"], "arguments": arguments}
        return "", [{"index": 0, "id": "call_1", "type": "function", "function": function}]
    known = [line for message in messages if message["role"] == "system" for line in _MEMORY.findall(message["content"] or "")]
    said = " ".join(f"I remember: {text} [{number}]." for number, text in known) or "I remember nothing."
    return f"{said} You said: {last['content']}", []


def events(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The chunks of an answer."""
    text, calls = answer_to(body)
    words = re.findall(r"\S+\s*", text)
    limit = body.get("max_tokens") or body.get("max_completion_tokens") or len(words)
    for word in words[:limit]:
        yield _chunk({"content": word})
    for call in calls:
        # In two fragments, as real servers stream arguments.
        function = call["function"]
        yield _chunk({"tool_calls": [call | {"function": function | {"arguments": function["arguments"][:3]}}]})
        yield _chunk({"tool_calls": [{"index": 0, "function": {"arguments": function["arguments"][3:]}}]})
    finish = "tool_calls" if calls else "length" if limit < len(words) else "stop"
    yield _chunk({}, finish)
    prompt = sum(len(str(message.get("content") or "").split()) for message in body["messages"])
    spoken = min(limit, len(words))
    yield {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": spoken, "total_tokens": prompt + spoken}}


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if OVERLOADED in str(body["messages"][-1].get("content")):
            self._send(429, "application/json", [b'{"error": {"message": "come back later"}}'], {"Retry-After": "1"})
        else:
            chunks = [f"data: {json.dumps(event)}\n\n".encode() for event in events(body)]
            self._send(200, "text/event-stream", [*chunks, b"data: [DONE]\n\n"])

    def _send(self, status: int, kind: str, parts: list[bytes], headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Connection": "close", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        for part in parts:
            self.wfile.write(part)
            self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """The tests' output is not the place."""


class ModelServer:
    """Serves between entering and leaving the block; `url` is what `chat.upstream_url` wants."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="doors-model", daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
