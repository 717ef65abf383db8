import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from ndml.v1 import admin_pb2 as _admin_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeRecord(_message.Message):
    __slots__ = ("node_id", "address", "zone", "profile", "incarnation")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    address: str
    zone: str
    profile: str
    incarnation: int
    def __init__(self, node_id: _Optional[str] = ..., address: _Optional[str] = ..., zone: _Optional[str] = ..., profile: _Optional[str] = ..., incarnation: _Optional[int] = ...) -> None: ...

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

class GetConsensusStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetConsensusStatusResponse(_message.Message):
    __slots__ = ("node_id", "version", "started_at", "epoch", "peers_reachable", "peers_total", "watchers", "roster_digest")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PEERS_REACHABLE_FIELD_NUMBER: _ClassVar[int]
    PEERS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    WATCHERS_FIELD_NUMBER: _ClassVar[int]
    ROSTER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    version: str
    started_at: _timestamp_pb2.Timestamp
    epoch: int
    peers_reachable: int
    peers_total: int
    watchers: int
    roster_digest: str
    def __init__(self, node_id: _Optional[str] = ..., version: _Optional[str] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., epoch: _Optional[int] = ..., peers_reachable: _Optional[int] = ..., peers_total: _Optional[int] = ..., watchers: _Optional[int] = ..., roster_digest: _Optional[str] = ...) -> None: ...
