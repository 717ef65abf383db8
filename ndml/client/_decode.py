"""Protobuf to models. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf import timestamp_pb2

from ndml import wire
from ndml.client import _dynamics as dynamics
from ndml.client import _models as models
from ndml.client._contents import Content, Embedding
from ndml.v1 import admin_pb2, chat_pb2, memory_pb2, model_pb2, types_pb2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS = {
    types_pb2.TRACE_KIND_EPISODIC: models.Kind.EPISODIC,
    types_pb2.TRACE_KIND_SEMANTIC: models.Kind.SEMANTIC,
    types_pb2.TRACE_KIND_PROCEDURAL: models.Kind.PROCEDURAL,
}


def time(value: timestamp_pb2.Timestamp) -> datetime:
    """Aware, UTC, cut to microseconds."""
    return _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)


def kind(value: types_pb2.TraceKind) -> models.Kind:
    """The kind; one that a newer server knows and this client does not reads as episodic, the server's own default."""
    return _KINDS.get(value, models.Kind.EPISODIC)


def word(enum: Any, prefix: str, value: int) -> str:
    """The name of an enum's value without its prefix, in lower case; "unspecified" for one that only a newer server knows."""
    return str(enum.Name(value)).removeprefix(prefix).lower() if value in enum.values() else "unspecified"


def gate(value: types_pb2.GateDecision) -> dynamics.GateDecision:
    return dynamics.GateDecision(
        decision=dynamics.WriteDecision(word(types_pb2.WriteDecision, "WRITE_DECISION_", value.decision)),
        reason=value.reason,
        familiarity=value.familiarity if value.HasField("familiarity") else None,
        novelty_threshold=value.novelty_threshold,
        similarity=value.similarity if value.HasField("similarity") else None,
        nearest_trace_id=value.nearest_trace_id,
        calcium=value.calcium,
        plateau=value.plateau,
        encoding_strength=value.encoding_strength,
        salience=value.salience,
    )


def lifecycle(value: types_pb2.LifecycleState) -> dynamics.LifecycleState:
    return dynamics.LifecycleState(word(types_pb2.LifecycleState, "LIFECYCLE_STATE_", value))


def strength(value: types_pb2.TraceStrength) -> dynamics.Strength:
    return dynamics.Strength(
        strength=value.strength,
        by_timescale=tuple(value.by_timescale),
        stability_days=value.stability_days,
        difficulty=value.difficulty,
        retrievability=value.retrievability,
        tag=value.tag,
        captured=value.captured,
        credit=value.credit,
        uses=value.uses,
        successes=value.successes,
        failures=value.failures,
        last_graded_at=time(value.last_graded_at) if value.HasField("last_graded_at") else None,
    )


def event(value: types_pb2.TraceEvent) -> dynamics.TraceEvent:
    at = time(value.at) if value.HasField("at") else None
    return dynamics.TraceEvent(at, value.kind, value.why, lifecycle(value.state), value.grade)


def link(value: types_pb2.TraceLink) -> dynamics.Link:
    kind = dynamics.LinkType(word(types_pb2.LinkType, "LINK_TYPE_", value.type))
    return dynamics.Link(kind, value.trace_id, value.weight, value.evidence)


def memory(trace: types_pb2.MemoryTrace) -> models.Memory:
    return models.Memory(
        trace_id=trace.trace_id,
        scope=models.Scope(trace.scope.user, trace.scope.agent, trace.scope.session, trace.scope.tenant),
        text=trace.text,
        kind=kind(trace.kind),
        speaker=trace.speaker,
        said_at=time(trace.said_at) if trace.HasField("said_at") else None,
        learned_at=time(trace.learned_at) if trace.HasField("learned_at") else None,
        updated_at=time(trace.updated_at) if trace.HasField("updated_at") else None,
        metadata=dict(trace.metadata),
        salience=trace.salience,
        provenance=models.Provenance(trace.provenance.source, trace.provenance.trust) if trace.HasField("provenance") else None,
        version=trace.version,
        embedding=embedding(trace.embedding) if trace.HasField("embedding") else None,
        gate=gate(trace.gate) if trace.HasField("gate") else None,
        state=lifecycle(trace.state),
        strength=strength(trace.strength) if trace.HasField("strength") else None,
        protected=trace.protected,
        expires_at=time(trace.expires_at) if trace.HasField("expires_at") else None,
        history=tuple(event(each) for each in trace.history),
        links=tuple(link(each) for each in trace.links),
        siblings=tuple(sibling(each) for each in trace.siblings),
        valid_from=time(trace.valid_from) if trace.HasField("valid_from") else None,
        valid_until=time(trace.valid_until) if trace.HasField("valid_until") else None,
        contents=tuple(content(each) for each in trace.contents),
    )


