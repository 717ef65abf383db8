from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ndml.errors import EmbeddingDimensionMismatch, EmbeddingNotFinite, FieldInvalid
from ndml.internal.v1 import llm_pb2 as pb
from ndml.v1 import chat_pb2 as chat
from services.llm.asks import ask_of, chat_info, end_of
from services.llm.ports import WAYS, Abilities, Ask, Finish, Message, Sampling, Tool, ToolCall

HELLO = chat.ChatMessage(role=chat.ROLE_USER, content="hello")


def request(**given: object) -> pb.GenerateRequest:
    return pb.GenerateRequest(messages=[HELLO], **given)  # type: ignore[arg-type]


def test_nothing_said_is_the_default() -> None:
    assert ask_of(request()) == Ask((Message("user", "hello"),))


def test_everything_said_arrives() -> None:
    said = Timestamp()
    said.FromDatetime(datetime(2026, 3, 1, 12, tzinfo=UTC))
    vector = np.array([0.5, -1.0], "<f4")
    entry = pb.MemoryEntry(number=2, text="t", speaker="Ana", said_at=said, embedding=vector.tobytes(), strength=0.25, superseded=True)
    call = chat.ToolCall(id="c", name="f", arguments_json="{}")
    asked = ask_of(
        pb.GenerateRequest(
            messages=[
                HELLO,
                chat.ChatMessage(role=chat.ROLE_ASSISTANT, tool_calls=[call]),
                chat.ChatMessage(role=chat.ROLE_TOOL, content="r", tool_call_id="c"),
            ],
            sampling=chat.SamplingOptions(max_new_tokens=7, temperature=0.7, top_p=0.9, stop=["x", ""], seed=3),
            memory=[entry],
            fusion=chat.FUSION_WAY_KNN,
            tools=[chat.Tool(name="f", description="d", parameters_json="{}")],
            tool_choice="f",
            model="m",
        )
    )
    assert asked.messages[1:] == (Message("assistant", "", (ToolCall("c", "f", "{}"),)), Message("tool", "r", (), "c"))
    assert asked.sampling == Sampling(7, 0.7, 0.9, ("x",), 3)
    assert (asked.fusion, asked.tools, asked.tool_choice, asked.model) == ("knn", (Tool("f", "d", "{}"),), "f", "m")
    [read] = asked.memory.entries
    assert (read.number, read.text, read.speaker, read.said_at) == (2, "t", "Ana", datetime(2026, 3, 1, 12, tzinfo=UTC))
    assert (read.strength, read.superseded) == (0.25, True)
    assert read.embedding is not None and read.embedding.tolist() == [0.5, -1.0]


@pytest.mark.parametrize(
    ("entry", "error", "field"),
    [
        ({"embedding": b"abc"}, EmbeddingDimensionMismatch, "memory[1].embedding"),
        ({"embedding": np.array([np.nan], "<f4").tobytes()}, EmbeddingNotFinite, "memory[1].embedding"),
        ({"strength": 1.5}, FieldInvalid, "memory[1].strength"),
        ({"said_at": Timestamp(seconds=1 << 60)}, FieldInvalid, "memory[1].said_at"),
        ({"number": 0}, FieldInvalid, "memory[1].number"),
        ({"number": 7}, FieldInvalid, "memory"),
        ({"embedding": np.ones(3, "<f4").tobytes()}, EmbeddingDimensionMismatch, "memory"),
    ],
)
def test_what_is_no_memory_is_refused_with_its_field(entry: dict[str, object], error: type[FieldInvalid], field: str) -> None:
    with pytest.raises(error) as caught:
        first = pb.MemoryEntry(number=7, text="fine", embedding=np.ones(2, "<f4").tobytes())
        ask_of(request(memory=[first, pb.MemoryEntry(**({"number": 1, "text": "t"} | entry))]))  # type: ignore[arg-type]
    assert caught.value.violations[0].field == field


def test_the_end_and_the_abilities_are_told() -> None:
    end = end_of(Finish("tool_calls", 5, 6, (ToolCall("c", "f", "{}"),), "state", (3, 1)), "m")
    assert (end.finish_reason, end.usage.prompt_tokens, end.usage.completion_tokens) == (chat.FINISH_REASON_TOOL_CALLS, 5, 6)
    assert (end.tool_calls[0].name, end.fusion, list(end.memory_read), end.model) == ("f", chat.FUSION_WAY_STATE, [3, 1], "m")
    told = chat_info("m", Abilities({way: "" if way == "prompt" else "why" for way in WAYS}, scores=True, context_tokens=9))
    assert [(s.fusion, s.available, s.reason) for s in told.fusion][:2] == [
        (chat.FUSION_WAY_PROMPT, True, ""),
        (chat.FUSION_WAY_PREFIX, False, "why"),
    ]
    assert (told.chat_model, told.scores, told.context_tokens) == ("m", True, 9)
    assert len({s.fusion for s in told.fusion}) == len(chat.FusionWay.values()) - 1
