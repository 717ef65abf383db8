"""OpenAI's routes over ASGI with a scripted dispatcher: what arrives at the services, and what goes back."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml import errors
from ndml.v1 import chat_pb2, types_pb2
from services.gateway.rest.openai import MEMORY_HEADER, OPERATIONS
from services.gateway.rest.problems import HTTP_STATUS
from tests.unit.gateway.rest.openai_script import ANSWER, Script, client_of

CHAT = "/ndml.v1.ChatService/Chat"
EMBED = "/ndml.v1.ModelService/EmbedTexts"
MODELS = "/ndml.v1.ModelService/ListModels"
ASK = [{"role": "user", "content": "What must I not eat?"}]
CALLS = [chat_pb2.ToolCall(id="c1", name="look", arguments_json='{"at":1}'), chat_pb2.ToolCall(id="c2", name="look", arguments_json="{}")]
TOOL_ANSWER = [chat_pb2.ChatResponse(finish_reason="FINISH_REASON_TOOL_CALLS", model="tiny", tool_calls=CALLS)]
MEMORY = {
    "memory": True,
    "fusion": "prompt",
    "answer_id": "a1",
    "citations": [{"number": 1, "trace_id": "t1", "score": 0.5, "text": "nuts", "mentioned": True}],
    "recall_partial": False,
    "learned_trace_ids": ["t2"],
    "consistency_token": "c1",
}


async def completed(script: Script, body: dict[str, Any], headers: dict[str, str] | None = None, **knobs: Any) -> httpx.Response:
    async with client_of(script, **knobs) as client:
        # Escaped as JSON allows: half a surrogate pair gets through to our parser.
        sent = {"content-type": "application/json", **(headers or {})}
        return await client.post("/v1/chat/completions", content=json.dumps(body), headers=sent)


def events(response: httpx.Response) -> list[Any]:
    """The events of a stream; the last is [DONE]."""
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    blocks = response.text.split("\n\n")
    assert blocks.pop() == ""
    return [block if block == "data: [DONE]" else json.loads(block.removeprefix("data: ")) for block in blocks]


# What arrives


async def test_every_field_arrives_as_what_it_means() -> None:
    script = Script()
    schema = {"type": "object", "properties": {"at": {"type": "integer"}}}
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    body = {
        "model": "org/tiny",
        "messages": [
            {"role": "system", "content": ""},
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "name": "ann"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "", "tool_call_id": "c1"},
        ],
        "user": "ann",
        "metadata": {
            "agent": "a", "session": "s", "recall_k": "3", "fusion": "knn", "learning": "wait", "consistency_token": "c0",
            "request_id": "r", "team": "blue",
        },
        "max_completion_tokens": 9, "temperature": 0.5, "top_p": 0, "stop": ["x", "y"], "seed": -4,
        "tools": [{"type": "function", "function": {"name": "look", "description": "d", "parameters": schema, "strict": True}}],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "n": 1, "logprobs": False, "logit_bias": {}, "presence_penalty": 0.0, "response_format": {"type": "text"}, "stream": False,
        "store": True, "service_tier": "auto", "top_logprobs": None, "stream_options": None,
    }  # fmt: skip
    response = await completed(script, body)
    assert response.status_code == 200, response.text
    [(method, request, metadata)] = script.calls
    assert method == CHAT and "ndml-tenant" not in metadata
    assert request == chat_pb2.ChatRequest(
        scope=types_pb2.Scope(user="ann", agent="a", session="s"),
        messages=[
            chat_pb2.ChatMessage(role="ROLE_SYSTEM", content=" "),
            chat_pb2.ChatMessage(role="ROLE_SYSTEM", content="be brief"),
            chat_pb2.ChatMessage(role="ROLE_USER", content="one\ntwo"),
            chat_pb2.ChatMessage(role="ROLE_ASSISTANT", tool_calls=[chat_pb2.ToolCall(id="c1", name="look", arguments_json="{}")]),
            chat_pb2.ChatMessage(role="ROLE_TOOL", content=" ", tool_call_id="c1"),
        ],
        sampling=chat_pb2.SamplingOptions(max_new_tokens=9, temperature=0.5, top_p=1e-6, stop=["x", "y"], seed=-4),
        recall_k=3,
        fusion="FUSION_WAY_KNN",
        learning="LEARNING_WAIT",
        tools=[chat_pb2.Tool(name="look", description="d", parameters_json=json.dumps(schema, separators=(",", ":")))],
        tool_choice="look",
        model="org/tiny",
        consistency_token="c0",
        request_id="r",
    )


async def test_what_is_left_out_is_left_to_the_services() -> None:
    script = Script()
    await completed(script, {"messages": ASK, "user": "ann", "stop": "x", "max_tokens": 5, "model": "default"})
    message = chat_pb2.ChatMessage(role="ROLE_USER", content="What must I not eat?")
    assert script.calls[0][1] == chat_pb2.ChatRequest(
        scope=types_pb2.Scope(user="ann"),
        messages=[message],
        sampling=chat_pb2.SamplingOptions(max_new_tokens=5, stop=["x"]),
        tool_choice="auto",
    )


@pytest.mark.parametrize(
    ("aliases", "named", "meant"),
    [
        ({}, "gpt-4o", "gpt-4o"),
        ({"*": ""}, "gpt-4o", ""),
        ({"gpt-4o": "org/tiny", "*": ""}, "gpt-4o", "org/tiny"),
        ({}, "", ""),
    ],
)
async def test_a_model_may_have_other_names(aliases: dict[str, str], named: str, meant: str) -> None:
    script = Script()
    async with client_of(script, model_aliases=aliases) as client:
        await client.post("/v1/chat/completions", json={"messages": ASK, "model": named})
        await client.post("/v1/embeddings", json={"input": "a", "model": named})
    assert [request.model for _, request, _ in script.calls] == [meant, meant]


# Whose memory


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"user": "ann"}, {}),
        ({"safety_identifier": "ann"}, {}),
        ({}, {"X-NDML-User": "ann"}),
        ({"user": "ann", "safety_identifier": "ann"}, {"ndml-user": "ann"}),
    ],
    ids=str,
)
async def test_a_user_is_named_in_one_of_four_places(body: dict[str, Any], headers: dict[str, str]) -> None:
    script = Script()
    response = await completed(script, {"messages": ASK, **body}, headers)
    request = script.calls[0][1]
    assert request.scope.user == "ann" and not request.HasField("recall_k")
    assert (response.headers[MEMORY_HEADER], response.json()["ndml"]["memory"]) == ("on", True)


@pytest.mark.parametrize("stream", [False, True])
async def test_without_a_user_nothing_is_recalled_or_learned_and_the_answer_says_so(stream: bool) -> None:
    script = Script()
    wishes = {"recall_k": "9", "learning": "wait", "consistency_token": "c"}
    response = await completed(script, {"messages": ASK, "metadata": wishes, "stream": stream})
    request = script.calls[0][1]
    assert request.HasField("recall_k") and (request.recall_k, request.learning) == (0, chat_pb2.LEARNING_OFF)
    assert (request.scope.user, request.consistency_token) == ("", "")
    assert response.headers[MEMORY_HEADER].startswith("off; no user given")


async def test_a_header_means_the_user_that_a_body_means() -> None:
    script = Script()
    async with client_of(script) as client:
        body = {"messages": ASK, "user": "Žofie"}
        same = await client.post("/v1/chat/completions", json=body, headers=[(b"ndml-user", "Žofie".encode())])
        broken = await client.post("/v1/chat/completions", json={"messages": ASK}, headers=[(b"ndml-user", b"\xff")])
    assert same.status_code == 200 and script.calls[0][1].scope.user == "Žofie"
    assert (broken.status_code, broken.json()["error"]["param"]) == (400, "ndml-user")


async def test_two_users_in_one_request_are_refused_and_the_tenant_reaches_authentication() -> None:
    script = Script()
    both = await completed(script, {"messages": ASK, "user": "ann"}, {"ndml-user": "bob"})
    assert (both.status_code, both.json()["error"]["param"]) == (400, "user") and not script.calls
    tenants = await completed(script, {"messages": ASK, "metadata": {"tenant": "acme"}}, {"ndml-tenant": "other"})
    assert (tenants.status_code, tenants.json()["error"]["param"]) == (400, "metadata.tenant") and not script.calls
    await completed(script, {"messages": ASK, "metadata": {"tenant": "acme"}}, {"authorization": "Bearer t", "idempotency-key": "k"})
    _, request, metadata = script.calls[0]
    assert (metadata["ndml-tenant"], metadata["authorization"], request.request_id) == ("acme", "Bearer t", "k")
    assert not request.scope.tenant


# What goes back


async def test_a_whole_answer() -> None:
    response = await completed(Script(), {"messages": ASK, "user": "ann", "model": "tiny"})
    answer = response.json()
    assert answer.pop("id").startswith("chatcmpl-") and answer.pop("created") > 1_700_000_000
    message = {"role": "assistant", "content": "No nuts [1].", "refusal": None}
    assert answer == {
        "object": "chat.completion",
        "model": "tiny",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42},
        "ndml": MEMORY,
    }


@pytest.mark.parametrize("include_usage", [False, True])
async def test_a_streamed_answer(include_usage: bool) -> None:
    body = {"messages": ASK, "user": "ann", "model": "wished", "stream": True, "stream_options": {"include_usage": include_usage}}
    *chunks, done = events(await completed(Script(), body, thread_above_bytes=4))
    assert done == "data: [DONE]"
    assert len({chunk["id"] for chunk in chunks}) == 1
    if include_usage:
        usage = chunks.pop()
        assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 42)
        assert all(chunk["usage"] is None for chunk in chunks)
    else:
        assert not [chunk for chunk in chunks if "usage" in chunk]
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "No "},
        {"content": "nuts [1]."},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    assert [chunk.get("ndml") for chunk in chunks] == [None, None, None, MEMORY]
    assert [chunk["model"] for chunk in chunks] == ["wished", "wished", "wished", "tiny"]


@pytest.mark.parametrize("parallel", [True, False])
async def test_tool_calls(parallel: bool) -> None:
    body = {"messages": ASK, "parallel_tool_calls": parallel}
    whole = (await completed(Script(TOOL_ANSWER), body)).json()["choices"][0]
    wanted = [
        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}},
        {"id": "c2", "type": "function", "function": {"name": "look", "arguments": "{}"}},
    ][: 2 if parallel else 1]
    assert whole["message"] == {"role": "assistant", "content": None, "refusal": None, "tool_calls": wanted}
    assert whole["finish_reason"] == "tool_calls"
    _, calls, last, done = events(await completed(Script(TOOL_ANSWER), {**body, "stream": True}))
    assert calls["choices"][0]["delta"] == {"tool_calls": [{"index": i, **call} for i, call in enumerate(wanted)]}
    assert last["choices"][0]["finish_reason"] == "tool_calls" and done == "data: [DONE]"


@pytest.mark.parametrize(("reason", "word"), [("STOP", "stop"), ("LENGTH", "length")])
async def test_why_it_ended(reason: str, word: str) -> None:
    parts = [chat_pb2.ChatResponse(delta="x"), chat_pb2.ChatResponse(finish_reason=f"FINISH_REASON_{reason}")]
    answer = (await completed(Script(parts), {"messages": ASK})).json()
    assert (answer["choices"][0]["finish_reason"], answer["ndml"]["fusion"]) == (word, "")


async def test_an_answer_that_breaks_off_is_an_error_however_it_is_asked_for() -> None:
    cut = ANSWER[:2]
    whole = await completed(Script(cut), {"messages": ASK})
    assert (whole.status_code, whole.json()["error"]["reason"]) == (503, "MODEL_UNAVAILABLE")
    streamed = events(await completed(Script(cut), {"messages": ASK, "stream": True}))
    assert streamed[-1]["error"]["reason"] == "MODEL_UNAVAILABLE"
    failing = events(await completed(Script([cut[0], errors.ModelUnavailable("gone")]), {"messages": ASK, "stream": True}))
    assert failing[-1]["error"] == {
        "message": "gone", "type": "server_error", "param": None, "code": "model_unavailable", "reason": "MODEL_UNAVAILABLE",
    }  # fmt: skip
    early = await completed(Script([errors.ModelNotConfigured("set chat.model")]), {"messages": ASK, "stream": True})
    assert (early.status_code, early.json()["error"]["code"]) == (400, "model_not_configured")
    endless = [chat_pb2.ChatResponse(delta="é" * 300)] * 2
    too_long = await completed(Script(endless), {"messages": ASK}, chat_max_bytes=1024)
    assert (too_long.status_code, too_long.json()["error"]["reason"]) == (503, "MODEL_UNAVAILABLE")


# What is refused


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"n": 2}, "n"),
    ({"logprobs": True}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"presence_penalty": 0.5}, "presence_penalty"),
    ({"frequency_penalty": -1}, "frequency_penalty"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, "response_format"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"audio": {"voice": "ash"}}, "audio"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"function_call": {"name": "f"}}, "function_call"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"temperature": 3}, "temperature"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": "9"}, "max_completion_tokens"),
    ({"stop": [1]}, "stop[0]"),
    ({"seed": 1 << 63}, "seed"),
    ({"stream": "yes"}, "stream"),
    ({"user": 7}, "user"),
    ({"metadata": {"recall_k": "many"}}, "metadata.recall_k"),
    ({"metadata": {"fusion": "telepathy"}}, "metadata.fusion"),
    ({"metadata": {"session": 5}}, "metadata.session"),
    ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": "\ud800"}}}]}, "tools[0].function.parameters.a"),
    ({"tool_choice": "maybe"}, "tool_choice"),
    ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": 5}}}, "tool_choice"),
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": [{"role": "god", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
]


@pytest.mark.parametrize(("change", "param"), REFUSED, ids=lambda value: str(value)[:40])
async def test_what_cannot_be_honoured_is_refused_by_name(change: dict[str, Any], param: str) -> None:
    script = Script()
    response = await completed(script, {"messages": ASK, "user": "ann", **change})
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param), error
    assert error["message"] and not script.calls


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ("messages[0].content", "messages[0].content"),
        ("sampling.max_new_tokens", "max_completion_tokens"),
        ("sampling.stop", "stop"),
        ("scope.user", "user"),
        ("scope.session", "metadata.session"),
        ("recall_k", "metadata.recall_k"),
        ("tools[2].name", "tools[2].function.name"),
        ("tools[2].parameters_json", "tools[2].function.parameters"),
        ("model", "model"),
    ],
)
async def test_a_field_of_ours_is_named_as_the_body_names_it(field: str, param: str) -> None:
    response = await completed(Script([errors.FieldInvalid("wrong", field=field)]), {"messages": ASK})
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize("leaf", errors.leaves(), ids=lambda leaf: leaf.reason)
async def test_every_domain_error_has_openais_shape(leaf: type[errors.NdmlError]) -> None:
    error = leaf("what and how", retry_after_s=1.2, metadata={"trace_id": "c" * 32})
    response = await completed(Script([error]), {"messages": ASK})
    shown = response.json()["error"]
    assert response.status_code == HTTP_STATUS[leaf.code]
    assert shown.keys() == {"message", "type", "param", "code", "reason", "trace_id"}
    assert shown["message"].partition(" -- ")[0] == "what and how"
    assert (shown["reason"], shown["trace_id"], shown["param"]) == (leaf.reason, "c" * 32, None)
    assert (response.headers["retry-after"], response.headers["retry-after-ms"]) == ("2", "1200")


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (errors.ModelUnknown("x"), 404, "invalid_request_error", "model_not_found"),
        (errors.CredentialsInvalid("x"), 401, "authentication_error", "invalid_api_key"),
        (errors.TenantDenied("x"), 403, "permission_error", "tenant_denied"),
        (errors.Overloaded("x"), 429, "rate_limit_error", "rate_limit_exceeded"),
        (errors.OwnerUnavailable("x"), 503, "server_error", "owner_unavailable"),
    ],
)
async def test_the_errors_that_applications_catch(error: errors.NdmlError, status: int, kind: str, code: str) -> None:
    response = await completed(Script([error]), {"messages": ASK})
    shown = response.json()["error"]
    assert (response.status_code, shown["type"], shown["code"]) == (status, kind, code)


async def test_numbers_that_json_cannot_write_are_refused() -> None:
    body = b'{"messages": [{"role": "user", "content": "x"}], "tools": [{"function": {"name": "f", "parameters": {"max": 1e999}}}]}'
    async with client_of(Script()) as client:
        response = await client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "tools[0].function.parameters")


async def test_errors_of_http_and_faults_of_ours_have_openais_shape_too() -> None:
    async with client_of(Script([RuntimeError("password=hunter2")]), max_body_bytes=1024) as client:
        verb = await client.get("/v1/chat/completions")
        large = await client.post("/v1/embeddings", content=b"x" * 2000)
        broken = await client.post("/v1/chat/completions", content=b"{", headers={"content-type": "application/json"})
        fault = await client.post("/v1/chat/completions", json={"messages": ASK})
        problem = await client.get("/v1/memories/")
    assert (verb.status_code, verb.json()["error"]["code"], verb.headers["allow"]) == (405, "method_not_allowed", "POST")
    assert (large.status_code, large.json()["error"]["code"]) == (413, "body_too_large")
    assert (broken.status_code, broken.json()["error"]["reason"]) == (400, "REQUEST_MALFORMED")
    assert (fault.status_code, fault.json()["error"]["type"]) == (500, "server_error") and "hunter2" not in fault.text
    assert problem.headers["content-type"] == "application/problem+json"


FIELDS = sorted(
    {name for operation in OPERATIONS if operation.body for name in operation.body.model_fields}
    | {"role", "content", "type", "text", "function", "name", "arguments"}
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(path=st.sampled_from(["/v1/chat/completions", "/v1/embeddings"]), tree=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6))
async def test_no_body_makes_the_door_fail(path: str, tree: dict[str, Any]) -> None:
    async with client_of(Script()) as client:
        response = await client.post(path, content=json.dumps(tree), headers={"content-type": "application/json"})
    assert response.status_code in (200, 400), response.text
    assert response.status_code == 200 or response.json()["error"]["message"]


async def test_the_documented_examples_have_the_fields_of_real_answers() -> None:
    async with client_of(Script()) as client:
        chat = (await client.post("/v1/chat/completions", json={"messages": ASK, "user": "ann"})).json()
        embeddings = (await client.post("/v1/embeddings", json={"input": "a"})).json()
        models = (await client.get("/v1/models")).json()
        model = (await client.get("/v1/models/mini")).json()
    for operation, answer in zip(OPERATIONS, (chat, embeddings, models, model), strict=True):
        assert shape(operation.answer) == shape(answer), operation.path


def shape(node: Any) -> Any:
    """Keys without values, of lists the first item."""
    if isinstance(node, dict):
        return {key: shape(value) for key, value in node.items()}
    return [shape(item) for item in node[:1]] if isinstance(node, list) else None
