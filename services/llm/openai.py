"""OpenAI's chat completions, as vLLM, Ollama, llama.cpp, LM Studio and OpenAI speak them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from services.llm.ports import Ask, Finish, FinishName, Message, ToolCall
from services.llm.tool_calls import Joined, function_of, turn_of, whole_text
from services.llm.upstream import Reader, StreamFailed, count_of, words_of

_REASONS: dict[str, FinishName] = {"length": "length", "max_tokens": "length", "tool_calls": "tool_calls", "function_call": "tool_calls"}
# vLLM's and SGLang's for an answer that the engine dropped: half of one, which must not pass for the whole.
_BROKEN = ("abort", "error")
# llama.cpp and vLLM put the status of HTTP there. LM Studio says only in words that a prompt is too long, and answers a path that it does
# not know with 200. None of the two gets better by another attempt.
_STATUS = {"exceed_context_size_error": 400, "context_length_exceeded": 400, "invalid_request_error": 400, "model_not_found": 404}
_WORDS = ((re.compile(r"context length|context the overflows"), 400), (re.compile(r"^Unexpected endpoint or method"), 404))
_CHOICES = ("auto", "none", "required")


class OpenAIDialect:
    """See upstream.Dialect. limit_field: the name under which the upstream takes the answer's limit."""

    path = "/chat/completions"

    def __init__(self, limit_field: str) -> None:
        self._limit_field = limit_field

    def headers(self, key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"} if key else {}

    def body(self, ask: Ask, messages: Sequence[Message], new_tokens: int) -> dict[str, Any]:
        sampling = ask.sampling
        body: dict[str, Any] = {
            "messages": [_turn(m) for m in messages],
            "stream_options": {"include_usage": True},
            self._limit_field: new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        optional: dict[str, Any] = {"stop": list(sampling.stop) or None, "seed": sampling.seed}
        if ask.tools:
            optional |= {"tools": [function_of(tool) for tool in ask.tools], "tool_choice": _choice(ask.tool_choice)}
        return body | {key: value for key, value in optional.items() if value is not None}

    def reader(self) -> Reader:
        return _Reader()


def _turn(message: Message) -> dict[str, Any]:
    turn = turn_of(message, parsed=False)
    return turn | {"content": None} if message.tool_calls and not message.content else turn


def _choice(choice: str) -> Any:
    if not choice or choice in _CHOICES:
        return choice or None
    return {"type": "function", "function": {"name": choice}}


class _Reader:
    """Chunks of one choice; tool calls arrive in pieces, by index."""

    def __init__(self) -> None:
        self._calls = Joined()
        self._reason: FinishName | None = None
        self._usage = (0, 0)

    def take(self, event: str) -> str:
        data = json.loads(event)
        if error := data.get("error") or (data if data.get("object") == "error" else None):  # vLLM's error has nothing around it at times
            words = words_of(event)
            raise StreamFailed(words, _status_of(error, words))
        if usage := data.get("usage"):
            self._usage = (count_of(usage.get("prompt_tokens")), count_of(usage.get("completion_tokens")))
        if not data["choices"]:
            return ""
        choice = data["choices"][0]
        delta = choice.get("delta") or choice.get("message") or {}  # a whole answer, where the server does not stream
        for call in delta.get("tool_calls") or ():
            function = call.get("function") or {}
            self._calls.add(call.get("index"), call.get("id") or "", function.get("name") or "", _arguments(function))
        if reason := choice.get("finish_reason"):
            if reason in _BROKEN:
                raise StreamFailed(f"the answer ended with {reason}")
            self._reason = _REASONS.get(reason, "stop")
        text = delta.get("content") or ""
        if not isinstance(text, str):
            raise TypeError(f"delta.content is a {type(text).__name__}")
        return whole_text(text)

    def finish(self) -> Finish | None:
        calls: tuple[ToolCall, ...] = self._calls.calls()
        if self._reason is None:
            return None
        # Some say "stop" after tool calls, or "tool_calls" without any.
        reason: FinishName = "tool_calls" if calls else "stop" if self._reason == "tool_calls" else self._reason
        return Finish(reason, *self._usage, tool_calls=calls)


def _status_of(error: Any, words: str) -> int:
    """The status of HTTP that an error in a stream means; 0 where nothing tells."""
    known = error if isinstance(error, dict) else {}
    for name in (known.get("code"), known.get("type")):
        if isinstance(name, int) and 400 <= name < 600:
            return name
        if isinstance(name, str) and name in _STATUS:
            return _STATUS[name]
    return next((status for pattern, status in _WORDS if pattern.search(words)), 0)


def _arguments(function: dict[str, Any]) -> str:
    """A piece of JSON; some servers send the object itself."""
    arguments = function.get("arguments") or ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
