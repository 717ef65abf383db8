import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from ndml.internal.v1 import replication_pb2 as _replication_pb2
from ndml.v1 import admin_pb2 as _admin_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeRecord(_message.Message):
    __slots__ = ("node_id", "address", "zone", "profile", "incarnation", "phase", "replica")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    address: str
    zone: str
    profile: str
    incarnation: int
    phase: _admin_pb2.MemberPhase
    replica: int
    def __init__(self, node_id: _Optional[str] = ..., address: _Optional[str] = ..., zone: _Optional[str] = ..., profile: _Optional[str] = ..., incarnation: _Optional[int] = ..., phase: _Optional[_Union[_admin_pb2.MemberPhase, str]] = ..., replica: _Optional[int] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: NodeRecord
    def __init__(self, node: _Optional[_Union[NodeRecord, _Mapping]] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("epoch", "is_member")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    IS_MEMBER_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    is_member: bool
    def __init__(self, epoch: _Optional[int] = ..., is_member: _Optional[bool] = ...) -> None: ...

class Placement(_message.Message):
    __slots__ = ("epoch", "nodes", "replication_factor")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    REPLICATION_FACTOR_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    nodes: _containers.RepeatedCompositeFieldContainer[PlacementNode]
    replication_factor: int
    def __init__(self, epoch: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[PlacementNode, _Mapping]]] = ..., replication_factor: _Optional[int] = ...) -> None: ...

class PlacementNode(_message.Message):
    __slots__ = ("record", "state")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    record: NodeRecord
    state: _admin_pb2.MemberState
    def __init__(self, record: _Optional[_Union[NodeRecord, _Mapping]] = ..., state: _Optional[_Union[_admin_pb2.MemberState, str]] = ...) -> None: ...

class WatchPlacementRequest(_message.Message):
    __slots__ = ("watcher",)
    WATCHER_FIELD_NUMBER: _ClassVar[int]
    watcher: str
    def __init__(self, watcher: _Optional[str] = ...) -> None: ...

class WatchPlacementResponse(_message.Message):
    __slots__ = ("placement",)
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    placement: Placement
    def __init__(self, placement: _Optional[_Union[Placement, _Mapping]] = ...) -> None: ...

class ExchangeRosterRequest(_message.Message):
    __slots__ = ("node_id", "records")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    records: _containers.RepeatedCompositeFieldContainer[NodeRecord]
    def __init__(self, node_id: _Optional[str] = ..., records: _Optional[_Iterable[_Union[NodeRecord, _Mapping]]] = ...) -> None: ...

class ExchangeRosterResponse(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[NodeRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[NodeRecord, _Mapping]]] = ...) -> None: ...

class DeltaHello(_message.Message):
    __slots__ = ("node_id", "replica", "zone", "positions")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    replica: int
    zone: str
    positions: _containers.RepeatedCompositeFieldContainer[_replication_pb2.Head]
    def __init__(self, node_id: _Optional[str] = ..., replica: _Optional[int] = ..., zone: _Optional[str] = ..., positions: _Optional[_Iterable[_Union[_replication_pb2.Head, _Mapping]]] = ...) -> None: ...

class DeltaOffer(_message.Message):
    __slots__ = ("tenant", "user", "replica", "previous", "counter")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    user: str
    replica: int
    previous: int
    counter: int
    def __init__(self, tenant: _Optional[str] = ..., user: _Optional[str] = ..., replica: _Optional[int] = ..., previous: _Optional[int] = ..., counter: _Optional[int] = ...) -> None: ...

class DeltaAnswer(_message.Message):
    __slots__ = ("replica", "counter", "wanted")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    replica: int
    counter: int
    wanted: bool
    def __init__(self, replica: _Optional[int] = ..., counter: _Optional[int] = ..., wanted: _Optional[bool] = ...) -> None: ...

