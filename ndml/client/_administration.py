"""Calls about the suite itself, for operators: status, placement, snapshots, drain, backup. No I/O: the two clients add that."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import Unpack

from google.protobuf.message import DecodeError

from ndml.client import _decode as decode
from ndml.client import _encode as encode
from ndml.client import _models as models
from ndml.client._basics import Basics
from ndml.client._calls import Call, Streamed, Unary
from ndml.client._options import CallOptions
from ndml.errors import FieldInvalid
from ndml.v1 import admin_pb2


@dataclass(frozen=True, slots=True)
class Administration(Basics):
    """Whoever calls these must be an operator, where callers have names."""

    def cluster_status(self, **options: Unpack[CallOptions]) -> Unary[models.ClusterStatus]:
        """Every process of the suite; one that does not answer is shown as such, the call succeeds."""
        return Unary(self._call("admin", "GetClusterStatus", options), admin_pb2.GetClusterStatusRequest(), decode.cluster)

    def placement(self, **options: Unpack[CallOptions]) -> Unary[models.Placement]:
        """Who owns what, as the gateway sees it; `owners` are those of the user, where there is one."""
        scope = self._scope(options)
        request = admin_pb2.GetPlacementRequest(tenant=encode.text("tenant", scope.tenant), user=encode.text("user", scope.user))
        return Unary(self._call("admin", "GetPlacement", options), request, decode.placement)

    def create_snapshot(self, **options: Unpack[CallOptions]) -> Unary[builtins.list[models.Snapshot]]:
        """Every memory node writes a consistent copy of its store beside it, while it serves."""
        call = self._call("admin", "CreateSnapshot", options, repeatable=False)
        return Unary(call, admin_pb2.CreateSnapshotRequest(), decode.snapshots)

    def drain(self, node_id: str, **options: Unpack[CallOptions]) -> Streamed:
        """Hand a memory node's owners over to the others; after its last message the node may be stopped for good.

        Leaving the stream does not stop the drain. Raises FieldInvalid, OwnerUnavailable.
        """
        request = admin_pb2.DrainNodeRequest(node_id=encode.text("node_id", node_id))
        return Streamed(self._call("admin", "DrainNode", options, stream=True), request)

    def backup(self, **options: Unpack[CallOptions]) -> Streamed:
        """Every owner's memories as parts (bytes) that only `restore` reads, while the suite serves. Raises OwnerUnavailable."""
        return Streamed(self._call("admin", "Backup", options, stream=True, repeatable=False), admin_pb2.BackupRequest())

    def restore(self, **options: Unpack[CallOptions]) -> Call:
        """The call; `restored_part` makes its requests."""
        return self._call("admin", "Restore", options, stream=True)


def restored_part(part: bytes) -> admin_pb2.RestoreRequest:
    """A part of a backup as it goes back. Raises FieldInvalid for bytes that are none."""
    try:
        return admin_pb2.RestoreRequest(part=admin_pb2.BackupPart.FromString(part))
    except DecodeError:
        raise FieldInvalid("not a part of a backup: pass the parts on as backup gave them", field="part") from None
