"""The trace sink takes what the real exporter sends, stays bounded, and nests spans."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

from ndml.errors import Code
from ndml.runtime import semconv
from ndml.testing import Span, SpanNode, TraceSink, render, tree


@pytest.fixture
def sink() -> Iterator[TraceSink]:
    with TraceSink(capacity=40) as running:
        yield running


@pytest.fixture
def tracer(sink: TraceSink) -> Iterator[Tracer]:
    resource = Resource.create({semconv.SERVICE_NAME: "ndml-gateway", semconv.SERVICE_INSTANCE_ID: "gateway-1"})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=sink.endpoint, insecure=True)))
    yield provider.get_tracer("test")
    provider.shutdown()


def test_exported_spans_come_back_as_a_tree(sink: TraceSink, tracer: Tracer) -> None:
    with tracer.start_as_current_span("ndml.v1.MemoryService/SearchMemories", kind=SpanKind.SERVER) as root:
        with tracer.start_as_current_span("embed", attributes={semconv.CACHE_HIT: True}):
            pass
        with tracer.start_as_current_span("search_memory", attributes={semconv.MEMORY_K: 5, "other": [1, 2]}) as failing:
            failing.set_attribute(semconv.RPC_GRPC_STATUS_CODE, int(Code.UNAVAILABLE))
            failing.set_status(Status(StatusCode.ERROR, "owner is down"))
    trace_id = f"{root.get_span_context().trace_id:032x}"
    spans = sink.wait_for(trace_id, lambda spans: len(spans) == 3)
    assert {(s.service, s.instance) for s in spans} == {("ndml-gateway", "gateway-1")}
    (top,) = sink.tree(trace_id)
    assert (top.span.kind, top.span.parent_id) == ("server", "")
    assert [child.span.name for child in top.children] == ["embed", "search_memory"]
    assert top.children[1].span.attributes["other"] == [1, 2]
    assert (top.children[1].span.status, top.children[1].span.message) == ("ERROR", "owner is down")
    first, second, third = render([top])
    assert first.startswith("ndml-gateway") and first.endswith("OK")
    assert second.startswith("  ndml-gateway  embed") and second.endswith("OK  cache.hit=True")
    assert third.endswith("UNAVAILABLE  memory.k=5")


def test_wait_for_shows_what_has_come_when_it_gives_up(sink: TraceSink, tracer: Tracer) -> None:
    with tracer.start_as_current_span("alone") as span:
        pass
    trace_id = f"{span.get_span_context().trace_id:032x}"
    with pytest.raises(TimeoutError, match="alone"):
        sink.wait_for(trace_id, lambda spans: len(spans) == 2, timeout_s=0.1)
    with pytest.raises(TimeoutError):
        sink.find(lambda span: span.name == "never", timeout_s=0.1)


def test_the_oldest_traces_go_at_the_bound(sink: TraceSink, tracer: Tracer) -> None:
    for number in range(60):
        with tracer.start_as_current_span(f"span {number}"):
            pass
    assert sink.find(lambda span: span.name == "span 59")
    assert [span.name for span in sink.spans()] == [f"span {number}" for number in range(20, 60)]


def span(number: int, parent: int | None) -> Span:
    return Span(
        "s", "i", f"n{number}", "internal", "t", f"{number:x}", "" if parent is None else f"{parent:x}", number, number, "OK", "", {}, ()
    )


def below(node: SpanNode) -> list[str]:
    assert all(child.span.parent_id == node.span.span_id for child in node.children)
    return [node.span.span_id, *(span_id for child in node.children for span_id in below(child))]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(min_value=-1, max_value=40), min_size=1, max_size=40), st.randoms())
def test_a_tree_has_every_span_once_even_when_parents_are_missing(parents: list[int], random: object) -> None:
    # A parent is always an earlier span, or one that never comes (-1, or a number past the end).
    spans = [span(n, None if p == -1 else (p % n if n and p < len(parents) else p + 1000)) for n, p in enumerate(parents)]
    random.shuffle(spans)  # type: ignore[attr-defined]
    roots = tree(spans)
    assert sorted(span_id for root in roots for span_id in below(root)) == sorted(s.span_id for s in spans)
    assert len(render(roots)) == len(spans)
