"""The chain that every call passes, whichever door it came through: telemetry, log, error mapping, admission, auth, tenancy, validation,
deadline. One object, so that gRPC and REST cannot differ, and one Python frame, because at thousands of calls a second each nested
interceptor costs as much as the work it guards.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import Token
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError, Message
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind

from ndml.errors import CallCancelled, DeadlinePassed, Draining, InternalFault, NdmlError, Overloaded, RequestMalformed, TenantDenied
from ndml.runtime import metrics, semconv
from ndml.runtime.admission import Admission, Limits, Pace
from ndml.runtime.auth import Authenticator, choose_tenant
from ndml.runtime.call import Call
from ndml.runtime.log import get_logger
from ndml.runtime.telemetry import (
    BAGGAGE,
    TRACEPARENT,
    carry,
    format_traceparent,
    parent_context,
    parse_baggage,
    parse_traceparent,
    set_error,
    tenant_hash,
    tracer,
    tracing,
)
from ndml.wire import rpc_error_to_ndml

log = get_logger(__name__)

_REFUSALS_LOG_S = 1.0

Reply = Message | bytes
"""Bytes are a message that is serialised already."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC as its descriptor and its servicer give it.

    validated  check requests against the rules in their protos
    observe    takes the seconds that a call took, and what names its trace
    """

    path: str
    request: type[Message]
    response: type[Message]
    handler: Callable[..., Any]
    client_streaming: bool
    server_streaming: bool
    validated: bool
    observe: Callable[[float, dict[str, str] | None], None]


class Validator(Protocol):
    """Checks a request against the rules in its proto."""

    def __call__(self, message: Message) -> None:
        """Raises FieldInvalid."""
        ...


@dataclass(frozen=True, slots=True)
class ChainOptions:
    """What differs between services.

    authenticator      None behind the gateway, where callers are ours
    root_spans         start a trace for a call that brings none: at the edge only, else every heartbeat becomes a trace
    limits             what may be under way at once; more is refused
    default_deadline_s for a unary call without one
    slow_call_s        calls slower than this are logged at info
    """

    authenticator: Authenticator | None
    root_spans: bool
    limits: Limits
    default_deadline_s: float
    slow_call_s: float


class Chain:
    """Runs handlers with everything that must happen around them. Raises NdmlError only, and CancelledError."""

    def __init__(self, options: ChainOptions, validate: Validator, is_serving: Callable[[], bool]) -> None:
        self._options = options
        self._validate = validate
        self._is_serving = is_serving
        self.admission = Admission(options.limits)
        self._refusals = _Refusals()
        self._pace = Pace(options.limits.refusals_s)
        self.in_flight = 0
        metrics.RPC_IN_FLIGHT.set_function(lambda: self.in_flight)

    async def unary(self, method: Method, request: Any, call: Call) -> Reply:
        """Unary or client-streaming call. `request`: bytes or a message, or an async iterator of them."""
        with _Observed(self, method, call):
            self._admit(call)
            limit = call.remaining()
            if limit is None:
                limit = None if method.client_streaming else self._options.default_deadline_s
                call.deadline = None if limit is None else time.monotonic() + limit
            if method.client_streaming:
                streamed: Reply = await within(limit, method.handler(self._stream_of(method, request), call))
                return streamed
            self.admission.check_time(method.path, limit)
            return await self._counted(method, request, call, limit)

    async def _counted(self, method: Method, request: Any, call: Call, limit: float | None) -> Reply:
        size = len(request) if isinstance(request, bytes) else 0  # what is no bytes came through a door that counts its own
        self.admission.check_bytes(size)
        flow = self.admission.enter(method.path, size)
        took_s: float | None = None
        try:
            reply: Reply = await within(limit, method.handler(self._prepare(method, request), call))
            took_s = time.monotonic() - call.started
            return reply
        except (TimeoutError, DeadlinePassed):
            raise
        except Exception:
            took_s = time.monotonic() - call.started
            raise
        finally:
            self.admission.leave(flow, size, took_s)

    def is_crowded(self, path: str) -> bool:
        """Look at the deadline of a call before its request is read."""
        return self.admission.is_crowded(path) or self.in_flight >= self._options.limits.calls

    async def turn_away(self, path: str, remaining_s: float | None) -> NdmlError | None:
        """The refusal of a unary call for which there is no time, counted, logged, and not sooner than its turn; None: let it try.

        Past its capacity a service refuses more calls than it serves: what `unary` does around each would take the time of those served.
        """
        limit = self._options.default_deadline_s if remaining_s is None else remaining_s
        try:
            self.admission.check_calls(self.in_flight)
            self.admission.check_time(path, limit)
        except (Overloaded, DeadlinePassed) as error:
            self._refusals.note(path, error)
            await asyncio.sleep(self._pace.wait_s(limit))
            return error
        return None

    async def stream(self, method: Method, request: Any, call: Call) -> AsyncIterator[Reply]:
        """Server-streaming or bidirectional call; it lives as long as the caller listens."""
        with _Observed(self, method, call):
            self._admit(call)
            prepared = self._stream_of(method, request) if method.client_streaming else self._prepare(method, request)
            async for reply in method.handler(prepared, call):
                yield reply

    def _admit(self, call: Call) -> None:
        if not self._is_serving():
            raise Draining("this instance is starting or stopping: another one serves", retry_after_s=0.2)
        self.admission.check_calls(self.in_flight - 1)  # this one is counted already
        if self._options.authenticator is not None:
            principal = self._options.authenticator.authenticate(call)
            call.principal = principal.name
            call.tenant = choose_tenant(principal, call)
            if call.traceparent:
                _name_tenant(call)
            if "AdminService" in call.method and not principal.operator:
                raise TenantDenied(f"{call.method} is for operators: use a token whose entry says `operator: true`")

    def _prepare(self, method: Method, request: Any) -> Message:
        message = parse(method.request, request) if isinstance(request, bytes) else request
        if method.validated:
            self._validate(message)
        return message

    async def _stream_of(self, method: Method, requests: AsyncIterator[Any]) -> AsyncIterator[Message]:
        async for request in requests:
            yield self._prepare(method, request)


class _Refusals:
    """Counts each refusal, logs them once a second: under overload a line a call would fill the disk."""

    def __init__(self) -> None:
        self._unlogged = 0
        self._next = 0.0
        self._counters: dict[tuple[str, str], Any] = {}

    def note(self, path: str, error: NdmlError) -> None:
        key = (path, error.reason)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = metrics.RPC_ERRORS.labels(path, error.code.name, error.reason)
        counter.inc()
        metrics.RPC_TURNED_AWAY.labels(path).inc()
        self._unlogged += 1
        if (now := time.monotonic()) >= self._next:
            log.info("rpcs_refused", calls=self._unlogged, method=path, reason=error.reason, message=error.message)
            self._unlogged, self._next = 0, now + _REFUSALS_LOG_S


class _Observed:
    """Telemetry, log and error mapping around one call."""

    __slots__ = ("_call", "_chain", "_method", "_span", "_token")

    def __init__(self, chain: Chain, method: Method, call: Call) -> None:
        self._chain, self._method, self._call = chain, method, call
        self._span: Span | None = None
        self._token: Token[otel_context.Context] | None = None

    def __enter__(self) -> None:
        self._chain.in_flight += 1
        incoming = self._call.metadata.get(TRACEPARENT, "")
        if tracing() and (incoming or self._chain._options.root_spans):
            self._start_span(incoming)
        elif incoming:
            self._pass_on(incoming)

    def _start_span(self, incoming: str) -> None:
        service, _, name = self._method.path.lstrip("/").partition("/")
        attributes = {semconv.RPC_SYSTEM: "grpc", semconv.RPC_SERVICE: service, semconv.RPC_METHOD: name}
        span = tracer().start_span(
            f"{service}/{name}", context=parent_context(incoming) or otel_context.Context(), kind=SpanKind.SERVER, attributes=attributes
        )
        if span.is_recording():
            self._span = span
            context = trace.set_span_in_context(span)
            if hashed := self._tenant_told():
                span.set_attribute(semconv.TENANT_HASH, hashed)
                context = carry(hashed, context)
            self._token = otel_context.attach(context)
            self._call.traceparent = format_traceparent(span.get_span_context())
            self._call.tenant_hash = hashed

    def _pass_on(self, incoming: str) -> None:
        """No exporter here, but the next service may have one."""
        remote = parse_traceparent(incoming)
        if remote is not None and remote.trace_flags.sampled:
            self._call.traceparent, self._call.tenant_hash = incoming, self._tenant_told()

    def _tenant_told(self) -> str:
        """From the caller's baggage, where callers are ours; at the edge it is known once the call is authenticated."""
        if self._chain._options.authenticator is not None:
            return ""
        return parse_baggage(self._call.metadata.get(BAGGAGE, ""))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        self._chain.in_flight -= 1
        elapsed = time.monotonic() - self._call.started
        self._method.observe(elapsed, metrics.exemplar(self._call.traceparent))
        mapped = None if error is None or isinstance(error, GeneratorExit) else as_ndml_error(error)
        if mapped is not None:
            metrics.RPC_ERRORS.labels(self._method.path, mapped.code.name, mapped.reason).inc()
            if self._call.traceparent:
                mapped.metadata.setdefault("trace_id", self._call.traceparent.split("-")[1])
        self._log(mapped, error, elapsed)
        if self._span is not None:
            if mapped is not None:
                set_error(self._span, mapped)
            else:
                self._span.set_attribute(semconv.RPC_GRPC_STATUS_CODE, 0)
            self._span.end()
            self._detach()
        if mapped is not None and mapped is not error and isinstance(error, Exception):
            raise mapped from error

    def _detach(self) -> None:
        if self._token is None:
            return
        # A stream that its caller abandoned is closed in another task's context, where the token means nothing.
        try:
            self._token.var.reset(self._token)
        except ValueError:
            log.debug("span_context_of_other_task", method=self._method.path)

    def _log(self, mapped: NdmlError | None, error: BaseException | None, elapsed: float) -> None:
        row = {"method": self._method.path, "ms": round(elapsed * 1000, 2)}
        if mapped is None:
            if elapsed > self._chain._options.slow_call_s and not self._method.server_streaming:
                log.info("rpc_slow", **row)
            return
        row |= {"code": mapped.code.name, "reason": mapped.reason}
        if isinstance(mapped, InternalFault) and not isinstance(error, NdmlError):
            log.error("rpc_fault", exc_info=error, **row)
        elif isinstance(mapped, CallCancelled):
            log.debug("rpc_cancelled", **row)
        else:
            log.info("rpc_refused", message=mapped.message, fields=[v.field for v in mapped.violations], **row)


