"""OpenAI's own Python client against a running suite, with nothing changed but its base URL."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from ndml.client import NdmlClient
from ndml.testing import Suite
from tests.doors.model import NAME, OVERLOADED

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks it up.",
        "parameters": {"type": "object", "properties": {"about": {"type": "string"}}},
    },
}


@pytest.fixture
def client(doors: Suite) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{doors.rest_url}/v1", api_key="any", max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture
async def aclient(doors: Suite) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{doors.rest_url}/v1", api_key="any", max_retries=0, timeout=60) as made:
        yield made


def new_user() -> str:
    return f"user-{uuid.uuid4().hex[:8]}"


def asks(text: str) -> Any:
    return [{"role": "user", "content": text}]


def remember(doors: Suite, user: str, *texts: str) -> list[str]:
    """Ids of memories that are written now."""
    with NdmlClient(doors.grpc_address, user=user) as memory:
        return [memory.add(text, speaker="Ann").trace_id for text in texts]


def test_a_chat_reads_memory_and_cites_it(doors: Suite, client: OpenAI) -> None:
    user = new_user()
    [trace_id] = remember(doors, user, "Ann is allergic to walnuts.")
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=asks("What must Ann not eat?"), user=user)
    choice = answer.choices[0]
    assert "Ann is allergic to walnuts." in (choice.message.content or "")
    assert (answer.object, answer.model, choice.finish_reason, choice.message.role) == ("chat.completion", NAME, "stop", "assistant")
    assert answer.usage is not None and answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    memory: Any = (answer.model_extra or {})["ndml"]
    assert (memory["memory"], memory["fusion"]) == (True, "prompt")
    assert [(cited["trace_id"], cited["mentioned"]) for cited in memory["citations"]] == [(trace_id, True)]
    with NdmlClient(doors.grpc_address, user=user) as graded:
        assert [row.trace_id for row in graded.reinforce(memory["answer_id"], 1.0).results] == [trace_id]


async def test_a_stream_says_the_same_as_the_whole_answer(doors: Suite, aclient: AsyncOpenAI) -> None:
    user = new_user()
    remember(doors, user, "Ann lives in Lisbon.")
    wishes: Any = {"model": NAME, "messages": asks("Where does Ann live?"), "user": user, "metadata": {"learning": "off"}}
    whole = await aclient.chat.completions.create(**wishes)
    stream = await aclient.chat.completions.create(**wishes, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    said = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in said) == whole.choices[0].message.content
    assert [choice.finish_reason for choice in said if choice.finish_reason] == ["stop"]
    assert len(said) > 4 and said[0].delta.role == "assistant"
    assert chunks[-1].usage == whole.usage
    cited = [(chunk.model_extra or {})["ndml"]["citations"] for chunk in chunks if "ndml" in (chunk.model_extra or {})]
    assert [row["text"] for row in cited[0]] == ["Ann lives in Lisbon."]


def test_what_is_said_in_one_chat_is_known_in_the_next(client: OpenAI) -> None:
    user = new_user()
    wait: Any = {"learning": "wait"}
    told = client.chat.completions.create(model=NAME, messages=asks("I moved to Porto in May."), user=user, metadata=wait)
    learned: Any = (told.model_extra or {})["ndml"]
    assert learned["learned_trace_ids"]
    token: Any = {"consistency_token": learned["consistency_token"]}
    asked = client.chat.completions.create(model=NAME, messages=asks("Where do I live?"), user=user, metadata=token)
    assert "Porto" in (asked.choices[0].message.content or "")
    other = client.chat.completions.create(model=NAME, messages=asks("Where do I live?"), user=new_user())
    assert "Porto" not in (other.choices[0].message.content or "")


def test_without_a_user_there_is_no_memory_and_the_header_says_so(doors: Suite, client: OpenAI) -> None:
    for text in ("My name is Zora and I live in Ghent.", "Where do I live?"):
        raw = client.chat.completions.with_raw_response.create(model=NAME, messages=asks(text))
        assert raw.headers["ndml-memory"].startswith("off; no user given")
        assert (raw.parse().choices[0].message.content or "").startswith("I remember nothing.")
    named = client.chat.completions.with_raw_response.create(model=NAME, messages=asks(text), user=new_user())
    assert named.headers["ndml-memory"] == "on"


def test_tools_go_there_and_back(client: OpenAI) -> None:
    user = new_user()
    question: Any = asks("What does the wiki say of Delft?")
    first = client.chat.completions.create(model=NAME, messages=question, tools=[TOOL], user=user)
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.tool_calls
    [call] = choice.message.tool_calls
    assert call.type == "function" and call.function.name == "look_up"
    assert json.loads(call.function.arguments) == {"about": "What does the wiki say of Delft?"}
    turns = [*question, choice.message, {"role": "tool", "tool_call_id": call.id, "content": "blue tiles"}]
    second = client.chat.completions.create(model=NAME, messages=turns, tools=[TOOL], user=user)
    assert second.choices[0].message.content == "The tool says: blue tiles"
    none = client.chat.completions.create(model=NAME, messages=question, tools=[TOOL], tool_choice="none", user=user)
    assert none.choices[0].finish_reason == "stop"


def test_streamed_tool_calls_come_together_in_the_clients_own_helper(client: OpenAI) -> None:
    with client.chat.completions.stream(model=NAME, messages=asks("Look up Delft."), tools=[TOOL], user=new_user()) as stream:
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls and json.loads(calls[0].function.arguments) == {"about": "Look up Delft."}


def test_options_are_kept(client: OpenAI) -> None:
    short = client.chat.completions.create(model=NAME, messages=asks("one two three four"), max_completion_tokens=2, user=new_user())
    assert short.choices[0].finish_reason == "length" and short.usage is not None and short.usage.completion_tokens == 2
    parts: Any = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    joined = client.chat.completions.create(model=NAME, messages=parts, temperature=0, top_p=1, seed=3, stop=["\n\n"], user=new_user())
    assert (joined.choices[0].message.content or "").endswith("You said: hello")


def test_models_and_embeddings(doors: Suite, client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert set(listed) == {NAME, "all-MiniLM-L6-v2", "gpt-4o-mini"}
    alias: Any = (client.models.retrieve("gpt-4o-mini").model_extra or {})["ndml"]
    assert (alias["purpose"], alias["stands_for"]) == ("chat", NAME)
    with pytest.raises(openai.NotFoundError, match="NDML_GATEWAY__REST__MODEL_ALIASES"):
        client.chat.completions.create(model="gpt-4.1", messages=asks("Hello?"))
    assert client.models.retrieve("all-MiniLM-L6-v2") == listed["all-MiniLM-L6-v2"]
    packed = client.embeddings.create(model="all-MiniLM-L6-v2", input=["Ann lives in Lisbon.", "rain"])
    plain = client.embeddings.create(model="all-MiniLM-L6-v2", input="Ann lives in Lisbon.", encoding_format="float", dimensions=384)
    assert [row.index for row in packed.data] == [0, 1]
    vector = packed.data[0].embedding
    assert vector == pytest.approx(plain.data[0].embedding, abs=1e-6)
    user = new_user()
    with NdmlClient(doors.grpc_address, user=user) as memory:
        stored = memory.get(memory.add("Ann lives in Lisbon.").trace_id, include_embedding=True).embedding
    assert stored is not None and vector == pytest.approx(stored.floats().tolist(), abs=1e-4)


@pytest.mark.parametrize(
    ("wishes", "error", "code", "param"),
    [
        ({"n": 2}, openai.BadRequestError, "field_invalid", "n"),
        ({"logprobs": True}, openai.BadRequestError, "field_invalid", "logprobs"),
        ({"response_format": {"type": "json_object"}}, openai.BadRequestError, "field_invalid", "response_format"),
        ({"max_tokens": 5000}, openai.BadRequestError, "field_invalid", "max_completion_tokens"),
        ({"model": "gpt-9"}, openai.NotFoundError, "model_not_found", "model"),
        ({"messages": asks(OVERLOADED)}, openai.InternalServerError, "model_unavailable", None),
        ({"extra_headers": {"ndml-tenant": "elsewhere"}}, openai.PermissionDeniedError, "tenant_denied", None),
        ({"metadata": {"fusion": "state"}}, openai.BadRequestError, "fusion_unsupported", "metadata.fusion"),
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.parametrize("stream", [False, True])
def test_the_client_raises_what_its_users_catch(
    client: OpenAI, stream: bool, wishes: dict[str, Any], error: type[openai.APIStatusError], code: str, param: str | None
) -> None:
    call: Any = {"model": NAME, "messages": asks("hi"), "user": new_user(), "stream": stream, **wishes}
    with pytest.raises(error) as caught:
        client.chat.completions.create(**call)
    assert (caught.value.code, caught.value.param) == (code, param), caught.value.message
    assert error is not openai.InternalServerError or caught.value.response.headers["retry-after-ms"]


def test_embeddings_and_models_raise_what_their_users_catch(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="token ids") as tokens:
        client.embeddings.create(model="all-MiniLM-L6-v2", input=[[1, 2], [3]])
    assert tokens.value.param == "input"
    with pytest.raises(openai.BadRequestError, match="384 dimensions"):
        client.embeddings.create(model="all-MiniLM-L6-v2", input="a", dimensions=64)
    with pytest.raises(openai.NotFoundError) as model:
        client.embeddings.create(model="text-embedding-3-small", input="a")
    assert model.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match="all-MiniLM-L6-v2"):
        client.models.retrieve("gpt-9")


def test_another_tenants_memory_is_another_memory(doors: Suite, client: OpenAI) -> None:
    user = new_user()
    remember(doors, user, "Ann keeps bees.")
    acme: Any = {"tenant": "acme"}
    answer = client.chat.completions.create(model=NAME, messages=asks("What does Ann keep?"), user=user, metadata=acme)
    assert "bees" not in (answer.choices[0].message.content or "")


async def test_a_client_that_goes_away_ends_the_stream_and_the_next_call_works(doors: Suite, aclient: AsyncOpenAI) -> None:
    user = new_user()
    for _ in range(3):
        stream = await aclient.chat.completions.create(model=NAME, messages=asks("word " * 2000), user=user, stream=True)
        async for _chunk in stream:
            break
        await stream.close()
    answer = await aclient.chat.completions.create(model=NAME, messages=asks("still there?"), user=user)
    assert answer.choices[0].finish_reason == "stop"
