"""Traces: OpenTelemetry set-up and the few calls that services need. Without an OTLP endpoint context passes through, no span is made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from hashlib import blake2b

from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio, Sampler
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

import ndml
from ndml.errors import Code, NdmlError
from ndml.runtime import semconv
from ndml.runtime.settings import TelemetrySettings

TRACEPARENT = "traceparent"
BAGGAGE = "baggage"

TraceMetadata = tuple[tuple[str, str], ...]
"""Trace context and baggage as metadata of a call; empty where nothing is traced."""

_QUEUE_LIMIT = 8192
_MOST_BAGGAGE = 64  # members that are looked at; W3C lets a sender drop what is beyond 64
_HASH_DIGITS = 16
_HEX = frozenset("0123456789abcdef")
_MOST_LINKS = 32  # of a span; more say nothing that these do not
_NO_SPAN: AbstractContextManager[Span] = nullcontext(trace.INVALID_SPAN)

# Codes that are the caller's doing: the RPC conventions leave a server span's status unset for them.
_CALLERS_FAULT = {
    Code.CANCELLED,
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.ALREADY_EXISTS,
    Code.PERMISSION_DENIED,
    Code.UNAUTHENTICATED,
    Code.RESOURCE_EXHAUSTED,
    Code.FAILED_PRECONDITION,
    Code.ABORTED,
}


def configure_telemetry(settings: TelemetrySettings, service: str, instance: str) -> TracerProvider | None:
    """Export spans to `otlp_endpoint`; None when it is empty. The caller shuts the provider down to flush it."""
    if not settings.otlp_endpoint:
        return None
    resource = Resource.create(
        {semconv.SERVICE_NAME: service, semconv.SERVICE_INSTANCE_ID: instance, semconv.SERVICE_VERSION: ndml.__version__}
    )
    provider = TracerProvider(resource=resource, sampler=sampler_of(settings))
    exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint, insecure=settings.otlp_insecure)
    provider.add_span_processor(
        BatchSpanProcessor(exporter, max_queue_size=_QUEUE_LIMIT, schedule_delay_millis=settings.export_interval_ms)
    )
    trace.set_tracer_provider(provider)
    return provider


def sampler_of(settings: TelemetrySettings) -> Sampler:
    """A caller's decision is followed; of traces that begin here the share `sample_ratio` is kept, the same in every process."""
    return ParentBasedTraceIdRatio(settings.sample_ratio)


def tracing() -> bool:
    """Whether spans are made in this process at all."""
    return isinstance(trace.get_tracer_provider(), TracerProvider)


def tracer() -> trace.Tracer:
    return trace.get_tracer("ndml", ndml.__version__)


def span(name: str, attributes: Mapping[str, AttributeValue] | None = None) -> AbstractContextManager[Span]:
    """A span below the current one; makes none where nothing is being traced. Keys of `attributes` come from semconv."""
    if not trace.get_current_span().is_recording():
        return _NO_SPAN
    return tracer().start_as_current_span(name, attributes=attributes)


def parse_traceparent(value: str) -> SpanContext | None:
    """W3C `00-<32 hex>-<16 hex>-<2 hex>`; None when it is anything else."""
    parts = value.split("-")
    if len(parts) != 4 or [len(p) for p in parts] != [2, 32, 16, 2]:
        return None
    try:
        trace_id, span_id, flags = int(parts[1], 16), int(parts[2], 16), int(parts[3], 16)
    except ValueError:
        return None
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return context if context.is_valid else None


