import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from ndml.internal.v1 import replication_pb2 as _replication_pb2
from ndml.v1 import admin_pb2 as _admin_pb2
from ndml.v1 import memory_pb2 as _memory_pb2
from ndml.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExecuteRequest(_message.Message):
    __slots__ = ("batch_id", "epoch", "operations")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    batch_id: int
    epoch: int
    operations: _containers.RepeatedCompositeFieldContainer[Operation]
    def __init__(self, batch_id: _Optional[int] = ..., epoch: _Optional[int] = ..., operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ...) -> None: ...

class ExecuteResponse(_message.Message):
    __slots__ = ("batch_id", "results", "replica")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    batch_id: int
    results: _containers.RepeatedCompositeFieldContainer[OperationResult]
    replica: int
    def __init__(self, batch_id: _Optional[int] = ..., results: _Optional[_Iterable[_Union[OperationResult, _Mapping]]] = ..., replica: _Optional[int] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("tenant", "user", "traceparent", "deadline_ms", "seen", "want_update", "want_heads", "put", "search", "get", "list", "update", "delete", "stats", "reinforce", "merge", "resolve", "record")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    WANT_UPDATE_FIELD_NUMBER: _ClassVar[int]
    WANT_HEADS_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    GET_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    REINFORCE_FIELD_NUMBER: _ClassVar[int]
    MERGE_FIELD_NUMBER: _ClassVar[int]
    RESOLVE_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    user: str
    traceparent: str
    deadline_ms: int
    seen: _containers.RepeatedCompositeFieldContainer[_replication_pb2.Head]
    want_update: bool
    want_heads: bool
    put: PutAction
    search: SearchAction
    get: GetAction
    list: ListAction
    update: UpdateAction
    delete: DeleteAction
    stats: StatsAction
    reinforce: ReinforceAction
    merge: MergeAction
    resolve: ResolveAction
    record: RecordAction
    def __init__(self, tenant: _Optional[str] = ..., user: _Optional[str] = ..., traceparent: _Optional[str] = ..., deadline_ms: _Optional[int] = ..., seen: _Optional[_Iterable[_Union[_replication_pb2.Head, _Mapping]]] = ..., want_update: _Optional[bool] = ..., want_heads: _Optional[bool] = ..., put: _Optional[_Union[PutAction, _Mapping]] = ..., search: _Optional[_Union[SearchAction, _Mapping]] = ..., get: _Optional[_Union[GetAction, _Mapping]] = ..., list: _Optional[_Union[ListAction, _Mapping]] = ..., update: _Optional[_Union[UpdateAction, _Mapping]] = ..., delete: _Optional[_Union[DeleteAction, _Mapping]] = ..., stats: _Optional[_Union[StatsAction, _Mapping]] = ..., reinforce: _Optional[_Union[ReinforceAction, _Mapping]] = ..., merge: _Optional[_Union[MergeAction, _Mapping]] = ..., resolve: _Optional[_Union[ResolveAction, _Mapping]] = ..., record: _Optional[_Union[RecordAction, _Mapping]] = ...) -> None: ...

class OperationResult(_message.Message):
    __slots__ = ("error", "put", "search", "trace", "list", "delete", "stats", "reinforce", "merge", "record", "busy_ms", "update", "more_updates", "heads")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    REINFORCE_FIELD_NUMBER: _ClassVar[int]
    MERGE_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    BUSY_MS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    MORE_UPDATES_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    error: _status_pb2.Status
    put: PutResult
    search: SearchResult
    trace: TraceResult
    list: ListResult
    delete: DeleteResult
    stats: _memory_pb2.GetMemoryStatsResponse
    reinforce: ReinforceActionResult
    merge: MergeResult
    record: RecordResult
    busy_ms: float
    update: _replication_pb2.OwnerUpdate
    more_updates: _containers.RepeatedCompositeFieldContainer[_replication_pb2.OwnerUpdate]
    heads: _containers.RepeatedCompositeFieldContainer[_replication_pb2.Head]
    def __init__(self, error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., put: _Optional[_Union[PutResult, _Mapping]] = ..., search: _Optional[_Union[SearchResult, _Mapping]] = ..., trace: _Optional[_Union[TraceResult, _Mapping]] = ..., list: _Optional[_Union[ListResult, _Mapping]] = ..., delete: _Optional[_Union[DeleteResult, _Mapping]] = ..., stats: _Optional[_Union[_memory_pb2.GetMemoryStatsResponse, _Mapping]] = ..., reinforce: _Optional[_Union[ReinforceActionResult, _Mapping]] = ..., merge: _Optional[_Union[MergeResult, _Mapping]] = ..., record: _Optional[_Union[RecordResult, _Mapping]] = ..., busy_ms: _Optional[float] = ..., update: _Optional[_Union[_replication_pb2.OwnerUpdate, _Mapping]] = ..., more_updates: _Optional[_Iterable[_Union[_replication_pb2.OwnerUpdate, _Mapping]]] = ..., heads: _Optional[_Iterable[_Union[_replication_pb2.Head, _Mapping]]] = ...) -> None: ...

class PutAction(_message.Message):
    __slots__ = ("traces", "skip_existing", "deduplicate")
    TRACES_FIELD_NUMBER: _ClassVar[int]
    SKIP_EXISTING_FIELD_NUMBER: _ClassVar[int]
    DEDUPLICATE_FIELD_NUMBER: _ClassVar[int]
    traces: _containers.RepeatedCompositeFieldContainer[_types_pb2.MemoryTrace]
    skip_existing: bool
    deduplicate: bool
    def __init__(self, traces: _Optional[_Iterable[_Union[_types_pb2.MemoryTrace, _Mapping]]] = ..., skip_existing: _Optional[bool] = ..., deduplicate: _Optional[bool] = ...) -> None: ...

class PutResult(_message.Message):
    __slots__ = ("outcomes", "sequence")
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[PutOutcome]
    sequence: int
    def __init__(self, outcomes: _Optional[_Iterable[_Union[PutOutcome, _Mapping]]] = ..., sequence: _Optional[int] = ...) -> None: ...

class PutOutcome(_message.Message):
    __slots__ = ("existed", "learned_at", "error", "gate", "duplicate_of")
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    LEARNED_AT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_OF_FIELD_NUMBER: _ClassVar[int]
    existed: bool
    learned_at: _timestamp_pb2.Timestamp
    error: _status_pb2.Status
    gate: _types_pb2.GateDecision
    duplicate_of: str
    def __init__(self, existed: _Optional[bool] = ..., learned_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., gate: _Optional[_Union[_types_pb2.GateDecision, _Mapping]] = ..., duplicate_of: _Optional[str] = ...) -> None: ...

class SearchAction(_message.Message):
    __slots__ = ("vectors", "k", "agent", "session", "filter", "min_score", "include_embedding", "explain", "weights", "include_strength", "texts", "mode", "neighbours", "ancestors", "diversity", "max_tokens", "episode", "space", "dimension", "include_data", "node_profile")
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_STRENGTH_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    ANCESTORS_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_DATA_FIELD_NUMBER: _ClassVar[int]
    NODE_PROFILE_FIELD_NUMBER: _ClassVar[int]
    vectors: bytes
    k: int
    agent: str
    session: str
    filter: _types_pb2.Filter
    min_score: float
    include_embedding: bool
    explain: bool
    weights: _types_pb2.RankingWeights
    include_strength: bool
    texts: _containers.RepeatedCompositeFieldContainer[QueryText]
    mode: _types_pb2.SearchMode
    neighbours: int
    ancestors: int
    diversity: float
    max_tokens: int
    episode: bool
    space: str
    dimension: int
    include_data: bool
    node_profile: _types_pb2.NodeProfile
    def __init__(self, vectors: _Optional[bytes] = ..., k: _Optional[int] = ..., agent: _Optional[str] = ..., session: _Optional[str] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., min_score: _Optional[float] = ..., include_embedding: _Optional[bool] = ..., explain: _Optional[bool] = ..., weights: _Optional[_Union[_types_pb2.RankingWeights, _Mapping]] = ..., include_strength: _Optional[bool] = ..., texts: _Optional[_Iterable[_Union[QueryText, _Mapping]]] = ..., mode: _Optional[_Union[_types_pb2.SearchMode, str]] = ..., neighbours: _Optional[int] = ..., ancestors: _Optional[int] = ..., diversity: _Optional[float] = ..., max_tokens: _Optional[int] = ..., episode: _Optional[bool] = ..., space: _Optional[str] = ..., dimension: _Optional[int] = ..., include_data: _Optional[bool] = ..., node_profile: _Optional[_Union[_types_pb2.NodeProfile, str]] = ...) -> None: ...

class QueryText(_message.Message):
    __slots__ = ("text", "word_vectors")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WORD_VECTORS_FIELD_NUMBER: _ClassVar[int]
    text: str
    word_vectors: bytes
    def __init__(self, text: _Optional[str] = ..., word_vectors: _Optional[bytes] = ...) -> None: ...

class SearchResult(_message.Message):
    __slots__ = ("responses",)
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, responses: _Optional[_Iterable[bytes]] = ...) -> None: ...

