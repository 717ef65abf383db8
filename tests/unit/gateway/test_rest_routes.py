"""Streams over HTTP, the seed's routes and the documents of the REST door."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ndml import errors
from ndml.v1 import chat_pb2, memory_pb2, types_pb2
from services.gateway.rest import HealthReport, RestSettings, build_app, openai
from services.gateway.rest.app import PUBLIC_SERVICES
from services.gateway.rest.openapi import build_document, documented
from services.gateway.rest.problems import HTTP_PROBLEMS
from services.gateway.rest.schema import COMMENTS
from services.gateway.rest.seed import OPERATIONS
from services.gateway.rest.transcoder import bindings

ROOT = Path(__file__).resolve().parents[3]
BOUND = bindings(PUBLIC_SERVICES)
TRACE_ID = "0197f2c4a1b27c3d8e9f00112233aabb"
ADD = "/ndml.v1.MemoryService/AddMemory"
SEARCH = "/ndml.v1.MemoryService/SearchMemories"
STATS = "/ndml.v1.MemoryService/GetMemoryStats"
REINFORCE = "/ndml.v1.MemoryService/ReinforceMemories"
CONSOLIDATE = "/ndml.v1.MemoryService/ConsolidateMemories"
CHAT = "/ndml.v1.ChatService/Chat"
STAMP = Timestamp(seconds=1_800_000_000)


class Script:
    """A dispatcher that answers from a table (a list: a stream) and notes its requests."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.requests: list[Any] = []

    async def unary(self, method: str, request: Message, metadata: Mapping[str, str], timeout_s: float | None) -> Message:
        self.requests.append(request)
        answer: Message = self.answers[method]
        return answer

    async def stream(self, method: str, request: Message, metadata: Mapping[str, str], timeout_s: float | None) -> AsyncIterator[Message]:
        self.requests.append(request)
        for part in self.answers.get(method, []):
            if isinstance(part, Exception):
                raise part
            yield part


def client_of(script: Script, serving: bool = True, **knobs: Any) -> httpx.AsyncClient:
    app = build_app(script, RestSettings(**knobs), lambda: HealthReport(serving, "ndml-gateway", "g1", "1.0", 3.5))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ndml")


# Streams


PARTS = [chat_pb2.ChatResponse(delta="a\n"), chat_pb2.ChatResponse(delta="b", finish_reason=chat_pb2.FINISH_REASON_STOP)]


async def test_a_stream_is_one_line_a_message_or_one_event() -> None:
    async with client_of(Script({CHAT: PARTS}), thread_above_bytes=4) as client:
        lines = await client.post("/v1/chat", json={})
        events = await client.post("/v1/chat", json={}, headers={"accept": "text/event-stream"})
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["delta"] for line in lines.text.splitlines()] == ["a\n", "b"]
    assert events.headers["content-type"].startswith("text/event-stream")
    blocks = events.text.split("\n\n")
    assert blocks.pop() == ""
    assert [json.loads(block.removeprefix("data: "))["delta"] for block in blocks] == ["a\n", "b"]


async def test_an_error_before_the_first_message_is_a_plain_problem_after_it_the_last_line() -> None:
    failure = errors.ModelUnavailable("the model went away")
    async with client_of(Script({CHAT: [failure]})) as client:
        early = await client.post("/v1/chat", json={})
    async with client_of(Script({CHAT: [PARTS[0], failure]})) as client:
        late = await client.post("/v1/chat", json={})
        event = await client.post("/v1/chat", json={}, headers={"accept": "text/event-stream"})
    async with client_of(Script({CHAT: [PARTS[0], KeyError("x")]})) as client:
        fault = await client.post("/v1/chat", json={})
    assert (early.status_code, early.json()["reason"]) == (503, "MODEL_UNAVAILABLE")
    assert late.status_code == 200
    assert json.loads(late.text.splitlines()[-1])["error"]["reason"] == "MODEL_UNAVAILABLE"
    assert event.text.split("\n\n")[1].startswith('event: error\ndata: {"error":')
    assert json.loads(fault.text.splitlines()[-1])["error"]["reason"] == "INTERNAL"


