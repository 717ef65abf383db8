"""Everything that can go wrong, as one tree. Pure: no grpc here; `ndml.runtime.status` turns it into google.rpc.Status and back.

NdmlError
├── InvalidArgument      FieldInvalid, RequestMalformed, FieldUnknown, EmbeddingDimensionMismatch, EmbeddingNotFinite,
│                        EmbeddingModelMismatch, PageTokenInvalid, ConsistencyTokenInvalid
├── NotFound             TraceNotFound, ModelUnknown
├── AlreadyExists        RequestIdReused
├── Aborted              VersionConflict, StaleEpoch
├── FailedPrecondition   ModelNotConfigured, FusionUnsupported, ScoresUnsupported
├── Unauthenticated      CredentialsInvalid
├── PermissionDenied     TenantDenied
├── ResourceExhausted    CapacityReached, Overloaded, LearningBacklog
├── Unavailable          OwnerUnavailable, ModelUnavailable, StoreUnavailable, Draining
├── DeadlineExceeded     DeadlinePassed
├── Cancelled            CallCancelled
├── Unimplemented        NotAvailable
└── Internal             InternalFault
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

DOMAIN = "ndml.v1"


class Code(IntEnum):
    """Canonical gRPC status codes that NDML uses."""

    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that breaks its rule: path as in the proto, what is wrong and how to fix it, id of the rule."""

    field: str
    description: str
    rule: str = ""


class NdmlError(Exception):
    """Base of the tree. `code` and `reason` belong to the class; message, field and retry delay to the instance.

    Raise a leaf with a message that says what is wrong and what to do about it. `retry_after_s` becomes RetryInfo,
    `violations` (or `field`) BadRequest, `metadata` ErrorInfo.metadata.
    """

    code: ClassVar[Code] = Code.INTERNAL
    reason: ClassVar[str] = "INTERNAL"
    default_retry_s: ClassVar[float | None] = None

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        violations: Iterable[FieldViolation] = (),
        retry_after_s: float | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.violations = tuple(violations) or ((FieldViolation(field, message, self.reason),) if field else ())
        self.retry_after_s = retry_after_s if retry_after_s is not None else self.default_retry_s
        self.metadata = metadata or {}


class InvalidArgument(NdmlError):
    code = Code.INVALID_ARGUMENT


class FieldInvalid(InvalidArgument):
    reason = "FIELD_INVALID"


class RequestMalformed(InvalidArgument):
    reason = "REQUEST_MALFORMED"


class FieldUnknown(InvalidArgument):
    reason = "FIELD_UNKNOWN"


class EmbeddingDimensionMismatch(InvalidArgument):
    reason = "EMBEDDING_DIMENSION_MISMATCH"


class EmbeddingNotFinite(InvalidArgument):
    reason = "EMBEDDING_NOT_FINITE"


class EmbeddingModelMismatch(InvalidArgument):
    reason = "EMBEDDING_MODEL_MISMATCH"


class PageTokenInvalid(InvalidArgument):
    reason = "PAGE_TOKEN_INVALID"


class ConsistencyTokenInvalid(InvalidArgument):
    reason = "CONSISTENCY_TOKEN_INVALID"


class NotFound(NdmlError):
    code = Code.NOT_FOUND


class TraceNotFound(NotFound):
    reason = "TRACE_NOT_FOUND"


class ModelUnknown(NotFound):
    reason = "MODEL_UNKNOWN"


class AlreadyExists(NdmlError):
    code = Code.ALREADY_EXISTS


class RequestIdReused(AlreadyExists):
    reason = "REQUEST_ID_REUSED"


class Aborted(NdmlError):
    code = Code.ABORTED


class VersionConflict(Aborted):
    reason = "VERSION_CONFLICT"


class StaleEpoch(Aborted):
    reason = "STALE_EPOCH"


class FailedPrecondition(NdmlError):
    code = Code.FAILED_PRECONDITION


class ModelNotConfigured(FailedPrecondition):
    reason = "MODEL_NOT_CONFIGURED"


class FusionUnsupported(FailedPrecondition):
    reason = "FUSION_UNSUPPORTED"


class ScoresUnsupported(FailedPrecondition):
    reason = "SCORES_UNSUPPORTED"


class Unauthenticated(NdmlError):
    code = Code.UNAUTHENTICATED


class CredentialsInvalid(Unauthenticated):
    reason = "CREDENTIALS_INVALID"


class PermissionDenied(NdmlError):
    code = Code.PERMISSION_DENIED


class TenantDenied(PermissionDenied):
    reason = "TENANT_DENIED"


class ResourceExhausted(NdmlError):
    code = Code.RESOURCE_EXHAUSTED


class CapacityReached(ResourceExhausted):
    reason = "CAPACITY_REACHED"


class Overloaded(ResourceExhausted):
    reason = "OVERLOADED"
    default_retry_s = 0.2


class LearningBacklog(ResourceExhausted):
    reason = "LEARNING_BACKLOG"
    default_retry_s = 1.0


class Unavailable(NdmlError):
    code = Code.UNAVAILABLE
    default_retry_s = 0.5


class OwnerUnavailable(Unavailable):
    reason = "OWNER_UNAVAILABLE"


class ModelUnavailable(Unavailable):
    reason = "MODEL_UNAVAILABLE"


class StoreUnavailable(Unavailable):
    reason = "STORE_UNAVAILABLE"


class Draining(Unavailable):
    reason = "DRAINING"


class DeadlineExceeded(NdmlError):
    code = Code.DEADLINE_EXCEEDED


class DeadlinePassed(DeadlineExceeded):
    reason = "DEADLINE_EXCEEDED"


class Cancelled(NdmlError):
    code = Code.CANCELLED


class CallCancelled(Cancelled):
    reason = "CANCELLED"


class Unimplemented(NdmlError):
    code = Code.UNIMPLEMENTED


class NotAvailable(Unimplemented):
    reason = "NOT_AVAILABLE"


class Internal(NdmlError):
    code = Code.INTERNAL


class InternalFault(Internal):
    reason = "INTERNAL"


def leaves(root: type[NdmlError] = NdmlError) -> list[type[NdmlError]]:
    """Every concrete error below `root`, in the order of the tree."""
    below = root.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [root]


BY_REASON: dict[str, type[NdmlError]] = {leaf.reason: leaf for leaf in leaves()}