class GetAction(_message.Message):
    __slots__ = ("trace_id", "include_embedding", "include_strength", "include_history", "include_siblings", "include_data")
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_STRENGTH_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_HISTORY_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_SIBLINGS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_DATA_FIELD_NUMBER: _ClassVar[int]
    trace_id: str
    include_embedding: bool
    include_strength: bool
    include_history: bool
    include_siblings: bool
    include_data: bool
    def __init__(self, trace_id: _Optional[str] = ..., include_embedding: _Optional[bool] = ..., include_strength: _Optional[bool] = ..., include_history: _Optional[bool] = ..., include_siblings: _Optional[bool] = ..., include_data: _Optional[bool] = ...) -> None: ...

class ListAction(_message.Message):
    __slots__ = ("limit", "before", "agent", "session", "filter", "include_embedding", "include_archived")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_ARCHIVED_FIELD_NUMBER: _ClassVar[int]
    limit: int
    before: ListPlace
    agent: str
    session: str
    filter: _types_pb2.Filter
    include_embedding: bool
    include_archived: bool
    def __init__(self, limit: _Optional[int] = ..., before: _Optional[_Union[ListPlace, _Mapping]] = ..., agent: _Optional[str] = ..., session: _Optional[str] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., include_embedding: _Optional[bool] = ..., include_archived: _Optional[bool] = ...) -> None: ...

