"""Tools: as chat templates and upstreams take them, and read out of what a local model writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ndml.errors import FieldInvalid
from services.llm.ports import Message, Tool, ToolCall

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"  # Hermes, Qwen and those trained on their data write calls like this
_LONGEST = 64 << 10  # characters of one call: as much as the contract carries
MOST_CALLS = 64  # of one answer, as in the contract
_DEEPEST = 100  # levels of a schema or of arguments: templates and JSON writers recurse over them


def check_tools(tools: Sequence[Tool], choice: str) -> None:
    """Raises FieldInvalid for parameters that are no JSON object, and for the choice of a tool that is not offered."""
    for place, tool in enumerate(tools):
        if tool.parameters and object_of(tool.parameters) is None:
            raise FieldInvalid(
                f"parameters of tool {tool.name} are no JSON object of at most {_DEEPEST} levels: send a JSON Schema",
                field=f"tools[{place}].parameters_json",
            )
    if choice not in ("", "auto", "none", *(tool.name for tool in tools)) and not (choice == "required" and tools):
        raise FieldInvalid(f"tool_choice {choice!r} is neither auto, none or required nor a tool that is offered", field="tool_choice")


def object_of(text: str) -> dict[str, Any] | None:
    """The JSON object that `text` is, of at most `_DEEPEST` levels; None for anything else."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # what Python reads and nobody else does: NaN, half a character
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and _shallow(value) else None


def _shallow(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [part for each in level if isinstance(each, dict | list) for part in (each.values() if isinstance(each, dict) else each)]
        if not level:
            return True
    return False


def function_of(tool: Tool) -> dict[str, Any]:
    """In OpenAI's form, which chat templates take too."""
    parameters = object_of(tool.parameters) or {"type": "object", "properties": {}}
    return {"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": parameters}}


def turn_of(message: Message, *, parsed: bool) -> dict[str, Any]:
    """A message in OpenAI's form; parsed: arguments as an object, as templates want them, where they are one."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": _parsed(c.arguments) if parsed else c.arguments}}
            for c in message.tool_calls
        ]
    if message.role == "tool":
        turn["tool_call_id"] = message.tool_call_id
    return turn


def _parsed(arguments: str) -> Any:
    """The object, or the text where it is none."""
    found = object_of(arguments or "{}")
    return arguments if found is None else found


def whole_text(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair: JSON can say one alone, UTF-8 and so our messages cannot."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Joined:
    """Calls that a stream brings in pieces, by index; a piece without one goes on with the last call, or begins one where it has a name."""

    def __init__(self) -> None:
        self._parts: dict[int, list[str]] = {}  # id, name, arguments

    def add(self, index: int | None, call_id: str, name: str, arguments: str) -> None:
        """Raises ValueError past the bounds, TypeError for what is no text."""
        last = max(self._parts, default=-1)
        if not (isinstance(call_id, str) and isinstance(name, str) and isinstance(arguments, str)):
            raise TypeError("a tool call has an id, a name or arguments that are no text")
        at = index if index is not None else last + 1 if name or last < 0 else last
        call = self._parts.setdefault(at, ["", "", ""])
        call[0], call[1], call[2] = call[0] or call_id, call[1] or name, call[2] + arguments
        if len(self._parts) > MOST_CALLS or sum(map(len, call)) > _LONGEST:
            raise ValueError(f"more than {MOST_CALLS} tool calls, or one of more than {_LONGEST} characters")

    def calls(self) -> tuple[ToolCall, ...]:
        """In the order of their indices; one without an id gets one, without a name it is none."""
        named = [part for _, part in sorted(self._parts.items()) if part[1]]
        said = [[whole_text(part) for part in call] for call in named]
        return tuple(ToolCall(i or f"call_{n}", name, arguments or "{}") for n, (i, name, arguments) in enumerate(said, 1))


class ToolCallFilter:
    """Fed with text piece by piece; gives back what is plain text and keeps `calls`. Without `on`, everything is plain text."""

    def __init__(self, on: bool) -> None:
        self._on = on
        self._held = ""
        self.calls: list[ToolCall] = []

    def add(self, piece: str) -> str:
        """Text that is certainly no call."""
        if not self._on:
            return piece
        self._held += piece
        out = ""
        while self._held:
            start = self._held.find(_OPEN)
            if start < 0:
                keep = next((n for n in range(len(_OPEN) - 1, 0, -1) if self._held.endswith(_OPEN[:n])), 0)
                cut = len(self._held) - keep
                return out + self._take(cut)
            end = self._held.find(_CLOSE, start)
            if end < 0:
                return out + self._take(start if len(self._held) - start <= _LONGEST else len(self._held))
            out += self._take(start) + self._call(end - start + len(_CLOSE))
        return out

    def flush(self) -> str:
        """The end has come: a call without its end is still a call where it parses, else text."""
        held, self._held = self._held, ""
        return self._parsed(held, held.removeprefix(_OPEN)) if held.startswith(_OPEN) else held

    def _take(self, count: int) -> str:
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def _call(self, count: int) -> str:
        whole = self._take(count)
        return self._parsed(whole, whole[len(_OPEN) : -len(_CLOSE)])

    def _parsed(self, whole: str, inside: str) -> str:
        """ "" for what is a call, which is kept; else `whole`, as text."""
        value = object_of(inside) or {}
        name, arguments = value.get("name"), value.get("arguments", value.get("parameters", {}))
        if not isinstance(name, str) or len(self.calls) >= MOST_CALLS:
            return whole
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        self.calls.append(ToolCall(f"call_{len(self.calls) + 1}", name, text))
        return ""
