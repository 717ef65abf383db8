import datetime

from buf.validate import validate_pb2 as _validate_pb2
from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MemberPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMBER_PHASE_UNSPECIFIED: _ClassVar[MemberPhase]
    MEMBER_PHASE_JOINING: _ClassVar[MemberPhase]
    MEMBER_PHASE_ACTIVE: _ClassVar[MemberPhase]
    MEMBER_PHASE_LEAVING: _ClassVar[MemberPhase]
    MEMBER_PHASE_LEFT: _ClassVar[MemberPhase]

class MemberState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMBER_STATE_UNSPECIFIED: _ClassVar[MemberState]
    MEMBER_STATE_ALIVE: _ClassVar[MemberState]
    MEMBER_STATE_SUSPECT: _ClassVar[MemberState]
    MEMBER_STATE_DOWN: _ClassVar[MemberState]
    MEMBER_STATE_STANDBY: _ClassVar[MemberState]
MEMBER_PHASE_UNSPECIFIED: MemberPhase
MEMBER_PHASE_JOINING: MemberPhase
MEMBER_PHASE_ACTIVE: MemberPhase
MEMBER_PHASE_LEAVING: MemberPhase
MEMBER_PHASE_LEFT: MemberPhase
MEMBER_STATE_UNSPECIFIED: MemberState
MEMBER_STATE_ALIVE: MemberState
MEMBER_STATE_SUSPECT: MemberState
MEMBER_STATE_DOWN: MemberState
MEMBER_STATE_STANDBY: MemberState

class PlacementMember(_message.Message):
    __slots__ = ("node_id", "address", "zone", "state", "phase")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    address: str
    zone: str
    state: MemberState
    phase: MemberPhase
    def __init__(self, node_id: _Optional[str] = ..., address: _Optional[str] = ..., zone: _Optional[str] = ..., state: _Optional[_Union[MemberState, str]] = ..., phase: _Optional[_Union[MemberPhase, str]] = ...) -> None: ...

class ServiceStatus(_message.Message):
    __slots__ = ("service", "instance", "address", "reachable", "error", "version", "uptime", "details")
    class DetailsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    REACHABLE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    service: str
    instance: str
    address: str
    reachable: bool
    error: str
    version: str
    uptime: _duration_pb2.Duration
    details: _containers.ScalarMap[str, str]
    def __init__(self, service: _Optional[str] = ..., instance: _Optional[str] = ..., address: _Optional[str] = ..., reachable: _Optional[bool] = ..., error: _Optional[str] = ..., version: _Optional[str] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., details: _Optional[_Mapping[str, str]] = ...) -> None: ...

class GetClusterStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetClusterStatusResponse(_message.Message):
    __slots__ = ("services", "epoch", "healthy")
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    services: _containers.RepeatedCompositeFieldContainer[ServiceStatus]
    epoch: int
    healthy: bool
    def __init__(self, services: _Optional[_Iterable[_Union[ServiceStatus, _Mapping]]] = ..., epoch: _Optional[int] = ..., healthy: _Optional[bool] = ...) -> None: ...

class GetPlacementRequest(_message.Message):
    __slots__ = ("tenant", "user")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    user: str
    def __init__(self, tenant: _Optional[str] = ..., user: _Optional[str] = ...) -> None: ...

class GetPlacementResponse(_message.Message):
    __slots__ = ("epoch", "members", "replication_factor", "owners")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    REPLICATION_FACTOR_FIELD_NUMBER: _ClassVar[int]
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    members: _containers.RepeatedCompositeFieldContainer[PlacementMember]
    replication_factor: int
    owners: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, epoch: _Optional[int] = ..., members: _Optional[_Iterable[_Union[PlacementMember, _Mapping]]] = ..., replication_factor: _Optional[int] = ..., owners: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateSnapshotRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SnapshotInfo(_message.Message):
    __slots__ = ("node_id", "path", "size_bytes", "traces", "sha256", "created_at")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TRACES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    path: str
    size_bytes: int
    traces: int
    sha256: str
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, node_id: _Optional[str] = ..., path: _Optional[str] = ..., size_bytes: _Optional[int] = ..., traces: _Optional[int] = ..., sha256: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CreateSnapshotResponse(_message.Message):
    __slots__ = ("snapshots",)
    SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    snapshots: _containers.RepeatedCompositeFieldContainer[SnapshotInfo]
    def __init__(self, snapshots: _Optional[_Iterable[_Union[SnapshotInfo, _Mapping]]] = ...) -> None: ...

class DrainNodeRequest(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    def __init__(self, node_id: _Optional[str] = ...) -> None: ...

class DrainNodeResponse(_message.Message):
    __slots__ = ("phase", "owners_left", "owners_total")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    OWNERS_LEFT_FIELD_NUMBER: _ClassVar[int]
    OWNERS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    phase: MemberPhase
    owners_left: int
    owners_total: int
    def __init__(self, phase: _Optional[_Union[MemberPhase, str]] = ..., owners_left: _Optional[int] = ..., owners_total: _Optional[int] = ...) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BackupPart(_message.Message):
    __slots__ = ("tenant", "user", "records", "owner_digest", "owner_records")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    OWNER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    OWNER_RECORDS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    user: str
    records: _containers.RepeatedScalarFieldContainer[bytes]
    owner_digest: bytes
    owner_records: int
    def __init__(self, tenant: _Optional[str] = ..., user: _Optional[str] = ..., records: _Optional[_Iterable[bytes]] = ..., owner_digest: _Optional[bytes] = ..., owner_records: _Optional[int] = ...) -> None: ...

class BackupResponse(_message.Message):
    __slots__ = ("part", "owners_done", "owners_total")
    PART_FIELD_NUMBER: _ClassVar[int]
    OWNERS_DONE_FIELD_NUMBER: _ClassVar[int]
    OWNERS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    part: BackupPart
    owners_done: int
    owners_total: int
    def __init__(self, part: _Optional[_Union[BackupPart, _Mapping]] = ..., owners_done: _Optional[int] = ..., owners_total: _Optional[int] = ...) -> None: ...

class RestoreRequest(_message.Message):
    __slots__ = ("part",)
    PART_FIELD_NUMBER: _ClassVar[int]
    part: BackupPart
    def __init__(self, part: _Optional[_Union[BackupPart, _Mapping]] = ...) -> None: ...

class RestoreResponse(_message.Message):
    __slots__ = ("owners", "changed", "records", "verified")
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_FIELD_NUMBER: _ClassVar[int]
    owners: int
    changed: int
    records: int
    verified: int
    def __init__(self, owners: _Optional[int] = ..., changed: _Optional[int] = ..., records: _Optional[int] = ..., verified: _Optional[int] = ...) -> None: ...
