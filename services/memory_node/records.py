"""A trace between wire and table: checked, hashed, serialised once. Pure.

A stored row never changes. An update writes a new row, with a new sequence number, and ends the old one. So a sequence number names one
content for ever: caches keyed by it are never stale, and a row that the index knows and the store lacks can only mean "gone".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b, sha256
from struct import Struct
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from ndml.contents import leave_out
from ndml.crdt.record import Version
from ndml.errors import EmbeddingDimensionMismatch, EmbeddingModelMismatch, EmbeddingNotFinite, FieldInvalid, NdmlError
from ndml.v1.types_pb2 import TRACE_KIND_EPISODIC, MemoryTrace
from services.memory_node import wire

F32 = NDArray[np.float32]

UPDATABLE = (
    *("text", "speaker", "said_at", "kind", "metadata", "salience", "provenance", "protected", "expires_at", "embedding"),
    *("valid_from", "valid_until", "contents"),
)

# What the node says of a trace, or a retry may say differently: not part of what is hashed.
_NOT_CONTENT = (
    *("said_at", "learned_at", "updated_at", "expires_at", "version", "embedding"),
    *("gate", "state", "strength", "history"),
)

_CHECKS, _NUMBERS = Struct("<III"), Struct("<7q2d4q")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799
# Tags of MemoryTrace's fields 6, 7, 8, 24, and field 12 with the value 1.
_SAID_AT, _LEARNED_AT, _UPDATED_AT, _EXPIRES_AT, _VERSION_1 = b"\x32", b"\x3a", b"\x42", b"\xc2\x01", b"\x60\x01"
# A squared length closer to 1 than this is left as it came, so that an exported vector is imported bit for bit.
_UNIT_TOLERANCE = 2e-6


class Owner(NamedTuple):
    """The storage partition that a trace belongs to."""

    tenant: str
    user: str


class TraceRow(NamedTuple):
    """One row of table `traces`, in the order of its columns. Times in microseconds since 1970, vector float32 of unit length.

    `payload` is a serialised MemoryTrace without its embedding; `first_sequence` the sequence of the trace's first row. `salience` and
    `encoding` (0 to 1) are what its state began with; `expires_at_us` 0: never. `replica`, `counter` and `clock` say which write this
    content is (replica 0: of this store); `checks` are `checks_of` the row, empty in a row of an older release.
    """

    sequence: int
    owner_id: int
    trace_id: bytes
    first_sequence: int
    kind: int
    said_at_us: int
    learned_at_us: int
    agent: str
    session: str
    speaker: str
    content_hash: bytes
    content_bytes: int
    vector: bytes
    payload: bytes
    salience: float
    encoding: float
    expires_at_us: int
    protected: int
    replica: int = 0
    counter: int = 1
    clock: int = 0
    checks: bytes = b""


class NewTrace(NamedTuple):
    """A checked trace that has no place in the store yet: a TraceRow without the numbers that the store gives."""

    trace_id: bytes
    kind: int
    said_at_us: int
    learned_at_us: int
    agent: str
    session: str
    speaker: str
    content_hash: bytes
    content_bytes: int
    vector: bytes
    payload: bytes
    salience: float
    encoding: float
    expires_at_us: int
    protected: int
    labels: tuple[tuple[str, str], ...]


class Judgement(NamedTuple):
    """What the write gate says of a trace on its way to the store.

    `made` holds what the node adds to it: gate and links. `duplicate_of`, where set, is the trace that is kept instead of it, since
    `kept_since`.
    """

    made: MemoryTrace
    duplicate_of: str = ""
    kept_since: Timestamp | None = None


def is_trace_id(text: str) -> bool:
    return _TRACE_ID.fullmatch(text) is not None


def parse_trace_id(text: str) -> bytes:
    """Raises FieldInvalid."""
    if not is_trace_id(text):
        raise FieldInvalid("trace_id must be 32 lower-case hexadecimal digits, as AddMemory returned it", field="trace_id")
    return bytes.fromhex(text)


def decimal(value: str) -> float | None:
    """The value of a label as a number, None when it does not read as a decimal one ("1_000", "nan" and "" do not)."""
    return float(value) if _DECIMAL.fullmatch(value) else None


def micros(time: Timestamp, field: str) -> int:
    """Microseconds since 1970. Raises FieldInvalid outside the years 1 to 9999."""
    if not (_FIRST_S <= time.seconds <= _LAST_S and 0 <= time.nanos < 1_000_000_000):
        raise FieldInvalid(f"{field} is not a time between the years 1 and 9999", field=field)
    return time.seconds * 1_000_000 + time.nanos // 1000


def timestamp(unix_us: int) -> Timestamp:
    return Timestamp(seconds=unix_us // 1_000_000, nanos=unix_us % 1_000_000 * 1000)


def new_trace(owner: Owner, trace: MemoryTrace, vector: bytes, now_us: int, made: MemoryTrace | None = None) -> NewTrace:
    """Check and serialise `trace`; `vector` is its embedding's, checked, `made` what the node itself says of it: gate, links. FieldInvalid.

    The owner is written into the payload here: what a trace says of its scope cannot differ from where it is stored.
    """
    trace_id = parse_trace_id(trace.trace_id)
    if not (trace.text or trace.contents):
        raise FieldInvalid("text is empty: a trace needs something to remember, in words or contents", field="text")
    learned_at = trace.learned_at if trace.HasField("learned_at") else timestamp(now_us)
    said_at = trace.said_at if trace.HasField("said_at") else learned_at
    times = (micros(said_at, "said_at"), micros(learned_at, "learned_at"))
    _check_interval(trace)
    learned = learned_at.SerializeToString()
    # Fields in any order are one message: the parts that a retry may change follow those that are hashed.
    tail = b"".join(
        (wire.field(_SAID_AT, said_at.SerializeToString()), wire.field(_LEARNED_AT, learned), wire.field(_UPDATED_AT, learned), _VERSION_1)
    )
    if trace.HasField("expires_at"):
        tail += wire.field(_EXPIRES_AT, trace.expires_at.SerializeToString())
    if made is not None:
        tail += made.SerializeToString()
    said = MemoryTrace()
    said.CopyFrom(trace)
    said.scope.tenant, said.scope.user = owner
    said.kind = trace.kind or TRACE_KIND_EPISODIC
    for name in _NOT_CONTENT:
        said.ClearField(name)
    content = said.SerializeToString(deterministic=True)
    if trace.HasField("expires_at"):
        said.expires_at.CopyFrom(trace.expires_at)
    # A time that the writer left out is filled in as "now" on the way here and differs between two tries of one request: not hashed.
    given = b"" if times[0] == times[1] else times[0].to_bytes(8, "little", signed=True)
    start = (trace.salience or made.gate.salience, made.gate.encoding_strength) if made is not None else (trace.salience, 0.0)
    digest = blake2b(_hashed(said, content) + given, digest_size=16).digest()
    return _row(said, trace_id, times, digest, vector, content + tail, start)


def _hashed(said: MemoryTrace, content: bytes) -> bytes:
    """`content`, which is `said`, without the vectors of contents: they follow from them, not to the last bit from one try to the next."""
    if not said.contents:
        return content
    bare = MemoryTrace()
    bare.CopyFrom(said)
    leave_out(bare, data=False, embeddings=True)
    return bare.SerializeToString(deterministic=True)


def changed_trace(old: TraceRow, change: MemoryTrace, fields: Sequence[str], vector: bytes, now_us: int) -> tuple[NewTrace, MemoryTrace]:
    """`old` with `fields` taken from `change`, its version one up; `vector` replaces the old one unless it is empty.

    Returns the new row's content and the trace as it reads now. Raises FieldInvalid.

    The content hash stays that of the first write: a late replay of it is still recognised. With the text go the links that rest on its
    words.
    """
    trace = MemoryTrace.FromString(old.payload)
    for name in fields:
        if name != "embedding":
            _take(trace, change, name)
    if "text" in fields:
        said = [link for link in trace.links if not link.evidence]
        del trace.links[:]
        trace.links.extend(said)
    if not (trace.text or trace.contents):
        raise FieldInvalid("text is empty: delete the trace instead", field="text")
    _check_interval(trace)
    trace.kind = trace.kind or TRACE_KIND_EPISODIC
    if not trace.HasField("said_at"):
        trace.said_at.CopyFrom(trace.learned_at)
    trace.version += 1
    trace.updated_at.CopyFrom(change.updated_at if change.HasField("updated_at") else timestamp(now_us))
    times = (micros(trace.said_at, "said_at"), old.learned_at_us)
    payload = trace.SerializeToString(deterministic=True)
    start = (trace.salience or old.salience, old.encoding)
    return _row(trace, old.trace_id, times, old.content_hash, vector or old.vector, payload, start), trace


def _check_interval(trace: MemoryTrace, path: str = "") -> None:
    """Raises FieldInvalid where an interval of validity is none."""
    ends = {name: micros(getattr(trace, name), f"{path}{name}") for name in ("valid_from", "valid_until") if trace.HasField(name)}
    if len(ends) == 2 and ends["valid_until"] <= ends["valid_from"]:
        raise FieldInvalid("must come after valid_from", field=f"{path}valid_until")


_CONTENT_BYTES = 1 << 20
"""Of one content that comes from another node: a text is 64 KiB at most, metadata 35 KiB, images and the like 512 KiB."""


def joined_trace(owner: Owner, trace_id: bytes, version: Version, content_hash: bytes) -> tuple[NewTrace, MemoryTrace]:
    """A version that another store wrote, as a row and as a message, checked as far as a liar could harm: whose it is, its id, its times.

    Raises FieldInvalid.
    """
    if len(version.content) > _CONTENT_BYTES:
        raise FieldInvalid(f"content has {len(version.content)} bytes, more than {_CONTENT_BYTES}", field="versions.content")
    try:
        trace = MemoryTrace.FromString(version.content)
    except DecodeError as error:
        raise FieldInvalid(f"content is no MemoryTrace ({error}): send it as it was stored", field="versions.content") from None
    scope = trace.scope
    if (scope.tenant, scope.user) != owner or trace.trace_id != trace_id.hex():
        raise FieldInvalid("content is of another owner or another trace than its record", field="versions.content")
    if (
        not (trace.text or trace.contents)
        or any(trace.HasField(name) for name in ("embedding", "strength"))
        or trace.history
        or trace.siblings
    ):
        raise FieldInvalid("content has no text, or what no stored content has", field="versions.content")
    if len(content_hash) != 16:
        raise FieldInvalid(f"content_hash has {len(content_hash)} bytes: 16", field="versions.content_hash")
    _check_interval(trace, "versions.content.")
    times = (micros(trace.said_at, "versions.content.said_at"), micros(trace.learned_at, "versions.content.learned_at"))
    start = (version.salience, version.encoding)
    return _row(trace, trace_id, times, content_hash, version.vector, version.content, start), trace


def check_fields(fields: Sequence[str], has_vector: bool) -> None:
    """Raises FieldInvalid for a field that cannot change, none at all, or a new text without its vector."""
    wrong = [name for name in fields if name not in UPDATABLE]
    if wrong or not fields:
        what = f"{wrong[0]!r} cannot be changed" if wrong else "it names no field"
        raise FieldInvalid(f"update_mask: {what}; take from {', '.join(UPDATABLE)}", field="update_mask")
    if not has_vector and not {"text", "contents", "embedding"}.isdisjoint(fields):
        raise FieldInvalid("a changed text, content or embedding needs the new vector in trace.embedding", field="trace.embedding")


def _take(trace: MemoryTrace, change: MemoryTrace, name: str) -> None:
    """Give field `name` of `trace` the value it has in `change`, which may be none."""
    trace.ClearField(name)
    field = MemoryTrace.DESCRIPTOR.fields_by_name[name]
    if not field.has_presence or change.HasField(name):
        trace.MergeFrom(MemoryTrace(**{name: getattr(change, name)}))


def _row(
    trace: MemoryTrace, trace_id: bytes, times: tuple[int, int], digest: bytes, vector: bytes, payload: bytes, start: tuple[float, float]
) -> NewTrace:
    labels = tuple(trace.metadata.items()) if trace.metadata else ()
    size = len(trace.text.encode()) + sum(len(key.encode()) + len(value.encode()) for key, value in labels)
    size += sum(len(content.data) + len(content.text.encode()) for content in trace.contents)
    scope = trace.scope
    # 0 is "never": what expired in 1970 or before expired long ago.
    expires_us = max(1, micros(trace.expires_at, "expires_at")) if trace.HasField("expires_at") else 0
    names = (scope.agent, scope.session, trace.speaker)
    return NewTrace(trace_id, trace.kind, *times, *names, digest, size, vector, payload, *start, expires_us, int(trace.protected), labels)


def checks_of(vector: bytes, payload: bytes, others: bytes = b"") -> bytes:
    """Three CRC-32, little-endian: of a row's vector, of its payload, of its other columns. SQLite notices a damaged page's structure, not
    a flipped bit inside a value; and a vector is read without its payload."""
    return _CHECKS.pack(crc32(vector), crc32(payload), crc32(others))


def row_checks(row: TraceRow) -> bytes:
    """`checks_of` the row as it should be."""
    return _row_checks(row)


def _row_checks(c: Sequence[Any]) -> bytes:
    # Not the replica: a restored store's is written anew. 0.0 is added because SQLite keeps no -0.
    numbers = _NUMBERS.pack(c[0], c[1], c[3], c[4], c[5], c[6], c[11], c[14] + 0.0, c[15] + 0.0, c[16], c[17], c[19], c[20])
    names = "\0".join(c[7:10]).encode()
    return checks_of(c[12], c[13], b"".join((numbers, c[2], c[10], names)))


def checked_row(columns: tuple[Any, ...]) -> TraceRow:
    """The row of these columns, all but its checks, with its checks."""
    return TraceRow(*columns, _row_checks(columns))  # type: ignore[call-arg]


def content_key(content: bytes, vector: bytes) -> bytes:
    """What versions are compared by: SHA-256 of what their writers said. Times and the node's own words (gate, links that it found) differ
    between two tries of one request at two nodes, and the vector follows from the text: none of them makes a conflict."""
    trace = MemoryTrace.FromString(content)
    apart = trace.HasField("said_at") and trace.said_at != trace.learned_at
    given = trace.said_at.ToNanoseconds() if apart else 0
    for name in (*_NOT_CONTENT, "links"):
        trace.ClearField(name)
    leave_out(trace, data=False, embeddings=True)
    return sha256(trace.SerializeToString(deterministic=True) + given.to_bytes(16, "little", signed=True)).digest()


def check_model(given: str, suite: str) -> None:
    """Raises EmbeddingModelMismatch; an empty name means the suite's model."""
    if given and given != suite:
        raise EmbeddingModelMismatch(
            f"the vector is of model {given!r}, this memory of {suite!r}: embed with {suite!r} or leave the embedding out",
            field="embedding.model",
        )