async def test_an_empty_stream_is_an_empty_answer() -> None:
    async with client_of(Script({})) as client:
        response = await client.get("/v1/memories:export?scope.user=u")
    assert (response.status_code, response.content) == (200, b"")


# The seed's routes

TRACE = types_pb2.MemoryTrace(trace_id=TRACE_ID, text="nuts", speaker="Ann", said_at=STAMP, learned_at=STAMP, metadata={"a": "b"})
USAGE = chat_pb2.Usage(prompt_tokens=4)
SEED_ANSWERS = {
    SEARCH: memory_pb2.SearchMemoriesResponse(
        hits=[memory_pb2.SearchHit(trace=TRACE, score=0.5)], stats=types_pb2.SearchStats(shards_total=1)
    ),
    ADD: memory_pb2.AddMemoryResponse(
        trace_id=TRACE_ID, consistency_token="c", learned_at=STAMP, gate=types_pb2.GateDecision(decision="WRITE_DECISION_NOVEL")
    ),
    REINFORCE: memory_pb2.ReinforceMemoriesResponse(results=[memory_pb2.ReinforceResult(trace_id=TRACE_ID)], credited=2),
    CONSOLIDATE: [
        memory_pb2.ConsolidateMemoriesResponse(clusters_total=4, clusters_done=2, merged=1, semantic_trace_ids=[TRACE_ID]),
        memory_pb2.ConsolidateMemoriesResponse(clusters_total=4, clusters_done=3, merged=2, done=True, stopped_because="time budget"),
    ],
    STATS: memory_pb2.GetMemoryStatsResponse(traces=2**40, owners=1, traces_by_kind={"episodic": 3}, embedding_model="m"),
    CHAT: [
        chat_pb2.ChatResponse(delta="No "),
        chat_pb2.ChatResponse(delta="nuts."),
        chat_pb2.ChatResponse(
            finish_reason="FINISH_REASON_STOP", model="m", usage=USAGE, citations=[chat_pb2.Citation(number=1)], answer_id="a1"
        ),
    ],
}
SEED_CALLS: dict[str, dict[str, Any]] = {
    "chat": {"user_id": "u", "session_id": "s", "message": "What not?"},
    "query": {"user_id": "u", "query": "What not?", "k": 3},
    "update": {"user_id": "u", "content": "nuts", "metadata": {"a": "b"}, "said_at": "2027-01-15T08:00:00Z", "request_id": "r"},
    "consolidate": {"user_id": "u", "max_traces": 7, "time_budget_s": 0.25, "dry_run": True},
}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.path)
async def test_the_seeds_routes_answer_as_documented(operation: Any) -> None:
    async with client_of(Script(SEED_ANSWERS)) as client:
        body = SEED_CALLS.get(operation.name)
        response = await client.request(operation.verb, operation.path, json=body) if body else await client.get(operation.path)
    assert response.status_code == 200, response.text
    answer, example = response.json(), operation.answer
    assert answer.keys() == example.keys()
    for name in ("results", "citations"):
        assert [row.keys() for row in answer.get(name, [])] == [row.keys() for row in example.get(name, [])]


async def test_the_seeds_routes_say_what_they_mean() -> None:
    script = Script(SEED_ANSWERS)
    async with client_of(script) as client:
        chat = (await client.post("/chat", json=SEED_CALLS["chat"])).json()
        query = (await client.post("/memory/query", json=SEED_CALLS["query"])).json()
        await client.post("/memory/update", json=SEED_CALLS["update"])
        stats = (await client.get("/memory/stats?user_id=u")).json()
        turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
        await client.post("/chat", json={"user_id": "u", "messages": turns, "recall_k": 0, "max_tokens": 7})
    asked, searched, added, counted, second = script.requests
    assert (chat["response"], chat["finish_reason"]) == ("No nuts.", "FINISH_REASON_STOP")
    assert (query["results"][0]["content"], query["results"][0]["score"]) == ("nuts", 0.5)
    assert (stats["traces"], stats["traces_by_kind"]) == (2**40, {"episodic": 3})
    assert asked.scope == types_pb2.Scope(user="u", session="s") and not asked.HasField("recall_k")
    assert list(asked.messages) == [chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content="What not?")]
    assert searched == memory_pb2.SearchMemoriesRequest(scope=types_pb2.Scope(user="u"), text="What not?", k=3)
    memory = memory_pb2.NewMemory(scope=types_pb2.Scope(user="u"), text="nuts", metadata={"a": "b"}, said_at=STAMP)
    assert added == memory_pb2.AddMemoryRequest(request_id="r", memory=memory)
    assert counted.scope.user == "u"
    assert [m.role for m in second.messages] == [chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_USER]
    assert second.HasField("recall_k") and (second.recall_k, second.sampling.max_new_tokens) == (0, 7)


