"""The chat path: what the model gets to read, what the answer says it read, and what happens where memory does not answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ndml.errors import (
    FieldInvalid,
    FusionUnsupported,
    InternalFault,
    ModelNotConfigured,
    ModelUnavailable,
    NdmlError,
    Overloaded,
    OwnerUnavailable,
    StaleEpoch,
)
from ndml.internal.v1 import llm_pb2
from ndml.runtime import metrics
from ndml.runtime.call import Call
from ndml.v1 import chat_pb2, types_pb2
from services.gateway.answers import read_answer_id
from services.gateway.chat import question
from services.gateway.readout import Mentions, choose
from services.gateway.settings import ChatSettings
from tests.unit.gateway.talking import IDS, Memory, Model, Talk, asking, call, hit

OFF = chat_pb2.LEARNING_OFF


async def last(talk: Talk, *texts: str, **fields: Any) -> chat_pb2.ChatResponse:
    return (await talk.say(*texts, learning=OFF, **fields))[-1]


# What the model reads


async def test_the_model_reads_the_best_by_number_and_the_callers_messages_as_they_came() -> None:
    memory = Memory([hit(0, "Ann lives in Oslo", score=0.8, speaker="Ann"), hit(1, "the cat is Miso", score=0.4)])
    talk = Talk(memory)
    tool = chat_pb2.Tool(name="look", parameters_json="{}")
    wishes: dict[str, Any] = {"tools": [tool], "tool_choice": "look", "model": "x", "fusion": chat_pb2.FUSION_WAY_PROMPT}
    await last(talk, "Where?", recall_k=2, **wishes)
    [request] = talk.model.requests
    assert [(e.number, e.text, e.speaker, round(e.strength, 2), e.superseded) for e in request.memory] == [
        (1, "Ann lives in Oslo", "Ann", 1.0, False),
        (2, "the cat is Miso", "", 0.5, False),
    ]
    assert request.memory[0].said_at == memory.hits[0].trace.said_at
    assert [(m.role, m.content) for m in request.messages] == [(chat_pb2.ROLE_USER, "Where?")]
    assert (list(request.tools), request.tool_choice, request.model, request.fusion) == ([tool], "look", "x", chat_pb2.FUSION_WAY_PROMPT)


async def test_without_memory_the_request_is_exactly_the_callers() -> None:
    empty, unasked = Talk(), Talk(Memory([hit(0, "something")]))
    await last(empty, "Where?")
    await last(unasked, "Where?", recall_k=0)
    assert empty.model.requests == unasked.model.requests == [llm_pb2.GenerateRequest(messages=asking("Where?").messages, sampling={})]
    assert not unasked.memory.searches


async def test_recall_is_for_the_users_last_words_over_all_sessions_with_vectors_where_the_way_may_look_at_them() -> None:
    talk = Talk()
    for fusion in (chat_pb2.FUSION_WAY_UNSPECIFIED, chat_pb2.FUSION_WAY_ADAPTER, chat_pb2.FUSION_WAY_PROMPT):
        await last(talk, "My name is Ann.", "Noted.", "Who am I?", fusion=fusion)
    found = [operation.search for operation in talk.memory.searches]
    assert [search.include_embedding for search in found] == [True, True, False]
    assert {(search.session, search.k) for search in found} == {("", ChatSettings().candidates)}


def test_the_question_is_what_the_person_said_last() -> None:
    tool = chat_pb2.ChatMessage(role=chat_pb2.ROLE_TOOL, content="42", tool_call_id="1")
    asked = chat_pb2.ChatMessage(role=chat_pb2.ROLE_ASSISTANT, tool_calls=[chat_pb2.ToolCall(name="look")])
    assert question([*asking("one", "two", "three").messages, asked, tool]) == "three"
    assert question([asked, tool]) == "42"
    assert question([asked]) == ""


def test_the_budget_is_of_bytes_and_lets_shorter_ones_in() -> None:
    hits = [hit(0, "é" * 3), hit(1, "x" * 20), hit(2, "yy")]
    assert [c.hit.trace.trace_id for c in choose(hits, 3, 8, past=False)] == [IDS[0], IDS[2]]
    assert choose(hits, 3, 1, past=False) == []


# What is out of date


OSLO, PORTO = "I live in Oslo.", "I moved to Porto."


def test_the_old_value_is_left_out_and_the_next_best_takes_its_place() -> None:
    hits = [hit(0, OSLO), hit(1, "My cat is called Miso."), hit(2, PORTO, day=3)]
    assert [c.hit.trace.text for c in choose(hits, 2, 999, past=False)] == [PORTO, hits[1].trace.text]
    now_and_then = choose(hits, 2, 999, past=True)
    assert [(c.hit.trace.text, c.superseded) for c in now_and_then] == [(PORTO, False), (OSLO, True)]


def test_of_the_same_words_the_last_said_count_so_that_moving_back_is_understood() -> None:
    hits = [hit(0, OSLO), hit(1, PORTO, day=3), hit(2, "i live in  Oslo.", day=6)]
    assert [c.hit.trace.trace_id for c in choose(hits, 5, 999, past=False)] == [IDS[2]]


# What the answer says


async def test_citations_are_what_was_read_and_the_answer_id_stands_for_what_was_mentioned() -> None:
    memory = Memory([hit(i, text) for i, text in enumerate(("aa", "bb", "cc"))])
    whole = await last(Talk(memory, Model("see [", "2", "] and [7]", read=[1, 2])), "?")
    assert [(c.number, c.text, c.mentioned) for c in whole.citations] == [(1, "aa", False), (2, "bb", True)]
    assert read_answer_id(whole.answer_id, "f") == [IDS[1]]
    silent = await last(Talk(memory, Model("so", read=[1, 3])), "?")
    assert read_answer_id(silent.answer_id, "f") == [IDS[0], IDS[2]] and not any(c.mentioned for c in silent.citations)
    nothing = await last(Talk(memory, Model(read=[])), "?")
    assert (nothing.answer_id, list(nothing.citations)) == ("", [])
    assert (whole.model, whole.fusion, whole.usage.prompt_tokens) == ("m", chat_pb2.FUSION_WAY_PROMPT, 9)


def test_numbers_are_found_however_the_answer_is_cut() -> None:
    text = "a [1] b [2, 13] c [x] d [1234] e [3,  4]"
    for size in (1, 2, 3, len(text)):
        mentions = Mentions()
        for at in range(0, len(text), size):
            mentions.feed(text[at : at + size])
        assert mentions.numbers == {1, 2, 13, 3, 4}


async def test_tool_calls_come_with_the_last_message() -> None:
    wish = chat_pb2.ToolCall(id="1", name="look", arguments_json="{}")
    end = llm_pb2.GenerateResponse(finish_reason=chat_pb2.FINISH_REASON_TOOL_CALLS, tool_calls=[wish])
    answer = await last(Talk(model=Model(end)), "?")
    assert (answer.finish_reason, list(answer.tool_calls)) == (chat_pb2.FINISH_REASON_TOOL_CALLS, [wish])


# Where something fails


@pytest.mark.parametrize("error", [OwnerUnavailable("gone"), Overloaded("busy"), StaleEpoch("old"), InternalFault("bug")])
async def test_where_memory_does_not_answer_the_model_does_and_says_so(error: NdmlError) -> None:
    memory = Memory([hit(0, "aa")])
    memory.read_failures = [error]
    before = metrics.CHAT_RECALLS.labels("failed")._value.get()
    talk = Talk(memory)
    answer = await last(talk, "Where?")
    assert (answer.recall_stats.partial, answer.recall_stats.shards_answered) == (True, 0)
    assert not talk.model.requests[0].memory and answer.finish_reason == chat_pb2.FINISH_REASON_STOP
    assert metrics.CHAT_RECALLS.labels("failed")._value.get() == before + 1


async def test_a_memory_that_never_answers_does_not_hold_the_chat_up_for_ever() -> None:
    class Silent(Memory):
        async def execute(self, *_: Any, **__: Any) -> Any:
            await asyncio.Event().wait()

    answer = await last(Talk(Silent(), chat=ChatSettings(recall_timeout_s=0.05)), "Where?")
    assert answer.recall_stats.partial


@pytest.mark.parametrize("fields", [{"scope": types_pb2.Scope()}, {"consistency_token": "broken"}, {"scope": {"user": "a", "tenant": "b"}}])
async def test_what_is_wrong_with_the_request_fails_it(fields: dict[str, Any]) -> None:
    talk = Talk()
    with pytest.raises(NdmlError) as refused:
        await last(talk, "Where?", **fields)
    assert refused.value.code.name in ("INVALID_ARGUMENT", "PERMISSION_DENIED") and not talk.model.requests


@pytest.mark.parametrize(
    "error", [ModelNotConfigured("set"), FusionUnsupported("no"), FieldInvalid("long", field="messages"), Overloaded("b")]
)
async def test_what_the_model_refuses_reaches_the_caller(error: NdmlError) -> None:
    with pytest.raises(type(error)):
        await last(Talk(model=Model(error)), "Where?")


async def test_a_stream_that_breaks_off_is_no_answer() -> None:
    class Broken(Model):
        async def generate(self, request: llm_pb2.GenerateRequest, call: Call) -> Any:
            yield llm_pb2.GenerateResponse(delta="Lis")

    with pytest.raises(ModelUnavailable, match="broke off"):
        await last(Talk(model=Broken()), "Where?")


async def test_who_leaves_stops_the_model() -> None:
    model = Model("one", "two")
    parts = Talk(model=model).begin("Where?", learning=OFF)
    assert (await anext(parts)).delta == "one"
    await parts.aclose()
    assert model.closed == 1


async def test_a_deadline_that_passed_during_recall_is_the_callers() -> None:
    memory = Memory()
    memory.read_failures = [OwnerUnavailable("gone")]
    with pytest.raises(OwnerUnavailable):
        await last(Talk(memory), "Where?", known=call(deadline=0.0))