class ListPlace(_message.Message):
    __slots__ = ("learned_us", "trace_id")
    LEARNED_US_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    learned_us: int
    trace_id: bytes
    def __init__(self, learned_us: _Optional[int] = ..., trace_id: _Optional[bytes] = ...) -> None: ...

class ListResult(_message.Message):
    __slots__ = ("traces", "next")
    TRACES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    traces: _containers.RepeatedCompositeFieldContainer[_types_pb2.MemoryTrace]
    next: ListPlace
    def __init__(self, traces: _Optional[_Iterable[_Union[_types_pb2.MemoryTrace, _Mapping]]] = ..., next: _Optional[_Union[ListPlace, _Mapping]] = ...) -> None: ...

class UpdateAction(_message.Message):
    __slots__ = ("trace", "fields", "expected_version")
    TRACE_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    trace: _types_pb2.MemoryTrace
    fields: _containers.RepeatedScalarFieldContainer[str]
    expected_version: int
    def __init__(self, trace: _Optional[_Union[_types_pb2.MemoryTrace, _Mapping]] = ..., fields: _Optional[_Iterable[str]] = ..., expected_version: _Optional[int] = ...) -> None: ...

class TraceResult(_message.Message):
    __slots__ = ("trace", "sequence")
    TRACE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    trace: _types_pb2.MemoryTrace
    sequence: int
    def __init__(self, trace: _Optional[_Union[_types_pb2.MemoryTrace, _Mapping]] = ..., sequence: _Optional[int] = ...) -> None: ...