async def test_update_takes_everything_that_is_said_of_a_memory() -> None:
    script = Script(SEED_ANSWERS)
    body = {"user_id": "u", "content": "nuts", "deduplicate": True, "protected": True, "expires_at": "2027-01-15T08:00:00Z"}
    async with client_of(script) as client:
        answer = (await client.post("/memory/update", json=body)).json()
    memory = memory_pb2.NewMemory(scope=types_pb2.Scope(user="u"), text="nuts", protected=True, expires_at=STAMP)
    assert script.requests == [memory_pb2.AddMemoryRequest(memory=memory, deduplicate=True)]
    assert answer["gate"]["decision"] == "WRITE_DECISION_NOVEL" and answer["deduplicated"] is False


async def test_update_takes_feedback_in_place_of_content() -> None:
    script = Script(SEED_ANSWERS)
    feedback = [{"trace_id": TRACE_ID, "grade": 1}, {"answer_id": "a1", "grade": -0.5}]
    async with client_of(script) as client:
        answer = (await client.post("/memory/update", json={"user_id": "u", "feedback": feedback, "request_id": "r"})).json()
    grades = [memory_pb2.Feedback(trace_id=TRACE_ID, grade=1), memory_pb2.Feedback(answer_id="a1", grade=-0.5)]
    assert script.requests == [memory_pb2.ReinforceMemoriesRequest(request_id="r", scope=types_pb2.Scope(user="u"), feedback=grades)]
    assert answer.keys() == {"results", "credited", "replayed", "consistency_token"} and answer["credited"] == 2


async def test_consolidate_runs_to_its_end_and_gives_the_totals() -> None:
    script = Script(SEED_ANSWERS)
    async with client_of(script) as client:
        answer = (await client.post("/memory/consolidate", json=SEED_CALLS["consolidate"])).json()
        streamed = await client.post("/v1/memories:consolidate", json={"scope": {"user": "u"}})
    wanted = memory_pb2.ConsolidateMemoriesRequest(scope=types_pb2.Scope(user="u"), max_traces=7, dry_run=True)
    wanted.time_budget.FromMilliseconds(250)
    assert script.requests[0] == wanted
    assert answer == {
        "user_id": "u", "clusters_total": 4, "clusters_done": 3, "merged": 2, "rejected": 0, "unchanged": 0,
        "done": True, "stopped_because": "time budget",
    }  # fmt: skip
    assert [json.loads(line)["semantic_trace_ids"] for line in streamed.text.splitlines()] == [[TRACE_ID], []]


async def test_a_consolidation_that_breaks_off_is_a_problem() -> None:
    broken = [SEED_ANSWERS[CONSOLIDATE][0], errors.OwnerUnavailable("n1 does not answer")]
    async with client_of(Script({CONSOLIDATE: broken})) as client:
        response = await client.post("/memory/consolidate", json={"user_id": "u"})
    assert (response.status_code, response.json()["reason"]) == (503, "OWNER_UNAVAILABLE")


