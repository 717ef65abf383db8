"""MemoryService, ChatService, ModelService and AdminService over a dict, behind a real gRPC server on loopback.

It does what the gateway promises (owners apart, request ids, versions, page tokens, consistency tokens, google.rpc errors) with words in
place of vectors: a search scores by shared words. Tests look at `seen` and plant `failures`.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import timestamp_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ndml import __version__, wire
from ndml.errors import (
    CapacityReached,
    FieldInvalid,
    NdmlError,
    PageTokenInvalid,
    RequestIdReused,
    TraceNotFound,
    VersionConflict,
)
from ndml.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    chat_pb2_grpc,
    memory_pb2,
    memory_pb2_grpc,
    model_pb2_grpc,
    types_pb2,
)
from tests.unit.client.talking_servicers import ChatServicer, ModelServicer

Owner = tuple[str, str]


class World:
    """What the three services share."""

    def __init__(self) -> None:
        self.traces: dict[Owner, dict[str, types_pb2.MemoryTrace]] = {}
        self.requests: dict[tuple[Owner, str], tuple[bytes, str]] = {}
        self.feedback: set[str] = set()
        self.answers: dict[str, list[str]] = {}
        self.left = threading.Event()
        self.pause = threading.Event()
        self.pause.set()
        self.seen: list[tuple[str, Any, dict[str, str]]] = []
        self.failures: deque[tuple[str, NdmlError]] = deque()
        self.sequence = 0
        self.read_token = ""  # what reads give, as servers with several copies do
        self.model = ""
        self.hold_s = 0.0
        self.weights: dict[str, float] = {}  # in force: a search then scores by them and by the labels of their names on the traces
        self.clock_skew_s = 0.0

    def calls(self, method: str) -> list[Any]:
        return [request for name, request, _ in self.seen if name == method]

    def enter(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        """Every call comes through here."""
        self.seen.append((method, request, {str(key): str(value) for key, value in context.invocation_metadata()}))
        time.sleep(self.hold_s)
        if self.failures and self.failures[0][0] == method:
            self.abort(context, self.failures.popleft()[1])

    def abort(self, context: grpc.ServicerContext, error: NdmlError) -> None:
        context.abort_with_status(wire.to_grpc_status(error))

    def owner(self, scope: types_pb2.Scope) -> Owner:
        if not scope.user:
            raise FieldInvalid("user is required: say whose memory", field="scope.user")
        return scope.tenant or "default", scope.user

    def token(self) -> str:
        self.sequence += 1
        return f"token-{self.sequence}"

    def now(self) -> timestamp_pb2.Timestamp:
        stamp = timestamp_pb2.Timestamp()
        stamp.FromNanoseconds(int((time.time() + self.clock_skew_s) * 1_000_000) * 1000)
        return stamp

    def gate(self, new: memory_pb2.NewMemory) -> types_pb2.GateDecision:
        """Novel, or a duplicate of the trace with the same words."""
        same = [trace.trace_id for trace in self.traces.get(self.owner(new.scope), {}).values() if trace.text == new.text]
        if not same:
            return types_pb2.GateDecision(decision="WRITE_DECISION_NOVEL", familiarity=0.125, novelty_threshold=0.25, reason="new words")
        return types_pb2.GateDecision(
            decision="WRITE_DECISION_DUPLICATE", similarity=1, nearest_trace_id=same[0], salience=0.5, reason="the same words"
        )

    def store(self, new: memory_pb2.NewMemory, request_id: str) -> tuple[str, bool]:
        owner = self.owner(new.scope)
        if not new.text:
            raise FieldInvalid("text is empty: give 1 to 65,536 bytes", field="memory.text")
        if "over capacity" in new.text:
            raise CapacityReached("the node is full")
        content = new.SerializeToString(deterministic=True)
        if request_id and (owner, request_id) in self.requests:
            known, trace_id = self.requests[owner, request_id]
            if known != content:
                raise RequestIdReused("this request_id stands for another memory: take a new one", field="request_id")
            return trace_id, True
        trace_id = f"{len(self.requests) + sum(map(len, self.traces.values())) + 1:032x}"
        now = self.now()
        trace = types_pb2.MemoryTrace(
            trace_id=trace_id, scope=new.scope, kind=new.kind or types_pb2.TRACE_KIND_EPISODIC, text=new.text, speaker=new.speaker,
            said_at=new.said_at if new.HasField("said_at") else now, learned_at=now, updated_at=now, metadata=dict(new.metadata),
            salience=new.salience, version=1, protected=new.protected, state=types_pb2.LIFECYCLE_STATE_NEW,
            expires_at=new.expires_at if new.HasField("expires_at") else None,
            strength=types_pb2.TraceStrength(strength=0.25, by_timescale=[1, 0.5], stability_days=2),
            history=[types_pb2.TraceEvent(at=now, kind="state", why="written", state=types_pb2.LIFECYCLE_STATE_NEW)],
        )  # fmt: skip
        if new.HasField("provenance"):
            trace.provenance.CopyFrom(new.provenance)
        if new.HasField("embedding"):
            trace.embedding.CopyFrom(new.embedding)
        self.traces.setdefault(owner, {})[trace_id] = trace
        if request_id:
            self.requests[owner, request_id] = content, trace_id
        return trace_id, False

    def find(self, scope: types_pb2.Scope, trace_id: str) -> types_pb2.MemoryTrace:
        trace = self.traces.get(self.owner(scope), {}).get(trace_id)
        if trace is None:
            raise TraceNotFound(f"no trace {trace_id} in this scope: check id and user", metadata={"trace_id": trace_id})
        return trace

    def shown(
        self, trace: types_pb2.MemoryTrace, *, vectors: bool, strength: bool = False, history: bool = False, siblings: bool = False
    ) -> types_pb2.MemoryTrace:
        """A copy without what was not asked for."""
        copy = types_pb2.MemoryTrace()
        copy.CopyFrom(trace)
        for name, wanted in (("embedding", vectors), ("strength", strength), ("history", history), ("siblings", siblings)):
            if not wanted:
                copy.ClearField(name)  # type: ignore[arg-type]
        return copy

    def visible(
        self, scope: types_pb2.Scope, *, vectors: bool, strength: bool = False, archived: bool = False
    ) -> list[types_pb2.MemoryTrace]:
        def fits(trace: types_pb2.MemoryTrace) -> bool:
            return all(
                not wanted or wanted == has for wanted, has in ((scope.agent, trace.scope.agent), (scope.session, trace.scope.session))
            )

        mine = [trace for trace in self.traces.get(self.owner(scope), {}).values() if fits(trace)]
        active = [trace for trace in mine if archived or trace.state != types_pb2.LIFECYCLE_STATE_ARCHIVED]
        return [self.shown(trace, vectors=vectors, strength=strength) for trace in active]

    def grade(self, scope: types_pb2.Scope, trace_id: str, grade: float) -> memory_pb2.ReinforceResult:
        try:
            trace = self.find(scope, trace_id)
        except TraceNotFound as error:
            return memory_pb2.ReinforceResult(trace_id=trace_id, error=wire.error_to_status(error))
        trace.strength.uses += 1
        trace.strength.successes += grade > 0
        trace.strength.failures += grade < 0
        event = types_pb2.TraceEvent(at=self.now(), kind="reinforced", why=f"graded {grade:g}", grade=grade)
        kept = [event, *trace.history]
        del trace.history[:]
        trace.history.extend(kept)
        return memory_pb2.ReinforceResult(trace_id=trace_id, strength=trace.strength)


class MemoryServicer(memory_pb2_grpc.MemoryServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def AddMemory(self, request: memory_pb2.AddMemoryRequest, context: grpc.ServicerContext) -> memory_pb2.AddMemoryResponse:
        gate = self.world.gate(request.memory)
        duplicate = request.deduplicate and gate.decision == types_pb2.WRITE_DECISION_DUPLICATE
        trace_id, replayed = (gate.nearest_trace_id, False) if duplicate else self.world.store(request.memory, request.request_id)
        learned = self.world.traces[self.world.owner(request.memory.scope)][trace_id].learned_at
        return memory_pb2.AddMemoryResponse(
            trace_id=trace_id, replayed=replayed, learned_at=learned, consistency_token=self.world.token(),
            gate=None if replayed else gate, deduplicated=duplicate,
        )  # fmt: skip

    def BatchAddMemories(
        self, request: memory_pb2.BatchAddMemoriesRequest, context: grpc.ServicerContext
    ) -> memory_pb2.BatchAddMemoriesResponse:
        results = []
        for index, new in enumerate(request.memories):
            try:
                gate = self.world.gate(new)
                if request.deduplicate and gate.nearest_trace_id:
                    results.append(memory_pb2.AddResult(trace_id=gate.nearest_trace_id, gate=gate, deduplicated=True))
                    continue
                trace_id, replayed = self.world.store(new, f"{request.request_id}#{index}" if request.request_id else "")
                results.append(memory_pb2.AddResult(trace_id=trace_id, replayed=replayed, gate=None if replayed else gate))
            except CapacityReached as error:
                results.append(memory_pb2.AddResult(error=wire.error_to_status(error)))
        return memory_pb2.BatchAddMemoriesResponse(results=results, consistency_token=self.world.token())

    def SearchMemories(self, request: memory_pb2.SearchMemoriesRequest, context: grpc.ServicerContext) -> memory_pb2.SearchMemoriesResponse:
        if request.k < 0:
            raise FieldInvalid("k is negative: give 0 (10 hits) to 1000", field="k")
        words = set(request.text.lower().split())
        hits = []
        for trace in self.world.visible(request.scope, vectors=request.include_embedding, strength=request.include_strength):
            signals = {"dense": len(words & set(trace.text.lower().split())) / max(1, len(words))}
            if self.world.weights:
                asked = {field.name: value for field, value in request.weights.ListFields()}
                signals = {
                    name: asked.get(name, weight) * float(trace.metadata.get(name, 0)) for name, weight in self.world.weights.items()
                }
                signals = {name: share for name, share in signals.items() if share or name == "dense"}
            if request.weights.salience:
                signals["salience"] = request.weights.salience * trace.salience
            shares = [memory_pb2.SignalShare(signal=name, share=share) for name, share in signals.items()] if request.explain else []
            hits.append(memory_pb2.SearchHit(trace=trace, score=sum(signals.values()), signals=shares))
        hits.sort(key=lambda hit: -hit.score)
        stats = types_pb2.SearchStats(shards_total=1, shards_answered=1, traces_in_scope=len(hits), index="words")
        return memory_pb2.SearchMemoriesResponse(hits=hits[: request.k or 10], stats=stats, consistency_token=self.world.read_token)

    def BatchSearchMemories(
        self, request: memory_pb2.BatchSearchMemoriesRequest, context: grpc.ServicerContext
    ) -> memory_pb2.BatchSearchMemoriesResponse:
        results = []
        for search in request.searches:
            try:
                results.append(memory_pb2.BatchSearchResult(response=self.SearchMemories(search, context)))
            except NdmlError as error:
                results.append(memory_pb2.BatchSearchResult(error=wire.error_to_status(error)))
        return memory_pb2.BatchSearchMemoriesResponse(results=results)

    def GetMemory(self, request: memory_pb2.GetMemoryRequest, context: grpc.ServicerContext) -> memory_pb2.GetMemoryResponse:
        trace = self.world.find(request.scope, request.trace_id)
        wanted = {"strength": request.include_strength, "history": request.include_history, "siblings": request.include_siblings}
        shown = self.world.shown(trace, vectors=request.include_embedding, **wanted)
        return memory_pb2.GetMemoryResponse(trace=shown, consistency_token=self.world.read_token)

    def ListMemories(self, request: memory_pb2.ListMemoriesRequest, context: grpc.ServicerContext) -> memory_pb2.ListMemoriesResponse:
        if request.page_token and not request.page_token.isdecimal():
            raise PageTokenInvalid("not a page token of this server", field="page_token")
        traces = self.world.visible(request.scope, vectors=request.include_embedding, archived=request.include_archived)[::-1]
        start, size = int(request.page_token or 0), request.page_size or 50
        more = str(start + size) if start + size < len(traces) else ""
        page = traces[start : start + size]
        return memory_pb2.ListMemoriesResponse(traces=page, next_page_token=more, consistency_token=self.world.read_token)

    def UpdateMemory(self, request: memory_pb2.UpdateMemoryRequest, context: grpc.ServicerContext) -> memory_pb2.UpdateMemoryResponse:
        trace = self.world.find(request.trace.scope, request.trace.trace_id)
        if request.expected_version and request.expected_version != trace.version:
            raise VersionConflict(f"the trace has version {trace.version}: read it again", field="expected_version")
        for path in request.update_mask.paths:
            trace.ClearField(path)  # type: ignore[arg-type]
        changed = types_pb2.MemoryTrace()
        request.update_mask.MergeMessage(request.trace, changed)
        trace.MergeFrom(changed)
        trace.version += 1
        trace.updated_at.CopyFrom(self.world.now())
        return memory_pb2.UpdateMemoryResponse(trace=trace, consistency_token=self.world.token())

    def DeleteMemory(self, request: memory_pb2.DeleteMemoryRequest, context: grpc.ServicerContext) -> memory_pb2.DeleteMemoryResponse:
        try:
            self.world.find(request.scope, request.trace_id)
        except TraceNotFound:
            if not request.allow_missing:
                raise
            return memory_pb2.DeleteMemoryResponse(deleted=False)
        del self.world.traces[self.world.owner(request.scope)][request.trace_id]
        return memory_pb2.DeleteMemoryResponse(deleted=True, consistency_token=self.world.token())

    def ResolveConflict(
        self, request: memory_pb2.ResolveConflictRequest, context: grpc.ServicerContext
    ) -> memory_pb2.ResolveConflictResponse:
        trace = self.world.find(request.scope, request.trace_id)
        beside = {sibling.sibling_id: sibling for sibling in trace.siblings}
        if request.sibling_id and request.sibling_id not in beside:
            raise FieldInvalid(f"no sibling {request.sibling_id!r}: {', '.join(beside)}", field="sibling_id")
        if request.sibling_id:
            trace.text = beside[request.sibling_id].trace.text
        trace.ClearField("siblings")
        trace.version += 1
        return memory_pb2.ResolveConflictResponse(trace=trace, consistency_token=self.world.token())

    def ReinforceMemories(
        self, request: memory_pb2.ReinforceMemoriesRequest, context: grpc.ServicerContext
    ) -> memory_pb2.ReinforceMemoriesResponse:
        replayed = request.request_id in self.world.feedback
        self.world.feedback.add(request.request_id)
        results = []
        for feedback in request.feedback:
            cited = self.world.answers.get(feedback.answer_id, []) if feedback.answer_id else [feedback.trace_id]
            if not cited:
                raise FieldInvalid("not an answer id of this suite", field="feedback[0].answer_id")
            results += [self.world.grade(request.scope, trace_id, feedback.grade) for trace_id in cited if not replayed]
        return memory_pb2.ReinforceMemoriesResponse(
            results=results, credited=2 * len(results), replayed=replayed, consistency_token=self.world.token()
        )

    def ForgetScope(
        self, request: memory_pb2.ForgetScopeRequest, context: grpc.ServicerContext
    ) -> Iterator[memory_pb2.ForgetScopeResponse]:
        erased = 0
        for trace in self.world.visible(request.scope, vectors=False, archived=True):
            del self.world.traces[self.world.owner(trace.scope)][trace.trace_id]
            erased += 1
            yield memory_pb2.ForgetScopeResponse(erased=erased, consistency_token=self.world.token())
        yield memory_pb2.ForgetScopeResponse(erased=erased, done=True, consistency_token=self.world.token())

    def ConsolidateMemories(
        self, request: memory_pb2.ConsolidateMemoriesRequest, context: grpc.ServicerContext
    ) -> Iterator[memory_pb2.ConsolidateMemoriesResponse]:
        context.add_callback(self.world.left.set)
        yield memory_pb2.ConsolidateMemoriesResponse(clusters_total=3, clusters_done=1, merged=1, semantic_trace_ids=["a" * 32])
        self.world.pause.wait(10)
        yield memory_pb2.ConsolidateMemoriesResponse(
            clusters_total=3, clusters_done=3, merged=1, rejected=1, unchanged=1, done=True, stopped_because="dry" * request.dry_run
        )

    def ExportMemories(
        self, request: memory_pb2.ExportMemoriesRequest, context: grpc.ServicerContext
    ) -> Iterator[memory_pb2.ExportMemoriesResponse]:
        traces = self.world.visible(request.scope, vectors=request.include_embedding)
        for start in range(0, len(traces), 2):
            yield memory_pb2.ExportMemoriesResponse(traces=traces[start : start + 2], total=len(traces))

    def ImportMemories(
        self, requests: Iterator[memory_pb2.ImportMemoriesRequest], context: grpc.ServicerContext
    ) -> memory_pb2.ImportMemoriesResponse:
        result, position = memory_pb2.ImportMemoriesResponse(), itertools.count()
        for request in requests:
            self.world.seen.append(("ImportMemories.part", request, {}))
            for trace, index in zip(request.traces, position):  # noqa: B905 (the counter has no end)
                there = self.world.traces.setdefault(self.world.owner(trace.scope), {})
                if not trace.text:
                    result.failed += 1
                    failure = wire.error_to_status(FieldInvalid("text is empty", field="text"))
                    result.failures.append(memory_pb2.ImportFailure(index=index, error=failure))
                elif trace.trace_id in there:
                    result.skipped += 1
                else:
                    trace.state = types_pb2.LIFECYCLE_STATE_NEW
                    there[trace.trace_id] = trace
                    result.imported += 1
        return result

    def GetProfile(self, request: memory_pb2.GetProfileRequest, context: grpc.ServicerContext) -> memory_pb2.GetProfileResponse:
        """Each trace a residence, the last one holding: enough for what a client makes of an answer."""
        traces = self.world.visible(request.scope, vectors=False)
        response = memory_pb2.GetProfileResponse(traces_read=len(traces), consistency_token=self.world.read_token)
        if traces:
            replaced = [trace.trace_id for trace in traces[-2::-1]]
            made = response.properties.add(whose="ann", kind="residence", trace=traces[-1], replaced_trace_ids=replaced)
            made.since.CopyFrom(traces[-1].learned_at)
        return response

    def GetMemoryStats(self, request: memory_pb2.GetMemoryStatsRequest, context: grpc.ServicerContext) -> memory_pb2.GetMemoryStatsResponse:
        tenant = request.scope.tenant or "default"
        owners = [owner for owner in self.world.traces if owner[0] == tenant and request.scope.user in ("", owner[1])]
        traces = [trace for owner in owners for trace in self.world.traces[owner].values()]
        return memory_pb2.GetMemoryStatsResponse(
            traces=len(traces), owners=len(owners), content_bytes=sum(len(t.text.encode()) for t in traces),
            resident_traces=len(traces), traces_by_kind={"episodic": len(traces)}, dimension=4, embedding_model="words",
            archived_traces=sum(trace.state == types_pb2.LIFECYCLE_STATE_ARCHIVED for trace in traces),
        )  # fmt: skip


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def GetClusterStatus(
        self, request: admin_pb2.GetClusterStatusRequest, context: grpc.ServicerContext
    ) -> admin_pb2.GetClusterStatusResponse:
        row = admin_pb2.ServiceStatus(service="ndml-gateway", instance="dict", address="127.0.0.1", reachable=True, version=__version__)
        row.uptime.FromSeconds(90)
        return admin_pb2.GetClusterStatusResponse(services=[row], epoch=7, healthy=True)

    def GetPlacement(self, request: admin_pb2.GetPlacementRequest, context: grpc.ServicerContext) -> admin_pb2.GetPlacementResponse:
        member = admin_pb2.PlacementMember(node_id="n0", address="127.0.0.1:1", zone="a", state="MEMBER_STATE_ALIVE", phase=1)
        return admin_pb2.GetPlacementResponse(epoch=7, members=[member], replication_factor=1, owners=["n0"] if request.user else [])

    def DrainNode(self, request: admin_pb2.DrainNodeRequest, context: grpc.ServicerContext) -> Iterator[admin_pb2.DrainNodeResponse]:
        if request.node_id != "n0":
            raise FieldInvalid(f"no memory node {request.node_id!r}: members are n0", field="node_id")
        for left in (2, 1):
            yield admin_pb2.DrainNodeResponse(phase=admin_pb2.MEMBER_PHASE_LEAVING, owners_left=left, owners_total=2)
        yield admin_pb2.DrainNodeResponse(phase=admin_pb2.MEMBER_PHASE_LEFT, owners_total=2)

    def Backup(self, request: admin_pb2.BackupRequest, context: grpc.ServicerContext) -> Iterator[admin_pb2.BackupResponse]:
        for done, ((tenant, user), traces) in enumerate(sorted(self.world.traces.items()), 1):
            records = [trace.SerializeToString() for trace in traces.values()]
            part = admin_pb2.BackupPart(tenant=tenant, user=user, records=records, owner_records=len(records))
            yield admin_pb2.BackupResponse(part=part, owners_done=done, owners_total=len(self.world.traces))

    def Restore(self, requests: Iterator[admin_pb2.RestoreRequest], context: grpc.ServicerContext) -> admin_pb2.RestoreResponse:
        response = admin_pb2.RestoreResponse()
        for request in requests:
            part = request.part
            there = self.world.traces.setdefault((part.tenant, part.user), {})
            given = [types_pb2.MemoryTrace.FromString(record) for record in part.records]
            response.changed += sum(trace.trace_id not in there for trace in given)
            response.verified += all(there.get(trace.trace_id, trace) == trace for trace in given)
            there |= {trace.trace_id: trace for trace in given if trace.trace_id not in there}
            response.owners += 1
            response.records += len(given)
        return response

    def CreateSnapshot(self, request: admin_pb2.CreateSnapshotRequest, context: grpc.ServicerContext) -> admin_pb2.CreateSnapshotResponse:
        info = admin_pb2.SnapshotInfo(node_id="n0", path="/snapshots/1", size_bytes=12, traces=1, sha256="00", created_at=self.world.now())
        return admin_pb2.CreateSnapshotResponse(snapshots=[info])


class Guard(grpc.ServerInterceptor):
    """Counts every call in, and turns what a servicer raises into google.rpc.Status."""

    def __init__(self, world: World) -> None:
        self.world = world

    def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        handler = continuation(details)
        if handler is None or not details.method.startswith("/ndml."):
            return handler
        name = details.method.rpartition("/")[2]
        inner = handler.unary_unary or handler.unary_stream or handler.stream_unary

        def one(request: Any, context: grpc.ServicerContext) -> Any:
            self.world.enter(name, request, context)
            try:
                return inner(request, context)
            except NdmlError as error:
                self.world.abort(context, error)

        def many(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            self.world.enter(name, request, context)
            try:
                yield from inner(request, context)
            except NdmlError as error:
                self.world.abort(context, error)

        make = (
            grpc.unary_stream_rpc_method_handler if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler if handler.request_streaming
            else grpc.unary_unary_rpc_method_handler
        )  # fmt: skip
        return make(many if handler.response_streaming else one, handler.request_deserializer, handler.response_serializer)


class MemoryServer:
    """Starts at once; `address` is where it listens. `stop`, then `start` again on the same port."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.world = World()
        self.port = 0
        self._credentials = credentials
        self.start()

    def start(self) -> None:
        server = grpc.server(ThreadPoolExecutor(8), interceptors=[Guard(self.world)], options=[("grpc.so_reuseport", 0)])
        memory_pb2_grpc.add_MemoryServiceServicer_to_server(MemoryServicer(self.world), server)
        chat_pb2_grpc.add_ChatServiceServicer_to_server(ChatServicer(self.world), server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(self.world), server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(AdminServicer(self.world), server)
        healthy = health.HealthServicer()
        healthy.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        names = [f"ndml.v1.{name}Service" for name in ("Memory", "Chat", "Model", "Admin")]
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
        address = f"127.0.0.1:{self.port}"
        self.port = server.add_secure_port(address, self._credentials) if self._credentials else server.add_insecure_port(address)
        server.start()
        self._server = server

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.stop(None).wait()
