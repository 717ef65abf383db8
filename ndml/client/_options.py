"""Everything that can be set on a client, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from ndml.errors import FieldInvalid

CONSISTENCIES = ("", "one", "quorum", "all")
DEFAULT_ADDRESS = "127.0.0.1:7700"


class CallOptions(TypedDict, total=False):
    """Keywords that every call takes; each replaces the client's default for this one call."""

    tenant: str
    user: str
    agent: str
    session: str
    timeout_s: float
    consistency: str
    """Copies that take part: "one", "quorum" or "all". Of a write: that have it on disk before the answer; of a read: that are joined."""
    headers: Mapping[str, str]
    """Sent as gRPC metadata, for example {"traceparent": "00-…"}; keys in lower case."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files for a TLS channel. `Tls()` trusts the roots that come with gRPC."""

    roots: Path | None = None
    """PEM file of the certificate authorities to trust."""
    key: Path | None = None
    """PEM file of the client's private key, for mutual TLS; needs `certificate`."""
    certificate: Path | None = None
    """PEM file of the client's certificate chain, for mutual TLS; needs `key`."""
    server_name: str = ""
    """Name to expect in the server's certificate where it is not the address."""

    def __post_init__(self) -> None:
        if (self.key is None) != (self.certificate is None):
            raise FieldInvalid("mutual TLS needs both key and certificate: give the two, or neither", field="tls.key")


@dataclass(frozen=True, slots=True)
class Retry:
    """When a failed attempt is repeated: the server was not there, or said when to come back, and repeating is safe."""

    attempts: int = 6
    """Tries in all. With the delays below they spread over some 3 s: long enough for a gateway's restart, short for a human."""
    first_delay_s: float = 0.1
    """Wait before the second try, doubled for each further one, up to a quarter less by chance so that clients do not come back in step."""
    max_delay_s: float = 2.0
    """Longest wait. Where the server's RetryInfo asks for more, the error goes to the caller at once."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 < self.first_delay_s <= self.max_delay_s:
            raise FieldInvalid("retry needs attempts >= 1 and 0 < first_delay_s <= max_delay_s", field="retry")


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """What one seldom changes."""

    tls: Tls | None = None
    """Encrypt; None is plaintext, for loopback and meshes that encrypt by themselves."""
    retry: Retry = field(default_factory=Retry)
    """How failed attempts are repeated."""
    session_consistency: bool = True
    """Calls carry the consistency tokens that this client got for the owner: they see its writes, and no less than it has seen."""
    consistency: str = ""
    """Copies that take part where the call does not say: "one", "quorum" or "all". Empty: the suite's settings; of reads, one."""
    remembered_owners: int = 10_000
    """Owners whose token is kept; the least recently used falls out. 10,000 tokens are about 2 MB."""
    stream_timeout_s: float = 3600.0
    """Deadline of export, import and chat where the call sets none: long enough for a large owner, not for ever."""
    chunk_items: int = 256
    """Memories in one message of add_many and import_; the server's limit is 256."""
    chunk_bytes: int = 2 << 20
    """Bytes in one such message: well under gRPC's default limit of 4 MiB, so that any proxy on the way lets it through."""
    max_message_bytes: int = 64 << 20
    """Largest answer taken: a page of 1,000 traces of 64 KiB."""
    keepalive_s: float = 30.0
    """Silence after which a call under way checks that the connection lives; below the 60 s after which many balancers cut it."""

    def __post_init__(self) -> None:
        if not 1 <= self.chunk_items <= 256:
            raise FieldInvalid("chunk_items must be 1 to 256, the server's limit for one message", field="options.chunk_items")
        if self.consistency not in CONSISTENCIES:
            raise FieldInvalid(f"consistency must be one of one, quorum, all; got {self.consistency!r}", field="options.consistency")
        for name in ("remembered_owners", "stream_timeout_s", "chunk_bytes", "max_message_bytes", "keepalive_s"):
            if getattr(self, name) <= 0:
                raise FieldInvalid(f"{name} must be greater than 0", field=f"options.{name}")
