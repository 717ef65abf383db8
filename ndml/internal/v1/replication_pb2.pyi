from ndml.v1 import admin_pb2 as _admin_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Dot(_message.Message):
    __slots__ = ("replica", "counter")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    replica: int
    counter: int
    def __init__(self, replica: _Optional[int] = ..., counter: _Optional[int] = ...) -> None: ...

class TraceVersion(_message.Message):
    __slots__ = ("dot", "clock", "content", "vector", "salience", "encoding", "content_hash")
    DOT_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    SALIENCE_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    dot: Dot
    clock: int
    content: bytes
    vector: bytes
    salience: float
    encoding: float
    content_hash: bytes
    def __init__(self, dot: _Optional[_Union[Dot, _Mapping]] = ..., clock: _Optional[int] = ..., content: _Optional[bytes] = ..., vector: _Optional[bytes] = ..., salience: _Optional[float] = ..., encoding: _Optional[float] = ..., content_hash: _Optional[bytes] = ...) -> None: ...

class StateContribution(_message.Message):
    __slots__ = ("replica", "counter", "state")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    replica: int
    counter: int
    state: bytes
    def __init__(self, replica: _Optional[int] = ..., counter: _Optional[int] = ..., state: _Optional[bytes] = ...) -> None: ...

class TraceRecord(_message.Message):
    __slots__ = ("trace_id", "length", "context", "versions", "states", "requests")
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    trace_id: bytes
    length: int
    context: bytes
    versions: _containers.RepeatedCompositeFieldContainer[TraceVersion]
    states: _containers.RepeatedCompositeFieldContainer[StateContribution]
    requests: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, trace_id: _Optional[bytes] = ..., length: _Optional[int] = ..., context: _Optional[bytes] = ..., versions: _Optional[_Iterable[_Union[TraceVersion, _Mapping]]] = ..., states: _Optional[_Iterable[_Union[StateContribution, _Mapping]]] = ..., requests: _Optional[_Iterable[bytes]] = ...) -> None: ...

class OwnerUpdate(_message.Message):
    __slots__ = ("tenant", "user", "replica", "previous", "counter", "records", "envelope", "signature", "node_id", "traceparent", "leaves", "places", "vouch")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    VOUCH_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    user: str
    replica: int
    previous: int
    counter: int
    records: _containers.RepeatedCompositeFieldContainer[TraceRecord]
    envelope: bytes
    signature: bytes
    node_id: str
    traceparent: str
    leaves: bytes
    places: _containers.RepeatedScalarFieldContainer[int]
    vouch: bytes
    def __init__(self, tenant: _Optional[str] = ..., user: _Optional[str] = ..., replica: _Optional[int] = ..., previous: _Optional[int] = ..., counter: _Optional[int] = ..., records: _Optional[_Iterable[_Union[TraceRecord, _Mapping]]] = ..., envelope: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., node_id: _Optional[str] = ..., traceparent: _Optional[str] = ..., leaves: _Optional[bytes] = ..., places: _Optional[_Iterable[int]] = ..., vouch: _Optional[bytes] = ...) -> None: ...

class Head(_message.Message):
    __slots__ = ("replica", "counter")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    replica: int
    counter: int
    def __init__(self, replica: _Optional[int] = ..., counter: _Optional[int] = ...) -> None: ...

class ListOwnersRequest(_message.Message):
    __slots__ = ("shared_with", "buckets")
    SHARED_WITH_FIELD_NUMBER: _ClassVar[int]
    BUCKETS_FIELD_NUMBER: _ClassVar[int]
    shared_with: str
    buckets: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, shared_with: _Optional[str] = ..., buckets: _Optional[_Iterable[int]] = ...) -> None: ...

class OwnerState(_message.Message):
    __slots__ = ("tenant", "user", "digest", "records", "heads")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    user: str
    digest: bytes
    records: int
    heads: _containers.RepeatedCompositeFieldContainer[Head]
    def __init__(self, tenant: _Optional[str] = ..., user: _Optional[str] = ..., digest: _Optional[bytes] = ..., records: _Optional[int] = ..., heads: _Optional[_Iterable[_Union[Head, _Mapping]]] = ...) -> None: ...

