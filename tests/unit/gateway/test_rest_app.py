"""The REST door over ASGI with a recording dispatcher: what goes in as HTTP comes out as the right message, and back."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from ndml import errors
from ndml.v1 import chat_pb2, memory_pb2, types_pb2
from ndml.wire import error_to_status
from services.gateway.rest import HealthReport, RestSettings, build_app
from services.gateway.rest.app import PUBLIC_SERVICES
from services.gateway.rest.codec import is_map, is_plain_message, leaf_names
from services.gateway.rest.problems import HTTP_STATUS
from services.gateway.rest.seed import OPERATIONS
from services.gateway.rest.transcoder import Binding, bindings

BOUND = bindings(PUBLIC_SERVICES)
TRACE_ID = "0197f2c4a1b27c3d8e9f00112233aabb"
SEARCH = "/ndml.v1.MemoryService/SearchMemories"
EXPORT = "/ndml.v1.MemoryService/ExportMemories"
CHAT = "/ndml.v1.ChatService/Chat"


@dataclass
class Recorder:
    """A dispatcher that notes its calls and gives the answers it was told; by default an empty message of the right type."""

    answers: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, Message, Mapping[str, str], float | None]] = field(default_factory=list)

    async def unary(self, method: str, request: Message, metadata: Mapping[str, str], timeout_s: float | None) -> Message:
        self.calls.append((method, request, metadata, timeout_s))
        answer = self.answers.get(method)
        if isinstance(answer, Exception):
            raise answer
        rpc = next(binding.method for binding in BOUND if binding.rpc == method)
        return GetMessageClass(rpc.output_type)() if answer is None else answer

    async def stream(self, method: str, request: Message, metadata: Mapping[str, str], timeout_s: float | None) -> AsyncIterator[Message]:
        self.calls.append((method, request, metadata, timeout_s))
        for part in self.answers.get(method, []):
            if isinstance(part, Exception):
                raise part
            yield part


def app_of(recorder: Recorder, serving: bool = True, **knobs: Any) -> Starlette:
    return build_app(recorder, RestSettings(**knobs), lambda: HealthReport(serving, "ndml-gateway", "g1", "1.0", 3.5))


def client_of(recorder: Recorder, serving: bool = True, **knobs: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app_of(recorder, serving, **knobs)), base_url="http://ndml")


def assert_problem(response: httpx.Response, status: int, reason: str, where: str | None = None) -> dict[str, Any]:
    problem: dict[str, Any] = response.json()
    assert response.headers["content-type"] == "application/problem+json", response.text
    assert (response.status_code, problem["status"], problem["reason"]) == (status, status, reason), response.text
    assert problem["type"] == f"/docs#{reason}" and problem["title"] and problem["detail"] and problem["code"]
    if where is not None:
        assert where in [violation["field"] for violation in problem["errors"]], problem
    return problem


# Transcoding: message -> HTTP -> message

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
SEGMENT = st.text(st.characters(codec="utf-8", exclude_characters="/", min_codepoint=33), min_size=1, max_size=8)
DOTS = (".", "..")  # httpx, as every client, takes these for directions
LABELS = st.dictionaries(TEXT, TEXT, max_size=2)
TIMES = st.datetimes().map(lambda moment: moment.isoformat(timespec="microseconds") + "Z")
DURATIONS = st.integers(0, 10**13).map(lambda us: f"{us // 10**6}.{us % 10**6:06}s")
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32)


def scalar(descriptor: Any) -> st.SearchStrategy[Any]:
    """JSON values of one field's type."""
    if descriptor.enum_type is not None:
        return st.sampled_from([value.name for value in descriptor.enum_type.values])
    if descriptor.message_type is not None:
        masks = st.lists(st.sampled_from(["text", "saidAt"]), max_size=2).map(",".join)
        return {"Timestamp": TIMES, "Duration": DURATIONS, "FieldMask": masks}[descriptor.message_type.name]
    int64 = (-(2**63), 2**63 - 1)
    bits = {descriptor.TYPE_INT32: (-(2**31), 2**31 - 1), descriptor.TYPE_INT64: int64, descriptor.TYPE_UINT64: (0, 2**64 - 1)}
    if descriptor.type in bits:
        return st.integers(*bits[descriptor.type])
    return {
        descriptor.TYPE_STRING: TEXT,
        descriptor.TYPE_BYTES: st.binary(max_size=8).map(lambda data: base64.b64encode(data).decode()),
        descriptor.TYPE_BOOL: st.booleans(),
        descriptor.TYPE_FLOAT: FLOATS,
        descriptor.TYPE_DOUBLE: FLOATS,
    }[descriptor.type]