def format_traceparent(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def tenant_hash(tenant: str) -> str:
    """Names a tenant in spans and baggage without naming the customer: 16 hexadecimal digits, the same everywhere."""
    return blake2b(tenant.encode(), digest_size=8).hexdigest()


def parse_baggage(value: str) -> str:
    """The tenant's hash of a W3C `baggage` header; "" where it has none of the right form. What else is in it is not ours to pass on."""
    for member in value.split(",", _MOST_BAGGAGE)[:_MOST_BAGGAGE]:
        key, _, rest = member.partition("=")
        found = rest.partition(";")[0].strip()
        if key.strip() == semconv.TENANT_HASH and len(found) == _HASH_DIGITS and set(found) <= _HEX:
            return found
    return ""


def carry(hashed: str, context: otel_context.Context | None = None) -> otel_context.Context:
    """`context`, or the current one, with a tenant's hash as baggage."""
    return baggage.set_baggage(semconv.TENANT_HASH, hashed, context)


@contextmanager
def tenant_carried(tenant: str) -> Iterator[str]:
    """Work for this tenant: its hash, as an attribute of the current span and as baggage of every call. "" where nothing is traced."""
    current = trace.get_current_span()
    if not current.is_recording():
        yield ""
        return
    hashed = tenant_hash(tenant)
    current.set_attribute(semconv.TENANT_HASH, hashed)
    token = otel_context.attach(carry(hashed))
    try:
        yield hashed
    finally:
        otel_context.detach(token)


def metadata_of(traceparent: str, hashed: str) -> TraceMetadata:
    """Of a traced request, for a call made for it. `hashed`: its tenant's hash, "" where it is not known."""
    if not traceparent:
        return ()
    return ((TRACEPARENT, traceparent), (BAGGAGE, f"{semconv.TENANT_HASH}={hashed}")) if hashed else ((TRACEPARENT, traceparent),)


def trace_metadata() -> TraceMetadata:
    """Of the current span if it is sampled, with the baggage that came with it."""
    return metadata_of(current_traceparent(), str(baggage.get_baggage(semconv.TENANT_HASH) or ""))


def current_traceparent() -> str:
    """Of the current span if it is sampled, else ""."""
    context = trace.get_current_span().get_span_context()
    return format_traceparent(context) if context.is_valid and context.trace_flags.sampled else ""


def parent_context(traceparent: str) -> otel_context.Context | None:
    parsed = parse_traceparent(traceparent) if traceparent else None
    return None if parsed is None else trace.set_span_in_context(NonRecordingSpan(parsed), otel_context.Context())


def server_span_at(
    name: str,
    traceparent: str,
    start_ns: int,
    end_ns: int,
    attributes: Mapping[str, AttributeValue] | None = None,
    error: NdmlError | None = None,
) -> None:
    """Record a finished server span below a remote parent: for operations that run inside a batch. Times are `time.time_ns()`."""
    parent = parent_context(traceparent)
    if parent is None:
        return
    made = tracer().start_span(name, context=parent, kind=SpanKind.SERVER, attributes=attributes, start_time=start_ns)
    if error is not None:
        set_error(made, error)
    made.end(end_ns)


def links(traceparents: Iterable[str]) -> list[Link]:
    """Links to the requests that work shared by them serves: each once, a bounded number."""
    found: dict[str, Link] = {}
    for value in traceparents:
        if len(found) == _MOST_LINKS:
            break
        if value not in found and (context := parse_traceparent(value)) is not None:
            found[value] = Link(context)
    return list(found.values())


@contextmanager
def linked_span(
    name: str,
    traceparents: Iterable[str] = (),
    attributes: Mapping[str, AttributeValue] | None = None,
    *,
    below: bool = False,
    start_ns: int | None = None,
) -> Iterator[Span]:
    """A span that begins a trace, linked to the requests that it serves: they ended long ago, so it is no part of theirs.

    below: where there is a current span it goes below that; start_ns: where it turned out later that there was something to tell,
    `time.time_ns()` of its beginning.
    """
    if not tracing():
        yield trace.INVALID_SPAN
        return
    context = None if below else otel_context.Context()
    made = tracer().start_span(name, context=context, links=links(traceparents), attributes=attributes, start_time=start_ns)
    with trace.use_span(made, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield made
        except NdmlError as error:
            set_error(made, error)
            raise


@contextmanager
def untraced() -> Iterator[None]:
    """What happens inside is part of no trace: one of many like it."""
    token = otel_context.attach(otel_context.Context())
    try:
        yield
    finally:
        otel_context.detach(token)


def link_here(traceparents: Iterable[str]) -> None:
    """Link the current span to these requests."""
    current = trace.get_current_span()
    if current.is_recording():
        for link in links(traceparents):
            current.add_link(link.context)


def count_here(key: str, amount: int) -> None:
    """Add to a number among the current span's attributes."""
    current = trace.get_current_span()
    if isinstance(current, ReadableSpan) and current.is_recording():
        before = (current.attributes or {}).get(key, 0)
        current.set_attribute(key, amount + (before if isinstance(before, int) else 0))


def owner_hash(tenant: str, user: str) -> str:
    """Names an owner in a span without naming the user: 16 hexadecimal digits, the same everywhere."""
    return blake2b(f"{len(tenant)}:{tenant}{user}".encode(), digest_size=8).hexdigest()


def set_error(made: Span, error: NdmlError, *, server: bool = True) -> None:
    """Record the outcome as the RPC conventions want it: a server span is an error only when the server is at fault."""
    made.set_attribute(semconv.RPC_GRPC_STATUS_CODE, int(error.code))
    made.set_attribute(semconv.ERROR_TYPE, error.reason)
    if not server or error.code not in _CALLERS_FAULT:
        made.set_status(Status(StatusCode.ERROR, error.message))
