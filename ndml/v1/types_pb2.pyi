import datetime

from buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TraceKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRACE_KIND_UNSPECIFIED: _ClassVar[TraceKind]
    TRACE_KIND_EPISODIC: _ClassVar[TraceKind]
    TRACE_KIND_SEMANTIC: _ClassVar[TraceKind]
    TRACE_KIND_PROCEDURAL: _ClassVar[TraceKind]

class Consistency(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSISTENCY_UNSPECIFIED: _ClassVar[Consistency]
    CONSISTENCY_ONE: _ClassVar[Consistency]
    CONSISTENCY_QUORUM: _ClassVar[Consistency]
    CONSISTENCY_ALL: _ClassVar[Consistency]

class WriteDecision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WRITE_DECISION_UNSPECIFIED: _ClassVar[WriteDecision]
    WRITE_DECISION_NOVEL: _ClassVar[WriteDecision]
    WRITE_DECISION_DUPLICATE: _ClassVar[WriteDecision]
    WRITE_DECISION_UPDATE: _ClassVar[WriteDecision]
    WRITE_DECISION_RELATED: _ClassVar[WriteDecision]

class LifecycleState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LIFECYCLE_STATE_UNSPECIFIED: _ClassVar[LifecycleState]
    LIFECYCLE_STATE_NEW: _ClassVar[LifecycleState]
    LIFECYCLE_STATE_ACTIVE: _ClassVar[LifecycleState]
    LIFECYCLE_STATE_AGING: _ClassVar[LifecycleState]
    LIFECYCLE_STATE_CONSOLIDATING: _ClassVar[LifecycleState]
    LIFECYCLE_STATE_CONSOLIDATED: _ClassVar[LifecycleState]
    LIFECYCLE_STATE_ARCHIVED: _ClassVar[LifecycleState]
    LIFECYCLE_STATE_EVICTED: _ClassVar[LifecycleState]

class LinkType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LINK_TYPE_UNSPECIFIED: _ClassVar[LinkType]
    LINK_TYPE_RELATED: _ClassVar[LinkType]
    LINK_TYPE_DUPLICATES: _ClassVar[LinkType]
    LINK_TYPE_SUPERSEDES: _ClassVar[LinkType]
    LINK_TYPE_DERIVED_FROM: _ClassVar[LinkType]
    LINK_TYPE_CAUSED_BY: _ClassVar[LinkType]
    LINK_TYPE_CAUSES: _ClassVar[LinkType]
    LINK_TYPE_ABOUT: _ClassVar[LinkType]

class SearchMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEARCH_MODE_UNSPECIFIED: _ClassVar[SearchMode]
    SEARCH_MODE_FULL: _ClassVar[SearchMode]
    SEARCH_MODE_FAST: _ClassVar[SearchMode]
    SEARCH_MODE_DENSE: _ClassVar[SearchMode]

class NodeProfile(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_PROFILE_UNSPECIFIED: _ClassVar[NodeProfile]
    NODE_PROFILE_GENERAL: _ClassVar[NodeProfile]
    NODE_PROFILE_CODE: _ClassVar[NodeProfile]
    NODE_PROFILE_FACTUAL: _ClassVar[NodeProfile]
    NODE_PROFILE_CONVERSATIONAL: _ClassVar[NodeProfile]
TRACE_KIND_UNSPECIFIED: TraceKind
TRACE_KIND_EPISODIC: TraceKind
TRACE_KIND_SEMANTIC: TraceKind
TRACE_KIND_PROCEDURAL: TraceKind
CONSISTENCY_UNSPECIFIED: Consistency
CONSISTENCY_ONE: Consistency
CONSISTENCY_QUORUM: Consistency
CONSISTENCY_ALL: Consistency
WRITE_DECISION_UNSPECIFIED: WriteDecision
WRITE_DECISION_NOVEL: WriteDecision
WRITE_DECISION_DUPLICATE: WriteDecision
WRITE_DECISION_UPDATE: WriteDecision
WRITE_DECISION_RELATED: WriteDecision
LIFECYCLE_STATE_UNSPECIFIED: LifecycleState
LIFECYCLE_STATE_NEW: LifecycleState
LIFECYCLE_STATE_ACTIVE: LifecycleState
LIFECYCLE_STATE_AGING: LifecycleState
LIFECYCLE_STATE_CONSOLIDATING: LifecycleState
LIFECYCLE_STATE_CONSOLIDATED: LifecycleState
LIFECYCLE_STATE_ARCHIVED: LifecycleState
LIFECYCLE_STATE_EVICTED: LifecycleState
LINK_TYPE_UNSPECIFIED: LinkType
LINK_TYPE_RELATED: LinkType
LINK_TYPE_DUPLICATES: LinkType
LINK_TYPE_SUPERSEDES: LinkType
LINK_TYPE_DERIVED_FROM: LinkType
LINK_TYPE_CAUSED_BY: LinkType
LINK_TYPE_CAUSES: LinkType
LINK_TYPE_ABOUT: LinkType
SEARCH_MODE_UNSPECIFIED: SearchMode
SEARCH_MODE_FULL: SearchMode
SEARCH_MODE_FAST: SearchMode
SEARCH_MODE_DENSE: SearchMode
NODE_PROFILE_UNSPECIFIED: NodeProfile
NODE_PROFILE_GENERAL: NodeProfile
NODE_PROFILE_CODE: NodeProfile
NODE_PROFILE_FACTUAL: NodeProfile
NODE_PROFILE_CONVERSATIONAL: NodeProfile

class Scope(_message.Message):
    __slots__ = ("tenant", "user", "agent", "session")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    user: str
    agent: str
    session: str
    def __init__(self, tenant: _Optional[str] = ..., user: _Optional[str] = ..., agent: _Optional[str] = ..., session: _Optional[str] = ...) -> None: ...

class Embedding(_message.Message):
    __slots__ = ("vector", "model", "word_vectors")
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WORD_VECTORS_FIELD_NUMBER: _ClassVar[int]
    vector: bytes
    model: str
    word_vectors: bytes
    def __init__(self, vector: _Optional[bytes] = ..., model: _Optional[str] = ..., word_vectors: _Optional[bytes] = ...) -> None: ...

class Content(_message.Message):
    __slots__ = ("media_type", "data", "uri", "text", "embeddings", "data_bytes")
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    DATA_BYTES_FIELD_NUMBER: _ClassVar[int]
    media_type: str
    data: bytes
    uri: str
    text: str
    embeddings: _containers.RepeatedCompositeFieldContainer[Embedding]
    data_bytes: int
    def __init__(self, media_type: _Optional[str] = ..., data: _Optional[bytes] = ..., uri: _Optional[str] = ..., text: _Optional[str] = ..., embeddings: _Optional[_Iterable[_Union[Embedding, _Mapping]]] = ..., data_bytes: _Optional[int] = ...) -> None: ...

class MemoryTrace(_message.Message):
    __slots__ = ("trace_id", "scope", "kind", "text", "speaker", "said_at", "learned_at", "updated_at", "metadata", "salience", "provenance", "version", "embedding", "gate", "state", "strength", "protected", "expires_at", "history", "links", "valid_from", "valid_until", "contents", "siblings")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SPEAKER_FIELD_NUMBER: _ClassVar[int]
    SAID_AT_FIELD_NUMBER: _ClassVar[int]
    LEARNED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    SALIENCE_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    PROTECTED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    VALID_FROM_FIELD_NUMBER: _ClassVar[int]
    VALID_UNTIL_FIELD_NUMBER: _ClassVar[int]
    CONTENTS_FIELD_NUMBER: _ClassVar[int]
    SIBLINGS_FIELD_NUMBER: _ClassVar[int]
    trace_id: str
    scope: Scope
    kind: TraceKind
    text: str
    speaker: str
    said_at: _timestamp_pb2.Timestamp
    learned_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    metadata: _containers.ScalarMap[str, str]
    salience: float
    provenance: Provenance
    version: int
    embedding: Embedding
    gate: GateDecision
    state: LifecycleState
    strength: TraceStrength
    protected: bool
    expires_at: _timestamp_pb2.Timestamp
    history: _containers.RepeatedCompositeFieldContainer[TraceEvent]
    links: _containers.RepeatedCompositeFieldContainer[TraceLink]
    valid_from: _timestamp_pb2.Timestamp
    valid_until: _timestamp_pb2.Timestamp
    contents: _containers.RepeatedCompositeFieldContainer[Content]
    siblings: _containers.RepeatedCompositeFieldContainer[TraceSibling]
    def __init__(self, trace_id: _Optional[str] = ..., scope: _Optional[_Union[Scope, _Mapping]] = ..., kind: _Optional[_Union[TraceKind, str]] = ..., text: _Optional[str] = ..., speaker: _Optional[str] = ..., said_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., learned_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., metadata: _Optional[_Mapping[str, str]] = ..., salience: _Optional[float] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., version: _Optional[int] = ..., embedding: _Optional[_Union[Embedding, _Mapping]] = ..., gate: _Optional[_Union[GateDecision, _Mapping]] = ..., state: _Optional[_Union[LifecycleState, str]] = ..., strength: _Optional[_Union[TraceStrength, _Mapping]] = ..., protected: _Optional[bool] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., history: _Optional[_Iterable[_Union[TraceEvent, _Mapping]]] = ..., links: _Optional[_Iterable[_Union[TraceLink, _Mapping]]] = ..., valid_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., valid_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., contents: _Optional[_Iterable[_Union[Content, _Mapping]]] = ..., siblings: _Optional[_Iterable[_Union[TraceSibling, _Mapping]]] = ...) -> None: ...

class TraceSibling(_message.Message):
    __slots__ = ("sibling_id", "trace", "node_id", "shown", "support")
    SIBLING_ID_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SHOWN_FIELD_NUMBER: _ClassVar[int]
    SUPPORT_FIELD_NUMBER: _ClassVar[int]
    sibling_id: str
    trace: MemoryTrace
    node_id: str
    shown: bool
    support: int
    def __init__(self, sibling_id: _Optional[str] = ..., trace: _Optional[_Union[MemoryTrace, _Mapping]] = ..., node_id: _Optional[str] = ..., shown: _Optional[bool] = ..., support: _Optional[int] = ...) -> None: ...

class GateDecision(_message.Message):
    __slots__ = ("decision", "familiarity", "novelty_threshold", "similarity", "nearest_trace_id", "calcium", "plateau", "encoding_strength", "salience", "reason")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    FAMILIARITY_FIELD_NUMBER: _ClassVar[int]
    NOVELTY_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    NEAREST_TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    CALCIUM_FIELD_NUMBER: _ClassVar[int]
    PLATEAU_FIELD_NUMBER: _ClassVar[int]
    ENCODING_STRENGTH_FIELD_NUMBER: _ClassVar[int]
    SALIENCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    decision: WriteDecision
    familiarity: float
    novelty_threshold: float
    similarity: float
    nearest_trace_id: str
    calcium: float
    plateau: bool
    encoding_strength: float
    salience: float
    reason: str
    def __init__(self, decision: _Optional[_Union[WriteDecision, str]] = ..., familiarity: _Optional[float] = ..., novelty_threshold: _Optional[float] = ..., similarity: _Optional[float] = ..., nearest_trace_id: _Optional[str] = ..., calcium: _Optional[float] = ..., plateau: _Optional[bool] = ..., encoding_strength: _Optional[float] = ..., salience: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class TraceStrength(_message.Message):
    __slots__ = ("strength", "by_timescale", "stability_days", "difficulty", "retrievability", "tag", "captured", "credit", "uses", "successes", "failures", "last_graded_at")
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    BY_TIMESCALE_FIELD_NUMBER: _ClassVar[int]
    STABILITY_DAYS_FIELD_NUMBER: _ClassVar[int]
    DIFFICULTY_FIELD_NUMBER: _ClassVar[int]
    RETRIEVABILITY_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    SUCCESSES_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    LAST_GRADED_AT_FIELD_NUMBER: _ClassVar[int]
    strength: float
    by_timescale: _containers.RepeatedScalarFieldContainer[float]
    stability_days: float
    difficulty: float
    retrievability: float
    tag: float
    captured: float
    credit: float
    uses: int
    successes: int
    failures: int
    last_graded_at: _timestamp_pb2.Timestamp
    def __init__(self, strength: _Optional[float] = ..., by_timescale: _Optional[_Iterable[float]] = ..., stability_days: _Optional[float] = ..., difficulty: _Optional[float] = ..., retrievability: _Optional[float] = ..., tag: _Optional[float] = ..., captured: _Optional[float] = ..., credit: _Optional[float] = ..., uses: _Optional[int] = ..., successes: _Optional[int] = ..., failures: _Optional[int] = ..., last_graded_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class TraceEvent(_message.Message):
    __slots__ = ("at", "kind", "why", "state", "grade")
    AT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    GRADE_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    kind: str
    why: str
    state: LifecycleState
    grade: float
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[str] = ..., why: _Optional[str] = ..., state: _Optional[_Union[LifecycleState, str]] = ..., grade: _Optional[float] = ...) -> None: ...

class TraceLink(_message.Message):
    __slots__ = ("type", "trace_id", "weight", "evidence")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    type: LinkType
    trace_id: str
    weight: float
    evidence: str
    def __init__(self, type: _Optional[_Union[LinkType, str]] = ..., trace_id: _Optional[str] = ..., weight: _Optional[float] = ..., evidence: _Optional[str] = ...) -> None: ...

class RankingWeights(_message.Message):
    __slots__ = ("salience", "strength", "dense", "lexical", "late", "late_context", "links", "session", "date", "speaker", "asks", "another", "slot", "newest")
    SALIENCE_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    DENSE_FIELD_NUMBER: _ClassVar[int]
    LEXICAL_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    LATE_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    DATE_FIELD_NUMBER: _ClassVar[int]
    SPEAKER_FIELD_NUMBER: _ClassVar[int]
    ASKS_FIELD_NUMBER: _ClassVar[int]
    ANOTHER_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    salience: float
    strength: float
    dense: float
    lexical: float
    late: float
    late_context: float
    links: float
    session: float
    date: float
    speaker: float
    asks: float
    another: float
    slot: float
    newest: float
    def __init__(self, salience: _Optional[float] = ..., strength: _Optional[float] = ..., dense: _Optional[float] = ..., lexical: _Optional[float] = ..., late: _Optional[float] = ..., late_context: _Optional[float] = ..., links: _Optional[float] = ..., session: _Optional[float] = ..., date: _Optional[float] = ..., speaker: _Optional[float] = ..., asks: _Optional[float] = ..., another: _Optional[float] = ..., slot: _Optional[float] = ..., newest: _Optional[float] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("source", "trust")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TRUST_FIELD_NUMBER: _ClassVar[int]
    source: str
    trust: float
    def __init__(self, source: _Optional[str] = ..., trust: _Optional[float] = ...) -> None: ...

class TimeRange(_message.Message):
    __slots__ = ("until",)
    FROM_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    until: _timestamp_pb2.Timestamp
    def __init__(self, until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., **kwargs) -> None: ...

class NumberRange(_message.Message):
    __slots__ = ("at_least", "less_than")
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    LESS_THAN_FIELD_NUMBER: _ClassVar[int]
    at_least: float
    less_than: float
    def __init__(self, at_least: _Optional[float] = ..., less_than: _Optional[float] = ...) -> None: ...

class AnyOf(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class MetadataCondition(_message.Message):
    __slots__ = ("key", "equals", "any_of", "exists", "range")
    KEY_FIELD_NUMBER: _ClassVar[int]
    EQUALS_FIELD_NUMBER: _ClassVar[int]
    ANY_OF_FIELD_NUMBER: _ClassVar[int]
    EXISTS_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    key: str
    equals: str
    any_of: AnyOf
    exists: bool
    range: NumberRange
    def __init__(self, key: _Optional[str] = ..., equals: _Optional[str] = ..., any_of: _Optional[_Union[AnyOf, _Mapping]] = ..., exists: _Optional[bool] = ..., range: _Optional[_Union[NumberRange, _Mapping]] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("metadata", "said_at", "learned_at", "kinds", "speakers", "valid_at")
    METADATA_FIELD_NUMBER: _ClassVar[int]
    SAID_AT_FIELD_NUMBER: _ClassVar[int]
    LEARNED_AT_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    SPEAKERS_FIELD_NUMBER: _ClassVar[int]
    VALID_AT_FIELD_NUMBER: _ClassVar[int]
    metadata: _containers.RepeatedCompositeFieldContainer[MetadataCondition]
    said_at: TimeRange
    learned_at: TimeRange
    kinds: _containers.RepeatedScalarFieldContainer[TraceKind]
    speakers: _containers.RepeatedScalarFieldContainer[str]
    valid_at: _timestamp_pb2.Timestamp
    def __init__(self, metadata: _Optional[_Iterable[_Union[MetadataCondition, _Mapping]]] = ..., said_at: _Optional[_Union[TimeRange, _Mapping]] = ..., learned_at: _Optional[_Union[TimeRange, _Mapping]] = ..., kinds: _Optional[_Iterable[_Union[TraceKind, str]]] = ..., speakers: _Optional[_Iterable[str]] = ..., valid_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class StageTimings(_message.Message):
    __slots__ = ("embed_ms", "queue_ms", "index_ms", "fetch_ms", "total_ms", "lexical_ms", "late_ms", "fuse_ms")
    EMBED_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    INDEX_MS_FIELD_NUMBER: _ClassVar[int]
    FETCH_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    LEXICAL_MS_FIELD_NUMBER: _ClassVar[int]
    LATE_MS_FIELD_NUMBER: _ClassVar[int]
    FUSE_MS_FIELD_NUMBER: _ClassVar[int]
    embed_ms: float
    queue_ms: float
    index_ms: float
    fetch_ms: float
    total_ms: float
    lexical_ms: float
    late_ms: float
    fuse_ms: float
    def __init__(self, embed_ms: _Optional[float] = ..., queue_ms: _Optional[float] = ..., index_ms: _Optional[float] = ..., fetch_ms: _Optional[float] = ..., total_ms: _Optional[float] = ..., lexical_ms: _Optional[float] = ..., late_ms: _Optional[float] = ..., fuse_ms: _Optional[float] = ...) -> None: ...

class SearchStats(_message.Message):
    __slots__ = ("shards_total", "shards_answered", "partial", "timings", "traces_in_scope", "index", "node_profile", "confidence")
    SHARDS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SHARDS_ANSWERED_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    TRACES_IN_SCOPE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NODE_PROFILE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    shards_total: int
    shards_answered: int
    partial: bool
    timings: StageTimings
    traces_in_scope: int
    index: str
    node_profile: NodeProfile
    confidence: float
    def __init__(self, shards_total: _Optional[int] = ..., shards_answered: _Optional[int] = ..., partial: _Optional[bool] = ..., timings: _Optional[_Union[StageTimings, _Mapping]] = ..., traces_in_scope: _Optional[int] = ..., index: _Optional[str] = ..., node_profile: _Optional[_Union[NodeProfile, str]] = ..., confidence: _Optional[float] = ...) -> None: ...