def content(value: types_pb2.Content) -> Content:
    embeddings = tuple(embedding(each) for each in value.embeddings)
    return Content(value.media_type, value.data, value.uri, value.text, embeddings, value.data_bytes)


def sibling(value: types_pb2.TraceSibling) -> models.Sibling:
    return models.Sibling(value.sibling_id, memory(value.trace), value.node_id, value.shown, value.support)


def added(response: memory_pb2.AddMemoryResponse) -> models.Added:
    return models.Added(
        trace_id=response.trace_id,
        replayed=response.replayed,
        learned_at=time(response.learned_at) if response.HasField("learned_at") else None,
        gate=gate(response.gate) if response.HasField("gate") else None,
        deduplicated=response.deduplicated,
    )


def batch_added(response: memory_pb2.BatchAddMemoriesResponse) -> list[models.Added]:
    return [
        models.Added(
            trace_id=row.trace_id,
            replayed=row.replayed,
            error=wire.status_to_error(row.error) if row.HasField("error") else None,
            gate=gate(row.gate) if row.HasField("gate") else None,
            deduplicated=row.deduplicated,
        )
        for row in response.results
    ]


def stats(value: types_pb2.SearchStats) -> models.SearchStats:
    spent = value.timings
    return models.SearchStats(
        shards_total=value.shards_total,
        shards_answered=value.shards_answered,
        partial=value.partial,
        traces_in_scope=value.traces_in_scope,
        index=value.index,
        embed_ms=spent.embed_ms,
        queue_ms=spent.queue_ms,
        index_ms=spent.index_ms,
        fetch_ms=spent.fetch_ms,
        total_ms=spent.total_ms,
        lexical_ms=spent.lexical_ms,
        late_ms=spent.late_ms,
        fuse_ms=spent.fuse_ms,
        node_profile=word(types_pb2.NodeProfile, "NODE_PROFILE_", value.node_profile),
        confidence=value.confidence if value.HasField("confidence") else None,
    )


def episode(value: memory_pb2.Episode) -> models.Episode:
    return models.Episode(value.episode_id, time(value.first_said_at), time(value.last_said_at), value.turns)


def found(response: memory_pb2.SearchMemoriesResponse) -> models.SearchResult:
    hits = tuple(
        models.Hit(
            memory(hit.trace),
            hit.score,
            {share.signal: share.share for share in hit.signals},
            hit.similarity,
            before=tuple(map(memory, hit.before)),
            after=tuple(map(memory, hit.after)),
            ancestors=tuple(map(memory, hit.ancestors)),
            episode=episode(hit.episode) if hit.HasField("episode") else None,
        )
        for hit in response.hits
    )
    return models.SearchResult(hits, stats(response.stats))


def batch_found(response: memory_pb2.BatchSearchMemoriesResponse) -> list[models.SearchResult]:
    return [
        models.SearchResult(error=wire.status_to_error(row.error)) if row.WhichOneof("result") == "error" else found(row.response)
        for row in response.results
    ]


def imported(response: memory_pb2.ImportMemoriesResponse) -> models.ImportResult:
    failures = tuple(models.ImportFailure(row.index, wire.status_to_error(row.error)) for row in response.failures)
    return models.ImportResult(response.imported, response.skipped, response.failed, failures)


def profile(response: memory_pb2.GetProfileResponse) -> models.Profile:
    properties = tuple(
        models.ProfileProperty(each.whose, each.kind, each.what, memory(each.trace), time(each.since), tuple(each.replaced_trace_ids))
        for each in response.properties
    )
    return models.Profile(properties, response.traces_read, response.partial)


