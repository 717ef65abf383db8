"""The seed's routes: short JSON for a chat application, each a thin translation to the public services."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeVar, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from starlette.requests import Request
from starlette.responses import Response

from ndml.errors import FieldInvalid, FieldUnknown, RequestMalformed
from ndml.v1 import chat_pb2, memory_pb2, types_pb2
from services.gateway.rest.codec import to_json, to_message, to_tree
from services.gateway.rest.operations import Group, Operation, Route
from services.gateway.rest.ports import Dispatcher, Health
from services.gateway.rest.requests import Bodies, metadata_of, timeout_of, until_gone
from services.gateway.rest.seed_bodies import Body, ChatBody, ChatTurn, ConsolidateBody, QueryBody, UpdateBody
from services.gateway.rest.settings import RestSettings
from services.gateway.rest.streaming import reading, whole_answer

_SEARCH = "/ndml.v1.MemoryService/SearchMemories"
_ADD = "/ndml.v1.MemoryService/AddMemory"
_STATS = "/ndml.v1.MemoryService/GetMemoryStats"
_REINFORCE = "/ndml.v1.MemoryService/ReinforceMemories"
_CONSOLIDATE = "/ndml.v1.MemoryService/ConsolidateMemories"
_CHAT = "/ndml.v1.ChatService/Chat"


_ID = "0197f2c4a1b27c3d8e9f00112233aabb"
_STAMP = "2026-01-31T12:00:00Z"
_HIT = {"content": "Ann is allergic to nuts.", "score": 0.83, "trace_id": _ID, "kind": "TRACE_KIND_EPISODIC"}
_GATE = {"decision": "WRITE_DECISION_NOVEL", "familiarity": 0.19, "novelty_threshold": 0.27, "reason": "familiarity 0.19 is below 0.27"}
_HIT_MORE = {"speaker": "Ann", "said_at": _STAMP, "learned_at": _STAMP, "metadata": {}}

OPERATIONS = (
    Operation(
        "GET", "/health", "health", None, {"status": "healthy", "service": "ndml-gateway", "instance": "a", "version": "1", "uptime_s": 9.5}
    ),
    Operation(
        "POST",
        "/chat",
        "chat",
        ChatBody,
        {
            "response": "No nuts, then.",
            "citations": [{"number": 1, "trace_id": _ID, "score": 0.83, "text": "Ann is allergic to nuts.", "mentioned": True}],
            "finish_reason": "FINISH_REASON_STOP",
            "model": "m",
            "answer_id": "AQGX8sShsnw9jp8AESIzqrvKziOz",
            "usage": {"prompt_tokens": 41, "completion_tokens": 5},
            "user_id": "ann",
            "session_id": "",
        },
    ),
    Operation(
        "POST",
        "/memory/query",
        "query",
        QueryBody,
        {"results": [_HIT | _HIT_MORE], "stats": {"shards_total": 1, "partial": False}, "consistency_token": "c"},
    ),
    Operation(
        "POST",
        "/memory/update",
        "update",
        UpdateBody,
        {"trace_id": _ID, "replayed": False, "learned_at": _STAMP, "consistency_token": "c", "gate": _GATE, "deduplicated": False},
    ),
    Operation(
        "GET",
        "/memory/stats",
        "stats",
        None,
        {
            "user_id": "ann",
            "traces": 12,
            "owners": 1,
            "content_bytes": 834,
            "resident_traces": 12,
            "archived_traces": 0,
            "dimension": 384,
            "traces_by_kind": {"episodic": 12},
            "embedding_model": "all-MiniLM-L6-v2",
        },
        ("user_id",),
    ),
    Operation(
        "POST",
        "/memory/consolidate",
        "consolidate",
        ConsolidateBody,
        {
            "user_id": "ann",
            "clusters_total": 9,
            "clusters_done": 9,
            "merged": 4,
            "rejected": 3,
            "unchanged": 2,
            "done": True,
            "stopped_because": "",
        },
    ),
)

_COUNTS = ("traces", "owners", "content_bytes", "resident_traces", "archived_traces", "dimension")

B = TypeVar("B", bound=Body)


class SeedRoutes:
    """Handlers of /health, /chat and /memory/*."""

    def __init__(self, dispatcher: Dispatcher, settings: RestSettings, health: Health, bodies: Bodies) -> None:
        self._dispatcher = dispatcher
        self._settings = settings
        self._health = health
        self._bodies = bodies

    def routes(self) -> Iterator[Route]:
        """(verb, path, handler) of each route."""
        for operation in OPERATIONS:
            yield operation.verb, operation.path, getattr(self, operation.name)

    async def health(self, _request: Request) -> Response:
        """200 while this gateway serves, 503 while it starts or drains."""
        report = self._health()
        tree = {
            "status": "healthy" if report.serving else "unavailable",
            "service": report.service,
            "instance": report.instance,
            "version": report.version,
            "uptime_s": round(report.uptime_s, 3),
        }
        return _json(tree, 200 if report.serving else 503)

    async def chat(self, request: Request) -> Response:
        """The whole answer at once; POST /v1/chat streams it."""
        body = await self._parse(request, ChatBody)
        timeout_s = self._timeout(request)
        parts = self._dispatcher.stream(_CHAT, _chat_request(body), metadata_of(request), timeout_s)
        text, last = await until_gone(request.receive, whole_answer(parts, timeout_s, self._settings.chat_max_bytes))
        tree = to_tree(last)
        answer = {"response": text, **{key: tree[key] for key in ("citations", "finish_reason", "model", "answer_id")}}
        return _json({**answer, "usage": tree.get("usage"), "user_id": body.user_id, "session_id": body.session_id})

    async def query(self, request: Request) -> Response:
        """Memories nearest to the query, best first."""
        body = await self._parse(request, QueryBody)
        search = memory_pb2.SearchMemoriesRequest(scope=body.scope(), text=body.query, k=body.k, consistency_token=body.consistency_token)
        tree = to_tree(await self._unary(_SEARCH, search, request))
        results = [_hit(hit) for hit in tree["hits"]]
        return _json({"results": results, "stats": tree.get("stats"), "consistency_token": tree["consistency_token"]})

    async def update(self, request: Request) -> Response:
        """Add one memory, or grade what is there: answers with `results`, `credited`, `replayed` and `consistency_token` then."""
        body = await self._parse(request, UpdateBody)
        if body.feedback:
            feedback = [item.message() for item in body.feedback]
            grades = memory_pb2.ReinforceMemoriesRequest(request_id=body.request_id, scope=body.scope(), feedback=feedback)
            return _json(to_tree(await self._unary(_REINFORCE, grades, request)))
        return _json(to_tree(await self._unary(_ADD, _add_request(body), request)))

    async def stats(self, request: Request) -> Response:
        """Counts of one user's memories, or of the tenant's without user_id."""
        users = request.query_params.getlist("user_id")
        unknown = [name for name in request.query_params if name != "user_id"]
        if unknown:
            raise FieldUnknown(f"unknown field: {unknown[0]}; this route takes user_id", field=unknown[0])
        if len(users) > 1:
            raise FieldInvalid("user_id is given twice; give one", field="user_id")
        user = users[0] if users else ""
        answer = await self._unary(_STATS, memory_pb2.GetMemoryStatsRequest(scope=types_pb2.Scope(user=user)), request)
        stats = cast(memory_pb2.GetMemoryStatsResponse, answer)
        # Plain JSON numbers, where protobuf JSON would give 64-bit ones as strings.
        counts = {name: getattr(stats, name) for name in _COUNTS}
        return _json({"user_id": user, **counts, "traces_by_kind": dict(stats.traces_by_kind), "embedding_model": stats.embedding_model})

    async def consolidate(self, request: Request) -> Response:
        """Consolidate one user's memories and say what came of it; POST /v1/memories:consolidate shows it as it goes."""
        body = await self._parse(request, ConsolidateBody)
        timeout_s = self._timeout(request)
        parts = self._dispatcher.stream(_CONSOLIDATE, body.message(), metadata_of(request), timeout_s)
        totals = to_tree(await until_gone(request.receive, _last(parts, timeout_s)))
        del totals["semantic_trace_ids"]  # of the last message alone, which would pass for all of them
        return _json({"user_id": body.user_id, **totals})

    async def _unary(self, method: str, message: Message, request: Request) -> Message:
        return await self._dispatcher.unary(method, message, metadata_of(request), self._timeout(request))

    def _timeout(self, request: Request) -> float | None:
        return timeout_of(request, self._settings.max_timeout_s)

    async def _parse(self, request: Request, model: type[B]) -> B:
        if request.scope["query_string"]:
            raise RequestMalformed(f"{request.url.path} takes its fields in the body, not in the query string")
        return await self._bodies.parsed(request, model)


async def _last(parts: AsyncIterator[Message], timeout_s: float | None) -> Message:
    last: Message = memory_pb2.ConsolidateMemoriesResponse()
    async with reading(parts, timeout_s) as messages:
        async for part in messages:
            last = part
    return last


def _add_request(body: UpdateBody) -> memory_pb2.AddMemoryRequest:
    memory = memory_pb2.NewMemory(
        scope=body.scope(), text=body.content or "", speaker=body.speaker, metadata=body.metadata, protected=body.protected
    )
    if body.said_at is not None:
        memory.said_at.CopyFrom(_instant("said_at", body.said_at))
    if body.expires_at is not None:
        memory.expires_at.CopyFrom(_instant("expires_at", body.expires_at))
    return memory_pb2.AddMemoryRequest(request_id=body.request_id, memory=memory, deduplicate=body.deduplicate)


def _chat_request(body: ChatBody) -> chat_pb2.ChatRequest:
    turns = body.messages or [ChatTurn(content=body.message or "")]
    messages = [chat_pb2.ChatMessage(role=f"ROLE_{turn.role.upper()}", content=turn.content) for turn in turns]
    sampling = chat_pb2.SamplingOptions(max_new_tokens=body.max_tokens, temperature=body.temperature)
    return chat_pb2.ChatRequest(scope=body.scope(), messages=messages, sampling=sampling, recall_k=body.recall_k)


def _hit(hit: dict[str, Any]) -> dict[str, Any]:
    trace = hit["trace"]
    kept = {key: trace.get(key) for key in ("trace_id", "kind", "speaker", "said_at", "learned_at", "metadata")}
    return {"content": trace["text"], "score": hit["score"], **kept}


def _instant(name: str, text: str) -> Timestamp:
    """RFC 3339 as Timestamp. Raises FieldInvalid about `name`, a field of NewMemory."""
    moment: Timestamp = getattr(to_message(cast(Descriptor, memory_pb2.NewMemory.DESCRIPTOR), {name: text}), name)
    return moment


def _json(tree: Any, status: int = 200) -> Response:
    return Response(to_json(tree), status, media_type="application/json")


GROUP = Group("Short routes", "Plain JSON for a chat application; each stands for a call above.", "seed", OPERATIONS, SeedRoutes, "Problem")