@st.composite
def trees(draw: st.DrawFn, descriptor: Any) -> dict[str, Any]:
    """JSON objects of a message type, some fields set, at most one of each oneof."""
    tree: dict[str, Any] = {}
    chosen = {oneof.name: draw(st.sampled_from([f.name for f in oneof.fields])) for oneof in descriptor.oneofs}
    for one in descriptor.fields:
        if (one.containing_oneof is not None and chosen[one.containing_oneof.name] != one.name) or not draw(st.booleans()):
            continue
        key = draw(st.sampled_from([one.name, one.camelcase_name]))
        values = trees(one.message_type) if is_plain_message(one) else LABELS if is_map(one) else scalar(one)
        tree[key] = draw(st.lists(values, max_size=2) if one.is_repeated and not is_map(one) else values)
    return tree


@st.composite
def requests(draw: st.DrawFn, binding: Binding) -> tuple[str, bytes, Message]:
    """(target, body, the message that must arrive) for a binding."""
    descriptor = binding.method.input_type
    expected = draw(trees(descriptor)) if binding.body == "*" else {}
    target, query = binding.template, []
    body = copy.deepcopy(expected)
    for name, leaf in leaf_names(descriptor):
        if name in binding.variables:
            value = draw(SEGMENT.filter(lambda text: text not in DOTS))
            target = target.replace("{" + name + "}", quote(value, safe=""))
            put(expected, name, value)
            put(body, name, draw(st.sampled_from([value, None])))
        elif binding.body != "*" and draw(st.booleans()):
            value = draw(st.lists(scalar(leaf), min_size=1, max_size=2) if leaf.is_repeated else scalar(leaf))
            put(expected, name, value)
            query += [(name, as_query(each)) for each in (value if leaf.is_repeated else [value])]
    content = json.dumps(body).encode() if binding.body == "*" else b""
    message = json_format.ParseDict(expected, GetMessageClass(descriptor)())
    return target + ("?" + urlencode(query) if query else ""), content, message


