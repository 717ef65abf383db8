from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import FieldInvalid
from services.llm.ports import Tool, ToolCall
from services.llm.tool_calls import MOST_CALLS, Joined, ToolCallFilter, check_tools

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Porto"}}\n</tool_call>'
READ = ToolCall("call_1", "weather", '{"city": "Porto"}')


def run(text: str, cuts: list[int], on: bool = True) -> tuple[str, list[ToolCall]]:
    made, out, at = ToolCallFilter(on), "", 0
    for cut in [*sorted(c % (len(text) + 1) for c in cuts), len(text)]:
        out, at = out + made.add(text[at:cut]), cut
    return out + made.flush(), made.calls


@settings(max_examples=100, deadline=None)
@given(before=st.sampled_from(["", "a < b", "<tool", "<tool_call"]), cuts=st.lists(st.integers(0, 500), max_size=12))
def test_however_it_is_cut_a_call_is_a_call_and_the_rest_is_text(before: str, cuts: list[int]) -> None:
    assert run(f"{before} {CALL} then {CALL}", cuts) == (f"{before}  then ", [READ, ToolCall("call_2", "weather", READ.arguments)])
    assert run(f"{before} {CALL}", cuts, on=False) == (f"{before} {CALL}", [])


DEEP = '{"a": ' * 600 + "{}" + "}" * 600
DEEPER = "[" * 30_000 + "]" * 30_000
BROKEN = [
    "<tool_call>{no json}</tool_call>",
    '<tool_call>["a"]</tool_call>',
    "<tool_call>cut of",
    "<tool_call",
    f"<tool_call>{DEEPER}</tool_call>",
    f'<tool_call>{{"name": "f", "arguments": {DEEP}}}</tool_call>',
    '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>',
    '<tool_call>{"name": "f", "arguments": {"a": "\\ud800"}}</tool_call>',
    '<tool_call>{"arguments": {}}</tool_call>',
]


@pytest.mark.parametrize("broken", BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_call_is_text(broken: str) -> None:
    assert run(f"see {broken}", []) == (f"see {broken}", [])


def test_a_call_without_its_end_and_calls_beyond_the_bound() -> None:
    assert run(CALL.removesuffix("</tool_call>"), []) == ("", [READ])
    text, calls = run(CALL * (MOST_CALLS + 1), [])
    assert (text, len(calls)) == (CALL, MOST_CALLS)
    long = "<tool_call>" + "x" * 70_000
    assert run(long, [66_000]) == (long, [])


def test_pieces_of_a_stream_are_joined_by_index() -> None:
    joined = Joined()
    for index, call_id, name, arguments in [
        (1, "b", "time", ""),
        (0, "a", "weather", '{"ci'),
        (1, "", "", "{}"),
        (0, "", "weather", 'ty": 1}'),
    ]:
        joined.add(index, call_id, name, arguments)
    assert joined.calls() == (ToolCall("a", "weather", '{"city": 1}'), ToolCall("b", "time", "{}"))
    with pytest.raises(ValueError, match="64 tool calls"):
        joined.add(0, "", "", "x" * (64 << 10))


def test_tools_are_checked_before_anything_runs() -> None:
    tools = [Tool("weather", "", json.dumps({"type": "object"})), Tool("time")]
    for choice in ("", "auto", "none", "required", "time"):
        check_tools(tools, choice)
    with pytest.raises(FieldInvalid, match="neither auto"):
        check_tools(tools, "other")
    with pytest.raises(FieldInvalid, match="neither auto"):
        check_tools([], "required")
    for parameters in ("nope", "[]", DEEP, DEEPER, '{"default": NaN}', '{"default": 1e999}', '{"title": "\\ud800"}'):
        with pytest.raises(FieldInvalid, match="tool x are no JSON object") as caught:
            check_tools([Tool("weather"), Tool("x", "", parameters)], "")
        assert caught.value.violations[0].field == "tools[1].parameters_json"
