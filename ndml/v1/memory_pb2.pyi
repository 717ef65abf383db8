import datetime

from buf.validate import validate_pb2 as _validate_pb2
from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from ndml.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreditClock(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CREDIT_CLOCK_UNSPECIFIED: _ClassVar[CreditClock]
    CREDIT_CLOCK_TURNS: _ClassVar[CreditClock]
    CREDIT_CLOCK_SECONDS: _ClassVar[CreditClock]
    CREDIT_CLOCK_NONE: _ClassVar[CreditClock]
CREDIT_CLOCK_UNSPECIFIED: CreditClock
CREDIT_CLOCK_TURNS: CreditClock
CREDIT_CLOCK_SECONDS: CreditClock
CREDIT_CLOCK_NONE: CreditClock

class NewMemory(_message.Message):
    __slots__ = ("scope", "text", "speaker", "said_at", "kind", "metadata", "salience", "provenance", "embedding", "protected", "expires_at", "ttl", "valid_from", "valid_until", "links", "contents")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SPEAKER_FIELD_NUMBER: _ClassVar[int]
    SAID_AT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    SALIENCE_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    PROTECTED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    VALID_FROM_FIELD_NUMBER: _ClassVar[int]
    VALID_UNTIL_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    CONTENTS_FIELD_NUMBER: _ClassVar[int]
    scope: _types_pb2.Scope
    text: str
    speaker: str
    said_at: _timestamp_pb2.Timestamp
    kind: _types_pb2.TraceKind
    metadata: _containers.ScalarMap[str, str]
    salience: float
    provenance: _types_pb2.Provenance
    embedding: _types_pb2.Embedding
    protected: bool
    expires_at: _timestamp_pb2.Timestamp
    ttl: _duration_pb2.Duration
    valid_from: _timestamp_pb2.Timestamp
    valid_until: _timestamp_pb2.Timestamp
    links: _containers.RepeatedCompositeFieldContainer[_types_pb2.TraceLink]
    contents: _containers.RepeatedCompositeFieldContainer[_types_pb2.Content]
    def __init__(self, scope: _Optional[_Union[_types_pb2.Scope, _Mapping]] = ..., text: _Optional[str] = ..., speaker: _Optional[str] = ..., said_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[_Union[_types_pb2.TraceKind, str]] = ..., metadata: _Optional[_Mapping[str, str]] = ..., salience: _Optional[float] = ..., provenance: _Optional[_Union[_types_pb2.Provenance, _Mapping]] = ..., embedding: _Optional[_Union[_types_pb2.Embedding, _Mapping]] = ..., protected: _Optional[bool] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., valid_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., valid_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., links: _Optional[_Iterable[_Union[_types_pb2.TraceLink, _Mapping]]] = ..., contents: _Optional[_Iterable[_Union[_types_pb2.Content, _Mapping]]] = ...) -> None: ...

class AddMemoryRequest(_message.Message):
    __slots__ = ("request_id", "memory", "deduplicate", "consistency")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    DEDUPLICATE_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    memory: NewMemory
    deduplicate: bool
    consistency: _types_pb2.Consistency
    def __init__(self, request_id: _Optional[str] = ..., memory: _Optional[_Union[NewMemory, _Mapping]] = ..., deduplicate: _Optional[bool] = ..., consistency: _Optional[_Union[_types_pb2.Consistency, str]] = ...) -> None: ...

class AddMemoryResponse(_message.Message):
    __slots__ = ("trace_id", "replayed", "learned_at", "consistency_token", "gate", "deduplicated")
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    LEARNED_AT_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    DEDUPLICATED_FIELD_NUMBER: _ClassVar[int]
    trace_id: str
    replayed: bool
    learned_at: _timestamp_pb2.Timestamp
    consistency_token: str
    gate: _types_pb2.GateDecision
    deduplicated: bool
    def __init__(self, trace_id: _Optional[str] = ..., replayed: _Optional[bool] = ..., learned_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., consistency_token: _Optional[str] = ..., gate: _Optional[_Union[_types_pb2.GateDecision, _Mapping]] = ..., deduplicated: _Optional[bool] = ...) -> None: ...

class BatchAddMemoriesRequest(_message.Message):
    __slots__ = ("request_id", "memories", "deduplicate", "consistency")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MEMORIES_FIELD_NUMBER: _ClassVar[int]
    DEDUPLICATE_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    memories: _containers.RepeatedCompositeFieldContainer[NewMemory]
    deduplicate: bool
    consistency: _types_pb2.Consistency
    def __init__(self, request_id: _Optional[str] = ..., memories: _Optional[_Iterable[_Union[NewMemory, _Mapping]]] = ..., deduplicate: _Optional[bool] = ..., consistency: _Optional[_Union[_types_pb2.Consistency, str]] = ...) -> None: ...

class AddResult(_message.Message):
    __slots__ = ("trace_id", "replayed", "error", "gate", "deduplicated")
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    DEDUPLICATED_FIELD_NUMBER: _ClassVar[int]
    trace_id: str
    replayed: bool
    error: _status_pb2.Status
    gate: _types_pb2.GateDecision
    deduplicated: bool
    def __init__(self, trace_id: _Optional[str] = ..., replayed: _Optional[bool] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., gate: _Optional[_Union[_types_pb2.GateDecision, _Mapping]] = ..., deduplicated: _Optional[bool] = ...) -> None: ...

class BatchAddMemoriesResponse(_message.Message):
    __slots__ = ("results", "consistency_token")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[AddResult]
    consistency_token: str
    def __init__(self, results: _Optional[_Iterable[_Union[AddResult, _Mapping]]] = ..., consistency_token: _Optional[str] = ...) -> None: ...

class SearchMemoriesRequest(_message.Message):
    __slots__ = ("scope", "text", "embedding", "content", "space", "include_data", "k", "filter", "min_score", "consistency_token", "include_embedding", "explain", "weights", "include_strength", "consistency", "mode", "neighbours", "ancestors", "diversity", "max_tokens", "episode", "node_profile")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_DATA_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_STRENGTH_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    ANCESTORS_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    NODE_PROFILE_FIELD_NUMBER: _ClassVar[int]
    scope: _types_pb2.Scope
    text: str
    embedding: _types_pb2.Embedding
    content: _types_pb2.Content
    space: str
    include_data: bool
    k: int
    filter: _types_pb2.Filter
    min_score: float
    consistency_token: str
    include_embedding: bool
    explain: bool
    weights: _types_pb2.RankingWeights
    include_strength: bool
    consistency: _types_pb2.Consistency
    mode: _types_pb2.SearchMode
    neighbours: int
    ancestors: int
    diversity: float
    max_tokens: int
    episode: bool
    node_profile: _types_pb2.NodeProfile
    def __init__(self, scope: _Optional[_Union[_types_pb2.Scope, _Mapping]] = ..., text: _Optional[str] = ..., embedding: _Optional[_Union[_types_pb2.Embedding, _Mapping]] = ..., content: _Optional[_Union[_types_pb2.Content, _Mapping]] = ..., space: _Optional[str] = ..., include_data: _Optional[bool] = ..., k: _Optional[int] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., min_score: _Optional[float] = ..., consistency_token: _Optional[str] = ..., include_embedding: _Optional[bool] = ..., explain: _Optional[bool] = ..., weights: _Optional[_Union[_types_pb2.RankingWeights, _Mapping]] = ..., include_strength: _Optional[bool] = ..., consistency: _Optional[_Union[_types_pb2.Consistency, str]] = ..., mode: _Optional[_Union[_types_pb2.SearchMode, str]] = ..., neighbours: _Optional[int] = ..., ancestors: _Optional[int] = ..., diversity: _Optional[float] = ..., max_tokens: _Optional[int] = ..., episode: _Optional[bool] = ..., node_profile: _Optional[_Union[_types_pb2.NodeProfile, str]] = ...) -> None: ...

class SignalShare(_message.Message):
    __slots__ = ("signal", "share")
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    signal: str
    share: float
    def __init__(self, signal: _Optional[str] = ..., share: _Optional[float] = ...) -> None: ...

class Episode(_message.Message):
    __slots__ = ("episode_id", "first_said_at", "last_said_at", "turns")
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_SAID_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_SAID_AT_FIELD_NUMBER: _ClassVar[int]
    TURNS_FIELD_NUMBER: _ClassVar[int]
    episode_id: str
    first_said_at: _timestamp_pb2.Timestamp
    last_said_at: _timestamp_pb2.Timestamp
    turns: int
    def __init__(self, episode_id: _Optional[str] = ..., first_said_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_said_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., turns: _Optional[int] = ...) -> None: ...

class SearchHit(_message.Message):
    __slots__ = ("trace", "score", "signals", "similarity", "before", "after", "ancestors", "episode")
    TRACE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    ANCESTORS_FIELD_NUMBER: _ClassVar[int]
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    trace: _types_pb2.MemoryTrace
    score: float
    signals: _containers.RepeatedCompositeFieldContainer[SignalShare]
    similarity: float
    before: _containers.RepeatedCompositeFieldContainer[_types_pb2.MemoryTrace]
    after: _containers.RepeatedCompositeFieldContainer[_types_pb2.MemoryTrace]
    ancestors: _containers.RepeatedCompositeFieldContainer[_types_pb2.MemoryTrace]
    episode: Episode
    def __init__(self, trace: _Optional[_Union[_types_pb2.MemoryTrace, _Mapping]] = ..., score: _Optional[float] = ..., signals: _Optional[_Iterable[_Union[SignalShare, _Mapping]]] = ..., similarity: _Optional[float] = ..., before: _Optional[_Iterable[_Union[_types_pb2.MemoryTrace, _Mapping]]] = ..., after: _Optional[_Iterable[_Union[_types_pb2.MemoryTrace, _Mapping]]] = ..., ancestors: _Optional[_Iterable[_Union[_types_pb2.MemoryTrace, _Mapping]]] = ..., episode: _Optional[_Union[Episode, _Mapping]] = ...) -> None: ...

class SearchMemoriesResponse(_message.Message):
    __slots__ = ("hits", "stats", "consistency_token")
    HITS_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[SearchHit]
    stats: _types_pb2.SearchStats
    consistency_token: str
    def __init__(self, hits: _Optional[_Iterable[_Union[SearchHit, _Mapping]]] = ..., stats: _Optional[_Union[_types_pb2.SearchStats, _Mapping]] = ..., consistency_token: _Optional[str] = ...) -> None: ...

class BatchSearchMemoriesRequest(_message.Message):
    __slots__ = ("searches",)
    SEARCHES_FIELD_NUMBER: _ClassVar[int]
    searches: _containers.RepeatedCompositeFieldContainer[SearchMemoriesRequest]
    def __init__(self, searches: _Optional[_Iterable[_Union[SearchMemoriesRequest, _Mapping]]] = ...) -> None: ...

class BatchSearchResult(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: SearchMemoriesResponse
    error: _status_pb2.Status
    def __init__(self, response: _Optional[_Union[SearchMemoriesResponse, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class BatchSearchMemoriesResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchSearchResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchSearchResult, _Mapping]]] = ...) -> None: ...

class GetMemoryRequest(_message.Message):
    __slots__ = ("scope", "trace_id", "consistency_token", "include_embedding", "include_strength", "include_history", "include_siblings", "consistency", "include_data")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_STRENGTH_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_HISTORY_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_SIBLINGS_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_DATA_FIELD_NUMBER: _ClassVar[int]
    scope: _types_pb2.Scope
    trace_id: str
    consistency_token: str
    include_embedding: bool
    include_strength: bool
    include_history: bool
    include_siblings: bool
    consistency: _types_pb2.Consistency
    include_data: bool
    def __init__(self, scope: _Optional[_Union[_types_pb2.Scope, _Mapping]] = ..., trace_id: _Optional[str] = ..., consistency_token: _Optional[str] = ..., include_embedding: _Optional[bool] = ..., include_strength: _Optional[bool] = ..., include_history: _Optional[bool] = ..., include_siblings: _Optional[bool] = ..., consistency: _Optional[_Union[_types_pb2.Consistency, str]] = ..., include_data: _Optional[bool] = ...) -> None: ...

class GetMemoryResponse(_message.Message):
    __slots__ = ("trace", "consistency_token")
    TRACE_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    trace: _types_pb2.MemoryTrace
    consistency_token: str
    def __init__(self, trace: _Optional[_Union[_types_pb2.MemoryTrace, _Mapping]] = ..., consistency_token: _Optional[str] = ...) -> None: ...

class ListMemoriesRequest(_message.Message):
    __slots__ = ("scope", "page_size", "page_token", "filter", "include_embedding", "consistency_token", "include_archived", "consistency")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_ARCHIVED_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    scope: _types_pb2.Scope
    page_size: int
    page_token: str
    filter: _types_pb2.Filter
    include_embedding: bool
    consistency_token: str
    include_archived: bool
    consistency: _types_pb2.Consistency
    def __init__(self, scope: _Optional[_Union[_types_pb2.Scope, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., include_embedding: _Optional[bool] = ..., consistency_token: _Optional[str] = ..., include_archived: _Optional[bool] = ..., consistency: _Optional[_Union[_types_pb2.Consistency, str]] = ...) -> None: ...

class ListMemoriesResponse(_message.Message):
    __slots__ = ("traces", "next_page_token", "consistency_token")
    TRACES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    traces: _containers.RepeatedCompositeFieldContainer[_types_pb2.MemoryTrace]
    next_page_token: str
    consistency_token: str
    def __init__(self, traces: _Optional[_Iterable[_Union[_types_pb2.MemoryTrace, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., consistency_token: _Optional[str] = ...) -> None: ...

class UpdateMemoryRequest(_message.Message):
    __slots__ = ("trace", "update_mask", "expected_version", "consistency", "consistency_token")
    TRACE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    trace: _types_pb2.MemoryTrace
    update_mask: _field_mask_pb2.FieldMask
    expected_version: int
    consistency: _types_pb2.Consistency
    consistency_token: str
    def __init__(self, trace: _Optional[_Union[_types_pb2.MemoryTrace, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., expected_version: _Optional[int] = ..., consistency: _Optional[_Union[_types_pb2.Consistency, str]] = ..., consistency_token: _Optional[str] = ...) -> None: ...

class UpdateMemoryResponse(_message.Message):
    __slots__ = ("trace", "consistency_token")
    TRACE_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    trace: _types_pb2.MemoryTrace
    consistency_token: str
    def __init__(self, trace: _Optional[_Union[_types_pb2.MemoryTrace, _Mapping]] = ..., consistency_token: _Optional[str] = ...) -> None: ...

class DeleteMemoryRequest(_message.Message):
    __slots__ = ("scope", "trace_id", "allow_missing", "consistency", "consistency_token")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    scope: _types_pb2.Scope
    trace_id: str
    allow_missing: bool
    consistency: _types_pb2.Consistency
    consistency_token: str
    def __init__(self, scope: _Optional[_Union[_types_pb2.Scope, _Mapping]] = ..., trace_id: _Optional[str] = ..., allow_missing: _Optional[bool] = ..., consistency: _Optional[_Union[_types_pb2.Consistency, str]] = ..., consistency_token: _Optional[str] = ...) -> None: ...

class DeleteMemoryResponse(_message.Message):
    __slots__ = ("deleted", "consistency_token")
    DELETED_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    deleted: bool
    consistency_token: str
    def __init__(self, deleted: _Optional[bool] = ..., consistency_token: _Optional[str] = ...) -> None: ...

class ForgetScopeRequest(_message.Message):
    __slots__ = ("scope", "consistency", "consistency_token")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    scope: _types_pb2.Scope
    consistency: _types_pb2.Consistency
    consistency_token: str
    def __init__(self, scope: _Optional[_Union[_types_pb2.Scope, _Mapping]] = ..., consistency: _Optional[_Union[_types_pb2.Consistency, str]] = ..., consistency_token: _Optional[str] = ...) -> None: ...

class ForgetScopeResponse(_message.Message):
    __slots__ = ("erased", "done", "consistency_token")
    ERASED_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    erased: int
    done: bool
    consistency_token: str
    def __init__(self, erased: _Optional[int] = ..., done: _Optional[bool] = ..., consistency_token: _Optional[str] = ...) -> None: ...

class ResolveConflictRequest(_message.Message):
    __slots__ = ("scope", "trace_id", "sibling_id", "consistency", "consistency_token")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    SIBLING_ID_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    scope: _types_pb2.Scope
    trace_id: str
    sibling_id: str
    consistency: _types_pb2.Consistency
    consistency_token: str
    def __init__(self, scope: _Optional[_Union[_types_pb2.Scope, _Mapping]] = ..., trace_id: _Optional[str] = ..., sibling_id: _Optional[str] = ..., consistency: _Optional[_Union[_types_pb2.Consistency, str]] = ..., consistency_token: _Optional[str] = ...) -> None: ...

class ResolveConflictResponse(_message.Message):
    __slots__ = ("trace", "consistency_token")
    TRACE_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    trace: _types_pb2.MemoryTrace
    consistency_token: str
    def __init__(self, trace: _Optional[_Union[_types_pb2.MemoryTrace, _Mapping]] = ..., consistency_token: _Optional[str] = ...) -> None: ...

class Feedback(_message.Message):
    __slots__ = ("trace_id", "answer_id", "grade")
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    ANSWER_ID_FIELD_NUMBER: _ClassVar[int]
    GRADE_FIELD_NUMBER: _ClassVar[int]
    trace_id: str
    answer_id: str
    grade: float
    def __init__(self, trace_id: _Optional[str] = ..., answer_id: _Optional[str] = ..., grade: _Optional[float] = ...) -> None: ...

class CreditSpread(_message.Message):
    __slots__ = ("clock", "tau_before", "tau_after")
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    TAU_BEFORE_FIELD_NUMBER: _ClassVar[int]
    TAU_AFTER_FIELD_NUMBER: _ClassVar[int]
    clock: CreditClock
    tau_before: float
    tau_after: float
    def __init__(self, clock: _Optional[_Union[CreditClock, str]] = ..., tau_before: _Optional[float] = ..., tau_after: _Optional[float] = ...) -> None: ...

class ReinforceMemoriesRequest(_message.Message):
    __slots__ = ("request_id", "scope", "feedback", "spread", "consistency", "consistency_token")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    SPREAD_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    scope: _types_pb2.Scope
    feedback: _containers.RepeatedCompositeFieldContainer[Feedback]
    spread: CreditSpread
    consistency: _types_pb2.Consistency
    consistency_token: str
    def __init__(self, request_id: _Optional[str] = ..., scope: _Optional[_Union[_types_pb2.Scope, _Mapping]] = ..., feedback: _Optional[_Iterable[_Union[Feedback, _Mapping]]] = ..., spread: _Optional[_Union[CreditSpread, _Mapping]] = ..., consistency: _Optional[_Union[_types_pb2.Consistency, str]] = ..., consistency_token: _Optional[str] = ...) -> None: ...

class ReinforceResult(_message.Message):
    __slots__ = ("trace_id", "strength", "error")
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    trace_id: str
    strength: _types_pb2.TraceStrength
    error: _status_pb2.Status
    def __init__(self, trace_id: _Optional[str] = ..., strength: _Optional[_Union[_types_pb2.TraceStrength, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class ReinforceMemoriesResponse(_message.Message):
    __slots__ = ("results", "credited", "replayed", "consistency_token")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    CREDITED_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ReinforceResult]
    credited: int
    replayed: bool
    consistency_token: str
    def __init__(self, results: _Optional[_Iterable[_Union[ReinforceResult, _Mapping]]] = ..., credited: _Optional[int] = ..., replayed: _Optional[bool] = ..., consistency_token: _Optional[str] = ...) -> None: ...

class ConsolidateMemoriesRequest(_message.Message):
    __slots__ = ("scope", "max_traces", "time_budget", "dry_run")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    MAX_TRACES_FIELD_NUMBER: _ClassVar[int]
    TIME_BUDGET_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    scope: _types_pb2.Scope
    max_traces: int
    time_budget: _duration_pb2.Duration
    dry_run: bool
    def __init__(self, scope: _Optional[_Union[_types_pb2.Scope, _Mapping]] = ..., max_traces: _Optional[int] = ..., time_budget: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class ConsolidateMemoriesResponse(_message.Message):
    __slots__ = ("clusters_total", "clusters_done", "merged", "rejected", "unchanged", "semantic_trace_ids", "done", "stopped_because")
    CLUSTERS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    CLUSTERS_DONE_FIELD_NUMBER: _ClassVar[int]
    MERGED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    SEMANTIC_TRACE_IDS_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    STOPPED_BECAUSE_FIELD_NUMBER: _ClassVar[int]
    clusters_total: int
    clusters_done: int
    merged: int
    rejected: int
    unchanged: int
    semantic_trace_ids: _containers.RepeatedScalarFieldContainer[str]
    done: bool
    stopped_because: str
    def __init__(self, clusters_total: _Optional[int] = ..., clusters_done: _Optional[int] = ..., merged: _Optional[int] = ..., rejected: _Optional[int] = ..., unchanged: _Optional[int] = ..., semantic_trace_ids: _Optional[_Iterable[str]] = ..., done: _Optional[bool] = ..., stopped_because: _Optional[str] = ...) -> None: ...

class ExportMemoriesRequest(_message.Message):
    __slots__ = ("scope", "include_embedding")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    scope: _types_pb2.Scope
    include_embedding: bool
    def __init__(self, scope: _Optional[_Union[_types_pb2.Scope, _Mapping]] = ..., include_embedding: _Optional[bool] = ...) -> None: ...

class ExportMemoriesResponse(_message.Message):
    __slots__ = ("traces", "total")
    TRACES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    traces: _containers.RepeatedCompositeFieldContainer[_types_pb2.MemoryTrace]
    total: int
    def __init__(self, traces: _Optional[_Iterable[_Union[_types_pb2.MemoryTrace, _Mapping]]] = ..., total: _Optional[int] = ...) -> None: ...

class ImportMemoriesRequest(_message.Message):
    __slots__ = ("traces",)
    TRACES_FIELD_NUMBER: _ClassVar[int]
    traces: _containers.RepeatedCompositeFieldContainer[_types_pb2.MemoryTrace]
    def __init__(self, traces: _Optional[_Iterable[_Union[_types_pb2.MemoryTrace, _Mapping]]] = ...) -> None: ...

class ImportFailure(_message.Message):
    __slots__ = ("index", "error")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    index: int
    error: _status_pb2.Status
    def __init__(self, index: _Optional[int] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class ImportMemoriesResponse(_message.Message):
    __slots__ = ("imported", "skipped", "failed", "failures")
    IMPORTED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    imported: int
    skipped: int
    failed: int
    failures: _containers.RepeatedCompositeFieldContainer[ImportFailure]
    def __init__(self, imported: _Optional[int] = ..., skipped: _Optional[int] = ..., failed: _Optional[int] = ..., failures: _Optional[_Iterable[_Union[ImportFailure, _Mapping]]] = ...) -> None: ...

class GetProfileRequest(_message.Message):
    __slots__ = ("scope", "filter", "consistency_token", "consistency")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    scope: _types_pb2.Scope
    filter: _types_pb2.Filter
    consistency_token: str
    consistency: _types_pb2.Consistency
    def __init__(self, scope: _Optional[_Union[_types_pb2.Scope, _Mapping]] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., consistency_token: _Optional[str] = ..., consistency: _Optional[_Union[_types_pb2.Consistency, str]] = ...) -> None: ...

class ProfileProperty(_message.Message):
    __slots__ = ("whose", "kind", "what", "trace", "since", "replaced_trace_ids")
    WHOSE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    REPLACED_TRACE_IDS_FIELD_NUMBER: _ClassVar[int]
    whose: str
    kind: str
    what: str
    trace: _types_pb2.MemoryTrace
    since: _timestamp_pb2.Timestamp
    replaced_trace_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, whose: _Optional[str] = ..., kind: _Optional[str] = ..., what: _Optional[str] = ..., trace: _Optional[_Union[_types_pb2.MemoryTrace, _Mapping]] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., replaced_trace_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GetProfileResponse(_message.Message):
    __slots__ = ("properties", "traces_read", "partial", "consistency_token")
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    TRACES_READ_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    properties: _containers.RepeatedCompositeFieldContainer[ProfileProperty]
    traces_read: int
    partial: bool
    consistency_token: str
    def __init__(self, properties: _Optional[_Iterable[_Union[ProfileProperty, _Mapping]]] = ..., traces_read: _Optional[int] = ..., partial: _Optional[bool] = ..., consistency_token: _Optional[str] = ...) -> None: ...

class GetMemoryStatsRequest(_message.Message):
    __slots__ = ("scope",)
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    scope: _types_pb2.Scope
    def __init__(self, scope: _Optional[_Union[_types_pb2.Scope, _Mapping]] = ...) -> None: ...

class GetMemoryStatsResponse(_message.Message):
    __slots__ = ("traces", "owners", "content_bytes", "resident_traces", "traces_by_kind", "dimension", "embedding_model", "archived_traces")
    class TracesByKindEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    TRACES_FIELD_NUMBER: _ClassVar[int]
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_TRACES_FIELD_NUMBER: _ClassVar[int]
    TRACES_BY_KIND_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_MODEL_FIELD_NUMBER: _ClassVar[int]
    ARCHIVED_TRACES_FIELD_NUMBER: _ClassVar[int]
    traces: int
    owners: int
    content_bytes: int
    resident_traces: int
    traces_by_kind: _containers.ScalarMap[str, int]
    dimension: int
    embedding_model: str
    archived_traces: int
    def __init__(self, traces: _Optional[int] = ..., owners: _Optional[int] = ..., content_bytes: _Optional[int] = ..., resident_traces: _Optional[int] = ..., traces_by_kind: _Optional[_Mapping[str, int]] = ..., dimension: _Optional[int] = ..., embedding_model: _Optional[str] = ..., archived_traces: _Optional[int] = ...) -> None: ...