def memory_stats(response: memory_pb2.GetMemoryStatsResponse) -> models.MemoryStats:
    return models.MemoryStats(
        traces=response.traces,
        owners=response.owners,
        content_bytes=response.content_bytes,
        resident_traces=response.resident_traces,
        traces_by_kind=dict(response.traces_by_kind),
        dimension=response.dimension,
        embedding_model=response.embedding_model,
        archived_traces=response.archived_traces,
    )


def reinforced(response: memory_pb2.ReinforceMemoriesResponse) -> dynamics.Reinforced:
    results = tuple(
        dynamics.Graded(
            trace_id=row.trace_id,
            strength=strength(row.strength) if row.HasField("strength") else None,
            error=wire.status_to_error(row.error) if row.HasField("error") else None,
        )
        for row in response.results
    )
    return dynamics.Reinforced(results, response.credited, response.replayed)


def progress(message: memory_pb2.ConsolidateMemoriesResponse) -> dynamics.ConsolidationProgress:
    return dynamics.ConsolidationProgress(
        clusters_total=message.clusters_total,
        clusters_done=message.clusters_done,
        merged=message.merged,
        rejected=message.rejected,
        unchanged=message.unchanged,
        semantic_trace_ids=tuple(message.semantic_trace_ids),
        done=message.done,
        stopped_because=message.stopped_because,
    )


def citation(value: chat_pb2.Citation) -> models.Citation:
    return models.Citation(value.number, value.trace_id, value.score, value.text, value.mentioned)


def tool_call(value: chat_pb2.ToolCall) -> models.ToolCall:
    return models.ToolCall(value.id, value.name, value.arguments_json)


def fusion(value: chat_pb2.FusionWay) -> str:
    """Empty where no memory was read."""
    return word(chat_pb2.FusionWay, "FUSION_WAY_", value) if value else ""


def models_listed(response: model_pb2.ListModelsResponse) -> list[models.ModelInfo]:
    return [
        models.ModelInfo(row.id, word(model_pb2.ModelPurpose, "MODEL_PURPOSE_", row.purpose), row.dimension, row.max_tokens)
        for row in response.models
    ]


def embedding(value: types_pb2.Embedding) -> Embedding:
    return Embedding(value.vector, value.model, value.word_vectors)


def embedded(response: model_pb2.EmbedTextsResponse) -> list[Embedding]:
    return [Embedding(vector, response.model) for vector in response.embeddings]


def cluster(response: admin_pb2.GetClusterStatusResponse) -> models.ClusterStatus:
    services = tuple(
        models.ServiceStatus(
            service=row.service,
            instance=row.instance,
            address=row.address,
            reachable=row.reachable,
            error=row.error,
            version=row.version,
            uptime=row.uptime.ToTimedelta(),
            details=dict(row.details),
        )
        for row in response.services
    )
    return models.ClusterStatus(services, response.epoch, response.healthy)


def placement(response: admin_pb2.GetPlacementResponse) -> models.Placement:
    members = tuple(
        models.PlacementMember(row.node_id, row.address, row.zone, state(row.state), phase(row.phase)) for row in response.members
    )
    return models.Placement(response.epoch, members, response.replication_factor, tuple(response.owners))


def state(value: admin_pb2.MemberState) -> str:
    return word(admin_pb2.MemberState, "MEMBER_STATE_", value)


def phase(value: admin_pb2.MemberPhase) -> str:
    """Of a server that knows no phases every member is active."""
    return word(admin_pb2.MemberPhase, "MEMBER_PHASE_", value) if value else "active"


def drain(message: admin_pb2.DrainNodeResponse) -> models.DrainProgress:
    return models.DrainProgress(phase(message.phase), message.owners_left, message.owners_total)


def restored(response: admin_pb2.RestoreResponse) -> models.RestoreResult:
    return models.RestoreResult(response.owners, response.changed, response.records, response.verified)


def snapshots(response: admin_pb2.CreateSnapshotResponse) -> list[models.Snapshot]:
    return [
        models.Snapshot(
            node_id=row.node_id,
            path=row.path,
            size_bytes=row.size_bytes,
            traces=row.traces,
            sha256=row.sha256,
            created_at=time(row.created_at) if row.HasField("created_at") else None,
        )
        for row in response.snapshots
    ]


def finish_reason(value: chat_pb2.FinishReason) -> str:
    return word(chat_pb2.FinishReason, "FINISH_REASON_", value)
