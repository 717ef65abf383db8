"""A trace collector in the process: takes OTLP/gRPC, keeps a bounded number of spans, shows a trace as a tree."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from ndml.runtime import semconv
from ndml.runtime.spans import KINDS, STATUSES, Span, SpanNode, render, tree

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


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

    def keep(self, span: Span) -> None:
        """Take a span as if an exporter had sent it."""
        with self._changed:
            self._keep(span)
            self._changed.notify_all()

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


def _span(raw: trace_pb2.Span, resource: dict[str, Any]) -> Span:
    return Span(
        service=str(resource.get(semconv.SERVICE_NAME, "")),
        instance=str(resource.get(semconv.SERVICE_INSTANCE_ID, "")),
        name=raw.name,
        kind=KINDS.get(raw.kind, "unspecified"),
        trace_id=raw.trace_id.hex(),
        span_id=raw.span_id.hex(),
        parent_id=raw.parent_span_id.hex(),
        start_ns=raw.start_time_unix_nano,
        end_ns=raw.end_time_unix_nano,
        status=STATUSES.get(raw.status.code, "UNSET"),
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
