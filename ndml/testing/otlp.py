"""A trace collector in the process: takes OTLP/gRPC, keeps a bounded number of spans, shows a trace as a tree."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from ndml.errors import Code
from ndml.runtime import semconv

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
_STATUS = {0: "UNSET", 1: "OK", 2: "ERROR"}
_KIND = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}


@dataclass(frozen=True, slots=True)
class Span:
    """One finished span. Ids are lower-case hexadecimal; `parent_id` is empty for the root."""

    service: str
    instance: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    status: str
    message: str
    attributes: dict[str, Any]
    links: tuple[str, ...]

    @property
    def duration_ms(self) -> float:
        return (self.end_ns - self.start_ns) / 1e6


@dataclass(slots=True)
class SpanNode:
    """A span and the spans below it, by start time."""

    span: Span
    children: list[SpanNode] = field(default_factory=list)


class TraceSink:
    """OTLP/gRPC trace collector on loopback; start() and stop(), or a context manager.

    Holds `capacity` spans; beyond it the oldest trace goes, so a long run does not grow.
    """

    def __init__(self, capacity: int = 20_000) -> None:
        self._capacity = capacity
        self._traces: OrderedDict[str, dict[str, Span]] = OrderedDict()
        self._count = 0
        self._changed = threading.Condition()
        self._server: grpc.Server | None = None
        self.endpoint = ""

    def start(self, host: str = "127.0.0.1") -> TraceSink:
        """Listen on a free port; `endpoint` (host:port) is what exporters need."""
        self._server = grpc.server(ThreadPoolExecutor(2, "trace-sink"))
        export = grpc.unary_unary_rpc_method_handler(
            self._export,
            request_deserializer=trace_service_pb2.ExportTraceServiceRequest.FromString,
            response_serializer=trace_service_pb2.ExportTraceServiceResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Export": export}),))
        self.endpoint = f"{host}:{self._server.add_insecure_port(f'{host}:0')}"
        self._server.start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(grace=1.0).wait()
            self._server = None

    def __enter__(self) -> TraceSink:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _export(self, request: Any, _context: grpc.ServicerContext) -> Any:
        with self._changed:
            for resource_spans in request.resource_spans:
                resource = _attributes(resource_spans.resource.attributes)
                for scope_spans in resource_spans.scope_spans:
                    for raw in scope_spans.spans:
                        self._keep(_span(raw, resource))
            self._changed.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def _keep(self, span: Span) -> None:
        spans = self._traces.setdefault(span.trace_id, {})
        self._count += span.span_id not in spans
        spans[span.span_id] = span
        while self._count > self._capacity and len(self._traces) > 1:
            _, dropped = self._traces.popitem(last=False)
            self._count -= len(dropped)

    def spans(self, trace_id: str | None = None) -> list[Span]:
        """Spans of a trace, or of all traces, by start time."""
        with self._changed:
            chosen = self._traces.values() if trace_id is None else [self._traces.get(trace_id, {})]
            return sorted((span for spans in chosen for span in spans.values()), key=lambda span: span.start_ns)

    def wait_for(self, trace_id: str, predicate: Callable[[list[Span]], bool], timeout_s: float = 10.0) -> list[Span]:
        """Spans of the trace as soon as `predicate` holds of them. Raises TimeoutError that shows what has come."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not predicate(spans := list(self._traces.get(trace_id, {}).values())):
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    seen = "\n".join(render(tree(spans))) or "(no span)"
                    raise TimeoutError(f"trace {trace_id} is not complete after {timeout_s} s; it has:\n{seen}")
        return sorted(spans, key=lambda span: span.start_ns)

    def find(self, predicate: Callable[[Span], bool], timeout_s: float = 10.0) -> Span:
        """Some span for which `predicate` holds, waiting for it. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for spans in reversed(self._traces.values()):
                    for span in spans.values():
                        if predicate(span):
                            return span
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError(f"no such span among {self._count} after {timeout_s} s")

    def tree(self, trace_id: str) -> list[SpanNode]:
        """The trace as trees; more than one root where a parent has not come (yet)."""
        return tree(self.spans(trace_id))


def tree(spans: Sequence[Span]) -> list[SpanNode]:
    """Nest spans under their parents, children by start time; a span whose parent is not among them is a root."""
    nodes = {span.span_id: SpanNode(span) for span in sorted(spans, key=lambda span: span.start_ns)}
    roots: list[SpanNode] = []
    for node in nodes.values():
        parent = nodes.get(node.span.parent_id)
        (roots if parent is None or parent is node else parent.children).append(node)
    return roots


_SHOWN = (
    semconv.NODE_ID,
    semconv.GEN_AI_REQUEST_MODEL,
    semconv.INDEX_KIND,
    semconv.BATCH_SIZE,
    semconv.MEMORY_K,
    semconv.MEMORY_HITS,
    semconv.MEMORY_COUNT,
    semconv.CACHE_HIT,
    semconv.QUEUE_MS,
    semconv.ERROR_TYPE,
)


def render(roots: Sequence[SpanNode]) -> list[str]:
    """One line a span, indented below its parent: service, name, milliseconds, status, key attributes."""
    flat = [(depth, node.span) for root in roots for depth, node in _walk(root, 0)]
    widest = max((2 * depth + len(span.service) for depth, span in flat), default=0)
    names = max((len(span.name) for _, span in flat), default=0)
    return [
        f"{'  ' * depth + span.service:<{widest}}  {span.name:<{names}}  {span.duration_ms:8.2f} ms  {outcome(span)}{_key_attributes(span)}"
        for depth, span in flat
    ]


def outcome(span: Span) -> str:
    """OK, or the canonical code's name where the call failed, or ERROR for a failed span that is no call."""
    code = span.attributes.get(semconv.RPC_GRPC_STATUS_CODE, 0)
    if code:
        return Code(code).name if code in Code.__members__.values() else f"CODE_{code}"
    return "ERROR" if span.status == "ERROR" else "OK"


def _walk(node: SpanNode, depth: int) -> list[tuple[int, SpanNode]]:
    return [(depth, node), *(pair for child in node.children for pair in _walk(child, depth + 1))]


def _key_attributes(span: Span) -> str:
    shown = [(key, span.attributes[key]) for key in _SHOWN if key in span.attributes]
    return "".join(f"  {key.removeprefix('ndml.')}={round(value, 2) if isinstance(value, float) else value}" for key, value in shown)


def _span(raw: trace_pb2.Span, resource: dict[str, Any]) -> Span:
    return Span(
        service=str(resource.get(semconv.SERVICE_NAME, "")),
        instance=str(resource.get(semconv.SERVICE_INSTANCE_ID, "")),
        name=raw.name,
        kind=_KIND.get(raw.kind, "unspecified"),
        trace_id=raw.trace_id.hex(),
        span_id=raw.span_id.hex(),
        parent_id=raw.parent_span_id.hex(),
        start_ns=raw.start_time_unix_nano,
        end_ns=raw.end_time_unix_nano,
        status=_STATUS.get(raw.status.code, "UNSET"),
        message=raw.status.message,
        attributes=_attributes(raw.attributes),
        links=tuple(link.trace_id.hex() for link in raw.links),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    which = value.WhichOneof("value")
    if which == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, which) if which else None