class ExchangeDeltasRequest(_message.Message):
    __slots__ = ("hello", "updates", "answers", "acked", "delivered", "proofs", "lost")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    PROOFS_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    hello: DeltaHello
    updates: _containers.RepeatedCompositeFieldContainer[_replication_pb2.OwnerUpdate]
    answers: _containers.RepeatedCompositeFieldContainer[DeltaAnswer]
    acked: _containers.RepeatedCompositeFieldContainer[_replication_pb2.Head]
    delivered: _containers.RepeatedCompositeFieldContainer[NodePositions]
    proofs: _containers.RepeatedScalarFieldContainer[bytes]
    lost: _containers.RepeatedCompositeFieldContainer[_replication_pb2.Head]
    def __init__(self, hello: _Optional[_Union[DeltaHello, _Mapping]] = ..., updates: _Optional[_Iterable[_Union[_replication_pb2.OwnerUpdate, _Mapping]]] = ..., answers: _Optional[_Iterable[_Union[DeltaAnswer, _Mapping]]] = ..., acked: _Optional[_Iterable[_Union[_replication_pb2.Head, _Mapping]]] = ..., delivered: _Optional[_Iterable[_Union[NodePositions, _Mapping]]] = ..., proofs: _Optional[_Iterable[bytes]] = ..., lost: _Optional[_Iterable[_Union[_replication_pb2.Head, _Mapping]]] = ...) -> None: ...

class NodePositions(_message.Message):
    __slots__ = ("node_id", "replica", "positions")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    replica: int
    positions: _containers.RepeatedCompositeFieldContainer[_replication_pb2.Head]
    def __init__(self, node_id: _Optional[str] = ..., replica: _Optional[int] = ..., positions: _Optional[_Iterable[_Union[_replication_pb2.Head, _Mapping]]] = ...) -> None: ...

class ExchangeDeltasResponse(_message.Message):
    __slots__ = ("hello", "offers", "updates", "acked", "delivered", "lost", "proofs")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    PROOFS_FIELD_NUMBER: _ClassVar[int]
    hello: DeltaHello
    offers: _containers.RepeatedCompositeFieldContainer[DeltaOffer]
    updates: _containers.RepeatedCompositeFieldContainer[_replication_pb2.OwnerUpdate]
    acked: _containers.RepeatedCompositeFieldContainer[_replication_pb2.Head]
    delivered: _containers.RepeatedCompositeFieldContainer[NodePositions]
    lost: _containers.RepeatedCompositeFieldContainer[_replication_pb2.Head]
    proofs: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, hello: _Optional[_Union[DeltaHello, _Mapping]] = ..., offers: _Optional[_Iterable[_Union[DeltaOffer, _Mapping]]] = ..., updates: _Optional[_Iterable[_Union[_replication_pb2.OwnerUpdate, _Mapping]]] = ..., acked: _Optional[_Iterable[_Union[_replication_pb2.Head, _Mapping]]] = ..., delivered: _Optional[_Iterable[_Union[NodePositions, _Mapping]]] = ..., lost: _Optional[_Iterable[_Union[_replication_pb2.Head, _Mapping]]] = ..., proofs: _Optional[_Iterable[bytes]] = ...) -> None: ...

class GetConsensusStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetConsensusStatusResponse(_message.Message):
    __slots__ = ("node_id", "version", "started_at", "epoch", "peers_reachable", "peers_total", "watchers", "roster_digest", "log_entries", "log_bytes", "updates_taken", "attached", "quarantined", "zone_gateway", "lag")
    class LagEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PEERS_REACHABLE_FIELD_NUMBER: _ClassVar[int]
    PEERS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    WATCHERS_FIELD_NUMBER: _ClassVar[int]
    ROSTER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    LOG_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    UPDATES_TAKEN_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    ZONE_GATEWAY_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    version: str
    started_at: _timestamp_pb2.Timestamp
    epoch: int
    peers_reachable: int
    peers_total: int
    watchers: int
    roster_digest: str
    log_entries: int
    log_bytes: int
    updates_taken: int
    attached: int
    quarantined: _containers.RepeatedScalarFieldContainer[str]
    zone_gateway: bool
    lag: _containers.ScalarMap[str, int]
    def __init__(self, node_id: _Optional[str] = ..., version: _Optional[str] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., epoch: _Optional[int] = ..., peers_reachable: _Optional[int] = ..., peers_total: _Optional[int] = ..., watchers: _Optional[int] = ..., roster_digest: _Optional[str] = ..., log_entries: _Optional[int] = ..., log_bytes: _Optional[int] = ..., updates_taken: _Optional[int] = ..., attached: _Optional[int] = ..., quarantined: _Optional[_Iterable[str]] = ..., zone_gateway: _Optional[bool] = ..., lag: _Optional[_Mapping[str, int]] = ...) -> None: ...