class DeleteAction(_message.Message):
    __slots__ = ("trace_id",)
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    trace_id: str
    def __init__(self, trace_id: _Optional[str] = ...) -> None: ...

class DeleteResult(_message.Message):
    __slots__ = ("deleted", "sequence")
    DELETED_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    deleted: bool
    sequence: int
    def __init__(self, deleted: _Optional[bool] = ..., sequence: _Optional[int] = ...) -> None: ...

class StatsAction(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TraceFeedback(_message.Message):
    __slots__ = ("trace_id", "grade")
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    GRADE_FIELD_NUMBER: _ClassVar[int]
    trace_id: str
    grade: float
    def __init__(self, trace_id: _Optional[str] = ..., grade: _Optional[float] = ...) -> None: ...

class ReinforceAction(_message.Message):
    __slots__ = ("request_digest", "feedback", "spread")
    REQUEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    SPREAD_FIELD_NUMBER: _ClassVar[int]
    request_digest: bytes
    feedback: _containers.RepeatedCompositeFieldContainer[TraceFeedback]
    spread: _memory_pb2.CreditSpread
    def __init__(self, request_digest: _Optional[bytes] = ..., feedback: _Optional[_Iterable[_Union[TraceFeedback, _Mapping]]] = ..., spread: _Optional[_Union[_memory_pb2.CreditSpread, _Mapping]] = ...) -> None: ...

class ReinforceActionResult(_message.Message):
    __slots__ = ("results", "credited", "replayed", "sequence")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    CREDITED_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[_memory_pb2.ReinforceResult]
    credited: int
    replayed: bool
    sequence: int
    def __init__(self, results: _Optional[_Iterable[_Union[_memory_pb2.ReinforceResult, _Mapping]]] = ..., credited: _Optional[int] = ..., replayed: _Optional[bool] = ..., sequence: _Optional[int] = ...) -> None: ...

class MergeAction(_message.Message):
    __slots__ = ("updates", "records", "heads")
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    updates: _containers.RepeatedCompositeFieldContainer[_replication_pb2.OwnerUpdate]
    records: _containers.RepeatedCompositeFieldContainer[_replication_pb2.TraceRecord]
    heads: _containers.RepeatedCompositeFieldContainer[_replication_pb2.Head]
    def __init__(self, updates: _Optional[_Iterable[_Union[_replication_pb2.OwnerUpdate, _Mapping]]] = ..., records: _Optional[_Iterable[_Union[_replication_pb2.TraceRecord, _Mapping]]] = ..., heads: _Optional[_Iterable[_Union[_replication_pb2.Head, _Mapping]]] = ...) -> None: ...

class MergeResult(_message.Message):
    __slots__ = ("changed", "sequence", "heads")
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    changed: int
    sequence: int
    heads: _containers.RepeatedCompositeFieldContainer[_replication_pb2.Head]
    def __init__(self, changed: _Optional[int] = ..., sequence: _Optional[int] = ..., heads: _Optional[_Iterable[_Union[_replication_pb2.Head, _Mapping]]] = ...) -> None: ...

class ResolveAction(_message.Message):
    __slots__ = ("trace_id", "sibling_id")
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    SIBLING_ID_FIELD_NUMBER: _ClassVar[int]
    trace_id: str
    sibling_id: str
    def __init__(self, trace_id: _Optional[str] = ..., sibling_id: _Optional[str] = ...) -> None: ...

class RecordAction(_message.Message):
    __slots__ = ("trace_id",)
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    trace_id: str
    def __init__(self, trace_id: _Optional[str] = ...) -> None: ...

class RecordResult(_message.Message):
    __slots__ = ("record",)
    RECORD_FIELD_NUMBER: _ClassVar[int]
    record: _replication_pb2.TraceRecord
    def __init__(self, record: _Optional[_Union[_replication_pb2.TraceRecord, _Mapping]] = ...) -> None: ...

class ConsolidateRequest(_message.Message):
    __slots__ = ("tenant", "user", "epoch", "max_traces", "time_budget_ms", "dry_run")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MAX_TRACES_FIELD_NUMBER: _ClassVar[int]
    TIME_BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    user: str
    epoch: int
    max_traces: int
    time_budget_ms: int
    dry_run: bool
    def __init__(self, tenant: _Optional[str] = ..., user: _Optional[str] = ..., epoch: _Optional[int] = ..., max_traces: _Optional[int] = ..., time_budget_ms: _Optional[int] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class ConsolidateResponse(_message.Message):
    __slots__ = ("progress",)
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    progress: _memory_pb2.ConsolidateMemoriesResponse
    def __init__(self, progress: _Optional[_Union[_memory_pb2.ConsolidateMemoriesResponse, _Mapping]] = ...) -> None: ...

class ExportRequest(_message.Message):
    __slots__ = ("tenant", "user", "agent", "session", "include_embedding", "epoch")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    user: str
    agent: str
    session: str
    include_embedding: bool
    epoch: int
    def __init__(self, tenant: _Optional[str] = ..., user: _Optional[str] = ..., agent: _Optional[str] = ..., session: _Optional[str] = ..., include_embedding: _Optional[bool] = ..., epoch: _Optional[int] = ...) -> None: ...

class ExportResponse(_message.Message):
    __slots__ = ("traces", "total")
    TRACES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    traces: _containers.RepeatedCompositeFieldContainer[_types_pb2.MemoryTrace]
    total: int
    def __init__(self, traces: _Optional[_Iterable[_Union[_types_pb2.MemoryTrace, _Mapping]]] = ..., total: _Optional[int] = ...) -> None: ...

class CreateSnapshotRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreateSnapshotResponse(_message.Message):
    __slots__ = ("path", "size_bytes", "traces", "sha256", "created_at")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TRACES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    path: str
    size_bytes: int
    traces: int
    sha256: str
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, path: _Optional[str] = ..., size_bytes: _Optional[int] = ..., traces: _Optional[int] = ..., sha256: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetNodeStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetNodeStatusResponse(_message.Message):
    __slots__ = ("node_id", "version", "started_at", "traces", "owners", "resident_traces", "index_bytes", "store_bytes", "epoch", "sequence", "replica", "phase", "siblings", "unpublished", "owners_behind", "last_round_s", "quarantined", "owners_to_move")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    TRACES_FIELD_NUMBER: _ClassVar[int]
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_TRACES_FIELD_NUMBER: _ClassVar[int]
    INDEX_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORE_BYTES_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    SIBLINGS_FIELD_NUMBER: _ClassVar[int]
    UNPUBLISHED_FIELD_NUMBER: _ClassVar[int]
    OWNERS_BEHIND_FIELD_NUMBER: _ClassVar[int]
    LAST_ROUND_S_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    OWNERS_TO_MOVE_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    version: str
    started_at: _timestamp_pb2.Timestamp
    traces: int
    owners: int
    resident_traces: int
    index_bytes: int
    store_bytes: int
    epoch: int
    sequence: int
    replica: int
    phase: _admin_pb2.MemberPhase
    siblings: int
    unpublished: int
    owners_behind: int
    last_round_s: float
    quarantined: _containers.RepeatedScalarFieldContainer[str]
    owners_to_move: int
    def __init__(self, node_id: _Optional[str] = ..., version: _Optional[str] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., traces: _Optional[int] = ..., owners: _Optional[int] = ..., resident_traces: _Optional[int] = ..., index_bytes: _Optional[int] = ..., store_bytes: _Optional[int] = ..., epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., replica: _Optional[int] = ..., phase: _Optional[_Union[_admin_pb2.MemberPhase, str]] = ..., siblings: _Optional[int] = ..., unpublished: _Optional[int] = ..., owners_behind: _Optional[int] = ..., last_round_s: _Optional[float] = ..., quarantined: _Optional[_Iterable[str]] = ..., owners_to_move: _Optional[int] = ...) -> None: ...
