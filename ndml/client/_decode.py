"""Protobuf to models. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf import timestamp_pb2

from ndml import wire
from ndml.client import _models as models
from ndml.v1 import admin_pb2, chat_pb2, memory_pb2, types_pb2

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
        embedding=models.Embedding(trace.embedding.vector, trace.embedding.model) if trace.HasField("embedding") else None,
    )


def added(response: memory_pb2.AddMemoryResponse) -> models.Added:
    return models.Added(response.trace_id, response.replayed, time(response.learned_at) if response.HasField("learned_at") else None)


def batch_added(response: memory_pb2.BatchAddMemoriesResponse) -> list[models.Added]:
    return [
        models.Added(row.trace_id, row.replayed, error=wire.status_to_error(row.error) if row.HasField("error") else None)
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
    )


def found(response: memory_pb2.SearchMemoriesResponse) -> models.SearchResult:
    hits = tuple(models.Hit(memory(hit.trace), hit.score, {share.signal: share.share for share in hit.signals}) for hit in response.hits)
    return models.SearchResult(hits, stats(response.stats))


def batch_found(response: memory_pb2.BatchSearchMemoriesResponse) -> list[models.SearchResult]:
    return [
        models.SearchResult(error=wire.status_to_error(row.error)) if row.WhichOneof("result") == "error" else found(row.response)
        for row in response.results
    ]


def imported(response: memory_pb2.ImportMemoriesResponse) -> models.ImportResult:
    failures = tuple(models.ImportFailure(row.index, wire.status_to_error(row.error)) for row in response.failures)
    return models.ImportResult(response.imported, response.skipped, response.failed, failures)


def memory_stats(response: memory_pb2.GetMemoryStatsResponse) -> models.MemoryStats:
    return models.MemoryStats(
        traces=response.traces,
        owners=response.owners,
        content_bytes=response.content_bytes,
        resident_traces=response.resident_traces,
        traces_by_kind=dict(response.traces_by_kind),
        dimension=response.dimension,
        embedding_model=response.embedding_model,
    )


def citation(value: chat_pb2.Citation) -> models.Citation:
    return models.Citation(value.number, value.trace_id, value.score, value.text)


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
    members = tuple(models.PlacementMember(row.node_id, row.address, row.zone, state(row.state)) for row in response.members)
    return models.Placement(response.epoch, members, response.replication_factor, tuple(response.owners))


def state(value: admin_pb2.MemberState) -> str:
    known = value in admin_pb2.MemberState.values()
    return admin_pb2.MemberState.Name(value).removeprefix("MEMBER_STATE_").lower() if known else "unspecified"


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
    known = value in chat_pb2.FinishReason.values()
    return chat_pb2.FinishReason.Name(value).removeprefix("FINISH_REASON_").lower() if known else "unspecified"