def as_query(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def put(tree: dict[str, Any], name: str, value: Any) -> None:
    """Set a dotted field, under whatever spelling it stood."""
    *parents, last = name.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    head, *rest = last.split("_")
    tree.pop(head + "".join(part.title() for part in rest), None)
    tree[last] = value


@pytest.mark.parametrize("binding", BOUND, ids=lambda binding: binding.method.name)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
async def test_any_request_arrives_as_the_message_it_means(binding: Binding, data: st.DataObject) -> None:
    target, body, expected = data.draw(requests(binding))
    recorder = Recorder()
    async with client_of(recorder) as client:
        headers = {"content-type": "application/json"} if body else {}
        response = await client.request(binding.verb, target, content=body, headers=headers)
    assert response.status_code == 200, response.text
    assert recorder.calls[0][:2] == (binding.rpc, expected)


async def test_the_answer_is_protobuf_json_in_snake_case_with_empty_fields() -> None:
    hit = memory_pb2.SearchHit(trace=types_pb2.MemoryTrace(trace_id=TRACE_ID, text="né", version=2**60), score=0.1)
    hit.trace.embedding.vector = b"\0\0\x80?"
    recorder = Recorder({SEARCH: memory_pb2.SearchMemoriesResponse(hits=[hit])})
    async with client_of(recorder) as client:
        found = (await client.post("/v1/memories:search", json={"scope": {"user": "u"}, "text": "q"})).json()
        recorder.answers = {}
        empty = (await client.post("/v1/memories:search", json={})).json()
    trace = found["hits"][0]["trace"]
    assert (trace["trace_id"], trace["text"], trace["version"]) == (TRACE_ID, "né", str(2**60))
    assert trace["embedding"]["vector"] == "AACAPw==" and found["hits"][0]["score"] == 0.1
    assert empty == {"hits": [], "consistency_token": ""}


async def test_an_error_inside_a_batch_answer_is_shown_with_its_details() -> None:
    failed = memory_pb2.BatchAddMemoriesResponse(results=[memory_pb2.AddResult(error=error_to_status(errors.Overloaded("later")))])
    async with client_of(Recorder({"/ndml.v1.MemoryService/BatchAddMemories": failed})) as client:
        answer = (await client.post("/v1/memories:batchAdd", json={"memories": []})).json()
    error = answer["results"][0]["error"]
    assert error["message"] == "later" and error["details"][0]["reason"] == "OVERLOADED"


async def test_headers_become_metadata_and_deadline() -> None:
    recorder = Recorder()
    passed = {"authorization": "Bearer t", "ndml-tenant": "acme", "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
    async with client_of(recorder) as client:
        await client.get("/v1/stats", headers={**passed, "ndml-timeout-ms": "250", "cookie": "c", "ndml-x-bin": "b"})
    _, _, metadata, timeout_s = recorder.calls[0]
    assert {key: value for key, value in metadata.items() if key != "user-agent"} == passed
    assert timeout_s == 0.25


async def test_large_messages_are_converted_off_the_loop_to_the_same_effect() -> None:
    traces = [types_pb2.MemoryTrace(text="x" * 50) for _ in range(20)]
    recorder = Recorder({"/ndml.v1.MemoryService/ListMemories": memory_pb2.ListMemoriesResponse(traces=traces)})
    async with client_of(recorder, thread_above_bytes=100) as client:
        assert len((await client.get("/v1/memories?scope.user=u")).json()["traces"]) == 20
        assert (await client.post("/v1/memories", json={"memory": {"text": "y" * 200}})).status_code == 200
        bad = await client.post("/v1/memories", json={"memory": {"text": "y" * 200, "salience": "much"}})
    assert_problem(bad, 400, "FIELD_INVALID", "memory.salience")
    assert recorder.calls[1][1].memory.text == "y" * 200  # type: ignore[attr-defined]


# Bad requests


BAD_BODIES: list[tuple[Any, str, str | None]] = [
    (b"{", "REQUEST_MALFORMED", None),
    (b"[]", "REQUEST_MALFORMED", None),
    (b'"x"', "REQUEST_MALFORMED", None),
    (b"null", "REQUEST_MALFORMED", None),
    (b'{"k": NaN}', "REQUEST_MALFORMED", None),
    (b'{"text": "a", "text": "b"}', "REQUEST_MALFORMED", None),
    (b'{"text": "\xff"}', "REQUEST_MALFORMED", None),
    (b"[" * 100_000, "REQUEST_MALFORMED", None),
    (b'{"k": ' + b"9" * 5000 + b"}", "REQUEST_MALFORMED", None),
    (b'{"text": "\\ud800"}', "FIELD_INVALID", "text"),
    ({"scope": {"usr": "u"}}, "FIELD_UNKNOWN", "scope.usr"),
    ({"filter": {"metadata": [{"key": "a", "equals": "b"}, {"keyy": 1}]}}, "FIELD_UNKNOWN", "filter.metadata[1].keyy"),
    ({"[ndml.v1.x]": 1}, "FIELD_UNKNOWN", "[ndml.v1.x]"),
    ({"min_score": 1, "minScore": 1}, "FIELD_INVALID", "minScore"),
    ({"text": "a", "embedding": {}}, "FIELD_INVALID", "embedding"),
    ({"k": "ten"}, "FIELD_INVALID", "k"),
    ({"k": 1.5}, "FIELD_INVALID", "k"),
    ({"k": 2**40}, "FIELD_INVALID", "k"),
    ({"k": True}, "FIELD_INVALID", "k"),
    ({"min_score": 1e300}, "FIELD_INVALID", "min_score"),
    (b'{"\\ud800": 1}', "FIELD_UNKNOWN", "\\ud800"),
    (b'{"filter": {"kinds": ["\\ud800"]}}', "FIELD_INVALID", "filter.kinds[0]"),
    (b"{" + b",".join(b'"k%d":1' % i for i in [*range(60_000), 59_999]) + b"}", "REQUEST_MALFORMED", None),  # a minute in quadratic time
    ({"min_score": True}, "FIELD_INVALID", "min_score"),
    ({"consistency": True}, "FIELD_INVALID", "consistency"),
    ({"consistency": 2**32}, "FIELD_INVALID", "consistency"),  # json_format alone takes it for 0
    ({"consistency": str(2**32 + 1)}, "FIELD_INVALID", "consistency"),
    ({"consistency": 1.0}, "FIELD_INVALID", "consistency"),
    ({"filter": {"kinds": [1, False]}}, "FIELD_INVALID", "filter.kinds[1]"),
    ({"filter": {"kinds": 1}}, "FIELD_INVALID", "filter.kinds"),
    ({"explain": "yes"}, "FIELD_INVALID", "explain"),
    ({"scope": "u"}, "FIELD_INVALID", "scope"),
    ({"scope": {"user": 7}}, "FIELD_INVALID", "scope.user"),
    ({"filter": {"kinds": ["TRACE_KIND_ODD"]}}, "FIELD_INVALID", "filter.kinds[0]"),
    ({"filter": {"speakers": ["a"] * 99 + [None]}}, "FIELD_INVALID", "filter.speakers[99]"),
    ({"filter": {"speakers": "a"}}, "FIELD_INVALID", "filter.speakers"),
    ({"filter": {"metadata": {"key": "a"}}}, "FIELD_INVALID", "filter.metadata"),
    ({"filter": {"said_at": {"from": "yesterday"}}}, "FIELD_INVALID", "filter.said_at.from"),
    ({"filter": {"said_at": {"until": 5}}}, "FIELD_INVALID", "filter.said_at.until"),
    ({"embedding": {"vector": [0.5]}}, "FIELD_INVALID", "embedding.vector"),
    ({"embedding": {"vector": "a"}}, "FIELD_INVALID", "embedding.vector"),
]


@pytest.mark.parametrize(("body", "reason", "where"), BAD_BODIES, ids=lambda value: str(value)[:40])
async def test_a_bad_body_is_refused_with_its_field(body: Any, reason: str, where: str | None, capfd: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder()
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client_of(recorder) as client:
        response = await client.post("/v1/memories:search", content=content, headers={"content-type": "application/json"})
    assert_problem(response, 400, reason, where)
    assert not recorder.calls
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("deep", [60, 150, 300])
async def test_messages_within_messages_end_somewhere(deep: int) -> None:
    """Siblings of a trace hold traces: without a bound 5 kB of them took seconds, and more of them the handler's stack."""
    body = b'{"trace":' + b'{"siblings":[{"trace":' * deep + b"{}" + b"}]}" * deep + b"}"
    async with client_of(Recorder()) as client:
        response = await client.patch(f"/v1/memories/{TRACE_ID}", content=body, headers={"content-type": "application/json"})
    assert "nested deeper than 32 messages" in assert_problem(response, 400, "REQUEST_MALFORMED")["detail"]


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/chat", b'{"user_id": "u", "messages": [{"content": "\\udfff"}]}', "messages[0].content"),
        ("/memory/query", b'{"user_id": "u", "query": "\\ud800"}', "query"),
        ("/memory/update", b'{"user_id": "u", "content": "c", "metadata": {"\\ud83d": "v"}}', "metadata"),
    ],
)
async def test_half_of_a_character_is_refused_on_the_short_routes(path: str, body: bytes, where: str) -> None:
    recorder = Recorder()
    async with client_of(recorder) as client:
        response = await client.post(path, content=body, headers={"content-type": "application/json"})
        whole = await client.post(path, content=body.replace(b"\\udfff", b"\\ud83d\\ude00"), headers={"content-type": "application/json"})
    assert_problem(response, 400, "FIELD_INVALID", where)
    assert (whole.status_code != 400) == (path == "/chat")


@pytest.mark.parametrize(
    ("verb", "target", "reason", "where"),
    [
        ("GET", "/v1/memories?scope.usr=u", "FIELD_UNKNOWN", "scope.usr"),
        ("GET", "/v1/memories?scope.user.x=u", "FIELD_UNKNOWN", "scope.user.x"),
        ("GET", "/v1/memories?scope=u", "FIELD_INVALID", "scope"),
        ("GET", "/v1/memories?filter.metadata=u", "FIELD_INVALID", "filter.metadata"),
        ("GET", "/v1/memories?filter.metadata.key=u", "FIELD_UNKNOWN", "filter.metadata.key"),
        ("GET", "/v1/memories?page_size=1&pageSize=2", "FIELD_INVALID", "page_size"),
        ("GET", "/v1/memories?include_embedding=1", "FIELD_INVALID", "include_embedding"),
        ("GET", "/v1/memories?filter.kinds=TRACE_KIND_EPISODIC&filter.kinds=odd", "FIELD_INVALID", "filter.kinds[1]"),
        ("GET", "/v1/memories?scope.user=%ff", "REQUEST_MALFORMED", None),
        ("GET", "/v1/memories?" + "filter.speakers=a&" * 300, "REQUEST_MALFORMED", None),
        ("GET", f"/v1/memories/{TRACE_ID}?trace_id=other", "FIELD_INVALID", "trace_id"),
        ("POST", "/v1/memories:search?k=1", "FIELD_UNKNOWN", "k"),
        ("GET", "/memory/stats?user=u", "FIELD_UNKNOWN", "user"),
        ("GET", "/memory/stats?user_id=u&user_id=v", "FIELD_INVALID", "user_id"),
    ],
)
async def test_a_bad_target_is_refused_with_its_field(verb: str, target: str, reason: str, where: str | None) -> None:
    async with client_of(Recorder()) as client:
        assert_problem(await client.request(verb, target), 400, reason, where)


async def test_path_and_body_may_agree_but_not_differ() -> None:
    recorder = Recorder()
    async with client_of(recorder) as client:
        same = await client.patch(f"/v1/memories/{TRACE_ID}", json={"trace": {"traceId": TRACE_ID}, "update_mask": "said_at,text"})
        other = await client.patch(f"/v1/memories/{TRACE_ID}", json={"trace": {"trace_id": "0" * 32}})
        got = await client.request("GET", "/v1/memories", json={"scope": {}})
    assert same.status_code == 200
    assert list(recorder.calls[0][1].update_mask.paths) == ["said_at", "text"]  # type: ignore[attr-defined]
    assert_problem(other, 400, "FIELD_INVALID", "trace.trace_id")
    assert_problem(got, 400, "REQUEST_MALFORMED")


@pytest.mark.parametrize("value", ["0", "-1", "abc", "1.5", "9" * 30, "", "٣"])
async def test_a_bad_timeout_is_refused(value: str) -> None:
    async with client_of(Recorder()) as client:
        response = await client.get("/v1/stats", headers=httpx.Headers([(b"ndml-timeout-ms", value.encode())]))
    assert_problem(response, 400, "FIELD_INVALID", "ndml-timeout-ms")


async def test_what_only_http_can_get_wrong() -> None:
    async with client_of(Recorder(), max_body_bytes=1024) as client:
        assert_problem(await client.get("/nowhere"), 404, "ROUTE_UNKNOWN")
        assert_problem(await client.get("/v1/memories/"), 404, "ROUTE_UNKNOWN")
        wrong = await client.put("/v1/memories")
        assert_problem(wrong, 405, "METHOD_NOT_ALLOWED")
        assert wrong.headers["allow"] == "GET, POST"
        for media in ("text/plain", "application/json; charset=latin-1", ""):
            response = await client.post("/v1/memories", content=b"{}", headers={"content-type": media})
            assert_problem(response, 415, "CONTENT_TYPE_UNSUPPORTED")
        assert (await client.post("/v1/memories", content=b"{}", headers={"content-type": "Application/JSON;charset=UTF-8"})).is_success
        assert_problem(await client.post("/v1/memories", content=b"x" * 1025), 413, "BODY_TOO_LARGE")


async def test_a_body_without_length_is_refused_before_all_of_it_is_read() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b" " * 1000

    async with client_of(Recorder(), max_body_bytes=10_000) as client:
        assert_problem(await client.post("/v1/memories", content=endless()), 413, "BODY_TOO_LARGE")
    assert sent <= 12


async def test_a_slow_body_is_given_up() -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with client_of(Recorder(), body_timeout_s=0.02) as client:
        assert_problem(await client.post("/v1/memories", content=never()), 408, "BODY_TIMEOUT")


async def test_bodies_together_are_bounded_and_the_budget_comes_back() -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def held() -> AsyncIterator[bytes]:
        yield b" " * 900
        arrived.set()
        await go_on.wait()
        yield b"{}"

    json_type = {"content-type": "application/json"}
    async with client_of(Recorder(), body_budget_bytes=1024) as client:
        first = asyncio.create_task(client.post("/v1/memories", content=held(), headers=json_type))
        await arrived.wait()
        refused = await client.post("/v1/memories", content=b" " * 200 + b"{}", headers=json_type)
        assert_problem(refused, 429, "OVERLOADED")
        assert refused.headers["retry-after"] == "1"
        go_on.set()
        assert (await first).is_success
        assert (await client.post("/v1/memories", content=b" " * 900 + b"{}", headers=json_type)).is_success


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
POSTS = [f"{b.verb} {b.template}" for b in BOUND if b.body] + [f"{o.verb} {o.path}" for o in OPERATIONS if o.body]
SEED_FIELDS = ["user_id", "message", "messages", "query", "k", "content", "metadata", "said_at", "recall_k", "temperature", "session_id"]
FIELDS = sorted({f.name for b in BOUND for f in b.method.input_type.fields} | {"user", "vector", "metadata", *SEED_FIELDS})
NEAR_MISSES = st.recursive(
    JSON_VALUES, lambda inner: st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4) | st.lists(inner, max_size=2)
)


