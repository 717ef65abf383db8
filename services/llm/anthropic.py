"""Anthropic's messages API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ndml.errors import FieldInvalid
from services.llm.ports import Ask, Finish, FinishName, Message, Tool
from services.llm.tool_calls import Joined, object_of, whole_text
from services.llm.upstream import Reader, StreamFailed, count_of, words_of

_VERSION = "2023-06-01"  # of the API, which it names in each request
_REASONS: dict[str, FinishName] = {"max_tokens": "length", "model_context_window_exceeded": "length", "tool_use": "tool_calls"}
_CHOICES = {"": "auto", "auto": "auto", "none": "none", "required": "any"}


class AnthropicDialect:
    """See upstream.Dialect. A seed has no place in it."""

    path = "/messages"

    def headers(self, key: str) -> dict[str, str]:
        return {"anthropic-version": _VERSION} | ({"x-api-key": key} if key else {})

    def body(self, ask: Ask, messages: Sequence[Message], new_tokens: int) -> dict[str, Any]:
        sampling = ask.sampling
        turns = _turns([m for m in messages if m.role != "system"])
        if not turns:
            raise FieldInvalid("system messages alone leave nothing to answer: add a user's message", field="messages")
        body: dict[str, Any] = {"messages": turns, "max_tokens": new_tokens, "temperature": sampling.temperature}
        optional: dict[str, Any] = {
            "system": "\n\n".join(m.content for m in messages if m.role == "system") or None,
            "stop_sequences": list(sampling.stop) or None,
            "top_p": sampling.top_p if sampling.top_p < 1 else None,
        }
        if ask.tools:
            kind = _CHOICES.get(ask.tool_choice, "tool")
            name = {"name": ask.tool_choice} if kind == "tool" else {}
            optional |= {"tools": [_tool(tool) for tool in ask.tools], "tool_choice": {"type": kind} | name}
        return body | {key: value for key, value in optional.items() if value is not None}

    def reader(self) -> Reader:
        return _Reader()


def _tool(tool: Tool) -> dict[str, Any]:
    schema = object_of(tool.parameters) or {"type": "object", "properties": {}}
    return {"name": tool.name, "description": tool.description, "input_schema": schema}


def _turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Neighbours of one role are one turn; what a tool returned is said by the user."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        if not turns or turns[-1]["role"] != role:
            turns.append({"role": role, "content": []})
        turns[-1]["content"] += _blocks(message)
    return turns


def _blocks(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.content}]
    text = [{"type": "text", "text": message.content}] if message.content else []
    calls = [{"type": "tool_use", "id": c.id, "name": c.name, "input": object_of(c.arguments) or {}} for c in message.tool_calls]
    return [*text, *calls]


class _Reader:
    """Events of one message: its blocks by index, text and tool calls among them."""

    def __init__(self) -> None:
        self._calls = Joined()
        self._reason: FinishName | None = None
        self._prompt = self._completion = 0

    def take(self, event: str) -> str:
        data = json.loads(event)
        kind = data["type"]
        if kind == "error":
            raise StreamFailed(words_of(event))
        if kind == "message_start":
            usage = data["message"].get("usage") or {}
            parts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
            self._prompt = count_of(sum(count_of(usage.get(part)) for part in parts))
        elif kind == "content_block_start" and data["content_block"]["type"] == "tool_use":
            block = data["content_block"]
            self._calls.add(data["index"], block["id"], block["name"], json.dumps(block["input"]) if block.get("input") else "")
        elif kind == "content_block_delta":
            return self._delta(data["index"], data["delta"])
        elif kind == "message_delta":
            self._end(data)
        return ""

    def _delta(self, index: int, delta: dict[str, Any]) -> str:
        if delta["type"] == "input_json_delta":
            self._calls.add(index, "", "", delta["partial_json"])
        text = delta["text"] if delta["type"] == "text_delta" else ""
        if not isinstance(text, str):
            raise TypeError(f"delta.text is a {type(text).__name__}")
        return whole_text(text)

    def _end(self, data: dict[str, Any]) -> None:
        self._completion = count_of((data.get("usage") or {}).get("output_tokens") or self._completion)
        if reason := data["delta"].get("stop_reason"):
            self._reason = _REASONS.get(reason, "stop")

    def finish(self) -> Finish | None:
        calls = self._calls.calls()
        return None if self._reason is None else Finish(self._reason, self._prompt, self._completion, tool_calls=calls)
