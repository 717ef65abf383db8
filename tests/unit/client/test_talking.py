"""Chat, models and embeddings through both clients, against a real gRPC server."""

from __future__ import annotations

from typing import Any

import pytest

from ndml.client import ChatMessage, Embedding, ModelInfo, Tool, ToolCall
from ndml.errors import FieldInvalid, ModelNotConfigured, ModelUnknown
from ndml.v1 import chat_pb2


async def test_chat_streams_then_cites(memory: Any, server: Any) -> None:
    await memory.add("fact one")
    with pytest.raises(ModelNotConfigured, match="set NDML_LLM"):
        _ = [part async for part in memory.chat("what did I say?")]
    server.world.model = "tiny"
    answer = memory.chat("what did I say?", recall_k=3)
    assert [part async for part in answer] == ["You ", "said ", "so."] and answer.text == "You said so."
    assert [(c.number, c.text) for c in answer.citations] == [(1, "fact one")]
    assert (answer.finish_reason, answer.model, answer.prompt_tokens, answer.completion_tokens) == ("stop", "tiny", 9, 3)
    await answer.aclose()


async def test_what_a_chat_may_wish_is_sent_and_what_it_says_is_read(memory: Any, server: Any) -> None:
    server.world.model = "tiny"
    await memory.add("fact one")
    turns = [
        ChatMessage("what?"),
        ChatMessage("", "assistant", [ToolCall("1", "look", "{}")]),
        ChatMessage("42", "tool", tool_call_id="1"),
    ]
    look = Tool("look", "looks", '{"type": "object"}')
    wishes = {"fusion": "state", "learning": "wait", "tools": [look], "tool_choice": "look", "model": "tiny", "request_id": "r"}
    answer = memory.chat(turns, **wishes)
    _ = [part async for part in answer]
    sent = server.world.calls("Chat")[-1]
    assert (sent.fusion, sent.learning, sent.tool_choice, sent.model, sent.request_id) == (
        chat_pb2.FUSION_WAY_STATE, chat_pb2.LEARNING_WAIT, "look", "tiny", "r",
    )  # fmt: skip
    assert [(t.name, t.description, t.parameters_json) for t in sent.tools] == [("look", "looks", '{"type": "object"}')]
    assert [(m.role, m.content, m.tool_call_id, [c.id for c in m.tool_calls]) for m in sent.messages] == [
        (chat_pb2.ROLE_USER, "what?", "", []), (chat_pb2.ROLE_ASSISTANT, "", "", ["1"]), (chat_pb2.ROLE_TOOL, "42", "1", []),
    ]  # fmt: skip
    assert (answer.fusion, answer.learned_trace_ids, answer.tool_calls) == ("state", ("f" * 32,), (ToolCall("call-look", "look", "{}"),))
    assert answer.citations[0].mentioned
    _ = [part async for part in memory.chat("again?")]
    second = server.world.calls("Chat")[-1]
    assert second.consistency_token == "after-r" and second.request_id not in ("", "r")
    for wrong in ({"fusion": "telepathy"}, {"learning": "maybe"}):
        with pytest.raises(FieldInvalid, match=next(iter(wrong))):
            memory.chat("x", **wrong)


async def test_models_are_listed_and_texts_embedded(memory: Any, server: Any) -> None:
    assert [(m.id, m.purpose) for m in await memory.models()] == [("words", "embedding")]
    server.world.model = "tiny"
    assert await memory.models() == [ModelInfo("tiny", "chat", 0, 99), ModelInfo("words", "embedding", 4, 0)]
    assert await memory.embed(["ab", "cd"]) == [Embedding(b"ab".ljust(16), "words"), Embedding(b"cd".ljust(16), "words")]
    assert await memory.embed("ab", model="words") == [Embedding(b"ab".ljust(16), "words")]
    with pytest.raises(ModelUnknown):
        await memory.embed("ab", model="other")
    with pytest.raises(FieldInvalid, match=r"texts\[1\]"):
        await memory.embed(["a", 1])