@settings(max_examples=400, deadline=None)
@given(route=st.sampled_from(POSTS), body=NEAR_MISSES.map(lambda tree: json.dumps(tree).encode()) | st.binary(max_size=40))
async def test_no_body_makes_the_door_fail(route: str, body: bytes) -> None:
    verb, _, path = route.partition(" ")
    recorder = Recorder({CHAT: [chat_pb2.ChatResponse()]})
    async with client_of(recorder) as client:
        target = path.replace("{trace.trace_id}", TRACE_ID)
        response = await client.request(verb, target, content=body, headers={"content-type": "application/json"})
    assert response.status_code in (200, 400), response.text
    if response.status_code == 400:
        assert response.json()["reason"] in ("FIELD_INVALID", "FIELD_UNKNOWN", "REQUEST_MALFORMED")


@settings(max_examples=200, deadline=None)
@given(
    path=st.sampled_from(sorted({b.template for b in BOUND} | {o.path for o in OPERATIONS})),
    verb=st.sampled_from(["GET", "DELETE", "HEAD", "OPTIONS", "PUT"]),
    query=st.lists(st.tuples(st.sampled_from([*FIELDS, "scope.user", "filter.kinds", "filter.said_at.from"]) | TEXT, TEXT), max_size=3),
)
async def test_no_query_makes_the_door_fail(path: str, verb: str, query: list[tuple[str, str]]) -> None:
    async with client_of(Recorder()) as client:
        response = await client.request(verb, path + "?" + urlencode(query))
    assert response.status_code in (200, 400, 405), response.text