class ListOwnersResponse(_message.Message):
    __slots__ = ("owners",)
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    owners: _containers.RepeatedCompositeFieldContainer[OwnerState]
    def __init__(self, owners: _Optional[_Iterable[_Union[OwnerState, _Mapping]]] = ...) -> None: ...

class CompareBucketsRequest(_message.Message):
    __slots__ = ("node_id", "digests", "epoch")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    digests: bytes
    epoch: int
    def __init__(self, node_id: _Optional[str] = ..., digests: _Optional[bytes] = ..., epoch: _Optional[int] = ...) -> None: ...

class CompareBucketsResponse(_message.Message):
    __slots__ = ("differing", "epoch", "replica")
    DIFFERING_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    differing: _containers.RepeatedScalarFieldContainer[int]
    epoch: int
    replica: int
    def __init__(self, differing: _Optional[_Iterable[int]] = ..., epoch: _Optional[int] = ..., replica: _Optional[int] = ...) -> None: ...

class StreamSymbolsRequest(_message.Message):
    __slots__ = ("tenant", "user", "key", "limit")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    user: str
    key: bytes
    limit: int
    def __init__(self, tenant: _Optional[str] = ..., user: _Optional[str] = ..., key: _Optional[bytes] = ..., limit: _Optional[int] = ...) -> None: ...

class StreamSymbolsResponse(_message.Message):
    __slots__ = ("symbols", "owner")
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    symbols: bytes
    owner: OwnerState
    def __init__(self, symbols: _Optional[bytes] = ..., owner: _Optional[_Union[OwnerState, _Mapping]] = ...) -> None: ...

class FetchRecordsRequest(_message.Message):
    __slots__ = ("tenant", "user", "digests", "trace_ids", "all")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    TRACE_IDS_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    user: str
    digests: bytes
    trace_ids: bytes
    all: bool
    def __init__(self, tenant: _Optional[str] = ..., user: _Optional[str] = ..., digests: _Optional[bytes] = ..., trace_ids: _Optional[bytes] = ..., all: _Optional[bool] = ...) -> None: ...

class FetchRecordsResponse(_message.Message):
    __slots__ = ("records", "owner", "updates")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[TraceRecord]
    owner: OwnerState
    updates: _containers.RepeatedCompositeFieldContainer[OwnerUpdate]
    def __init__(self, records: _Optional[_Iterable[_Union[TraceRecord, _Mapping]]] = ..., owner: _Optional[_Union[OwnerState, _Mapping]] = ..., updates: _Optional[_Iterable[_Union[OwnerUpdate, _Mapping]]] = ...) -> None: ...

class PushRecordsRequest(_message.Message):
    __slots__ = ("tenant", "user", "records", "heads", "updates")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    user: str
    records: _containers.RepeatedCompositeFieldContainer[TraceRecord]
    heads: _containers.RepeatedCompositeFieldContainer[Head]
    updates: _containers.RepeatedCompositeFieldContainer[OwnerUpdate]
    def __init__(self, tenant: _Optional[str] = ..., user: _Optional[str] = ..., records: _Optional[_Iterable[_Union[TraceRecord, _Mapping]]] = ..., heads: _Optional[_Iterable[_Union[Head, _Mapping]]] = ..., updates: _Optional[_Iterable[_Union[OwnerUpdate, _Mapping]]] = ...) -> None: ...

class PushRecordsResponse(_message.Message):
    __slots__ = ("changed", "digest")
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    changed: int
    digest: bytes
    def __init__(self, changed: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class SetPhaseRequest(_message.Message):
    __slots__ = ("phase",)
    PHASE_FIELD_NUMBER: _ClassVar[int]
    phase: _admin_pb2.MemberPhase
    def __init__(self, phase: _Optional[_Union[_admin_pb2.MemberPhase, str]] = ...) -> None: ...

class SetPhaseResponse(_message.Message):
    __slots__ = ("phase",)
    PHASE_FIELD_NUMBER: _ClassVar[int]
    phase: _admin_pb2.MemberPhase
    def __init__(self, phase: _Optional[_Union[_admin_pb2.MemberPhase, str]] = ...) -> None: ...