@pytest.mark.parametrize(
    ("path", "body", "status", "reason", "where"),
    [
        ("/memory/query", {"query": "q"}, 400, "FIELD_INVALID", "user_id"),
        ("/memory/query", {"query": "q", "user_id": ""}, 400, "FIELD_INVALID", "user_id"),
        ("/memory/query", {"query": "q", "user_id": "u", "kk": 1}, 400, "FIELD_UNKNOWN", "kk"),
        ("/memory/query", {"query": "q", "user_id": "u", "k": "1"}, 400, "FIELD_INVALID", "k"),
        ("/memory/query", {"query": "q", "user_id": "\ud800"}, 400, "FIELD_INVALID", "user_id"),
        ("/memory/query", [], 400, "REQUEST_MALFORMED", None),
        ("/memory/query?k=1", {"query": "q", "user_id": "u"}, 400, "REQUEST_MALFORMED", None),
        ("/memory/update", {"content": "c", "user_id": "u", "metadata": {"a": 1}}, 400, "FIELD_INVALID", "metadata.a"),
        ("/memory/update", {"content": "c", "user_id": "u", "said_at": "today"}, 400, "FIELD_INVALID", "said_at"),
        ("/chat", {"user_id": "u"}, 400, "REQUEST_MALFORMED", None),
        ("/chat", {"user_id": "u", "message": "a", "messages": [{"content": "b"}]}, 400, "REQUEST_MALFORMED", None),
        ("/chat", {"user_id": "u", "messages": [{"role": "god", "content": "b"}]}, 400, "FIELD_INVALID", "messages[0].role"),
        ("/memory/update", {"user_id": "u"}, 400, "REQUEST_MALFORMED", None),
        ("/memory/update", {"content": "c", "user_id": "u", "expires_at": 7}, 400, "FIELD_INVALID", "expires_at"),
        ("/memory/update", {"user_id": "u", "feedback": [{"trace_id": "a", "grade": 2}]}, 400, "FIELD_INVALID", "feedback[0].grade"),
        ("/memory/update", {"user_id": "u", "feedback": [{"grade": 1}]}, 400, "FIELD_INVALID", "feedback[0]"),
        (
            "/memory/update",
            {"user_id": "u", "feedback": [{"trace_id": "a", "grade": 1}], "protected": True},
            400,
            "REQUEST_MALFORMED",
            None,
        ),
        ("/memory/consolidate", {}, 400, "FIELD_INVALID", "user_id"),
        ("/memory/consolidate", {"user_id": "u", "time_budget_s": 0}, 400, "FIELD_INVALID", "time_budget_s"),
    ],
)
async def test_the_seeds_routes_name_what_is_wrong(path: str, body: Any, status: int, reason: str, where: str | None) -> None:
    script = Script({})
    async with client_of(script) as client:
        response = await client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    problem = response.json()
    assert (response.status_code, problem["reason"]) == (status, reason), problem
    assert where is None or where in [violation["field"] for violation in problem["errors"]]
    assert not script.requests


async def test_a_chat_that_never_ends_is_cut() -> None:
    async with client_of(Script({CHAT: [chat_pb2.ChatResponse(delta="x" * 600)] * 2}), chat_max_bytes=1024) as client:
        response = await client.post("/chat", json={"user_id": "u", "message": "m"})
    assert (response.status_code, response.json()["reason"]) == (503, "MODEL_UNAVAILABLE")


async def test_health_follows_readiness() -> None:
    async with client_of(Script({}), serving=True) as client:
        ready = await client.get("/health")
    async with client_of(Script({}), serving=False) as client:
        draining = await client.get("/health")
    assert (ready.status_code, ready.json()["status"], ready.json()["instance"]) == (200, "healthy", "g1")
    assert (draining.status_code, draining.json()["status"]) == (503, "unavailable")


# The documents


def references(node: Any) -> set[str]:
    """Every $ref below a node."""
    if isinstance(node, dict):
        return {node["$ref"]} if "$ref" in node else set().union(*map(references, node.values()), set())
    return set().union(*map(references, node), set()) if isinstance(node, list) else set()


async def test_openapi_describes_every_route_and_refers_to_nothing_missing() -> None:
    async with client_of(Script({})) as client:
        document = (await client.get("/openapi.json")).json()
    wanted = {(documented(b.template), b.verb.lower()) for b in BOUND} | {
        (documented(o.path), o.verb.lower()) for o in (*OPERATIONS, *openai.OPERATIONS)
    }
    assert {(path, verb) for path, verbs in document["paths"].items() for verb in verbs} == wanted
    for reference in references(document):
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
        assert node
    for verbs in document["paths"].values():
        assert all(operation["summary"] and operation["description"] for operation in verbs.values())
    reasons = {row["reason"] for row in document["x-error-reasons"] if row["description"]}
    assert reasons == {*errors.BY_REASON, *(reason for _, reason, _ in HTTP_PROBLEMS.values())}


