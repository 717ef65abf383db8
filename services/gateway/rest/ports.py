"""What the REST door needs of the gateway. It knows no gRPC: calls leave through `Dispatcher`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import Message


class Dispatcher(Protocol):
    """Carries one call through the pipeline that gRPC calls take: telemetry, auth, tenancy, validation, deadline, method.

    `method` is "/ndml.v1.MemoryService/AddMemory"; `metadata` has lower-case keys; `timeout_s` None means the server's default.
    Both raise leaves of `ndml.errors`; an error's `metadata["trace_id"]`, where set, is shown to the client.
    """

    async def unary(self, method: str, request: Message, metadata: Mapping[str, str], timeout_s: float | None) -> Message: ...

    def stream(self, method: str, request: Message, metadata: Mapping[str, str], timeout_s: float | None) -> AsyncIterator[Message]: ...


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What GET /health shows. `serving` is this process's own readiness: it never depends on a peer."""

    serving: bool
    service: str
    instance: str
    version: str
    uptime_s: float


Health = Callable[[], HealthReport]
