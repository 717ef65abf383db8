"""Domain errors on the wire: NdmlError <-> google.rpc.Status, with ErrorInfo, BadRequest and RetryInfo as details."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from ndml import errors
from ndml.errors import BY_REASON, DOMAIN, Code, FieldViolation, NdmlError

# What a status without our ErrorInfo means: it was made by grpc itself (deadline, dead connection, message too large).
_BY_CODE: dict[int, type[NdmlError]] = {
    Code.CANCELLED: errors.CallCancelled,
    Code.INVALID_ARGUMENT: errors.RequestMalformed,
    Code.DEADLINE_EXCEEDED: errors.DeadlinePassed,
    Code.RESOURCE_EXHAUSTED: errors.Overloaded,
    Code.UNIMPLEMENTED: errors.NotAvailable,
    Code.UNAVAILABLE: errors.OwnerUnavailable,
    Code.UNAUTHENTICATED: errors.CredentialsInvalid,
    Code.PERMISSION_DENIED: errors.TenantDenied,
}

_TOO_LARGE = "message larger than max"

# A status travels as trailing metadata, the message percent-encoded beside it. grpc drops a call whose metadata is above 8 KiB (at times;
# above 16 KiB always) and the caller sees RESOURCE_EXHAUSTED: these bounds keep the worst case below 8 KiB.
_MESSAGE_BYTES = 768
_FIELD_BYTES = 256
_VIOLATIONS_BYTES = 2560


def error_to_status(error: NdmlError) -> status_pb2.Status:
    """The error as google.rpc.Status: canonical code, message, ErrorInfo always, BadRequest and RetryInfo where they fit.

    Long texts are cut (they may quote what a caller sent) and violations past 2.5 kB left out.
    """
    status = status_pb2.Status(code=int(error.code), message=_clip(error.message, _MESSAGE_BYTES))
    _add(status, error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
    if error.violations:
        _add(status, _bad_request(error.violations))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(error.retry_after_s * 1000))
        _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def status_to_error(status: status_pb2.Status) -> NdmlError:
    """Inverse of `error_to_status`; a status without our ErrorInfo becomes the leaf that its code stands for."""
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    found = {kind.DESCRIPTOR.full_name for kind in (info, bad, retry) for detail in status.details if detail.Unpack(kind)}
    kind = BY_REASON.get(info.reason) if info.domain == DOMAIN else None
    if kind is None and _TOO_LARGE in status.message:  # grpc's own refusal: the same message will not fit the next time either
        kind = errors.FieldInvalid
    return (kind or _BY_CODE.get(status.code, errors.InternalFault))(
        status.message,
        violations=[FieldViolation(v.field, v.description, v.reason) for v in bad.field_violations],
        retry_after_s=retry.retry_delay.ToMilliseconds() / 1000 if "google.rpc.RetryInfo" in found else None,
        metadata=dict(info.metadata),
    )


_LOST = "Internal error from Core"
"""What grpc.aio itself says, no server, where the connection went while a message was being sent."""


def rpc_error_to_ndml(error: grpc.RpcError) -> NdmlError:
    """What a failed call means. Takes the grpc and the grpc.aio error alike."""
    metadata: Iterable[tuple[str, Any]] = error.trailing_metadata() or ()  # type: ignore[assignment]
    for key, value in metadata:
        if key == "grpc-status-details-bin":
            return status_to_error(status_pb2.Status.FromString(value))
    code: grpc.StatusCode = error.code()
    if code is grpc.StatusCode.INTERNAL and error.details() == _LOST:
        code = grpc.StatusCode.UNAVAILABLE
    return status_to_error(status_pb2.Status(code=code.value[0], message=error.details() or code.name))


def to_grpc_status(error: NdmlError) -> grpc.Status:
    """The error in the form that `ServicerContext.abort_with_status` takes."""
    result: grpc.Status = rpc_status.to_status(error_to_status(error))
    return result


def _clip(text: str, limit: int) -> str:
    data = text.encode("utf-8", "replace")
    return text if len(data) <= limit else data[: limit - 3].decode("utf-8", "ignore") + "…"


def _bad_request(violations: Iterable[FieldViolation]) -> error_details_pb2.BadRequest:
    request = error_details_pb2.BadRequest()
    for v in violations:
        row = request.field_violations.add(field=_clip(v.field, _FIELD_BYTES), description=_clip(v.description, _MESSAGE_BYTES))
        row.reason = _clip(v.rule, _FIELD_BYTES)
        if request.ByteSize() > _VIOLATIONS_BYTES and len(request.field_violations) > 1:
            del request.field_violations[-1]
            break
    return request


def _add(
    status: status_pb2.Status, detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo
) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
