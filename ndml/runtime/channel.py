"""Channels to other services: keep-alive, bounded retries, trace context and deadline passed on; and hedged reads over several of them.

grpcio ignores the hedging policy of a service config, so hedging is done here.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from ndml.errors import Unavailable
from ndml.runtime import metrics, semconv
from ndml.runtime.interceptors import as_ndml_error
from ndml.runtime.renewing import RenewingChannel
from ndml.runtime.telemetry import set_error, trace_metadata, tracer
from ndml.runtime.tls import Material, TlsFiles

T = TypeVar("T")

# UNAVAILABLE alone: the call did not run, or its server is going away. Three tries span a process restart behind a load balancer, no more.
_RETRY = {
    "maxAttempts": 3,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_SERVICE_CONFIG = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": _RETRY}]})


class Dialer:
    """Opens every channel from one service to another, by TLS where the process has it. `Service` makes it, main.py hands it on."""

    def __init__(self, tls: TlsFiles | None = None) -> None:
        self._tls = tls if tls is not None and tls.settings.peers else None

    def open(self, address: str, *, retries: bool = True) -> grpc.aio.Channel:
        """As `open_channel`. Raises FieldInvalid from TLS files that were never read before."""
        return open_channel(address, retries=retries, tls=self._tls)


def open_channel(address: str, max_message_bytes: int = 64 << 20, *, retries: bool = True, tls: TlsFiles | None = None) -> grpc.aio.Channel:
    """A lazy channel to host:port; connects on first use and again, quickly, after every loss.

    retries: repeat a call that found its server unavailable; False where the caller does that itself.
    tls: show this certificate and trust its authorities, renewed ones with the next call; None: plain text.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", _SERVICE_CONFIG),
        ("grpc.enable_retries", int(retries)),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options, interceptors=[_UnaryContext()])  # type: ignore[list-item]
    if tls.settings.server_name:
        options.append(("grpc.ssl_target_name_override", tls.settings.server_name))

    def make(material: Material) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(material.ca, material.key, material.chain)
        interceptors: Any = [_UnaryContext()]
        return grpc.aio.secure_channel(address, credentials, options=options, interceptors=interceptors)

    return RenewingChannel(tls, make)


class _UnaryContext(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """A client span around each unary call of a traced request, and its context in the metadata."""

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        if not trace.get_current_span().is_recording():
            return await continuation(details, request)
        path = bytes(details.method).decode() if not isinstance(details.method, str) else details.method
        service, _, name = path.lstrip("/").partition("/")
        attributes = {semconv.RPC_SYSTEM: "grpc", semconv.RPC_SERVICE: service, semconv.RPC_METHOD: name}
        with tracer().start_as_current_span(f"{service}/{name}", kind=SpanKind.CLIENT, attributes=attributes) as span:
            metadata = [*(details.metadata or ()), *trace_metadata()]
            call = await continuation(details._replace(metadata=grpc.aio.Metadata(*metadata)), request)
            code = await call.code()
            if code is grpc.StatusCode.OK:
                span.set_attribute(semconv.RPC_GRPC_STATUS_CODE, 0)
            else:
                set_error(span, as_ndml_error(await _error_of(call)), server=False)
            return call


async def _error_of(call: Any) -> BaseException:
    try:
        await call
    except (grpc.RpcError, asyncio.CancelledError) as error:
        return error
    return RuntimeError("the call ended well")


class LatencyWindow:
    """The last `size` latencies and their 95th percentile: after that long a second replica is asked."""

    def __init__(self, size: int = 256, floor_s: float = 0.005, start_s: float = 0.05) -> None:
        self._samples: deque[float] = deque(maxlen=size)
        self._floor_s = floor_s
        self._p95_s = start_s

    def observe(self, seconds: float) -> None:
        self._samples.append(seconds)
        if len(self._samples) % 16 == 0:
            ordered = sorted(self._samples)
            self._p95_s = max(self._floor_s, ordered[int(0.95 * (len(ordered) - 1))])

    @property
    def p95_s(self) -> float:
        return self._p95_s


async def hedged(attempts: Sequence[Callable[[], Awaitable[T]]], window: LatencyWindow) -> T:
    """Run the first attempt; start the next one when p95 has passed or the one before found its server unavailable; first success wins.

    For reads only: an attempt that lost may still run on its server. Raises the last error when all fail, at once any error that another
    replica would give too. At most `len(attempts)` are started.
    """
    loop = asyncio.get_running_loop()
    started: list[asyncio.Task[T]] = []
    pending: set[asyncio.Task[T]] = set()
    waiting = list(attempts)
    began = loop.time()
    try:
        while True:
            if waiting:
                started.append(asyncio.ensure_future(waiting.pop(0)()))
                pending.add(started[-1])
            done, pending = await asyncio.wait(pending, timeout=window.p95_s if waiting else None, return_when=asyncio.FIRST_COMPLETED)
            winner = next((task for task in done if task.exception() is None), None)
            if winner is not None:
                window.observe(loop.time() - began)
                if len(started) > 1:
                    metrics.HEDGES.labels("lost" if winner is started[0] else "won").inc()
                return winner.result()
            for error in (task.exception() for task in done):
                if error is not None and (not isinstance(as_ndml_error(error), Unavailable) or not (pending or waiting)):
                    raise as_ndml_error(error) from error
    finally:
        for task in pending:
            task.cancel()
