"""Times that callers give, checked. Pure."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from ndml.errors import FieldInvalid, FieldViolation
from ndml.v1.memory_pb2 import NewMemory
from ndml.v1.types_pb2 import MemoryTrace

_LONGEST_BUDGET_S = 86_400
_LONGEST_LIFE_S = 100 * 366 * 86_400


def check_time(value: Timestamp, field_path: str) -> Timestamp:
    """Raises FieldInvalid for a time outside the years 1 to 9999."""
    if not (-62_135_596_800 <= value.seconds <= 253_402_300_799 and 0 <= value.nanos <= 999_999_999):
        violation = FieldViolation(field_path, "must be between year 1 and 9999, with 0 to 999,999,999 nanoseconds", "timestamp")
        raise FieldInvalid(f"{field_path}: {violation.description}", violations=[violation])
    return value


def check_validity(given: NewMemory | MemoryTrace, path: str) -> None:
    """Raises FieldInvalid for a time that is not one, or an end that does not come after the beginning."""
    for name in ("valid_from", "valid_until"):
        if given.HasField(name):
            check_time(getattr(given, name), f"{path}.{name}")
    if (
        given.HasField("valid_from")
        and given.HasField("valid_until")
        and given.valid_until.ToNanoseconds() <= given.valid_from.ToNanoseconds()
    ):
        raise FieldInvalid("must come after valid_from; leave it out where it holds until further notice", field=f"{path}.valid_until")


def check_expiry(value: Timestamp, now_ms: int, field_path: str) -> Timestamp:
    """Raises FieldInvalid for a time that is not one, or that has passed: what expires at once is not worth a write."""
    if check_time(value, field_path).ToMilliseconds() <= now_ms:
        raise FieldInvalid("must lie in the future; leave it out for a memory that does not expire", field=field_path)
    return value


def end_of_life(expires_at: Timestamp | None, ttl: Duration | None, now_ms: int, field_path: str) -> Timestamp | None:
    """When a memory written now ends: the earlier of its expiry and its time to live; None: never. Raises FieldInvalid."""
    ends = None if expires_at is None else check_expiry(expires_at, now_ms, f"{field_path}.expires_at")
    if ttl is None:
        return ends
    seconds = ttl.seconds + ttl.nanos / 1e9
    if not (abs(ttl.nanos) <= 999_999_999 and 0 < seconds <= _LONGEST_LIFE_S):
        raise FieldInvalid(
            "must be longer than 0 s and at most 100 years; leave it out for a memory that does not expire", field=f"{field_path}.ttl"
        )
    over = Timestamp()
    over.FromMilliseconds(now_ms + max(1, round(seconds * 1000)))
    return over if ends is None or over.ToMilliseconds() < ends.ToMilliseconds() else ends


def budget_ms(value: Duration, field_path: str) -> int:
    """Whole milliseconds, at least 1. Raises FieldInvalid for a duration that is not above zero, or is above a day."""
    seconds = value.seconds + value.nanos / 1e9
    if not (abs(value.nanos) <= 999_999_999 and 0 < seconds <= _LONGEST_BUDGET_S):
        raise FieldInvalid(f"must be longer than 0 s and at most {_LONGEST_BUDGET_S} s; leave it out for the node's own", field=field_path)
    return max(1, round(seconds * 1000))