def test_openapi_carries_comments_and_limits_of_the_protos() -> None:
    document = build_document(BOUND, RestSettings(max_timeout_s=60))
    schemas = document["components"]["schemas"]
    k = schemas["SearchMemoriesRequest"]["properties"]["k"]
    assert (k["minimum"], k["maximum"], k["description"]) == (0, 1000, "How many hits. 0: 10. Limit: 1,000.")
    assert schemas["SearchMemoriesRequest"]["required"] == ["scope"]
    assert schemas["SearchMemoriesRequest"]["oneOf"] == [{"required": [name]} for name in ("text", "embedding", "content")]
    assert schemas["NewMemory"]["required"] == ["scope"] and schemas["ChatMessage"]["required"] == ["role"]
    assert schemas["NewMemory"]["properties"]["text"]["maxLength"] == 65536
    assert schemas["NewMemory"]["properties"]["metadata"]["maxProperties"] == 32
    assert schemas["Embedding"]["properties"]["vector"]["maxLength"] == 4 * 21846
    listing = {p["name"]: p for p in document["paths"]["/v1/memories"]["get"]["parameters"] if "name" in p}
    assert listing["page_size"]["schema"]["maximum"] == 1000 and listing["filter.said_at.from"]["schema"]["format"] == "date-time"
    metadata = schemas["NewMemory"]["properties"]["metadata"]
    assert metadata["propertyNames"] == {"minLength": 1, "maxLength": 64} and metadata["additionalProperties"]["maxLength"] == 1024
    assert schemas["EmbedTextsRequest"]["properties"]["texts"]["items"]["minLength"] == 1
    assert schemas["Embedding"]["required"] == ["vector"]
    assert document["components"]["parameters"]["Timeout"]["schema"]["maximum"] == 60_000


def test_openapi_tells_of_failures_within_a_stream() -> None:
    paths = build_document(BOUND, RestSettings())["paths"]
    for media in ("application/x-ndjson", "text/event-stream"):
        lines = paths["/v1/memories:export"]["get"]["responses"]["200"]["content"][media]["schema"]["anyOf"]
        assert [line["$ref"].rpartition("/")[2] for line in lines] == ["ExportMemoriesResponse", "StreamFailure"]


def test_no_two_paths_of_openapi_are_the_same_but_for_the_names_of_variables() -> None:
    """OpenAPI calls such paths identical and its tools keep one of them; a dot in a name is beyond some of them."""
    document = build_document(BOUND, RestSettings())
    bare = [re.sub(r"\{[^}]*\}", "{}", path) for path in document["paths"]]
    assert len(bare) == len(set(bare))
    for path, verbs in document["paths"].items():
        names = re.findall(r"\{([^}]*)\}", path)
        assert all(name.isidentifier() for name in names)
        for operation in verbs.values():
            assert sorted(names) == sorted(p["name"] for p in operation["parameters"] if p.get("in") == "path")


def test_the_comments_are_those_of_the_protos() -> None:
    path = ROOT / "scripts/generate_openapi_comments.py"
    spec = importlib.util.spec_from_file_location("generate_openapi_comments", path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert json.loads(script.render()) == COMMENTS


async def test_the_page_needs_nothing_from_elsewhere() -> None:
    async with client_of(Script({})) as client:
        page = await client.get("/docs")
        root = await client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.findall(r"(?:src|href)=.?https?:|@import|\burl\(", page.text)
    assert root.headers["location"] == "/docs"


def test_the_reference_names_every_route() -> None:
    text = (ROOT / "docs/reference/rest.md").read_text(encoding="utf-8")
    ours = [(operation.verb, documented(operation.path)) for operation in (*OPERATIONS, *openai.OPERATIONS)]
    for verb, path in [*((b.verb, b.template) for b in BOUND), *ours]:
        assert f"| `{verb} {path}` |" in text
    for _, reason, _ in HTTP_PROBLEMS.values():
        assert f"`{reason}`" in text