def unit_vectors(blobs: Sequence[bytes], dimension: int) -> tuple[F32, dict[int, NdmlError]]:
    """[n] blobs -> unit vectors [n, dimension], and for each bad one its error by position (its row is zero).

    Errors: EmbeddingDimensionMismatch, EmbeddingNotFinite (NaN, infinity, length zero).
    """
    width = 4 * dimension
    errors: dict[int, NdmlError] = {i: _wrong_size(len(b), dimension) for i, b in enumerate(blobs) if len(b) != width}
    joined = b"".join([b"\0" * width if i in errors else b for i, b in enumerate(blobs)] if errors else blobs)
    vectors: F32 = np.frombuffer(joined, "<f4").reshape(-1, dimension)
    with np.errstate(all="ignore"):
        off = np.nonzero(~(np.abs(np.einsum("nd,nd->n", vectors, vectors) - 1) <= _UNIT_TOLERANCE))[0]
    if not off.size:
        return vectors, errors
    vectors = vectors.astype(np.float32, copy=True)
    for i in off.tolist():
        # float64 here: a finite vector may overflow or vanish when squared in float32.
        wide = vectors[i].astype(np.float64)
        length = float(np.sqrt(wide @ wide))
        if np.isfinite(length) and length > 0:
            vectors[i] = wide / length
        else:
            vectors[i] = 0
            errors.setdefault(i, _not_finite(length))
    return vectors, errors


def _wrong_size(size: int, dimension: int) -> NdmlError:
    got = f"{size // 4} components" if size % 4 == 0 else f"{size} bytes, not a multiple of 4"
    return EmbeddingDimensionMismatch(f"the vector has {got}, this memory {dimension}: send {dimension} float32", field="embedding.vector")


def _not_finite(length: float) -> NdmlError:
    what = "has length zero" if length == 0 else "holds NaN or infinity"
    return EmbeddingNotFinite(f"the vector {what}: it has no direction to compare", field="embedding.vector")