def _name_tenant(call: Call) -> None:
    """Its tenant's hash on the call's span, and as baggage of all that is called for it. The context goes with the call's task."""
    call.tenant_hash = tenant_hash(call.tenant)
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attribute(semconv.TENANT_HASH, call.tenant_hash)
        otel_context.attach(carry(call.tenant_hash))


def as_ndml_error(error: BaseException) -> NdmlError:
    """Any exception as a leaf of the tree; one that is not ours is an InternalFault."""
    if isinstance(error, NdmlError):
        return error
    if isinstance(error, TimeoutError):
        return DeadlinePassed("the deadline passed; a write may have happened: repeat it with the same request_id")
    if isinstance(error, grpc.RpcError):
        return rpc_error_to_ndml(error)
    if isinstance(error, asyncio.CancelledError):
        return CallCancelled("the caller went away")
    return InternalFault("internal fault: the server's log has the details under this call's trace id")


def parse(kind: type[Message], data: bytes) -> Message:
    """Raises RequestMalformed where `data` is not a `kind` (wrong UTF-8 in a string, truncated)."""
    try:
        return kind.FromString(data)
    except (DecodeError, UnicodeDecodeError, ValueError) as error:
        raise RequestMalformed(f"not a valid {kind.DESCRIPTOR.full_name}: strings must be UTF-8 ({error})") from None


async def within(limit: float | None, work: Awaitable[Any]) -> Any:
    """Await `work` for at most `limit` seconds. Raises TimeoutError."""
    if limit is None:
        return await work
    async with asyncio.timeout(limit):
        return await work