# Errors of the service


@pytest.mark.parametrize("leaf", errors.leaves(), ids=lambda leaf: leaf.reason)
async def test_every_domain_error_has_its_status(leaf: type[errors.NdmlError]) -> None:
    error = leaf("what and how", field="memory.text", retry_after_s=1.2, metadata={"trace_id": "c" * 32, "limit": "9"})
    async with client_of(Recorder({SEARCH: error})) as client:
        response = await client.post("/v1/memories:search", json={})
    problem = assert_problem(response, HTTP_STATUS[leaf.code], leaf.reason, "memory.text")
    assert (problem["detail"], problem["code"]) == ("what and how", leaf.code.name)
    assert (problem["retry_after_s"], problem["trace_id"], problem["metadata"]) == (1.2, "c" * 32, {"limit": "9"})
    assert response.headers["retry-after"] == "2"
    assert ("www-authenticate" in response.headers) == (response.status_code == 401)


async def test_the_callers_trace_id_stands_in_for_want_of_a_better() -> None:
    recorder = Recorder({SEARCH: errors.OwnerUnavailable("gone")})
    async with client_of(recorder) as client:
        traced = await client.post("/v1/memories:search", json={}, headers={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"})
        untraced = await client.post("/v1/memories:search", json={}, headers={"traceparent": "junk"})
    assert traced.json()["trace_id"] == "a" * 32
    assert "trace_id" not in untraced.json()


async def test_a_fault_of_ours_is_500_without_its_secrets() -> None:
    async with client_of(Recorder({SEARCH: RuntimeError("password=hunter2")})) as client:
        response = await client.post("/v1/memories:search", json={})
    assert_problem(response, 500, "INTERNAL")
    assert "hunter2" not in response.text
